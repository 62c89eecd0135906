"""One batch to its outcomes: each row of the response table, and what counts as an attempt."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import orjson
import pytest

from loader import verdict
from loader.batch import Batch, BatchLimits
from loader.ceiling import RequestSize
from loader.client import Tempo
from loader.errors import Stopped, TimedOut, TransportError
from loader.lane import Abandoned, Lane
from loader.outcome import Code, Outcome, Result
from loader.request import Request, Response
from loader.retry import CAP_S
from loader.settle import Settler
from loader.snapshot import Brake
from loader.targets.calven import FRAME, Calven
from loader.transport import Send
from loader.verdict import Stop, Then, Verdict, by_status
from tests.faults.rig import users_of
from tests.virtual_time import START_S, virtual_time

Answer = Response | TransportError
Api = Callable[[list[str]], Answer]


def elapsed() -> float:
    return asyncio.get_running_loop().time() - START_S


def batch_of(*users: str, size: int = 0) -> Batch:
    return Batch(
        list(range(1, len(users) + 1)),
        list(users),
        [FRAME.record(user, orjson.dumps({"a": "x" * size})) for user in users],
    )


def named(count: int) -> list[str]:
    return [f"user{number:04}" for number in range(count)]


def results(users: list[str], **codes: object) -> Response:
    """A good answer; `codes` are of those that are no success."""
    listed = [{"userName": user, "resultCode": codes.get(user, 0), "message": ""} for user in users]
    return Response(200, {}, orjson.dumps({"results": listed}))


class Target:
    """Answers as `api` says, with virtual latency; notes what came and when."""

    def __init__(self, api: Api, latency_s: float = 0.1) -> None:
        self.api = api
        self.latency_s = latency_s
        self.requests: list[list[str]] = []
        self.times: list[float] = []

    async def __call__(self, request: Request) -> Response:
        users = users_of(request)
        self.requests.append(users)
        self.times.append(elapsed())
        answer = self.api(users)
        await anyio.sleep(self.latency_s)
        if isinstance(answer, TransportError):
            raise answer
        return answer

    def carried(self, user: str) -> int:
        return sum(user in users for users in self.requests)


def cleared(send: Send, lane: Lane) -> Send:
    """Requests go when the lane lets them, as `pace` sees to."""

    async def waited(request: Request) -> Response:
        await lane.clearance()
        return await send(request)

    return waited


def settler(target: Send, *, lane: Lane | None = None, attempts: int = 8, **more: Any) -> Settler:
    settings = {"missing_result": more.pop("missing_result", "again"), "result_codes": {"7": "FAILED"}}
    lane = lane or Lane(600)
    return Settler(
        Calven(auth="bearer", **settings),
        cleared(target, lane),
        lane,
        RequestSize(more.pop("limits", BatchLimits(1000, 1_000_000))),
        attempts,
        more.pop("warn", lambda _: None),
        **{"uniform": random.Random(1).uniform, "wall": lambda: 1.75e9 + elapsed(), **more},
    )


def in_turn(*answers: Answer | Api) -> Api:
    """The answers one after the other, then successes."""
    left: Iterator[Answer | Api] = iter(answers)

    def api(users: list[str]) -> Answer:
        answer = next(left, results)
        return answer(users) if callable(answer) else answer

    return api


def codes(outcomes: list[Outcome]) -> list[Code]:
    return [outcome.code for outcome in outcomes]


class Others:
    """Successes of other batches, so that the target is known to be up."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane

    async def __aenter__(self) -> None:
        self.tasks = anyio.create_task_group()
        await self.tasks.__aenter__()
        self.tasks.start_soon(self._succeed)

    async def __aexit__(self, *_: object) -> None:
        self.tasks.cancel_scope.cancel()
        await self.tasks.__aexit__(None, None, None)

    async def _succeed(self) -> None:
        while True:
            self.lane.succeeded(0.0)
            await anyio.sleep(0.05)


# 2xx: per user


