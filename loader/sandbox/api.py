"""What the sandbox asks of an emulated API, and the answers such emulations are made of."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import orjson

from loader.request import Request, Response

Kind = Literal["data", "token", "other"]
"""What a path is for. "data": users, written or looked up. "token": what comes before them and carries none: tokens,
and handshakes such as a licence, a configuration or "who am I". "other": nothing that the API knows."""


class Api(Protocol):
    """One emulated API: pure, synchronous, with no clock but `now` (unix seconds).

    It is built from its own options, a roster and a ledger: `Dx(options: DxOptions, roster: Roster, ledger: Ledger)`.
    """

    @property
    def entries(self) -> tuple[str, ...]:
        """Where a good answer speaks of users, for faults to spoil: names of members, of which it need not have all.

        A member is a list of entries, of as many users, as `("results",)` or `("patchedUsers", "failedUsers")`; or it
        is one user's entry, as `("user",)`. An entry is a JSON object. "a.b" is the member b of a, "" the whole answer.
        """
        ...

    def renamed(self, entry: dict[str, Any], user: object) -> dict[str, Any]:
        """A copy of an entry of a good answer, as if it were about `user`: a stranger, or a number for a name."""
        ...

    def endpoint(self, path: str) -> tuple[Kind, str]:
        """What this path, as `path_of` gives it, is for, and the name that it is counted under: the path itself, with
        ids in it replaced by words, for there must be few names."""
        ...

    def users(self, request: Request) -> int:
        """How many users a request would write, whatever its credentials; 0 for a token call and for nonsense.

        Asked only if a quota or the work counts users, so it may parse the body.
        """
        ...

    def handle(self, request: Request, now: float) -> Response:
        """Answer, and write what was accepted into the ledger."""
        ...

    def refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
        """An error as this API words it: for quotas (429) and faults (any status)."""
        ...

    def revoke(self) -> None:
        """Make every live token invalid at once."""
        ...

    def facts(self) -> dict[str, object]:
        """What the emulation can say of itself, for the sandbox's stats."""
        ...


class Refused(Exception):
    """Ends the handling of a request with an error, worded by the API: `self.refuse(refused.status, str(refused))`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return raw_answer(status, orjson.dumps(body), headers)


def raw_answer(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """A response whose body is JSON already."""
    return Response(status, {"content-type": "application/json; charset=utf-8", **(headers or {})}, body)


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """A response with an error, for an API whose pages show the body of none; this shape is ours."""
    return answer(status, {"statusCode": status, "message": message}, headers)


def header(request: Request, name: str) -> str:
    """The value of a request header, whatever its case; "" if absent."""
    return next((value for key, value in request.headers.items() if key.lower() == name), "")


def path_of(target: str) -> str:
    """The path alone: no query, no trailing slash."""
    return target.partition("?")[0].rstrip("/") or "/"
