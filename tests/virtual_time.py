"""Virtual time: an asyncio loop whose clock jumps to the next timer whenever there is nothing else to do.

    @virtual_time
    async def test_waits_a_minute() -> None: ...

    result = run_virtual(main())

asyncio.sleep, anyio's sleeps and scopes, and aiolimiter then take no real time, in the order they would have had.
Only `loop.time()` jumps (anyio.current_time() is the same); time.monotonic() and time.time() don't, so a decision that
needs a clock takes `now` as an argument.

Time stands still while a thread works for the loop: jobs of `run_in_executor` and `anyio.to_thread` are waited for in
real time. What the clock can't see it refuses, loudly, as VirtualTimeError: any other thread, and sockets (a test with
sockets runs in real time). So it does when nothing could ever wake the loop: that test would hang.
"""

import asyncio
import contextlib
import functools
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack

from anyio._backends._asyncio import WorkerThread

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Like a machine that has been up for a day. Not 0: "never" and "just now" would look the same.
START_S = 100_000.0

# Past the timer and not onto it: aiolimiter computes its timer from a level and the level from the time; exactly on the
# timer the level may lack a rounding error, the next timer is now, and it spins for ever.
PAST_TIMER_S = 1e-6

# A timer may be due in so little time that adding it to the clock doesn't change that: then it is due at once, again
# and again. A real clock moves meanwhile; this one does so after so many turns of the loop without a jump.
TURNS = 10_000

# A job of a thread takes milliseconds. One that takes this long will not end by itself.
PATIENCE_S = 20.0


class VirtualTimeError(BaseException):
    """The test can't go on in virtual time. No Exception: code under test must not handle it away."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. `run_virtual` makes one; it is of use for one run."""

    def __init__(self) -> None:
        self._virtual_now = START_S
        self._jobs = 0
        self._known_threads: set[threading.Thread] = set(threading.enumerate())
        super().__init__(_JumpingSelector(self))
        self._own_executor = ThreadPoolExecutor()
        self.set_default_executor(self._own_executor)  # asyncio.to_thread asks for the default one

    def time(self) -> float:
        return self._virtual_now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As usual, and time stands still until the job has ended, even when nobody waits for it any more."""
        executor = executor or self._own_executor
        job = executor.submit(func, *args)
        future = asyncio.wrap_future(job, loop=self)
        # Registered after wrap_future's own callback: the result is on its way before time may move again.
        self._jobs += 1
        job.add_done_callback(self._job_ended)
        self._known_threads.update(getattr(executor, "_threads", ()))
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncio's
        """Without the thread that asyncio would start for it; a job that hangs is left behind."""
        self._own_executor.shutdown(wait=not self._jobs, cancel_futures=True)

    def _job_ended(self, _job: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and past caring
            self.call_soon_threadsafe(self._forget_job)

    def _forget_job(self) -> None:
        self._jobs -= 1

    def _threads_at_work(self) -> int:
        """How many jobs threads do for this loop just now. Raises for a thread that it can't judge."""
        working = self._jobs
        for thread in threading.enumerate():
            if isinstance(thread, WorkerThread):
                if thread.loop is self:
                    working += not thread.stopping and thread not in thread.idle_workers
            elif thread not in self._known_threads:
                raise VirtualTimeError(
                    f"{thread!r} was started beside the loop, and virtual time can't tell whether it is at work; "
                    "use run_in_executor or anyio.to_thread, or test in real time"
                )
        return working

    def _explain(self) -> str:
        waiting = "\n".join(f"  {task!r}" for task in asyncio.all_tasks(self) if not task.done())
        return f"at {self._virtual_now - START_S:.6f} s of virtual time; tasks:\n{waiting or '  none'}"


class _JumpingSelector(selectors.DefaultSelector):
    """Where the loop would sleep: returns at once, with time moved on to the next timer."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self._loop
        if timeout is not None and timeout <= 0:
            self._turns += 1
            if self._turns % TURNS == 0:
                loop._virtual_now += PAST_TIMER_S
            return super().select(0)
        self._turns = 0
        # Said here and not in register(): asyncio logs what its callbacks raise, and goes on.
        if len(self.get_map()) > 1:  # the first is the loop's own pipe to itself, through which threads wake it
            raise VirtualTimeError("sockets and pipes need real time: use the memory transport, or test in real time")
        if loop._threads_at_work():
            ready = super().select(PATIENCE_S)
            if not ready:
                raise VirtualTimeError(f"a thread's job has not ended in {PATIENCE_S:g} s, {loop._explain()}")
            return ready
        # A thread may have ended between the last look and the count: its word goes before any jump.
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise VirtualTimeError(f"deadlock: nothing is scheduled that could wake the loop, {loop._explain()}")
        loop._virtual_now += timeout + PAST_TIMER_S
        return []


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """asyncio.run in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Decorator: the async test runs in virtual time. Its fixtures should be plain ones: async fixtures have a loop of
    their own, in real time. Goes below @given."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtual(test(*args, **kwargs))

    return run
