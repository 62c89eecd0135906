"""The harmless call before a load, and what it stops."""

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import anyio
import pytest

from loader.batch import Batch
from loader.errors import Refused, Stopped, TransportError
from loader.lane import Abandoned
from loader.probe import probe, refuse_undeclared
from loader.request import Request, Response
from loader.target import Target
from loader.tokens import Scheme, bearer_headers
from loader.transport import Send
from loader.verdict import Answer


class Declared(Target):
    """A target that knows two attributes."""

    api: ClassVar[str] = "declared"
    declares: ClassVar[bool] = True
    schemes: ClassVar[Mapping[str, Scheme]] = {"bearer": Scheme(("token",), headers=bearer_headers)}

    def encode(self, batch: Batch) -> list[Request]:
        return [Request("POST", "/", users=len(batch))]

    def read(self, batch: Batch, responses: Sequence[Response]) -> Answer:
        return Answer([None] * len(batch))

    def probe(self) -> Request | None:
        return Request("GET", "/attributes")

    def undeclared(self, response: Response, names: Collection[str]) -> list[str] | None:
        return [name for name in names if name not in response.body.decode().split()] if response.body else None


class Mute(Declared):
    """A target without a harmless call."""

    def probe(self) -> Request | None:
        return None


def answering(status: int = 200, body: bytes = b"dept site") -> Send:
    async def send(request: Request) -> Response:
        assert (request.method, request.path, request.users) == ("GET", "/attributes", 0)
        return Response(status, {}, body)

    return send


def failing(error: Exception) -> Send:
    async def send(request: Request) -> Response:
        raise error

    return send


def asked(send: Send, names: Collection[str] = ("dept",), target: type[Target] = Declared) -> str:
    return anyio.run(probe, target(auth="bearer"), send, ["dept"]).words


def test_what_the_call_shows_is_said() -> None:
    assert asked(answering()) == "taken; GET /attributes was answered"
    assert asked(answering(403, b"not for you")).startswith("not known: this key has no right to GET /attributes")
    assert asked(answering(503)).startswith("not known: this key did not get an answer to GET /attributes")
    assert "no route" in asked(failing(TransportError("no route")))
    assert "no harmless call" in asked(answering(), target=Mute)


def test_refused_credentials_stop() -> None:
    with pytest.raises(Stopped, match="not accepted: HTTP 401: who are you"):
        asked(answering(401, b"who are you"))


def refuse(send: Send, names: Collection[str] | None, warnings: list[str]) -> None:
    target: Target = Declared(auth="bearer")
    anyio.run(refuse_undeclared, target, send, names, warnings.append)


def test_attributes_that_are_not_declared_stop_a_load_before_it_begins() -> None:
    with pytest.raises(Refused, match="declared does not know the attributes 'Dept', 'cost': declare them there first"):
        refuse(answering(), ["dept", "Dept", "cost"], [])


@pytest.mark.parametrize("names", [["dept"], [], None])
def test_declared_ones_and_unknown_names_pass(names: list[str] | None) -> None:
    warnings: list[str] = []
    refuse(answering(), names, warnings)

    assert warnings == []


@pytest.mark.parametrize("send", [answering(403), answering(200, b""), failing(TransportError("cut"))])
def test_what_could_not_be_checked_is_said_and_the_load_goes_on(send: Send) -> None:
    warnings: list[str] = []
    refuse(send, ["dept"], warnings)

    assert len(warnings) == 1
    assert "could not be checked" in warnings[0]


def test_a_run_that_stops_meanwhile_tells_its_own_reason() -> None:
    refuse(failing(Abandoned()), ["dept"], [])
