"""Descope's endpoints, as its pages describe them. Requests are by hand: none comes from the loader's encoder."""

import json
import re
from typing import Any
from urllib.parse import quote

import pytest

from loader.request import Request, Response
from loader.sandbox import DescopeOptions, FaultOptions, Ledger, LedgerOptions, Memory, Options, RosterOptions
from loader.sandbox.api import Api
from loader.sandbox.descope import Descope
from loader.sandbox.roster import Roster

PROJECT_ID = "P2abcdefghijklmnopqrstuvwxyz"
KEY = "K2test-key"
NOW = 0.0

ONE = "/v1/mgmt/user/update/customAttribute"
PATCH = "/v1/mgmt/user/patch"
BATCH = "/v1/mgmt/user/patch/batch"
USER = "/v1/mgmt/user"
LICENSE = "/v1/mgmt/license"
DEFINITIONS = "/v1/mgmt/user/customattributes"

# DOC-4, the sample, to the letter.
EXAMPLE = b"""{
  "loginId": "string",
  "attributeKey": "string",
  "attributeValue": null
}"""

# DOC-4, the fields of a user in the answer.
FIELDS = {
    *("loginIds", "userId", "name", "email", "phone", "verifiedEmail", "verifiedPhone", "roleNames", "userTenants"),
    *("status", "externalIds", "picture", "test", "customAttributes", "createdTime", "TOTP", "SAML", "OAuth"),
    *("webauthn", "password", "ssoAppIds", "givenName", "middleName", "familyName", "editable"),
}


class Bench:
    """A Descope with its ledger."""

    def __init__(self, roster: RosterOptions | None = None, ledger: LedgerOptions | None = None, **given: Any) -> None:
        self.ledger = Ledger(ledger or LedgerOptions())
        options = DescopeOptions.model_validate({"project_id": PROJECT_ID, "management_key": KEY, **given})
        self.api: Api = Descope(options, Roster(roster or RosterOptions()), self.ledger)

    def answer(self, request: Request) -> tuple[int, Any]:
        response = self.api.handle(request, NOW)
        return response.status, json.loads(response.body)

    def good(self, request: Request) -> Any:
        status, body = self.answer(request)
        assert status == 200, body
        return body

    def user(self, request: Request) -> Any:
        return self.good(request)["user"]

    def error(self, request: Request) -> tuple[int, str]:
        """Status and code of an error."""
        status, body = self.answer(request)
        assert body.keys() == {"errorCode", "errorDescription", "errorMessage"}
        return status, body["errorCode"]

    def attributes(self) -> dict[str, Any]:
        return {user: entry.attributes for user, entry in self.ledger.users.items()}


def send(method: str, path: str, body: object = b"", **headers: str) -> Request:
    """A request with the management key; keyword `content_type` is the header Content-Type."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    credentials = {"authorization": f"Bearer {PROJECT_ID}:{KEY}"}
    return Request(method, path, raw, {"content-type": "application/json", **credentials, **given})


def one(login_id: object, key: object, value: object) -> Request:
    """Sets one attribute of one user."""
    return send("POST", ONE, {"loginId": login_id, "attributeKey": key, "attributeValue": value})


def patch(login_id: str, **attributes: object) -> Request:
    return send("PATCH", PATCH, {"loginId": login_id, "customAttributes": attributes})


def batch(*login_ids: str, key: str = "loginId", **attributes: object) -> Request:
    """Patches the same attributes of these users."""
    return send("PATCH", BATCH, {"users": [{key: name, "customAttributes": attributes} for name in login_ids]})


def load(login_id: str, by: str = "loginId") -> Request:
    return send("GET", f"{USER}?{by}={quote(login_id)}")


def outcomes(body: Any) -> tuple[list[str], dict[str, str]]:
    """Of a batch: login ids that were patched, and those that failed with the reason."""
    patched = [user["loginIds"][0] for user in body["patchedUsers"]]
    return patched, {failed["user"]["loginIds"][0]: failed["failure"] for failed in body["failedUsers"]}


# The management key


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        f"Bearer {KEY}",
        f"Bearer {PROJECT_ID}",
        f"Bearer {PROJECT_ID}:no",
        f"Bearer P:{KEY}",
        f"Basic {PROJECT_ID}:{KEY}",
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", ONE), ("PATCH", BATCH), ("GET", LICENSE), ("GET", DEFINITIONS)])
def test_wrong_credentials_are_refused(authorization: str, method: str, path: str) -> None:
    """DOC-4: project id and management key as bearer, joined by a colon; the code is one of the vendor's clients."""
    assert Bench().error(send(method, path, EXAMPLE, authorization=authorization)) == (401, "E111119")


