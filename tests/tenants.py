"""Tenants with a set optimum, and what it is: counted out, without the code that is to find it.

A request of n users takes `request_s` + n · `user_s`, at one of `at_once` places; more than `largest` users are too
many for it, and more than `quota_per_s` requests a second are refused. A load may use up to `users` and `concurrency`.
"""

from itertools import product
from math import inf
from typing import NamedTuple


class Tenant(NamedTuple):
    request_s: float
    user_s: float
    users: int
    concurrency: int
    at_once: int | None = None
    largest: int | None = None
    quota_per_s: int | None = None

    def slower(self, by: float) -> "Tenant":
        """The same when all takes longer by this share."""
        return self._replace(request_s=self.request_s * (1 + by), user_s=self.user_s * (1 + by))

    def users_per_s(self, users: int, at_once: int) -> float:
        """What such requests bring."""
        if users > (self.largest or users):
            return 0.0
        worked_on = min(at_once, self.at_once or at_once)
        return users * min(worked_on / (self.request_s + users * self.user_s), self.quota_per_s or inf)

    @property
    def best(self) -> float:
        """The most users a second that it takes, within the limits."""
        return max(self.users_per_s(*pair) for pair in self._pairs())

    @property
    def smallest(self) -> tuple[int, int]:
        """Of all that reach 95 % of that, the pair with the fewest users in flight, a request counting as 10 more."""
        enough = 0.95 * self.best
        return min(
            (pair for pair in self._pairs() if self.users_per_s(*pair) >= enough),
            key=lambda pair: pair[1] * (pair[0] + 10),
        )

    def _pairs(self) -> "product[tuple[int, int]]":
        return product(range(1, self.users + 1), range(1, self.concurrency + 1))


TENANTS = {
    "requests that cost much": Tenant(0.25, 0.0005, users=400, concurrency=64, at_once=24),
    "as many users as may be": Tenant(0.1, 0.001, users=200, concurrency=32, at_once=12),
    "a quota": Tenant(0.25, 0.0005, users=200, concurrency=32, quota_per_s=20),
    "requests that are too large": Tenant(0.2, 0.002, users=500, concurrency=32, at_once=8, largest=130),
    "users that cost much": Tenant(0.02, 0.004, users=100, concurrency=16),
    "one user a request": Tenant(0.15, 0.0, users=1, concurrency=32, at_once=10),
}
