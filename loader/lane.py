"""The lane: what all requests to one target share. Is it held back, is it down, is the run to stop?

A target that fails so many times in a row, and takes nothing in between, is down: then one request at a time asks
whether it is back, at growing intervals, and all others wait. The first that is taken lets them all go on.
"""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import anyio

from loader.errors import LoaderError, Stopped

#: So many failures in a row, and nothing taken: it is down.
_DOWN_AFTER = 10
#: The intervals between questions whether it is back, the first and the longest; by chance up to twice as long.
_ASK_S, _ASK_MOST_S = 0.5, 8.0
#: Fewer failures are told of, too, if nothing usable comes for so long; and a pause, if so much of it is left.
_TOLD_AFTER, _TOLD_AFTER_S, _PAUSE_S = 2, 3.0, 1.0


class Trouble(NamedTuple):
    """Why nothing goes on: the target asked for a pause, or is down. `reason`: its last words of that.

    `since`: of no usable answer; `gives_up_at`: then the run stops (math.inf: never).
    """

    kind: Literal["pause", "down"]
    reason: str
    since: float
    gives_up_at: float


class Abandoned(LoaderError):
    """The run is stopping: this batch stays unsettled, and the next run sends it again."""


class Lane:
    """State of the talk with one target. Clocks come in as arguments; times are monotonic seconds.

    `stopping` is set once, for `reason`, and makes every wait end; what is on the wire is left to finish.
    """

    def __init__(
        self,
        give_up_s: float,
        now: Callable[[], float] = anyio.current_time,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.now = now
        self._uniform = uniform
        self._give_up_s = give_up_s
        self._held_until = 0.0
        self._held_for = ""  # why
        self._failed_for = ""  # the last time
        self._trouble_since: float | None = None
        self._failures = 0  # in a row
        self._asked = 0  # since it is down: is it back?
        self._ask_at = -math.inf
        self._back = anyio.Event()
        self._waits: set[anyio.CancelScope] = set()
        self.stopping = anyio.Event()
        self.reason: LoaderError | None = None
        self.up_at = -math.inf  # when the last request went out that got a usable answer

    def stop(self, reason: LoaderError) -> None:
        """Send nothing more; what is on the wire may finish. The first reason is the one that counts."""
        self.reason = self.reason or reason
        self.stopping.set()
        for wait in self._waits:
            wait.cancel()

    def hold(self, seconds: float, reason: str = "") -> None:
        """The target asked for a pause: nobody sends before it is over."""
        self._held_until = max(self._held_until, self.now() + seconds)
        self._held_for = reason

    @property
    def trouble(self) -> Trouble | None:
        """Why nothing goes on at this moment; None: it goes on, or that is not worth a word."""
        now = self.now()
        since = now if self._trouble_since is None else self._trouble_since
        if self.held_for_s() > _PAUSE_S:
            return Trouble("pause", self._held_for, since, since + self._give_up_s)
        if self.is_down or (self._failures >= _TOLD_AFTER and now - since >= _TOLD_AFTER_S):
            return Trouble("down", self._failed_for, since, since + self._give_up_s)
        return None

    @property
    def is_clear(self) -> bool:
        """May a request that had clearance still go?"""
        return not self.stopping.is_set() and self.held_for_s() <= 0

    def is_open(self, now: float) -> bool:
        """May a request go at `now` without clearance? It would get that at once, and nothing would be noted for it."""
        return self._held_until <= now and not self.is_down and not self.stopping.is_set()

    @property
    def waits_s(self) -> float:
        """Seconds until the next clearance, if nothing comes in between; not positive: there is no wait."""
        return max(self._held_until, self._ask_at) - self.now()

    @property
    def is_down(self) -> bool:
        """Has the target failed so often in a row that it is asked now and then whether it is back?"""
        return self._failures >= _DOWN_AFTER

    def held_for_s(self) -> float:
        """Seconds until the target's pause is over; not positive: there is none."""
        return self._held_until - self.now()

    async def clearance(self) -> None:
        """Wait until the lane is clear, for a request that goes at once. Raises Abandoned if the run stops."""
        while self.waits_s > 0 or self.stopping.is_set():
            with self.waiting(), anyio.move_on_after(self.waits_s):
                await (self._back.wait() if self.held_for_s() <= 0 else anyio.sleep_forever())
        if self.is_down:
            pause = min(_ASK_S * 2.0 ** min(self._asked, 10), _ASK_MOST_S)
            self._asked += 1
            self._ask_at = self.now() + pause + self._uniform(0.0, pause)

    async def sleep(self, seconds: float) -> None:
        """Wait, unless the run stops: then raises Abandoned."""
        with self.waiting():
            await anyio.sleep(seconds)

    async def back_off(self, seconds: float) -> None:
        """Wait before another attempt, but not past the time to give up."""
        if self._trouble_since is not None:
            seconds = min(seconds, max(self._trouble_since + self._give_up_s - self.now(), 0.0))
        await self.sleep(seconds)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around any wait that must end when the run stops. Then, or if it has stopped before, raises Abandoned."""
        if self.stopping.is_set():
            raise Abandoned
        with anyio.CancelScope() as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.discard(wait)
        if self.stopping.is_set():
            raise Abandoned

    def succeeded(self, elapsed_s: float) -> None:
        """A usable answer came, to a request that had been on the wire for `elapsed_s`."""
        self.up_at = max(self.up_at, self.now() - elapsed_s)
        self._trouble_since = None
        if self.is_down:
            self._asked, self._ask_at = 0, -math.inf
            self._back.set()
            self._back = anyio.Event()
        self._failures = 0

    def failed(self, reason: str) -> None:
        """An attempt got no usable answer. Raises Stopped when that has lasted for `give_up_s`."""
        self._failures += 1
        self._failed_for = reason
        self.delayed(reason)

    def delayed(self, reason: str) -> None:
        """An attempt was put off by a target that is there. Raises Stopped when that has lasted for `give_up_s`."""
        if self._trouble_since is None:
            self._trouble_since = self.now()
        elif (lasted := self.now() - self._trouble_since) >= self._give_up_s:
            raise Stopped(
                f"no usable answer for {lasted:.0f} s (limits.give_up_s = {self._give_up_s:g}); the last: {reason}"
            )
