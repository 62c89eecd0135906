"""An export on a web server, by https. What a server can't do is found out: ranges, a length, versions.

Redirects are followed by hand: never from https to http, and what the settings add to a request stays with the host
that it was written for. Each request begins at the address that was given, as what it leads to may hold for minutes.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from loader.export.address import Access, Changed, Denied, Seen, Trouble, line_of, missing, shown
from loader.network import is_loopback, tls_of

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_CONNECT_S, _READ_S = 10.0, 30.0
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
#: May be better in a moment: timeout, too early, too many requests; and all from 500 on.
_LATER = (408, 425, 429)
_STREAMED_BYTES = 1 << 18
_WAYS_OUT = {
    401: "; it wants to know who is asking: export.storage.headers",
    403: "; if the address was signed, its time may be over: get a new one; else see export.storage.headers",
    404: "; is the address right?",
    407: "; that is the proxy: network.proxy, or HTTPS_PROXY",
}


class Page:
    """What one address holds."""

    def __init__(self, url: str, access: Access) -> None:
        self._url = url
        self._access = access

    def look(self) -> Seen:
        """By GET, as an address that was signed for that refuses HEAD."""
        with self._answer({"Range": "bytes=0-0"}, allowed=(416,)) as answer:
            headers = answer.headers
            size: int | None = None
            has_ranges = answer.status != 200
            if has_ranges:
                with _told():
                    answer.read(decode_content=False)
                size = _total(headers)
                if size is None or (answer.status == 416 and size):
                    raise Denied(f"the server takes ranges, and its answer makes no sense: {_range(headers)!r}")
            elif headers.get("Content-Length", "").isdecimal() and len(headers["Content-Length"]) < 20:
                size = int(headers["Content-Length"])
            has_end = has_ranges or size is not None or _is_chunked(headers)
            return Seen(size, headers.get("ETag", ""), _modified(headers), has_ranges, has_end)

    def fetch(self, start: int, stop: int, seen: Seen) -> bytes:
        with self._answer({"Range": f"bytes={start}-{stop - 1}"} | _if_same(seen), allowed=(416,)) as answer:
            _check(answer, seen)
            if answer.status == 200:
                raise Trouble("the server took ranges before, and doesn't now")
            if _total(answer.headers) != seen.size:
                raise Changed
            if not _range(answer.headers).startswith(f"bytes {start}-"):
                raise Trouble(f"the server gives another range than it was asked for: {_range(answer.headers)!r}")
            with _told():
                data: bytes = answer.read(decode_content=False)
        if len(data) != stop - start:
            raise Trouble(f"the answer has {len(data):,} bytes instead of {stop - start:,}")
        return data

    def stream(self, seen: Seen) -> Iterator[bytes]:
        with self._answer(_if_same(seen)) as answer:
            _check(answer, seen)
            if seen.size is not None and answer.headers.get("Content-Length") != str(seen.size):
                raise Changed
            if seen.size is None and seen.has_end and not _is_chunked(answer.headers):
                raise Trouble("the server told before where it ends, and doesn't now")
            with _told():
                yield from answer.stream(_STREAMED_BYTES, decode_content=False)

    @contextmanager
    def _answer(self, headers: Mapping[str, str], allowed: tuple[int, ...] = ()) -> Iterator["BaseHTTPResponse"]:
        """The answer at the end of all redirects, if it is good or `allowed`; its body is not read yet."""
        answer = self._asked(headers)
        try:
            if answer.status == 412:
                raise Changed
            if answer.status in _LATER or answer.status >= 500:
                raise Trouble(f"the server says {answer.status} {answer.reason or ''}".rstrip())
            if answer.status not in (200, 206, *allowed):
                way_out = _WAYS_OUT.get(answer.status, "")
                raise Denied(f"the server says {answer.status} {answer.reason or ''}".rstrip() + way_out)
            yield answer
        finally:
            answer.close()  # what was read to its end has given its connection back; of the rest, gigabytes may come

    def _asked(self, headers: Mapping[str, str]) -> "BaseHTTPResponse":
        """The answer; asked once more if the secret that we showed was changed for another meanwhile."""
        shows = self._access.headers()
        answer = self._asked_as(shows, headers)
        if answer.status in (401, 403) and (now := self._access.headers()) != shows:
            answer.close()
            answer = self._asked_as(now, headers)
        return answer

    def _asked_as(self, shows: Mapping[str, str], headers: Mapping[str, str]) -> "BaseHTTPResponse":
        try:
            from urllib3 import Timeout
        except ImportError as error:
            raise missing("an export on a web server", "https") from error
        url = self._url
        own = {**shows, **headers, "Accept-Encoding": "identity"}
        for _ in range(_MOST_REDIRECTS + 1):
            if _origin(url) != _origin(self._url):
                own = {**headers, "Accept-Encoding": "identity"}
            with _told():
                answer: BaseHTTPResponse = self._pool(url).request(
                    "GET",
                    url,
                    headers=own,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    timeout=Timeout(connect=_CONNECT_S, read=_READ_S),
                )
            if answer.status not in _REDIRECTS or not (to := answer.headers.get("Location")):
                return answer
            answer.close()
            url = _led(url, to)
            if not _is_safe(url, self._url):
                raise Denied(f"it leads to {_place(url)}, and only https is followed")
        raise Denied(f"it leads on and on: more than {_MOST_REDIRECTS} redirects")

    def _pool(self, url: str) -> Any:
        """Connections to where the address leads."""
        import urllib3

        proxy = self._access.proxy(url)
        key = proxy.url if proxy else ""
        pools = self._access.connections
        if key not in pools:
            ca_file = self._access.ca_file
            trusted = tls_of(ca_file, None, None) if ca_file else ssl.create_default_context()
            if proxy is None:
                pools[key] = urllib3.PoolManager(maxsize=8, ssl_context=trusted)
            else:
                shows = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else None
                pools[key] = urllib3.ProxyManager(
                    proxy.url, maxsize=8, ssl_context=trusted, proxy_ssl_context=trusted, proxy_headers=shows
                )
        return pools[key]


@contextmanager
def _told() -> Iterator[None]:
    """urllib3's errors as ours."""
    from urllib3.exceptions import HTTPError, LocationValueError, ProxyError, SSLError

    try:
        yield
    except (SSLError, ProxyError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise Denied(
                f"its certificate is not trusted ({line_of(error)}); network.ca_file names an authority of your own"
            ) from error
        if any(f"Tunnel connection failed: {status}" in str(error.args) for status in (403, 407)):
            raise Denied(f"the proxy refuses: {line_of(error)}; see network.proxy, or HTTPS_PROXY") from error
        raise Trouble(line_of(error)) from error
    except LocationValueError as error:
        raise Denied(line_of(error)) from error
    except UnicodeEncodeError as error:  # its own words would show a part of what can't be sent
        raise Denied("a header of export.storage.headers has letters that HTTP can't send: only Latin-1's") from error
    except (HTTPError, OSError) as error:
        raise Trouble(line_of(error)) from error


def _if_same(seen: Seen) -> dict[str, str]:
    """RFC 9110, 13.1.1: a weak tag never matches here. Of that, and of a time, our own eye takes care."""
    return {"If-Match": seen.tag} if seen.tag.startswith('"') else {}


def _check(answer: "BaseHTTPResponse", seen: Seen) -> None:
    tag = answer.headers.get("ETag", "")
    if tag != seen.tag or (not tag and _modified(answer.headers) != seen.mtime_ns):
        raise Changed


def _is_chunked(headers: Mapping[str, str]) -> bool:
    return "chunked" in headers.get("Transfer-Encoding", "").lower()


def _range(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Range", "")


def _total(headers: Mapping[str, str]) -> int | None:
    total = _range(headers).rpartition("/")[2]
    return int(total) if total.isdecimal() and len(total) < 20 else None  # more is none, and int() may refuse it


def _modified(headers: Mapping[str, str]) -> int:
    """Last-Modified in nanoseconds; 0 if it isn't told."""
    try:
        return int(parsedate_to_datetime(headers["Last-Modified"]).timestamp()) * 1_000_000_000
    except (KeyError, ValueError, TypeError, OverflowError):
        return 0


def _led(url: str, to: str) -> str:
    """Where a redirect from `url` leads. Raises Denied if that is no address."""
    try:
        found = urljoin(url, to)
        urlsplit(found).port  # noqa: B018  # reading it checks it
    except ValueError as error:
        raise Denied("it leads to what is no address") from error
    return found


def _place(url: str) -> str:
    """An address without who asks and the rest that may be secret."""
    parts = urlsplit(url)
    return shown(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _is_safe(url: str, given: str) -> bool:
    """May a request that began at `given` go on there? Over plain http only on this machine, and from there."""
    parts, before = urlsplit(url), urlsplit(given)
    if parts.scheme == "https":
        return True
    return parts.scheme == before.scheme == "http" and is_loopback(parts.hostname or "")
