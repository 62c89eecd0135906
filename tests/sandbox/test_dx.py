"""DX's methods, as its pages describe them. Requests are written by hand: none comes from the loader's encoder."""

import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest

from loader.request import Request, Response
from loader.sandbox import DxOptions, FaultOptions, Ledger, LedgerOptions, Memory, Options, RosterOptions
from loader.sandbox.api import Api
from loader.sandbox.dx import Dx
from loader.sandbox.roster import Roster

PATH = "/users.attributes.update"
TOKEN = "abcd-123456789-wxyz"
NOW = 0.0

# DOC-3, "Example request", to the letter.
EXAMPLE = b"""{
    "email": "john.doe@example.com",
    "attributes": [
        {
            "name": "Department",
            "value": "Engineering"
        },
        {
            "name": "Location",
            "value": "Remote"
        },
        {
            "name": "Region",
            "value": null
        }
    ]
}"""


class Bench:
    """A DX with its ledger."""

    def __init__(self, roster: RosterOptions | None = None, ledger: LedgerOptions | None = None, **given: Any) -> None:
        self.ledger = Ledger(ledger or LedgerOptions())
        options = DxOptions.model_validate({"token": TOKEN, **given})
        self.api: Api = Dx(options, Roster(roster or RosterOptions()), self.ledger)

    def answer(self, request: Request) -> tuple[int, Any]:
        response = self.api.handle(request, NOW)
        return response.status, json.loads(response.body)

    def user(self, request: Request) -> Any:
        """What a good answer says of the user."""
        status, body = self.answer(request)
        assert (status, body["ok"]) == (200, True)
        return body["user"]

    def error(self, request: Request) -> tuple[int, str]:
        """Status and code of an error."""
        status, body = self.answer(request)
        assert body["ok"] is False
        return status, body["error"]


