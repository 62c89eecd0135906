"""CSV, TSV and their like: cut at record ends, parsed a block at a time by Arrow into binary columns."""

import csv
import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.csv

from loader.errors import ExportError
from loader.export.rows import assemble
from loader.export.source import Source
from loader.export.split import Cut, Splitter, count_lines
from loader.mapping import ColumnMapper, Mapped, Problem, RowMapping
from loader.outcome import Code
from loader.record import Mark, Rows
from loader.span import SpanSet

#: csv.reader's own limit is 128 KiB a field; a row's length is bounded already.
csv.field_size_limit(1 << 30)


class Delimited:
    """A file of delimited text whose first record is the header."""

    def __init__(self, source: Source, mapping: RowMapping, delimiter: str, max_row_bytes: int) -> None:
        self._source = source
        self._mapping = mapping
        self._delimiter = delimiter
        self._max = max_row_bytes

    def blocks(self, start: Mark | None, settled: SpanSet) -> Iterator[Rows]:
        header, first = self._header()
        mapper = ColumnMapper(self._mapping, header)
        mark = start or first
        for cut in Splitter(self._delimiter, self._max).cuts(self._source.chunks(mark.offset)):
            bad, table = self._parse(cut, header, mapper)
            mapped = mapper.map(table) if table.num_rows else Mapped([], [], {})
            rows = assemble(cut, bad, mapped, mark, self._source.path.name, settled)
            rows.position = self._source.position
            mark = rows.end
            yield rows

    def _header(self) -> tuple[list[str], Mark]:
        """The columns' names and the mark behind them. Raises ExportError."""
        name = self._source.path
        skip = 3 if self._source.has_bom() else 0
        line = 1
        offset = skip
        for cut in Splitter(self._delimiter, self._max).cuts(self._source.chunks(skip)):
            if len(cut.starts) == 0:
                line += count_lines(cut.data)
                offset += len(cut.data)
                continue
            if reason := cut.bad.get(0):
                raise ExportError(f"{name} line {line + cut.line(0)}: the header can't be read: {reason}")
            end = int(cut.ends[0])
            try:
                text = cut.text(0).decode()
            except UnicodeDecodeError as error:
                raise ExportError(f"{name}: the header is not UTF-8 ({error.reason} at byte {error.start})") from error
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter))
            doubled = sorted({column for column in header if header.count(column) > 1})
            if doubled:
                raise ExportError(f"{name}: the header names {doubled[0]!r} twice; rename one of the columns")
            return header, Mark(1, offset + end, line + count_lines(cut.data[:end]), "")
        raise ExportError(f"{name} is empty: not even a header")

    def _parse(self, cut: Cut, header: list[str], mapper: ColumnMapper) -> tuple[dict[int, Problem], pa.Table]:
        """A cut's broken rows, by position, and a table of the others."""
        bad = {at: Problem(Code.REJECTED, reason, self._key(cut, at, header, mapper)) for at, reason in cut.bad.items()}
        data = cut.records()
        ragged: list[tuple[int, int]] = []

        def skip(row: pyarrow.csv.InvalidRow) -> str:
            ragged.append((row.number - 1, row.actual_columns))
            return "skip"

        expected = len(cut.starts) - len(bad)
        if not expected:
            return bad, pa.table({})
        table = pyarrow.csv.read_csv(
            pa.py_buffer(data),
            read_options=pyarrow.csv.ReadOptions(use_threads=False, column_names=header, block_size=len(data) + 1),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self._delimiter,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=skip,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.binary()), include_columns=mapper.columns
            ),
        )
        if ragged:
            positions = [at for at in range(len(cut.starts)) if at not in bad]
            for number, found in ragged:
                at = positions[number]
                fields = f"{found} field{'' if found == 1 else 's'}"
                bad[at] = Problem(
                    Code.REJECTED, f"{fields}, the header has {len(header)}", self._key(cut, at, header, mapper)
                )
        if table.num_rows + len(ragged) != expected:
            raise AssertionError(f"{expected} records were cut, {table.num_rows} + {len(ragged)} were parsed")
        return bad, table

    def _key(self, cut: Cut, at: int, header: list[str], mapper: ColumnMapper) -> str:
        """The user of a broken row, if its field can be told."""
        text = cut.text(at).decode("utf-8", "replace")
        fields = next(csv.reader([text.replace("\0", "")], delimiter=self._delimiter), [])
        place = header.index(mapper.columns[0])
        # The last field of a row with broken quotes is whatever the quote swallowed.
        return fields[place] if place < len(fields) - (at in cut.bad) else ""
