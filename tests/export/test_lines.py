"""NDJSON, read and mapped: values byte for byte, numbers and places as for every other format."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loader.errors import ExportError
from loader.span import SpanSet
from tests import make

VALUES = [
    "1.50",
    "1e400",
    "123456789012345678901234567890",
    "-0.0",
    r'"a\u00e9\/é"',
    "null",
    '""',
    '{"a" : [1, 2]}',
    "true",
]
NAMES = st.sampled_from(["d", "n", "é", 'q"', "email "])
FIELDS = st.dictionaries(NAMES, st.sampled_from(VALUES), max_size=4)
KEYS = st.sampled_from(['"ann"', '"é"', r'"\u0041"', '" "', '""', "null", "1", '"\u2028"', "[1]"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(KEYS, FIELDS), min_size=1, max_size=10),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.sampled_from(["users.ndjson", "users.jsonl.gz"]),
    st.integers(1, 80),
    st.data(),
)
def test_rows_are_those_of_a_slow_reference(
    tmp_path: Path,
    rows: list[tuple[str, dict[str, str]]],
    nested: bool,
    line_end: str,
    name: str,
    chunk_bytes: int,
    data: st.DataObject,
) -> None:
    """Nested and flat records, from the start and from any mark: keys decoded, values as their bytes."""
    lines: list[str] = []
    sent: dict[int, bytes] = {}
    aside: dict[int, str] = {}
    for number, (key, fields) in enumerate(rows, 1):
        body = ",".join(f"{quote(field)}:{value}" for field, value in fields.items())
        lines.append(
            f'{{"userName":{key},"attributes":{{{body}}}}}' if nested else f'{{"email":{key}{"," * bool(body)}{body}}}'
        )
        user = json.loads(key)
        if not isinstance(user, str) or not user.strip():
            aside[number] = "REJECTED"
        elif not fields:
            aside[number] = "SKIPPED"
        else:
            sent[number] = f'{{"user":{quote(user)},"attributes":{{{body}}}}}'.encode()
    export = make.export(tmp_path, line_end.join(lines), name, chunk_bytes=chunk_bytes)
    mapping = make.mapping(user=None if nested else "email")

    blocks = list(export.rows(mapping))

    assert sent == records(blocks)
    assert aside == {row: code for row, (code, _, _) in make.settled(blocks).items()}

    start = data.draw(st.sampled_from([None, *(block.end for block in blocks if block.end)]))
    done = data.draw(st.sets(st.integers(1, len(rows))))
    left = [row for row in range(start.row if start else 1, len(rows) + 1) if row not in done]
    again = list(export.rows(mapping, start, SpanSet((row, row) for row in done)))

    assert {row: sent[row] for row in left if row in sent} == records(again)
    assert {row: aside[row] for row in left if row in aside} == {
        row: code for row, (code, _, _) in make.settled(again).items()
    }


def records(blocks: Any) -> dict[int, bytes]:
    make.sent(blocks)
    return {number: record for block in blocks for number, record in zip(block.numbers, block.records, strict=True)}


def quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def read(
    tmp_path: Path, content: bytes | str, name: str = "users.ndjson", **options: Any
) -> tuple[dict[int, tuple[str, dict[str, Any]]], dict[int, tuple[str, str, str]]]:
    blocks = list(make.export(tmp_path, content, name).rows(make.mapping(**{"user": None, **options})))
    return make.sent(blocks), make.settled(blocks)


def test_a_byte_that_does_not_fit_names_the_encoding_in_force(tmp_path: Path) -> None:
    export = make.export(tmp_path, b'{"email":"ann","d":"\x81"}\n', "users.ndjson", encoding="cp1252")

    ((_, _, message),) = make.settled(export.rows(make.mapping())).values()

    assert message == "users.ndjson line 1: not cp1252: byte 0x81 at 21"


def test_absent_null_and_empty_stay_what_they_are(tmp_path: Path) -> None:
    """mapping.empty is for formats that can't tell them apart."""
    content = '{"email":"ann","a":null,"b":""}'

    sent, _ = read(
        tmp_path, content, user="email", attributes={"A": "a", "B": "b", "C": "c"} | {"C": "a"}, empty="omit"
    )

    assert sent == {1: ("ann", {"A": None, "B": "", "C": None})}


