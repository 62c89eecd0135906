"""Exports that are tables, or objects: out of memory, a database or a plug-in, and nothing is known of them unread.

A table comes as Arrow record batches from a `TableSource`, is cut into blocks of one size and mapped as Parquet is.
Objects (dicts) are taken for the lines of an NDJSON export, so that what is absent stays absent.

    source ──► batches ──► blocks, their order checked ──► rows ──► compared with the marks made before

As no size and no time tells whether it is the same export, each mark that was made before is compared with what is read
now, before the rows in front of it are handed out: a run goes on with the same rows, or it doesn't go on.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from loader.errors import ExportError, LoaderError, Stopped
from loader.export.columnar import BLOCK_ROWS, mapped_rows, unit
from loader.export.lines import Lines
from loader.export.rows import Place, Reader, Unit, Wanted
from loader.export.source import UNTOLD, Fingerprint, Source
from loader.export.spool import Spool
from loader.export.typed import TypedMapper, array_of, value_of
from loader.mapping import RowMapping, listed, others
from loader.record import Mark, Rows
from loader.span import SpanSet

#: A key as it is given back to the source that it came from: text, or a whole number; times and decimals as text.
Key = str | int

#: Bytes of the lines that objects are made, at a time.
_CHUNK_BYTES = 1 << 18
#: So much of what comes once can be looked at before it is read: its first chunks, or batches.
_HEAD = 64
#: Objects are in memory already: this only keeps one row from being larger than a request could ever be.
_MAX_OBJECT_BYTES = 1 << 28

_ENCODER = msgspec.json.Encoder(decimal_format="number")

_T = TypeVar("_T")


class TableSource(Protocol):
    """Where a table's rows come from; `str()` of it is what messages call it. Its methods block.

    They raise ExportError where the table can't be read at all, Stopped where it breaks off. Whatever else is raised is
    taken for the latter.
    """

    @property
    def order_by(self) -> str | None:
        """The column whose values rise from row to row, no two alike: `batches` can begin behind any of them.

        None: there is none, and a run that goes on reads all from the beginning, and skips what it had.
        """
        ...

    @property
    def comes_once(self) -> bool:
        """Must it be given anew to be read again?"""
        ...

    def columns(self) -> pa.Schema:
        """The columns of each batch. A type that is null may be any other in a batch."""
        ...

    def batches(self, after: Key | None) -> Iterator[pa.RecordBatch]:
        """All rows in one order, the same each time, in batches of any size; or those behind the key `after`."""
        ...


class Changed(ExportError):
    """What is read now is not what was read before."""


class Table:
    """One export that is a table, or objects. `read` gives what reads it, in blocks that end at certain rows, too."""

    paths: Sequence[Path] = ()

    def __init__(
        self,
        read: Callable[[RowMapping, Sequence[int]], Reader],
        name: str,
        format: str,
        *,
        source: TableSource | None = None,
        comes_once: bool = False,
        fingerprint: Fingerprint = UNTOLD,
    ) -> None:
        self._read = read
        self._name = name
        self._source = source
        self._is_keyed = source is not None and source.order_by is not None
        self._fingerprint = fingerprint
        self.format = format
        self.comes_once = comes_once

    @classmethod
    def of(cls, source: TableSource, format: str = "table", fingerprint: Fingerprint = UNTOLD) -> "Table":
        """The export that a source gives."""
        return cls(
            lambda mapping, ends: _Columns(source, mapping, ends),
            str(source),
            format,
            source=source,
            comes_once=source.comes_once,
            fingerprint=fingerprint,
        )

    def __str__(self) -> str:
        return self._name

    def fingerprint(self) -> Fingerprint:
        """Nothing is known of it, but of what is held."""
        return self._fingerprint

    @contextmanager
    def held(self, folder: Path, watch: Callable[[int], None]) -> Iterator["Table"]:
        """It as it is now, its rows in a file in `folder` until this ends. What is objects is not held.

        `watch` is told how many rows are there. Raises ExportError if it can't be read, or kept; Stopped where it
        breaks off.
        """
        source = self._source
        if source is None:
            yield self
            return

        def blocks() -> Iterator[pa.RecordBatch]:
            place = Place(Mark())
            for block, _ in _in_order(source, place, ()):
                yield block
                place.row += block.num_rows
                watch(place.row - 1)

        with Spool(self._name, _schema(source), folder) as spool:
            spool.fill(blocks())
            yield Table.of(spool, self.format, spool.fingerprint)

    def check(self, mapping: RowMapping) -> None:
        """Raise ExportError if it can't be read, or doesn't fit the mapping."""
        reader = self._read(mapping, ())
        if reader.columns() is None:  # each row has its own
            next(reader.blocks(Place(Mark()), SpanSet()), None)

    def names(self, mapping: RowMapping) -> list[str] | None:
        """The attributes that would be sent. None: that isn't known before the rows are read."""
        if mapping.attributes is not None:
            return list(mapping.attributes)
        columns = self._read(mapping, ()).columns()
        return None if columns is None else others(columns, mapping.user)

    def rows(
        self,
        mapping: RowMapping,
        start: Mark | None = None,
        settled: SpanSet | None = None,
        known: Mapping[int, Mark] | None = None,
    ) -> Iterator[Rows]:
        """Blocks of rows from `start` on, without those in `settled`. Blocking: for a thread.

        Raises Changed as soon as one of the marks `known` is not what it was. Without a key to go on behind, all before
        `start` is read again, and compared.
        """
        first = start.row if start else 1
        place = Place(start if start and self._is_keyed else Mark())
        left = {row: mark for row, mark in (known or {}).items() if row > place.row}
        for rows in self._read(mapping, sorted(left)).blocks(place, settled or SpanSet()):
            if rows.end is not None and left.pop(rows.end.row, rows.end) != rows.end:
                raise self._changed(rows.end.row)
            if place.row > first:
                yield rows
        if left:
            raise self._changed(max(left))

    def units(self, mapping: RowMapping, place: Place, wanted: Wanted = lambda _first, _count: None) -> Iterator[Unit]:
        """All rows as units that are read elsewhere, in order, and `wanted` rows alone."""
        return self._read(mapping, ()).units(place, wanted)

    def is_same_up_to(self, marks: Sequence[Mark], mapping: RowMapping, start: Mark | None = None) -> bool:
        """Is it what was read when the marks were made, and no more? Reads it.

        Of a load that goes on, at `start`, rows() compares as it reads.
        """
        if not marks or start is not None:
            return True
        try:
            return all(
                rows.last < marks[-1].row for rows in self.rows(mapping, known={mark.row: mark for mark in marks})
            )
        except Changed:
            return False

    def _changed(self, row: int) -> Changed:
        return Changed(
            f"{self} is not what it was: of its rows before row {row:,} some were read already, and they have changed "
            "since, so that what is left can't be told; start over with --fresh --yes"
        )


