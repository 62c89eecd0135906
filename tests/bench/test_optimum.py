"""What to measure next, and what it means: decisions on plain figures."""

import math
import random
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.bench.optimum import (
    ENOUGH,
    Caps,
    Change,
    Figure,
    between,
    change,
    choose,
    fit,
    knee,
    legible,
    levelled,
    next_concurrency,
    noise,
)

SIZES = (1, 12, 25, 50, 100)

costs = st.floats(0.001, 10.0)
dices = st.integers(0, 1_000_000).map(random.Random)  # st.randoms() would be looking for the worst of luck


# What a request costs


@given(costs, st.floats(0.00001, 0.1))
def test_a_line_is_found_again(request_s: float, user_s: float) -> None:
    """Points on a line give that line."""
    line = fit([(users, request_s + users * user_s) for users in SIZES])

    assert line.request_s == pytest.approx(request_s, rel=1e-3, abs=1e-6)
    assert line.user_s == pytest.approx(user_s, rel=1e-3, abs=1e-8)
    assert line.is_even


@given(dices, costs, st.floats(2.0, 50.0))
def test_a_few_that_are_far_off_move_it_little(dice: random.Random, request_s: float, times: float) -> None:
    """One in five takes much longer: the line stays where the others are."""
    user_s = request_s / 50
    points = [
        (users, (request_s + users * user_s) * dice.uniform(0.98, 1.02) * (times if turn == 0 else 1))
        for turn in range(5)
        for users in SIZES
    ]
    dice.shuffle(points)

    line = fit(points)

    assert line.request_s == pytest.approx(request_s, rel=0.1)
    assert line.user_s == pytest.approx(user_s, rel=0.1)


def test_neither_part_is_below_nothing() -> None:
    """Larger requests that seem quicker cost nothing a user; and none costs less than nothing for itself."""
    falling = fit([(1, 1.0), (10, 0.98), (100, 0.96)])
    steep = fit([(1, 0.001), (10, 0.0102), (100, 0.103)])

    assert falling.user_s == 0
    assert falling.request_s == pytest.approx(0.98, rel=0.02)
    assert steep.request_s == 0
    assert steep.user_s == pytest.approx(0.001, rel=0.05)


def test_of_one_size_all_is_the_requests() -> None:
    """Nobody knows then what of it is for the users."""
    assert fit([(1, 0.2), (1, 0.3), (1, 0.9)]) == (0.3, 0.0, True)


def test_sizes_that_lie_on_no_line_are_told() -> None:
    """Such as where a request of more than so many users is worked on in two goes."""
    assert not fit([(1, 0.1), (10, 0.1), (50, 0.1), (60, 0.2), (100, 0.2)]).is_even


# Noise


@given(dices, st.floats(0.005, 0.1))
def test_noise_is_that_of_one_measurement(dice: random.Random, spread: float) -> None:
    """Whatever the steps are like, how much two visits of one differ is found within a half."""
    steps = [[mean * dice.gauss(1, spread) for _ in range(3)] for mean in (1, 10, 100, 1000) * 20]

    found = noise(steps)

    assert found == pytest.approx(spread, rel=0.5)


def test_without_repetition_no_noise_is_known() -> None:
    """One visit of each step says nothing."""
    assert noise([[1.0], [2.0], [3.0]]) is None
    assert noise([[1.0, 1.1], [2.0, 2.0]]) is None


# The knee


def sharp(at: int) -> Callable[[int], float]:
    """So many are worked on at once, and more wait."""
    return lambda at_once: 10.0 * min(at_once, at)


def gradual(half: int) -> Callable[[int], float]:
    """Each more brings less than the one before."""
    return lambda at_once: 1000.0 * at_once / (at_once + half)


def search(curve: Callable[[int], float], most: int) -> dict[int, float]:
    found: dict[int, float] = {}
    while (at_once := next_concurrency(found, most)) is not None:
        assert at_once not in found
        assert 1 <= at_once <= most
        found[at_once] = curve(at_once)
    return found


@given(st.integers(1, 500), st.integers(1, 1000))
def test_a_sharp_knee_is_found(at: int, most: int) -> None:
    """Within a tenth, or the next number, and without measuring all there is. One that lies beyond is not found."""
    found = search(sharp(at), most)

    assert len(found) <= 2 + 2 * math.log2(most + 1)
    if most > 1.1 * at + 1:
        assert knee(found) is not None
        assert abs((knee(found) or 0) - at) <= max(1, 0.1 * at)
    elif most <= at:  # it may lie right behind
        assert knee(found) is None


@given(st.integers(1, 20), st.integers(400, 1000))
def test_where_it_rises_ever_less_nearly_all_of_it_is_reached(half: int, most: int) -> None:
    """The knee is the first that reaches 95 % of the most that was measured."""
    curve = gradual(half)
    found = search(curve, most)

    at = knee(found)
    assert at is not None
    assert curve(at) >= ENOUGH * max(found.values())
    assert curve(int(at / 1.15)) < ENOUGH * max(found.values())