def test_revoking_ends_the_key() -> None:
    """S-P8: a key can be deactivated at any time."""
    bench = Bench()
    bench.api.revoke()

    assert bench.error(one("a", "n", "1")) == (401, "E111119")


def test_the_licence_has_a_tier() -> None:
    """S-P10: clients ask for it first and send it along; the last that came is shown, whichever call it came with."""
    bench = Bench(tier="tier3")

    assert bench.good(send("GET", LICENSE)) == {"rateLimitTier": "tier3"}
    bench.good(send("POST", ONE, EXAMPLE, x_descope_license="tier3"))
    assert bench.api.facts()["last_license"] == "tier3"
    bench.good(send("GET", LICENSE))
    assert bench.api.facts()["last_license"] == "tier3"
    bench.good(send("POST", ONE, EXAMPLE))
    assert bench.api.facts()["last_license"] is None


def test_the_licence_may_be_out_of_reach() -> None:
    """S-P10: clients go on without it."""
    response = Bench(tier=None).api.handle(send("GET", LICENSE), NOW)

    assert (response.status, response.headers["content-type"]) == (500, "text/html")


# Paths


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", f"{ONE}/", 200),
        ("PATCH", ONE, 405),
        ("GET", ONE, 405),
        ("POST", BATCH, 405),
        ("POST", LICENSE, 405),
        ("POST", "/v1/mgmt/user/update", 404),
        ("POST", "/v1/mgmt/user/update/customattribute", 404),
    ],
)
def test_only_documented_paths_exist(method: str, path: str, status: int) -> None:
    """Other paths are 404, other methods 405."""
    assert Bench().answer(send(method, path, EXAMPLE))[0] == status


def test_kinds_of_requests() -> None:
    """What touches users is data; licence and definitions come before; each is counted under its path."""
    kinds = {
        **dict.fromkeys((ONE, PATCH, BATCH, USER), "data"),
        **dict.fromkeys((LICENSE, DEFINITIONS), "token"),
        "/v1/mgmt/user/create": "other",
    }

    assert {path: Bench().api.endpoint(path) for path in kinds} == {path: (kind, path) for path, kind in kinds.items()}


@pytest.mark.parametrize(
    ("request_", "users"),
    [
        (one("a", "n", 1), 1),
        (patch("a"), 1),
        (batch("a", "b", "c"), 3),
        (load("a"), 0),
        (send("GET", LICENSE), 0),
        (send("POST", ONE, b"{"), 0),
        (send("POST", ONE, b"7"), 0),
        (send("PATCH", BATCH, b"[]"), 0),
        (send("PATCH", BATCH, b'{"users": 7}'), 0),
    ],
)
def test_users_of_a_request(request_: Request, users: int) -> None:
    """For quotas of users."""
    assert Bench().api.users(request_) == users


# One attribute of one user


def test_the_example_of_the_page_is_accepted() -> None:
    """DOC-4: the answer is the whole user, with the fields of the page."""
    user = Bench().user(send("POST", ONE, EXAMPLE))

    assert user.keys() == FIELDS
    assert (user["loginIds"], user["customAttributes"]) == (["string"], {})


