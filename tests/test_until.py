"""A time as a person writes it."""

from datetime import datetime

import pytest

from loader.until import moment

NOW = datetime(2026, 1, 31, 22, 15, 30).astimezone()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("23:00", datetime(2026, 1, 31, 23, 0)),
        ("22:15:31", datetime(2026, 1, 31, 22, 15, 31)),
        ("22:15", datetime(2026, 2, 1, 22, 15)),  # this minute has begun
        ("06:00", datetime(2026, 2, 1, 6, 0)),
        ("2026-02-03T06:00", datetime(2026, 2, 3, 6, 0)),
        ("2026-02-03 06:00:01", datetime(2026, 2, 3, 6, 0, 1)),
    ],
)
def test_a_time_is_the_next_and_a_date_is_itself(text: str, found: datetime) -> None:
    """In the machine's own zone."""
    assert moment(text, NOW) == found.astimezone()


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
