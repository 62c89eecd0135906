"""DX, against what its documentation shows (see the docstring of loader/targets/dx.py)."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loader.batch import Batch
from loader.errors import SettingsError
from loader.outcome import Code, Result
from loader.request import Response
from loader.targets import BUILT_IN
from loader.targets.dx import FRAME, Dx
from loader.verdict import Answer, Do, Stop, Verdict
from tests import make

JOHN = "john.doe@example.com"

#: As the page "users.attributes.update" shows both.
REQUEST = {
    "email": JOHN,
    "attributes": [
        {"name": "Department", "value": "Engineering"},
        {"name": "Location", "value": "Remote"},
        {"name": "Region", "value": None},
    ],
}
ANSWER = {
    "ok": True,
    "user": {
        "id": "user_123",
        "email": JOHN,
        "failures": [],
        "attributes": [
            {"name": "Department", "value": "Engineering", "updated": True},
            {"name": "Location", "value": "Remote", "updated": True},
        ],
    },
}


def dx(**options: Any) -> Dx:
    return Dx(auth="bearer", **options)


def batch(user: str = JOHN, **attributes: Any) -> Batch:
    sent = attributes or {"Department": "Engineering", "Location": "Remote", "Region": None}
    return Batch([1], [user], [make.record(user, FRAME, **sent)])


def answer(**user: Any) -> dict[str, Any]:
    """The page's answer, with these members of `user` instead."""
    return {**ANSWER, "user": {**ANSWER["user"], **user}}  # type: ignore[dict-item]


def error(code: Any, **more: Any) -> dict[str, Any]:
    return {"ok": False, "error": code, **more}


def said(response: Response, target: Dx | None = None, sent: Batch | None = None) -> Verdict:
    return (target or dx()).read(sent or batch(), [response])


def one(code: Code, target_code: str = "", message: str = "") -> Answer:
    return Answer([Result(code, target_code, message)])


def test_a_user_is_one_post() -> None:
    """As the page shows it."""
    (request,) = dx().encode(batch())

    assert (request.method, request.path, request.users) == ("POST", "/users.attributes.update", 1)
    assert request.headers == {"Content-Type": "application/json"}
    assert json.loads(request.body) == REQUEST


def test_values_go_as_they_stand() -> None:
    """Byte for byte, whatever their type."""
    record = FRAME.record('"ä"@x.com', b'{"a":1.50,"b":1e400,"c":"\\u00e9","d\\"":[ 1 ],"e":true}')
    (request,) = dx().encode(Batch([1], ['"ä"@x.com'], [record]))

    assert (
        request.body
        == (
            '{"email":"\\"ä\\"@x.com","attributes":[{"name":"a","value":1.50},{"name":"b","value":1e400},'
            '{"name":"c","value":"\\u00e9"},{"name":"d\\"","value":[ 1 ]},{"name":"e","value":true}]}'
        ).encode()
    )


def test_the_page_s_answer_is_a_success() -> None:
    assert said(make.response(ANSWER)) == one(Code.SUCCESS)


@pytest.mark.parametrize("email", ["John.Doe@Example.com", "JOHN.DOE@EXAMPLE.COM"])
def test_an_email_may_come_back_in_another_case(email: str) -> None:
    """Its case rules are not documented, and the request was about one user."""
    assert said(make.response(answer(email=email))) == one(Code.SUCCESS)


def test_an_answer_about_somebody_else_is_none() -> None:
    """What was asked for may not have been done."""
    assert said(make.response(answer(email="jane@example.com"))) == Answer([None], strangers=1)


@pytest.mark.parametrize(
    "body", [{"ok": True}, {"ok": True, "user": None}, {"ok": True, "user": {}}, {"ok": True, "user": {"email": 7}}]
)
def test_an_answer_about_nobody_leaves_the_user_out(body: dict[str, Any]) -> None:
    assert said(make.response(body)) == Answer([None])


