"""Tonight's export against the state: who is unchanged, new, changed or gone, and the state that sending begins with.

Partition by partition, so that memory is bounded. All rows of a user count together: their values are put together
first, as the target would have them in the end, and then compared.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loader.errors import CheckpointError
from loader.export import Export, Place
from loader.mapping import RowMapping
from loader.record import Mark
from loader.refresh.digest import Digester, finish
from loader.refresh.scan import EMPTY, INVALID, ROW, SET_AT, Lines, Sets, in_order, scan, scan_cells
from loader.refresh.spill import PARTITIONS, KeyBlock, Spill, Table, key_at, nameless, private
from loader.refresh.state import (
    ACKED,
    CLEARED,
    KEY,
    MARKS,
    MISSING,
    PLACE,
    TAKEN,
    VALUES,
    VALUES_2,
    Draft,
    State,
    held_of,
    marks_of,
    names_of,
)

#: So many users of a kind are kept to be shown.
_SHOWN = 10

_CELL = 7  # columns of a spilled value: key (2), row and attribute, sums (4)


class Gone(NamedTuple):
    """Attributes that a user has no more; `row` 0: the user is gone."""

    row: int
    user: str
    names: list[str]


@dataclass
class Counts:
    """Users by what became of them. `again`: known, and last night's outcome was no success (or nobody knows it).

    `missing` are gone since the last export, `gone_before` since an earlier one; `known` is what `missing` is a part
    of. `uncleared`: those gone before who are cleared only now. `removed`: users who are there and lack an attribute
    that they had. `unnamed`: gone, and nobody kept their keys.
    """

    rows: int = 0
    unchanged_rows: int = 0
    users: int = 0
    unchanged: int = 0
    new: int = 0
    changed: int = 0
    again: int = 0
    known: int = 0
    missing: int = 0
    gone_before: int = 0
    uncleared: int = 0
    removed: int = 0
    unnamed: int = 0

    @property
    def to_send(self) -> int:
        """Users of the export who are sent."""
        return self.new + self.changed + self.again

    def add(self, other: "Counts") -> None:
        """Those of another part."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Found:
    """What a comparison found. `unchanged`: by row, from 0; `samples`: rows of each kind, to be shown.

    `marks`: of the export, as scan() has them.
    """

    counts: Counts
    marks: list[Mark]
    unchanged: NDArray[np.bool_]
    samples: dict[str, list[int]]
    _gone: BinaryIO = field(repr=False)

    def gone(self) -> Iterator[Gone]:
        """Users and attributes that are gone, users last."""
        self._gone.seek(0)
        for is_user in (False, True):
            self._gone.seek(0)
            for line in self._gone:
                found = Gone(*json.loads(line))
                if (found.row == 0) == is_user:
                    yield found


