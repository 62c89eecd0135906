"""From figures of a few request sizes and concurrencies to the best ones: what to measure next, and what it means.

A target is taken for one that needs a + b·n seconds for a request of n users and works on some requests at once; more
wait. Where a measurement says otherwise, the measurement counts: the line is used only where it fits, the knee is
looked for among what was measured, and what is chosen is measured, too (bench.py).
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

#: What counts as reaching the best throughput; two that differ by less than this are the same.
ENOUGH = 0.95
#: The knee is known when it lies in a range no wider than this.
_NARROW = 1.10
#: A line fits if no size takes so much more or less than it says.
_EVEN = 0.10
#: In weighing what a choice has in flight, a request counts as so many users more.
_REQUEST = 10
#: A median of the size of a normal deviation, and the error of a median against that of a mean.
_MEDIAN, _OF_MEDIAN = 0.6745, 1.2533
#: Windows that quotas are known to have, in seconds.
_WINDOWS = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0, 3600.0)
#: A window must have been full so often, with at least so many in it; its count may be off by this share, as clocks and
#: networks are, and of what was taken so much may be at odds with it.
_TIMES_FULL, _FEW, _SLACK, _ODD_ONES = 2, 3, 0.1, 0.01
#: A quota allows at most so many times what was taken in the long run, as more was asked for.
_LASTING = 1.3
#: So many standard errors are no accident.
_ERRORS = 2.0


class Line(NamedTuple):
    """What a request costs: `request_s` whatever it carries, and `user_s` more for each user, in seconds.

    `is_even`: whether the sizes measured lie on it.
    """

    request_s: float
    user_s: float
    is_even: bool = True

    def seconds(self, users: int) -> float:
        return self.request_s + users * self.user_s


def fit(points: Sequence[tuple[int, float]]) -> Line:
    """The line through (users, seconds), by least squares of relative errors; those far off count less (Huber).

    Each size may have several points; of one size alone all is taken for the request's.
    """
    sizes = sorted({users for users, _ in points})
    if len(sizes) == 1:
        return Line(median(seconds for _, seconds in points), 0.0)
    trust = [1.0] * len(points)
    line = Line(*_least_squares(points, [1 / seconds**2 for _, seconds in points]))
    for _ in range(50):
        errors = [abs(seconds / line.seconds(users) - 1) for users, seconds in points]
        far = 1.5 * max(median(errors) / _MEDIAN, 1e-9)
        trust = [min(far / error, 1.0) if error else 1.0 for error in errors]
        weights = [weight / line.seconds(users) ** 2 for weight, (users, _) in zip(trust, points, strict=True)]
        line = Line(*_least_squares(points, weights))
    middle = {size: median(seconds for users, seconds in points if users == size) for size in sizes}
    return line._replace(
        is_even=all(abs(seconds / line.seconds(users) - 1) <= _EVEN for users, seconds in middle.items())
    )


def _least_squares(points: Sequence[tuple[int, float]], weights: Sequence[float]) -> tuple[float, float]:
    """a and b of t = a + b·n, neither below 0."""
    total = sum(weights)
    n = sum(w * users for w, (users, _) in zip(weights, points, strict=True)) / total
    t = sum(w * seconds for w, (_, seconds) in zip(weights, points, strict=True)) / total
    spread = sum(w * (users - n) ** 2 for w, (users, _) in zip(weights, points, strict=True))
    both = sum(w * (users - n) * (seconds - t) for w, (users, seconds) in zip(weights, points, strict=True))
    slope = max(both / spread, 0.0)
    if t - slope * n >= 0:
        return t - slope * n, slope
    squares = sum(w * users**2 for w, (users, _) in zip(weights, points, strict=True))
    return 0.0, sum(w * users * seconds for w, (users, seconds) in zip(weights, points, strict=True)) / squares


def noise(repeats: Iterable[Sequence[float]]) -> float | None:
    """How much a figure differs from its repetition: a standard deviation, as a share. None: too few were repeated."""
    steps = [abs(a - b) / (a + b) * 2 / math.sqrt(2) for each in repeats for a, b in pairwise(each) if a + b]
    return median(steps) / _MEDIAN if len(steps) > 2 else None


# Concurrency ---------------------------------------------------------------------------------------------------------


def next_concurrency(found: Mapping[int, float], most: int) -> int | None:
    """The concurrency to measure next, up to `most`; None: the knee is known, or lies beyond.

    `found`: throughput by concurrency. It doubles until that brings nothing more, and then narrows down where it ended.
    """
    if not found:
        return 1
    top = max(found)
    before = max((rate for at_once, rate in found.items() if at_once <= top / 2), default=0.0)
    if top < most and before < ENOUGH * found[top]:
        return min(2 * top, most)
    high, best = _high(found), max(found.values())
    below = sorted(at_once for at_once in found if at_once < high)
    if not below:
        return None
    low = below[-1]
    # More of it at once is never better than in proportion, so the knee can't be lower than this.
    least = max(low, ENOUGH * best * low / found[low]) if found[low] else low
    if high - low <= 1 or high <= _NARROW * least:
        return None
    if found[low] and found[low] / low >= ENOUGH * found[below[0]] / below[0]:  # in proportion: up to the knee, then
        guess = round(best * low / found[low])
    else:
        guess = round(math.sqrt(low * high))
    return min(max(guess, low + 1), high - 1)


def knee(found: Mapping[int, float]) -> int | None:
    """The concurrency beyond which throughput no longer rises, from throughput by concurrency. None: it still rises."""
    high = _high(found)
    return high if high < ENOUGH * max(found) else None


def _high(found: Mapping[int, float]) -> int:
    """The smallest concurrency that reaches the best throughput."""
    best = max(found.values())
    return min(at_once for at_once, rate in found.items() if rate >= ENOUGH * best)


def levelled(found: Mapping[int, float], doubt: float) -> dict[int, float]:
    """The same, with those that are as good as the best but for `doubt`, a share, made equal: their median."""
    best = max(found.values())
    top = median(rate for rate in found.values() if rate >= best * (1 - doubt))
    return {at_once: top if rate >= best * (1 - doubt) else rate for at_once, rate in found.items()}


def between(found: Mapping[int, float]) -> dict[int, float]:
    """The same with what lies between two that were measured, in proportion; never less than for fewer at once."""
    filled: dict[int, float] = {}
    known = sorted(found)
    for low, high in pairwise(known):
        for at_once in [low, *(each for each in legible(high) if low < each < high)]:
            filled[at_once] = found[low] + (found[high] - found[low]) * (at_once - low) / (high - low)
    filled[known[-1]] = found[known[-1]]
    best = 0.0
    for at_once in sorted(filled):
        best = filled[at_once] = max(best, filled[at_once])
    return filled


# A quota -------------------------------------------------------------------------------------------------------------


def quota(taken: Sequence[float], refused: Sequence[float]) -> tuple[int, float] | None:
    """The quota behind refusals: at most so many requests in any so many seconds. None: none explains them.

    From the moments, in order, at which requests went that were taken, and that were refused. A refusal says that a
    window is full: then it held as many as at any other refusal, no request was taken with more in it, and the target
    took something again before all of it was over; and since the first refusal it took about as much as that allows.
    One refusal, or several at once, fit any window.
    """
    times = {bisect_left(taken, moment) for moment in refused}  # how much was taken before: as often as it was full
    if len(times) < _TIMES_FULL:
        return None
    since = len(taken) - bisect_left(taken, refused[0])
    lasting = since / max(taken[-1] - refused[0], 1e-9)
    pauses = [taken[at] - moment for moment in refused if (at := bisect_left(taken, moment)) < len(taken)]

    def held(moment: float, window_s: float) -> int:
        return bisect_left(taken, moment) - bisect_right(taken, moment - window_s)

    for window_s in _WINDOWS:
        full = [held(moment, window_s) for moment in refused]
        most = median(full)
        if max(pauses, default=0.0) > 1.2 * window_s or most < _FEW or min(full) < (1 - _SLACK) * most - 1:
            continue
        above = sum(held(moment, window_s) > (1 + _SLACK / 2) * most for moment in taken)
        if above <= _ODD_ONES * len(taken) and most / window_s <= _LASTING * lasting:
            return round(most), window_s
    return None


# The choice ----------------------------------------------------------------------------------------------------------


class Caps(NamedTuple):
    """What a quota allows, a second."""

    requests_per_s: float = math.inf
    users_per_s: float = math.inf

    def users(self, a_request: int) -> float:
        """What it allows a second, in users, with so many a request."""
        return min(self.requests_per_s * a_request, self.users_per_s)


class Choice(NamedTuple):
    """A request size, a concurrency, and the throughput they should have."""

    users: int
    at_once: int
    users_per_s: float


def choose(seconds: Mapping[int, float], gain: Mapping[int, float], caps: Caps = Caps()) -> tuple[Choice, Choice]:  # noqa: B008  # immutable
    """What is best, and the smallest that comes close to it (ENOUGH).

    `seconds`: of a request alone, by users; `gain`: throughput by concurrency, as a multiple of that of one alone. Of
    those that come close it is the one with the fewest users in flight, which are sent again if the load is killed; a
    request counts as some more, or many tiny ones would be best.
    """
    all_of_them = [
        Choice(users, at_once, min(factor * users / each_s, caps.users(users)))
        for users, each_s in seconds.items()
        for at_once, factor in gain.items()
    ]
    most = max(choice.users_per_s for choice in all_of_them)

    def in_flight(choice: Choice) -> int:
        return choice.at_once * (choice.users + _REQUEST)

    best = min((each for each in all_of_them if each.users_per_s >= most * (1 - 1e-9)), key=in_flight)
    return best, min((each for each in all_of_them if each.users_per_s >= ENOUGH * most), key=in_flight)


def legible(most: int) -> list[int]:
    """Numbers up to `most` that people can read: all to 100, then in steps of 5, from 1,000 on of 50, and so on."""
    found = list(range(1, min(most, 100)))
    step = 5
    while 20 * step <= most:
        found += range(20 * step, min(200 * step, most + 1), step)
        step *= 10
    return found if found and found[-1] == most else [*found, most]


# Earlier and now -----------------------------------------------------------------------------------------------------


class Figure(NamedTuple):
    """A figure of which more is better, the median of so many `times`; `noise` as above."""

    value: float
    times: int
    noise: float | None

    @property
    def error(self) -> float:
        """The standard error, as a share."""
        return _OF_MEDIAN * (self.noise or 0.0) / math.sqrt(self.times)

    @property
    def least(self) -> float:
        """What it is at least, but for an accident."""
        return self.value * (1 - _ERRORS * self.error)


def by_accident(before: Figure, now: Figure) -> float:
    """By which share two figures of the same thing may well differ."""
    return _ERRORS * math.hypot(before.error, now.error)


class Change(NamedTuple):
    """By which share something changed, and by how much it may seem to have changed by accident."""

    share: float
    by_accident: float

    def is_worse(self, tolerance: float) -> bool:
        """Is it lower by more than `tolerance`, a share, and not by accident?"""
        return -self.share > max(tolerance, self.by_accident)


def change(before: Figure, now: Figure) -> Change:
    """What became of a figure."""
    return Change(now.value / before.value - 1, by_accident(before, now))
