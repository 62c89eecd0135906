"""The checkpoint says of every row what became of it: as a plain dict would, durably, for one run at a time."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loader.batch import Batch
from loader.checkpoint import VERSION, Checkpoint, Entry, Moment, ResultRow, Span, discard, lock, publish
from loader.errors import CheckpointError
from loader.outcome import WORTH_RETRYING, Code, Outcome, Settled
from loader.record import Mark
from loader.resume import set_aside
from loader.snapshot import Found, Note, Snapshot, Wire
from loader.span import SpanSet
from tests import make

Model = dict[int, ResultRow]

USERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6) | st.sampled_from(
    ["o'hara", '"q"', "\0", "a\0b", "é😀", "x" * 3000, "null", "[]", "a\nb\rc"]
)
OUTCOMES = st.builds(
    Outcome,
    st.sampled_from([Code.SUCCESS, Code.SUCCESS, Code.USER_NOT_FOUND, Code.FAILED]),
    st.sampled_from(["", 'it\'s "so"']),
    st.sampled_from(["0", ""]),
    st.sampled_from([0, 200]),
    st.integers(1, 2),
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as opened:
        yield opened


@st.composite
def commits(draw: st.DrawFn) -> tuple[list[list[Entry]], Model]:
    """Rows 1 to n dealt to batches in any order, merged or not, and to rows never sent; and what results from them."""
    rows = draw(st.permutations(range(1, draw(st.integers(1, 40)) + 1)))
    model: Model = {}
    entries: list[Entry] = []
    while rows:
        count = draw(st.integers(1, 8))
        taken, rows = rows[:count], rows[count:]
        if draw(st.booleans()):  # mostly, the rows of a batch stand near each other
            taken = sorted(taken)
        users = draw(st.lists(USERS, min_size=len(taken), max_size=len(taken)))
        if draw(st.integers(0, 4)) == 0:
            settled = [
                Settled(row, user, Outcome(Code.REJECTED, "why")) for row, user in zip(taken, users, strict=True)
            ]
            entries.append(Entry(settled=settled))
            model |= {item.row: as_row(*item) for item in settled}
            continue
        merged: dict[int, list[int]] = {}
        if len(taken) > 2 and draw(st.booleans()):
            winner, *losers = sorted(taken[:3], reverse=True)
            merged = {winner: sorted(losers)}
            users = [user for row, user in zip(taken, users, strict=True) if row not in losers]
            taken = [row for row in taken if row not in losers]
        same = draw(st.booleans())
        outcomes = [draw(OUTCOMES)] * len(taken) if same else [draw(OUTCOMES) for _ in taken]
        entries.append(Entry(Batch(taken, users, [b"{}"] * len(taken), merged), outcomes))
        for row, user, outcome in zip(taken, users, outcomes, strict=True):
            model[row] = as_row(row, user, outcome)
            for loser in merged.get(row, []):
                superseded = Outcome(Code.SUPERSEDED, f"merged into row {row}", attempts=outcome.attempts)
                model[loser] = as_row(loser, user, superseded)
    groups = []
    while entries:
        count = draw(st.integers(1, 3))
        groups.append(entries[:count])
        entries = entries[count:]
    return groups, model


def as_row(row: int, user: str, outcome: Outcome) -> ResultRow:
    status = outcome.http_status or None
    return ResultRow(row, user, outcome.code, outcome.message, outcome.target_code, status, outcome.attempts)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(commits(), st.sets(st.sampled_from(["SUCCESS", "SUPERSEDED", "REJECTED"])))
def test_a_checkpoint_is_a_dict_of_rows(tmp_path: Path, made: tuple[list[list[Entry]], Model], codes: set[str]) -> None:
    """Results in order of row, filtered or not, counts, settled rows, and the view for plain sqlite3 all agree."""
    groups, model = made
    path = tmp_path / "users.ckpt"
    path.unlink(missing_ok=True)
    with Checkpoint.open(path, create=True) as checkpoint:
        for group in groups:
            checkpoint.commit(group)

        expected = [model[row] for row in sorted(model)]
        assert list(checkpoint.results()) == expected
        assert list(checkpoint.results(codes)) == [row for row in expected if not codes or row.code in codes]
        assert checkpoint.counts() == Counter(row.code for row in expected)
        assert checkpoint.settled() == SpanSet((row, row) for row in model)
    with closing(sqlite3.connect(path)) as db:
        shown = [ResultRow(*row) for row in db.execute("SELECT * FROM results ORDER BY row")]
    # SQLite's JSON functions end a text at NUL: of such a key the view shows what is before.
    assert [row for row in shown if "\0" not in model[row.row].user] == [
        row for row in expected if "\0" not in row.user
    ]
    assert [row.row for row in shown] == sorted(model)


@pytest.mark.parametrize("is_killed", [False, True])
def test_who_reads_leaves_nothing_behind(tmp_path: Path, is_killed: bool) -> None:
    """A run that is killed leaves its log, and the next who reads puts it where it belongs; unless a run is on."""
    path = tmp_path / "there" / "users.ckpt"
    path.parent.mkdir()
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as writing:
        writing.commit([make.entry(make.batch("abc"))])
        for each in tmp_path.glob("users.ckpt*") if is_killed else ():
            (path.parent / each.name).write_bytes(each.read_bytes())
        with Checkpoint.read(tmp_path / "users.ckpt") as reading:
            assert reading.counts() == {Code.SUCCESS: 3}
        assert (tmp_path / "users.ckpt-wal").stat().st_size, "the run's own log stays"
    if not is_killed:
        (tmp_path / "users.ckpt").rename(path)

    with Checkpoint.read(path) as reading:
        assert reading.counts() == {Code.SUCCESS: 3}
        with pytest.raises(sqlite3.OperationalError, match="attempt to write"):
            reading._db.execute("DELETE FROM batch")

    assert [each.name for each in path.parent.iterdir()] == ["users.ckpt"]


def test_the_last_one_to_leave_takes_the_log_away(tmp_path: Path) -> None:
    """A run that ends while somebody reads can't; whoever reads does, then."""
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as writing:
        writing.commit([make.entry(make.batch("abc"))])
        reading = Checkpoint.read(tmp_path / "users.ckpt").__enter__()
        assert reading.counts() == {Code.SUCCESS: 3}
    assert (tmp_path / "users.ckpt-wal").exists()
    reading.__exit__(None, None, None)

    assert [each.name for each in tmp_path.iterdir()] == ["users.ckpt"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(commits())
def test_a_reopened_load_lacks_what_is_worth_retrying(tmp_path: Path, made: tuple[list[list[Entry]], Model]) -> None:
    """The rows that failed, those merged into them, and what of the same users came behind; but for the rejected."""
    groups, model = made
    path = tmp_path / "users.ckpt"
    path.unlink(missing_ok=True)
    bad = {row for row, found in model.items() if found.code in WORTH_RETRYING}
    since: dict[str, int] = {}
    for row in sorted(model, reverse=True):
        winner = model[row].message.removeprefix("merged into row ")
        if row in bad or (model[row].code == "SUPERSEDED" and int(winner) in bad):
            since[model[row].user] = row
    gone = {row for row, found in model.items() if row >= since.get(found.user, 99) and found.code != "REJECTED"}
    with Checkpoint.open(path, create=True) as checkpoint:
        for group in groups:
            checkpoint.commit(group)
        checkpoint.put(finished_at=1.0, rows=len(model))

        assert checkpoint.reopen(WORTH_RETRYING) == len(gone)

        left = {row: found for row, found in model.items() if row not in gone}
        assert list(checkpoint.results()) == [model[row] for row in sorted(model)], "what was settled stands"
        assert checkpoint.outcomes() == Counter(found.code for found in model.values())
        assert checkpoint.counts() == Counter(found.code for found in left.values())
        assert checkpoint.settled() == SpanSet((row, row) for row in left)
        assert (checkpoint.get("finished_at") is None) == bool(gone) == (checkpoint.get("retried_at") is not None)
        assert checkpoint.reopen(WORTH_RETRYING) == 0
        for at, row in enumerate(sorted(gone), 1):
            checkpoint.commit([Entry(settled=[Settled(row, model[row].user, make.outcome())])])
            model[row] = as_row(row, model[row].user, make.outcome())
            assert list(checkpoint.results()) == [model[row] for row in sorted(model)], "until there is something newer"
            retrying = checkpoint.retrying()
            assert retrying is not None
            assert sum(checkpoint.counts().values()) - sum(retrying.kept.values()) == at <= retrying.rows == len(gone)
        assert checkpoint.counts() == checkpoint.outcomes()


def test_a_user_s_rows_stand_behind_the_one_that_failed(checkpoint: Checkpoint) -> None:
    """Row 1 was taken and stays; 2 was merged into 4, which failed, so its values are lost; 6 has to win again."""
    checkpoint.commit(
        [
            make.entry(Batch([1, 3], ["ann", "bob"], [b"{}"] * 2)),
            make.entry(Batch([4], ["ann"], [b"{}"], {4: [2]}), make.outcome(Code.FAILED)),
            make.entry(Batch([5, 6], ["bob", "ann"], [b"{}"] * 2)),
        ]
    )

    assert checkpoint.reopen(WORTH_RETRYING) == 3
    assert checkpoint.settled() == SpanSet([(1, 1), (3, 3), (5, 5)])
    checkpoint.commit([make.entry(Batch([6], ["ann"], [b"{}"], {6: [2, 4]}))])
    assert checkpoint.counts() == checkpoint.outcomes() == {Code.SUCCESS: 4, Code.SUPERSEDED: 2}


def test_a_batch_is_one_span_only_if_its_rows_are(checkpoint: Checkpoint) -> None:
    """Rows 10, 13, 12, where 11 was merged into 13, end as far apart as three in a row: they were taken for 10 to 12,
    which gave row 11 two outcomes and row 13 none."""
    batch = Batch([10, 13, 12], ["a", "b", "c"], [b"{}"] * 3, {13: [11]})

    checkpoint.commit([make.entry(batch)])

    assert [(row.row, row.user, row.code) for row in checkpoint.results()] == [
        (10, "a", "SUCCESS"),
        (11, "b", "SUPERSEDED"),
        (12, "c", "SUCCESS"),
        (13, "b", "SUCCESS"),
    ]


def test_a_settled_row_takes_little_room(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A batch is a row of the table, not each of its users."""
    users = [f"user{at:06}@example.com" for at in range(20_000)]
    checkpoint.commit(make.entry(make.batch(users[at : at + 100], at + 1)) for at in range(0, len(users), 100))
    checkpoint.merge_log()

    assert (tmp_path / "users.ckpt").stat().st_size < 45 * len(users)


def test_facts_are_kept_together(checkpoint: Checkpoint) -> None:
    """Any JSON value, and None where there is none."""
    checkpoint.put(identity={"a": [1, None]}, rows=3)
    checkpoint.put(rows=4)

    assert [checkpoint.get(key) for key in ("identity", "rows", "else")] == [{"a": [1, None]}, 4, None]


def test_reading_begins_at_the_last_mark_before_a_row(checkpoint: Checkpoint) -> None:
    """Marks come with the entries they belong to, in any order."""
    marks = [Mark(row, row * 10, row, str(row)) for row in (11, 31, 21)]
    checkpoint.commit(Entry(mark=mark) for mark in marks)

    assert checkpoint.marks() == sorted(marks)
    assert [checkpoint.start_at(row) for row in (1, 10, 11, 30, 99)] == [None, None, marks[0], marks[2], marks[1]]


def test_a_commit_is_all_or_nothing(checkpoint: Checkpoint) -> None:
    """A row that has an outcome gets no second one, and what came with it is not kept either."""
    checkpoint.commit([Entry(settled=[Settled(1, "a", make.outcome())])])

    with pytest.raises(sqlite3.IntegrityError):
        checkpoint.commit([make.entry(make.batch("bc", 2)), Entry(settled=[Settled(1, "a", make.outcome())])])

    assert len(checkpoint.settled()) == 1


def test_a_reader_sees_one_moment_while_a_run_writes(checkpoint: Checkpoint) -> None:
    """Results and counts agree, whatever is committed in between."""
    checkpoint.commit([make.entry(make.batch("ab"))])
    with Checkpoint.read(checkpoint.path) as reader:
        results = reader.results()
        first = next(results)
        checkpoint.commit([make.entry(make.batch("cd", 3)), Entry(settled=[Settled(5, "e", make.outcome())])])

        assert [first, *results] == list(checkpoint.results())[:2]
        assert reader.counts() == {Code.SUCCESS: 2}
    with Checkpoint.read(checkpoint.path) as reader:
        assert reader.counts() == {Code.SUCCESS: 5}


def test_a_finished_checkpoint_can_be_read(tmp_path: Path) -> None:
    """With no writer, and no log beside it."""
    path = tmp_path / "users.ckpt"
    with Checkpoint.open(path, create=True) as checkpoint:
        checkpoint.commit([make.entry(make.batch("ab"))])

    assert not path.with_name("users.ckpt-wal").exists()
    with Checkpoint.read(path) as reader:
        assert reader.counts() == {Code.SUCCESS: 2}


def test_all_its_files_are_the_owners_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """They hold users' keys; the log and its index do, too, whatever the umask."""
    old = os.umask(0)
    try:
        with lock(tmp_path / "users.ckpt"), Checkpoint.open(tmp_path / "other.ckpt", create=True) as other:
            for each in (checkpoint, other):
                each.commit([make.entry(make.batch("ab"))])
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(old)

    assert modes == dict.fromkeys(modes, 0o600)
    assert {"users.ckpt", "users.ckpt-wal", "users.ckpt-shm", "users.ckpt.lock"} <= set(modes)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")


def of_version(path: Path, version: int) -> None:
    with Checkpoint.open(path, create=True):
        pass
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={version}")


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda path: path.write_text("email,d\n" * 200), "file is not a database"),
        (lambda path: path.mkdir(), "is a folder|there is no checkpoint"),
        (foreign, r"is not a checkpoint \(no such table: load\)"),
        (lambda path: of_version(path, VERSION + 1), f"is of version {VERSION + 1}, and this loader reads version"),
    ],
)
def test_what_is_no_checkpoint_is_refused_and_left_alone(tmp_path: Path, make_it: Any, message: str) -> None:
    """The message names the file; not a byte of it is changed, as it is someone else's."""
    path = tmp_path / "users.ckpt"
    make_it(path)
    before = path.read_bytes() if path.is_file() else b""

    openings: tuple[Callable[[Path], Checkpoint], ...] = (Checkpoint.read, partial(Checkpoint.open, create=True))
    for opening in openings:
        with pytest.raises(CheckpointError, match=message) as caught:
            opening(path)
        assert str(path) in str(caught.value)

    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    """Only a run makes one."""
    openings: tuple[Callable[[Path], Checkpoint], ...] = (Checkpoint.read, partial(Checkpoint.open, create=False))
    for opening in openings:
        with pytest.raises(CheckpointError, match=r"there is no checkpoint .*users\.ckpt"):
            opening(tmp_path / "users.ckpt")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """By the lock, which comes first, and by the checkpoint itself."""
    path = tmp_path / "nowhere" / "users.ckpt"

    with pytest.raises(CheckpointError, match="its folder is not there"), lock(path):
        pass
    with pytest.raises(CheckpointError, match="No such file"):
        Checkpoint.open(path, create=True)


