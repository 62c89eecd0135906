"""Calven's endpoints, as its pages describe them."""

import json
import re
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.request import Request
from loader.sandbox import CalvenOptions, Ledger, LedgerOptions, RosterOptions
from loader.sandbox.calven import Calven
from loader.sandbox.roster import Roster
from tests.sandbox.calls import (
    BASIC,
    EXAMPLE,
    HASH,
    HIERARCHY,
    HIERARCHY_EXAMPLE,
    KEY_ID,
    NOW,
    PATH,
    SECRET,
    TOKEN,
    auth,
    body_of,
    codes,
    post,
    put_hierarchy,
    relationship,
    write,
)


class Bench:
    """A Calven with its ledger."""

    def __init__(self, roster: RosterOptions | None = None, ledger: LedgerOptions | None = None, **given: Any) -> None:
        options = CalvenOptions(key_id=KEY_ID, secret=SECRET, token=TOKEN).model_copy(update=given)
        self.ledger = Ledger(ledger or LedgerOptions())
        self.api = Calven(options, Roster(roster or RosterOptions()), self.ledger)

    def status(self, request: Request, now: float = NOW) -> int:
        return self.api.handle(request, now).status

    def token(self, now: float = NOW) -> str:
        return str(body_of(self.api.handle(auth(), now))["token"])


# Tokens


def test_a_signed_key_gets_a_token() -> None:
    """S-C1: an HMAC over key id and timestamp is answered with a token and its absolute end in seconds."""
    answer = Bench(token_lifetime_s=409.0).api.handle(auth(), NOW + 0.5)

    body = body_of(answer)
    assert answer.status == 200
    assert body.pop("token").startswith("ey")
    assert body == {"authenticated": True, "message": "Authentication successful", "expiration": 1683258201}


def test_the_end_may_be_in_milliseconds() -> None:
    """The vendor's SDK takes `expiration` for milliseconds, so the sandbox can give them."""
    answer = Bench(token_lifetime_s=0.25, expiration_unit="ms").api.handle(auth(), NOW)

    assert body_of(answer)["expiration"] == NOW * 1000 + 250


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (auth(hash=HASH.upper()), 401),
        (auth(hash="0" * 64), 401),
        (auth(key_id="somebody else"), 401),
        (auth(timestamp=NOW + 1), 401),
        (auth(timestamp=str(NOW)), 400),
        (auth(timestamp=float(NOW)), 400),
        (auth(timestamp=True), 400),
        (post("/v1/auth", {"apiKey": KEY_ID, "timestamp": NOW}), 400),
        (post("/v1/auth", {"apiKey": KEY_ID, "timestamp": NOW, "hash": HASH, "scope": "all"}), 400),
        (post("/v1/auth", b"{"), 400),
        (post("/v1/auth", b"[]"), 400),
        (post("/v1/auth", b"apiKey=x", Content_Type="application/x-www-form-urlencoded"), 400),
        (post("/v1/auth/token", {"client_id": KEY_ID, "client_secret": "wrong"}), 401),
        (post("/v1/auth/token", {"client_id": "wrong", "client_secret": SECRET}), 401),
        (
            post("/v1/auth/token", {"client_id": KEY_ID, "client_secret": SECRET, "grant_type": "client_credentials"}),
            400,
        ),
    ],
)
def test_wrong_credentials_get_no_token(request_: Request, status: int) -> None:
    """What isn't signed as the page says is 401, what isn't shaped as it says is 400."""
    assert Bench().status(request_) == status


@pytest.mark.parametrize(("off_s", "status"), [(-300, 200), (300, 200), (-301, 401), (301, 401)])
def test_a_timestamp_may_be_a_little_off(off_s: int, status: int) -> None:
    """A timestamp counts for the permitted clock skew, both ways."""
    assert Bench().status(auth(), NOW + off_s) == status


def test_a_client_secret_gets_a_token() -> None:
    """S-C3: a client secret is answered with a token and its lifetime in seconds."""
    bench = Bench()
    answer = bench.api.handle(post("/v1/auth/token", {"client_id": KEY_ID, "client_secret": SECRET}), NOW)

    body = body_of(answer)
    token = body.pop("access_token")
    assert body == {"expires_in": 3600, "token_type": "Bearer"}
    assert bench.status(post(Authorization=f"Bearer {token}")) == 200


