"""The commands as a person meets them: messages, exit statuses, files."""

import gzip
import json
import os
import shlex
import signal
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from loader.checkpoint import Checkpoint
from loader.demo import make_export
from tests.end_to_end import oracle
from tests.end_to_end.command import loader

USERS = "email,Dept,Cost Centre,Site,Reports\na@x.com,Sales,1,Wien,3\nb@x.com,Legal,2,,\nc@x.com,Ops,3,Sydney,0\n"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with oracle.sandbox("--unknown", "^former") as address:
        yield address


def settings(folder: Path, url: str, text: str = USERS, **more: object) -> Path:
    (folder / "users.csv").write_text(text)
    return oracle.write_settings(folder, url, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["hmac", "client-secret", "basic"])
def test_a_load_ends_with_an_outcome_for_every_row(tmp_path: Path, url: str, scheme: str) -> None:
    """Each scheme loads; status 0, and results name every row."""
    status, out, err = oracle.run("run", settings(tmp_path, url, scheme=scheme))

    assert (status, out) == (0, ""), err
    rows = oracle.results(tmp_path / "users.ckpt")
    assert [(r["row"], r["user"], r["code"], r["target_code"], r["http_status"], r["attempts"]) for r in rows[:1]] == [
        ("1", "a@x.com", "SUCCESS", "0", "200", "1")
    ]
    assert len(rows) == 3


def test_a_bearer_token_is_taken_as_it_is(tmp_path: Path) -> None:
    """The bearer scheme sends the token that was given."""
    with oracle.sandbox("--token", "T") as address:
        status, _, err = oracle.run("run", settings(tmp_path, address, scheme="bearer"))

    assert status == 0, err


def test_a_finished_load_sends_nothing_and_ends_as_it_ended(tmp_path: Path, url: str) -> None:
    """Run again, a finished load says so and exits the same."""
    path = settings(tmp_path, url, USERS + "former@x.com,Sales,1,Wien,1\n")
    first = oracle.run("run", path)
    before = oracle.get(url, "stats")[0]["writes"]

    again = oracle.run("run", path)

    assert (first[0], again[0]) == (1, 1)
    assert "finished" in again[2]
    assert before == oracle.get(url, "stats")[0]["writes"]


def test_another_mapping_is_refused_with_the_difference(tmp_path: Path, url: str) -> None:
    """A checkpoint belongs to one load; the message says what differs and how to start over."""
    path = settings(tmp_path, url)
    oracle.run("run", path)

    status, _, err = oracle.run("run", path, "--set", "mapping.empty=null")

    assert status == 2
    assert "mapping.empty: was 'omit', is 'null'" in err
    assert "--fresh" in err


def test_a_changed_export_is_refused_and_fresh_keeps_the_old_checkpoint(tmp_path: Path, url: str) -> None:
    """--fresh loads the changed export anew and leaves the old outcomes aside."""
    path = settings(tmp_path, url)
    oracle.run("run", path)
    (tmp_path / "users.csv").write_text(USERS + "d@x.com,Ops,3,Sydney,0\n")

    refused = oracle.run("run", path)
    fresh = oracle.run("run", path, "--fresh")

    assert (refused[0], fresh[0]) == (2, 0), fresh[2]
    assert "its size was" in refused[2]
    assert len(oracle.results(tmp_path / "users.ckpt")) == 4
    assert len(list(tmp_path.glob("users.ckpt.2*"))) == 1


def test_a_touched_copy_is_the_same_export(tmp_path: Path, url: str) -> None:
    """Another time of the same content doesn't matter."""
    path = settings(tmp_path, url)
    oracle.run("run", path)
    os.utime(tmp_path / "users.csv", (1, 1))

    assert oracle.run("run", path)[0] == 0


