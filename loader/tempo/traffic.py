"""What goes over the wire in a run, counted where it is sent."""

from bisect import bisect_left

from loader.snapshot import BOUNDS_S, Wire


class Traffic:
    """Requests and their answers. Times in seconds."""

    def __init__(self) -> None:
        self._requests = self._ended = self._refused = self._broken = self._halved = 0
        self.halving = 0  # batches that are being halved, at this moment
        self._fresh: list[float] = []  # since the last look
        self._times = [0] * (len(BOUNDS_S) + 1)
        self._seconds = 0.0

    def went(self) -> None:
        """A request goes on the wire."""
        self._requests += 1

    def answered(self, status: int, seconds: float) -> None:
        """Its answer came."""
        self._ended += 1
        self._fresh.append(seconds)
        if status == 429:
            self._refused += 1
        elif status >= 500:
            self._broken += 1

    def lost(self) -> None:
        """It got no answer."""
        self._ended += 1
        self._broken += 1

    def dropped(self) -> None:
        """It was given up by us."""
        self._ended += 1

    def halves(self) -> None:
        """What was refused as a whole goes on in halves."""
        self._halved += 1

    def look(self) -> Wire:
        """All of it, and the times since the last look."""
        fresh = sorted(self._fresh)
        self._fresh.clear()
        for seconds in fresh:
            self._times[bisect_left(BOUNDS_S, seconds)] += 1
        self._seconds += sum(fresh)
        return Wire(
            self._requests,
            self._refused,
            self._broken,
            self._requests - self._ended,
            tuple(self._times),
            self._seconds,
            fresh[len(fresh) // 2] if fresh else None,
            fresh[len(fresh) * 95 // 100] if fresh else None,
            self._halved,
        )