def test_tokens_live_side_by_side_and_end_one_by_one() -> None:
    """A new token leaves the older ones alone; each ends when its own lifetime is over."""
    bench = Bench(token_lifetime_s=10.0)
    first, second = bench.token(NOW), bench.token(NOW + 5)

    def statuses(now: float) -> list[int]:
        return [bench.status(post(Authorization=f"Bearer {token}"), now) for token in (first, second)]

    assert first != second
    assert statuses(NOW + 9.9) == [200, 200]
    assert statuses(NOW + 10) == [401, 200]
    bench.token(NOW + 12)  # forgets what has ended
    assert statuses(NOW + 14.9) == [401, 200]
    assert statuses(NOW + 15) == [401, 401]


def test_revoking_ends_every_token() -> None:
    """After a revocation no token that was given before is good, and new ones are."""
    bench = Bench()
    old = bench.token()
    bench.api.revoke()

    assert bench.status(post(Authorization=f"Bearer {old}")) == 401
    assert bench.status(post(Authorization=f"Bearer {TOKEN}")) == 401
    assert bench.status(post(Authorization=f"Bearer {bench.token()}")) == 200


@pytest.mark.parametrize(
    ("path", "authorization", "status"),
    [
        (PATH, f"Bearer {TOKEN}", 200),
        (PATH, f"bearer {TOKEN}", 200),
        (PATH, TOKEN, 401),
        (PATH, "Bearer eyUnknown", 401),
        (PATH, "", 401),
        (PATH, f"Basic {BASIC}", 401),
        (f"{PATH}/basic", f"Basic {BASIC}", 200),
        (f"{PATH}/basic", f"Bearer {TOKEN}", 401),
        (f"{PATH}/basic", f"Basic {KEY_ID}:{SECRET}", 401),
        (f"{PATH}/basic", "Basic Og==", 401),
        (f"{PATH}/basic", "Basic ü", 401),
        (f"{PATH}/basic", "Basic /w==", 401),
    ],
)
def test_each_path_has_its_kind_of_credentials(path: str, authorization: str, status: int) -> None:
    """S-C15: Basic is for the paths that end in /basic, base64 as RFC 7617 says; Bearer for the others."""
    assert Bench().status(post(path, Authorization=authorization)) == status


@pytest.mark.parametrize(
    ("scheme", "request_"),
    [
        ("hmac", auth()),
        ("client-secret", post("/v1/auth/token", {"client_id": KEY_ID, "client_secret": SECRET})),
        ("basic", post(f"{PATH}/basic", Authorization=f"Basic {BASIC}")),
        ("bearer", post()),
    ],
)
def test_a_key_may_be_for_some_schemes_only(scheme: str, request_: Request) -> None:
    """Credentials of a kind that the key is not for are refused, however right."""
    others = frozenset({"hmac", "client-secret", "basic", "bearer"} - {scheme})

    assert Bench().status(request_) == 200
    assert Bench(schemes=others).status(request_) == 401


# Routes


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", PATH + "/", 200),
        ("POST", PATH + "?trace=1", 200),
        ("GET", PATH, 405),
        ("PUT", "/v1/auth", 405),
        ("POST", "/v1/directory", 404),
        ("POST", "/", 404),
        ("POST", "/v1/Directory/user-attributes", 404),
    ],
)
def test_only_documented_paths_exist(method: str, path: str, status: int) -> None:
    """A trailing slash is tolerated; other paths are 404, other methods 405."""
    request = post(path)

    assert Bench().status(Request(method, path, request.body, request.headers)) == status


def test_kinds_of_requests() -> None:
    """The two auth paths are token calls, the four write paths are data requests; all are counted by their path."""
    paths = ["/v1/auth", "/v1/auth/token", PATH, f"{PATH}/basic", HIERARCHY, f"{HIERARCHY}/basic", "/v1/presence"]

    found = [Bench().api.endpoint(path) for path in paths]
    assert [kind for kind, _ in found] == ["token", "token", "data", "data", "data", "data", "other"]
    assert [name for _, name in found] == paths


@pytest.mark.parametrize(
    ("request_", "users"),
    [
        (write("a", "b", "a"), 3),
        (write("a", userName="b"), 1),
        (auth(), 0),
        (put_hierarchy(), 0),
        (post(body=b"{"), 0),
        (post(body=[]), 0),
        (post(body={"userAttributes": "ab"}), 0),
    ],
)
def test_users_of_a_request(request_: Request, users: int) -> None:
    """As many as it has records, whatever else there is to say of it."""
    assert Bench().api.users(request_) == users


# User attributes


