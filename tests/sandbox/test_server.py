"""The sandbox on a socket, seen by a client of another make than its own: aiohttp's."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from loader.sandbox import CalvenOptions, FaultOptions, LedgerOptions, Options, Sandbox, serve
from tests.sandbox.calls import BEARER, EXAMPLE, JSON, KEY_ID, PATH, SECRET, TOKEN

OPTIONS = Options(calven=CalvenOptions(key_id=KEY_ID, secret=SECRET, token=TOKEN), ledger=LedgerOptions(journal=True))


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with serve(OPTIONS) as served:
        yield served


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(sandbox.url, headers=JSON | BEARER) as session:
        yield session


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # the server has no event for what tests wait for
        await asyncio.sleep(0.001)


async def test_it_serves_on_loopback(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """A request over a socket is answered by the emulation, and stands in the ledger."""
    async with http.post(PATH, data=EXAMPLE) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        assert (await response.json())["results"][0]["resultCode"] == 0

    assert sandbox.url.startswith("http://127.0.0.1:")
    assert list(sandbox.ledger.users) == ["jane.doe@example.com"]
    assert sandbox.stats.peak_in_flight["data"] == 1


async def test_large_bodies_are_read(http: aiohttp.ClientSession) -> None:
    """The server itself has no maximum: 3 MB in one request."""
    users = [{"userName": f"user{n}", "attributes": {"x": "y" * 1000}} for n in range(3000)]
    body = io.BytesIO(json.dumps({"userAttributes": users}).encode())
    async with http.post(PATH, data=body) as response:
        assert len((await response.json())["results"]) == 3000


@pytest.mark.parametrize(("fault", "writes"), [("reset", 0), ("lost", 1)])
async def test_connections_are_cut_without_an_answer(
    sandbox: Sandbox, http: aiohttp.ClientSession, fault: str, writes: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The client sees its connection end, the server logs no error, and the next request is answered."""
    sandbox.faults = FaultOptions.model_validate({"rates": {fault: 1}})
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.post(PATH, data=EXAMPLE)
    sandbox.faults = FaultOptions()
    async with http.post(PATH, data=EXAMPLE) as response:
        assert response.status == 200

    assert sandbox.ledger.writes == writes + 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_torn_answers_end_in_the_middle(
    sandbox: Sandbox, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """The head and a part of the body come, then the connection ends."""
    sandbox.faults = FaultOptions(rates={"torn": 1})
    async with http.post(PATH, data=EXAMPLE) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()

    assert sandbox.ledger.writes == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_client_that_hangs_up_does_no_harm(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """Half a request, or a client gone before its answer, is no error of the server; what came whole is applied."""
    sandbox.faults = FaultOptions(latency_s=0.05)
    port = int(sandbox.url.rpartition(":")[2])
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {TOKEN}\r\n"
    for body in (EXAMPLE[:20], EXAMPLE):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}Content-Length: {len(EXAMPLE)}\r\n\r\n".encode() + body)
        await writer.drain()
        await until(lambda: sandbox.stats.in_flight["data"] == 1)
        writer.transport.abort()
        await until(lambda: sandbox.stats.in_flight["data"] == 0)

    assert sandbox.ledger.writes == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_leaving_ends_the_server(sandbox: Sandbox) -> None:
    """After the block nothing listens any more, and a request in flight doesn't hold it up."""
    async with serve(Options(faults=FaultOptions(latency_s=60))) as short, aiohttp.ClientSession(short.url) as session:
        hanging = asyncio.create_task(session.post(PATH, data=EXAMPLE))
        await until(lambda: short.stats.in_flight["data"] == 1)

    with pytest.raises(aiohttp.ClientError):
        await hanging
    with pytest.raises(aiohttp.ClientConnectionError):
        async with aiohttp.ClientSession(short.url) as session:
            await session.post(PATH, data=EXAMPLE)


async def test_a_taken_port_is_an_error(sandbox: Sandbox) -> None:
    """Two sandboxes don't share a port."""
    port = int(sandbox.url.rpartition(":")[2])

    with pytest.raises(OSError, match="in use"):
        async with serve(Options(port=port)):
            pass
