"""NDJSON: a record a line, each a JSON object whose values pass through as they are."""

from collections.abc import Iterator
from itertools import islice

from loader.errors import ExportError, Stopped
from loader.export.rows import Place, assemble
from loader.export.source import Source
from loader.export.split import Cut, Splitter
from loader.mapping import LineMapper, Problem, RowMapping
from loader.outcome import Code
from loader.record import Mark, Rows
from loader.span import SpanSet

#: So many records are looked at for the columns that the mapping names: any one may lack some.
_CHECKED = 1_000


class Lines:
    """A file of JSON objects, one a line."""

    def __init__(self, source: Source, mapping: RowMapping, max_row_bytes: int) -> None:
        self._source = source
        self._mapping = mapping
        self._max = max_row_bytes

    def blocks(self, start: Mark | None, settled: SpanSet) -> Iterator[Rows]:
        mapper = LineMapper(self._mapping)
        place = Place(start or Mark())
        if start is None:
            place.move(self._source.byte_order_mark())
            mapper.check(islice(self._first(place.offset), _CHECKED))
        for cut in self._cuts(place.offset):
            bad = {at: Problem(Code.REJECTED, reason) for at, reason in cut.bad.items()}
            rows = assemble(cut, bad, mapper.map(_texts(cut)), place, self._source.path.name, settled)
            rows.position = self._source.position
            if place.row > 1:  # not before the first row: a file of blank lines is refused before any block
                yield rows
        if place.row == 1:
            raise ExportError(f"{self._source.path} is empty")

    def _cuts(self, offset: int) -> Iterator[Cut]:
        return Splitter(max_row_bytes=self._max, quoted=False).cuts(self._source.chunks(offset))

    def _first(self, offset: int) -> Iterator[bytes]:
        """The export's first records, to look at before any is sent."""
        try:
            for cut in self._cuts(offset):
                yield from _texts(cut)
        except Stopped:
            pass  # it breaks off: those who read it are told


def _texts(cut: Cut) -> list[bytes]:
    spans = zip(cut.starts.tolist(), cut.ends.tolist(), strict=True)
    return [cut.data[start:end] for at, (start, end) in enumerate(spans) if at not in cut.bad]
