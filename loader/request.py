"""One HTTP request and its response, as plain values. Shared by every target, the client and the sandbox."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a target: what goes on the wire, but for credentials and host.

    `path` is absolute and may carry a query; a token call's may be a whole URL (`Scheme.elsewhere`). `users` is how
    many users the body carries, 0 for a token call. What may hold secrets, or users, is not in its repr.
    """

    method: str
    path: str
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    users: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, read whole. Header names are lower case; `elapsed_s` is the time on the wire alone.

    What may hold secrets, or users, is not in its repr.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    elapsed_s: float = 0.0
