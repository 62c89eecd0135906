"""Calven: attributes of many users in one request, and the whole hierarchy of groups in one.

Facts are from the vendor's pages "Write directory user attributes", "Submit group hierarchy relationships", "Org
Hierarchy Information Overview", "HMAC Authentication", "Generate a token with an API key and client secret" and "Basic
Authentication Overview", and from its Node SDK. What these don't say is a field here:

* `region`: sent as `x-calven-region` (named by the SDK alone: usce1, ause1); without it the vendor's default holds.
* `path`: the Basic path is not documented; every Basic path that is ends in `/basic`.
* `auth_path`: where tokens come from.
* `result_codes`: what `resultCode` means. The page shows the type as an empty object, its enum elsewhere is 0 to 3, and
  the SDK names 0, 1 and 2; 3 is unknown, so that a user answered with it is INVALID with `3` as target code.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import msgspec
import orjson
from pydantic import Field, PrivateAttr

from loader.batch import Batch
from loader.echo import Echo
from loader.outcome import Code, Result
from loader.record import Frame
from loader.request import Request, Response
from loader.target import Defaults, Fault, Target, WholeTarget
from loader.tokens import Scheme, basic_headers, bearer_headers
from loader.verdict import Answer, Do, Verdict, by_status, is_page

FRAME = Frame("userAttributes", "userName", "attributes")
HIERARCHY = Frame("groupRelationships", "group", None)

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


class _Calven(Target):
    """What both operations share: the address, the ways to authorize, the region."""

    endpoint: ClassVar[str]
    address: ClassVar[str] = "https://api.calven.com"
    schemes: ClassVar[Mapping[str, Scheme]] = {
        "hmac": Scheme(("key_id", "secret"), call=_hmac_call),
        "client-secret": Scheme(("key_id", "secret"), call=_client_secret_call),
        "basic": Scheme(("key_id", "secret"), headers=basic_headers),
        "bearer": Scheme(("token",), headers=bearer_headers),
    }

    region: _Word | None = None
    """the header `x-calven-region`, such as `usce1` or `ause1`; not set: not sent"""
    path: _Path | None = None
    """not set: the documented one, with the scheme `basic` and `/basic` behind it"""
    auth_path: _Path | None = None
    """where tokens come from; not set: the documented paths"""

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

    def identity(self) -> Mapping[str, object]:
        """A region holds a directory of its own."""
        return {} if self.region is None else {"region": self.region}

    def _request(self, method: str, body: bytes, users: int) -> Request:
        path = self.path or (f"{self.endpoint}/basic" if self.auth == "basic" else self.endpoint)
        return Request(method, path, body, self._headers, users)

    @property
    def _headers(self) -> Mapping[str, str]:
        return _JSON if self.region is None else {**_JSON, "x-calven-region": self.region}


class Calven(_Calven):
    """`POST /v1/directory/user-attributes`, up to 100 users a request (the only number that sibling pages support)."""

    api: ClassVar[str] = "calven"
    endpoint: ClassVar[str] = "/v1/directory/user-attributes"

    result_codes: Mapping[str, _Answered] = Field(default_factory=dict)
    """`{ "3" = "INVALID" }`: what a `resultCode` means, beside those that are known"""
    _echo: Echo = PrivateAttr(default_factory=Echo)

    @property
    def frame(self) -> Frame:
        return FRAME

    @property
    def defaults(self) -> Defaults:
        return Defaults(users_per_request=100)

    def encode(self, batch: Batch) -> list[Request]:
        return [self._request("POST", FRAME.body(batch.records), len(batch.users))]

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        response = responses[-1]
        if not 200 <= response.status < 300:
            return by_status(response)
        if result := self._echo.read(batch.users, response.body):
            return Answer([result] * len(batch))
        try:
            answered = _decode(response.body).results if response.body.strip() else []
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return Do.AGAIN
        seen: dict[tuple[bytes, str], Result] = {}
        said = [self._result(item, seen) for item in answered]
        names = [item.userName for item in answered]
        if names == batch.users:  # each once, in the order sent
            if said.count(said[0]) == len(said):
                self._echo.learn(batch.users, response.body, said[0])
            return Answer(said)
        by_user: dict[str, Result] = {}
        for name, result in zip(names, said, strict=True):
            before = by_user.setdefault(name, result) if isinstance(name, str) else result
            if before is not result and before.code is Code.SUCCESS:
                # Two answers for one user that don't agree: success is believed only where nothing speaks against it.
                by_user[name] = result
        results = [by_user.get(user) for user in batch.users]
        named = len(results) - results.count(None)
        return Answer(results, strangers=len(by_user) - named, doubled=len(answered) - len(by_user))

    def _result(self, item: _Result, seen: dict[tuple[bytes, str], Result]) -> Result:
        """`seen`: what the same code with the same message was found to be, as most of an answer's are alike."""
        key = bytes(item.resultCode), item.message if isinstance(item.message, str) else ""
        if (result := seen.get(key)) is None:
            raw, code = _code(key[0])
            result = seen[key] = Result(self._meaning(raw, code), code, key[1])
        return result

    def _meaning(self, raw: object, code: str) -> Code:
        """A code as number, text or name; an object is asked for its value, then for its name."""
        forms = [raw] if not isinstance(raw, dict) else [raw.get(name) for name in ("value", "code", "name")]
        for form in (code, *forms):
            text = str(form)
            if found := self.result_codes.get(text) or _KNOWN.get(text.replace("_", "").replace(" ", "").lower()):
                return found
        return Code.INVALID


