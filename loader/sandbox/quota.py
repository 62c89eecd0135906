"""Quotas as servers count them, each a witness of how near it a client came. Pure: `now` is unix seconds."""

import math
from collections import deque
from collections.abc import Sequence
from email.utils import formatdate
from typing import Literal

from loader.sandbox.options import QuotaOptions, RetryAfter

_HUGE_S = 10**9  # thirty years


class Window:
    """How much the window that it is now holds, and the most that one ever held.

    Sliding: (now - window_s, now]. Fixed: from the last multiple of `window_s` of the unix clock.
    """

    def __init__(self, window_s: float, kind: Literal["sliding", "fixed"] = "sliding") -> None:
        self.window_s = window_s
        self.peak = 0
        self._is_sliding = kind == "sliding"
        self._count = 0
        self._moments: deque[tuple[float, int]] = deque()  # when, how much; all that the window holds

    def add(self, now: float, amount: int = 1) -> None:
        self._moments.append((now, amount))
        self._count += amount
        self.peak = max(self.peak, self.count(now))

    def count(self, now: float) -> int:
        while self._moments and not self._holds(self._moments[0][0], now):
            self._count -= self._moments.popleft()[1]
        return self._count

    def _holds(self, moment: float, now: float) -> bool:
        if self._is_sliding:
            return moment > now - self.window_s
        return moment // self.window_s == now // self.window_s

    def frees_in_s(self, now: float, amount: int) -> float:
        """Seconds until at least so much of what it holds has left, or all has."""
        if not self._is_sliding:
            return (now // self.window_s + 1) * self.window_s - now
        last = now
        for moment, part in self._moments:
            last = moment
            amount -= part
            if amount <= 0:
                break
        return last + self.window_s - now


class Quota:
    """One quota. `peak` counts every arrival, refused ones too, for it judges the client."""

    def __init__(self, options: QuotaOptions) -> None:
        self.options = options
        self.refused = 0
        self._arrived = Window(options.window_s, options.kind)
        self._used = Window(options.window_s, options.kind)
        self._penalty_ends = 0.0

    @property
    def peak(self) -> int:
        return self._arrived.peak

    @property
    def is_of_users(self) -> bool:
        return self.options.users is not None

    def has_room(self, now: float, users: int) -> bool:
        """Whether a request that carries so many users may pass. What uses nothing up, such as a token call where users
        are counted, minds only the penalty."""
        amount = self._amount(users)
        return now >= self._penalty_ends and (not amount or self._used.count(now) + amount <= self.options.limit)

    def note(self, now: float, users: int, passed: bool) -> None:
        """Count an arrival, which passed or did not: for want of room here or elsewhere."""
        amount = self._amount(users)
        self._arrived.add(now, amount)
        if not self.has_room(now, users):
            self.refused += 1
            if now >= self._penalty_ends or self.options.counts_refused:
                self._penalty_ends = now + self.options.penalty_s
        if passed or self.options.counts_refused:
            self._used.add(now, amount)

    def wait_s(self, now: float, users: int) -> float:
        """Seconds until the same may pass, if nothing comes between. More users than the quota has never may."""
        surplus = self._used.count(now) + self._amount(users) - self.options.limit
        free_s = self._used.frees_in_s(now, surplus) if surplus > 0 else 0.0
        return max(free_s, self._penalty_ends - now, 0.0)

    def _amount(self, users: int) -> int:
        return users if self.is_of_users else 1


def admit(quotas: Sequence[Quota], now: float, users: int) -> dict[str, str] | None:
    """None if a request passes all quotas, else the headers of its refusal: those of the longest wait.

    A request that one quota refuses uses up none, but those that count what is refused.
    """
    refusing = [quota for quota in quotas if not quota.has_room(now, users)]
    for quota in quotas:
        quota.note(now, users, passed=not refusing)
    if not refusing:
        return None
    slowest = max(refusing, key=lambda quota: quota.wait_s(now, users))
    return retry_after(slowest.options.retry_after, slowest.wait_s(now, users), now)


def retry_after(form: RetryAfter, wait_s: float, now: float) -> dict[str, str]:
    """The header that asks for a pause. RFC 9110 knows whole seconds and dates; decimals are seen in the wild.

    So are pauses that have gone by, others that no one could mean, and words.
    """
    match form:
        case "int":
            return {"retry-after": str(math.ceil(wait_s))}
        case "decimal":
            return {"retry-after": f"{wait_s:.3f}"}
        case "date":
            return {"retry-after": formatdate(math.ceil(now + wait_s), usegmt=True)}
        case "negative":
            return {"retry-after": f"-{math.ceil(wait_s)}"}
        case "huge":
            return {"retry-after": str(_HUGE_S)}
        case "words":
            return {"retry-after": "in a while"}
        case "none":
            return {}
