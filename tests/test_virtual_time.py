"""The virtual clock itself: it saves waiting, keeps order, and says so when it can't."""

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest
from aiolimiter import AsyncLimiter
from hypothesis import given
from hypothesis import strategies as st

from tests.virtual_time import VirtualTimeError, run_virtual, virtual_time


async def elapsed_s(work: Coroutine[Any, Any, object]) -> float:
    loop = asyncio.get_running_loop()
    start = loop.time()
    await work
    return loop.time() - start


def test_an_hour_takes_no_time() -> None:
    start = time.monotonic()

    virtual_s = run_virtual(elapsed_s(asyncio.sleep(3600)))

    assert virtual_s == pytest.approx(3600)
    assert time.monotonic() - start < 5


def test_a_year_is_longer_than_the_longest_select() -> None:
    assert run_virtual(elapsed_s(anyio.sleep(365 * 86400))) == pytest.approx(365 * 86400)


@virtual_time
async def test_sleepers_wake_in_the_order_of_their_timers() -> None:
    woken: list[float] = []

    async def sleeper(delay_s: float) -> None:
        await anyio.sleep(delay_s)
        woken.append(delay_s)

    async with anyio.create_task_group() as group:
        for delay_s in (3.0, 1.0, 60.0, 2.0, 0.0):
            group.start_soon(sleeper, delay_s)

    assert woken == [0.0, 1.0, 2.0, 3.0, 60.0]


@given(st.lists(st.floats(0, 1e6), max_size=20))
@virtual_time
async def test_no_sleeper_wakes_early(delays_s: list[float]) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def sleeper(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        assert loop.time() >= start + delay_s - 1e-9

    await asyncio.gather(*map(sleeper, delays_s))


@virtual_time
async def test_deadlines_are_virtual() -> None:
    with anyio.move_on_after(30) as scope:
        await anyio.sleep(31)

    assert scope.cancelled_caught


@pytest.mark.parametrize(("rate", "period_s"), [(10, 1), (1, 0.1), (1000, 60), (7, 3)])
def test_aiolimiter_paces_and_never_spins(rate: int, period_s: float) -> None:
    async def acquire(times: int) -> None:
        limiter = AsyncLimiter(rate, period_s)
        for _ in range(times):
            await limiter.acquire()

    times = 10 * rate if rate > 1 else 100

    # The bucket is empty at first and takes `rate` at once.
    assert run_virtual(elapsed_s(acquire(times))) == pytest.approx((times - rate) * period_s / rate, rel=0.01)


def test_a_hundred_at_ten_a_second_take_ten_seconds() -> None:
    async def acquire() -> None:
        limiter = AsyncLimiter(1, 0.1)
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(limiter.acquire)

    assert run_virtual(elapsed_s(acquire())) == pytest.approx(10, rel=0.02)


def test_a_deadlock_is_told() -> None:
    async def waits_for_nobody() -> None:
        await anyio.sleep(5)
        await asyncio.Event().wait()

    with pytest.raises(VirtualTimeError, match=r"(?s)deadlock.* 5\.0.*waits_for_nobody"):
        run_virtual(waits_for_nobody())


def test_code_under_test_cannot_handle_a_deadlock_away() -> None:
    async def handles_all() -> None:
        try:
            await asyncio.Event().wait()
        except Exception:  # noqa: BLE001  # the point of the test
            return

    with pytest.raises(VirtualTimeError):
        run_virtual(handles_all())


@virtual_time
async def test_time_stands_still_while_an_executor_works() -> None:
    loop = asyncio.get_running_loop()

    def job() -> str:
        time.sleep(0.05)
        return "done"

    with ThreadPoolExecutor(1) as own, anyio.fail_after(0.001):
        for executor in (None, own):
            assert await loop.run_in_executor(executor, job) == "done"
        assert await asyncio.to_thread(job) == "done"


@virtual_time
async def test_time_stands_still_while_an_anyio_thread_works() -> None:
    with anyio.fail_after(0.001):
        for _ in range(3):
            await anyio.to_thread.run_sync(time.sleep, 0.02)
    await anyio.sleep(60)
    await anyio.to_thread.run_sync(time.sleep, 0.02)


@virtual_time
async def test_time_waits_for_a_job_that_nobody_waits_for() -> None:
    loop = asyncio.get_running_loop()
    go_on, ended = threading.Event(), threading.Event()

    def job() -> None:
        go_on.wait()
        ended.set()

    future = loop.run_in_executor(None, job)
    await asyncio.sleep(0)
    future.cancel()
    go_on.set()
    await asyncio.sleep(10)

    assert ended.is_set()


@virtual_time
async def test_work_between_sleeps_in_many_threads() -> None:
    loop = asyncio.get_running_loop()

    async def worker(n: int) -> None:
        for _ in range(20):
            await asyncio.sleep(n / 7)
            with anyio.fail_after(1e-5):
                await loop.run_in_executor(None, int, "7")

    start = loop.time()
    async with anyio.create_task_group() as group:
        for n in range(1, 8):
            group.start_soon(worker, n)

    assert loop.time() - start == pytest.approx(20, rel=0.001)


def test_a_thread_of_its_own_is_refused() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="loner")

    async def main() -> None:
        thread.start()
        await asyncio.sleep(1)

    with pytest.raises(VirtualTimeError, match="loner"):
        run_virtual(main())
    stop.set()
    thread.join()


def test_sockets_are_refused() -> None:
    ours, theirs = socket.socketpair()

    async def main() -> None:
        ours.setblocking(False)
        await asyncio.get_running_loop().sock_recv(ours, 1)

    with ours, theirs, pytest.raises(VirtualTimeError, match="real time"):
        run_virtual(main())


def test_errors_come_out() -> None:
    async def fails() -> None:
        await asyncio.sleep(1)
        raise LookupError("as it was")

    with pytest.raises(LookupError, match="as it was"):
        run_virtual(fails())


@virtual_time
async def test_a_timer_of_no_time_does_not_stop_the_clock() -> None:
    """A limiter that lacked a rounding error asked for the time that this takes to leak, for ever: less than the clock
    can show."""
    loop = asyncio.get_running_loop()
    start, done = loop.time(), loop.create_future()

    def wait_for_the_rest() -> None:
        if loop.time() - start > 1e-9:
            done.set_result(None)
        else:
            loop.call_later(1e-13, wait_for_the_rest)

    wait_for_the_rest()
    await done

    assert loop.time() - start < 1e-5
