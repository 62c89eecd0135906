"""How fast a target takes users: request size and concurrency are tried, through the same layers as in a load.

    first users of the export ──► one alone ──► sizes, one request at a time ──► one size, more and more at once
                              ──► what seems best, and what comes close to it with less, in turn ──► report

Users are sent again and again, none twice at a time, and no checkpoint is written. What is measured is a *step*, so
many users a request and so many requests at once; each that matters is visited several times, so that it is known how
much two visits differ.
"""

import os
import platform
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Any, NamedTuple

import anyio
from anyio import to_thread

from loader import findings, optimum
from loader.batch import Batch, BatchLimits
from loader.ceiling import RequestSize
from loader.client import Credentials, Tempo, layers
from loader.concurrency import Concurrency
from loader.errors import LoaderError, Refused, Stopped
from loader.findings import Course, Found, Held, Key, Refusals, Report, Step, Visit
from loader.lane import Abandoned, Lane
from loader.optimum import Caps, Choice
from loader.outcome import GOOD, Code, Outcome
from loader.probe import refuse_undeclared
from loader.progress import Tally
from loader.quota import Pace, Quota
from loader.rate import Rate
from loader.record import Frame
from loader.request import Request, Response
from loader.settings import Settings
from loader.settle import Settler
from loader.target import Target, WholeTarget
from loader.transport import Send, Transport

#: Each step that matters is visited so often.
_VISITS = 3
#: On a visit, each place sends at least so many batches, if time allows; the first is not counted.
_BATCHES = 3
#: How long a visit is, at least and at most, and one that waits for a quota to be found, as shares of the whole time.
_LEAST, _MOST, _QUOTA = 1 / 60, 1 / 12, 1 / 10
#: What has to be over by which share of the time: single requests, the search for a quota, more and more at once.
_ALONE_ENDS, _QUOTA_ENDS, _CLIMB_ENDS = 0.3, 0.7, 0.8
#: With less of its places on the wire than this share, a visit waits for something else than the target.
_FULL = 0.85
#: Two looks at a quota that differ by less have found it.
_SAME = 0.05
#: If none of so many users is accepted, none will be.
_HOPELESS = 1_000


class TimeIsOver(LoaderError):
    """A bench has had its time. That is how it ends if it hasn't ended before, and no error."""


class Pool:
    """The users that a bench sends, as an export has them. `rejected`: rows on the way that can't be sent."""

    def __init__(self, batch: Batch, frame: Frame, rejected: int = 0) -> None:
        self.rejected = rejected
        self._all = batch
        self._frame = frame
        self._turn = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def attributes(self) -> set[str]:
        """The names that are sent."""
        return {name for record in self._all.records for name in self._frame.attributes_of(record)}

    def fitting(self, limits: BatchLimits) -> int:
        """The most users that any piece may have within these limits, at least one."""
        sizes = [len(record) for record in self._all.records]
        most = min(limits.users, len(sizes))
        first = total = 0
        for last, size in enumerate(sizes):
            total += size
            while last - first >= most or (
                first < last and self._frame.body_bytes(last - first + 1, total) > limits.body_bytes
            ):
                if last - first < most:
                    most = last - first
                total -= sizes[first]
                first += 1
        return max(most, 1)

    def pieces(self, users: int) -> deque[Batch]:
        """All of them in batches of so many, but for a rest, which is another each time."""
        first = self._turn % (len(self) % users + 1)
        self._turn += 1
        return deque(self._all.part(at, at + users) for at in range(first, len(self) - users + 1, users))


def read_pool(settings: Settings, most: int) -> Pool:
    """The first `most` users of the export. Blocking. Raises Refused if there is none that can be sent.

    Rows of one user among them are one record, as they would be in a load.
    """
    target = settings.build_target()
    frame = target.frame
    known: dict[str, int] = {}
    whole = Batch([], [], [])
    numbers, users, records = list[int](), list[str](), list[bytes]()
    rejected = 0
    for rows in settings.source.rows(settings.row_mapping()):
        rejected += len(rows.settled)
        for number, user, record in zip(rows.numbers, rows.users, rows.records, strict=True):
            if (at := known.get(user)) is not None:
                records[at] = record if target.write == "replace" else frame.merge(user, records[at], record)
            elif len(users) < most:
                known[user] = len(users)
                numbers.append(number)
                users.append(user)
                records.append(record)
            else:
                return Pool(Batch(numbers, users, records), frame, rejected)
    if not users:
        raise Refused(f"{settings.source} has no user that can be sent; loader check tells why")
    return Pool(Batch(numbers, users, records), frame, rejected)


class Bounds(NamedTuple):
    """What a bench may use: sizes of requests, requests at once, quotas and how they are kept, attempts, seconds."""

    batch: BatchLimits
    concurrency: int
    quotas: Sequence[Quota] = ()
    paces: Sequence[Pace] = ()
    attempts: int = 8
    give_up_s: float = 600.0
    seconds: float = 60.0
