"""429 and 5xx storms, outages, and quotas: nobody fails for the target's troubles."""

import re
from collections.abc import AsyncIterator, Callable
from typing import get_args

import anyio
import pytest

from loader.outcome import Code
from loader.record import Rows
from loader.request import Request, Response
from loader.sandbox import FaultOptions, QuotaOptions, RosterOptions
from loader.sandbox.options import RetryAfter
from loader.transport import Send
from tests.faults.rig import Rig, blocks, options, users
from tests.virtual_time import START_S, virtual_time


@pytest.mark.parametrize("size", [1, 50])
@virtual_time
async def test_five_minutes_down_in_mid_load_fails_nobody(size: int) -> None:
    """With few attempts allowed, too: while nothing succeeds it is the target's fault, not the users'."""
    rig = Rig(
        options(FaultOptions(latency_s=0.2, jitter_s=0.3, down=((5.0, 300.0),))),
        concurrency=8,
        users_per_request=size,
        attempts=2,
    )
    await rig.run(users(60 * 8 * size))

    assert rig.lane.reason is None
    assert rig.codes() == {Code.SUCCESS: 60 * 8 * size}
    assert sum(START_S + 5 < at < START_S + 305 for at, _ in rig.sent) < 16 * 80, "no storm"
    assert rig.sent[-1][0] - START_S < 305 + 60


@virtual_time
async def test_an_outage_longer_than_give_up_s_stops_the_run() -> None:
    """What is in flight stays unsettled, and the next run sends it again."""
    rig = Rig(options(FaultOptions(latency_s=0.2, down=((5.0, 3600.0),))), concurrency=8)
    found = await rig.run(users(10_000))

    assert "no usable answer for 6" in str(rig.lane.reason)
    assert "connection refused" in str(rig.lane.reason)
    assert rig.codes() == {Code.SUCCESS: len(found)}
    assert len(found) == rig.memory.ledger.writes


@pytest.mark.parametrize("form", get_args(RetryAfter))
@virtual_time
async def test_a_storm_of_429_costs_nobody(form: RetryAfter) -> None:
    """A quota below the pace: half of all requests are refused, with or without Retry-After, and no user fails."""
    rig = Rig(
        options(
            FaultOptions(latency_s=0.05),
            quotas=(QuotaOptions(requests=20, window_s=10, retry_after=form),),
        ),
        concurrency=8,
        attempts=1,
    )
    await rig.run(users(2000))

    assert rig.lane.reason is None
    assert rig.codes() == {Code.SUCCESS: 2000}
    (witness,) = rig.memory.sandbox.quotas
    assert witness.refused >= 4


@pytest.mark.parametrize(("quota", "window_s"), [(1000, 60.0), (500, 60.0), (10, 2.0), (33, 2.0)])
@virtual_time
async def test_a_quota_that_is_known_is_never_exceeded(quota: int, window_s: float) -> None:
    """Retries and token calls included: a strict server refuses not one request, and 95 % of its quota is used."""
    rig = Rig(
        options(
            FaultOptions(latency_s=0.3, jitter_s=1.0, rates={"500": 0.1, "lost": 0.1}),
            quotas=(QuotaOptions(requests=quota, window_s=window_s),),
        ),
        concurrency=64,
        rate=quota / window_s,
        users_per_request=5,
        attempts=20,
    )
    await rig.run(users(int(quota / window_s * 200) * 5))

    seconds = rig.sent[-1][0] - START_S
    (witness,) = rig.memory.sandbox.quotas
    assert witness.refused == 0
    busy = [at for at, _ in rig.sent if at < START_S + 0.8 * seconds]  # at the end only retries are left
    assert len(busy) / (0.8 * seconds) >= 0.95 * quota / window_s


