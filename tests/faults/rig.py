"""A load in virtual time: the loader's parts from batcher to commit as load.py wires them, and Memory as the target."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from email.utils import formatdate
from operator import attrgetter
from pathlib import Path
from typing import Any

import anyio
import orjson

from loader.batch import Batcher, BatchLimits
from loader.ceiling import RequestSize
from loader.checkpoint import Checkpoint, Entry
from loader.client import Credentials, Tempo, bearer, gate, observe, pace
from loader.dispatch import Dispatcher
from loader.errors import LoaderError, Stopped, TimedOut, TransportError
from loader.lane import Lane
from loader.outcome import GOOD, Code, Outcome, Settled
from loader.probe import refuse_undeclared
from loader.progress import Tally
from loader.record import Frame, Mark, Rows
from loader.request import Request, Response
from loader.sandbox import CalvenOptions, FaultOptions, Memory, Options
from loader.settle import Settler
from loader.snapshot import Note
from loader.target import Target, WholeTarget
from loader.targets.calven import FRAME, Calven
from loader.tempo.concurrency import Concurrency
from loader.tempo.quota import Quota, pace_of
from loader.tempo.rate import Rate
from loader.transport import Send

KEY_ID, SECRET, TOKEN = "KEY-ID-0001", "a-secret-of-the-test", "a-token-of-the-test"

Row = tuple[str, Mapping[str, Any]]


def wall() -> float:
    """Unix time that moves with virtual time. Not its small numbers: those would be lifetimes, not points in time."""
    return 1_750_000_000.0 + asyncio.get_running_loop().time()


def calven(**options: Any) -> CalvenOptions:
    return CalvenOptions(key_id=KEY_ID, secret=SECRET, token=TOKEN, **options)


def options(faults: FaultOptions | None = None, **more: Any) -> Options:
    """A sandbox that knows the rig's credentials."""
    return Options(**{"calven": calven(), "faults": faults or FaultOptions(), **more})


def users(count: int, first: int = 1) -> list[Row]:
    """Rows of `count` users, each with one attribute that tells its row."""
    return [(f"user{number:05}@example.com", {"n": str(number)}) for number in range(first, first + count)]


def blocks(rows: Sequence[Row], size: int = 250, frame: Frame = FRAME) -> list[Rows]:
    """Rows as the mapping gives them: ready records, numbered from 1."""
    found = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        found.append(
            Rows(
                list(range(start + 1, start + 1 + len(part))),
                [user for user, _ in part],
                [frame.record(user, orjson.dumps(values)) for user, values in part],
                end=Mark(start + 1 + len(part)),
            )
        )
    return found


async def stream(rows: Iterable[Rows]) -> AsyncIterator[Rows]:
    for block in rows:
        yield block


class Recorder(Checkpoint):
    """A checkpoint that keeps what is committed in memory. `fails_from`: the commit (0, 1, …) from which it can't."""

    def __init__(self, fails_from: int | None = None, delay: Callable[[], None] = lambda: None) -> None:
        self.path = Path("recorder")
        self.entries: list[Entry] = []
        self.commits = 0
        self._fails_from = fails_from
        self._delay = delay

    def commit(self, entries: Iterable[Entry], note: Note | None = None) -> None:
        self._delay()
        number, self.commits = self.commits, self.commits + 1
        if self._fails_from is not None and number >= self._fails_from:
            raise Stopped("can't write the checkpoint: database or disk is full")
        self.entries += entries

    def rows(self) -> dict[int, Settled]:
        """The outcome of each row. Fails if a row has two."""
        found: dict[int, Settled] = {}

        def put(row: int, user: str, outcome: Outcome) -> None:
            assert row not in found, f"row {row} has two outcomes"
            found[row] = Settled(row, user, outcome)

        for entry in self.entries:
            for item in entry.settled:
                put(*item)
            if entry.batch is not None:
                batch = entry.batch
                for row, user, outcome in zip(batch.numbers, batch.users, entry.outcomes, strict=True):
                    put(row, user, outcome)
                    for earlier in batch.merged.get(row, ()):
                        put(earlier, user, Outcome(Code.SUPERSEDED, f"merged into row {row}", "", 0, outcome.attempts))
        return found


