"""SCIM's endpoints, as RFC 7643 and RFC 7644 describe them. Requests are written by hand, as the RFC's examples are."""

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.request import Request, Response
from loader.sandbox import FaultOptions, Ledger, LedgerOptions, Memory, Options, RosterOptions, ScimOptions
from loader.sandbox.api import Api
from loader.sandbox.roster import Roster
from loader.sandbox.scim import Scim

TOKEN = "h480djs93hd8"  # the examples'
HEADERS = {"Host": "example.com", "Authorization": f"Bearer {TOKEN}", "Content-Type": "application/scim+json"}
PATCH_OP = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
BULK_REQUEST = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
SEARCH_REQUEST = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
CORE = "urn:ietf:params:scim:schemas:core:2.0:User"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


def call(method: str, path: str, body: object = None, **headers: str) -> Request:
    """A request with the token; keyword `content_type` is the header Content-Type, and "" takes one away."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given = {**HEADERS, **{name.replace("_", "-").title(): value for name, value in headers.items()}}
    return Request(method, path, raw, {name: value for name, value in given.items() if value})


def patch(ident: str, *operations: object, query: str = "") -> Request:
    return call("PATCH", f"/Users/{ident}{query}", {"schemas": [PATCH_OP], "Operations": list(operations)})


def put(path: str, value: object, op: str = "replace") -> dict[str, object]:
    return {"op": op, "path": path, "value": value}


def step(ident: str, *operations: object, **more: object) -> dict[str, object]:
    """An operation of a bulk request."""
    data = {"schemas": [PATCH_OP], "Operations": list(operations) or [put("title", "Dr")]}
    return {"method": "PATCH", "path": f"/Users/{ident}", "bulkId": ident, "data": data, **more}


def bulk(*steps: object, **more: object) -> Request:
    return call("POST", "/Bulk", {"schemas": [BULK_REQUEST], "Operations": list(steps), **more})


def query(*filters: str, **parameters: object) -> Request:
    """A look-up by GET."""
    texts = {**({"filter": filters[0]} if filters else {}), **parameters}
    return call("GET", "/Users?" + "&".join(f"{name}={quote(str(text))}" for name, text in texts.items()))


def search(**fields: object) -> Request:
    """A look-up by POST."""
    return call("POST", "/Users/.search", {"schemas": [SEARCH_REQUEST], **fields})


def named(*users: str) -> str:
    """A filter."""
    return " or ".join(f"userName eq {json.dumps(user)}" for user in users)


class Bench:
    """A SCIM service with its ledger."""

    def __init__(self, roster: RosterOptions | None = None, ledger: LedgerOptions | None = None, **given: Any) -> None:
        self.ledger = Ledger(ledger or LedgerOptions())
        options = ScimOptions.model_validate({"token": TOKEN, **given})
        self.api: Api = Scim(options, Roster(roster or RosterOptions()), self.ledger)

    def response(self, request: Request) -> Response:
        response = self.api.handle(request, 0.0)
        assert not response.body or response.headers["content-type"] == "application/scim+json"
        return response

    def body(self, request: Request, status: int = 200) -> Any:
        response = self.response(request)
        assert response.status == status, response.body
        return json.loads(response.body)

    def error(self, request: Request) -> tuple[int, str]:
        """Status and scimType of an error."""
        response = self.response(request)
        body = json.loads(response.body)
        assert body["schemas"] == [ERROR]
        assert body["status"] == str(response.status)
        assert body["detail"]
        return response.status, body.get("scimType", "")

    def ids(self, *users: str) -> list[str]:
        """The ids of users, one look-up each."""
        return [self.body(query(named(user)))["Resources"][0]["id"] for user in users]

    def steps(self, request: Request) -> list[Any]:
        """What a bulk request's operations came to."""
        body = self.body(request)
        assert body["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:BulkResponse"]
        operations: list[Any] = body["Operations"]
        return operations

    def statuses(self, request: Request) -> list[str]:
        return [step["status"] for step in self.steps(request)]

    def attributes(self, user: str) -> dict[str, Any]:
        return self.ledger.users[user].attributes


# Looking up


