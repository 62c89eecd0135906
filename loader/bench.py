"""How fast a target takes users: request size and concurrency are tried, through the same layers as in a load.

    first users of the export ──► one alone ──► sizes, one request at a time ──► one size, more and more at once
                              ──► what seems best, and what comes close to it with less, in turn ──► report

Users are sent again and again, none twice at a time, and no checkpoint is written. What is measured is a *step*, so
many users a request and so many requests at once; each that matters is visited several times, so that it is known how
much two visits differ.
"""

import os
import platform
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from statistics import linear_regression, median
from typing import Any, NamedTuple

import anyio
from anyio import to_thread
from pydantic_core import to_jsonable_python

from loader import findings, optimum
from loader.batch import Batch, BatchLimits
from loader.ceiling import RequestSize
from loader.client import Credentials, Tempo, layers
from loader.concurrency import Concurrency
from loader.errors import LoaderError, Refused, Stopped, TransportError
from loader.findings import Course, Found, Held, Key, Report, Step, Visit
from loader.lane import Abandoned, Lane
from loader.optimum import Caps, Choice
from loader.outcome import GOOD, Code, Outcome
from loader.probe import refuse_undeclared
from loader.progress import Tally
from loader.quota import Pace, Quota
from loader.rate import Rate
from loader.record import Frame
from loader.request import Request, Response
from loader.settings import Settings
from loader.settle import Settler
from loader.target import Target
from loader.transport import Send, Transport
from loader.verdict import words

#: Each step that matters is visited so often.
_VISITS = 3
#: What is counted of a visit lasts so many times as long as a request alone, if there is time.
_TIMES = 2
#: How long a visit is, at least and at most, and one that waits for a quota to be found, as shares of the whole time.
_LEAST, _MOST, _QUOTA = 1 / 60, 1 / 12, 1 / 10
#: What has to be over by which share of the time: single requests, the search for a rate, more and more at once.
_ALONE_ENDS, _QUOTA_ENDS, _CLIMB_ENDS = 0.3, 0.8, 0.75
#: Who uses so much of what a quota allows would use more.
_NEAR = 0.9
#: Two looks at a quota that differ by less have found it.
_SAME = 0.05
#: If none of so many users is accepted, none will be.
_HOPELESS = 1_000


class TimeIsOver(LoaderError):
    """A bench has had its time. That is how it ends if it hasn't ended before, and no error."""


class Pool:
    """The users that a bench sends, as an export has them. `rejected`: rows on the way that can't be sent."""

    def __init__(self, batch: Batch, frame: Frame, rejected: int = 0) -> None:
        self.rejected = rejected
        self._all = batch
        self._frame = frame
        self._turn = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def attributes(self) -> set[str]:
        """The names that are sent."""
        return {name for record in self._all.records for name in self._frame.attributes_of(record)}

    def fitting(self, limits: BatchLimits) -> int:
        """The most users that any piece may have within these limits, at least one."""
        most = min(limits.users, len(self))
        sizes = [len(record) for record in self._all.records]
        first = total = 0
        for last, size in enumerate(sizes):
            total += size
            while first < last and self._frame.body_bytes(last - first + 1, total) > limits.body_bytes:
                total -= sizes[first]
                first += 1
            if first:  # one more would not have fitted
                most = min(most, last - first + 1)
        return max(most, 1)

    def pieces(self, users: int) -> deque[Batch]:
        """All of them in batches of so many, but for a rest, which is another each time."""
        first = self._turn % (len(self) % users + 1)
        self._turn += 1
        return deque(self._all.part(at, at + users) for at in range(first, len(self) - users + 1, users))


def read_pool(settings: Settings, most: int) -> Pool:
    """The first `most` users of the export. Blocking. Raises Refused if there is none that can be sent.

    Rows of one user among them are one record, as they would be in a load.
    """
    target = settings.build_target()
    frame = target.frame
    known: dict[str, int] = {}
    numbers, users, records = list[int](), list[str](), list[bytes]()
    rejected = 0
    for rows in settings.source.rows(settings.row_mapping()):
        rejected += len(rows.settled)
        for number, user, record in zip(rows.numbers, rows.users, rows.records, strict=True):
            if (at := known.get(user)) is not None:
                records[at] = record if target.write == "replace" else frame.merge(user, records[at], record)
            elif len(users) < most:
                known[user] = len(users)
                numbers.append(number)
                users.append(user)
                records.append(record)
            else:
                return Pool(Batch(numbers, users, records), frame, rejected)
    if not users:
        raise Refused(f"{settings.source} has no user that can be sent; loader check tells why")
    return Pool(Batch(numbers, users, records), frame, rejected)