# The group hierarchy -------------------------------------------------------------------------------------------------

#: Rows of a group, or groups of a circle, that a message names.
_SHOWN = 5

_NULL = msgspec.Raw(b"null")


class _Relationship(msgspec.Struct):
    """A record as it is sent: the four fields of the page, in its order, values as they came."""

    group: msgspec.Raw
    groupType: msgspec.Raw = _NULL
    parent: msgspec.Raw = _NULL
    parentType: msgspec.Raw = _NULL


class _Texts(msgspec.Struct):
    """The same, read."""

    group: str
    groupType: str | None = None
    parent: str | None = None
    parentType: str | None = None


_relationship = msgspec.json.Decoder(_Relationship).decode
_texts = msgspec.json.Decoder(_Texts).decode


def _normal(record: bytes) -> bytes:
    """A record with exactly the four fields: a parent that is absent or empty is null."""
    found = _relationship(record)
    for name in ("parent", "parentType"):
        if bytes(getattr(found, name)) == b'""':
            setattr(found, name, _NULL)
    return msgspec.json.encode(found)


class _Group(NamedTuple):
    """What tells a group from the others: two of different type may have one name."""

    name: str
    type: str

    def __str__(self) -> str:
        return f"{self.name!r} ({self.type if self.type.isprintable() else repr(self.type)})"


class _Row(NamedTuple):
    number: int
    group: _Group
    parent: _Group | None


class _Unfit(ValueError):
    """This record can't be sent: what is wrong with it, and how it shows."""

    def __init__(self, what: str, shown: str) -> None:
        super().__init__(f"{what}: {shown}")
        self.what = what
        self.shown = shown


def _row(number: int, record: bytes) -> _Row:
    """A record as a group and its parent. Raises _Unfit."""
    try:
        found = _texts(record)
    except msgspec.ValidationError:
        raise _Unfit("a field that is not text", _not_text(record)) from None
    group, kind, parent, parent_kind = found.group, found.groupType, found.parent, found.parentType
    if not kind or kind.isspace():
        raise _Unfit("no groupType", repr(group))
    if bool(parent) != bool(parent_kind):
        shown = (
            f"the parent {parent!r} without its type" if parent else f"the parentType {parent_kind!r} without a parent"
        )
        raise _Unfit("only one of parent and parentType", f"{_Group(group, kind)} has {shown}")
    return _Row(number, _Group(group, kind), _Group(parent, parent_kind) if parent and parent_kind else None)


def _not_text(record: bytes) -> str:
    found = _relationship(record)
    values = ((name, bytes(getattr(found, name))) for name in CalvenHierarchy.columns)
    return ", ".join(f"{name} is {raw.decode()}" for name, raw in values if raw != b"null" and raw[:1] != b'"')


def _rows(batch: Batch) -> tuple[list[_Row], list[Fault]]:
    """The records that can be sent as they are, and what is wrong with the others."""
    rows: list[_Row] = []
    unfit: dict[str, list[str]] = {}
    for number, record in zip(batch.numbers, batch.records, strict=True):
        try:
            rows.append(_row(number, record))
        except _Unfit as error:
            unfit.setdefault(error.what, []).append(f"row {number}: {error.shown}")
    return rows, [Fault(what, places) for what, places in unfit.items()]


def _conflicts(rows: Iterable[_Row]) -> list[Fault]:
    """A group stands there once, and so has one parent."""
    found: dict[_Group, dict[_Group | None, list[int]]] = {}
    for row in rows:
        found.setdefault(row.group, {}).setdefault(row.parent, []).append(row.number)
    torn = [
        f"{group}: " + ", ".join(f"{_under(parent)} in {_numbers(at)}" for parent, at in parents.items())
        for group, parents in found.items()
        if len(parents) > 1
    ]
    doubled = [f"{group}: {_numbers(at)}" for group, parents in found.items() for at in parents.values() if len(at) > 1]
    return [Fault("a group with two parents", torn), Fault("the same line twice", doubled)]