class Clock:
    """What the machine that the loader runs on takes for the time. Beside it stands the truth, which the target has."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.slept_s = 0.0
        """Seconds of true time that went by while the machine was suspended, and its monotonic clock stood still."""

    def truth(self) -> float:
        return wall() + self.slept_s

    def wall(self) -> float:
        return self.truth() + self.ahead_s


class Rig:
    """One load. A `target` that is a Memory is gone on with.

    `api`: what the loader takes it for, by default Calven with `auth` and `settings`; `secrets` are what it believes.
    `wrap` puts something between the loader and the target; `wire` takes the place of the target. `carries`: the users
    in a request. `clock`: that of the machine; the target has the true time, and its answers bear it. `is_proven`: an
    earlier run has settled users.
    """

    def __init__(
        self,
        target: Options | Memory | None = None,
        *,
        api: Target | None = None,
        auth: str = "client-secret",
        secrets: Mapping[str, str] | None = None,
        concurrency: int = 4,
        users_per_request: int = 10,
        bytes_per_request: int = 1_000_000,
        rate: float | None = None,
        quota: str | None = None,
        attempts: int = 8,
        give_up_s: float = 600.0,
        timeout_s: float = 30.0,
        max_failures: int | str = "100%",
        checkpoint: Recorder | None = None,
        wrap: Callable[[Send], Send] = lambda send: send,
        wire: Send | None = None,
        carries: Callable[[Request], list[str]] | None = None,
        clock: Clock | None = None,
        uniform: Callable[[float, float], float] | None = None,
        is_proven: bool = False,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        uniform = uniform or random.Random(seed).uniform
        self.clock = clock or Clock()
        self.memory = target if isinstance(target, Memory) else Memory(target or options(), clock=self.clock.truth)
        self.concurrency = concurrency
        self.lane = Lane(give_up_s, uniform=uniform)
        self.warnings: list[str] = []
        self.sent: list[tuple[float, Request]] = []
        self.carried: Counter[str] = Counter()
        self.stopped_at: float | None = None
        self.checkpoint = checkpoint or Recorder()
        self.tally = Tally()
        known = dict(secrets or {"key_id": KEY_ID, "secret": SECRET, "token": TOKEN})
        self.api = api or Calven(auth=auth, **settings)
        self._carries = carries or users_of
        self._timeout_s = timeout_s
        wire = wrap(self._noted(wire or self._in_memory))
        quotas = [Quota(rate, 1)] if rate else [Quota.parse(quota)] if quota else []
        self.tempo = Tempo(
            [pace_of(each, users_per_request) for each in quotas], Rate(), Concurrency(concurrency, concurrency)
        )
        self.credentials = Credentials(
            self.api.scheme,
            lambda: {name: known[name] for name in self.api.scheme.needs},
            wire,
            self.lane,
            self.tempo,
            warn=self.warnings.append,
            uniform=uniform,
            wall=self.clock.wall,
            monotonic=asyncio.get_running_loop().time,
        )
        authorized = bearer(wire, self.credentials, self.api.refuses_token)
        observed = observe(authorized, self.lane, self.tempo, self.clock.wall)
        paced = pace(observed, self.lane, self.tempo, self.credentials, attrgetter("users"))
        self.send = gate(paced, self.tempo)
        limits = BatchLimits(users_per_request, bytes_per_request)
        self.settler = Settler(
            self.api,
            self.send,
            self.lane,
            RequestSize(limits),
            attempts,
            self.warnings.append,
            is_proven=is_proven,
            uniform=uniform,
            wall=self.clock.wall,
        )
        self._is_whole = isinstance(self.api, WholeTarget)
        self.batcher = Batcher(
            self.api.frame, limits, replace=self.api.write == "replace", rows_are_users=not self._is_whole
        )
        self._max_failures = max_failures
        self.dispatcher = Dispatcher(
            self.batcher, self.settler, self.checkpoint, self.lane, concurrency, self._committed
        )

    def _noted(self, send: Send) -> Send:
        """Note what goes on the wire, and when."""

        async def noted(request: Request) -> Response:
            self.sent.append((asyncio.get_running_loop().time(), request))
            self.carried.update(self._carries(request))
            return await send(request)

        return noted

    async def _in_memory(self, request: Request) -> Response:
        """As over a network: within so much time, dated, and broken by a machine that falls asleep meanwhile."""
        loop = asyncio.get_running_loop()
        started, slept_s = loop.time(), self.clock.slept_s
        with anyio.move_on_after(self._timeout_s):
            response = await self.memory(request)
            if self.clock.slept_s > slept_s:
                raise TransportError("the connection broke")
            dated = {"date": formatdate(self.clock.truth(), usegmt=True), **response.headers}
            return replace(response, headers=dated, elapsed_s=loop.time() - started)
        raise TimedOut(f"no whole answer within {self._timeout_s:g} s")

    def _committed(self, entry: Entry) -> None:
        aside = entry.settled
        self.tally.add([item.outcome for item in aside], [item.row for item in aside], [item.user for item in aside])
        if (batch := entry.batch) is not None:
            self.tally.add(entry.outcomes, batch.numbers, batch.users, sum(map(len, batch.merged.values())))
        if not self._is_whole and (reason := self.tally.reason_to_stop(self._max_failures)):
            self.lane.stop(reason)

    async def run(self, rows: Sequence[Row] | AsyncIterator[Rows], block: int = 250) -> dict[int, Settled]:
        """Run the load to its end, or until it stops (`lane.reason`). What became of each row."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._note_the_stop)
            if not isinstance(rows, AsyncIterator):
                names = {name for _, values in rows for name in values}
                try:
                    await refuse_undeclared(self.api, self.send, names, self.warnings.append)
                except LoaderError as error:
                    self.lane.stop(error)
                rows = stream(blocks(rows, block, self.api.frame))
            await self.dispatcher.run(rows)
            tasks.cancel_scope.cancel()
        return self.checkpoint.rows()

    async def _note_the_stop(self) -> None:
        await self.lane.stopping.wait()
        self.stopped_at = asyncio.get_running_loop().time()

    @property
    def exit_status(self) -> int:
        """As of the command."""
        if self.lane.reason is not None:
            return self.lane.reason.exit_status
        return 0 if set(self.codes()) <= GOOD else 1

    def codes(self) -> Counter[Code]:
        return Counter(item.outcome.code for item in self.checkpoint.rows().values())

    @property
    def data_requests(self) -> list[tuple[float, Request]]:
        return [(at, request) for at, request in self.sent if request.users]

    @property
    def token_calls(self) -> list[float]:
        return [at for at, request in self.sent if not request.users]


def users_of(request: Request) -> list[str]:
    """The users that a request carries, as the API would read them."""
    if not request.users:
        return []
    return [record["userName"] for record in json.loads(request.body)["userAttributes"]]
