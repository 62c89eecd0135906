"""Descope: custom attributes, one of one user in a request; or, with `bulk`, all of many users.

Facts are from the vendor's pages "Update User Custom Attribute", "Patch User", "Batch Patch Users" and "Rate limits",
and from its Python, Go, Node, Java and .NET SDKs, which alone name codes of errors and the headers beside
`Authorization`. What these don't say is a field here:

* `license`: the SDKs ask for the company's tier and send it as `x-descope-license`; without it, they say, the lowest
  limits hold. "ask", "none", or the tier itself, such as "tier3".
* `bulk`: whether the map `customAttributes` is merged into the user's, or takes its place, is not documented; see
  `write`, and docs/descope.md before use. Neither is the most users that a request may hold.
* `bulk_key`: most SDKs call the user's key `loginId` there, one calls it `identifier`.
* `result_codes`: by `errorCode`, or by the text in `failure`. Those for an unknown attribute and a wrong type are not
  documented: 400, 413 or 422 with any code is taken for a refusal of that attribute.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import Field

from loader.batch import Batch
from loader.outcome import Code, Result
from loader.record import Frame, json_string
from loader.request import Request, Response
from loader.target import Defaults, Target, camel_case
from loader.tokens import Scheme, bearer_headers
from loader.verdict import Answer, Do, Meaning, Verdict, by_status, meant, words

CUSTOM_ATTRIBUTE = "/v1/mgmt/user/update/customAttribute"
PATCH_BATCH = "/v1/mgmt/user/patch/batch"
DEFINITIONS = "/v1/mgmt/user/customattributes"
LICENSE = "/v1/mgmt/license"

SINGLE = Frame(None, "loginId", "customAttributes")

#: A project id of at least so many characters names its region in the second to fifth.
_REGIONAL = 32

_KNOWN: Mapping[str, Code | Do] = {
    "E112102": Code.USER_NOT_FOUND,
    "E062108": Code.USER_NOT_FOUND,
    "E011001": Code.INVALID,  # malformed
    "E011002": Code.INVALID,  # an argument is missing
    "E011003": Code.INVALID,  # not valid
    "E011004": Code.INVALID,  # an argument is not valid
    "E130429": Do.WAIT,
    "E170429": Do.WAIT,
    "E111119": Do.RENEW,
}

#: Why a user of a bulk request failed, where it is that there is none; in lower case.
_NOBODY = ("user not found", "cannot find user")

_JSON = {"Content-Type": "application/json"}

_Word = Annotated[str, Field(pattern=r"^[!-~]+$")]  # a header's value


class _Entry(msgspec.Struct):
    """A user, as far as it says who it is. Whichever of the ids was sent, it is among these."""

    loginIds: Any = None
    userId: Any = None
    loginId: Any = None
    identifier: Any = None

    @property
    def ids(self) -> list[str]:
        listed = self.loginIds if isinstance(self.loginIds, list) else []
        return [one for one in (self.loginId, self.identifier, *listed, self.userId) if isinstance(one, str) and one]


class _Failed(msgspec.Struct):
    user: _Entry = msgspec.field(default_factory=_Entry)
    failure: Any = None


class _Body(msgspec.Struct):
    errorCode: Any = None
    errorDescription: Any = None
    errorMessage: Any = None
    user: _Entry | None = None
    patchedUsers: list[_Entry] | None = None
    failedUsers: list[_Failed] | None = None
    additionalErrors: dict[str, Any] | None = None

    @property
    def code(self) -> str:
        return self.errorCode if isinstance(self.errorCode, str) else ""


class _Definition(msgspec.Struct):
    name: Any = None


class _Definitions(msgspec.Struct):
    """`data` is the page's, `attributes` is in the tests of the Python SDK."""

    data: list[_Definition] | None = None
    attributes: list[_Definition] | None = None
    total: Any = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_definitions = msgspec.json.Decoder(_Definitions).decode
_decode_license = msgspec.json.Decoder(dict[str, Any]).decode

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def _body(response: Response) -> _Body | None:
    try:
        return _decode(response.body)
    except _UNREADABLE:
        return None


# Credentials ---------------------------------------------------------------------------------------------------------


def _project(token: str) -> str:
    return token.partition(":")[0]


def _flaw(secrets: Mapping[str, str]) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]+:.+", secrets["token"]):
        return ""
    return "token: it must be the project id, a colon and the management key, as in P2abc…:K2def…"


def _headers(secrets: Mapping[str, str]) -> Mapping[str, str]:
    return {**bearer_headers(secrets), "x-descope-project-id": _project(secrets["token"])}


def _licensed(response: Response) -> Mapping[str, str]:
    """The tier that an answer tells: tier1 to tier4, so far."""
    try:
        tier = _decode_license(response.body).get("rateLimitTier")
    except _UNREADABLE:
        return {}
    return {"x-descope-license": tier} if isinstance(tier, str) and re.fullmatch(r"[!-~]+", tier) else {}


