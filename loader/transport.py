"""Requests onto the wire by aiohttp, the only HTTP client here. Its errors become ours at this border.

Nothing is hidden beneath: no redirect is followed (credentials would travel), no cookie kept, no attempt repeated.
"""

import gzip
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
from anyio import to_thread

from loader.errors import Stopped, TimedOut, TransportError
from loader.network import Network, Proxy
from loader.request import Request, Response

Send = Callable[[Request], Awaitable[Response]]
"""One attempt: a request goes out, its answer comes back. Raises TransportError if none does, Stopped if none can."""

#: An answer longer than this is no answer of these APIs; it must not fill the memory.
MAX_ANSWER_BYTES = 64 << 20

_ONE_PIECE_BYTES = 1 << 20

#: A body that fits into one packet is no quicker when it is smaller. gzip's quickest level makes an eighth of records.
_PACKET_BYTES, _QUICK = 1_400, 1

USER_AGENT = "directory-loader"


class Transport(AbstractAsyncContextManager["Transport"]):
    """A pool of connections to one base URL. `connections` bounds those that are open."""

    def __init__(
        self,
        base_url: str,
        connections: int,
        timeout_s: float,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        network: Network = Network(),  # noqa: B008  # frozen
    ) -> None:
        self._base_url = base_url
        self._network = network
        self._answered: set[str] = set()  # places that are to be trusted: the base URL, or one elsewhere
        self._max_answer_bytes = max_answer_bytes
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def __aenter__(self) -> Self:
        tls = self._network.tls
        self._session = aiohttp.ClientSession(
            # One connection more is for the token call. ssl=True: the system's authorities.
            connector=aiohttp.TCPConnector(limit=self._connections + 1, ssl=True if tls is None else tls),
            # aiohttp would look for a proxy by itself, but then takes passwords from ~/.netrc for the API, too.
            trust_env=False,
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
        """One attempt on the wire, at most `timeout_s` long. Raises TransportError, or Stopped if none can succeed."""
        place, proxy = self._place(request.path)
        body, headers = request.body, request.headers
        if self._network.compress and len(body) > _PACKET_BYTES:  # on a thread: others may send meanwhile
            body = await to_thread.run_sync(gzip.compress, body, _QUICK)
            headers = {**headers, "Content-Encoding": self._network.compress}
        started = time.perf_counter()
        try:
            answer = await self._session.request(
                request.method,
                place if place == request.path else place + request.path,
                data=_data(body),
                headers=headers,
                allow_redirects=False,
                proxy=proxy.url if proxy else None,
                proxy_headers={"Proxy-Authorization": proxy.authorization} if proxy and proxy.authorization else None,
            )
            said = await self._whole(answer)
        except TimeoutError as error:
            raise TimedOut(f"no whole answer within {self._timeout.total:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if self._is_final(error, place):
                raise Stopped(_plain(error)) from error
            raise TransportError(_plain(error) + self._hint(error, place)) from error
        self._answered.add(place)
        found = {name.lower(): _text(value) for name, value in answer.headers.items()}
        return Response(answer.status, found, said, time.perf_counter() - started)

    def _place(self, path: str) -> tuple[str, Proxy | None]:
        """The base URL, or the one elsewhere that `path` is, and the proxy on the way. Credentials go nowhere else."""
        if path in self._network.elsewhere:
            return path, self._network.elsewhere[path]
        if not path.startswith("/"):
            raise Stopped(f"{path!r} is no path below {self._base_url}, and not where tokens come from")
        return self._base_url, self._network.proxy

    def _is_final(self, error: Exception, place: str) -> bool:
        """Would every other attempt end like this one?

        A proxy that refuses us, certainly: and wrong passwords, repeated, lock accounts. A certificate that nobody
        vouches for, if it was never any better; one that goes bad later is being replaced, perhaps.
        """
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return 400 <= error.status < 500 and error.status not in (408, 425, 429)
        return isinstance(error, aiohttp.ClientConnectorCertificateError) and place not in self._answered

    def _hint(self, error: Exception, place: str) -> str:
        """A server that misses our certificate says so as it closes (TLS 1.3), and uvloop loses these words."""
        is_cut = isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError)
        if is_cut and place not in self._answered and place.startswith("https:"):
            return "; does it want a client certificate (network.client_cert)?"
        return ""

    async def _whole(self, answer: aiohttp.ClientResponse) -> bytes:
        """The body. At its end the connection is free again; without it, no other request may have that."""
        try:
            if (answer.content_length or 0) > self._max_answer_bytes:
                raise TransportError(f"an answer of {answer.content_length:,} bytes is too long to be one")
            pieces: list[bytes] = []
            size = 0
            while not answer.content.at_eof():
                piece = await answer.content.readany()
                size += len(piece)
                if size > self._max_answer_bytes:
                    raise TransportError(f"the answer does not end after {size:,} bytes")
                pieces.append(piece)
            return b"".join(pieces)
        except BaseException:
            answer.close()
            raise


def _data(body: bytes) -> bytes | io.BytesIO | None:
    """A body as aiohttp takes it. Bytes go out in one piece, but over 1 MiB of them make it warn."""
    return (body if len(body) <= _ONE_PIECE_BYTES else io.BytesIO(body)) or None


def _plain(error: Exception) -> str:
    """What happened, in words a person can act on."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _refused_by_proxy(error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the certificate of {error.host} is not trusted: {_distrust(error.certificate_error)}"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"can't connect to the proxy {error.host}:{error.port}: {_os_words(error.os_error)}"
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


def _refused_by_proxy(error: aiohttp.ClientHttpProxyError) -> str:
    way_out = {
        407: '; it wants a user and a password: network.proxy = "http://user:password@host:port"',
        403: "; it has to allow this address",
    }.get(error.status, "")
    host = error.request_info.url.host
    return f"the proxy does not connect to {host}: HTTP {error.status} {_line(error.message)}{way_out}"


def _distrust(error: Exception) -> str:
    """Why a certificate is refused, without OpenSSL's own names."""
    reason = getattr(error, "verify_message", "") or _line(str(error))
    if any(word in reason for word in ("issuer", "self-signed", "self signed")):
        return f"{reason}; if that authority is your own, name its PEM file in network.ca_file"
    return reason


#: What OpenSSL calls `reason`, in words that say what to do.
_TLS_WORDS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate (network.client_cert)",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses the handshake; it may want a client certificate (network.client_cert)",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who issued our certificate (network.client_cert)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses our certificate (network.client_cert)",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired (network.client_cert)",
    "WRONG_VERSION_NUMBER": "it does not speak TLS; is the port right, or the address http:// and not https://?",
    "RECORD_LAYER_FAILURE": "it does not speak TLS; is the port right, or the address http:// and not https://?",
}


def _os_words(error: OSError) -> str:
    """asyncio puts a text of its own ("Connect call failed") in place of the system's, which says why."""
    if isinstance(error, ssl.SSLError) and error.reason in _TLS_WORDS:
        return _TLS_WORDS[error.reason]
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
