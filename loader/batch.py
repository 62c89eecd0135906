"""Rows into batches: as full as the limits allow, and never two rows of one user out of order.

The common case (nobody twice, nobody in flight) costs three set operations a batch, and the batch is a piece of the
block that was read. Only a batch in which a user comes again is walked row by row: a row of a user in the same batch is
merged into it, a row of a user in flight is held back until that user's answer is durable. Held-back rows of one user
are merged too, so a hot key costs one record.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from loader.record import Frame, Records, Rows

#: Rows held back at most; reading waits when there are more. They are merged, so this bounds row numbers, not records.
MAX_HELD_ROWS = 50_000


@dataclass(slots=True)
class Batch:
    """Users settled together, each once. The three lists go together, in order of dispatch.

    `merged`: for a row that earlier rows of the same user were merged into, those rows' numbers.
    """

    numbers: Sequence[int]
    users: Sequence[str]
    records: Sequence[bytes]
    merged: dict[int, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.users)

    def part(self, first: int, last: int) -> "Batch":
        """The users `first` to `last`, exclusive, as a batch to send. Merged rows stay with the whole."""
        return Batch(self.numbers[first:last], self.users[first:last], self.records[first:last])

    def pick(self, positions: Sequence[int]) -> "Batch":
        """The users at `positions`, with the rows merged into theirs."""
        numbers = [self.numbers[at] for at in positions]
        return Batch(
            numbers,
            [self.users[at] for at in positions],
            [self.records[at] for at in positions],
            {row: self.merged[row] for row in numbers if row in self.merged},
        )


class BatchLimits(NamedTuple):
    """How large a request may be: users, and bytes of its body, uncompressed."""

    users: int
    body_bytes: int


@dataclass(slots=True)
class _Entry:
    """One record on its way into a batch: the row it counts as, and the rows merged into it."""

    row: int
    user: str
    record: bytes
    merged: list[int]

    def absorb(self, row: int, joined: bytes) -> None:
        """A later row of the user joins this one: it counts from now on."""
        self.merged.append(self.row)
        self.row = row
        self.record = joined


class _Run(NamedTuple):
    """Rows that wait, in order: a block that was read, or what is left of it."""

    numbers: Sequence[int]
    users: list[str]
    records: Records

    def part(self, first: int, last: int) -> "_Run":
        return _Run(self.numbers[first:last], self.users[first:last], self.records[first:last])


class Batcher:
    """Cuts mapped rows into batches and keeps the order of each user's rows.

    `feed` takes rows, `next` gives a batch or None ("not yet"), `release` says that a batch's outcomes are durable.
    `rows_are_users` False: equal keys say nothing, so nothing is merged or held back.
    """

    def __init__(
        self, frame: Frame, limits: BatchLimits, *, replace: bool = False, rows_are_users: bool = True
    ) -> None:
        self._frame = frame
        self._limits = limits
        self._replace = replace
        self._rows_are_users = rows_are_users
        self._runs: deque[_Run] = deque()
        self._at = 0  # in the first run
        self._waiting = 0  # rows, in all runs
        self._busy: set[str] = set()  # users in flight or held back
        self._held: dict[str, deque[_Entry]] = {}
        self._ready: deque[str] = deque()  # users whose first held entry may go now
        self._held_rows = 0

    @property
    def is_full(self) -> bool:
        """Too many rows are held back: nothing more should be fed until a batch is released."""
        return self._held_rows >= MAX_HELD_ROWS

    @property
    def is_empty(self) -> bool:
        """Neither rows waiting nor rows held back."""
        return not self._waiting and not self._held

    def feed(self, rows: Rows) -> None:
        """Take the records of one block, in order of row."""
        if rows.users:
            records = rows.records if isinstance(rows.records, Records) else Records.of(rows.records)
            self._runs.append(_Run(rows.numbers, rows.users, records))
            self._waiting += len(rows.users)

    def next(self, limits: BatchLimits | None = None, *, final: bool = False) -> Batch | None:
        """The next batch: a full one, or with `final` whatever is left. None: nothing to send for now.

        `limits` below those given at the start hold for this batch, as when the target turned out to take less.
        """
        limits = limits or self._limits
        if not self._ready:
            count = self._fitting(limits)
            if count == 0 or (count == self._waiting and count < limits.users and not final):
                return None
            run = self._runs[0].part(self._at, self._at + count)
            if not self._rows_are_users or self._are_free(run.users):
                self._pass(count)
                return Batch(*run)
        elif self._waiting < limits.users - len(self._ready) and not final:
            return None
        return self._walk(limits)

    def release(self, batch: Batch) -> None:
        """The outcomes of `batch` are durable: rows of its users that were held back may go."""
        if not self._held:
            self._busy.difference_update(batch.users)
            return
        for user in batch.users:
            if user in self._held:
                self._ready.append(user)
            else:
                self._busy.discard(user)

    def _are_free(self, users: list[str]) -> bool:
        """Is each of them there once, and nowhere else? Then they are busy from now on."""
        before = len(self._busy)
        if not self._busy.isdisjoint(users):
            return False
        self._busy.update(users)
        if len(self._busy) - before == len(users):
            return True
        self._busy.difference_update(users)
        return False

    def _fitting(self, limits: BatchLimits) -> int:
        """How many of the rows that wait fit into one request, at least one; they are in one run then."""
        if len(self._runs) > 1 and len(self._runs[0].users) - self._at < limits.users:
            self._splice(limits.users)
        if not self._runs:
            return 0
        run, at = self._runs[0], self._at
        count = min(limits.users, len(run.users) - at)
        sizes = run.records[at : at + count]

        def body_bytes(n: int) -> int:
            return self._frame.body_bytes(n, sizes.n_bytes(n))

        if body_bytes(count) <= limits.body_bytes:
            return count
        return max(bisect_right(range(1, count + 1), limits.body_bytes, key=body_bytes), 1)

    def _splice(self, count: int) -> None:
        """Put the first `count` rows that wait, which stand in several runs, into one."""
        numbers, users, records = list[int](), list[str](), list[Records]()
        while self._runs and len(users) < count:
            run = self._runs.popleft()
            last = min(self._at + count - len(users), len(run.users))
            numbers += run.numbers[self._at : last]
            users += run.users[self._at : last]
            records.append(run.records[self._at : last])
            self._at = 0
            if last < len(run.users):
                self._runs.appendleft(run.part(last, len(run.users)))
        self._runs.appendleft(_Run(numbers, users, Records.chained(records)))

    def _pass(self, count: int) -> None:
        """So many rows of the first run wait no more."""
        self._at += count
        self._waiting -= count
        if self._at == len(self._runs[0].users):
            self._runs.popleft()
            self._at = 0

    def _walk(self, limits: BatchLimits) -> Batch | None:
        """A batch by row, for when users come again: ready entries first, then waiting rows, until it is full."""
        chosen: dict[str, _Entry] = {}
        size = 0

        def fits(record: bytes, instead_of: bytes = b"") -> bool:
            count = len(chosen) + (0 if instead_of else 1)
            after = size + len(record) - len(instead_of)
            return count <= limits.users and self._frame.body_bytes(count, after) <= limits.body_bytes

        while self._ready:
            user = self._ready[0]
            entry = self._held[user][0]
            if chosen and not fits(entry.record):
                break
            self._ready.popleft()
            self._unhold(user)
            chosen[user] = entry
            size += len(entry.record)
        while self._waiting and len(chosen) <= limits.users:
            run, at = self._runs[0], self._at
            row, user, record = run.numbers[at], run.users[at], run.records[at]
            before = chosen.get(user)
            if before is not None and user not in self._held:
                joined = self._join(user, before.record, record)
                if not fits(joined, before.record):
                    break
                size += len(joined) - len(before.record)
                before.absorb(row, joined)
            elif user in self._busy:
                self._hold(row, user, record)
            elif not chosen or fits(record):
                chosen[user] = _Entry(row, user, record, [])
                size += len(record)
                # Not yet in `busy`: while the batch is open, a later row of the user is merged, not held.
            else:
                break
            self._pass(1)
            if self.is_full:
                break
        self._busy.update(chosen)
        if not chosen:
            return None
        entries = list(chosen.values())
        return Batch(
            [entry.row for entry in entries],
            [entry.user for entry in entries],
            [entry.record for entry in entries],
            {entry.row: entry.merged for entry in entries if entry.merged},
        )

    def _join(self, user: str, earlier: bytes, later: bytes) -> bytes:
        return later if self._replace else self._frame.merge(user, earlier, later)

    def _hold(self, row: int, user: str, record: bytes) -> None:
        self._held_rows += 1
        queue = self._held.setdefault(user, deque())
        # The first entry of a user that is ready may be merged into as well: it is not in a batch yet.
        if queue:
            last = queue[-1]
            joined = self._join(user, last.record, record)
            if self._frame.body_bytes(1, len(joined)) <= self._limits.body_bytes:
                last.absorb(row, joined)
                return
        queue.append(_Entry(row, user, record, []))

    def _unhold(self, user: str) -> None:
        queue = self._held[user]
        self._held_rows -= 1 + len(queue.popleft().merged)
        if not queue:
            del self._held[user]
