"""Calven, against what its documentation shows (see the docstring of loader/targets/calven.py)."""

import base64
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.batch import Batch
from loader.outcome import Code, Result
from loader.request import Request, Response
from loader.targets import BUILT_IN
from loader.targets.calven import FRAME, Calven
from loader.verdict import Answer, Do
from tests import make

SECRETS = {"key_id": "0B4F2C1A-KEY", "secret": "s3crét", "token": "T0K"}
NOW = 1_683_257_792.9


def calven(auth: str = "hmac", **options: Any) -> Calven:
    return Calven(auth=auth, **options)


def batch(*users: str) -> Batch:
    records = [make.record(user, FRAME, department="Ops") for user in users]
    return Batch(range(1, len(users) + 1), users, records)


def results(*found: Any) -> dict[str, Any]:
    return {"results": list(found)}


def result(user: str, code: Any = 0, message: str = "") -> dict[str, Any]:
    return {"userName": user, "message": message, "resultCode": code}


def test_a_batch_is_one_post() -> None:
    """As the page "Write directory user attributes" shows it."""
    (request,) = calven().encode(batch("ann@x.com", "bob@x.com"))

    assert (request.method, request.path) == ("POST", "/v1/directory/user-attributes")
    assert request.headers == {"Content-Type": "application/json"}
    assert request.users == 2
    assert json.loads(request.body) == {
        "userAttributes": [
            {"userName": "ann@x.com", "attributes": {"department": "Ops"}},
            {"userName": "bob@x.com", "attributes": {"department": "Ops"}},
        ]
    }


def said(target: Calven, sent: Batch, response: Response) -> list[Result | None] | Do:
    """What the answer says of each user, or what it asks for."""
    verdict = target.read(sent, [response])
    assert isinstance(verdict, Answer | Do)
    return list(verdict.results) if isinstance(verdict, Answer) else verdict


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"auth": "basic"}, "/v1/directory/user-attributes/basic"),
        ({"auth": "client-secret"}, "/v1/directory/user-attributes"),
        ({"auth": "bearer"}, "/v1/directory/user-attributes"),
        ({"auth": "basic", "path": "/v2/x"}, "/v2/x"),
    ],
)
def test_the_basic_path_has_a_suffix(options: dict[str, Any], path: str) -> None:
    """Unless the setting says where; it isn't documented."""
    assert calven(**options).encode(batch("a"))[0].path == path


def call(target: Calven) -> Request:
    made = target.scheme.call
    assert made is not None
    return made(SECRETS, NOW)


def hmac_sha256(key: bytes, message: bytes) -> str:
    """By the letter of RFC 2104."""
    block = key.ljust(64, b"\0")
    inner = sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    return sha256(bytes(byte ^ 0x5C for byte in block) + inner).hexdigest()


def test_the_hash_is_of_key_id_and_whole_seconds() -> None:
    """Joined as they are, under the secret's UTF-8, in lower-case hex."""
    request = call(calven())

    assert (request.method, request.path, request.users) == ("POST", "/v1/auth", 0)
    assert request.headers == {"Content-Type": "application/json"}
    assert json.loads(request.body) == {
        "apiKey": "0B4F2C1A-KEY",
        "timestamp": 1683257792,
        "hash": hmac_sha256("s3crét".encode(), b"0B4F2C1A-KEY1683257792"),
    }


def test_a_client_secret_call_is_json_without_a_grant_type() -> None:
    """As its page shows it."""
    request = call(calven("client-secret"))

    assert (request.method, request.path) == ("POST", "/v1/auth/token")
    assert json.loads(request.body) == {"client_id": "0B4F2C1A-KEY", "client_secret": "s3crét"}


@pytest.mark.parametrize(
    ("auth", "header"),
    [("basic", "Basic " + base64.b64encode("0B4F2C1A-KEY:s3crét".encode()).decode()), ("bearer", "Bearer T0K")],
)
def test_basic_and_bearer_need_no_call(auth: str, header: str) -> None:
    """The header is made from the secrets at once; Basic is RFC 7617."""
    scheme = calven(auth).scheme

    assert scheme.call is None
    assert scheme.headers is not None
    assert scheme.headers(SECRETS) == {"Authorization": header}


@pytest.mark.parametrize("auth", ["hmac", "client-secret"])
def test_a_region_goes_with_every_request(auth: str) -> None:
    """Token calls, too: the same host serves all regions."""
    target = calven(auth, region="ause1")
    headers: Mapping[str, str] = {"Content-Type": "application/json", "x-calven-region": "ause1"}

    assert call(target).headers == headers
    assert target.encode(batch("a"))[0].headers == headers


def test_tokens_may_come_from_elsewhere() -> None:
    """With auth_path; the rest of the call stays."""
    moved = call(calven(auth_path="/v2/auth"))

    assert moved.path == "/v2/auth"
    assert moved.body == call(calven()).body


