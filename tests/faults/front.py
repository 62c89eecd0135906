"""A server on loopback that reads requests, has them answered by a sandbox, and misbehaves on the wire.

It speaks HTTP by hand, as no server would let us do what this one does. A *misdeed* is done to some of the connections,
or to some of the requests with users; all others are treated as they should be.
"""

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Literal
from unittest.mock import patch

import trustme

from loader.network import Network
from loader.request import Request, Response
from loader.sandbox.api import path_of
from loader.sandbox.sandbox import Sandbox

#: What is slow takes so long in all; what takes longer than a client waits takes so long.
SLOW_S, TOO_SLOW_S = 0.1, 30.0

#: More than the client takes for an answer.
ENDLESS_BYTES = 4 << 20

GARBAGE = b"\x16\x03\x01 220 mail.example.com ESMTP\r\n\r\n"


@dataclass
class Talk:
    """One connection, or one request on it. `answer` has the sandbox answer that, which applies it."""

    writer: asyncio.StreamWriter
    elsewhere: str
    answer: Callable[[], Awaitable[Response]]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Whatever the other side does next on this connection is an error."""
        at_once = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.writer.transport.abort()


def wire(response: Response, *headers: bytes, body: bytes | None = None, length: int | None = None) -> bytes:
    """An answer as bytes; with another body, or a length that isn't the body's."""
    body = response.body if body is None else body
    own = [f"{name}: {value}".encode() for name, value in response.headers.items()]
    size = [] if response.status == 204 else [b"content-length: %d" % (len(body) if length is None else length)]
    return b"\r\n".join([b"HTTP/1.1 %d Some" % response.status, *own, *size, *headers]) + b"\r\n\r\n" + body


def _chunked(response: Response) -> bytes:
    return wire(Response(response.status), b"transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"")


# Misdeeds -------------------------------------------------------------------------------------------------------------


async def reset(talk: Talk) -> None:
    talk.reset()


async def slow(talk: Talk) -> None:
    await asyncio.sleep(SLOW_S)


async def hang(talk: Talk) -> None:
    await asyncio.sleep(TOO_SLOW_S)


async def answer_and_reset(talk: Talk) -> None:
    await talk.answer()
    talk.reset()


async def reset_within(talk: Talk) -> None:
    answer = wire(await talk.answer())
    await talk.send(answer[: len(answer) - 3])
    talk.reset()


async def close_unsaid(talk: Talk) -> None:
    """After a good answer: the next request on this connection meets nobody."""
    await talk.send(wire(await talk.answer()))
    talk.writer.close()


async def cut_chunk(talk: Talk) -> None:
    response = await talk.answer()
    await talk.send(_chunked(response) + b"%x\r\n" % len(response.body) + response.body[:-2])
    talk.writer.close()


async def no_last_chunk(talk: Talk) -> None:
    response = await talk.answer()
    await talk.send(_chunked(response) + b"%x\r\n%b\r\n" % (len(response.body), response.body))
    talk.writer.close()


async def length_too_great(talk: Talk) -> None:
    response = await talk.answer()
    await talk.send(wire(response, length=len(response.body) + 10))
    talk.writer.close()


async def length_too_small(talk: Talk) -> None:
    response = await talk.answer()
    await talk.send(wire(response, length=len(response.body) // 2))


async def dribble(talk: Talk) -> None:
    """Ten pieces, slowly."""
    answer = wire(await talk.answer())
    size = len(answer) // 10 + 1
    for at in range(0, len(answer), size):
        await talk.send(answer[at : at + size])
        await asyncio.sleep(SLOW_S / 10)


async def never_end(talk: Talk) -> None:
    """A byte now and then, for ever."""
    response = await talk.answer()
    await talk.send(wire(response, length=1_000_000))
    for _ in range(int(TOO_SLOW_S / 0.02)):
        await talk.send(b" ")
        await asyncio.sleep(0.02)


async def flood(talk: Talk) -> None:
    """As fast as it goes, for ever."""
    response = await talk.answer()
    await talk.send(_chunked(response))
    while True:
        await talk.send(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


async def announce_too_much(talk: Talk) -> None:
    await talk.send(wire(await talk.answer(), length=ENDLESS_BYTES))


async def bad_gzip(talk: Talk) -> None:
    await talk.send(wire(await talk.answer(), b"content-encoding: gzip"))


async def cut_gzip(talk: Talk) -> None:
    response = await talk.answer()
    await talk.send(wire(response, b"content-encoding: gzip", body=gzip.compress(response.body)[:-12]))


async def good_gzip(talk: Talk) -> None:
    """Which nobody asked for."""
    response = await talk.answer()
    await talk.send(wire(response, b"content-encoding: gzip", body=gzip.compress(response.body)))


async def garbage(talk: Talk) -> None:
    await talk.answer()
    await talk.send(GARBAGE)
    talk.writer.close()


async def interim(talk: Talk) -> None:
    await talk.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
    await talk.send(wire(await talk.answer()))


async def only_interim(talk: Talk) -> None:
    for _ in range(int(TOO_SLOW_S / 0.02)):
        await talk.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await asyncio.sleep(0.02)


async def redirect(talk: Talk) -> None:
    await talk.send(wire(Response(307), b"location: " + talk.elsewhere.encode()))


async def answer_twice(talk: Talk) -> None:
    """The second, a refusal, is nobody's."""
    await talk.send(wire(await talk.answer()) + wire(Response(403, {}, b'{"message":"for somebody else"}')))


