"""The pace that is found: what one refusal, one header, one quiet time does to it. Whole loads: tests/tempo."""

import pytest

from loader.retry import Allowance
from loader.tempo.rate import Rate


def take(rate: Rate, per_s: float, seconds: float, start: float = 0.0) -> float:
    """So many requests go and are taken at once; the moment after."""
    for number in range(int(per_s * seconds)):
        at = start + number / per_s
        rate.went(at)
        rate.took(at, at)
    return start + seconds


def test_nothing_refused_means_no_limit() -> None:
    rate = Rate()
    take(rate, 1000, 5)

    assert rate.limit is None
    assert rate.pace(5) is None
    assert rate.wait_s(5) <= 0


def refuse_once(rate: Rate, now: float) -> float:
    """One request is refused, and the next is taken; the moment after."""
    rate.went(now)
    rate.refused(now, now)
    rate.went(now + 0.1)
    rate.took(now + 0.1, now + 0.1)
    return now + 0.1


def test_what_was_taken_until_refusals_is_the_limit() -> None:
    rate = Rate()
    now = refuse_once(rate, take(rate, 50, 4))
    assert rate.limit is None, "one refusal may have another reason"
    refuse_once(rate, now)

    assert rate.limit == pytest.approx(50, rel=0.05)
    assert 0.88 * 50 <= (rate.pace(now + 0.2) or 0) < 50


def test_while_little_is_known_of_a_limit_it_is_a_guess() -> None:
    """While all is refused, and while what came of that is only tried; not of one that is known from a run before."""
    rate = Rate()
    now = take(rate, 50, 1)
    seen = [rate.is_guess]
    for _ in range(40):  # so many that they are taken for what they are
        now += 0.3
        rate.went(now)
        rate.refused(now, now)
    seen.append(rate.is_guess)
    now = take(rate, 5, 2, now + 1)
    seen.append(rate.is_guess)

    assert (seen, rate.limit is not None) == ([False, True, True], True)
    assert not Rate(50).is_guess


def test_of_many_refused_together_one_counts() -> None:
    """They went before anybody knew."""
    rate = Rate(100)
    for number in range(50):
        rate.went(number / 100)
    for number in range(50):
        rate.refused(number / 100, 0.6)

    assert 0.6 <= (rate.pace(0.7) or 0) / 93 <= 0.8


def test_it_rises_only_while_it_is_used() -> None:
    """What nobody waits for proves nothing."""
    rate = Rate(10)
    rate.went(0)
    begin = rate.pace(0.0)
    rate.went(3600)

    assert rate.pace(3600) == pytest.approx(begin, rel=0.05)


@pytest.mark.parametrize("start", [None, 100.0])
def test_headers_only_lower_it(start: float | None) -> None:
    rate = Rate(start)
    rate.told(Allowance(per_s=5), 0, was_taken=True)
    assert rate.pace(1) == 5

    rate = Rate(3.0)
    rate.told(Allowance(per_s=5), 0, was_taken=True)
    assert (rate.pace(1) or 0) <= 3


def test_when_nothing_is_left_it_waits_for_the_window_to_end() -> None:
    rate = Rate()
    rate.told(Allowance(0, 12), 100, was_taken=True)

    assert rate.wait_s(100) == 12
    assert rate.wait_s(112) <= 0


def test_who_takes_what_it_said_it_would_not_is_no_longer_believed() -> None:
    rate = Rate()
    for _ in range(4):
        rate.told(Allowance(0, 300), 100, was_taken=True)

    assert rate.wait_s(100) <= 0
    rate.told(Allowance(per_s=0.5), 100, was_taken=True)
    assert rate.pace(101) is None


def test_it_never_stops_asking() -> None:
    """However often it is refused."""
    rate = Rate()
    rate.went(0)
    for number in range(1, 1000):
        rate.refused(number, number)

    assert (rate.pace(1000) or 0) >= 0.2
    assert rate.wait_s(1000) <= 5
