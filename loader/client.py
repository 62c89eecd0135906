"""The layers between a batch and the wire, each a function from `Send` to `Send`.

    gate( pace( observe( bearer( transport ))))

*gate* is outermost, so that a place on the wire is held by who is about to use it, and a retry that waits for its
backoff holds none. *pace* comes next, so that every attempt pays. *observe* sees what the wire sees, and learns from it
how fast the target takes requests, and how many at once. *bearer* stands at the wire, so that a request goes with the
token of the moment and not with one that grew old in the queue. The transport has the deadline: it covers the wire
alone.
"""

import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Literal, TypeVar

import anyio
from aiolimiter import AsyncLimiter
from anyio import to_thread

from loader.errors import Refused, Stopped, TransportError
from loader.lane import Lane
from loader.request import Request, Response
from loader.retry import allowance, backoff_s, retry_after_s, unix_time
from loader.snapshot import Brake, Found
from loader.tempo.concurrency import Concurrency
from loader.tempo.quota import Pace
from loader.tempo.rate import Rate
from loader.tempo.traffic import Traffic
from loader.tokens import SECRET_LENGTH, Scheme, Token, disguises, is_refusal, read_token
from loader.transport import Send
from loader.verdict import Do, by_status, way_out, words

#: Where no one sets a limit: more than any event loop could have on the wire.
_UNLIMITED = 100_000

T = TypeVar("T")
R = TypeVar("R")

#: Statuses of a target, or of a gateway before it, that is given more than it can do. A 500 may be about one user.
_OVERLOADED = frozenset({408, 502, 503, 504, 529})

#: How much of the usual time of an answer is that of the last.
_RECENT = 0.2

#: Clocks that differ by less are nobody's trouble.
_CLOCKS_S = 120.0

#: A call that only makes things better is not waited for as long as one that is needed (Descope's SDKs: 5 s).
_GREETING_S = 5.0


class Tempo:
    """When may a request go, and how many at once: by the quotas declared, and by what the target turned out to take.

    `waits_for`: what the request that goes next is waiting for, "" if for nothing.
    """

    def __init__(
        self, quotas: Sequence[Pace] = (), rate: Rate | None = None, concurrency: Concurrency | None = None
    ) -> None:
        self.toll = Toll(quotas)
        self.rate = rate or Rate()
        self.concurrency = concurrency or Concurrency(_UNLIMITED)
        self.traffic = Traffic()
        self.waits_for: Literal["", "pause", "token", "quota", "rate"] = ""

    def found(self, users: int | None = None, body_bytes: int | None = None) -> Found:
        """What is known of the target by now, with the size of its requests."""
        at_once, rate = self.concurrency, self.rate
        return Found(rate.limit, at_once.found, users, body_bytes, at_once.seconds_per_user, self.brake, rate.is_guess)

    @property
    def brake(self) -> Brake:
        """Why it is not faster, at this moment."""
        if self.waits_for:
            return self.waits_for
        is_full = self.concurrency.is_full
        if self.traffic.halving >= (self.concurrency.limit if is_full else 1):  # it may be all that is on the wire
            return "halving"
        if not is_full:
            return "reader"
        return "limit" if self.concurrency.is_most else "target"


