"""Descope, against what its documentation and its SDKs show (see the docstring of loader/targets/descope.py)."""

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loader.batch import Batch, BatchLimits
from loader.ceiling import RequestSize
from loader.client import Credentials, Tempo
from loader.errors import SettingsError, Stopped
from loader.lane import Lane
from loader.outcome import Code, Outcome, Result
from loader.request import Request, Response
from loader.settle import Settler
from loader.targets import BUILT_IN
from loader.targets.descope import SINGLE, Descope
from loader.verdict import Answer, Do, Verdict
from tests import make
from tests.virtual_time import virtual_time

ANN = "ann@example.com"
SECRETS = {"token": "P2abcdefghijklmnopqrstuvwx:K2secret"}

#: As the page "Update User Custom Attribute" shows it, but for the ids.
USER: Mapping[str, Any] = {
    "loginIds": [ANN],
    "userId": "U2abc",
    "name": "string",
    "email": "string",
    "phone": "string",
    "verifiedEmail": True,
    "verifiedPhone": True,
    "roleNames": ["string"],
    "userTenants": [{"tenantId": "string", "roleNames": ["string"], "tenantName": "string"}],
    "status": "string",
    "externalIds": ["string"],
    "picture": "string",
    "test": False,
    "customAttributes": {},
    "createdTime": 0,
    "TOTP": False,
    "SAML": False,
    "OAuth": {"property1": False, "property2": False},
    "webauthn": True,
    "password": True,
    "ssoAppIds": ["string"],
    "givenName": "string",
    "middleName": "string",
    "familyName": "string",
    "editable": True,
}


def descope(**options: Any) -> Descope:
    return Descope(auth="bearer", **options)


def batch(*users: str, target: Descope | None = None, **attributes: Any) -> Batch:
    frame = (target or descope()).frame
    users = users or (ANN,)
    records = [make.record(user, frame, **(attributes or {"a": "x", "b": 1, "c": None})) for user in users]
    return Batch(range(1, len(users) + 1), users, records)


def user(*login_ids: str, user_id: str = "U2abc") -> dict[str, Any]:
    """The page's user with these login ids."""
    return {**USER, "loginIds": list(login_ids), "userId": user_id}


def taken(*login_ids: str) -> Response:
    return make.response({"user": user(*(login_ids or (ANN,)))})


def refused(code: Any = "E011003", status: int = 400, message: str = "no", description: str = "") -> Response:
    return make.response({"errorCode": code, "errorDescription": description, "errorMessage": message}, status)


def one(code: Code, target_code: str = "", message: str = "") -> Answer:
    return Answer([Result(code, target_code, message)])


SUCCESS = one(Code.SUCCESS)
NOT_FOUND = one(Code.USER_NOT_FOUND, "E112102", "User not found")


# One attribute of one user


def test_each_attribute_is_one_post() -> None:
    """As the page shows it, in the order of the record."""
    requests = descope().encode(batch())

    assert {(request.method, request.path) for request in requests} == {
        ("POST", "/v1/mgmt/user/update/customAttribute")
    }
    assert {tuple(request.headers.items()) for request in requests} == {(("Content-Type", "application/json"),)}
    assert {request.users for request in requests} == {1}
    assert [json.loads(request.body) for request in requests] == [
        {"loginId": ANN, "attributeKey": "a", "attributeValue": "x"},
        {"loginId": ANN, "attributeKey": "b", "attributeValue": 1},
        {"loginId": ANN, "attributeKey": "c", "attributeValue": None},
    ]


def test_values_go_as_they_stand() -> None:
    """Byte for byte, and with their type: null, a number, text, a boolean, an object or a list."""
    values = {
        "n": "null", "f": "1.50", "e": "1e400", "s": '"\\u00e9"', "t": "true", "o": '{"a":[ 1, 2]}', "l": '["x", 1]'
    }  # fmt: skip
    record = SINGLE.record('"ä"', ("{" + ",".join(f'"{name}":{text}' for name, text in values.items()) + "}").encode())
    bodies = [request.body.decode() for request in descope().encode(Batch([1], ['"ä"'], [record]))]

    assert bodies == [
        f'{{"loginId":"\\"ä\\"","attributeKey":"{name}","attributeValue":{text}}}' for name, text in values.items()
    ]