def test_a_user_is_found_by_name() -> None:
    """§3.4.2: a list of one, with the id to use and the place where the user is."""
    body = Bench().body(query(named("bjensen")))

    (user,) = body.pop("Resources")
    assert body == {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": 1,
        "startIndex": 1,
        "itemsPerPage": 1,
    }
    assert user == {
        "schemas": [CORE],
        "id": user["id"],
        "userName": "bjensen",
        "meta": {"resourceType": "User", "location": f"http://example.com/Users/{user['id']}"},
    }
    assert Bench().body(call("GET", f"/Users/{user['id']}")) == user


def test_those_who_exist_are_found_in_an_order_of_its_own() -> None:
    """Who doesn't exist is left out, and who is asked for twice comes once, by GET as by POST."""
    bench = Bench(RosterOptions(unknown=re.compile("zoe")))
    names = named("rob", "zoe", "ann", "rob")

    for request in (query(names), search(filter=names)):
        body = bench.body(request)
        assert body["totalResults"] == 2
        assert [user["userName"] for user in body["Resources"]] == ["ann", "rob"]


def test_nobody_is_found() -> None:
    """§3.4.2 asks for Resources only if there are some; whether an empty list comes is the service's choice."""
    nobody = RosterOptions(known_users=frozenset())

    assert Bench(nobody).body(query(named("ann")))["Resources"] == []
    body = Bench(nobody, no_resources="absent").body(query(named("ann")))
    assert body["totalResults"] == 0
    assert "Resources" not in body


@pytest.mark.parametrize(
    ("spelling", "found"),
    [
        ('userName eq "Ann@example.com"', True),
        ('username EQ "ANN@EXAMPLE.COM"', True),
        (f'{CORE}:userName eq "ann@example.com"', True),
        ('userName eq "bob" OR userName eq "ann@example.com"', True),
        (r'userName eq "\u0061nn@example.com"', True),
        ('id eq "YW5uQGV4YW1wbGUuY29t"', True),
        ('id eq "YW5uQGV4YW1wbGUuY29"', False),
        ('userName eq ""', False),
    ],
)
def test_spellings_of_a_filter(spelling: str, found: bool) -> None:
    """§3.4.2.2: names and operators in any case; a value as in JSON; RFC 7643 §4.1.1: a user name in any case, too."""
    bench = Bench(RosterOptions(known_users=frozenset({"Ann@example.com"})))

    names = [user["userName"] for user in bench.body(query(spelling))["Resources"]]

    assert names == (["Ann@example.com"] if found else [])


@pytest.mark.parametrize(
    "broken",
    [
        "userName",
        "userName eq",
        "userName eq ann",
        'userName eq "ann',
        'userName  eq "ann"',
        'userName eq "ann" and title pr',
        'userName eq "ann" or ',
        'userName eq "ann"or userName eq "bob"',
        'userName sw "a"',
        'title eq "Dr"',
        r'userName eq "\x"',
    ],
)
def test_filters_that_are_not_understood(broken: str) -> None:
    """§3.12: 400 invalidFilter, for a filter that is broken as for one that is more than this service can."""
    assert Bench().error(query(broken)) == (400, "invalidFilter")
    assert Bench().error(search(filter=broken)) == (400, "invalidFilter")


def test_too_much_of_a_filter() -> None:
    """§3.12 tooMany: more comparisons than the service cares for, or everyone."""
    bench = Bench(max_comparisons=2)

    assert bench.body(query(named("ann", "bob")))["totalResults"] == 2
    assert bench.error(query(named("ann", "bob", "cy"))) == (400, "tooMany")
    assert bench.error(query()) == (400, "tooMany")


