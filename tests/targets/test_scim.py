"""SCIM, against the letter of RFC 7643 and RFC 7644: examples in quotes are theirs."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loader.batch import Batch
from loader.outcome import Code, Result
from loader.request import Request, Response
from loader.targets import BUILT_IN
from loader.targets.scim import Scim
from loader.verdict import Answer, Do, Stop, Then, Verdict
from tests import make

MESSAGES = "urn:ietf:params:scim:api:messages:2.0:"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"

#: §3.4.2, figure "Response to the query".
LISTED = """
   {
     "schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
     "totalResults":2,
     "Resources":[
       {
         "id":"2819c223-7f76-453a-919d-413861904646",
         "userName":"bjensen"
       },
       {
         "id":"c75ad752-64ae-4823-840d-ffa80929976c",
         "userName":"jsmith"
       }
     ]
   }
"""
BJENSEN, JSMITH = "2819c223-7f76-453a-919d-413861904646", "c75ad752-64ae-4823-840d-ffa80929976c"

#: §3.7.3: a PATCH is answered without a bulkId.
BULK_DONE = """
   {
       "schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkResponse"],
       "Operations": [
           {
               "location": "https://example.com/v2/Users/92b725cd-9465-4e7d-8c16-01f8e146b87a",
               "method":"POST",
               "bulkId":"qwerty",
               "version":"W\\/\\"oY4m4wn58tkVjJxK\\"",
               "status":"201"
           },
           {
               "location": "https://example.com/v2/Users/5d8d29d3-342c-4b5f-8683-a3cb6763ffcc",
               "method":"PATCH",
               "version":"W\\/\\"huJj29dMNgu3WXPD\\"",
               "status":"200"
           },
           {
               "location": "https://example.com/v2/Users/e9025315-6bea-44e1-899c-1e07454e468b",
               "method":"DELETE",
               "status":"204"
           }
       ]
   }
"""

#: §3.12.
NOT_FOUND = """
   {
     "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
     "detail":"Resource 2819c223-7f76-453a-919d-413861904646 not found",
     "status": "404"
   }
"""
MUTABILITY = """
   {
     "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
     "scimType":"mutability",
     "detail":"Attribute 'id' is readOnly",
     "status": "400"
   }
"""

OK = Result(Code.SUCCESS, "200")
DONE = Result(Code.SUCCESS, "204")


def scim(**options: Any) -> Scim:
    return Scim(auth=options.pop("auth", "bearer"), **options)


BY_ID = scim(key="id")
BULK = scim(key="id", bulk=True)


def batch(*users: str, target: Scim = BY_ID, first: int = 1, attributes: Mapping[str, Any] | None = None) -> Batch:
    records = [make.record(user, target.frame, **(attributes or {})) for user in users]
    return Batch(range(first, first + len(users)), users, records)


def listed(*users: tuple[object, str], total: int | None = None, **more: Any) -> dict[str, Any]:
    """An answer to a search: ids and keys."""
    resources = [{"id": ident, "userName": name} for ident, name in users]
    schemas = [f"{MESSAGES}ListResponse"]
    return {"schemas": schemas, "totalResults": len(users) if total is None else total, "Resources": resources, **more}


def error(status: object, kind: str | None = None, detail: str = "why") -> dict[str, Any]:
    made = {"schemas": [f"{MESSAGES}Error"], "status": status, "detail": detail}
    return made | ({"scimType": kind} if kind else {})


def bulk(*operations: Any) -> dict[str, Any]:
    return {"schemas": [f"{MESSAGES}BulkResponse"], "Operations": list(operations)}


def done(ident: str | None, row: int | None = None, status: Any = "200", **more: Any) -> dict[str, Any]:
    """An operation of a bulk answer about the user of this id, sent for this row."""
    named = {} if ident is None else {"location": f"https://example.com/v2/Users/{ident}"}
    return {"method": "PATCH", "status": status} | named | ({} if row is None else {"bulkId": f"row{row}"}) | more


def read(target: Scim, sent: Batch, *responses: Response) -> Verdict:
    return target.read(sent, responses)


def said(target: Scim, sent: Batch, *responses: Response) -> Sequence[Result | None]:
    """What the answers say of each user."""
    verdict = target.read(sent, responses)
    assert isinstance(verdict, Answer), verdict
    return verdict.results


def then(target: Scim, sent: Batch, *responses: Response) -> Sequence[Request]:
    """The requests that the answers lead to."""
    verdict = target.read(sent, responses)
    assert isinstance(verdict, Then), verdict
    assert verdict.requests
    return verdict.requests


def reply(body: Any = b"", status: int = 200) -> Response:
    return make.response(body.encode() if isinstance(body, str) else body, status)


# Requests ------------------------------------------------------------------------------------------------------------


def test_a_user_is_changed_by_patch() -> None:
    """§3.5.2: the message's schema, and operations with paths; null removes what is there."""
    (request,) = BY_ID.encode(batch(BJENSEN, attributes={"title": "Dr", f"{ENTERPRISE}:department": None}))

    assert (request.method, request.path, request.users) == ("PATCH", f"/Users/{BJENSEN}", 1)
    assert request.headers["Content-Type"] == "application/scim+json"
    assert request.headers["Accept"].startswith("application/scim+json")
    assert json.loads(request.body) == {
        "schemas": [f"{MESSAGES}PatchOp"],
        "Operations": [
            {"op": "replace", "path": "title", "value": "Dr"},
            {"op": "remove", "path": f"{ENTERPRISE}:department"},
        ],
    }


