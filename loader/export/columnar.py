"""Parquet and Arrow IPC files: typed columns, read a batch of rows at a time, from any batch on."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from loader.errors import ExportError, Stopped
from loader.export.remote import RemoteFile
from loader.export.rows import Place, Read, Unit, Wanted, rows_without
from loader.export.source import Source
from loader.export.typed import TypedMapper
from loader.mapping import Mapped, RowMapping
from loader.outcome import Outcome, Settled
from loader.record import Records, Rows
from loader.span import SpanSet

#: Rows of a block. Parquet's own row groups may hold a million.
BLOCK_ROWS = 8_192

#: UnicodeDecodeError: names and time zones in a damaged schema.
_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


class Columnar:
    """One Parquet or Arrow file. An offset is a number of rows."""

    def __init__(self, source: Source, mapping: RowMapping, form: Literal["parquet", "arrow"]) -> None:
        if source.is_stdin:
            raise ExportError(f"{form} can't be read from stdin: its index stands at the end; give it as a file")
        self._source = source
        self._mapping = mapping
        self._form = form

    def columns(self) -> list[str]:
        return list(self._open()[0].names)

    def blocks(self, place: Place, settled: SpanSet) -> Iterator[Rows]:
        schema, opened = self._open()
        mapper = TypedMapper(self._mapping, schema)
        size = self._source.fingerprint().size
        try:
            total = opened.total()
            for block in opened.batches(place.offset, mapper.columns):
                rows = mapped_rows(block, mapper, place, settled, self._source.name)
                rows.position = size * place.offset // max(total, 1)
                yield rows
        except _ERRORS as error:
            raise self._broken(place, error) from error

    def units(self, place: Place, wanted: Wanted) -> Iterator[Unit]:
        schema, opened = self._open()
        mapper = TypedMapper(self._mapping, schema)
        try:
            for block in opened.batches(0, mapper.columns):
                first = place.row
                place.move_rows(block.num_rows, None)  # what is in them would be known by their records alone
                yield unit(block, mapper, first, wanted)
        except _ERRORS as error:
            raise self._broken(place, error) from error

    def _broken(self, place: Place, error: BaseException) -> Stopped:
        name = self._source.name
        return Stopped(
            f"{name} is damaged behind row {place.offset:,} ({_line(error)}); all before are kept. Get the file again"
        )

    def _open(self) -> "tuple[pa.Schema, _Parquet | _Arrow]":
        self._source.fingerprint()  # says it if the file isn't there
        try:
            file = self._source.anywhere()
            opened = _Parquet(file) if self._form == "parquet" else _Arrow(file)
            list(opened.schema.names)  # they are decoded here, or nowhere
        except _ERRORS as error:
            raise ExportError(f"{self._source.name} is not a whole {self._form} file: {_line(error)}") from error
        return opened.schema, opened


class _Parquet:
    def __init__(self, file: Path | RemoteFile) -> None:
        import pyarrow.parquet  # late: it takes as long to import as all of Arrow, and a CSV is loaded without it

        # Read ahead, the columns of all row groups would be held at once; measured, it is no faster either.
        self._file = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
        self.schema = self._file.schema_arrow

    def total(self) -> int:
        return int(self._file.metadata.num_rows)

    def batches(self, skip: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        groups = self._file.metadata.num_row_groups
        first = 0
        while first < groups and skip >= self._file.metadata.row_group(first).num_rows:
            skip -= self._file.metadata.row_group(first).num_rows
            first += 1
        for batch in self._file.iter_batches(BLOCK_ROWS, row_groups=list(range(first, groups)), columns=columns):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            yield batch.slice(skip)
            skip = 0


class _Arrow:
    """The file form, whose batches can be taken one by one, or the stream form, which is read from its beginning."""

    def __init__(self, file: Path | RemoteFile) -> None:
        mapped = pa.memory_map(str(file)) if isinstance(file, Path) else pa.PythonFile(file, "r")
        self._file: Any = None
        self._stream: Any = None
        try:
            self._file = pa.ipc.open_file(mapped)
        except pa.ArrowInvalid:
            mapped.seek(0)
            self._stream = pa.ipc.open_stream(mapped)
        self.schema = (self._file or self._stream).schema

    def total(self) -> int:
        if self._file is None:
            return 0
        if hasattr(self._file, "count_rows"):  # newer pyarrow: out of the batches' headers, not their data
            return int(self._file.count_rows())
        return sum(self._file.get_batch(at).num_rows for at in range(self._file.num_record_batches))

    def batches(self, skip: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        if self._file is not None:
            found = (self._file.get_batch(at) for at in range(self._file.num_record_batches))
        else:
            found = iter(self._stream)
        for batch in found:
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            rest = _sound(batch.select(columns)).slice(skip)
            skip = 0
            for at in range(0, rest.num_rows, BLOCK_ROWS):
                yield rest.slice(at, BLOCK_ROWS)


def _sound(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, if nothing in it leads out of its memory: the IPC format is used as it lies in the file.

    Raises ArrowInvalid. Text is taken for bytes here, as what is not UTF-8 is one row's matter and said of it later.
    """
    for column in batch.columns:
        if pa.types.is_string(column.type):
            column = column.view(pa.binary())
        elif pa.types.is_large_string(column.type):
            column = column.view(pa.large_binary())
        column.validate(full=True)
    return batch


def mapped_rows(
    block: pa.RecordBatch, mapper: TypedMapper, place: Place, settled: SpanSet, name: str, after: str = ""
) -> Rows:
    """A block's rows, without those in `settled`, and `place` moves behind them. `name`: what messages call its origin.

    `after`: the key of its last row, where reading goes on behind a key.
    """
    first, offset, count = place.row, place.offset, block.num_rows
    numbers: Sequence[int] = range(first, first + count)
    left = settled.rest(first, first + count - 1) if settled.overlaps(first, first + count - 1) else numbers
    if not place.is_hashing and len(left) < count:  # then nobody needs what is settled
        numbers, block = left, block.take(pa.array([number - first for number in left], pa.int64()))
    mapped = mapper.map(block) if block.num_rows else Mapped([], Records.of([]), {})
    end = place.move_rows(count, mapped.records.inside, after)
    drop = set(mapped.problems)
    aside = [
        Settled(
            numbers[at],
            problem.user,
            Outcome(problem.code, f"{name} row {offset + numbers[at] - first + 1}: {problem.reason}"),
        )
        for at, problem in sorted(mapped.problems.items())
    ]
    if len(left) < len(numbers):
        drop |= {at for at, number in enumerate(numbers) if number in settled}
        aside = [item for item in aside if item.row not in settled]
    return rows_without(drop, numbers, mapped, aside, end)


def unit(block: pa.RecordBatch, mapper: TypedMapper, first: int, wanted: Wanted) -> Unit:
    """A block to be read elsewhere, whose first row has this number."""
    return Unit(first, block.num_rows, partial(_read, block, wanted(first, block.num_rows), mapper))


def _read(block: pa.RecordBatch, rows: NDArray[np.int64] | None, mapper: TypedMapper) -> Read:
    """The rows of a block, or some of them, as keys and values."""
    if rows is None:
        return Read(np.arange(block.num_rows), mapper.values(block))
    return Read(rows, mapper.values(block.take(pa.array(rows))))


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0]
