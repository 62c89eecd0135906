"""Records are cut alike however their bytes arrive, agree with csv.reader, and a broken one costs its own line."""

import csv
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.export.split import Cut, Splitter, count_lines
from tests import make

Row = tuple[bytes, str]


def split(pieces: list[bytes], *, delimiter: str = ",", most: int = 1 << 20, quoted: bool = True) -> list[Row]:
    """The rows, each with what is wrong with it."""
    cuts = list(Splitter(delimiter, most, quoted=quoted).cuts(pieces))
    assert b"".join(cut.data for cut in cuts) == b"".join(pieces), "all bytes come out, in order"
    for cut in cuts[:-1]:
        assert cut.is_open or cut.data.endswith((b"\n", b"\r")), "a cut ends a line"
    return [(row, reason) for cut in cuts for row, reason in rows_of(cut)]


def rows_of(cut: Cut) -> list[Row]:
    return [(cut.text(at), cut.bad.get(at, "")) for at in range(len(cut.starts))]


def texts(rows: list[Row]) -> list[bytes]:
    return [text for text, _ in rows]


LINES = st.lists(
    st.sampled_from(
        [
            b"a",
            b"b,c",
            b'"',
            b'""',
            b'"x',
            b'x"',
            b",",
            b"\n",
            b"\r",
            b"\r\n",
            b'"a,b"',
            b'"a\nb"',
            b"\xff",
            b"12345678",
        ]
    ),
    max_size=30,
).map(b"".join)


@given(LINES, st.lists(st.integers(1, 9), max_size=30), st.integers(4, 40) | st.just(1 << 20), st.booleans())
def test_any_splitting_of_the_bytes_gives_the_same_rows(data: bytes, sizes: list[int], most: int, quoted: bool) -> None:
    """Rows, and what is wrong with them, depend on the bytes and not on how they arrive."""
    whole = list(Splitter(max_row_bytes=most, quoted=quoted).cuts([data]))
    pieces = list(Splitter(max_row_bytes=most, quoted=quoted).cuts(make.in_pieces(data, sizes)))

    assert b"".join(cut.data for cut in pieces) == data
    # Of a line that is too long the text may come in parts: its number and reason are what counts.
    assert known(whole) == known(pieces)


def known(cuts: list[Cut]) -> list[Row]:
    return [(b"" if "too long" in reason else text, reason) for cut in cuts for text, reason in rows_of(cut)]


CELLS = st.text(st.sampled_from("ab ,;\t\"\r\n'é|"), max_size=6)


@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=4), max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.lists(st.integers(1, 9), max_size=30),
)
def test_well_formed_files_are_cut_where_csv_reader_cuts_them(
    cells: list[list[str]], delimiter: str, line_end: str, quote_all: bool, sizes: list[int]
) -> None:
    """Each row's text, read alone, has the fields that Python's csv module reads from the whole file."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    if not quote_all:
        writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows(cells)

    found = split(list(make.in_pieces(out.getvalue().encode(), sizes)), delimiter=delimiter)

    assert [(row, "") for row in cells] == [
        (next(csv.reader(io.StringIO(text.decode(), newline=""), delimiter=delimiter)), reason)
        for text, reason in found
    ]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("is_ended", [True, False])
def test_rows_end_at_any_line_end_or_at_the_end_of_the_file(line_end: bytes, is_ended: bool) -> None:
    """LF, CRLF and a lone CR end a row; the last row needs none."""
    data = line_end.join([b"a,1", b"b,2", b"c,3"]) + (line_end if is_ended else b"")

    assert texts(split([data])) == [b"a,1", b"b,2", b"c,3"]


def test_blank_lines_are_no_rows() -> None:
    """Lines without a byte are left out, wherever they stand; a line of one space is a row."""
    assert texts(split([b"\n\r\na\n\n\r\n \n\rb\n\n"])) == [b"a", b" ", b"b"]


def test_a_last_row_of_one_byte_is_a_row() -> None:
    """A row as long as a line end is no blank line."""
    assert texts(split([b"a\nb"])) == [b"a", b"b"]


def test_a_quoted_record_over_several_lines_is_one_row() -> None:
    """Line ends within quotes end nothing, even where the bytes are parted there."""
    assert texts(split([b'a,"x\n', b'y\r\n"\nb', b",z\n"])) == [b'a,"x\ny\r\n"', b"b,z"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b'x,"y', "never closed"),
        (b'x,"y"z', "text behind a closing quote"),
        (b'"x" ,y', "text behind a closing quote"),
        (b'"x""', "never closed"),
    ],
)
def test_a_broken_row_costs_its_own_line(broken: bytes, reason: str) -> None:
    """The rows around a broken one are read as if it were not there."""
    rows = split([b"a,1\n" + broken + b"\nb,2\nc,3\n"])

    assert [b"a,1", broken, b"b,2", b"c,3"] == texts(rows)
    assert [text and reason in text for _, text in rows] == ["", True, "", ""]


def test_a_quote_inside_an_unquoted_field_is_text() -> None:
    """Quotes mean something at a field's start alone, as for csv.reader."""
    assert split([b'5" pipe,a"b\nc,d\n']) == [(b'5" pipe,a"b', ""), (b"c,d", "")]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_a_row_over_the_limit_is_rejected_once_and_never_held(chunk: int) -> None:
    """However long its line, no more of it is held than the limit and a chunk."""
    data = b"a,1\n" + b"x" * 5000 + b"\nb,2\n"
    splitter = Splitter(max_row_bytes=100)
    read = given_out = most = 0

    def pieces() -> "list[bytes]":
        return [data[at : at + chunk] for at in range(0, len(data), chunk)]

    def counted() -> object:
        nonlocal read
        for piece in pieces():
            read += len(piece)
            yield piece

    rows: list[Row] = []
    for cut in splitter.cuts(counted()):  # type: ignore[arg-type]
        most = max(most, read - given_out)
        given_out += len(cut.data)
        rows += rows_of(cut)

    assert [text for text, reason in rows if not reason] == [b"a,1", b"b,2"]
    assert [reason for _, reason in rows if reason] == ["too long: over export.max_row_bytes = 100 bytes"]
    assert most <= 100 + 2 * chunk + 10