@virtual_time
async def test_a_pause_asked_for_holds_everybody() -> None:
    """Between a 429 with Retry-After and its end nothing is sent, and nothing bursts behind it."""
    rig = Rig(
        options(FaultOptions(latency_s=0.1, fail_first_n=1, fail_first_status=429)),
        wrap=with_retry_after("30"),
        concurrency=64,
        rate=20,
    )
    await rig.run(users(2000))

    held = [at for at, _ in rig.sent if START_S + 4 < at < START_S + 29]
    after = [at for at, _ in rig.sent if at >= START_S + 29]
    assert held == []
    assert len([at for at in after if at < after[0] + 2]) <= 40
    assert rig.codes() == {Code.SUCCESS: 2000}


def with_retry_after(seconds: str) -> Callable[[Send], Send]:
    def wrap(send: Send) -> Send:
        async def asked(request: Request) -> Response:
            response = await send(request)
            if response.status == 429:
                return Response(429, {**response.headers, "retry-after": seconds}, response.body)
            return response

        return asked

    return wrap


def crashes_for(culprit: str) -> Callable[[Send], Send]:
    """A target that can't bear one user."""

    def wrap(send: Send) -> Send:
        async def crash(request: Request) -> Response:
            return Response(500, {}, b"crash") if culprit.encode() in request.body else await send(request)

        return crash

    return wrap


@virtual_time
async def test_one_who_always_fails_and_comes_last_does_not_keep_a_load_from_its_end() -> None:
    """The first run can't tell it from an outage, and stops. The next one, which has nobody else to send, can't either,
    and says so of the user: a third would be no wiser."""
    rows = users(30)
    wrap = crashes_for(rows[-1][0])
    first = Rig(options(FaultOptions(latency_s=0.1)), users_per_request=1, wrap=wrap)
    found = await first.run(rows)
    second = Rig(first.memory, users_per_request=1, wrap=wrap, is_proven=True)
    left = await second.run(rows[-1:])

    assert (first.exit_status, len(found), first.codes()) == (3, 29, {Code.SUCCESS: 29})
    assert (second.exit_status, second.lane.reason) == (1, None)
    assert (left[1].outcome.code, left[1].outcome.message) == (Code.FAILED, "HTTP 500: crash")


@virtual_time
async def test_while_there_may_be_others_it_is_taken_for_an_outage() -> None:
    """Whoever reads the export has not said that this was the last."""

    async def slow() -> AsyncIterator[Rows]:
        yield blocks(users(1))[0]
        await anyio.sleep(7200)

    rig = Rig(users_per_request=1, wrap=crashes_for(users(1)[0][0]), is_proven=True)
    found = await rig.run(slow())

    assert (rig.exit_status, found) == (3, {})


@virtual_time
async def test_a_bad_spell_of_5xx_fails_only_who_always_fails() -> None:
    """A third of all answers are 5xx, and one user is a 5xx each time: it alone is FAILED."""
    rig = Rig(
        options(FaultOptions(latency_s=0.1, rates={"500": 0.15, "502": 0.1, "503": 0.1})),
        wrap=crashes_for(users(1, 777)[0][0]),
        concurrency=8,
        users_per_request=25,
    )
    found = await rig.run(users(1000))

    assert rig.lane.reason is None
    assert [row for row, item in found.items() if item.outcome.code is Code.FAILED] == [777]
    assert found[777].outcome.message == "HTTP 500: crash"
    assert rig.codes() == {Code.SUCCESS: 999, Code.FAILED: 1}


@virtual_time
async def test_a_poisoned_user_in_each_tenth_batch() -> None:
    """Refused with 400: it alone is INVALID, at about 2 log2 n requests each."""
    rig = Rig(
        options(FaultOptions(latency_s=0.05), roster=RosterOptions(poison=re.compile(r"user0.500@"))),
        users_per_request=100,
    )
    found = await rig.run(users(10_000))

    bad = [row for row, item in found.items() if item.outcome.code is not Code.SUCCESS]
    assert sorted(bad) == [500, 1500, 2500, 3500, 4500, 5500, 6500, 7500, 8500, 9500]
    assert {found[row].outcome.code for row in bad} == {Code.INVALID}
    assert all("is not valid" in found[row].outcome.message for row in bad)
    assert len(rig.data_requests) <= 100 + 10 * 14
    assert all(found[row].outcome.attempts == rig.carried[found[row].user] for row in found)
