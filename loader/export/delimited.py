"""CSV, TSV and their like: cut at record ends, parsed a block at a time by Arrow into binary columns."""

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from loader.errors import ExportError, Stopped
from loader.export.rows import Place, Read, Unit, Wanted, assemble, refuse_cut_off, unsettled
from loader.export.source import BOM, Source, stranger
from loader.export.split import Cut, Splitter
from loader.mapping import NO_VALUES, Mapped, Problem, RowMapping, misfit
from loader.mapping.columns import ColumnMapper
from loader.mapping.texts import PADDING, Texts
from loader.outcome import Code
from loader.record import Mark, Records, Rows
from loader.span import SpanSet

#: csv.reader's own limit is 128 KiB a field; a row's length is bounded already.
csv.field_size_limit(1 << 30)

#: Arrow begins a thread for each text, and waits for it: fewer bytes are cut by Python before that has begun.
_FEW_BYTES = 1 << 15

_LF = 10


#: With this as its first line a file tells Excel its delimiter; no other program takes it for data, either.
_EXCELS = re.compile(rb"sep=([^\w\r\n\"])(?:\r\n|\n|\r)", re.IGNORECASE)
#: A byte order mark and such a line are shorter.
_BEGIN_BYTES = 16


class Preamble(NamedTuple):
    """What stands before the header, and the delimiter, if that is said there."""

    data: bytes
    delimiter: str | None


def preamble(source: Source) -> Preamble:
    """A byte order mark, and Excel's line."""
    begin = b""
    with suppress(Stopped):  # it breaks off: whoever reads on is told
        for chunk in source.glance().chunks():
            begin += chunk
            if len(begin) >= _BEGIN_BYTES:
                break
    mark = BOM if begin.startswith(BOM) else b""
    if (found := _EXCELS.match(begin, len(mark))) and found[1].isascii():
        return Preamble(begin[: found.end()], found[1].decode())
    return Preamble(mark, None)


