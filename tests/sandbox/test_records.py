"""The plain JSON API and its token endpoint, the latter as RFC 6749 describes it. Requests are written by hand."""

import base64
import json
import re
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest

from loader.request import Request, Response
from loader.sandbox import FaultOptions, Ledger, LedgerOptions, Memory, Options, RecordsOptions, RosterOptions
from loader.sandbox.api import Api
from loader.sandbox.records import Records
from loader.sandbox.roster import Roster

# RFC 6749 §2.3.1 and §4.4.2, the examples.
CLIENT_ID = "s6BhdRkqt3"
SECRET = "7Fjfp0ZBr1KtDRbnfVdmIw"
BASIC = "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3"
GRANT = b"grant_type=client_credentials"

TOKEN = "a-fixed-token"
NOW = 1_700_000_000.0


def call(method: str, path: str, body: object = b"", **headers: str) -> Request:
    """A request with the fixed token; keyword `content_type` is the header Content-Type, and "" takes one away."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    given |= {name.replace("_", "-").title(): value for name, value in headers.items()}
    return Request(method, path, raw, {name: value for name, value in given.items() if value})


def post(*records: object, path: str = "/v1/records", **headers: str) -> Request:
    return call("POST", path, {"records": list(records)}, **headers)


def record(user: str, **attributes: object) -> dict[str, object]:
    return {"id": user, **attributes}


def grant(body: bytes = GRANT, authorization: str = BASIC, path: str = "/oauth/token", **headers: str) -> Request:
    """A token call, as the example of §4.4.2 unless told."""
    given = {"content_type": "application/x-www-form-urlencoded", **headers}
    return call("POST", path, body, authorization=authorization, **given)


def form(**parameters: str) -> bytes:
    return urlencode({"grant_type": "client_credentials", **parameters}).encode()


class Bench:
    """A plain API with its ledger."""

    def __init__(self, roster: RosterOptions | None = None, ledger: LedgerOptions | None = None, **given: Any) -> None:
        self.ledger = Ledger(ledger or LedgerOptions())
        client = {"client_id": CLIENT_ID, "client_secret": SECRET, "token": TOKEN}
        options = RecordsOptions.model_validate({**client, **given})
        self.api: Api = Records(options, Roster(roster or RosterOptions()), self.ledger)

    def response(self, request: Request, now: float = NOW) -> Response:
        return self.api.handle(request, now)

    def status(self, request: Request, now: float = NOW) -> int:
        return self.response(request, now).status

    def body(self, request: Request, status: int = 200) -> Any:
        response = self.response(request)
        assert response.status == status, response.body
        return json.loads(response.body)

    def results(self, *records: object) -> list[tuple[str, str]]:
        """Whose each result is, and what it says."""
        return [(result["id"], result["status"]) for result in self.body(post(*records))["results"]]

    def grant_error(self, request: Request) -> tuple[int, str]:
        """Status and error of a token call."""
        response = self.response(request)
        body = json.loads(response.body)
        assert body.keys() == {"error", "error_description"}
        assert response.headers["cache-control"] == "no-store"
        return response.status, body["error"]

    def token(self, now: float = NOW) -> str:
        token: str = json.loads(self.response(grant(), now).body)["access_token"]
        return token

    def attributes(self) -> dict[str, dict[str, Any]]:
        return {user: entry.attributes for user, entry in self.ledger.users.items()}


# Records


def test_records_are_taken_one_by_one() -> None:
    """A result each, in the order sent; what is taken stands in the ledger, beside what was there."""
    bench = Bench(RosterOptions(unknown=re.compile("zoe")), failing="title=$")
    bench.results(record("ann", title="Dr", level=3))

    assert bench.body(post(record("bob", title=""), record("zoe"), record("ann", title="Prof", tags=[None]))) == {
        "results": [
            {"id": "bob", "status": "invalid", "message": "not valid"},
            {"id": "zoe", "status": "not_found", "message": "no such user"},
            {"id": "ann", "status": "ok", "message": "stored"},
        ]
    }
    assert bench.attributes() == {"ann": {"title": "Prof", "level": 3, "tags": [None]}}


def test_a_write_may_replace() -> None:
    bench = Bench(ledger=LedgerOptions(write="replace"))
    bench.results(record("ann", title="Dr"), record("ann", level=3))

    assert bench.attributes() == {"ann": {"level": 3}}


def test_names_and_places_are_the_owners() -> None:
    """Path, method, wrapper, key, the place of attributes and of results, and the words of the answer."""
    bench = Bench(
        RosterOptions(unknown=re.compile("zoe")),
        path="/api/rows",
        method="PUT",
        wrapper="rows",
        key="email",
        attributes="fields",
        results="data.items",
        result_key="who",
        status="done",
        success=True,
        unknown=404,
        success_status=207,
    )
    rows = [{"email": "zoe", "fields": {"a": 1}}, {"email": "ann", "fields": {"email": "a@x"}}]

    assert bench.body(call("PUT", "/api/rows/?dry=no", {"rows": rows}), 207) == {
        "data": {
            "items": [
                {"who": "zoe", "done": 404, "message": "no such user"},
                {"who": "ann", "done": True, "message": "stored"},
            ]
        }
    }
    assert bench.attributes() == {"ann": {"email": "a@x"}}
    assert bench.status(post(record("ann"))) == 404
    assert bench.status(call("POST", "/api/rows", {"rows": []})) == 405


def test_a_bare_list_for_a_bare_list() -> None:
    bench = Bench(body="list", results="")

    results = bench.body(call("POST", "/v1/records", [record("ann", title="Dr")]))
    assert results == [{"id": "ann", "status": "ok", "message": "stored"}]
    assert bench.status(post(record("ann"))) == 422


def test_one_record_a_request() -> None:
    """Its status is the request's."""
    bench = Bench(RosterOptions(unknown=re.compile("zoe")), body="one", failing="title=x", results="result")

    def sent(**fields: object) -> Request:
        return call("POST", "/v1/records", fields)

    assert bench.body(sent(id="ann", title="Dr"))["result"] == {"id": "ann", "status": "ok", "message": "stored"}
    assert bench.status(sent(id="zoe")) == 404
    assert bench.status(sent(id="ann", title="x")) == 422
    assert bench.status(post(record("ann"))) == 422
    assert bench.attributes() == {"ann": {"title": "Dr"}}
    assert bench.api.users(sent(id="ann")) == 1


