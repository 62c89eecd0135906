"""Requests onto the wire by aiohttp, the only HTTP client here. Its errors become ours at this border.

Nothing is hidden beneath: no redirect is followed (credentials would travel), no cookie kept, no attempt repeated.
"""

import io
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

import aiohttp

from loader.errors import TransportError
from loader.request import Request, Response

Send = Callable[[Request], Awaitable[Response]]
"""One attempt: a request goes out, its answer comes back. Raises TransportError if none does."""

#: An answer longer than this is no answer of these APIs; it must not fill the memory.
MAX_ANSWER_BYTES = 64 << 20

USER_AGENT = "directory-loader"


class Transport(AbstractAsyncContextManager["Transport"]):
    """A pool of connections to one base URL. `connections` bounds those that are open."""

    def __init__(
        self, base_url: str, connections: int, timeout_s: float, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> None:
        self._base_url = base_url
        self._max_answer_bytes = max_answer_bytes
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections + 1),  # and one for the token call
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            # Not compressed: a gzip stream that is cut short looks whole to aiohttp, and a cut answer must not.
            headers={"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"},
        )
        # aiohttp sends PUT (and GET, DELETE …) again by itself when a connection breaks. There is no public switch; its
        # own TestClient uses this one. tests/test_transport.py tells should it go.
        self._session._retry_connection = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def __call__(self, request: Request) -> Response:
        """One attempt on the wire, at most `timeout_s` long. Raises TransportError."""
        started = time.perf_counter()
        try:
            async with self._session.request(
                request.method,
                self._base_url + request.path,
                data=io.BytesIO(request.body) if request.body else None,  # bytes of over 1 MiB make aiohttp warn
                headers=request.headers,
                allow_redirects=False,
            ) as answer:
                body = await self._whole(answer)
        except TimeoutError as error:
            raise TransportError(f"no whole answer within {self._timeout.total:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise TransportError(_plain(error)) from error
        headers = {name.lower(): _text(value) for name, value in answer.headers.items()}
        return Response(answer.status, headers, body, time.perf_counter() - started)

    async def _whole(self, answer: aiohttp.ClientResponse) -> bytes:
        if (answer.content_length or 0) > self._max_answer_bytes:
            raise TransportError(f"an answer of {answer.content_length:,} bytes is too long to be one")
        pieces: list[bytes] = []
        size = 0
        async for piece in answer.content.iter_any():
            size += len(piece)
            if size > self._max_answer_bytes:
                raise TransportError(f"the answer does not end after {size:,} bytes")
            pieces.append(piece)
        return b"".join(pieces)


def _plain(error: Exception) -> str:
    """What happened, in words a person can act on."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the certificate of {error.host} is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"can't connect to {error.host}:{error.port}: {_os_words(error.os_error)}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before the answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer broke off, or can't be unpacked"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the answer is not HTTP: {_line(error.message)}"
    if isinstance(error, OSError):
        return f"the connection broke: {_os_words(error)}"
    return f"{type(error).__name__}: {_line(str(error))}"


def _os_words(error: OSError) -> str:
    """asyncio puts a text of its own ("Connect call failed") in place of the system's, which says why."""
    if error.errno and not isinstance(error, socket.gaierror | ssl.SSLError):  # theirs are numbers of other lists
        return os.strerror(error.errno)
    return _line(error.strerror or str(error))


def _line(text: str, limit: int = 200) -> str:
    """Somebody else's text, as one printable line."""
    line = " ".join("".join(ch if ch.isprintable() else " " for ch in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _text(value: str) -> str:
    """A header without the lone surrogates that aiohttp makes of bytes that are not UTF-8: no file takes them."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
