"""A run on a page, live: read-only, on loopback, and only for who knows the token in its address."""

import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import anyio
import msgspec
import orjson
from aiohttp import web
from anyio import to_thread

from loader.advice import ADVICE
from loader.checkpoint import Moment
from loader.show.listening import listening, taken
from loader.show.pages import page
from loader.show.report import columns
from loader.show.telemetry import About
from loader.snapshot import Snapshot

_HOST = "127.0.0.1"

#: So many moments are kept: when there are more, every other one of the older half goes.
_MOMENTS = 1_200

#: Nothing is loaded from anywhere, and nobody else's page may hold this one or learn its address.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Live:
    """What the page shows: the newest snapshot, and the course of this run."""

    def __init__(self) -> None:
        self.newest: Snapshot | None = None
        self.changed = anyio.Event()
        self.is_over = False
        self._course: list[Moment] = []

    def watch(self, snapshot: Snapshot) -> None:
        """Take the next snapshot."""
        self.newest = snapshot
        self._course.append(Moment.of(snapshot))
        if len(self._course) > _MOMENTS:
            half = _MOMENTS // 2
            self._course[:half] = self._course[:half:2]
        self._wake()

    def end(self) -> None:
        """There are no more."""
        self.is_over = True
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    def data(self) -> bytes:
        """All that the page shows, as JSON on one line."""
        if self.newest is None:
            return b"null"
        now = self.newest.shown
        facts: dict[str, Any] = msgspec.to_builtins(now)
        facts["outcomes"] = [
            {"code": code, "rows": rows, "is_good": code in now.good, "meaning": ADVICE[code].meaning}
            for code, rows in sorted(now.counts.items(), key=lambda item: -item[1])
        ]
        facts["waits"] = now.why if now.trouble is not None else ""
        facts["words"] = [*([now.why] if now.why and now.trouble is None else []), *now.found.words()]
        return orjson.dumps({"now": facts, "course": columns([self._course])})


def prepared(port: int) -> "contextlib.AbstractContextManager[Sequence[socket.socket]]":
    """Where the page will be, from now on nobody else's. Raises Refused if nobody can listen at `port`."""
    return taken(_HOST, port, "--dashboard")


@contextlib.asynccontextmanager
async def dashboard(
    at: Sequence[socket.socket], about: About, say: Callable[[str], None]
) -> AsyncIterator[Callable[[Snapshot], None]]:
    """Serve the page, and show there each snapshot that is given. `at`: what prepared() gave."""
    live, token = Live(), secrets.token_urlsafe(24)
    app = web.Application(middlewares=[_only_for(token)])
    app.router.add_get("/", _page(about, token), allow_head=False)
    app.router.add_get("/events", _events(live), allow_head=False)
    async with listening(app, at) as address:
        say(f"loader: the dashboard is at {address}/?token={token}")
        try:
            yield live.watch
        finally:
            live.end()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.1)  # whoever looks is told


def _only_for(token: str) -> Any:
    """Not for whoever guesses the port, nor for a page of another name that resolves to this machine."""

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        shown = request.query.get("token", "").encode("utf-8", "replace")  # of texts, only ASCII can be compared
        if not _is_here(request.headers.get("Host", "")) or not secrets.compare_digest(shown, token.encode()):
            return web.Response(status=403, text="This page's whole address is told when the run begins.\n")
        response: web.StreamResponse = await handler(request)
        return response

    return guard


def _is_here(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return urlsplit(f"//{host}").hostname in (_HOST, "localhost")
    return False


def _page(about: About, token: str) -> Any:
    async def shown(_request: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        text = await to_thread.run_sync(partial(page, "dashboard.html", about=about, token=token, nonce=nonce))
        headers = {name: value.format(nonce=nonce) for name, value in _HEADERS.items()}
        return web.Response(text=text, content_type="text/html", headers=headers)

    return shown


def _events(live: Live) -> Any:
    """Server-sent events: each snapshot as it comes, and the end."""

    async def told(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                changed, is_over = live.changed, live.is_over
                await response.write(b"event: %s\ndata: %s\n\n" % (b"end" if is_over else b"now", live.data()))
                if is_over:
                    break
                await changed.wait()
        return response

    return told
