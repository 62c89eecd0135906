"""Requests on real sockets, on loopback: every way an answer can go wrong is a TransportError in plain words."""

import asyncio
import gzip
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loader.errors import Stopped, TransportError
from loader.network import Network
from loader.request import Request, Response
from loader.sandbox import CalvenOptions, FaultOptions, Options, serve
from loader.sandbox.options import Fault
from loader.transport import Transport

SECRET = "a-secret-token"
REQUEST = Request(
    "POST", "/v1/x", b'{"a":1}', {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}, 1
)

# Made for this test: openssl req -x509 -newkey ec -nodes -days 36500 -addext subjectAltName=IP:127.0.0.1
SELF_SIGNED = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQghnL6O3uYPv0WF2nH
zRMJp57XEW0xayvABDnWXALbiaOhRANCAAS/8vPnRiYjnVrbBqwRuFqyvezxEc7o
lrQbLaNyZYScgPALMQzFYYsZ4q1B400KKdCSWVL45+GeizArZ1xktXGz
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBkTCCATagAwIBAgIUaEoUJOFeTyH5O6gOBf106B1hw88wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyMjAxMTczMloYDzIxMjYxMDI5
MDExNzMyWjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAS/8vPnRiYjnVrbBqwRuFqyvezxEc7olrQbLaNyZYScgPALMQzFYYsZ
4q1B400KKdCSWVL45+GeizArZ1xktXGzo2QwYjAdBgNVHQ4EFgQUprdw7Xo0ne2c
yrXSXqaYmnVESnMwHwYDVR0jBBgwFoAUprdw7Xo0ne2cyrXSXqaYmnVESnMwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0kAMEYC
IQDY9skCjHf7pfVvwViJ74pFpMEQ777xn1T4vA+NHqaCcAIhAPp/3a+boZfc4Sxa
RbUBK3TCDjAnZSszX/CzmPtAWZBc
-----END CERTIFICATE-----
"""

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Reads one request a connection, as raw bytes, and lets `script` do the rest."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.requests: list[bytes] = []
        self.url = ""

    @asynccontextmanager
    async def run(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Server"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._tasks: set[asyncio.Task[None] | None] = set()
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                if task is not None:
                    task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
            )
            self.requests.append(head + await reader.readexactly(length))
            await self._script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client hung up, or the test is over
        finally:
            writer.close()


def raw(data: bytes, *, stay: bool = False) -> Script:
    """Answers with these bytes, and then closes, or says nothing more."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if stay:
            await asyncio.sleep(30)

    return script


async def answer_of(script: Script, request: Request = REQUEST, timeout_s: float = 5.0) -> Response | str:
    """The answer, or the reason why there is none."""
    async with Server(script).run() as server, Transport(server.url, 2, timeout_s, max_answer_bytes=1 << 20) as send:
        try:
            return await send(request)
        except TransportError as error:
            reason = str(error)
    assert SECRET not in reason
    assert reason.isprintable()
    return reason