def test_a_value_may_be_added_instead() -> None:
    """For servers that refuse to replace what is absent, which §3.5.2.3 allows."""
    (request,) = scim(key="id", op="add").encode(batch("7", attributes={"title": "Dr", "nickName": None}))

    operations = json.loads(request.body)["Operations"]
    assert [operation["op"] for operation in operations] == ["add", "remove"]


VALUES = st.none() | st.text() | st.integers() | st.lists(st.text())


@given(st.dictionaries(st.text(min_size=1), VALUES, min_size=1))
def test_what_the_export_says_is_what_is_sent(attributes: Mapping[str, Any]) -> None:
    """Whatever names and values hold."""
    sent = Batch([1], ["7"], [make.record("7", BY_ID.frame, **attributes)])
    (request,) = BY_ID.encode(sent)

    assert {one["path"]: one.get("value") for one in json.loads(request.body)["Operations"]} == attributes


def test_values_are_not_encoded_again() -> None:
    """Digits, escapes and spaces stay as they are written."""
    value = rb'[1.50, 12345678901234567890123, "\u00e9\/"]'
    sent = Batch([1], ["7"], [BY_ID.frame.record("7", b'{"x":' + value + b"}")])

    for target in (BY_ID, BULK):
        assert b'"path":"x","value":' + value + b"}" in target.encode(sent)[0].body


@pytest.mark.parametrize("ident", ["a/b", "ann@x.com", "50%25", "a b?c#d", "zoë", "a;b"])
def test_an_id_is_one_segment_of_the_path(ident: str) -> None:
    """Whatever it holds."""
    (request,) = BY_ID.encode(batch(ident))

    assert request.path.count("/") == 2
    assert unquote(request.path) == f"/Users/{ident}"
    assert urlsplit(f"https://x{request.path}").path == request.path


@pytest.mark.parametrize("ident", [".", ".."])
def test_an_id_of_dots_is_looked_up(ident: str) -> None:
    """As a path it would lead elsewhere."""
    (request,) = BY_ID.encode(batch(ident))

    assert request.path.startswith("/Users?filter=id%20eq%20")
    assert said(BY_ID, batch(ident), reply(listed())) == [Result(Code.USER_NOT_FOUND, "", "no user has this id")]


def test_a_bulk_request_holds_many() -> None:
    """§3.7: method, path and data of each; failOnErrors is left out, so that each is tried."""
    sent = batch("a/b", "7", first=11, attributes={"title": "Dr"})
    (request,) = BULK.encode(sent)

    assert (request.method, request.path, request.users) == ("POST", "/Bulk", 2)
    data = {"schemas": [f"{MESSAGES}PatchOp"], "Operations": [{"op": "replace", "path": "title", "value": "Dr"}]}
    assert json.loads(request.body) == {
        "schemas": [f"{MESSAGES}BulkRequest"],
        "Operations": [
            {"method": "PATCH", "path": "/Users/a%2Fb", "bulkId": "row11", "data": data},
            {"method": "PATCH", "path": "/Users/7", "bulkId": "row12", "data": data},
        ],
    }


def test_the_size_of_a_bulk_request_is_foreseen() -> None:
    """For users of eight attributes, so that limits.bytes_per_request holds where it matters."""
    idents = [f"{number:032x}" for number in range(50)]
    sent = batch(*idents, attributes={f"attribute{number}": "a value" for number in range(8)})
    (request,) = BULK.encode(sent)

    foreseen = BULK.frame.body_bytes(50, sum(map(len, sent.records)))
    assert 0.9 * foreseen < len(request.body) <= foreseen


# Looking up ----------------------------------------------------------------------------------------------------------


def query(request: Request) -> dict[str, str]:
    """The parameters of a search by GET, unpacked by someone else's code."""
    parts = urlsplit(f"https://example.com{request.path}")
    assert (request.method, parts.path, request.body, request.users) == ("GET", "/Users", b"", 0)
    return {name: value for name, (value,) in parse_qs(parts.query, strict_parsing=True).items()}


def test_a_name_is_looked_up_first() -> None:
    """§3.4.2.2: `filter=userName eq "bjensen"`; only the id and the name are asked for."""
    (request,) = scim().encode(batch("bjensen"))

    assert query(request) == {"filter": 'userName eq "bjensen"', "attributes": "userName", "count": "2"}
    assert request.headers["Accept"].startswith("application/scim+json")


@given(st.text(min_size=1), st.sampled_from(["get", "post"]))
def test_a_filter_holds_any_name(user: str, search: str) -> None:
    """§3.4.2.2: a value is a JSON string, and so it ends where its quotes do."""
    (request,) = scim(search=search).encode(Batch([1], [user], [b"{}"]))

    comparison = query(request)["filter"] if search == "get" else json.loads(request.body)["filter"]
    assert comparison.startswith("userName eq ")
    assert json.loads(comparison.removeprefix("userName eq ")) == user


