"""How long to wait before another attempt, and what a server's `Retry-After` asks for."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

BASE_S = 0.5
CAP_S = 30.0
#: A longer Retry-After is cut to this: a wrong one must not put a load to sleep for a day. Vendors' penalties are 60 s.
MAX_RETRY_AFTER_S = 300.0
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


def backoff_s(failures: int, uniform: Callable[[float, float], float]) -> float:
    """Full jitter: a random time below a bound that doubles with each failure (1 = the first), at most 30 s."""
    return uniform(0.0, min(CAP_S, BASE_S * 2.0 ** min(failures - 1, 16)))


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait as `Retry-After` asks: an integer, a decimal, or an HTTP date. None if absent or unreadable.

    `now` is unix time; the response's own `Date` is preferred to it, as clocks differ.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    elif (until := unix_time(text)) is not None:
        seconds = until - (unix_time(headers.get("date", "")) or now)
    else:
        return None
    return None if seconds < 0 else min(seconds, MAX_RETRY_AFTER_S)


def unix_time(text: str) -> float | None:
    """An HTTP date as unix time, or None if it is none. Without a zone it is in UTC, as all HTTP dates are."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