def post(body: object = EXAMPLE, path: str = PATH, **headers: str) -> Request:
    """A POST with the token; keyword `content_type` is the header Content-Type."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", path, raw, {"content-type": "application/json", "authorization": f"Bearer {TOKEN}", **given})


def write(email: str, *attributes: tuple[str, object]) -> Request:
    """Writes attributes of one user, in this order."""
    return post({"email": email, "attributes": [{"name": name, "value": value} for name, value in attributes]})


def get(path: str) -> Request:
    return Request("GET", path, headers={"authorization": f"Bearer {TOKEN}"})


# The token


@pytest.mark.parametrize("status", [200, 401, 422])
@pytest.mark.parametrize(
    ("authorization", "code"),
    [("", "not_authed"), ("Bearer", "not_authed"), (TOKEN, "not_authed"), ("Bearer no", "invalid_auth")],
)
def test_errors_of_authentication(status: int, authorization: str, code: str) -> None:
    """DOC-3 has two codes; the status that they come with is documented nowhere, so it is an option."""
    assert Bench(auth_status=status).error(post(authorization=authorization)) == (status, code)


def test_a_token_needs_its_scope() -> None:
    """DOC-3 requires users:write. Without it nothing is written, but the token may still ask who it is."""
    bench = Bench(scopes=["snapshots:read"])

    assert bench.error(post()) == (401, "not_authorized")
    assert bench.ledger.writes == 0
    assert bench.answer(get("/auth.whoami"))[0] == 200


def test_revoking_ends_the_token() -> None:
    """After a revocation the token is no good, for any method."""
    bench = Bench()
    bench.api.revoke()

    assert [bench.error(request) for request in (post(), get("/auth.info"))] == [(401, "invalid_auth")] * 2


def test_a_token_tells_about_itself() -> None:
    """S-D6, S-D8: two harmless calls say what the token is and may do."""
    bench = Bench()

    assert bench.answer(get("/auth.whoami")) == (
        200,
        {
            "ok": True,
            "auth_token_type": "account_web_api_token",
            "account": {"name": "Sandbox"},
            "user": None,
            "team": None,
        },
    )
    assert bench.answer(get("/auth.info"))[1]["auth"]["scopes"] == ["snapshots:read", "users:write"]


# Methods


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("POST", f"{PATH}/", 200),
        ("GET", PATH, 405),
        ("POST", "/auth.whoami", 405),
        ("POST", "/users.attributes", 404),
        ("POST", f"/api{PATH}", 404),
    ],
)
def test_only_documented_methods_exist(verb: str, path: str, status: int) -> None:
    """Other paths are 404, other verbs 405."""
    assert Bench().answer(Request(verb, path, EXAMPLE, post().headers))[0] == status


def test_kinds_of_requests() -> None:
    """The method for attributes is for data, those about the token come before it; each is counted under its path."""
    paths = [PATH, "/auth.whoami", "/auth.info", "/users.list"]

    assert [Bench().api.endpoint(path) for path in paths] == list(
        zip(["data", "token", "token", "other"], paths, strict=True)
    )


@pytest.mark.parametrize(("request_", "users"), [(post(), 1), (post(b"{"), 0), (get("/auth.whoami"), 0)])
def test_a_request_writes_one_user(request_: Request, users: int) -> None:
    """For quotas of users."""
    assert Bench().api.users(request_) == users


# User attributes


def test_the_example_of_the_page_is_answered_as_there() -> None:
    """DOC-3: what is null is not in the answer, the rest is, in order; the ledger has it."""
    bench = Bench()

    user = bench.user(post())

    assert user.pop("id").startswith("user_")
    assert user == {
        "email": "john.doe@example.com",
        "failures": [],
        "attributes": [
            {"name": "Department", "value": "Engineering", "updated": True},
            {"name": "Location", "value": "Remote", "updated": True},
        ],
    }
    assert bench.ledger.users["john.doe@example.com"].attributes == {"Department": "Engineering", "Location": "Remote"}


def test_attributes_are_merged_and_null_removes() -> None:
    """DOC-3: what is not in the payload is not modified; a value of null takes the attribute away."""
    bench = Bench(ledger=LedgerOptions(journal=True, write="replace"))
    bench.user(write("a", ("Team", "x"), ("Site", "y")))

    assert bench.user(write("a", ("Team", None), ("Floor", "3")))["attributes"] == [
        {"name": "Floor", "value": "3", "updated": True}
    ]
    assert bench.ledger.users["a"].attributes == {"Site": "y", "Floor": "3"}
    assert bench.ledger.journal[-1].attributes == {"Team": None, "Floor": "3"}


def test_a_user_has_one_id() -> None:
    """The id is the user's: the same in every answer, another for another user."""
    bench = Bench()
    ids = [bench.user(write(email, ("n", "1")))["id"] for email in ("a", "b", "a")]

    assert ids[0] == ids[2] != ids[1]


def test_a_form_does_as_well() -> None:
    """S-D1: arguments come as JSON or as a URL-encoded form."""
    bench = Bench()
    form = urlencode({"email": "a+b@example.com", "attributes": '[{"name": "Team", "value": "ü"}]'}).encode()

    bench.user(post(form, content_type="application/x-www-form-urlencoded"))

    assert bench.ledger.users["a+b@example.com"].attributes == {"Team": "ü"}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"null", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "application/json"),
        (b'{"email": "a"}', "application/json"),
        (b'{"email": "", "attributes": []}', "application/json"),
        (b'{"email": 7, "attributes": []}', "application/json"),
        (b'{"email": "a", "attributes": {}}', "application/json"),
        (b'{"email": "a", "attributes": null}', "application/json"),
        (b'{"email": "a", "attributes": [], "token": "t"}', "application/json"),
        (b'{"email": "a", "attributes": [7]}', "application/json"),
        (b'{"email": "a", "attributes": [{"name": "n"}]}', "application/json"),
        (b'{"email": "a", "attributes": [{"name": "", "value": "v"}]}', "application/json"),
        (b'{"email": "a", "attributes": [{"name": 7, "value": "v"}]}', "application/json"),
        (b'{"email": "a", "attributes": [{"name": "n", "value": "v", "updated": true}]}', "application/json"),
        (b'{"email": "\xff", "attributes": []}', "application/json"),
        (EXAMPLE, "text/plain"),
        (EXAMPLE, ""),
        (EXAMPLE, "application/x-www-form-urlencoded"),
        (b"email=a", "application/x-www-form-urlencoded"),
        (b"email=a&attributes=x", "application/x-www-form-urlencoded"),
        (b"\xff=a", "application/x-www-form-urlencoded"),
    ],
)
def test_a_request_against_the_page_is_refused(body: bytes, content_type: str) -> None:
    """S-D1: 422 is "an error with your request"; nothing of it is written."""
    bench = Bench()

    assert bench.error(post(body, content_type=content_type)) == (422, "invalid_arguments")
    assert bench.ledger.writes == 0


