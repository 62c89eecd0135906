"""Bytes of a delimited file into records, without reading their fields: where each record begins and ends.

A record ends at a line end outside quotes. Where quoting is well-formed the places are found by numpy over the whole
chunk (a quote's parity tells inside from outside); a chunk with anything odd in it is walked record by record with one
regular expression, which is the grammar. A row that is broken (a quote never closed, text behind a closing quote, too
long) costs that one line: reading goes on at the next.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 1 << 20

_LF, _CR, _QUOTE = 10, 13, 34


class Cut(NamedTuple):
    """Whole rows, cut off the export.

    `data` is the bytes as they came; `starts` and `ends` are where in it each row stands, line end included, blank
    lines left out; `bad` says of some rows (by position) why they are not records. `is_open`: the last line is a
    rejected row's, and goes on in the next cut.
    """

    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    bad: dict[int, str]
    is_open: bool = False

    def lines(self, rows: Iterable[int]) -> Iterator[int]:
        """How many line ends stand in the data before each of `rows`, which ascend."""
        before = lines = 0
        for at in rows:
            start = int(self.starts[at])
            lines += count_lines(self.data[before:start])
            before = start
            yield lines

    def text(self, at: int) -> bytes:
        """Row `at` as it came, without its line end."""
        return self.data[int(self.starts[at]) : int(self.ends[at])].rstrip(b"\r\n")

    def pick(self, rows: Sequence[int]) -> "Cut":
        """The same bytes, of which only some rows count, which ascend."""
        bad = {at: self.bad[row] for at, row in enumerate(rows) if row in self.bad} if self.bad else {}
        return self._replace(starts=self.starts[rows], ends=self.ends[rows], bad=bad)

    def records(self, leave_out: Collection[int]) -> bytes:
        """The rows without those left out, and nothing else."""
        if not leave_out and int((self.ends - self.starts).sum()) == len(self.data):
            return self.data
        keep = np.ones(len(self.starts), bool)
        keep[list(leave_out)] = False
        pieces = zip(self.starts[keep].tolist(), self.ends[keep].tolist(), strict=True)
        return b"".join([_ended(self.data[start:end]) for start, end in pieces])


def _ended(record: bytes) -> bytes:
    return record if record.endswith((b"\n", b"\r")) else record + b"\n"


def count_lines(data: bytes) -> int:
    """Line ends in `data`: LF, CRLF, or a lone CR."""
    buf = np.frombuffer(data, np.uint8)
    lone = data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else 0
    return int(np.count_nonzero(buf == _LF)) + lone


class Splitter:
    """Cuts a stream of bytes into `Cut`s. `quoted` False is for lines that know no quotes (NDJSON)."""

    def __init__(self, delimiter: str = ",", max_row_bytes: int = 1 << 20, *, quoted: bool = True) -> None:
        self._delimiter = ord(delimiter)
        self._quoted = quoted
        self._max = max_row_bytes
        sep = re.escape(delimiter).encode()
        closed, plain = rb'"(?:[^"]++|"")*+"', rb'[^"\r\n' + sep + rb"][^\r\n" + sep + rb"]*+"
        field = rb"(?:" + closed + rb"|" + plain + rb"|)"
        self._record = re.compile(field + rb"(?:" + sep + field + rb")*+(?:\r\n|\n|\r|\Z)")
        self._unclosed = re.compile(rb"(?:" + field + sep + rb')*+"(?:[^"]++|"")*+\Z')

    def cuts(self, chunks: Iterable[bytes]) -> Iterator[Cut]:
        """Whole rows of each chunk; what is left over goes before the next. All bytes come out, in order."""
        rest = b""
        skipping = False  # inside a line that was rejected for its length before its end was seen
        for chunk in chunks:
            data = rest + chunk
            if skipping:
                end = _line_end(data, 0)
                skipping = end is None
                if end is None:
                    end = _without_last_return(data)
                yield Cut(data[:end], _NONE, _NONE, {}, is_open=skipping)
                data = data[end:]
                if skipping:
                    rest = data
                    continue
            cut = self._cut(data, final=False)
            rest, skipping = data[len(cut.data) :], cut.is_open
            if cut.data:
                yield cut
        if rest:
            yield self._cut(rest, final=True)

    def _cut(self, data: bytes, *, final: bool) -> Cut:
        found = self._fast(data, final=final)
        if found is None:
            return self._walk(data, final=final)
        starts, ends = found
        used = int(ends[-1]) if len(ends) else 0
        if len(data) - used > self._max and not final:
            return self._walk(data, final=final)
        blank = _blank(data, starts, ends)
        if blank.any():
            starts, ends = starts[~blank], ends[~blank]
        return Cut(data[:used], starts, ends, {})

    def _fast(self, data: bytes, *, final: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Where records begin and end, or None if something is odd and the rows have to be walked."""
        buf = np.frombuffer(data, np.uint8)
        newlines = np.flatnonzero(buf == _LF)
        if b"\r" in data:
            returns = np.flatnonzero(buf == _CR)
            follow = np.append(buf, _LF if not final else 0)[returns + 1]  # at the very end: LF may still come
            newlines = np.sort(np.concatenate([newlines, returns[follow != _LF]]))
        if self._quoted and b'"' in data:
            quotes = np.flatnonzero(buf == _QUOTE)
            if not self._well_formed(buf, quotes) or (final and len(quotes) % 2):
                return None
            newlines = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
        ends = newlines + 1
        if final and (len(ends) == 0 or ends[-1] < len(data)):
            ends = np.append(ends, len(data))
        starts = np.concatenate([_ZERO, ends[:-1]]) if len(ends) else _NONE
        if len(ends) and int((ends - starts).max()) > self._max:
            return None
        return starts, ends

    def _well_formed(self, buf: NDArray[np.uint8], quotes: NDArray[np.int64]) -> bool:
        """Does every quote that opens stand at a field's start, and every one that closes at a field's end?"""
        edges = (self._delimiter, _LF, _CR, _QUOTE)
        opens, closes = quotes[0::2], quotes[1::2]
        before = buf[opens[opens > 0] - 1]
        behind = buf[closes[closes < len(buf) - 1] + 1]
        return bool(np.isin(before, edges).all() and np.isin(behind, edges).all())

    def _walk(self, data: bytes, *, final: bool) -> Cut:
        """The same, one row at a time."""
        starts: list[int] = []
        ends: list[int] = []
        bad: dict[int, str] = {}
        at = 0
        is_open = False
        while at < len(data):
            end, reason = self._row(data, at, final=final)
            if end is None and reason:  # a line longer than the limit, and its end is not in sight
                end, is_open = (len(data), False) if final else (_without_last_return(data), True)
            if end is None:
                break
            if reason:
                bad[len(starts)] = reason
            if reason or data[at:end].strip(b"\r\n"):
                starts.append(at)
                ends.append(end)
            at = end
        return Cut(data[:at], np.array(starts, np.int64), np.array(ends, np.int64), bad, is_open)

    def _row(self, data: bytes, at: int, *, final: bool) -> tuple[int | None, str]:
        """The end of the row at `at` and what is wrong with it; (None, "") if more bytes are needed to tell.

        A row is judged by no more bytes than it may have, and one, so that it is judged alike however they arrive.
        """
        stop = min(len(data), at + self._max + 1)
        is_over = stop - at > self._max
        end = self._end(data, at, stop)
        if end is not None and end - at <= self._max and (end < stop or data[end - 1] == _LF or final):
            return end, ""
        may_go_on = end is not None or self._unclosed.match(data, at, stop) is not None
        if may_go_on and not is_over and not final:
            return None, ""
        line_end = _line_end(data, at)
        if line_end is None and final:
            line_end = len(data)
        if (line_end or len(data)) - at > self._max:
            return line_end, f"too long: over export.max_row_bytes = {self._max:,} bytes"
        if line_end is None:
            return None, ""  # broken for certain, but its line has not ended yet
        if may_go_on and is_over:
            return line_end, f"a quote is opened and not closed within export.max_row_bytes = {self._max:,} bytes"
        if may_go_on or self._unclosed.match(data[at:line_end].rstrip(b"\r\n")):
            return line_end, "a quote is opened in this row and never closed"
        return line_end, "text behind a closing quote"

    def _end(self, data: bytes, at: int, stop: int) -> int | None:
        """The end of the record at `at`, or `stop` if there is none before; None if it can't be a record."""
        if not self._quoted:
            return min(_line_end(data, at) or stop, stop)
        match = self._record.match(data, at, stop)
        return match.end() if match else None


