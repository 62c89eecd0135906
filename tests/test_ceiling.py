"""The largest size a target takes is found quickly, whatever it is, and one fat record shrinks nothing."""

from hypothesis import given
from hypothesis import strategies as st

from loader.ceiling import Ceiling


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