def test_a_search_can_be_posted() -> None:
    """§3.4.3; with an attribute of the enterprise extension as key."""
    target = scim(search="post", key=f"{ENTERPRISE}:employeeNumber", users_per_lookup=2)
    (request,) = target.encode(batch("00123", 'a"b', target=target))

    assert (request.method, request.path, request.users) == ("POST", "/Users/.search", 0)
    assert request.headers["Content-Type"] == "application/scim+json"
    assert json.loads(request.body) == {
        "schemas": [f"{MESSAGES}SearchRequest"],
        "attributes": [f"{ENTERPRISE}:employeeNumber"],
        "filter": f'{ENTERPRISE}:employeeNumber eq "00123" or {ENTERPRISE}:employeeNumber eq "a\\"b"',
        "count": 3,
    }


def test_many_are_looked_up_together_where_the_setting_says_so() -> None:
    """But never two who are one to a server that minds no case: whom would it mean?"""
    searches = scim(users_per_lookup=2, bulk=True).encode(batch("ann", "Ann", "bob", "cem", "BOB"))

    assert [query(search)["filter"] for search in searches] == [
        'userName eq "ann"',
        'userName eq "Ann" or userName eq "bob"',
        'userName eq "cem" or userName eq "BOB"',
    ]


def test_who_is_found_is_changed_by_id() -> None:
    """Each by a request of its own, or all by one."""
    sent = batch("jsmith", "bjensen")

    alone = then(scim(users_per_lookup=2), sent, reply(LISTED))
    (together,) = then(scim(users_per_lookup=2, bulk=True), sent, reply(LISTED))

    assert [(one.path, one.users) for one in alone] == [(f"/Users/{JSMITH}", 1), (f"/Users/{BJENSEN}", 1)]
    operations = json.loads(together.body)["Operations"]
    assert [operation["path"] for operation in operations] == [f"/Users/{JSMITH}", f"/Users/{BJENSEN}"]
    assert together.users == 2


@given(st.permutations([("1", "ann"), ("2", "bob"), ("3", "cem"), ("2", "bob")]))
def test_the_found_are_matched_by_name_and_never_by_position(found: list[tuple[str, str]]) -> None:
    """In any order, and doubled."""
    (request,) = then(scim(users_per_lookup=5, bulk=True), batch("cem", "ann", "bob"), reply(listed(*found, total=3)))

    paths = [operation["path"] for operation in json.loads(request.body)["Operations"]]
    assert paths == ["/Users/3", "/Users/1", "/Users/2"]


@pytest.mark.parametrize(
    ("key", "resource"),
    [
        ("externalId", {"externalId": "701984"}),
        ("externalid", {"ExternalID": "701984"}),
        ("emails.value", {"emails": [{"value": "other@x.com"}, {"value": "701984"}]}),
        ("name.formatted", {"name": {"formatted": "701984"}}),
        (f"{ENTERPRISE}:employeeNumber", {ENTERPRISE: {"employeeNumber": "701984"}}),
        (f"{ENTERPRISE}:employeeNumber", {ENTERPRISE.upper(): {"employeenumber": 701984}}),
        ("urn:ietf:params:scim:schemas:core:2.0:User:nickName", {"nickName": "701984"}),
    ],
)
def test_the_key_may_be_any_attribute(key: str, resource: dict[str, Any]) -> None:
    """RFC 7643 §2.1: case in names doesn't count; §3.3: an extension stands below its URN."""
    target = scim(key=key)
    sent = batch("701984", target=target)

    (request,) = then(target, sent, reply({"totalResults": 1, "Resources": [{"id": "7", **resource}]}))

    assert request.path == "/Users/7"


@pytest.mark.parametrize("key", ["", "a b", 'emails[type eq "work"].value', "urn:x:", "1a", "a.b.c", "a."])
def test_a_key_that_no_filter_can_name_is_refused(key: str) -> None:
    """At the start."""
    with pytest.raises(ValidationError):
        scim(key=key)


NOBODY = Result(Code.USER_NOT_FOUND, "", "no user has this userName")


@pytest.mark.parametrize(
    "body", [{"totalResults": 0}, {"totalResults": 0, "Resources": None}, listed(), {"totalResults": "0"}]
)
def test_who_is_not_found_is_not_created(body: dict[str, Any]) -> None:
    """§3.4.2: Resources may be absent where nothing is found."""
    assert said(scim(), batch("ann"), reply(body)) == [NOBODY]


@pytest.mark.parametrize(
    ("user", "found", "ident"),
    [
        ("ann", [("1", "ANN")], "1"),  # RFC 7643 §4.1.1: userName is case insensitive
        ("Ann", [("1", "ann"), ("2", "Ann")], "2"),  # and where it isn't, the exact one counts
        ("ann", [(1, "ann")], "1"),
    ],
)
def test_case_counts_only_where_it_tells_apart(user: str, found: list[tuple[Any, str]], ident: str) -> None:
    assert [request.path for request in then(scim(), batch(user), reply(listed(*found)))] == [f"/Users/{ident}"]


