"""DX: custom attributes of one user in one request.

Facts are from the vendor's pages "users.attributes.update", "Web API overview", "auth.whoami" and "apiKeys.list", and
from the code of its command line. A body's `ok` rules, whatever the status: "Callers should always check the value of
the ok param". Codes of errors are documented for a missing or bad token and for a missing scope, and no statuses with
them; so what else a code means is a field here:

* `result_codes`: by the text of `error`. The code for an unknown email is not documented: `no_users_found` and
  `not_found` are those of other methods, in the tests of the command line, and `user_not_found` is a guess.

A code that isn't known goes by the status: 400, 404 or 422 ("There was an error with your request") make the user
INVALID, with the code in `target_code`. With any other status, 2xx above all, it is one of the errors that "can be
returned in the case where the service is down", and the user is sent again.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec
from pydantic import Field

from loader.batch import Batch
from loader.outcome import Code, Result
from loader.record import Frame, Names, json_string
from loader.request import Request, Response
from loader.target import Defaults, Target
from loader.tokens import Scheme, bearer_headers
from loader.verdict import Answer, Do, Meaning, Stop, Verdict, by_status, meant, words

UPDATE = "/users.attributes.update"
WHOAMI = "/auth.whoami"
FRAME = Frame(None, "email", "attributes")

_KNOWN: Mapping[str, Code | Do] = {
    "not_authed": Do.RENEW,
    "invalid_auth": Do.RENEW,
    "not_authorized": Do.STOP,
    "user_not_found": Code.USER_NOT_FOUND,
    "no_users_found": Code.USER_NOT_FOUND,
    "not_found": Code.USER_NOT_FOUND,
    "invalid_arguments": Code.INVALID,
    "invalid_payload": Code.INVALID,
}

_LACKS_SCOPE = Stop("the token lacks the scope users:write: give it that, or take one that has it")

#: Statuses that go with an error in the request.
_REFUSED = (400, 404, 422)

_JSON = {"Content-Type": "application/json"}

#: Characters of `failures` that a message shows.
_SHOWN = 500


class _User(msgspec.Struct):
    email: Any = None
    attributes: Any = None
    failures: msgspec.Raw = msgspec.Raw(b"[]")


class _Body(msgspec.Struct):
    ok: Any = None
    user: _User | None = None
    error: Any = None
    error_details: Any = None
    message: Any = None

    @property
    def code(self) -> str:
        return self.error if isinstance(self.error, str) else ""

    @property
    def words(self) -> str:
        """Where the vendor's command line looks for them."""
        details = self.error_details.get("message") if isinstance(self.error_details, dict) else None
        return next((text for text in (details, self.message) if isinstance(text, str)), "")


_decode = msgspec.json.Decoder(_Body).decode
_decode_any: Callable[[msgspec.Raw], object] = msgspec.json.Decoder().decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def _body(response: Response) -> _Body:
    """What the body says; nothing if it can't be read."""
    try:
        return _decode(response.body)
    except _UNREADABLE:
        return _Body()


