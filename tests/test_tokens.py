"""Tokens are read from whatever an API answers, and renewed in time by whichever clock is further on."""

import base64
import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.tokens import RENEW_AT, SECRET_LENGTH, Token, disguises, is_refusal, read_token
from tests import make

WALL, MONOTONIC = 1_683_257_792.0, 50.0
DATE = "Fri, 05 May 2023 03:36:32 GMT"  # the same as WALL


def lifetime(body: dict[str, Any], wall: float = WALL, date: str = "") -> float | None:
    token = read_token(make.response({"token": "T"} | body, date=date), wall, MONOTONIC)
    assert token is not None
    return token.lifetime_s


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"expiration": 1683258201}, 409),  # the example of Calven's page on HMAC
        ({"expiration": 1683258201000}, 409),  # as its SDK takes it
        ({"expiration": "1683258201"}, 409),
        ({"expiration": 1683258201.5}, 409.5),
        ({"expires_in": 3600}, 3600),  # the example of its page on client secrets
        ({"expires_in": "3600"}, 3600),
        ({"expires_in": 3_600_000}, 3600),
        ({"expires_at": 1683258201}, 409),
        ({"expiration": 409}, 409),
        ({}, None),
        ({"expires_in": None}, None),
        ({"expires_in": 0}, None),
        ({"expires_in": -5}, None),
        ({"expiration": "soon"}, None),
        ({"expiration": "NaN"}, None),
        ({"expiration": [1]}, None),
        ({"expiration": 1683257000}, None),  # over before it began: the clocks disagree
    ],
)
def test_a_lifetime_is_read_in_any_form(body: dict[str, Any], seconds: float | None) -> None:
    """Seconds or milliseconds, absolute or relative, a number or its text; None where it can't be told."""
    assert lifetime(body) == seconds


@pytest.mark.parametrize("skew", [-86_400, -300, 300, 86_400])
def test_a_wrong_clock_does_no_harm(skew: float) -> None:
    """Where the clocks disagree the answer's own Date counts, and may be a second old: it has no fractions."""
    assert lifetime({"expiration": 1683258201}, WALL + skew, DATE) == 408


def test_clocks_that_agree_are_read_to_the_fraction() -> None:
    """A Date without fractions would make a token of 2 s look a second longer-lived than it is."""
    assert lifetime({"expiration": 1683257794}, WALL + 0.9, DATE) == pytest.approx(1.1)


def test_the_token_is_in_either_field() -> None:
    """`token` or `access_token`."""
    for field in ("token", "access_token"):
        token = read_token(make.response({field: "T"}), WALL, MONOTONIC)
        assert token == Token({"Authorization": "Bearer T"}, None, WALL, MONOTONIC)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff",
        b"[]",
        b'"T"',
        {},
        {"token": ""},
        {"token": 5},
        {"token": None},
        {"authenticated": False, "token": "T"},
    ],
)
def test_an_answer_without_a_token_has_none(body: Any) -> None:
    """Even if its status was 200."""
    assert read_token(make.response(body), WALL, MONOTONIC) is None


def test_a_token_is_due_before_it_expires() -> None:
    """At four fifths of its lifetime."""
    token = Token({"Authorization": "Bearer T"}, 100, WALL, MONOTONIC)
    moments = [0.0, RENEW_AT * 100 - 1, RENEW_AT * 100, 100]

    assert [token.is_due(WALL + at, MONOTONIC + at) for at in moments] == [False, False, True, True]
    assert [token.is_expired(WALL + at, MONOTONIC + at) for at in moments] == [False, False, False, True]


def test_the_clock_that_is_further_on_decides() -> None:
    """A suspended machine stops the one; a correction sets back the other."""
    token = Token({"Authorization": "Bearer T"}, 100, WALL, MONOTONIC)

    assert token.is_due(WALL + 90, MONOTONIC)
    assert token.is_due(WALL, MONOTONIC + 90)
    assert not token.is_due(WALL - 5000, MONOTONIC)


def test_an_unknown_lifetime_is_never_over() -> None:
    """Such a token is used until it is refused."""
    token = Token({"Authorization": "Bearer T"})

    assert not token.is_due(1e12, 1e12)
    assert not token.is_expired(1e12, 1e12)


def test_a_token_does_not_print() -> None:
    """Not in a log, not in a crash file."""
    token = Token({"Authorization": "Bearer T0P"})

    assert "T0P" not in repr(token) + str(token) + f"{[token]}"


def test_a_refusal_may_come_with_any_status() -> None:
    """`authenticated: false` says that the credentials are not taken, also in a 200."""
    assert is_refusal(make.response({"authenticated": False, "message": "no"}))
    assert not is_refusal(make.response({"authenticated": True}))
    assert not is_refusal(make.response(b"[]"))


secrets = st.text(st.characters(min_codepoint=33, max_codepoint=383), min_size=SECRET_LENGTH)


def hidden(text: str | bytes, *secrets: str) -> bytes:
    found = text.encode() if isinstance(text, str) else text
    for disguise in disguises(secrets):
        found = found.replace(disguise, b"*")
    return found


@given(secrets, st.binary(max_size=5), st.binary(max_size=5))
def test_a_secret_is_found_in_every_disguise(secret: str, before: bytes, after: bytes) -> None:
    """In URLs, forms and JSON nothing of it is left; in base64 no more than the letters that its neighbours share."""
    for text in (
        secret,
        quote(secret, safe=""),
        urlencode({"": secret})[1:],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1].replace("/", "\\/"),
    ):
        assert hidden(f"{{ {text} }}", secret) == b"{ * }"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text64 = encode(before + secret.encode() + after).rstrip(b"=")
        left = hidden(text64, secret).replace(b"*", b"")
        assert len(left) <= len(encode(before)) + len(encode(after)) + 4
        assert len(left) < len(text64)


def test_one_secret_may_hold_another() -> None:
    """The longest goes first, or the rest of it would be left."""
    assert hidden("P2project:K2management", "K2management", "P2project:K2management") == b"*"


def test_what_is_short_is_not_looked_for() -> None:
    """It would be found in users' names."""
    assert disguises(["a" * (SECRET_LENGTH - 1), ""]) == []
