"""What comes as columns or objects is numbered, marked and gone on with as files are, and never taken for another."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.errors import ExportError, Stopped
from loader.export import Place, columnar, spool, table
from loader.export.table import Changed, Key, Table, of
from loader.record import Mark
from loader.span import SpanSet
from tests import make
from tests.make import FRAME


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BLOCK_ROWS", 10)
    monkeypatch.setattr(columnar, "BLOCK_ROWS", 10)
    monkeypatch.setattr(table, "_CHUNK_BYTES", 200)
    monkeypatch.setattr(table, "_HEAD", 200)


def users(count: int) -> pa.Table:
    keys = [f"u{at:04}" for at in range(count)]
    return pa.table({"email": pa.array(keys, pa.string()), "d": pa.array(range(count), pa.int64())})


class Keyed:
    """A source in order of its key, as a database is."""

    order_by: str | None = "email"
    comes_once = False

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows
        self.asked: list[Key | None] = []

    def __str__(self) -> str:
        return "the query"

    def columns(self) -> pa.Schema:
        return self.rows.schema

    def batches(self, after: Key | None) -> Iterator[pa.RecordBatch]:
        self.asked.append(after)
        rows = self.rows
        if after is not None:
            rows = rows.filter(pa.compute.field(self.order_by) > pa.scalar(after))
        return iter(rows.to_batches(max_chunksize=7))


def said(export: Table, **how: Any) -> dict[int, tuple[str, dict[str, Any]]]:
    return make.sent(export.rows(make.mapping(), **how))


@pytest.mark.parametrize(
    "data",
    [
        users(25),
        users(25).to_reader(),
        pl.DataFrame(users(25)),
        users(25).to_pylist(),
        iter(users(25).to_pylist()),
        ({"email": row["email"], "d": row["d"]} for row in users(25).to_pylist()),
    ],
    ids=["pyarrow", "a reader", "polars", "dicts", "an iterator", "a generator"],
)
def test_whatever_is_in_memory_can_be_loaded(data: object) -> None:
    export = of(data)

    export.check(make.mapping())

    assert said(export) == {at + 1: (f"u{at:04}", {"d": at}) for at in range(25)}


def test_what_is_no_table_is_refused() -> None:
    for data in ("users.csv", {"email": "ann"}, 5):
        with pytest.raises(ExportError, match="must have __arrow_c_stream__"):
            of(data)


def test_dicts_keep_what_is_absent_null_and_empty() -> None:
    """And whole numbers of any size, decimals with their digits, times as ISO 8601."""
    time = datetime(2026, 1, 31, tzinfo=UTC)
    row = {"email": "ann", "n": None, "e": "", "i": 5, "x": Decimal("12.50"), "t": time}

    (rows,) = of([row, {"email": "bob", "i": 1 << 70}]).rows(make.mapping())

    assert FRAME.attributes_of(rows.records[0]) == {
        "n": b"null", "e": b'""', "i": b"5", "x": b"12.50", "t": b'"2026-01-31T00:00:00Z"'
    }  # fmt: skip
    assert FRAME.attributes_of(rows.records[1]) == {"i": b"1180591620717411303424"}


def test_dicts_may_be_nested_as_ndjson_is() -> None:
    rows = of([{"userName": "ann", "attributes": {"d": 1}}]).rows(make.mapping(None))

    assert make.sent(rows) == {1: ("ann", {"d": 1})}


def test_a_dict_that_has_no_form_in_json_costs_that_row_or_is_named() -> None:
    odd = [{"email": "ann", "d": float("nan")}, ["bob"], {"email": "eve", "d": 1}]

    assert {row: code for row, (code, _, _) in make.settled(of(odd).rows(make.mapping())).items()} == {
        1: "REJECTED",
        2: "REJECTED",
    }
    with pytest.raises(ExportError, match="object 2 has no form in JSON"):
        list(of([{"email": "ann", "d": 1}, {"email": "bob", "d": object()}]).rows(make.mapping()))


def test_objects_are_spoken_of_as_objects() -> None:
    """No file has lines here."""
    told = make.settled(of([{"email": "ann", "d": 1}, 5, {"email": None}]).rows(make.mapping()))

    assert {row: message for row, (_, _, message) in told.items()} == {
        2: "object 2: not a JSON object",
        3: "object 3: the user's key is empty ('email' is null)",
    }
    with pytest.raises(ExportError, match=r"^the export is empty$"):
        of([]).check(make.mapping())


def test_what_breaks_off_keeps_the_rows_before() -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield {"email": "ann", "d": "1"}
        raise RuntimeError("no more")

    blocks, message = make.until_stopped(of(rows()).rows(make.mapping()))

    assert list(make.sent(blocks)) == [1]
    assert "behind row 1 (RuntimeError('no more'))" in message


@pytest.mark.parametrize(("is_keyed", "form"), [(True, "columns"), (False, "columns"), (False, "objects")])
def test_reading_goes_on_at_any_mark(is_keyed: bool, form: str) -> None:
    source = Keyed(users(55))
    export = Table.of(source) if is_keyed else of(users(55) if form == "columns" else users(55).to_pylist())
    blocks = list(export.rows(make.mapping()))
    marks = [block.end for block in blocks if block.end]
    assert len(marks) > 4

    for mark in marks:
        again = list(
            export.rows(make.mapping(), mark, SpanSet([(1, mark.row - 1)]), {each.row: each for each in marks})
        )

        assert list(make.sent(again)) == list(range(mark.row, 56))
        assert [block.end for block in again if block.end] == [each for each in marks if each.row > mark.row]
    if is_keyed:
        assert source.asked == [None, *(f"u{mark.row - 2:04}" for mark in marks)]


@given(sizes=st.lists(st.integers(1, 40), max_size=12), extra=st.integers(0, 30))
def test_marks_stand_at_the_same_rows_however_the_batches_come(sizes: list[int], extra: int) -> None:
    count = sum(sizes) + extra
    cut = pa.Table.from_batches(
        [users(count).slice(at, size).combine_chunks().to_batches()[0] for at, size in _spans(sizes, count)],
        users(0).schema,
    )

    assert [b.end for b in of(cut).rows(make.mapping())] == [b.end for b in of(users(count)).rows(make.mapping())]


def _spans(sizes: list[int], count: int) -> Iterator[tuple[int, int]]:
    at = 0
    for size in [*sizes, count]:
        if at < count:
            yield at, min(size, count - at)
        at += size


def test_a_table_is_the_same_if_it_is_so_to_its_end() -> None:
    """A row more, behind all that were read, is one that a finished load has not sent."""
    marks = [block.end for block in of(users(25)).rows(make.mapping()) if block.end]

    assert of(users(25)).is_same_up_to(marks, make.mapping())
    assert not of(users(26)).is_same_up_to(marks, make.mapping())
    assert not of(users(24)).is_same_up_to(marks, make.mapping())
    assert of(users(26)).is_same_up_to(marks, make.mapping(), marks[0]), "rows() will compare what it reads"


@pytest.mark.parametrize("is_keyed", [True, False])
@pytest.mark.parametrize("change", ["a value", "a row more", "a row less"])
def test_a_table_that_has_changed_where_it_was_read_is_not_gone_on_with(is_keyed: bool, change: str) -> None:
    """No row of the block with the change is handed out, as its number may be another's."""
    source = Keyed(users(55))
    before = Table.of(source) if is_keyed else of(source.rows)
    marks = [block.end for block in before.rows(make.mapping()) if block.end]
    rows = users(55).to_pylist()
    if change == "a value":
        rows[23]["d"] = 99
    elif change == "a row more":
        rows.insert(23, {"email": "u0022a", "d": 1})
    else:
        del rows[23]
    source.rows = pa.Table.from_pylist(rows)
    export = Table.of(source) if is_keyed else of(source.rows)
    found: list[int] = []
    blocks = export.rows(make.mapping(), marks[0], known={mark.row: mark for mark in marks})

    with pytest.raises(Changed, match="the query is not what it was" if is_keyed else "the table is not what it was"):
        found.extend(number for block in blocks for number in block.numbers)

    assert found == list(range(11, 21))
    assert not export.is_same_up_to(marks, make.mapping())


