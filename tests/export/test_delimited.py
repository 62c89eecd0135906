"""CSV and TSV, read and mapped: equal to a slow reference on csv and json, whatever the file holds."""

import csv
import io
import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loader.errors import ExportError
from loader.export.files import Files
from loader.mapping import Type
from loader.outcome import Code
from loader.record import Mark
from loader.span import SpanSet
from tests import make

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
HEADER = ["Dept", "email", "n", "flag", "doc"]
ATTRIBUTES = {"department": "Dept", "headcount": "n", "active": "flag", "more": "doc"}
TYPES: dict[str, Type] = {"headcount": "number", "active": "boolean", "more": "json"}

# "\udcff" is how Python spells the byte 0xff that is no UTF-8.
TEXTS = st.text(st.sampled_from('ab,;"\r\n\t é😀\0\x1f\x7f\u2028\\\udcff'), max_size=5)
NUMBERS = st.sampled_from(["1", "-1.50", "1e400", "1,5", "NaN", "007", " 1", "12345678901234567890", "1.", "", "+1"])
FLAGS = st.sampled_from(["true", "FALSE", "True", "1", "yes", "", "true "])
DOCUMENTS = st.sampled_from(['{"a": [1.50]}', "[]", '"x"', "null", "1e400", "{", "nul", "", " 1 ", "[1\n]", "01"])
USERS = st.sampled_from(["ann", "bob", "Ann", " ", "", "é", "\udcff", "x\udcc3y", "\u3000", "\x1c"])
RECORDS = st.tuples(TEXTS, USERS, NUMBERS, FLAGS, DOCUMENTS).map(list)
ROWS = st.lists(RECORDS | RECORDS.map(lambda cells: cells[:3]) | RECORDS.map(lambda cells: [*cells, "x"]), max_size=12)


def write(rows: list[list[str]], delimiter: str, line_end: str) -> bytes:
    lines = (delimiter.join(map(field, cells)) + line_end for cells in rows)
    return "".join(lines).encode("utf-8", "surrogateescape")


def field(cell: str) -> str:
    is_bare = re.fullmatch(r"[^,;|\t\r\n\"][^,;|\t\r\n]*|", cell)
    return cell if is_bare else '"' + cell.replace('"', '""') + '"'


class Reference:
    """What the export means, one row at a time."""

    def __init__(self, data: bytes, delimiter: str, empty: str) -> None:
        self.sent: dict[int, bytes] = {}
        self.aside: dict[int, tuple[str, str]] = {}
        text = data.decode("utf-8", "surrogateescape")
        rows = [cells for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if cells]
        for number, cells in enumerate(rows[1:], 1):
            key = cells[1].encode("utf-8", "surrogateescape").decode("utf-8", "replace") if len(cells) > 1 else ""
            found = self.read(cells, empty)
            if isinstance(found, Code):
                self.aside[number] = (found.value, key)
            else:
                self.sent[number] = found

    def read(self, cells: list[str], empty: str) -> bytes | Code:
        if len(cells) != len(HEADER) or any("\udc80" <= ch <= "\udcff" for cell in cells for ch in cell):
            return Code.REJECTED
        if not cells[1].strip():
            return Code.REJECTED
        parts = []
        for name, column in ATTRIBUTES.items():
            cell = cells[HEADER.index(column)]
            if cell == "" and empty != "keep":
                parts += [f'"{name}":null'] if empty == "null" else []
                continue
            value = self.value(cell, TYPES.get(name))
            if value is None:
                return Code.REJECTED
            parts.append(f'"{name}":{value}')
        if not parts:
            return Code.SKIPPED
        return f'{{"user":{quote(cells[1])},"attributes":{{{",".join(parts)}}}}}'.encode()

    def value(self, cell: str, kind: Type | None) -> str | None:
        if kind == "number":
            return cell if NUMBER.fullmatch(cell) else None
        if kind == "boolean":
            return cell.lower() if cell.lower() in ("true", "false") else None
        if kind == "json":
            try:
                json.loads(cell)
            except ValueError:
                return None
            return cell
        return quote(cell)


def quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ROWS,
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["omit", "null", "keep"]),
    st.sampled_from(["users.csv", "users.csv.gz"]),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.integers(1, 60),
    st.data(),
)
def test_rows_are_those_of_a_slow_reference(
    tmp_path: Path,
    rows: list[list[str]],
    delimiter: str,
    line_end: str,
    empty: Any,
    name: str,
    mark: bytes,
    chunk_bytes: int,
    data: st.DataObject,
) -> None:
    """Numbers, keys, records byte for byte, outcomes and their users; and from any mark on, whatever is settled."""
    content = write([HEADER, *rows], delimiter, line_end)
    expected = Reference(content, delimiter, empty)
    export = make.export(tmp_path, mark + content, name, delimiter=delimiter, chunk_bytes=chunk_bytes)
    mapping = make.mapping(attributes=ATTRIBUTES, types=TYPES, empty=empty)

    blocks = list(export.rows(mapping))

    assert expected.sent == records(blocks)
    assert expected.aside == {row: (code, user) for row, (code, user, _) in make.settled(blocks).items()}

    marks = [block.end for block in blocks if block.end]
    count = len(expected.sent) + len(expected.aside)
    done = data.draw(st.sets(st.integers(1, count + 1)))
    start = data.draw(st.sampled_from([None, *marks]))
    again = list(export.rows(mapping, start, SpanSet((row, row) for row in done)))
    left = [row for row in range(start.row if start else 1, count + 1) if row not in done]

    assert {row: expected.sent[row] for row in left if row in expected.sent} == records(again)
    assert {row: found for row, found in make.settled(blocks).items() if row in left} == make.settled(again)
    assert marks[marks.index(start) + 1 if start else 0 :] == [block.end for block in again if block.end]


def records(blocks: Any) -> dict[int, bytes]:
    make.sent(blocks)
    return {number: record for block in blocks for number, record in zip(block.numbers, block.records, strict=True)}


def read(tmp_path: Path, content: bytes | str, **options: Any) -> "tuple[Sent, Settled]":
    blocks = list(make.export(tmp_path, content).rows(make.mapping(**options)))
    return make.sent(blocks), make.settled(blocks)


Sent = dict[int, tuple[str, dict[str, Any]]]
Settled = dict[int, tuple[str, str, str]]


def test_every_other_column_is_an_attribute_under_its_own_name(tmp_path: Path) -> None:
    """Without mapping.attributes nothing is left out but the key's column."""
    sent, _ = read(tmp_path, "id,email,Cost Centre\n1,ann,0042\n")

    assert sent == {1: ("ann", {"id": "1", "Cost Centre": "0042"})}


def test_the_keys_column_may_be_sent_too(tmp_path: Path) -> None:
    """A column can be the key and an attribute."""
    sent, _ = read(tmp_path, "email\nann\n", attributes={"mail": "email"})

    assert sent == {1: ("ann", {"mail": "ann"})}


def test_messages_name_file_and_physical_line(tmp_path: Path) -> None:
    """Blank lines and quoted line ends count for the line, not for the row's number."""
    _, settled = read(tmp_path, '\nemail,d\n"a\nb",1\n\nbob\n,2\nx,"y\nz,3\n')

    assert settled == {
        2: ("REJECTED", "bob", "users.csv line 6: 1 field, the header has 2"),
        3: ("REJECTED", "", "users.csv line 7: the user's key is empty (column 'email')"),
        4: ("REJECTED", "x", "users.csv line 8: a quote is opened in this row and never closed"),
    }


def test_the_user_of_a_broken_row_is_its_key_as_read(tmp_path: Path) -> None:
    """Bad bytes become U+FFFD, NUL stays; the field that a broken quote swallows is nobody's key."""
    _, settled = read(tmp_path, b'email,d\na\xff\0,1,2\n"b,x\nc\xff,1\n')

    assert [user for _, user, _ in settled.values()] == ["a\ufffd\0", "", "c\ufffd"]


def test_a_cell_that_is_not_utf8_names_column_and_byte(tmp_path: Path) -> None:
    """What is wrong can be found in the file."""
    _, settled = read(tmp_path, b"email,d\nann,xy\xff\n")

    assert settled == {1: ("REJECTED", "ann", "users.csv line 2: column 'd' is not UTF-8: byte 0xff at 3")}


