"""What every format does alike: number the rows, put broken ones aside, drop those settled before, chain the hash."""

import hashlib
from collections.abc import Iterator
from typing import Protocol

from loader.export.split import Cut, count_lines
from loader.mapping import Mapped, Problem
from loader.outcome import Outcome, Settled
from loader.record import Mark, Rows
from loader.span import SpanSet


class Reader(Protocol):
    """One file of a format."""

    def blocks(self, place: "Place", settled: SpanSet) -> Iterator[Rows]:
        """Blocks of rows from `place` on, without the rows settled before. Raises ExportError, Stopped."""
        ...

    def columns(self) -> list[str] | None:
        """The names of the file's columns, or None where each row has its own. Raises ExportError."""
        ...


def hash_from(digest: str) -> "hashlib.blake2b":
    """The hash of the bytes behind a mark with `digest`: chained, it is the hash of all that was read."""
    return hashlib.blake2b(key=digest.encode(), digest_size=16)


class Place:
    """Where reading stands, from a mark on: the next row's number, the bytes and lines before it."""

    def __init__(self, start: Mark) -> None:
        self.row, self.offset, self.line, digest, self.file = start
        self._hash = hash_from(digest)
        self._marked = start.row

    @property
    def is_at_start(self) -> bool:
        """Is this the beginning of a file, where its header stands?"""
        return self.offset == 0

    def begin(self, file: int) -> None:
        """Go to the beginning of another file; rows and hash go on."""
        self.file, self.offset, self.line = file, 0, 1

    def move_rows(self, rows: int, data: bytes) -> Mark | None:
        """Go behind so many rows of a file without lines, whose content is `data`."""
        self.row += rows
        self.offset += rows
        self._hash.update(data)
        return self._mark()

    def move(self, data: bytes, rows: int = 0, *, is_open: bool = False) -> Mark | None:
        """Go behind `data`. A mark, if reading could begin there: at the end of a row, and not yet marked."""
        self.row += rows
        self.offset += len(data)
        self.line += count_lines(data)
        self._hash.update(data)
        return None if is_open else self._mark()

    def _mark(self) -> Mark | None:
        if self.row == self._marked:
            return None
        mark = Mark(self.row, self.offset, self.line, self._hash.hexdigest(), self.file)
        self._hash, self._marked = hash_from(mark.digest), mark.row
        return mark


def assemble(cut: Cut, bad: dict[int, Problem], mapped: Mapped, place: Place, name: str, settled: SpanSet) -> Rows:
    """The rows of one cut, and `place` moves behind them: `bad` by position among all rows, `mapped` the others.

    Every message gets the file's name and the physical line.
    """
    count = len(cut.starts)
    first, line = place.row, place.line
    end = place.move(cut.data, count, is_open=cut.is_open)
    positions = [at for at in range(count) if at not in bad] if bad else range(count)
    numbers = [first + at for at in positions] if bad else list(range(first, first + count))
    users, records, aside = mapped.users, mapped.records, []
    problems = bad | {positions[at]: problem for at, problem in mapped.problems.items()}
    if problems:
        ordered = sorted(problems)
        for at, before in zip(ordered, cut.lines(ordered), strict=True):
            problem = problems[at]
            where = f"{name} line {line + before}: "
            aside.append(Settled(first + at, problem.user, Outcome(problem.code, where + problem.reason)))
    drop = set(mapped.problems)
    if settled.overlaps(first, first + count - 1):
        drop |= {at for at, number in enumerate(numbers) if number in settled}
        aside = [item for item in aside if item.row not in settled]
    if drop:
        keep = [at for at in range(len(numbers)) if at not in drop]
        numbers = [numbers[at] for at in keep]
        users = [users[at] for at in keep]
        records = [records[at] for at in keep]
    return Rows(numbers, users, records, aside, end)
