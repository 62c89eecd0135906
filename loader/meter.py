"""One snapshot a second of a load, for whoever watches it, and what of them is kept in the checkpoint."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

import anyio
import msgspec

from loader.checkpoint import Retrying
from loader.lane import Lane
from loader.outcome import GOOD
from loader.progress import Tally
from loader.snapshot import Brake, Found, Note, Snapshot, Trouble, Wire
from loader.tempo.quota import Pace
from loader.tempo.traffic import Traffic

#: Of so many moments, a quarter of a second apart, the most frequent reason for the pace counts.
_MOMENTS = 40
_SAMPLES_A_BEAT, _SAMPLE_S = 4, 0.25

#: "Now" is so many snapshots, a second apart.
_RECENT = 10

#: The time left is told by the pace of the later half of the run, of so many seconds at least and at most: so it
#: follows what changes, and does not jump with every batch.
_PACE_S, _PACE_MOST_S = 30.0, 300
#: What is told comes nearer to that within some such time.
_STEADY_S = 10.0
#: In the first moments of a run nobody knows.
_UNKNOWN_S = 2.0
#: Nor while a quota that nobody declared is being found: all at once is followed by nothing for a minute, and that by
#: a first guess. Of one in hours too little would ever be told; so it is for no longer than this.
_FINDING_S = 300.0

#: Of a run, each second's snapshot is kept for this long, and then ever fewer: some 3,000 of twelve hours.
_DENSE_S = 600.0


class Meter:
    """How fast this run is, and how much of it is left. `position`: bytes of the export, of `size`, settled by now.

    `found`: what is known of the target, with the brake of this moment; `at_once`: how many requests may be on the
    wire now. `paces`: how the quotas are kept. `retrying`: the run is of a retry. `wall`: Unix time.
    """

    def __init__(
        self,
        tally: Tally,
        size: int,
        position: Callable[[], int],
        lane: Lane,
        traffic: Traffic,
        found: Callable[[], Found] = Found,
        at_once: Callable[[], int] = lambda: 1,
        paces: Sequence[Pace] = (),
        retrying: Retrying | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._tally = tally
        self._size = size
        self._position = position
        self._lane = lane
        self._traffic = traffic
        self._look = found
        self._at_once = at_once
        self._paces = paces
        self._again, self._kept = retrying or (0, {})
        self._wall = wall
        self._brakes: deque[Brake | None] = deque(maxlen=_MOMENTS)
        self._start = lane.now()
        self._first_rows, self._first_sent = tally.rows, tally.sent
        self._recent = deque([(self._start, tally.rows, tally.sent)], maxlen=_PACE_MOST_S + 1)
        self._told: tuple[float, float] | None = None  # the time left, and when that was told
        self._finding_at: float | None = None  # since when the pace is being found
        self._held_at = -math.inf  # when it last was to be waited for, for long
        self._paced_at = self._start  # since when what is settled tells of the pace
        self._last: Snapshot | None = None  # not kept yet
        self._next_moment_s = 0.0

    def sample(self) -> None:
        """Take note of what the load waits for at this moment."""
        self._brakes.append(self._look().brake)

    def snapshot(self, *, is_last: bool = False) -> Snapshot:
        """The load at this moment; the last one of this run."""
        now, rows = self._lane.now(), self._tally.rows
        elapsed = max(now - self._start, 1e-9)
        share = self._share()
        wire = self._traffic.look()
        self._recent.append((now, rows, self._tally.sent))
        reason = self._lane.reason
        found = self._found(now)
        trouble = self._trouble(now)
        is_down = trouble is not None and trouble.kind == "down"
        is_known = share and elapsed > _UNKNOWN_S and not found.is_guess and not is_down
        self._last = Snapshot(
            self._wall(),
            rows,
            dict(self._tally.counts),
            share,
            (rows - self._first_rows) / elapsed,
            self._pace(_RECENT)[0],
            elapsed,
            self._steady(now, self._left_s(share, now, wire, found) if share and is_known else None),
            wire,
            self._at_once(),
            max(self._lane.waits_s, 0.0),
            tuple(self._tally.failed),
            str(reason) if reason else "",
            found,
            self._first_rows,
            is_last,
            self._tally.sent - self._first_sent,
            self._pace(_RECENT)[1],
            tuple(sorted(self._tally.good - GOOD)),
            self._again,
            self._kept,
            trouble,
        )
        return self._last

    def note(self) -> Note | None:
        """What the checkpoint is to keep at this moment; None: nothing new."""
        last, self._last = self._last, None
        if last is None:
            return None
        is_moment = last.elapsed_s >= self._next_moment_s
        if is_moment:
            self._next_moment_s = last.elapsed_s + max(1.0, last.elapsed_s / _DENSE_S) - _SAMPLE_S
        return Note(last, is_moment)

    def end(self) -> Note:
        """The same at the end of the run."""
        return Note(self.snapshot(is_last=True), is_moment=True)

    async def beat(self, watch: Callable[[Snapshot], None]) -> None:
        """Tell `watch` once a second, until cancelled."""
        while True:
            for _ in range(_SAMPLES_A_BEAT):
                await anyio.sleep(_SAMPLE_S)
                self.sample()
            watch(self.snapshot())

    def _share(self) -> float | None:
        """How much is done: of the export's bytes, or of the rows that are sent again."""
        if self._again:
            return (self._tally.rows - sum(self._kept.values())) / self._again
        return self._position() / self._size if self._size else None

    def _trouble(self, now: float) -> Trouble | None:
        """Why nothing goes on, by the clock on the wall."""
        if (found := self._lane.trouble) is None:
            return None
        wall = self._wall() - now
        return Trouble(
            found.kind,
            found.reason,
            wall + found.since,
            None if math.isinf(found.gives_up_at) else wall + found.gives_up_at,
            self._lane.held_for_s() if found.kind == "pause" else None,
        )

    def _pace(self, seconds: float) -> tuple[float, float]:
        """Rows, and users sent, a second, over the last so many."""
        now, rows, sent = self._recent[-1]
        since, rows_then, sent_then = next(seen for seen in self._recent if seen[0] >= now - seconds - _SAMPLE_S)
        lasted_s = max(now - since, 1e-9)
        return (rows - rows_then) / lasted_s, (sent - sent_then) / lasted_s

    def _left_s(self, share: float, now: float, wire: Wire, found: Found) -> float | None:
        """By the pace of late, but no sooner than the quotas allow; by a quota that was just found alone.

        Where the target asks for long pauses, they are a part of the pace, with what is left of the one that is on.
        """
        rows = self._tally.rows
        left = (rows - sum(self._kept.values())) * (1 - share) / share
        if not left:
            return 0.0
        done = max(rows - self._first_rows, 1)
        paced_s = now - self._paced_at
        if paced_s < _STEADY_S and self._paced_at > self._start and found.requests_per_s:
            return left * (wire.requests - wire.on_wire - wire.refused) / done / found.requests_per_s
        held_s = max(self._lane.waits_s, 0.0)
        if held_s > _STEADY_S:
            self._held_at = now
        is_steady = now - self._held_at > _PACE_MOST_S
        over_s = min(max(paced_s / 2, _PACE_S) if is_steady else paced_s, paced_s, _PACE_MOST_S)
        pace = self._pace(over_s)[0] * over_s / (over_s + held_s)
        if not pace:
            return None
        each = {
            "requests": (wire.requests - wire.on_wire) / done,
            "carriers": (wire.requests - wire.on_wire) / done,
            "users": (self._tally.sent - self._first_sent) / done,
        }
        return max([held_s + left / pace, *(left * each[quota.unit] / quota.per_s for quota in self._paces)])

    def _steady(self, now: float, left_s: float | None) -> float | None:
        """The time left so that it doesn't jump: what was told before, less the time since, and a part of the news."""
        if left_s is not None and left_s > 0 and self._told is not None:
            since, before = now - self._told[1], self._told[0] - (now - self._told[1])
            left_s = max(before + (left_s - before) * min(since / _STEADY_S, 1.0), 0.0)
        self._told = None if left_s is None else (left_s, now)
        return left_s

    def _found(self, now: float) -> Found:
        """What is known of the target, with what the load waited for most of late."""
        ((brake, _),) = Counter(self._brakes).most_common(1) or [(None, 0)]
        found = self._look()
        if found.is_guess and self._finding_at is None:
            self._finding_at = now
        elif not found.is_guess and self._finding_at is not None:
            self._finding_at, self._paced_at = None, now
        is_guess = self._finding_at is not None and now - self._finding_at < _FINDING_S
        return msgspec.structs.replace(found, brake=brake, is_guess=is_guess)
