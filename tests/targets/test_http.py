"""The generic target: requests and answers as its settings describe them."""

import base64
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from loader.batch import Batch
from loader.errors import SettingsError
from loader.outcome import Code, Result
from loader.request import Request
from loader.targets.http import Http
from loader.verdict import Answer, Do, Verdict
from tests import make

SECRETS = {"key_id": "cliënt:1", "secret": "s3cr&t +", "token": "T0K"}

SUCCESS = Result(Code.SUCCESS)


def http(**settings: Any) -> Http:
    return Http.model_validate({"auth": "bearer", "path": "/v1/users", "user": "id", **settings})


def listed(**settings: Any) -> Http:
    """With a list of results in the answer."""
    names = {"results": "data.items", "result_user": "key", "result_code": "status", "result_message": "error.text"}
    return http(**{"wrapper": "rows", "success": ["ok", 0, True], "not_found": ["gone", 404], **names, **settings})


def batch(target: Http, *users: str) -> Batch:
    records = [make.record(user, target.frame, dept="Ops") for user in users]
    return Batch(range(1, len(users) + 1), users, records)


def said(target: Http, body: object, *users: str, status: int = 200) -> Verdict:
    return target.read(batch(target, *users), [make.response(body, status)])


# Requests


@pytest.mark.parametrize(
    ("settings", "body"),
    [
        ({}, {"id": "ann", "dept": "Ops"}),
        ({"attributes": "fields"}, {"id": "ann", "fields": {"dept": "Ops"}}),
        ({"wrapper": "rows"}, {"rows": [{"id": "ann", "dept": "Ops"}]}),
        ({"wrapper": "rows", "attributes": "fields"}, {"rows": [{"id": "ann", "fields": {"dept": "Ops"}}]}),
    ],
)
def test_the_frame_is_what_the_settings_name(settings: dict[str, Any], body: object) -> None:
    """A record, or a list of them; its attributes in a field of their own, or beside the key."""
    target = http(method="PUT", path="/v1/users?upsert=1", **settings)
    (request,) = target.encode(batch(target, "ann"))

    assert json.loads(request.body) == body
    assert (request.method, request.path, request.users) == ("PUT", "/v1/users?upsert=1", 1)
    assert request.headers == {"Content-Type": "application/json"}


def test_without_a_wrapper_a_request_holds_one_user() -> None:
    """Which the API itself demands, so that the settings refuse more."""
    assert http().defaults.max_users == 1
    assert http(wrapper="rows").defaults.max_users is None


@pytest.mark.parametrize("name", ["Content-Type", "content-type"])
def test_headers_go_with_each_request(name: str) -> None:
    """One that says what the body is takes the place of ours."""
    target = http(headers={name: "application/vnd.api+json", "X-Tenant": "7"})

    assert target.encode(batch(target, "ann"))[0].headers == {name: "application/vnd.api+json", "X-Tenant": "7"}


def test_a_flat_record_keeps_its_key() -> None:
    """An attribute of the key's name would take its place."""
    assert http().names.complaint(["dept", "id"]) is not None
    assert http(attributes="fields").names.complaint(["dept", "id"]) is None


# Answers


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("body", [b"", b"OK", b"{}", b"<ok/>"])
def test_without_results_the_status_decides(status: int, body: bytes) -> None:
    """For all: that is what it means to leave them out."""
    assert said(http(wrapper="rows"), body, "ann", "bob", status=status) == Answer([SUCCESS, SUCCESS])


@pytest.mark.parametrize("results", [None, "data"])
def test_a_web_page_is_no_answer(results: str | None) -> None:
    """A proxy's or a sign-in's may come with 200, and nothing was taken."""
    target = http(wrapper="rows", **({"results": results, "result_user": "id"} if results else {}))

    assert said(target, b"\n<!DOCTYPE html><title>Welcome</title>", "ann", "bob") is Do.AGAIN


@pytest.mark.parametrize(("status", "do"), [(400, Do.SPLIT), (413, Do.SHRINK), (429, Do.WAIT), (500, Do.AGAIN)])
def test_a_refusal_is_about_all(status: int, do: Do) -> None:
    """With results or without."""
    assert said(http(wrapper="rows"), b"", "ann", "bob", status=status) is do
    assert said(listed(), {"data": {"items": [{"key": "ann", "status": "ok"}]}}, "ann", "bob", status=status) is do