def http(body: bytes, *headers: bytes, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % (len(body) if length is None else length), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


OK = http(b"{}")


async def test_a_request_goes_out_as_it_is() -> None:
    """Method, path and body to the byte, our headers, none that let an answer be compressed or kept."""
    async with Server(raw(OK)).run() as server, Transport(server.url + "/base", 2, 5) as send:
        response = await send(REQUEST)

    head, body = server.requests[0].split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    assert lines[0] == "POST /base/v1/x HTTP/1.1"
    assert body == b'{"a":1}'
    assert headers["authorization"] == f"bearer {SECRET}"
    assert headers["accept-encoding"] == "identity"
    assert headers["content-length"] == "7"
    assert headers["user-agent"] == "directory-loader"
    assert (response.status, response.body) == (200, b"{}")
    assert 0 < response.elapsed_s < 5


async def test_a_token_may_come_from_elsewhere() -> None:
    """A path that is one of the URLs named for that is called as it stands; all others lie below the base URL."""
    async with Server(raw(OK)).run() as api, Server(raw(OK)).run() as login:
        url = f"{login.url}/oauth/token?x=1"
        async with Transport(f"{api.url}/base", 2, 5, network=Network(elsewhere={url: None})) as send:
            await send(Request("POST", url, b"grant_type=client_credentials"))
            await send(REQUEST)

    assert login.requests[0].startswith(b"POST /oauth/token?x=1 HTTP/1.1\r\n")
    assert [request.split(b"\r\n")[0] for request in api.requests] == [b"POST /base/v1/x HTTP/1.1"]


@pytest.mark.parametrize("path", ["http://127.0.0.1:1/token", "@127.0.0.1:1/token", "token", ""])
async def test_no_other_place_is_called(path: str) -> None:
    """Put behind the base URL, it might name another host, and credentials would go there."""
    async with Server(raw(OK)).run() as server, Transport(server.url, 2, 5) as send:
        with pytest.raises(Stopped, match="is no path below"):
            await send(Request("POST", path, b"secret"))

    assert server.requests == []


async def test_a_body_may_be_large() -> None:
    """Above 1 MiB aiohttp warns of bytes; warnings are errors here."""
    body = b"x" * (3 << 20)
    async with Server(raw(OK)).run() as server, Transport(server.url, 2, 5) as send:
        await send(Request("POST", "/", body))

    assert server.requests[0].endswith(b"\r\n\r\n" + body)


async def test_what_goes_out_may_be_packed() -> None:
    """If it is larger than a packet: then it says how, and is what it was."""
    network, large = Network(compress="gzip"), REQUEST.body * 1_000
    async with Server(raw(OK)).run() as server, Transport(server.url, 2, 5, network=network) as send:
        for body in (REQUEST.body, large):
            await send(Request("POST", "/", body))

    (head, plain), (packed_head, packed) = (said.split(b"\r\n\r\n", 1) for said in server.requests)
    assert plain == REQUEST.body
    assert b"content-encoding" not in head.lower()
    assert gzip.decompress(packed) == large
    assert b"\r\ncontent-encoding: gzip" in packed_head.lower()


@pytest.mark.parametrize("status", [201, 204, 301, 400, 401, 404, 413, 429, 500, 503, 599, 999])
async def test_every_status_is_an_answer(status: int) -> None:
    """What it means is for others to say."""
    body = b"" if status == 204 else b"<html>words</html>"
    response = await answer_of(raw(http(body, b"Retry-After: 7", b"X: a", b"X: b", status=b"%d Some" % status)))

    assert isinstance(response, Response)
    assert (response.status, response.body) == (status, body)
    assert response.headers["retry-after"] == "7"


GZIPPED = gzip.compress(b'{"results":[]}' * 100)
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the connection was closed before the answer"),
        (b"HTTP/1.1 200 OK\r\ncont", "the connection was closed before the answer"),
        (http(b"abc", length=10), "the answer broke off"),
        (CHUNKED + b"5\r\nab", "the answer broke off"),
        (CHUNKED + b"zz\r\nabc\r\n", "the answer is not HTTP"),
        (b"\x00\xff garbage\r\n\r\n", "the answer is not HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", "the answer is not HTTP"),
        (http(b"hello", b"content-encoding: gzip"), "the answer broke off, or can't be unpacked"),
        (http(b"hello", b"content-encoding: br"), "the answer is not HTTP: Can not decode"),
        (http(GZIPPED[:-8] + b"12345678", b"content-encoding: gzip"), "the answer broke off, or can't be unpacked"),
        (http(b"", length=2 << 20), "an answer of 2,097,152 bytes is too long to be one"),
    ],
)
async def test_what_is_no_answer_has_a_reason(data: bytes, reason: str) -> None:
    """One line that a person understands, without a secret, never another exception."""
    answer = await answer_of(raw(data))

    assert isinstance(answer, str)
    assert answer.startswith(reason)
    assert len(answer) < 250


@pytest.mark.parametrize(
    "before", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3]
)
async def test_interim_answers_are_passed_over(before: bytes) -> None:
    response = await answer_of(raw(before + OK))

    assert isinstance(response, Response)
    assert (response.status, response.body) == (200, b"{}")


@pytest.mark.parametrize(
    "data",
    [b"", b"HTTP/1.1 200", http(b"abc", length=10), b"HTTP/1.1 100 Continue\r\n\r\n" * 9, CHUNKED + b"1\r\na\r\n"],
)
async def test_timeout_s_is_for_the_whole_answer(data: bytes) -> None:
    """However far it came."""
    started = asyncio.get_running_loop().time()
    answer = await answer_of(raw(data, stay=True), timeout_s=0.2)

    assert answer == "no whole answer within 0.2 s"
    assert asyncio.get_running_loop().time() - started < 2


async def test_a_body_that_trickles_does_not_get_round_the_timeout() -> None:
    """Bytes that keep coming don't start the clock anew."""

    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    assert await answer_of(trickle, timeout_s=0.3) == "no whole answer within 0.3 s"