def test_an_answer_without_results() -> None:
    """No body; one user who can't be written spoils the request, and nobody is written."""
    bench = Bench(RosterOptions(unknown=re.compile("zoe")), results=None, success_status=204, failing="title=x")

    response = bench.response(post(record("ann"), record("bob")))
    assert (response.status, response.body) == (204, b"")
    assert bench.status(post(record("cy"), record("zoe"))) == 404
    assert bench.status(post(record("cy"), record("dan", title="x"))) == 422
    assert list(bench.ledger.users) == ["ann", "bob"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        ([], 422),
        ({}, 422),
        ({"rows": []}, 422),
        ({"records": [], "more": 1}, 422),
        ({"records": {}}, 422),
        ({"records": [7]}, 422),
        ({"records": [{}]}, 422),
        ({"records": [{"id": 7}]}, 422),
        ({"records": [{"id": ""}]}, 422),
        ({"records": [record("ann"), {"id": None}]}, 422),
    ],
)
def test_bodies_that_are_not_valid(body: object, status: int) -> None:
    """They are refused whole; which status that has is the owner's choice."""
    bench = Bench()

    assert bench.status(call("POST", "/v1/records", body)) == status
    assert Bench(invalid_status=400).status(call("POST", "/v1/records", body)) == 400
    assert bench.ledger.writes == 0


@pytest.mark.parametrize("wrong", [record("ann"), record("ann", fields=7), record("ann", fields={}, more=1)])
def test_attributes_in_their_place(wrong: object) -> None:
    bench = Bench(attributes="fields")

    assert bench.status(post(wrong)) == 422
    assert bench.status(post(record("ann", fields={}))) == 200


def test_too_much() -> None:
    """413, or what the owner says."""
    bench = Bench(max_users=2, max_bytes=100)

    assert bench.status(post(*map(record, "abc"))) == 413
    assert bench.status(post(record("ann", title="x" * 100))) == 413
    assert bench.status(post(*map(record, "ab"))) == 200
    assert Bench(max_users=2, too_large_status=400).status(post(*map(record, "abc"))) == 400


def test_a_user_twice() -> None:
    """The last one stands, or the request is refused."""
    twice = post(record("ann", title="Dr"), record("ann", title="Prof"))
    bench, strict = Bench(), Bench(repeated="refuse")

    assert [result["status"] for result in bench.body(twice)["results"]] == ["ok", "ok"]
    assert bench.attributes() == {"ann": {"title": "Prof"}}
    assert strict.status(twice) == 422
    assert strict.ledger.writes == 0


def test_a_poisoned_user_spoils_the_request() -> None:
    bench = Bench(RosterOptions(poison=re.compile("bad")))

    assert bench.status(post(record("ann"), record("bad"))) == 422
    assert bench.ledger.writes == 0


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_only_json_is_taken(content_type: str) -> None:
    assert Bench().status(post(record("ann"), content_type=content_type)) == 415
    assert Bench().status(post(record("ann"), content_type="Application/JSON; charset=utf-8")) == 200