def test_pages() -> None:
    """§3.4.2.4: startIndex from 1, count at most the maximum; what is out of range is taken for the nearest."""
    bench = Bench(RosterOptions(known_users=frozenset(f"user{n}" for n in range(5))), max_results=3)

    def page(**parameters: object) -> tuple[int, int, list[str]]:
        by_get, by_post = bench.body(query(**parameters)), bench.body(search(**parameters))
        assert by_get == by_post
        assert by_get["totalResults"] == 5
        assert by_get["itemsPerPage"] == len(by_get["Resources"])
        names = [user["userName"].removeprefix("user") for user in by_get["Resources"]]
        return by_get["startIndex"], by_get["itemsPerPage"], names

    assert page() == (1, 3, ["0", "1", "2"])
    assert page(startIndex=4) == (4, 2, ["3", "4"])
    assert page(startIndex=2, count=2) == (2, 2, ["1", "2"])
    assert page(startIndex=-7, count=99) == (1, 3, ["0", "1", "2"])
    assert page(startIndex=9) == (9, 0, [])
    assert page(count=0) == (1, 0, [])
    assert page(count=-1) == (1, 0, [])


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (query(count="many"), "invalidValue"),
        (search(count="2"), "invalidValue"),
        (search(startIndex=True), "invalidValue"),
        (search(attributes="userName"), "invalidValue"),
        (search(attributes=[7]), "invalidValue"),
        (search(filter=7), "invalidFilter"),
        (call("POST", "/Users/.search", {"filter": named("ann")}), "invalidSyntax"),
        (call("POST", "/Users/.search", {"schemas": [PATCH_OP], "filter": named("ann")}), "invalidSyntax"),
        (call("POST", "/Users/.search", b"{"), "invalidSyntax"),
        (call("POST", "/Users/.search", []), "invalidSyntax"),
    ],
)
def test_look_ups_that_are_not_valid(request_: Request, kind: str) -> None:
    assert Bench().error(request_) == (400, kind)


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("userName", {"userName": "ann"}),
        ("ID", {}),
        (f"{CORE}:USERNAME, title", {"userName": "ann", "title": "Dr"}),
        ("name.givenName", {"name": {"givenName": "Ann"}}),
        ("name", {"name": {"givenName": "Ann", "familyName": "Lee"}}),
        ("emails", {"emails": [{"type": "work", "value": "a@x"}]}),
        (ENTERPRISE, {ENTERPRISE: {"department": "R&D"}}),
        (f"{ENTERPRISE}:department", {ENTERPRISE: {"department": "R&D"}}),
        ("password", {}),
    ],
)
def test_only_attributes_asked_for(asked: str, shown: dict[str, object]) -> None:
    """§3.9: by name, with or without what is above or below it; schemas and id are always there."""
    bench = Bench()
    (ann,) = bench.ids("ann")
    written = [put("title", "Dr"), put("name.givenName", "Ann"), put("name.familyName", "Lee"), put("password", "x")]
    written += [put('emails[type eq "work"].value', "a@x", "add"), put(f"{ENTERPRISE}:department", "R&D")]
    bench.body(patch(ann, *written))

    (user,) = bench.body(query(named("ann"), attributes=asked))["Resources"]
    listed = bench.body(search(filter=named("ann"), attributes=asked.split(", ")))["Resources"]

    schemas = [CORE, *([ENTERPRISE] if ENTERPRISE in shown else [])]
    assert user == {"schemas": schemas, "id": ann, **shown}
    assert listed == [user]
    assert bench.body(call("GET", f"/Users/{ann}?attributes={quote(asked)}")) == user


def test_users_go_by_another_attribute() -> None:
    """The roster's names may be what another attribute holds; then that is what users are searched by."""
    bench = Bench(key="externalId", case_exact=True)

    (user,) = bench.body(query('EXTERNALID eq "A7"'))["Resources"]
    assert user["externalId"] == "A7"
    assert bench.error(query(named("A7"))) == (400, "invalidFilter")
    bench.body(patch(user["id"], put("title", "Dr")))
    assert bench.attributes("A7") == {"title": "Dr"}


def test_ids_last() -> None:
    """An id is the same at any time and in any service, for a name in any case; it is nobody's name."""
    (ann,) = Bench().ids("ann@example.com")

    assert Bench().ids("ANN@example.com") == [ann]
    assert ann != "ann@example.com"
    assert Bench().response(patch(ann, put("title", "Dr"))).status == 200, "nobody has to look a user up first"


@given(st.text(min_size=1).filter(lambda name: name.lower().strip() == name))
def test_every_user_can_be_looked_up_and_written(name: str) -> None:
    """Whatever a name holds, its id can stand in a path."""
    bench = Bench()
    (ident,) = bench.ids(name)
    bench.body(patch(quote(ident, safe=""), put("title", "Dr")))

    assert bench.attributes(name) == {"title": "Dr"}


def test_case_of_user_names() -> None:
    """One user in any case, spelled as the roster has it or as first asked for; with `case_exact`, several."""
    listed = Bench(RosterOptions(known_users=frozenset({"Ann", "bob"})))
    assert listed.ids("ANN") == listed.ids("ann")
    listed.body(patch(*listed.ids("ann"), put("title", "Dr")))
    assert list(listed.ledger.users) == ["Ann"]
    assert listed.body(query(named("BOB")))["Resources"][0]["userName"] == "bob"

    anyone = Bench()
    first, second = anyone.ids("Ann", "ANN")
    assert first == second
    anyone.body(patch(first, put("title", "Dr")))
    assert list(anyone.ledger.users) == ["Ann"]

    exact = Bench(RosterOptions(known_users=frozenset({"Ann", "ann"})), case_exact=True)
    assert len(set(exact.ids("Ann", "ann"))) == 2
    assert exact.body(query(named("ANN")))["totalResults"] == 0


