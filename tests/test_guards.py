"""The guards of conftest.py bite."""

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from blockbuster import BlockingError

import loader.errors


def as_if_in_loader(source: str) -> Callable[[], object]:
    """A function that seems to stand in a file of the loader, where blocking is watched."""
    names: dict[str, Callable[[], object]] = {}
    path = Path(loader.errors.__file__).with_name("made_up.py")
    exec(compile(f"import pathlib, time\ndef function():\n    {source}", path, "exec"), names)
    return names["function"]


@pytest.mark.parametrize("source", ["time.sleep(0.001)", f"pathlib.Path({__file__!r}).read_bytes()"])
async def test_the_loader_may_not_block_the_event_loop(source: str) -> None:
    blocks = as_if_in_loader(source)

    with pytest.raises(BlockingError):
        blocks()
    await asyncio.to_thread(blocks)


async def test_a_test_may_block() -> None:
    time.sleep(0.001)  # noqa: ASYNC251  # the point of the test


def test_sockets_off_loopback_are_refused(loopback_only: list[str]) -> None:
    with socket.socket() as sock, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for call in (
            lambda: sock.connect(("192.0.2.1", 9)),
            lambda: sock.bind(("0.0.0.0", 0)),
            lambda: sock.bind(("", 0)),
            lambda: datagrams.sendto(b"", ("192.0.2.1", 9)),
            lambda: socket.getaddrinfo("directory.invalid", 443),
        ):
            with pytest.raises(OSError, match="loopback"):
                call()

    assert len(loopback_only) == 5
    loopback_only.clear()


async def test_loopback_is_free() -> None:
    for host in ("127.0.0.1", "localhost"):
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), host, 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(server.sockets[0].getsockname()[0], port)
        assert await reader.read() == b""
        writer.close()
        server.close()
        await server.wait_closed()