def work_clock() -> Callable[[], float]:
    """Seconds for which the event loop of this thread could not look at answers, as it was at work.

    On a single core it can't either while other threads of ours have that.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return time.process_time if cores == 1 else time.thread_time


def layers(
    wire: Send, lane: Lane, tempo: Tempo, credentials: "Credentials", refuses: Callable[[Response], bool]
) -> Send:
    """All of them, round `wire`. `refuses`: does an answer say that the token is at fault?"""
    observed = observe(bearer(wire, credentials, refuses), lane, tempo)
    return gate(pace(observed, lane, tempo, credentials, attrgetter("users")), tempo)


def gate(send: Send, tempo: Tempo) -> Send:
    """At most as many requests at once, on the wire or about to be, as the target turned out to work on."""
    places = _Places(tempo.concurrency.limit)

    async def gated(request: Request) -> Response:
        if not places.take_one():
            await places.wait_for_one()
        try:
            return await send(request)
        finally:
            places.give_back()
            places.resize(tempo.concurrency.limit)

    return gated


class _Places:
    """A semaphore whose size may change. Places that are gone are not given back."""

    def __init__(self, size: int) -> None:
        self._free = anyio.Semaphore(size, fast_acquire=True)
        self._size = size
        self._owed = 0

    def take_one(self) -> bool:
        """A place, if there is one."""
        if not self._free.value:
            return False
        self._free.acquire_nowait()
        return True

    async def wait_for_one(self) -> None:
        await self._free.acquire()

    def give_back(self) -> None:
        if self._owed:
            self._owed -= 1
        else:
            self._free.release()

    def resize(self, size: int) -> None:
        more, self._size = size - self._size, size
        self._owed -= min(more, 0)
        for _ in range(more):
            self.give_back()


def observe(send: Send, lane: Lane, tempo: Tempo, wall: Callable[[], float] = time.time) -> Send:
    """Tell the controllers what becomes of each request.

    A failure often comes quicker than an answer would. It is passed on when that would have come: were the place on the
    wire free at once, a target in trouble would get more requests a second than before.
    """
    rate, concurrency, traffic = tempo.rate, tempo.concurrency, tempo.traffic
    usual_s: float | None = None

    async def linger(sent_at: float) -> None:
        if usual_s is not None and (left_s := sent_at + usual_s - lane.now()) > 0:
            await lane.sleep(left_s)

    async def observed(request: Request) -> Response:
        nonlocal usual_s
        sent_at = lane.now()
        concurrency.went()
        traffic.went()
        try:
            response = await send(request)
        except TransportError:
            concurrency.failed(sent_at, lane.now())
            traffic.lost()
            await linger(sent_at)
            raise
        except BaseException:
            concurrency.passed()
            traffic.dropped()
            raise
        now = lane.now()
        traffic.answered(response.status, now - sent_at)
        if response.status == 429:
            rate.refused(sent_at, now)
        else:
            rate.took(sent_at, now)
        if response.status in _OVERLOADED:
            concurrency.failed(sent_at, now)
        elif 200 <= response.status < 300:
            concurrency.answered(sent_at, now, request.users)
        else:
            concurrency.passed()
        if said := allowance(response.headers, wall()):
            rate.told(said, now, was_taken=response.status != 429)
        if 200 <= response.status < 300:
            took_s = now - sent_at
            usual_s = took_s if usual_s is None else usual_s + _RECENT * (took_s - usual_s)
        elif by_status(response) is Do.AGAIN:
            await linger(sent_at)
        return response

    return observed


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

    def is_payable(self, users: int) -> bool:
        """Would `pay` not have to wait?"""
        return not self._paces or (
            self._is_begun and all(limiter.has_capacity(pace.price(users)) for pace, limiter in self._paces)
        )

    def __bool__(self) -> bool:
        return bool(self._paces)


def pace(
    send: Callable[[T], Awaitable[R]],
    lane: Lane,
    tempo: Tempo,
    credentials: "Credentials | None" = None,
    users: Callable[[T], int] = lambda _: 0,
) -> Callable[[T], Awaitable[R]]:
    """One call after the other waits for the lane, a token, the rate found and the quota, in this order, and goes.

    Paying comes last, and is repeated if the lane closed meanwhile: calls that had paid and then waited, for a token,
    the end of a pause or a rate that was just found, would go closer together than they paid, over the limit. Raises
    Abandoned if the run stops.
    """
    turn = anyio.Lock(fast_acquire=True)
    rate = tempo.rate

    def goes_at_once(price: int) -> bool:
        """Is there nothing to wait for, and nobody who waits? Then no turn has to be taken, nor a scope for a wait."""
        now = lane.now()
        return (
            not turn.locked()
            and lane.is_open(now)
            and rate.wait_s(now) <= 0
            and (credentials is None or credentials.is_ready)
            and tempo.toll.is_payable(price)
        )

    async def paced(what: T) -> R:
        if goes_at_once(users(what)):
            await tempo.toll.pay(users(what))
            rate.went(lane.now())
            return await send(what)
        async with turn:
            is_ready = False
            while not is_ready:
                if lane.waits_s > 0:
                    tempo.waits_for = "pause"
                await lane.clearance()
                if credentials is not None and not credentials.is_ready:
                    tempo.waits_for = "token"
                    await credentials.token()
                while (wait := rate.wait_s(lane.now())) > 0:
                    tempo.waits_for = "rate"
                    await lane.sleep(wait)
                if tempo.toll:
                    tempo.waits_for = "quota"
                    with lane.waiting():
                        await tempo.toll.pay(users(what))
                is_clear = lane.is_clear and rate.wait_s(lane.now()) <= 0
                is_ready = is_clear and (credentials is None or credentials.current is not None)
            tempo.waits_for = ""
            rate.went(lane.now())
        return await send(what)

    return paced


def bearer(send: Send, credentials: "Credentials", refuses: Callable[[Response], bool]) -> Send:
    """Authorize each request, and tell the credentials whether their token was taken. `refuses` reads an answer."""

    async def authorized(request: Request) -> Response:
        token = credentials.current or await credentials.token()
        headers = {**request.headers, **token.headers}
        request = Request(request.method, request.path, request.body, headers, request.users)
        response = credentials.mask(await credentials.masked(send, request), request)
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
        tempo: Tempo,
        *,
        warn: Callable[[str], None] = lambda _: None,
        uniform: Callable[[float, float], float] = random.uniform,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheme = scheme
        self._secrets = secrets
        self._send = send
        self._ask = pace(self._call, lane, tempo)
        self._say_hello = pace(self._hello, lane, tempo)
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

    @property
    def is_ready(self) -> bool:
        """Is there a token that is not due for renewal?"""
        return self.current is not None and not self._is_due(self.current)

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

    async def masked(self, send: Send, request: Request) -> Response:
        """`send`, but no refusal and no error repeats our secrets: their words go into messages and the checkpoint."""
        sent = _credentials_in(request)
        try:
            response = await send(request)
        except (TransportError, Stopped) as error:
            error.args = (self._hide(str(error), sent),)
            raise
        if 200 <= response.status < 300:
            return response
        headers = {name: self._hide(text, sent) for name, text in response.headers.items()}
        body = response.body
        for disguise in disguises([*self._hidden, sent]):
            body = body.replace(disguise, b"***")
        return replace(response, headers=headers, body=body)

    def mask(self, response: Response, request: Request) -> Response:
        """An answer without our secrets, of which each is looked for in one form: good answers are many, and repeat
        nothing, as a rule."""
        body = response.body
        for secret in (*self._hidden, _credentials_in(request)):
            if len(secret) >= SECRET_LENGTH and (hidden := secret.encode()) in body:
                body = body.replace(hidden, b"***")
        return response if body is response.body else replace(response, body=body)

    def _hide(self, text: str, sent: str) -> str:
        for disguise in disguises([*self._hidden, sent]):
            text = text.replace(disguise.decode(), "***")
        return text

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
                    raise Stopped(f"no token was given: {reason}{way_out(response)}{_clocks(response, self._wall())}")
                if do is Do.WAIT and (wait := retry_after_s(response.headers, self._wall())):
                    self._lane.hold(wait, reason)
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
            response = await self._say_hello(replace(request, headers={**request.headers, **headers}))
        except TransportError as error:
            reason = str(error)
        else:
            if 200 <= response.status < 300 and (more := self._scheme.welcome(response)):
                return {**headers, **more}
            if by_status(response) is Do.WAIT and (wait := retry_after_s(response.headers, self._wall())):
                self._lane.hold(wait, words(response))
            reason = words(response)
        self._warn(
            f"{request.method} {request.path} failed, which is not needed to go on, but may make it slower: {reason}"
        )
        return headers

    async def _hello(self, request: Request) -> Response:
        with anyio.move_on_after(_GREETING_S):
            return await self.masked(self._send, request)
        raise TransportError(f"no answer within {_GREETING_S:g} s")

    async def _call(self, secrets: Mapping[str, str]) -> tuple[Response, Token | None]:
        """The token call. Made when it goes and not before: it may carry the time, and a token's age counts from it."""
        assert self._scheme.call is not None
        wall, monotonic = self._wall(), self._monotonic()
        response = await self.masked(self._send, self._scheme.call(secrets, wall))
        return response, read_token(response, wall, monotonic) if 200 <= response.status < 300 else None


def _credentials_in(request: Request) -> str:
    """What of a request says who we are: the token, or a user and a password in base64."""
    return request.headers.get("Authorization", "").rpartition(" ")[2]


def _clocks(response: Response, now: float) -> str:
    """How far this machine's clock is off, by the answer's own, as the end of a message: some calls bear the time."""
    served = unix_time(response.headers.get("date", ""))
    if served is None or abs(now - served) < _CLOCKS_S:
        return ""
    side = "ahead of" if now > served else "behind"
    return f"; this machine's clock is {abs(now - served) / 60:.0f} min {side} the API's"


def _checked(token: Token) -> Token:
    if not all(map(str.isprintable, token.headers.values())):
        raise Stopped("the credentials hold a control character; is there a line break at their end?")
    return token
