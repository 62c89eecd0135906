"""One sandbox: an emulated API behind its quota, latency and faults. How requests reach it is not its business."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

from loader.request import Request, Response
from loader.sandbox import faults
from loader.sandbox.api import Api, Kind, path_of
from loader.sandbox.calven import Calven
from loader.sandbox.descope import Descope
from loader.sandbox.dx import Dx
from loader.sandbox.faults import Cut
from loader.sandbox.ledger import Ledger
from loader.sandbox.options import ApiName, FaultOptions, Options
from loader.sandbox.quota import Quota, admit
from loader.sandbox.records import Records
from loader.sandbox.roster import Roster
from loader.sandbox.scim import Scim
from loader.sandbox.stats import Stats
from loader.sandbox.work import Work

Clock = Callable[[], float]  # unix seconds

APIS: dict[ApiName, Callable[[Options, Roster, Ledger], Api]] = {
    "calven": lambda options, roster, ledger: Calven(options.calven, roster, ledger),
    "dx": lambda options, roster, ledger: Dx(options.dx, roster, ledger),
    "descope": lambda options, roster, ledger: Descope(options.descope, roster, ledger),
    "scim": lambda options, roster, ledger: Scim(options.scim, roster, ledger),
    "http": lambda options, roster, ledger: Records(options.http, roster, ledger),
}


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
        self.quotas = [Quota(quota) for quota in options.quotas_in_force]
        self.api = APIS[options.api](options, Roster(options.roster), self.ledger)
        self._work = Work(options.work)
        self._clock = clock
        self._started = clock()
        self._revoked = False

    async def answer(self, request: Request) -> Response:
        """The answer, or ConnectionCut."""
        kind, name = self.api.endpoint(path_of(request.path))
        try:
            response = await self._answer(request, kind)
        except ConnectionCut as cut:
            self.stats.requests[name, cut.cut] += 1
            raise
        self.stats.requests[name, str(response.status)] += 1
        return response

    def on_the_wire(self, target: str) -> AbstractContextManager[None]:
        """Count a request to this path as in flight, from its first byte to its answer."""
        return self.stats.on_the_wire(self.api.endpoint(path_of(target))[0])

    async def _answer(self, request: Request, kind: Kind) -> Response:
        """Pace is judged on arrival, and so is the token's age. A request takes effect after its latency, not before:
        two requests on the way at once may overtake each other, as they may at a real server."""
        now = self._clock()
        number = self.stats.arrive(kind, now)
        plan = faults.plan(self.faults, kind, number, now - self._started, now, self.api.refuse, request.body)
        if plan.cut == "down":
            raise ConnectionCut("down")
        pause = admit(self.quotas, now, self._users(request, kind))
        if plan.delay_s:
            await asyncio.sleep(plan.delay_s)
        if pause is not None:
            return self.api.refuse(429, "Too many requests", pause)
        if plan.answer:
            return plan.answer
        if plan.cut == "reset":
            raise ConnectionCut("reset")
        if kind == "data" and self._work:
            await self._work.do(self.api.users(request))
        self._revoke_when_due()
        response = self.api.handle(request, now)
        if plan.cut == "lost" or (plan.cut == "torn" and not response.body):  # without a body there is no middle
            raise ConnectionCut("lost")
        if plan.cut == "torn":
            raise ConnectionCut("torn", response)
        return faults.spoil(response, plan, self.api)

    def _users(self, request: Request, kind: Kind) -> int:
        """Counted only for a quota that counts them: the API may have to read the body for it."""
        return self.api.users(request) if kind == "data" and any(quota.is_of_users for quota in self.quotas) else 0

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
            "quotas": [
                {"quota": str(quota.options), "peak": quota.peak, "refused": quota.refused} for quota in self.quotas
            ],
        }
