"""A time as a person writes it."""

from datetime import datetime

import pytest

from loader.until import moment

NOW = datetime.fromisoformat("2026-01-31T22:15:30").astimezone()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("23:00", "2026-01-31T23:00:00"),
        ("22:15:31", "2026-01-31T22:15:31"),
        ("22:15", "2026-02-01T22:15:00"),  # this minute has begun
        ("06:00", "2026-02-01T06:00:00"),
        ("2026-02-03T06:00", "2026-02-03T06:00:00"),
        ("2026-02-03 06:00:01", "2026-02-03T06:00:01"),
    ],
)
def test_a_time_is_the_next_and_a_date_is_itself(text: str, found: str) -> None:
    """In the machine's own zone."""
    assert moment(text, NOW) == datetime.fromisoformat(found).astimezone()


def test_a_zone_counts() -> None:
    """An ISO moment may name one."""
    assert moment("2026-02-03T06:00:00+05:30", NOW) == datetime.fromisoformat("2026-02-03T00:30:00+00:00")


@pytest.mark.parametrize("text", ["6", "0600", "24:00", "06:60", "tomorrow", "", "2026-02-03", "06:00 pm"])
def test_anything_else_is_named(text: str) -> None:
    """With what would be right."""
    with pytest.raises(ValueError, match=r"neither a time such as 06:00 nor a date and time such as 2026-01-31T06:00"):
        moment(text, NOW)


def test_a_moment_that_has_passed_is_refused() -> None:
    """It is a typing error, and would stop the run at once."""
    with pytest.raises(ValueError, match="has passed"):
        moment("2026-01-31T22:15", NOW)
