"""The refresh from the command line: nights, a plan, silence, a summary, a command that tells somebody."""

import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loader.checkpoint import lock
from tests.end_to_end import oracle
from tests.end_to_end.command import loader

HEADER = "email,Dept,Cost Centre,Site,Reports\n"
USERS = [f"u{number}@x.com,Sales,1,Wien,{number}\n" for number in range(30)]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with oracle.sandbox("--unknown", "^former") as address:
        yield address


@pytest.fixture
def settings(tmp_path: Path, url: str) -> Path:
    path = oracle.write_settings(tmp_path, url)
    path.write_text(path.read_text() + '\n[refresh]\nmode = "changed"\n')
    write(tmp_path, USERS)
    return path


def write(folder: Path, rows: list[str]) -> None:
    (folder / "users.csv").write_text(HEADER + "".join(rows))


def test_a_night_says_in_one_line_how_it_went(settings: Path, url: str) -> None:
    first = loader("run", settings)
    assert first.status == 0, first.err
    assert "loader: all users are sent: there is no state users.state yet" in first.err

    write(settings.parent, [*USERS, "new@x.com,Sales,1,Wien,1\n"])
    second = loader("run", settings)
    assert second.status == 0, second.err
    assert second.err.splitlines()[-1].startswith("loader: exit status 0; 31 rows: 30 UNCHANGED, 1 SUCCESS; in 0:0")
    assert "a new load begins; the checkpoint of the one before is kept as users.ckpt.2" in second.err

    status = json.loads(loader("status", settings.parent / "users.ckpt", "--format", "json").out)
    assert status["outcomes"] == {"UNCHANGED": 30, "SUCCESS": 1}
    results = loader("results", settings.parent / "users.ckpt", "--code", "UNCHANGED", "--format", "ndjson").out
    assert json.loads(results.splitlines()[3]) == {
        "row": 4,
        "user": "u3@x.com",
        "code": "UNCHANGED",
        "message": "",
        "target_code": "",
        "http_status": None,
        "attempts": 0,
    }
    with sqlite3.connect(settings.parent / "users.ckpt") as db:
        assert db.execute("SELECT count(*) FROM batch WHERE code = 'UNCHANGED'").fetchone() == (1,)
        assert db.execute("SELECT code FROM results WHERE user = 'u7@x.com'").fetchall() == [("UNCHANGED",)]
    rows = loader("results", settings.parent / "users.ckpt", "--rows", "--code", "UNCHANGED").out
    assert len(rows.splitlines()) == 31


def test_half_of_the_users_gone_sends_nothing_and_says_why(settings: Path) -> None:
    report = ("--set", "refresh.missing=report")
    loader("run", settings, *report)
    write(settings.parent, USERS[15:])
    ended = loader("run", settings, *report, "--summary-json", settings.parent / "last.json", "--quiet")

    assert ended.status == 2
    assert "15 of the 30 users of the export before are not in" in ended.err
    summary = json.loads((settings.parent / "last.json").read_text())
    assert (summary["exit_status"], summary["rows"]) == (2, 0)
    assert "15 of the 30 users" in summary["message"]
    assert ended.err.count("15 of the 30 users") == 1, "said once"
    assert re.search(r"The first: 'u\d+@x.com'", ended.err)
    assert "@x.com" not in str(summary), "a summary goes to places"
    assert (summary["refresh"]["guard"], summary["refresh"]["known"], summary["refresh"]["missing"]) == (
        "max_missing",
        30,
        15,
    )


def test_who_need_not_be_known_fails_no_night(settings: Path) -> None:
    """Each night they are sent, and each night it is said; the exit status tells of the others."""
    last = settings.parent / "last.json"
    accepting = ("--set", 'refresh.accept=["user_not_found"]', "--quiet", "--summary-json", last)
    write(settings.parent, [*USERS, "former@x.com,Sales,1,Wien,1\n"])
    plain = loader("run", settings)
    nights = [loader("run", settings, *accepting) for _ in range(2)]
    summary = json.loads(last.read_text())
    also = loader("run", settings, *accepting, "--set", "refresh.accept=['INVALID']")

    assert (plain.status, nights, also.status) == (1, [(0, "", "")] * 2, 1)
    assert (summary["failures"], summary["accepted"]) == (0, ["USER_NOT_FOUND"])
    assert summary["outcomes"]["USER_NOT_FOUND"] == 1
    assert "1 row failed" in also.err
    wrong = loader("run", settings, "--set", "refresh.accept=['SUCCESS']")
    assert (wrong.status, "refresh.accept" in wrong.err, "USER_NOT_FOUND, " in wrong.err) == (2, True, True)