def test_attributes_are_set_one_by_one() -> None:
    """DOC-4: "granularly without updating all user details", whatever a patch does; the answer shows all of them."""
    bench = Bench(ledger=LedgerOptions(write="replace"))
    bench.user(one("a@example.com", "team", "x"))
    user = bench.user(one("a@example.com", "floor", 3))

    assert user["customAttributes"] == {"team": "x", "floor": 3}
    assert user["email"] == "a@example.com"
    assert bench.attributes() == {"a@example.com": {"team": "x", "floor": 3}}
    assert bench.ledger.writes == 2


@pytest.mark.parametrize("value", ["x", "", 7, 1.5, True, [], ["a", "b"], {"deep": [1, {"er": None}]}])
def test_any_json_value_is_taken(value: object) -> None:
    """DOC-4: "a dynamically typed value"."""
    assert Bench().user(one("a", "n", value))["customAttributes"] == {"n": value}


@pytest.mark.parametrize(("null", "left"), [("removes", {"m": "1"}), ("stays", {"m": "1", "n": None})])
def test_null_removes_or_stays(null: str, left: dict[str, object]) -> None:
    """DOC-4 has it in its sample, without a word on what it does."""
    bench = Bench(null=null)
    bench.user(patch("a", m="1", n="2"))

    assert bench.user(one("a", "n", None))["customAttributes"] == left
    assert bench.attributes() == {"a": left}


def test_a_user_id_does_as_well() -> None:
    """S-P11, S-P12: `loginId` takes a login id or a user id; answers tell both."""
    bench = Bench(roster=RosterOptions(known_users=frozenset({"ä@example.com"})))
    user_id = bench.user(one("ä@example.com", "n", 1))["userId"]

    assert bench.user(one(user_id, "n", 2))["loginIds"] == ["ä@example.com"]
    assert bench.user(load(user_id, by="userId"))["customAttributes"] == {"n": 2}
    assert list(bench.attributes()) == ["ä@example.com"]


@pytest.mark.parametrize("login_id", ["U2sandbox", "U2sandboxx", "U2sandbox_w"])
def test_a_login_id_may_look_like_a_user_id(login_id: str) -> None:
    """What can't be read as one of the emulation's user ids is a login id."""
    bench = Bench()
    bench.user(one(login_id, "n", 1))

    assert list(bench.attributes()) == [login_id]


def test_answers_may_list_more_login_ids() -> None:
    """DOC-4: `loginIds` is a list, so the one that was sent needn't stand first."""
    assert Bench(second_login_id=True).user(one("a", "n", 1))["loginIds"] == ["also-a", "a"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "E011001"),
        (b"{", "E011001"),
        (b"[]", "E011001"),
        (b"null", "E011001"),
        (b"{}", "E011002"),
        (b'{"attributeKey": "k", "attributeValue": 1}', "E011002"),
        (b'{"loginId": "a", "attributeValue": 1}', "E011002"),
        (b'{"loginId": "a", "attributeKey": "k"}', "E011002"),
        (b'{"loginId": "", "attributeKey": "k", "attributeValue": 1}', "E011002"),
        (b'{"loginId": "a", "attributeKey": "", "attributeValue": 1}', "E011002"),
        (b'{"loginId": 7, "attributeKey": "k", "attributeValue": 1}', "E011004"),
        (b'{"loginId": "a", "attributeKey": 7, "attributeValue": 1}', "E011004"),
        (b'{"loginId": "a", "attributeKey": "k", "attributeValue": 1, "test": true}', "E011004"),
    ],
)
def test_a_request_against_the_page_is_refused(body: bytes, code: str) -> None:
    """With 400 and a code of the vendor's clients; nothing is written."""
    bench = Bench()

    assert bench.error(send("POST", ONE, body)) == (400, code)
    assert bench.ledger.writes == 0


@pytest.mark.parametrize(("content_type", "status"), [("application/json; charset=utf-8", 200), ("text/plain", 400)])
def test_the_content_type_is_json(content_type: str, status: int) -> None:
    """As every page has it."""
    assert Bench().answer(send("POST", ONE, EXAMPLE, content_type=content_type))[0] == status