@pytest.mark.parametrize(
    ("target", "found", "message"),
    [
        (scim(), [("1", "Ann"), ("2", "ANN")], "2 users have this userName"),
        (scim(), [("1", "ann"), ("2", "ann"), ("3", "ANN")], "2 users have this userName"),
    ],
)
def test_of_several_users_none_is_chosen(target: Scim, found: list[tuple[str, str]], message: str) -> None:
    assert said(target, batch("ann"), reply(listed(*found))) == [Result(Code.INVALID, "", message)]


def test_case_counts_in_an_external_id() -> None:
    """RFC 7643 §3.1; a server that finds another all the same is not believed."""
    target = scim(key="externalId")
    body = {"totalResults": 1, "Resources": [{"id": "1", "externalId": "A7"}]}

    answer = read(target, batch("a7", target=target), reply(body))

    assert isinstance(answer, Answer)
    assert [result and result.code for result in answer.results] == [Code.FAILED]
    assert answer.strangers == 1


@pytest.mark.parametrize(
    "body",
    [
        listed(total=1),
        listed(("9", "zoe")),
        listed((None, "ann")),
        listed(("", "ann")),
        listed((True, "ann")),
        {"totalResults": 1, "Resources": [{"id": "1"}]},
        {"totalResults": 1, "Resources": [{"id": "1", "userName": None}]},
        {"totalResults": 1, "Resources": [{"id": "1", "userName": {"a": ["ann"]}}]},
        {},
        [],
        {"totalResults": -1.5},
        {"Resources": []},
        {"totalResults": 1, "Resources": {"id": "1", "userName": "ann"}},
        {"totalResults": 1, "Resources": ["ann"]},
        error("404"),
        b"",
        b"<html>",
        b"\xff",
        b'{"totalResults":1,"Resources":[{"id":1e999,"userName":"ann"}]}',
        b"[" * 100_000,
    ],
)
def test_a_search_that_tells_nothing_is_made_again(body: Any) -> None:
    """Neither is the user changed, nor said not to exist."""
    (result,) = said(scim(missing_result="success"), batch("ann"), reply(body))

    assert result is not None
    assert result.code is Code.FAILED
    assert result.message


def test_who_is_named_is_not_held_up_by_who_is_not() -> None:
    """A page too short for all: the others are asked for again. A search of their own that failed: the same."""
    target = scim(users_per_lookup=2, bulk=True)
    sent = batch("ann", "bob", "cem")

    (request,) = then(target, sent, reply(listed(("1", "bob"), total=2)), reply(b"garbled"))
    answer = said(target, sent, reply(listed(("1", "bob"), total=2)), reply(b"garbled"), reply(bulk(done("1", 2))))

    assert request.users == 1
    assert [result and result.code for result in answer] == [Code.FAILED, Code.SUCCESS, Code.FAILED]


@pytest.mark.parametrize(
    ("found", "code", "counts"),
    [
        (listed(("1", "ann")), Code.USER_NOT_FOUND, (0, 0)),
        (listed(("1", "ann"), ("1", "ann"), total=1), Code.USER_NOT_FOUND, (0, 1)),
        (listed(("1", "ann"), ("9", "zoe"), total=1), Code.FAILED, (1, 0)),
        (listed(("1", "ann"), ("1", "ann")), Code.FAILED, (0, 1)),
    ],
)
def test_who_is_not_named_is_unknown_only_if_the_answer_is_whole(
    found: dict[str, Any], code: Code, counts: tuple[int, int]
) -> None:
    """Not where it names others instead, or counts more than it shows. Strangers and doubles are told of."""
    target = scim(users_per_lookup=2)

    answer = read(target, batch("ann", "bob"), reply(found), reply(b"", 204))

    assert isinstance(answer, Answer)
    assert [result and result.code for result in answer.results] == [Code.SUCCESS, code]
    assert (answer.strangers, answer.doubled) == counts


def test_nobody_found_is_an_answer_in_bulk_too() -> None:
    """There is nothing to send then."""
    target = scim(bulk=True)

    assert said(target, batch("ann", "bob"), reply(listed()), reply(listed())) == [NOBODY] * 2


def test_two_names_of_one_user_go_one_after_the_other() -> None:
    """In one bulk request, which of them is done last is the server's to choose."""
    target = scim(bulk=True)
    sent = batch("ann", "Ann", "bob", first=20)
    searches = [reply(listed(("1", "ann"))), reply(listed(("1", "ann"))), reply(listed(("2", "bob")))]

    (request,) = then(target, sent, *searches)
    answer = said(target, sent, *searches, reply(bulk(done("1", 20), done("2", 22))))

    assert [operation["path"] for operation in json.loads(request.body)["Operations"]] == ["/Users/1", "/Users/2"]
    later = Result(Code.FAILED, "", "the server takes this key for that of row 20, which goes first")
    assert answer == [OK, later, OK]


