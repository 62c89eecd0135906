"""What holds whatever API is emulated: one table, one protocol."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, get_args

import pytest

from loader.errors import TransportError
from loader.request import Request
from loader.sandbox import (
    CalvenOptions,
    DescopeOptions,
    DxOptions,
    FaultOptions,
    Ledger,
    LedgerOptions,
    Memory,
    Options,
    QuotaOptions,
    RecordsOptions,
    ScimOptions,
)
from loader.sandbox.api import path_of
from loader.sandbox.options import ApiName, Fault
from loader.sandbox.roster import Roster
from loader.sandbox.sandbox import APIS
from tests.virtual_time import virtual_time

TOKEN = "a-token"


@dataclass(frozen=True)
class Sample:
    """An API with a request that it takes, how many users that carries, and a call of its before any user."""

    options: Options
    path: str
    body: object
    users: int
    before: Request
    method: str = "POST"
    content_type: str = "application/json"
    token: str = TOKEN

    def request(self, token: str = "") -> Request:
        headers = {"Authorization": f"Bearer {token or self.token}", "Content-Type": self.content_type}
        return Request(self.method, self.path, json.dumps(self.body).encode(), headers)

    def memory(self, faults: FaultOptions | None = None, *quotas: QuotaOptions) -> Memory:
        changes = {"faults": faults or FaultOptions(), "quotas": quotas}
        return Memory(self.options.model_copy(update=changes), clock=asyncio.get_running_loop().time)


GRANT = b"grant_type=client_credentials&client_id=me&client_secret=s"


def scim_bulk() -> dict[str, object]:
    """Patches of three users, whose ids are asked for."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    api = APIS["scim"](SCIM, Roster(SCIM.roster), Ledger(SCIM.ledger))
    message = "urn:ietf:params:scim:api:messages:2.0:"
    patch = {"schemas": [f"{message}PatchOp"], "Operations": [{"op": "replace", "path": "title", "value": "Dr"}]}
    steps = []
    for name in "abc":
        query = f"/Users?filter=userName%20eq%20%22{name}%22"
        (user,) = json.loads(api.handle(Request("GET", query, b"", headers), 0).body)["Resources"]
        steps.append({"method": "PATCH", "path": f"/Users/{user['id']}", "bulkId": name, "data": patch})
    return {"schemas": [f"{message}BulkRequest"], "Operations": steps}


SCIM = Options(api="scim", scim=ScimOptions(token=TOKEN))

SAMPLES: dict[ApiName, Sample] = {
    "calven": Sample(
        Options(calven=CalvenOptions(token=TOKEN, key_id="me", secret="s")),
        "/v1/directory/user-attributes",
        {"userAttributes": [{"userName": name, "attributes": {"x": "1"}} for name in "abc"]},
        users=3,
        before=Request(
            "POST", "/v1/auth/token", b'{"client_id":"me","client_secret":"s"}', {"Content-Type": "application/json"}
        ),
    ),
    "dx": Sample(
        Options(api="dx", dx=DxOptions(token=TOKEN)),
        "/users.attributes.update",
        {"email": "a@example.com", "attributes": [{"name": "x", "value": "1"}]},
        users=1,
        before=Request("GET", "/auth.whoami", b"", {"Authorization": f"Bearer {TOKEN}"}),
    ),
    "descope": Sample(
        Options(api="descope", descope=DescopeOptions(project_id="P", management_key="K")),
        "/v1/mgmt/user/update/customAttribute",
        {"loginId": "a", "attributeKey": "x", "attributeValue": "1"},
        users=1,
        before=Request("GET", "/v1/mgmt/license", b"", {"Authorization": "Bearer P:K"}),
        token="P:K",
    ),
    "scim": Sample(
        SCIM,
        "/Bulk",
        scim_bulk(),
        users=3,
        before=Request("GET", "/ServiceProviderConfig"),
        content_type="application/scim+json",
    ),
    "http": Sample(
        Options(api="http", http=RecordsOptions(token=TOKEN, client_id="me", client_secret="s")),
        "/v1/records",
        {"records": [{"id": name, "x": "1"} for name in "abc"]},
        users=3,
        before=Request("POST", "/oauth/token", GRANT, {"Content-Type": "application/x-www-form-urlencoded"}),
    ),
}

every_api = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())


def users_in(body: bytes, sample: Sample) -> list[dict[str, Any]]:
    """The entries of an answer, without the code under test."""
    whole = json.loads(body)
    found = whole.get({"calven": "results", "scim": "Operations", "http": "results"}.get(sample.options.api, "user"))
    return [found] if isinstance(found, dict) else found or []


def test_every_api_is_there() -> None:
    """Each name has an emulation, options of its own under that name, and a sample here."""
    assert set(get_args(ApiName)) == set(APIS) == set(SAMPLES)
    assert set(APIS) <= set(Options.model_fields)


