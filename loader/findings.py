"""What a bench found: steps and their figures, what follows from them, and how it differs from an earlier one.

A report is JSON that the next bench reads: `loader bench load.toml --compare earlier.json`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from loader import optimum
from loader.errors import Refused
from loader.optimum import Caps, Change, Choice, Figure, Line

#: What kept a visit from being faster, if not the target's speed: a quota declared, or its refusals for the rate.
Held = Literal["quota", "rate"]

#: With so much of a core in use, it is this machine that was measured.
_BUSY = 0.85

Key = tuple[int, int]
"""A step: users a request, requests at once."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Visit(_Frozen):
    """A step, measured once.

    `users_per_s`: settled; `requests_per_s`: sent, whatever became of them; `request_s`: what a batch without trouble
    spent on the wire, where it was alone; `sent`: users; `failed`: those
    of them that failed; `refused`: requests answered with 429; `cpu`: of a core, what this process used.
    """

    users_per_s: float
    requests_per_s: float
    request_s: float | None
    p50_s: float | None
    p95_s: float | None
    sent: int
    failed: int
    refused: int
    cpu: float
    held_by: Held | None = None


class Step(_Frozen):
    """So many users a request, and so many requests at once; figures are the medians of its visits."""

    users_per_request: int
    concurrency: int
    visits: tuple[Visit, ...]

    @property
    def users_per_s(self) -> float:
        return median(visit.users_per_s for visit in self.visits)

    @property
    def in_flight(self) -> int:
        return self.users_per_request * self.concurrency

    def middle(self, name: str) -> float | None:
        """The median of what visits call `name`; None: none of them knows it."""
        known = [value for visit in self.visits if (value := getattr(visit, name)) is not None]
        return median(known) if known else None

    def total(self, name: str) -> int:
        return sum(getattr(visit, name) for visit in self.visits)


class Found(_Frozen):
    """What is known of the target. None: not known, or there is none.

    `request_s`, `user_s`: what a request takes, and for each user more; `is_even`: whether the sizes tried agree;
    `knee`: so many requests it works on at once; `requests_per_s`: beyond that it refused, with 429; `largest_request`: in users, where larger ones were refused;
    `noise`: how much two visits of a step differ, as a share.
    """

    request_s: float
    user_s: float
    is_even: bool
    knee: int | None
    requests_per_s: float | None
    largest_request: int | None
    noise: float | None


class Recommended(_Frozen):
    """The smallest request size and concurrency that reach nearly the best throughput.

    `share`: of the best, as it was measured; None: there was no time for that.
    """

    users_per_request: int
    concurrency: int
    users_per_s: float
    share: float | None


class Report(_Frozen):
    """A bench. `ended`: why it was over early, "" if it wasn't. `users`: so many, each sent again and again.

    `last_failure`: of a user, in the target's words.
    """

    form: Literal[1] = 1
    at: str
    loader: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    users: int
    seconds: float
    ended: str
    steps: tuple[Step, ...]
    found: Found | None
    best_users_per_s: float | None
    recommended: Recommended | None
    sent: int
    failed: int
    last_failure: str
    refused: int


class Course(NamedTuple):
    """What a bench knows beside its steps.

    `most_users`, `concurrency`: what a request may carry, and how many may be on the wire. `tried`: the size with which
    more and more were sent at once, 0: none yet. `caps`: what quotas allow.
    """

    most_users: int
    concurrency: int
    tried: int
    caps: Caps


Steps = Mapping[Key, Sequence[Visit]]


def noise(steps: Steps) -> float | None:
    """How much two visits of a step differ."""
    return optimum.noise([visit.users_per_s for visit in visits] for visits in steps.values())


def line(steps: Steps) -> Line | None:
    """What a request takes by its size, where it was alone. None: nothing is known yet."""
    points = [
        (users, visit.request_s)
        for (users, at_once), visits in steps.items()
        if at_once == 1
        for visit in visits
        if visit.request_s
    ]
    return optimum.fit(points) if points else None


def throughputs(steps: Steps, users: int) -> dict[int, float]:
    """By concurrency, of the steps with requests of so many users that no quota held."""
    return {
        at_once: median(visit.users_per_s for visit in visits)
        for (size, at_once), visits in steps.items()
        if size == users and not any(visit.held_by for visit in visits)
    }


