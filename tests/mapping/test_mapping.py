"""Cells and values into records, rule by rule; the readers' tests compare whole files with a reference."""

import json
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.errors import ExportError
from loader.mapping import MAX_DEPTH, Empty, Mapped, Type
from loader.mapping.columns import ColumnMapper
from loader.mapping.jsonlines import LineMapper
from loader.outcome import Code
from tests import make


def map_cells(cells: list[str | bytes], **options: Any) -> Mapped:
    """A block with a key column and the column "v"."""
    values = [cell.encode() if isinstance(cell, str) else cell for cell in cells]
    keys = [f"u{at}".encode() for at in range(len(cells))]
    block = pa.table({"email": pa.array(keys, pa.binary()), "v": pa.array(values, pa.binary())})
    return ColumnMapper(make.mapping(**options), ["email", "v"]).map(block)


def value_of(cell: str | bytes, **options: Any) -> str:
    """The JSON of a cell's value, or the code of its row's outcome and the reason."""
    mapped = map_cells([cell], **options)
    if mapped.problems:
        return f"{mapped.problems[0].code}: {mapped.problems[0].reason}"
    return mapped.records[0].removeprefix(b'{"user":"u0","attributes":{"v":').removesuffix(b"}}").decode()


@pytest.mark.parametrize("text", ["1", "-1.50", "0", "-0", "1e400", "1E+5", "0.00", "123456789012345678901234567890"])
def test_a_number_keeps_its_digits(text: str) -> None:
    """As JSON's grammar has it."""
    assert value_of(text, types={"v": "number"}) == text


@pytest.mark.parametrize(
    "text", ["1,5", "NaN", "007", " 1", "1 ", "1.", ".5", "+1", "0x1", "1_0", "Infinity", "٣", "1\n"]
)
def test_what_is_no_json_number_is_rejected(text: str) -> None:
    """The message names the column and shows the cell."""
    assert value_of(text, types={"v": "number"}) == f"REJECTED: column 'v': {text!r} is not a JSON number"


def test_nothing_is_guessed() -> None:
    """Without a type a cell is text, digits or not."""
    assert value_of("00123") == '"00123"'
    assert value_of("true") == '"true"'


@pytest.mark.parametrize(("text", "value"), [("true", "true"), ("FALSE", "false"), ("tRuE", "true")])
def test_a_boolean_is_true_or_false_in_any_case(text: str, value: str) -> None:
    """And nothing else is."""
    assert value_of(text, types={"v": "boolean"}) == value


@pytest.mark.parametrize("text", ["yes", "1", "t", " true", "ｔｒｕｅ"])
def test_what_is_no_boolean_is_rejected(text: str) -> None:
    """No API agrees with another on what else could be one."""
    assert value_of(text, types={"v": "boolean"}).startswith("REJECTED: column 'v'")


@pytest.mark.parametrize("text", ['{"a": [1.50, null]}', "1e400", "[]", '"\\u00e9"', " 1 "])
def test_json_cells_pass_as_they_stand(text: str) -> None:
    """Spaces and digits included."""
    assert value_of(text, types={"v": "json"}) == text


@pytest.mark.parametrize("text", ["{", "nul", "01", "NaN", "[1,]", "'a'", "1 2", " ", '"\\ud800"'])
def test_what_is_no_json_is_rejected(text: str) -> None:
    """It would break the whole request."""
    assert value_of(text, types={"v": "json"}).startswith("REJECTED: column 'v'")


def test_json_that_is_nested_too_deep_is_rejected() -> None:
    """What can be mapped can be merged, too: parsers give up at some depth, and the batcher can't reject."""
    fits, deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)

    assert value_of(fits, types={"v": "json"}) == fits
    assert value_of(deep, types={"v": "json"}).startswith("REJECTED")
    assert value_of(f'["{deep}"]', types={"v": "json"}) == f'["{deep}"]'
    record = map_cells([fits], types={"v": "json"}).records[0]
    assert make.FRAME.merge("u0", record, record) == record


@pytest.mark.parametrize("kind", ["string", "number", "boolean", "json"])
def test_types_act_after_empty(kind: Type) -> None:
    """An empty cell that is omitted or null needs no type; one that is kept does."""
    assert value_of("", types={"v": kind}).startswith("SKIPPED")
    assert value_of("", types={"v": kind}, empty="null") == "null"
    kept = value_of("", types={"v": kind}, empty="keep")
    assert kept == '""' if kind == "string" else kept.startswith("REJECTED")


def test_white_space_is_not_empty() -> None:
    """A cell of one space is a value."""
    assert value_of(" ") == '" "'


