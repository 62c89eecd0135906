"""The layers between a batch and the wire, each a function from `Send` to `Send`.

    gate( pace( bearer( transport )))

*gate* is outermost, so that a place on the wire is held by who is about to use it, and a retry that waits for its
backoff holds none. *pace* comes next, so that every attempt pays. *bearer* stands at the wire, so that a request goes
with the token of the moment and not with one that grew old in the queue. The transport has the deadline: it covers the
wire alone.
"""

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import anyio
from aiolimiter import AsyncLimiter
from anyio import to_thread

from loader.errors import Refused, Stopped, TransportError
from loader.lane import Lane
from loader.quota import Pace
from loader.request import Request, Response
from loader.retry import backoff_s, retry_after_s
from loader.tokens import Scheme, Token, is_refusal, read_token
from loader.transport import Send
from loader.verdict import Do, by_status, way_out, words

T = TypeVar("T")
R = TypeVar("R")

#: Shorter ones are not looked for in answers: they would be found in users' names, too.
_SECRET_LENGTH = 8

#: A call that only makes things better is not waited for as long as one that is needed (Descope's SDKs: 5 s).
_GREETING_S = 5.0


def gate(send: Send, concurrency: int) -> Send:
    """At most `concurrency` requests at once on the wire or about to be."""
    places = anyio.Semaphore(concurrency, fast_acquire=True)

    async def gated(request: Request) -> Response:
        async with places:
            return await send(request)

    return gated


class Toll:
    """What each attempt pays before it goes, so that no window of any of `paces` holds more than its quota.

    A full AsyncLimiter(1000, 60) lets 1,999 requests through in its first minute (measured); quota.py says how large
    the buckets are instead. They begin full: what a run before this one has sent still counts where it counts.
    """

    def __init__(self, paces: Sequence[Pace]) -> None:
        self._paces = [(pace, AsyncLimiter(pace.burst, pace.burst / pace.per_s)) for pace in paces]
        self._is_begun = False

    async def pay(self, users: int) -> None:
        """Wait until a request that carries so many users may go; 0: one that carries none, as for a token."""
        if not self._is_begun:
            self._is_begun = True
            for pace, limiter in self._paces:
                await limiter.acquire(pace.burst)
        for pace, limiter in self._paces:
            if price := pace.price(users):
                await limiter.acquire(price)

    def __bool__(self) -> bool:
        return bool(self._paces)


def pace(
    send: Callable[[T], Awaitable[R]],
    lane: Lane,
    toll: Toll | None,
    credentials: "Credentials | None" = None,
    users: Callable[[T], int] = lambda _: 0,
) -> Callable[[T], Awaitable[R]]:
    """One call after the other waits for the lane, a token and the quota, in this order, and goes at once.

    Paying comes last, and is repeated if the lane closed meanwhile: calls that had paid and then waited together, for a
    token or for the end of a pause, would start together, over the limit. Raises Abandoned if the run stops.
    """
    turn = anyio.Lock(fast_acquire=True)

    async def paced(what: T) -> R:
        async with turn:
            is_ready = False
            while not is_ready:
                await lane.clearance()
                if credentials is not None:
                    await credentials.token()
                if toll:
                    with lane.waiting():
                        await toll.pay(users(what))
                is_ready = lane.is_clear and (credentials is None or credentials.current is not None)
        return await send(what)

    return paced


def bearer(send: Send, credentials: "Credentials", refuses: Callable[[Response], bool]) -> Send:
    """Authorize each request, and tell the credentials whether their token was taken. `refuses` reads an answer."""

    async def authorized(request: Request) -> Response:
        token = credentials.current or await credentials.token()
        headers = {**request.headers, **token.headers}
        response = credentials.mask(await send(replace(request, headers=headers)), token)
        if refuses(response):
            credentials.refused(token, f"{words(response)}{way_out(response)}")
        elif 200 <= response.status < 300:  # what fails may have failed before anybody looked at the token
            credentials.accepted(token)
        return response

    return authorized


