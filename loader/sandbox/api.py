"""What the sandbox asks of an emulated API, and the answers such emulations are made of."""

from collections.abc import Mapping
from typing import Literal, Protocol

import orjson

from loader.request import Request, Response

Kind = Literal["data", "token", "other"]


class Api(Protocol):
    """One emulated API: pure, synchronous, with no clock but `now` (unix seconds)."""

    results: str
    """The name of the list in a good answer that the result faults shuffle, thin out and double."""

    def kind(self, path: str) -> Kind:
        """What this path, as `path_of` gives it, is for; "other" is nothing that the API knows."""
        ...

    def handle(self, request: Request, now: float) -> Response:
        """Answer, and write what was accepted into the ledger."""
        ...

    def revoke(self) -> None:
        """Make every live token invalid at once."""
        ...

    def facts(self) -> dict[str, object]:
        """What the emulation can say of itself, for the sandbox's stats."""
        ...


class Refused(Exception):
    """Ends the handling of a request with this answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.response = refusal(status, message)


def answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return raw_answer(status, orjson.dumps(body), headers)


def raw_answer(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """A response whose body is JSON already."""
    return Response(status, {"content-type": "application/json; charset=utf-8", **(headers or {})}, body)


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """A response with an error. No vendor page shows the body of one; this shape is ours."""
    return answer(status, {"statusCode": status, "message": message}, headers)


def header(request: Request, name: str) -> str:
    """The value of a request header, whatever its case; "" if absent."""
    return next((value for key, value in request.headers.items() if key.lower() == name), "")


def path_of(target: str) -> str:
    """The path alone: no query, no trailing slash."""
    return target.partition("?")[0].rstrip("/") or "/"
