"""An export into digests: its rows, read by two processes and put aside by their users' digests.

Both read the export from end to end, as where a row begins can't be told without what stands before it. That is a tenth
of the work: of the units that are cut off each parses and hashes the next that nobody has taken. So nothing has to go
from one to the other but these turns and, at the end, what is where in the files.
"""

import fcntl
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loader.errors import Asked, ExportError, Stopped
from loader.export import Export, Place
from loader.export.rows import Wanted
from loader.mapping import RowMapping, Values
from loader.mapping.texts import Texts
from loader.record import Mark
from loader.refresh.digest import Digester, Digests, finish, nothing
from loader.refresh.spill import KeyBlock, KeyFile, Run, Spill, Stored, Table, nameless
from loader.refresh.worker import Worker

#: An export of fewer bytes is read before another process has begun.
_SHARED_BYTES = 64 << 20

_THREADS = 2

#: The word of a row: its number, and in the upper 16 bits the set of its attributes.
SET_AT = np.uint64(48)
ROW = np.uint64((1 << 48) - 1)

#: No attribute has a value. · Too many sets to be told apart: any attribute. · A row that is never sent.
EMPTY, ANY, INVALID = 0, 0xFFFE, 0xFFFF

_MOST_NAMES = 0xFFFF

#: The most that glibc can be taught to keep.
_KEPT_BYTES = 31 << 20
_T = TypeVar("_T")


