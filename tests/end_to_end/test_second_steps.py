"""What comes before and after a load: check it, load a part, retry what failed, correct and load again."""

import csv
import io
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.end_to_end import oracle
from tests.end_to_end.command import loader

HEADER = "email,Dept,Cost Centre,Site,Reports\n"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with oracle.sandbox("--unknown", "^former") as address:
        yield address


def settings(folder: Path, url: str, rows: str, **limits: object) -> Path:
    (folder / "users.csv").write_text(HEADER + rows)
    return oracle.write_settings(folder, url, **limits)  # type: ignore[arg-type]


def users(count: int, name: str = "user") -> str:
    return "".join(f"{name}{at}@x.com,Sales,{at},Wien,1\n" for at in range(1, count + 1))


def state(folder: Path) -> dict[str, object]:
    _, out, _ = oracle.run("status", folder / "users.ckpt", "--format", "json")
    found: dict[str, object] = json.loads(out)
    return found


# --first and --until


def test_the_first_rows_are_tried_and_the_next_run_goes_on(tmp_path: Path, url: str) -> None:
    """--first N is N rows of this run, also when some were loaded before; then the rest, and nobody twice."""
    path = settings(tmp_path, url, users(250, "first"))

    one = oracle.run("run", path, "--first", "10")
    after_one = state(tmp_path)
    two = oracle.run("run", path, "--first", "10")
    after_two = state(tmp_path)
    rest = oracle.run("run", path)

    assert (one[0], two[0], rest[0]) == (0, 0, 0)
    assert "not finished: this run ended after 10 rows. Go on with: loader run" in one[2]
    assert (after_one["rows"], after_one["state"], after_two["rows"]) == (10, "unfinished", 20)
    assert [int(row["row"]) for row in oracle.results(tmp_path / "users.ckpt")] == list(range(1, 251))
    writes = [user["writes"] for user in oracle.get(url, "users") if str(user["userName"]).startswith("first")]
    assert writes == [1] * 250


def test_the_first_rows_decide_the_status(tmp_path: Path, url: str) -> None:
    """A trial whose rows fail is 1; as many rows as there are is the whole load."""
    path = settings(tmp_path, url, users(2, "former"))

    assert oracle.run("run", path, "--first", "1")[0] == 1
    status, _, err = oracle.run("run", path, "--first", "1")

    assert status == 1
    assert "not finished" not in err
    assert state(tmp_path)["state"] == "finished"


def test_a_run_ends_when_it_is_time(tmp_path: Path) -> None:
    """--until: what is in flight is finished, status 3, and the command to go on with."""
    with oracle.sandbox("--latency", "0.2") as address:
        path = settings(tmp_path, address, users(3000), concurrency=1, users_per_request=10)
        moment = datetime.now().astimezone() + timedelta(seconds=2)
        status, _, err = oracle.run("run", path, "--until", moment.isoformat())
        late_s = time.time() - moment.timestamp()

        assert status == 3
        assert "as --until says" in err
        assert "Go on with: loader run" in err
        assert 0 <= late_s < 3
        assert state(tmp_path)["rows"] == len(oracle.get(address, "users"))