def test_an_empty_file_becomes_a_checkpoint(tmp_path: Path) -> None:
    """A run that was killed while making it leaves one."""
    (tmp_path / "users.ckpt").touch()

    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as checkpoint:
        assert list(checkpoint.results()) == []


HOLD = """
import sys
from pathlib import Path
from loader.checkpoint import lock
with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_lock_keeps_others_out_until_its_holder_is_gone(tmp_path: Path) -> None:
    """Killed is gone: nothing has to be cleaned up by hand."""
    path = tmp_path / "users.ckpt"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"

        with pytest.raises(CheckpointError, match=rf"is in use by another run \(process {holder.pid}\)"), lock(path):
            pass

        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock(path):
            pass

    assert list(tmp_path.iterdir()) == []


def test_what_a_load_begins_with_is_settled_a_span_at_a_time(tmp_path: Path) -> None:
    """Rows in between that are not its own are left to be sent."""
    with Checkpoint.draft(tmp_path / "c") as checkpoint:
        spans = [Span(1, 4, 3, '["a",null,"c","d"]'), Span(6, 6, 1, '["f"]')]
        marks = [Mark(5, 50, 5, "a"), Mark(9, 90, 9, "b")]
        checkpoint.begin_with(
            Code.UNCHANGED, spans, marks, [(2, "b", ["dept"]), (9, "z", ["dept", "site"])], refresh={"rows": 8}
        )

        assert [(row.row, row.user, row.code, row.attempts) for row in checkpoint.results()] == [
            (1, "a", "UNCHANGED", 0),
            (3, "c", "UNCHANGED", 0),
            (4, "d", "UNCHANGED", 0),
            (6, "f", "UNCHANGED", 0),
        ]
        assert checkpoint.settled() == SpanSet([(1, 1), (3, 4), (6, 6)])
        assert checkpoint.marks() == marks
        assert checkpoint.counts() == {Code.UNCHANGED: 4}
        assert checkpoint.cleared(1, 8) == [(2, "b", ["dept"])]
        assert checkpoint.cleared(1, 99, 1) == [(2, "b", ["dept"])]
        assert checkpoint.get("refresh") == {"rows": 8}


def test_a_draft_takes_its_place_whole_and_whoever_reads_what_stood_there_is_not_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with Checkpoint.open(path, create=True) as checkpoint:
        checkpoint.put(identity={"a": 1})
    with Checkpoint.read(path) as other:
        with Checkpoint.draft(path) as draft:
            assert stat.S_IMODE((tmp_path / "c.part").stat().st_mode) == 0o600
            draft.put(identity={"a": 2})
            draft.begin_with(Code.UNCHANGED, [Span(1, 1, 1, '["u"]')], (), (), rows=1)
        assert other.get("identity") == {"a": 1}
        aside = set_aside(path, even_unfinished=True)
        publish(path)

        assert (other.get("identity"), other.counts()) == ({"a": 1}, {})
        with Checkpoint.open(path, create=False) as checkpoint, Checkpoint.read(path) as third:
            checkpoint.put(rows=2)
            assert (third.get("identity"), third.counts(), third.get("rows")) == ({"a": 2}, {Code.UNCHANGED: 1}, 1)
    assert aside is not None
    assert {each.name for each in tmp_path.iterdir()} >= {path.name, aside.name}


def test_a_draft_is_written_once_without_a_log(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with Checkpoint.draft(path) as draft:
        draft.begin_with(Code.UNCHANGED, [Span(1, 1, 1, f'["{"u" * 1_000_000}"]')], (), ())

        assert [each.name for each in tmp_path.iterdir()] == ["c.part"]
    publish(path)

    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_draft_that_is_not_finished_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "c"

    def spans() -> Iterator[Span]:
        yield Span(1, 1, 1, f'["{"u" * 10_000_000}"]')
        raise OSError

    with suppress(CheckpointError), Checkpoint.draft(path) as draft:
        draft.begin_with(Code.UNCHANGED, spans(), (), ())
    discard(path)

    assert list(tmp_path.iterdir()) == []


def test_a_retry_leaves_unchanged_rows_alone(tmp_path: Path) -> None:
    with Checkpoint.open(tmp_path / "c", create=True) as checkpoint:
        checkpoint.begin_with(Code.UNCHANGED, [Span(1, 2, 2, '["a","b"]')], (), ())
        checkpoint.commit([make.entry(make.batch("cd", 3), make.outcome(), make.outcome(Code.FAILED))])
        checkpoint.put(finished_at=1.0)

        assert checkpoint.reopen(WORTH_RETRYING) == 1
        assert checkpoint.counts() == {Code.UNCHANGED: 2, Code.SUCCESS: 1}


def test_users_come_by_their_outcome(tmp_path: Path) -> None:
    with Checkpoint.open(tmp_path / "c", create=True) as checkpoint:
        checkpoint.commit([make.entry(make.batch("abc"), make.outcome(), make.outcome(Code.FAILED), make.outcome())])

        found = {
            row + at: user for row, users in checkpoint.users(["SUCCESS"]) for at, user in enumerate(users) if user
        }
        assert found == {1: "a", 3: "c"}
        assert [users for _, users in checkpoint.users(["FAILED"])] == [["b"]]


def test_batches_that_follow_each_other_share_a_row(checkpoint: Checkpoint) -> None:
    """Of one commit, with one outcome; a gap, another outcome, or five thousand users begin another."""
    many = range(10, 5011)
    checkpoint.commit(
        Entry(Batch([row], [f"user{row}"], [b"{}"]), [make.outcome(Code.INVALID if row == 6 else Code.SUCCESS)])
        for row in (3, 1, 2, 5, 6, *many)
    )

    with closing(sqlite3.connect(checkpoint.path)) as db:
        spans = db.execute("SELECT first, last, count FROM batch ORDER BY first").fetchall()
    assert spans == [(1, 3, 3), (5, 5, 1), (6, 6, 1), (10, 5009, 5000), (5010, 5010, 1)]
    assert [(found.row, found.user) for found in checkpoint.results()] == [
        (row, f"user{row}") for row in (1, 2, 3, 5, 6, *many)
    ]


def test_the_course_of_a_load_and_its_last_moment_are_kept(checkpoint: Checkpoint) -> None:
    """In the commits of outcomes, or by themselves; the course is of moments that are meant to stay."""
    found = Found(requests_per_s=50.0, brake="rate")
    wire = Wire(requests=7, refused=1, p50_s=0.25)
    first = Snapshot(1.5, 10, {Code.SUCCESS: 9, Code.INVALID: 1}, 0.5, 2.0, 3.0, 4.0, 5.0, wire, 16, found=found)
    later = msgspec.structs.replace(first, at=2.5, rows=11, stopping="the disk is full")

    checkpoint.commit([], Note(first, is_moment=True))
    checkpoint.commit([], Note(later))
    checkpoint.commit([])

    assert checkpoint.now() == later
    assert checkpoint.found() == found
    assert checkpoint.course() == [Moment(1.5, 4.0, 10, 1, 3.0, 7, 1, 0, 0, 16, 0.25, None, "rate")]


def test_a_new_checkpoint_has_no_course(checkpoint: Checkpoint) -> None:
    assert (checkpoint.now(), checkpoint.found(), checkpoint.course()) == (None, Found(), [])
