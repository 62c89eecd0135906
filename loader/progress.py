"""How far a load is: counters, a snapshot for the screen, and the rules for stopping early."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from loader.outcome import GOOD, Code, Outcome

#: If none of the first users sent succeeds, the mapping is wrong, not the users.
_HOPELESS = 1_000
#: A share is taken of at least so many rows: of the first few it would say nothing.
_SHARE_FROM = 100


class Tally:
    """Rows by code, over all runs of a load."""

    def __init__(self, counts: Mapping[Code, int] | None = None) -> None:
        self.counts: Counter[Code] = Counter(counts or {})
        self.last_failure = "none of this run"
        self._is_judged = self._sent >= _HOPELESS  # whoever runs it again after that has decided to go on

    def add(self, outcomes: Sequence[Outcome], superseded: int = 0) -> None:
        """Count outcomes that became durable."""
        same = outcomes.count(outcomes[0]) if outcomes else 0  # quicker than to hash each
        for outcome, count in [(outcomes[0], same)] if same == len(outcomes) > 0 else Counter(outcomes).items():
            self.counts[outcome.code] += count
            if outcome.code not in GOOD:
                self.last_failure = f"{outcome.code}: {outcome.message}" if outcome.message else str(outcome.code)
        if superseded:
            self.counts[Code.SUPERSEDED] += superseded

    @property
    def _sent(self) -> int:
        unsent = (Code.REJECTED, Code.SKIPPED, Code.SUPERSEDED, Code.UNCHANGED)
        return self.rows - sum(self.counts[code] for code in unsent)

    @property
    def rows(self) -> int:
        """Rows that have an outcome."""
        return self.counts.total()

    @property
    def failures(self) -> int:
        """Rows whose outcome makes the exit status 1."""
        return sum(count for code, count in self.counts.items() if code not in GOOD)

    @property
    def is_proven(self) -> bool:
        """Has the target taken any user yet?"""
        return self.counts[Code.SUCCESS] > 0

    @property
    def exit_status(self) -> int:
        """The exit status of a load that is finished with these outcomes."""
        return 1 if self.failures else 0

    def reason_to_stop(self, max_failures: str | int) -> str | None:
        """Why not to go on, or None. `max_failures`: a number of rows, or a share such as "5%"."""
        if not (failures := self.failures):
            return None
        sent = self._sent
        if sent >= _HOPELESS and not self._is_judged and not self.counts[Code.SUCCESS] + self.counts[Code.PARTIAL]:
            return (
                f"not one of the first {sent:,} users sent was accepted; the last: {self.last_failure}. If the mapping "
                "is wrong, mend it and start over with --fresh --yes; if these users do fail, run it again to go on"
            )
        if isinstance(max_failures, int):
            passed = failures > max_failures
        else:
            share = float(max_failures.rstrip("%")) / 100
            passed = failures > share * max(self.rows, _SHARE_FROM)
        if passed:
            return (
                f"{failures:,} of {self.rows:,} rows failed, more than limits.max_failures = {max_failures}; "
                f"the last: {self.last_failure}. To go on all the same, raise that limit"
            )
        return None


#: Why a load is not faster: what the next request waits for, or that nothing is there to be sent.
Brake = Literal["reader", "target", "pause", "token", "quota", "rate"]

#: The same, for people.
BRAKES: Mapping[Brake, str] = {
    "reader": "the export is read no faster",
    "target": "the target works no faster",
    "pause": "the target is waited for",
    "token": "tokens are waited for",
    "quota": "the quota allows no more",
    "rate": "the target refuses to take more",
}

#: Of so many moments, a quarter of a second apart, the most frequent reason counts.
_MOMENTS = 40


class Found(NamedTuple):
    """What a run found of the target, where the next one begins. None: nothing yet, or no less than the limits allow.

    `requests_per_s`: what it takes before it refuses for the rate; `concurrency`: how many requests it works on at
    once; `users`, `body_bytes`: the largest request; `seconds_per_user`: the quickest answers' time. `brake`: why it
    was not faster of late.
    """

    requests_per_s: float | None = None
    concurrency: int | None = None
    users: int | None = None
    body_bytes: int | None = None
    seconds_per_user: float | None = None
    brake: Brake | None = None

    def words(self) -> Iterator[str]:
        """For people: each in a few words."""
        if self.brake is not None:
            yield BRAKES[self.brake]
        if self.concurrency is not None:
            yield f"{self.concurrency} requests at once"
        if self.requests_per_s is not None:
            yield f"up to {self.requests_per_s:,.3g} requests/s"
        if self.users is not None:
            yield f"up to {self.users:,} users a request"


class Snapshot(NamedTuple):
    """A load at one moment. `share`: of the export's bytes that are read, 0 to 1; `left_s`: None if it isn't known."""

    rows: int
    counts: Mapping[Code, int]
    share: float | None
    rows_per_s: float
    elapsed_s: float
    left_s: float | None
    found: Found = Found()


class Meter:
    """How fast this run is, and how much of it is left. `position`: bytes of the export, of `size`, read by now.

    `found`: what is known of the target, with the brake of this moment.
    """

    def __init__(
        self,
        tally: Tally,
        size: int,
        position: Callable[[], int],
        now: Callable[[], float],
        found: Callable[[], Found] = Found,
    ) -> None:
        self._tally = tally
        self._look = found
        self._brakes: deque[Brake | None] = deque(maxlen=_MOMENTS)
        self._size = size
        self._position = position
        self._now = now
        self._start = now()
        self._first_rows = tally.rows
        self._first_position: int | None = None

    def sample(self) -> None:
        """Take note of what the load waits for at this moment."""
        self._brakes.append(self._look().brake)

    def found(self) -> Found:
        """What is known of the target, with what the load waited for most of late."""
        ((brake, _),) = Counter(self._brakes).most_common(1) or [(None, 0)]
        return self._look()._replace(brake=brake)

    def snapshot(self) -> Snapshot:
        """The load at this moment."""
        elapsed = max(self._now() - self._start, 1e-9)
        position = self._position()
        if self._first_position is None:
            self._first_position = position
        done = position - self._first_position
        return Snapshot(
            self._tally.rows,
            dict(self._tally.counts),
            position / self._size if self._size else None,
            (self._tally.rows - self._first_rows) / elapsed,
            elapsed,
            (self._size - position) * elapsed / done if done > 0 and elapsed > 2 and self._size else None,
            self.found(),
        )


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
