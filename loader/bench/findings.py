"""What a bench found: steps and their figures, what follows from them, and how it differs from an earlier one.

A report is JSON that the next bench reads: `loader bench load.toml --compare earlier.json`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from loader.bench import optimum
from loader.bench.optimum import Caps, Change, Choice, Figure, Line
from loader.bench.visit import Visit
from loader.errors import Refused

#: With so much of a core in use, it is this machine that was measured.
_BUSY = 0.85

#: A throughput that a quota allows is at most so much more than it, as it is measured.
_LASTING = 1.1

#: Where no quota is known.
_NONE = Caps()

Key = tuple[int, int]
"""A step: users a request, requests at once."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pair(_Frozen):
    """A request size, a concurrency, and their throughput: measured, or what is to be expected of them."""

    users_per_request: int
    concurrency: int
    users_per_s: float
    is_measured: bool


class Step(_Frozen):
    """So many users a request, and so many requests at once; figures are the medians of its visits."""

    users_per_request: int
    concurrency: int
    visits: tuple[Visit, ...]

    @property
    def users_per_s(self) -> float:
        return median(visit.users_per_s for visit in self.visits)

    @property
    def key(self) -> Key:
        return self.users_per_request, self.concurrency

    @property
    def pair(self) -> Pair:
        return Pair(
            users_per_request=self.users_per_request,
            concurrency=self.concurrency,
            users_per_s=self.users_per_s,
            is_measured=True,
        )

    def figure(self, spread: float | None) -> Figure:
        """Its throughput; `spread`: by how much its visits differ."""
        return Figure(self.users_per_s, len(self.visits), spread)

    def middle(self, name: str) -> float | None:
        """The median of what visits call `name`; None: none of them knows it."""
        known = [value for visit in self.visits if (value := getattr(visit, name)) is not None]
        return median(known) if known else None

    def total(self, name: str) -> int:
        """The sum of what visits call `name`."""
        return sum(getattr(visit, name) for visit in self.visits)


class Found(_Frozen):
    """What is known of the target. None: not known, or there is none.

    `request_s`, `user_s`: what a request takes, and for each user more; `is_even`: whether the sizes tried agree;
    `knee`: so many requests it works on at once, of the `most_at_once` tried; `requests_per_s`: beyond that it refused,
    with 429; `largest_request`: in users, where larger ones were refused; `noise`: how much two visits of a step
    differ, as a share.
    """

    request_s: float
    user_s: float
    is_even: bool
    knee: int | None
    most_at_once: int
    requests_per_s: float | None
    largest_request: int | None
    noise: float | None


class Report(_Frozen):
    """A bench.

    `users`: so many, each sent again and again; `rejected`: rows among theirs that can't be sent; `ended`: why it did,
    "" if all was known. `recommended`: the smallest that comes close to the `best`. `last_failure`: of a user, in the
    target's words; `is_refusing`: it answered 429, and what it would have taken was not found.
    """

    form: Literal[1] = 1
    at: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    users: int
    rejected: int
    seconds: float
    took_s: float
    ended: str
    steps: tuple[Step, ...]
    found: Found | None
    best: Pair | None
    recommended: Pair | None
    sent: int
    failed: int
    last_failure: str
    refused: int
    is_refusing: bool


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


def recommend(
    steps: Sequence[Step], found: tuple[Choice, Choice] | None, spread: float | None, caps: Caps = _NONE
) -> tuple[Pair, ...]:
    """What is best, and what is recommended: what was chosen for it, if it held what it promised where it was measured;
    else the smallest step that came close to the best. Empty: nothing is known; without the second: too little."""
    # What was faster than a quota allows had the quota's window for itself: that does not last.
    steps = [step for step in steps if step.users_per_s <= _LASTING * caps.users(step.users_per_request)]
    if not steps:
        return tuple(map(_expected, found or ()))
    top = max(steps, key=lambda step: step.figure(spread).least)
    if found is None:
        return (top.pair,)

    def is_close(step: Step, share: float) -> bool:
        by_accident = optimum.by_accident(top.figure(spread), step.figure(spread))
        return step.users_per_s >= (share - by_accident) * top.users_per_s

    known = {step.key: step for step in steps}
    best, chosen = (known.get((choice.users, choice.at_once)) for choice in found)
    if best is not None and is_close(best, 1.0):
        top = best
    if chosen is None:
        return top.pair if best else _expected(found[0]), _expected(found[1])
    if not is_close(chosen, optimum.ENOUGH):
        close = [step for step in steps if step.users_per_s >= optimum.ENOUGH * top.users_per_s]
        chosen = min(close, key=lambda step: (step.users_per_request * step.concurrency, step.concurrency))
    return top.pair, chosen.pair


