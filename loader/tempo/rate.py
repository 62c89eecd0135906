"""How fast to send, where nobody wrote a quota down: found from refusals, and from what answers say of it.

At first there is no limit. A target that refuses for the rate (429) shows what it takes: what it took since the refusal
before, over that time; or, if it took the very next request, the pace of the moment. From a little below, the pace
rises slowly to just under that, stays, and only then tries more; each refusal at the same place makes it stay longer,
so refusals stay rare. Only refusals, and headers that ask for less, are believed; and headers no longer, once the
target takes what they said it would not.

Pauses (`Retry-After`) are the lane's: they say when, not how fast. CUBIC, as in TCP, is the model for the rise.
"""

import math
from collections import deque

from loader.retry import Allowance

#: While nothing is taken at all, each further refusal multiplies the pace with this; so does one that comes so soon.
_CUT, _CUT_SOON, _SOON_S = 0.7, 0.95, 5.0
#: After a refusal the pace begins at this share of the limit found, and stays at that one, which is safely below it.
_BEGIN, _STAY = 0.93, 0.98
#: So long it takes to rise, at first and at most; as long again it stays.
_RISE_S, _MAX_RISE_S = 3.0, 60.0
#: A limit that is only guessed is tried at once, by so much more of it each second.
_TRY_PER_S = 0.05
#: Found within this of the limit found before: it is the same.
_SAME = 0.10
#: Refused for longer than this: a window of a minute or so is used up, and only the mean over all of it counts.
_LONG_S = 5.0
#: What went in the last moments before a refusal was one too many: in a second, or the time of so many requests.
_MOMENT_S, _MOMENT = 1.0, 20
#: Refused so often below a pace that is safe, and no more than this share of the answers: it is not for the rate, until
#: that share of the last answers are refusals; so it is at first, until this share are.
_ODD, _FEW, _MANY, _FIRST = 4, 0.03, 0.06, 0.015
_SAFE = 0.985
#: Of about so many answers, the share of refusals is known.
_ANSWERS = 100
#: No slower than this, or nobody would find out that it got better.
_SLOWEST_PER_S = 0.2
#: Taken so often against what the headers said, they are not believed any more.
_LIES = 3