# Tokens


def test_a_client_gets_a_token() -> None:
    """§4.4.3: by Basic as in the example of §4.4.2; the answer is not to be kept by anybody on the way."""
    bench = Bench()
    response = bench.response(grant())

    body = json.loads(response.body)
    token = body.pop("access_token")
    assert (response.status, body) == (200, {"token_type": "Bearer", "expires_in": 3600})
    assert response.headers["cache-control"] == "no-store"
    assert bench.status(post(record("ann"), authorization=f"bearer {token}")) == 200


def test_a_client_may_stand_in_the_body() -> None:
    """§2.3.1; a service must take Basic, and may take the body. Never both (§2.3)."""
    in_body = form(client_id=CLIENT_ID, client_secret=SECRET)
    bench, basic, body = Bench(), Bench(client_auth="basic"), Bench(client_auth="body")

    assert bench.status(grant(in_body, authorization="")) == 200
    assert bench.grant_error(grant(in_body)) == (400, "invalid_request")
    assert basic.status(grant()) == 200
    assert basic.grant_error(grant(in_body, authorization="")) == (401, "invalid_client")
    assert body.status(grant(in_body, authorization="")) == 200
    assert body.grant_error(grant()) == (401, "invalid_client")
    assert bench.status(grant(form(client_id=CLIENT_ID))) == 200, "a client_id without a secret is no credential"


def test_odd_characters_in_a_secret() -> None:
    """§2.3.1: id and secret are form-encoded before they are joined for Basic."""
    odd: dict[str, Any] = {"client_id": "id:1 é", "client_secret": "s+%:/ 1"}
    bench = Bench(**odd)
    pair = f"{quote_plus('id:1 é')}:{quote_plus('s+%:/ 1')}"

    assert bench.status(grant(authorization="Basic " + base64.b64encode(pair.encode()).decode())) == 200
    raw = base64.b64encode("id:1 é:s+%:/ 1".encode()).decode()
    assert bench.grant_error(grant(authorization=f"Basic {raw}")) == (401, "invalid_client")
    assert bench.status(grant(form(**odd), authorization="")) == 200
    careless = Bench(**{**odd, "client_id": "id"}, client_encoding="raw")
    raw = base64.b64encode(b"id:s+%:/ 1").decode()
    assert careless.status(grant(authorization=f"Basic {raw}")) == 200


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        (grant(b""), 400, "invalid_request"),
        (grant(b"scope=read"), 400, "invalid_request"),
        (grant(b"grant_type="), 400, "invalid_request"),
        (grant(GRANT + b"&" + GRANT), 400, "invalid_request"),
        (grant(GRANT + b"&scope"), 400, "invalid_request"),
        (grant(b"\xff"), 400, "invalid_request"),
        (grant(b'{"grant_type":"client_credentials"}', content_type="application/json"), 400, "invalid_request"),
        (grant(b"grant_type=password"), 400, "unsupported_grant_type"),
        (grant(form(scope="read erase")), 400, "invalid_scope"),
        (grant(authorization=""), 401, "invalid_client"),
        (grant(authorization="Basic x"), 401, "invalid_client"),
        (grant(authorization="Basic /w=="), 401, "invalid_client"),
        (grant(authorization="Basic czZCaGRSa3F0Mzp3cm9uZw=="), 401, "invalid_client"),
        (grant(authorization=f"Bearer {TOKEN}"), 401, "invalid_client"),
        (grant(form(client_id=CLIENT_ID, client_secret="wrong"), authorization=""), 401, "invalid_client"),
        (grant(form(client_secret=SECRET), authorization=""), 401, "invalid_client"),
    ],
)
def test_token_calls_that_are_refused(request_: Request, status: int, error: str) -> None:
    """§5.2: 400, or 401 for an unknown client, with a challenge if it tried the header."""
    bench = Bench(scopes={"read", "write"})

    assert bench.grant_error(request_) == (status, error)
    challenged = "www-authenticate" in bench.response(request_).headers
    assert challenged == (status == 401 and "Authorization" in request_.headers)


def test_scopes() -> None:
    """§3.3: what may be asked for; the answer names what was."""
    bench = Bench(scopes={"read", "write"})

    assert bench.body(grant(form(scope="write read")))["scope"] == "write read"
    assert "scope" not in bench.body(grant())
    assert Bench().body(grant(form(scope="anything")))["scope"] == "anything"