# PATCH


def test_a_patch_writes_by_path() -> None:
    """§3.5.2: plain, below another, in an extension. The ledger has each by its path, the answer all in one."""
    bench = Bench()
    (ann,) = bench.ids("ann")
    body = bench.body(
        patch(
            ann,
            put("nickName", "Annie", "add"),
            put("name.familyName", "Lee"),
            put(f"{ENTERPRISE}:department", "R&D"),
            put("active", True),
        )
    )

    assert bench.attributes("ann") == {
        "nickName": "Annie",
        "name.familyName": "Lee",
        f"{ENTERPRISE}:department": "R&D",
        "active": True,
    }
    assert body["schemas"] == [CORE, ENTERPRISE]
    assert (body["userName"], body["nickName"], body["active"]) == ("ann", "Annie", True)
    assert (body["name"], body[ENTERPRISE]) == ({"familyName": "Lee"}, {"department": "R&D"})


def test_a_patch_keeps_what_it_does_not_name() -> None:
    """What was written before stays, unless it is replaced, removed, or made null (RFC 7643 §2.5)."""
    bench = Bench(ledger=LedgerOptions(write="replace", journal=True))  # the RFC rules, not the option
    (ann,) = bench.ids("ann")
    bench.body(patch(ann, put("title", "Dr"), put("nickName", "Annie"), put("locale", "en")))
    bench.body(patch(ann, put("title", "Prof"), {"op": "remove", "path": "nickName"}, put("locale", None)))
    bench.body(patch(ann, {"op": "remove", "path": "timezone"}))

    assert bench.attributes("ann") == {"title": "Prof"}
    assert bench.ledger.users["ann"].writes == 3
    assert bench.ledger.journal[1].attributes == {"title": "Prof", "nickName": None, "locale": None}


def test_a_patch_without_a_path() -> None:
    """§3.5.2.1 and §3.5.2.3: an object of attributes, those of an extension below its URN."""
    bench = Bench()
    (ann,) = bench.ids("ann")
    bench.body(patch(ann, {"op": "add", "value": {"title": "Dr", ENTERPRISE: {"department": "R&D"}}}))

    assert bench.attributes("ann") == {"title": "Dr", f"{ENTERPRISE}:department": "R&D"}


def test_a_value_filter_selects() -> None:
    """§3.5.2.3: what is to be replaced must be there; `add` makes it (§3.5.2.1 doesn't say), or fails as well."""
    bench = Bench()
    (ann,) = bench.ids("ann")
    work = 'emails[type eq "work"]'
    assert bench.error(patch(ann, put(f"{work}.value", "a@x"))) == (400, "noTarget")
    bench.body(patch(ann, put(f"{work}.value", "a@x", "add"), put(f"{work}.primary", True)))
    body = bench.body(patch(ann, put(f"{work}.value", "b@x"), put('emails[type eq "home"]', {"value": "c@x"}, "add")))

    assert body["emails"] == [
        {"type": "work", "value": "b@x", "primary": True},
        {"type": "home", "value": "c@x"},
    ]
    assert bench.attributes("ann")[f"{work}.value"] == "b@x"
    assert Bench(unmatched_add="noTarget").error(patch(ann, put(work, {"value": "a@x"}, "add"))) == (400, "noTarget")


def test_a_list_is_shown_as_written() -> None:
    """Answers are made of copies: nothing that is done to one reaches the ledger."""
    bench = Bench()
    (ann,) = bench.ids("ann")
    bench.body(patch(ann, put("emails", [{"type": "work", "value": "a@x"}])))
    body = bench.body(patch(ann, put('emails[type eq "work"].display', "Ann", "add")))

    assert body["emails"] == [{"type": "work", "value": "a@x", "display": "Ann"}]
    assert bench.attributes("ann")["emails"] == [{"type": "work", "value": "a@x"}]