def _orphans(rows: Sequence[_Row]) -> list[Fault]:
    """A parent is a group of the export, too: what isn't in it won't be there afterwards."""
    known = {row.group for row in rows}
    alike = {_folded(group.name): group for group in known}
    places = []
    for number, group, parent in rows:
        if parent is not None and parent not in known:
            near = alike.get(_folded(parent.name))
            guess = f"; did you mean {near}?" if near else ""
            places.append(f"row {number}: {group} is {_under(parent)}{guess}")
    return [Fault("a parent that is no group of the export", places)]


def _circles(rows: Iterable[_Row]) -> list[Fault]:
    """No group is its own ancestor."""
    first: dict[_Group, int] = {}
    for row in rows:
        first.setdefault(row.group, row.number)
    places = []
    for circle in _climb(_parents(rows))[1]:
        at = circle.index(min(circle, key=first.__getitem__))
        shown = list(map(str, [*circle[at:], *circle[: at + 1]]))
        if len(circle) > _SHOWN:
            shown[_SHOWN:-1] = [f"{len(circle) - _SHOWN:,} more"]
        places.append(f"{' → '.join(shown)}: {_numbers(sorted(first[group] for group in circle))}")
    return [Fault("a circle of parents", places)]


def _under(parent: _Group | None) -> str:
    return "at the top" if parent is None else f"under {parent}"


def _numbers(rows: Sequence[int]) -> str:
    more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:_SHOWN]))}{more}"


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _parents(rows: Iterable[_Row]) -> dict[_Group, _Group | None]:
    """Each group's parent; of several the first that is named."""
    parents: dict[_Group, _Group | None] = {}
    for row in rows:
        parents.setdefault(row.group, row.parent)
    return parents


def _climb(parents: Mapping[_Group, _Group | None]) -> tuple[dict[_Group, int], list[list[_Group]]]:
    """Each group's level, counted from 1 at the top, and the circles there are, each once."""
    levels: dict[_Group, int] = {}
    circles: list[list[_Group]] = []
    for start in parents:
        trail: dict[_Group, None] = {}  # in order
        group: _Group | None = start
        while group is not None and group in parents and group not in levels and group not in trail:
            trail[group] = None
            group = parents[group]
        climbed = list(trail)
        if group in trail:
            circles.append(climbed[climbed.index(group) :])
        above = 0 if group is None else levels.get(group, 0)
        levels |= {each: level for level, each in enumerate(reversed(climbed), above + 1)}
    return levels, circles


class CalvenHierarchy(_Calven, WholeTarget):
    """`PUT /v1/directory/group-hierarchy-relationship`: what is sent replaces the whole hierarchy.

    The overview's rules are checked here, before anything is sent: no circles, one parent a group, and null for both
    `parent` and `parentType` at the top. What Calven does with a payload that breaks them is documented nowhere. That a
    parent is a group of the payload, too, and that a group stands there once, follows from "a complete payload".
    """

    api: ClassVar[str] = "calven-hierarchy"
    endpoint: ClassVar[str] = "/v1/directory/group-hierarchy-relationship"
    columns: ClassVar[tuple[str, ...]] = ("group", "groupType", "parent", "parentType")
    things: ClassVar[str] = "groups"

    @property
    def frame(self) -> Frame:
        return HIERARCHY

    def encode(self, batch: Batch) -> list[Request]:
        return [self._request("PUT", HIERARCHY.body(list(map(_normal, batch.records))), len(batch))]

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        """The page lists 204, without a body, and 401. Either is about all groups."""
        if 200 <= responses[-1].status < 300 and not is_page(responses[-1]):
            return Answer([Result(Code.SUCCESS)] * len(batch))
        return by_status(responses[-1])

    def faults(self, batch: Batch) -> list[Fault]:
        rows, found = _rows(batch)
        return [*found, *(fault for find in (_conflicts, _orphans, _circles) for fault in find(rows) if fault.places)]

    def label(self, record: bytes) -> str:
        return str(_row(0, record).group)

    def figures(self, batch: Batch) -> Mapping[str, int]:
        parents = _parents(_rows(batch)[0])
        levels = _climb(parents)[0]
        roots = list(parents.values()).count(None)
        return {"groups": len(batch), "roots": roots, "levels": max(levels.values(), default=0)}
