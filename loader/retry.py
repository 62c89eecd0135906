"""How long to wait before another attempt, and what a server's `Retry-After` asks for."""

import math
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

BASE_S = 0.5
CAP_S = 30.0
#: A longer Retry-After is cut to this: a wrong one must not put a load to sleep for a day. Vendors' penalties are 60 s.
MAX_RETRY_AFTER_S = 300.0


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
    try:
        seconds = float(text)
    except ValueError:
        until = _unix_time(text)
        if until is None:
            return None
        seconds = until - (_unix_time(headers.get("date", "")) or now)
    if math.isnan(seconds) or seconds < 0:
        return None
    return min(seconds, MAX_RETRY_AFTER_S)


def _unix_time(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
