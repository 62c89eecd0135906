"""An export into digests: its rows, read by several threads and put aside by their users' digests."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loader.digest import Digester, finish, nothing
from loader.errors import ExportError, Stopped
from loader.export import Export, Place
from loader.export.rows import Unit, Wanted
from loader.mapping import Column, RowMapping, Values
from loader.record import Mark
from loader.spill import KeyFile, Spill, Table

#: Two, as most of the work is done outside of Python's lock, and the rest is not worth more.
_THREADS = 2
_AHEAD = 4

#: The word of a row: its number, and in the upper 16 bits the set of its attributes.
SET_AT = np.uint64(48)
ROW = np.uint64((1 << 48) - 1)

#: No attribute has a value. · Too many sets to be told apart: any attribute. · A row that is never sent.
EMPTY, ANY, INVALID = 0, 0xFFFE, 0xFFFF

_MOST_NAMES = 0xFFFF

#: The most that glibc can be taught to keep.
_KEPT_BYTES = 31 << 20
_T = TypeVar("_T")
_R = TypeVar("_R")


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

    def numbers(self, columns: Sequence[tuple[int, Column]], rows: int) -> NDArray[np.uint64]:
        """The number of each row's set, from the columns that have a place each."""
        if not rows:
            return np.empty(0, np.uint64)
        words = max((place for place, _ in columns), default=0) // 64 + 1
        masks = np.zeros((rows, words), np.uint64)
        for place, column in columns:
            word, bit = masks[:, place // 64], np.uint64(1 << place % 64)
            if column.rows is not None:
                word[column.rows] |= bit
            elif not column.values.null_count:
                word |= bit
            else:
                word |= bit * column.values.is_valid().to_numpy(zero_copy_only=False).astype(np.uint64)
        if words == 1 and bool((masks == masks[0]).all()):
            return np.full(rows, self.number(_places(masks[0])), np.uint64)
        found, which = np.unique(masks, axis=0, return_inverse=True)
        numbers = np.array([self.number(_places(mask)) for mask in found], np.uint64)
        return numbers[which.reshape(-1)]

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


class _Digested(NamedTuple):
    numbers: NDArray[np.int64]
    users: pa.StringArray
    invalid: NDArray[np.int64]
    keys: Table  # two columns
    values: Table  # of rows two columns, of cells the rest
    sets: NDArray[np.uint64]
    strangers: Table


def scan(
    export: Export,
    mapping: RowMapping,
    digester: Digester,
    sets: Sets,
    spill: Spill,
    keys: KeyFile,
    watch: Callable[[int], None],
    *,
    is_placed: bool,
) -> tuple[int, list[Mark]]:
    """Put aside a line for each row: key, values, its number and its set, and if `is_placed` its key's place in `keys`.

    Returns how many rows there are, and the export's marks, as far as it has any without being mapped. Raises
    ExportError if the export can't be read to its end, and OSError.
    """

    def digested(unit: Unit) -> _Digested:
        read = unit.read()
        values = read.values
        sums = nothing(len(values.keys))
        columns = [(sets.place(name), column) for name, column in values.columns.items()]
        for name, column in values.columns.items():
            part = digester.attribute(name, column.values)
            if column.rows is None:
                sums += part
            else:
                sums[:, column.rows] += part
        strangers = digester.keys(pa.array([_plain(user) for user in read.strangers], pa.string()))
        return _Digested(
            unit.first + read.positions,
            values.keys,
            values.invalid,
            digester.keys(values.keys),
            finish(sums),
            sets.numbers(columns, len(values.keys)),
            strangers,
        )

    _keep_memory()
    rows, place = 0, Place(Mark())
    for unit, found in _each(export.units(mapping, place), digested):
        rows = unit.first + unit.rows - 1
        found.sets[found.invalid] = INVALID
        words = found.numbers.astype(np.uint64) | (found.sets << SET_AT)
        places = keys.add(found.numbers, found.users)
        lines = np.empty((len(words), 6 if is_placed else 5), np.uint64)
        lines[:, :2], lines[:, 2:4], lines[:, 4] = found.keys, found.values, words
        if is_placed:
            lines[:, 5] = places
        spill.add(lines)
        if len(found.strangers):
            odd = np.zeros((len(found.strangers), lines.shape[1]), np.uint64)
            odd[:, :2], odd[:, 4] = found.strangers, np.uint64(INVALID) << SET_AT
            spill.add(odd)
        watch(rows)
    return rows, place.marks


def scan_cells(
    export: Export, mapping: RowMapping, digester: Digester, sets: Sets, spill: Spill, place: Place, wanted: Wanted
) -> None:
    """Put aside a line for each value of the rows that are wanted: key, row and attribute, and the value's sums.

    `place`: the export's beginning.

    Raises as scan() does.
    """

    def digested(unit: Unit) -> list[Table]:
        read = unit.read()
        values = read.values
        keys = digester.keys(values.keys)
        numbers = (unit.first + read.positions).astype(np.uint64)
        is_valid = np.ones(len(numbers), bool)
        is_valid[values.invalid] = False
        return [
            np.column_stack([keys[rows], numbers[rows] | np.uint64(sets.place(name) << int(SET_AT)), sums.T[own]])
            for name, column in values.columns.items()
            for sums in [digester.attribute(name, column.values)]
            for rows, own in [_own(column, is_valid)]
        ]

    for _, found in _each(export.units(mapping, place, wanted), digested):
        for part in found:
            spill.add(np.ascontiguousarray(part))


def _keep_memory() -> None:
    """Have memory that is given back kept for the next array, for as long as the process lasts.

    glibc gives pieces of more than 128 KiB back to the system, until it has seen a larger one come and go. Where arrays
    are made and left by the thousand, to get their pages anew each time takes longer than all that is done with them.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def _own(column: Column, is_valid: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The valid rows that have a value, and which of the column's values these are."""
    has = column.values.is_valid().to_numpy(zero_copy_only=False)
    rows = np.arange(len(is_valid)) if column.rows is None else column.rows
    own = np.flatnonzero(has & is_valid[rows])
    return rows[own], own


def _plain(user: str) -> str:
    return user.encode("utf-8", "replace").decode()


def _each(units: Iterator[Unit], work: Callable[[Unit], _R]) -> Iterator[tuple[Unit, _R]]:
    """Each unit with what `work` makes of it on another thread, in order, a few ahead."""
    waiting: deque[tuple[Unit, Future[_R]]] = deque()
    with ThreadPoolExecutor(_THREADS, "scan") as pool:
        try:
            for unit in units:
                waiting.append((unit, pool.submit(work, unit)))
                if len(waiting) > _AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        except Stopped as error:
            reason = str(error).partition(";")[0]
            raise ExportError(
                f"{reason}; nothing was sent, as what is missing can't be told from what has gone"
            ) from error
        finally:
            for _, future in waiting:
                future.cancel()


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


__all__ = ["ANY", "EMPTY", "INVALID", "ROW", "SET_AT", "Sets", "Values", "in_order", "scan", "scan_cells"]
