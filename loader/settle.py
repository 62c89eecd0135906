"""One batch to its outcomes: encode, send, read, and whatever the answer asks for, until every user has one.

The only loop that sends anything twice. A part of the batch is either settled, halved, or waits for its next attempt;
meanwhile the other parts go on.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush

import anyio

from loader.batch import Batch, BatchLimits
from loader.ceiling import RequestSize
from loader.errors import Stopped, TimedOut, TransportError
from loader.lane import Abandoned, Lane
from loader.outcome import Code, Outcome, Result
from loader.request import Request, Response
from loader.retry import backoff_s, retry_after_s
from loader.target import Target, WholeTarget
from loader.tempo.traffic import Traffic
from loader.transport import Send
from loader.verdict import Answer, Do, Stop, Then, is_page, way_out, words

#: So many answers in a row, from the first on, that name none of the users sent: then the API lists no successes.
_NAMELESS_ANSWERS = 3

#: So often not answered in time, a part goes on in halves: there may be more in it than the target can do in time.
_TIMEOUTS = 2

#: 401s in a row that cost a part nothing. One is an old token's end; more, while the others get through, are about it.
_FREE_RENEWALS = 3


@dataclass(slots=True, eq=False)
class _Part:
    """Some of a batch's users, by position.

    `carried`: requests that carried them; `asked`: those that only asked about them. `tries`: attempts that failed;
    `failures`: those of them that count, because the target took something meanwhile. `renewals`: 401s in a row.
    `waits`: backoffs so far. `due`: when the next attempt may go.
    """

    positions: Sequence[int]
    batch: Batch
    carried: int = 0
    asked: int = 0
    tries: int = 0
    failures: int = 0
    renewals: int = 0
    waits: int = 0
    timeouts: int = 0
    due: float = 0.0
    is_half: bool = False  # of what was refused as a whole
    is_suspect: bool = False  # half of a batch that failed again and again
    sent_at: float = 0.0
    answers: Sequence[Response] = ()  # to the first of its requests, which need not be sent again
    trouble_at: float | None = None  # when the last attempt failed; of a suspect: when it became one

    def __lt__(self, other: "_Part") -> bool:
        return (self.due, self.positions[0]) < (other.due, other.positions[0])

    @property
    def attempts(self) -> int:
        """What an outcome says: a search is one only for who was never sent, such as a user whom nobody knows."""
        return self.carried or self.asked

    def halves(self) -> "list[_Part]":
        middle = len(self.batch) // 2
        cuts = ((0, middle), (middle, len(self.batch)))
        return [
            _Part(self.positions[a:b], self.batch.part(a, b), self.carried, self.asked, is_half=self.is_half)
            for a, b in cuts
        ]


class Settler:
    """Settles batches of one lane, any number at once.

    `is_proven`: this load has seen the target name its users before, so that silence is about single users. `is_last`:
    whatever is not settled yet is in flight. `traffic` is told what is refused and halved.
    """

    def __init__(
        self,
        target: Target,
        send: Send,
        lane: Lane,
        size: RequestSize,
        attempts: int,
        warn: Callable[[str], None],
        *,
        is_proven: bool = False,
        traffic: Traffic | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._target = target
        self._send = send
        self._lane = lane
        self._size = size
        self._attempts = attempts
        self._warn = warn
        self._traffic = traffic or Traffic()
        self._uniform = uniform
        self._wall = wall
        self._probing = anyio.Lock(fast_acquire=True)
        self._is_proven = is_proven
        self._nameless = -1 if is_proven else 0
        self._is_whole = isinstance(target, WholeTarget)
        self.is_last = False

    @property
    def limits(self) -> BatchLimits:
        """How large a batch may be, as far as is known by now."""
        return self._size.limits

    async def settle(
        self, batch: Batch, salvage: Callable[[Batch, list[Outcome]], None] = lambda *_: None
    ) -> list[Outcome]:
        """An outcome for each user of `batch`, in its order. Raises Stopped, or Abandoned if the run stops.

        Before it raises, `salvage` is given those who are settled by then, if there are some: of a batch that is being
        halved, which takes long, most may be.
        """
        outcomes: list[Outcome] = [_NOT_YET] * len(batch)
        todo = [_Part(range(len(batch)), batch)]
        is_halved = False
        try:
            while todo:
                part = todo[0]
                if part.due and (wait := part.due - self._lane.now()) > 0:
                    await self._lane.back_off(wait)
                left = await self._step(part, outcomes)
                heappop(todo)
                for each in left:
                    if each.is_half and not is_halved:
                        is_halved = True
                        self._traffic.halving += 1
                    heappush(todo, each)
        except (Abandoned, Stopped):
            open_ = {at for part in todo for at in part.positions}
            if settled := [at for at in range(len(batch)) if at not in open_]:
                salvage(batch.pick(settled), [outcomes[at] for at in settled])
            raise
        finally:
            self._traffic.halving -= is_halved
        return outcomes

    async def _step(self, part: _Part, outcomes: list[Outcome]) -> Sequence[_Part]:
        """One attempt of a part; what remains to be done of it."""
        requests = self._target.encode(part.batch)
        users, body = len(part.batch), _largest(requests)
        is_alone = users == 1 or self._is_whole
        if not is_alone and self._size.is_too_large(users, body):
            return part.halves()
        if not is_alone and self._size.is_probe(users, body):
            async with self._probing:  # one at a time: the others can't know better
                if self._size.is_too_large(users, body):
                    return part.halves()
                verdict, response, reason = await self._attempt(part, requests)
        else:
            verdict, response, reason = await self._attempt(part, requests)
        part.renewals = part.renewals + 1 if verdict is Do.RENEW else 0
        if isinstance(verdict, Answer):
            return await self._answered(part, verdict, response, outcomes)
        match verdict:
            case Do.STOP:
                raise Stopped(f"the target refuses to go on: {reason}{way_out(response) if response else ''}")
            case Stop(way_out=advice):
                raise Stopped(f"the target refuses to go on: {reason}; {advice}")
            case Do.SPLIT | Do.SHRINK:
                if not is_alone:
                    self._traffic.halves()
                    part.is_half = True
                    return part.halves()
                _fill(outcomes, part, Code.INVALID, reason, response)
                return ()
            case Do.RENEW if part.renewals <= _FREE_RENEWALS:
                self._lane.delayed(reason)
                return (part,)
            case Do.WAIT:
                await self._wait(part, response, reason)
                return (part,)
            case Do():
                try:
                    is_alive = self._failed(part, reason)
                except Stopped:
                    if not self._is_in_the_way(part):
                        raise
                    _fill(outcomes, part, Code.FAILED, reason, response)
                    return ()
                if is_alone and is_alive and part.failures >= self._attempts:
                    _fill(outcomes, part, Code.FAILED, reason, response)
                    return ()
                parts = [part]
                if not is_alone and part.timeouts >= _TIMEOUTS:
                    if is_alive:  # others are answered in time
                        self._size.refused(users, body)
                    parts = part.halves()
                elif not is_alone and part.tries >= self._attempts:
                    parts = self._suspects(part, is_alive=is_alive)
                await self._back_off(parts, is_alive=is_alive)
                return parts

    async def _answered(
        self, part: _Part, answer: Answer, response: Response | None, outcomes: list[Outcome]
    ) -> Sequence[_Part]:
        """Settle whom the answer settles; what remains to be done of the part."""
        left = self._take(part, answer, response, outcomes)
        if left is None:
            return ()
        reason = next(outcomes[at].message for at in left.positions)
        try:
            is_alive = self._failed(left, reason, was_answered=not _is_down(answer))
        except Stopped:
            if not self._is_in_the_way(left):
                raise
            return ()
        if left.failures >= self._attempts:
            return ()
        await self._back_off([left], is_alive=is_alive)
        return (left,)

    async def _attempt(self, part: _Part, requests: list[Request]) -> tuple[Answer | Do | Stop, Response | None, str]:
        """Send those of the part's requests that have no answer yet, and what follows from them; read what came."""
        responses = list(part.answers)
        part.sent_at = self._lane.now()
        body = 0
        try:
            while True:
                body = _largest(requests)
                await self._ask(part, requests[len(responses) :], responses)
                found = self._target.read(part.batch, responses)
                if not isinstance(found, Then):
                    break
                if len(responses) > len(part.answers):  # and not one that came with an earlier attempt
                    self._passed(responses[-1])
                requests += found.requests
        except TransportError as error:
            verdict: Answer | Do | Stop = Do.AGAIN
            reason = str(error)
            part.timeouts += isinstance(error, TimedOut)
            self._keep(part, responses)
        else:
            verdict = found
            reason = "" if isinstance(verdict, Answer) else words(responses[-1])
            if isinstance(verdict, Do):
                self._keep(part, responses[:-1])
            if verdict is Do.AGAIN and 200 <= responses[-1].status < 300:
                reason = f"the answer can't be read, {reason}"
        if not _is_down(verdict) if isinstance(verdict, Answer) else verdict in (Do.SPLIT, Do.SHRINK):
            self._lane.succeeded(responses[-1].elapsed_s)
        if isinstance(verdict, Answer):
            self._size.took(len(part.batch), body)
        elif verdict is Do.SHRINK and not self._is_whole:  # what goes whole goes whole again, or not at all
            self._size.refused(len(part.batch), body)
        return verdict, responses[-1] if responses else None, reason

    async def _ask(self, part: _Part, requests: Sequence[Request], responses: list[Response]) -> None:
        """Send `requests` while the answers, which join `responses`, allow it."""
        for number, request in enumerate(requests):
            if number:
                self._passed(responses[-1])
            part.carried += request.users > 0
            part.asked += request.users == 0
            responses.append(await self._send(request))
            if not self._target.goes_on(responses[-1]):
                return

    def _passed(self, response: Response) -> None:
        """An answer behind which more was asked: the target is up, unless something on the way answered for it."""
        if not is_page(response):
            self._lane.succeeded(response.elapsed_s)

    def _keep(self, part: _Part, answers: Sequence[Response]) -> None:
        """Answers that stand, whatever becomes of the request behind them. With each, its trials begin anew."""
        if len(answers) > len(part.answers):
            part.tries = part.failures = part.waits = 0
        part.answers = answers

    def _take(self, part: _Part, answer: Answer, response: Response | None, outcomes: list[Outcome]) -> _Part | None:
        """Keep what the answer says; who is left out, or FAILED, is the part to send again (None: nobody).

        What these end with, should it be their last attempt, is kept, too.
        """
        status = response.status if response else 0
        results = answer.results
        if answer.strangers or answer.doubled:
            self._warn(
                f"an answer about {len(results)} users named {answer.strangers} who were not sent, "
                f"and {answer.doubled} twice; only what it says of those sent counts"
            )
        if self._target.missing_result == "success" and not answer.strangers:
            # Strangers may be users sent, in another spelling: then silence is no success.
            results = [result or _UNSAID for result in results]
        first = results[0]
        if first is not None and first.code is not Code.FAILED and results.count(first) == len(results):
            self._nameless = -1
            outcome = Outcome(first.code, first.message, first.target_code, status, part.attempts)
            _set(outcomes, part, outcome)
            return None
        missing: list[int] = []
        made: dict[Result, Outcome] = {}
        for place, (at, result) in enumerate(zip(part.positions, results, strict=True)):
            if result is None or result.code is Code.FAILED:
                missing.append(place)
            said = result or _UNNAMED
            if (outcome_ := made.get(said)) is None:
                outcome_ = made[said] = Outcome(said.code, said.message, said.target_code, status, part.attempts)
            outcomes[at] = outcome_
        unnamed = results.count(None)
        if len(missing) < len(results):
            self._nameless = -1
        elif unnamed == len(results) and self._nameless >= 0:
            self._nameless += 1
            if self._nameless >= _NAMELESS_ANSWERS:
                raise Stopped(
                    f"the target's first {self._nameless} answers name none of the users sent. If it lists only "
                    'failures, set target.missing_result = "success"; else compare the key column with the names it '
                    f"knows. Its last answer: {words(response) if response else ''}"
                )
        if not missing:
            return None
        if unnamed:
            self._warn(f"an answer left out {unnamed} of {len(results)} users; they are sent again")
        positions = [part.positions[place] for place in missing]
        return replace(part, positions=positions, batch=part.batch.pick(missing), answers=())

    def _failed(self, part: _Part, reason: str, *, was_answered: bool = False) -> bool:
        """Take note of a failed attempt. True: the target took something since the trouble began, so it counts.

        Else the target is down, and this part's users are not to blame. What it took must have been sent since: answers
        may come in late. Each failure needs a proof of its own, since the one before; a suspect needs only one, since
        it became one, as all others may be settled by then.
        """
        self._lane.failed(reason)
        since = part.sent_at if part.trouble_at is None else part.trouble_at
        is_alive = was_answered or self._lane.up_at > since
        if not part.is_suspect:
            part.trouble_at = self._lane.now()
        part.tries += 1
        part.failures += is_alive
        return is_alive

    def _is_in_the_way(self, part: _Part) -> bool:
        """Would this user keep the load from ever being finished?

        Earlier runs have settled the others, so nobody is left to show whether the target is up. It was then; in this
        run it has answered nobody, it is time to give up, and the user's attempts are used up: then so are they.
        """
        is_alone = len(part.batch) == 1 and not self._is_whole
        is_unanswered = self._lane.up_at == -math.inf
        return self._is_proven and self.is_last and is_unanswered and is_alone and part.tries >= self._attempts

    def _suspects(self, part: _Part, *, is_alive: bool) -> list[_Part]:
        """The halves of a part whose tries are used up: one of its users may be the reason, so look for who it is.

        The halves get one try each; a user alone gets all of them. This goes on, slowly, while nothing succeeds: should
        each batch hold such a user, or this be the only one, then nothing else would ever tell that the target is up.
        """
        halves = part.halves()
        for half in halves:
            half.is_suspect = True
            half.trouble_at = self._lane.now()
            half.tries = self._attempts - 1 if len(half.batch) > 1 else 0
            half.waits = 0 if is_alive else part.waits
        return halves

    async def _back_off(self, parts: Sequence[_Part], *, is_alive: bool) -> None:
        """Put the next attempt of `parts` off. If the target seems to be down, the whole batch waits for it."""
        if self._lane.is_down:
            return  # the lane asks when it is back, and nobody has to wait any longer then
        pause = backoff_s(parts[0].waits + 1, self._uniform)
        if not is_alive:
            await self._lane.back_off(pause)
            pause = 0.0
        for part in parts:
            part.waits += 1
            part.due = self._lane.now() + pause

    async def _wait(self, part: _Part, response: Response | None, reason: str) -> None:
        """Slow down as the target asks: the whole lane if it says for how long, else this part."""
        self._lane.delayed(reason)
        seconds = retry_after_s(response.headers, self._wall()) if response else None
        if seconds:
            self._lane.hold(seconds, reason)
        else:  # the pace is slowed down for all (rate.py); this only keeps the parts from coming back together
            part.due = self._lane.now() + backoff_s(1, self._uniform)


def _largest(requests: Sequence[Request]) -> int:
    """Bytes of the longest body."""
    return len(requests[0].body) if len(requests) == 1 else max(len(request.body) for request in requests)


_NOT_YET = Outcome(Code.FAILED, "not settled")
_UNNAMED = Result(Code.NO_RESULT, "", "no answer named this user")
_UNSAID = Result(Code.SUCCESS, "", "not named in the answer, which target.missing_result calls a success")


def _is_down(answer: Answer) -> bool:
    """Does it say of each user that nothing could be done now? Then nobody there is to blame, as with no answer."""
    return all(result is not None and result.code is Code.FAILED for result in answer.results)


def _fill(outcomes: list[Outcome], part: _Part, code: Code, reason: str, response: Response | None) -> None:
    _set(outcomes, part, Outcome(code, reason, "", response.status if response else 0, part.attempts))


def _set(outcomes: list[Outcome], part: _Part, outcome: Outcome) -> None:
    """The same for all users of a part, which is often all of the batch."""
    if len(part.positions) == len(outcomes):
        outcomes[:] = [outcome] * len(outcomes)
    else:
        for at in part.positions:
            outcomes[at] = outcome