def choices(steps: Steps, course: Course) -> tuple[Choice, Choice] | None:
    """What should be best, and what comes close to it with less. None: too little is known."""
    cost = line(steps)
    if cost is None or not course.tried:
        return None
    if cost.is_even:
        seconds = {users: cost.seconds(users) for users in optimum.legible(course.most_users)}
    else:  # no line goes through these: only what was measured is known
        taken: dict[int, list[float]] = {}
        for (users, at_once), visits in steps.items():
            if at_once == 1 and users <= course.most_users:
                taken.setdefault(users, []).extend(visit.request_s for visit in visits if visit.request_s)
        seconds = {users: median(each) for users, each in taken.items() if each}
    alone = course.tried / cost.seconds(course.tried)
    found = throughputs(steps, course.tried)
    gain = {1: 1.0}
    if found:
        some = Figure(1.0, min(len(steps[course.tried, at_once]) for at_once in found), noise(steps))
        level = optimum.levelled(found, optimum.by_accident(some, some))
        gain = optimum.between({at_once: rate / alone for at_once, rate in level.items()})
    last = max(gain)
    for at_once in optimum.legible(course.concurrency):
        # A quota held these: what the target could do with them is taken to be in proportion, as it was up to there.
        if at_once > last and _is_held(steps, course.tried, last):
            gain[at_once] = gain[last] * at_once / last
    return optimum.choose(seconds, gain, course.caps)


def _is_held(steps: Steps, users: int, beyond: int) -> bool:
    return any(
        size == users and at_once > beyond and visits[-1].held_by for (size, at_once), visits in steps.items()
    ) or (beyond == 1 and any(visit.held_by for visit in steps.get((users, 1), ())))


def recommend(steps: Sequence[Step], best: Choice, choice: Choice, spread: float | None) -> Recommended:
    """The choice, if it holds what it promised where it was measured; else the smallest step that came close."""
    known = {(step.users_per_request, step.concurrency): step for step in steps}
    chosen = known.get((choice.users, choice.at_once))
    if chosen is None:
        return Recommended(
            users_per_request=choice.users, concurrency=choice.at_once, users_per_s=choice.users_per_s, share=None
        )
    top = known.get((best.users, best.at_once)) or max(steps, key=lambda step: step.users_per_s)
    figures = [Figure(step.users_per_s, len(step.visits), spread) for step in (top, chosen)]
    if chosen.users_per_s < (optimum.ENOUGH - optimum.by_accident(*figures)) * top.users_per_s:
        close = [step for step in steps if step.users_per_s >= optimum.ENOUGH * top.users_per_s]
        chosen = min(close, key=lambda step: (step.in_flight, step.concurrency))
    return Recommended(
        users_per_request=chosen.users_per_request,
        concurrency=chosen.concurrency,
        users_per_s=chosen.users_per_s,
        share=chosen.users_per_s / top.users_per_s,
    )


# Earlier and now -----------------------------------------------------------------------------------------------------


def read(path: Path) -> Report:
    """An earlier report. Raises Refused if it is none."""
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise Refused(f"can't read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise Refused(f"{path} is no report of loader bench: {where}: {first['msg']}") from error


class Compared(NamedTuple):
    """A figure, earlier and now, in users a second."""

    name: str
    before: float
    now: float
    change: Change


def compare(before: Report, now: Report) -> list[Compared]:
    """What can be compared: the best throughput, and that of the largest request that both tried alone."""
    pairs = []
    if before.steps and now.steps:
        pairs.append(("best throughput", _best(before), _best(now)))
    alone = [{step.users_per_request: step for step in each.steps if step.concurrency == 1} for each in (before, now)]
    if both := [users for users in alone[0] if users in alone[1] and all(_speed(each[users]) for each in alone)]:
        users = max(both)
        name = f"one request of {users:,} user{'s' * (users > 1)} at a time"
        pairs.append((name, *(_figure(_speed(each[users]), each.values()) for each in alone)))
    return [Compared(name, a.value, b.value, optimum.change(a, b)) for name, a, b in pairs]


def _best(report: Report) -> Figure:
    step = max(report.steps, key=lambda step: step.users_per_s)
    spread = optimum.noise([visit.users_per_s for visit in each.visits] for each in report.steps)
    return Figure(step.users_per_s, len(step.visits), spread)


def _speed(step: Step) -> list[float]:
    """Users a second of each visit, by the time on the wire alone: whatever a quota made of it."""
    return [step.users_per_request / visit.request_s for visit in step.visits if visit.request_s]


def _figure(speeds: list[float], steps: Iterable[Step]) -> Figure:
    return Figure(median(speeds), len(speeds), optimum.noise(_speed(step) for step in steps))


def differences(before: Report, now: Report) -> Iterator[str]:
    """Settings and circumstances that differ, for people: what they make slower is no fault of the target."""
    for name in ("settings", "machine"):
        yield from _differ(getattr(before, name), getattr(now, name), "")
    for name in ("loader", "users", "seconds"):
        yield from _differ({name: getattr(before, name)}, {name: getattr(now, name)}, "")


def _differ(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in dict.fromkeys([*before, *now]):
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differ(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}: was {a!r}, is {b!r}"