class Dx(Target):
    """`POST /users.attributes.update`: merges what is sent, and removes what is sent as null."""

    api: ClassVar[str] = "dx"
    address: ClassVar[str] = "https://api.getdx.com"
    schemes: ClassVar[Mapping[str, Scheme]] = {"bearer": Scheme(("token",), headers=bearer_headers)}
    null_removes: ClassVar[bool] = True
    makes_attributes: ClassVar[bool] = True
    note: ClassVar[str] = (
        "a name that DX doesn't know makes an attribute group, for the whole account; target.expect lists those that "
        "may be sent"
    )

    result_codes: Mapping[str, Meaning] = Field(default_factory=dict)
    """`{ "the_code" = "USER_NOT_FOUND" }`: what an error means, beside those that are known; or `INVALID`, `again`,
    `wait`, `stop`"""

    @property
    def frame(self) -> Frame:
        return FRAME

    @property
    def defaults(self) -> Defaults:
        """An account's limit is 1,000 requests in any minute."""
        return Defaults(users_per_request=1, max_users=1, quota=("1000/60s",))

    @property
    def names(self) -> Names:
        """Existing groups are looked for regardless of case."""
        return Names(self.expect, fold_case=True)

    @classmethod
    def wrong_address(cls, base_url: str) -> str:
        if (urlsplit(base_url).hostname or "").endswith(".getdx.net"):
            return (
                "is the Data Cloud API, another product, which has no user attributes; the Web API is at "
                f"{cls.address}, or at https://api.<account>.getdx.io"
            )
        return ""

    @classmethod
    def usual_name(cls, column: str) -> str:
        """As it is: DX shows names to people, and makes a new group of one that it doesn't know."""
        return column.strip()

    def refuses_token(self, response: Response) -> bool:
        return self._meaning(response, _body(response)) is Do.RENEW

    def encode(self, batch: Batch) -> list[Request]:
        return [
            Request("POST", UPDATE, _update(user, record), _JSON, 1)
            for user, record in zip(batch.users, batch.records, strict=True)
        ]

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        response = responses[-1]
        body = _body(response)
        meaning = self._meaning(response, body)
        if meaning is Code.SUCCESS:
            return _taken(batch, body.user)
        if meaning is Do.STOP and body.code == "not_authorized":
            return _LACKS_SCOPE
        if meaning is Do.AGAIN and body.ok is False:
            meaning = Code.FAILED  # sent again all the same; and should it come to that, the code is kept
        if isinstance(meaning, Do):
            return meaning
        return Answer([Result(meaning, body.code, body.words or words(response))])

    def _meaning(self, response: Response, body: _Body) -> Code | Do:
        """What is said of the request as a whole."""
        if body.ok is True and 200 <= response.status < 300:
            return Code.SUCCESS
        if body.ok is not False:
            return by_status(response)
        if own := self.result_codes.get(body.code):
            return meant(own)
        if known := _KNOWN.get(body.code):
            return known
        return Code.INVALID if response.status in _REFUSED else by_status(response)

    def probe(self) -> Request:
        """Needs no scope."""
        return Request("GET", WHOAMI)


def _update(user: str, record: bytes) -> bytes:
    """The body for one user, its values as they stand."""
    pairs = [_before(name) + value + b"}" for name, value in FRAME.attributes_of(record).items()]
    return b'{"email":' + json_string(user) + b',"attributes":[' + b",".join(pairs) + b"]}"


@lru_cache(maxsize=1_000)
def _before(name: str) -> bytes:
    """An attribute up to its value. The same few names come with each user."""
    return b'{"name":' + json_string(name) + b',"value":'


def _taken(batch: Batch, user: _User | None) -> Answer:
    """What a good answer says of the one user sent. The case of its email is DX's own."""
    email = user.email if user is not None else None
    if user is None or not isinstance(email, str):
        return Answer([None])
    if email.casefold() != batch.users[0].casefold():
        return Answer([None], strangers=1)
    if _is_nothing(user.failures):
        return Answer([Result(Code.SUCCESS)])
    # What it holds then is not documented: it is shown as it is.
    failures = " ".join(bytes(user.failures).decode("utf-8", "replace").split())
    shown = failures if len(failures) <= _SHOWN else failures[: _SHOWN - 1] + "…"
    code = Code.PARTIAL if _took_some(batch.records[0], user) else Code.INVALID
    return Answer([Result(code, "", f"failures: {shown}")])


def _is_nothing(failures: msgspec.Raw) -> bool:
    try:
        return not _decode_any(failures)
    except _UNREADABLE:
        return False


def _took_some(record: bytes, user: _User) -> bool:
    """Beside those that failed, was any attribute taken? The answer lists none that is null: their number may tell."""
    if user.attributes:
        return True
    sent = FRAME.attributes_of(record)
    try:
        failed = len(_decode_list(user.failures))
    except _UNREADABLE:
        failed = 1
    return b"null" in sent.values() and failed < len(sent)