async def test_an_answer_without_end_does_not_fill_the_memory() -> None:
    """It ends at the longest that an answer can be."""

    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 100_000)
            await writer.drain()

    answer = await answer_of(endless)
    assert isinstance(answer, str)
    assert answer.startswith("the answer does not end after 1,")


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\n", http(b"abc", length=10)])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "GET"])
async def test_a_reset_is_told_and_nothing_is_sent_again(method: str, part: bytes) -> None:
    """aiohttp would repeat PUT and GET by itself; each attempt must be ours, paid and counted."""

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(part)
        await writer.drain()
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with Server(reset).run() as server, Transport(server.url, 2, 5) as send:
        with pytest.raises(TransportError, match=r"connection broke: .*reset|broke off|closed before"):
            await send(Request(method, "/", b"{}"))

    assert len(server.requests) == 1


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_dropped_idle_connection_is_one_failed_attempt(method: str) -> None:
    """A server that closes after each answer without saying so: the request after it is not repeated beneath us."""
    arrived = 0

    async def serve_one_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        writer.write(OK)
        await writer.drain()
        await reader.read(1)
        arrived += 1
        writer.transport.abort()

    async with Server(serve_one_more).run() as server, Transport(server.url, 1, 5) as send:
        await send(Request(method, "/", b"{}"))
        with pytest.raises(TransportError, match=r"closed before|connection broke"):
            await send(Request(method, "/", b"{}"))

    assert arrived == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """The credentials would travel."""
    async with Server(raw(OK)).run() as elsewhere:
        to = b"location: " + elsewhere.url.encode()
        response = await answer_of(raw(http(b"", to, status=b"%d Moved" % status)))
        await asyncio.sleep(0.05)

    assert isinstance(response, Response)
    assert response.status == status
    assert elsewhere.requests == []


async def test_no_cookie_is_kept() -> None:
    async with (
        Server(raw(http(b"{}", b"set-cookie: a=b", b"connection: close"))).run() as server,
        Transport(server.url, 1, 5) as send,
    ):
        await send(REQUEST)
        await send(REQUEST)

    assert not any(b"cookie" in request.lower() for request in server.requests)


async def test_headers_that_are_not_text_can_be_written_down() -> None:
    """Bytes that are not UTF-8 become U+FFFD and no lone surrogates, which no file or database takes."""
    response = await answer_of(raw(http(b"{}", b"location: /\xff\xfe", b"x: \xc3\xa9")))

    assert isinstance(response, Response)
    assert response.headers["location"] == "/\ufffd\ufffd"
    assert response.headers["x"] == "é"


async def test_a_closed_port_is_named() -> None:
    """Host, port and the system's own words."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with Transport(f"http://127.0.0.1:{port}", 1, 5) as send:
            with pytest.raises(TransportError) as error:
                await send(REQUEST)

    assert str(error.value) == f"can't connect to 127.0.0.1:{port}: Connection refused"


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    """TLS is verified: nothing is sent, nor tried again; the reason says what is wrong and what to do."""
    pem = tmp_path / "server.pem"
    pem.write_text(SELF_SIGNED)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = Server(raw(OK))
    async with server.run(context), Transport(server.url, 1, 5) as send:
        with pytest.raises(Stopped, match=r"certificate of 127.0.0.1 is not trusted: self-signed .*network.ca_file"):
            await send(REQUEST)

    assert server.requests == []


@pytest.mark.parametrize("fault", ["reset", "lost", "torn", "garbage", "truncated", "502"])
async def test_the_faults_of_the_sandbox(fault: Fault) -> None:
    """Cut connections are TransportErrors; whatever else comes is an answer."""
    options = Options(calven=CalvenOptions(token=SECRET), faults=FaultOptions(rates={fault: 1.0}))
    body = b'{"userAttributes":[{"userName":"a","attributes":{"n":"1"}}]}'
    request = Request("POST", "/v1/directory/user-attributes", body, REQUEST.headers, 1)
    async with serve(options) as sandbox, Transport(sandbox.url, 2, 5) as send:
        if fault in ("reset", "lost", "torn"):
            with pytest.raises(TransportError):
                await send(request)
        else:
            assert (await send(request)).status == (502 if fault == "502" else 200)


async def test_a_cancelled_request_leaves_the_pool_usable() -> None:
    """With a single connection the next request still goes through."""
    scripts = [raw(b"", stay=True), raw(OK)]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await scripts.pop(0)(reader, writer)

    async with Server(script).run() as server, Transport(server.url, 1, 5) as send:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await send(REQUEST)
        assert (await send(REQUEST)).status == 200


async def test_any_bytes_are_an_answer_or_a_reason() -> None:
    """A good answer damaged at random, cut, doubled or replaced: a Response or a TransportError, nothing else."""
    dice = random.Random(5)
    reasons: list[str] = []
    good = [
        OK,
        http(GZIPPED, b"content-encoding: gzip", b"connection: keep-alive"),
        CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    ]

    def damaged() -> bytes:
        data = bytearray(dice.choice(good))
        for _ in range(dice.randint(1, 8)):
            at = dice.randrange(len(data) + 1)
            data[at : at + dice.choice([0, 1, 1, 5])] = dice.choice(
                [b"", dice.randbytes(1), b"\r\n", b"\x00", b"9" * 20, bytes(data[:at])]
            )
        return bytes(data)

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(damaged())

    async with Server(script).run() as server, Transport(server.url, 4, 0.5, max_answer_bytes=1 << 20) as send:
        for _ in range(400):
            try:
                assert isinstance(await send(REQUEST), Response)
            except TransportError as error:
                reasons.append(str(error))

    assert len(reasons) > 100
    assert all(reason.isprintable() and SECRET not in reason for reason in reasons)