def test_the_example_of_the_page_is_accepted() -> None:
    """DOC-1: the example is answered with one result, and stands in the ledger."""
    bench = Bench()
    answer = bench.api.handle(post(), NOW)

    assert answer.status == 200
    assert body_of(answer) == {"results": [{"userName": "jane.doe@example.com", "message": "OK", "resultCode": 0}]}
    assert bench.ledger.users["jane.doe@example.com"].attributes == {
        "department": "engineering",
        "costCenter": "cc-1234",
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"userAttributes": {}}',
        b'{"userAttributes": null}',
        b'{"userAttributes": [], "more": 1}',
        b'{"userAttributes": [7]}',
        b'{"userAttributes": ["userName"]}',
        b'{"userAttributes": [["userName", "attributes"]]}',
        b'{"userAttributes": [{"userName": "a"}]}',
        b'{"userAttributes": [{"attributes": {}}]}',
        b'{"userAttributes": [{"userName": "", "attributes": {}}]}',
        b'{"userAttributes": [{"userName": 7, "attributes": {}}]}',
        b'{"userAttributes": [{"userName": null, "attributes": {}}]}',
        b'{"userAttributes": [{"userName": "a", "attributes": []}]}',
        b'{"userAttributes": [{"userName": "a", "attributes": null}]}',
        b'{"userAttributes": [{"userName": "a", "attributes": {}, "email": "a"}]}',
        b'{"userAttributes": [{"userName": "a", "attributes": {"n": NaN}}]}',
        b'{"userAttributes": [{"userName": "\xff", "attributes": {}}]}',
        b'{"userAttributes": [{"userName": "a", "attributes": {}}, {"userName": "", "attributes": {}}]}',
    ],
)
def test_a_body_against_the_schema_is_refused_whole(body: bytes) -> None:
    """What the documented schema doesn't allow is 400, and nothing of it is written."""
    bench = Bench()

    assert bench.status(post(body=body)) == 400
    assert bench.ledger.writes == 0


def test_the_refusal_names_the_record() -> None:
    """A schema violation says which record is wrong, and in what."""
    good, bad = {"userName": "a", "attributes": {}}, {"userName": "b", "attributes": "x"}

    answer = Bench().api.handle(post(body={"userAttributes": [good, bad]}), NOW)

    assert body_of(answer) == {"statusCode": 400, "message": "userAttributes[1]: attributes must be of type dict"}


@pytest.mark.parametrize(
    ("content_type", "status"),
    [("application/json", 200), ("Application/JSON; charset=utf-8", 200), ("text/plain", 400), ("", 400)],
)
def test_the_content_type_is_json(content_type: str, status: int) -> None:
    """Every page asks for application/json."""
    assert Bench().status(post(Content_Type=content_type)) == status


def test_any_json_value_is_taken_unless_told() -> None:
    """Only strings are documented as values: whether others are taken is an option, by default they are."""
    request = write("a", text="x", number=1.5, flag=True, nothing=None, nested={"list": [1]})

    assert Bench().status(request) == 200
    assert Bench(values="string").status(request) == 400
    assert Bench(values="string").status(write("a", text="x")) == 200


@pytest.mark.parametrize(
    ("form", "success", "unknown"),
    [
        ("number", 0, 1),
        ("string", "0", "1"),
        ("name", "SUCCESS", "USERNOTFOUND"),
        ("object", {"value": 0, "name": "SUCCESS"}, {"value": 1, "name": "USERNOTFOUND"}),
    ],
)
def test_result_codes_in_every_form(form: str, success: object, unknown: object) -> None:
    """The page leaves the type of resultCode open, so each likely one can be had."""
    bench = Bench(roster=RosterOptions(unknown=re.compile("^x")), result_code=form)

    assert codes(bench.api.handle(write("a", "x1"), NOW)) == [("a", success), ("x1", unknown)]
    assert codes(Bench(result_code=form).api.handle(write("a"), NOW)) == [("a", success)]


def test_unknown_users_are_answered_and_not_written() -> None:
    """A user that doesn't exist costs that user alone."""
    bench = Bench(roster=RosterOptions(known_users=frozenset({"a", "c"})))

    answer = bench.api.handle(write("a", "A", "b", "c", v="1"), NOW)

    assert codes(answer) == [("a", 0), ("A", 1), ("b", 1), ("c", 0)]
    assert list(bench.ledger.users) == ["a", "c"]
    assert bench.api.facts()["results"] == {"0": 2, "1": 2}


def test_users_may_be_given_any_code() -> None:
    """LOCATIONNOTFOUND and codes without a known meaning come on request, and write nothing."""
    bench = Bench(codes=((2, re.compile("desk")), (3, re.compile("^odd"))), result_code="name")

    answer = bench.api.handle(write("desk-1", "odd", "a"), NOW)

    assert codes(answer) == [("desk-1", "LOCATIONNOTFOUND"), ("odd", "CODE3"), ("a", "SUCCESS")]
    assert list(bench.ledger.users) == ["a"]


