"""Rows into batches: as full as the limits allow, and never two rows of one user out of order.

The common case (nobody twice, nobody in flight) costs two set operations a batch. Only a batch in which a user comes
again is walked row by row: a row of a user in the same batch is merged into it, a row of a user in flight is held back
until that user's answer is durable. Held-back rows of one user are merged too, so a hot key costs one record.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from typing import NamedTuple

from loader.record import Frame, Rows

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
        """The users at `positions` as a batch to send."""
        return Batch(
            [self.numbers[at] for at in positions],
            [self.users[at] for at in positions],
            [self.records[at] for at in positions],
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
        self._numbers: list[int] = []
        self._users: list[str] = []
        self._records: list[bytes] = []
        self._at = 0
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
        return self._at == len(self._users) and not self._held

    def feed(self, rows: Rows) -> None:
        """Take the records of one block, in order of row."""
        self._numbers = self._numbers[self._at :] + rows.numbers
        self._users = self._users[self._at :] + rows.users
        self._records = self._records[self._at :] + rows.records
        self._at = 0

    def next(self, limits: BatchLimits | None = None, *, final: bool = False) -> Batch | None:
        """The next batch: a full one, or with `final` whatever is left. None: nothing to send for now.

        `limits` below those given at the start hold for this batch, as when the target turned out to take less.
        """
        limits = limits or self._limits
        waiting = len(self._users) - self._at
        if not self._ready:
            if waiting == 0 or (waiting < limits.users and not final and not self._fills_bytes(limits)):
                return None
            last = self._slice_end(limits)
            users = self._users[self._at : last]
            unique = set(users)
            if not self._rows_are_users or (len(unique) == len(users) and self._busy.isdisjoint(unique)):
                batch = Batch(self._numbers[self._at : last], users, self._records[self._at : last])
                self._at = last
                self._busy |= unique
                return batch
        elif waiting < limits.users - len(self._ready) and not final:
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

    def _slice_end(self, limits: BatchLimits) -> int:
        """The end of the longest run of waiting rows that fits, at least one."""
        last = min(self._at + limits.users, len(self._users))
        sizes = list(map(len, self._records[self._at : last]))
        if self._frame.body_bytes(len(sizes), sum(sizes)) <= limits.body_bytes:
            return last
        totals = enumerate(accumulate(sizes), 1)
        fitting = sum(1 for _ in takewhile(lambda nt: self._frame.body_bytes(*nt) <= limits.body_bytes, totals))
        return self._at + max(fitting, 1)

    def _fills_bytes(self, limits: BatchLimits) -> bool:
        return self._slice_end(limits) < len(self._users)

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
        while self._at < len(self._users) and len(chosen) <= limits.users:
            row, user, record = self._numbers[self._at], self._users[self._at], self._records[self._at]
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
            self._at += 1
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
