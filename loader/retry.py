"""How long to wait before another attempt, and what a server's `Retry-After` asks for."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

BASE_S = 0.5
CAP_S = 30.0
#: A longer Retry-After is cut to this: a wrong one must not put a load to sleep for a day. Vendors' penalties are 60 s.
MAX_RETRY_AFTER_S = 300.0
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")

#: Above this a number of seconds is a time, above that one of milliseconds (see tokens.py).
_ABSOLUTE, _MILLISECONDS = 1e9, 1e11
_LEFT = re.compile(r"\b(?:r|remaining)=([0-9]{1,15})")
_RESET = re.compile(r"\b(?:t|reset)=([0-9]{1,15})")
_POLICY = re.compile(r"(?:q=)?\b([0-9]{1,15}) *;[^,]*?\bw=([0-9]{1,15})")


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


class Allowance(NamedTuple):
    """What an answer's headers say of the quota: requests left until `reset_s` from now, and requests a second."""

    remaining: float | None = None
    reset_s: float | None = None
    per_s: float | None = None


def allowance(headers: Mapping[str, str], now: float) -> Allowance | None:
    """What `RateLimit`, `RateLimit-Policy`, `RateLimit-*` and `X-RateLimit-*` say; None: nothing that can be used.

    The drafts of the IETF (draft-ietf-httpapi-ratelimit-headers) changed their form: `limit=9, remaining=5, reset=30`,
    then fields of their own, now `"default";r=50;t=30` and `"default";q=100;w=60`. `X-RateLimit-Reset` is seconds from
    now, or a time in seconds or milliseconds. Of several the tightest counts. `now` is unix time.
    """
    names = "\n".join(headers)
    if "ratelimit" not in names and "rate-limit" not in names:
        return None
    found = {name.replace("rate-limit", "ratelimit").removeprefix("x-"): text for name, text in headers.items()}
    current = found.get("ratelimit", "")
    remaining = _least(_LEFT.findall(current)) if current else _number(found.get("ratelimit-remaining", ""))
    reset = _least(_RESET.findall(current)) if current else _number(found.get("ratelimit-reset", ""))
    if reset is not None and reset > _ABSOLUTE:
        served = unix_time(headers.get("date", "")) or now
        reset = (reset / 1000 if reset > _MILLISECONDS else reset) - served
    policies = _POLICY.findall(found.get("ratelimit-policy", "") or found.get("ratelimit-limit", ""))
    rates = [float(q) / float(w) for q, w in policies if float(w) > 0 and float(q) > 0]
    is_known = remaining is not None and reset is not None and reset >= 0
    if not is_known and not rates:
        return None
    return Allowance(
        remaining if is_known else None,
        min(reset, MAX_RETRY_AFTER_S) if is_known and reset is not None else None,
        min(rates, default=None),
    )


def _least(texts: Sequence[str]) -> float | None:
    return min(map(float, texts), default=None)


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def unix_time(text: str) -> float | None:
    """An HTTP date as unix time, or None if it is none. Without a zone it is in UTC, as all HTTP dates are."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