def said(*responses: Response, target: Descope | None = None, sent: Batch | None = None) -> Verdict:
    return (target or descope()).read(sent or batch(), responses)


def test_all_attributes_taken_are_a_success() -> None:
    assert said(taken(), taken(), taken()) == SUCCESS


@pytest.mark.parametrize("found", [user("bob", ANN), user("bob", user_id=ANN), user("ANN@Example.com")])
def test_a_user_is_known_by_any_of_its_ids(found: dict[str, Any]) -> None:
    """Login ids, and the user id: the SDKs take either. Whether case counts is not documented."""
    answer = make.response({"user": found})

    assert said(answer, answer, answer) == SUCCESS


def test_an_answer_about_somebody_else_is_none() -> None:
    """All of the user's attributes are sent again."""
    assert said(taken(), taken("bob"), taken()) == Answer([None], strangers=1)


@pytest.mark.parametrize("body", [{}, {"user": None}, {"user": {}}, {"user": {"loginIds": "ann", "userId": 7}}])
def test_an_answer_about_nobody_leaves_the_user_out(body: dict[str, Any]) -> None:
    silent = make.response(body)

    assert said(taken(), silent, taken()) == Answer([None])
    assert said(taken(), silent, refused()) == Answer([None])


def test_silence_may_be_a_success_but_no_refusal_is() -> None:
    """The setting missing_result is about what is not said."""
    silent = make.response({})
    target = descope(missing_result="success")

    assert said(silent, silent, silent, target=target) == Answer([None])
    assert said(silent, refused("E1"), silent, target=target) == one(Code.PARTIAL, "E1", "b: no (E1)")


def test_some_attributes_refused_are_named_with_why() -> None:
    """The description says what it is in general, the message what it was here; they may be the same."""
    undeclared = refused("E011003", 400, "there is no attribute 'a'", "Validation failure")
    wrong_type = refused("E011004", 422, "not valid", "not valid")

    assert said(undeclared, taken(), wrong_type) == one(
        Code.PARTIAL,
        "E011003 E011004",
        "a: Validation failure: there is no attribute 'a' (E011003); c: not valid (E011004)",
    )


def test_all_attributes_refused_make_the_user_invalid() -> None:
    assert said(refused(), refused(), refused()) == one(
        Code.INVALID, "E011003", "a: no (E011003); b: no (E011003); c: no (E011003)"
    )


def test_a_refusal_that_is_not_descope_s_own_is_shown_as_it_came() -> None:
    """Such as a page from what stands before it."""
    page = make.response(b"<html>Bad request</html>", 400)

    assert said(taken(), page, taken()) == one(Code.PARTIAL, "", "b: HTTP 400: <html>Bad request</html>")


