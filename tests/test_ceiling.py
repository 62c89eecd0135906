"""The largest size a target takes is found quickly, whatever it is, and one fat record shrinks nothing."""

from hypothesis import given
from hypothesis import strategies as st

from loader.batch import BatchLimits
from loader.ceiling import Ceiling, RequestSize


@given(st.integers(1, 10_000_000), st.integers(1, 10_000_000))
def test_the_limit_settles_close_below_what_is_refused(largest: int, asked: int) -> None:
    """Within some twenty tries, and at a twentieth of it at worst."""
    ceiling = Ceiling()
    for _ in range(30):
        size = min(asked, ceiling.limit or asked)
        if size <= largest:
            ceiling.took(size)
        else:
            ceiling.refused(size)

    size = min(asked, ceiling.limit or asked)
    assert size <= largest or largest < 2
    assert size >= min(asked, largest) * 0.9 - 1


def test_nothing_too_large_means_no_limit() -> None:
    """The settings' own limits hold then."""
    ceiling = Ceiling()
    ceiling.took(500)

    assert ceiling.limit is None


def test_a_refusal_below_what_was_taken_is_about_one_record() -> None:
    """It teaches nothing about the size of requests."""
    ceiling = Ceiling()
    ceiling.took(1000)
    ceiling.refused(900)

    assert ceiling.limit is None


def test_a_target_that_takes_more_again_lifts_the_limit() -> None:
    """What was refused once is forgotten when it is taken."""
    ceiling = Ceiling()
    ceiling.refused(1000)
    assert ceiling.limit == 500
    ceiling.took(1000)

    assert ceiling.limit is None


LIMITS = BatchLimits(500, 1_000_000)


def test_a_request_is_as_large_as_the_limits_allow_until_one_was_too_large() -> None:
    size = RequestSize(LIMITS)
    assert (size.limits, size.found) == (LIMITS, (None, None))
    assert not size.is_probe(500, 90_000)

    size.refused(500, 90_000)

    assert size.limits == BatchLimits(250, 45_000)
    assert size.is_probe(250, 45_000)
    assert size.is_too_large(251, 40_000)
    assert size.is_too_large(100, 45_001)
    assert not size.is_too_large(1, 1_000_000), "one user can't be made smaller"


def test_what_was_found_is_where_the_next_run_begins() -> None:
    """A little below the limit found, without trying again what was too large."""
    first = RequestSize(LIMITS)
    for _ in range(20):
        users = first.limits.users
        (first.took if users <= 120 else first.refused)(users, users * 200)

    second = RequestSize(LIMITS, *first.found)

    assert 114 <= second.limits.users <= 120
    assert not second.is_probe(second.limits.users, second.limits.users * 200)
    second.took(second.limits.users, second.limits.users * 200)
    assert second.found == first.found


def test_one_user_that_is_refused_says_nothing_of_size() -> None:
    size = RequestSize(LIMITS)
    size.refused(1, 900_000)

    assert size.limits == LIMITS
