"""The layers between a batch and the wire, each a function from `Send` to `Send`.

    gate( pace( bearer( transport )))

*gate* is outermost, so that a place on the wire is held by who is about to use it, and a retry that waits for its
backoff holds none. *pace* comes next, so that every attempt pays. *bearer* stands near the wire, so that a token is
fetched after the wait, not before it grows old. The transport has the deadline: it covers the wire alone.
"""

import random
import time
from collections.abc import Callable, Mapping

import anyio
from aiolimiter import AsyncLimiter

from loader.errors import Refused, Stopped, TransportError
from loader.lane import Lane
from loader.request import Request, Response
from loader.retry import backoff_s, retry_after_s
from loader.tokens import Scheme, Token, read_token
from loader.transport import Send
from loader.verdict import Do, by_status, words


def gate(send: Send, concurrency: int) -> Send:
    """At most `concurrency` requests at once on the wire or about to be."""
    places = anyio.Semaphore(concurrency, fast_acquire=True)

    async def gated(request: Request) -> Response:
        async with places:
            return await send(request)

    return gated


def pace(send: Send, lane: Lane, limiter: AsyncLimiter | None) -> Send:
    """Wait for the lane to be free and for the quota. Raises Abandoned if the run stops meanwhile."""

    async def paced(request: Request) -> Response:
        await lane.clearance()
        if limiter is not None:
            await limiter.acquire()
            await lane.clearance()
        lane.attempts += 1
        lane.on_wire += 1
        try:
            return await send(request)
        finally:
            lane.on_wire -= 1

    return paced


def limiter_of(rate: float) -> AsyncLimiter:
    """A limiter for `rate` requests a second that holds in every window of 2 s or longer.

    A full AsyncLimiter(1000, 60) lets 1,999 requests through in its first minute (measured). So the bucket is small,
    20 ms of the rate and at least one request, and it leaks 1 % slower than the quota, which over 2 s makes up for what
    the bucket holds.
    """
    bucket = max(1.0, rate * 0.02)
    return AsyncLimiter(bucket, bucket / (rate * 0.99))


def bearer(send: Send, credentials: "Credentials", refuses: Callable[[Response], bool]) -> Send:
    """Authorize each request, and tell the credentials whether their token was taken. `refuses` reads an answer."""

    async def authorized(request: Request) -> Response:
        token = await credentials.token()
        headers = {**request.headers, "Authorization": token.authorization}
        response = await send(Request(request.method, request.path, request.body, headers, request.users))
        if refuses(response):
            credentials.refused(token, words(response))
        else:
            credentials.accepted(token)
        return response

    return authorized


class Credentials:
    """The current token, fetched once for all who wait for it.

    `secrets` reads the credentials anew for each fetch, so that a rotated secret is taken up. `send` pays the pace like
    any attempt.
    """

    def __init__(
        self,
        scheme: Scheme,
        secrets: Callable[[], Mapping[str, str]],
        send: Send,
        lane: Lane,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheme = scheme
        self._secrets = secrets
        self._send = send
        self._lane = lane
        self._uniform = uniform
        self._wall = wall
        self._monotonic = monotonic
        self._lock = anyio.Lock(fast_acquire=True)
        self._token: Token | None = None
        self._is_accepted = False
        self._after_refusal = False
        self.calls = 0

    async def token(self) -> Token:
        """A token that is not due for renewal. Raises Stopped if the credentials are refused."""
        if (token := self._current()) is not None:
            return token
        async with self._lock:
            if (token := self._current()) is None:  # nobody fetched it while we waited
                token = self._token = await self._fetch()
                self._is_accepted = False
            return token

    def accepted(self, token: Token) -> None:
        """A request with `token` was not refused for it."""
        if token is self._token:
            self._is_accepted = True
            self._after_refusal = False

    def refused(self, token: Token, reason: str) -> None:
        """A request with `token` was refused: the next one fetches another, once for all who were refused with it.

        Raises Stopped if it was fresh: fetched after the refusal before, never accepted, younger than its lifetime.
        """
        if token is not self._token:
            return
        if self._after_refusal and not self._is_accepted and not token.is_expired(self._wall(), self._monotonic()):
            raise Stopped(f"the credentials are not accepted: {reason}")
        self._token = None
        self._after_refusal = True

    def _current(self) -> Token | None:
        token = self._token
        return None if token is None or token.is_due(self._wall(), self._monotonic()) else token

    async def _fetch(self) -> Token:
        call = self._scheme.call
        if call is None:
            assert self._scheme.header is not None
            return Token(self._scheme.header(self._read_secrets()))
        failures = 0
        while True:
            wall, monotonic = self._wall(), self._monotonic()
            self.calls += 1
            wait = None
            try:
                response = await self._send(call(self._read_secrets(), wall))
            except TransportError as error:
                reason = str(error)
            else:
                reason = words(response)
                if 200 <= response.status < 300:
                    if (token := read_token(response, wall, monotonic)) is not None:
                        return token
                    reason = f"no token in the answer of the token endpoint (HTTP {response.status})"
                else:
                    do = by_status(response)
                    if do in (Do.STOP, Do.RENEW, Do.SPLIT, Do.SHRINK):
                        raise Stopped(f"no token was given: {reason}")
                    if do is Do.WAIT and (wait := retry_after_s(response.headers, self._wall())):
                        self._lane.hold(wait)
            failures += 1
            self._lane.failed(f"no token: {reason}")
            if not wait:
                await self._lane.sleep(backoff_s(failures, self._uniform))

    def _read_secrets(self) -> Mapping[str, str]:
        try:
            return self._secrets()
        except Refused as error:  # they were there when the run began
            raise Stopped(str(error)) from error
