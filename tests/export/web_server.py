"""A web server for exports, on loopback: with ranges and versions or without, and as unreliable as one asks."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

PAUSE_S = 0.01


@dataclass
class WebServer:
    """What it serves, and how. Each answer looks at this as it is then.

    `drops`: so many answers break off in their middle; `fails`: so many say `status`; `latency_s`: of each.
    `is_chunked`: without a length; `is_endless`: without an end, too. `asked`: each request's range, `seen`: its
    headers.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    has_ranges: bool = True
    has_tags: bool = True
    has_times: bool = True
    is_chunked: bool = False
    is_endless: bool = False
    drops: int = 0
    fails: int = 0
    status: int = 503
    latency_s: float = 0.0
    moved: dict[str, str] = field(default_factory=dict)
    wants: dict[str, str] = field(default_factory=dict)
    query: str = ""
    on_range: Callable[[int], object] = lambda _start: None
    asked: list[tuple[str, str]] = field(default_factory=list)
    seen: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def tag(self, name: str) -> str:
        return f'"{sha256(self.files[name]).hexdigest()[:16]}"'


def handler_of(server: WebServer) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            name, _, query = self.path.lstrip("/").partition("?")
            wanted = self.headers.get("Range", "")
            with lock:
                server.asked.append((name, wanted))
                server.seen.append({key.lower(): value for key, value in self.headers.items()})
                is_failing, server.fails = server.fails > 0, max(server.fails - 1, 0)
            time.sleep(server.latency_s)
            if is_failing:
                return self._say(server.status)
            if name in server.moved:
                return self._say(302, Location=server.moved[name])
            if any(self.headers.get(key) != value for key, value in server.wants.items()) or query != server.query:
                return self._say(403)
            if name not in server.files:
                return self._say(404)
            if wanted and server.has_ranges:
                server.on_range(int(wanted.removeprefix("bytes=").partition("-")[0]))
            data = server.files[name]
            headers = {"ETag": server.tag(name)} if server.has_tags else {}
            if server.has_times:
                headers["Last-Modified"] = "Sun, 01 Nov 2026 00:00:00 GMT"
            if server.has_tags and self.headers.get("If-Match", server.tag(name)) != server.tag(name):
                return self._say(412)
            if not wanted or not server.has_ranges:
                return self._send(200, data, headers)
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1, len(data))
            if start >= len(data):
                return self._say(416, **{"Content-Range": f"bytes */{len(data)}"})
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            return self._send(206, data[start:stop], headers)

        def _say(self, status: int, **headers: str) -> None:
            self._send(status, b"", headers)

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self._is_chunked = server.is_chunked and status == 200
            if self._is_chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif server.is_endless and status == 200:
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with lock:
                is_dropped = server.drops > 0 and len(data) > 1
                server.drops -= is_dropped
            try:
                if is_dropped:
                    self._body(data[: len(data) // 2])
                    self.close_connection = True
                    self.connection.close()
                    return
                self._body(data)
                if self._is_chunked:
                    self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.close_connection = True  # nobody wants the rest

        def _body(self, data: bytes) -> None:
            if not self._is_chunked:
                self.wfile.write(data)
                return
            for at in range(0, len(data), 1 << 16):
                part = data[at : at + (1 << 16)]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

    return Handler


class _Httpd(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that goes away is nothing to talk about."""


@contextmanager
def serving(server: WebServer, authority: trustme.CA | None = None) -> Iterator[WebServer]:
    """The server, until the block ends; `https` with a certificate of that authority, else plain."""
    httpd = _Httpd(("127.0.0.1", 0), handler_of(server))
    scheme = "http"
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "https"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": PAUSE_S}, daemon=True)
    thread.start()
    server.url = f"{scheme}://127.0.0.1:{httpd.server_port}"
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def trust(folder: Path, authority: trustme.CA) -> Path:
    """A file with the authority's certificate."""
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path
