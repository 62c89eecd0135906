"""NDJSON and JSON: a record a line, or an element of an array, each an object whose values pass through as they are."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import orjson
from numpy.typing import NDArray

from loader.errors import ExportError, Stopped
from loader.export.elements import elements
from loader.export.rows import Place, Read, Unit, Wanted, assemble, refuse_cut_off, unsettled
from loader.export.source import Source
from loader.export.split import Cut, Splitter
from loader.mapping import Problem, RowMapping
from loader.mapping.jsonlines import Block, LineMapper
from loader.outcome import Code
from loader.record import Rows
from loader.span import SpanSet

#: So many records are looked at for the columns that the mapping names: any one may lack some.
_CHECKED = 1_000


class Lines:
    """A file of JSON objects, one a line or, with `is_array`, the elements of one array."""

    def __init__(self, source: Source, mapping: RowMapping, max_row_bytes: int, *, is_array: bool = False) -> None:
        self._source = source
        self._mapping = mapping
        self._max = max_row_bytes
        self._is_array = is_array

    def columns(self) -> None:
        return None

    def blocks(self, place: Place, settled: SpanSet) -> Iterator[Rows]:
        mapper = LineMapper(replace(self._mapping, encoding=self._source.encoding_in_force))
        first = place.row
        is_whole = place.is_at_start
        if is_whole:
            place.move(self._source.byte_order_mark())
            mapper.check(islice(self._first(place.offset), _CHECKED))
        for cut in self._cuts(place.offset, inside=not is_whole):
            part, numbers = unsettled(cut, place, settled)
            bad = {at: Problem(Code.REJECTED, reason) for at, reason in part.bad.items()}
            block = _block(part, is_whole=part is cut, is_array=self._is_array)
            rows = assemble(cut, part, numbers, bad, mapper.map(block), place, self._source.line)
            rows.position = self._source.position
            if place.row > first:  # not before the first row: a file of blank lines is refused before any block
                yield rows
        if is_whole and place.row == first and not self._is_array:
            raise ExportError(f"{self._source.name} is empty")

    def units(self, place: Place, wanted: Wanted) -> Iterator[Unit]:
        mapper = LineMapper(self._mapping)
        place.move(self._source.byte_order_mark())
        for cut in self._cuts(place.offset):
            first = place.row
            if not self._is_array:  # an array that breaks off has no end, which is told where it is cut
                refuse_cut_off(cut, place, self._source.line, _wrong)
            place.move(cut.data, len(cut.starts), is_open=cut.is_open)
            if len(cut.starts):
                yield Unit(first, len(cut.starts), partial(self._read, cut, wanted(first, len(cut.starts)), mapper))

    def _read(self, cut: Cut, rows: NDArray[np.int64] | None, mapper: LineMapper) -> Read:
        """The rows of a cut, or some of them, as keys and values."""
        positions = np.arange(len(cut.starts)) if rows is None else rows
        part = cut if rows is None else cut.pick(rows.tolist())
        block = _block(part, is_whole=rows is None, is_array=self._is_array)
        return Read(np.delete(positions, sorted(part.bad)), mapper.values(block))

    def _cuts(self, offset: int, *, inside: bool = False) -> Iterator[Cut]:
        chunks = self._source.chunks(offset)
        if self._is_array:
            return elements(chunks, self._source.name, self._max, inside=inside)
        return Splitter(max_row_bytes=self._max, quoted=False).cuts(chunks)

    def _first(self, offset: int) -> Iterator[bytes]:
        """The export's first records, to look at before any is sent."""
        try:
            for cut in self._cuts(offset):
                yield from _texts(cut)
        except Stopped:
            pass  # it breaks off: those who read it are told


def _wrong(row: Cut) -> str:
    """What is wrong with a cut of one row, whatever its values are; "": nothing."""
    if row.bad:
        return row.bad[0]
    try:
        orjson.loads(row.text(0))
    except orjson.JSONDecodeError:
        return "it is not JSON"
    return ""


def _block(cut: Cut, *, is_whole: bool, is_array: bool = False) -> Block:
    """The rows of a cut, as they lie there if it `is_whole`: then white space stands between them, and commas."""
    if not is_whole or cut.bad or not len(cut.starts):
        return Block.of(list(_texts(cut)))
    if not is_array:
        return Block(cut.data, cut.starts, cut.ends)
    buf = np.frombuffer(cut.data, np.uint8).copy()
    buf[cut.ends] = ord("\n")
    return Block(buf.tobytes(), cut.starts, cut.ends)


def _texts(cut: Cut) -> Iterator[bytes]:
    spans = zip(cut.starts.tolist(), cut.ends.tolist(), strict=True)
    return (cut.data[start:end] for at, (start, end) in enumerate(spans) if at not in cut.bad)