def _ignore() -> None:
    pass


def of(data: object, heed: Callable[[], None] = _ignore) -> Table:
    """What is in memory as an export: anything with `__arrow_c_stream__` (pyarrow, polars, pandas, DuckDB), or dicts.

    Dicts are records as in NDJSON. What comes once (an iterator, a generator, a RecordBatchReader) must be given again,
    the same from its beginning, for a load to be gone on with: that it is the same is checked. `heed` is called for
    each dict, and may raise: what gives them may take its time. Raises ExportError.
    """
    if hasattr(data, "__arrow_c_stream__"):
        return Table.of(_Stream(data))
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | bytearray | Mapping):
        once = iter(data) is data
        chunks = _Once(_lines(data, heed)) if once else lambda: _lines(data, heed)
        return Table(
            lambda mapping, ends: Lines(_Objects(chunks, ends), mapping, _MAX_OBJECT_BYTES),
            "the objects",
            "objects",
            comes_once=once,
        )
    raise ExportError(
        f"the export is {type(data).__name__}: it must have __arrow_c_stream__, as tables of pyarrow, polars, pandas "
        "and DuckDB do, or be an iterable of dicts"
    )


class _Once(Generic[_T]):
    """Items that come once, though the first of them can be looked at before."""

    def __init__(self, items: Iterator[_T]) -> None:
        self._items = items
        self._head: list[_T] = []
        self._is_gone = False
        self._error: Exception | None = None

    def __call__(self) -> Iterator[_T]:
        if self._is_gone:
            raise ExportError("the export comes only once, and was read; give it again")
        yield from self._head
        while self._error is None:
            try:
                item = next(self._items)
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001  # whatever it is: raised below, and at each reading
                self._error = error
                break
            if len(self._head) < _HEAD:
                self._head.append(item)
            else:
                self._is_gone = True
            yield item
        if self._error is not None:
            raise self._error


# Columns -------------------------------------------------------------------------------------------------------------