def test_a_second_run_is_kept_out(tmp_path: Path) -> None:
    """While a run holds the checkpoint another is refused, and status and results can be asked."""
    with oracle.sandbox("--latency", "0.3") as address:
        make_export(tmp_path / "users.csv", 5000, 1)
        path = oracle.write_settings(tmp_path, address, concurrency=2)
        first = oracle.start("run", path)
        oracle.wait_for_rows(tmp_path / "users.ckpt", 1)

        status, _, err = oracle.run("run", path)
        asked = oracle.run("status", tmp_path / "users.ckpt", "--format", "json")
        first.kill()
        first.communicate()

    assert status == 2
    assert f"process {first.pid}" in err
    assert (json.loads(asked[1])["state"], json.loads(asked[1])["process"]) == ("running", str(first.pid))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_what_is_in_flight_finish(tmp_path: Path, number: signal.Signals, status: int) -> None:
    """Everything that the API accepted has its outcome; the run goes on later, and resends nothing."""
    expected = make_export(tmp_path / "users.csv", 5000, 2)
    with oracle.sandbox("--latency", "0.1", "--unknown", "former") as address:
        path = oracle.write_settings(tmp_path, address, concurrency=4)
        process = oracle.start("run", path)
        oracle.wait_for_rows(tmp_path / "users.ckpt", 500)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)

        assert status == process.returncode, err
        assert f"loader run {path}" in err
        assert oracle.run("run", path)[0] == 1
        assert oracle.compare(address, tmp_path / "users.ckpt", expected) == 0


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    """Nobody has to wait for a target that hangs."""
    make_export(tmp_path / "users.csv", 2000, 3)
    with oracle.sandbox("--latency", "20", "--faults-on", "data") as address:
        process = oracle.start("run", oracle.write_settings(tmp_path, address))
        oracle.wait_for_file(tmp_path / "users.ckpt")
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=5)

    assert process.returncode == 130


def test_wrong_credentials_stop_with_the_apis_words(tmp_path: Path, url: str) -> None:
    """A refused key is status 3, and the secret is in no message."""
    status, _, err = oracle.run("run", settings(tmp_path, url), environment={"LOADER_TEST_SECRET": "wr0ng-s3cret"})

    assert status == 3
    assert "401" in err
    assert "wr0ng-s3cret" not in err


