"""Calven: attributes of many users in one request.

Facts are from the vendor's pages "Write directory user attributes", "HMAC Authentication", "Generate a token with an
API key and client secret" and "Basic Authentication Overview", and from its Node SDK. What these don't say is a field
here:

* `region`: sent as `x-calven-region` (named by the SDK alone: usce1, ause1); without it the vendor's default holds.
* `path`: the Basic path is not documented; every Basic path that is ends in `/basic`.
* `auth_path`: where tokens come from.
* `result_codes`: what `resultCode` means. The page shows the type as an empty object, its enum elsewhere is 0 to 3, and
  the SDK names 0, 1 and 2; 3 is unknown, so that a user answered with it is INVALID with `3` as target code.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import orjson
from pydantic import Field

from loader.batch import Batch
from loader.outcome import Code, Result
from loader.record import Frame
from loader.request import Request, Response
from loader.target import Defaults, Target
from loader.tokens import Scheme, basic_headers, bearer_headers
from loader.verdict import Answer, Do, Verdict, by_status

PATH = "/v1/directory/user-attributes"
FRAME = Frame("userAttributes", "userName", "attributes")

_KNOWN = {
    "0": Code.SUCCESS,
    "success": Code.SUCCESS,
    "1": Code.USER_NOT_FOUND,
    "usernotfound": Code.USER_NOT_FOUND,
    "2": Code.LOCATION_NOT_FOUND,
    "locationnotfound": Code.LOCATION_NOT_FOUND,
}

_JSON = {"Content-Type": "application/json"}


#: What an answer can say of a user. The other outcomes belong to rows that were not sent, or got no answer.
_Answered = Literal[Code.SUCCESS, Code.USER_NOT_FOUND, Code.LOCATION_NOT_FOUND, Code.INVALID, Code.PARTIAL, Code.FAILED]
_Path = Annotated[str, Field(pattern=r"^/[!-~]*$")]
_Word = Annotated[str, Field(pattern=r"^[!-~]+$")]  # a header's value


class _Result(msgspec.Struct):
    userName: Any = None
    resultCode: msgspec.Raw = msgspec.Raw(b"null")
    message: Any = None


class _Answer(msgspec.Struct):
    results: list[_Result]


_decode = msgspec.json.Decoder(_Answer).decode


def _code(raw: bytes) -> tuple[object, str]:
    """A code as a value, and as text: numbers by their digits, objects as compact JSON."""
    if raw[:1] in (b'"', b"{", b"["):
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.MsgspecError, ValueError):  # such as a number within that no float can hold
            return None, raw.decode("utf-8", "replace")
        return value, value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return None, raw.decode()


def _hmac_call(secrets: Mapping[str, str], now: float) -> Request:
    """`hash` is the lower-case hex HMAC-SHA256 of key id and timestamp, joined as they are, under the secret."""
    timestamp = int(now)
    message = f"{secrets['key_id']}{timestamp}".encode()
    digest = hmac.new(secrets["secret"].encode(), message, hashlib.sha256).hexdigest()
    body = {"apiKey": secrets["key_id"], "timestamp": timestamp, "hash": digest}
    return Request("POST", "/v1/auth", orjson.dumps(body), _JSON)


def _client_secret_call(secrets: Mapping[str, str], now: float) -> Request:
    """JSON, not a form, and no `grant_type`."""
    body = {"client_id": secrets["key_id"], "client_secret": secrets["secret"]}
    return Request("POST", "/v1/auth/token", orjson.dumps(body), _JSON)


class Calven(Target):
    """`POST /v1/directory/user-attributes`, up to 100 users a request (the only number that sibling pages support)."""

    api: ClassVar[str] = "calven"
    address: ClassVar[str] = "https://api.calven.com"
    schemes: ClassVar[Mapping[str, Scheme]] = {
        "hmac": Scheme(("key_id", "secret"), call=_hmac_call),
        "client-secret": Scheme(("key_id", "secret"), call=_client_secret_call),
        "basic": Scheme(("key_id", "secret"), headers=basic_headers),
        "bearer": Scheme(("token",), headers=bearer_headers),
    }

    region: _Word | None = None
    path: _Path | None = None
    auth_path: _Path | None = None
    result_codes: Mapping[str, _Answered] = Field(default_factory=dict)

    @property
    def frame(self) -> Frame:
        return FRAME

    @property
    def defaults(self) -> Defaults:
        return Defaults(users_per_request=100)

    @property
    def scheme(self) -> Scheme:
        scheme = self.schemes[self.auth]
        if scheme.call is None or (self.auth_path is None and self.region is None):
            return scheme
        call = scheme.call

        def moved(secrets: Mapping[str, str], now: float) -> Request:
            request = call(secrets, now)
            return Request(request.method, self.auth_path or request.path, request.body, self._headers)

        return Scheme(scheme.needs, call=moved)

    def encode(self, batch: Batch) -> list[Request]:
        path = self.path or (f"{PATH}/basic" if self.auth == "basic" else PATH)
        return [Request("POST", path, FRAME.body(batch.records), self._headers, len(batch.users))]

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        response = responses[-1]
        if not 200 <= response.status < 300:
            return by_status(response)
        try:
            answered = _decode(response.body).results if response.body.strip() else []
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return Do.AGAIN
        seen: dict[tuple[str, str], Result] = {}
        by_user: dict[str, Result] = {}
        for item in answered:
            result = self._result(item, seen)
            before = by_user.setdefault(item.userName, result) if isinstance(item.userName, str) else result
            if before is not result and before.code is Code.SUCCESS:
                # Two answers for one user that don't agree: success is believed only where nothing speaks against it.
                by_user[item.userName] = result
        results = [by_user.get(user) for user in batch.users]
        named = len(results) - results.count(None)
        return Answer(results, strangers=len(by_user) - named, doubled=len(answered) - len(by_user))

    def _result(self, item: _Result, seen: dict[tuple[str, str], Result]) -> Result:
        raw, code = _code(bytes(item.resultCode))
        message = item.message if isinstance(item.message, str) else ""
        if (result := seen.get((code, message))) is None:
            result = seen[code, message] = Result(self._meaning(raw, code), code, message)
        return result

    def _meaning(self, raw: object, code: str) -> Code:
        """A code as number, text or name; an object is asked for its value, then for its name."""
        forms = [raw] if not isinstance(raw, dict) else [raw.get(name) for name in ("value", "code", "name")]
        for form in (code, *forms):
            text = str(form)
            if found := self.result_codes.get(text) or _KNOWN.get(text.replace("_", "").replace(" ", "").lower()):
                return found
        return Code.INVALID

    @property
    def _headers(self) -> Mapping[str, str]:
        return _JSON if self.region is None else {**_JSON, "x-calven-region": self.region}
