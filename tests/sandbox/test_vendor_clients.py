"""The sandbox as the vendors' own clients see it: over a socket, and no line of ours between.

The sandbox is written from documents, and so is the loader: both could have misread one. These clients didn't.
Descope alone has a client for what the loader does; DX and Calven publish none.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from descope import AuthException, DescopeClient, RateLimitException, UserObj

from loader.sandbox import DescopeOptions, FaultOptions, Options, QuotaOptions, RosterOptions, Sandbox, serve

PROJECT_ID = "P2abcdefghijklmnopqrstuvwxyz"
KEY = "K2test-key"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client goes through the proxy of the environment, even to loopback."""
    monkeypatch.setenv("NO_PROXY", "*")


@asynccontextmanager
async def descope(
    roster: RosterOptions | None = None, quota: QuotaOptions | None = None, key: str = KEY, **options: object
) -> AsyncIterator[tuple[Sandbox, DescopeClient]]:
    """A served sandbox and the vendor's client of it. The client blocks: call it in a thread."""
    given = DescopeOptions.model_validate({"project_id": PROJECT_ID, "management_key": KEY, **options})
    served = Options(api="descope", descope=given, roster=roster or RosterOptions(), quotas=(quota,) if quota else ())
    async with serve(served) as sandbox:
        yield sandbox, await asyncio.to_thread(DescopeClient, PROJECT_ID, management_key=key, base_url=sandbox.url)


async def test_an_attribute_is_written_and_read_back() -> None:
    """The client fetches its licence, sends it along, and finds the user in the answers."""
    async with descope(tier="tier2", declared={"team": "string", "floor": "number"}) as (sandbox, client):
        user = client.mgmt.user
        written = await asyncio.to_thread(user.update_custom_attribute, "jane@example.com", "team", "Über")
        await asyncio.to_thread(user.update_custom_attribute, "jane@example.com", "floor", 3)
        loaded = await asyncio.to_thread(user.load, "jane@example.com")
        again = await asyncio.to_thread(user.load_by_user_id, loaded["user"]["userId"])
        definitions = await asyncio.to_thread(user.load_custom_attributes)

    assert written["user"]["loginIds"] == ["jane@example.com"]
    assert loaded["user"]["customAttributes"] == {"team": "Über", "floor": 3}
    assert again == loaded
    assert [each["name"] for each in definitions["data"]] == ["team", "floor"]
    assert sandbox.ledger.users["jane@example.com"].attributes == {"team": "Über", "floor": 3}
    assert sandbox.api.facts()["last_license"] == "tier2"


async def test_a_batch_is_patched() -> None:
    """An unknown user is in `failedUsers`, the others are in `patchedUsers` and in the ledger."""
    roster = RosterOptions(known_users=frozenset({"a@example.com", "c@example.com"}))
    users = [UserObj(f"{name}@example.com", custom_attributes={"team": name}) for name in "abc"]

    async with descope(roster) as (sandbox, client):
        answer = await asyncio.to_thread(client.mgmt.user.patch_batch, users)
        alone = await asyncio.to_thread(client.mgmt.user.patch, "a@example.com", custom_attributes={"floor": 3})

    assert [user["loginIds"] for user in answer["patchedUsers"]] == [["a@example.com"], ["c@example.com"]]
    assert [(failed["failure"], failed["user"]["loginIds"]) for failed in answer["failedUsers"]] == [
        ("User not found", ["b@example.com"])
    ]
    assert alone["user"]["customAttributes"] == {"team": "a", "floor": 3}
    assert {name: entry.attributes for name, entry in sandbox.ledger.users.items()} == {
        "a@example.com": {"team": "a", "floor": 3},
        "c@example.com": {"team": "c"},
    }


async def test_a_refusal_for_pace_is_a_rate_limit_error() -> None:
    """The client reads its code, its words and the seconds to wait."""
    quota = QuotaOptions(requests=2, window_s=60, penalty_s=60)

    async with descope(quota=quota) as (_, client):  # the licence was the first request
        await asyncio.to_thread(client.mgmt.user.update_custom_attribute, "a", "team", "x")
        with pytest.raises(RateLimitException) as caught:
            await asyncio.to_thread(client.mgmt.user.update_custom_attribute, "a", "team", "y")

    assert str(caught.value.status_code) == "E130429"  # annotated as a number, but that is what it puts there
    assert caught.value.error_type == "API rate limit exceeded"
    assert caught.value.error_description == "https://docs.descope.com/rate-limit"
    assert caught.value.error_message == "API rate limit exceeded."
    assert 0 < caught.value.rate_limit_parameters["Retry-After"] <= 60


async def test_a_page_for_a_refusal_is_a_rate_limit_error_too() -> None:
    """The client copes with a 429 from before the API, but then knows no time to wait."""
    async with descope(edge="html") as (sandbox, client):
        sandbox.faults = FaultOptions(rates={"429": 1})
        with pytest.raises(RateLimitException) as caught:
            await asyncio.to_thread(client.mgmt.user.update_custom_attribute, "a", "team", "x")

    assert caught.value.rate_limit_parameters == {}


@pytest.mark.parametrize(
    ("key", "login_id", "status", "code"), [("no", "a", 401, "E111119"), (KEY, "nobody", 400, "E112102")]
)
async def test_errors_are_what_the_client_expects(key: str, login_id: str, status: int, code: str) -> None:
    """A wrong key doesn't keep the client from being made: only its handshake fails, and the first call."""
    async with descope(RosterOptions(known_users=frozenset({"a"})), key=key) as (_, client):
        with pytest.raises(AuthException) as caught:
            await asyncio.to_thread(client.mgmt.user.update_custom_attribute, login_id, "team", "x")

    assert caught.value.status_code == status
    assert f'"errorCode":"{code}"' in str(caught.value.error_message)
