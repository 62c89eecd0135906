"""Which users exist, and which one spoils the whole request that it is in. Shared by every emulated API."""

from loader.sandbox.options import RosterOptions


class Roster:
    """Answers two questions about one user's key. Keys are compared as they stand: [D] case matters (presence page)."""

    def __init__(self, options: RosterOptions) -> None:
        self._known = options.known_users
        self._unknown = options.unknown
        self._poison = options.poison
        self.open = self._known is None and self._unknown is None and self._poison is None
        """Whether everyone exists and nobody is poison, so that nobody need be asked about."""

    @property
    def listed(self) -> frozenset[str] | None:
        """All who may exist; None if there is no list of them."""
        return self._known

    def exists(self, user: str) -> bool:
        if self._known is not None and user not in self._known:
            return False
        return self._unknown is None or self._unknown.search(user) is None

    def is_poison(self, user: str) -> bool:
        return self._poison is not None and self._poison.search(user) is not None
