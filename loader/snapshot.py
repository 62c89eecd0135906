"""A load at one moment, as an immutable value: what every screen, page, metric and report of it is made from."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from loader.outcome import GOOD, Code
from loader.plain import plain

#: Why a load is not faster: what the next request waits for, or that nothing is there to be sent.
Brake = Literal["reader", "halving", "target", "limit", "pause", "token", "quota", "rate"]

#: The same, for people.
BRAKES: Mapping[Brake, str] = {
    "reader": "the export is read no faster",
    "halving": "what is refused is halved, to find the users it is about",
    "target": "the target works no faster",
    "limit": "limits.concurrency allows no more at once",
    "pause": "the target is waited for",
    "token": "tokens are waited for",
    "quota": "the quota allows no more",
    "rate": "the target refuses to take more",
}

#: Instead of the last, where this run was not refused: then the target's headers say so, or a run before found it.
_TOLD = "the target takes no more, by its headers or the run before"

#: Instead of the time left, while that is so.
FINDING = "finding the pace"

#: What is further away is told with its day.
_DAY_S = 86_400 / 2

#: Upper bounds of the classes in which the times of answers are counted, in seconds; one more is for all above.
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Found(msgspec.Struct, frozen=True):
    """What is known of the target, where the next run begins. None: nothing yet, or no less than the limits allow.

    `requests_per_s`: what it takes before it refuses for the rate; `concurrency`: how many requests it works on at
    once; `users`, `body_bytes`: the largest request; `seconds_per_user`: the quickest answers' time. `brake`: why it
    was not faster of late. `is_guess`: the target refuses for the rate, and `requests_per_s` is not known, or only the
    first guess: what comes of it may be many times as fast, or as slow.
    """

    requests_per_s: float | None = None
    concurrency: int | None = None
    users: int | None = None
    body_bytes: int | None = None
    seconds_per_user: float | None = None
    brake: Brake | None = None
    is_guess: bool = False

    def words(self) -> Iterator[str]:
        """What was found, for people: each in a few words."""
        if self.concurrency is not None:
            yield f"{self.concurrency} requests at once"
        if self.requests_per_s is not None and not self.is_guess:
            yield f"up to {self.requests_per_s:,.3g} requests/s"
        if self.users is not None:
            yield f"up to {self.users:,} users a request"


class Failure(msgspec.Struct, frozen=True):
    """A row that failed."""

    row: int
    user: str
    code: Code
    message: str

    def words(self) -> str:
        """Why, without whose it was: harmless on a terminal, whatever the API said."""
        return f"{self.code}: {plain(self.message)}" if self.message else str(self.code)


class Wire(msgspec.Struct, frozen=True):
    """The talk with the target, over this run. Token calls are not counted.

    `requests`: sent; `refused`: answered with 429; `broken`: without a usable answer, or one of 5xx; `on_wire`: sent
    and not answered; `times`: answers by class of BOUNDS_S, and `seconds`, their sum. `p50_s`, `p95_s`: of the answers
    since the snapshot before; None: there were none. `halved`: batches, or halves of them, that were refused as a whole
    (400, 422, 413 and the like) and go on in halves.
    """

    requests: int = 0
    refused: int = 0
    broken: int = 0
    on_wire: int = 0
    times: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    seconds: float = 0.0
    p50_s: float | None = None
    p95_s: float | None = None
    halved: int = 0


class Trouble(msgspec.Struct, frozen=True):
    """Why nothing goes on: the target asked for a pause, or is down. `reason`: its last words of that, or the error.

    `since`: of no usable answer, in Unix time; `gives_up_at`: then the run stops (None: never). `left_s`: of the pause.
    """

    kind: Literal["pause", "down"]
    reason: str
    since: float
    gives_up_at: float | None = None
    left_s: float | None = None

    def words(self) -> str:
        """For people, in one line, whatever the target said."""
        reason = plain(self.reason)
        if self.left_s is not None:
            status = re.match(r"HTTP ([0-9]+)", reason)
            return f"the target asked for a pause{f' ({status[1]})' if status else ''}, {self.left_s:.0f} s more"
        end = ""
        if self.gives_up_at is not None:
            form = "%H:%M" if self.gives_up_at - self.since < _DAY_S else "%a %H:%M"
            end = f"; gives up at {datetime.fromtimestamp(self.gives_up_at, UTC).astimezone():{form}}"
        return f"the target is down{end}; the last error: {reason}"


class Snapshot(msgspec.Struct, frozen=True):
    """A load at one moment, `at` in Unix time.

    `rows` by `counts`: settled, over all runs of the load. `share`: of the export's bytes that are settled, 0 to 1.
    `rows_per_s`: over this run; `now_per_s`: over its last seconds. `left_s`: None if it isn't known. `at_once`: so
    many requests may be on the wire now. `held_s`: the target is waited for, so long. `failures`: the last of this run.
    `stopping`: why this run ends; "": it goes on, or ended well. `before`: rows that earlier runs had settled.
    `is_last`: this run has ended by itself; one without such a snapshot was killed.

    `sent`: users that this run has sent, `sent_per_s` over its last seconds: other rows are settled without.
    `accepted`: outcomes that count as well. `again`: a retry sends so many rows again; those `kept`, by code, stay.
    `trouble`: why nothing goes on; None: it does.
    """

    at: float
    rows: int
    counts: Mapping[Code, int]
    share: float | None
    rows_per_s: float
    now_per_s: float
    elapsed_s: float
    left_s: float | None
    wire: Wire = Wire()
    at_once: int = 1
    held_s: float = 0.0
    failures: tuple[Failure, ...] = ()
    stopping: str = ""
    found: Found = Found()
    before: int = 0
    is_last: bool = False
    sent: int = 0
    sent_per_s: float = 0.0
    accepted: tuple[Code, ...] = ()
    again: int = 0
    kept: Mapping[Code, int] = {}
    trouble: Trouble | None = None

    @property
    def good(self) -> frozenset[Code]:
        """The outcomes that make no row fail."""
        return GOOD.union(self.accepted)

    @property
    def failed(self) -> int:
        """Rows whose outcome is none of the good ones."""
        return sum(count for code, count in self.counts.items() if code not in self.good)

    @property
    def why(self) -> str:
        """Why it is not faster, or that nothing goes on, for people; "": nobody knows."""
        if self.trouble is not None:
            return self.trouble.words()
        if self.found.brake == "rate" and not self.wire.refused:
            return _TOLD
        return BRAKES[self.found.brake] if self.found.brake is not None else ""

    @property
    def shown(self) -> "Snapshot":
        """What a person looks at: of a retry, the rows that it sends again alone."""
        if not self.again:
            return self
        counts = {code: count - self.kept.get(code, 0) for code, count in self.counts.items()}
        kept = sum(self.kept.values())
        return msgspec.structs.replace(
            self, counts=counts, rows=self.rows - kept, before=max(self.before - kept, 0), kept={}
        )


class Note(msgspec.Struct, frozen=True):
    """What a checkpoint keeps of a run beside the outcomes: where the next one begins, and how it went.

    `is_moment`: it is to be kept for good, for the course of the load.
    """

    snapshot: Snapshot
    is_moment: bool = False


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
