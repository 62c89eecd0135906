"""The ledger holds what was accepted, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.sandbox import Entry, Ledger, LedgerOptions, Write


def test_writes_merge() -> None:
    """A later write changes the attributes it names and leaves the others."""
    ledger = Ledger(LedgerOptions())
    ledger.accept(["a", "b"], [{"x": "1", "y": "1"}, {"x": "1"}])
    ledger.accept(["a"], [{"y": "2", "z": None}])

    assert ledger.users["a"] == Entry({"x": "1", "y": "2", "z": None}, writes=2, last_write=3)
    assert ledger.users["b"] == Entry({"x": "1"}, writes=1, last_write=2)
    assert ledger.writes == 3


def test_writes_may_replace() -> None:
    """With write = "replace" only the last write counts."""
    ledger = Ledger(LedgerOptions(write="replace"))
    ledger.accept(["a", "a"], [{"x": "1"}, {"y": "2"}])

    assert ledger.users["a"] == Entry({"y": "2"}, writes=2, last_write=2)


writes = st.lists(st.tuples(st.sampled_from("ab"), st.dictionaries(st.sampled_from("xy"), st.integers())))


@given(writes)
def test_the_journal_explains_the_ledger(made: list[tuple[str, dict[str, int]]]) -> None:
    """The journal keeps each write as it came; replayed, it gives the users."""
    ledger = Ledger(LedgerOptions(journal=True))
    for user, attributes in made:
        ledger.accept([user], [attributes.copy()])

    assert ledger.journal == [Write(*write) for write in made]
    replayed: dict[str, dict[str, int]] = {}
    for user, attributes in made:
        replayed[user] = {**replayed.get(user, {}), **attributes}
    assert {user: entry.attributes for user, entry in ledger.users.items()} == replayed


def test_count_only_keeps_no_user() -> None:
    """With count_only there are counts alone."""
    ledger = Ledger(LedgerOptions(count_only=True))
    ledger.accept(["a", "b"], [{}, {}])

    assert (ledger.writes, ledger.users, ledger.journal) == (2, {}, [])


def test_users_as_lines() -> None:
    """A user is a line of NDJSON with attributes and number of writes; journal lines have no number."""
    ledger = Ledger(LedgerOptions(journal=True))
    ledger.accept(["ü\n", "a"], [{"x": 1}, {}])
    ledger.accept(["ü\n"], [{"x": 2}])

    assert [json.loads(line) for line in ledger.lines()] == [
        {"userName": "ü\n", "attributes": {"x": 2}, "writes": 2},
        {"userName": "a", "attributes": {}, "writes": 1},
    ]
    assert b"".join(ledger.journal_lines()).splitlines()[0] == '{"userName":"ü\\n","attributes":{"x":1}}'.encode()
    with pytest.raises(KeyError):
        ledger.line("nobody")


def test_lines_bear_writes_meanwhile() -> None:
    """Users that come while the lines are read don't disturb the reading."""
    ledger = Ledger(LedgerOptions())
    ledger.accept(["a", "b"], [{}, {}])
    lines = ledger.lines()
    next(lines)
    ledger.accept(["c"], [{}])

    assert len(list(lines)) == 1


def test_null_may_remove() -> None:
    """An attribute sent as null goes, if the API says so, whether it was there or not; the journal keeps the null."""
    ledger = Ledger(LedgerOptions(journal=True))
    ledger.accept(["a"], [{"x": "1", "y": "1", "z": None}], null_removes=True)
    ledger.accept(["a"], [{"y": None}], null_removes=True)

    assert ledger.users["a"] == Entry({"x": "1"}, writes=2, last_write=2)
    assert ledger.journal == [Write("a", {"x": "1", "y": "1", "z": None}), Write("a", {"y": None})]


def test_an_api_may_rule() -> None:
    """What an API documents of its writes stands above the option."""
    for option, write, then in (("replace", "merge", {"x": 1, "y": 2}), ("merge", "replace", {"y": 2})):
        ledger = Ledger(LedgerOptions.model_validate({"write": option}))
        ledger.accept(["a"], [{"x": 1}])
        ledger.accept(["a"], [{"y": 2}], write="merge" if write == "merge" else "replace")

        assert ledger.users["a"].attributes == then


def test_the_hierarchy_is_the_last_one() -> None:
    """A hierarchy takes the place of the one before, and each is counted; lines are in the order sent."""
    ledger = Ledger(LedgerOptions(count_only=True))
    assert list(ledger.hierarchy_lines()) == []
    ledger.replace_hierarchy([{"group": "a"}])
    ledger.replace_hierarchy([{"group": "c", "parent": "b"}, {"group": "b", "parent": None}])

    assert list(ledger.hierarchy_lines()) == [b'{"group":"c","parent":"b"}\n', b'{"group":"b","parent":null}\n']
    assert (ledger.hierarchies, ledger.writes) == (2, 0)
