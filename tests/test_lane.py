"""The lane: pauses, stops, and the patience with a target that is down."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import anyio
import pytest

from loader.errors import Stopped
from loader.lane import Abandoned, Lane
from tests.virtual_time import START_S, virtual_time


def elapsed() -> float:
    return asyncio.get_running_loop().time() - START_S


@virtual_time
async def test_clearance_waits_for_the_end_of_the_pause() -> None:
    """The longest pause asked for counts, also when it was asked for while one waits already."""
    lane = Lane(600)
    lane.hold(10)
    lane.hold(3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lane.clearance)
        await anyio.sleep(5)
        lane.hold(20)

    assert elapsed() == pytest.approx(25, abs=0.01)
    assert lane.is_clear


@virtual_time
async def test_a_free_lane_lets_pass_at_once() -> None:
    lane = Lane(600)
    await lane.clearance()

    assert elapsed() == 0


@virtual_time
async def test_a_stop_ends_every_wait() -> None:
    """Backoffs, pauses and any other wait end with Abandoned at the moment of the stop."""
    lane = Lane(600)
    lane.hold(300)
    ended: list[float] = []

    async def other_wait() -> None:
        with lane.waiting():
            await anyio.sleep_forever()

    async def expect_abandoned(wait: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(Abandoned):
            await wait()
        ended.append(elapsed())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(expect_abandoned, lane.clearance)
        tasks.start_soon(expect_abandoned, lambda: lane.sleep(300))
        tasks.start_soon(expect_abandoned, other_wait)
        await anyio.sleep(7)
        lane.stop(Stopped("first"))
        lane.stop(Stopped("second"))

    assert ended == [pytest.approx(7, abs=0.01)] * 3
    assert str(lane.reason) == "first"


async def test_nothing_waits_after_a_stop() -> None:
    """After the stop each wait is refused before it begins."""
    lane = Lane(600)
    lane.stop(Stopped("enough"))

    for wait in (lane.clearance, lambda: lane.sleep(0)):
        with pytest.raises(Abandoned):
            await wait()
    with pytest.raises(Abandoned), lane.waiting():
        pytest.fail("it went on")
    assert not lane.is_clear


@virtual_time
async def test_a_wait_passes_on_what_went_wrong_in_it() -> None:
    """Errors and cancellation from outside are not taken for a stop."""
    lane = Lane(600)
    with pytest.raises(ZeroDivisionError), lane.waiting():
        raise ZeroDivisionError
    with anyio.move_on_after(1) as scope:
        await lane.sleep(5)

    assert scope.cancelled_caught
    assert elapsed() == pytest.approx(1, abs=0.01)


def test_the_run_stops_after_give_up_s_without_a_usable_answer() -> None:
    """Counted from the first failure since the last success; the message holds the last reason."""
    now = 0.0
    lane = Lane(600, lambda: now)
    lane.failed("one")
    now = 599.0
    lane.failed("two")
    lane.succeeded(1.0)
    now = 700.0
    lane.failed("three")
    now = 1299.0
    lane.failed("four")
    now = 1300.0

    with pytest.raises(Stopped, match=r"no usable answer for 600 s .*give_up_s = 600.*; the last: five") as stopped:
        lane.failed("five")
    assert stopped.value.exit_status == 3


def test_trouble_is_told_with_its_reason_and_when_it_gives_up() -> None:
    """A failure now and then is none."""
    now = 100.0
    lane = Lane(600, lambda: now)
    lane.failed("HTTP 500")
    now = 104.0
    assert lane.trouble is None, "one failure, of which the next answer may tell that it was nothing"

    lane.failed("Connection refused")
    assert lane.trouble == ("down", "Connection refused", 100.0, 700.0)
    lane.hold(30, "HTTP 503")
    assert lane.trouble == ("pause", "HTTP 503", 100.0, 700.0)
    now = 134.0
    assert lane.trouble == ("down", "Connection refused", 100.0, 700.0)
    lane.succeeded(0.1)
    assert lane.trouble is None
    for _ in range(10):
        lane.failed("HTTP 502")
    assert lane.trouble == ("down", "HTTP 502", 134.0, 734.0), "so many in a row need no time"


async def ask(lane: Lane, moments: list[float], *, takes: Callable[[float], bool]) -> None:
    """One after the other, requests that the target takes, or does not, 50 ms after they went."""
    while elapsed() < 120:
        await lane.clearance()
        moments.append(elapsed())
        await anyio.sleep(0.05)
        if takes(moments[-1]):
            lane.succeeded(0.05)
        else:
            lane.failed("HTTP 503")


@virtual_time
async def test_a_target_that_is_down_is_asked_now_and_then_and_gone_on_with_when_it_is_back() -> None:
    lane = Lane(600, uniform=lambda low, high: high)
    moments: list[float] = []
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(lambda: ask(lane, moments, takes=lambda at: not 10 <= at < 70))

    down = [at for at in moments if 11 <= at < 70]
    assert len(down) <= 12, "who asks is one, at intervals that grow to 16 s"
    assert max(later - earlier for earlier, later in pairwise(down)) <= 16.1
    back = next(at for at in moments if at >= 70)
    assert back <= 86.1
    assert len([at for at in moments if back + 0.05 < at <= back + 1]) >= 70, "all go on at once"


@virtual_time
async def test_being_put_off_is_not_being_down() -> None:
    """A 429 or a 401 comes from a target that is there."""
    lane = Lane(600)
    for _ in range(100):
        lane.delayed("HTTP 429")
    await lane.clearance()

    assert not lane.is_down
    assert elapsed() == 0


@virtual_time
async def test_it_is_open_where_clearance_is_given_at_once_and_nothing_is_noted_for_it() -> None:
    lane = Lane(600)
    assert lane.is_open(anyio.current_time())

    lane.hold(5)
    assert not lane.is_open(anyio.current_time())
    await anyio.sleep(5.1)
    assert lane.is_open(anyio.current_time())

    for _ in range(10):
        lane.failed("HTTP 500")
    assert not lane.is_open(anyio.current_time()), "one at a time asks whether it is back"
    lane.succeeded(0.1)
    assert lane.is_open(anyio.current_time())

    lane.stop(Stopped("enough"))
    assert not lane.is_open(anyio.current_time())
