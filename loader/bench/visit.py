"""One visit of a bench: so many batches on their way at once, for a while, and the figures that come of it."""

from collections.abc import Sequence
from statistics import linear_regression, median
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from loader.outcome import GOOD, Outcome

#: What kept a visit from being faster, if not the target's speed: a quota declared, or its refusals for the rate.
Held = Literal["quota", "rate"]


class Visit(BaseModel):
    """The figures of one visit.

    `users_per_s`: settled; `requests_per_s`: sent, whatever became of them; `request_s`: what a batch without trouble
    spent on the wire, where it was alone; `sent`: users, of whom so many `failed`; `refused`: requests answered with
    429; `cpu`: what this process used of a core.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    users_per_s: float
    requests_per_s: float
    request_s: float | None
    p50_s: float | None
    p95_s: float | None
    sent: int
    failed: int
    refused: int
    cpu: float
    held_by: Held | None = None


class Sent(NamedTuple):
    """A request that was sent: seconds on the wire, status of the answer (0: there was none), users it carried."""

    seconds: float
    status: int
    users: int


class Watched:
    """What happens on one visit. Times in seconds.

    `places`: so many batches are on their way at once, when all have begun, at `begins`. From the first that is settled
    then it is counted for `least_s`, and for as many as there are places; but not past `latest`, if there is any.
    """

    def __init__(self, places: int, now: float, begins: float, least_s: float, latest: float) -> None:
        self.places = places
        self.sent: list[Sent] = []
        self.batches: list[float] = []  # what those without trouble spent on the wire, where one goes at a time
        self.users = self.failed = 0
        self._began = now
        self._begins = begins
        self._least_s = least_s
        self._latest = latest
        self._settled: list[float] = []  # when each batch was
        self._counted: list[float] = []
        self._in_hand_s = 0.0  # of all batches, from their beginning to their end
        self.is_whole = False

    def note(self, began: float, now: float, outcomes: Sequence[Outcome], sent: Sequence[Sent]) -> None:
        """A batch is settled; `sent`: all requests since it began."""
        self._settled.append(now)
        self._in_hand_s += now - began
        if now >= self._begins and not self.is_whole:
            self._counted.append(now)
        self.users += len(outcomes)
        self.failed += sum(outcome.code not in GOOD for outcome in outcomes)
        if self.places == 1 and all(each.status // 100 == 2 or each.status == 429 for each in sent):
            self.batches.append(sum(each.seconds for each in sent if each.status != 429))

    def is_over(self, now: float) -> bool:
        """May a place stop now?"""
        if self._counted and not self.is_whole:
            is_done = len(self._counted) > self.places and now >= self._counted[0] + self._least_s
            self.is_whole = is_done or now >= self._latest
        return self.is_whole

    @property
    def refused(self) -> int:
        """Requests answered with 429."""
        return sum(each.status == 429 for each in self.sent)

    @property
    def waits(self) -> float:
        """The share of its time that a batch is not on the wire."""
        return 1 - sum(each.seconds for each in self.sent) / max(self._in_hand_s, 1e-9)

    @property
    def _lasted_s(self) -> float:
        return max(self._settled[-1] - self._began, 1e-9)

    @property
    def _batches_per_s(self) -> float:
        """Throughput while every place was at work: not from the beginning, when some have not begun, nor to the end,
        when fewer and fewer are left.

        The slope of a line through all that was counted. The first and the last alone would say more than is true where
        answers come in waves, and less where they don't.
        """
        if len(self._counted) > 1 and self._counted[-1] > self._counted[0]:
            return linear_regression(self._counted, range(len(self._counted))).slope
        return len(self._settled) / self._lasted_s

    def visit(self, users: int, cpu_s: float) -> Visit | None:
        """Its figures. None: it was broken off."""
        if not self.is_whole:
            return None
        batches_per_s = self._batches_per_s
        times = sorted(each.seconds for each in self.sent if each.users and each.status // 100 == 2)
        return Visit(
            users_per_s=users * batches_per_s,
            requests_per_s=batches_per_s * len(self.sent) / len(self._settled),
            request_s=median(self.batches) if self.batches else None,
            p50_s=_quantile(times, 0.5),
            p95_s=_quantile(times, 0.95),
            sent=self.users,
            failed=self.failed,
            refused=self.refused,
            cpu=cpu_s / self._lasted_s,
        )


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None
