"""Bytes of a JSON array into its elements, without reading them: where each begins and ends.

Strings are told from structure by numpy over a whole chunk, so an element keeps every byte it came with.
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from loader.errors import ExportError, Stopped
from loader.export.split import Cut

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_BLANK = b" \t\r\n"
_QUOTE, _COMMA = 34, 44

#: What each byte, outside a string, adds to the depth.
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1


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
            yield Cut(data[:head], *_positions([]), {}, is_open=True)
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
    # Escapes are blanked out, so that every quote left begins or ends a string.
    buf = np.frombuffer(_ESCAPE.sub(b"__", data) if b"\\" in data else data, np.uint8)
    outside = np.cumsum(buf == _QUOTE, dtype=np.int32) % 2 == 0
    depth = np.cumsum(_STEPS[buf] * outside, dtype=np.int32)
    over = np.flatnonzero(depth < 0)
    stops = np.flatnonzero((buf == _COMMA) & outside & (depth == 0))
    end = int(over[0]) if len(over) else None
    if end is not None:
        if data[end : end + 1] != b"]":
            raise Stopped(f"{name}: a closing brace that nothing opened; all whole elements before are kept")
        stops = np.append(stops[stops < end], end)
    spans: list[tuple[int, int]] = []
    bad: dict[int, str] = {}
    at = 0
    for stop in stops.tolist():
        text = data[at:stop]
        start = at + len(text) - len(text.lstrip(_BLANK))
        at = stop + 1
        if start == stop and stop == end:
            continue  # an empty array, or a comma behind the last element
        if start == stop:
            bad[len(spans)] = "nothing stands between two commas"
        elif stop - start > max_row_bytes:
            bad[len(spans)] = f"too long: over export.max_row_bytes = {max_row_bytes:,} bytes"
        spans.append((start, stop))
    # No place to resume from behind the array's end: there it would look like one that breaks off.
    return Cut(data[:at], *_positions(spans), bad, is_open=end is not None), end is not None


def _positions(spans: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    starts, ends = zip(*spans, strict=True) if spans else ((), ())
    return np.array(starts, np.int64), np.array(ends, np.int64)


def _nothing_more(data: bytes, name: str) -> None:
    if data.strip(_BLANK):
        raise Stopped(f"{name}: text behind the end of the JSON array; all its elements are kept")