@virtual_time
async def test_each_user_gets_what_the_answer_says_of_it() -> None:
    """Code, message, the API's own code, the status, and one attempt each."""
    answer = orjson.dumps(
        {
            "results": [
                {"userName": "b", "resultCode": 1, "message": "no such user"},
                {"userName": "a", "resultCode": 0, "message": "OK"},
                {"userName": "c", "resultCode": 99},
            ]
        }
    )
    outcomes = await settler(Target(lambda _: Response(200, {}, answer))).settle(batch_of("a", "b", "c"))

    assert outcomes == [
        Outcome(Code.SUCCESS, "OK", "0", 200, 1),
        Outcome(Code.USER_NOT_FOUND, "no such user", "1", 200, 1),
        Outcome(Code.INVALID, "", "99", 200, 1),
    ]


@virtual_time
async def test_only_users_left_out_are_sent_again() -> None:
    """They settle with the attempts that they took; the others are done."""
    target = Target(in_turn(lambda users: results(users[:2]), lambda users: results(users[1:])))
    warnings: list[str] = []
    outcomes = await settler(target, warn=warnings.append).settle(batch_of("a", "b", "c", "d"))

    assert target.requests == [["a", "b", "c", "d"], ["c", "d"], ["c"]]
    assert codes(outcomes) == [Code.SUCCESS] * 4
    assert [outcome.attempts for outcome in outcomes] == [1, 1, 3, 2]
    assert warnings == [
        "an answer left out 2 of 4 users; they are sent again",
        "an answer left out 1 of 2 users; they are sent again",
    ]


@virtual_time
async def test_left_out_in_every_attempt_is_no_result() -> None:
    target = Target(lambda users: results([user for user in users if user != "b"]))
    outcomes = await settler(target, attempts=5, is_proven=True).settle(batch_of("a", "b"))

    assert codes(outcomes) == [Code.SUCCESS, Code.NO_RESULT]
    assert outcomes[1].attempts == target.carried("b") == 5
    assert outcomes[1].http_status == 200


@virtual_time
async def test_who_failed_for_now_is_sent_again_and_ends_with_what_was_said_last() -> None:
    """The others are done; nothing is missing, so nobody is warned."""
    target = Target(in_turn(lambda users: results(users, b=7, c=7), lambda users: results(users, c=7)))
    warnings: list[str] = []
    outcomes = await settler(target, warn=warnings.append).settle(batch_of("a", "b", "c"))

    assert target.requests == [["a", "b", "c"], ["b", "c"], ["c"]]
    assert [(outcome.code, outcome.attempts) for outcome in outcomes] == [(Code.SUCCESS, n) for n in (1, 2, 3)]
    assert warnings == []

    target = Target(lambda users: results(users, b=7))
    lane = Lane(600)
    async with Others(lane):
        outcomes = await settler(target, lane=lane, attempts=3).settle(batch_of("a", "b"))
    assert outcomes[1] == Outcome(Code.FAILED, "", "7", 200, 3)


@virtual_time
async def test_a_target_that_can_do_nothing_for_anybody_now_is_waited_for() -> None:
    """As with no answer at all, nobody's attempts are used up."""
    target = Target(in_turn(*[lambda users: results(users, a=7, b=7)] * 20))
    outcomes = await settler(target, attempts=2).settle(batch_of("a", "b"))

    assert codes(outcomes) == [Code.SUCCESS] * 2
    assert len(target.requests) == 21


@virtual_time
async def test_if_the_first_answers_name_nobody_the_run_stops() -> None:
    """Either the API lists only failures, or the keys are not the names that it knows: both ways out are named."""
    target = Target(lambda _: results(["somebody@else"]))

    with pytest.raises(Stopped, match=r'target.missing_result = "success".*key column.*somebody@else'):
        await settler(target).settle(batch_of("a", "b"))
    assert len(target.requests) == 3


@pytest.mark.parametrize("is_proven", [True, False])
@virtual_time
async def test_once_the_target_named_a_user_silence_is_about_users(is_proven: bool) -> None:
    """In this run or the one before: then nobody is stopped, the users left out are NO_RESULT."""
    target = Target(lambda users: results([user for user in users if user == "known"]))
    one = settler(target, attempts=4, is_proven=is_proven)
    if not is_proven:
        await one.settle(batch_of("known"))

    assert codes(await one.settle(batch_of("a", "b"))) == [Code.NO_RESULT] * 2


@virtual_time
async def test_missing_results_may_mean_success() -> None:
    """With missing_result = "success" whoever is not listed was taken, at the first attempt."""
    target = Target(lambda _: results(["b"], b=1))
    outcomes = await settler(target, missing_result="success").settle(batch_of("a", "b", "c"))

    assert codes(outcomes) == [Code.SUCCESS, Code.USER_NOT_FOUND, Code.SUCCESS]
    assert len(target.requests) == 1