@pytest.mark.parametrize(
    ("options", "status", "body", "verdict"),
    [
        ({}, 400, error("400", "invalidFilter"), Result(Code.INVALID, "invalidFilter", "why")),
        ({}, 414, b"", Do.STOP),
        ({}, 401, b"", Do.RENEW),
        ({}, 403, error("403"), Do.STOP),
        ({}, 404, error("404"), Do.STOP),
        ({}, 404, b"", Do.STOP),
        ({}, 404, b"<html>", Do.STOP),
        ({}, 429, b"", Do.WAIT),
        ({}, 500, b"", Do.AGAIN),
        ({}, 302, b"", Do.STOP),
        ({}, 403, error("403", "sensitive"), 'set target.search = "post"'),
        ({}, 501, b"", "see target.key in docs/scim.md"),
        ({"search": "post"}, 404, b"", 'it may have no /Users/.search; set target.search = "get"'),
        ({"search": "post"}, 501, b"", 'set target.search = "get"'),
        ({"users_per_lookup": 5}, 400, error("400", "invalidFilter"), "set target.users_per_lookup = 1"),
        ({"users_per_lookup": 5}, 400, error("400", "tooMany"), "set target.users_per_lookup = 1"),
        ({"users_per_lookup": 5}, 414, b"", "set target.users_per_lookup = 1"),
        ({"users_per_lookup": 5, "search": "post"}, 413, b"", "set target.users_per_lookup = 1"),
        ({"users_per_lookup": 5}, 400, error("400", "invalidValue"), Do.SPLIT),
    ],
)  # fmt: skip
def test_a_search_that_is_refused(options: dict[str, Any], status: int, body: Any, verdict: Any) -> None:
    """What is about one user costs one user; what a setting can mend names it."""
    target = scim(**options)
    sent = batch("ann", "bob") if "users_per_lookup" in options else batch("ann")

    found = read(target, sent, reply(body, status))

    if isinstance(verdict, str):
        assert isinstance(found, Stop)
        assert verdict in found.way_out
    else:
        assert found == (Answer([verdict]) if isinstance(verdict, Result) else verdict)


# What the answers mean -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (204, b"", DONE),
        (200, b"", OK),
        (200, {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "id": BJENSEN, "userName": "bjensen"}, OK),
        (404, NOT_FOUND, Result(Code.USER_NOT_FOUND, "404", f"Resource {BJENSEN} not found")),
        (404, b"", Result(Code.USER_NOT_FOUND, "404", "HTTP 404")),
        (400, MUTABILITY, Result(Code.INVALID, "mutability", "Attribute 'id' is readOnly")),
        (400, b"no", Result(Code.INVALID, "400", "HTTP 400: no")),
        (400, {"scimType": 7, "detail": []}, Result(Code.INVALID, "400", 'HTTP 400: {"scimType": 7, "detail": []}')),
        (409, error("409", "uniqueness"), Result(Code.INVALID, "uniqueness", "why")),
        (412, error("412"), Result(Code.INVALID, "412", "why")),
        (413, error("413"), Result(Code.INVALID, "413", "why")),
        (422, error("422"), Result(Code.INVALID, "422", "why")),
    ],
)  # fmt: skip
def test_an_answer_to_a_patch_is_about_its_user(status: int, body: Any, result: Result) -> None:
    """§3.5.2, §3.12."""
    assert said(BY_ID, batch(BJENSEN), reply(body, status)) == [result]


@pytest.mark.parametrize(
    ("status", "body", "do"),
    [
        (401, error("401"), Do.RENEW),
        (403, error("403"), Do.STOP),
        (404, b"<html>no such page</html>", Do.STOP),
        (409, error("409"), Do.AGAIN),
        (429, error("429"), Do.WAIT),
        (500, error("500"), Do.AGAIN),
        (503, b"", Do.AGAIN),
        (307, b"", Do.STOP),
    ],
)
def test_an_answer_to_a_patch_about_more_than_its_user(status: int, body: Any, do: Do) -> None:
    """A 404 that is no SCIM error comes from a wrong address."""
    assert read(BY_ID, batch(BJENSEN), reply(body, status)) is do


@pytest.mark.parametrize("status", [405, 501])
def test_a_server_without_patch_can_not_be_loaded(status: int) -> None:
    """§3.5.2: PATCH is optional."""
    found = read(BY_ID, batch("7"), reply(b"", status))

    assert isinstance(found, Stop)
    assert "PATCH" in found.way_out


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>log in</html>"), (200, {}), (200, {"id": "8"}), (200, [{"id": "7"}]), (200, error("400")),
     (200, {"id": ["7"]}), (200, b'{"id":"7"'), (201, {"id": "7"}), (202, b""), (206, b"")],
)  # fmt: skip
def test_what_is_no_sign_of_success_is_none(status: int, body: Any) -> None:
    """Nor does silence count as one here, whatever missing_result says: a PATCH has an answer of its own."""
    (result,) = said(scim(key="id", missing_result="success"), batch("7"), reply(body, status))

    assert result is not None
    assert result.code is Code.FAILED


