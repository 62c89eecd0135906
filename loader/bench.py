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
from statistics import median, quantiles
from typing import Any, NamedTuple

import anyio
from anyio import to_thread

from loader import findings, optimum
from loader.batch import Batch, BatchLimits
from loader.ceiling import RequestSize
from loader.client import Credentials, Tempo, layers
from loader.concurrency import Concurrency
from loader.errors import LoaderError, Refused, Stopped
from loader.findings import Course, Found, Held, Key, Refusals, Report, Step, Visit
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
from loader.target import Target, WholeTarget
from loader.transport import Send, Transport

#: Each step that matters is visited so often.
_VISITS = 3
#: On a visit, each place sends at least so many batches, if time allows; the first is not counted.
_BATCHES = 3
#: How long a visit is, at least and at most, and one that waits for a quota to be found, as shares of the whole time.
_LEAST, _MOST, _QUOTA = 1 / 60, 1 / 12, 1 / 10
#: What has to be over by which share of the time: single requests, the search for a quota, more and more at once.
_ALONE_ENDS, _QUOTA_ENDS, _CLIMB_ENDS = 0.3, 0.7, 0.8
#: With less of its places on the wire than this share, a visit waits for something else than the target.
_FULL = 0.85
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


class _End(NamedTuple):
    """When a visit ends: so late, and after so many batches of each place; at the latest when each has had one."""

    at: float
    latest: float
    batches: int

    def is_there(self, now: float, batches: float) -> bool:
        return batches >= 1 and (now >= self.latest or (now >= self.at and batches >= self.batches))