@pytest.mark.parametrize("value", [7, 1.5, True, [], {}])
def test_values_are_strings_unless_told(value: object) -> None:
    """S-D10 has strings, DOC-3 null besides; whether others are taken is an option."""
    request = write("a", ("good", "x"), ("bad", value))

    assert Bench().error(request) == (422, "invalid_arguments")
    assert Bench(values="any").user(request)["attributes"][1]["value"] == value


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({}, 404, "not_found"),
        ({"unknown_status": 400, "unknown_error": "no_users_found"}, 400, "no_users_found"),
        ({"unknown_status": 200}, 200, "not_found"),
        ({"unknown_status": 422, "unknown_error": "invalid_arguments"}, 422, "invalid_arguments"),
    ],
)
def test_an_unknown_user_is_an_error(given: dict[str, Any], status: int, code: str) -> None:
    """What an email that belongs to nobody gets is documented nowhere: each likely answer can be had."""
    bench = Bench(roster=RosterOptions(known_users=frozenset({"a"})), **given)

    assert bench.error(write("A", ("n", "1"))) == (status, code)
    assert bench.ledger.writes == 0
    assert bench.user(write("a", ("n", "1")))


def test_a_poisonous_user_is_refused() -> None:
    """As a request that is wrong in itself."""
    bench = Bench(roster=RosterOptions(poison=re.compile("bad")))

    assert bench.error(write("so-bad", ("n", "1"))) == (422, "invalid_arguments")
    assert bench.ledger.writes == 0


@pytest.mark.parametrize(
    ("failure", "element"),
    [
        ("object", {"name": "Site", "value": "Mars", "error": "could not be updated"}),
        ("text", "Site: could not be updated"),
        ("name", "Site"),
    ],
)
def test_attributes_may_fail_alone(failure: str, element: object) -> None:
    """An attribute in `failures` is not written; the others of the same request are."""
    bench = Bench(failing=re.compile("^Site=Mars"), failure=failure)

    user = bench.user(write("a", ("Team", "x"), ("Site", "Mars"), ("site", "Mars")))

    assert user["failures"] == [element]
    assert [attribute["name"] for attribute in user["attributes"]] == ["Team", "site"]
    assert bench.ledger.users["a"].attributes == {"Team": "x", "site": "Mars"}
    assert bench.api.facts()["failures"] == 1


def test_all_attributes_may_fail() -> None:
    """The answer is a good one all the same, and nothing is written."""
    bench = Bench(failing=re.compile("^Site="))

    assert bench.user(write("a", ("Site", None)))["failures"] == [
        {"name": "Site", "value": None, "error": "could not be updated"}
    ]
    assert bench.ledger.users == {}


@pytest.mark.parametrize(("updated", "said"), [("always", [True, True, True]), ("changed", [False, True, True])])
def test_a_value_that_was_there_may_be_told(updated: str, said: list[bool]) -> None:
    """Whether `updated` is ever false is not documented: by default it isn't."""
    bench = Bench(updated=updated)
    bench.user(write("a", ("Team", "x"), ("Site", "y")))

    attributes = bench.user(write("a", ("Team", "x"), ("Site", "z"), ("Floor", "3")))["attributes"]

    assert [attribute["updated"] for attribute in attributes] == said


def test_names_create_groups() -> None:
    """DOC-3: a name that is no group becomes one, for the whole account. Only a null or a failure makes none."""
    bench = Bench(groups=["Team"], failing=re.compile("^Odd="))
    bench.user(write("a", ("Site", "x"), ("Gone", None), ("Odd", "x")))
    bench.user(write("b", ("Team", "y"), ("Site", "y")))

    assert bench.api.facts()["groups"] == ["Team", "Site"]


