"""The layers: places, pace, tokens, and what each request carries."""

import asyncio
import contextlib
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from itertools import pairwise
from math import ceil
from typing import Any
from urllib.parse import quote_plus

import anyio
import orjson
import pytest

from loader.client import Credentials, Tempo, bearer, gate, observe, pace
from loader.errors import SettingsError, Stopped, TransportError
from loader.lane import Abandoned, Lane
from loader.request import Request, Response
from loader.tempo.concurrency import Concurrency
from loader.tempo.quota import Quota, pace_of
from loader.tokens import Scheme, bearer_headers
from loader.transport import Send
from tests.virtual_time import START_S, virtual_time

REQUEST = Request("POST", "/x", b"{}", {"Content-Type": "application/json"}, 1)
WINDOWS = (2.0, 2.5, 3.0, 10.0, 60.0)


def elapsed() -> float:
    return asyncio.get_running_loop().time() - START_S


def peak(arrivals: list[float], window_s: float) -> int:
    """The most arrivals that any window of this length holds."""
    most = first = 0
    for last, moment in enumerate(arrivals):
        while arrivals[first] <= moment - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


class Target:
    """Notes when requests arrive and what they carry; answers with what `answer` says after `latency_s`."""

    def __init__(self, latency_s: float = 0.0, answer: Callable[[Request], Response] | None = None) -> None:
        self.latency_s = latency_s
        self.answer = answer or (lambda _: Response(200))
        self.arrivals: list[float] = []
        self.requests: list[Request] = []
        self.at_once = self.peak = 0

    async def __call__(self, request: Request) -> Response:
        self.arrivals.append(elapsed())
        self.requests.append(request)
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        try:
            response = self.answer(request)
            if self.latency_s:
                await anyio.sleep(self.latency_s)
        finally:
            self.at_once -= 1
        return response


async def flood(send: Send, count: int) -> None:
    """`count` requests, all at once."""
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(_send_one, send)


async def _send_one(send: Send) -> None:
    await send(REQUEST)


# Places


@virtual_time
async def test_no_more_than_concurrency_on_the_wire() -> None:
    """And no fewer, while there is something to send."""
    target = Target(latency_s=1.0)
    await flood(gate(target, fixed(5)), 20)

    assert target.peak == 5
    assert elapsed() == pytest.approx(4, abs=0.01)


@virtual_time
async def test_a_place_is_free_again_after_an_error() -> None:
    def fail(_: Request) -> Response:
        raise TransportError("reset")

    send = gate(Target(answer=fail), fixed(1))
    for _ in range(3):
        with pytest.raises(TransportError):
            await send(REQUEST)


# What is told


class Flaky(Target):
    """Good answers take a second; after `good_s` it fails, nearly at once."""

    def __init__(self, trouble: Response | TransportError, good_s: float) -> None:
        super().__init__()
        self._trouble = trouble
        self._good_s = good_s

    async def __call__(self, request: Request) -> Response:
        self.arrivals.append(elapsed())
        is_good = elapsed() < self._good_s
        await anyio.sleep(1 if is_good else 0.01)
        if not is_good and isinstance(self._trouble, TransportError):
            raise self._trouble
        return Response(200) if is_good or isinstance(self._trouble, TransportError) else self._trouble


@pytest.mark.parametrize("trouble", [TransportError("reset"), Response(500), Response(503), Response(408)])
@virtual_time
async def test_quick_failures_make_no_more_requests_a_second(trouble: Response | TransportError) -> None:
    """Each takes its place on the wire for as long as a good answer would."""
    target, tempo = Flaky(trouble, 5), fixed(4)
    send = gate(observe(target, Lane(600), tempo), tempo)

    async def keep_sending() -> None:
        while elapsed() < 15:
            with contextlib.suppress(TransportError):
                await send(REQUEST)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(keep_sending)

    assert len(target.arrivals) <= 4 * 17


@pytest.mark.parametrize("response", [Response(400), Response(401), Response(429), Response(503, {"retry-after": "1"})])
@virtual_time
async def test_what_is_no_failure_is_told_at_once(response: Response) -> None:
    """A pause that is asked for begins now."""
    send = observe(Flaky(response, 0.5), Lane(600), fixed(4))
    await send(REQUEST)

    await send(REQUEST)

    assert elapsed() == pytest.approx(1.01, abs=0.001)