class Comparison:
    """One comparison, with its files: use as a context manager.

    `before` None: nothing is known, and all users are new. `is_full`: all are sent, whatever they were. `is_named`:
    keys are kept, so that those who are gone can be told. `are_values_known` False: those before were mapped in another
    way, and only who was there is known. `clears`: what is gone is to be removed at the target.
    """

    def __init__(
        self,
        path: Path,
        before: State | None,
        secret: bytes,
        *,
        is_full: bool = False,
        is_named: bool = False,
        are_values_known: bool = True,
        clears: bool = False,
        is_replaced: bool = False,
        key_path: Path | None = None,
    ) -> None:
        self._path = path
        self.key_path = key_path
        self._before = before
        self._is_full = is_full
        self._is_named = is_named
        self.are_values_known = are_values_known
        self._clears = clears
        self._is_replaced = is_replaced
        self._digester = Digester(secret)
        self._lock = Lock()
        self._cells: Spill | None = None
        about = before.about if before is not None else None
        self.sets = Sets(about.names, about.sets) if about is not None else Sets()
        folder = path.parent
        try:
            keys = nameless(folder) if key_path is None else private(key_path)
            self._lines = Lines(folder, keys, is_placed=is_named)
            self._gone: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # __exit__ closes it
            old = before.key_path if before is not None else None
            self._old_keys = old.open("rb", buffering=0) if old is not None and old.exists() else None
        except OSError as error:
            raise self._told(error) from error
        self.draft = Draft(path, 6 if is_named else 5)

    def __enter__(self) -> "Comparison":
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._lines, self._cells, self._gone, self._old_keys, self.draft):
            if each is not None:
                each.close()
        if self.key_path is not None and not self.draft.is_in_place:
            self.key_path.unlink(missing_ok=True)

    def key_blocks(self) -> list[Callable[[], KeyBlock]]:
        """The users' keys, in order of row, a block at a time."""
        return self._lines.key_blocks()

    def run(self, export: Export, mapping: RowMapping, watch: Callable[[int], None]) -> Found:
        """Read the export and compare; the new state is drafted. Raises ExportError, CheckpointError."""
        try:
            rows, marks = scan(export, mapping, self._digester, self.sets, self._lines, watch)
            try:
                found = self._all(rows, marks, None)
            except _SeveralRows:
                cells = self._merge(export, mapping, rows, marks)
                self.draft.begin()
                self._gone.truncate(0)
                self._gone.seek(0)
                found = self._all(rows, marks, cells)
            if self.key_path is not None:
                self._lines.keys.sync()
        except OSError as error:
            raise self._told(error) from error
        return found

    def _all(self, rows: int, marks: list[Mark], cells: Spill | None) -> Found:
        """All partitions, in order. Raises _SeveralRows, at the first user who has several, if `cells` are needed."""
        found = Found(Counts(rows=rows), marks, np.zeros(rows, bool), {}, self._gone)
        for part in in_order(lambda number: self._compare(number, cells), PARTITIONS):
            found.counts.add(part.counts)
            found.unchanged[part.unchanged] = True
            for kind, rows_ in part.samples.items():
                known = found.samples.setdefault(kind, [])
                known += rows_[: _SHOWN - len(known)]
            for gone in part.gone:
                self._gone.write(json.dumps(gone).encode() + b"\n")
            self.draft.add(part.entries)
        found.counts.unchanged_rows = int(found.unchanged.sum())
        return found

    def _told(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"can't compare with {self._path}: {error.strerror or error}; it takes some 150 bytes a row in the folder "
            f"{self._path.parent}, and refresh.state can put it elsewhere"
        )

    # Users with several rows

    def _merge(self, export: Export, mapping: RowMapping, rows: int, marks: list[Mark]) -> Spill:
        """The values of all rows whose users have others, put aside cell by cell."""
        wanted = np.zeros(rows, bool)
        for found in in_order(self._again, PARTITIONS):
            wanted[found] = True
        cells = self._cells = Spill(nameless(self._path.parent), _CELL)

        def picked(first: int, count: int) -> NDArray[np.int64]:
            return np.flatnonzero(wanted[first - 1 : first - 1 + count])

        place = Place(Mark(), {mark.row: mark for mark in marks})
        scan_cells(export, mapping, self._digester, self.sets, cells, place, picked)
        cells.finish()
        return cells

    def _again(self, number: int) -> NDArray[np.int64]:
        """The rows of one partition, from 0, whose users have several."""
        rows = self._lines.partition(number)
        users = _group(rows[_is_valid(rows)])
        several = np.repeat(users.sizes > 1, users.sizes)
        return _places(users.rows[several, 4:5])

    def _values(self, number: int, users: "_Users", cells: Spill | None) -> Table:
        """The digest of each user's values: of several rows, as the target has them in the end."""
        values: Table = users.last[:, 2:4]  # written to below where rows are joined: then it is a copy
        if self._is_replaced or not (users.sizes > 1).any():
            return values
        if cells is None:
            raise _SeveralRows
        found = cells.partition(number)
        name = found[:, 2] >> SET_AT
        order = np.lexsort((found[:, 2] & ROW, name, found[:, 1], found[:, 0]))
        found, name = found[order], name[order]
        is_user = np.ones(len(found), bool)  # where another begins
        is_user[1:] = (found[1:, 0] != found[:-1, 0]) | (found[1:, 1] != found[:-1, 1])
        is_last = np.ones(len(found), bool)  # of one attribute of one user
        is_last[:-1] = is_user[1:] | (name[1:] != name[:-1])
        user = np.cumsum(is_user) - 1
        found, user = found[is_last], user[is_last]
        if not len(found):
            return values
        begins = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
        sums = np.add.reduceat(found[:, 3:], begins, axis=0)
        digests = finish(np.ascontiguousarray(sums.T))
        several = np.flatnonzero(users.sizes > 1)
        at, is_found = match(users.keys[several], found[begins, :2])
        values[several[is_found]] = digests[at[is_found]]
        return values

    def _names(self, users: "_Users") -> NDArray[np.uint64]:
        """The set of attributes of each user: those of all rows together."""
        sets: NDArray[np.uint64] = users.rows[:, 4] >> SET_AT
        if users.are_single:
            return sets
        names: NDArray[np.uint64] = sets[users.starts + users.sizes - 1]
        if not self._is_replaced:
            lowest, highest = np.minimum.reduceat(sets, users.starts), np.maximum.reduceat(sets, users.starts)
            for at in np.flatnonzero(lowest != highest).tolist():
                whole = EMPTY
                for each in sets[users.starts[at] : users.starts[at] + users.sizes[at]].tolist():
                    whole = self.sets.union(whole, each)
                names[at] = whole
        return names

    # One partition

    def _compare(self, number: int, cells: Spill | None) -> "_Part":
        rows = self._lines.partition(number)
        is_valid = _is_valid(rows)
        users = _group(rows if is_valid.all() else rows[is_valid])
        old = self._before.partition(number) if self._before is not None else np.empty((0, 5), np.uint64)
        part = _Part(Counts(users=len(users.keys)), entries=np.empty((0, self._columns), np.uint64))
        if not len(rows) and not len(old):  # most are, of a small export
            return part
        at, is_known = match(users.keys, old[:, :2])
        others = rows[~is_valid]  # broken, or without a value: who has only these is there, but not compared
        others = others[np.argsort(others[:, 4] & ROW, kind="stable")]
        left = self._left(np.delete(old, at[is_known], axis=0), others, part)
        mine = self._mine(users, self._values(number, users, cells), old, at, is_known, part)
        part.entries = mine
        if len(left):
            entries = np.concatenate([mine, left])
            part.entries = entries.take(np.argsort(entries[:, KEY]), axis=0)
        return part

    def _mine(
        self,
        users: "_Users",
        values: Table,
        old: Table,
        at: NDArray[np.int64],
        is_known: NDArray[np.bool_],
        part: "_Part",
    ) -> Table:
        """The entries of users who have rows that can be compared."""
        counts, last, names = part.counts, users.last, self._names(users)
        known = old.take(at, axis=0) if len(old) else np.zeros((len(at), 5), np.uint64)
        marks = np.where(is_known, known[:, MARKS], np.uint64(0))
        if not self.are_values_known:
            marks &= TAKEN | MISSING | CLEARED
        is_acked = (marks & ACKED) > 0
        is_same = is_acked & (known[:, VALUES] == values[:, 0]) & (known[:, VALUES_2] == values[:, 1])
        is_sent = ~is_same | self._is_full
        kinds = {"new": ~is_known, "changed": is_acked & ~is_same, "again": is_known & is_sent & (is_same | ~is_acked)}
        for kind, which in kinds.items():
            setattr(counts, kind, int(which.sum()))
            part.samples[kind] = (last[np.flatnonzero(which)[:_SHOWN], 4] & ROW).astype(int).tolist()
        counts.unchanged = int((~is_sent).sum())
        counts.known += int(((marks & (TAKEN | MISSING)) == TAKEN).sum())
        is_left = ~is_sent if users.are_single else np.repeat(~is_sent, users.sizes)
        part.unchanged = _places(users.rows[:, 4:5][is_left])

        held = np.where(is_known, held_of(marks), names)
        if self._is_named:
            had = held if self._clears else np.where(marks & TAKEN > 0, names_of(marks), names)
            for who in np.flatnonzero(is_sent & (had != names)).tolist():
                if lost := self.sets.without(int(had[who]), int(names[who])):
                    part.gone.append(Gone(int(last[who, 4] & ROW), self._lines.keys.key(int(last[who, 5])), lost))
                    counts.removed += 1
        for who in np.flatnonzero(is_sent & (held != names)).tolist():
            held[who] = self.sets.union(int(held[who]), int(names[who]))
        mine = np.zeros((len(at), self._columns), np.uint64)
        mine[:, :2], mine[:, 2:4] = users.keys, values
        flags = (marks & TAKEN) | np.where(is_sent, np.uint64(0), ACKED)
        mine[:, MARKS] = marks_of(flags, users.sizes.astype(np.uint64), names, held)
        if self._is_named:
            mine[:, PLACE] = last[:, 5]
        return mine

    def _left(self, old: Table, others: Table, part: "_Part") -> Table:
        """The entries of users who have no row that can be compared, as they were but for the marks."""
        counts = part.counts
        marks = old[:, MARKS]
        is_taken, was_missing = (marks & TAKEN) > 0, (marks & MISSING) > 0
        is_there = np.zeros(len(old), bool)
        at, is_found = match(others[:, :2], old[:, :2])
        is_there[at[is_found]] = True
        is_new = is_taken & ~is_there & ~was_missing
        counts.known += int((is_taken & ~was_missing).sum())
        counts.missing += int(is_new.sum())
        counts.gone_before += int((is_taken & ~is_there & was_missing).sum())
        # Who was never acknowledged is forgotten, and so is who is gone and has been cleared.
        keep = is_there | (is_taken & ((marks & CLEARED) == 0))
        left = np.zeros((len(old), self._columns), np.uint64)
        width = min(self._columns, old.shape[1])
        left[:, :width] = old[:, :width]
        left[:, MARKS] = np.where(is_there, marks & ~(MISSING | CLEARED), marks | MISSING)
        if self._is_full:
            left[:, MARKS] &= ~ACKED
        if self._is_named:
            emptied = {
                int(place): row
                for place, row in zip(at[is_found], others[is_found], strict=True)
                if row[4] >> SET_AT == EMPTY
            }
            for who in np.flatnonzero(keep).tolist():
                self._tell(
                    who, left[who], emptied.get(who), is_gone=not is_there[who], is_new=bool(is_new[who]), part=part
                )
        kept: Table = left[keep]
        return kept

    def _tell(
        self,
        who: int,
        entry: NDArray[np.uint64],
        emptied: NDArray[np.uint64] | None,
        *,
        is_gone: bool,
        is_new: bool,
        part: "_Part",
    ) -> None:
        """Take the key of somebody who can't be compared along, and tell what is gone."""
        user = self._key(int(entry[PLACE]))
        entry[PLACE] = 0
        if user is None:
            part.counts.unnamed += is_gone
            return
        with self._lock:
            entry[PLACE] = self._lines.keys.append(user.encode())
        had = self.sets.without(int(held_of(entry[MARKS]) if self._clears else names_of(entry[MARKS])), EMPTY)
        if is_gone and (is_new or self._clears):
            part.gone.append(Gone(0, user, had))
            part.counts.uncleared += not is_new and bool(had)
        elif emptied is not None and had and entry[MARKS] & TAKEN:
            part.counts.removed += 1
            part.gone.append(Gone(int(emptied[4] & ROW), user, had))
        else:
            return
        if self._clears and is_gone:
            entry[MARKS] &= ~ACKED  # that goes on the wire, too
        elif self._clears:  # and if that is acknowledged, so is a user without values
            entry[VALUES] = entry[VALUES_2] = 0
            entry[MARKS] = marks_of(TAKEN, np.uint64(1), np.uint64(EMPTY), held_of(entry[MARKS]))

    def _key(self, place: int) -> str | None:
        if self._old_keys is None or not place:
            return None
        return key_at(self._old_keys.fileno(), place)

    @property
    def _columns(self) -> int:
        return 6 if self._is_named else 5