class Bounds(NamedTuple):
    """What a bench may use: sizes of requests, requests at once, quotas and how they are kept, attempts, seconds."""

    batch: BatchLimits
    concurrency: int
    quotas: Sequence[Quota] = ()
    paces: Sequence[Pace] = ()
    attempts: int = 8
    give_up_s: float = 600.0
    seconds: float = 60.0


class _Watched:
    """What happens on one visit. Times in seconds.

    `places`: so many batches are on their way at once, when all have begun, at `begins`. From the first that is settled
    then it is counted for `least_s`, and for as many as there are places; but not past `latest`, if there is any.
    """

    def __init__(self, places: int, now: float, begins: float, least_s: float, latest: float) -> None:
        self.places = places
        self.answers: list[tuple[float, int, int]] = []  # seconds, status (0: no answer), users carried
        self.batches: list[float] = []  # what those without trouble spent on the wire, where one goes at a time
        self.users = self.failed = 0
        self._began = now
        self._begins = begins
        self._least_s = least_s
        self._latest = latest
        self._settled: list[float] = []  # when each batch was
        self._counted: list[float] = []
        self._is_over = False

    def note(self, now: float, outcomes: Sequence[Outcome], answers: Sequence[tuple[float, int, int]]) -> None:
        """A batch is settled; `answers` are all that came since it began."""
        self._settled.append(now)
        if now >= self._begins and not self._is_over:
            self._counted.append(now)
        self.users += len(outcomes)
        self.failed += sum(outcome.code not in GOOD for outcome in outcomes)
        if self.places == 1 and all(200 <= status < 300 or status == 429 for _, status, _ in answers):
            self.batches.append(sum(seconds for seconds, status, _ in answers if status != 429))

    def is_over(self, now: float) -> bool:
        """May a place stop now?"""
        if self._counted and not self._is_over:
            is_done = len(self._counted) > self.places and now >= self._counted[0] + self._least_s
            self._is_over = is_done or now >= self._latest
        return self._is_over

    @property
    def _batches_per_s(self) -> float:
        """Throughput while every place was at work: not from the beginning, when some have not begun, nor to the end,
        when fewer and fewer are left.

        The slope of a line through all that was counted. The first and the last alone would say more than is true where
        answers come in waves, and less where they don't.
        """
        if len(self._counted) > 1 and self._counted[-1] > self._counted[0]:
            return linear_regression(self._counted, range(len(self._counted))).slope
        return len(self._settled) / (self._settled[-1] - self._began)

    def visit(self, users: int, cpu_s: float) -> Visit | None:
        """Its figures. None: it was broken off."""
        if not self._is_over:
            return None
        batches_per_s = self._batches_per_s
        times = sorted(seconds for seconds, status, carried in self.answers if carried and 200 <= status < 300)
        return Visit(
            users_per_s=users * batches_per_s,
            requests_per_s=batches_per_s * len(self.answers) / len(self._settled),
            request_s=median(self.batches) if self.batches else None,
            p50_s=_quantile(times, 0.5),
            p95_s=_quantile(times, 0.95),
            sent=self.users,
            failed=self.failed,
            refused=sum(status == 429 for _, status, _ in self.answers),
            cpu=cpu_s / (self._settled[-1] - self._began),
        )


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


