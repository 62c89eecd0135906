"""Tokens as values: how one is asked for, read from an answer, and when it is due for renewal.

The APIs agree on little (../docs of Calven: HMAC answers an absolute time in seconds, the client-secret call a
lifetime; its own SDK takes the first for milliseconds), so any of these forms is taken.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, urlencode

import orjson

from loader.request import Request, Response
from loader.retry import unix_time

#: Above this a number of seconds since 1970 would lie after the year 5000: it is milliseconds.
_MILLISECONDS = 1e11
#: Above this a number can't be a lifetime in seconds (31 years): it is a point in time.
_ABSOLUTE = 1e9
#: No API of this kind hands out tokens for over a month: a longer "lifetime" is in milliseconds. Should that be wrong,
#: the token is renewed early, which costs a call and no user.
_LONGEST_S = 31 * 86_400

#: Shorter ones are not looked for in answers: they would be found in users' names, too.
SECRET_LENGTH = 8

RENEW_AT = 0.8
"""A token is renewed at this share of its lifetime."""


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """The headers that authorize a request. `lifetime_s` None: not known, used until it is refused."""

    headers: Mapping[str, str]
    lifetime_s: float | None = None
    wall: float = 0.0
    monotonic: float = 0.0

    def age_s(self, wall: float, monotonic: float) -> float:
        """Seconds since it was fetched, by the clock that is further on: one of them stops in a suspended machine."""
        return max(wall - self.wall, monotonic - self.monotonic, 0.0)

    def is_due(self, wall: float, monotonic: float) -> bool:
        """Is it time to fetch another?"""
        return self.lifetime_s is not None and self.age_s(wall, monotonic) >= RENEW_AT * self.lifetime_s

    def is_expired(self, wall: float, monotonic: float) -> bool:
        """Is it past its lifetime, so that a refusal says nothing about the credentials?"""
        return self.lifetime_s is not None and self.age_s(wall, monotonic) >= self.lifetime_s

    def __repr__(self) -> str:
        return f"Token(lifetime_s={self.lifetime_s})"


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to authorize: the secrets it needs, and how they become a token.

    Either `headers` makes the headers of each request from the secrets at once, or `call` makes the request that
    fetches a token, from the secrets and the unix time. `greet` goes with `headers`: a call before all others, whose
    answer `welcome` makes further headers of; where it fails, there are none. `flaw` says what is wrong with secrets
    that can't be right, beginning with the name of the one; "": nothing that could be seen without a call.
    `elsewhere`: the whole URL that is the `path` of the call's request, where tokens don't come from the API's own
    address; no other is ever called.
    """

    needs: tuple[str, ...]
    headers: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None
    call: Callable[[Mapping[str, str], float], Request] | None = None
    greet: Callable[[Mapping[str, str]], Request] | None = None
    welcome: Callable[[Response], Mapping[str, str]] = lambda response: {}
    elsewhere: str = ""
    flaw: Callable[[Mapping[str, str]], str] = lambda secrets: ""


def bearer_headers(secrets: Mapping[str, str]) -> Mapping[str, str]:
    """RFC 6750."""
    return {"Authorization": f"Bearer {secrets['token']}"}


def basic_headers(secrets: Mapping[str, str]) -> Mapping[str, str]:
    """RFC 7617: the key's id is the user, its secret the password."""
    pair = f"{secrets['key_id']}:{secrets['secret']}".encode()
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()}


def client_credentials(token_url: str, scope: str | None = None, *, in_body: bool = False) -> Scheme:
    """The grant of RFC 6749 §4.4. `token_url`: a path of the API's own, or a whole URL. `scope`: what to ask for.

    §2.3.1: the client says who it is by Basic, its id and secret encoded as in a form; or by the body.
    """

    def call(secrets: Mapping[str, str], now: float) -> Request:
        form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if in_body:
            form |= {"client_id": secrets["key_id"], "client_secret": secrets["secret"]}
        else:
            headers |= basic_headers({name: quote_plus(secret) for name, secret in secrets.items()})
        return Request("POST", token_url, urlencode(form).encode(), headers)

    return Scheme(("key_id", "secret"), call=call, elsewhere="" if token_url.startswith("/") else token_url)


def disguises(secrets: Iterable[str]) -> list[bytes]:
    """What a secret may look like in an answer that repeats what we sent: the longest first, as one may hold another.

    As it is, in a URL or a form, in JSON, and in base64, alone or behind something else, as a password is in Basic.
    """
    found = set[bytes]()
    for secret in secrets:
        if len(secret) >= SECRET_LENGTH:
            quoted = [json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False)]
            quoted += [text.replace("/", "\\/") for text in quoted]
            texts = (secret, quote(secret, safe=""), quote_plus(secret), *quoted)
            found |= {*(text.encode() for text in texts), *_in_base64(secret.encode())}
    return sorted(found, key=len, reverse=True)


def _in_base64(data: bytes) -> Iterator[bytes]:
    """The characters that `data` alone decides, wherever among three bytes it begins; in both alphabets."""
    for shift, first in enumerate((0, 2, 3)):
        last = 8 * (shift + len(data)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(shift) + data)[first:last]


def is_refusal(response: Response) -> bool:
    """Does a token endpoint's answer say, with whatever status, that the credentials are not taken?"""
    try:
        body = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(body, dict) and body.get("authenticated") is False


def read_token(response: Response, wall: float, monotonic: float) -> Token | None:
    """The token in an answer of a token endpoint, or None if there is none.

    Takes `token` or `access_token`; `expiration`, `expires_at` or `expires_in`, as a number or its text, in seconds or
    milliseconds, absolute or relative. An absolute time is measured by this machine's clock, or by the answer's own
    `Date` if the two disagree.
    """
    try:
        body = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict):
        return None
    value = body.get("access_token") or body.get("token")
    if not isinstance(value, str) or not value or body.get("authenticated") is False:
        return None
    expiry = next((body[name] for name in ("expires_in", "expiration", "expires_at") if body.get(name)), None)
    now = wall
    served = unix_time(response.headers.get("date", ""))
    if served is not None and not -1 <= wall - served <= 2:  # `Date` has no fractions, and the answer took its time
        now = served + 1
    return Token({"Authorization": f"Bearer {value}"}, _lifetime_s(expiry, now), wall, monotonic)


def _lifetime_s(expiry: object, now: float) -> float | None:
    try:
        value = float(expiry)  # type: ignore[arg-type]  # whatever it is, float() says if it is a number
    except (TypeError, ValueError):
        return None
    if value > _MILLISECONDS:
        value /= 1000
    if value > _ABSOLUTE:
        value -= now
    elif value > _LONGEST_S:
        value /= 1000
    # Not positive: the clocks disagree by more than the token lives. Then only a refusal can tell that it is over.
    return value if value > 0 else None
