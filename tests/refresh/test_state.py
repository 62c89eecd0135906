"""The state file: what was written is read, whole or not at all, and marks are set in their places."""

from pathlib import Path

import numpy as np
import pytest

from loader.errors import CheckpointError
from loader.refresh.spill import PARTITIONS, Table
from loader.refresh.state import (
    ACKED,
    MARKS,
    MOST_ROWS,
    TAKEN,
    Draft,
    State,
    held_at,
    held_of,
    marks_of,
    names_of,
    rows_of,
)

FACTS = {"night": "n", "begun_at": 1.0, "full_at": 1.0, "identity": {"a": 1}, "secret": b"s" * 32, "keys": None}


def entries(partition: int, count: int) -> Table:
    found = np.arange(count * 5, dtype=np.uint64).reshape(count, 5)
    found[:, 0] |= np.uint64(partition << 56)
    return found


def make(path: Path, counts: dict[int, int]) -> None:
    draft = Draft(path, 5)
    for number in range(PARTITIONS):
        draft.add(entries(number, counts.get(number, 0)))
    draft.finish(["dept"], [[], [0]], FACTS)
    draft.replace()
    draft.close()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    make(tmp_path / "s", {0: 2, 7: 1, 255: 3})

    with State.open(tmp_path / "s") or pytest.fail("it is there") as state:
        assert state.about.night == "n"
        assert state.about.secret == b"s" * 32
        assert state.about.entries == 6
        for number, count in ((0, 2), (1, 0), (7, 1), (255, 3)):
            assert (state.partition(number) == entries(number, count)).all()
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


def test_there_is_none(tmp_path: Path) -> None:
    assert State.open(tmp_path / "s") is None


def test_a_draft_that_is_given_up_leaves_the_old_one(tmp_path: Path) -> None:
    make(tmp_path / "s", {3: 1})
    before = (tmp_path / "s").read_bytes()
    draft = Draft(tmp_path / "s", 5)
    draft.add(entries(0, 1))
    draft.close()

    assert (tmp_path / "s").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_marks_are_set_in_their_places(tmp_path: Path) -> None:
    make(tmp_path / "s", {0: 2, 7: 3})
    with State.open(tmp_path / "s") or pytest.fail("it is there") as state:
        found = state.partition(7)
        found[1, MARKS] |= ACKED | TAKEN
        state.mark(7, found)
        state.sync()
        assert (state.partition(7) == found).all()
        assert (state.partition(0) == entries(0, 2)).all()


def test_a_word_of_marks_keeps_its_parts_apart() -> None:
    one = [np.array([value], np.uint64) for value in (3, 70_000, 5, 0xFFFE)]
    marks = marks_of(*one)

    assert [int(part(marks)[0]) for part in (rows_of, names_of, held_of)] == [MOST_ROWS, 5, 0xFFFE]
    assert held_of(held_at(marks, names_of(marks))) == 5
    assert int(marks[0]) & 0xFFFF == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:60], "too short"),
        (lambda data: data[:-1], "doesn't begin and end as one"),
        (lambda data: b"x" + data[1:], "doesn't begin and end as one"),
        (lambda data: data[:64] + data[104:], "its length is not that of its entries"),
        (lambda data: data.replace(b'"version":1', b'"version":9'), "is of version 9"),
        (lambda data: data.replace(b'"night":"n"', b'"night":123'), "damaged"),
    ],
)
def test_what_is_no_state_is_refused_with_the_way_out(tmp_path: Path, change: object, message: str) -> None:
    make(tmp_path / "s", {0: 2})
    assert callable(change)
    (tmp_path / "s").write_bytes(change((tmp_path / "s").read_bytes()))

    with pytest.raises(CheckpointError, match=message) as caught:
        State.open(tmp_path / "s")

    assert "move it away, and the next run loads all users" in str(caught.value)