#: Answers to one attribute, and what they mean; the Python SDK's tests have the text of the 429.
RATE_LIMIT = {
    "errorCode": "E130429",
    "errorDescription": "https://docs.descope.com/rate-limit",
    "errorMessage": "API rate limit exceeded.",
}


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (refused("E112102", 400, "User not found"), NOT_FOUND),
        (refused("E112102", 404, "User not found"), NOT_FOUND),
        (refused("E112102", 200, "User not found"), NOT_FOUND),
        (refused("E062108", 400, "Cannot find user"), one(Code.USER_NOT_FOUND, "E062108", "Cannot find user")),
        (make.response(RATE_LIMIT, 429, retry_after="10"), Do.WAIT),
        (make.response(RATE_LIMIT, 200), Do.WAIT),
        (refused("E170429", 400), Do.WAIT),
        (make.response(b"slow down", 429), Do.WAIT),
        (refused("E111119", 401, "Unauthorized"), Do.RENEW),
        (refused("E111119", 400), Do.RENEW),
        (refused("E999999", 401), Do.RENEW),
        (make.response(b"", 401), Do.RENEW),
        (refused("E999999", 403), Do.STOP),
        (refused("E999999", 404), Do.STOP),
        (refused("E999999", 200), Do.AGAIN),
        (refused("E999999", 500), Do.AGAIN),
        *((make.response(b"<html>", status), Do.AGAIN) for status in (500, 502, 503, 504, 520, 521, 522, 524, 530)),
        (make.response(b"", 503, retry_after="1"), Do.WAIT),
        *((make.response(body), Do.AGAIN) for body in (b"", b"<html>", b"\xff", b"[]", b"null", b'{"user":')),
        (make.response(b"[" * 100_000), Do.AGAIN),
        (make.response({"user": "ann"}), Do.AGAIN),
    ],
)  # fmt: skip
def test_what_ends_a_user_s_requests(response: Response, verdict: Verdict) -> None:
    """The body's code rules, then the status. Nothing more is sent, and what came before it stands."""
    target = descope()

    assert not target.goes_on(response)
    assert said(taken(), response, target=target) == verdict
    assert target.refuses_token(response) == (verdict is Do.RENEW)


@pytest.mark.parametrize(
    "response",
    [taken(), taken("bob"), make.response({}), make.response({"user": {}}), refused("E999999", 400),
     refused("E999999", 422), refused("E011004", 404), refused(None, 400), make.response(b"<html>", 400),
     make.response(b"", 413)],
)  # fmt: skip
def test_what_does_not(response: Response) -> None:
    """Taken, or refused for what it is: that says nothing of the other attributes."""
    assert descope().goes_on(response)
    assert not isinstance(said(response, sent=batch(a=1)), Do)


@pytest.mark.parametrize(
    ("meaning", "verdict"),
    [
        ("USER_NOT_FOUND", one(Code.USER_NOT_FOUND, "E1", "no")),
        ("INVALID", one(Code.INVALID, "E1", "a: no (E1)")),
        ("again", Do.AGAIN),
        ("wait", Do.WAIT),
        ("stop", Do.STOP),
    ],
)
def test_the_setting_says_what_codes_mean(meaning: str, verdict: Verdict) -> None:
    target = descope(result_codes={"E1": meaning})

    assert said(refused("E1", 418), target=target, sent=batch(a=1)) == verdict
    assert target.goes_on(refused("E1", 418)) == (meaning == "INVALID")


def in_turn(*answers: Response) -> tuple[Settler, list[Any]]:
    """A settler whose target answers so, and the requests that it gets."""
    left = list(answers)
    bodies: list[Any] = []

    async def send(request: Request) -> Response:
        bodies.append(json.loads(request.body))
        await anyio.sleep(0.1)
        return left.pop(0)

    size = RequestSize(BatchLimits(1, 1000))
    made = Settler(descope(), send, Lane(600), size, 8, lambda _: None, uniform=random.Random(1).uniform)
    return made, bodies


@virtual_time
async def test_what_was_answered_is_not_sent_again() -> None:
    """A failure between two attributes costs its own request alone, and the order stays."""
    settler, bodies = in_turn(taken(), make.response(b"", 502), refused("E011003"), make.response(b"", 429), taken())

    (outcome,) = await settler.settle(batch())

    assert [body["attributeKey"] for body in bodies] == ["a", "b", "b", "c", "c"]
    assert outcome == Outcome(Code.PARTIAL, "b: no (E011003)", "E011003", 200, 5)


@virtual_time
async def test_a_user_that_is_not_there_costs_one_request() -> None:
    settler, bodies = in_turn(refused("E112102", 404, "User not found"))

    (outcome,) = await settler.settle(batch())

    assert len(bodies) == 1
    assert outcome == Outcome(Code.USER_NOT_FOUND, "User not found", "E112102", 404, 1)


# In bulk


def bulk(**options: Any) -> Descope:
    return descope(bulk=True, **options)