@pytest.mark.parametrize("mark", ["sep=;", "SEP=;", "\ufeffsep=;"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_line_by_which_excel_knows_the_delimiter_is_heeded(tmp_path: Path, mark: str, line_end: str) -> None:
    """It is neither the header nor a row, and counts as a line of the file."""
    content = line_end.join([mark, "email;d", "ann;1", "bob", "cid;3,4"])

    sent, settled = read(tmp_path, content)

    assert sent == {1: ("ann", {"d": "1"}), 3: ("cid", {"d": "3,4"})}
    assert settled == {2: ("REJECTED", "bob", "users.csv line 4: 1 field, the header has 2")}


def test_reading_goes_on_behind_the_line_for_excel(tmp_path: Path) -> None:
    """At any mark, with that delimiter."""
    export = make.export(tmp_path, "sep=|\nemail|d\n" + "".join(f"u{at}|{at}\n" for at in range(50)), chunk_bytes=32)
    blocks = list(export.rows(make.mapping()))
    everyone = make.sent(blocks)

    for block in blocks:
        assert block.end is not None
        rest = make.sent(export.rows(make.mapping(), block.end))
        assert rest == {row: user for row, user in everyone.items() if row >= block.end.row}
    assert len(everyone) == 50


@pytest.mark.parametrize(
    ("first", "sent"),
    [
        ("sep=,x", {1: ("ann", {"x": "1"})}),
        ("sep=a,d", {1: ("ann", {"d": "1"})}),
        ("xsep=;,d", {1: ("ann", {"d": "1"})}),
    ],
)
def test_a_header_that_only_looks_like_that_line_is_a_header(
    tmp_path: Path, first: str, sent: dict[int, tuple[str, dict[str, str]]]
) -> None:
    """Exactly that line, or none."""
    assert read(tmp_path, f"{first}\nann,1\n", user=first.partition(",")[0])[0] == sent


def test_a_delimiter_that_is_set_counts_more_than_the_line_for_excel(tmp_path: Path) -> None:
    export = make.export(tmp_path, "sep=;\nemail,d\nann,1;2\n", delimiter=",")

    assert make.sent(export.rows(make.mapping())) == {1: ("ann", {"d": "1;2"})}


def test_a_pipe_in_a_files_place_is_refused(tmp_path: Path) -> None:
    """It can be read but once, and a header is looked at before."""
    os.mkfifo(tmp_path / "users.csv")
    feeder = threading.Thread(target=lambda: (tmp_path / "users.csv").write_bytes(b"email,d\n"), daemon=True)
    feeder.start()

    with pytest.raises(ExportError, match=r'as a pipe can be read but once; give it as stdin: export\.path = "-"'):
        Files.of([tmp_path / "users.csv"]).check(make.mapping())
    feeder.join(5)


def test_a_byte_that_does_not_fit_names_the_encoding_in_force(tmp_path: Path) -> None:
    """Not UTF-8, if that is not what the settings say; a byte order mark overrules these."""
    bad = b"email,d\nann,\xe4y\x81\n"

    settled, marked = (
        make.settled(make.export(tmp_path, content, encoding="cp1252").rows(make.mapping()))
        for content in (bad, b"\xef\xbb\xbf" + bad)
    )

    assert settled[1][2] == "users.csv line 2: column 'd' is not cp1252: byte 0x81 at 3"
    assert marked[1][2] == "users.csv line 2: column 'd' is not UTF-8: byte 0xe4 at 1"
    with pytest.raises(ExportError, match=r"the header is not cp1252: byte 0x81 at 2; is export\.encoding right\?"):
        list(make.export(tmp_path, b"e\x81mail,d\nann,1\n", encoding="cp1252").rows(make.mapping()))


def test_bytes_in_a_column_that_is_not_sent_do_not_matter(tmp_path: Path) -> None:
    """Only what is read is checked."""
    sent, settled = read(tmp_path, b"email,d,photo\nann,x,\xff\n", attributes={"d": "d"})

    assert (sent, settled) == ({1: ("ann", {"d": "x"})}, {})


def test_a_record_over_the_requests_room_is_rejected(tmp_path: Path) -> None:
    """A record that no request could carry is told before anything is sent."""
    sent, settled = read(tmp_path, f"email,d\nann,{'x' * 100}\nbob,y\n", max_record_bytes=80)

    assert sent == {2: ("bob", {"d": "y"})}
    assert "too large" in settled[1][2]


def test_a_wide_file_is_mapped_whole(tmp_path: Path) -> None:
    """300 columns are 299 attributes."""
    names = [f"c{at}" for at in range(299)]
    sent, _ = read(tmp_path, f"email,{','.join(names)}\nann,{','.join(names)}\n")

    assert {1: ("ann", {name: name for name in names})} == sent


def test_a_file_of_keys_alone_is_skipped_row_by_row(tmp_path: Path) -> None:
    """A record without an attribute is nothing to send."""
    _, settled = read(tmp_path, "email\nann\nbob")

    assert {row: found[:2] for row, found in settled.items()} == {1: ("SKIPPED", "ann"), 2: ("SKIPPED", "bob")}


@pytest.mark.parametrize("content", ["email,d", "email,d\n", "\ufeffemail,d\r\n", "email,d\n\n\n"])
def test_a_header_alone_has_no_rows(tmp_path: Path, content: str) -> None:
    """It is no error."""
    assert read(tmp_path, content) == ({}, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\n\n", "is empty"),
        (b"mail,d\n", "mapping.user: the export has no column 'email'; did you mean 'mail'?"),
        (b"Email,d\n", "did you mean 'Email'?"),
        (b"x,y\n", "it has 'x', 'y'"),
        (b"email,d,d\n", "the header names 'd' twice"),
        (b"email,email\n", "the header names 'email' twice"),
        (b"email,\n", "leaves column 2 without a name"),
        (b"\nemail,\xff\n", "line 2: the header is not UTF-8"),
        (b'email,"d\n', "line 1: the header can't be read: a quote"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Before the first block, with what the header has."""
    with pytest.raises(ExportError, match=re.escape(message)):
        read(tmp_path, content)


def test_columns_that_are_not_read_may_share_a_name_or_have_none(tmp_path: Path) -> None:
    """An HR export with two columns "Comment" needs no repair to send a third."""
    sent, _ = read(tmp_path, "Comment,email,,Dept,Comment\n1,ann,2,Ops,3\n", attributes={"department": "Dept"})

    assert sent == {1: ("ann", {"department": "Ops"})}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": None}, "mapping.user is missing"),
        ({"attributes": {"department": "Dpt"}}, "mapping.attributes.department: the export has no column 'Dpt'"),
        ({"types": {"Dpt": "number"}}, "mapping.types: 'Dpt' is not an attribute that is sent; did you mean 'Dept'?"),
        ({"types": {"email": "number"}}, "mapping.types: 'email' is not an attribute that is sent"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """The setting is named, and the nearest column."""
    with pytest.raises(ExportError, match=re.escape(message)):
        read(tmp_path, "email,Dept\n", **options)


def test_resuming_behind_a_row_that_is_too_long_reads_none_of_its_rest(tmp_path: Path) -> None:
    """No mark lies within a rejected line: a run that began there took the line's rest for a row, and all numbers
    behind it were off by one."""
    content = "email,d\nann,1\n" + "x" * 500 + "\nbob,2\ncid,3\n"
    export = make.export(tmp_path, content, chunk_bytes=64, max_row_bytes=100)
    whole = list(export.rows(make.mapping()))

    assert {1, 3, 4} == set(make.sent(whole))
    for mark in [block.end for block in whole if block.end]:
        again = make.sent(export.rows(make.mapping(), mark))
        assert {row: found for row, found in make.sent(whole).items() if row >= mark.row} == again


def test_marks_have_a_row_of_their_own(tmp_path: Path) -> None:
    """A stretch of blank lines, or the rest of a long line, makes no second mark with the same row: the checkpoint
    would keep one of the two, and the chain of hashes would break."""
    content = "email,d\nann,1\n" + "\n" * 300 + "x" * 300 + "\n" + "\n" * 300 + "bob,2\n"
    export = make.export(tmp_path, content, chunk_bytes=64, max_row_bytes=100)

    rows = [block.end.row for block in export.rows(make.mapping()) if block.end]

    assert sorted(set(rows)) == rows


def test_many_broken_rows_cost_time_in_line_with_their_number(tmp_path: Path) -> None:
    """Each message names its line, and finding it must not count the block's lines anew for each row."""

    def seconds(count: int) -> float:
        export = make.export(tmp_path, "email,d\n" + "ann\n" * count)
        started = time.process_time()
        assert count == sum(len(block.settled) for block in export.rows(make.mapping()))
        return time.process_time() - started

    seconds(100)
    small = min(seconds(5_000) for _ in range(3))
    large = min(seconds(20_000) for _ in range(3))

    assert large < 10 * small + 0.05


def test_the_first_mark_comes_with_the_first_block(tmp_path: Path) -> None:
    """It tells offset, line and the number of the next row."""
    (block,) = make.export(tmp_path, "\ufeffemail,d\nann,1\n").rows(make.mapping())

    assert block.end is not None
    assert Mark(2, 17, 3, block.end.digest) == block.end


def test_tsv_is_parted_by_tabs(tmp_path: Path) -> None:
    """The name's suffix is enough."""
    export = make.export(tmp_path, "email\td\nann\ta,b\n", "users.tsv")

    assert make.sent(export.rows(make.mapping())) == {1: ("ann", {"d": "a,b"})}


def test_an_export_is_the_same_for_the_same_settings(tmp_path: Path) -> None:
    """It is a value."""
    assert make.export(tmp_path, "x") == Files((tmp_path / "users.csv",), "csv")


@pytest.mark.parametrize("chunk_bytes", [1 << 20, 14, 5])
def test_a_byte_order_mark_within_the_file_is_text(tmp_path: Path, chunk_bytes: int) -> None:
    """Files put one behind the other have them. Arrow would drop one that begins a block, and send another key."""
    made = make.export(tmp_path, "email,d\nann,1\n\ufeffbob,2\n\ufeffcid,3\n", chunk_bytes=chunk_bytes)

    assert [user for user, _ in make.sent(made.rows(make.mapping())).values()] == ["ann", "\ufeffbob", "\ufeffcid"]
