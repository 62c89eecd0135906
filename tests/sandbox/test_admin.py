"""The sandbox's own endpoints."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from loader.sandbox import CalvenOptions, LedgerOptions, Options, QuotaOptions, Sandbox, serve
from tests.sandbox.calls import BEARER, HIERARCHY, HIERARCHY_EXAMPLE, JSON, PATH, TOKEN, write

CALVEN = CalvenOptions(token=TOKEN)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    options = Options(calven=CALVEN, ledger=LedgerOptions(journal=True), quotas=(QuotaOptions(requests=100),))
    async with serve(options) as served:
        yield served


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(sandbox.url, headers=JSON | BEARER) as session:
        yield session


async def get(http: aiohttp.ClientSession, path: str, status: int = 200) -> str:
    async with http.get(f"/_sandbox/{path}") as response:
        assert response.status == status
        return await response.text()


async def send(http: aiohttp.ClientSession, *users: str, **attributes: object) -> int:
    async with http.post(PATH, data=write(*users, **attributes).body) as response:
        return response.status


async def test_stats_tell_what_was_seen(http: aiohttp.ClientSession) -> None:
    """Counts by path and status, users, writes, peaks, duplicates and quotas; asking counts for nothing."""
    await send(http, "a", "b", "a")
    await send(http, "a")
    await http.post("/v1/auth/token", data=b"{}", headers={"x-calven-region": "ause1"})
    await http.post("/elsewhere")
    await get(http, "stats")

    found: dict[str, Any] = json.loads(await get(http, "stats"))
    (called,) = found.pop("token_calls")
    assert called > 1e9
    assert found.pop("peak_arrivals")["60s"] == 4
    assert found == {
        "requests": {PATH: {"200": 2}, "/v1/auth/token": {"400": 1}, "/elsewhere": {"404": 1}},
        "peak_data_requests": 1,
        "peak_token_calls": 1,
        "tokens_issued": 0,
        "results": {"0": 4},
        "duplicates": 1,
        "largest_request": 3,
        "last_region": None,
        "users": 2,
        "writes": 4,
        "hierarchies": 0,
        "quotas": [{"quota": "100 requests/60s sliding", "peak": 4, "refused": 0}],
    }


async def test_users_as_ndjson(http: aiohttp.ClientSession) -> None:
    """All users, however many, a line each."""
    await send(http, *(f"user{number}" for number in range(2500)), v="1")

    lines = (await get(http, "users")).splitlines()
    assert len(lines) == 2500
    assert json.loads(lines[-1]) == {"userName": "user2499", "attributes": {"v": "1"}, "writes": 1}


@pytest.mark.parametrize("user", ["jane@example.com", "a/b?c#d", "ü %41"])
async def test_one_user(sandbox: Sandbox, http: aiohttp.ClientSession, user: str) -> None:
    """A user is found under its quoted name."""
    await send(http, user, v="1")
    quoted = "".join(f"%{byte:02X}" for byte in user.encode())

    url = URL(f"{sandbox.url}/_sandbox/users/{quoted}", encoded=True)  # without the client's own quoting
    async with http.get(url) as response:
        assert await response.json() == {"userName": user, "attributes": {"v": "1"}, "writes": 1}


async def test_the_journal_in_order(http: aiohttp.ClientSession) -> None:
    """Every write, as it came."""
    await send(http, "a", v="1")
    await send(http, "b", "a", v="2")

    assert [json.loads(line) for line in (await get(http, "journal")).splitlines()] == [
        {"userName": "a", "attributes": {"v": "1"}},
        {"userName": "b", "attributes": {"v": "2"}},
        {"userName": "a", "attributes": {"v": "2"}},
    ]


async def test_the_hierarchy_as_ndjson(http: aiohttp.ClientSession) -> None:
    """The last one accepted, in the order sent; its acceptance is counted."""
    assert await get(http, "hierarchy") == ""
    async with http.put(HIERARCHY, data=HIERARCHY_EXAMPLE) as response:
        assert (response.status, await response.read()) == (204, b"")

    lines = [json.loads(line) for line in (await get(http, "hierarchy")).splitlines()]
    assert lines == json.loads(HIERARCHY_EXAMPLE)["groupRelationships"]
    assert json.loads(await get(http, "stats"))["hierarchies"] == 1


async def test_what_is_not_there() -> None:
    """Unknown users and endpoints are 404, and so is a journal that isn't kept, or another API's hierarchy."""
    async with serve(Options(calven=CALVEN)) as served, aiohttp.ClientSession(served.url) as http:
        for path in ("users/nobody", "journal", "more", ""):
            assert "nothing at GET" in await get(http, path, status=404)
    async with serve(Options(api="dx")) as served, aiohttp.ClientSession(served.url) as http:
        assert "nothing at GET" in await get(http, "hierarchy", status=404)


async def test_faults_change_at_run_time(http: aiohttp.ClientSession) -> None:
    """Options named are changed, the others stay; a wrong one changes nothing."""
    for change, status, then in (
        ({"rates": {"503": 1.0}, "seed": 5}, 200, 503),
        ({"rates": {"503": 2.0}}, 400, 503),
        ({"latency": 1}, 400, 503),
        ([], 400, 503),
        ({"rates": {}}, 200, 200),
    ):
        async with http.post("/_sandbox/options", json=change) as response:
            assert response.status == status
            if status == 200:
                assert (await response.json())["seed"] == 5
        assert await send(http, "a") == then


async def test_tokens_are_revoked(http: aiohttp.ClientSession) -> None:
    """After a revocation no token is good."""
    assert await send(http, "a") == 200
    async with http.post("/_sandbox/revoke") as response:
        assert response.status == 204
    assert await send(http, "a") == 401
