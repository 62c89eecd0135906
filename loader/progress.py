"""How far a load is: rows by code, the failures seen last, and the rules for stopping early."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import islice

from loader.errors import Stopped
from loader.outcome import GOOD, Code, Outcome
from loader.snapshot import Failure

#: If none of the first users sent succeeds, the mapping is wrong, not the users.
_HOPELESS = 1_000
#: A share is taken of at least so many rows: of the first few it would say nothing.
_SHARE_FROM = 100

#: So many of the failures seen last are kept, and of one batch at most so many.
_FAILURES, _OF_A_BATCH = 10, 3


class Tally:
    """Rows by code, over all runs of a load. `good`: the outcomes that make it no failure."""

    def __init__(self, counts: Mapping[Code, int] | None = None, good: frozenset[Code] = GOOD) -> None:
        self.good = good
        self.counts: Counter[Code] = Counter(counts or {})
        self.failed: deque[Failure] = deque(maxlen=_FAILURES)  # of this run, the latest last
        self._is_judged = self.sent >= _HOPELESS  # whoever runs it again after that has decided to go on

    def add(self, outcomes: Sequence[Outcome], rows: Sequence[int], users: Sequence[str], superseded: int = 0) -> None:
        """Count outcomes that became durable, of these rows and users."""
        same = outcomes.count(outcomes[0]) if outcomes else 0  # quicker than to hash each
        is_bad = False
        for outcome, count in [(outcomes[0], same)] if same == len(outcomes) > 0 else Counter(outcomes).items():
            self.counts[outcome.code] += count
            is_bad = is_bad or outcome.code not in self.good
        if is_bad:
            self._remember(outcomes, rows, users)
        if superseded:
            self.counts[Code.SUPERSEDED] += superseded

    def _remember(self, outcomes: Sequence[Outcome], rows: Sequence[int], users: Sequence[str]) -> None:
        bad = (at for at in reversed(range(len(outcomes))) if outcomes[at].code not in self.good)
        for at in reversed(list(islice(bad, _OF_A_BATCH))):
            self.failed.append(Failure(rows[at], users[at], outcomes[at].code, outcomes[at].message))

    @property
    def last_failure(self) -> str:
        """In words."""
        return self.failed[-1].words() if self.failed else "none of this run"

    @property
    def sent(self) -> int:
        """Rows that went to the target themselves."""
        unsent = (Code.REJECTED, Code.SKIPPED, Code.SUPERSEDED, Code.UNCHANGED)
        return self.rows - sum(self.counts[code] for code in unsent)

    @property
    def rows(self) -> int:
        """Rows that have an outcome."""
        return self.counts.total()

    @property
    def failures(self) -> int:
        """Rows whose outcome makes the exit status 1."""
        return sum(count for code, count in self.counts.items() if code not in self.good)

    @property
    def is_proven(self) -> bool:
        """Has the target taken any user yet?"""
        return self.counts[Code.SUCCESS] > 0

    @property
    def _is_hopeful(self) -> bool:
        """Does any row say that the mapping is not all wrong? Where failures are accepted, one of a night before."""
        proofs = {Code.SUCCESS, Code.PARTIAL} | ({Code.UNCHANGED} if self.good != GOOD else set())
        return any(self.counts[code] for code in proofs)

    @property
    def exit_status(self) -> int:
        """The exit status of a load that is finished with these outcomes."""
        return 1 if self.failures else 0

    def reason_to_stop(self, max_failures: str | int) -> Stopped | None:
        """Why not to go on, or None. `max_failures`: a number of rows, or a share such as "5%".

        The command to go on with after that many failures allows twice as many.

        What is accepted counts here, too: how much of it may be, is a limit as good as any.
        """
        if not (failures := sum(count for code, count in self.counts.items() if code not in GOOD)):
            return None
        sent = self.sent
        if sent >= _HOPELESS and not self._is_judged and not self._is_hopeful:
            return Stopped(
                f"not one of the first {sent:,} users sent was accepted; the last: {self.last_failure}. If the mapping "
                "is wrong, mend it and start over with --fresh --yes; if these users do fail, run it again to go on"
            )
        if isinstance(max_failures, int):
            passed, more = failures > max_failures, str(2 * failures)
        else:
            share = float(max_failures.rstrip("%")) / 100
            of = max(self.rows, _SHARE_FROM)
            passed, more = failures > share * of, f"{min(-(-200 * failures // of), 100)}%"
        if passed:
            return Stopped(
                f"{failures:,} of {self.rows:,} rows failed, more than limits.max_failures = {max_failures}; "
                f"the last: {self.last_failure}. To go on all the same, raise that limit",
                *("--set", f"limits.max_failures={more}"),
            )
        return None
