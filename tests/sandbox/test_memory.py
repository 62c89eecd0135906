"""The sandbox without sockets: quota, latency, faults and revocation in virtual time."""

import asyncio
from typing import Any

import pytest

from loader.errors import TransportError
from loader.request import Response
from loader.sandbox import CalvenOptions, FaultOptions, Memory, Options, QuotaOptions
from loader.sandbox.options import Fault
from tests.sandbox.calls import HIERARCHY, KEY_ID, SECRET, TOKEN, body_of, codes, post, put_hierarchy, write
from tests.virtual_time import virtual_time

TOKEN_CALL = post("/v1/auth/token", {"client_id": KEY_ID, "client_secret": SECRET})


def memory(faults: FaultOptions | None = None, *quotas: QuotaOptions) -> Memory:
    options = Options(
        calven=CalvenOptions(key_id=KEY_ID, secret=SECRET, token=TOKEN),
        faults=faults or FaultOptions(),
        quotas=quotas,
    )
    return Memory(options, clock=asyncio.get_running_loop().time)


def report(of: Memory) -> dict[str, Any]:
    return of.sandbox.report()


@virtual_time
async def test_it_answers_like_the_api() -> None:
    """One call is one request; its time on the wire is measured by the clock given."""
    send = memory(FaultOptions(latency_s=2.0))

    response = await send(write("a", v="1"))

    assert codes(response) == [("a", 0)]
    assert response.elapsed_s == pytest.approx(2.0, abs=0.001)
    assert send.ledger.users["a"].attributes == {"v": "1"}


@pytest.mark.parametrize(
    ("fault", "reason", "writes"),
    [("reset", "reset", 0), ("lost", "disconnected", 1), ("torn", "incomplete", 1)],
)
@virtual_time
async def test_a_cut_connection_is_a_transport_error(fault: Fault, reason: str, writes: int) -> None:
    """Before the cut a lost or torn request was applied, a reset one was not; all are counted by name."""
    send = memory(FaultOptions(rates={fault: 1}))

    with pytest.raises(TransportError, match=reason):
        await send(post())
    assert send.ledger.writes == writes
    assert report(send)["requests"] == {"/v1/directory/user-attributes": {fault: 1}}


@virtual_time
async def test_an_answer_without_a_body_can_not_be_torn() -> None:
    """It has no middle: it is lost instead, and counted so."""
    send = memory(FaultOptions(rates={"torn": 1}))

    with pytest.raises(TransportError, match="disconnected"):
        await send(put_hierarchy())
    assert send.ledger.hierarchies == 1
    assert report(send)["requests"] == {HIERARCHY: {"lost": 1}}


@pytest.mark.parametrize(("fault", "writes"), [("500", 0), ("401", 0), ("garbage", 1), ("missing", 1)])
@virtual_time
async def test_what_a_fault_leaves_in_the_ledger(fault: Fault, writes: int) -> None:
    """A refusal comes before the API and writes nothing; a spoiled answer comes after it."""
    send = memory(FaultOptions(rates={fault: 1}))
    await send(post())

    assert send.ledger.writes == writes


@virtual_time
async def test_the_quota_holds_for_token_calls_too() -> None:
    """Above the quota any request is 429, and names the wait after which it passes."""
    send = memory(None, QuotaOptions(requests=2, window_s=60, retry_after="decimal"))
    responses = [await send(TOKEN_CALL), await send(post()), await send(post())]
    await asyncio.sleep(float(responses[2].headers["retry-after"]))
    responses.append(await send(post()))

    assert [response.status for response in responses] == [200, 200, 429, 200]
    assert report(send)["quotas"] == [{"quota": "2 requests/60s sliding", "peak": 3, "refused": 1}]


@virtual_time
async def test_a_revocation_hits_requests_in_flight() -> None:
    """At its time all tokens end, once, even under requests that came before."""
    send = memory(FaultOptions(latency_s=2.0, unauthorized_once_at_s=5.0))
    early = await send(post())
    await asyncio.sleep(2.0)
    in_flight = await asyncio.gather(send(post()), send(post()))
    token = body_of(await send(TOKEN_CALL))["access_token"]
    renewed = await send(post(Authorization=f"Bearer {token}"))

    assert [r.status for r in (early, *in_flight, renewed)] == [200, 401, 401, 200]


@virtual_time
async def test_age_of_a_token_is_judged_on_arrival() -> None:
    """A token that ends while its request is on the way was good."""
    options = Options(
        calven=CalvenOptions(key_id=KEY_ID, secret=SECRET, token_lifetime_s=1.0), faults=FaultOptions(latency_s=0.8)
    )
    send = Memory(options, clock=asyncio.get_running_loop().time)
    token = body_of(await send(TOKEN_CALL))["access_token"]

    first = await send(post(Authorization=f"Bearer {token}"))
    second = await send(post(Authorization=f"Bearer {token}"))
    assert (first.status, second.status) == (200, 401)


@virtual_time
async def test_down_windows_count_from_the_start() -> None:
    """While down nothing gets through, then all does."""
    send = memory(FaultOptions(down=((0, 10),)))

    with pytest.raises(TransportError, match="refused"):
        await send(TOKEN_CALL)
    await asyncio.sleep(10)
    assert (await send(TOKEN_CALL)).status == 200


@virtual_time
async def test_requests_in_flight_may_overtake_each_other() -> None:
    """A write takes effect after its latency, so that a client which relies on the order of sending is found out."""
    send = memory(FaultOptions(jitter_s=1.0))
    for _ in range(5):
        await asyncio.gather(*(send(write("a", v=number)) for number in range(8)))
        if send.ledger.users["a"].attributes != {"v": 7}:
            return
    pytest.fail("the last one sent always won")


@virtual_time
async def test_peaks_are_of_requests_in_flight() -> None:
    """Data requests and token calls have peaks of their own, and each token call its time."""
    send = memory(FaultOptions(latency_s=1.0))

    async def in_parallel(requests: int, tokens: int) -> list[Response]:
        return await asyncio.gather(
            *(send(post()) for _ in range(requests)), *(send(TOKEN_CALL) for _ in range(tokens))
        )

    await in_parallel(3, 2)
    await in_parallel(2, 1)

    found = report(send)
    assert (found["peak_data_requests"], found["peak_token_calls"]) == (3, 2)
    first, second, third = found["token_calls"]
    assert (second - first, third - first) == (0, pytest.approx(1.0, abs=0.001))
    assert found["peak_arrivals"] == {"1s": 5, "2s": 8, "10s": 8, "60s": 8}


@virtual_time
async def test_the_same_seed_gives_the_same_day() -> None:
    """In one order of arrival a seed repeats every answer."""

    async def day(seed: int) -> list[int]:
        send = memory(FaultOptions(seed=seed, rates={"500": 0.3, "429": 0.2}))
        return [(await send(post())).status for _ in range(50)]

    assert await day(3) == await day(3) != await day(4)
