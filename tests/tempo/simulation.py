"""A target with limits of its own, and a load against it in virtual time, through the client's real layers.

A scenario is YAML: the target, what happens to it at which second, how long, and the *ranges* that rate, limit and
refusals must fall in between two moments. So it can say what is wanted without saying how it is found.
"""

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import anyio
import orjson
from pydantic import BaseModel, ConfigDict

from loader.batch import Batch, BatchLimits
from loader.ceiling import RequestSize
from loader.client import Tempo, gate, observe, pace
from loader.errors import TransportError
from loader.lane import Abandoned, Lane
from loader.request import Request, Response
from loader.settle import Settler
from loader.targets.calven import FRAME, Calven
from loader.tempo.concurrency import Concurrency
from loader.tempo.quota import Quota, pace_of
from loader.tempo.rate import Rate
from tests.virtual_time import START_S


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Server(Strict):
    """How the target behaves. Times in seconds."""

    latency_s: float = 0.05
    user_s: float = 0.0  # for each user of a request
    jitter: float = 0.0  # up to this share longer, evenly spread
    knee: int | None = None  # it works on so many at once; more wait
    most: int | None = None  # more at once are refused with 503
    largest: int | None = None  # more users in a request are refused with 413
    failing: float = 0.0  # this share of requests gets no answer
    refusing: float = 0.0  # this share is refused with 429, whatever the pace
    down: bool = False
    quota: int | None = None
    window_s: float = 1.0
    kind: str = "sliding"  # or "fixed"
    retry_after: bool = False
    neighbour: float = 0.0  # requests a second that somebody else makes
    headers: str | None = None  # "fields", "draft", "policy", "lies"


class Client(Strict):
    concurrency: int = 128
    fixed: bool = False  # the limit stays what it is
    users: int = 1
    quota: str | None = None
    start_limit: int | None = None
    start_rate: float | None = None


class Event(Strict):
    at: float
    set: dict[str, Any]


class Range(Strict):
    """Between two moments: mean limit, requests taken a second, the share of answers that are refusals."""

    since: float
    until: float
    limit: tuple[float, float] | None = None
    rate: tuple[float, float] | None = None
    refused: tuple[float, float] | None = None


class Scenario(Strict):
    about: str
    seconds: float
    server: Server
    client: Client = Client()
    events: list[Event] = []
    expect: list[Range]


@dataclass
class Trace:
    """What happened: (second, limit), and (second, status) of each answer; 0: there was none."""

    limits: list[tuple[float, int]] = field(default_factory=list)
    answers: list[tuple[float, int]] = field(default_factory=list)

    def limit(self, since: float, until: float) -> float:
        found = [limit for at, limit in self.limits if since <= at < until]
        return sum(found) / len(found)

    def rate(self, since: float, until: float) -> float:
        return sum(since <= at < until and status == 200 for at, status in self.answers) / (until - since)

    def refused(self, since: float, until: float) -> float:
        found = [status for at, status in self.answers if since <= at < until]
        return found.count(429) / max(len(found), 1)