def test_an_attribute_that_was_not_updated_is_no_error() -> None:
    """Only `true` is shown; false may mean that it had this value already."""
    listed = [{"name": "Department", "value": "Engineering", "updated": False}]

    assert said(make.response(answer(attributes=listed))) == one(Code.SUCCESS)


@pytest.mark.parametrize("failures", [[], {}, None, ""])
def test_no_failures_are_none_in_any_form(failures: Any) -> None:
    assert said(make.response(answer(failures=failures))) == one(Code.SUCCESS)


@pytest.mark.parametrize(
    ("failures", "shown"),
    [
        ([{"name": "Region", "error": "no"}], '[{"name": "Region", "error": "no"}]'),
        (["Region: no"], '["Region: no"]'),
        ({"Region": "no"}, '{"Region": "no"}'),
        ([10**30], "[1" + "0" * 30 + "]"),
        ("Region\n", '"Region\\n"'),
        ("  ", '" "'),
        (True, "true"),
    ],
)
def test_failures_are_shown_as_they_are(failures: Any, shown: str) -> None:
    """The shape of an element is not documented. What else the answer lists was taken."""
    assert said(make.response(answer(failures=failures))) == one(Code.PARTIAL, "", f"failures: {shown}")


def test_long_failures_are_cut() -> None:
    """A message stands in the checkpoint, once for each such user."""
    verdict = said(make.response(answer(failures=["x" * 10_000])))

    assert isinstance(verdict, Answer)
    assert verdict.results[0] is not None
    assert len(verdict.results[0].message) == len("failures: ") + 500
    assert verdict.results[0].message.endswith("x…")


@pytest.mark.parametrize(
    ("sent", "failures", "code"),
    [
        ({"a": "1", "b": "2"}, ["a", "b"], Code.INVALID),
        ({"a": "1", "b": "2"}, ["a"], Code.INVALID),  # b isn't listed, and it would be
        ({"a": "1", "b": None}, ["a"], Code.PARTIAL),
        ({"a": "1", "b": None}, ["a", "b"], Code.INVALID),
        ({"a": None}, ["a"], Code.INVALID),
        ({"a": "1", "b": None}, {"a": "no"}, Code.PARTIAL),
    ],
)
def test_where_nothing_was_taken_it_is_not_partial(sent: dict[str, Any], failures: Any, code: Code) -> None:
    """Attributes set to null are not in an answer, so the number of failures has to tell."""
    verdict = said(make.response(answer(failures=failures, attributes=[])), sent=batch(**sent))

    assert isinstance(verdict, Answer)
    assert verdict.results[0] is not None
    assert verdict.results[0].code is code


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 422, 500])
@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("not_authed", Do.RENEW),
        ("invalid_auth", Do.RENEW),
        ("not_authorized", Stop("the token lacks the scope users:write: give it that, or take one that has it")),
        ("user_not_found", one(Code.USER_NOT_FOUND, "user_not_found", "why")),
        ("no_users_found", one(Code.USER_NOT_FOUND, "no_users_found", "why")),
        ("not_found", one(Code.USER_NOT_FOUND, "not_found", "why")),
        ("invalid_arguments", one(Code.INVALID, "invalid_arguments", "why")),
        ("invalid_payload", one(Code.INVALID, "invalid_payload", "why")),
    ],
)
def test_known_codes_rule_at_any_status(status: int, code: str, verdict: Verdict) -> None:
    """Which status goes with them is not documented; "always check the value of the ok param"."""
    response = make.response(error(code, error_details={"message": "why"}), status)

    assert said(response) == verdict
    assert dx().refuses_token(response) == (verdict is Do.RENEW)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, one(Code.FAILED, "new_code", "why")),
        (400, one(Code.INVALID, "new_code", "why")),
        (401, Do.RENEW),
        (403, Do.STOP),
        (404, one(Code.INVALID, "new_code", "why")),
        (409, one(Code.FAILED, "new_code", "why")),
        (413, Do.SHRINK),
        (422, one(Code.INVALID, "new_code", "why")),
        (429, Do.WAIT),
        (500, one(Code.FAILED, "new_code", "why")),
        (503, one(Code.FAILED, "new_code", "why")),
    ],
)
def test_an_unknown_code_goes_by_the_status(status: int, verdict: Verdict) -> None:
    """In a 200 it may be that "the service is down": FAILED is sent again. Who knows better sets result_codes."""
    assert said(make.response(error("new_code", message="why"), status)) == verdict