class _Columns:
    """Reads a source. An offset is a number of rows."""

    def __init__(self, source: TableSource, mapping: RowMapping, ends: Sequence[int]) -> None:
        self._source = source
        self._mapping = mapping
        self._ends = ends

    def columns(self) -> list[str]:
        self._mapper()  # says it if they don't fit
        return list(self._source.columns().names)

    def blocks(self, place: Place, settled: SpanSet) -> Iterator[Rows]:
        mapper = self._mapper()
        for block, key in _in_order(self._source, place, self._ends):
            yield mapped_rows(block, mapper, place, settled, str(self._source).removeprefix("the "), key)

    def units(self, place: Place, wanted: Wanted) -> Iterator[Unit]:
        mapper = self._mapper()
        for block in _read(self._source, None, place, self._ends):
            first = place.row
            place.row += block.num_rows
            place.offset += block.num_rows
            yield unit(block, mapper, first, wanted)

    def _mapper(self) -> TypedMapper:
        return TypedMapper(self._mapping, _schema(self._source, self._mapping.user))


def _schema(source: TableSource, user: str | None = None) -> pa.Schema:
    """The columns, among which is that to order by; of `user` the mapping says if it lacks. Raises ExportError."""
    schema, order = source.columns(), source.order_by
    if order is not None and order not in (*schema.names, user):
        raise ExportError(
            f"export.order_by: {source} has no column {order!r}; it has {listed(schema.names)}. Name one "
            "that tells the rows apart, for them to come in one order and for an interrupted run to go on behind it"
        )
    return schema


def _in_order(source: TableSource, place: Place, ends: Sequence[int]) -> Iterator[tuple[pa.RecordBatch, str]]:
    """The blocks from `place` on, which whoever takes them moves, each with the key of its last row ("": none)."""
    order = None if source.order_by is None else _Order(source.order_by, place)
    for block in _read(source, None if order is None else order.after, place, ends):
        yield block, "" if order is None else order.check(block, place.row)


def _read(source: TableSource, after: Key | None, place: Place, ends: Sequence[int]) -> Iterator[pa.RecordBatch]:
    try:
        yield from _blocks(source.batches(after), place.row, ends)
    except LoaderError:
        raise
    except Exception as error:  # somebody else's code: whatever it raises, the rows before are kept
        raise Stopped(
            f"{source} breaks off behind row {place.row - 1:,} ({_words(error)}); all before are kept"
        ) from error