_ASK = Request("GET", LICENSE)

SCHEME = Scheme(("token",), headers=_headers, greet=lambda secrets: _ASK, welcome=_licensed, flaw=_flaw)


class Descope(Target):
    """`POST /v1/mgmt/user/update/customAttribute`, or `PATCH /v1/mgmt/user/patch/batch` with `bulk`."""

    api: ClassVar[str] = "descope"
    address: ClassVar[str] = "https://api.descope.com"
    schemes: ClassVar[Mapping[str, Scheme]] = {"bearer": SCHEME}
    note: ClassVar[str] = "each attribute of each user costs a request of its own, unless target.bulk = true"
    declares: ClassVar[bool] = True

    bulk: bool = False
    """many users a request, all their attributes at once: [with a caveat](descope.md#in-bulk)"""
    bulk_key: Literal["loginId", "identifier"] = "loginId"
    """in bulk: the name of the user's key"""
    license: _Word = "ask"
    """the company's tier, such as `tier3`; `ask`: Descope is asked for it, `none`: the header is left out"""
    result_codes: Mapping[str, Meaning] = Field(default_factory=dict)
    """`{ "E…" = "INVALID" }`: what an error code means, beside those that are known; or `USER_NOT_FOUND`, `again`,
    `wait`, `stop`"""

    @property
    def frame(self) -> Frame:
        return Frame("users", self.bulk_key, "customAttributes") if self.bulk else SINGLE

    @property
    def defaults(self) -> Defaults:
        """500 requests in 60 s is the newest rule for `/v1/mgmt/user/*`. 100 users are ours: no page has a maximum."""
        users, most = (100, None) if self.bulk else (1, 1)
        return Defaults(users_per_request=users, max_users=most, quota=("500/60s",))

    @property
    def scheme(self) -> Scheme:
        if self.license == "ask":
            return SCHEME
        told = {} if self.license == "none" else {"x-descope-license": self.license}
        return replace(SCHEME, headers=lambda secrets: {**_headers(secrets), **told}, greet=None)

    @classmethod
    def usual_name(cls, column: str) -> str:
        """A machine name: the vendor's Terraform provider has 20 characters of these."""
        return re.sub(r"[^A-Za-z0-9_-]", "", camel_case(column))[:20] or column

    def home(self, secrets: Callable[[], Mapping[str, str]]) -> str:
        """A project's region is part of its id, as `use1` in Puse12…"""
        project = _project(secrets()["token"])
        return f"https://api.{project[1:5]}.descope.com" if len(project) >= _REGIONAL else self.address

    def identity(self) -> Mapping[str, object]:
        return {"bulk": self.bulk}

    def refuses_token(self, response: Response) -> bool:
        return self._meaning(response, _body(response)) is Do.RENEW

    def encode(self, batch: Batch) -> list[Request]:
        if self.bulk:
            return [Request("PATCH", PATCH_BATCH, self.frame.body(batch.records), _JSON, len(batch))]
        return [
            Request("POST", CUSTOM_ATTRIBUTE, body, _JSON, 1)
            for user, record in zip(batch.users, batch.records, strict=True)
            for body in _updates(user, record)
        ]

    def goes_on(self, response: Response) -> bool:
        """An attribute that is refused says nothing of the others; a user that isn't there does."""
        return self._meaning(response, _body(response)) in (Code.SUCCESS, Code.INVALID)

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        return self._read_bulk(batch, responses[-1]) if self.bulk else self._read_each(batch, responses)

    def _meaning(self, response: Response, body: _Body | None) -> Code | Do:
        """What is said of the request as a whole; SUCCESS: that it was taken, whoever was in it."""
        code = body.code if body else ""
        if own := self.result_codes.get(code):
            return meant(own)
        if known := _KNOWN.get(code):
            return known
        if response.status in (400, 422) or (response.status == 413 and not self.bulk):
            return Code.INVALID
        is_good = body is not None and not code and 200 <= response.status < 300
        return Code.SUCCESS if is_good else by_status(response)

    def _read_each(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        """The answers to one user's attributes, one each, as one."""
        refused: list[Result] = []
        strangers = silent = 0
        names = list(SINGLE.attributes_of(batch.records[0]))
        for name, response in zip(names, responses, strict=False):  # sending may have stopped
            body = _body(response)
            meaning = self._meaning(response, body)
            if isinstance(meaning, Do):
                return meaning
            if meaning is Code.USER_NOT_FOUND:
                return Answer([_refusal(meaning, response, body)])
            if meaning is Code.INVALID:
                why = _refusal(meaning, response, body)
                refused.append(why._replace(message=f"{name}: {why.message}"))
            elif body is None or body.user is None or not body.user.ids:
                silent += 1
            else:
                strangers += not any(_is_same(batch.users[0], one) for one in body.user.ids)
        if strangers or (silent and (not refused or self.missing_result == "again")):
            return Answer([None], strangers=strangers)
        return Answer([_together(refused, len(names))])

    def _read_bulk(self, batch: Batch, response: Response) -> Verdict:
        body = _body(response)
        meaning = self._meaning(response, body)
        if isinstance(meaning, Do):
            return meaning
        if meaning is not Code.SUCCESS or body is None:
            return Answer([_refusal(meaning, response, body)]) if len(batch) == 1 else Do.SPLIT
        places = _Places(batch.users)
        found: list[Result | None] = [None] * len(batch)
        strangers = doubled = 0
        for ids, result in self._entries(body):
            if isinstance(result, Do):
                return result
            at = places.of(ids)
            before = None if at is None else found[at]
            strangers += at is None
            doubled += before is not None
            if at is not None and (before is None or before.code is Code.SUCCESS):
                found[at] = result  # of two that don't agree, success isn't believed
        return Answer(found, strangers, doubled)

    def _entries(self, body: _Body) -> Iterator[tuple[list[str], Result | Do]]:
        """Who is named, and with what."""
        for user in body.patchedUsers or ():
            yield user.ids, _SUCCESS
        for failed in body.failedUsers or ():
            yield failed.user.ids, self._failure(failed.failure)
        # That the keys are users is not documented.
        for key, text in (body.additionalErrors or {}).items():
            yield [key], self._failure(text)

    def _failure(self, failure: Any) -> Result | Do:
        """Why a user failed: the text is all the code there is."""
        text = failure if isinstance(failure, str) else ""
        meaning: Code | Do = Code.USER_NOT_FOUND if text.strip().lower() in _NOBODY else Code.INVALID
        if own := self.result_codes.get(text):
            meaning = meant(own)
        if meaning is Do.AGAIN:
            meaning = Code.FAILED  # this user alone
        return meaning if isinstance(meaning, Do) else Result(meaning, text, text)

    def probe(self) -> Request:
        """The definitions of attributes, which not every key may read."""
        return Request("GET", DEFINITIONS)

    def undeclared(self, response: Response, names: Collection[str]) -> list[str] | None:
        try:
            listed = _decode_definitions(response.body)
        except _UNREADABLE:
            return None
        definitions = listed.data if listed.data is not None else listed.attributes
        if not 200 <= response.status < 300 or definitions is None:
            return None
        if str(listed.total).isdecimal() and int(str(listed.total)) > len(definitions):
            return None  # there are more than it shows
        known = {definition.name for definition in definitions if isinstance(definition.name, str)}
        return [name for name in names if name not in known]


_SUCCESS = Result(Code.SUCCESS)


def _updates(user: str, record: bytes) -> Iterator[bytes]:
    """A body for each attribute of a user, its value as it stands."""
    before = b'{"loginId":' + json_string(user) + b',"attributeKey":'
    for name, value in SINGLE.attributes_of(record).items():
        yield before + json_string(name) + b',"attributeValue":' + value + b"}"


def _refusal(meaning: Code, response: Response, body: _Body | None) -> Result:
    """An error in its own words: what the description says in general, the message says of this case."""
    texts = (body.errorDescription, body.errorMessage) if body is not None and body.code else ()
    said = dict.fromkeys(text for text in texts if isinstance(text, str) and text)
    return Result(meaning, body.code if body is not None else "", ": ".join(said) or words(response))


def _together(refused: Sequence[Result], sent: int) -> Result:
    """One result for a user of whom `sent` attributes were sent, and these refused."""
    if not refused:
        return _SUCCESS
    codes = dict.fromkeys(why.target_code for why in refused if why.target_code)
    messages = "; ".join(f"{why.message} ({why.target_code})" if why.target_code else why.message for why in refused)
    return Result(Code.PARTIAL if len(refused) < sent else Code.INVALID, " ".join(codes), messages)


def _is_same(sent: str, answered: str) -> bool:
    """Whether Descope minds the case of login ids is not documented. With one user at stake, it needn't be known."""
    return sent == answered or sent.casefold() == answered.casefold()


class _Places:
    """Which of a batch's users it is: the one of that id, else the only one of that id but for case."""

    def __init__(self, users: Sequence[str]) -> None:
        self._exact = {user: at for at, user in enumerate(users)}
        self._folded: dict[str, int | None] = {}
        for at, user in enumerate(users):
            self._folded[user.casefold()] = None if user.casefold() in self._folded else at

    def of(self, ids: Sequence[str]) -> int | None:
        for one in ids:
            if (at := self._exact.get(one)) is not None:
                return at
        return next((at for one in ids if (at := self._folded.get(one.casefold())) is not None), None)
