"""What the sandbox accepted, user by user: the truth that a load is compared with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

from loader.sandbox.options import LedgerOptions

Attributes = dict[str, Any]  # name to value, as parsed from JSON
Relationship = dict[str, str | None]  # group, groupType, parent, parentType


@dataclass(slots=True)
class Entry:
    """One user: attributes as they stand, how often it was written, and which write (1, 2, ...) was its last."""

    attributes: Attributes
    writes: int
    last_write: int


class Write(NamedTuple):
    """One accepted write, in order of acceptance."""

    user: str
    attributes: Attributes


class Ledger:
    """Accepted writes. With `count_only` no user is kept, so that tens of millions cost nothing."""

    def __init__(self, options: LedgerOptions) -> None:
        self.options = options
        self.users: dict[str, Entry] = {}
        self.journal: list[Write] = []
        self.writes = 0
        self.hierarchy: Sequence[Relationship] = ()
        """The last one accepted, in the order sent."""
        self.hierarchies = 0
        """How many were accepted."""

    def accept(
        self,
        users: Sequence[str],
        attributes: Sequence[Attributes],
        *,
        write: Literal["merge", "replace"] | None = None,
        null_removes: bool = False,
    ) -> None:
        """Take one request's users, side by side with their attributes, in the order they stand in the request.

        `write` is for an API that documents what a write does: it rules instead of the option. `null_removes`: an
        attribute sent as null is taken from the user, and not kept as null. The journal keeps what was sent.
        """
        if self.options.count_only:
            self.writes += len(users)
            return
        if self.options.journal:
            self.journal.extend(map(Write, users, attributes))
        replace = (write or self.options.write) == "replace"
        for user, values in zip(users, attributes, strict=True):
            self.writes += 1
            entry = self.users.get(user)
            if entry is None:
                # A copy: a merge must not change the journal's write.
                entry = self.users[user] = Entry(values.copy(), 1, self.writes)
            else:
                if replace:
                    entry.attributes = values.copy()
                else:
                    entry.attributes.update(values)
                entry.writes += 1
                entry.last_write = self.writes
            if null_removes:
                for name in [name for name, value in values.items() if value is None]:
                    del entry.attributes[name]

    def replace_hierarchy(self, relationships: Sequence[Relationship]) -> None:
        """Take a hierarchy, which takes the place of the one before."""
        self.hierarchy = relationships
        self.hierarchies += 1

    def line(self, user: str) -> bytes:
        """One user as a line of NDJSON; KeyError if it was never written."""
        entry = self.users[user]
        shown = {"userName": user, "attributes": entry.attributes, "writes": entry.writes}
        return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)

    def lines(self) -> Iterator[bytes]:
        """All users as NDJSON, in order of first write. Users that come while this runs are left out."""
        return map(self.line, list(self.users))

    def journal_lines(self) -> Iterator[bytes]:
        """The journal as NDJSON, oldest first."""
        for number in range(len(self.journal)):
            user, attributes = self.journal[number]
            yield orjson.dumps({"userName": user, "attributes": attributes}, option=orjson.OPT_APPEND_NEWLINE)

    def hierarchy_lines(self) -> Iterator[bytes]:
        """The last hierarchy as NDJSON, in the order sent."""
        return (orjson.dumps(relationship, option=orjson.OPT_APPEND_NEWLINE) for relationship in self.hierarchy)
