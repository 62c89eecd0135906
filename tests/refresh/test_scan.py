"""The attributes that rows have, as sets with numbers."""

import numpy as np
import pyarrow as pa
import pytest

from loader.errors import ExportError
from loader.mapping.texts import Texts
from loader.refresh import scan
from loader.refresh.scan import ANY, EMPTY, Sets


def test_sets_are_numbered_row_by_row() -> None:
    sets = Sets()
    columns = [
        (sets.place("a"), None, Texts.of(pa.array(["x", None, "x", None]))),
        (sets.place("b"), np.array([0, 3]), Texts.of(pa.array(["y", "y"]))),
    ]
    found = sets.numbers(columns, 4).tolist()

    assert [sets.without(number, EMPTY) for number in found] == [["a", "b"], [], ["a"], ["b"]]
    assert found[1] == EMPTY


def test_sets_are_joined_and_compared() -> None:
    sets = Sets(["a", "b", "c"], [[], [0], [1, 2]])

    assert sets.sets[sets.union(1, 2)] == {0, 1, 2}
    assert sets.union(1, EMPTY) == 1
    assert sets.without(2, 1) == ["b", "c"]


def test_too_many_sets_stand_for_any_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather one removed too often than one too few."""
    monkeypatch.setattr(scan, "ANY", 2)
    sets = Sets(["a", "b"])
    sets.number(frozenset({0}))

    assert sets.number(frozenset({1})) == 2
    assert sets.union(1, 2) == 2
    assert sets.without(2, 1) == ["b"]
    assert ANY == 0xFFFE


def test_there_are_only_so_many_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_MOST_NAMES", 2)
    sets = Sets(["a", "b"])

    with pytest.raises(ExportError, match="more than 2 attributes"):
        sets.place("c")