class _SeveralRows(Exception):
    """A user has several rows, whose values have to be put together first."""


@dataclass
class _Part:
    """What was found in one partition."""

    counts: Counts
    unchanged: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    samples: dict[str, list[int]] = field(default_factory=dict)
    gone: list[Gone] = field(default_factory=list)
    entries: Table = field(default_factory=lambda: np.empty((0, 5), np.uint64))


class _Users(NamedTuple):
    """Rows in order of user and row; where those of each user begin, and how many they are."""

    rows: Table
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @property
    def are_single(self) -> bool:
        """Has each user one row? Then rows and users are the same, and nothing is copied."""
        return len(self.starts) == len(self.rows)

    @property
    def keys(self) -> Table:
        if self.are_single:
            return self.rows[:, :2]
        found: Table = self.rows[self.starts, :2]
        return found

    @property
    def last(self) -> Table:
        """Each user's last row."""
        if self.are_single:
            return self.rows
        found: Table = self.rows[self.starts + self.sizes - 1]
        return found


def _is_valid(rows: Table) -> NDArray[np.bool_]:
    sets = rows[:, 4] >> SET_AT
    found: NDArray[np.bool_] = (sets != INVALID) & (sets != EMPTY)
    return found


def _places(rows: Table) -> NDArray[np.int64]:
    """The rows' numbers, from 0."""
    return (rows[:, -1] & ROW).astype(np.int64) - 1


