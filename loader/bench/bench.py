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
from statistics import fmean, median
from typing import Any, NamedTuple, Self

import anyio
from anyio import to_thread
from pydantic_core import to_jsonable_python

from loader.batch import Batch, BatchLimits
from loader.bench import findings, optimum
from loader.bench.findings import Course, Found, Key, Report, Step
from loader.bench.optimum import Caps, Choice
from loader.bench.visit import Held, Sent, Visit, Watched
from loader.ceiling import RequestSize
from loader.client import Credentials, Tempo, layers
from loader.errors import LoaderError, Refused, Stopped, TransportError
from loader.lane import Abandoned, Lane
from loader.outcome import Code
from loader.probe import refuse_undeclared
from loader.progress import Tally
from loader.record import Frame
from loader.request import Request, Response
from loader.settings import Settings
from loader.settle import Settler
from loader.target import Target
from loader.tempo.concurrency import Concurrency
from loader.tempo.quota import Pace, Quota
from loader.tempo.rate import Rate
from loader.transport import Send, Transport
from loader.verdict import words

#: Each step that matters is visited so often.
_VISITS = 3
#: What is counted of a visit lasts so many times as long as a request alone, if there is time.
_TIMES = 2
#: How long is counted on a visit at least, with one request at a time and with more; how long it lasts at most, and one
#: that looks for a quota: as shares of the whole time.
_ALONE, _LEAST, _MOST, _QUOTA = 1 / 120, 1 / 60, 1 / 12, 1 / 10
#: What has to be over by which share of the time: single requests, the search for a rate, more and more at once.
_ALONE_ENDS, _QUOTA_ENDS, _CLIMB_ENDS = 0.3, 0.75, 0.75
#: Who uses so much of what a quota allows would use more.
_NEAR = 0.9
#: Two visits that look like rates that differ by less have found it. It is the pace that was kept, if what was taken
#: differs by less than the second.
_SAME, _NEARLY = 0.05, 0.15
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

    @classmethod
    def of(cls, settings: Settings, seconds: float) -> Self:
        """What `[limits]` allows."""
        limits = settings.limits
        return cls(
            settings.batch_limits,
            limits.concurrency,
            settings.quotas,
            settings.paces,
            limits.attempts,
            limits.give_up_s,
            seconds,
        )


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
        self.lane = Lane(bounds.give_up_s, uniform=uniform)
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
            target.scheme, secrets, self._heard, self.lane, self._tempo, warn=warn, uniform=uniform
        )
        self._watched = Watched(1, self.began, self.began, 0.0, 0.0)
        self._tried = 0  # users a request, with which more and more were sent at once
        self._rate: float | None = None  # requests a second, beyond which it refuses
        self._taken, self._refused = list[float](), list[float]()  # when requests went that were, for their rate
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
                self._forget()
                await self._visit((users, 1), _ALONE)

    async def _climb(self) -> None:
        """More and more at once, until that brings nothing; then those again of which most depends."""
        self._tried = users = self._size_to_climb_with()
        most = min(self.bounds.concurrency, len(self.pool) // users)
        while not self._is_past(_CLIMB_ENDS):
            found = findings.throughputs(self.steps, users)
            at_once = optimum.next_concurrency(found, most) or self._least_visited(found)
            if at_once is None:
                return
            self._forget()
            visit = await self._visit((users, at_once))
            if visit is not None and visit.held_by == "rate":
                await self._find_rate((users, at_once))
            if visit is None or visit.held_by is not None:
                return

    async def _find_rate(self, step: Key) -> None:
        """The target refuses for the rate: go on until it shows its quota, or until it looks about the same twice."""
        cost = findings.line(self.steps)
        if self._tempo.rate.pace(self.lane.now()) is None and cost is not None:
            self._connect(Rate(step[1] / cost.seconds(step[0])))  # what would go if nobody refused
        rate, looks, is_steady = self._tempo.rate, list[float](), False
        while not (is_steady and rate.is_sure) and not self._is_past(_QUOTA_ENDS):
            began = self.lane.now()
            if await self._visit(step, _QUOTA) is None:
                break
            if found := optimum.quota(sorted(self._taken), sorted(self._refused)):
                self._rate = found[0] / found[1]
                return
            # All of it, from beginning to end: pauses are what a window is about.
            taken = (len(self._watched.sent) - self._watched.refused) / (self.lane.now() - began)
            pace = rate.limit or rate.pace(self.lane.now()) or taken
            looks.append(pace if abs(taken / pace - 1) < _NEARLY else taken)
            is_steady = len(looks) > 1 and abs(looks[-1] / looks[-2] - 1) <= _SAME
        if is_steady:
            self._rate = fmean(looks[-2:])

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
        watched = Watched(at_once, now, begins, max(least_s, _TIMES * alone_s), now + most_s)
        self._watched = watched
        pieces = self.pool.pieces(users)
        async with anyio.create_task_group() as tasks:
            for place in range(at_once):
                tasks.start_soon(self._send_some, pieces, watched, apart_s * place)
        visit = watched.visit(users, time.process_time() - cpu)
        self.refused += watched.refused
        if not self._is_anyone_taken and self.tally.rows >= min(_HOPELESS, len(self.pool)):
            self._give_up_hope()
        if visit is None or not keep or users > self._most_users:  # too large, it turned out: it went in parts
            return None
        visit = visit.model_copy(update={"held_by": self._held_by(visit)})
        self.steps.setdefault(step, []).append(visit)
        return visit

    async def _send_some(self, pieces: deque[Batch], watched: Watched, after_s: float) -> None:
        """One place of a visit: one batch after the other."""
        lane, is_first = self.lane, True
        try:
            await lane.sleep(after_s)
            while is_first or not (lane.stopping.is_set() or watched.is_over(lane.now())):
                batch, began, before = pieces.popleft(), lane.now(), len(watched.sent)
                outcomes = await self._settler.settle(batch)
                pieces.append(batch)
                self.tally.add(outcomes, batch.numbers, batch.users)
                watched.note(began, lane.now(), outcomes, watched.sent[before:])
                is_first = False
        except Abandoned:
            pass
        except Stopped as error:
            lane.stop(error)

    def _forget(self) -> None:
        """Should the target refuse soon, then it is for what is sent now, and not for what was sent slowly before."""
        if self._tempo.rate.limit is None:
            self._connect()

    def _connect(self, rate: Rate | None = None) -> None:
        """Put the layers round the wire, with what was paid so far, but without a memory of what the target took."""
        self._tempo = copy(self._tempo)
        self._tempo.rate = rate or Rate()
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
            (self._refused if status == 429 else self._taken).append(sent_at)
            self._watched.sent.append(Sent(self.lane.now() - sent_at, status, request.users))

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
        rate, pace = self._tempo.rate, self._tempo.rate.pace(self.lane.now())
        is_paced = pace is not None and visit.requests_per_s >= _NEAR * pace
        if (visit.refused and (rate.limit is not None or self._watched.waits > 1 - _NEAR)) or is_paced:
            return "rate"
        used = {"users": visit.users_per_s, "requests": visit.requests_per_s, "carriers": visit.requests_per_s}
        return "quota" if any(used[pace.unit] >= _NEAR * pace.per_s for pace in self.bounds.paces) else None

    @property
    def _is_refusing(self) -> bool:
        """Does the target refuse for the rate, and nobody knows beyond which?"""
        held = any(visit.held_by == "rate" for visits in self.steps.values() for visit in visits)
        return self._rate is None and (held or (not self._watched.is_whole and self._watched.refused > 0))

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
        if self._is_refusing:
            choices = None
        best, recommended = (*findings.recommend(steps if cost else (), choices, spread, self._caps), None, None)[:2]
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
                requests_per_s=self._rate,
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
            is_refusing=self._is_refusing,
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
        if self._rate is not None:
            requests.append(self._rate)
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
    way = await to_thread.run_sync(settings.way)
    described = await to_thread.run_sync(describe, settings)
    limits = settings.limits
    async with Transport(settings.base_url, limits.concurrency, limits.timeout_s, network=way) as wire:
        sweep = Sweep(settings.build_target(), wire, settings.secrets, pool, Bounds.of(settings, seconds), warn)
        watch(sweep)
        await sweep.run()
        return sweep.report(described), None if isinstance(sweep.reason, TimeIsOver) else sweep.reason


def describe(settings: Settings) -> dict[str, Any]:
    """Settings, without what is secret, and machine, as a report has them. Blocking."""
    target, limits = settings.build_target(), settings.limits
    own = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in target}
    found = {
        "export": settings.export.name or str(settings.source),
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
