"""A sliding-window quota and the witness of how near it a client came. Pure: `now` is unix seconds."""

import math
from collections import deque
from email.utils import formatdate

from loader.sandbox.options import QuotaOptions, RetryAfter


class Window:
    """How many moments the last `window_s` seconds hold, and the most they ever held."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.peak = 0
        self._moments: deque[float] = deque()

    def add(self, now: float) -> None:
        self._moments.append(now)
        self.peak = max(self.peak, self.count(now))

    def count(self, now: float) -> int:
        """Moments in (now - window_s, now]."""
        while self._moments and self._moments[0] <= now - self.window_s:
            self._moments.popleft()
        return len(self._moments)

    def frees_in_s(self, now: float) -> float:
        """Seconds until the oldest moment leaves."""
        return self._moments[0] + self.window_s - now if self._moments else 0.0


class Quota:
    """Admits `requests` in any window; `peak` counts every arrival, refused ones too, for it judges the client."""

    def __init__(self, options: QuotaOptions) -> None:
        self.options = options
        self.refused = 0
        self._arrived = Window(options.window_s)
        self._admitted = Window(options.window_s)

    @property
    def peak(self) -> int:
        return self._arrived.peak

    def admit(self, now: float) -> float | None:
        """None if the request may pass, else the seconds until one may."""
        self._arrived.add(now)
        if self._admitted.count(now) < self.options.requests:
            self._admitted.add(now)
            return None
        self.refused += 1
        return self._admitted.frees_in_s(now)


def retry_after(form: RetryAfter, wait_s: float, now: float) -> dict[str, str]:
    """The header that asks for a pause. RFC 9110 knows whole seconds and dates; decimals are seen in the wild."""
    match form:
        case "int":
            return {"retry-after": str(math.ceil(wait_s))}
        case "decimal":
            return {"retry-after": f"{wait_s:.3f}"}
        case "date":
            return {"retry-after": formatdate(math.ceil(now + wait_s), usegmt=True)}
        case "none":
            return {}