def test_a_closed_port_gives_up_resumably(tmp_path: Path) -> None:
    """No usable answer for give_up_s: status 3, and the command to go on with."""
    status, _, err = oracle.run("run", settings(tmp_path, "http://127.0.0.1:9", give_up_s=1))

    assert status == 3
    assert "can't connect to 127.0.0.1:9" in err
    assert "Go on with: loader run" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("limits.concurency=4", "did you mean concurrency?"),
        ("export.path=nobody.csv", "nobody.csv"),
        ("mapping.user=Email", "did you mean 'email'?"),
        ("mapping.attributes.x=Depp", "did you mean 'Dept'?"),
        ("target.api=calvin", "did you mean calven?"),
        ("target.auth.secret=env:LOADER_NOT_SET", "LOADER_NOT_SET is not set"),
        ("target.base_url=http://example.com", "in the clear"),
        ("limits.concurrency=many", "limits.concurrency"),
        ("checkpoint.path=/nonexistent/x.ckpt", "/nonexistent/x.ckpt"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_sent(tmp_path: Path, url: str, change: str, message: str) -> None:
    """Status 2, a message that names key and way out, and no checkpoint left behind."""
    status, _, err = oracle.run("run", settings(tmp_path, url), "--set", change)

    assert status == 2, err
    assert message in err
    assert not list(tmp_path.glob("*.ckpt*"))


def test_an_empty_file_is_an_error_and_a_header_alone_is_not(tmp_path: Path, url: str) -> None:
    """An empty file is 2; a header without rows loads nothing, well."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    assert oracle.run("run", settings(tmp_path / "a", url, ""))[0] == 2
    assert oracle.run("run", settings(tmp_path / "b", url, "email,Dept,Cost Centre,Site,Reports\n"))[0] == 0


def test_the_checkpoint_is_its_owners_alone(tmp_path: Path, url: str) -> None:
    """It holds users' keys: mode 0600; the lock is gone; sqlite3 alone can ask it."""
    oracle.run("run", settings(tmp_path, url))
    path = tmp_path / "users.ckpt"

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["load.toml", "users.ckpt", "users.csv"]
    with sqlite3.connect(path) as db:
        assert db.execute("select code from results where user = 'b@x.com'").fetchall() == [("SUCCESS",)]


def test_results_can_be_filtered_and_piped(tmp_path: Path, url: str) -> None:
    """--code filters, ndjson is one object a line, an unknown code is named."""
    oracle.run("run", settings(tmp_path, url, USERS + "former@x.com,Sales,1,Wien,1\n,Sales,1,Wien,1\n"))
    path = tmp_path / "users.ckpt"

    _, out, _ = oracle.run("results", path, "--code", "USER_NOT_FOUND", "--code", "REJECTED", "--format", "ndjson")
    wrong = oracle.run("results", path, "--code", "LOST")

    assert [json.loads(line)["row"] for line in out.splitlines()] == [4, 5]
    assert wrong[0] == 2
    assert "USER_NOT_FOUND" in wrong[2]


def test_results_are_safe_to_open_in_a_spreadsheet_if_that_is_asked_for(tmp_path: Path, url: str) -> None:
    """Keys are what they are, unless --formula-safe says otherwise; where it can't hold, it is refused."""
    key = '=HYPERLINK("http://evil.example","open me")'
    doubled = key.replace('"', '""')
    oracle.run("run", settings(tmp_path, url, f'{USERS}"{doubled}",Sales,1,Wien,1\n'))
    path = tmp_path / "users.ckpt"

    _, exact, _ = oracle.run("results", path)
    _, safe, _ = oracle.run("results", path, "--formula-safe")
    ndjson = oracle.run("results", path, "--formula-safe", "--format", "ndjson")
    rows = oracle.run("results", path, "--formula-safe", "--rows")

    assert exact.splitlines()[4] == f'4,"{doubled}",SUCCESS,OK,0,200,1'
    assert safe.splitlines()[4] == f'4,"\'{doubled}","SUCCESS","OK","0",200,1'
    assert (ndjson[0], "--formula-safe is for CSV" in ndjson[2]) == (2, True)
    assert (rows[0], "to be loaded again" in rows[2]) == (2, True)


def test_results_begin_with_the_mark_that_excel_needs_if_that_is_asked_for(tmp_path: Path, url: str) -> None:
    """Rows that were taken out with it are loaded as without."""
    oracle.run("run", settings(tmp_path, url, f"{USERS}j\u00f6rg@x.com,Sales,1,Wien,1,1\n"))
    path, output = tmp_path / "users.ckpt", tmp_path / "corrected.csv"

    plain = loader("results", path, "-o", tmp_path / "plain.csv")
    marked = loader("results", path, "--excel", "-o", tmp_path / "marked.csv")
    rows = loader("results", path, "--excel", "--rows", "--code", "REJECTED", "-o", output)
    ndjson = loader("results", path, "--excel", "--format", "ndjson")

    assert (plain.status, marked.status, rows.status) == (0, 0, 0), rows.err
    assert (tmp_path / "marked.csv").read_bytes() == b"\xef\xbb\xbf" + (tmp_path / "plain.csv").read_bytes()
    assert output.read_bytes().startswith(b"\xef\xbb\xbfemail,")
    assert f"loader run {tmp_path / 'load.toml'} --set export.path=corrected.csv" in rows.err
    assert (ndjson.status, "--excel is for CSV" in ndjson.err) == (2, True)
    output.write_text(output.read_text("utf-8").replace("Wien,1,1", "Wien,1"), "utf-8")
    again = loader("run", tmp_path / "load.toml", "--set", "export.path=corrected.csv")
    assert "SUCCESS  1" in again.err, again.err
    assert "j\u00f6rg@x.com" in loader("results", tmp_path / "corrected.ckpt").out


def test_a_report_of_a_kind_that_is_not_made_says_which_are(tmp_path: Path, url: str) -> None:
    """A PDF is printed from the page."""
    oracle.run("run", settings(tmp_path, url))
    path = tmp_path / "users.ckpt"

    pdf, word = (loader("report", path, "-o", tmp_path / name) for name in ("r.pdf", "r.docx"))

    assert (pdf.status, "write .html, and print that to PDF in a browser" in pdf.err) == (2, True)
    assert (word.status, "no report is written as .docx; name it .html, .md or .json" in word.err) == (2, True)
    assert loader("report", path, "-o", tmp_path / "r.docx", "--format", "md").status == 0
    assert loader("report", path, "-o", tmp_path / "r.HTM").status == 0
    assert (tmp_path / "r.HTM").read_text().startswith("<!doctype html>")


def test_a_stopped_load_goes_on_with_the_overrides_it_was_given(tmp_path: Path, url: str) -> None:
    """Without them it would be another load; and no secret is kept with them."""
    path = settings(tmp_path, url)
    (tmp_path / "some more.csv").write_text(USERS)
    secret = "target.auth.secret=S"
    given = ("--set", "export.path=some more.csv", "--set", secret)

    loader("run", path, "--first", "1", *given)
    checkpoint = tmp_path / "some more.ckpt"
    said = loader("status", checkpoint).out
    report = json.loads(loader("report", checkpoint, "--format", "json").out)

    command = f"loader run {path} --set 'export.path=some more.csv' --set 'target.auth.secret=…'"
    assert f"Go on with: {command}" in said
    assert report["go_on"][0]["command"] == command
    assert secret.encode() not in checkpoint.read_bytes()


@pytest.mark.parametrize(
    ("command", "name", "message"),
    [
        ("run", "users.csv", "users.csv is an export, and this takes settings; make settings for it: loader init "),
        ("check", "users.csv.gz", "is an export, and this takes settings"),
        ("retry", "users.ckpt", "users.ckpt is a checkpoint, and this takes settings; see how its load stands: loader"),
        ("run", "plan.json", "is a plan, and this takes settings; send what it says: loader run SETTINGS --plan "),
        (
            "status",
            "load.toml",
            "load.toml holds settings, and this takes a checkpoint; its load's checkpoint is this: ",
        ),
        ("status", "other.toml", "and this takes a checkpoint; see what would be loaded with them: loader check "),
        ("results", "users.csv", "users.csv is an export, and this takes a checkpoint; make settings for it: loader "),
        ("report", "hr.db", "hr.db is a SQLite database, and this takes a checkpoint; [export] query and database"),
        ("init", "users.ckpt", "users.ckpt is a checkpoint, and this takes an export; see how its load stands: "),
        ("init", "load.toml", "load.toml holds settings, and this takes an export; see what would be loaded"),
        ("run", "notes.txt", "this takes the settings, which loader init EXPORT writes"),
    ],
)
def test_a_file_in_anothers_place_is_recognised(
    tmp_path: Path, url: str, command: str, name: str, message: str
) -> None:
    """By its bytes; and the message says which command takes it."""
    path = settings(tmp_path, url)
    with Checkpoint.open(tmp_path / "users.ckpt", create=True):
        pass
    (tmp_path / "users.csv.gz").write_bytes(gzip.compress(USERS.encode()))
    (tmp_path / "plan.json").write_text('{"version":1,"export":{}}')
    (tmp_path / "other.toml").write_text(path.read_text().replace("users.csv", "nobody.csv"))
    (tmp_path / "notes.txt").write_text("Dear all,\n")
    with closing(sqlite3.connect(tmp_path / "hr.db")) as db:
        db.execute("CREATE TABLE people (email)")

    ended = loader(command, tmp_path / name)

    assert ended.status == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_results_never_overwrite_what_they_are_made_of(tmp_path: Path, url: str) -> None:
    """Not the checkpoint, not the export; a folder that isn't there and a full disk are no internal errors."""
    oracle.run("run", settings(tmp_path, url))
    path = tmp_path / "users.ckpt"
    for taken in (path, tmp_path / "users.ckpt-wal", tmp_path / "users.csv"):
        status, _, err = oracle.run("results", path, "-o", taken)
        assert (status, "name another file" in err) == (2, True)
    nowhere = oracle.run("results", path, "-o", tmp_path / "nowhere" / "x.csv")
    full = oracle.run("results", path, "-o", "/dev/full")

    assert (nowhere[0], "No such file" in nowhere[2]) == (2, True)
    assert (full[0], "No space left" in full[2]) == (2, True)
    assert len(oracle.results(path)) == 3
    assert (tmp_path / "users.csv").read_text() == USERS


def test_max_failures_stops_and_resumes(tmp_path: Path, url: str) -> None:
    """More failures than allowed: status 3; with a higher limit the same load goes on to its end."""
    text = USERS.splitlines()[0] + "\n" + "".join(f"former{n}@x.com,Sales,1,Wien,1\n" for n in range(400))
    path = settings(tmp_path, url, text, users_per_request=10, concurrency=1, max_failures=50)

    stopped = oracle.run("run", path)
    again = oracle.run("run", path, "--set", "limits.max_failures=60", "--set", "limits.concurrency=2")
    command = shlex.split(again[2].rpartition("Go on with: loader ")[2])
    status = json.loads(loader("status", tmp_path / "users.ckpt", "--format", "json").out)
    finished = oracle.run("run", path, "--set", "limits.max_failures=1000")

    assert (stopped[0], again[0], finished[0]) == (3, 3, 1)
    assert "max_failures" in stopped[2]
    assert command[:4] == ["run", str(path), "--set", "limits.concurrency=2"]
    assert command[4] == "--set"
    assert int(command[5].removeprefix("limits.max_failures=")) > 100, "one with which it can go on"
    assert status["go_on"] == shlex.join(["loader", *command])
    assert len(oracle.results(tmp_path / "users.ckpt")) == 400


def test_programs_are_spoken_to_in_json(tmp_path: Path, url: str) -> None:
    """Each line of stderr, warnings, progress and outcomes alike; and no user stands in them."""
    path = settings(tmp_path, url, USERS + "nobody\n")
    status, _, err = oracle.run("run", path, "--log-json")
    told = [json.loads(line) for line in err.splitlines()]

    assert status == 1
    assert {each["event"] for each in told} >= {"message", "outcomes"}
    assert [each["outcomes"] for each in told if each["event"] == "outcomes"] == [{"SUCCESS": 3, "REJECTED": 1}]
    assert {each["level"] for each in told} <= {"info", "warning", "error"}
    assert "@x.com" not in err

    status, _, err = oracle.run("run", path, "--log-json", "--set", "limits.speed=1")
    assert (status, json.loads(err)["level"]) == (2, "error")