@pytest.mark.parametrize(
    ("meaning", "verdict"),
    [
        ("USER_NOT_FOUND", one(Code.USER_NOT_FOUND, "new_code", "why")),
        ("INVALID", one(Code.INVALID, "new_code", "why")),
        ("again", one(Code.FAILED, "new_code", "why")),
        ("wait", Do.WAIT),
        ("stop", Do.STOP),
    ],
)
def test_the_setting_says_what_codes_mean(meaning: str, verdict: Verdict) -> None:
    response = make.response(error("new_code", message="why"), 418)

    assert said(response, dx(result_codes={"new_code": meaning})) == verdict


def test_the_setting_comes_before_what_is_known() -> None:
    response = make.response(error("not_found"), 404)

    assert said(response, dx(result_codes={"not_found": "stop"})) is Do.STOP


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (error("x", error_details={"message": "the details"}, message="no"), "the details"),
        (error("x", error_details={"message": 7}, message="the message"), "the message"),
        (
            error("x", error_details="x", message=[]),
            'HTTP 422: {"ok": false, "error": "x", "error_details": "x", "message": []}',
        ),
        (error("x"), 'HTTP 422: {"ok": false, "error": "x"}'),
    ],
)
def test_words_are_looked_for_where_the_vendor_does(body: dict[str, Any], message: str) -> None:
    assert said(make.response(body, 422)) == one(Code.INVALID, "x", message)


@pytest.mark.parametrize("code", [None, 7, {}, ["not_found"]])
def test_a_code_that_is_no_text_is_none(code: Any) -> None:
    assert said(make.response(error(code, message="why"), 422)) == one(Code.INVALID, "", "why")
    assert said(make.response(error(code, message="why"))) == one(Code.FAILED, "", "why")


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"\xff", b"{}", b"[]", b"null", b'{"ok":true', b'{"ok":1}', b'{"ok":"true"}', b"[" * 100_000,
     b'{"ok":true,"user":"x"}', b'{"ok":true,"user":{"email":"\xff"}}'],
)  # fmt: skip
@pytest.mark.parametrize(
    ("status", "do"),
    [(200, Do.AGAIN), (400, Do.SPLIT), (401, Do.RENEW), (404, Do.STOP), (429, Do.WAIT), (502, Do.AGAIN)],
)
def test_what_is_not_dx_s_own_words_goes_by_the_status(body: bytes, status: int, do: Do) -> None:
    """Such as a page from what stands before it."""
    assert said(make.response(body, status)) is do


def test_a_good_body_with_a_bad_status_is_no_success() -> None:
    assert said(make.response(ANSWER, 500)) is Do.AGAIN


_texts = st.sampled_from(["invalid_auth", "not_found", "new", JOHN, ""]) | st.text()
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | _texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["ok", "user", "email", "failures", "attributes", "error", "error_details", "message"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.binary() | _json.map(json.dumps).map(str.encode), st.integers(200, 599))
@example(json.dumps(ANSWER).encode(), 200)
@example(json.dumps(ANSWER).encode(), 300)
def test_whatever_comes_is_read_and_success_is_never_guessed(body: bytes, status: int) -> None:
    """A success is 2xx with `ok` true, the user sent, and no failures."""
    response = Response(status, {}, body)
    dx().refuses_token(response)
    verdict = said(response)

    if isinstance(verdict, Answer) and any(found and found.code is Code.SUCCESS for found in verdict.results):
        read = json.loads(body)
        assert 200 <= status < 300
        assert read["ok"] is True
        assert read["user"]["email"].casefold() == JOHN.casefold()
        assert not read["user"].get("failures")