def test_nested_attributes_pass_whole_even_with_a_name_twice(tmp_path: Path) -> None:
    """What is not picked apart is not changed."""
    content = '{"userName":"ann","attributes":{"a": 1, "a":  2},"more":0}'
    (block,) = make.export(tmp_path, content, "u.ndjson").rows(make.mapping(user=None))

    assert block.records == [b'{"user":"ann","attributes":{"a": 1, "a":  2}}']


def test_mapping_attributes_picks_and_renames_in_nested_records(tmp_path: Path) -> None:
    """The columns of nested records are the names in their attributes."""
    content = '{"userName":"ann","attributes":{"Dept":"Ops","x":1}}\n{"userName":"bob","attributes":{"x":1}}'

    sent, settled = read(tmp_path, content, attributes={"department": "Dept"})

    assert sent == {1: ("ann", {"department": "Ops"})}
    assert settled[2][:2] == ("SKIPPED", "bob")


def test_of_a_name_twice_the_last_counts(tmp_path: Path) -> None:
    """As for every JSON parser."""
    sent, _ = read(tmp_path, '{"email":"ann","a":1,"email":"bob","a":2}', user="email")

    assert sent == {1: ("bob", {"a": 2})}


@pytest.mark.parametrize(
    ("line", "user", "reason"),
    [
        (b"[]", "", "not a JSON object"),
        (b"null", "", "not a JSON object"),
        (b"{", "", "not JSON"),
        (b"   ", "", "not JSON"),
        (b'{"email":"ann","a":01}', "", "not JSON: invalid number"),
        (b'{"email":"ann"} x', "", "not JSON: trailing characters"),
        (b'{"a":1}', "", "the user's key is empty ('email' is missing)"),
        (b'{"email":null,"a":1}', "", "the user's key is empty ('email' is null)"),
        (b'{"email":"\\t","a":1}', "\t", "the user's key is empty ('email')"),
        (b'{"email":17,"a":1}', "", "the user's key must be text ('email' is '17')"),
        (b'{"email":"a\xff","a":1}', "a\ufffd", "not UTF-8: byte 0xff at 12"),
        (b'{"email":"ann","a":"\xff"}', "ann", "not UTF-8: byte 0xff at 21"),
    ],
)
def test_a_line_that_is_no_record_is_rejected(tmp_path: Path, line: bytes, user: str, reason: str) -> None:
    """With its line, what is wrong, and the key as far as it can be read; the lines around are loaded."""
    content = b'{"email":"x","a":1}\n' + line + b'\n{"email":"y","a":1}\n'

    sent, settled = read(tmp_path, content, user="email")

    assert list(sent) == [1, 3]
    assert ("REJECTED", user) == settled[2][:2]
    assert settled[2][2].startswith(f"users.ndjson line 2: {reason}")


@pytest.mark.parametrize("key", [b"9" * 40, b"1e400", b"[" * 1000 + b"]" * 1000, b'{"a":{}}'])
def test_an_odd_key_rejects_its_row_and_no_more(tmp_path: Path, key: bytes) -> None:
    """A number beyond 64 bits as a key ended the run with an internal error."""
    for content, user in (
        (b'{"email":' + key + b',"a":1}', "email"),
        (b'{"userName":' + key + b',"attributes":{}}', None),
    ):
        _, settled = read(tmp_path, content, user=user)

        assert settled[1][0] == "REJECTED"


@pytest.mark.parametrize("depth", [150, 201, 5_000, 100_000])
def test_deeply_nested_values_reject_their_row_and_no_more(tmp_path: Path, depth: int) -> None:
    """A value of a thousand brackets ended the run with a RecursionError."""
    deep = "[" * depth + "]" * depth
    text = '"' + "[" * 500 + '"'

    for content, user in (
        (f'{{"email":"a","b":{deep},"t":{text}}}', "email"),
        (f'{{"userName":"a","attributes":{{"b":{deep},"t":{text}}}}}', None),
    ):
        sent, settled = read(tmp_path, content, user=user)
        if depth < 200:
            assert list(sent) == [1]
        else:
            assert "nested more than 200 levels deep" in settled[1][2]


