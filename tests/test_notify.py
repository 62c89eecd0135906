"""How a run ended: in one line, as JSON, and for a command."""

import json
import sys
from pathlib import Path

from loader.checkpoint import Checkpoint
from loader.errors import Guarded
from loader.notify import notify, summary, summary_line
from loader.outcome import Code
from loader.standing import Report
from tests.make import batch, entry, outcome

STATE = {
    "exit_status": 1,
    "rows": 3,
    "outcomes": {"SUCCESS": 1, "FAILED": 2},
    "accepted": [],
    "seconds": 61,
    "message": "a\nb",
}


def test_the_summary_of_a_load(tmp_path: Path) -> None:
    with Checkpoint.open(tmp_path / "c", create=True) as checkpoint:
        checkpoint.put(identity={}, path="users.csv", finished_at=1.0, refresh={"night": "x", "new": 2})
        checkpoint.commit([entry(batch("abc"), outcome(), outcome(), outcome(Code.FAILED))])

    found = summary(tmp_path / "c", 0.0, 1, "")

    assert found["outcomes"] == {"SUCCESS": 2, "FAILED": 1}
    assert (found["rows"], found["failures"], found["finished"], found["export"]) == (3, 1, True, "users.csv")
    assert found["refresh"] == {"new": 2}
    assert found["seconds"] > 1e9
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_run_that_sent_nothing_tells_nothing_of_the_run_before(tmp_path: Path) -> None:
    with Checkpoint.open(tmp_path / "c", create=True) as checkpoint:
        checkpoint.commit([entry(batch("abc"))])

    assert summary(tmp_path / "c", 0.0, 2, "refused")["rows"] == 0
    assert summary(tmp_path / "nowhere", 0.0, 3, "")["rows"] == 0


def test_a_guard_s_figures_and_reason_are_in_the_summary_and_no_key(tmp_path: Path) -> None:
    error = Guarded("max_missing", {"known": 100, "missing": 7}, "7 of 100 are gone", "Say so once", ". First: 'jane'")

    found = summary(tmp_path / "c", 0.0, 2, str(error), error)

    assert str(error) == "7 of 100 are gone. First: 'jane'. Say so once"
    assert found["message"] == "7 of 100 are gone. Say so once"
    assert found["refresh"] == {"guard": "max_missing", "known": 100, "missing": 7}
    assert "jane" not in summary_line(found)
    assert "7 of 100 are gone" in summary_line(found)
    assert "gone" not in summary_line(found, is_told=True)


def test_what_is_accepted_is_no_failure_and_is_said(tmp_path: Path) -> None:
    with Checkpoint.open(tmp_path / "c", create=True) as checkpoint:
        checkpoint.put(accept=["USER_NOT_FOUND"])
        checkpoint.commit([entry(batch("abc"), outcome(), outcome(Code.USER_NOT_FOUND), outcome(Code.FAILED))])

        report = Report.of(checkpoint)
    found = summary(tmp_path / "c", 0.0, 1, "")

    assert (report.failures, report.exit_status) == (1, 1)
    assert (found["failures"], found["accepted"]) == (1, ["USER_NOT_FOUND"])
    assert "; accepted: USER_NOT_FOUND" in summary_line(found)


def test_a_checkpoint_that_is_damaged_ends_no_summary(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("no checkpoint")

    assert summary(tmp_path / "c", 0.0, 3, "it is damaged")["message"] == "it is damaged"


def test_one_line() -> None:
    assert summary_line(STATE) == "loader: exit status 1; 3 rows: 2 FAILED, 1 SUCCESS; in 1:01; a"


def test_the_command_gets_the_summary(tmp_path: Path) -> None:
    script = "import os, sys; open('got', 'w').write(os.environ['LOADER_EXIT_STATUS'] + sys.stdin.read())"
    said: list[str] = []
    notify(
        [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {script}"], tmp_path, 20, STATE, said.append
    )

    assert said == []
    text = (tmp_path / "got").read_text()
    assert text[0] == "1"
    assert json.loads(text[1:]) == STATE


def test_a_relative_command_begins_at_the_settings_folder(tmp_path: Path) -> None:
    (tmp_path / "tell").write_text('#!/bin/sh\necho > "$1"\n')
    (tmp_path / "tell").chmod(0o700)
    said: list[str] = []
    notify(f"./tell {tmp_path}/got", tmp_path, 20, STATE, said.append)

    assert said == []
    assert (tmp_path / "got").exists()


def test_what_the_command_does_wrong_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    notify("/nowhere/at-all", tmp_path, 20, STATE, said.append)
    notify("./tell --loud", tmp_path, 20, STATE, said.append)
    notify('"unclosed', tmp_path, 20, STATE, said.append)
    notify([sys.executable, "-c", "import sys; sys.exit(3)"], tmp_path, 20, STATE, said.append)
    notify(f"{sys.executable} -c 'import time; time.sleep(60)'", tmp_path, 0.1, STATE, said.append)

    assert said == [
        "notify.command: can't run /nowhere/at-all: No such file or directory",
        f"notify.command: can't run {tmp_path}/tell: No such file or directory",
        "notify.command: can't run '\"unclosed': No closing quotation",
        "notify.command: it ended with 3",
        "notify.command: it was ended, as it took longer than notify.timeout_s = 0.1",
    ]
