"""How many requests at once: as many as the target works on at the same time, found from how long answers take.

A target that works on 24 requests at once answers the 25th later, and sends nothing more out for it. So the limit rises
while answers stay as quick as the quickest seen, and falls in proportion where they do not. It is compared with the
best, not with the last, or it would creep up with every answer that takes a little longer. Quotas are none of its
business (see rate.py): a 429 says nothing about how many.

Modelled on Vector's adaptive request concurrency and Netflix's gradient limit; what differs: times count per user, as
batches differ in size; the limit rises only when all of it was used; and it asks whether it is to blame: where using
less brings neither quicker answers nor fewer failures, the target has changed, and the limit goes back up. And where
this side works all the time, answers wait for it, and not for the target: then they say nothing against the limit.
"""

import math
from collections.abc import Callable
from statistics import fmean

#: A round is at least so many answers: fewer say nothing about the mean.
_ROUND = 8
#: Answers this much slower than the best are taken for as good; and so many standard errors more, as they vary.
_TOLERANCE, _ERRORS = 0.05, 2.5
#: The part of the limit that is tried beyond what is proven.
_HEADROOM = 0.05
#: Where nothing speaks against it for long, up to so many times that much is tried.
_HURRY = 5
#: Of the way to where a round points, a limit that falls goes so much at once.
_FALL = 0.5
#: One slow answer counts for at most so many good ones.
_CLIP = 4.0
#: A round with more failures than this share is too much for the target; then the limit is multiplied with that.
_FAILING, _BACK_PRESSURE = 0.2, 0.7
#: With so much less of the limit, and still no less of the trouble, it is not the limit's.
_LESS, _NO_LESS = 0.75, 0.7
#: Requests of less than this share of the users that one usually carries are not compared with full ones.
_FULL = 0.5
#: Who works for more than this share of a round is what the answers wait for.
_BUSY = 0.85
#: A best is doubted after so many rounds in which using less brought no quicker answers.
_DOUBTS = 3