def test_a_row_without_a_value_is_skipped_and_those_around_are_not() -> None:
    """In the same block."""
    mapped = map_cells(["a", "", "b"])

    assert list(mapped.problems) == [1]
    assert mapped.problems[1] == (Code.SKIPPED, "no attribute has a value", "u1")
    assert [json.loads(mapped.records[at])["attributes"] for at in (0, 2)] == [{"v": "a"}, {"v": "b"}]


@pytest.mark.parametrize("blank", ["", " ", "\t", "\u00a0", "\u3000", "\u2028", "\x1c", "\x85"])
def test_a_blank_key_is_rejected_in_every_format(blank: str) -> None:
    """White space is what Unicode calls so, whichever code looks for it."""
    block = pa.table({"email": pa.array([blank.encode()], pa.binary()), "v": pa.array([b"1"], pa.binary())})
    line = json.dumps({"email": blank, "v": 1}).encode()

    for mapped in (ColumnMapper(make.mapping(), ["email", "v"]).map(block), LineMapper(make.mapping()).map([line])):
        assert mapped.problems[0].code == Code.REJECTED
        assert "the user's key is empty" in mapped.problems[0].reason
        assert mapped.problems[0].user == blank


@pytest.mark.parametrize("key", [" ann", "Ann ", "\u200b", "a\0b", "\ufeffann"])
def test_any_other_key_is_sent_as_it_stands(key: str) -> None:
    """Never trimmed, never case-folded."""
    line = json.dumps({"email": key, "v": 1}).encode()

    assert LineMapper(make.mapping()).map([line]).users == [key]


def test_a_record_over_the_room_is_rejected_with_both_sizes() -> None:
    """In every format."""
    reason = "too large: the record takes 1,035 bytes, limits.bytes_per_request leaves 100"
    mapped = map_cells(["x" * 1000, "y"], max_record_bytes=100)
    lines = LineMapper(make.mapping(max_record_bytes=100)).map(
        [b'{"email":"u0","v":"' + b"x" * 1000 + b'"}', b'{"email":"u1","v":"y"}']
    )

    assert mapped.problems == lines.problems == {0: (Code.REJECTED, reason, "u0")}


def test_a_long_cell_is_shown_in_part() -> None:
    """A message is for reading."""
    reason = value_of("x" * 5000, types={"v": "number"})

    assert len(reason) < 120
    assert "xxx…" in reason


def test_many_columns_are_shown_in_part() -> None:
    """As are the names of an export's columns."""
    with pytest.raises(ExportError, match="'c19' and 280 more"):
        ColumnMapper(make.mapping("zzzzzz"), [f"c{at}" for at in range(300)])


def test_names_are_escaped() -> None:
    """An attribute may be called anything."""
    block = pa.table({"email": pa.array([b"u"], pa.binary()), 'a"\\é': pa.array([b"1"], pa.binary())})
    mapped = ColumnMapper(make.mapping(), ["email", 'a"\\é']).map(block)

    assert json.loads(mapped.records[0]) == {"user": "u", "attributes": {'a"\\é': "1"}}


def test_fields_that_the_target_fixes_are_named_by_their_own_setting() -> None:
    """Where `mapping.columns` says which column holds each."""
    fixed = make.mapping("Team", attributes={"kind": "Kind"}, fields=("name", "kind"))

    with pytest.raises(ExportError, match=r"^mapping.columns.name: the export has no column 'Team'"):
        ColumnMapper(fixed, ["team!", "Kind"])
    with pytest.raises(
        ExportError, match=r"^mapping.columns.kind: the export has no column 'Kind'; did you mean 'kind'"
    ):
        ColumnMapper(fixed, ["Team", "kind"])
    mapped = LineMapper(fixed).map([b'{"Team":"","Kind":"x"}', b'{"Team":7}', b'{"Kind":"x"}'])
    assert [problem.reason for problem in mapped.problems.values()] == [
        "name is empty ('Team')",
        "name must be text ('Team' is '7')",
        "name is empty ('Team' is missing)",
    ]


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3) | st.just("")


@given(st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), min_size=1, max_size=6), st.sampled_from(get_args(Empty)))
def test_a_block_is_what_its_rows_are(rows: list[tuple[str, ...]], empty: Empty) -> None:
    """Whichever cells are empty, and whatever must be escaped: each record is the JSON of its own row."""
    names = ["a", "b", "c", "d"]
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    block = pa.table({"user": [f"user{at}" for at in range(len(rows))]} | columns)
    mapped = ColumnMapper(make.mapping(user="user", empty=empty), ["user", *names]).map(block)

    for at, (record, row) in enumerate(zip(mapped.records, rows, strict=True)):
        cells = zip(names, row, strict=True)
        sent = {name: cell or (None if empty == "null" else "") for name, cell in cells if cell or empty != "omit"}
        if sent:
            assert json.loads(record) == {"user": f"user{at}", "attributes": sent}
        else:
            assert mapped.problems[at].code is Code.SKIPPED