@given(st.integers(4, 60), dices)
def test_noise_moves_it_little(at: int, dice: random.Random) -> None:
    """With figures that are off by up to 2 %, too."""
    found = search(lambda at_once: sharp(at)(at_once) * dice.uniform(0.98, 1.02), 200)

    assert abs((knee(found) or 0) - at) <= max(2, 0.15 * at)


def test_a_target_that_can_not_bear_more_is_not_asked_for_more() -> None:
    """Where more at once brings less, the search ends."""
    assert search(lambda at_once: 10.0 * min(at_once, 8) - max(at_once - 8, 0), 1000).keys() <= {1, 2, 4, 7, 8, 16}


def test_between_is_in_proportion_and_never_less() -> None:
    """What was not measured lies between its neighbours; what fell by noise is lifted."""
    assert between({1: 1.0, 4: 4.0, 8: 3.9}) == pytest.approx(
        {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 4.0, 6: 4.0, 7: 4.0, 8: 4.0}
    )


def test_what_differs_by_accident_is_levelled() -> None:
    """All that may be the best are as good as each other."""
    assert levelled({1: 10.0, 8: 80.0, 16: 82.0, 32: 81.0}, 0.05) == {1: 10.0, 8: 81.0, 16: 81.0, 32: 81.0}


# The choice


@given(
    st.floats(0.01, 1.0),
    st.floats(0.0001, 0.01),
    st.integers(1, 30),
    st.integers(1, 10),
    st.integers(1, 15),
    st.sampled_from([math.inf, 5.0, 50.0]),
    st.sampled_from([math.inf, 40.0, 4000.0]),
)
def test_nothing_smaller_would_do(
    request_s: float, user_s: float, users: int, at_once: int, places: int, requests_per_s: float, users_per_s: float
) -> None:
    """The choice reaches 95 % of the best, and no pair with less of both does."""
    seconds = {n: request_s + n * user_s for n in range(1, users + 1)}
    gain = {c: float(min(c, places)) for c in range(1, at_once + 1)}
    caps = Caps(requests_per_s, users_per_s)

    best, choice = choose(seconds, gain, caps)

    def rate(n: int, c: int) -> float:
        return min(gain[c] * n / seconds[n], requests_per_s * n, users_per_s)

    assert best.users_per_s == pytest.approx(max(rate(n, c) for n in seconds for c in gain))
    assert choice.users_per_s >= ENOUGH * best.users_per_s
    assert not any(
        rate(n, c) >= ENOUGH * best.users_per_s and n <= choice.users and c <= choice.at_once
        for n in seconds
        for c in gain
        if (n, c) != (choice.users, choice.at_once)
    )


def test_many_tiny_requests_are_not_the_smallest() -> None:
    """Where a quota in users is all that holds, few requests are better than as many as there are users."""
    seconds = {n: 0.1 + n * 0.001 for n in range(1, 101)}
    gain = {c: float(c) for c in range(1, 17)}

    _, choice = choose(seconds, gain, Caps(users_per_s=83.0))

    assert choice.at_once == 1
    assert choice.users == 9


@given(st.integers(1, 100_000))
def test_legible_numbers(most: int) -> None:
    """They rise to the most, by no more than a twentieth; two digits, and the third is 0 or 5."""
    found = legible(most)

    assert found[-1] == most
    assert found == sorted(set(found))
    assert all(b - a <= max(1, a / 20) for a, b in pairwise(found))
    assert all(
        int(str(each)[2:] or "0") % (5 * 10 ** (len(str(each)) - 3) if each >= 100 else 1) == 0 for each in found[:-1]
    )


# Earlier and now


@pytest.mark.parametrize(
    ("before", "now", "spread", "is_worse"),
    [
        (100.0, 80.0, 0.01, True),
        (100.0, 92.0, 0.01, False),  # within the tolerance
        (100.0, 80.0, 0.15, False),  # by accident, perhaps
        (100.0, 80.0, None, True),
        (100.0, 130.0, 0.01, False),
    ],
)
def test_what_is_slower(before: float, now: float, spread: float | None, is_worse: bool) -> None:
    """Lower by more than the tolerance, and by more than two visits of the same step differ."""
    found = change(Figure(before, 3, spread), Figure(now, 3, spread))

    assert found.is_worse(0.1) is is_worse
    assert found.share == pytest.approx(now / before - 1)


@given(dices)
def test_the_same_again_is_seldom_worse(dice: random.Random) -> None:
    """Of medians of three with a tenth of noise, few seem to differ by more than what may be by accident."""

    def figure() -> Figure:
        return Figure(median(100 * dice.gauss(1, 0.1) for _ in range(3)), 3, 0.1)

    assert sum(change(figure(), figure()).is_worse(0.0) for _ in range(200)) <= 20
    assert Change(-0.2, 0.3).is_worse(0.1) is False