def _expected(choice: Choice) -> Pair:
    return Pair(
        users_per_request=choice.users, concurrency=choice.at_once, users_per_s=choice.users_per_s, is_measured=False
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
    reports = (before, now)
    pairs: list[tuple[str, Figure, Figure]] = []
    if before.best and now.best:
        pairs.append(("at best", _best(before), _best(now)))
    alone = [
        {step.users_per_request: _speeds(step) for step in each.steps if step.concurrency == 1} for each in reports
    ]
    if both := [users for users, speeds in alone[0].items() if speeds and alone[1].get(users)]:
        users = max(both)
        before_, now_ = (Figure(median(each[users]), len(each[users]), optimum.noise(each.values())) for each in alone)
        pairs.append((f"{users:,} user{'s' * (users > 1)} a request, one at a time", before_, now_))
    return [Compared(name, a.value, b.value, optimum.change(a, b)) for name, a, b in pairs]


def _best(report: Report) -> Figure:
    step = max(report.steps, key=lambda step: (step.pair == report.best, step.users_per_s))
    return step.figure(optimum.noise([visit.users_per_s for visit in each.visits] for each in report.steps))


def _speeds(step: Step) -> list[float]:
    """Users a second, by the time on the wire alone: whatever a quota made of it."""
    return [step.users_per_request / visit.request_s for visit in step.visits if visit.request_s]


def differences(before: Report, now: Report) -> Iterator[str]:
    """Settings and circumstances that differ, for people: what they make slower is no fault of the target."""
    for name in ("settings", "machine"):
        yield from _differ(getattr(before, name), getattr(now, name), "")
    for name in ("users", "seconds"):
        yield from _differ({name: getattr(before, name)}, {name: getattr(now, name)}, "")


def _differ(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in dict.fromkeys([*before, *now]):
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differ(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}: was {a!r}, is {b!r}"


# For people ----------------------------------------------------------------------------------------------------------

HEADINGS = ("users", "at once", "users/s", "±", "requests/s", "median", "95 %", "failed", "429", "")


def rows(report: Report) -> Iterator[tuple[str, ...]]:
    """The table: a row a step, as text. Times are of requests; in the last column, "quota" held it."""
    best, chosen = report.best, report.recommended
    for step in sorted(report.steps, key=lambda step: (step.concurrency > 1, *step.key)):
        speeds = [visit.users_per_s for visit in step.visits]
        remarks = [name for name, pair in (("best", best), ("recommended", chosen)) if pair == step.pair]
        yield (
            f"{step.users_per_request:,}",
            f"{step.concurrency:,}",
            _rate(step.users_per_s),
            f"{(max(speeds) - min(speeds)) / 2 / step.users_per_s:.0%}" if len(speeds) > 1 else "",
            _rate(step.middle("requests_per_s")),
            _time(step.middle("p50_s")),
            _time(step.middle("p95_s")),
            f"{step.total('failed'):,}",
            f"{step.total('refused'):,}",
            ", ".join([*remarks, *(["quota"] if any(visit.held_by for visit in step.visits) else [])]),
        )


def lines(report: Report) -> Iterator[str]:
    """What the table means."""
    found, best, chosen = report.found, report.best, report.recommended
    if found is not None:
        yield from _found_lines(report, found)
    if report.rejected:
        yield f"{report.rejected:,} rows among them can't be sent; loader check tells why"
    if report.is_refusing:
        yield (
            f"It refused {report.refused:,} requests (429), and {report.took_s:.0f} s did not show beyond which rate; "
            f"try --seconds {10 * report.seconds:g}, or ask who runs the API and set limits.quota"
        )
    if report.failed:
        yield f"{report.failed:,} of {report.sent:,} users sent failed; the last: {report.last_failure}"
    if best is not None:
        step = next((step for step in report.steps if step.pair == best), None)
        if step is not None and (step.middle("cpu") or 0.0) >= _BUSY:
            yield "This machine was busy: a faster one may well find that the target takes more"
    if report.ended and report.steps:
        yield f"This is not all there is to know: {report.ended}"
    if best is not None and chosen is not None:
        of_best = f"{chosen.users_per_s / best.users_per_s:.0%} of the best"
        yield f"Best: {_pair(best)}"
        yield f"Recommended, as it comes close with less: {_pair(chosen)}, {of_best}"


def _found_lines(report: Report, found: Found) -> Iterator[str]:
    limits = report.settings["limits"]
    if found.user_s and found.is_even:
        yield f"A request takes {_time(found.request_s)}, and {_time(found.user_s)} more for each of its users"
    elif found.user_s:
        yield "What a request takes does not grow evenly with its users, so only sizes that were tried are recommended"
    else:
        yield f"A request takes {_time(found.request_s)}"
    if found.largest_request is not None:
        yield f"Requests of over about {found.largest_request:,} users turned out to be too large"
    if found.knee is not None:
        yield f"It works on {found.knee:,} requests at once; more only wait"
    elif found.most_at_once > 1 and not any(visit.held_by for step in report.steps for visit in step.visits):
        bound = "limits.concurrency" if found.most_at_once >= limits["concurrency"] else "--users or --seconds"
        yield f"Up to {found.most_at_once:,} at once, each brought more; {bound} allowed no more"
    if found.requests_per_s is not None:
        yield f"It refuses more than {found.requests_per_s:,.3g} requests/s (429): {report.refused:,} were refused"
    if any(visit.held_by == "quota" for step in report.steps for visit in step.visits):
        yield f"The quota that is set allows no more: {', '.join(limits['quota'])}"
    if found.noise is not None:
        yield f"Two visits of the same step differ by {found.noise:.1%}"


def settings_lines(report: Report, most_users: int | None) -> Iterator[str]:
    """What is recommended, as it stands in a settings file. `most_users`: of a request, at this API; None: any."""
    if (chosen := report.recommended) is None:
        return
    yield "[limits]"
    if most_users is None or most_users > 1:
        yield f"users_per_request = {chosen.users_per_request}"
    yield f"concurrency = {chosen.concurrency}"
    if report.found is not None and (rate := report.found.requests_per_s) is not None:
        yield f"requests_per_minute = {_down(60 * rate):g}   # as it was found; who runs the API knows it exactly"


def compare_lines(before: Report, now: Report, tolerance: float) -> Iterator[str]:
    """How this bench differs from an earlier one."""
    yield f"Compared with the bench of {before.at}:"
    for each in compare(before, now):
        change, least = each.change.share, max(tolerance, each.change.by_accident)
        verdict = "SLOWER" if each.change.is_worse(tolerance) else "faster" if change > least else "the same"
        if -change > tolerance and verdict == "the same":
            verdict = "too noisy to tell"
        yield (
            f"  {each.name}: {_rate(each.before)} users/s then, {_rate(each.now)} now: {change:+.1%}"
            f" (by accident up to {each.change.by_accident:.1%}): {verdict}"
        )
    yield from (f"  another {line}" for line in differences(before, now))


def is_slower(before: Report, now: Report, tolerance: float) -> bool:
    """Has it become slower by more than `tolerance`, a share, and not by accident?"""
    return any(each.change.is_worse(tolerance) for each in compare(before, now))


def _pair(pair: Pair) -> str:
    users, at_once = pair.users_per_request, pair.concurrency
    shown = "" if pair.is_measured else " to be expected, not measured"
    return f"{users:,} user{'s' * (users > 1)} a request, {at_once:,} at once: {_rate(pair.users_per_s)} users/s{shown}"


def _rate(per_s: float | None) -> str:
    if per_s is None:
        return ""
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _down(value: float) -> float:
    """Rounded down to three digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.floor(value / step) * step