def test_a_token_is_a_header() -> None:
    scheme = dx().scheme

    assert scheme.call is None
    assert scheme.headers is not None
    assert scheme.headers({"token": "xxxx-xxxxxxxxx-xxxx"}) == {"Authorization": "Bearer xxxx-xxxxxxxxx-xxxx"}


def test_the_probe_reads() -> None:
    """auth.whoami, which needs no scope."""
    request = dx().probe()

    assert (request.method, request.path, request.body, request.users) == ("GET", "/auth.whoami", b"", 0)


def test_one_user_a_request_and_a_thousand_requests_a_minute() -> None:
    defaults = dx().defaults

    assert (defaults.users_per_request, defaults.max_users, defaults.quota) == (1, 1, ("1000/60s",))


def test_names_that_differ_in_case_alone_are_one_attribute() -> None:
    """Groups are looked for regardless of case; and what is not expected would make a group."""
    assert "differ in case alone" in (dx().names.complaint(["Dept", "dept"]) or "")
    assert "target.expect" in (dx(expect={"Dept"}).names.complaint(["Detp"]) or "")
    assert dx(expect={"Dept"}).names.complaint(["Dept"]) is None


def settings(folder: Path, more: str = "", users: str = "") -> str:
    """The base URL that such settings lead to."""
    text = f'[export]\npath = "users.csv"\n[mapping]\nuser = "email"\n[target]\napi = "dx"\n{more}\n'
    text += f'[target.auth]\nscheme = "bearer"\ntoken = "T"\n[limits]\n{users}'
    return make.settings(folder, text).base_url


def test_the_cloud_is_the_default_and_others_are_named(tmp_path: Path) -> None:
    """Dedicated instances have a host of their own."""
    assert settings(tmp_path) == "https://api.getdx.com"
    assert settings(tmp_path, 'base_url = "https://api.acme.getdx.io"') == "https://api.acme.getdx.io"


@pytest.mark.parametrize("host", ["yourinstance.getdx.net", "YOURINSTANCE.GETDX.NET:443"])
def test_the_data_cloud_is_another_product(tmp_path: Path, host: str) -> None:
    """Its API has the same look, other keys, and no user attributes."""
    with pytest.raises(SettingsError, match=r"target\.base_url: .*Data Cloud API, another product.*api\.getdx\.com"):
        settings(tmp_path, f'base_url = "https://{host}/api"')


def test_more_users_a_request_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"limits\.users_per_request: dx takes at most 1 user a request"):
        settings(tmp_path, users="users_per_request = 2")


@pytest.mark.parametrize("meaning", ["SUCCESS", "AGAIN", "user_not_found"])
def test_a_code_can_not_mean_anything(tmp_path: Path, meaning: str) -> None:
    with pytest.raises(SettingsError, match=r"target\.result_codes\.new: '\w+' is not 'USER_NOT_FOUND', 'INVALID'"):
        settings(tmp_path, f'result_codes = {{ new = "{meaning}" }}')


def test_the_settings_of_its_page_are_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first example in docs/dx.md."""
    monkeypatch.setenv("DX_TOKEN", "T")
    page = (Path(__file__).parents[2] / "docs" / "dx.md").read_text("utf-8")
    found = make.settings(tmp_path, page.split("```toml")[1].partition("```")[0])

    assert (found.api.api, found.base_url) == ("dx", "https://api.getdx.com")


def test_it_is_found_by_its_name() -> None:
    """As `[target] api` gives it."""
    assert BUILT_IN["dx"] is Dx