def patched(
    *users: dict[str, Any], failed: Sequence[tuple[Any, Any]] = (), errors: Mapping[str, Any] | None = None
) -> Response:
    """As the page "Batch Patch Users" shows it."""
    body = {
        "patchedUsers": list(users),
        "failedUsers": [{"failure": failure, "user": of} for failure, of in failed],
        "additionalErrors": dict(errors or {}),
    }
    return make.response(body)


def of_abc(response: Response, **options: Any) -> list[Result | None] | Do:
    """What an answer says of a, b and c."""
    verdict = bulk(**options).read(batch("a", "b", "c", target=bulk()), [response])
    assert not isinstance(verdict, Answer) or (verdict.strangers, verdict.doubled) == (0, 0)
    return list(verdict.results) if isinstance(verdict, Answer) else verdict  # type: ignore[return-value]


GOOD = Result(Code.SUCCESS)
NOBODY = Result(Code.USER_NOT_FOUND, "User not found", "User not found")


@pytest.mark.parametrize("key", ["loginId", "identifier"])
def test_a_bulk_request_is_one_patch(key: Any) -> None:
    """Most SDKs name the user's key `loginId`, one names it `identifier`."""
    target = bulk(bulk_key=key)
    (request,) = target.encode(batch("a", "b", target=target))

    assert (request.method, request.path, request.users) == ("PATCH", "/v1/mgmt/user/patch/batch", 2)
    assert request.headers == {"Content-Type": "application/json"}
    assert json.loads(request.body) == {
        "users": [
            {key: "a", "customAttributes": {"a": "x", "b": 1, "c": None}},
            {key: "b", "customAttributes": {"a": "x", "b": 1, "c": None}},
        ]
    }


@given(st.permutations([user("c"), user("x", "a", user_id="U1"), user("y", user_id="b")]))
def test_bulk_answers_are_matched_by_user_and_never_by_position(users: list[dict[str, Any]]) -> None:
    """By any of the ids that an entry has."""
    assert of_abc(patched(*users)) == [GOOD, GOOD, GOOD]


def test_users_that_failed_say_why() -> None:
    """The text "User not found" is that of the SDKs' tests; others are a refusal, with the text as the code."""
    response = patched(user("b"), failed=[("User not found", user("a")), ("wrong type", {"identifier": "c"})])

    assert of_abc(response) == [NOBODY, GOOD, Result(Code.INVALID, "wrong type", "wrong type")]


def test_additional_errors_are_failures_by_user() -> None:
    """Their keys are not documented; where they are users, they count."""
    response = patched(user("b"), errors={"a": "user not found ", "c": 7})

    assert of_abc(response) == [
        Result(Code.USER_NOT_FOUND, "user not found ", "user not found "), GOOD, Result(Code.INVALID)
    ]  # fmt: skip


def test_users_left_out_are_none() -> None:
    assert of_abc(patched(user("b"))) == [None, GOOD, None]
    assert of_abc(make.response({})) == [None, None, None]


def test_of_two_answers_for_one_user_success_must_stand_alone() -> None:
    """It is believed only where nothing speaks against it; strangers and doubles are counted, to be said aloud."""
    response = patched(
        user("a"), user("z"), failed=[("no", user("a")), ("no", {}), ("again", user("a"))], errors={"1": "?"}
    )
    verdict = bulk().read(batch("a", "b", target=bulk()), [response])

    assert verdict == Answer([Result(Code.INVALID, "no", "no"), None], strangers=3, doubled=2)


def test_ids_are_compared_exactly_and_then_but_for_case() -> None:
    """As long as that leaves one."""
    target = bulk()

    def matched(answered: str, *sent: str) -> list[bool]:
        verdict = target.read(batch(*sent, target=target), [patched(user(answered))])
        assert isinstance(verdict, Answer)
        return [result is not None for result in verdict.results]

    assert matched("ann", "Ann", "ann") == [False, True]
    assert matched("ANN", "Ann", "bob") == [True, False]
    assert matched("ANN", "Ann", "ann") == [False, False]
    assert matched("ANN", "Ann", "ann", "aNN") == [False, False, False]