DECLARED = {
    "s": "string",
    "n": "number",
    "b": "boolean",
    "one": "singleselect",
    "many": "multiselect",
    "day": "date",
}


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("s", ["", "x"], [1, True, []]),
        ("n", [1, 1.5], ["1", True]),
        ("b", [True, False], [1, "true"]),
        ("one", ["x"], [["x"], 1]),
        ("many", [["x"], []], ["x", {}]),
        ("day", ["2024-01-01", 1704067200], [True, []]),
    ],
)
def test_values_have_the_declared_type(key: str, good: list[object], bad: list[object]) -> None:
    """S-P11: a value "should match the type of the declared attribute". null passes, whatever the type."""
    bench = Bench(declared=DECLARED)

    assert [bench.answer(one("a", key, value))[0] for value in [*good, None]] == [200] * (len(good) + 1)
    assert [bench.error(one("a", key, value)) for value in bad] == [(400, "E011004")] * len(bad)
    assert bench.ledger.writes == len(good) + 1


def test_an_attribute_must_be_declared() -> None:
    """S-P10: "needs to exists in Descope console app". Which code says so is not documented."""
    assert Bench(declared=DECLARED).error(one("a", "S", "x")) == (400, "E011003")
    assert Bench(declared={}, undeclared_error="E011004").error(one("a", "s", "x")) == (400, "E011004")
    assert Bench(declared={"s": "date"}, wrong_type_error="E011003").error(one("a", "s", [])) == (400, "E011003")


def test_definitions_can_be_read() -> None:
    """S-P7: in the shape that creating one is answered with; types are numbers."""
    body = Bench(declared={"team": "string", "since": "date"}).good(send("GET", DEFINITIONS))

    assert body["total"] == "2"
    assert [(each["name"], each["type"]) for each in body["data"]] == [("team", 1), ("since", 6)]


@pytest.mark.parametrize("given", [{"declared": DECLARED, "definitions": False}, {"declared": None}])
def test_definitions_may_be_out_of_reach(given: dict[str, Any]) -> None:
    """A key may not read them; and where any name is declared there are none to show."""
    assert Bench(**given).answer(send("GET", DEFINITIONS))[0] == 403


@pytest.mark.parametrize("status", [400, 404])
def test_an_unknown_user_is_an_error(status: int) -> None:
    """The code is documented in the vendor's clients, the status nowhere."""
    bench = Bench(roster=RosterOptions(known_users=frozenset({"a"})), unknown_status=status)

    for request in (one("A", "n", 1), patch("A", n=1), load("A")):
        assert bench.error(request) == (status, "E112102")
    assert bench.ledger.writes == 0


def test_a_poisonous_user_is_refused() -> None:
    """Whole: in a batch nobody is written then. Reading does no harm."""
    bench = Bench(roster=RosterOptions(poison=re.compile("bad")))
    disguised = bench.user(load("bad"))["userId"]

    for request in (
        one("bad", "n", 1),
        one(disguised, "n", 1),
        patch("bad", n=1),
        batch("a", "bad"),
        batch("a", disguised),
    ):
        assert bench.error(request) == (400, "E011003")
    assert bench.ledger.writes == 0


# Patches


def test_a_patch_changes_what_it_names() -> None:
    """S-P3: by default attributes that aren't named stay; fields other than custom attributes are taken, not kept."""
    bench = Bench()
    bench.user(one("a", "team", "x"))
    body = {"loginId": "a", "displayName": "A", "customAttributes": {"floor": 3}}

    assert bench.user(send("PATCH", PATCH, body))["customAttributes"] == {"team": "x", "floor": 3}
    assert bench.user(send("PATCH", PATCH, {"loginId": "a", "status": "enabled"}))["customAttributes"] == {
        "team": "x",
        "floor": 3,
    }
    assert bench.ledger.writes == 2


