"""Tokens that end in mid-flight, endpoints in trouble, credentials that don't work: whole loads."""

from typing import Literal

import pytest

from loader.errors import Stopped
from loader.outcome import Code
from loader.request import Request, Response
from loader.sandbox import FaultOptions
from loader.transport import Send
from tests.faults.rig import KEY_ID, SECRET, TOKEN, Rig, calven, options, users
from tests.virtual_time import START_S, virtual_time


@pytest.mark.parametrize("auth", ["client-secret", "hmac"])
@pytest.mark.parametrize("unit", ["s", "ms"])
@virtual_time
async def test_two_second_tokens_under_32_requests_at_once(auth: str, unit: Literal["s", "ms"]) -> None:
    """Renewed ahead of their end, once for all: never two calls at once, no user fails, no call too many."""
    rig = Rig(
        options(
            FaultOptions(latency_s=0.2, jitter_s=0.1),
            calven=calven(token_lifetime_s=2.0, expiration_unit=unit),
        ),
        auth=auth,
        concurrency=32,
    )
    await rig.run(users(20_000))

    run_time = rig.sent[-1][0] - START_S
    lifetime = 2.0 if auth == "client-secret" else 1.0  # an absolute expiration is in whole seconds
    assert rig.codes() == {Code.SUCCESS: 20_000}
    assert run_time > 10
    assert len(rig.token_calls) <= run_time / (0.8 * lifetime) + 2
    assert rig.memory.stats.peak_in_flight["token"] == 1


@virtual_time
async def test_tokens_revoked_under_32_requests() -> None:
    """All in flight are refused together: one refresh, and all users settle."""
    rig = Rig(options(FaultOptions(latency_s=0.1, jitter_s=1.5, unauthorized_once_at_s=3.2)), concurrency=32)
    await rig.run(users(5_000))

    refused = rig.memory.stats.requests["/v1/directory/user-attributes", "401"]
    assert rig.codes() == {Code.SUCCESS: 5_000}
    assert len(rig.token_calls) == 2
    assert 0 < refused <= 32
    assert len(rig.data_requests) == 500 + refused


@pytest.mark.parametrize(
    ("auth", "wrong"),
    [
        ("bearer", {"token": "wrong-token"}),
        ("basic", {"key_id": KEY_ID, "secret": "wrong-secret"}),
        ("client-secret", {"key_id": KEY_ID, "secret": "wrong-secret"}),
        ("hmac", {"key_id": KEY_ID, "secret": "wrong-secret"}),
    ],
)
@virtual_time
async def test_wrong_credentials_stop_the_run(auth: str, wrong: dict[str, str]) -> None:
    """At once, exit 3, nothing accepted, with the API's words and without the secret."""
    rig = Rig(options(FaultOptions(latency_s=0.1)), auth=auth, secrets=wrong, concurrency=8)
    found = await rig.run(users(1000))

    assert isinstance(rig.lane.reason, Stopped)
    assert rig.lane.reason.exit_status == 3
    assert "HTTP 401" in str(rig.lane.reason)
    assert "wrong-" not in str(rig.lane.reason)
    assert found == {}
    assert len(rig.sent) <= 3 * 8


@pytest.mark.parametrize("auth", ["bearer", "basic", "client-secret"])
@virtual_time
async def test_a_single_401_out_of_the_blue_is_survived(auth: str) -> None:
    """A gateway's mistake in the middle of a load costs a request and no user, whatever the scheme."""
    count = 0

    def wrap(send: Send) -> Send:
        async def with_a_mistake(request: Request) -> Response:
            nonlocal count
            count += request.users > 0
            response = await send(request)
            return Response(401, {}, b"who are you?") if request.users and count == 20 else response

        return with_a_mistake

    rig = Rig(options(FaultOptions(latency_s=0.1)), auth=auth, concurrency=1, wrap=wrap)
    await rig.run(users(1000))

    assert rig.lane.reason is None
    assert rig.codes() == {Code.SUCCESS: 1000}
    assert len(rig.data_requests) == 101


@virtual_time
async def test_a_token_endpoint_in_trouble_only_slows_the_load() -> None:
    """5xx, 429, resets and garbage there are waited out."""
    rig = Rig(
        options(
            FaultOptions(
                on="token",
                latency_s=0.1,
                rates={"500": 0.2, "429": 0.2, "503": 0.1, "reset": 0.1, "torn": 0.1, "garbage": 0.1},
            ),
            calven=calven(token_lifetime_s=2.0),
        ),
        concurrency=8,
    )
    await rig.run(users(3000))

    assert rig.lane.reason is None
    assert rig.codes() == {Code.SUCCESS: 3000}


@virtual_time
async def test_a_secret_revoked_in_mid_load_stops_it_and_keeps_what_is_settled() -> None:
    """What was taken before is durable; the rest is unsettled."""

    def wrap(send: Send) -> Send:
        async def until_then(request: Request) -> Response:
            if rig.sent and rig.sent[-1][0] > START_S + 5:
                return Response(401, {}, b'{"message":"key revoked"}')
            return await send(request)

        return until_then

    rig = Rig(options(FaultOptions(latency_s=0.5)), wrap=wrap)
    found = await rig.run(users(5000))

    assert "key revoked" in str(rig.lane.reason)
    assert rig.codes() == {Code.SUCCESS: len(found)}
    assert len(found) == rig.memory.ledger.writes > 0


@virtual_time
async def test_no_outcome_or_warning_holds_a_secret() -> None:
    """Not even with an API that repeats the request in its refusals."""

    def wrap(send: Send) -> Send:
        async def echo(request: Request) -> Response:
            if not request.users:
                return await send(request)
            return Response(400, {}, f"{dict(request.headers)} {SECRET}".encode())

        return echo

    for auth in ("bearer", "basic", "client-secret", "hmac"):
        rig = Rig(auth=auth, wrap=wrap)
        await rig.run(users(30))
        text = f"{[item.outcome for item in rig.checkpoint.rows().values()]} {rig.warnings} {rig.lane.reason}"
        assert rig.codes() == {Code.INVALID: 30}
        for _, request in rig.sent:
            assert request.headers.get("Authorization", "none").partition(" ")[2] not in text or not request.users
        assert TOKEN not in text
        assert SECRET not in text or auth == "bearer"  # a bearer load doesn't know the other secret