class _Watched:
    """What happens on one visit. Times in seconds; `places`: so many batches are on their way at once."""

    def __init__(self, places: int, now: float, end: _End) -> None:
        self.places = places
        self.end = end
        self.answers: list[tuple[float, int, int]] = []  # seconds, status (0: no answer), users carried
        self.batches: list[float] = []  # what those without trouble spent on the wire, where one goes at a time
        self.began = now
        self.settled: list[float] = []  # when each batch was
        self.all_began: float | None = None  # when every place had settled its first
        self.stopped: float | None = None  # when the first place stopped
        self.users = self.failed = 0
        self._begun = 0

    def note(self, now: float, outcomes: Sequence[Outcome], answers: Sequence[tuple[float, int, int]]) -> None:
        """A batch is settled; `answers` are all that came since it began."""
        self.settled.append(now)
        self.users += len(outcomes)
        self.failed += sum(outcome.code not in GOOD for outcome in outcomes)
        if self.places == 1 and all(200 <= status < 300 or status == 429 for _, status, _ in answers):
            self.batches.append(sum(seconds for seconds, status, _ in answers if status != 429))

    def note_first(self, now: float) -> None:
        """A place has settled its first batch."""
        self._begun += 1
        if self._begun == self.places:
            self.all_began = now

    def is_over(self, now: float) -> bool:
        """May a place stop now?"""
        is_over = self.end.is_there(now, len(self.settled) / self.places)
        if is_over and self.stopped is None:
            self.stopped = now
        return is_over

    @property
    def batches_per_s(self) -> float | None:
        """Throughput while every place was at work, from the end of a batch to the end of another.

        Not from the beginning, when nobody has to wait yet, nor to the end, when fewer and fewer are left. Where that
        leaves nothing to count, it is all that counts. None: not every place has settled a batch.
        """
        if self.all_began is None:
            return None
        at_work = [at for at in self.settled if self.all_began < at <= (self.stopped or at)]
        if len(at_work) >= self.places:
            return len(at_work) / (at_work[-1] - self.all_began)
        return len(self.settled) / (self.settled[-1] - self.began)

    def visit(self, users: int, cpu_s: float, held_by: Callable[[float], Held]) -> Visit | None:
        """Its figures. None: it was too short."""
        if (batches_per_s := self.batches_per_s) is None:
            return None
        gone_s = self.settled[-1] - self.began
        seconds = sum(seconds for seconds, _, _ in self.answers)
        on_wire = batches_per_s * seconds / len(self.settled)
        times = sorted(seconds for seconds, status, carried in self.answers if carried and 200 <= status < 300)
        return Visit(
            users_per_s=users * batches_per_s,
            requests_per_s=batches_per_s * len(self.answers) / len(self.settled),
            on_wire=on_wire,
            request_s=median(self.batches) if self.batches else None,
            p50_s=_quantile(times, 0.5),
            p95_s=_quantile(times, 0.95),
            sent=self.users,
            failed=self.failed,
            refused=sum(status == 429 for _, status, _ in self.answers),
            cpu=cpu_s / gone_s,
            held_by=held_by(on_wire / self.places),
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
        self.choice: Choice | None = None
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
        self._watched = _Watched(1, self.began, _End(0, 0, 1))
        self._tried = 0
        self._refusals: Refusals | None = None
        self._connect()

    async def run(self) -> None:
        """Measure, until all is known or time is over. `lane.reason` tells why it ended, None: all is known."""
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
                await self._visit((users, 1))

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
                await self._find_quota(users, at_once)
            if visit is None or visit.held_by in ("rate", "quota"):
                return

    async def _find_quota(self, users: int, at_once: int) -> None:
        """The target refuses for the rate: go on until the pace is found, and then see whether it counts users."""
        self._connect(Rate())  # what was sent slowly before says nothing of a quota
        rate = await self._find_rate(users, at_once, _QUOTA_ENDS)
        if rate is None:
            return
        self._refusals = Refusals(requests_per_s=rate)
        if users == 1:
            return
        self._connect(Rate())
        other = await self._find_rate(users // 2, min(2 * at_once, self.bounds.concurrency), _CLIMB_ENDS)
        if other is not None and other > 1.5 * rate:
            self._refusals = Refusals(users_per_s=(users * rate + users // 2 * other) / 2)
        self._connect(Rate(rate))

    async def _find_rate(self, users: int, at_once: int, end: float) -> float | None:
        """Requests a second that are taken. None: it was not found in time."""
        before = None
        while not self._is_past(end):
            await self._visit((users, at_once), _QUOTA)
            now = self._tempo.rate.limit
            if before and now and abs(now / before - 1) < _SAME:
                break
            before = now
        return self._tempo.rate.limit

    async def _prove(self) -> None:
        """What seems best and what comes close to it with less, in turn, as long as there is time."""
        found = findings.choices(self.steps, self.course)
        if found is None:
            return
        self.choice = found[1]
        for choice in found * _VISITS:
            if choice.users * choice.at_once <= len(self.pool) and not self.lane.stopping.is_set():
                await self._visit((choice.users, choice.at_once))

    def _sizes(self) -> list[int]:
        """From a single user to as many as there may be, so that a line through them is well supported."""
        most = self._most_users
        return sorted({max(most // part, 1) for part in (1, 2, 4, 8)} | {1})

    def _size_to_climb_with(self) -> int:
        """As large as may be, but so that users and time suffice for as many at once as may be."""
        cost = findings.line(self.steps)
        longest = _MOST * self.bounds.seconds / _BATCHES
        sizes = self._sizes()
        enough = [users for users in sizes if users * self.bounds.concurrency <= len(self.pool)]
        quick = [users for users in enough if cost is None or cost.seconds(users) <= longest]
        return max(quick or enough or sizes[:1])

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
        began, cpu = self.lane.now(), time.process_time()
        end = _End(began, began, 1)
        if keep:
            ends, latest = (began + share * self.bounds.seconds for share in (length, max(length, _MOST)))
            end = _End(ends, latest, _BATCHES)
        watched = self._watched = _Watched(at_once, began, end)
        pieces = self.pool.pieces(users)
        async with anyio.create_task_group() as tasks:
            for _ in range(at_once):
                tasks.start_soon(self._send_some, pieces, watched)
        visit = watched.visit(users, time.process_time() - cpu, self._held_by)
        self.refused += sum(status == 429 for _, status, _ in watched.answers)
        if not self._is_anyone_taken and self.tally.rows >= min(_HOPELESS, len(self.pool)):
            self._give_up_hope()
        if visit is None or not keep or users > self._most_users:  # too large, it turned out: it went in parts
            return None
        self.steps.setdefault(step, []).append(visit)
        return visit

    async def _send_some(self, pieces: deque[Batch], watched: _Watched) -> None:
        """One place of a visit: one batch after the other."""
        lane = self.lane
        is_first = True
        while not (lane.stopping.is_set() or (watched.is_over(lane.now()) and not is_first)):
            batch, before = pieces.popleft(), len(watched.answers)
            try:
                outcomes = await self._settler.settle(batch)
            except Abandoned:
                return
            except Stopped as error:
                lane.stop(error)
                return
            pieces.append(batch)
            self.tally.add(outcomes)
            watched.note(lane.now(), outcomes, watched.answers[before:])
            if is_first:
                watched.note_first(lane.now())
                is_first = False

    def _connect(self, rate: Rate | None = None) -> None:
        """Put the layers round the wire. `rate`: instead of what was found before."""
        if rate is not None:
            self._tempo = copy(self._tempo)  # what was paid before stays paid
            self._tempo.rate = rate
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
            response = await self._wire(request)
            status = response.status
            return response
        finally:
            self._watched.answers.append((self.lane.now() - sent_at, status, request.users))

    def _held_by(self, on_wire: float) -> Held:
        if on_wire >= _FULL:
            return "target"
        if self._tempo.rate.pace(self.lane.now()) is not None:
            return "rate"
        return "quota" if self._tempo.toll else "pause"

    # What is known

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
        if self._refusals is not None:
            requests += [found for found in [self._refusals.requests_per_s] if found]
            users += [found for found in [self._refusals.users_per_s] if found]
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