@every_api
@virtual_time
async def test_what_it_says_of_requests(sample: Sample) -> None:
    """It knows its paths and how many users a request carries; nonsense carries none."""
    api = sample.memory().sandbox.api
    nonsense = Request(sample.method, sample.path, b"{", sample.request().headers)

    assert [api.endpoint(path_of(path))[0] for path in (sample.path, sample.before.path, "/nothing/here")] == [
        "data",
        "token",
        "other",
    ]
    assert api.endpoint(sample.path)[1] == sample.path
    assert [api.users(request) for request in (sample.request(), sample.before, nonsense)] == [sample.users, 0, 0]


@every_api
@virtual_time
async def test_good_requests_are_taken(sample: Sample) -> None:
    """The samples are good, and its stats are JSON."""
    send = sample.memory()

    assert (await send(sample.before)).status == 200
    assert (await send(sample.request())).status == 200
    assert (await send(sample.request("wrong"))).status == 401
    report = json.loads(json.dumps(send.sandbox.report()))
    assert report["requests"] == {sample.before.path: {"200": 1}, sample.path: {"200": 1, "401": 1}}
    assert len(report["token_calls"]) == 1


@every_api
@virtual_time
async def test_a_quota_refuses_in_the_words_of_the_api(sample: Sample) -> None:
    """429 with a pause, for handshakes and token calls too; nothing is written."""
    send = sample.memory(None, QuotaOptions(requests=1, window_s=60))
    statuses = [(await send(request)).status for request in (sample.before, sample.request(), sample.before)]
    refusal = await send(sample.request())

    assert statuses == [200, 429, 429]
    assert refusal.headers["retry-after"] == "60"
    assert refusal.body == send.sandbox.api.refuse(429, "Too many requests").body
    assert send.ledger.writes == 0
    assert send.sandbox.quotas[0].refused == 3


@every_api
@virtual_time
async def test_a_quota_of_users_counts_those_of_a_request(sample: Sample) -> None:
    """The users that a request carries are counted, as read from its body; calls that carry none go through."""
    send = sample.memory(None, QuotaOptions(users=sample.users, window_s=60))
    requests = (sample.before, sample.request(), sample.before, sample.request())

    assert [(await send(request)).status for request in requests] == [200, 200, 200, 429]
    assert send.sandbox.quotas[0].peak == 2 * sample.users


@pytest.mark.parametrize(("api", "room"), [("calven", None), ("dx", 1000), ("descope", 500)])
@virtual_time
async def test_documented_quotas_hold_unless_told(api: ApiName, room: int | None) -> None:
    """What an API's documents allow passes in a minute, and not one more; its penalty lasts."""
    sample = SAMPLES[api]
    options = sample.options.model_copy(update={"ledger": LedgerOptions(count_only=True)})
    send = Memory(options, clock=asyncio.get_running_loop().time)
    statuses = [(await send(sample.request())).status for _ in range(1100)]
    assert statuses.count(200) == (room or 1100)
    await asyncio.sleep(59)
    assert (await send(sample.request())).status == (429 if room else 200)
    await asyncio.sleep(1.1)
    assert (await send(sample.request())).status == 200


@every_api
@virtual_time
async def test_it_can_be_down(sample: Sample) -> None:
    """Every connection is cut, whatever it was for; then all goes on."""
    send = sample.memory(FaultOptions(down=((0, 10),)))
    for request in (sample.request(), sample.before):
        with pytest.raises(TransportError, match="refused"):
            await send(request)
    await asyncio.sleep(10)

    assert (await send(sample.request())).status == 200


@every_api
@virtual_time
async def test_tokens_are_revoked(sample: Sample) -> None:
    """Then the token of the start is refused."""
    send = sample.memory()
    send.sandbox.api.revoke()

    assert (await send(sample.request())).status == 401


@pytest.mark.parametrize("fault", ["400", "401", "408", "429", "500", "502", "503"])
@every_api
@virtual_time
async def test_refusals_are_worded_by_the_api(sample: Sample, fault: Fault) -> None:
    """A fault's status is the API's error; a gateway's 502 is a page."""
    send = sample.memory(FaultOptions(rates={fault: 1}))
    response = await send(sample.request())

    assert response.status == int(fault)
    assert send.ledger.writes == 0
    if fault == "502":
        assert response.headers["content-type"] == "text/html"
    else:
        assert json.loads(response.body).keys() == json.loads(send.sandbox.api.refuse(418, "x").body).keys()


@pytest.mark.parametrize("fault", ["missing", "doubled", "foreign", "wrong-type"])
@every_api
@virtual_time
async def test_good_answers_are_spoilt(sample: Sample, fault: Fault) -> None:
    """What is said of users is wrong, after they are written; one user's answer can't be doubled."""
    good = users_in((await sample.memory()(sample.request())).body, sample)
    send = sample.memory(FaultOptions(rates={fault: 1}))
    response = await send(sample.request())

    assert response.status == 200
    assert send.ledger.writes > 0
    match fault:
        case "missing":
            assert len(users_in(response.body, sample)) < len(good) == sample.users
        case "doubled":
            assert len(users_in(response.body, sample)) == len(good) + (sample.users > 1)
        case "foreign":
            assert "stranger-" in str(users_in(response.body, sample)[-1])
        case _:
            assert users_in(response.body, sample) != good
