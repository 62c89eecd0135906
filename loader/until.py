"""When to stop: a time as a person writes it, as a moment."""

from datetime import datetime, time, timedelta


def moment(text: str, now: datetime) -> datetime:
    """`06:00` is the next time that the clock shows it; an ISO date and time is itself, local unless it has a zone.

    `now` has a zone. Raises ValueError, with what is wrong, for anything else and for a moment that has passed.
    """
    for parse in (_next, _exactly):
        try:
            found = parse(text, now)
        except ValueError:
            continue
        if found <= now:
            raise ValueError(f"{text} has passed")
        return found
    raise ValueError(f"{text!r} is neither a time such as 06:00 nor a date and time such as 2026-01-31T06:00")


def _next(text: str, now: datetime) -> datetime:
    if ":" not in text:  # fromisoformat takes 06 and 0600 as well, which may be anything
        raise ValueError
    today = datetime.combine(now.date(), time.fromisoformat(text))
    found = today.astimezone()
    return found if found > now else (today + timedelta(days=1)).astimezone()


def _exactly(text: str, _now: datetime) -> datetime:
    if ":" not in text:
        raise ValueError
    return datetime.fromisoformat(text).astimezone()