@pytest.mark.parametrize("response", [refused(), refused("E1", 422), refused("E112102", 400), make.response(b"", 400)])
def test_a_refused_bulk_request_is_split_until_one_is_left(response: Response) -> None:
    target = bulk()
    alone = target.read(batch("a", target=target), [response])

    assert target.read(batch("a", "b", target=target), [response]) is Do.SPLIT
    assert isinstance(alone, Answer)
    assert alone.results[0] is not None
    assert alone.results[0].code in (Code.INVALID, Code.USER_NOT_FOUND)
    assert alone.results[0].message


@pytest.mark.parametrize(
    ("response", "do"),
    [
        (make.response(RATE_LIMIT, 429), Do.WAIT),
        (refused("E111119", 401), Do.RENEW),
        (make.response(b"", 413), Do.SHRINK),
        (make.response(b"<html>"), Do.AGAIN),
        (make.response({"patchedUsers": [1]}), Do.AGAIN),
        (make.response({"failedUsers": {}}), Do.AGAIN),
        (make.response({"patchedUsers": [user("a")], "errorCode": "E1"}), Do.AGAIN),
        (make.response({"patchedUsers": [user("a")]}, 500), Do.AGAIN),
    ],
)
def test_other_bulk_answers_are_about_the_request(response: Response, do: Do) -> None:
    assert of_abc(response) is do


def test_the_setting_says_what_a_failure_means() -> None:
    """By its text."""
    response = patched(user("b"), user("c"), failed=[("gone", user("a"))])

    assert of_abc(response, result_codes={"gone": "USER_NOT_FOUND"}) == [
        Result(Code.USER_NOT_FOUND, "gone", "gone"), GOOD, GOOD
    ]  # fmt: skip
    assert of_abc(response, result_codes={"gone": "again"}) == [Result(Code.FAILED, "gone", "gone"), GOOD, GOOD]
    assert of_abc(response, result_codes={"gone": "stop"}) is Do.STOP


# Whatever comes

_texts = st.sampled_from(["E112102", "E130429", "E1", "User not found", "a", "b", ""]) | st.text()
_names = st.sampled_from(
    ["errorCode", "errorMessage", "user", "patchedUsers", "failedUsers", "additionalErrors", "failure", "loginIds", "a"]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)
_responses = st.builds(
    lambda status, body: Response(status, {}, body),
    st.integers(200, 599) | st.sampled_from([200, 400]),
    st.binary() | _json.map(json.dumps).map(str.encode) | st.just(json.dumps({"user": user("a")}).encode()),
)


@given(st.lists(_responses, min_size=1, max_size=2))
@example([taken("a"), taken("a")])
@example([taken("a"), make.response({"user": user("a")}, 300)])
def test_single_answers_are_read_and_success_is_never_guessed(responses: list[Response]) -> None:
    """A success is a 2xx that names the user, for each of the attributes."""
    target = descope()
    while len(responses) > 1 and not target.goes_on(responses[0]):
        responses = responses[:1]
    attributes: dict[str, Any] = {f"attribute{number}": 1 for number in range(len(responses))}
    verdict = target.read(batch("a", **attributes), responses)

    if isinstance(verdict, Answer) and verdict.results[0] == GOOD:
        for response in responses:
            found = json.loads(response.body)["user"]
            assert 200 <= response.status < 300
            assert "a" in [*found["loginIds"], found.get("userId"), "A"]


@given(_responses)
@example(patched(user("a"), user("b")))
def test_bulk_answers_are_read_and_success_is_never_guessed(response: Response) -> None:
    """A success is a 2xx that names the user among those patched."""
    target = bulk()
    target.refuses_token(response)
    verdict = target.read(batch("a", "b", target=target), [response])

    if isinstance(verdict, Answer) and GOOD in verdict.results:
        assert 200 <= response.status < 300
        assert json.loads(response.body)["patchedUsers"]


# Credentials, host, limits


def headers(target: Descope) -> Mapping[str, str]:
    made = target.scheme.headers
    assert made is not None
    return made(SECRETS)


