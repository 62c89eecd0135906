"""Quotas as values, and the pace that keeps one in every window, wherever a server begins to count.

A server counts requests, or users, in windows that slide or that begin at full minutes. What holds in every window of
that length holds in both kinds, and a penalty for passing it never comes due. So the pace is even: one bucket that
leaks, small enough that what it lets through at once fits into the margin.
"""

import re
from typing import Literal, NamedTuple, Self

_FORM = re.compile(r"(\d+(?:\.\d+)?)(?: +(requests?|users?))? *(?:/|per) *(\d+(?:\.\d+)?)? *(s|min|h)")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}

#: Clocks and networks are not exact, so that much less is sent than is allowed.
_MARGIN = 0.01
#: At most so long a time's worth goes at once, so that the rate holds in windows of seconds, too.
_BURST_S = 0.02
#: Users of one request, as a share of a quota in users, up to which the bucket can hold whole requests.
_SMALL = 0.03


class Quota(NamedTuple):
    """At most `amount` requests, or users, in any `window_s` seconds."""

    amount: float
    window_s: float
    unit: Literal["requests", "users"] = "requests"

    @classmethod
    def parse(cls, text: str) -> Self:
        """`500/60s`, `1000 requests/1min`, `5000 users/60s`. Raises ValueError."""
        match = _FORM.fullmatch(text.strip())
        amount, unit, count, scale = match.groups() if match else ("0", "", "1", "s")
        window_s = float(count or 1) * _SECONDS[scale]
        if float(amount) <= 0 or window_s <= 0:
            raise ValueError('a quota such as "500/60s" or "5000 users/60s"')
        return cls(float(amount), window_s, "users" if (unit or "").startswith("user") else "requests")

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}/{self.window_s:g}s"


class Pace(NamedTuple):
    """A bucket that takes `burst` at once and leaks `per_s`. `unit`: what each request pays for itself.

    "requests": 1 for each request; "carriers": 1 for each that carries users; "users": 1 for each user it carries.
    """

    burst: float
    per_s: float
    unit: Literal["requests", "carriers", "users"]

    def price(self, users: int) -> float:
        """What a request that carries so many users pays."""
        if self.unit == "users":
            return users
        return 1 if self.unit == "requests" or users else 0


def pace_of(quota: Quota, users_per_request: int) -> Pace:
    """The pace that keeps `quota` in every window, with requests of up to so many users.

    What a bucket lets through in a window is its size and what leaks meanwhile: both together stay below the quota.
    """
    if quota.unit == "requests":
        rate = quota.amount / quota.window_s
        burst = max(1.0, min(rate * _BURST_S, quota.amount * _MARGIN))
        return Pace(burst, rate * (1 - _MARGIN), "requests")
    if users_per_request <= quota.amount * _SMALL:
        left = quota.amount - users_per_request
        return Pace(users_per_request, left / quota.window_s * (1 - _MARGIN / 2), "users")
    # A bucket for such requests would take too much of the quota; so they are counted, each as a full one.
    return Pace(1, quota.amount // users_per_request / quota.window_s * (1 - _MARGIN), "carriers")


def fitting(users_per_request: int, quota: Quota) -> int:
    """The largest request, of at most so many users, of which a whole number uses a quota in users up."""
    if quota.unit == "requests" or users_per_request <= quota.amount * _SMALL:
        return users_per_request
    requests = -(-quota.amount // users_per_request)
    return max(int(quota.amount // requests), 1)