@pytest.mark.parametrize("text", ["6", "2001-01-01T06:00"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, url: str, text: str) -> None:
    """Status 2, before anything is made."""
    status, _, err = oracle.run("run", settings(tmp_path, url, users(1)), "--until", text)

    assert status == 2
    assert "--until: " in err
    assert not (tmp_path / "users.ckpt").exists()


# check


def test_check_sends_no_user(tmp_path: Path, url: str) -> None:
    """It fetches a token, and that is all; rows that would be rejected make it 1."""
    good = settings(tmp_path, url, users(3, "checked"))
    fine = oracle.run("check", good)
    bad = oracle.run("check", settings(tmp_path, url, users(3, "checked") + ",Sales,1,,\n"), "--format", "json")

    assert (fine[0], bad[0]) == (0, 1), fine[2]
    assert "credentials: taken" in fine[1]
    assert json.loads(bad[1])["reasons"][0]["first"] == "users.csv line 5: the user's key is empty (column 'email')"
    assert not any(str(user["userName"]).startswith("checked") for user in oracle.get(url, "users"))
    assert not (tmp_path / "users.ckpt").exists()


def test_check_shows_the_first_request(tmp_path: Path, url: str) -> None:
    """With its secrets masked."""
    path = settings(tmp_path, url, users(3))
    secret = {"LOADER_TEST_SECRET": "a-s3cret-text"}

    status, out, err = oracle.run("check", path, "--show", "--set", "target.auth.scheme=basic", environment=secret)

    assert status == 0, err
    assert f"POST {url}/v1/directory/user-attributes/basic" in out
    assert "Authorization: Basic ***" in out
    assert '"userName": "user1@x.com"' in out
    assert "credentials: not tried: this API has no harmless call" in out
    assert "a-s3cret-text" not in out + err


def test_check_without_credentials_tells_all_the_rest_first(tmp_path: Path, url: str) -> None:
    """What lacks is told behind it, and is 2, as a run would refuse; --offline asks for none."""
    path = settings(tmp_path, url, users(3))
    nobody: dict[str, str | None] = {"LOADER_TEST_SECRET": None}

    status, out, _ = loader("check", path, "--show", environment=nobody)
    state = json.loads(loader("check", path, "--format", "json", environment=nobody)[1])
    offline = loader("check", path, "--offline", "--set", "target.base_url=http://127.0.0.1:9", environment=nobody)

    assert status == 2
    assert "Authorization: Bearer ***" in out
    assert "  to send   3" in out
    last = out.splitlines()[-1]
    assert last.startswith("credentials: NOT TRIED: target.auth.secret: the environment variable LOADER_TEST_SECRET")
    assert (state["to_send"], state["credentials_missing"], state["credentials_failed"]) == (3, True, True)
    assert (offline[0], offline[1].splitlines()[-1]) == (0, "credentials: not tried, as --offline says")


def test_check_without_credentials_that_tell_the_address(tmp_path: Path) -> None:
    """Descope's token names the region: without it the address is told as far as it is known."""
    (tmp_path / "users.csv").write_text("email,d\na@x.com,1\n")
    (tmp_path / "load.toml").write_text(
        '[export]\npath = "users.csv"\n[mapping]\nuser = "email"\n[target]\napi = "descope"\n'
        '[target.auth]\nscheme = "bearer"\ntoken = "env:LOADER_TEST_TOKEN"\n'
    )

    status, out, _ = loader("check", tmp_path / "load.toml", environment={"LOADER_TEST_TOKEN": None})

    assert status == 2
    assert "descope at https://api.descope.com (or in its region, which the credentials tell)" in out


def test_check_tells_what_a_run_would_stop_at(tmp_path: Path, url: str) -> None:
    """Refused credentials and a closed port are 3, at once; a wrong export is 2."""
    path = settings(tmp_path, url, users(3))
    started = time.monotonic()

    refused = oracle.run("check", path, environment={"LOADER_TEST_SECRET": "wrong-secret"})
    closed = oracle.run("check", path, "--set", "target.base_url=http://127.0.0.1:9")
    missing = oracle.run("check", path, "--set", "export.path=nobody.csv")

    assert (refused[0], closed[0], missing[0]) == (3, 3, 2)
    assert "credentials: FAILED: no token was given: HTTP 401" in refused[1]
    assert "can't connect to 127.0.0.1:9" in closed[1]
    assert "nobody.csv" in missing[2]
    assert time.monotonic() - started < 10


# retry


def test_what_failed_is_sent_again_and_the_last_values_win(tmp_path: Path) -> None:
    """Users who didn't exist do now: their rows, merged ones and later ones, come again in order; no one else's."""
    rows = "late@x.com,Sales,1,,\nann@x.com,Sales,1,,\nlate@x.com,,,Wien,\nbob@x.com,Ops,2,,\n,Sales,1,,\n"
    known = tmp_path / "known.txt"
    known.write_text("ann@x.com\nbob@x.com\n")
    with oracle.sandbox("--known-users", str(known)) as address:
        path = settings(tmp_path, address, rows)
        assert oracle.run("run", path)[0] == 1
    assert [row["code"] for row in oracle.results(tmp_path / "users.ckpt")] == [
        "SUPERSEDED",
        "SUCCESS",
        "USER_NOT_FOUND",
        "SUCCESS",
        "REJECTED",
    ]
    known.write_text("ann@x.com\nbob@x.com\nlate@x.com\n")
    port = address.rpartition(":")[2]
    with oracle.sandbox("--known-users", str(known), "--port", port):
        status, _, err = oracle.run("retry", path)
        ledger = {str(user["userName"]): user["attributes"] for user in oracle.get(address, "users")}

    assert status == 1, err  # the rejected row is still one
    assert "2 rows are sent again" in err
    assert ledger == {"late@x.com": {"department": "Sales", "costCenter": "1", "location": "Wien"}}
    assert Counter(row["code"] for row in oracle.results(tmp_path / "users.ckpt")) == {
        "SUCCESS": 3,
        "SUPERSEDED": 1,
        "REJECTED": 1,
    }
    assert state(tmp_path)["state"] == "finished"


def test_nothing_to_retry_is_said(tmp_path: Path, url: str) -> None:
    """Nothing is sent, and it ends as the load ended: rejected rows have to be corrected instead."""
    path = settings(tmp_path, url, users(2) + ",Sales,1,,\n")
    oracle.run("run", path)
    before = oracle.get(url, "stats")[0]["writes"]

    status, _, err = oracle.run("retry", path)

    assert (status, oracle.get(url, "stats")[0]["writes"]) == (1, before)
    assert "nothing to retry" in err


def test_a_retry_needs_a_finished_load_of_the_same_export(tmp_path: Path, url: str) -> None:
    """Else status 2, and what to do."""
    path = settings(tmp_path, url, users(3, "former"))

    none = oracle.run("retry", path)
    oracle.run("run", path, "--first", "1")
    unfinished = oracle.run("retry", path)
    oracle.run("run", path)
    mapping = oracle.run("retry", path, "--set", "mapping.empty=null")
    settings(tmp_path, url, users(4, "former"))
    changed = oracle.run("retry", path)

    assert [found[0] for found in (none, unfinished, mapping, changed)] == [2, 2, 2, 2]
    assert "load first, with: loader run" in none[2]
    assert "not finished" in unfinished[2]
    assert "mapping.empty: was 'omit', is 'null'" in mapping[2]
    assert "has changed" in changed[2]
    assert state(tmp_path)["rows"] == 3


def test_a_retry_that_is_killed_goes_on(tmp_path: Path) -> None:
    """SIGKILL in its middle: the load is unfinished, not short of rows; the same command goes on, and so does run.

    What was settled stands until it has another outcome, in status and in the results.
    """
    with oracle.sandbox("--unknown", "^former") as address:
        path = settings(tmp_path, address, users(300) + users(900, "former"))
        assert oracle.run("run", path)[0] == 1
    port = address.rpartition(":")[2]
    slow = ("--set", "limits.concurrency=1", "--set", "limits.users_per_request=50")
    again = [0]
    with oracle.sandbox("--latency", "0.4", "--port", port):
        for _ in range(2):
            process = oracle.start("retry", path, *slow)
            _wait_for(tmp_path, lambda sent: again[-1] < sent < 900)
            process.kill()
            process.communicate()
            middle = state(tmp_path)
            assert (middle["state"], middle["rows"]) == ("unfinished", 1200)
            again.append(sent_again(middle))
            assert middle["outcomes"] == {"SUCCESS": 300 + again[-1], "USER_NOT_FOUND": 900 - again[-1]}
            assert Counter(row["code"] for row in oracle.results(tmp_path / "users.ckpt")) == middle["outcomes"]
        status, _, err = oracle.run("run", path)
        writes = [int(str(user["writes"])) for user in oracle.get(address, "users")]

    assert status == 0, err
    assert 0 < again[1] < again[2] < 900
    assert Counter(row["code"] for row in oracle.results(tmp_path / "users.ckpt")) == {"SUCCESS": 1200}
    assert len(writes) == 900
    assert sum(writes) <= 900 + 2 * 2 * 50


def sent_again(found: dict[str, object]) -> int:
    retry = found["retry"]
    return retry["sent_again"] if isinstance(retry, dict) else 0


def _wait_for(folder: Path, is_reached: Callable[[int], bool]) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if is_reached(sent_again(state(folder))):
            return
    raise AssertionError("it never came to that")


def test_a_retry_tells_of_itself_as_a_run_does(tmp_path: Path, url: str) -> None:
    """Silence, a summary, a command that is told; all of the whole load, of which the rest stands."""
    path = settings(tmp_path, url, users(20) + users(3, "former"))
    assert oracle.run("run", path)[0] == 1
    told = tmp_path / "told"
    flags = ("--quiet", "--summary-json", tmp_path / "last.json", "--set")

    status, out, err = oracle.run("retry", path, *flags, f"notify.command=['sh', '-c', 'cat > {told}']")
    summary = json.loads((tmp_path / "last.json").read_text())

    assert (status, out) == (1, "")
    assert "3 rows are sent again" in err, "what is held back is said where something is wrong"
    assert summary == json.loads(told.read_text())
    assert (summary["exit_status"], summary["message"], summary["failures"]) == (1, "3 rows failed", 3)
    assert summary["outcomes"] == {"SUCCESS": 20, "USER_NOT_FOUND": 3}


def test_a_port_that_is_taken_moves_no_checkpoint(tmp_path: Path, url: str) -> None:
    """--fresh puts the old one aside: not before all that may be refused is there."""
    path = settings(tmp_path, url, users(20))
    assert oracle.run("run", path)[0] == 0
    before = {each.name for each in tmp_path.iterdir()}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flags in (("--dashboard", str(port)), ("--set", f"metrics.listen='127.0.0.1:{port}'")):
            status, _, err = oracle.run("run", path, "--fresh", *flags)
            assert (status, f"can't listen at 127.0.0.1:{port}: Address already in use" in err) == (2, True), err
    lost, _, why = oracle.run("run", path, "--fresh", "--set", "metrics.file='no/where.prom'")

    assert (lost, "can't write" in why) == (2, True)
    assert {each.name for each in tmp_path.iterdir()} == before
    assert state(tmp_path)["state"] == "finished"


# results --rows


def test_failed_rows_are_corrected_and_loaded_as_they_are(tmp_path: Path, url: str) -> None:
    """The round: load, write the failed rows out, correct them, load that file. Their two columns are never sent."""
    rows = 'good@x.com,Sales,1,Wien,3\nformer@x.com,"Research, ""Blue""",2,,\n'
    rows += "bad@x.com,Ops,3,Wien,three\nragged@x.com,Ops\n"
    path = settings(tmp_path, url, rows)
    assert oracle.run("run", path)[0] == 1
    file = tmp_path / "corrected.csv"
    chosen = ("--code", "REJECTED", "--code", "USER_NOT_FOUND")

    status, _, err = oracle.run("results", tmp_path / "users.ckpt", "--rows", *chosen, "-o", file)

    assert status == 0
    assert "3 rows in" in err
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    text = file.read_text()
    assert [row["loader_code"] for row in csv.DictReader(io.StringIO(text))][:2] == ["USER_NOT_FOUND", "REJECTED"]
    assert "'three' is not a JSON number" in text
    unmended = oracle.run("run", path, "--set", f"export.path={file}", "--set", "checkpoint.path=unmended.ckpt")
    assert unmended[0] == 1
    assert [row["code"] for row in oracle.results(tmp_path / "unmended.ckpt")] == [
        "USER_NOT_FOUND",
        "REJECTED",
        "REJECTED",
    ]

    mended = text.replace("former@", "returned@").replace(",three,", ",3,")
    file.write_text(mended.replace("ragged@x.com,Ops,", "ragged@x.com,Ops,,,,"))
    every_column = path.read_text().splitlines()
    path.write_text("\n".join(line for line in every_column if not line.startswith(("attributes", "types"))))
    path.write_text(path.read_text().replace('user = "email"', 'user = "email"\ntypes = { Reports = "number" }'))
    status, _, err = oracle.run("run", path, "--set", f"export.path={file}")

    assert status == 0, err
    ledger = {str(user["userName"]): user["attributes"] for user in oracle.get(url, "users")}
    assert ledger["returned@x.com"] == {"Dept": 'Research, "Blue"', "Cost Centre": "2"}
    assert ledger["bad@x.com"] == {"Dept": "Ops", "Cost Centre": "3", "Site": "Wien", "Reports": 3}
    assert ledger["ragged@x.com"] == {"Dept": "Ops"}


def test_a_retry_says_that_it_may_undo_corrections(tmp_path: Path, url: str) -> None:
    """Rows that were taken out may be corrected and loaded by now."""
    path = settings(tmp_path, url, users(1) + "former@x.com,Ops,1,Wien,3\n")
    oracle.run("run", path)
    file = tmp_path / "corrected.csv"

    _, _, told = oracle.run("results", tmp_path / "users.ckpt", "--rows", "--failed", "-o", file)
    sent, _, why = oracle.run("retry", path)

    assert "retry before you load it: a retry afterwards sends the old values again" in told
    assert (sent, f"rows that are USER_NOT_FOUND were taken out to be corrected, into {file}" in why) == (1, True)
    assert "1 row is sent again" in why


def test_who_failed_is_shown_without_those_who_did_not(tmp_path: Path, url: str) -> None:
    """By the command that a run names."""
    path = settings(tmp_path, url, users(2) + "former@x.com,Ops,1,Wien,3\nragged@x.com\n")
    _, _, told = oracle.run("run", path)

    status, out, _ = oracle.run("results", tmp_path / "users.ckpt", "--failed")

    assert "2 rows failed; see them with: loader results" in told
    assert told.split("see them with: ")[1].splitlines()[0].endswith(" --failed")
    assert (status, [row["code"] for row in csv.DictReader(io.StringIO(out))]) == (0, ["USER_NOT_FOUND", "REJECTED"])
    assert oracle.run("results", tmp_path / "users.ckpt", "--failed", "--code", "INVALID")[0] == 2


def test_rows_need_their_export(tmp_path: Path, url: str) -> None:
    """Moved, it is named with --export; gone or changed, status 2 says so; and it is never written over."""
    path = settings(tmp_path, url, users(2))
    oracle.run("run", path)
    checkpoint, export, moved = tmp_path / "users.ckpt", tmp_path / "users.csv", tmp_path / "moved.csv"

    over = oracle.run("results", checkpoint, "--rows", "-o", export)
    export.rename(moved)
    gone = oracle.run("results", checkpoint, "--rows")
    found = oracle.run("results", checkpoint, "--rows", "--export", moved)
    kept = tmp_path / "kept.csv"
    kept.write_text("corrections")
    asked = [
        oracle.run("results", checkpoint, "--rows", "--export", moved, "-o", kept, *flag) for flag in ([], ["--force"])
    ]
    none = oracle.run("results", checkpoint, "--rows", "--export", moved, "--failed", "-o", tmp_path / "none.csv")
    moved.write_text(HEADER + users(3))
    changed = oracle.run("results", checkpoint, "--rows", "--export", moved)

    assert [result[0] for result in (over, gone, found, changed)] == [2, 2, 0, 2]
    assert "name another file" in over[2]
    assert "--export" in gone[2]
    assert found[1].splitlines()[1] == 'user1@x.com,Sales,1,Wien,1,1,SUCCESS,"OK"'
    assert [status for status, _, _ in asked] == [2, 0]
    assert "it is there already, and may hold corrections; --force replaces it" in asked[0][2]
    assert kept.read_text() == found[1]
    assert (none[0], "there are no such rows" in none[2], (tmp_path / "none.csv").exists()) == (0, True, False)
    assert "name the right one with --export" in changed[2]