def test_named_columns_are_looked_for_in_the_first_thousand_records(tmp_path: Path) -> None:
    """In all of them, though they are more than one block, and in no more."""
    filler = "".join(f'{{"email":"u{at}","a":"{"x" * 2000}"}}\n' for at in range(999))

    sent, _ = read(tmp_path, filler + '{"email":"z","rare":1}\n', user="email", attributes={"r": "rare"})
    assert sent == {1000: ("z", {"r": 1})}

    with pytest.raises(ExportError, match=r"mapping.attributes.r: .* no column 'rare'; it has 'email', 'a'"):
        read(
            tmp_path, filler + filler[:30] + '"}\n' + '{"email":"z","rare":1}\n', user="email", attributes={"r": "rare"}
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": "mail"}, "mapping.user: the export has no column 'mail'; did you mean 'email'?"),
        ({"user": "email", "attributes": {"x": "aa"}}, "mapping.attributes.x: the export has no column 'aa'"),
        ({"user": "email", "types": {"b": "number"}}, "mapping.types: 'b' is not an attribute that is sent"),
        ({"user": "email", "types": {"email": "string"}}, "mapping.types: 'email' is not an attribute that is sent"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Before any block."""
    with pytest.raises(ExportError, match=re.escape(message)):
        read(tmp_path, '{"email":"ann","a":1}\n', **options)


@pytest.mark.parametrize(
    ("kind", "value", "fits"),
    [
        ("number", "1.50", True),
        ("number", '"1"', False),
        ("string", '"00123"', True),
        ("string", "123", False),
        ("boolean", "true", True),
        ("boolean", '"true"', False),
        ("json", "[1]", True),
        ("number", "null", True),
    ],
)
def test_types_are_checked_and_never_applied(tmp_path: Path, kind: Any, value: str, fits: bool) -> None:
    """A JSON value has a type already; null has any."""
    sent, settled = read(tmp_path, f'{{"email":"ann","a":{value}}}', user="email", types={"a": kind})

    assert (list(sent), list(settled)) == ([1], []) if fits else (list(sent), list(settled)) == ([], [1])


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_a_file_without_a_record_is_empty(tmp_path: Path, content: bytes) -> None:
    """There is no header that could stand alone; it is refused before any block."""
    blocks = make.export(tmp_path, content, "users.ndjson").rows(make.mapping())

    with pytest.raises(ExportError, match="is empty"):
        next(blocks)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    """It is not a part of the first record."""
    sent, _ = read(tmp_path, b'\xef\xbb\xbf{"userName":"ann","attributes":{"a":1}}')

    assert list(sent) == [1]


def test_a_line_over_the_limit_is_one_rejected_row(tmp_path: Path) -> None:
    """Resuming behind it counts on from there."""
    content = '{"email":"a","b":1}\n{"email":"' + "x" * 999 + '"}\n{"email":"c","b":1}\n'
    export = make.export(tmp_path, content, "u.ndjson", chunk_bytes=50, max_row_bytes=100)
    blocks = list(export.rows(make.mapping()))

    assert list(make.sent(blocks)) == [1, 3]
    for mark in [block.end for block in blocks if block.end]:
        assert [row for row in (1, 3) if row >= mark.row] == list(make.sent(export.rows(make.mapping(), mark)))


def test_rows_before_a_break_are_kept(tmp_path: Path) -> None:
    """Of truncated gzip every whole row comes out first, the first look for columns notwithstanding."""
    lines = [f'{{"email":"u{at}","a":{at * at}}}\n' for at in range(3000)]
    export = make.export(tmp_path, b"", "u.ndjson.gz")
    make.file_of(export).write_bytes(gzip.compress("".join(lines).encode())[:-2000])

    blocks, message = make.until_stopped(export.rows(make.mapping()))
    found = [number for block in blocks for number in block.numbers]

    assert "breaks off" in message
    assert found == list(range(1, len(found) + 1))
    assert len(found) > 1000