@pytest.mark.parametrize(
    ("code", "meaning", "text"),
    [
        (0, Code.SUCCESS, "0"),
        ("0", Code.SUCCESS, "0"),
        ("SUCCESS", Code.SUCCESS, "SUCCESS"),
        ("Success", Code.SUCCESS, "Success"),
        (1, Code.USER_NOT_FOUND, "1"),
        ("USERNOTFOUND", Code.USER_NOT_FOUND, "USERNOTFOUND"),
        ("user_not_found", Code.USER_NOT_FOUND, "user_not_found"),
        ("User Not Found", Code.USER_NOT_FOUND, "User Not Found"),
        (2, Code.LOCATION_NOT_FOUND, "2"),
        ("LOCATION_NOT_FOUND", Code.LOCATION_NOT_FOUND, "LOCATION_NOT_FOUND"),
        (3, Code.INVALID, "3"),
        (-1, Code.INVALID, "-1"),
        (10**30, Code.INVALID, "1" + "0" * 30),
        (True, Code.INVALID, "true"),
        (None, Code.INVALID, "null"),
        ("", Code.INVALID, ""),
        ("NEW_CODE", Code.INVALID, "NEW_CODE"),
        ({}, Code.INVALID, "{}"),
        ({"value": 0, "name": "SUCCESS"}, Code.SUCCESS, '{"value":0,"name":"SUCCESS"}'),
        ({"code": "1"}, Code.USER_NOT_FOUND, '{"code":"1"}'),
        ({"name": "LocationNotFound"}, Code.LOCATION_NOT_FOUND, '{"name":"LocationNotFound"}'),
        ([0], Code.INVALID, "[0]"),
    ],
)
def test_a_result_code_is_read_in_any_form(code: Any, meaning: Code, text: str) -> None:
    """Number, text, name or object, as its type is not documented; what isn't known is INVALID, with the code raw."""
    verdict = said(calven(), batch("ann"), make.response(results(result("ann", code, "why"))))

    assert verdict == [Result(meaning, text, "why")]


def test_an_odd_number_in_a_code_does_no_harm() -> None:
    """No float holds it, and no 64 bits: it ended the run with an internal error."""
    body = b'{"results":[{"userName":"ann","resultCode":{"value":1e400}},{"userName":"bob","resultCode":0.0}]}'

    assert said(calven(), batch("ann", "bob"), make.response(body)) == [
        Result(Code.INVALID, '{"value":1e400}'),
        Result(Code.INVALID, "0.0"),
    ]


def test_the_setting_says_what_codes_mean() -> None:
    """Before what is known of them."""
    target = calven(result_codes={"3": "PARTIAL", "1": "SUCCESS", "GONE": "USER_NOT_FOUND"})
    body = results(result("a", 3), result("b", 1), result("c", "GONE"), result("d", {"value": 3}))

    verdict = said(target, batch("a", "b", "c", "d"), make.response(body))

    assert not isinstance(verdict, Do)
    assert [found and found.code for found in verdict] == [
        Code.PARTIAL,
        Code.SUCCESS,
        Code.USER_NOT_FOUND,
        Code.PARTIAL,
    ]


@given(st.permutations([result("a", 0), result("b", 1, "no"), result("x", 0), result("y", 3), {}, {"userName": 7}]))
def test_answers_are_matched_by_user_and_never_by_position(body: list[dict[str, Any]]) -> None:
    """Reordered, foreign and nameless results change nothing; a user left out is None."""
    assert said(calven(), batch("a", "b", "c"), make.response({"results": body})) == [
        Result(Code.SUCCESS, "0"),
        Result(Code.USER_NOT_FOUND, "1", "no"),
        None,
    ]


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ((0, 0), Code.SUCCESS),
        ((0, 1), Code.USER_NOT_FOUND),
        ((1, 0), Code.USER_NOT_FOUND),
        ((1, 3), Code.USER_NOT_FOUND),
    ],
)
def test_of_two_answers_for_one_user_success_must_stand_alone(codes: tuple[int, int], code: Code) -> None:
    """It is believed only where nothing speaks against it."""
    verdict = said(calven(), batch("a"), make.response(results(*(result("a", each) for each in codes))))

    assert not isinstance(verdict, Do)
    assert [found and found.code for found in verdict] == [code]


def test_users_are_compared_as_they_stand() -> None:
    """The page on presence calls keys case sensitive."""
    assert said(calven(), batch("Ann"), make.response(results(result("ann")))) == [None]


@pytest.mark.parametrize("body", [b"", b" \n", b'{"results":[]}'])
def test_an_answer_without_results_leaves_all_out(body: bytes) -> None:
    """What that means is the setting missing_result's to say."""
    assert said(calven(), batch("a", "b"), make.response(body)) == [None, None]


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"\xff", b"{}", b"[]", b"null", b'{"results":null}', b'{"results":{}}', b'{"results":[1]}',
     b'{"results":[{"userName":"a","resultCode":0}', b'{"results":[{"userName":"a","resultCode":0}]}}',
     b"[" * 100_000],
)  # fmt: skip
def test_an_answer_that_can_not_be_read_is_asked_for_again(body: bytes) -> None:
    """Its status says it was taken, its body nothing of whom."""
    assert said(calven(), batch("a"), make.response(body)) is Do.AGAIN


@pytest.mark.parametrize(
    ("status", "do"),
    [(400, Do.SPLIT), (401, Do.RENEW), (403, Do.STOP), (413, Do.SHRINK), (429, Do.WAIT), (500, Do.AGAIN)],
)
def test_other_answers_mean_what_their_status_says(status: int, do: Do) -> None:
    """The documentation lists 401 alone, and no bodies."""
    assert said(calven(), batch("a"), make.response(results(result("a")), status)) is do


def test_a_401_refuses_the_token() -> None:
    """And nothing else does."""
    assert calven().refuses_token(make.response(status=401))
    assert not calven().refuses_token(make.response(status=403))


def test_it_is_found_by_its_name() -> None:
    """As `[target] api` gives it."""
    assert BUILT_IN["calven"] is Calven


def test_strangers_and_doubles_are_counted() -> None:
    """Whoever was not sent, and whoever is named twice, is reported, so that it can be said aloud."""
    body = results(result("a"), result("zoe"), result("a"))

    assert calven().read(batch("a", "b"), [make.response(body)]) == Answer([Result(Code.SUCCESS, "0"), None], 1, 1)