def test_a_patch_may_have_no_answer() -> None:
    """§3.5.2: 204 without a body, but 200 if attributes are asked for."""
    bench = Bench(patch_answer="empty")
    (ann,) = bench.ids("ann")

    response = bench.response(patch(ann, put("title", "Dr")))
    assert (response.status, response.body) == (204, b"")
    body = bench.body(patch(ann, put("title", "Prof"), query="?attributes=title"))
    assert body == {"schemas": [CORE], "id": ann, "title": "Prof"}
    assert bench.statuses(bulk(step(ann))) == ["204"]


@pytest.mark.parametrize(
    ("operations", "kind"),
    [
        ([], "invalidSyntax"),
        (["add"], "invalidSyntax"),
        ([{"op": "Add", "path": "title", "value": "Dr"}], "invalidSyntax"),
        ([{"path": "title", "value": "Dr"}], "invalidSyntax"),
        ([{"op": "replace", "path": 7, "value": "Dr"}], "invalidPath"),
        ([{"op": "replace", "path": "title"}], "invalidValue"),
        ([{"op": "replace", "value": "Dr"}], "invalidValue"),
        ([{"op": "remove"}], "noTarget"),
        ([put("", "x")], "invalidPath"),
        ([put("1st", "x")], "invalidPath"),
        ([put("name..x", "x")], "invalidPath"),
        ([put("name.given.x", "x")], "invalidPath"),
        ([put("Cost Centre", "x")], "invalidPath"),
        ([put('emails[type eq "work"', "x")], "invalidPath"),
        ([{"op": "add", "value": {"Cost Centre": "x"}}], "invalidPath"),
        ([put("id", "x")], "mutability"),
        ([put("META.location", "x")], "mutability"),
        ([put("userName", "ann2")], "mutability"),
        ([put(f"{CORE}:userName", "ann2")], "mutability"),
    ],
)
def test_patches_that_are_not_valid(operations: list[object], kind: str) -> None:
    """§3.12; and of a PATCH of which a part is refused nothing is done (§3.5.2)."""
    bench = Bench()
    (ann,) = bench.ids("ann")

    assert bench.error(patch(ann, *operations)) == (400, kind)
    if operations:
        assert bench.error(patch(ann, put("title", "Dr"), *operations)) == (400, kind)
    assert bench.ledger.users == {}


def test_what_a_patch_may_be_refused_for() -> None:
    """Attributes that the schema lacks, null, values that are said to fail."""
    given: dict[str, Any] = {
        "attributes": ["title", "emails.value", f"{ENTERPRISE}:costCenter"],
        "null": "refused",
        "failing": "title=x|emails",
    }
    bench = Bench(**given)
    (ann,) = bench.ids("ann")

    assert bench.response(patch(ann, put("TITLE", "Dr"), put(f"{ENTERPRISE}:COSTCENTER", "7"))).status == 200
    assert bench.response(patch(ann, put(f"{CORE}:title", "Dr"))).status == 200
    assert bench.error(patch(ann, put("nickName", "Annie"))) == (400, "invalidPath")
    assert bench.error(patch(ann, put("costCenter", "7"))) == (400, "invalidPath")
    assert bench.error(patch(ann, put("title", None))) == (400, "invalidValue")
    assert bench.error(patch(ann, put("title", "xx"))) == (400, "invalidValue")
    assert bench.error(patch(ann, put('emails[type eq "work"].value', "a@x", "add"))) == (400, "invalidValue")


def test_users_who_are_not_there_or_not_valid() -> None:
    """404 for an id that is nobody's; 400 for a poisoned user."""
    bench = Bench(RosterOptions(unknown=re.compile("zoe"), poison=re.compile("bad")))
    zoe, bad = Bench().ids("zoe", "bad")

    for ident in (zoe, "nope", "Ann", "%C3%A4", "YW5u%0A"):
        assert bench.error(patch(ident, put("title", "Dr"))) == (404, "")
        assert bench.error(call("GET", f"/Users/{ident}")) == (404, "")
    assert bench.error(patch(bad, put("title", "Dr"))) == (400, "invalidValue")


# In bulk