class Sweep:
    """One bench: what it has measured, and what it does next.

    `wire` is the transport; `secrets` as for a load. `steps`: the visits so far. `doing`: the step that is visited now.
    """

    def __init__(
        self,
        target: Target,
        wire: Send,
        secrets: Callable[[], Mapping[str, str]],
        pool: Pool,
        bounds: Bounds,
        warn: Callable[[str], None],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.lane = Lane(min(bounds.give_up_s, bounds.seconds), uniform=uniform)
        self.bounds = bounds
        self.pool = pool
        self.steps: dict[Key, list[Visit]] = {}
        self.tally = Tally()
        self.refused = 0
        self.doing: Key | None = None
        self.choices: tuple[Choice, Choice] | None = None  # what is best, and what comes close with less: once known
        self.began = self.lane.now()
        self._target = target
        self._wire = wire
        self._warn = warn
        self._uniform = uniform
        self._size = RequestSize(bounds.batch)
        # Here the limit is not found but given: by how many batches are on their way at once.
        most = bounds.concurrency
        self._tempo = Tempo(bounds.paces, concurrency=Concurrency(most, most, least=most))
        self._credentials = Credentials(
            target.scheme, secrets, wire, self.lane, self._tempo, warn=warn, uniform=uniform
        )
        self._watched = _Watched(1, self.began, self.began, 0.0, 0.0)
        self._tried = 0
        self._last = "there was none"  # answer, in its own words
        self._connect()

    async def run(self) -> None:
        """Measure, until all is known, time is over, or the lane stops."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_the_clock)
            await refuse_undeclared(self._target, self._send, self.pool.attributes, self._warn)
            for phase in (self._meet, self._weigh, self._climb, self._prove):
                if not self.lane.stopping.is_set():
                    await phase()
            tasks.cancel_scope.cancel()
        if self.tally.rows and not self._is_anyone_taken:
            self._give_up_hope()

    @property
    def reason(self) -> LoaderError | None:
        """Why it ended; None: all is known."""
        if isinstance(self.lane.reason, TimeIsOver) and not self.steps:
            return Stopped(f"nothing could be measured in {self.bounds.seconds:g} s; the last answer: {self._last}")
        return self.lane.reason

    @property
    def gone_s(self) -> float:
        return self.lane.now() - self.began

    @property
    def course(self) -> Course:
        """What there is to know beside the steps."""
        return Course(self._most_users, self._most_at_once, self._tried, self._caps)

    # Phases: each ends when it is done, when its share of the time is over, or when the lane stops.

    async def _meet(self) -> None:
        """One user, then the largest request that is taken: what is too large shows, and connections are made."""
        await self._visit((1, 1), keep=False)
        users = 0
        while users != self._most_users and not self.lane.stopping.is_set():
            users = self._most_users
            await self._visit((users, 1), keep=False)

    async def _weigh(self) -> None:
        """Requests of several sizes, one at a time."""
        for turn in range(_VISITS):
            sizes = self._sizes()
            for users in sizes if turn % 2 else reversed(sizes):
                if turn and self._is_past(_ALONE_ENDS):
                    return
                await self._visit((users, 1), _LEAST / 2)

    async def _climb(self) -> None:
        """More and more at once, until that brings nothing; then those again of which most depends."""
        self._tried = users = self._size_to_climb_with()
        most = min(self.bounds.concurrency, len(self.pool) // users)
        while not self._is_past(_CLIMB_ENDS):
            found = findings.throughputs(self.steps, users)
            at_once = optimum.next_concurrency(found, most) or self._least_visited(found)
            if at_once is None:
                return
            visit = await self._visit((users, at_once))
            if visit is not None and visit.held_by == "rate":
                await self._find_rate(users, at_once)
            if visit is None or visit.held_by is not None:
                return

    async def _find_rate(self, users: int, at_once: int) -> None:
        """The target refuses for the rate: go on until the pace that it takes is found, and found again."""
        before = None
        while not self._is_past(_QUOTA_ENDS):
            visit = await self._visit((users, at_once), _QUOTA)
            if self._tempo.rate.is_sure and (now := self._tempo.rate.limit):
                if visit and visit.refused and before and abs(now / before - 1) < _SAME:
                    return
                before = now

    async def _prove(self) -> None:
        """What seems best and what comes close to it with less, in turn, as long as there is time."""
        self.choices = findings.choices(self.steps, self.course)
        for choice in (self.choices or ()) * _VISITS:
            if choice.users * choice.at_once <= len(self.pool) and not self.lane.stopping.is_set():
                await self._visit((choice.users, choice.at_once))

    def _sizes(self) -> list[int]:
        """From a single user to as many as there may be, so that a line through them is well supported."""
        most = self._most_users
        return sorted({max(most // part, 1) for part in (1, 2, 4, 8)} | {1})

    def _size_to_climb_with(self) -> int:
        """As large as may be, but so that users and time suffice for as many at once as may be."""
        cost = findings.line(self.steps)
        users = max(min(self._most_users, len(self.pool) // self.bounds.concurrency), 1)
        while users > 1 and cost and cost.seconds(users) * (_TIMES + 2) > _MOST * self.bounds.seconds:
            users //= 2
        return users

    def _least_visited(self, found: Mapping[int, float]) -> int | None:
        """Of those that decide (one at a time, round the knee, the most), the one that was visited least."""
        high = optimum.knee(found) or max(found)
        below = max((at_once for at_once in found if at_once < high), default=high)
        counts = {at_once: len(self.steps[self._tried, at_once]) for at_once in (1, below, high, max(found))}
        rarest = min(counts, key=counts.__getitem__)
        return rarest if counts[rarest] < _VISITS else None

    # One visit

    async def _visit(self, step: Key, length: float = _LEAST, *, keep: bool = True) -> Visit | None:
        """Measure a step. `length`: at least such a share of the time. None: it could not be measured."""
        users, at_once = self.doing = step
        now, cpu = self.lane.now(), time.process_time()
        cost = findings.line(self.steps)
        alone_s = cost.seconds(users) if cost else 0.0
        apart_s = alone_s / at_once
        least_s, most_s = (share * self.bounds.seconds if keep else 0.0 for share in (length, max(length, _MOST)))
        begins = now + apart_s * (at_once - 1)
        watched = _Watched(at_once, now, begins, max(least_s, _TIMES * alone_s), now + most_s)
        self._watched = watched
        pieces = self.pool.pieces(users)
        if self._tempo.rate.limit is None:
            self._connect()  # should it refuse now, then for what is sent now, and not slowly before
        async with anyio.create_task_group() as tasks:
            for place in range(at_once):
                tasks.start_soon(self._send_some, pieces, watched, apart_s * place)
        visit = watched.visit(users, time.process_time() - cpu)
        self.refused += sum(status == 429 for _, status, _ in watched.answers)
        if not self._is_anyone_taken and self.tally.rows >= min(_HOPELESS, len(self.pool)):
            self._give_up_hope()
        if visit is None or not keep or users > self._most_users:  # too large, it turned out: it went in parts
            return None
        visit = visit.model_copy(update={"held_by": self._held_by(visit)})
        self.steps.setdefault(step, []).append(visit)
        return visit

    async def _send_some(self, pieces: deque[Batch], watched: _Watched, after_s: float) -> None:
        """One place of a visit: one batch after the other."""
        lane, is_first = self.lane, True
        try:
            await lane.sleep(after_s)
            while is_first or not (lane.stopping.is_set() or watched.is_over(lane.now())):
                batch, before = pieces.popleft(), len(watched.answers)
                outcomes = await self._settler.settle(batch)
                pieces.append(batch)
                self.tally.add(outcomes)
                watched.note(lane.now(), outcomes, watched.answers[before:])
                is_first = False
        except Abandoned:
            pass
        except Stopped as error:
            lane.stop(error)

    def _connect(self) -> None:
        """Put the layers round the wire, with what was paid so far, but without a memory of what the target took."""
        self._tempo = copy(self._tempo)
        self._tempo.rate = Rate()
        self._send = layers(self._noted, self.lane, self._tempo, self._credentials, self._target.refuses_token)
        self._settler = Settler(
            self._target,
            self._send,
            self.lane,
            self._size,
            self.bounds.attempts,
            self._warn,
            is_proven=self._is_anyone_taken,
            uniform=self._uniform,
        )

    async def _noted(self, request: Request) -> Response:
        """The wire, and what comes over it is noted."""
        sent_at, status = self.lane.now(), 0
        try:
            response = await self._heard(request)
            status = response.status
            return response
        finally:
            self._watched.answers.append((self.lane.now() - sent_at, status, request.users))

    async def _heard(self, request: Request) -> Response:
        """The wire, and its last words are kept."""
        try:
            response = await self._wire(request)
        except TransportError as error:
            self._last = str(error)
            raise
        self._last = words(response)
        return response

    def _held_by(self, visit: Visit) -> Held | None:
        """What kept it from sending more, if not the target's speed."""
        rate = self._tempo.rate.pace(self.lane.now())
        if visit.refused or (rate is not None and visit.requests_per_s >= _NEAR * rate):
            return "rate"
        used = {"users": visit.users_per_s, "requests": visit.requests_per_s, "carriers": visit.requests_per_s}
        return "quota" if any(used[pace.unit] >= _NEAR * pace.per_s for pace in self.bounds.paces) else None

    # What is known

    def report(self, described: Mapping[str, Any]) -> Report:
        """All that was found by now. `described`: settings and machine."""
        steps = tuple(
            Step(users_per_request=users, concurrency=at_once, visits=tuple(visits))
            for (users, at_once), visits in self.steps.items()
        )
        cost, spread = findings.line(self.steps) if self._is_anyone_taken else None, findings.noise(self.steps)
        climbed = findings.throughputs(self.steps, self._tried)
        choices = self.choices or findings.choices(self.steps, self.course)
        best, recommended = (*findings.recommend(steps if cost else (), choices, spread), None, None)[:2]
        return Report(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            **described,
            users=len(self.pool),
            rejected=self.pool.rejected,
            seconds=self.bounds.seconds,
            took_s=self.gone_s,
            ended=str(self.reason or ""),
            steps=steps,
            found=Found(
                **cost._asdict(),
                knee=optimum.knee(climbed) if climbed else None,
                most_at_once=max(climbed, default=1),
                requests_per_s=self._tempo.rate.limit,
                largest_request=self._most_users if self._size.found != (None, None) else None,
                noise=spread,
            )
            if cost
            else None,
            best=best,
            recommended=recommended,
            sent=self.tally.rows,
            failed=self.tally.failures,
            last_failure=self.tally.last_failure if self.tally.failures else "",
            refused=self.refused,
        )

    def line(self) -> str:
        """What it is doing, for people."""
        parts = [f"{self.gone_s:.0f} s of {self.bounds.seconds:g} s", f"{self.tally.rows:,} users sent"]
        if self.doing is not None:
            users, at_once = self.doing
            parts.append(f"{users:,} user{'s' * (users > 1)} a request, {at_once:,} at once")
        if self.steps:
            best = max(median(visit.users_per_s for visit in visits) for visits in self.steps.values())
            parts.append(f"{best:,.0f} users/s at best")
        return " · ".join(parts)

    @property
    def _most_users(self) -> int:
        return self.pool.fitting(self._size.limits)

    @property
    def _most_at_once(self) -> int:
        return min(self.bounds.concurrency, len(self.pool))

    @property
    def _caps(self) -> Caps:
        requests = [quota.amount / quota.window_s for quota in self.bounds.quotas if quota.unit == "requests"]
        users = [quota.amount / quota.window_s for quota in self.bounds.quotas if quota.unit == "users"]
        if (found := self._tempo.rate.limit) is not None:
            requests.append(found)
        free = Caps()
        return Caps(min(requests, default=free.requests_per_s), min(users, default=free.users_per_s))

    @property
    def _is_anyone_taken(self) -> bool:
        return bool(self.tally.counts[Code.SUCCESS] + self.tally.counts[Code.PARTIAL])

    def _give_up_hope(self) -> None:
        self.lane.stop(
            Stopped(f"not one of the {self.tally.rows:,} users sent was accepted; the last: {self.tally.last_failure}")
        )

    def _is_past(self, share: float) -> bool:
        return self.lane.stopping.is_set() or self.gone_s > share * self.bounds.seconds

    async def _watch_the_clock(self) -> None:
        await anyio.sleep(self.bounds.seconds)
        self.lane.stop(TimeIsOver(f"the {self.bounds.seconds:g} s of --seconds are over"))


async def bench(
    settings: Settings,
    pool: Pool,
    seconds: float,
    watch: Callable[[Sweep], None],
    warn: Callable[[str], None],
) -> tuple[Report, LoaderError | None]:
    """What was found, and why that is not all: the target stopped it, or whoever watches. None: it came to its end.

    `watch` is called once, with what shows the progress and what stops it.
    """
    limits = settings.limits
    bounds = Bounds(
        settings.batch_limits,
        limits.concurrency,
        settings.quotas,
        settings.paces,
        limits.attempts,
        limits.give_up_s,
        seconds,
    )
    way = await to_thread.run_sync(settings.way)
    described = await to_thread.run_sync(describe, settings)
    async with Transport(settings.base_url, limits.concurrency, limits.timeout_s, network=way) as wire:
        sweep = Sweep(settings.build_target(), wire, settings.secrets, pool, bounds, warn)
        watch(sweep)
        await sweep.run()
        return sweep.report(described), None if isinstance(sweep.reason, TimeIsOver) else sweep.reason


def describe(settings: Settings) -> dict[str, Any]:
    """Settings, without what is secret, and machine, as a report has them. Blocking."""
    target, limits = settings.build_target(), settings.limits
    own = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in target}
    found = {
        "export": settings.export.path,
        "target": {"api": target.api, "base_url": settings.base_url, **to_jsonable_python(own)},
        "limits": {
            "users_per_request": settings.batch_limits.users,
            "bytes_per_request": settings.batch_limits.body_bytes,
            "concurrency": limits.concurrency,
            "quota": list(map(str, settings.quotas)),
            "timeout_s": limits.timeout_s,
            "attempts": limits.attempts,
        },
    }
    return {"settings": found, "machine": _machine()}


def _machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: found for name in ("directory-loader", "aiohttp", "uvloop") if (found := _version(name))},
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