def test_a_run_that_finds_another_at_work_leaves_its_telling_to_that(settings: Path) -> None:
    """Exit status 2, or 0 if that is asked for; no summary of the other is overwritten, and nobody is told."""
    last, told = settings.parent / "last.json", settings.parent / "told"
    flags = ("--quiet", "--summary-json", last, "--set", f"notify.command=['touch', '{told}']")
    with lock(settings.parent / "users.ckpt"):
        for command in ("run", "retry"):
            (settings.parent / "users.ckpt").touch()
            met = loader(command, settings, *flags)
            spared = loader(command, settings, *flags, "--unless-running")
            spoken = loader(command, settings, "--unless-running")

            assert (met.status, spared, spoken.status) == (2, (0, "", ""), 0), command
            assert "is in use by another run (process " in met.err
            assert "this one leaves it alone" in spoken.err
    assert not last.exists()
    assert not told.exists()


def test_a_quiet_run_says_nothing_when_it_is_well_and_all_when_it_is_not(settings: Path) -> None:
    secret = ("--set", "target.auth.secret=S")  # of which a run that may speak warns
    assert loader("run", settings, "--quiet", "--until", "2099-01-01T06:00", *secret) == (0, "", "")

    write(settings.parent, [*USERS, "odd@x.com,Sales,1,Wien,x\n"])
    ended = loader("run", settings, "--quiet", "--summary-json", settings.parent / "last.json")
    assert ended.status == 1
    assert "REJECTED" in ended.err
    assert "loader: exit status 1; 31 rows: 30 UNCHANGED, 1 REJECTED" in ended.err
    summary = json.loads((settings.parent / "last.json").read_text())
    assert summary["message"] == "1 row failed"
    assert summary["refresh"]["unchanged"] == 30
    assert (settings.parent / "last.json").stat().st_mode & 0o777 == 0o600


def test_a_quiet_run_says_what_could_not_be_held(settings: Path) -> None:
    loader("run", settings)
    other = ("--set", "mapping.user='Reports'", "--set", "mapping.empty=null")
    told = loader("plan", settings, *other)
    ended = loader("run", settings, *other, "--quiet")

    assert (ended.status, ended.out) == (0, ""), ended.err
    assert ended.err.startswith(
        "loader: all users are sent: users.state is of a load with other settings: mapping.empty: was"
    )
    assert "refresh.max_missing can't be held tonight" in ended.err
    assert ended.err.count("\n") == 1
    assert "refresh.max_missing can't be held tonight" in told.out
    assert "all users are sent" not in told.err, "it is said once, as what would be"


def test_a_plan_of_nothing_is_not_sent(settings: Path) -> None:
    loader("run", settings)

    ended = loader("plan", settings)
    assert ended.status == 0
    assert "to send: 0 users in 0 requests" in ended.out
    assert "send it with" not in ended.err


def test_a_summary_that_can_not_be_written_is_said_and_changes_nothing(settings: Path) -> None:
    ended = loader("run", settings, "--quiet", "--summary-json", settings.parent / "no" / "where")

    assert ended.status == 0
    assert ended.err.startswith("loader: --summary-json ")
    assert "can't write it: No such file or directory" in ended.err


def test_a_command_is_told_how_it_ended(settings: Path) -> None:
    script = settings.parent / "tell.py"
    script.write_text("import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())")
    got = settings.parent / "got.json"
    command = json.dumps([sys.executable, str(script), str(got)])
    loader("run", settings, "--set", f"notify.command={command}")

    assert json.loads(got.read_text())["outcomes"] == {"SUCCESS": 30}


def test_a_plan_is_kept_and_run(settings: Path) -> None:
    loader("run", settings)
    write(settings.parent, [*USERS[:-1], "u29@x.com,Sales,1,Graz,29\n"])
    shown = loader("plan", settings, "-o", settings.parent / "plan.json")
    assert shown.status == 0, shown.err
    assert "           1  have other values" in shown.out
    plan = settings.parent / "plan.json"
    assert f"the plan is in {plan}; a run that does just this, or nothing:\n  loader run " in shown.err
    given = ("--set", "limits.concurrency=4", "--full", "-o", plan)
    said = loader("plan", settings, *given).err
    assert f"  loader run {settings} --set limits.concurrency=4 --full --plan {plan}\n" in said
    assert f"send it with: loader run {settings}\n" in loader("plan", settings).err
    assert json.loads(loader("plan", settings, "--format", "json").out)["to_send"] == 1

    write(settings.parent, [*USERS[:-1], "u29@x.com,Sales,1,Linz,29\n"])
    refused = loader("run", settings, "--plan", settings.parent / "plan.json")
    assert refused.status == 2
    assert "was made of something else, and nothing was sent:\n  export: mtime_ns" in refused.err

    loader("plan", settings, "-o", settings.parent / "plan.json")
    assert loader("run", settings, "--plan", settings.parent / "plan.json").status == 0