def test_the_token_is_project_and_key() -> None:
    """As the page says; the SDKs name the project in a header of its own, too."""
    assert headers(descope()) == {
        "Authorization": "Bearer P2abcdefghijklmnopqrstuvwx:K2secret",
        "x-descope-project-id": "P2abcdefghijklmnopqrstuvwx",
    }


async def greeted(answer: Response, **options: Any) -> tuple[Mapping[str, str], list[Request], list[str]]:
    """What a token's headers are where the target answers so, what was asked, and what was warned of."""
    asked: list[Request] = []
    warnings: list[str] = []

    async def send(request: Request) -> Response:
        asked.append(request)
        return answer

    credentials = Credentials(
        descope(**options).scheme, lambda: SECRETS, send, Lane(600), Tempo(), warn=warnings.append
    )
    return (await credentials.token()).headers, asked, warnings


async def test_the_tier_is_asked_for_and_sent() -> None:
    """As the SDKs do: without it, they say, the lowest limits hold."""
    found, asked, warnings = await greeted(make.response({"rateLimitTier": "tier3"}))

    assert found == {**headers(descope()), "x-descope-license": "tier3"}
    assert [(request.method, request.path) for request in asked] == [("GET", "/v1/mgmt/license")]
    assert asked[0].headers == headers(descope())
    assert warnings == []


@pytest.mark.parametrize(
    "answer",
    [make.response(b"", 500), make.response({}), make.response({"rateLimitTier": 3}), make.response(b"<html>"),
     make.response({"rateLimitTier": "tier 3\r\n"}), make.response(b"[]"), refused("E111119", 401)],
)  # fmt: skip
async def test_without_a_tier_it_goes_on(answer: Response) -> None:
    """And says so."""
    found, _, warnings = await greeted(answer)

    assert found == headers(descope())
    assert len(warnings) == 1
    assert "GET /v1/mgmt/license failed" in warnings[0]


@pytest.mark.parametrize(("license_", "added"), [("none", {}), ("tier4", {"x-descope-license": "tier4"})])
async def test_a_tier_that_is_given_needs_no_call(license_: str, added: dict[str, str]) -> None:
    found, asked, _ = await greeted(make.response({"rateLimitTier": "tier1"}), license=license_)

    assert found == {**headers(descope()), **added}
    assert asked == []


SETTINGS = """
[export]
path = "users.csv"
[mapping]
user = "email"
[target]
api = "descope"
{more}
[target.auth]
scheme = "bearer"
token = "{token}"
{limits}
"""


def settings(folder: Path, token: str = SECRETS["token"], more: str = "", limits: str = "") -> Any:
    return make.settings(folder, SETTINGS.format(token=token, more=more, limits=limits))


@pytest.mark.parametrize(
    ("project", "url"),
    [
        ("P2abc", "https://api.descope.com"),
        ("P" + "x" * 30, "https://api.descope.com"),
        ("Puse12aAc4T2V93bddihGEx2Ryhc8e5Z", "https://api.use1.descope.com"),  # as in the SDKs' tests
        ("Peuc12aAc4T2V93bddihGEx2Ryhc8e5Zxx", "https://api.euc1.descope.com"),
    ],
)
def test_the_host_follows_from_the_project(tmp_path: Path, project: str, url: str) -> None:
    assert settings(tmp_path, f"{project}:K2secret").base_url == url


def test_an_address_that_is_given_rules(tmp_path: Path) -> None:
    token = "Puse12aAc4T2V93bddihGEx2Ryhc8e5Z:K2secret"

    assert settings(tmp_path, token, 'base_url = "https://api.example.com"').base_url == "https://api.example.com"


@pytest.mark.parametrize("token", ["K2secretsecret", ":K2secretsecret", "P2abcabcabc:", "P/x.test#:K2secretsecret"])
@pytest.mark.parametrize("more", ["", 'base_url = "https://api.example.com"'])
def test_a_token_without_both_parts_is_refused(tmp_path: Path, token: str, more: str) -> None:
    """Whether or not the address depends on it, and without showing it."""
    with pytest.raises(SettingsError, match=r"target\.auth\.token: .* project id, a colon and the management key") as e:
        settings(tmp_path, token, more).secrets()
    assert token not in str(e.value)


