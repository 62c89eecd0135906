"""How large a request the target takes, learnt from what it took and what it called too large."""


class Ceiling:
    """One dimension of a request's size (bytes, or users): `limit` is how much to put into the next one.

    A size called too large bounds it from above, one that was taken from below, and the next tries lie half-way between
    until the two are within a twentieth. A size that was taken proves any refusal of a smaller one to be about a single
    record, not about the request, so one fat record shrinks nothing for the others.
    """

    def __init__(self) -> None:
        self._taken = 0
        self._refused: int | None = None

    @property
    def limit(self) -> int | None:
        """The most to send at once, or None while nothing was too large."""
        if self._refused is None:
            return None
        gap = self._refused - self._taken
        return max(self._taken if gap <= max(1, self._refused // 20) else self._taken + gap // 2, 1)

    def took(self, size: int) -> None:
        """A request of `size` was taken."""
        self._taken = max(self._taken, size)
        if self._refused is not None and self._taken >= self._refused:
            self._refused = None

    def refused(self, size: int) -> None:
        """A request of `size` was too large."""
        if size > self._taken:
            self._refused = size if self._refused is None else min(self._refused, size)