class Credentials:
    """The current token, fetched once for all who wait for it.

    `secrets` reads the credentials anew for each fetch, so that a rotated secret is taken up; it may block. A fetch
    pays the pace like any attempt. `current` is the token that was fetched last, unless it was refused.
    """

    def __init__(
        self,
        scheme: Scheme,
        secrets: Callable[[], Mapping[str, str]],
        send: Send,
        lane: Lane,
        toll: Toll | None = None,
        *,
        warn: Callable[[str], None] = lambda _: None,
        uniform: Callable[[float, float], float] = random.uniform,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheme = scheme
        self._secrets = secrets
        self._send = send
        self._ask = pace(self._call, lane, toll)
        self._say_hello = pace(self._hello, lane, toll)
        self._warn = warn
        self._lane = lane
        self._uniform = uniform
        self._wall = wall
        self._monotonic = monotonic
        self._lock = anyio.Lock(fast_acquire=True)
        self._is_accepted = False
        self._after_refusal = False
        self._hidden: list[str] = []
        self.current: Token | None = None

    async def token(self) -> Token:
        """A token that is not due for renewal. Raises Stopped if the credentials are refused."""
        if (token := self.current) is not None and not self._is_due(token):
            return token
        async with self._lock:
            if (token := self.current) is None or self._is_due(token):  # nobody fetched it while we waited
                token = self.current = await self._fetch()
                self._is_accepted = False
            return token

    def accepted(self, token: Token) -> None:
        """A request with `token` succeeded."""
        if token is self.current:
            self._is_accepted = True
            self._after_refusal = False

    def refused(self, token: Token, reason: str) -> None:
        """A request with `token` was refused: the next one fetches another, once for all who were refused with it.

        Raises Stopped if it was fresh: fetched after the refusal before, never accepted, younger than its lifetime.
        """
        if token is not self.current:
            return
        if self._after_refusal and not self._is_accepted and not token.is_expired(self._wall(), self._monotonic()):
            raise Stopped(f"the credentials are not accepted: {reason}")
        self.current = None
        self._after_refusal = True

    def mask(self, response: Response, token: Token | None = None) -> Response:
        """The response without our secrets, should it repeat them: its words go into messages and the checkpoint."""
        body = response.body
        authorization = token.headers.get("Authorization", "") if token else ""
        for secret in [*self._hidden, authorization.rpartition(" ")[2]]:
            if len(secret) >= _SECRET_LENGTH:
                body = body.replace(secret.encode(), b"***")
        return response if body == response.body else replace(response, body=body)

    def _is_due(self, token: Token) -> bool:
        return token.is_due(self._wall(), self._monotonic())

    async def _fetch(self) -> Token:
        failures = 0
        while True:
            try:
                secrets = await to_thread.run_sync(self._secrets)  # from a file, perhaps
            except Refused as error:  # they were there when the run began
                raise Stopped(str(error)) from error
            self._hidden = [part for text in secrets.values() for part in (text, text.rpartition(":")[2])]
            if self._scheme.headers is not None:
                return _checked(Token(await self._greet(secrets, self._scheme.headers(secrets))))
            wait = None
            try:
                response, token = await self._ask(secrets)
            except TransportError as error:
                reason = str(error)
            else:
                if token is not None:
                    return _checked(token)
                do = by_status(response)
                if 200 <= response.status < 300:
                    reason = f"there is none in the answer (HTTP {response.status})"  # or there is, by another name
                else:
                    reason = words(response)
                if do in (Do.STOP, Do.RENEW, Do.SPLIT, Do.SHRINK) or is_refusal(response):
                    raise Stopped(f"no token was given: {reason}{way_out(response)}")
                if do is Do.WAIT and (wait := retry_after_s(response.headers, self._wall())):
                    self._lane.hold(wait)
            failures += 1
            self._lane.failed(f"no token: {reason}")
            if not wait:
                await self._lane.back_off(backoff_s(failures, self._uniform))

    async def _greet(self, secrets: Mapping[str, str], headers: Mapping[str, str]) -> Mapping[str, str]:
        """`headers`, with those that the target's answer to a greeting adds. A failed greeting stops nobody."""
        if self._scheme.greet is None:
            return headers
        request = self._scheme.greet(secrets)
        try:
            response = self.mask(await self._say_hello(replace(request, headers={**request.headers, **headers})))
        except TransportError as error:
            reason = str(error)
        else:
            if 200 <= response.status < 300:
                return {**headers, **self._scheme.welcome(response)}
            if by_status(response) is Do.WAIT and (wait := retry_after_s(response.headers, self._wall())):
                self._lane.hold(wait)
            reason = words(response)
        self._warn(
            f"{request.method} {request.path} failed, which is not needed to go on, but may make it slower: {reason}"
        )
        return headers

    async def _hello(self, request: Request) -> Response:
        with anyio.move_on_after(_GREETING_S):
            return await self._send(request)
        raise TransportError(f"no answer within {_GREETING_S:g} s")

    async def _call(self, secrets: Mapping[str, str]) -> tuple[Response, Token | None]:
        """The token call. Made when it goes and not before: it may carry the time, and a token's age counts from it."""
        assert self._scheme.call is not None
        wall, monotonic = self._wall(), self._monotonic()
        response = self.mask(await self._send(self._scheme.call(secrets, wall)))
        return response, read_token(response, wall, monotonic) if 200 <= response.status < 300 else None


def _checked(token: Token) -> Token:
    if not all(map(str.isprintable, token.headers.values())):
        raise Stopped("the credentials hold a control character; is there a line break at their end?")
    return token