@pytest.mark.parametrize(("write", "left"), [("merge", {"m": 1, "n": 3}), ("replace", {"n": 3})])
def test_a_patch_merges_or_replaces(write: str, left: dict[str, int]) -> None:
    """Which of the two a patch does to the map of attributes is documented nowhere, so the ledger is told."""
    bench = Bench(ledger=LedgerOptions.model_validate({"write": write}))
    bench.user(patch("a", m=1, n=2))
    bench.good(batch("a", n=3))

    assert bench.attributes() == {"a": left}


def test_a_batch_patches_many() -> None:
    """S-P4: one answer, with those patched and those that failed, each with its reason; the rest is written."""
    bench = Bench(roster=RosterOptions(unknown=re.compile("^x")))

    body = bench.good(batch("a", "x1", "b", "x2", team="t"))

    assert outcomes(body) == (["a", "b"], {"x1": "User not found", "x2": "User not found"})
    assert body["additionalErrors"] == {}
    assert body["patchedUsers"][0].keys() == FIELDS
    assert bench.attributes() == {"a": {"team": "t"}, "b": {"team": "t"}}
    assert bench.api.facts()["failures"] == {"E112102": 2}
    assert bench.api.facts()["largest_request"] == 4


def test_what_is_wrong_with_a_value_costs_that_user_alone() -> None:
    """In a batch, an undeclared attribute or a value of another type is the failure of its user."""
    bench = Bench(declared={"n": "number"})
    users = [{"loginId": name, "customAttributes": {"n": value}} for name, value in (("a", 1), ("b", "1"), ("c", 2))]

    patched, failed = outcomes(bench.good(send("PATCH", BATCH, {"users": users})))

    assert (patched, failed) == (["a", "c"], {"b": "attribute 'n' is a number"})
    assert bench.attributes() == {"a": {"n": 1}, "c": {"n": 2}}


def test_failures_may_stand_elsewhere() -> None:
    """S-P4 has `additionalErrors`, a map of strings, and doesn't say what is in it."""
    bench = Bench(roster=RosterOptions(unknown=re.compile("^x")), bulk_failures="additionalErrors")

    body = bench.good(batch("a", "x1"))

    assert outcomes(body) == (["a"], {})
    assert body["additionalErrors"] == {"x1": "User not found"}


@pytest.mark.parametrize("bulk_key", ["loginId", "identifier"])
def test_the_name_of_the_key_is_an_option(bulk_key: str) -> None:
    """Vendor clients differ in it: with the other one, a request is refused whole."""
    bench = Bench(bulk_key=bulk_key)

    assert [bench.answer(batch("a", key=key))[0] == 200 for key in ("loginId", "identifier")] == [
        bulk_key == "loginId",
        bulk_key == "identifier",
    ]
    assert list(bench.attributes()) == ["a"]


@pytest.mark.parametrize(
    ("users", "code"),
    [
        (None, "E011002"),
        ({}, "E011002"),
        ([7], "E011001"),
        ([{}], "E011002"),
        ([{"loginId": "a"}, {"loginId": ""}], "E011002"),
        ([{"loginId": "a"}, {"loginId": 7}], "E011004"),
        ([{"loginId": "a", "customAttributes": None}], "E011004"),
        ([{"loginId": "a", "customAttributes": []}], "E011004"),
        ([{"loginId": "a", "custom_attributes": {}}], "E011004"),
    ],
)
def test_a_batch_against_the_page_is_refused_whole(users: object, code: str) -> None:
    """What isn't shaped as the page has it is 400, and nothing of it is written."""
    bench = Bench()

    assert bench.error(send("PATCH", BATCH, {"users": users})) == (400, code)
    assert bench.ledger.writes == 0


def test_no_user_at_all_is_a_good_batch() -> None:
    """The schema allows an empty array."""
    assert Bench().good(batch()) == {"patchedUsers": [], "failedUsers": [], "additionalErrors": {}}


