"""A run goes on with the same load, refuses another, and never mixes two."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loader.checkpoint import Checkpoint, Entry
from loader.errors import CheckpointError
from loader.export.files import Files
from loader.outcome import Code, Outcome, Settled
from loader.resume import Resume, begin, reopen, set_aside, standing
from loader.span import SpanSet
from tests import make

IDENTITY: dict[str, Any] = {"mapping.user": "email", "mapping.types": {}, "target.api": "calven"}
CONTENT = "email,d\n" + "".join(f"u{at},{at}\n" for at in range(1, 21))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as opened:
        yield opened


@pytest.fixture
def export(tmp_path: Path) -> Files:
    return make.export(tmp_path, CONTENT, chunk_bytes=32)


def read_all(checkpoint: Checkpoint, export: Files) -> None:
    """Settle rows 1 to 9 and 11, and keep every mark, as a run does."""
    checkpoint.commit(Entry(mark=block.end) for block in export.rows(make.mapping()))
    checkpoint.commit([make.entry(make.batch("abcdefghi")), make.entry(make.batch("k", 11))])


def test_a_first_run_begins_at_the_first_row(checkpoint: Checkpoint, export: Files) -> None:
    """And notes what load it is."""
    assert begin(checkpoint, IDENTITY, export, make.mapping()) == Resume(SpanSet(), None)
    assert checkpoint.get("identity") == IDENTITY


def test_a_run_goes_on_before_the_first_row_that_is_not_settled(checkpoint: Checkpoint, export: Files) -> None:
    """From the last mark before it; the rows settled behind it are known."""
    begin(checkpoint, IDENTITY, export, make.mapping())
    read_all(checkpoint, export)

    resume = begin(checkpoint, IDENTITY, export, make.mapping())

    assert resume.settled == SpanSet([(1, 9), (11, 11)])
    assert resume.start == max(mark for mark in checkpoint.marks() if mark.row <= 10)
    assert list(make.sent(export.rows(make.mapping(), resume.start, resume.settled))) == [10, *range(12, 21)]


def test_a_finished_load_stays_finished(checkpoint: Checkpoint, export: Files) -> None:
    """Nothing is read or sent."""
    begin(checkpoint, IDENTITY, export, make.mapping())
    checkpoint.put(finished_at=1.0)

    assert begin(checkpoint, IDENTITY, export, make.mapping()).is_finished


def test_another_load_is_refused_with_the_difference(checkpoint: Checkpoint, export: Files) -> None:
    """Every setting that differs, as it was and as it is."""
    begin(checkpoint, IDENTITY, export, make.mapping())
    read_all(checkpoint, export)

    with pytest.raises(CheckpointError) as caught:
        begin(
            checkpoint,
            IDENTITY | {"mapping.user": "upn", "mapping.types": {"n": "number"}, "target.write": "x"},
            export,
            make.mapping(),
        )

    assert str(caught.value).splitlines()[1:4] == [
        "  mapping.types: was {}, is {'n': 'number'}",
        "  mapping.user: was 'email', is 'upn'",
        "  target.write: was not set, is 'x'",
    ]
    assert "--fresh" in str(caught.value)


def test_a_load_of_which_nothing_is_settled_gives_way(checkpoint: Checkpoint, export: Files) -> None:
    """Whoever mistyped the port need not start over aloud."""
    begin(checkpoint, IDENTITY, export, make.mapping())
    checkpoint.commit([Entry(mark=block.end) for block in export.rows(make.mapping())])

    assert begin(checkpoint, IDENTITY | {"mapping.user": "upn"}, export, make.mapping()) == Resume(SpanSet(), None)
    assert checkpoint.get("identity")["mapping.user"] == "upn"
    assert checkpoint.marks() == []


def touch(export: Files) -> None:
    os.utime(make.file_of(export), (1, 1))


def test_a_touched_copy_is_the_same_export(checkpoint: Checkpoint, export: Files) -> None:
    """Its content was compared, so next time its new date is known."""
    begin(checkpoint, IDENTITY, export, make.mapping())
    read_all(checkpoint, export)
    touch(export)

    assert begin(checkpoint, IDENTITY, export, make.mapping()).settled == SpanSet([(1, 9), (11, 11)])
    assert checkpoint.get("export")["mtime_ns"] == 10**9


def test_a_touched_copy_of_what_was_not_read_yet_is_the_same(checkpoint: Checkpoint, export: Files) -> None:
    """A run killed before its first commit left no mark to compare with."""
    begin(checkpoint, IDENTITY, export, make.mapping())
    touch(export)

    assert begin(checkpoint, IDENTITY, export, make.mapping()) == Resume(SpanSet(), None)


@pytest.mark.parametrize("at", [0, 9, len(CONTENT) - 2])
def test_an_export_of_the_same_size_with_other_content_is_refused(
    checkpoint: Checkpoint, export: Files, tmp_path: Path, at: int
) -> None:
    """Whatever byte of what was read differs, be the export ever so small."""
    whole = dataclasses.replace(export, chunk_bytes=1 << 20)
    begin(checkpoint, IDENTITY, whole, make.mapping())
    read_all(checkpoint, whole)
    make.file_of(whole).write_text(CONTENT[:at] + "X" + CONTENT[at + 1 :])
    touch(whole)

    with pytest.raises(CheckpointError, match="its size is the same, its content is not"):
        begin(checkpoint, IDENTITY, whole, make.mapping())


def test_an_export_of_another_size_is_refused(checkpoint: Checkpoint, export: Files) -> None:
    """A load that is finished belongs to its export, too."""
    begin(checkpoint, IDENTITY, export, make.mapping())
    checkpoint.put(finished_at=1.0)
    make.file_of(export).write_text(CONTENT + "more,1\n")

    with pytest.raises(CheckpointError, match=r"has changed .*its size was \d+ bytes and is \d+"):
        begin(checkpoint, IDENTITY, export, make.mapping())


def test_two_interruptions_leave_one_chain_of_marks(checkpoint: Checkpoint, export: Files) -> None:
    """The marks of a resumed run go on with those of the first: a touched copy is known even then."""
    begin(checkpoint, IDENTITY, export, make.mapping())
    blocks = list(export.rows(make.mapping()))
    checkpoint.commit([Entry(mark=block.end) for block in blocks[:4]])
    checkpoint.commit([make.entry(make.batch("abc"))])
    resume = begin(checkpoint, IDENTITY, export, make.mapping())
    checkpoint.commit([Entry(mark=block.end) for block in export.rows(make.mapping(), resume.start, resume.settled)])
    touch(export)

    assert len(begin(checkpoint, IDENTITY, export, make.mapping()).settled) == 3
    assert checkpoint.marks() == [block.end for block in blocks if block.end]


def test_an_unfinished_load_is_set_aside_only_if_asked(checkpoint: Checkpoint, export: Files) -> None:
    """Its outcomes would be lost from sight."""
    begin(checkpoint, IDENTITY, export, make.mapping())

    with pytest.raises(CheckpointError, match="not finished; resume it without --fresh, or give it up: --fresh --yes"):
        set_aside(checkpoint.path, even_unfinished=False)
    assert set_aside(checkpoint.path, even_unfinished=True) is not None


def test_nothing_is_set_aside_where_nothing_is(tmp_path: Path) -> None:
    """A first --fresh is a first run."""
    assert set_aside(tmp_path / "users.ckpt", even_unfinished=False) is None


def test_checkpoints_set_aside_keep_all_they_had(tmp_path: Path) -> None:
    """Each under a name of its own."""
    path = tmp_path / "users.ckpt"
    names = []
    for user in "abc":
        with Checkpoint.open(path, create=True) as checkpoint:
            checkpoint.put(identity=IDENTITY, finished_at=1.0)
            checkpoint.commit([make.entry(make.batch(user))])
        names.append(set_aside(path, even_unfinished=False))

    assert len(set(names)) == 3
    for name, user in zip(names, "abc", strict=True):
        assert name is not None
        with Checkpoint.read(name) as checkpoint:
            assert [row.user for row in checkpoint.results()] == [user]


@pytest.mark.parametrize("is_reading", [True, False])
def test_a_new_checkpoint_takes_nothing_from_the_old_one(tmp_path: Path, is_reading: bool) -> None:
    """While somebody reads the old one its log stays on disk, and was taken for the new one's: with all old rows."""
    path = tmp_path / "users.ckpt"
    with Checkpoint.open(path, create=True) as old:
        old.put(identity=IDENTITY, finished_at=1.0)
        old.commit([make.entry(make.batch("ab"))])
    with Checkpoint.read(path) as reader:
        if is_reading:
            assert len(reader.settled()) == 2
        with Checkpoint.open(path, create=True) as old:
            old.commit([make.entry(make.batch("c", 3))])
            aside = set_aside(path, even_unfinished=False)
        with Checkpoint.open(path, create=True) as new:
            assert list(new.results()) == []
            new.commit([make.entry(make.batch("z"))])
        if is_reading:
            assert len(reader.settled()) == 2

    assert aside is not None
    with Checkpoint.read(aside) as kept, Checkpoint.read(path) as new:
        assert [row.user for row in kept.results()] == ["a", "b", "c"]
        assert [row.user for row in new.results()] == ["z"]