def test_objects_that_have_changed_in_size_are_seen_before_a_row_is_handed_out() -> None:
    """They are cut where they were before, however long they are now."""
    rows = users(40).to_pylist()
    marks = {block.end.row: block.end for block in of(rows).rows(make.mapping()) if block.end is not None}
    start = marks[min(marks)]

    with pytest.raises(Changed):
        next(of([{**rows[0], "d": "longer than before"}, *rows[1:]]).rows(make.mapping(), start, known=marks))
    assert said(of(rows), start=start, known=marks) == {
        row: user for row, user in said(of(rows)).items() if row >= min(marks)
    }


def test_objects_that_broke_off_are_gone_on_with_when_all_are_there() -> None:
    """The mark where they ended stands in the middle of what is a chunk now."""

    def all_but(count: int) -> Iterator[dict[str, Any]]:
        yield from users(40).to_pylist()[:-count]
        raise OSError

    blocks, _ = make.until_stopped(of(all_but(7)).rows(make.mapping()))
    marks = {block.end.row: block.end for block in blocks if block.end is not None}
    assert max(marks) == 34

    assert set(said(of(users(40).to_pylist()), start=marks[34], known=marks)) == set(range(34, 41))


def test_what_changes_behind_a_key_is_read_as_it_is_then() -> None:
    """What was read and settled is not read again, and what was not read yet has no number yet."""
    source = Keyed(users(55))
    export = Table.of(source)
    marks = [block.end for block in export.rows(make.mapping()) if block.end][:3]
    rows = users(55).to_pylist()
    rows[3]["d"], rows[44]["d"] = 99, 99
    source.rows = pa.Table.from_pylist([{"email": "a", "d": 1}, *rows, {"email": "z", "d": 1}])

    found = make.sent(export.rows(make.mapping(), marks[1], known={mark.row: mark for mark in marks}))

    assert found[45] == ("u0044", {"d": 99})
    assert found[56] == ("z", {"d": 1})
    assert min(found) == 21


