"""Lives of the loader in virtual time: `load` as it is, with a network and threads that are the simulation's.

What goes on is one thing after the other, in an order that only the seed decides: work for threads is done in between,
after a time of its own. A life that is killed ends at one of its moments, before or after it has done something that
shows: sent a request, read an answer, written to the disk. From then on nothing that it still does shows; its files are
those of that moment. The API ends what it has begun.
"""

import asyncio
import dataclasses
import gc
import hashlib
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Never, TypeVar
from unittest.mock import patch

import anyio
import anyio.to_thread

import loader.load
from loader.checkpoint import Checkpoint
from loader.client import Credentials
from loader.errors import LoaderError, TimedOut
from loader.lane import Lane
from loader.network import Network
from loader.request import Request, Response
from loader.resume import begin
from loader.sandbox import FaultOptions, Memory
from loader.settings import Settings, load_settings
from loader.settle import Settler
from tests.chaos.judge import CHECKPOINT, Figures, Judge, claims
from tests.chaos.scenario import ENVIRONMENT, Scenario
from tests.virtual_time import run_virtual

T = TypeVar("T")

#: Lives after which the API's bad days are over, and lives that a load may need in all. (What a batch has cost is lost
#: when its run stops, so that a large one whose users are searched for one by one may need better days than these.)
BAD_LIVES, MOST_LIVES = 25, 35


def _ignore(_told: object) -> None:
    pass


class Story(NamedTuple):
    """What came of a scenario. `digest`: of all requests, in order, with the moments they went."""

    figures: Figures
    digest: str


def simulate(scenario: Scenario, folder: Path) -> Story:
    """Live it through, and judge each life and the end."""
    try:
        return run_virtual(_Simulation(scenario, folder).run())
    except AssertionError as error:
        raise AssertionError(f"{scenario}: {error}") from error


def _wall() -> float:
    """Unix time that moves with virtual time."""
    return 1_750_000_000.0 + asyncio.get_running_loop().time()


def _as_on_a_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Do what may block. Where threads work there is no loop, and whoever watches over blocking calls looks for one."""
    loop = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return work(*arguments)
    finally:
        asyncio._set_running_loop(loop)


class _Life:
    """One process. It dies at its `moments`-th moment (0: of old age), leaving its files in `heir`."""

    def __init__(self, folder: Path, heir: Path, moments: int, dice: random.Random) -> None:
        self.folder = folder
        self.sent: list[Request] = []
        self.is_dead = False
        self.over, self.buried = anyio.Event(), anyio.Event()
        self.error: LoaderError | None = None
        self.is_finished = False
        self._heir = heir
        self._left = moments
        self._dice = dice

    async def moment(self) -> None:
        """A moment to be killed at. Whoever is dead stays here."""
        self._left -= 1
        if self._left == 0:
            self.is_dead = True
            _as_on_a_thread(_copy, self.folder, self._heir)
            self.over.set()
        if self.is_dead:
            await self._rest()

    async def _rest(self) -> Never:
        """Until it is buried: what is shielded against being cancelled must not be waited for, either."""
        await self.buried.wait()
        raise asyncio.CancelledError

    async def on_thread(self, work: Callable[..., T], *arguments: Any, **_: Any) -> T:
        """Takes the place of anyio.to_thread.run_sync, which can't be cancelled once it has begun."""
        await self.moment()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(self._dice.uniform(0, 0.02))
        if self.is_dead:
            await self._rest()
        found = _as_on_a_thread(work, *arguments)
        await self.moment()
        return found


def _copy(folder: Path, heir: Path) -> None:
    for path in folder.glob(f"{CHECKPOINT}*"):
        shutil.copy(path, heir)


