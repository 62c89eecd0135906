"""What requests cost the API: time, at a place of which there are so many."""

import asyncio
from typing import Any

import pytest

from loader.request import Request, Response
from loader.sandbox import CalvenOptions, Memory, Options, QuotaOptions, WorkOptions
from tests.sandbox.calls import KEY_ID, SECRET, TOKEN, post, write
from tests.virtual_time import virtual_time

TOKEN_CALL = post("/v1/auth/token", {"client_id": KEY_ID, "client_secret": SECRET})


def memory(quotas: tuple[QuotaOptions, ...] = (), **work: Any) -> Memory:
    options = Options(
        calven=CalvenOptions(key_id=KEY_ID, secret=SECRET, token=TOKEN), work=WorkOptions(**work), quotas=quotas
    )
    return Memory(options, clock=asyncio.get_running_loop().time)


async def all_at_once(send: Memory, *requests: Request) -> list[Response]:
    return await asyncio.gather(*map(send, requests))


def times(responses: list[Response]) -> list[float]:
    return [round(response.elapsed_s, 3) for response in responses]


@virtual_time
async def test_a_request_takes_its_time_and_that_of_its_users() -> None:
    """A fixed part, and one for each user; who asks for a token waits for nobody's work."""
    send = memory(request_s=1.0, user_s=0.25)

    found = await all_at_once(send, write("a"), write(*"abcd"), TOKEN_CALL)

    assert times(found) == [1.25, 2.0, 0.0]


@virtual_time
async def test_so_many_are_worked_on_at_once() -> None:
    """The others wait their turn, first come, first served."""
    send = memory(request_s=1.0, at_once=2)

    assert times(await all_at_once(send, *[post()] * 5)) == [1, 1, 2, 2, 3]


@virtual_time
async def test_without_a_number_all_are_worked_on() -> None:
    """Each has a place of its own."""
    send = memory(request_s=1.0)

    assert times(await all_at_once(send, *[post()] * 50)) == [1] * 50


@pytest.mark.parametrize("at_once", [None, 1])
@virtual_time
async def test_what_is_refused_for_its_pace_is_no_work(at_once: int | None) -> None:
    """A 429 is answered at once, whoever waits."""
    send = memory((QuotaOptions(requests=1, window_s=60),), request_s=1.0, at_once=at_once)

    found = await all_at_once(send, post(), post())

    assert [(response.status, round(response.elapsed_s, 3)) for response in found] == [(200, 1.0), (429, 0.0)]