class Concurrency:
    """The limit, from `least` to `most`. `start`: what was found before; None: nothing yet.

    Told of each request that goes and each that ends, with `now` in seconds of one monotonic clock. `worked`: seconds
    that this side has worked, and could not look at an answer.
    """

    def __init__(
        self, most: int, start: int | None = None, *, least: int = 1, worked: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._worked = worked
        self._most = most
        self._least = least
        self._limit = float(min(start or 4, most))
        self._is_starting = start is None  # doubles, until answers become slower
        self._best: float | None = None
        self._best_count = 1  # of answers whose mean that is
        self._best_users = 0.0  # that these requests carried
        self._spread = 0.0  # of single answers while they are quick, as a share of their mean
        self._in_flight = 0
        self._usual_users = 0.0
        self._proved = 0.0  # the largest limit of which all was used, with quick answers
        self._streak = 0  # of rounds as quick as the best, of which all was used
        self._doubts = 0
        self._slow: tuple[float, float] | None = None  # the limit and the mean of the last round that was too slow
        self._failing: tuple[float, float] | None = None  # the limit, and the share of failures, when they began
        self._usual_failures = 0.0
        self._was_full = False
        self._begin_round(-math.inf)

    @property
    def limit(self) -> int:
        """How many may be on the wire."""
        return max(int(self._limit), self._least)

    @property
    def is_most(self) -> bool:
        """Is the limit what is allowed at most, and nothing found that is less?"""
        return self.limit >= self._most

    @property
    def is_full(self) -> bool:
        """Is all of the limit on the wire?"""
        return self._in_flight >= self.limit

    @property
    def found(self) -> int | None:
        """The limit, once answers became slower for it; None: it was not yet reached."""
        return None if self._is_starting else self.limit

    @property
    def seconds_per_user(self) -> float | None:
        """The quickest round's mean; None: nothing is known yet."""
        return self._best

    def went(self) -> None:
        """A request goes on the wire."""
        self._in_flight += 1
        self._was_full = self._was_full or self.is_full

    def answered(self, sent_at: float, now: float, users: int) -> None:
        """It was taken. (What is refused is often refused at once: that is no good answer's time.)"""
        self._in_flight -= 1
        self._usual_users = max(users, 0.98 * self._usual_users)
        if sent_at >= self._begun_at and users >= _FULL * self._usual_users:
            sample = (now - sent_at) / max(users, 1)
            self._times.append(sample if self._is_new_size else min(sample, _CLIP * (self._best or sample)))
        self._end_round(now)

    def failed(self, sent_at: float, now: float) -> None:
        """It got no answer, or one that says that the target is overloaded."""
        self._in_flight -= 1
        if sent_at >= self._begun_at:
            self._failures += 1
        self._end_round(now)

    def passed(self) -> None:
        """It ended in another way, such as refused for its rate, which says nothing here."""
        self._in_flight -= 1

    @property
    def _is_new_size(self) -> bool:
        """Are requests so much smaller than those of the best that each user takes longer?"""
        return self._usual_users < _FULL * self._best_users

    def _begin_round(self, now: float) -> None:
        self._begun_at = now
        self._worked_before = self._worked()
        self._was_full = False
        self._times: list[float] = []
        self._failures = 0

    def _end_round(self, now: float) -> None:
        count = len(self._times) + self._failures
        if count < max(self.limit * (1 if self._is_starting else 2), _ROUND):
            return
        failures = self._failures / count
        if not self._times:
            pass  # it is down, and nobody knows for how many it will be up again
        elif failures > max(_FAILING, 1.5 * self._usual_failures):
            self._judge_failures(failures)
        else:
            self._failing = None
            mean = fmean(self._times)
            spread = math.sqrt(fmean([(each - mean) ** 2 for each in self._times]))  # pstdev counts in fractions
            is_ours = self._worked() - self._worked_before > _BUSY * (now - self._begun_at)
            self._judge_times(mean, spread, len(self._times), is_ours=is_ours)
        self._begin_round(now)

    def _judge_failures(self, share: float) -> None:
        if self._failing is not None and self._limit <= _LESS * self._failing[0]:
            if share >= _NO_LESS * self._failing[1]:  # they come whether we use much or little
                self._usual_failures = share
                self._limit, self._failing = self._failing[0], None
                return
            self._failing = None
        self._failing = self._failing or (self._limit, share)
        self._is_starting = False
        self._proved = min(self._proved, self._limit)
        self._limit = max(self._limit * _BACK_PRESSURE, 1.0)

    def _judge_times(self, mean: float, spread: float, count: int, *, is_ours: bool) -> None:
        if self._best is None or self._is_new_size:
            self._best, self._best_count, self._best_users = mean, count, self._usual_users
        error = _ERRORS * self._spread * math.sqrt(1 / count + 1 / self._best_count)
        is_better_known = count >= 2 * self._best_count and mean <= self._best * (1 + error)
        if mean < self._best or is_better_known:
            self._best, self._best_count, self._best_users = mean, count, self._usual_users
        good = self._best * (1 + _TOLERANCE + error)
        share = min(good / mean, 1.0) if mean and not is_ours else 1.0
        if share == 1.0 and mean:
            self._spread += 0.3 * (spread / mean - self._spread)
        spare = max(_HEADROOM * self._limit, 0.5)
        if share == 1.0:
            self._doubts, self._slow = 0, None
            if self._was_full:
                self._proved = max(self._proved, self._limit)
                self._streak += 1
                is_far = self._is_starting or self._limit <= self._proved / 2
                rise = self._limit if is_far else spare * min(1 + self._streak // 3, _HURRY)
                self._limit = min(self._limit + rise, self._most)
            return
        self._is_starting, self._streak = False, 0
        self._proved = min(self._proved, self._limit)
        self._doubt(mean)
        wanted = self._limit * share + spare
        if wanted < self._limit:
            self._limit = max(self._limit - _FALL * (self._limit - wanted), 1.0)

    def _doubt(self, mean: float) -> None:
        """Is it we who make it slow? If using less, again and again, helps nothing, this is how quick it is now."""
        if self._slow is None:
            self._slow = (self._limit, mean)
            return
        limit, before = self._slow
        if self._limit <= 0.85 * limit:
            # Half of what using less should have brought, if the time were all spent in a queue of our own making.
            is_helped = mean <= before * (1 + self._limit / limit) / 2
            self._doubts = 0 if is_helped else self._doubts + 1
            self._slow = (self._limit, mean)
        if self._doubts >= _DOUBTS:
            self._best, self._best_count, self._doubts, self._slow = mean, 1, 0, None
            self._is_starting = True
