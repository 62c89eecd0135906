"""The lane: what all requests to one target share. Is it held back, is it down, is the run to stop?"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from loader.errors import LoaderError, Stopped


class Abandoned(LoaderError):
    """The run is stopping: this batch stays unsettled, and the next run sends it again."""


class Lane:
    """State of the talk with one target. Clocks come in as arguments; times are monotonic seconds.

    `stopping` is set once, for `reason`, and makes every wait end; what is on the wire is left to finish.
    """

    def __init__(self, give_up_s: float, now: Callable[[], float] = anyio.current_time) -> None:
        self.now = now
        self._give_up_s = give_up_s
        self._held_until = 0.0
        self._trouble_since: float | None = None
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

    def hold(self, seconds: float) -> None:
        """The target asked for a pause: nobody sends before it is over."""
        self._held_until = max(self._held_until, self.now() + seconds)

    @property
    def is_clear(self) -> bool:
        """May a request go now?"""
        return not self.stopping.is_set() and self.held_for_s() <= 0

    def held_for_s(self) -> float:
        """Seconds until the target's pause is over; not positive: there is none."""
        return self._held_until - self.now()

    async def clearance(self) -> None:
        """Wait until the lane is clear. Raises Abandoned if the run stops."""
        while not self.is_clear:
            await self.sleep(self.held_for_s())

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

    def failed(self, reason: str) -> None:
        """An attempt got no usable answer. Raises Stopped when that has lasted for `give_up_s`."""
        if self._trouble_since is None:
            self._trouble_since = self.now()
        elif (lasted := self.now() - self._trouble_since) >= self._give_up_s:
            raise Stopped(
                f"no usable answer for {lasted:.0f} s (limits.give_up_s = {self._give_up_s:g}); the last: {reason}"
            )