@virtual_time
async def test_who_waits_to_be_told_of_a_failure_does_not_keep_a_run_from_stopping() -> None:
    lane = Lane(600)
    send = observe(Flaky(Response(500), 0.5), lane, fixed(4))
    await send(REQUEST)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(expect, Abandoned, send)
        await anyio.sleep(0.1)
        lane.stop(Stopped("enough"))

    assert elapsed() == pytest.approx(1.1, abs=0.001)


# Pace


@pytest.mark.parametrize("rate", [1.0, 1000 / 60, 50.0, 500.0])
@virtual_time
async def test_the_rate_holds_in_every_window_and_is_used(rate: float) -> None:
    """At most rate x length in any window of 2 s or longer, from the start on; at least 97 % when saturated."""
    target = Target(latency_s=0.3)
    send = gate(pace(target, Lane(600), tempo_of(rate)), fixed(200))
    count = max(int(rate * 70), 100)
    await flood(send, count)

    for window_s in WINDOWS:
        assert peak(target.arrivals, window_s) <= ceil(rate * window_s)
    assert peak(target.arrivals[: int(2 * rate)], 1.0) <= ceil(1.02 * rate), "no burst at the start"
    assert target.arrivals[0] >= 1 / rate, "the first pays as well"
    assert count / target.arrivals[-1] >= 0.97 * rate


@virtual_time
async def test_idle_time_is_not_saved_up_for_a_burst() -> None:
    """After a quiet minute the rate holds as it does at the start."""
    target = Target()
    send = pace(target, Lane(600), tempo_of(50))
    await flood(send, 10)
    await anyio.sleep(60)
    await flood(send, 300)

    assert max(peak(target.arrivals, window_s) / window_s for window_s in WINDOWS) <= 50


@virtual_time
async def test_a_rate_that_was_found_comes_before_the_quota() -> None:
    """Who waits for a rate pays after it, or goes together with the next, which pays while it waits."""
    nothing_left = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "2"}
    target = Target(0.1, lambda _: Response(200, nothing_left if len(target.requests) == 20 else {}))
    tempo, lane = tempo_of(1.0), Lane(600)
    await flood(gate(pace(observe(target, lane, tempo), lane, tempo), fixed(4)), 150)

    assert target.arrivals[20] >= target.arrivals[19] + 2
    assert peak(target.arrivals, 60.0) <= 60


@virtual_time
async def test_a_pause_does_not_end_in_a_burst() -> None:
    """Who waits for the end of a pause pays after it, however many wait."""
    target, lane = Target(), Lane(600)
    send = gate(pace(target, lane, tempo_of(10)), fixed(100))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flood, send, 100)
        await anyio.sleep(2.05)
        lane.hold(20)

    in_pause = [moment for moment in target.arrivals if 2.05 < moment < 22.05]
    assert in_pause == []
    assert peak(target.arrivals, 2.0) <= 20


@virtual_time
async def test_a_slow_token_call_does_not_end_in_a_burst() -> None:
    """Who waits for a token pays after it came."""
    target, lane = Target(), Lane(600)
    tempo = tempo_of(10)
    credentials = credentials_for(Issuer(latency_s=10.0), lane, tempo=tempo)
    authorized = bearer(target, credentials, refuses)
    await flood(gate(pace(authorized, lane, tempo, credentials), fixed(100)), 100)

    assert target.arrivals[0] >= 10
    assert peak(target.arrivals, 2.0) <= 20


@virtual_time
async def test_token_calls_pay_as_well() -> None:
    """The quota counts both kinds of requests: together they keep to the rate."""
    lane, tempo = Lane(600), tempo_of(5)
    issuer = Issuer(lifetime_s=2.0, latency_s=0.1)
    target = Target(latency_s=0.1)
    credentials = credentials_for(issuer, lane, tempo=tempo)
    send = gate(pace(bearer(target, credentials, refuses), lane, tempo, credentials), fixed(8))
    await flood(send, 300)

    both = sorted(target.arrivals + issuer.arrivals)
    assert len(issuer.arrivals) > 20
    assert peak(both, 2.0) <= 10
    assert len(both) / both[-1] >= 0.95 * 5