def test_a_poisonous_user_spoils_the_request() -> None:
    """A request that holds one is refused whole; without it the rest is taken."""
    bench = Bench(roster=RosterOptions(poison=re.compile("bad")))

    assert bench.status(write("a", "so-bad", "b")) == 400
    assert bench.ledger.writes == 0
    assert bench.status(write("a", "b")) == 200


@pytest.mark.parametrize(("repeated", "status", "writes"), [("last", 200, 3), ("refuse", 400, 0)])
def test_a_user_twice_in_a_request(repeated: str, status: int, writes: int) -> None:
    """It is counted in any case; by default the last value wins and each record has its result."""
    bench = Bench(repeated=repeated)
    records = [{"userName": name, "attributes": {"n": n}} for name, n in (("a", "1"), ("b", "2"), ("a", "3"))]

    answer = bench.api.handle(post(body={"userAttributes": records}), NOW)

    assert (answer.status, bench.ledger.writes) == (status, writes)
    assert bench.api.facts()["duplicates"] == 1
    if status == 200:
        assert codes(answer) == [("a", 0), ("b", 0), ("a", 0)]
        assert bench.ledger.users["a"].attributes == {"n": "3"}


def test_no_user_at_all_is_a_good_request() -> None:
    """The schema allows an empty array."""
    assert body_of(Bench().api.handle(post(body={"userAttributes": []}), NOW)) == {"results": []}


def test_too_much_is_413() -> None:
    """Above the most users or bytes, if there is such a maximum, a request is refused."""
    assert [Bench(max_users=2).status(write(*names)) for names in ("ab", "abc")] == [200, 413]
    assert [Bench(max_bytes=limit).status(post()) for limit in (len(EXAMPLE), len(EXAMPLE) - 1)] == [200, 413]


@pytest.mark.parametrize(
    ("served", "header", "status"),
    [
        (None, "ause1", 200),
        ("ause1", "ause1", 200),
        ("ause1", "usce1", 400),
        ("ause1", None, 400),
        ("usce1", None, 200),
    ],
)
def test_a_region_may_be_asked_for(served: str | None, header: str | None, status: int) -> None:
    """Without the header a request means usce1 [S-C14]; the last value seen is shown."""
    bench = Bench(region=served)

    assert bench.status(post(**({"X_Calven_Region": header} if header else {}))) == status
    assert bench.api.facts()["last_region"] == header


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=5))
def test_the_short_way_says_the_same(users: list[str]) -> None:
    """Whatever the names, the answer built for nothing but successes equals the one built user by user."""
    forms: tuple[Literal["number", "object"], ...] = ("number", "object")
    for form in forms:
        short = Bench(result_code=form).api.handle(write(*users), NOW)
        # A pattern that no name can match makes the sandbox ask about each user.
        long = Bench(result_code=form, codes=((3, re.compile(r"(?!)")),)).api.handle(write(*users), NOW)

        assert short == long
        assert [name for name, _ in codes(short)] == users


def test_the_secret_is_not_shown() -> None:
    """Options print without secret and token."""
    shown = repr(CalvenOptions(secret=SECRET, token=TOKEN))

    assert SECRET not in shown
    assert TOKEN not in shown


# The group hierarchy


def test_the_hierarchy_of_the_page_is_accepted() -> None:
    """DOC-2: the example is answered with 204 and no body, and stands in the ledger."""
    bench = Bench()
    answer = bench.api.handle(put_hierarchy(), NOW)

    assert (answer.status, answer.body) == (204, b"")
    assert list(bench.ledger.hierarchy) == json.loads(HIERARCHY_EXAMPLE)["groupRelationships"]
    assert bench.ledger.writes == 0


def test_a_hierarchy_replaces_the_one_before() -> None:
    """S-C6: every successful PUT fully replaces it; one that is refused changes nothing."""
    bench = Bench()
    for request, status in (
        (put_hierarchy(relationship("a"), relationship("b", "a")), 204),
        (put_hierarchy(relationship("c")), 204),
        (put_hierarchy(relationship("d", "nobody")), 400),
    ):
        assert bench.status(request) == status

    assert list(bench.ledger.hierarchy) == [relationship("c")]
    assert bench.api.facts()["hierarchies"] == 2