def test_a_retry_goes_on_with_what_was_taken_back_out(checkpoint: Checkpoint, export: Files) -> None:
    """Also when that is every row: it is the same load still, of the same export and mapping."""
    begin(checkpoint, IDENTITY, export, make.mapping())
    blocks = list(export.rows(make.mapping()))
    checkpoint.commit([Entry(mark=block.end) for block in blocks])
    checkpoint.commit([make.entry(make.batch([f"u{at}" for at in range(1, 21)]), make.outcome(Code.FAILED))])
    checkpoint.put(finished_at=1.0, rows=20)

    resume = reopen(checkpoint, begin(checkpoint, IDENTITY, export, make.mapping()))

    assert (resume.is_finished, len(resume.settled), resume.start) == (False, 0, None)
    again = reopen(checkpoint, begin(checkpoint, IDENTITY, export, make.mapping()))
    assert again == resume
    with pytest.raises(CheckpointError, match="belongs to another load"):
        begin(checkpoint, IDENTITY | {"mapping.user": "upn"}, export, make.mapping())


def test_a_load_that_is_not_finished_has_no_retry(checkpoint: Checkpoint, export: Files) -> None:
    """Its rows have to be sent once, before any is sent again."""
    resume = begin(checkpoint, IDENTITY, export, make.mapping())

    with pytest.raises(CheckpointError, match="not finished; finish it first"):
        reopen(checkpoint, resume)