class Rate:
    """The pace, in requests a second. `start`: the limit that was found before; None: nothing yet.

    Told of each request that goes, and of each answer with the moment its request went. Times are seconds of one
    monotonic clock.
    """

    def __init__(self, start: float | None = None) -> None:
        self._limit = start
        self._base = start and _BEGIN * start  # the pace at `_base_at`, from which it rises
        self._base_at: float | None = None  # None: it doesn't
        self._rise_s = _RISE_S
        self._is_sure = start is not None
        self._jam_at: float | None = None  # since when everything is refused
        self._jam_pace: float | None = None  # at which that began; None: there was no limit
        self._cut_at = -math.inf
        self._cycle_at: float | None = None  # since when is counted what was taken
        self._taken = 0
        self._odd = 0  # refusals in a row at a pace that is safe
        self._odd_of = 0  # answers since the first of them
        self._is_odd = start is None  # the refusals are not for the rate
        self._many = _FIRST
        self._share = 0.0  # of refusals, in the last answers
        self._lately: deque[float] = deque()  # when it took something, in the last moments
        self._next = -math.inf
        self._offer: tuple[float, float] | None = None  # a pace that headers gave, and until when
        self._closed_until = -math.inf  # nothing is left until then, the headers say
        self._lies = 0

    @property
    def limit(self) -> float | None:
        """The most that the target was found to take, in requests a second; None: nothing was refused yet."""
        return self._limit

    @property
    def is_sure(self) -> bool:
        """Is that limit more than a first guess?"""
        return self._is_sure

    @property
    def is_guess(self) -> bool:
        """Is there a limit of which little more is known than that?"""
        return self._jam_at is not None if self._limit is None else not self._is_sure

    def pace(self, now: float) -> float | None:
        """How fast to send at this moment; None: there is no limit."""
        if self._base is None and self._offer is None:
            return None
        paces = [self._risen(now)]
        if self._offer is not None and now < self._offer[1]:
            paces.append(self._offer[0])
        return min((max(pace, _SLOWEST_PER_S) for pace in paces if pace is not None), default=None)

    def wait_s(self, now: float) -> float:
        """Seconds until the next request may go; not positive: it may go now."""
        return max(self._next, self._closed_until) - now

    def went(self, now: float) -> None:
        """A request goes."""
        if self._cycle_at is None:
            self._cycle_at = now
        pace = self.pace(now)
        if pace is None:
            return
        if self._base_at is None and self._jam_at is None:
            self._base_at = now
        elif self._base_at is not None and now > self._next:
            self._base_at += now - max(self._next, self._base_at)  # a pace that is not used proves nothing
        self._next = max(self._next, now) + 1 / pace

    def took(self, sent_at: float, now: float) -> None:
        """A request was not refused for the rate."""
        self._taken += 1
        self._odd_of += 1
        self._share -= self._share / _ANSWERS
        self._lately.append(now)
        while len(self._lately) > _MOMENT and self._lately[0] <= now - _MOMENT_S:
            self._lately.popleft()
        if self._jam_at is not None and sent_at > self._cut_at:
            self._settle(self._jam_at, now)

    def refused(self, sent_at: float, now: float) -> None:
        """A request was refused for the rate. Those that went before the last cut tell nothing new."""
        self._share += (1 - self._share) / _ANSWERS
        if sent_at <= self._cut_at or (self._is_odd and self._share < self._many):
            return
        self._is_odd = False
        pace = self._risen(now)
        if self._jam_at is None:
            self._jam_at, self._jam_pace = now, None if pace is None else min(pace, self._of_late(now))
            if pace is not None and self._limit is not None and pace <= _SAFE * self._limit:
                self._odd += 1
                self._odd_of = self._odd_of if self._odd > 1 else 1
            else:
                self._odd = max(self._odd - 1, 0)
        self._base = max(_CUT * (pace if pace is not None else self._measured(now)), _SLOWEST_PER_S)
        self._base_at = None
        self._cut_at = now
        self._next = now + 1 / self._base

    def told(self, allowance: Allowance, now: float, *, was_taken: bool) -> None:
        """What an answer's headers say of the quota."""
        if self._lies >= _LIES:
            return
        left, reset_s = allowance.remaining, allowance.reset_s
        if left is not None and reset_s is not None and left < 1:
            if was_taken and now < self._closed_until:
                self._lies += 1  # the last one had been taken already
                if self._lies >= _LIES:
                    self._closed_until, self._offer = -math.inf, None
                    return
            self._closed_until = max(self._closed_until, now + reset_s)
        elif left is not None and reset_s:
            self._offer = (left / reset_s, now + reset_s)
        elif allowance.per_s is not None:
            self._offer = (allowance.per_s, math.inf)

    def _risen(self, now: float) -> float | None:
        """From the base to just under the limit, as long again there, and then beyond it, ever faster."""
        if self._base is None or self._limit is None or self._base_at is None:
            return self._base
        gone_s = now - self._base_at
        if not self._is_sure:
            return self._base * (1 + _TRY_PER_S * gone_s)
        gone = gone_s / self._rise_s
        if gone <= 1:
            return self._base + (_STAY * self._limit - self._base) * gone
        return _STAY * self._limit * (1 + 0.05 * max(gone - 2, 0.0) ** 3)

    def _measured(self, now: float) -> float:
        """What was taken, a second, since counting began."""
        since = now if self._cycle_at is None else self._cycle_at
        return self._taken / max(now - since, 0.1)

    def _of_late(self, now: float) -> float:
        """What was taken, a second, in the last moments."""
        begin = self._lately[0] if self._lately else now
        since = max(min(now - _MOMENT_S, begin), self._cycle_at if self._cycle_at is not None else now)
        count = sum(at > since for at in self._lately)
        return max(count, 1) / max(now - since, 0.1)

    def _settle(self, jam_at: float, now: float) -> None:
        """Something is taken again, so a limit is found."""
        jam_s, cycle_s, measured = now - jam_at, now - (self._cycle_at or now), self._measured(now)
        self._jam_at = None
        self._cycle_at, self._taken = now, 0
        if self._odd >= _ODD and self._odd <= _FEW * self._odd_of:
            self._is_odd, self._odd, self._many = True, 0, _MANY
            self._limit = self._base = self._base_at = None
            self._next = now
            return
        is_guess = jam_s > _LONG_S or self._jam_pace is None
        if is_guess or self._jam_pace is None:
            found = measured
        else:
            found = self._jam_pace * (_CUT_SOON if cycle_s < _SOON_S else 1.0)
            if self._share < _FEW and self._limit is not None:  # so few refusals cost less than a pace that is too low
                found = max(found, _STAY * self._limit)
        found = max(found, _SLOWEST_PER_S)
        is_same = self._limit is not None and abs(found - self._limit) <= _SAME * self._limit
        self._rise_s = max(min(2 * self._rise_s if is_same else _RISE_S, _MAX_RISE_S), min(jam_s, _MAX_RISE_S))
        self._is_sure = is_same or not is_guess
        self._limit, self._base, self._base_at = found, _BEGIN * found, now
        self._next = now + 1 / self._base