def test_one_refused_user_does_not_stop_those_looked_up_with_it() -> None:
    """The requests go on behind what is one user's fault, and only behind that."""
    target = scim(users_per_lookup=3)
    sent = batch("ann", "bob", "cem")
    found = reply(listed(("1", "ann"), ("2", "bob"), ("3", "cem")))
    good, bad, busy = reply(b"", 204), reply(MUTABILITY, 400), reply(b"", 429)

    assert [target.goes_on(answer) for answer in (good, bad, busy)] == [True, True, False]
    assert said(target, sent, found, good, bad, good) == [
        DONE,
        Result(Code.INVALID, "mutability", "Attribute 'id' is readOnly"),
        DONE,
    ]
    assert read(target, sent, found, good, busy) is Do.WAIT


def test_a_wrong_address_is_not_searched_to_the_end() -> None:
    """In bulk, a 404 can only be the search's own; else it may be a user's."""
    assert not scim(bulk=True).goes_on(reply(b"", 404))
    assert scim(users_per_lookup=3).goes_on(reply(b"", 404))


def test_what_was_answered_leads_to_the_same_requests_again() -> None:
    """So that sending can go on where it stopped."""
    target = scim(users_per_lookup=3)
    sent = batch("ann", "bob", "cem")
    found = reply(listed(("1", "ann"), ("2", "bob"), ("3", "cem")))

    assert then(target, sent, found, reply(b"", 204)) == then(target, sent, found)


# Bulk ----------------------------------------------------------------------------------------------------------------


def test_a_patch_is_known_by_its_location() -> None:
    """As the RFC's own example has no bulkId there. The others are somebody else's."""
    answer = read(BULK, batch("5d8d29d3-342c-4b5f-8683-a3cb6763ffcc"), reply(BULK_DONE))

    assert answer == Answer([OK], strangers=2)


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        (done("7"), OK),
        (done(None, 1), OK),
        (done("7", 1, "204"), DONE),
        (done("7", 1, 200), OK),
        (done("7", 1, "200 OK"), OK),
        (done("7", 1, {"code": "200"}), OK),
        (done("7", 1, {"code": 200}), OK),
        (done("7", 1, "200", response={"id": "7"}), OK),
        (done("7", 1, method="patch"), OK),
        (done("7", bulkId=None), OK),
        (done("7", bulkId=""), OK),
        ({"bulkId": "row1", "status": "200"}, OK),
        (done(None, 1, location=None), OK),
        (done(None, location="/v2/Users/7/"), OK),
        (done(None, location="/v2/Users/%37?x=1#y"), OK),
        (done(None, 1, location="https://[x"), OK),
        (done("7", 1, "404", response=error("404")), Result(Code.USER_NOT_FOUND, "404", "why")),
        (done("7", 1, 404), Result(Code.USER_NOT_FOUND, "404")),
        (done("7", 1, "400", response=error("400", "invalidPath")), Result(Code.INVALID, "invalidPath", "why")),
        (done("7", 1, "409", response=error("409", "uniqueness")), Result(Code.INVALID, "uniqueness", "why")),
        (done("7", 1, "412", response=error("412")), Result(Code.INVALID, "412", "why")),
        (done("7", 1, "403", response=error("403")), Result(Code.INVALID, "403", "why")),
        (done("7", 1, "501"), Result(Code.INVALID, "501")),
        (done("7", 1, "200", response=error("400", "invalidValue")), Result(Code.INVALID, "invalidValue", "why")),
        (done("7", 1, None, response=error("404")), Result(Code.USER_NOT_FOUND, "404", "why")),
        (done("7", 1, "409"), Result(Code.FAILED, "409")),
        (done("7", 1, "401"), Result(Code.FAILED, "401")),
        (done("7", 1, "429"), Result(Code.FAILED, "429")),
        (done("7", 1, 500, response="sorry"), Result(Code.FAILED, "500")),
        (done("7", 1, "202"), Result(Code.FAILED, "202")),
        (done("7", 1, "200", response=error("200")), Result(Code.FAILED, "200", "why")),
        (done("7", 1, "done"), Result(Code.INVALID, "done")),
        (done("7", 1, True), Result(Code.INVALID, "true")),
        (done("7", 1, 2000), Result(Code.INVALID, "2000")),
        (done("7", 1, 200.0), Result(Code.INVALID, "200.0")),
        (done("7", 1, []), Result(Code.INVALID, "[]")),
        (done("7", 1, None), None),
        (done("7", 1, ""), None),
        (done("7", 1, {}), None),
        (done("7", 1, {"code": None}), None),
    ],
)  # fmt: skip
def test_an_operation_says_what_became_of_its_user(operation: dict[str, Any], result: Result | None) -> None:
    """§3.7.3: the status is text, the error in `response`. Numbers and the object of drafts are taken, too."""
    assert said(BULK, batch("7"), reply(bulk(operation))) == [result]


def test_an_odd_number_spoils_one_user_and_not_the_answer() -> None:
    """No float holds it."""
    body = b'{"Operations":[{"bulkId":"row1","status":1e999},{"bulkId":"row2","status":"200","response":{"x":1e999}}]}'

    assert said(BULK, batch("7", "8"), reply(body)) == [Result(Code.INVALID, "1e999"), OK]