def test_a_load_without_failures_stays_finished(checkpoint: Checkpoint, export: Files) -> None:
    """A rejected row is none that could be retried."""
    begin(checkpoint, IDENTITY, export, make.mapping())
    read_all(checkpoint, export)
    checkpoint.commit([Entry(settled=[Settled(12, "", Outcome(Code.REJECTED, "ragged"))])])
    checkpoint.put(finished_at=1.0, rows=11)

    assert reopen(checkpoint, begin(checkpoint, IDENTITY, export, make.mapping())).is_finished
    assert checkpoint.get("finished_at") == 1.0


def stands(checkpoint: Checkpoint, export: Files, **changed: Any) -> str:
    return standing(checkpoint.path, IDENTITY | changed, export, make.mapping())


def test_how_a_checkpoint_stands_to_an_export_that_goes_whole(
    checkpoint: Checkpoint, export: Files, tmp_path: Path
) -> None:
    """Open until something is settled; then it holds the answer, or that to an export which has changed since."""
    content = make.file_of(export).read_text()
    assert standing(tmp_path / "none.ckpt", IDENTITY, export, make.mapping()) == "open"
    assert stands(checkpoint, export) == "open"
    begin(checkpoint, IDENTITY, export, make.mapping())
    make.file_of(export).write_text(content + "more,21\n")
    assert stands(checkpoint, export) == "open"

    begin(checkpoint, IDENTITY, export, make.mapping())
    read_all(checkpoint, export)
    assert stands(checkpoint, export) == "answered"
    touch(export)
    assert stands(checkpoint, export) == "answered"
    assert stands(checkpoint, export, **{"mapping.user": "upn"}) == "open", "begin() says what is wrong"
    make.file_of(export).write_text(content + "less,21\n")
    assert stands(checkpoint, export) == "outdated"
    checkpoint.put(finished_at=1.0)
    assert stands(checkpoint, export) == "outdated"
    make.file_of(export).write_text(content + "more,21\n")
    assert stands(checkpoint, export) == "finished"


def test_what_was_compared_and_has_no_marks_is_known_by_its_time(checkpoint: Checkpoint, export: Files) -> None:
    """Parquet and Arrow get marks only as they are sent, and what was compared is all of it."""
    begin(checkpoint, IDENTITY, export, make.mapping())
    checkpoint.put(refresh={"rows": 20})
    read_all(checkpoint, export)
    begin(checkpoint, IDENTITY, export, make.mapping())
    *marks, last = checkpoint.marks()
    checkpoint.forget_marks()
    checkpoint.commit(Entry(mark=mark) for mark in marks)
    begin(checkpoint, IDENTITY, export, make.mapping())
    touch(export)
    with pytest.raises(CheckpointError, match="its time or version is another, and that its content"):
        begin(checkpoint, IDENTITY, export, make.mapping())

    checkpoint.commit([Entry(mark=last)])
    begin(checkpoint, IDENTITY, export, make.mapping())


def test_a_whole_export_that_a_retry_took_back_out_has_no_answer(checkpoint: Checkpoint, export: Files) -> None:
    """Until it is sent again; should the export change meanwhile, it is outdated all the same."""
    begin(checkpoint, IDENTITY, export, make.mapping())
    checkpoint.commit([make.entry(make.batch("ab"), make.outcome(Code.INVALID))])
    checkpoint.put(finished_at=1.0, rows=2)
    reopen(checkpoint, begin(checkpoint, IDENTITY, export, make.mapping()))

    assert stands(checkpoint, export) == "open"
    make.file_of(export).write_text(CONTENT + "more,21\n")
    assert stands(checkpoint, export) == "outdated"