def test_a_bulk_request_is_answered_operation_by_operation() -> None:
    """§3.7.3: in the order sent, each with its bulkId, its status as text, and a response if it failed."""
    bench = Bench(RosterOptions(unknown=re.compile("zoe")))
    ann, bob = bench.ids("ann", "bob")
    (zoe,) = Bench().ids("zoe")
    steps = [step(bob, bulkId="1"), step(zoe, bulkId="2"), step(ann, put("1st", "x"), bulkId="3"), step(ann)]

    first, second, third, fourth = bench.steps(bulk(*steps))

    assert first == {
        "method": "PATCH",
        "bulkId": "1",
        "location": f"http://example.com/Users/{bob}",
        "status": "200",
    }
    assert (second["bulkId"], second["status"]) == ("2", "404")
    assert second["response"]["schemas"] == [ERROR]
    assert second["response"]["status"] == "404"
    assert (third["status"], third["response"]["scimType"]) == ("400", "invalidPath")
    assert (fourth["bulkId"], fourth["status"]) == (ann, "200")
    assert {user: entry.attributes for user, entry in bench.ledger.users.items()} == {
        "ann": {"title": "Dr"},
        "bob": {"title": "Dr"},
    }


def test_a_bulk_request_ends_at_too_many_failures() -> None:
    """§3.7.3: what comes after the last failure that is borne is neither done nor answered."""
    bench = Bench()
    ann, bob, cy = bench.ids("ann", "bob", "cy")
    steps = [step(ann), step("nope"), step(bob), step("nope"), step(cy)]

    assert bench.statuses(bulk(*steps)) == ["200", "404", "200", "404", "200"]
    assert bench.statuses(bulk(*steps, failOnErrors=3)) == ["200", "404", "200", "404", "200"]
    assert bench.statuses(bulk(*steps, failOnErrors=2)) == ["200", "404", "200", "404"]
    assert bench.statuses(bulk(*steps, failOnErrors=1)) == ["200", "404"]
    assert [bench.ledger.users[user].writes for user in ("ann", "bob", "cy")] == [4, 3, 2]


@pytest.mark.parametrize(
    ("operation", "status", "kind"),
    [
        (7, "400", "invalidSyntax"),
        ({"path": "/Users/YW5u"}, "400", "invalidSyntax"),
        (step("YW5u", method=7), "400", "invalidSyntax"),
        (step("YW5u", method="DELETE"), "501", ""),
        ({"method": "POST", "path": "/Users", "bulkId": "x", "data": {"userName": "ann"}}, "400", "invalidPath"),
        (step("YW5u", path=None), "400", "invalidPath"),
        (step("YW5u", path="Users/YW5u"), "400", "invalidPath"),
        (step("YW5u", path="https://example.com/Users/YW5u"), "400", "invalidPath"),
        (step("YW5u", data=None), "400", "invalidSyntax"),
        (step("YW5u", data={"Operations": [put("title", "Dr")]}), "400", "invalidSyntax"),
    ],
)
def test_operations_that_are_not_valid(operation: object, status: str, kind: str) -> None:
    """They fail alone."""
    bench = Bench()
    result, good = bench.steps(bulk(operation, step("YW5u")))

    assert (result["status"], result["response"].get("scimType", "")) == (status, kind)
    assert good["status"] == "200"
    assert bench.ledger.writes == 1


@pytest.mark.parametrize(
    ("request_", "status", "kind"),
    [
        (bulk(*[step("YW5u")] * 3), 413, ""),
        (bulk(step("YW5u", put("title", "x" * 1000))), 413, ""),
        (bulk(step("YW5u"), failOnErrors=0), 400, "invalidSyntax"),
        (bulk(step("YW5u"), failOnErrors="1"), 400, "invalidSyntax"),
        (call("POST", "/Bulk", {"schemas": [BULK_REQUEST], "Operations": {}}), 400, "invalidSyntax"),
        (call("POST", "/Bulk", {"Operations": []}), 400, "invalidSyntax"),
        (call("POST", "/Bulk", b"{"), 400, "invalidSyntax"),
    ],
)
def test_bulk_requests_that_are_refused_whole(request_: Request, status: int, kind: str) -> None:
    """§3.7.4: too many operations, or bytes; and what is no bulk request."""
    bench = Bench(max_operations=2, max_payload_size=1000)

    assert bench.error(request_) == (status, kind)
    assert bench.ledger.writes == 0
    assert bench.statuses(bulk(*[step("YW5u")] * 2)) == ["200", "200"]