STRANGE = [
    done("9"),  # nobody we sent
    done("9", 9),
    done("1", 9),  # our user, and an operation that we did not send
    done("1", 2),  # two users of ours at once
    done(None),
    done("1", bulkId=7),
    {**done("1", 1), "method": "POST"},
    {},
]


@given(
    st.lists(st.sampled_from(STRANGE)), st.permutations([done("1", 1), done("2"), done(None, 3, "404")]), st.randoms()
)
def test_operations_are_matched_by_what_they_name_and_never_by_position(
    strange: list[dict[str, Any]], ours: list[dict[str, Any]], rng: Any
) -> None:
    """Reordered and foreign ones change nothing; who is left out is None."""
    operations = [*strange, *ours]
    rng.shuffle(operations)

    answer = read(BULK, batch("1", "2", "3", "4"), reply(bulk(*operations)))

    assert answer == Answer([OK, OK, Result(Code.USER_NOT_FOUND, "404"), None], strangers=len(strange))


@given(st.permutations([done("1", 1, "404"), done("1", 1), done("2", 2)]))
def test_of_two_operations_for_one_user_success_must_stand_alone(operations: list[dict[str, Any]]) -> None:
    """It is believed only where nothing speaks against it."""
    answer = read(BULK, batch("1", "2"), reply(bulk(*operations)))

    assert answer == Answer([Result(Code.USER_NOT_FOUND, "404"), OK], doubled=1)


def test_an_answer_to_another_request_is_not_taken_for_this_one() -> None:
    """A bulkId is its row's, in whichever request it goes."""
    assert said(BULK, batch("7", first=1), reply(bulk(done(None, 101)))) == [None]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff", {}, [], bulk() | {"Operations": None}, bulk(1), error("400"), b"[" * 100_000]
)
def test_a_bulk_answer_that_can_not_be_read_is_asked_for_again(body: Any) -> None:
    """Its status says it was taken, its body nothing of whom."""
    assert read(BULK, batch("7"), reply(body)) is Do.AGAIN


@pytest.mark.parametrize(
    ("status", "do"),
    [
        (400, Do.SPLIT),
        (413, Do.SHRINK),
        (401, Do.RENEW),
        (429, Do.WAIT),
        (500, Do.AGAIN),
        (202, Do.AGAIN),
        (204, Do.AGAIN),
    ],
)
def test_a_bulk_request_refused_as_a_whole(status: int, do: Do) -> None:
    """§3.7.4: 413 where it is too large."""
    assert read(BULK, batch("7", "8"), reply(b"", status)) is do


@pytest.mark.parametrize("status", [403, 404, 405, 501])
def test_a_server_without_bulk_is_told_of(status: int) -> None:
    """With what to set, and that the load then goes on."""
    found = read(BULK, batch("7", "8"), reply(error(str(status)), status))

    assert isinstance(found, Stop)
    assert "set target.bulk = false" in found.way_out


def test_a_bulk_request_for_one_user_is_refused_in_words() -> None:
    """Then it is that user's refusal, and the error's kind is kept."""
    assert said(BULK, batch("7"), reply(MUTABILITY, 400)) == [
        Result(Code.INVALID, "mutability", "Attribute 'id' is readOnly")
    ]
    assert said(BULK, batch("7"), reply(b"", 413)) == [Result(Code.INVALID, "413", "HTTP 413")]


# Whatever comes ------------------------------------------------------------------------------------------------------

