"""Any API that takes records as JSON, one or many a request, described by settings alone.

The body is a record, or `{wrapper: [records]}`; each holds the user's key and its attributes. The answer's status says
what became of all users, or a list in its body says it of each. It must be safe to send a record twice: the loader does
so when an answer is lost.

A *path into an answer* is names with dots between, such as `data.items`; `"."` is the value itself.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

import msgspec
from pydantic import AfterValidator, Field, model_validator

from loader.batch import Batch
from loader.outcome import Code, Result
from loader.record import Frame
from loader.request import Request, Response
from loader.target import Defaults, OAuth2Target, not_a
from loader.tokens import Scheme, basic_headers, bearer_headers
from loader.verdict import Answer, Do, Verdict, by_status, is_page

#: Statuses whose body may say that a user is not known. Others are about the request, the token or the server.
_REFUSED = (400, 404, 422)

#: Headers that are not for a setting: they come from elsewhere, or frame the message.
_NOT_STATIC = {"authorization", "cookie", "host", "content-length", "transfer-encoding", "connection"}

_TAKEN = Result(Code.SUCCESS)


def _dotted(path: str) -> str:
    if path != "." and not all(path.split(".")):
        raise not_a('path: names with dots between, such as "data.items", or "." for the value itself')
    return path


def _headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"[ -~]*", value):
            raise ValueError(f"{name!r} is not a header with a value of printable ASCII")
        if name.lower() in _NOT_STATIC:
            raise ValueError(f"{name} is not a static header; credentials belong under [target.auth]")
        if value.startswith(("env:", "file:")):
            raise ValueError(f"{name}: a secret belongs under [target.auth], where the scheme api-key sends it")
    return headers


_Path = Annotated[str, Field(pattern=r"^/[!-~]*$")]
_Name = Annotated[str, Field(min_length=1)]
_Header = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
_Dotted = Annotated[str, AfterValidator(_dotted)]
_Values = tuple[str | int | bool, ...]  # of a code, in TOML's types

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_value = msgspec.json.Decoder(msgspec.Raw).decode
_string = msgspec.json.Decoder(str).decode

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Http(OAuth2Target):
    """One path that takes records."""

    api: ClassVar[str] = "http"
    schemes: ClassVar[Mapping[str, Scheme]] = {
        "bearer": Scheme(("token",), headers=bearer_headers),
        "basic": Scheme(("key_id", "secret"), headers=basic_headers),
        # What these two do depends on settings: see `scheme`.
        "api-key": Scheme(("token",)),
        "oauth2": Scheme(("key_id", "secret")),
    }

    path: _Path
    """behind `base_url`; a query may stand in it"""
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    """of each request"""
    headers: Annotated[Mapping[str, str], AfterValidator(_headers)] = Field(default_factory=dict)
    """`{ "X-Tenant" = "7" }`: with each request; nothing secret"""
    wrapper: _Name | None = None
    """the field with the list of records; not set: a record is a body of its own, so one user a request"""
    user: _Name
    """the field of a record with the user's key"""
    attributes: _Name | None = None
    """the field of a record with the attributes; not set: they stand beside the key"""
    results: _Dotted | None = None
    """where the answer lists what became of each user: names with dots between; not set: a 2xx is a success of all"""
    result_user: _Dotted | None = None
    """the user's key, in a result"""
    result_code: _Dotted | None = None
    """the code, in a result; not set: whoever is listed is a success"""
    result_message: _Dotted | None = None
    """a text for people, in a result"""
    success: _Values = ()
    """the codes that mean success: `["ok", 0, true]`"""
    not_found: _Values = ()
    """the codes that mean `USER_NOT_FOUND`"""
    api_key_header: _Header = "X-API-Key"
    """the header of the scheme `api-key`"""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.user == self.attributes:
            raise ValueError("user and attributes are two fields of a record, and can't have one name")
        if self.results is None:
            for name in ("result_user", "result_code", "result_message", "missing_result"):
                if name in self.model_fields_set:
                    raise ValueError(f"{name} is about results: say where the answer lists them")
        elif self.result_user is None and self.wrapper is not None:
            raise ValueError(
                "results needs result_user: where a result says whom it is about, as users are never "
                "told apart by their position"
            )
        if self.result_code is None and (self.success or self.not_found):
            raise ValueError("success and not_found are values of a code: result_code says where it stands")
        if self.missing_result == "success" and self.result_code is None:
            raise ValueError('missing_result = "success" needs result_code: else nobody could ever fail')
        if self.result_code is not None and not self.success and self.missing_result == "again":
            raise ValueError("result_code needs success: the values that mean it")
        return self

    @property
    def frame(self) -> Frame:
        return Frame(self.wrapper, self.user, self.attributes)

    @classmethod
    def usual_name(cls, column: str) -> str:
        """As it is: nothing is known of the API."""
        return column.strip()

    @property
    def defaults(self) -> Defaults:
        return Defaults() if self.wrapper is not None else Defaults(users_per_request=1, max_users=1)

    @property
    def scheme(self) -> Scheme:
        if self.auth == "api-key":
            needs = self.schemes[self.auth].needs
            return Scheme(needs, headers=lambda secrets: {self.api_key_header: secrets["token"]})
        return super().scheme

    def identity(self) -> Mapping[str, object]:
        """Where records go and what they look like; how the answers are read may be mended on the way."""
        return {name: getattr(self, name) for name in ("method", "path", "wrapper", "user", "attributes")}

    def encode(self, batch: Batch) -> list[Request]:
        is_typed = any(name.lower() == "content-type" for name in self.headers)
        headers = self.headers if is_typed else {"Content-Type": "application/json", **self.headers}
        return [Request(self.method, self.path, self.frame.body(batch.records), headers, len(batch))]

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        response = responses[-1]
        is_taken = 200 <= response.status < 300 and not is_page(response)
        if self.results is None:
            return Answer([_TAKEN] * len(batch)) if is_taken else by_status(response)
        if is_taken:
            return self._answer(batch, response.body) or by_status(response)
        if self.not_found and response.status in _REFUSED:
            return self._unknown(batch, response.body) or by_status(response)
        return by_status(response)

    def _answer(self, batch: Batch, body: bytes) -> Answer | None:
        """What an answer says of each user. None: it can't be read."""
        try:
            items = self._items(body)
        except _UNREADABLE:
            return None
        found: dict[str, Result | None] = dict.fromkeys(batch.users)
        strangers = doubled = 0
        for item in items:
            user = batch.users[0] if self.result_user is None else _key(_at(item, self.result_user))
            if user is None or user not in found:
                strangers += 1
                continue
            before = found[user]
            doubled += before is not None
            if before is None or before.code is Code.SUCCESS:
                # Of two that don't agree: success is believed only where nothing speaks against it.
                found[user] = self._result(item)
        return Answer(list(found.values()), strangers, doubled)

    def _unknown(self, batch: Batch, body: bytes) -> Verdict | None:
        """A refusal because of users that are not known. None: it isn't one."""
        answer = self._answer(batch, body)
        results = answer.results if answer else ()
        if not any(result is not None and result.code is Code.USER_NOT_FOUND for result in results):
            return None
        return answer if len(batch) == 1 else Do.SPLIT  # of the others it doesn't say what became of them

    def _items(self, body: bytes) -> Sequence[msgspec.Raw]:
        """The results; where they don't name users, the one there is. Raises one of `_UNREADABLE`."""
        if not body.strip():
            return ()
        found = _at(_value(body), self.results or ".")
        if found is None:
            raise msgspec.DecodeError("there is nothing at target.results")
        if self.result_user is not None:
            return _list(found)
        _fields(found)
        return (found,)

    def _result(self, item: msgspec.Raw) -> Result:
        message = _text(_at(item, self.result_message)) if self.result_message else ""
        if self.result_code is None:
            return Result(Code.SUCCESS, "", message)
        code = _text(_at(item, self.result_code))
        if code in map(_word, self.success):
            return Result(Code.SUCCESS, code, message)
        return Result(Code.USER_NOT_FOUND if code in map(_word, self.not_found) else Code.INVALID, code, message)


def _at(value: msgspec.Raw, path: str) -> msgspec.Raw | None:
    """What stands at a path into an answer; None: nothing does."""
    for name in path.split(".") if path != "." else ():
        try:
            found = _fields(value).get(name)
        except msgspec.ValidationError:  # no object
            return None
        if found is None:
            return None
        value = found
    return value


def _text(value: msgspec.Raw | None) -> str:
    """A code or message as text: numbers by their digits, what has parts as compact JSON; "" for null and nothing."""
    if value is None or bytes(value) == b"null":
        return ""
    text = bytes(value).decode("utf-8", "replace")
    return _string(text) if text.startswith('"') else msgspec.json.format(text, indent=-1)


def _key(value: msgspec.Raw | None) -> str | None:
    """A user's key; an API may give one of digits back as a number. None: it is neither text nor number."""
    return _text(value) if value is not None and bytes(value)[:1] in b'"-0123456789' else None


def _word(value: str | int | bool) -> str:
    """A code that a setting names, as `_text` gives those of answers."""
    return str(value).lower() if isinstance(value, bool) else str(value)