def test_a_trial_against_the_sandbox_takes_nothing_from_the_real_target(settings: Path) -> None:
    """As README has it."""
    assert loader("run", settings).status == 0
    with oracle.sandbox() as other:
        trial = loader(
            "run",
            settings,
            "--set",
            f"target.base_url={other}",
            "--set",
            f"checkpoint.path={settings.parent}/trial.ckpt",
        )
    assert trial.status == 0, trial.err
    assert "users.state was of another target, calven at http://127.0.0.1:" in trial.err
    assert "30 SUCCESS" in trial.err.splitlines()[-1]

    night = loader("run", settings)
    assert night.status == 0, night.err
    assert "is this target's, and is users.state again" in night.err
    assert "30 UNCHANGED" in night.err.splitlines()[-1]


def test_half_of_the_users_gone_stops_whatever_else_has_changed(settings: Path) -> None:
    loader("run", settings)
    write(settings.parent, USERS[15:])
    ended = loader("run", settings, "--set", "mapping.empty=keep")

    assert ended.status == 2
    assert "mapping.empty: was 'omit', is 'keep'" in ended.err
    assert "15 of the 30 users of the export before are not in" in ended.err


def test_a_load_of_all_leaves_no_state_that_it_does_not_keep(settings: Path) -> None:
    """What it sends is not marked: the next refresh must not believe the state of before."""
    loader("run", settings)
    write(settings.parent, [*USERS[:-1], "u29@x.com,Sales,1,Graz,29\n"])
    ended = loader("run", settings, "--set", "refresh.mode=all", "--fresh")
    assert "that of the last refresh is now users.state.old" in ended.err

    write(settings.parent, USERS)
    ended = loader("run", settings)
    assert ended.status == 0
    assert "all users are sent" in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--full", "--set", "refresh.mode=all"), "are for a refresh"),
        (("plan", "--set", "refresh.mode=all"), 'refresh.mode is not "changed"'),
        (("run", "--set", "refresh.missing=clear"), "nothing says that null removes an attribute at calven"),
        (("run", "--set", "refresh.max_missing=many"), 'is not a count such as 100, or share such as "5%"'),
        (("run", "--set", "refresh.full_every=30"), 'a time such as "30d"'),
        (("run", "--set", "refresh.state=users.ckpt"), "the checkpoint has that name"),
        (("run", "--set", "refresh.state=no/where"), "is not there, or can't be written to"),
        (("run", "--plan", "nowhere.json"), "--plan nowhere.json: can't read it"),
    ],
)
def test_what_can_not_be_is_refused(settings: Path, arguments: tuple[str, ...], message: str) -> None:
    command, *flags = arguments
    ended = loader(command, settings, *flags)

    assert ended.status == 2
    assert message in ended.err
    assert not (settings.parent / "users.state").exists()


def test_who_can_not_even_begin_is_told_of_too(settings: Path) -> None:
    """A summary of the night before would be taken for tonight's; and where credentials lack, somebody is told."""
    last = settings.parent / "last.json"
    assert loader("run", settings, "--summary-json", last).status == 0
    broken = loader("run", settings, "--set", "limits.speed=1", "--summary-json", last)
    first = json.loads(last.read_text())
    told = settings.parent / "told"
    command = f"notify.command=['sh', '-c', 'echo $LOADER_EXIT_STATUS > {told}']"
    without = {"LOADER_TEST_KEY": None, "LOADER_TEST_SECRET": None}
    lacking = loader("run", settings, "--set", command, "--summary-json", last, environment=without)
    second = json.loads(last.read_text())

    assert (broken.status, first["exit_status"], "speed" in first["message"]) == (2, 2, True)
    assert (lacking.status, second["exit_status"], "not set" in second["message"]) == (2, 2, True)
    assert told.read_text() == "2\n"
