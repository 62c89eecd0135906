"""Answers that are wrong about users: missing, doubled, strange, shuffled, broken. Loud, and never misattributed."""

import re
from collections.abc import Callable

import orjson
import pytest

from loader.outcome import Code
from loader.request import Request, Response
from loader.sandbox import FaultOptions, RosterOptions
from loader.sandbox.options import Fault
from loader.transport import Send
from tests.faults.rig import Rig, options, users
from tests.virtual_time import virtual_time


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("fault", ["shuffled", "doubled", "foreign"])
@virtual_time
async def test_answers_are_matched_by_user(fault: Fault, share: float) -> None:
    """Order, repetition and strangers change no outcome and cost no request."""
    rig = Rig(
        options(FaultOptions(rates={fault: share}), roster=RosterOptions(unknown=re.compile(r"7@"))),
        users_per_request=50,
    )
    found = await rig.run(users(1000))

    for row, item in found.items():
        assert item.outcome.code is (Code.USER_NOT_FOUND if row % 10 == 7 else Code.SUCCESS)
        assert item.outcome.attempts == 1
    assert len(rig.data_requests) == 20


@pytest.mark.parametrize("fault", ["missing", "wrong-type", "garbage", "truncated", "torn", "lost"])
@virtual_time
async def test_what_an_answer_does_not_say_is_asked_again(fault: Fault) -> None:
    """Until each user is named: all outcomes are true, and count the requests that carried the user."""
    rig = Rig(
        options(FaultOptions(rates={fault: 0.4}), roster=RosterOptions(unknown=re.compile(r"7@"))),
        users_per_request=50,
        attempts=20,
    )
    found = await rig.run(users(1000))

    for row, item in found.items():
        assert item.outcome.code is (Code.USER_NOT_FOUND if row % 10 == 7 else Code.SUCCESS)
        assert item.outcome.attempts == rig.carried[item.user]
    assert bool(rig.warnings) == (fault in ("missing", "wrong-type"))


def only(names: Callable[[str], bool]) -> Callable[[Send], Send]:
    """An API that answers about these users alone."""

    def wrap(send: Send) -> Send:
        async def silent(request: Request) -> Response:
            response = await send(request)
            if not request.users:
                return response
            results = [item for item in orjson.loads(response.body)["results"] if names(item["userName"])]
            return Response(200, response.headers, orjson.dumps({"results": results}))

        return silent

    return wrap


@virtual_time
async def test_a_user_left_out_in_every_answer_is_no_result() -> None:
    """And only that one, after all its attempts."""
    silent = {users(1, 33)[0][0], users(1, 77)[0][0]}
    rig = Rig(wrap=only(lambda user: user not in silent), attempts=4)
    found = await rig.run(users(200))

    assert {row for row, item in found.items() if item.outcome.code is Code.NO_RESULT} == {33, 77}
    assert [found[row].outcome.attempts for row in (33, 77)] == [4, 4]
    assert rig.codes() == {Code.SUCCESS: 198, Code.NO_RESULT: 2}


@virtual_time
async def test_an_api_that_names_nobody_stops_the_run() -> None:
    """At the first whole answers, naming the setting that may be wrong; nothing is claimed."""
    rig = Rig(wrap=only(lambda _: False))
    found = await rig.run(users(1000))

    assert "missing_result" in str(rig.lane.reason)
    assert found == {}
    assert len(rig.data_requests) <= 8


@virtual_time
async def test_an_api_that_lists_only_failures() -> None:
    """With missing_result = "success" that is understood: one request a batch, no warning."""
    rig = Rig(
        options(roster=RosterOptions(unknown=re.compile(r"7@"))),
        wrap=only(lambda user: "7@" in user),
        missing_result="success",
    )
    await rig.run(users(200))

    assert rig.codes() == {Code.SUCCESS: 180, Code.USER_NOT_FOUND: 20}
    assert len(rig.data_requests) == 20
    assert rig.warnings == []
