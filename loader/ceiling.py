"""How large a request the target takes, learnt from what it took and what was too large for it."""

from loader.batch import BatchLimits


class Ceiling:
    """One dimension of a request's size (bytes, or users): `limit` is how much to put into the next one.

    A size called too large bounds it from above, one that was taken from below, and the next tries lie half-way between
    until the two are within a twentieth. A size that was taken proves any refusal of a smaller one to be about a single
    record, not about the request, so one fat record shrinks nothing for the others.
    """

    def __init__(self, known: int | None = None) -> None:
        """`known`: the most that was taken, and nearly the least that was refused, at another time."""
        self._taken = known or 0
        self._refused = None if known is None else known + 1

    @property
    def limit(self) -> int | None:
        """The most to send at once, or None while nothing was too large."""
        if self._refused is None:
            return None
        gap = self._refused - self._taken
        return max(self._taken if gap <= max(1, self._refused // 20) else self._taken + gap // 2, 1)

    def is_probe(self, size: int) -> bool:
        """Is it open whether `size` is too large?"""
        return self._refused is not None and size > self._taken

    def took(self, size: int) -> None:
        """A request of `size` was taken."""
        self._taken = max(self._taken, size)
        if self._refused is not None and self._taken >= self._refused:
            self._refused = None

    def refused(self, size: int) -> None:
        """A request of `size` was too large."""
        if size > self._taken:
            self._refused = size if self._refused is None else min(self._refused, size)


class RequestSize:
    """Users and bytes of a request: as many as the limits allow, and no more than the target takes.

    `users`, `body_bytes`: what an earlier run found, to begin with.
    """

    def __init__(self, limits: BatchLimits, users: int | None = None, body_bytes: int | None = None) -> None:
        self._most = limits
        self._users = Ceiling(users)
        self._bytes = Ceiling(body_bytes)

    @property
    def limits(self) -> BatchLimits:
        """How large a request may be, as far as is known by now."""
        users, size = self._users.limit, self._bytes.limit
        if users is None and size is None:
            return self._most
        return BatchLimits(
            min(self._most.users, users) if users else self._most.users,
            min(self._most.body_bytes, size) if size else self._most.body_bytes,
        )

    @property
    def found(self) -> tuple[int | None, int | None]:
        """Users and bytes that turned out to be the most; None: no less than the limits."""
        return self._users.limit, self._bytes.limit

    def is_too_large(self, users: int, body_bytes: int) -> bool:
        """Is it known that such a request is? One of a single user never is: it can't be smaller."""
        limits = self.limits
        return users > 1 and (users > limits.users or body_bytes > limits.body_bytes)

    def is_probe(self, users: int, body_bytes: int) -> bool:
        """Would such a request show what is not known yet? One at a time is enough to find out."""
        return users > 1 and (self._users.is_probe(users) or self._bytes.is_probe(body_bytes))

    def took(self, users: int, body_bytes: int) -> None:
        """Such a request was taken."""
        self._users.took(users)
        self._bytes.took(body_bytes)

    def refused(self, users: int, body_bytes: int) -> None:
        """Such a request was too large, or could not be answered in time while others were."""
        if users > 1:
            self._users.refused(users)
            self._bytes.refused(body_bytes)