def test_a_token_that_was_changed_for_a_wrong_one_ends_the_run(tmp_path: Path) -> None:
    """It is read again after a refusal; then there is no other to go on with."""
    (tmp_path / "token").write_text("P2abc:K2secret")
    found = settings(tmp_path, "file:token", 'base_url = "http://127.0.0.1:9"\nlicense = "none"')

    async def send(request: Request) -> Response:
        raise AssertionError(request)

    async def renew() -> None:
        credentials = Credentials(found.build_target().scheme, found.secrets, send, Lane(600), Tempo())
        token = await credentials.token()
        (tmp_path / "token").write_text("K2secret")
        credentials.refused(token, "HTTP 401")
        await credentials.token()

    with pytest.raises(Stopped, match="the project id, a colon and the management key"):
        asyncio.run(renew())


def test_one_user_a_request_unless_in_bulk(tmp_path: Path) -> None:
    """The quota is of requests either way: the newest rule for /v1/mgmt/user/*."""
    one_by_one, many = descope().defaults, bulk().defaults

    assert (one_by_one.users_per_request, one_by_one.max_users, one_by_one.quota) == (1, 1, ("500/60s",))
    assert (many.users_per_request, many.max_users, many.quota) == (100, None, ("500/60s",))
    with pytest.raises(SettingsError, match=r"limits\.users_per_request: descope takes at most 1 user a request"):
        settings(tmp_path, limits="[limits]\nusers_per_request = 2")
    assert settings(tmp_path, more="bulk = true", limits="[limits]\nusers_per_request = 7").batch_limits.users == 7


def test_a_checkpoint_belongs_to_one_way_of_writing() -> None:
    """Which the key's name, the tier and the codes are no part of."""
    assert descope().identity() != bulk().identity()
    assert bulk().identity() == bulk(bulk_key="identifier", license="none", result_codes={"x": "again"}).identity()


# What is declared


@pytest.mark.parametrize(
    ("body", "unknown"),
    [
        ({"data": [{"name": "b", "type": 1}, {"name": "x"}], "total": "2"}, ["a", "A"]),
        ({"attributes": [{"name": "a", "type": "string"}]}, ["b", "A"]),
        ({"data": [], "total": "0"}, ["a", "b", "A"]),
        ({"data": [{"name": "a"}, {"name": "b"}, {"name": "A"}]}, []),
        ({"data": [{"name": "a"}], "total": "7"}, None),
        ({"data": [{"name": "a"}], "total": 2}, None),
        ({"data": [{"name": 7}, {}], "total": None}, ["a", "b", "A"]),
        ({}, None),
        ({"data": None}, None),
        ({"data": [7]}, None),
        ([], None),
        (b"<html>", None),
    ],
)
def test_the_probe_shows_what_is_not_declared(body: Any, unknown: list[str] | None) -> None:
    """The page's shape, and that of the Python SDK's tests. A list that is not whole tells nothing."""
    request = descope().probe()

    assert (request.method, request.path, request.users) == ("GET", "/v1/mgmt/user/customattributes", 0)
    assert descope().undeclared(make.response(body), ["a", "b", "A"]) == unknown


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_key_that_may_not_read_it_shows_nothing(status: int) -> None:
    assert descope().undeclared(make.response({"data": []}, status), ["a"]) is None


def test_the_settings_of_its_page_are_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first example in docs/descope.md."""
    monkeypatch.setenv("DESCOPE_TOKEN", SECRETS["token"])
    page = (Path(__file__).parents[2] / "docs" / "descope.md").read_text("utf-8")
    found = make.settings(tmp_path, page.split("```toml")[1].partition("```")[0])

    assert (found.api.api, found.base_url) == ("descope", "https://api.descope.com")


def test_it_is_found_by_its_name() -> None:
    """As `[target] api` gives it; attributes must be declared there."""
    assert BUILT_IN["descope"] is Descope
    assert Descope.declares
