"""Lines mapped a block at a time: what comes of it is what comes of them one by one, whatever they hold."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.export.lines import _block
from loader.export.split import Splitter
from loader.mapping import MAX_DEPTH, Mapped, RowMapping, Values
from loader.mapping.jsonlines import Block, BlockMapper, LineMapper
from loader.record import Frame, Names

LIKE_SENT = Frame("users", "userName", "attributes")
PICKED: dict[str, Any] = {"attributes": {"x": "x", 'q"': "y"}, "types": {"x": "number"}}

MAPPINGS = [
    RowMapping(frame, limit, user, **options)
    for frame in (LIKE_SENT, Frame(), Frame(None, "userName", None), Frame("users", "attributes", "userName"))
    for limit in (1 << 30, 45)
    for user in (None, "email", "attributes")
    for options in (
        {},
        PICKED,
        {"attributes": {"x": "x", "again": "x"}, "types": {"again": "string", "x": "boolean"}},
        {"attributes": {"key": "email", "x": "x"}},
        {"attributes": {"é": "é"}},
        {"types": {"x": "number"}},
        {"names": Names(reserved=frozenset({"x"}))},
    )
]

VALUES = ["1", '"a"', "null", "true", "{}", "[]", '["x"]', '{"x":1}', '{ "x":1}', '{"x":1 }', "{ }", '"}"', '""', '" "']
TRICKY = [
    '":"',
    '","',
    '":x"',
    '"x,"',
    r'"\\"',
    r'"\\\",\"x\":"',
    '[",",":1"]',
    "[{},{}]",
    '" :"',
    '"{"',
    "-1.50e9",
    '[{"x":{}}]',
]
KEYS = ['"ann"', '"é"', r'"\u0041"', r'"\ud800"', r'"\n"', '"\u2028"', "null", "1", '""', '" "', '"a\\/b"']
FIELDS = ["userName", "attributes", "email", "x", "y", "z", "é", r"\u0078", r"user\u004eame", r"\ud800"]
NAMES = [
    "x",
    "y",
    "again",
    "é",
    "",
    ":",
    ",",
    "}",
    "a:b",
    " x",
    "x ",
    "x,y",
    "loader_row",
    "loader_code",
    "costCenter",
    "a" * 17,
    r"q\"",
]
GOOD = [
    b'{"userName":"ann","attributes":{"x":1}}',
    b'{"userName":"bob","attributes":{"y":"b","x":[1,{}]}}',
    b'{"email":"ann","x":1,"y":null}',
    b'{"email":"bob","y":2.50}',
]
PIECES = [
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b" ", b"\t", b"\r", b"\xff", b"\xc3", "é".encode(), b"\0"),
    *(b"1},{", b"}{", b"}\n{", b'"x":[1', b"2]}}", b'"a":"', b"1e999", b"-", b"NaN", b"\xe2\x80\xa8"),
    *(b'{"a":' * 150, b"}" * 150, b"[" * (MAX_DEPTH + 1), b"]" * (MAX_DEPTH + 1), b'"' + b"x" * 420 + b'"'),
]

pairs = st.tuples(st.sampled_from(FIELDS), st.sampled_from(VALUES + KEYS))
objects = st.lists(pairs, max_size=4).map(
    lambda found: "{" + ",".join(f'"{name}":{value}' for name, value in found) + "}"
)
nested = st.builds('{{"userName":{},"attributes":{}}}'.format, st.sampled_from(KEYS), objects | st.sampled_from(VALUES))
valid = st.sampled_from(GOOD) | (objects | nested).map(str.encode)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A line with something put in, or cut out."""
    line = draw(valid)
    start = draw(st.integers(0, len(line)))
    return line[:start] + draw(st.sampled_from(PIECES)) + line[start + draw(st.integers(0, 3)) :]


@st.composite
def split(draw: st.DrawFn) -> bytes:
    """Two lines that may only be one value together, or one that holds two."""
    line = draw(valid)
    at = draw(st.integers(0, len(line)))
    return line[:at] + draw(st.sampled_from([b"\n", b"\r\n", b"}\n{", b"", b"}{"])) + line[at:]


spaced = st.tuples(st.sampled_from([b"", b" ", b" \t"]), valid, st.sampled_from([b"", b" ", b"  \r"])).map(b"".join)
lines = st.lists(
    valid | spaced | broken() | split() | st.lists(st.sampled_from(PIECES), max_size=6).map(b"".join), max_size=6
)
few = st.lists(st.sampled_from(GOOD), min_size=1, max_size=4)


def same(found: Mapped, expected: Mapped) -> None:
    """The same rows, and the same bytes to send."""
    assert found.users == expected.users
    assert found.problems == expected.problems
    assert len(found.records) == len(expected.records) == len(found.users)
    left, right = (mapped.records.without(mapped.problems) for mapped in (found, expected))
    assert list(left) == list(right)
    assert bytes(left.inside) == bytes(right.inside)