@pytest.mark.parametrize(("repeated", "status", "writes"), [("last", 200, 3), ("refuse", 400, 0)])
def test_a_user_twice_in_a_batch(repeated: str, status: int, writes: int) -> None:
    """It is counted in any case, by login id or user id; by default the last value wins."""
    bench = Bench(repeated=repeated)
    user_id = bench.user(load("a"))["userId"]
    users = [{"loginId": name, "customAttributes": {"n": n}} for n, name in enumerate(("a", "b", user_id))]

    assert bench.answer(send("PATCH", BATCH, {"users": users}))[0] == status
    assert bench.ledger.writes == writes
    assert bench.api.facts()["duplicates"] == 1
    assert bench.attributes() == ({"a": {"n": 2}, "b": {"n": 1}} if status == 200 else {})


def test_too_much_is_refused() -> None:
    """Above the most users or bytes, if there is such a maximum."""
    assert [Bench(max_users=limit).answer(batch("a", "b"))[0] for limit in (2, 1)] == [200, 400]
    size = len(batch("a").body)
    assert [Bench(max_bytes=limit).answer(batch("a"))[0] for limit in (size, size - 1)] == [200, 413]


# Reading


def test_what_was_written_can_be_read() -> None:
    """A user is loaded by login id; one that exists and was never written has no attributes."""
    bench = Bench()
    bench.user(one("a+b@example.com", "n", 1))

    assert bench.user(load("a+b@example.com"))["customAttributes"] == {"n": 1}
    assert bench.user(load("never"))["customAttributes"] == {}
    assert bench.error(send("GET", USER)) == (400, "E011002")


def test_counting_needs_no_memory() -> None:
    """With counts only, an answer has the attributes of its request, and no user is kept."""
    bench = Bench(ledger=LedgerOptions(count_only=True))

    assert [bench.user(one("a", key, 1))["customAttributes"] for key in "mn"] == [{"m": 1}, {"n": 1}]
    assert (bench.ledger.writes, bench.ledger.users) == (2, {})


# What the sandbox asks of it


def test_a_refusal_for_pace_is_the_one_of_the_documents() -> None:
    """S-P10: 429, its code, the address of a page, and seconds to wait."""
    response = Bench().api.refuse(429, "why", {"retry-after": "10"})

    assert (response.status, response.headers["retry-after"]) == (429, "10")
    assert json.loads(response.body) == {
        "errorCode": "E130429",
        "errorDescription": "https://docs.descope.com/rate-limit",
        "errorMessage": "API rate limit exceeded.",
    }


def test_the_edge_may_answer_with_a_page() -> None:
    """A 429 "from infra" and a 5xx may be no JSON; the header of the 429 is there all the same."""
    bench = Bench(edge="html")

    def form(response: Response) -> str:
        return response.headers["content-type"].partition(";")[0]

    assert [form(bench.api.refuse(status, "why")) for status in (429, 503, 400)] == [
        "text/html",
        "text/html",
        "application/json",
    ]
    assert bench.api.refuse(429, "why", {"retry-after": "10"}).headers["retry-after"] == "10"


@pytest.mark.parametrize("request_", [one("a", "n", 1), batch("a", "b", "x"), batch("x")])
async def test_its_answers_can_be_spoilt(request_: Request) -> None:
    """Users in answers of any kind are what result faults change; what was written is written."""
    memory = Memory(
        Options(
            api="descope",
            descope=DescopeOptions(project_id=PROJECT_ID, management_key=KEY),
            roster=RosterOptions(unknown=re.compile("x")),
            faults=FaultOptions(rates={"foreign": 1}),
        )
    )

    response = await memory(request_)

    assert response.status == 200
    assert b"stranger-" in response.body
    assert list(memory.ledger.users) == [name for name in ("a", "b") if f'"{name}"'.encode() in request_.body]


def test_the_key_is_not_shown() -> None:
    """Options print without it."""
    assert KEY not in repr(DescopeOptions(management_key=KEY))