@virtual_time
async def test_a_stop_ends_the_wait_for_a_slow_quota() -> None:
    """At one request in 10 minutes nobody waits for it to stop; what is on the wire may finish."""
    target, lane = Target(latency_s=2.0), Lane(600)
    send = gate(pace(target, lane, tempo_of(1 / 600)), fixed(16))
    ended: list[str] = []

    async def one() -> None:
        try:
            await send(REQUEST)
            ended.append("sent")
        except Abandoned:
            ended.append("abandoned")

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(one)
        await anyio.sleep(607)  # the first may go after ten minutes, and is on the wire
        lane.stop(Stopped("enough"))

    assert sorted(ended) == ["abandoned"] * 19 + ["sent"]
    assert elapsed() == pytest.approx(608, abs=0.5)


@virtual_time
async def test_nothing_is_sent_when_the_stop_came_during_the_token_call() -> None:
    target, lane = Target(), Lane(600)
    credentials = credentials_for(Issuer(latency_s=5.0), lane)
    send = pace(bearer(target, credentials, refuses), lane, Tempo(), credentials)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(expect, Abandoned, send)
        await anyio.sleep(1)
        lane.stop(Stopped("enough"))

    assert target.requests == []


# Tokens


class Issuer:
    """A token endpoint: its tokens are `t1`, `t2`, … Noted: arrivals, and how many calls there were at once."""

    def __init__(self, lifetime_s: float | None = 3600.0, latency_s: float = 0.0) -> None:
        self.lifetime_s = lifetime_s
        self.latency_s = latency_s
        self.answers: list[Response | TransportError] = []  # instead of a token, as long as they last
        self.arrivals: list[float] = []
        self.requests: list[Request] = []
        self.at_once = self.peak = 0

    async def __call__(self, request: Request) -> Response:
        self.arrivals.append(elapsed())
        self.requests.append(request)
        number = len(self.requests)
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        await anyio.sleep(self.latency_s)
        self.at_once -= 1
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, TransportError):
            raise answer
        return answer or Response(
            200, {}, orjson.dumps({"access_token": f"token-{number:06}", "expires_in": self.lifetime_s})
        )


def fixed(concurrency: int) -> Tempo:
    """So many at once from the start on."""
    return Tempo(concurrency=Concurrency(concurrency, concurrency))


def tempo_of(rate: float) -> Tempo:
    """For `rate` requests a second, counted by the minute."""
    return Tempo([pace_of(Quota(60 * rate, 60), 1)])


def scheme() -> Scheme:
    def call(secrets: Mapping[str, str], now: float) -> Request:
        return Request("POST", "/token", orjson.dumps({"at": now, **secrets}))

    return Scheme(("key_id", "secret"), call=call)


STATIC = Scheme(("token",), headers=bearer_headers)


def credentials_for(issuer: Send, lane: Lane, by: Scheme | None = None, **more: Any) -> Credentials:
    clock = asyncio.get_running_loop().time
    secrets = {"key_id": "the-key-id", "secret": "the-secret-itself", "token": "the-token-itself"}
    arguments: dict[str, Any] = {
        "secrets": lambda: secrets,
        "tempo": Tempo(),
        "uniform": lambda _, high: high,
        "wall": lambda: 1.75e9 + clock(),
        "monotonic": clock,
    }
    return Credentials(by or scheme(), send=issuer, lane=lane, **(arguments | more))


def refuses(response: Response) -> bool:
    return response.status == 401


async def expect(error: type[Exception], send: Send) -> None:
    with pytest.raises(error):
        await send(REQUEST)


def layers(
    issuer: Send, target: Send, lane: Lane, by: Scheme | None = None, **more: Any
) -> Callable[[Request], Awaitable[Response]]:
    credentials = credentials_for(issuer, lane, by, **more)
    return pace(bearer(target, credentials, refuses), lane, Tempo(), credentials)


def carried(target: Target) -> list[str]:
    return [request.headers["Authorization"].removeprefix("Bearer ") for request in target.requests]


@virtual_time
async def test_one_fetch_for_all_who_wait() -> None:
    """32 requests at once need one token call; each carries its own headers and the token."""
    issuer, target = Issuer(latency_s=2.0), Target()
    await flood(layers(issuer, target, Lane(600)), 32)

    assert len(issuer.requests) == 1
    assert carried(target) == ["token-000001"] * 32
    assert {request.headers["Content-Type"] for request in target.requests} == {"application/json"}


@virtual_time
async def test_one_fetch_however_it_is_asked_for() -> None:
    """Credentials see to that themselves, whoever calls them."""
    issuer = Issuer(latency_s=2.0)
    credentials = credentials_for(issuer, Lane(600))
    async with anyio.create_task_group() as tasks:
        for _ in range(32):
            tasks.start_soon(credentials.token)

    assert len(issuer.requests) == 1


