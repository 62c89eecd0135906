"""A load in virtual time: the loader's parts from batcher to commit as load.py wires them, and Memory as the target."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import orjson

from loader.batch import Batcher, BatchLimits
from loader.ceiling import RequestSize
from loader.checkpoint import Checkpoint, Entry
from loader.client import Credentials, Tempo, bearer, gate, observe, pace
from loader.concurrency import Concurrency
from loader.dispatch import Dispatcher
from loader.errors import Stopped
from loader.lane import Lane
from loader.outcome import Code, Outcome, Settled
from loader.progress import Found, Tally
from loader.quota import Quota, pace_of
from loader.rate import Rate
from loader.record import Mark, Rows
from loader.request import Request, Response
from loader.sandbox import CalvenOptions, FaultOptions, Memory, Options
from loader.settle import Settler
from loader.targets.calven import FRAME, Calven
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


def blocks(rows: Sequence[Row], size: int = 250) -> list[Rows]:
    """Rows as the mapping gives them: ready records, numbered from 1."""
    found = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        found.append(
            Rows(
                list(range(start + 1, start + 1 + len(part))),
                [user for user, _ in part],
                [FRAME.record(user, orjson.dumps(values)) for user, values in part],
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

    def commit(self, entries: Iterable[Entry], found: Found | None = None) -> None:
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


class Rig:
    """One load. A `target` that is a Memory is gone on with.

    `wrap` puts something between the loader and the target; `secrets` are what the loader believes.
    """

    def __init__(
        self,
        target: Options | Memory | None = None,
        *,
        auth: str = "client-secret",
        secrets: Mapping[str, str] | None = None,
        concurrency: int = 4,
        users_per_request: int = 10,
        bytes_per_request: int = 1_000_000,
        rate: float | None = None,
        quota: str | None = None,
        attempts: int = 8,
        give_up_s: float = 600.0,
        max_failures: int | str = "100%",
        checkpoint: Recorder | None = None,
        wrap: Callable[[Send], Send] = lambda send: send,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self.memory = target if isinstance(target, Memory) else Memory(target or options(), clock=wall)
        self.concurrency = concurrency
        self.lane = Lane(give_up_s)
        self.warnings: list[str] = []
        self.sent: list[tuple[float, Request]] = []
        self.carried: Counter[str] = Counter()
        self.checkpoint = checkpoint or Recorder()
        self.tally = Tally()
        self.in_flight = 0
        self.peak_in_flight = 0
        uniform = random.Random(seed).uniform
        known = dict(secrets or {"key_id": KEY_ID, "secret": SECRET, "token": TOKEN})
        api = Calven(auth=auth, **settings)
        wire = wrap(self._wire)
        quotas = [Quota(rate, 1)] if rate else [Quota.parse(quota)] if quota else []
        self.tempo = Tempo(
            [pace_of(each, users_per_request) for each in quotas], Rate(), Concurrency(concurrency, concurrency)
        )
        self.credentials = Credentials(
            api.scheme,
            lambda: {name: known[name] for name in api.scheme.needs},
            wire,
            self.lane,
            self.tempo,
            uniform=uniform,
            wall=wall,
            monotonic=asyncio.get_running_loop().time,
        )
        authorized = bearer(wire, self.credentials, api.refuses_token)
        observed = observe(authorized, self.lane, self.tempo, wall)
        paced = pace(observed, self.lane, self.tempo, self.credentials, attrgetter("users"))
        self.send = gate(paced, self.tempo)
        limits = BatchLimits(users_per_request, bytes_per_request)
        self.settler = Settler(
            api, self.send, self.lane, RequestSize(limits), attempts, self.warnings.append, uniform=uniform, wall=wall
        )
        self.batcher = Batcher(api.frame, limits, replace=api.write == "replace")
        self._max_failures = max_failures
        self.dispatcher = Dispatcher(
            self.batcher, self.settler, self.checkpoint, self.lane, concurrency, self._committed
        )

    async def _wire(self, request: Request) -> Response:
        self.sent.append((asyncio.get_running_loop().time(), request))
        self.carried.update(users_of(request))
        return await self.memory(request)

    def _committed(self, entry: Entry) -> None:
        self.tally.add([item.outcome for item in entry.settled])
        self.tally.add(entry.outcomes, sum(map(len, entry.batch.merged.values())) if entry.batch else 0)
        if reason := self.tally.reason_to_stop(self._max_failures):
            self.lane.stop(Stopped(reason))

    async def run(self, rows: Sequence[Row] | AsyncIterator[Rows], block: int = 250) -> dict[int, Settled]:
        """Run the load to its end, or until it stops (`lane.reason`). What became of each row."""
        await self.dispatcher.run(rows if isinstance(rows, AsyncIterator) else stream(blocks(rows, block)))
        return self.checkpoint.rows()

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