def test_a_cut_within_a_long_line_is_open() -> None:
    """Reading can't begin in the midst of a line that was rejected for its length (it would read its rest as a row)."""
    cuts = list(Splitter(max_row_bytes=10).cuts([b"a\n" + b"x" * 30, b"x" * 30, b"x\nb\n"]))

    assert [cut.is_open for cut in cuts][:3] == [True, True, False]


@pytest.mark.parametrize(
    ("size", "reason"), [(9, ""), (10, ""), (11, "too long: over export.max_row_bytes = 10 bytes")]
)
@pytest.mark.parametrize("pieces", [1, 3, 100])
def test_the_limit_counts_a_row_with_its_line_end(size: int, reason: str, pieces: int) -> None:
    """A row of exactly max_row_bytes is taken, one byte more is not."""
    data = b"x" * (size - 1) + b"\ny\n"

    rows = split([data[at : at + pieces] for at in range(0, len(data), pieces)], most=10)

    assert [reason, ""] == [found for _, found in rows]


def test_a_quoted_record_over_the_limit_is_told_alike_however_it_arrives() -> None:
    """Its first line is rejected, and the reason does not depend on where chunks end."""
    data = b'a,"' + b"x\n" * 30 + b'"\nb,c\n'

    whole = split([data], most=20)
    pieces = split([data[at : at + 1] for at in range(len(data))], most=20)

    assert whole == pieces
    assert whole[0][1] == "a quote is opened and not closed within export.max_row_bytes = 20 bytes"
    assert whole[-1] == (b"b,c", "")


def test_lines_of_ndjson_know_no_quotes() -> None:
    """With quoted=False only line ends count."""
    assert texts(split([b'{"a":"\nx"}\n'], quoted=False)) == [b'{"a":"', b'x"}']


def test_line_numbers_are_those_of_the_file() -> None:
    """Blank lines and line ends within quotes count for the line, not for the row."""
    (cut,) = Splitter().cuts([b'\na,"x\ny"\r\n\rb,1\n'])

    assert list(cut.lines([0, 1])) == [1, 4]
    assert count_lines(cut.data) == 5


def test_records_are_what_is_not_broken() -> None:
    """What goes to the parser has neither blank lines nor broken rows, and every record is ended."""
    cuts = Splitter().cuts([b'a,1\n\n"b"c\nx"y,z\n', b"d,2"])

    assert b"".join(cut.records(cut.bad) for cut in cuts) == b'a,1\nx"y,z\nd,2'


@pytest.mark.parametrize("line", [b'a,"b\n', b'"a"b,c\n', b'"a""\n', b"a,b\n\n"])
def test_work_grows_in_line_with_the_input_however_broken_it_is(line: bytes) -> None:
    """Four times the broken rows take about four times as long, not sixteen."""

    def seconds(count: int) -> float:
        data = line * count
        started = time.process_time()
        list(Splitter().cuts([data]))
        return time.process_time() - started

    seconds(100)
    small = min(seconds(4_000) for _ in range(3))
    large = min(seconds(16_000) for _ in range(3))

    assert large < 10 * small + 0.05