@virtual_time
async def test_a_token_is_renewed_at_80_percent_of_its_lifetime() -> None:
    issuer, target = Issuer(lifetime_s=100.0), Target()
    send = layers(issuer, target, Lane(600))
    for _ in range(18):
        await send(REQUEST)
        await anyio.sleep(10)

    assert [round(at) for at in issuer.arrivals] == [0, 80, 160]
    assert carried(target) == ["token-000001"] * 8 + ["token-000002"] * 8 + ["token-000003"] * 2


@pytest.mark.parametrize("clock", ["wall", "monotonic"])
@virtual_time
async def test_age_is_judged_by_the_clock_that_is_further_on(clock: str) -> None:
    """A suspended machine stops one of its clocks; the token grows old all the same."""
    issuer, target = Issuer(lifetime_s=100.0), Target()
    ahead = 0.0
    send = layers(issuer, target, Lane(600), None, **{clock: lambda: 1.75e9 + ahead})
    await send(REQUEST)
    ahead = 90.0
    await send(REQUEST)

    assert carried(target) == ["token-000001", "token-000002"]


@virtual_time
async def test_a_token_call_is_made_when_it_goes() -> None:
    """It carries the time, and waits for pauses and quota like all: its time is that of the sending."""
    issuer, lane = Issuer(), Lane(6000)
    issuer.answers = [Response(429, {"retry-after": "250"})]
    send = layers(issuer, Target(), lane)
    await send(REQUEST)

    times = [orjson.loads(request.body)["at"] - 1.75e9 - START_S for request in issuer.requests]
    assert times == [pytest.approx(0, abs=0.01), pytest.approx(250, abs=0.01)]


@virtual_time
async def test_one_refusal_of_all_in_flight_is_one_refresh() -> None:
    """When a token is revoked under 20 requests, the 20 refusals lead to one fetch, and go back as answers."""
    issuer = Issuer()
    good = "token-000001"
    target = Target(1.0, lambda request: Response(200 if request.headers["Authorization"].endswith(good) else 401))
    send = layers(issuer, target, Lane(600))
    await send(REQUEST)
    good = "token-000002"
    statuses: list[int] = []

    async def one() -> None:
        statuses.append((await send(REQUEST)).status)

    for expected in (401, 200):
        statuses.clear()
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(one)
        assert statuses == [expected] * 20
    assert len(issuer.requests) == 2


@pytest.mark.parametrize("by", [None, STATIC])
@virtual_time
async def test_a_fresh_token_refused_stops_the_run(by: Scheme | None) -> None:
    """Refused, fetched anew, refused again: these credentials are not accepted. The message has the API's words."""
    target = Target(answer=lambda _: Response(401, {}, b'{"message":"key is disabled"}'))
    send = layers(Issuer(), target, Lane(600), by)
    assert (await send(REQUEST)).status == 401

    with pytest.raises(Stopped, match=r"credentials are not accepted: HTTP 401: .*key is disabled"):
        await send(REQUEST)
    assert len(target.requests) == 2


@pytest.mark.parametrize("by", [None, STATIC])
@virtual_time
async def test_a_single_refusal_is_survived(by: Scheme | None) -> None:
    """As often as it comes, if something succeeds in between."""
    statuses = [200, 401, 200, 401, 200]
    target = Target(answer=lambda _: Response(statuses.pop(0)))
    send = layers(Issuer(), target, Lane(600), by)

    assert [(await send(REQUEST)).status for _ in range(5)] == [200, 401, 200, 401, 200]


@pytest.mark.parametrize("status", [429, 500, 503, 408, 403])
@virtual_time
async def test_only_a_success_shows_that_a_token_is_accepted(status: int) -> None:
    """A busy gateway answers before anybody looks at the token: wrong credentials are still found out."""
    statuses = [401, status, 401]
    target = Target(answer=lambda _: Response(statuses.pop(0)))
    send = layers(Issuer(), target, Lane(600), STATIC)
    await send(REQUEST)
    await send(REQUEST)

    with pytest.raises(Stopped, match="not accepted"):
        await send(REQUEST)


@virtual_time
async def test_an_expired_token_refused_says_nothing_about_the_credentials() -> None:
    """If a token ends on its way, even twice, the next one is fetched."""
    target = Target(3.0, lambda _: Response(401))
    issuer = Issuer(lifetime_s=2.0)
    send = layers(issuer, target, Lane(600))
    for _ in range(5):
        assert (await send(REQUEST)).status == 401

    assert len(issuer.requests) == 5