@pytest.mark.parametrize(
    ("status", "result"),
    [
        ("ok", Result(Code.SUCCESS, "ok")),
        (0, Result(Code.SUCCESS, "0")),
        ("0", Result(Code.SUCCESS, "0")),
        (True, Result(Code.SUCCESS, "true")),
        (1, Result(Code.INVALID, "1")),
        (False, Result(Code.INVALID, "false")),
        ("OK", Result(Code.INVALID, "OK")),
        ("gone", Result(Code.USER_NOT_FOUND, "gone")),
        (404, Result(Code.USER_NOT_FOUND, "404")),
        (1.50, Result(Code.INVALID, "1.5")),
        (10**30, Result(Code.INVALID, "1" + "0" * 30)),
        (None, Result(Code.INVALID)),
        ({"a": [1, 2]}, Result(Code.INVALID, '{"a":[1,2]}')),
    ],
)
def test_a_code_means_what_the_settings_say(status: object, result: Result) -> None:
    """Compared as text: numbers by their digits. What neither is named is INVALID, with the code as it is."""
    assert said(listed(), {"data": {"items": [{"key": "ann", "status": status}]}}, "ann") == Answer([result])


@pytest.mark.parametrize(
    ("item", "result"),
    [
        ({"key": "ann"}, Result(Code.INVALID)),
        ({"key": "ann", "status": "x", "error": {"text": "no such site"}}, Result(Code.INVALID, "x", "no such site")),
        ({"key": "ann", "status": "x", "error": {"text": ["a", {"b": 1}]}}, Result(Code.INVALID, "x", '["a",{"b":1}]')),
        ({"key": "ann", "status": "x", "error": {"text": None}}, Result(Code.INVALID, "x")),
        ({"key": "ann", "status": "x", "error": "none"}, Result(Code.INVALID, "x")),
        ({"key": "ann", "status": "x", "error": None}, Result(Code.INVALID, "x")),
    ],
)  # fmt: skip
def test_what_a_result_lacks_is_empty(item: object, result: Result) -> None:
    """A path may lead nowhere; a result without a code is no success."""
    assert said(listed(), {"data": {"items": [item]}}, "ann") == Answer([result])


@given(st.permutations([("a", "ok"), ("b", "gone"), ("x", "ok"), ("y", "x"), (None, "ok"), (7, "ok"), (True, "ok")]))
def test_results_are_matched_by_user(pairs: list[tuple[object, str]]) -> None:
    """Reordered, foreign and nameless ones change nothing; a number is the key of its digits, and null is nobody."""
    items = [{"key": key, "status": status} for key, status in pairs]

    assert said(listed(), {"data": {"items": items}}, "a", "null", "b", "7", "true") == Answer(
        [Result(Code.SUCCESS, "ok"), None, Result(Code.USER_NOT_FOUND, "gone"), Result(Code.SUCCESS, "ok"), None],
        strangers=4,
    )


@pytest.mark.parametrize(("codes", "code"), [(("ok", "x"), "x"), (("x", "ok"), "x"), (("x", "gone"), "x")])
def test_of_two_results_for_one_user_success_must_stand_alone(codes: tuple[str, str], code: str) -> None:
    items = [{"key": "a", "status": each} for each in codes]

    assert said(listed(), {"data": {"items": items}}, "a") == Answer([Result(Code.INVALID, code)], doubled=1)


def test_without_a_code_who_is_listed_is_a_success() -> None:
    """As where an API gives back the rows as they now stand; the list may be the answer itself."""
    target = http(wrapper="rows", results=".", result_user="id")

    assert said(target, [{"id": "bob"}], "ann", "bob") == Answer([None, SUCCESS])


def test_a_list_may_hold_the_keys_alone() -> None:
    target = http(wrapper="rows", results="updated", result_user=".")

    assert said(target, {"updated": ["bob", "zoe"]}, "ann", "bob") == Answer([None, SUCCESS], strangers=1)


def test_a_list_of_failures() -> None:
    """Whoever isn't in it is a success, which the setting missing_result says and settle.py does."""
    target = http(wrapper="rows", results="errors", result_user="id", result_code="why", missing_result="success")

    assert said(target, {"errors": [{"id": "bob", "why": "full"}]}, "ann", "bob") == Answer(
        [None, Result(Code.INVALID, "full")]
    )


