"""What every format does alike: number the rows, put broken ones aside, drop those settled before, chain the hash."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from loader.errors import Stopped
from loader.export.split import Cut, count_lines
from loader.mapping import Mapped, Problem, Values
from loader.outcome import Outcome, Settled
from loader.record import Mark, Rows
from loader.span import SpanSet


class Read(NamedTuple):
    """Rows as keys and values. `positions`: where each stands among the rows that were cut off, in ascending order.

    `strangers`: the keys, as far as they can be told, of rows that are too broken to stand among the others.
    """

    positions: NDArray[np.int64]
    values: Values
    strangers: Sequence[str] = ()


class Unit(NamedTuple):
    """Rows that are cut off and not read yet: so many, the first numbered `first`. Any thread may `read`."""

    first: int
    rows: int
    read: Callable[[], Read]


#: Which of so many rows, from the one with this number on, are wanted: their positions, or None for all.
Wanted = Callable[[int, int], NDArray[np.int64] | None]


class Reader(Protocol):
    """One file of a format."""

    def units(self, place: "Place", wanted: Wanted) -> Iterator[Unit]:
        """The whole file, at whose beginning `place` is, as units, of which `wanted` rows are read."""
        ...

    def blocks(self, place: "Place", settled: SpanSet) -> Iterator[Rows]:
        """Blocks of rows from `place` on, without the rows settled before. Raises ExportError, Stopped."""
        ...

    def columns(self) -> list[str] | None:
        """The names of the file's columns, or None where each row has its own. Raises ExportError."""
        ...


def hash_from(digest: str) -> xxhash.xxh3_128:
    """The hash of the bytes behind a mark with `digest`: chained, it is the hash of all that was read.

    It tells an export that changed from one that was copied, and nobody forges those: so the quickest there is, 0.08 ns
    a byte, where SHA-256 takes 0.6 even in processors that have it built in.
    """
    return xxhash.xxh3_128(digest.encode())


class Place:
    """Where reading stands, from a mark on: the next row's number, the bytes and lines before it.

    `known`: marks of this very export by row; what stands before one of them is not hashed again.
    `marks`: those that are behind it. `is_marking` False: none are made. `is_hashing` False: there are none, or they
    don't tell of what was read.
    """

    def __init__(self, start: Mark, known: Mapping[int, Mark] | None = None, *, is_marking: bool = True) -> None:
        self.row, self.offset, self.line, digest, self.file, self.after = start
        self.marks: list[Mark] = []
        self._known = known or {}
        self._is_marking = is_marking
        self.is_hashing = is_marking and all(mark.digest for mark in self._known.values())
        self._hash = hash_from(digest)
        self._marked = start.row

    @property
    def is_at_start(self) -> bool:
        """Is this the beginning of a file, where its header stands?"""
        return self.offset == 0

    def begin(self, file: int) -> None:
        """Go to the beginning of another file; rows and hash go on."""
        self.file, self.offset, self.line = file, 0, 1

    def move_rows(self, rows: int, data: bytes | memoryview | None, after: str = "") -> Mark | None:
        """Go behind so many rows without lines, whose content is `data`. `after`: the key of the last of them.

        None: nobody has looked yet, and marks from here on tell where reading can go on, but not of what.
        """
        self.row += rows
        self.offset += rows
        self.after = after
        if data is None:
            self.is_hashing = False
        else:
            self._add(data)
        return self._mark()

    def move(self, data: bytes, rows: int = 0, *, is_open: bool = False) -> Mark | None:
        """Go behind `data`. A mark, if reading could begin there: at the end of a row, and not yet marked."""
        self.row += rows
        self.offset += len(data)
        self.line += count_lines(data)
        self._add(data)
        return None if is_open else self._mark()

    def _add(self, data: bytes | memoryview) -> None:
        if self.is_hashing and (self.row == self._marked or self.row not in self._known):
            self._hash.update(data)

    def _mark(self) -> Mark | None:
        if self.row == self._marked or not self._is_marking:
            return None
        mark = self._known.get(self.row)
        if mark is None:
            digest = self._hash.hexdigest() if self.is_hashing else ""
            mark = Mark(self.row, self.offset, self.line, digest, self.file, self.after)
        self._hash, self._marked = hash_from(mark.digest), mark.row
        self.marks.append(mark)
        return mark


def refuse_cut_off(cut: Cut, place: Place, named: Callable[[int], str], wrong: Callable[[Cut], str]) -> None:
    """Raise Stopped if the file ends within the last row of `cut`: with no line end, and broken.

    `wrong` says what is wrong with a cut of one row, "" if nothing is. `place`: before the cut. A file that was cut off
    looks like this; one that was cut off at a line's end, or within its last field, looks like a whole one.
    """
    if not len(cut.starts) or cut.data.endswith((b"\n", b"\r")):
        return
    last = len(cut.starts) - 1
    if reason := wrong(cut.pick([last])):
        raise Stopped(
            f"{named(place.line + next(cut.lines([last])))} breaks off: the last row has no line end, and is broken "
            f"({reason}). Get the whole file again, or mend that row if there is no more"
        )


def unsettled(cut: Cut, place: Place, settled: SpanSet) -> tuple[Cut, Sequence[int]]:
    """The rows of a cut that are not settled, and their numbers: of the others nothing but the bytes is needed."""
    numbers = range(place.row, place.row + len(cut.starts))
    if not settled.overlaps(place.row, place.row + len(cut.starts) - 1):
        return cut, numbers
    left = settled.rest(place.row, place.row + len(cut.starts) - 1)
    return cut.pick([number - place.row for number in left]), left


def assemble(
    cut: Cut,
    part: Cut,
    numbers: Sequence[int],
    bad: dict[int, Problem],
    mapped: Mapped,
    place: Place,
    named: Callable[[int], str],
) -> Rows:
    """The rows of one cut, and `place` moves behind them. `part`: those that aren't settled, with their `numbers`.

    `bad` by position among these, `mapped` the others. Every message gets the physical line, as it is `named`.
    """
    line = place.line
    end = place.move(cut.data, len(cut.starts), is_open=cut.is_open)
    positions = [at for at in range(len(numbers)) if at not in bad] if bad else range(len(numbers))
    aside = []
    problems = bad | {positions[at]: problem for at, problem in mapped.problems.items()}
    if problems:
        ordered = sorted(problems)
        for at, before in zip(ordered, part.lines(ordered), strict=True):
            problem = problems[at]
            where = f"{named(line + before)}: "
            aside.append(Settled(numbers[at], problem.user, Outcome(problem.code, where + problem.reason)))
    if bad:
        numbers = [numbers[at] for at in positions]
    return rows_without(mapped.problems, numbers, mapped, aside, end)


def rows_without(
    drop: Collection[int], numbers: Sequence[int], mapped: Mapped, aside: list[Settled], end: Mark | None
) -> Rows:
    """A block of mapped rows, but for those at the positions `drop`."""
    users, records = mapped.users, mapped.records
    if drop:
        numbers = [number for at, number in enumerate(numbers) if at not in drop]
        users = [user for at, user in enumerate(users) if at not in drop]
        records = records.without(drop)
    return Rows(numbers, users, records, aside, end)
