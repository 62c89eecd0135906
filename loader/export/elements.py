"""Bytes of a JSON array into its elements, without reading them: where each begins and ends.

Strings are told from structure by numpy over a whole chunk, so an element keeps every byte it came with.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from loader.errors import ExportError, Stopped
from loader.export.split import Cut
from loader.mapping.structure import COMMA, Structure

_BLANK = b" \t\r\n"
_NONE = np.empty(0, np.int64)


def elements(chunks: Iterable[bytes], name: str, max_row_bytes: int, *, inside: bool = False) -> Iterator[Cut]:
    """The elements of the array that `chunks` hold, as rows. `inside`: the chunks begin behind a comma of the array.

    All bytes come out, in order. Raises ExportError if it isn't an array, and Stopped, behind the last whole element,
    where it breaks off or an element has no end: where the next would begin, nobody can tell then.
    """
    data = b""
    is_over = False
    for chunk in chunks:
        data += chunk
        if is_over:
            _nothing_more(data, name)
            continue
        if not inside:
            text = data.lstrip(_BLANK)
            if not text:
                continue
            if not text.startswith(b"["):
                raise ExportError(f'{name} is not a JSON array; for one object a line set export.format = "ndjson"')
            head = len(data) - len(text) + 1
            yield Cut(data[:head], _NONE, _NONE, {}, is_open=True)
            data, inside = data[head:], True
        cut, is_over = _cut(data, name, max_row_bytes)
        data = data[len(cut.data) :]
        yield cut
        if is_over:
            _nothing_more(data, name)
        elif len(data) > max_row_bytes:
            raise Stopped(
                f"{name}: an element has no end within export.max_row_bytes = {max_row_bytes:,} bytes; "
                "is a bracket missing?"
            )
    if not inside:
        raise ExportError(f"{name} is empty: not even a JSON array")
    if not is_over:
        raise Stopped(
            f"{name} breaks off: its JSON array has no end; all whole elements before are kept. "
            "Get the whole file again, and start over",
            *("--fresh", "--yes"),
        )


def _cut(data: bytes, name: str, max_row_bytes: int) -> tuple[Cut, bool]:
    """The elements of `data` that have their end, and whether the array has."""
    found = Structure.of(data)
    places = found.places
    over = np.flatnonzero(found.depths < 0)
    stops = places[(found.kinds == COMMA) & (found.depths == 0)]
    end = int(places[over[0]]) if len(over) else None
    if end is not None:
        if data[end : end + 1] != b"]":
            raise Stopped(f"{name}: a closing brace that nothing opened; all whole elements before are kept")
        stops = np.append(stops[stops < end], end)
    starts = np.append(np.zeros(min(len(stops), 1), np.int64), stops[:-1] + 1)
    buf = np.frombuffer(data, np.uint8)
    left = np.arange(len(starts))
    while len(left := left[(starts[left] < stops[left]) & np.isin(buf[starts[left]], list(_BLANK))]):
        starts[left] += 1
    at = int(stops[-1]) + 1 if len(stops) else 0
    if end is not None and starts[-1] == end:  # an empty array, or a comma behind the last element
        starts, stops = starts[:-1], stops[:-1]
    bad = dict.fromkeys(np.flatnonzero(starts == stops).tolist(), "nothing stands between two commas")
    for place in np.flatnonzero(stops - starts > max_row_bytes).tolist():
        bad[place] = f"too long: over export.max_row_bytes = {max_row_bytes:,} bytes"
    # No place to resume from behind the array's end: there it would look like one that breaks off.
    return Cut(data[:at], starts, stops, bad, is_open=end is not None), end is not None


def _nothing_more(data: bytes, name: str) -> None:
    if data.strip(_BLANK):
        raise Stopped(f"{name}: text behind the end of the JSON array; all its elements are kept")