_ZERO = np.zeros(1, np.int64)
_NONE = np.empty(0, np.int64)


def _line_end(data: bytes, at: int) -> int | None:
    """The place behind the first line end from `at` on; None if there is none for certain."""
    newline = data.find(b"\n", at)
    stop = newline if newline >= 0 else len(data)
    lone = data.find(b"\r", at, stop)
    if 0 <= lone < stop - 1:
        return lone + 1
    return newline + 1 if newline >= 0 else None


def _without_last_return(data: bytes) -> int:
    """The length of `data` without a CR at its end, which may be half a line end."""
    return len(data) - data.endswith(b"\r")


def _blank(data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows with nothing before their line end (of one byte, or CRLF)."""
    sizes = ends - starts
    if sizes.min(initial=3) > len(b"\r\n"):
        return np.zeros(len(starts), bool)
    blank: NDArray[np.bool_] = sizes == 1
    if blank.any():  # the last row of a file may be one byte without a line end
        buf = np.frombuffer(data, np.uint8)
        blank &= np.isin(buf[np.minimum(starts, len(data) - 1)], (_LF, _CR))
    if b"\r" in data and b"\r\n" in data:  # one byte is found ten times as fast as two
        buf = np.frombuffer(data, np.uint8)
        pair = sizes == 2
        pair[pair] = (buf[starts[pair]] == _CR) & (buf[starts[pair] + 1] == _LF)
        blank |= pair
    return blank