def test_groups_are_found_in_any_case() -> None:
    """S-D10 looks for groups without regard to case, which S-D9 denies; the answer bears the group's own name."""
    request = write("a", ("cost centre", "7"), ("COST CENTRE", None))
    ignoring, exact = Bench(groups=["Cost Centre"]), Bench(groups=["Cost Centre"], group_case="exact")

    ignoring.user(write("a", ("COST centre", "6")))
    assert ignoring.user(write("a", ("cost CENTRE", "7")))["attributes"][0]["name"] == "Cost Centre"
    assert ignoring.ledger.users["a"].attributes == {"Cost Centre": "7"}
    assert exact.user(request)["attributes"][0]["name"] == "cost centre"
    assert exact.api.facts()["groups"] == ["Cost Centre", "cost centre"]


@pytest.mark.parametrize(
    ("repeated", "case", "expected"),
    [("last", "ignore", {"n": "2"}), ("last", "exact", {"n": "1", "N": "2"}), ("refuse", "ignore", None)],
)
def test_an_attribute_twice_in_a_request(repeated: str, case: str, expected: dict[str, str] | None) -> None:
    """It is counted; by default the last value wins."""
    bench = Bench(repeated=repeated, group_case=case)

    status, _ = bench.answer(write("a", ("n", "1"), ("N", "2")))

    assert status == (200 if expected else 422)
    assert bench.api.facts()["duplicates"] == int(case == "ignore")
    assert {user: entry.attributes for user, entry in bench.ledger.users.items()} == (
        {"a": expected} if expected else {}
    )


def test_the_answer_may_write_the_email_its_own_way() -> None:
    """Rules for the case of an email are not documented: the answer may have the one that DX knows."""
    request = write("Jane@Example.com", ("n", "1"))

    assert Bench().user(request)["email"] == "Jane@Example.com"
    assert Bench(email="lower").user(request)["email"] == "jane@example.com"


def test_too_much_is_refused() -> None:
    """Above the most attributes or bytes, if there is such a maximum."""
    assert [Bench(max_attributes=limit).answer(post())[0] for limit in (3, 2)] == [200, 422]
    assert [Bench(max_bytes=limit).answer(post())[0] for limit in (len(EXAMPLE), len(EXAMPLE) - 1)] == [200, 413]


def test_counting_needs_no_memory() -> None:
    """With counts only, answers are the same and no user is kept."""
    bench = Bench(ledger=LedgerOptions(count_only=True), updated="changed")

    assert [bench.user(post())["attributes"][0]["updated"] for _ in range(2)] == [True, True]
    assert (bench.ledger.writes, bench.ledger.users) == (2, {})
    assert bench.api.facts()["largest_request"] == 3


# What the sandbox asks of it


@pytest.mark.parametrize(
    ("status", "code"),
    [(429, "rate_limited"), (401, "invalid_auth"), (400, "invalid_arguments"), (503, "internal_error")],
)
def test_refusals_are_worded_as_dx_words_them(status: int, code: str) -> None:
    """Quotas and faults answer with `ok` and `error`, too."""
    response = Bench().api.refuse(status, "why", {"retry-after": "3"})

    assert (response.status, response.headers["retry-after"]) == (status, "3")
    assert json.loads(response.body) == {"ok": False, "error": code, "error_details": {"message": "why"}}


def test_the_edge_may_answer_with_a_page() -> None:
    """The body of a 429 is not documented: it may come from before the API. Other errors stay JSON."""
    bench = Bench(edge="html")

    def form(response: Response) -> str:
        return response.headers["content-type"].partition(";")[0]

    assert [form(bench.api.refuse(status, "why")) for status in (429, 503, 400)] == [
        "text/html",
        "text/html",
        "application/json",
    ]


@pytest.mark.parametrize("fault", ["foreign", "missing"])
async def test_its_answers_can_be_spoilt(fault: str) -> None:
    """The user of an answer is what result faults change; what was written is written."""
    options = Options(api="dx", dx=DxOptions(token=TOKEN), faults=FaultOptions.model_validate({"rates": {fault: 1}}))
    memory = Memory(options)

    body = json.loads((await memory(post())).body)

    assert list(memory.ledger.users) == ["john.doe@example.com"]
    assert body["ok"] is True
    if fault == "foreign":
        assert body["user"]["email"].startswith("stranger-")
    else:
        assert "user" not in body


def test_the_token_is_not_shown() -> None:
    """Options print without it."""
    assert TOKEN not in repr(DxOptions(token=TOKEN))