def test_a_table_that_grew_at_its_end_is_gone_on_with() -> None:
    """Its last block was a short one, and ends where it did."""
    source = Keyed(users(25))
    marks = [block.end for block in Table.of(source).rows(make.mapping()) if block.end]
    source.rows = users(60)

    again = list(Table.of(source).rows(make.mapping(), marks[0], known={mark.row: mark for mark in marks}))

    assert list(make.sent(again)) == list(range(11, 61))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["a", "b", "b", "c"], 'row 3 is "b", as that of the row before'),
        (["a", None, "b", "c"], "row 2 is null"),
        ([1, 5, 4, 6], "row 3 is 4, less than that of the row before"),
        ([*(f"{at:02}" for at in range(10)), "09"], 'row 11 is "09", as that of the row before'),
    ],
)
def test_keys_that_do_not_rise_are_named(keys: list[Any], words: str) -> None:
    source = Keyed(pa.table({"email": [f"u{at}" for at in range(len(keys))], "k": keys}))
    source.order_by = "k"

    with pytest.raises(ExportError, match=words):
        list(Table.of(source).rows(make.mapping()))


def test_a_column_to_order_by_must_be_there() -> None:
    source = Keyed(users(3))
    source.order_by = "id"

    with pytest.raises(ExportError, match=r"export\.order_by: the query has no column 'id'; it has 'email', 'd'"):
        Table.of(source).check(make.mapping())


def test_what_comes_once_is_read_once() -> None:
    for export in (of(users(9_000).to_reader(10)), of(iter(users(9_000).to_pylist()))):
        export.check(make.mapping())
        assert export.comes_once
        assert len(said(export)) == 9_000
        with pytest.raises(ExportError, match="comes only once, and was read"):
            list(export.rows(make.mapping()))


def test_what_is_held_stays_as_it_was_and_can_be_told(tmp_path: Path) -> None:
    """Its order is checked all the same; two that hold the same rows have the same fingerprint, however they came."""
    source, seen = Keyed(users(25)), list[int]()
    with Table.of(source, "query").held(tmp_path, seen.append) as export:
        before = said(Table.of(source))
        source.rows = users(40)
        for _ in range(2):
            assert said(export) == before
        marks = [block.end for block in export.rows(make.mapping()) if block.end]
        assert said(export, start=marks[0]) == {row: user for row, user in before.items() if row > 10}
        assert (str(export), export.format, export.names(make.mapping())) == ("the query", "query", ["d"])
        assert export.fingerprint().tells
        assert list(tmp_path.iterdir()) == []

        with of(users(25).to_reader(max_chunksize=3)).held(tmp_path, seen.append) as same:
            assert same.fingerprint() == export.fingerprint()
            assert not same.comes_once
        with Table.of(source).held(tmp_path, seen.append) as other:
            assert other.fingerprint() != export.fingerprint()
    assert seen[:3] == [10, 20, 25]
    with (
        pytest.raises(ExportError, match='of row 2 is "u0000", as that of the row before'),
        Table.of(Keyed(pa.concat_tables([users(1), users(1)]))).held(tmp_path, seen.append),
    ):
        pass


def test_a_table_whose_types_differ_from_row_to_row_is_held_as_it_is(tmp_path: Path) -> None:
    class Loose(Keyed):
        order_by = None

        def columns(self) -> pa.Schema:
            return pa.schema([("email", pa.null()), ("d", pa.null())])

        def batches(self, after: Key | None) -> Iterator[pa.RecordBatch]:
            for at, value in enumerate([1, "x", None, 1.5, b"b"] * 5):
                yield pa.RecordBatch.from_pylist([{"email": f"u{at:03}", "d": value}])

    source = Loose(users(0))
    with Table.of(source).held(tmp_path, lambda _: None) as export:
        assert said(export) == said(Table.of(source))


def test_objects_are_not_held(tmp_path: Path) -> None:
    export = of(users(3).to_pylist())
    with export.held(tmp_path, lambda _: None) as held:
        assert held is export
        assert not held.fingerprint().tells


def test_rows_that_can_not_be_held_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "r+b", buffering=0) as full:
        monkeypatch.setattr(spool, "nameless", lambda _folder: full)
        with pytest.raises(ExportError, match=r"No space left on device\); refresh\.state puts them elsewhere"):
            Table.of(Keyed(users(3))).held(tmp_path, lambda _: None).__enter__()


def test_a_source_that_fails_in_any_way_keeps_the_rows_before() -> None:
    class Failing(Keyed):
        def batches(self, after: Key | None) -> Iterator[pa.RecordBatch]:
            yield self.rows.to_batches()[0]
            raise ZeroDivisionError("somebody else's")

    blocks, message = make.until_stopped(Table.of(Failing(users(20))).rows(make.mapping()))

    assert list(make.sent(blocks)) == list(range(1, 21))
    assert "the query breaks off behind row 20 (somebody else's)" in message
    with pytest.raises(Stopped):
        list(Table.of(Failing(users(20))).units(make.mapping(), Place(Mark())))
