"""A load into one target that fails in one way, in virtual time; and what must be true of any, however it ends.

What is expected of each is matrix.py's to say.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import anyio

from loader.outcome import Code
from loader.sandbox import FaultOptions, LedgerOptions, Memory, Options, QuotaOptions, RosterOptions
from loader.sandbox.api import Kind
from loader.sandbox.sandbox import Sandbox
from loader.transport import Send, Transport
from tests.faults.front import ENDLESS_BYTES, Front, Misdeed, Road
from tests.faults.rig import SECRET, Clock, Rig, Row
from tests.faults.ways import CULPRIT, MANAGEMENT_KEY, Way, row_of
from tests.virtual_time import START_S

#: What a fault waits for where it is about a time and not about requests: then a load is in full flow.
FLOW_S = 4.0
LATENCY_S, JITTER_S = 0.3, 0.2
QUOTA = QuotaOptions(requests=20, window_s=2)
CONCURRENCY = 4


class Cell(NamedTuple):
    """What becomes of a load. `sign`: on the page; `status`: the exit status.

    `one`, `every`: the code that one user has, or all, instead of SUCCESS. `waits`: nothing, or next to nothing, is
    sent while it lasts. `words`: in the reason for a stop. `why_not`: why there is nothing to try.
    """

    sign: str
    status: int = 0
    one: Code | None = None
    every: Code | None = None
    waits: bool = False
    words: str = ""
    why_not: str = ""


@dataclass(frozen=True)
class Fault:
    """One way to fail. `why`: the loader does what it does; "": for the same reason as with the one before.

    What fails is the sandbox, by `rates` of its faults: in all requests, in `count` of them in the midst of the load,
    or in all for `for_s` from there on. `more` are other options of its faults, `own` those of its API, `roster` who is
    in it. It may be down (`down_s`), revoke tokens (`revoked_after_s`), or have a `quota` that the loader isn't told.
    Or what fails lies between: `wrap` puts something there; `misdeed` is done, to `count` requests, by a server on real
    sockets, and `road` is how that is reached. Or it is the machine's `clock`.

    `pause_s`: how long it lasts, or how long a pause it asks for. `is_storm`: there is no quota that would hold the
    load back, and refusals come at once. `is_loud`: it is warned of. `is_mixed`: it is of everything a little,
    differently with each of `seeds`. `times`: the load is so many times as long as others. The rest is what the loader
    is told.
    """

    name: str
    why: str
    cells: Mapping[str, Cell]
    rates: Mapping[str, float] = field(default_factory=dict)
    count: int | None = None
    for_s: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    own: Callable[[Way], Mapping[str, Any]] = lambda way: {}
    roster: Mapping[str, Any] = field(default_factory=dict)
    down_s: float = 0.0
    revoked_after_s: float | None = None
    quota: QuotaOptions | None = None
    wrap: Callable[[Way, Sandbox], Callable[[Send], Send]] | None = None
    misdeed: Misdeed | None = None
    road: Road = ""
    clock: Callable[[Clock], None] | None = None
    pause_s: float = 0.0
    is_storm: bool = False
    is_loud: bool = False
    is_mixed: bool = False
    seeds: Sequence[int] = (0,)
    times: int = 1
    attempts: int = 8
    timeout_s: float = 30.0
    give_up_s: float = 600.0

    @property
    def is_on_the_wire(self) -> bool:
        """Does it take real sockets, and real time?"""
        return self.misdeed is not None or bool(self.road)

    @property
    def has_its_time(self) -> bool:
        """Does it happen at a moment, and not to some requests?"""
        return self.clock is not None or bool(self.for_s or self.down_s or self.revoked_after_s)

    @property
    def length(self) -> int:
        """How many times as long as the shortest the load is: longer, if the fault has its time."""
        return max(self.times, 2 if self.has_its_time or self.is_storm else 1)

    def first(self, way: Way) -> int:
        """The number of the first request of its kind that it may happen to."""
        return way.first_call if self.more.get("on") == "token" else way.first

    def options(self, way: Way, seed: int = 0) -> Options:
        """Of the sandbox that fails so."""
        options: dict[str, Any] = {"latency_s": LATENCY_S, "jitter_s": JITTER_S, "seed": seed}
        options |= {"rates": self.rates, "refuses_at_once": self.is_storm, **self.more}
        if self.is_on_the_wire:
            return Options(**way.options(), ledger=LedgerOptions(journal=True), quotas=())
        if self.revoked_after_s is not None:
            options["unauthorized_once_at_s"] = began_s(way) + self.revoked_after_s
        if self.down_s:
            options["down"] = ((began_s(way), self.down_s),)
        if self.count is not None:
            options["only"] = ((self.first(way), self.count),)
        if self.for_s is not None:
            options["during"] = ((began_s(way), self.for_s),)
        return Options(
            **way.options(**self.own(way)),
            faults=FaultOptions(**options),
            roster=RosterOptions(**self.roster),
            ledger=LedgerOptions(journal=True),
            quotas=(self.quota,) if self.quota else () if self.is_storm else (QUOTA,),
        )


def began_s(way: Way) -> float:
    """When what has its time begins."""
    return FLOW_S if way.first else 0.0


async def load(way: Way, fault: Fault, seed: int = 0) -> Rig:
    """The whole load, to its end."""
    clock = Clock()
    memory = Memory(fault.options(way, seed), clock=clock.truth)
    rig = _rig(
        memory,
        way,
        fault,
        quota=None if fault.is_storm else str(QUOTA).removesuffix(" sliding"),
        timeout_s=fault.timeout_s,
        wrap=fault.wrap(way, memory.sandbox) if fault.wrap else lambda send: send,
        clock=clock,
        seed=seed,
    )

    async def turn_the_clock() -> None:
        await anyio.sleep(began_s(way) + 0.1)
        if fault.clock:
            fault.clock(clock)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(turn_the_clock)
        await rig.run(way.rows(fault.length))
        tasks.cancel_scope.cancel()
    return rig


async def load_on_the_wire(way: Way, fault: Fault) -> Rig:
    """The same over real sockets, in real time, with backoffs that are hardly any."""
    clock = Clock()
    memory = Memory(fault.options(way), clock=clock.truth)
    front = Front(memory.sandbox, fault.misdeed, fault.first(way), fault.count or 0)
    async with (
        front.run(fault.road),
        Transport(front.url, CONCURRENCY, fault.timeout_s, ENDLESS_BYTES // 2, front.network) as transport,
    ):
        rig = _rig(memory, way, fault, wire=transport, clock=clock, uniform=lambda least, most: min(most, 0.01))
        await rig.run(way.rows(1))
    assert front.strayed == 0, "a redirect was followed"
    assert front.misdeeds or fault.misdeed is None, "it did not happen"
    return rig


def _rig(memory: Memory, way: Way, fault: Fault, **more: Any) -> Rig:
    return Rig(
        memory,
        api=way.api,
        secrets=way.secrets,
        concurrency=CONCURRENCY,
        users_per_request=way.users_per_request,
        attempts=fault.attempts,
        give_up_s=fault.give_up_s,
        carries=way.carries,
        **more,
    )


# What must be true ----------------------------------------------------------------------------------------------------


def judge(rig: Rig, way: Way, fault: Fault, cell: Cell) -> None:
    """That it ended as expected, and what holds however it ends."""
    sent, rows = way.rows(fault.length), rig.checkpoint.rows()
    codes = {row: settled.outcome.code for row, settled in rows.items()}
    said = f"{rig.lane.reason} {Counter(codes.values())} {rig.warnings[:3]}"
    assert rig.exit_status == cell.status, said
    if cell.status == 3:
        assert cell.words in str(rig.lane.reason)
    else:
        assert sorted(codes) == list(range(1, len(sent) + 1)), "every row has one outcome"
    bad = {row: code for row, code in codes.items() if code not in (Code.SUCCESS, Code.SUPERSEDED)}
    if cell.one is not None:
        assert list(bad.values()) == [cell.one], said
        assert fault.more.get("about") is None or rows[next(iter(bad))].user == CULPRIT
    elif cell.every is not None:
        assert set(bad.values()) == {cell.every}, said
        assert Code.SUCCESS not in codes.values(), said
    else:
        assert not bad, said
    if fault.is_loud:
        assert rig.warnings
    _judge_ledger(rig, way, sent, codes)
    _judge_requests(rig, way, fault, cell)
    _judge_attempts(rig, way, sent)
    for secret in (SECRET, MANAGEMENT_KEY):
        assert secret not in f"{said} {[settled.outcome for settled in rows.values()]}"


def _judge_ledger(rig: Rig, way: Way, rows: Sequence[Row], codes: Mapping[int, Code]) -> None:
    """What is called a success is there, with the last value; nothing is there that was not sent; nothing went back."""
    ledger = rig.memory.ledger
    if way.name == "calven-hierarchy":
        whole = [{"group": group, **values} for group, values in rows]
        assert ledger.hierarchy in ([], (), whole)
        assert ledger.hierarchy == whole or Code.SUCCESS not in codes.values()
        return
    sent = {(user, name, value) for user, values in rows for name, value in values.items()}
    last: dict[tuple[str, str], int] = defaultdict(int)
    for user, written in ledger.journal:
        for name, value in written.items():
            assert (user, name, value) in sent
            assert row_of(value) >= last[user, name], f"{user}: {name} of row {row_of(value)} came after a later one"
            last[user, name] = row_of(value)
    taken = (Code.SUCCESS, Code.SUPERSEDED) if Code.SUCCESS in codes.values() else ()
    for row, (user, values) in enumerate(rows, 1):
        if codes.get(row) in taken:
            assert user in ledger.users
            for name in values:
                assert row_of(ledger.users[user].attributes[name]) >= row, f"{user}: {name} is older than row {row}"
    for user, entry in ledger.users.items():
        for name, value in entry.attributes.items():
            assert row_of(value) == last[user, name]


def _judge_requests(rig: Rig, way: Way, fault: Fault, cell: Cell) -> None:
    """Not too many, none after a stop, none in a pause; never more a second than before; never more than the quota."""
    times = [at for at, _ in rig.sent]
    _must_have_happened(rig, way, fault, times)
    if fault.is_on_the_wire:
        assert len(times) <= 2.5 * way.requests + 150
        assert all(at <= (rig.stopped_at or at) for at in times), "something went out after the stop"
        return
    began = START_S + began_s(way)
    each = fault.attempts if cell.every is Code.FAILED or fault.is_mixed else 2.5
    assert len(times) <= each * way.requests * fault.length + 150
    assert all(at <= (rig.stopped_at or at) for at in times), "something went out after the stop"
    if cell.status != 3:
        assert times[-1] - START_S <= 20 + 2 * fault.pause_s + 60, "it found no end"
    if cell.waits:
        pauses = [later - earlier for earlier, later in pairwise(times)]
        is_asked_for = fault.for_s is None and not fault.down_s
        assert is_asked_for or times[-1] >= began + fault.pause_s
        assert max(pauses) >= (0.95 * fault.pause_s - 1 if is_asked_for else min(3.0, fault.pause_s / 4))
    for quota in () if fault.quota else rig.memory.sandbox.quotas:
        assert quota.peak <= quota.options.limit, "more was sent than the quota allows"
    if fault.is_storm and way.first:
        before, after = (_most(times, start, end) for start, end in ((0, began), (began, times[-1])))
        assert after <= 1.2 * before, f"{after} requests within 2 s, {before} before the storm"


def _must_have_happened(rig: Rig, way: Way, fault: Fault, times: Sequence[float]) -> None:
    """Else its outcome would show nothing."""
    if fault.is_on_the_wire:
        return  # the server has counted
    kind: Kind = "token" if fault.more.get("on") == "token" else "data"
    assert not fault.count or rig.memory.stats.arrivals[kind] > fault.first(way)
    if fault.has_its_time:
        assert times[-1] >= START_S + began_s(way)


def _most(times: Sequence[float], start: float, end: float, window_s: float = 2.0) -> int:
    """The most requests in any window that begins with one of them, between `start` and `end`."""
    part = times[bisect_left(times, start) : bisect_right(times, end)]
    return max((bisect_left(part, at + window_s) - place for place, at in enumerate(part)), default=0)


def _judge_attempts(rig: Rig, way: Way, rows: Sequence[Row]) -> None:
    """The outcomes say how often each user was sent."""
    if rig.exit_status == 3:
        return
    told: Counter[str] = Counter()
    for row, settled in rig.checkpoint.rows().items():
        if settled.outcome.code is not Code.SUPERSEDED:
            told[rows[row - 1][0]] += settled.outcome.attempts
    for user, count in told.items():
        if way.name.startswith("scim"):  # a search counts for who was never sent, and a batch's request for all of it
            assert count >= rig.carried[user]
        else:
            assert count == rig.carried[user], user