# 400, 422: split


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("culprits", [{0}, {99}, {41}, {0, 50, 99}, set(range(100))])
@virtual_time
async def test_a_refused_batch_is_split_until_the_culprit_stands_alone(status: int, culprits: set[int]) -> None:
    """It alone is INVALID, with the API's words, at no more than 2 log2 n requests a culprit."""
    names = named(100)
    bad = {names[number] for number in culprits}
    target = Target(lambda users: Response(status, {}, b"not valid") if bad & set(users) else results(users))
    lane = Lane(600)
    outcomes = await settler(target, lane=lane, attempts=1).settle(batch_of(*names))

    for user, outcome in zip(names, outcomes, strict=True):
        if user in bad:
            assert outcome == Outcome(Code.INVALID, f"HTTP {status}: not valid", "", status, target.carried(user))
        else:
            assert (outcome.code, outcome.attempts) == (Code.SUCCESS, target.carried(user))
    assert len(target.requests) <= 1 + 14 * len(culprits)
    assert elapsed() < 0.11 * len(target.requests), "a split does not wait"


@virtual_time
async def test_what_is_refused_and_halved_is_seen() -> None:
    """While it goes on, that is why it is not faster, and not that nothing is read."""
    names = named(8)
    tempo = Tempo()
    seen: list[Brake] = []

    def api(users: list[str]) -> Response:
        seen.append(tempo.brake)
        return Response(400, {}, b"not valid") if names[3] in users else results(users)

    outcomes = await settler(Target(api), traffic=tempo.traffic).settle(batch_of(*names))

    assert codes(outcomes).count(Code.INVALID) == 1
    assert tempo.traffic.look().halved == 3, "8, 4 and 2"
    assert seen == ["reader", *["halving"] * (len(seen) - 1)]
    assert tempo.brake == "reader", "it is over"


# 413: shrink


@pytest.mark.parametrize("by", ["users", "bytes"])
@virtual_time
async def test_a_ceiling_is_learnt_and_kept_to(by: str) -> None:
    """413 splits, and what it was is remembered: later batches fit; a last user alone is INVALID, not REJECTED."""
    size = 100

    def api(users: list[str]) -> Answer:
        is_over = len(users) > 37 if by == "users" else FRAME.body_bytes(len(users), len(users) * (size + 45)) > 5000
        return Response(413) if is_over else results(users)

    target = Target(api)
    one = settler(target)
    refused = 0
    for _ in range(200):
        limits = one.limits
        names = named(min(limits.users, 100))
        batch = batch_of(*names, size=size)
        while FRAME.body_bytes(len(batch), sum(map(len, batch.records))) > limits.body_bytes:
            batch = batch.part(0, len(batch) - 1)
        assert set(codes(await one.settle(batch))) == {Code.SUCCESS}
        refused = sum(isinstance(api(users), Response) and api(users) != results(users) for users in target.requests)

    assert refused < 12
    last = target.requests[-1]
    assert len(last) >= (35 if by == "users" else 30)


@virtual_time
async def test_one_record_too_large_is_invalid_and_shrinks_nothing() -> None:
    """It alone fails; the next batches are as large as before, but for a twentieth."""
    fat = "user0042"
    target = Target(lambda users: Response(413, {}, b"too large") if fat in users else results(users))
    one = settler(target)
    outcomes = await one.settle(batch_of(*named(100)))
    for _ in range(10):
        await one.settle(batch_of(*[f"other{number}" for number in range(min(one.limits.users, 100))]))

    assert [user for user, outcome in zip(named(100), outcomes, strict=True) if outcome.code is Code.INVALID] == [fat]
    assert len(target.requests[-1]) >= 95


class Wordy(Calven):
    """Its bodies are larger than the records in their frame."""

    def encode(self, batch: Batch) -> list[Request]:
        return [replace(request, body=request.body + b" " * 40 * len(batch)) for request in super().encode(batch)]