def test_a_poisoned_user_spoils_a_bulk_request() -> None:
    """The request is refused whole, until that user is gone from it."""
    bench = Bench(RosterOptions(poison=re.compile("bad")))
    ann, bad = Bench().ids("ann", "bad")

    assert bench.error(bulk(step(ann), step(bad))) == (400, "invalidSyntax")
    assert bench.ledger.writes == 0
    assert bench.statuses(bulk(step(ann))) == ["200"]


def test_what_the_service_may_do_without() -> None:
    """Bulk requests and searches by POST may be missing; the configuration says so of the first."""
    bench = Bench(bulk=False, search=False)

    assert bench.error(bulk()) == (501, "")
    assert bench.error(search()) == (404, "")
    assert bench.body(call("GET", "/ServiceProviderConfig"))["bulk"]["supported"] is False


# The rest


def test_the_configuration() -> None:
    """RFC 7643 §5: what the service can, and how much of it."""
    body = Bench(max_operations=10, max_payload_size=2000, max_results=50).body(call("GET", "/ServiceProviderConfig"))

    assert body["schemas"] == ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"]
    assert body["patch"] == {"supported": True}
    assert body["bulk"] == {"supported": True, "maxOperations": 10, "maxPayloadSize": 2000}
    assert body["filter"] == {"supported": True, "maxResults": 50}
    assert [scheme["type"] for scheme in body["authenticationSchemes"]] == ["oauthbearertoken", "httpbasic"]
    assert body["meta"]["location"] == "http://example.com/ServiceProviderConfig"


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN])
def test_without_the_token(authorization: str) -> None:
    """§2: 401 with a challenge, everywhere but at the configuration."""
    bench = Bench()
    for request in (query(named("ann")), search(), patch("YW5u"), bulk(), call("GET", "/Users/YW5u")):
        refused = Request(request.method, request.path, request.body, {**request.headers, "Authorization": ""})
        given = Request(request.method, request.path, request.body, {**request.headers, "Authorization": authorization})
        for sent in (refused, given):
            assert bench.error(sent) == (401, "")
            assert bench.response(sent).headers["www-authenticate"].startswith("Bearer")
    config = call("GET", "/ServiceProviderConfig", authorization=authorization)
    assert bench.response(config).status == (401 if authorization else 200)
    assert Bench(public_config=False).error(config) == (401, "")


def test_a_revoked_token() -> None:
    """It is gone for good; a password is no token, and stays."""
    bench = Bench(basic_password="open sesame")
    found = query(named("ann"))
    basic = Request(found.method, found.path, b"", {"authorization": "Basic c2NpbTpvcGVuIHNlc2FtZQ=="})
    assert [bench.response(request).status for request in (found, basic)] == [200, 200]
    bench.api.revoke()

    assert [bench.response(request).status for request in (found, basic)] == [401, 200]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (call("POST", "/Users", {"schemas": [CORE], "userName": "ann"}), 501),
        (call("PUT", "/Users/YW5u", {"schemas": [CORE], "userName": "ann"}), 501),
        (call("DELETE", "/Users/YW5u"), 501),
        (call("GET", "/Bulk"), 501),
        (call("GET", "/Groups"), 404),
        (call("GET", "/"), 404),
        (call("GET", "/scim/v2/Users"), 404),
        (call("PATCH", "/Users/YW5u", {}, content_type="text/plain"), 415),
        (call("PATCH", "/Users/YW5u", {}, content_type=""), 415),
    ],
)
def test_what_there_is_not(request_: Request, status: int) -> None:
    """§3.12: 501 for what the RFC knows and this service doesn't."""
    assert Bench().error(request_) == (status, "")


def test_plain_json_is_taken() -> None:
    """§3.8, and a charset, and a slash at the end."""
    bench = Bench()
    request = call("POST", "/Bulk/", {"schemas": [BULK_REQUEST], "Operations": []})
    for kind in ("application/json", "application/scim+json; charset=utf-8", "Application/JSON"):
        given = Request("POST", request.path, request.body, {**request.headers, "Content-Type": kind})
        assert bench.response(given).status == 200