@dataclass(frozen=True)
class Misdeed:
    """`at`: when it is done: to a connection as soon as it is there, behind the head of a request, or behind all of it.

    What is done to connections is done where each request has its own.
    """

    do: Callable[[Talk], Coroutine[Any, Any, None]]
    at: Literal["connection", "head", "request"] = "request"


Road = Literal["", "late", "closed", "unnamed", "nameless", "expired", "renewed"]
"""The way there: nothing listens on the port, at first or ever; its name is not known, at first or ever; its
certificate has expired, for good or until it is renewed in the midst of the load."""

#: No name server knows it.
NAME = "api.directory.test"

#: So long until something listens; so many times a name is not known, and so many connections meet the old certificate.
_LATE_S, _TIMES = 0.3, 3


# The server -----------------------------------------------------------------------------------------------------------


@dataclass
class Front:
    """Where it is, and how to get there. `misdeeds`: that were done; `strayed`: who came where a redirect leads."""

    sandbox: Sandbox
    misdeed: Misdeed | None
    first: int
    count: int
    url: str = ""
    network: Network = field(default_factory=Network)
    elsewhere: str = ""
    strayed: int = 0
    misdeeds: int = 0
    connections: int = 0
    requests: int = 0
    _tasks: set["asyncio.Task[None] | None"] = field(default_factory=set)
    _is_under_way: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def run(self, road: Road) -> AsyncIterator[None]:
        """Serve until the block ends. The misdeed is done to `count` connections, or requests, from `first` on."""
        tls = None
        with socket.socket() as port:
            port.bind(("127.0.0.1", 0))
            number = port.getsockname()[1]
            self.url = f"http://127.0.0.1:{number}"
            if road in ("expired", "renewed"):
                self.url = f"https://127.0.0.1:{number}"
                tls, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
                _certificate(is_expired=road == "expired").configure_cert(tls)
                _authority().configure_trust(trust)
                self.network = Network(tls=trust)
            if road in ("unnamed", "nameless"):
                self.url = f"http://{NAME}:{number}"
            other = await asyncio.start_server(self._stray, "127.0.0.1", 0)
            self.elsewhere = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}/"
            servers = [other]

            async def listen() -> None:
                await asyncio.sleep(_LATE_S if road == "late" else 0)
                servers.append(await asyncio.start_server(self._serve, sock=port, ssl=tls))

            async def renew() -> None:
                """The old certificate first shows when the load is under way, and is renewed soon after."""
                await self._is_under_way.wait()
                assert tls is not None
                _certificate(is_expired=True).configure_cert(tls)
                await asyncio.sleep(_LATE_S)
                _certificate(is_expired=False).configure_cert(tls)

            jobs = [asyncio.create_task(job()) for job in ([] if road == "closed" else [listen])]
            if road == "renewed":
                jobs.append(asyncio.create_task(renew()))
            with patch("socket.getaddrinfo", _resolver(_TIMES if road == "unnamed" else None)):
                try:
                    await asyncio.sleep(0.01)
                    yield
                finally:
                    for task in (*jobs, *self._tasks):
                        if task is not None:
                            task.cancel()
                    for server in servers:
                        server.close()

    async def _stray(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.strayed += 1
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection's end, whichever side it comes from, is nothing special."""
        self._tasks.add(asyncio.current_task())
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _hit(self, at: str, number: int) -> Misdeed | None:
        is_hit = self.misdeed is not None and self.misdeed.at == at and self.first <= number < self.first + self.count
        self.misdeeds += is_hit
        return self.misdeed if is_hit else None

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        if self.connections >= _TIMES:
            self._is_under_way.set()
        is_alone = writer.get_extra_info("ssl_object") is not None
        is_alone = is_alone or (self.misdeed is not None and self.misdeed.at == "connection")
        if misdeed := self._hit("connection", number):
            await misdeed.do(Talk(writer, self.elsewhere, _nothing))
        while not writer.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            line, *lines = head.decode().split("\r\n")
            method, path, _ = line.split(" ")
            headers = dict(each.split(": ", 1) for each in lines if each)
            is_data = self.sandbox.api.endpoint(path_of(path))[0] == "data"
            number, self.requests = self.requests, self.requests + is_data
            if is_data and (misdeed := self._hit("head", number)):
                await misdeed.do(Talk(writer, self.elsewhere, _nothing))
                return
            body = await reader.readexactly(int(headers.get("Content-Length", 0)))
            request = Request(method, path, body, headers)
            if is_data and (misdeed := self._hit("request", number)):
                await misdeed.do(Talk(writer, self.elsewhere, partial(self.sandbox.answer, request)))
                continue
            writer.write(wire(await self.sandbox.answer(request), *([b"connection: close"] if is_alone else [])))
            await writer.drain()
            if is_alone:
                return


async def _nothing() -> Response:
    raise AssertionError("there is no request yet")


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def _certificate(*, is_expired: bool) -> trustme.LeafCert:
    end = datetime(2020, 1, 1, tzinfo=UTC) if is_expired else None
    return _authority().issue_cert("127.0.0.1", not_after=end, not_before=datetime(2010, 1, 1, tzinfo=UTC))


def _resolver(fails: int | None) -> Callable[..., Any]:
    """The system's, but for NAME: that is this machine once it has not been known so many times (None: ever)."""
    known = socket.getaddrinfo
    asked = 0

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        if host != NAME:
            return known(host, port, *args, **kwargs)
        asked += 1
        if fails is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if asked <= fails:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return known("127.0.0.1", port, *args, **kwargs)

    return resolve
