"""One sandbox: an emulated API behind its quota, latency and faults. How requests reach it is not its business."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

from loader.request import Request, Response
from loader.sandbox import faults
from loader.sandbox.api import Api, Kind, path_of, refusal
from loader.sandbox.calven import Calven
from loader.sandbox.faults import Cut
from loader.sandbox.ledger import Ledger
from loader.sandbox.options import FaultOptions, Options
from loader.sandbox.quota import Quota, retry_after
from loader.sandbox.roster import Roster
from loader.sandbox.stats import Stats

Clock = Callable[[], float]  # unix seconds


class ConnectionCut(Exception):
    """The connection ends without a whole answer; `torn` is the answer of which half is still sent."""

    def __init__(self, cut: Cut, torn: Response | None = None) -> None:
        super().__init__(cut)
        self.cut = cut
        self.torn = torn


class Sandbox:
    """Answers requests as the emulated API would, on a bad day if so told. `faults` may be replaced at any time."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self.url = ""  # known once it is served
        self.options = options
        self.faults: FaultOptions = options.faults
        self.ledger = Ledger(options.ledger)
        self.stats = Stats()
        self.quota = Quota(options.quota) if options.quota else None
        self.api: Api = Calven(options.calven, Roster(options.roster), self.ledger)
        self._clock = clock
        self._started = clock()
        self._revoked = False

    async def answer(self, request: Request) -> Response:
        """The answer, or ConnectionCut."""
        path = path_of(request.path)
        try:
            response = await self._answer(request, self.api.kind(path))
        except ConnectionCut as cut:
            self.stats.requests[path, cut.cut] += 1
            raise
        self.stats.requests[path, str(response.status)] += 1
        return response

    def on_the_wire(self, target: str) -> AbstractContextManager[None]:
        """Count a request to this path as in flight, from its first byte to its answer."""
        return self.stats.on_the_wire(self.api.kind(path_of(target)))

    async def _answer(self, request: Request, kind: Kind) -> Response:
        """Pace is judged on arrival, and so is the token's age. A request takes effect after its latency, not before:
        two requests on the way at once may overtake each other, as they may at a real server."""
        now = self._clock()
        number = self.stats.arrive(kind, now)
        plan = faults.plan(self.faults, kind, number, now - self._started, now)
        if plan.cut == "down":
            raise ConnectionCut("down")
        wait_s = self.quota.admit(now) if self.quota else None
        if plan.delay_s:
            await asyncio.sleep(plan.delay_s)
        if self.quota and wait_s is not None:
            return refusal(429, "Too many requests", retry_after(self.quota.options.retry_after, wait_s, now))
        if plan.answer:
            return plan.answer
        if plan.cut == "reset":
            raise ConnectionCut("reset")
        self._revoke_when_due()
        response = self.api.handle(request, now)
        if plan.cut == "lost":
            raise ConnectionCut("lost")
        if plan.cut == "torn":
            raise ConnectionCut("torn", response)
        return faults.spoil(response, plan, self.api.results)

    def _revoke_when_due(self) -> None:
        due_s = self.faults.unauthorized_once_at_s
        if due_s is not None and not self._revoked and self._clock() - self._started >= due_s:
            self._revoked = True
            self.api.revoke()

    def report(self) -> dict[str, object]:
        """All that is known, as JSON values. `users` is null if only counts are kept."""
        return {
            **self.stats.as_json(),
            **self.api.facts(),
            "users": None if self.ledger.options.count_only else len(self.ledger.users),
            "writes": self.ledger.writes,
            "quota": {"peak": self.quota.peak, "refused": self.quota.refused} if self.quota else None,
        }