def test_a_base_path() -> None:
    """§1.3: everything lies below it, but the paths in a bulk request, which are relative."""
    bench = Bench(prefix="/scim/v2")
    found = bench.body(call("GET", "/scim/v2/Users?filter=" + quote(named("ann"))))["Resources"][0]
    steps = {"schemas": [BULK_REQUEST], "Operations": [step(found["id"])]}

    assert found["meta"]["location"] == f"http://example.com/scim/v2/Users/{found['id']}"
    assert bench.statuses(call("POST", "/scim/v2/Bulk", steps)) == ["200"]
    assert bench.response(call("PATCH", f"/scim/v2/Users/{found['id']}", b"{}")).status == 400
    assert bench.error(query(named("ann"))) == (404, "")


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/Users", ("data", "/v2/Users")),
        ("/Users/.search", ("data", "/v2/Users/.search")),
        ("/Users/YW5u", ("data", "/v2/Users/{id}")),
        ("/Bulk", ("data", "/v2/Bulk")),
        ("/ServiceProviderConfig", ("token", "/v2/ServiceProviderConfig")),
        ("/Groups", ("other", "/v2/Groups")),
    ],
)
def test_kinds_of_requests(path: str, endpoint: tuple[str, str]) -> None:
    """Ids are no names to count under; the configuration is for the handshake."""
    assert Bench(prefix="/v2").api.endpoint(f"/v2{path}") == endpoint


def test_users_in_a_request() -> None:
    """Look-ups write nobody; nonsense doesn't, either."""
    api = Bench().api

    assert api.users(patch("YW5u")) == 1
    assert api.users(bulk(step("YW5u"), step("Ym9i"))) == 2
    assert [api.users(request) for request in (query(), search(), call("GET", "/Users/YW5u"))] == [0, 0, 0]
    assert [api.users(call("POST", "/Bulk", body)) for body in (b"{", b"[]", b'{"Operations":7}')] == [0, 0, 0]


def test_what_it_saw() -> None:
    bench = Bench()
    ann, bob = bench.ids("ann", "bob")
    bench.response(bulk(step(ann), step(bob), step(ann), step("nope")))
    bench.response(patch(ann))

    assert bench.api.facts() == {
        "statuses": {"200": 3, "400": 1, "404": 1},
        "looked_up": 2,
        "duplicates": 1,
        "largest_request": 4,
    }


def test_an_error_in_its_place() -> None:
    """Quotas and faults speak SCIM, too."""
    response = Bench().api.refuse(429, "Too many requests", {"retry-after": "7"})

    assert (response.status, response.headers["retry-after"]) == (429, "7")
    assert json.loads(response.body) == {"schemas": [ERROR], "status": "429", "detail": "Too many requests"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.text(max_size=3)
    | st.sampled_from(["title", "name.x", "id", "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "title", ENTERPRISE]), inner),
    max_leaves=5,
)
OPERATIONS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "op": st.sampled_from(["add", "replace", "remove"]) | JSON,
            "path": st.sampled_from(["title", "name", "name.x", 'a[b eq "c"].d', "a", f"{ENTERPRISE}:x", "urn:a:b"])
            | st.from_regex(r"\A(urn:[a-z:.]{1,9}:)?[a-z]{1,3}(\[a eq \"?[^\]]{0,3}\"?\])?(\.[a-z])?\Z")
            | JSON,
            "value": JSON,
        },
    )
    | JSON,
    max_size=4,
)


@given(st.lists(OPERATIONS | JSON, max_size=4))
def test_anything_has_an_answer(patches: list[Any]) -> None:
    """No patch makes the service stumble, whatever is written already; what fails says so."""
    bench = Bench()
    (ann,) = bench.ids("ann")
    steps = [{**step(ann), "data": {"schemas": [PATCH_OP], "Operations": operations}} for operations in patches]

    statuses = bench.statuses(bulk(*steps, *patches))
    singly = [bench.response(patch(ann, *operations)).status for operations in patches if isinstance(operations, list)]

    assert set(statuses) <= {"200", "400"}
    assert set(singly) <= {200, 400}
    assert bench.body(call("GET", f"/Users/{ann}"))["userName"] == "ann"


async def test_results_can_be_spoilt() -> None:
    """Operations of a bulk answer and users found are entries; a renamed one is somebody else's."""
    faults = FaultOptions(rates={"foreign": 1.0})
    sandbox = Memory(Options(api="scim", scim=ScimOptions(token=TOKEN), faults=faults))

    done = json.loads((await sandbox(bulk(step("YW5u")))).body)["Operations"]
    found = json.loads((await sandbox(query(named("ann")))).body)["Resources"]

    assert [each["bulkId"] for each in done] == ["YW5u", done[1]["bulkId"]]
    assert done[1]["bulkId"].startswith("stranger")
    assert found[1]["userName"].startswith("stranger")