class Delimited:
    """A file of delimited text whose first record is the header. `delimiter` None: the file's own, or else `usual`."""

    def __init__(
        self, source: Source, mapping: RowMapping, delimiter: str | None, max_row_bytes: int, usual: str = ","
    ) -> None:
        self._source = source
        self._mapping = mapping
        self._given = delimiter
        self._usual = usual
        self._max = max_row_bytes

    @cached_property
    def _preamble(self) -> Preamble:
        return preamble(self._source)

    @cached_property
    def _delimiter(self) -> str:
        return self._given or self._preamble.delimiter or self._usual

    def columns(self) -> list[str]:
        return self._header(Place(Mark()))

    def blocks(self, place: Place, settled: SpanSet) -> Iterator[Rows]:
        header = self._header(place if place.is_at_start else Place(Mark()))
        self._check_delimiter(header)
        mapper = ColumnMapper(replace(self._mapping, encoding=self._source.encoding_in_force), header)
        self._check_names(header, mapper.columns)
        for cut in Splitter(self._delimiter, self._max).cuts(self._source.chunks(place.offset)):
            part, numbers = unsettled(cut, place, settled)
            bad, table = self._parse(part, header, mapper)
            mapped = mapper.map(table) if table.num_rows else Mapped([], Records.of([]), {})
            rows = assemble(cut, part, numbers, bad, mapped, place, self._source.line)
            rows.position = self._source.position
            yield rows

    def units(self, place: Place, wanted: Wanted) -> Iterator[Unit]:
        header = self._header(place)
        mapper = ColumnMapper(self._mapping, header)
        for cut in Splitter(self._delimiter, self._max).cuts(self._source.chunks(place.offset)):
            first = place.row
            refuse_cut_off(cut, place, self._source.line, lambda row: self._wrong(row, header, mapper))
            place.move(cut.data, len(cut.starts), is_open=cut.is_open)
            if len(cut.starts):
                rows = wanted(first, len(cut.starts))
                yield Unit(first, len(cut.starts), partial(self._read, cut, rows, header, mapper))

    def _wrong(self, row: Cut, header: list[str], mapper: ColumnMapper) -> str:
        """What is wrong with a cut of one row, whatever its values are; "": nothing."""
        bad, _ = self._parse(row, header, mapper)
        if bad:
            return bad[0].reason
        return "" if _is_utf8(row.text(0)) else f"it is not {self._source.encoding_in_force}"

    def _read(self, cut: Cut, rows: NDArray[np.int64] | None, header: list[str], mapper: ColumnMapper) -> Read:
        """The rows of a cut, or some of them, as keys and values."""
        if rows is None and mapper.is_text and (cells := self._cells(cut, header, mapper.columns)):
            return Read(np.arange(len(cut.starts)), mapper.values_in(cells))
        positions = np.arange(len(cut.starts)) if rows is None else rows
        bad, table = self._parse(cut if rows is None else cut.pick(rows.tolist()), header, mapper)
        if bad:
            positions = np.delete(positions, sorted(bad))
        values = mapper.values(table) if table.num_rows else NO_VALUES
        return Read(positions, values, [problem.user for problem in bad.values()])

    def _cells(self, cut: Cut, header: list[str], columns: list[str]) -> dict[str, Texts] | None:
        """The cells of some columns where they stand; None: there is more to a row than delimiters and a line feed."""
        data, width, count = cut.data, len(header), len(cut.starts)
        mark = self._delimiter.encode()
        if len(mark) > 1 or b'"' in data or b"\r" in data or int((cut.ends - cut.starts).sum()) != len(data):
            return None
        buffer = np.frombuffer(data + bytes(PADDING), np.uint8)
        marks = np.flatnonzero((buffer == ord(mark)) | (buffer == _LF))
        if len(marks) != width * count or not _is_utf8(data):
            return None
        ends = np.ascontiguousarray(marks.reshape(count, width).T)
        if not (ends[-1] == cut.ends - 1).all():  # some rows are too short, and others too long
            return None
        places = {column: header.index(column) for column in columns}
        starts = {column: ends[at - 1] + 1 if at else cut.starts for column, at in places.items()}
        return {column: Texts(buffer, starts[column], ends[at] - starts[column]) for column, at in places.items()}

    def _header(self, place: Place) -> list[str]:
        """The columns' names; `place`, at the file's beginning, moves behind them. Raises ExportError."""
        name = self._source.name
        place.move(self._preamble.data)
        for cut in Splitter(self._delimiter, self._max).cuts(self._source.glance().chunks(place.offset)):
            if len(cut.starts) == 0:
                place.move(cut.data)
                continue
            if words := stranger(cut.data):
                raise ExportError(f"{name} {words}")
            if cut.data[:64].count(0) > 16:
                encoding = "utf-16-be" if cut.data[0] == 0 else "utf-16-le"
                raise ExportError(f'{name} looks like UTF-16 without a mark: set export.encoding = "{encoding}"')
            line = place.line + next(cut.lines([0]))
            if reason := cut.bad.get(0):
                is_json = cut.text(0).lstrip().startswith((b"{", b"["))
                way_out = '; it looks like JSON: export.format = "ndjson" or "json" reads it' if is_json else ""
                raise ExportError(f"{name} line {line}: the header can't be read: {reason}{way_out}")
            try:
                text = cut.text(0).decode()
            except UnicodeDecodeError as error:
                is_utf16 = cut.data[:2] in (b"\xff\xfe", b"\xfe\xff")
                encoding = self._source.encoding_in_force
                way_out = "set export.encoding" if encoding == "UTF-8" else "is export.encoding right?"
                way_out = 'it looks like UTF-16: set export.encoding = "utf-16"' if is_utf16 else way_out
                raise ExportError(f"{name} line {line}: the header is {misfit(error, encoding)}; {way_out}") from error
            place.move(cut.data[: int(cut.ends[0])])
            return next(csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter))
        raise ExportError(f"{name} is empty: not even a header")

    def _check_delimiter(self, header: list[str]) -> None:
        """Raises ExportError if the header is one column that would be several with another delimiter."""
        if len(header) == 1 and self._mapping.user is not None and self._mapping.user != header[0]:
            for other in ";\t|,":
                if self._mapping.user in header[0].split(other):
                    raise ExportError(
                        f"{self._source.name}: the header is one column, {header[0]!r}; "
                        f"export.delimiter = {json.dumps(other)} makes it several"
                    )

    def _check_names(self, header: list[str], columns: list[str]) -> None:
        """Raises ExportError if a column that is read can't be told from others by its name."""
        for column in columns:
            if header.count(column) > 1:
                raise ExportError(f"{self._source.name}: the header names {column!r} twice; rename one of the columns")
            if not column:
                raise ExportError(
                    f"{self._source.name}: the header leaves column {header.index(column) + 1} without a name; "
                    "name it, or list the columns to send in mapping.attributes"
                )

    def _parse(self, cut: Cut, header: list[str], mapper: ColumnMapper) -> tuple[dict[int, Problem], pa.Table]:
        """A cut's broken rows, by position, and a table of the others."""
        bad = dict(cut.bad)
        try:
            table = self._table(cut.records(bad), header, mapper, pa.string())
        except pa.ArrowInvalid:  # something is not UTF-8, or a row is ragged: of which Arrow would only see the first
            try:
                table = self._table(cut.records(bad), header, mapper, pa.binary())
            except pa.ArrowInvalid:
                bad |= self._ragged(cut, len(header))
                table = self._table(cut.records(bad), header, mapper, pa.binary())
        if table.num_rows + len(bad) != len(cut.starts):
            raise AssertionError(f"{len(cut.starts)} rows were cut, {table.num_rows} + {len(bad)} were parsed")
        place = header.index(mapper.columns[0])
        return {at: Problem(Code.REJECTED, bad[at], self._key(cut, at, place)) for at in bad}, table

    def _table(self, data: bytes, header: list[str], mapper: ColumnMapper, kind: pa.DataType) -> pa.Table:
        """Records as the columns that the mapping reads. Raises ArrowInvalid if one is ragged, or not of this kind."""
        if not data:
            return pa.table({})
        if len(data) <= _FEW_BYTES and b'"' not in data:
            rows = [line.split(self._delimiter.encode()) for line in data.splitlines()]
            if all(len(row) == len(header) for row in rows):
                cells = list(zip(*rows, strict=True))
                found = [pa.array(cells[header.index(column)], pa.binary()).cast(kind) for column in mapper.columns]
                return pa.table(found, mapper.columns)
        if data.startswith(BOM):  # Arrow leaves a byte order mark out wherever a block begins; here it is a row's own
            data = BOM + data
        names = [str(at) for at in range(len(header))]  # columns that aren't read may share a name
        return pyarrow.csv.read_csv(
            pa.py_buffer(data),
            read_options=pyarrow.csv.ReadOptions(use_threads=False, column_names=names, block_size=len(data) + 1),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=True, ignore_empty_lines=False
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, kind),
                include_columns=[str(header.index(column)) for column in mapper.columns],
            ),
        ).rename_columns(mapper.columns)

    def _ragged(self, cut: Cut, width: int) -> dict[int, str]:
        """The rows with too few fields or too many, and how many."""
        found: dict[int, str] = {}
        delimiter = self._delimiter.encode()
        for at, (start, end) in enumerate(zip(cut.starts.tolist(), cut.ends.tolist(), strict=True)):
            if at in cut.bad:
                continue
            is_quoted = cut.data.find(b'"', start, end) >= 0
            count = len(self._fields(cut, at)) if is_quoted else cut.data.count(delimiter, start, end) + 1
            if count != width:
                found[at] = f"{count} field{'' if count == 1 else 's'}, the header has {width}"
        return found

    def _key(self, cut: Cut, at: int, place: int) -> str:
        """The user of a broken row, if its field can be told."""
        fields = self._fields(cut, at)
        # The last field of a row with broken quotes is whatever the quote swallowed.
        return fields[place] if place < len(fields) - (at in cut.bad) else ""

    def _fields(self, cut: Cut, at: int) -> list[str]:
        return next(csv.reader([cut.text(at).decode("utf-8", "replace")], delimiter=self._delimiter), [])


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    whole = [None, pa.py_buffer(np.array([0, len(data)], np.int32)), pa.py_buffer(data)]
    try:
        pa.Array.from_buffers(pa.string(), 1, whole).validate(full=True)  # a third of the time of decode()
    except pa.ArrowInvalid:
        return False
    return True