@virtual_time
async def test_a_token_without_lifetime_is_used_until_it_is_refused() -> None:
    issuer, target = Issuer(lifetime_s=None), Target()
    send = layers(issuer, target, Lane(600))
    await send(REQUEST)
    await anyio.sleep(80_000)
    await send(REQUEST)

    assert len(issuer.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 302])
@virtual_time
async def test_a_token_endpoint_that_refuses_stops_the_run_at_once(status: int) -> None:
    issuer = Issuer()
    issuer.answers = [Response(status, {}, b"no such client")]

    with pytest.raises(Stopped, match=f"no token was given: HTTP {status}: no such client"):
        await layers(issuer, Target(), Lane(600))(REQUEST)
    assert len(issuer.requests) == 1


@pytest.mark.parametrize(
    ("off_s", "words"),
    [
        (3600, "; this machine's clock is 60 min ahead of the API's"),
        (-400, "; this machine's clock is 7 min behind the API's"),
        (100, ""),
        (None, ""),
    ],
)
@virtual_time
async def test_a_refusal_tells_if_the_clocks_disagree(off_s: float | None, words: str) -> None:
    """An HMAC is made with the time, and is refused if that is wrong."""
    served = 1.75e9 + asyncio.get_running_loop().time() - (off_s or 0)
    issuer = Issuer()
    issuer.answers = [Response(401, {} if off_s is None else {"date": formatdate(served, usegmt=True)}, b"no")]

    with pytest.raises(Stopped) as stopped:
        await layers(issuer, Target(), Lane(600))(REQUEST)

    assert str(stopped.value).endswith(f"those of this API?{words}")


@pytest.mark.parametrize(
    "trouble",
    [
        *(Response(status) for status in (500, 502, 503, 408, 425, 429)),
        Response(200, {}, b"<html>Welcome</html>"),
        Response(200, {}, b"{}"),
        TransportError("the connection was reset"),
    ],
    ids=str,
)
@virtual_time
async def test_a_token_endpoint_in_trouble_is_asked_again(trouble: Response | TransportError) -> None:
    """With a backoff that doubles, here without chance: 0.5, 1, 2 seconds."""
    issuer, target = Issuer(), Target()
    issuer.answers = [trouble] * 3
    await layers(issuer, target, Lane(600))(REQUEST)

    gaps = [after - before for before, after in pairwise(issuer.arrivals)]
    assert gaps == [pytest.approx(gap, abs=0.01) for gap in (0.5, 1, 2)]
    assert carried(target) == ["token-000004"]


@pytest.mark.parametrize("status", [429, 503])
@virtual_time
async def test_a_token_endpoint_may_ask_for_a_pause(status: int) -> None:
    issuer, lane = Issuer(), Lane(600)
    issuer.answers = [Response(status, {"retry-after": "40"})]
    await layers(issuer, Target(), lane)(REQUEST)

    assert issuer.arrivals == [0, pytest.approx(40, abs=0.01)]


@virtual_time
async def test_a_token_endpoint_that_is_down_for_good_ends_the_run() -> None:
    """After give_up_s, with the last reason."""
    issuer = Issuer()
    issuer.answers = [Response(500, {}, b"database is away")] * 1000

    with pytest.raises(Stopped, match=r"no usable answer for 6.. s .*no token: HTTP 500: database is away"):
        await layers(issuer, Target(), Lane(600))(REQUEST)


@virtual_time
async def test_while_no_token_comes_the_run_says_why() -> None:
    """Within seconds, though each attempt waits longer than the one before."""
    issuer, lane = Issuer(), Lane(600)
    issuer.answers = [Response(500, {}, b"database is away")] * 1000
    with anyio.move_on_after(10):
        await layers(issuer, Target(), lane)(REQUEST)

    assert lane.trouble is not None
    assert (lane.trouble.kind, lane.trouble.reason) == ("down", "no token: HTTP 500: database is away")
    assert lane.trouble.gives_up_at == lane.trouble.since + 600


@virtual_time
async def test_a_stop_ends_the_wait_for_a_token() -> None:
    issuer, lane = Issuer(), Lane(600)
    issuer.answers = [Response(500)] * 1000
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(expect, Abandoned, layers(issuer, Target(), lane))
        await anyio.sleep(100)
        lane.stop(Stopped("enough"))

    assert elapsed() == pytest.approx(100, abs=0.01)