@st.composite
def like_each_other(draw: st.DrawFn) -> list[bytes]:
    """Rows with the same names, most often, and with blanks where the first has them; and perhaps a row unlike them."""
    names = draw(st.lists(st.sampled_from(NAMES), max_size=5, unique=draw(st.booleans())))
    at = draw(st.integers(0, len(names)))
    comma, colon = draw(st.sampled_from([",", ", ", " ,", ",  "])), draw(st.sampled_from([":", ": ", " :"]))
    values = st.sampled_from(VALUES + TRICKY)
    found = []
    for _ in range(draw(st.integers(1, 4))):
        pairs = [f'"{name}"{colon}{draw(values)}' for name in names]
        key = f"{colon}{draw(st.sampled_from(KEYS[:3]))}"
        if draw(st.booleans()):
            found.append("{" + comma.join([*pairs[:at], f'"email"{key}', *pairs[at:]]) + "}")
        else:
            found.append(f'{{"userName"{key}{comma}"attributes"{colon}{{{comma.join(pairs)}}}}}')
    return [line.encode() for line in found] + draw(st.lists(valid | broken(), max_size=1))


@given(
    st.sampled_from(MAPPINGS),
    lines | few | like_each_other(),
    st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r"]),
    st.booleans(),
)
def test_a_block_is_mapped_as_its_lines_are(
    mapping: RowMapping, lines: list[bytes], line_end: bytes, is_ended: bool
) -> None:
    """As they lie in a file, and put together."""
    mapper = LineMapper(mapping)
    text = line_end.join(lines) + line_end * is_ended
    for cut in Splitter(quoted=False).cuts([text] if text else []):
        block = _block(cut, is_whole=True)
        same(mapper.map(block), mapper.map_each(list(block)))
        same_values(mapper.values(block), mapper.values_each(enumerate(block), len(block)))
    whole = [line for line in lines if line]
    same(mapper.map(whole), mapper.map_each(whole))


def same_values(found: Values, expected: Values) -> None:
    """The same keys, and the same values of the same rows."""
    assert found.keys.equals(expected.keys)
    assert found.invalid.tolist() == expected.invalid.tolist()
    assert cells(found) == cells(expected)


def cells(values: Values) -> dict[str, dict[int, bytes]]:
    """By attribute and row."""
    found = {}
    for name, (rows, column) in values.columns.items():
        assert isinstance(column, pa.Array)
        at = range(len(values.keys)) if rows is None else rows.tolist()
        found[name] = dict(zip(at, column.to_pylist(), strict=True))
    return found


def vouched(mapping: RowMapping, lines: list[bytes]) -> tuple[list[str], list[bytes], set[int]]:
    """What is made of the lines at once."""
    found = BlockMapper(mapping).map(Block.of(lines))
    assert found is not None
    users, records, odd = found
    return users, list(records), odd


def test_records_like_those_sent_are_the_lines_themselves() -> None:
    """Numbers as they stand, and text that is not ASCII."""
    lines = [b'{"userName":"ann","attributes":{"n":1.50}}', '{"userName":"é","attributes":{"é":["日"]}}'.encode()]

    assert vouched(RowMapping(LIKE_SENT, 99), lines) == (["ann", "é"], lines, set())


def test_records_with_white_space_or_other_names_are_put_together() -> None:
    """The attributes keep theirs."""
    lines = [b' {"userName": "ann", "attributes": {"n": 1}}'[1:], b'{"attributes":{"n":2},"userName":"b\\u006fb"}\r']

    assert vouched(RowMapping(Frame(), 99), lines) == (
        ["ann", "bob"],
        [b'{"user":"ann","attributes":{"n": 1}}', b'{"user":"bob","attributes":{"n":2}}'],
        set(),
    )


def test_fields_are_picked() -> None:
    """In the order of the mapping, those that are missing left out; the last of two counts."""
    lines = [b'{"y":"a","x":1,"email":"ann"}', b'{"x":2,"email":"bob","x":null}', b'{"y":[1, 2],"z":0,"email":"cat"}']

    assert vouched(RowMapping(LIKE_SENT, 99, "email", **PICKED), lines) == (
        ["ann", "bob", "cat"],
        [
            b'{"userName":"ann","attributes":{"x":1,"q\\"":"a"}}',
            b'{"userName":"bob","attributes":{"x":null}}',
            b'{"userName":"cat","attributes":{"q\\"":[1, 2]}}',
        ],
        set(),
    )


