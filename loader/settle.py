"""One batch to its outcomes: encode, send, read, and whatever the answer asks for, until every user has one.

The only loop that sends anything twice. A part of the batch is either settled, halved, or waits for its next attempt.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time

from loader.batch import Batch, BatchLimits
from loader.ceiling import Ceiling
from loader.errors import Stopped, TransportError
from loader.lane import Lane
from loader.outcome import Code, Outcome, Result
from loader.request import Response
from loader.retry import backoff_s, retry_after_s
from loader.target import Target
from loader.transport import Send
from loader.verdict import Do, Verdict, words

#: So many answers in a row, from the first on, that name none of the users sent: then the API lists no successes.
_NAMELESS_ANSWERS = 3


@dataclass(slots=True)
class _Part:
    """Some of a batch's users, by position. `attempts`: requests that carried them; `failures`: those that count."""

    positions: Sequence[int]
    batch: Batch
    attempts: int = 0
    failures: int = 0
    waits: int = 0
    sent_at: int = 0  # the lane's successes when the last attempt was sent
    failed_at: int | None = None  # the same for the last that failed

    def halves(self) -> "tuple[_Part, _Part]":
        middle = len(self.batch) // 2
        first, second = (
            _Part(self.positions[a:b], self.batch.part(a, b), self.attempts)
            for a, b in ((0, middle), (middle, len(self.batch)))
        )
        return first, second