@pytest.mark.parametrize("body", [{"status": "ok"}, {"status": "ok", "id": "whoever"}])
def test_of_a_single_user_the_answer_may_be_the_result(body: object) -> None:
    """It need not say whom it is about."""
    target = http(results=".", result_code="status", success=["ok"])

    assert said(target, body, "ann") == Answer([Result(Code.SUCCESS, "ok")])


@pytest.mark.parametrize("body", [b"[]", b"1", b"<html>", b'{"status":"ok"', b"[" * 100_000])
def test_what_can_not_be_read_is_asked_for_again(body: bytes) -> None:
    """Nothing in it can be taken for a success."""
    assert said(http(results=".", result_code="status", success=["ok"]), body, "ann") is Do.AGAIN
    assert said(listed(), body, "ann") is Do.AGAIN


def test_an_empty_answer_leaves_all_out() -> None:
    """As for other targets: what silence means is for missing_result to say."""
    assert said(listed(), b" ", "ann", "bob") == Answer([None, None])


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refusal_may_be_about_a_user_that_is_not_known(status: int) -> None:
    """A code that is known goes before the status. Of several, it doesn't say what became of the others."""
    body = {"data": {"items": [{"key": "bob", "status": "gone"}]}}

    assert said(listed(), body, "ann", "bob", status=status) is Do.SPLIT
    assert said(listed(), body, "bob", status=status) == Answer([Result(Code.USER_NOT_FOUND, "gone")])


@pytest.mark.parametrize(
    ("status", "body", "do"),
    [
        (404, {"data": {"items": [{"key": "bob", "status": "ok"}]}}, Do.STOP),
        (404, {"data": {"items": [{"key": "zoe", "status": "gone"}]}}, Do.STOP),
        (404, "no such page", Do.STOP),
        (500, {"data": {"items": [{"key": "bob", "status": "gone"}]}}, Do.AGAIN),
    ],
)
def test_any_other_refusal_goes_by_its_status(status: int, body: object, do: Do) -> None:
    assert said(listed(), body, "bob", status=status) is do


# Credentials


def headers(auth: str, **settings: Any) -> Mapping[str, str]:
    made = http(auth=auth, **settings).scheme.headers
    assert made is not None
    return made(SECRETS)


def test_headers_are_made_of_secrets_at_once() -> None:
    """RFC 6750, RFC 7617, and a header that many APIs have."""
    pair = base64.b64encode("cliënt:1:s3cr&t +".encode()).decode()

    assert headers("bearer") == {"Authorization": "Bearer T0K"}
    assert headers("basic") == {"Authorization": f"Basic {pair}"}
    assert headers("api-key") == {"X-API-Key": "T0K"}
    assert headers("api-key", api_key_header="Api-Token") == {"Api-Token": "T0K"}


def token_call(**settings: Any) -> Request:
    made = http(auth="oauth2", token_url="/oauth/token", **settings).scheme.call
    assert made is not None
    return made(SECRETS, 1_700_000_000.0)


def test_a_client_shows_who_it_is_by_basic() -> None:
    """RFC 6749 §4.4.2 and §2.3.1: a form, and a password whose parts are encoded as a form's."""
    request = token_call(scope="users.write users.read")
    kind, _, encoded = request.headers["Authorization"].partition(" ")

    assert (request.method, request.path, request.users) == ("POST", "/oauth/token", 0)
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qsl(request.body.decode()) == [
        ("grant_type", "client_credentials"),
        ("scope", "users.write users.read"),
    ]
    assert (kind, base64.b64decode(encoded)) == ("Basic", b"cli%C3%ABnt%3A1:s3cr%26t+%2B")


def test_or_in_the_body() -> None:
    """Then there is no header, and no scope if none is set."""
    request = token_call(client_auth="body")

    assert "Authorization" not in request.headers
    assert parse_qsl(request.body.decode()) == [
        ("grant_type", "client_credentials"),
        ("client_id", "cliënt:1"),
        ("client_secret", "s3cr&t +"),
    ]


def test_tokens_may_come_from_another_host() -> None:
    """That URL and no other is named as one to be called."""
    target = http(auth="oauth2", token_url="https://login.example.com/token?x=1")

    assert target.scheme.elsewhere == "https://login.example.com/token?x=1"
    assert http(auth="oauth2", token_url="/token").scheme.elsewhere == ""