@virtual_time
async def test_a_rotated_secret_is_taken_up() -> None:
    """The credentials are read for each fetch, off the event loop."""
    secrets = {"key_id": "K", "secret": "old-secret"}
    issuer = Issuer(lifetime_s=10.0)
    send = layers(issuer, Target(), Lane(600), secrets=lambda: secrets)
    await send(REQUEST)
    secrets = {"key_id": "K", "secret": "new-secret"}
    await anyio.sleep(60)
    await send(REQUEST)

    assert [orjson.loads(request.body)["secret"] for request in issuer.requests] == ["old-secret", "new-secret"]


@virtual_time
async def test_a_secret_that_is_gone_stops_the_run() -> None:
    """It was there at the start, so the run has begun: not a refusal any more."""

    def gone() -> Mapping[str, str]:
        raise SettingsError("target.auth.secret: can't read the file")

    with pytest.raises(Stopped, match="can't read the file"):
        await layers(Issuer(), Target(), Lane(600), secrets=gone)(REQUEST)


@virtual_time
async def test_a_line_break_in_a_token_stops_the_run() -> None:
    """It can't be sent, and each attempt would look like trouble with the network."""
    with pytest.raises(Stopped, match="control character") as stopped:
        await layers(Issuer(), Target(), Lane(600), STATIC, secrets=lambda: {"token": "sekret\r"})(REQUEST)
    assert "sekret" not in str(stopped.value)


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("by", [None, STATIC])
@virtual_time
async def test_an_answer_that_repeats_our_secrets_is_masked(by: Scheme | None, status: int) -> None:
    """Its words go into messages and the checkpoint."""

    def echo(request: Request) -> Response:
        return Response(status, {}, f"bad: {request.headers['Authorization']}, and more".encode())

    response = await layers(Issuer(), Target(answer=echo), Lane(600), by)(REQUEST)

    assert response.body == b"bad: Bearer ***, and more"


@virtual_time
async def test_nor_does_a_refusal_repeat_them_in_another_form_or_place() -> None:
    """Headers are shown where a redirect leads; and an error of the transport may quote what was read."""
    token = "a/token+of=ours"
    secrets = {"token": token}
    refusal = Response(302, {"location": f"/login?t={quote_plus(token)}"}, b64encode(f"Bearer {token}".encode()))
    errors = [TransportError(f"not HTTP: b'Authorization: Bearer {token}'"), Stopped(f"no: {token}")]

    response = await layers(Issuer(), Target(answer=lambda _: refusal), Lane(600), STATIC, secrets=lambda: secrets)(
        REQUEST
    )

    assert response.headers == {"location": "/login?t=***"}
    assert re.fullmatch(rb"QmVhcmVyI.?\*\*\*.?=*", response.body), "“Bearer ” is left of it"
    for error in errors:

        def fail(_: Request, error: Exception = error) -> Response:
            raise error

        with pytest.raises(type(error), match=r": (b'Authorization: Bearer )?\*\*\*'?$"):
            await layers(Issuer(), Target(answer=fail), Lane(600), STATIC, secrets=lambda: secrets)(REQUEST)


@virtual_time
async def test_a_token_that_holds_the_keys_id_is_sent_as_it_is() -> None:
    """As a JWT does: nothing is taken out of a token before it is used."""
    token = f"the-key-id.{b64encode(b'{sub:the-key-id}').decode()}"
    issuer, target = Issuer(), Target()
    issuer.answers = [Response(200, {}, orjson.dumps({"token": token}))]

    await layers(issuer, target, Lane(600), secrets=lambda: {"key_id": "the-key-id", "secret": "S"})(REQUEST)

    assert carried(target) == [token]


@virtual_time
async def test_no_message_holds_a_secret() -> None:
    """Not even when a token endpoint repeats the call, or gives the token a name of its own."""
    echo = Response(400, {}, b'{"got":{"key_id":"the-key-id","secret":"the-secret-itself"}}')
    unknown = Response(200, {}, b'{"accessToken":"the-new-token"}')
    for answers in ([echo], [unknown] * 1000):
        issuer = Issuer()
        issuer.answers = [*answers]
        with pytest.raises(Stopped) as stopped:
            await layers(issuer, Target(), Lane(600))(REQUEST)
        assert "the-secret-itself" not in str(stopped.value)
        assert "the-new-token" not in str(stopped.value)