@pytest.mark.parametrize(
    "bad",
    [
        b'{"userName":"ann","attributes":{}}',
        b'{"userName":"ann","attributes":{ }}',
        b'{"userName":" ","attributes":{"x":1}}',
        b'{"userName":7,"attributes":{"x":1}}',
        b'{"userName":"ann","attributes":[1]}',
        b'{"userName":"ann","attributes":{"x":"\xff"}}',
        b'{"userName":"ann","attributes":{"x":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}}",
        b'{"userName":"ann","attributes":{"x":1',
        b'{"userName":"ann","attributes":{"x":"' + b"x" * 2000 + b'"}}',
    ],
)
def test_one_bad_row_leaves_the_others_to_the_block(bad: bytes) -> None:
    """It alone is looked at."""
    good = b'{"userName":"bob","attributes":{"x":1}}'
    mapping = RowMapping(LIKE_SENT, 1000)
    users, records, odd = vouched(mapping, [good, bad, good])
    mapped = LineMapper(mapping).map([good, bad, good])

    assert odd == set(mapped.problems) == {1}
    assert [users[0], users[2]] == ["bob", "bob"]
    assert [records[0], records[2]] == [good, good]


@pytest.mark.parametrize("bad", [b"{}", b"{", b"}", b" ", b'{"userName":""}'])
def test_a_short_bad_line_does_not_make_up_for_a_long_one(bad: bytes) -> None:
    """Wherever it stands, however much white space another line has too much."""
    for missing in range(40):
        long = b'{"userName":"bob","attributes":{"x":1}' + b" " * missing + b"}"
        for lines in ([bad, long], [long, bad], [long, bad, long]):
            mapper = LineMapper(RowMapping(LIKE_SENT, 1000))
            same(mapper.map(lines), mapper.map_each(lines))


def test_lines_that_complete_each_other_are_two_bad_rows() -> None:
    """Though msgspec finds as many values as there are lines."""
    good = b'{"userName":"bob","attributes":{"x":1}}'
    mapped = LineMapper(RowMapping(LIKE_SENT, 1000)).map(
        [b'{"userName":"ann","attributes":{"x":[1', b",2]}}", good * 2]
    )

    assert sorted(mapped.problems) == [0, 1, 2]


def test_all_fields_are_sent_in_their_order() -> None:
    """Where all rows have the same; what `loader results --rows` adds is left out."""
    lines = [
        b'{"y":1.0,"email":"A","x":"\\"a","loader_code":"REJECTED"}',
        b'{"y":null, "email":"b", "x":[1, 2],"loader_code":""}',
    ]

    assert vouched(RowMapping(LIKE_SENT, 99, "email", types={"y": "number"}), lines) == (
        ["A", "b"],
        [b'{"userName":"A","attributes":{"y":1.0,"x":"\\"a"}}', b'{"userName":"b","attributes":{"y":null,"x":[1, 2]}}'],
        set(),
    )


@pytest.mark.parametrize(
    ("options", "other", "odd"),
    [
        ({}, b'{"x": 1, "email": "bob"}', set()),
        ({}, b'{"email":"bob","y":{"z":[1,{"x":2}]},"x":1}', set()),
        ({}, b'{"email":"bob"}', {1}),
        ({}, b'{"email":"bob","x":1,"x":2}', {1}),
        ({}, b'{"email":"bob","\\u0078":1}', {1}),
        ({}, b'{"email":"b\\u006fb","x":1}', {1}),
        ({"types": {"x": "number"}}, b'{"email":"bob","x":"1"}', {1}),
        ({"names": Names(reserved=frozenset({"y"}))}, b'{"email":"bob","x":1,"y":1}', {1}),
        ({"names": Names(expected=frozenset({"x"}))}, b'{"email":"bob","x":1,"y":1}', {1}),
        ({"attributes": {"key": "email"}}, b'{"x":1,"email":"bob"}', set()),
    ],
)
def test_rows_that_differ_are_told_apart(options: dict[str, Any], other: bytes, odd: set[int]) -> None:
    """Only one that has nothing to send, or needs more than to be put together anew, is looked at alone."""
    lines = [b'{"email":"ann","x":1}', other, b'{"email":"cat","x":1}']
    mapping = RowMapping(LIKE_SENT, 1000, "email", **options)
    mapper = LineMapper(mapping)

    assert vouched(mapping, lines)[2] == odd
    same(mapper.map(lines), mapper.map_each(lines))
    same_values(mapper.values(lines), mapper.values_each(enumerate(lines), 3))


def test_names_that_stand_for_each_other_leave_a_block_to_its_lines() -> None:
    """Which of the rows has both, only they tell."""
    mapping = RowMapping(LIKE_SENT, 1000, "email", names=Names(fold_case=True))
    lines = [b'{"email":"ann","x":1}', b'{"email":"bob","X":1}', b'{"email":"cat","x":1,"X":2}']

    assert BlockMapper(mapping).map(Block.of(lines)) is None
    assert list(LineMapper(mapping).map(lines).problems) == [2]


def test_a_block_is_a_sequence_of_its_lines() -> None:
    """With their line ends."""
    block = Block.of([b"a\n", b"bc"])

    assert (len(block), block[0], block[-1], block[:2], list(block)) == (2, b"a\n", b"bc", [b"a\n", b"bc"], block[:])