class Target:
    """Answers as `server` says, which may change at any moment."""

    def __init__(self, server: Server, trace: Trace, seed: int) -> None:
        self.server = server
        self._trace = trace
        self._random = random.Random(seed)
        self._in_flight = 0
        self._slots = 0
        self._queue: deque[anyio.Event] = deque()
        self._moments: deque[float] = deque()

    async def __call__(self, request: Request) -> Response:
        now = anyio.current_time() - START_S
        server = self.server
        self._in_flight += 1
        try:
            response = await self._answer(request, server, now)
        except TransportError:
            self._trace.answers.append((anyio.current_time() - START_S, 0))
            raise
        finally:
            self._in_flight -= 1
        self._trace.answers.append((anyio.current_time() - START_S, response.status))
        return response

    async def _answer(self, request: Request, server: Server, now: float) -> Response:
        if server.down or self._random.random() < server.failing:
            await anyio.sleep(server.latency_s)
            raise TransportError("connection reset")
        if server.most is not None and self._in_flight > server.most:
            return Response(503)
        if server.largest is not None and request.users > server.largest:
            return Response(413)
        if self._random.random() < server.refusing:
            return Response(429)
        if server.quota is not None and not self._admit(server, now):
            return Response(429, self._headers(server, now))
        await self._work(request, server)
        users = [record["userName"] for record in orjson.loads(request.body)["userAttributes"]]
        body = orjson.dumps({"results": [{"userName": user, "resultCode": 0} for user in users]})
        return Response(200, self._headers(server, now), body)

    async def _work(self, request: Request, server: Server) -> None:
        if server.knee is not None:
            if self._slots >= server.knee:
                turn = anyio.Event()
                self._queue.append(turn)
                await turn.wait()
            else:
                self._slots += 1
        await anyio.sleep(
            (server.latency_s + server.user_s * request.users) * (1 + server.jitter * self._random.random())
        )
        if server.knee is not None:
            if self._queue and self._slots <= server.knee:
                self._queue.popleft().set()
            else:
                self._slots -= 1

    def _admit(self, server: Server, now: float) -> bool:
        self._forget(server, now)
        if len(self._moments) >= (server.quota or 0):
            return False
        self._moments.append(now)
        return True

    def neighbour(self, count: int) -> None:
        """Somebody else uses the quota."""
        now = anyio.current_time() - START_S
        for _ in range(count):
            self._admit(self.server, now)

    def _forget(self, server: Server, now: float) -> None:
        edge = now - server.window_s if server.kind == "sliding" else now // server.window_s * server.window_s
        while self._moments and (self._moments[0] <= edge if server.kind == "sliding" else self._moments[0] < edge):
            self._moments.popleft()

    def _headers(self, server: Server, now: float) -> Mapping[str, str]:
        if server.quota is None:
            return {}
        self._forget(server, now)
        left = max(server.quota - len(self._moments), 0)
        oldest = self._moments[0] if self._moments else now
        free = oldest + server.window_s if server.kind == "sliding" else (now // server.window_s + 1) * server.window_s
        wait = max(int(free - now + 0.999), 1)
        asked = {"retry-after": str(wait)} if server.retry_after and not left else {}
        match server.headers:
            case "fields":
                return asked | {"x-ratelimit-remaining": str(left), "x-ratelimit-reset": str(wait)}
            case "draft":
                return asked | {"ratelimit": f'"default";r={left};t={wait}'}
            case "policy":
                return asked | {"ratelimit-policy": f'"default";q={server.quota};w={server.window_s:g}'}
            case "lies":
                return asked | {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "3600"}
            case _:
                return asked


async def run(scenario: Scenario, seed: int) -> Trace:
    """The scenario's load, for so many seconds of virtual time."""
    trace = Trace()
    target = Target(scenario.server, trace, seed)
    dice = random.Random(seed)
    lane = Lane(600, uniform=dice.uniform)
    client = scenario.client
    paces = [pace_of(Quota.parse(client.quota), client.users)] if client.quota else []
    start = client.concurrency if client.fixed else client.start_limit
    tempo = Tempo(paces, Rate(client.start_rate), Concurrency(client.concurrency, start))
    if client.fixed:
        tempo.concurrency._judge_times = tempo.concurrency._judge_failures = lambda *_, **__: None  # type: ignore[assignment, method-assign]

    def wall() -> float:
        return 1.75e9 + anyio.current_time()

    send = gate(pace(observe(target, lane, tempo, wall), lane, tempo, users=lambda request: request.users), tempo)
    settler = Settler(
        Calven(auth="bearer"),
        send,
        lane,
        RequestSize(BatchLimits(client.users, 10_000_000)),
        50,
        lambda _: None,
        uniform=dice.uniform,
        wall=wall,
    )
    numbers = count()

    async def work() -> None:
        while True:
            names = [f"u{next(numbers)}" for _ in range(client.users)]
            records = [FRAME.record(name, b'{"a":1}') for name in names]
            try:
                await settler.settle(Batch(range(len(names)), names, records))
            except Abandoned:
                return

    async def sample() -> None:
        while True:
            trace.limits.append((anyio.current_time() - START_S, tempo.concurrency.limit))
            await anyio.sleep(0.1)

    async def neighbour() -> None:
        owed = 0.0
        while True:
            await anyio.sleep(0.05)
            owed += target.server.neighbour * 0.05
            target.neighbour(int(owed))
            owed -= int(owed)

    async with anyio.create_task_group() as tasks:
        for _ in range(2 * client.concurrency):
            tasks.start_soon(work)
        tasks.start_soon(sample)
        tasks.start_soon(neighbour)
        for event in sorted(scenario.events, key=lambda event: event.at):
            await anyio.sleep(START_S + event.at - anyio.current_time())
            target.server = target.server.model_copy(update=event.set)
        await anyio.sleep(START_S + scenario.seconds - anyio.current_time())
        tasks.cancel_scope.cancel()
    return trace