def _group(rows: Table) -> _Users:
    """The rows by user."""
    order = np.argsort(rows[:, 0])
    first = rows[order, 0]
    if not (first[1:] == first[:-1]).any():
        return _Users(rows.take(order, axis=0), np.arange(len(rows)), np.ones(len(rows), np.int64))
    # Several of one user, or, once in a thousand years, of two.
    rows = rows.take(np.lexsort((rows[:, 4] & ROW, rows[:, 1], rows[:, 0])), axis=0)
    begins = np.ones(len(rows), bool)
    begins[1:] = (rows[1:, 0] != rows[:-1, 0]) | (rows[1:, 1] != rows[:-1, 1])
    starts = np.flatnonzero(begins)
    return _Users(rows, starts, np.diff(np.append(starts, len(rows))))


def match(keys: Table, known: Table) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each of `keys` stands in `known`, which ascends by its first column, and whether it does."""
    if not len(known):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(known[:, 0], keys[:, 0]), len(known) - 1)
    is_first = known[at, 0] == keys[:, 0]
    is_found = is_first & (known[at, 1] == keys[:, 1])
    for odd in np.flatnonzero(is_first & ~is_found).tolist():  # behind others that begin alike
        place = int(at[odd])
        while place < len(known) and known[place, 0] == keys[odd, 0]:
            if known[place, 1] == keys[odd, 1]:
                at[odd], is_found[odd] = place, True
                break
            place += 1
    return at, is_found