TEXTS = (
    st.sampled_from(["200", "204", "404", "1", "row1", "ann", "PATCH", "https://example.com/v2/Users/ann"]) | st.text()
)
NAMES = st.sampled_from(
    [
        "totalResults",
        "Resources",
        "id",
        "userName",
        "Operations",
        "status",
        "bulkId",
        "location",
        "response",
        "code",
        "schemas",
        "scimType",
        "detail",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=10,
)
FOUND = st.lists(st.sampled_from([("1", "ann"), ("2", "bob"), ("1", "ANN"), (3, "bob"), ("", "ann")]), max_size=3)
NEARLY = st.fixed_dictionaries(
    {"status": st.sampled_from(["200", "204", 200, {"code": "200"}, "404", "503", None]) | JSON},
    optional={
        "bulkId": st.sampled_from(["row1", "row2", "row9", None]),
        "location": st.sampled_from(
            [f"https://example.com/v2/Users/{ident}" for ident in ("1", "2", "ann", "bob", "")]
        ),
        "method": st.sampled_from(["PATCH", "POST"]),
        "response": JSON | st.just(error("400")),
    },
)
BODIES = st.one_of(
    st.binary(max_size=50),
    JSON.map(json.dumps).map(str.encode),
    st.builds(lambda operations: json.dumps(bulk(*operations)).encode(), st.lists(NEARLY | JSON, max_size=3)),
    st.builds(lambda found: json.dumps(listed(*found)).encode(), FOUND),
    st.builds(lambda found: json.dumps({"totalResults": 1, "Resources": found}).encode(), st.lists(JSON, max_size=3)),
)
STATUSES = st.sampled_from([200, 200, 200, 204]) | st.integers(100, 599)
ANSWERS = st.builds(Response, STATUSES, st.just({}), BODIES)
TARGETS = [
    scim(**options, key=key, bulk=bulky)
    for options in ({}, {"users_per_lookup": 2}, {"search": "post"})
    for key in ("id", "userName")
    for bulky in (False, True)
]


def talk(target: Scim, sent: Batch, answer: Callable[[], Response]) -> tuple[Verdict, list[tuple[Request, Response]]]:
    """As settle.py leads it, to the verdict that ends it."""
    requests = target.encode(sent)
    responses: list[Response] = []
    while True:
        for request in requests[len(responses) :]:
            assert request.path.startswith("/")
            responses.append(answer())
            if not target.goes_on(responses[-1]):
                break
        verdict = target.read(sent, responses)
        if not isinstance(verdict, Then):
            return verdict, list(zip(requests, responses, strict=False))
        assert len(responses) == len(requests), "what is asked for next stands behind all before"
        requests += verdict.requests


def speaks_of(operation: object, row: int, ident: str) -> bool:
    """Does this operation name that user, and a success?"""
    if not isinstance(operation, dict):
        return False
    named = {str(operation.get("bulkId")), unquote(str(operation.get("location")).strip("/").rpartition("/")[2])}
    return bool(named & {f"row{row}", ident}) and any(code in json.dumps(operation) for code in ("200", "204"))


@settings(max_examples=300)
@given(st.sampled_from(TARGETS), st.data())
def test_whatever_comes_nothing_is_raised_and_no_success_made_up(target: Scim, data: st.DataObject) -> None:
    """SUCCESS needs a 200 or 204 that was said of that very user."""
    sent = batch("ann", "bob", target=target) if target.bulk or target.users_per_lookup > 1 else batch("ann")

    verdict, talked = talk(target, sent, lambda: data.draw(ANSWERS))

    if not isinstance(verdict, Answer):
        return
    assert len(verdict.results) == len(sent)
    changes = [(request, response) for request, response in talked if request.users]
    for row, result in zip(sent.numbers, verdict.results, strict=True):
        if result is None or result.code is not Code.SUCCESS:
            continue
        if target.bulk:
            ((request, response),) = changes
            assert 200 <= response.status < 300
            place = next(one["path"] for one in json.loads(request.body)["Operations"] if one["bulkId"] == f"row{row}")
            ident = unquote(place.rpartition("/")[2])
            assert any(speaks_of(one, row, ident) for one in json.loads(response.body)["Operations"])
        else:
            assert any(response.status in (200, 204) for _, response in changes)


# About the target ----------------------------------------------------------------------------------------------------


def test_it_is_found_by_its_name() -> None:
    """As `[target] api` gives it; there is no address for all."""
    assert BUILT_IN["scim"] is Scim
    assert Scim.address == ""


def test_how_many_users_a_request_takes() -> None:
    """One, or those who are looked up together, or in bulk as many as the limits say."""
    assert (scim().defaults.users_per_request, scim().defaults.max_users) == (1, 1)
    assert scim(users_per_lookup=50).defaults.max_users == 50
    assert scim(users_per_lookup=50, key="id").defaults.max_users == 1
    assert (BULK.defaults.users_per_request, BULK.defaults.max_users) == (100, None)


def test_tokens_may_come_from_an_oauth_2_server() -> None:
    """Of its own, or another's."""
    made = scim(auth="oauth2", token_url="https://login.example.com/token", scope="scim").scheme

    assert made.elsewhere == "https://login.example.com/token"
    assert made.call is not None
    assert made.call({"key_id": "K", "secret": "S"}, 0.0).body == b"grant_type=client_credentials&scope=scim"
    with pytest.raises(ValidationError, match="oauth2 needs token_url"):
        scim(auth="oauth2")


def test_names_differing_in_case_are_one_attribute() -> None:
    """RFC 7643 §2.1."""
    assert scim().names.complaint(["title", "Title"])
    assert scim().names.complaint(["title", "name.givenName"]) is None


def test_another_key_makes_another_load_and_bulk_does_not() -> None:
    """So that bulk can be given up half-way."""
    assert scim().identity() != scim(key="externalId").identity()
    assert scim().identity() == scim(bulk=True, users_per_lookup=9).identity()


def test_the_configuration_is_a_harmless_call() -> None:
    """§4."""
    request = scim().probe()

    assert request is not None
    assert (request.method, request.path, request.body, request.users) == ("GET", "/ServiceProviderConfig", b"", 0)


def test_a_preview_shows_what_follows_a_search() -> None:
    """With something in the id's place; without a search it is what is sent."""
    shown = scim(bulk=True).preview(batch("ann", "bob"))

    assert [request.path.partition("?")[0] for request in shown] == ["/Users", "/Users", "/Bulk"]
    assert [request.users for request in shown] == [0, 0, 2]
    assert BULK.preview(batch("ann", "bob")) == BULK.encode(batch("ann", "bob"))
