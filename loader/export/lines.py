"""NDJSON: a record a line, each a JSON object whose values pass through as they are."""

from collections.abc import Iterator

from loader.errors import ExportError
from loader.export.rows import assemble
from loader.export.source import Source
from loader.export.split import Cut, Splitter
from loader.mapping import LineMapper, Problem, RowMapping
from loader.outcome import Code
from loader.record import Mark, Rows
from loader.span import SpanSet


class Lines:
    """A file of JSON objects, one a line."""

    def __init__(self, source: Source, mapping: RowMapping, max_row_bytes: int) -> None:
        self._source = source
        self._mapping = mapping
        self._max = max_row_bytes

    def blocks(self, start: Mark | None, settled: SpanSet) -> Iterator[Rows]:
        mapper = LineMapper(self._mapping)
        mark = start or Mark(offset=3 if self._source.has_bom() else 0)
        is_first = start is None
        for cut in Splitter(max_row_bytes=self._max, quoted=False).cuts(self._source.chunks(mark.offset)):
            bad = {at: Problem(Code.REJECTED, reason) for at, reason in cut.bad.items()}
            texts = _texts(cut, bad)
            if is_first and texts:
                mapper.check(texts[:1000])
                is_first = False
            rows = assemble(cut, bad, mapper.map(texts), mark, self._source.path.name, settled)
            rows.position = self._source.position
            mark = rows.end
            yield rows
        if mark.offset == 0 and start is None:
            raise ExportError(f"{self._source.path} is empty")


def _texts(cut: Cut, bad: dict[int, Problem]) -> list[bytes]:
    spans = zip(cut.starts.tolist(), cut.ends.tolist(), strict=True)
    return [cut.data[start:end] for at, (start, end) in enumerate(spans) if at not in bad]