class Settler:
    """Settles batches of one lane, any number at once.

    `is_proven`: this load has seen the target name its users before, so that silence is about single users.
    """

    def __init__(
        self,
        target: Target,
        send: Send,
        lane: Lane,
        limits: BatchLimits,
        attempts: int,
        warn: Callable[[str], None],
        *,
        is_proven: bool = False,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._target = target
        self._send = send
        self._lane = lane
        self._limits = limits
        self._attempts = attempts
        self._warn = warn
        self._uniform = uniform
        self._max_bytes = Ceiling()
        self._max_users = Ceiling()
        self._nameless = -1 if is_proven else 0

    @property
    def limits(self) -> BatchLimits:
        """How large a batch may be, as far as is known by now."""
        users, size = self._max_users.limit, self._max_bytes.limit
        if users is None and size is None:
            return self._limits
        return BatchLimits(
            min(self._limits.users, users) if users else self._limits.users,
            min(self._limits.body_bytes, size) if size else self._limits.body_bytes,
        )

    async def settle(self, batch: Batch) -> list[Outcome]:
        """An outcome for each user of `batch`, in its order. Raises Stopped, or Abandoned if the run stops."""
        outcomes: list[Outcome] = [_NOT_YET] * len(batch)
        todo = [_Part(range(len(batch)), batch)]
        while todo:
            part = todo.pop()
            if self._is_too_large(part.batch):
                todo += reversed(part.halves())
                continue
            verdict, response, reason = await self._attempt(part)
            if not isinstance(verdict, Do):
                left = self._take(part, verdict, response, outcomes)
                if left is None:
                    continue
                if not await self._again(left, "the answer left users out"):
                    _fill(outcomes, left, Code.NO_RESULT, "no answer named this user", response)
                else:
                    todo.append(left)
            elif verdict in (Do.SPLIT, Do.SHRINK):
                if len(part.batch) > 1:
                    todo += reversed(part.halves())
                else:
                    _fill(outcomes, part, Code.INVALID, reason, response)
            elif verdict is Do.STOP:
                raise Stopped(f"the target refuses to go on: {reason}")
            elif verdict is Do.RENEW:
                self._lane.failed(reason)
                todo.append(part)
            elif verdict is Do.WAIT:
                await self._wait(part, response, reason)
                todo.append(part)
            elif await self._again(part, reason):
                todo.append(part)
            elif len(part.batch) > 1:
                # Others went through meanwhile, so it may be one of these users: look for who it is. The halves get
                # one try each; a user alone gets all of them.
                for half in reversed(part.halves()):
                    half.failures = self._attempts - 1 if len(half.batch) > 1 else 0
                    half.failed_at = part.failed_at
                    todo.append(half)
            else:
                _fill(outcomes, part, Code.FAILED, reason, response)
        return outcomes

    async def _attempt(self, part: _Part) -> tuple[Verdict, Response | None, str]:
        """Send the part's requests, one after the other while they are taken, and read what came."""
        responses: list[Response] = []
        part.sent_at = self._lane.successes
        body = 0
        try:
            for request in self._target.encode(part.batch):
                body = max(body, len(request.body))
                responses.append(await self._send(request))
                if not 200 <= responses[-1].status < 300:
                    break
        except TransportError as error:
            verdict: Verdict = Do.AGAIN
            reason = str(error)
        else:
            verdict = self._target.read(part.batch, responses)
            reason = words(responses[-1])
            if verdict is Do.AGAIN and 200 <= responses[-1].status < 300:
                reason = f"the answer can't be read, {reason}"
        part.attempts += 1
        if not isinstance(verdict, Do) or verdict in (Do.SPLIT, Do.SHRINK):
            self._lane.succeeded()
        if not isinstance(verdict, Do):
            self._max_bytes.took(body)
            self._max_users.took(len(part.batch))
        elif verdict is Do.SHRINK and len(part.batch) > 1:
            self._max_bytes.refused(body)
            self._max_users.refused(len(part.batch))
        return verdict, responses[-1] if responses else None, reason

    def _take(
        self, part: _Part, results: Sequence[Result | None], response: Response | None, outcomes: list[Outcome]
    ) -> _Part | None:
        """Keep what the answer says; the users it left out are the part to send again (None: nobody)."""
        status = response.status if response else 0
        if self._target.missing_result == "success":
            results = [result or _UNSAID for result in results]
        first = results[0]
        if first is not None and results.count(first) == len(results):
            self._nameless = -1
            outcome = Outcome(first.code, first.message, first.target_code, status, part.attempts)
            for at in part.positions:
                outcomes[at] = outcome
            return None
        missing: list[int] = []
        made: dict[Result, Outcome] = {}
        for place, (at, result) in enumerate(zip(part.positions, results, strict=True)):
            if result is None:
                missing.append(place)
            elif (outcome_ := made.get(result)) is None:
                outcomes[at] = made[result] = Outcome(
                    result.code, result.message, result.target_code, status, part.attempts
                )
            else:
                outcomes[at] = outcome_
        if made:
            self._nameless = -1
        elif self._nameless >= 0:
            self._nameless += 1
            if self._nameless >= _NAMELESS_ANSWERS:
                raise Stopped(
                    f"the target's first {self._nameless} answers name none of the users sent. If it lists only "
                    'failures, set target.missing_result = "success"; else compare the key column with the names it '
                    f"knows. Its last answer: {words(response) if response else ''}"
                )
        if not missing:
            return None
        self._warn(f"an answer left out {len(missing)} of {len(results)} users; they are sent again")
        return _Part(
            [part.positions[place] for place in missing],
            part.batch.pick(missing),
            part.attempts,
            part.failures,
            part.waits,
            part.sent_at,
            part.failed_at,
        )

    async def _again(self, part: _Part, reason: str) -> bool:
        """Wait for the next attempt of a part that failed. False: its attempts are used up.

        A failure costs an attempt only if something succeeded since the one before: else the target is down, and this
        part's users are not to blame.
        """
        self._lane.failed(reason)
        is_target_alive = self._lane.successes > (part.sent_at if part.failed_at is None else part.failed_at)
        if part.failed_at is None or is_target_alive:
            part.failures += 1
        part.failed_at = part.sent_at
        if part.failures >= self._attempts and is_target_alive:
            return False
        part.waits += 1
        await self._lane.sleep(backoff_s(part.waits, self._uniform))
        return True

    async def _wait(self, part: _Part, response: Response | None, reason: str) -> None:
        """Slow down as the target asks: the whole lane if it says for how long, else this part."""
        self._lane.failed(reason)
        seconds = retry_after_s(response.headers, time()) if response else None
        if seconds:
            self._lane.hold(seconds)
        else:
            part.waits += 1
            await self._lane.sleep(backoff_s(part.waits, self._uniform))

    def _is_too_large(self, batch: Batch) -> bool:
        limits = self.limits
        if len(batch) == 1 or limits is self._limits:
            return False
        size = self._target.frame.body_bytes(len(batch), sum(map(len, batch.records)))
        return len(batch) > limits.users or size > limits.body_bytes


_NOT_YET = Outcome(Code.FAILED, "not settled")
_UNSAID = Result(Code.SUCCESS, "", "not named in the answer, which target.missing_result calls a success")


def _fill(outcomes: list[Outcome], part: _Part, code: Code, reason: str, response: Response | None) -> None:
    outcome = Outcome(code, reason, "", response.status if response else 0, part.attempts)
    for at in part.positions:
        outcomes[at] = outcome