class Sets:
    """The attributes that rows have, as sets with a number each. `names` and `known` are from the night before."""

    def __init__(self, names: Iterable[str] = (), known: Iterable[Sequence[int]] = ((),)) -> None:
        self.names = list(names)
        self._places = {name: at for at, name in enumerate(self.names)}
        self.sets = [frozenset(each) for each in known]
        self._numbers = {each: number for number, each in enumerate(self.sets)}
        self._lock = Lock()

    def place(self, name: str) -> int:
        """The number of an attribute."""
        with self._lock:
            found = self._places.setdefault(name, len(self.names))
            if found == len(self.names):
                self.names.append(name)
        if found >= _MOST_NAMES:
            raise ExportError(f"the export has more than {_MOST_NAMES:,} attributes; mapping.attributes picks those")
        return found

    def number(self, places: frozenset[int]) -> int:
        """The number of a set."""
        with self._lock:
            found = self._numbers.get(places)
            if found is None:
                if len(self.sets) >= ANY:
                    return ANY
                found = self._numbers[places] = len(self.sets)
                self.sets.append(places)
        return found

    def numbers(self, columns: Sequence[tuple[int, NDArray[np.int64] | None, Texts]], rows: int) -> NDArray[np.uint64]:
        """The number of each row's set, from columns: the attribute's place, which rows (None: all), their values."""
        if not rows:
            return np.empty(0, np.uint64)
        words = max((place for place, *_ in columns), default=0) // 64 + 1
        masks = np.zeros((rows, words), np.uint64)
        for place, own, values in columns:
            word, bit = masks[:, place // 64], np.uint64(1 << place % 64)
            if own is not None:
                word[own] |= bit
            elif values.is_sent is None:
                word |= bit
            else:
                word |= bit * values.is_sent.astype(np.uint64)
        if words == 1:
            found, which = masks[:1, 0], None
            if not bool((masks[:, 0] == found).all()):
                found, which = np.unique(masks[:, 0], return_inverse=True)
        else:
            found, which = np.unique(masks, axis=0, return_inverse=True)
        numbers = np.array([self.number(_places(mask)) for mask in found.reshape(-1, words)], np.uint64)
        return np.full(rows, numbers[0]) if which is None else numbers[which.reshape(-1)]

    def numbers_of(self, names: Iterable[str], sets: Iterable[Iterable[int]]) -> NDArray[np.uint64] | None:
        """The numbers here of the sets that another has, by their numbers there; None: they are the same."""
        places = [self.place(name) for name in names]
        found = np.arange(INVALID + 1, dtype=np.uint64)
        for number, each in enumerate(sets):
            found[number] = self.number(frozenset(places[place] for place in each))
        return None if bool((found == np.arange(len(found))).all()) else found

    def union(self, first: int, second: int) -> int:
        """The set that has what either has."""
        if first == second or second == EMPTY:
            return first
        return ANY if ANY in (first, second) else self.number(self.sets[first] | self.sets[second])

    def without(self, first: int, second: int) -> list[str]:
        """The names that the first set has and the second has not."""
        places = range(len(self.names)) if first == ANY else self.sets[first]
        known: Iterable[int] = places if second == ANY else self.sets[second]
        return sorted(self.names[place] for place in set(places) - set(known))


def _places(mask: NDArray[np.uint64]) -> frozenset[int]:
    return frozenset(at + 64 * word for word, bits in enumerate(mask.tolist()) for at in range(64) if bits >> at & 1)


class Turns:
    """The numbers of units, from 0 on: each is given to one of the processes that have the file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        handle = self.file.fileno()
        fcntl.lockf(handle, fcntl.LOCK_EX)  # of this process: it goes with it, should it be killed
        try:
            number = int.from_bytes(os.pread(handle, 8, 0), "little")
            os.pwrite(handle, (number + 1).to_bytes(8, "little"), 0)
        finally:
            fcntl.lockf(handle, fcntl.LOCK_UN)
        return number


class _Files(NamedTuple):
    """Where one process puts rows aside."""

    spill: Spill
    keys: KeyFile


class _Seen(NamedTuple):
    """How many rows an export has, and a hash of where its units end: who shares them must have seen the same ones."""

    rows: int
    ends: bytes


class _Done(NamedTuple):
    """What a process has put aside: what it saw, which units it took."""

    seen: _Seen
    units: frozenset[int]


class _Handed(NamedTuple):
    """What another process tells of it: what is in its files, and its sets."""

    done: _Done
    runs: list[Run]
    stored: list[Stored]
    names: list[str]
    sets: list[list[int]]


class Lines:
    """For each row of an export a line: key, values, its word and, if `is_placed`, its key's place. And the keys."""

    def __init__(self, folder: Path, keys: BinaryIO, *, is_placed: bool) -> None:
        self.columns = 6 if is_placed else 5
        self.turns = Turns(nameless(folder))
        self.own = _Files(Spill(nameless(folder), self.columns), KeyFile(keys, nameless(folder)))
        self.other = _Files(Spill(nameless(folder), self.columns), KeyFile(nameless(folder), nameless(folder)))
        self._numbers: NDArray[np.uint64] | None = None
        self._moved = np.uint64(0)

    @property
    def keys(self) -> KeyFile:
        return self.own.keys

    @property
    def handles(self) -> list[int]:
        """The files of the other process."""
        return [file.fileno() for file in (self.turns.file, self.other.spill.file, *self.other.keys.files)]

    def take(self, found: _Handed, sets: Sets) -> None:
        """Take what the other process put into its files. Raises OSError."""
        self.other.spill.runs = found.runs
        self._numbers = sets.numbers_of(found.names, found.sets)
        if self.columns == 6:  # they are to be kept, in one file
            self._moved = self.keys.take(self.other.keys, found.stored)
        else:
            self.other.keys.stored = found.stored

    def key_blocks(self) -> list[Callable[[], KeyBlock]]:
        """The keys of all rows, in order of row, a block at a time. Raise OSError."""
        found = [(stored, keys) for _, keys in (self.own, self.other) for stored in keys.stored]
        return [partial(keys.block, stored) for stored, keys in sorted(found, key=itemgetter(0))]

    def partition(self, number: int) -> Table:
        """The lines of one partition, in no order. Raises OSError."""
        own, other = self.own.spill, self.other.spill
        found = np.empty((own.size(number) + other.size(number), self.columns), np.uint64)
        mine, theirs = np.split(found, [own.size(number)])
        own.read(number, mine)
        other.read(number, theirs)
        if self._numbers is not None:
            words = theirs[:, 4]
            words[:] = (words & ROW) | (self._numbers[(words >> SET_AT).astype(np.intp)] << SET_AT)
        if self.columns == 6:
            theirs[:, 5] += np.where(theirs[:, 5] > 0, self._moved, np.uint64(0))
        return found

    def close(self) -> None:
        """Give the room on the disk back."""
        self.turns.file.close()
        for spill, keys in (self.own, self.other):
            spill.close()
            keys.close()


def scan(
    export: Export, mapping: RowMapping, digester: Digester, sets: Sets, lines: Lines, watch: Callable[[int], None]
) -> tuple[int, list[Mark]]:
    """Put a line aside for each row, and its key.

    Returns how many rows there are, and the export's marks, as far as it has any without being mapped. Raises
    ExportError if the export can't be read to its end, and OSError.
    """
    place, own = Place(Mark()), lines.own
    if not _is_shared(export):
        seen, _ = _put_aside(export, mapping, digester, sets, own, place, watch, count())
    else:
        task = (export, mapping, digester, sets.names, [sorted(each) for each in sets.sets], lines.handles)
        with Worker(_second, (*task, lines.columns), lines.handles) as worker:
            seen, units = _put_aside(export, mapping, digester, sets, own, place, watch, lines.turns)
            found = worker.answer()
        if found is None:  # it was killed, or had no room: then all is done here, and who can't do it says why
            left = (number for number in count() if number not in units)
            other, _ = _put_aside(export, mapping, digester, sets, own, _unmarked(), _unwatched, left)
        else:
            other = found.done.seen
            lines.take(found, sets)
        if other != seen:
            raise ExportError(f"{export} changed while it was read; nothing was sent")
    own.spill.finish()
    return seen.rows, place.marks


def _is_shared(export: Export) -> bool:
    """Is it worth another process? Only files of this machine can be read twice at a time for nothing."""
    is_here = len(export.paths) > 0 and all(isinstance(path, Path) for path in export.paths)
    return _cores() > 1 and is_here and export.fingerprint().size >= _SHARED_BYTES


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _second(
    export: Export,
    mapping: RowMapping,
    digester: Digester,
    names: list[str],
    known: list[list[int]],
    handles: Sequence[int],
    columns: int,
) -> _Handed:
    """The other process's share, into files that it was given."""
    turns, spilled, *keys = (open(handle, "r+b", buffering=0, closefd=False) for handle in handles)  # noqa: SIM115
    sets, files = Sets(names, known), _Files(Spill(spilled, columns), KeyFile(*keys))
    done = _put_aside(export, mapping, digester, sets, files, _unmarked(), _unwatched, Turns(turns))
    files.spill.finish()
    return _Handed(done, files.spill.runs, files.keys.stored, sets.names, [sorted(each) for each in sets.sets])


def _unmarked() -> Place:
    return Place(Mark(), is_marking=False)


def _unwatched(_rows: int) -> None:
    pass


def _put_aside(
    export: Export,
    mapping: RowMapping,
    digester: Digester,
    sets: Sets,
    files: _Files,
    place: Place,
    watch: Callable[[int], None],
    turns: Iterator[int],
) -> _Done:
    """Put the rows of the units aside whose `turns` it is. Raises as scan() does."""
    _keep_memory()
    spill, rows, ends = files.spill, 0, hashlib.sha256()
    own, turn = set(), next(turns)
    with unbroken():
        for at, unit in enumerate(export.units(mapping, place)):
            rows = unit.first + unit.rows - 1
            ends.update(rows.to_bytes(8, "little"))
            if at != turn:
                continue
            own.add(at)
            turn = next(turns)
            positions, values, strangers = unit.read()
            numbers = unit.first + positions
            found = np.empty((len(numbers), spill.columns), np.uint64)
            found[:, :2] = digester.keys(values.keys if values.texts is None else values.texts)
            found[:, 2:4], of_rows = _digested(values, digester, sets)
            of_rows[values.invalid] = INVALID
            found[:, 4] = numbers.astype(np.uint64) | (of_rows << SET_AT)
            places = files.keys.add(numbers, values.keys)
            if spill.columns == 6:
                found[:, 5] = places
            spill.add(found)
            if len(strangers):
                odd = np.zeros((len(strangers), spill.columns), np.uint64)
                odd[:, :2] = digester.keys(pa.array([_plain(user) for user in strangers], pa.string()))
                odd[:, 4] = np.uint64(INVALID) << SET_AT
                spill.add(odd)
            watch(rows)
    return _Done(_Seen(rows, ends.digest()), frozenset(own))


def _digested(values: Values, digester: Digester, sets: Sets) -> tuple[Digests, NDArray[np.uint64]]:
    """The digest of each row's values, and the number of its set."""
    sums, columns = nothing(len(values.keys)), []
    for name, column in values.columns.items():
        texts = Texts.of(column.values)
        columns.append((sets.place(name), column.rows, texts))
        part = digester.attribute(name, texts)
        if column.rows is None:
            sums += part
        else:
            sums[:, column.rows] += part
    return finish(sums), sets.numbers(columns, len(values.keys))


def scan_cells(
    export: Export, mapping: RowMapping, digester: Digester, sets: Sets, spill: Spill, place: Place, wanted: Wanted
) -> None:
    """Put aside a line for each value of the rows that are wanted: key, row and attribute, and the value's sums.

    `place`: the export's beginning.

    Raises as scan() does.
    """
    with unbroken():
        for unit in export.units(mapping, place, wanted):
            positions, values, _ = unit.read()
            keys = digester.keys(values.keys)
            numbers = (unit.first + positions).astype(np.uint64)
            is_valid = np.ones(len(numbers), bool)
            is_valid[values.invalid] = False
            for name, column in values.columns.items():
                texts = Texts.of(column.values)
                rows, own = _own(column.rows, texts, is_valid)
                words = numbers[rows] | np.uint64(sets.place(name) << int(SET_AT))
                spill.add(np.column_stack([keys[rows], words, digester.attribute(name, texts).T[own]]))


@contextmanager
def unbroken() -> Iterator[None]:
    """Around what reads an export to its end: it may not break off, unless that is wanted."""
    try:
        yield
    except Asked:
        raise
    except Stopped as error:
        reason = str(error).partition(";")[0]
        raise ExportError(f"{reason}; nothing was sent, as what is missing can't be told from what has gone") from error


def _keep_memory() -> None:
    """Have memory that is given back kept for the next array, for as long as the process lasts.

    glibc gives pieces of more than 128 KiB back to the system, until it has seen a larger one come and go. Where arrays
    are made and left by the thousand, to get their pages anew each time takes longer than all that is done with them.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def _own(
    rows: NDArray[np.int64] | None, values: Texts, is_valid: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The valid rows that have a value, and which of the column's values these are."""
    rows = np.arange(len(is_valid)) if rows is None else rows
    is_own = is_valid[rows] if values.is_sent is None else is_valid[rows] & values.is_sent
    own = np.flatnonzero(is_own)
    return rows[own], own


def _plain(user: str) -> str:
    return user.encode("utf-8", "replace").decode()


def in_order(work: Callable[[int], _T], count: int) -> Iterator[_T]:
    """What `work` makes of 0, 1, …, on other threads, in order, a few ahead."""
    waiting: deque[Future[_T]] = deque()
    with ThreadPoolExecutor(_THREADS, "compare") as pool:
        try:
            for number in range(count):
                waiting.append(pool.submit(work, number))
                if len(waiting) > _THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


__all__ = ["ANY", "EMPTY", "INVALID", "ROW", "SET_AT", "Lines", "Sets", "in_order", "scan", "scan_cells"]