class _Simulation:
    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self._scenario = scenario
        self._folder = folder
        self._dice = random.Random(f"{scenario.seed} lives")
        self._digest = hashlib.sha256()
        self._answering: set[asyncio.Task[Response]] = set()
        self._life: _Life

    async def run(self) -> Story:
        scenario = self._scenario
        with _patched(scenario, self):
            self._settings = _as_on_a_thread(scenario.prepare, self._folder, "http://127.0.0.1:9")
            settings = _as_on_a_thread(load_settings, self._settings)
            judge = Judge(scenario, settings.batch_limits.users)
            self._memory = Memory(scenario.options, clock=_wall)
            kills = list(scenario.kills)
            for number in count():
                assert number < MOST_LIVES, f"it goes on and on: {judge.figures.stops}"
                if number == BAD_LIVES:
                    self._memory.sandbox.faults = FaultOptions()
                life = await self._live(number, kills.pop() if kills else 0)
                after = _as_on_a_thread(claims, self._home(number + life.is_dead))
                reason = str(life.error) if life.error else ""
                judge.judge_life(life.sent, self._memory.ledger, after, is_killed=life.is_dead, reason=reason)
                if life.is_finished:
                    break
                if not life.is_dead:
                    _as_on_a_thread(_copy, self._home(number), self._home(number + 1))
                await anyio.sleep(self._dice.choice([0.0, 1.0, 30.0]))
            judge.judge_end(self._memory.sandbox)
        return Story(judge.figures, self._digest.hexdigest())

    def _home(self, number: int) -> Path:
        path = self._folder / f"life{number}"
        path.mkdir(exist_ok=True)
        return path

    async def _live(self, number: int, moments: int) -> _Life:
        """One life, to its end; and what the API had begun by then."""
        life = self._life = _Life(self._home(number), self._home(number + 1), moments, self._dice)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._load, life)
            await life.over.wait()
            life.buried.set()
            tasks.cancel_scope.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        self._answering.clear()
        return life

    async def _load(self, life: _Life) -> None:
        """What `loader run` does."""
        path = life.folder / CHECKPOINT
        settings = _as_on_a_thread(load_settings, self._settings, [f"checkpoint.path={path}"])
        checkpoint = _as_on_a_thread(lambda: Checkpoint.open(path, create=True))
        try:
            resume = _as_on_a_thread(
                lambda: begin(checkpoint, settings.identity(), settings.source, settings.row_mapping())
            )
            lane = Lane(settings.limits.give_up_s)
            await loader.load.load(settings, checkpoint, resume, lane, _ignore, _ignore)
            life.is_finished = True
        except LoaderError as error:
            life.error = error
        except BaseExceptionGroup as group:
            life.error = _only(group)
        finally:
            _as_on_a_thread(checkpoint.__exit__, None, None, None)
            if not life.is_dead:
                life.over.set()

    async def on_thread(self, work: Callable[..., T], *arguments: Any, **options: Any) -> T:
        return await self._life.on_thread(work, *arguments, **options)

    async def send(self, request: Request, timeout_s: float) -> Response:
        """One attempt. What was sent takes effect, whether anybody waits for the answer or not; not after a timeout."""
        life = self._life
        await life.moment()
        life.sent.append(request)
        self._digest.update(f"{_wall():.6f} {request.method} {request.path} {sorted(request.headers.items())}".encode())
        self._digest.update(request.body)
        answering = asyncio.create_task(self._memory(request))
        self._answering.add(answering)
        try:
            with anyio.fail_after(timeout_s):
                response = await asyncio.shield(answering)
        except TimeoutError:
            answering.cancel()
            raise TimedOut(f"no whole answer within {timeout_s:g} s") from None
        finally:
            if answering.done():
                self._answering.discard(answering)
        await life.moment()
        return response


def _only(group: BaseExceptionGroup[BaseException]) -> LoaderError:
    """The error of ours in a group; whatever else is there is a bug."""
    (error,) = group.exceptions
    if isinstance(error, BaseExceptionGroup):
        return _only(error)
    if not isinstance(error, LoaderError):
        raise group
    return error


class _Wire:
    """Takes the place of the transport."""

    def __init__(self, simulation: _Simulation, base_url: str, connections: int, timeout_s: float, *, network: Network):
        self._send = simulation.send
        self._timeout_s = timeout_s

    async def __aenter__(self) -> "_Wire":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __call__(self, request: Request) -> Response:
        return await self._send(request, self._timeout_s)


@contextmanager
def _patched(scenario: Scenario, simulation: _Simulation) -> Iterator[None]:
    """The loader with a network, threads, clocks and chance that are the simulation's, and small blocks."""
    source = Settings.source

    def in_small_blocks(settings: Settings) -> Any:
        return dataclasses.replace(source.fget(settings), chunk_bytes=scenario.block_bytes)  # type: ignore[attr-defined]

    def monotonic() -> float:
        return asyncio.get_running_loop().time()

    random.seed(scenario.seed)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unclosed <MemoryObject", ResourceWarning)  # whoever is killed closes nothing
        for what in (
            patch.dict(os.environ, ENVIRONMENT),
            patch.object(anyio.to_thread, "run_sync", simulation.on_thread),
            patch.object(Settings, "source", property(in_small_blocks)),
            patch.object(loader.load, "Transport", partial(_Wire, simulation)),
            patch.object(loader.load, "Credentials", partial(Credentials, wall=_wall, monotonic=monotonic)),
            patch.object(loader.load, "work_clock", lambda: lambda: 0.0),
            patch.object(loader.load, "Settler", partial(Settler, wall=_wall)),
        ):
            stack.enter_context(what)
        yield
        gc.collect()