@pytest.mark.parametrize(
    ("how", "shown"),
    [("number", {"expires_in": 90}), ("text", {"expires_in": "90"}), ("absent", {})],
)
def test_the_lifetime_as_told(how: str, shown: dict[str, object]) -> None:
    """§5.1: a number of seconds; some services write it as text, or leave it out."""
    body = Bench(token_lifetime_s=90, expires_in=how).body(grant())

    assert {name: body[name] for name in body if name == "expires_in"} == shown
    assert Bench(token_lifetime_s=0.5).body(grant())["expires_in"] == 0.5


def test_tokens_end_one_by_one() -> None:
    """A new token leaves the older ones alone; a revocation ends all, the fixed one too."""
    bench = Bench(token_lifetime_s=10)
    first, second = bench.token(NOW), bench.token(NOW + 5)

    def statuses(now: float) -> list[int]:
        return [bench.status(post(authorization=f"Bearer {token}"), now) for token in (first, second, TOKEN)]

    assert statuses(NOW + 9.9) == [200, 200, 200]
    assert statuses(NOW + 10) == [401, 200, 200]
    third = bench.token(NOW + 12)  # forgets what has ended
    assert statuses(NOW + 14.9) == [401, 200, 200]
    bench.api.revoke()
    assert statuses(NOW + 14.9) == [401, 401, 401]
    assert bench.status(post(authorization=f"Bearer {third}"), NOW + 13) == 401
    assert bench.status(post(authorization=BASIC)) == 200


# Credentials


@pytest.mark.parametrize(
    ("scheme", "headers"),
    [
        ("bearer", {"authorization": f"Bearer {TOKEN}"}),
        ("basic", {"authorization": BASIC}),
        ("api-key", {"authorization": "", "x_api_key": SECRET}),
    ],
)
def test_each_scheme_alone(scheme: str, headers: dict[str, str]) -> None:
    """What is taken is what the scheme asks for, and no other's credentials."""
    bench = Bench(schemes={scheme})
    every = [{"authorization": f"Bearer {TOKEN}"}, {"authorization": BASIC}, {"authorization": "", "x_api_key": SECRET}]

    assert bench.status(post(**headers)) == 200
    assert [bench.status(post(**other)) for other in every if other != headers] == [401, 401]
    assert bench.grant_error(grant()) == (400, "unauthorized_client")


def test_only_tokens_that_were_granted() -> None:
    bench = Bench(schemes={"oauth"})

    assert bench.status(post()) == 401
    assert bench.status(post(authorization=f"Bearer {bench.token()}")) == 200


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", TOKEN, "Basic wrong", f"Basic {TOKEN}"])
def test_without_credentials(authorization: str) -> None:
    """401 with a challenge."""
    bench = Bench()
    response = bench.response(post(record("ann"), authorization=authorization, x_api_key="wrong"))

    assert response.status == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    challenge = Bench(schemes={"basic"}).response(post(authorization="")).headers["www-authenticate"]
    assert challenge.startswith("Basic")


def test_a_key_under_another_header() -> None:
    bench = Bench(api_key_header="X-Tenant-Key")

    assert bench.status(post(authorization="", x_tenant_key=SECRET)) == 200
    assert bench.status(post(authorization="", x_api_key=SECRET)) == 401


# The rest


def test_kinds_of_requests() -> None:
    api = Bench(path="/rows").api

    assert api.endpoint("/rows") == ("data", "/rows")
    assert api.endpoint("/oauth/token") == ("token", "/oauth/token")
    assert api.endpoint("/v1/records") == ("other", "/v1/records")
    assert api.handle(call("GET", "/oauth/token"), NOW).headers["allow"] == "POST"


def test_users_in_a_request() -> None:
    api = Bench().api

    assert api.users(post(record("ann"), record("bob"))) == 2
    assert [api.users(request) for request in (grant(), post(path="/rows"), call("POST", "/v1/records"))] == [0, 0, 0]


def test_what_it_saw() -> None:
    bench = Bench(RosterOptions(unknown=re.compile("zoe")))
    bench.token()
    bench.results(record("ann"), record("zoe"), record("ann"))

    assert bench.api.facts() == {
        "tokens_issued": 1,
        "results": {"success": 2, "unknown": 1},
        "duplicates": 1,
        "largest_request": 3,
    }


@pytest.mark.parametrize("results", ["results", "", "data.items"])
async def test_results_can_be_spoilt(results: str) -> None:
    """Wherever they are; a renamed one is somebody else's."""
    http = RecordsOptions(token=TOKEN, results=results)
    sandbox = Memory(Options(api="http", http=http, faults=FaultOptions(rates={"foreign": 1.0})))

    body = json.loads((await sandbox(post(record("ann")))).body)
    for name in filter(None, results.split(".")):
        body = body[name]
    assert [result["id"] for result in body] == ["ann", body[1]["id"]]
    assert body[1]["id"].startswith("stranger")