@virtual_time
async def test_a_body_that_comes_out_too_large_is_halved_before_it_is_sent() -> None:
    """The limit is about the body, whatever the frame lets expect; one user alone is sent all the same."""
    sizes: list[int] = []

    async def send(request: Request) -> Response:
        sizes.append(len(request.body))
        return results(users_of(request))

    batch = batch_of(*named(64))
    limit = FRAME.body_bytes(64, sum(map(len, batch.records)))
    outcomes = await Settler(
        Wordy(auth="bearer"), send, Lane(600), RequestSize(BatchLimits(64, limit)), 8, print
    ).settle(batch)
    lone = await Settler(Wordy(auth="bearer"), send, Lane(600), RequestSize(BatchLimits(64, 100)), 8, print).settle(
        batch_of("a")
    )

    assert codes(outcomes + lone) == [Code.SUCCESS] * 65
    assert [outcome.attempts for outcome in outcomes] == [1] * 64
    assert len(sizes) == 2 + 1
    assert max(sizes) <= limit


# 403, 404, 3xx and their like: stop


@pytest.mark.parametrize("status", [403, 404, 405, 410, 415, 301, 302, 307, 308])
@virtual_time
async def test_what_no_request_can_mend_stops_the_run(status: int) -> None:
    """With the response's words, after one request."""
    target = Target(lambda _: Response(status, {"location": "http://elsewhere/"}, b"no permission for this key"))

    with pytest.raises(Stopped, match=f"refuses to go on: .*HTTP {status}: .*no permission for this key"):
        await settler(target).settle(batch_of("a", "b"))
    assert len(target.requests) == 1


# 401: again


@virtual_time
async def test_a_refused_token_costs_no_attempt_and_no_time() -> None:
    target = Target(in_turn(Response(401)))
    outcomes = await settler(target, attempts=1).settle(batch_of("a"))

    assert outcomes == [Outcome(Code.SUCCESS, "", "0", 200, 2)]
    assert elapsed() < 0.3


@virtual_time
async def test_a_batch_refused_with_401_for_ever_does_not_go_on_for_ever() -> None:
    """If others get through with the same tokens, it is about a user of this batch."""
    lane = Lane(600)
    target = Target(lambda users: Response(401) if "b" in users else results(users))
    async with Others(lane):
        outcomes = await settler(target, lane=lane).settle(batch_of("a", "b", "c"))

    assert codes(outcomes) == [Code.SUCCESS, Code.FAILED, Code.SUCCESS]


# 429 and 503 with Retry-After: the lane waits


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("2.5", 2.5), ("Sun, 15 Jun 2025 15:07:20 GMT", 40), ("100000", 300)]
)
@virtual_time
async def test_retry_after_holds_the_whole_lane(status: int, header: str, seconds: float) -> None:
    """As a number, a decimal or a date, and bounded; it costs no attempt."""
    target = Target(in_turn(Response(status, {"retry-after": header, "date": "Sun, 15 Jun 2025 15:06:40 GMT"})))
    lane = Lane(600)
    paced = held_by(lane, target)
    outcomes = await settler(paced, lane=lane, attempts=1).settle(batch_of("a"))

    assert outcomes[0] == Outcome(Code.SUCCESS, "", "0", 200, 2)
    assert target.times[1] == pytest.approx(seconds + 0.1, abs=0.01)


def held_by(lane: Lane, target: Target) -> Send:
    async def send(request: Request) -> Response:
        await lane.clearance()
        return await target(request)

    return send


@pytest.mark.parametrize(
    "answer", [Response(429, {"retry-after": "1"}), Response(429), Response(503, {"retry-after": "1"})]
)
@virtual_time
async def test_slowing_down_never_uses_up_attempts(answer: Response) -> None:
    """Not even 50 times in a row, with a single attempt allowed. `attempts` counts what carried the user."""
    target = Target(in_turn(*[answer] * 50))
    lane = Lane(6000)
    outcomes = await settler(target, lane=lane, attempts=1).settle(batch_of("a", "b"))

    assert codes(outcomes) == [Code.SUCCESS] * 2
    assert outcomes[0].attempts == len(target.requests) == 51
    assert all(len(users) == 2 for users in target.requests)


# 408, 425, 5xx, network, undecodable: again