# Settings

SETTINGS = """
[export]
path = "users.csv"
[mapping]
user = "email"
[target]
api = "http"
base_url = "https://api.example.com"
path = "/users"
user = "id"
[target.auth]
scheme = "oauth2"
key_id = "KEY"
secret = "SECRET"
"""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"user": ""}, "at least 1 character"),
        ({"path": "users"}, "match pattern"),
        ({"method": "GET"}, "'POST', 'PUT' or 'PATCH'"),
        ({"user": "id", "attributes": "id"}, "can't have one name"),
        ({"results": "a..b"}, "names with dots between"),
        ({"results": ""}, "names with dots between"),
        ({"auth": "oauth2"}, "needs token_url"),
        ({"auth": "oauth2", "token_url": "login.example.com/token"}, "match pattern"),
        ({"auth": "oauth2", "token_url": "ftp://login.example.com/token"}, "match pattern"),
        ({"result_code": "status"}, "result_code is about results"),
        ({"missing_result": "success"}, "missing_result is about results"),
        ({"wrapper": "rows", "results": "items"}, "needs result_user"),
        ({"results": ".", "success": ["ok"]}, "result_code says where it stands"),
        ({"results": ".", "result_code": "status"}, "result_code needs success"),
        ({"wrapper": "r", "results": "e", "result_user": "id", "missing_result": "success"}, "nobody could ever fail"),
        ({"headers": {"Authorization": "Bearer x"}}, "credentials belong under"),
        ({"headers": {"cookie": "x"}}, "credentials belong under"),
        ({"headers": {"X-Key": "env:KEY"}}, "a secret belongs under"),
        ({"headers": {"X Key": "x"}}, "is not a header"),
        ({"headers": {"X-Key": "a\nb"}}, "is not a header"),
        ({"api_key_header": "X Key"}, "match pattern"),
    ],
)
def test_what_can_not_be_is_refused(settings: dict[str, Any], words: str) -> None:
    """With the way out, and before anything is sent."""
    with pytest.raises(ValidationError, match=words):
        http(**settings)


def test_who_it_is_does_not_change_with_how_answers_are_read() -> None:
    """A load goes on when that is mended, and is another one when it sends something else."""
    assert listed().identity() == listed(success=["done"], headers={"X": "y"}).identity()
    assert listed().identity() != listed(path="/v2/users").identity()
    assert listed().identity() != listed(attributes="fields").identity()


@pytest.mark.parametrize("url", ["https://login.example.com/token?x=1", "http://127.0.0.1:8081/token", "/token"])
def test_where_tokens_come_from(tmp_path: Path, url: str) -> None:
    """A path, https, or this machine."""
    settings = make.settings(tmp_path, SETTINGS, [f'target.token_url="{url}"'])

    assert list(settings.way().elsewhere) == ([] if url == "/token" else [url])


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://login.example.com/token", "where tokens come from: .* would send credentials in the clear"),
        ("https://ann:pass@login.example.com/token", "where tokens come from: credentials don't belong into"),
        ("https:///token", "where tokens come from: .* is not an address"),
        ("https://login.example.com/token#x", "where tokens come from: .* is not an address"),
    ],
)  # fmt: skip
def test_where_tokens_do_not_come_from(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as error:
        make.settings(tmp_path, SETTINGS, [f'target.token_url="{url}"'])
    assert "pass" not in str(error.value)


def test_the_proxy_is_chosen_for_each_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API of one's own network, and a login that is outside of it."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "api.example.com")
    url = "https://login.example.com/token"

    way = make.settings(tmp_path, SETTINGS, [f'target.token_url="{url}"']).way()

    assert way.proxy is None
    assert way.elsewhere[url] is not None


PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text("utf-8")


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_what_its_page_shows_is_valid(block: str) -> None:
    """The last of them, which shows results alone, too."""
    shown = tomllib.loads(block)
    target = shown.get("target", {"wrapper": "rows", "user": "id", "path": "/users", **shown})
    scheme = shown.get("target", {}).get("auth", {}).get("scheme", "bearer")
    settings = {key: value for key, value in target.items() if key not in ("api", "base_url", "auth")}

    built = Http.model_validate({"auth": scheme, **settings})

    assert built.encode(batch(built, "ann"))