def test_basic_has_a_hierarchy_path_of_its_own() -> None:
    """The Basic path takes Basic credentials, the other one bearer tokens."""
    basic = {"Authorization": f"Basic {BASIC}"}
    requests = [
        put_hierarchy(path=f"{HIERARCHY}/basic", **basic),
        put_hierarchy(path=f"{HIERARCHY}/"),
        put_hierarchy(path=f"{HIERARCHY}/basic"),
        put_hierarchy(**basic),
        post(HIERARCHY, HIERARCHY_EXAMPLE),
    ]

    assert [Bench().status(request) for request in requests] == [204, 204, 401, 401, 405]


@pytest.mark.parametrize(
    ("relationships", "words"),
    [
        ([relationship("a", "a")], "'a' of type 'T' is its own ancestor"),
        ([relationship("top"), relationship("a", "b"), relationship("b", "c"), relationship("c", "b")], "ancestor"),
        ([relationship("top"), relationship("a", "top"), relationship("a")], "groupRelationships[2]: 'a' of type 'T'"),
        ([relationship("top"), relationship("b"), relationship("a", "top"), relationship("a", "b")], "another parent"),
        ([relationship("a", "top")], "the parent 'top' of type 'T' is no group"),
        ([relationship("a"), {**relationship("b", "a"), "parentType": "U"}], "'a' of type 'U'"),
        ([{**relationship("a"), "parentType": "T"}], "groupRelationships[0]: names and types must be text"),
        ([relationship("top"), {**relationship("a", "top"), "parentType": None}], "groupRelationships[1]"),
        ([relationship("")], "must be text"),
        ([relationship(7)], "must be text"),
        ([relationship("a"), relationship("b", "")], "must be text"),
        ([{"group": "a", "groupType": "T"}], "must have exactly the fields"),
        ([{**relationship("a"), "level": 1}], "must have exactly the fields"),
        (["a"], "must have exactly the fields"),
    ],
)
def test_a_hierarchy_that_breaks_the_rules_is_refused_whole(relationships: list[object], words: str) -> None:
    """S-C6 and DOC-2: no circles, one parent a group, both fields of the parent or neither, and all four there."""
    for status in (400, 422):
        bench = Bench(hierarchy_status=status)
        answer = bench.api.handle(put_hierarchy(*relationships), NOW)

        assert answer.status == status
        assert words in body_of(answer)["message"]
        assert bench.ledger.hierarchies == 0


def test_a_group_is_known_by_name_and_type() -> None:
    """Two groups of one name are two, and one may be the other's parent."""
    sales = [
        {"group": "Sales", "groupType": "Team", "parent": "Sales", "parentType": "Department"},
        {"group": "Sales", "groupType": "Department", "parent": None, "parentType": None},
    ]

    assert Bench().status(put_hierarchy(*sales)) == 204


@pytest.mark.parametrize(
    ("option", "body"),
    [
        ("hierarchy_unknown_parent", [relationship("a", "nobody")]),
        ("hierarchy_empty", []),
        ("hierarchy_repeated", [relationship("a"), relationship("a")]),
    ],
)
def test_what_is_documented_nowhere_may_be_refused(option: str, body: list[object]) -> None:
    """An unknown parent, an empty hierarchy, the same relationship twice: as told."""
    request = replace(post(HIERARCHY, {"groupRelationships": body}), method="PUT")

    found = {choice: Bench(None, None, **{option: choice}).status(request) for choice in ("accept", "refuse")}
    assert found == {"accept": 204, "refuse": 400}
    default = CalvenOptions.model_fields[option].default
    assert Bench().status(request) == found[default]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (replace(put_hierarchy(), body=b"[]"), 400),
        (replace(put_hierarchy(), body=b"{"), 400),
        (put_hierarchy(Content_Type="text/plain"), 400),
        (put_hierarchy(x_calven_region="ause1"), 400),
        (put_hierarchy(*[relationship(f"group{number}") for number in range(20)]), 413),
    ],
)
def test_a_hierarchy_is_a_request_like_others(request_: Request, status: int) -> None:
    """Its body, its region and its size are judged as those of user attributes are."""
    assert Bench(region="usce1", max_bytes=1000).status(request_) == status


groups = st.sampled_from("abcd")


@given(st.dictionaries(groups, st.none() | groups))
def test_only_trees_are_accepted(parents: dict[str, str | None]) -> None:
    """Accepted is exactly what leads from each group to the top."""

    def leads_to_the_top(group: str | None) -> bool:
        for _ in range(5):
            if group is None:
                return True
            group = parents.get(group, group)
        return False

    request = put_hierarchy(relationship("top"), *(relationship(*pair) for pair in parents.items()))
    assert (Bench().status(request) == 204) == all(map(leads_to_the_top, parents))
