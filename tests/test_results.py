"""What a person gets: lines that other programs can read, and a table that adds up."""

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from loader.checkpoint import Checkpoint, Entry, lock
from loader.outcome import Code, Outcome, Settled
from loader.results import COLUMNS, outcome_lines, status, status_lines, write_results
from loader.snapshot import Found, Note, Snapshot, Trouble
from tests import make

USERS = ["ann", 'o"hara, x', "a\nb", "a\rb", "é\0"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as opened:
        opened.commit([make.entry(make.batch(USERS))])
        opened.commit([Entry(settled=[Settled(6, "", Outcome(Code.REJECTED, "line 7: bad\rly"))])])
        yield opened


def written(checkpoint: Checkpoint, form: str, *codes: str) -> tuple[int, str]:
    out = io.StringIO(newline="")
    return write_results(checkpoint, out, form, codes), out.getvalue()


def test_csv_can_be_read_back(checkpoint: Checkpoint) -> None:
    """Whatever a key holds: a lone CR, which the csv module wrote bare, tore a row in two."""
    count, text = written(checkpoint, "csv")
    header, *rows = list(csv.reader(io.StringIO(text, newline="")))

    assert count == 6
    assert header == list(COLUMNS)
    assert [row[:3] for row in rows] == [
        *([str(at), user, "SUCCESS"] for at, user in enumerate(USERS, 1)),
        ["6", "", "REJECTED"],
    ]
    assert rows[5][3:] == ["line 7: bad\rly", "", "", "0"]
    assert text.startswith("row,user,code,message,target_code,http_status,attempts\n1,ann,SUCCESS,,0,200,1\n")


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\0=1", "＝1", "＋1", "－1", "＠1"]
TEXTS = ["", "'=1", "a=1", "1-2", " x", "ann@example.com", 'say "=1", twice']


def test_no_cell_is_a_formula_where_that_is_asked_for(tmp_path: Path) -> None:
    """In key, message and the target's own code; all other texts, and without the option all, come out as they are."""
    texts = FORMULAS + TEXTS
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as opened:
        outcomes = [Outcome(Code.INVALID, text, text, 400, 1) for text in texts]
        rows = [Settled(row, *pair) for row, pair in enumerate(zip(texts, outcomes, strict=True), 1)]
        opened.commit([Entry(settled=rows)])
        plain, safe = io.StringIO(newline=""), io.StringIO(newline="")
        write_results(opened, plain, "csv")
        write_results(opened, safe, "csv", formula_safe=True)

    def cells(text: str) -> list[list[str]]:
        return [[row[1], row[3], row[4]] for row in csv.reader(io.StringIO(text, newline=""))][1:]

    assert cells(plain.getvalue()) == [[text] * 3 for text in texts]
    assert cells(safe.getvalue()) == [[f"'{text}"] * 3 for text in FORMULAS] + [[text] * 3 for text in TEXTS]
    assert safe.getvalue().split("\n")[1] == '1,"\'=1+1","INVALID","\'=1+1","\'=1+1",400,1'


def test_ndjson_can_be_read_back(checkpoint: Checkpoint) -> None:
    """One object a line; what was not sent has no status."""
    count, text = written(checkpoint, "ndjson")
    rows = [json.loads(line) for line in text.split("\n")[:-1]]

    assert count == len(rows) == 6
    assert [row["user"] for row in rows] == [*USERS, ""]
    assert rows[5]["http_status"] is None
    assert list(rows[0]) == list(COLUMNS)


def test_codes_filter(checkpoint: Checkpoint) -> None:
    """Any of those given."""
    assert written(checkpoint, "ndjson", "REJECTED")[0] == 1
    assert written(checkpoint, "ndjson", "REJECTED", "SUCCESS")[0] == 6
    assert written(checkpoint, "csv", "FAILED") == (0, ",".join(COLUMNS) + "\n")


def test_the_status_adds_up(checkpoint: Checkpoint) -> None:
    """The rows are the sum over the outcomes, always."""
    checkpoint.put(path="users.csv", started_at=0.0)

    state = status(checkpoint)

    assert (state["rows"], state["failures"], state["state"]) == (6, 1, "unfinished")
    assert state["outcomes"] == {"SUCCESS": 5, "REJECTED": 1}
    lines = list(status_lines(state))
    assert lines[0] == f"users.csv → {checkpoint.path}"
    assert lines[1:4] == ["  SUCCESS   5", "  REJECTED  1", "  rows      6"]
    assert lines[4].startswith("not finished; begun ")


def test_a_finished_load_says_when(checkpoint: Checkpoint) -> None:
    """And not how to go on."""
    checkpoint.put(path="users.csv", started_at=0.0, finished_at=1.0)

    assert list(status_lines(status(checkpoint)))[-1].startswith("finished ")


def test_how_the_last_run_ended_is_told(checkpoint: Checkpoint) -> None:
    """By its own last word; a run without one was killed."""
    checkpoint.put(path="users.csv", started_at=0.0)
    now = Snapshot(1e9, 6, checkpoint.counts(), None, 2.0, 3.0, 4.0, 5.0)
    for snapshot, words in (
        (now, "the last run was killed, or broke down, after 20"),
        (replace(now, is_last=True), "the last run ended 20"),
        (replace(now, is_last=True, stopping="the disk is full"), "the last run ended 20"),
    ):
        checkpoint.commit([], Note(snapshot=snapshot))
        last = list(status_lines(status(checkpoint)))[-1]

        assert last.startswith(words)
        assert last.endswith(": the disk is full") == bool(snapshot.stopping)


def test_a_run_tells_its_pace_itself(checkpoint: Checkpoint) -> None:
    """And how long it will take; what a run before has left tells nothing of that."""
    checkpoint.put(path="users.csv", started_at=0.0)
    with lock(checkpoint.path):
        for at, told in ((time.time(), (3.0, 5.0)), (time.time() - 60, (0.0, None))):
            now = Snapshot(at, 6, checkpoint.counts(), 0.5, 2.0, 3.5, 4.0, 5.0, sent=8, sent_per_s=3.0)
            checkpoint.commit([], Note(snapshot=now))
            state = status(checkpoint)

            assert (state["users_per_s"], state["left_s"], state["state"], state["ended"]) == (*told, "running", None)


def test_of_a_run_that_ended_the_mean_is_told(checkpoint: Checkpoint) -> None:
    """Of users that were sent: what is compared, or rejected, says nothing of how fast the target is."""
    checkpoint.put(path="users.csv", started_at=0.0, finished_at=1.0, refresh={"rows": 90, "unchanged_rows": 84})
    checkpoint.commit([], Note(snapshot=Snapshot(1e9, 6, {}, 1.0, 9.0, 9.0, 10.0, None, sent=50, is_last=True)))

    lines = list(status_lines(status(checkpoint)))

    assert lines[-2] == "compared 90 rows: 84 unchanged, which are not sent"
    assert lines[-1].endswith(", 5 users sent/s")


def test_while_the_pace_is_being_found_status_says_so(checkpoint: Checkpoint) -> None:
    checkpoint.put(path="users.csv", started_at=0.0)
    with lock(checkpoint.path):
        now = Snapshot(time.time(), 6, {}, 0.5, 2.0, 3.0, 4.0, None, found=Found(3.0, is_guess=True))
        checkpoint.commit([], Note(snapshot=now))
        lines = list(status_lines(status(checkpoint)))

    assert lines[-1].endswith(", finding the pace"), "and no pace is told as found"


def test_while_the_target_is_down_status_says_why_and_when_it_gives_up(checkpoint: Checkpoint) -> None:
    """To people and to programs; and no time left."""
    checkpoint.put(started_at=1.0)
    trouble = Trouble("down", "Connection refused", time.time(), time.time() + 600)
    now = Snapshot(time.time(), 6, {}, 0.5, 2.0, 0.0, 3.0, None, trouble=trouble, found=Found(brake="token"))
    checkpoint.commit([], Note(now))
    assert status(checkpoint)["trouble"] is None, "no run is on"

    with lock(checkpoint.path):
        state = status(checkpoint)
    assert state["trouble"] == {
        "kind": "down",
        "reason": "Connection refused",
        "since": trouble.since,
        "gives_up_at": trouble.gives_up_at,
        "left_s": None,
        "words": trouble.words(),
    }
    lines = list(status_lines(state))
    assert f"waiting: {trouble.words()}" in lines
    assert not any(line.startswith("found:") for line in lines), "nobody found what it waits for"


def test_a_retry_that_is_not_finished_is_told_as_one(checkpoint: Checkpoint) -> None:
    """What its rows had stands until they have another outcome, and the sum is that of the load."""
    checkpoint.commit(
        [make.entry(make.batch("xyz", first=7), *map(make.outcome, (Code.FAILED, Code.FAILED, Code.SUCCESS)))]
    )
    checkpoint.put(path="users.csv", started_at=0.0, finished_at=1.0, rows=9)
    checkpoint.reopen([Code.FAILED])
    checkpoint.commit([make.entry(make.batch("x", first=7))])

    state = status(checkpoint)

    assert (state["state"], state["rows"], state["retry"]) == ("unfinished", 9, {"rows": 2, "sent_again": 1})
    assert state["outcomes"] == {"SUCCESS": 7, "REJECTED": 1, "FAILED": 1}
    *_, progress, last = status_lines(state)
    assert progress == "1 of 2 rows sent again; what the others had stands until they are"
    assert last.startswith("not finished; retry begun ")
    assert ". Go on with: loader retry" in last


def test_a_checkpoint_of_no_load_says_so(tmp_path: Path) -> None:
    """A run killed at once leaves one; its beginning is not now."""
    with Checkpoint.open(tmp_path / "x.ckpt", create=True) as empty:
        lines = list(status_lines(status(empty)))

    assert lines == [f"no export yet → {tmp_path / 'x.ckpt'}", "  rows  0", "not begun"]


def test_outcomes_stand_in_columns() -> None:
    """The largest first, nothing that didn't happen."""
    assert list(outcome_lines({Code.FAILED: 2, Code.SUCCESS: 12_345, Code.SKIPPED: 0})) == [
        "  SUCCESS  12,345",
        "  FAILED        2",
        "  rows     12,347",
    ]