TROUBLES = [
    *(Response(status, {}, b"<html>sorry</html>") for status in (408, 409, 423, 425, 500, 502, 503, 504, 599)),
    TransportError("the connection was reset"),
    Response(200, {}, b"<!doctype html><title>Wi-Fi</title>"),
    Response(200, {}, b'{"results": "none"}'),
    Response(200, {}, b'{"results":[{"userNa'),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
@virtual_time
async def test_trouble_is_tried_again_with_a_backoff(trouble: Answer) -> None:
    """Below a bound that doubles; the batch stays whole, and succeeds in the end."""
    target = Target(in_turn(*[trouble] * 4))
    outcomes = await settler(target, uniform=lambda _, high: high).settle(batch_of("a", "b"))

    assert codes(outcomes) == [Code.SUCCESS] * 2
    assert [outcome.attempts for outcome in outcomes] == [5, 5]
    pauses = [after - before - 0.1 for before, after in zip(target.times, target.times[1:], strict=False)]
    assert pauses == [pytest.approx(pause, abs=0.01) for pause in (0.5, 1, 2, 4)]


@virtual_time
async def test_backoffs_have_full_jitter() -> None:
    """Drawn evenly between nothing and the bound."""
    draws: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        draws.append((low, high))
        return 0.0

    await settler(Target(in_turn(*[Response(500)] * 9)), uniform=uniform).settle(batch_of("a"))

    assert draws == [(0.0, bound) for bound in (0.5, 1, 2, 4, 8, 16, CAP_S, CAP_S, CAP_S)]


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
@pytest.mark.parametrize("size", [1, 2, 100])
@virtual_time
async def test_the_culprit_alone_fails_when_attempts_are_used_up(trouble: Answer, size: int) -> None:
    """While others succeed; its message holds the last reason, and the others of its batch are taken."""
    names = named(size)
    culprit = names[size // 3]
    lane = Lane(600)
    target = Target(lambda users: trouble if culprit in users else results(users))
    async with Others(lane):
        outcomes = await settler(target, lane=lane, attempts=3).settle(batch_of(*names))

    for user, outcome in zip(names, outcomes, strict=True):
        assert outcome.code is (Code.FAILED if user == culprit else Code.SUCCESS)
        assert outcome.attempts == target.carried(user)
    failed = outcomes[size // 3]
    assert failed.http_status == (trouble.status if isinstance(trouble, Response) else 0)
    assert (str(trouble) if isinstance(trouble, TransportError) else f"HTTP {trouble.status}") in failed.message
    assert len(target.requests) <= 3 + 3 + 14


@virtual_time
async def test_the_culprit_is_found_in_the_last_batch_too() -> None:
    """When nothing else is left to send, the others of its batch show that the target is up."""
    target = Target(lambda users: Response(500) if "user0007" in users else results(users))
    outcomes = await settler(target).settle(batch_of(*named(10)))

    assert codes(outcomes) == [Code.FAILED if number == 7 else Code.SUCCESS for number in range(10)]
    assert elapsed() < 300


@virtual_time
async def test_culprits_are_found_when_each_batch_has_one() -> None:
    """No batch succeeds as a whole then, and still nobody but the culprits fails."""
    target = Target(lambda users: Response(500) if any(user.endswith("7") for user in users) else results(users))
    lane = Lane(600)
    one = settler(target, lane=lane, attempts=4)
    found: dict[str, Code] = {}

    async def settle(names: list[str]) -> None:
        found.update(zip(names, codes(await one.settle(batch_of(*names))), strict=True))

    async with anyio.create_task_group() as tasks:
        for start in range(0, 200, 20):
            tasks.start_soon(settle, named(200)[start : start + 20])

    assert found == {user: Code.FAILED if user.endswith("7") else Code.SUCCESS for user in named(200)}


@virtual_time
async def test_a_waiting_part_does_not_keep_the_others_waiting() -> None:
    """The culprits of a batch have their backoffs at the same time."""
    bad = set(named(100)[::10])
    target = Target(lambda users: Response(500) if bad & set(users) else results(users))
    lane = Lane(600)
    async with Others(lane):
        outcomes = await settler(target, lane=lane, uniform=lambda _, high: high).settle(batch_of(*named(100)))

    assert {user for user, outcome in zip(named(100), outcomes, strict=True) if outcome.code is Code.FAILED} == bad
    assert elapsed() < 200, "one after the other they would take ten minutes"


@pytest.mark.parametrize("size", [1, 100])
@virtual_time
async def test_a_target_that_is_down_fails_nobody(size: int) -> None:
    """However many attempts that takes, until it is back."""

    def api(users: list[str]) -> Answer:
        return TransportError("connection refused") if elapsed() < 300 else results(users)

    target = Target(api)
    one = settler(target, attempts=2)
    found: list[Code] = []

    async def settle(number: int) -> None:
        found.extend(codes(await one.settle(batch_of(*[f"{number}-{user}" for user in named(size)]))))

    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(settle, number)

    assert found == [Code.SUCCESS] * 16 * size
    assert elapsed() < 340
    down = sum(moment < 300 for moment in target.times)
    assert down < 16 * 60, "no storm while it is down"
    assert len(target.requests) - down <= 16 * min(size, 45), "nor thousands of pieces when it is back"


@virtual_time
async def test_failures_of_an_outage_do_not_count_later() -> None:
    """A user that was tried often while the target was down still has all its attempts when it is back."""
    late_failures = 2

    def api(users: list[str]) -> Answer:
        nonlocal late_failures
        if elapsed() < 60:
            return TransportError("connection refused")
        late_failures -= 1
        return Response(500) if late_failures >= 0 else results(users)

    lane = Lane(600)
    target = Target(api)
    found: list[Code] = []

    async def settle() -> None:
        found.extend(codes(await settler(target, lane=lane, attempts=3).settle(batch_of("a"))))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settle)
        await anyio.sleep(60)
        async with Others(lane):
            await anyio.sleep(120)

    assert found == [Code.SUCCESS]
    assert late_failures < 0


@virtual_time
async def test_after_give_up_s_without_an_answer_the_run_stops() -> None:
    """Nobody failed: they are unsettled, and sent again by the next run."""
    target = Target(lambda _: Response(500, {}, b"maintenance"))

    with pytest.raises(Stopped, match=r"no usable answer for 6.. s.*HTTP 500: maintenance"):
        await settler(target, attempts=2).settle(batch_of(*named(20)))
    assert 600 <= elapsed() < 640


@virtual_time
async def test_a_stop_ends_a_backoff() -> None:
    """The batch stays unsettled; nothing more is sent."""
    lane = Lane(600)
    target = Target(lambda _: Response(500))
    ended: list[str] = []

    async def settle() -> None:
        with pytest.raises(Abandoned):
            await settler(target, lane=lane).settle(batch_of("a"))
        ended.append("abandoned")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settle)
        await anyio.sleep(40)
        lane.stop(Stopped("enough"))
        sent = len(target.requests)

    assert ended == ["abandoned"]
    assert len(target.requests) == sent


class Steps(Calven):
    """Three requests a user, of which the second may be refused alone; the last is known only by the first's answer."""

    def encode(self, batch: Batch) -> list[Request]:
        return [Request("POST", f"/{step}", users=len(batch)) for step in ("look", "write")]

    def goes_on(self, response: Response) -> bool:
        return response.status in (200, 422)

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        if not self.goes_on(responses[-1]):
            return by_status(responses[-1])
        if len(responses) == 2:
            return Then([Request("POST", f"/{responses[0].body.decode()}", users=len(batch))])
        refused = sum(response.status == 422 for response in responses)
        return verdict.Answer([Result(Code.PARTIAL if refused else Code.SUCCESS, str(refused))] * len(batch))


class Paths:
    """Answers each path in turn, and notes which were asked for."""

    def __init__(self, **answers: list[Answer]) -> None:
        self.left = {f"/{path}": list(each) for path, each in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request.path)
        answer = self.left[request.path].pop(0)
        if isinstance(answer, TransportError):
            raise answer
        return answer


def stepwise(send: Send, **more: Any) -> Settler:
    lane = Lane(600)
    return Settler(
        more.pop("target", Steps(auth="bearer")),
        cleared(send, lane),
        lane,
        RequestSize(BatchLimits(1, 1000)),
        more.pop("attempts", 8),
        print,
        uniform=random.Random(1).uniform,
        **more,
    )


LOOK = Response(200, {}, b"note")


@virtual_time
async def test_requests_of_a_batch_follow_one_another_and_answers_may_lead_to_more() -> None:
    send = Paths(look=[LOOK], write=[Response(422)], note=[Response(200)])

    (outcome,) = await stepwise(send).settle(batch_of("a"))

    assert send.asked == ["/look", "/write", "/note"]
    assert (outcome.code, outcome.target_code, outcome.attempts) == (Code.PARTIAL, "1", 3)


@pytest.mark.parametrize("trouble", [Response(503), Response(429), Response(401), TransportError("cut")])
@virtual_time
async def test_what_was_answered_is_not_sent_again(trouble: Answer) -> None:
    """After trouble the part goes on with the request that had it."""
    send = Paths(look=[trouble, LOOK], write=[Response(200), trouble], note=[trouble, trouble, Response(200)])
    send.left["/write"] = [trouble, trouble, Response(200)]

    (outcome,) = await stepwise(send).settle(batch_of("a"))

    assert outcome.code is Code.SUCCESS
    assert send.asked == ["/look"] * 2 + ["/write"] * 3 + ["/note"] * 3


@virtual_time
async def test_each_request_of_a_batch_has_its_own_attempts() -> None:
    """Two failures each, of at most three: together they would be too many."""
    bad, good = Response(500), Response(200)
    send = Paths(look=[bad, bad, LOOK], write=[bad, bad, good], note=[bad, bad, good])
    made = stepwise(send, attempts=3)
    async with Others(made._lane):
        (outcome,) = await made.settle(batch_of("a"))

    assert (outcome.code, outcome.attempts) == (Code.SUCCESS, 9)


@virtual_time
async def test_a_request_that_never_gets_through_fails_the_user() -> None:
    """Though those before it did."""
    send = Paths(look=[LOOK], write=[Response(500, {}, b"no")] * 9)
    made = stepwise(send, attempts=3)
    async with Others(made._lane):
        (outcome,) = await made.settle(batch_of("a"))

    assert (outcome.code, outcome.message) == (Code.FAILED, "HTTP 500: no")
    assert send.asked == ["/look"] + ["/write"] * (outcome.attempts - 1)


@virtual_time
async def test_what_takes_too_long_is_halved_until_it_is_answered_in_time() -> None:
    """And later batches begin at what was answered."""

    async def slow(request: Request) -> Response:
        users = users_of(request)
        await anyio.sleep(min(len(users), 30))
        if len(users) > 30:
            raise TimedOut("no whole answer within 30 s")
        return results(users)

    made = settler(slow, limits=BatchLimits(200, 1_000_000))
    async with anyio.create_task_group() as tasks:
        for first in range(0, 600, 200):
            tasks.start_soon(made.settle, batch_of(*named(600)[first : first + 200]))

    assert made.limits.users <= 40


class Asking(Calven):
    """A search, which carries nobody, and then what it found."""

    def encode(self, batch: Batch) -> list[Request]:
        return [Request("POST", "/look")]

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        if responses[-1].status == 501:
            return Stop("buy the extended edition")
        if responses[-1].status == 500:
            return by_status(responses[-1])
        if responses[0].status == 204:
            return verdict.Answer([Result(Code.USER_NOT_FOUND)] * len(batch))
        if len(responses) == 1:
            return Then([Request("POST", "/write", users=len(batch))])
        return verdict.Answer([Result(Code.SUCCESS)] * len(batch))


@pytest.mark.parametrize(("found", "asked"), [(200, ["/look", "/write"]), (204, ["/look"])])
@virtual_time
async def test_a_search_is_no_attempt_but_for_who_was_never_sent(found: int, asked: list[str]) -> None:
    send = Paths(look=[Response(found)], write=[Response(200)])
    (outcome,) = await stepwise(send, target=Asking(auth="bearer")).settle(batch_of("a"))

    assert send.asked == asked
    assert outcome.attempts == 1


@pytest.mark.parametrize(
    ("found", "is_up"), [(Response(200), True), (Response(200, {}, b"<!doctype html><title>Sign in</title>"), False)]
)
@virtual_time
async def test_an_answer_that_leads_to_more_shows_that_the_target_is_up(found: Response, is_up: bool) -> None:
    """At once, so that the request behind it need not wait to ask whether it is. A page on the way shows nothing."""
    send = Paths(look=[found], write=[Response(500), Response(200)])
    made = stepwise(send, target=Asking(auth="bearer"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.settle, batch_of("a"))
        while len(send.asked) < 2:
            await anyio.lowlevel.checkpoint()
        assert (made._lane.up_at > 0) is is_up


@virtual_time
async def test_it_does_not_show_it_again_with_each_attempt_of_what_follows() -> None:
    """The answer to a search is kept, and the target may have gone down since."""
    down: list[Answer] = [Response(500, {}, b"maintenance")] * 500
    made = stepwise(Paths(look=[Response(200)], write=down), target=Asking(auth="bearer"), attempts=2)

    with pytest.raises(Stopped, match="no usable answer for 6"):
        await made.settle(batch_of("a"))


@virtual_time
async def test_a_target_may_say_what_to_do_where_it_stops() -> None:
    """In the target's words, behind those of the answer."""
    send = Paths(look=[Response(501, {}, b"not for you")])

    with pytest.raises(Stopped, match=r"HTTP 501: not for you; buy the extended edition$"):
        await stepwise(send, target=Asking(auth="bearer")).settle(batch_of("a"))


# The last ones


def last(send: Send, *, is_proven: bool = True, is_last: bool = True, attempts: int = 3) -> Settler:
    """What a run has, whose batches are all in flight."""
    made = settler(send, is_proven=is_proven, attempts=attempts)
    made.is_last = is_last
    return made


@virtual_time
async def test_a_user_that_alone_is_left_does_not_keep_a_load_from_being_finished() -> None:
    """Earlier runs have settled all others: nobody else is left to show that the target is up."""
    target = Target(lambda _: Response(500, {}, b"crash"))

    (outcome,) = await last(target).settle(batch_of("evil"))

    assert (outcome.code, outcome.message) == (Code.FAILED, "HTTP 500: crash")
    assert outcome.attempts == len(target.requests) >= 3
    assert 600 <= elapsed() < 640


@virtual_time
async def test_nor_does_one_whom_the_target_can_not_serve_now() -> None:
    """Where it says so in words of its own."""
    target = Target(lambda users: results(users, evil=7))

    (outcome,) = await last(target).settle(batch_of("evil"))

    assert (outcome.code, outcome.target_code) == (Code.FAILED, "7")


@pytest.mark.parametrize(
    ("more", "users"),
    [
        ({"is_proven": False}, ["a"]),  # the target may never have been up
        ({"is_last": False}, ["a"]),  # others will show whether it is
        ({"attempts": 1000}, ["a"]),
        ({"attempts": 1000}, ["a", "b"]),
    ],
)
@virtual_time
async def test_else_the_run_stops(more: dict[str, Any], users: list[str]) -> None:
    """And the users stay unsettled."""
    with pytest.raises(Stopped, match="no usable answer"):
        await last(Target(lambda _: Response(500)), **more).settle(batch_of(*users))


@virtual_time
async def test_a_run_that_had_an_answer_stops_too() -> None:
    """The target was up a moment ago: the next run may find it up again."""
    target = Target(lambda users: results(users) if "good" in users else Response(500))
    made = last(target)
    await made.settle(batch_of("good"))

    with pytest.raises(Stopped, match="no usable answer"):
        await made.settle(batch_of("evil"))


@virtual_time
async def test_who_is_settled_when_a_run_stops_is_salvaged() -> None:
    """With the rows merged into theirs, and nobody whose fate is open."""
    lane = Lane(600)

    def api(users: list[str]) -> Answer:
        if "b" in users and len(users) > 1:
            return Response(400, {}, b"")
        if users == ["b"]:
            lane.stop(Stopped("enough"))
            return Response(503, {"retry-after": "9"}, b"")
        return results(users)

    batch = batch_of("a", "b", "c", "d")
    batch.merged.update({3: [1, 2], 2: [7]})
    salvaged: list[tuple[Batch, list[Outcome]]] = []
    with pytest.raises(Abandoned):
        await settler(Target(api), lane=lane).settle(batch, lambda *some: salvaged.append(some))

    ((some, outcomes),) = salvaged
    assert "b" not in some.users
    assert codes(outcomes) == [Code.SUCCESS] * len(some)
    assert some.merged == {row: rows for row, rows in batch.merged.items() if row in some.numbers}


@virtual_time
async def test_where_nobody_is_settled_nothing_is_salvaged() -> None:
    lane = Lane(600)
    lane.stop(Stopped("enough"))

    with pytest.raises(Abandoned):
        await settler(Target(results), lane=lane).settle(batch_of("a", "b"), lambda *_: pytest.fail("nobody is"))