def _blocks(batches: Iterable[pa.RecordBatch], first: int, ends: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """The same rows in blocks of one size, so that their ends, and the marks there, are the same at each reading.

    `ends`: rows that one must begin with, as it did before. `first`: the number of the first row.
    """
    later = iter(ends)
    end = next(later, 0)
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        while batch.num_rows:
            while end and end <= first:
                end = next(later, 0)
            room = min(BLOCK_ROWS, end - first) if end else BLOCK_ROWS
            part = batch.slice(0, room - count)
            batch = batch.slice(part.num_rows)
            waiting.append(part)
            count += part.num_rows
            if count == room:
                yield _joined(waiting)
                first, count, waiting = first + count, 0, []
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(parts) == 1:
        return parts[0]
    if any(part.schema != parts[0].schema for part in parts):  # of a source whose types differ from row to row
        names = parts[0].schema.names
        columns = (chain.from_iterable(part.column(name).to_pylist() for part in parts) for name in names)
        return pa.RecordBatch.from_arrays([array_of(list(column)) for column in columns], names=names)
    return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


class _Order:
    """Looks whether a column rises from row to row, from a place on. Of text only the database knows what rises."""

    def __init__(self, column: str, place: Place) -> None:
        self._column = column
        self._last: str | None = place.after or None

    @property
    def after(self) -> Key | None:
        """The key that the next row's is greater than."""
        if self._last is None:
            return None
        key = json.loads(self._last, parse_float=str)
        return key if isinstance(key, int) else str(key)

    def check(self, block: pa.RecordBatch, first: int) -> str:
        """The last key of a block whose first row has that number, as JSON. Raises ExportError."""
        keys = block.column(self._column)
        if keys.null_count:
            at = pc.indices_nonzero(keys.is_null())[0].as_py()
            raise self._wrong(first + at, "is null", "which no other value comes before or behind")
        if pa.types.is_dictionary(keys.type):
            keys = keys.dictionary_decode()
        before, behind = keys.slice(0, len(keys) - 1), keys.slice(1)
        same = pc.equal(before, behind) if _is_comparable(keys) else pc.equal(_text(before), _text(behind))
        if same.true_count:
            at = pc.indices_nonzero(same)[0].as_py() + 1
            raise self._wrong(first + at, f"is {_shown(keys, at)}", "as that of the row before")
        if pa.types.is_integer(keys.type) or pa.types.is_temporal(keys.type):
            falls = pc.greater(before, behind)
            if falls.true_count:
                at = pc.indices_nonzero(falls)[0].as_py() + 1
                raise self._wrong(first + at, f"is {_shown(keys, at)}", "less than that of the row before")
        ends = _text(keys.take(pa.array([0, len(keys) - 1])))
        if ends[0].as_py() == self._last:
            raise self._wrong(first, f"is {_shown(keys, 0)}", "as that of the row before")
        self._last = str(ends[1].as_py())
        return self._last

    def _wrong(self, row: int, what: str, why: str) -> ExportError:
        return ExportError(
            f"export.order_by (if it is not set, mapping.user): column {self._column!r} of row {row:,} {what}, {why}. "
            "A run goes on behind a row's key, so each needs one of its own: name a column that is unique and never "
            'null, or none ("") to have an interrupted run read all again up to where it was'
        )


def _is_comparable(keys: pa.Array) -> bool:
    return not isinstance(keys.type, pa.BaseExtensionType)


def _shown(keys: pa.Array, at: int) -> str:
    return str(_text(keys.slice(at, 1))[0])


def _text(keys: pa.Array) -> pa.StringArray:
    return value_of(keys, "", {})


class _Stream:
    """Anything that has `__arrow_c_stream__`."""

    order_by = None

    def __init__(self, data: Any) -> None:
        self.comes_once = not isinstance(data, Sized)  # a reader is used up by being read
        self._data = data
        self._once: _Once[pa.RecordBatch] | None = None
        self._schema: pa.Schema | None = None
        if self.comes_once:
            reader = self._reader()
            self._schema = reader.schema
            self._once = _Once(iter(reader))

    def __str__(self) -> str:
        return "the table"

    def columns(self) -> pa.Schema:
        return self._reader().schema if self._schema is None else self._schema

    def batches(self, after: Key | None) -> Iterator[pa.RecordBatch]:
        assert after is None, "it has no order to begin behind a key of"
        return iter(self._reader()) if self._once is None else self._once()

    def _reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_stream(self._data)


def _words(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or repr(error)


# Objects -------------------------------------------------------------------------------------------------------------


class _Objects(Source):
    """Objects as the lines of a file that nobody wrote. `ends`: rows that a chunk must begin with, as it did before."""

    def __init__(self, lines: Callable[[], Iterator[bytes]], ends: Sequence[int]) -> None:
        super().__init__(Path(), None)
        self._lines = lines
        self._ends = ends

    @property
    def name(self) -> str:
        return "the export"

    def line(self, number: int) -> str:
        return f"object {number}"

    def byte_order_mark(self) -> bytes:
        return b""

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        assert offset == 0, "they are read from the beginning, and what was settled is skipped"
        return _cut_at(self._ends, self._lines())


def _cut_at(ends: Sequence[int], chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks of lines, cut before each of the rows `ends`: where one stood, it is looked for again.

    Objects that have changed, or that broke off, were cut elsewhere.
    """
    later = iter(ends)
    end, row = next(later, 0), 1
    for chunk in chunks:
        behind = row + chunk.count(b"\n")
        while end and end <= behind:
            if row < end < behind:
                at = 0
                for _ in range(end - row):
                    at = chunk.index(b"\n", at) + 1
                yield chunk[:at]
                chunk, row = chunk[at:], end
            end = next(later, 0)
        yield chunk
        row = behind


def _lines(objects: Iterable[Any], heed: Callable[[], None]) -> Iterator[bytes]:
    """A line of JSON each, in chunks."""
    chunk = bytearray()
    row = 0
    try:
        for row, item in enumerate(objects, 1):
            heed()
            chunk += _line(item, row)
            chunk += b"\n"
            if len(chunk) >= _CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
    except LoaderError:
        raise
    except Exception as error:  # what gives the objects is somebody else's code
        yield bytes(chunk)
        raise Stopped(f"the objects break off behind row {row:,} ({error!r}); all before are kept") from error
    yield bytes(chunk)


def _line(item: Any, row: int) -> bytes:
    if isinstance(item, Mapping):
        odd = any(type(value) is float and not math.isfinite(value) for value in item.values())
    else:
        odd = False
    try:
        # NaN would become null; as it is no JSON, the row is rejected.
        return json.dumps(dict(item), default=str).encode() if odd else _ENCODER.encode(item)
    except (OverflowError, UnicodeEncodeError):
        return json.dumps(item, default=str).encode()  # a whole number of any size; a surrogate, which is seen later
    except TypeError as error:
        raise ExportError(f"object {row} has no form in JSON: {error}") from error
