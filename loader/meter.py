"""One snapshot a second of a load, for whoever watches it, and what of them is kept in the checkpoint."""

import time
from collections import Counter, deque
from collections.abc import Callable

import anyio
import msgspec

from loader.lane import Lane
from loader.progress import Tally
from loader.snapshot import Brake, Found, Note, Snapshot
from loader.traffic import Traffic

#: Of so many moments, a quarter of a second apart, the most frequent reason for the pace counts.
_MOMENTS = 40
_SAMPLES_A_BEAT, _SAMPLE_S = 4, 0.25

#: "Now" is so many snapshots, a second apart.
_RECENT = 10

#: Of a run, each second's snapshot is kept for this long, and then ever fewer: some 3,000 of twelve hours.
_DENSE_S = 600.0


class Meter:
    """How fast this run is, and how much of it is left. `position`: bytes of the export, of `size`, settled by now.

    `found`: what is known of the target, with the brake of this moment; `at_once`: how many requests may be on the
    wire now. `wall`: Unix time.
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
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._tally = tally
        self._size = size
        self._position = position
        self._lane = lane
        self._traffic = traffic
        self._look = found
        self._at_once = at_once
        self._wall = wall
        self._brakes: deque[Brake | None] = deque(maxlen=_MOMENTS)
        self._start = lane.now()
        self._first_rows = tally.rows
        self._first_position: int | None = None
        self._recent = deque([(self._start, tally.rows)], maxlen=_RECENT + 1)
        self._last: Snapshot | None = None  # not kept yet
        self._next_moment_s = 0.0

    def sample(self) -> None:
        """Take note of what the load waits for at this moment."""
        self._brakes.append(self._look().brake)

    def snapshot(self) -> Snapshot:
        """The load at this moment."""
        now, rows, position = self._lane.now(), self._tally.rows, self._position()
        elapsed = max(now - self._start, 1e-9)
        if self._first_position is None:
            self._first_position = position
        done = position - self._first_position
        self._recent.append((now, rows))
        since, before = self._recent[0]
        reason = self._lane.reason
        self._last = Snapshot(
            self._wall(),
            rows,
            dict(self._tally.counts),
            position / self._size if self._size else None,
            (rows - self._first_rows) / elapsed,
            (rows - before) / max(now - since, 1e-9),
            elapsed,
            (self._size - position) * elapsed / done if done > 0 and elapsed > 2 and self._size else None,
            self._traffic.look(),
            self._at_once(),
            max(self._lane.waits_s, 0.0),
            tuple(self._tally.failed),
            str(reason) if reason else "",
            self._found(),
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
        return Note(self.snapshot(), is_moment=True)

    async def beat(self, watch: Callable[[Snapshot], None]) -> None:
        """Tell `watch` once a second, until cancelled."""
        while True:
            for _ in range(_SAMPLES_A_BEAT):
                await anyio.sleep(_SAMPLE_S)
                self.sample()
            watch(self.snapshot())

    def _found(self) -> Found:
        """What is known of the target, with what the load waited for most of late."""
        ((brake, _),) = Counter(self._brakes).most_common(1) or [(None, 0)]
        return msgspec.structs.replace(self._look(), brake=brake)
