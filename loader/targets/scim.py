"""SCIM 2.0: attributes of users who exist, by PATCH, one user a request or many. Nobody is created or deleted.

Facts are from RFC 7643 (schema) and RFC 7644 (protocol); every § without a number is of the latter. A user is changed
under the server's `id`, so where the export has another key, a search comes first, and what it found is changed.

Names of attributes are paths (§3.5.2): `title`, `name.givenName`, `emails[type eq "work"].value`, or such a name behind
the URN of a schema. A value replaces what is there, and null removes it.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import msgspec
from pydantic import Field

from loader.batch import Batch
from loader.outcome import Code, Result
from loader.record import Frame, Names, json_string
from loader.request import Request, Response
from loader.target import Defaults, OAuth2Target, words_of
from loader.tokens import Scheme, basic_headers, bearer_headers
from loader.verdict import Answer, Do, Stop, Then, Verdict, by_status, words

USERS, SEARCH, BULK, CONFIG = "/Users", "/Users/.search", "/Bulk", "/ServiceProviderConfig"

CORE = "urn:ietf:params:scim:schemas:core:2.0:User"
_MESSAGES = "urn:ietf:params:scim:api:messages:2.0:"
_ERROR = f"{_MESSAGES}Error"
_PATCH_HEAD = f'{{"schemas":["{_MESSAGES}PatchOp"],"Operations":['.encode()
_BULK_HEAD = f'{{"schemas":["{_MESSAGES}BulkRequest"],"Operations":['.encode()
_TAIL = b"]}"

#: By how much a record grows in a bulk request: about 100 bytes, and 37 for each of, say, eight attributes.
_OVERHEAD = 400

# §3.1: servers MUST accept and return the first; those that only know JSON by its common name are not RFC's, but there.
_ACCEPT = {"Accept": "application/scim+json, application/json;q=0.9"}
_HEADERS = {"Content-Type": "application/scim+json", **_ACCEPT}

#: As the last segment of a path these are no names: whoever normalizes the URL takes them for folders.
_DOTS = frozenset({".", ".."})

# RFC 7643 §3.1: of these the case counts. Of userName it does not (§4.1.1), nor of any other by default (§7).
_CASE_EXACT = frozenset({"id", "externalid"})

_TAKEN = {status: Result(Code.SUCCESS, status) for status in ("200", "204")}
_STATUS = re.compile(r"[1-5][0-9][0-9](?![0-9])")

_Path = Annotated[str, Field(pattern=r"^(urn:[!#-Z^-~]+:)?[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z][A-Za-z0-9_-]*)?$")]


class _List(msgspec.Struct):
    """§3.4.2. `Resources` may be absent if there are none."""

    totalResults: int
    Resources: list[dict[str, Any]] | None = None


class _Operation(msgspec.Struct):
    """§3.7.3. Status and response stay raw: an odd one spoils one user, not the answer."""

    method: Any = None
    bulkId: Any = None
    location: Any = None
    status: msgspec.Raw = msgspec.Raw(b"null")
    response: msgspec.Raw = msgspec.Raw(b"null")


class _Operations(msgspec.Struct):
    Operations: list[_Operation]


class _Error(msgspec.Struct):
    """§3.12."""

    schemas: Any = None
    status: msgspec.Raw = msgspec.Raw(b"null")
    scimType: Any = None
    detail: Any = None

    @property
    def kind(self) -> str:
        return self.scimType if isinstance(self.scimType, str) else ""

    @property
    def words(self) -> str:
        return self.detail if isinstance(self.detail, str) else ""


_list = msgspec.json.Decoder(_List, strict=False).decode  # a total in quotes is no riddle
_operations = msgspec.json.Decoder(_Operations).decode
_errors = msgspec.json.Decoder(_Error).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode

_Unreadable = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


_ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:"

#: What columns are called, by the attribute of RFC 7643 §4.1 and §4.3 that they most likely are: their words, joined.
_COLUMNS: Mapping[str, str] = {
    "name.givenName": "givenname firstname forename vorname",
    "name.familyName": "familyname lastname surname nachname",
    "name.formatted": "fullname",
    "displayName": "displayname",
    "nickName": "nickname",
    "title": "title jobtitle position",
    "userType": "usertype employeetype employmenttype",
    "preferredLanguage": "preferredlanguage language",
    "locale": "locale",
    "timezone": "timezone",
    "active": "active enabled",
    "externalId": "externalid",
    f"{_ENTERPRISE}employeeNumber": "employeenumber employeeid personnelnumber staffid",
    f"{_ENTERPRISE}costCenter": "costcenter costcentre",
    f"{_ENTERPRISE}organization": "organization organisation company",
    f"{_ENTERPRISE}division": "division",
    f"{_ENTERPRISE}department": "department dept",
}


class _Looked(NamedTuple):
    """What a search says of each user asked for: the id, or why there is none."""

    found: list[str | Result]
    strangers: int
    doubled: int


class Scim(OAuth2Target):
    """`PATCH /Users/{id}`, or `POST /Bulk` with many of these."""

    api: ClassVar[str] = "scim"
    null_removes: ClassVar[bool] = True
    schemes: ClassVar[Mapping[str, Scheme]] = {
        "bearer": Scheme(("token",), headers=bearer_headers),
        "basic": Scheme(("key_id", "secret"), headers=basic_headers),
        "oauth2": Scheme(("key_id", "secret")),  # see OAuth2Target.scheme
    }

    key: _Path = "userName"
    """the attribute that the export's key is, which the server must be able to search by: `userName`, `externalId`, a
    path such as `emails.value`; or `id`, the server's own"""
    op: Literal["replace", "add"] = "replace"
    """what sets a value: `add` for servers that refuse to replace what is absent (RFC 7644 §3.5.2.3: it is added)"""
    bulk: bool = False
    """many users a request, if the server has `/Bulk`"""
    # 1, as many servers know a single comparison alone, and others walk all users for each (scim2-server 0.8 at 2,000
    # users: 520 searches for one a second, 9 for ten)
    users_per_lookup: Annotated[int, Field(ge=1)] = 1
    """so many users in one search, joined by `or`"""
    search: Literal["get", "post"] = "get"
    """`post` sends searches to `/Users/.search`, so that names stand in no address (RFC 7644 §7.5.2)"""

    @property
    def frame(self) -> Frame:
        return _frame(self.key)

    @property
    def defaults(self) -> Defaults:
        """In bulk 100: most servers allow more, and gain little by it. Else those who are looked up together."""
        if self.bulk:
            return Defaults(users_per_request=100)
        together = 1 if self._is_id else self.users_per_lookup
        return Defaults(users_per_request=together, max_users=together)

    @property
    def names(self) -> Names:
        """RFC 7643 §2.1: names of attributes are case insensitive."""
        return Names(self.expect, fold_case=True)

    @classmethod
    def usual_name(cls, column: str) -> str | None:
        """An attribute of SCIM's own schemas: a server takes no others, but those of schemas of its own."""
        name = "".join(words_of(column))
        return next((path for path, columns in _COLUMNS.items() if name in columns.split()), None)

    def identity(self) -> Mapping[str, object]:
        """Not `bulk`: it writes the same to the same users, and must be free to be given up half-way."""
        return {"key": self.key, "op": self.op}

    def probe(self) -> Request | None:
        return Request("GET", CONFIG, headers=_ACCEPT)

    def encode(self, batch: Batch) -> list[Request]:
        if groups := self._groups(batch):
            return [self._lookup([batch.users[at] for at in group]) for group in groups]
        return self._changes(batch, dict(enumerate(batch.users)))

    def preview(self, batch: Batch) -> list[Request]:
        """Those after a search are for ids that only its answer tells."""
        later = self._changes(batch, dict.fromkeys(range(len(batch)), "ID")) if self._groups(batch) else []
        return self.encode(batch) + later

    def goes_on(self, response: Response) -> bool:
        """The next may go where this one was about its own user alone."""
        if 200 <= response.status < 300:
            return True
        is_elsewhere = self.bulk and response.status == 404  # of a search, then: its path isn't there
        return not is_elsewhere and isinstance(_refusal(response), Result)

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        groups = self._groups(batch)
        found: list[str | Result] = list(batch.users)
        strangers = doubled = 0
        for group, response in zip(groups, responses, strict=False):
            looked = self._looked([batch.users[at] for at in group], response)
            if not isinstance(looked, _Looked):
                return looked
            for at, who in zip(group, looked.found, strict=True):
                found[at] = who
            strangers += looked.strangers
            doubled += looked.doubled
        if self.bulk:
            _once_each(batch, found)
        ids = {at: who for at, who in enumerate(found) if isinstance(who, str)}
        results: list[Result | None] = [None if isinstance(who, str) else who for who in found]
        answers = responses[len(groups) :]
        if ids and self.bulk and answers:
            return self._read_bulk(batch, ids, Answer(results, strangers, doubled), answers[0])
        for (at, ident), response in zip(ids.items(), answers, strict=False):
            said = _changed(ident, response)
            if not isinstance(said, Result):
                return said
            results[at] = said
        return Then(self._changes(batch, ids)) if len(answers) < len(ids) else Answer(results, strangers, doubled)

    # Looking up

    @property
    def _is_id(self) -> bool:
        return self.key.lower() == "id"

    def _groups(self, batch: Batch) -> list[list[int]]:
        """Who is looked up together, by position; never two whom a server may take for one. None: ids are known."""
        if self._is_id and (self.bulk or _DOTS.isdisjoint(batch.users)):
            return []
        groups: list[list[int]] = []
        looks: set[str] = set()
        for at, user in enumerate(batch.users):
            look = user.casefold()
            if not groups or len(groups[-1]) == self.users_per_lookup or look in looks:
                groups.append([])
                looks.clear()
            groups[-1].append(at)
            looks.add(look)
        return groups

    def _lookup(self, users: Sequence[str]) -> Request:
        """§3.4.2.2: values are JSON strings. One result more than there are users shows that a key isn't unique."""
        comparisons = " or ".join(f"{self.key} eq {json_string(user).decode()}" for user in users)
        count = len(users) + 1
        if self.search == "get":
            query = f"filter={quote(comparisons, safe='')}&attributes={quote(self.key, safe='')}&count={count}"
            return Request("GET", f"{USERS}?{query}", headers=_ACCEPT)
        asked = {"schemas": [f"{_MESSAGES}SearchRequest"], "attributes": [self.key], "filter": comparisons}
        return Request("POST", SEARCH, msgspec.json.encode({**asked, "count": count}), _HEADERS)

    def _looked(self, users: Sequence[str], response: Response) -> _Looked | Do | Stop:
        if 200 <= response.status < 300:
            try:
                return self._matched(users, _list(response.body))
            except _Unreadable:
                unread = Result(Code.FAILED, "", f"the search's answer can't be read, {words(response)}")
                return _Looked([unread] * len(users), 0, 0)
        refusal = _refusal(response)
        if advice := self._search_advice(response, refusal, len(users)):
            return Stop(advice)
        if response.status == 404:
            return Do.STOP
        if isinstance(refusal, Result):
            return _Looked([refusal], 0, 0) if len(users) == 1 else Do.SPLIT
        return refusal

    def _search_advice(self, response: Response, refusal: Result | Do, users: int) -> str:
        """What to set so that searches are answered; "" if no setting helps."""
        kind = refusal.target_code if isinstance(refusal, Result) else _error(response.body).kind
        if kind == "sensitive" and self.search == "get":
            return 'names may not stand in an address there; set target.search = "post"'
        if self.search == "post" and response.status in (404, 405, 501):
            return f'it may have no {SEARCH}; set target.search = "get"'
        if response.status in (405, 501):
            return "it can't search, so the export's key must be the server's own: see target.key in docs/scim.md"
        if users > 1 and (kind in ("invalidFilter", "tooMany") or response.status in (413, 414, 431)):
            return f"a search for {users} users is too much for it; set target.users_per_lookup = 1, or less than now"
        return ""

    def _matched(self, users: Sequence[str], listed: _List) -> _Looked:
        """Each user's id: of the resource whose key is the user's, else of the only one whose key differs in case."""
        exact: dict[str, set[str]] = {}
        folded: dict[str, set[str]] = {}
        seen: set[str] = set()
        sent, looks = set(users), set(map(str.casefold, users))
        folds = self.key.lower() not in _CASE_EXACT
        strangers = doubled = 0
        for resource in listed.Resources or ():
            ident, keys = _text(resource.get("id")), _texts(resource, self.key)
            doubled += ident in seen
            is_asked_for = not sent.isdisjoint(keys) or (folds and not looks.isdisjoint(map(str.casefold, keys)))
            if not ident or not is_asked_for:
                strangers += 1
                continue
            seen.add(ident)
            for key in keys:
                exact.setdefault(key, set()).add(ident)
                folded.setdefault(key.casefold(), set()).add(ident)
        is_whole = listed.totalResults <= len(seen) and not strangers
        nobody = _nobody(self.key) if is_whole else _not_whole(listed.totalResults, len(seen))
        found: list[str | Result] = []
        for user in users:
            ids = exact.get(user) or (folded.get(user.casefold()) if folds else None) or set()
            found.append(min(ids) if len(ids) == 1 else _ambiguous(self.key, len(ids)) if ids else nobody)
        return _Looked(found, strangers, doubled)

    # Changing

    def _changes(self, batch: Batch, ids: Mapping[int, str]) -> list[Request]:
        """The requests that change the users of these ids, by position."""
        patches = {at: _PATCH_HEAD + self._operations(batch.records[at]) + _TAIL for at in ids}
        if not self.bulk:
            return [Request("PATCH", _place(ident), patches[at], _HEADERS, 1) for at, ident in ids.items()]
        operations = (
            b'{"method":"PATCH","path":%b,"bulkId":"%b","data":%b}'
            % (json_string(_place(ident)), _bulk_id(batch.numbers[at]).encode(), patches[at])
            for at, ident in ids.items()
        )
        return [Request("POST", BULK, _BULK_HEAD + b",".join(operations) + _TAIL, _HEADERS, len(ids))]

    def _operations(self, record: bytes) -> bytes:
        attributes = self.frame.attributes_of(record).items()
        return b",".join(
            _before("remove", name) + b"}" if value == b"null" else b'%b,"value":%b}' % (_before(self.op, name), value)
            for name, value in attributes
        )

    def _read_bulk(self, batch: Batch, ids: Mapping[int, str], known: Answer, response: Response) -> Verdict:
        """`known`: what is known already; the users in `ids` are answered here."""
        if not 200 <= response.status < 300:
            return self._bulk_refused(batch, ids, known, response)
        try:
            answered = _operations(response.body).Operations
        except _Unreadable:
            return Do.AGAIN
        places = _Places({_bulk_id(batch.numbers[at]): at for at in ids}, {ident: at for at, ident in ids.items()})
        results = list(known.results)
        strangers, doubled = known.strangers, known.doubled
        for operation in answered:
            at = places.find(operation)
            if at is None:
                strangers += 1
                continue
            before = results[at]
            doubled += before is not None
            if before is None or before.code is Code.SUCCESS:
                # Of two that don't agree: success is believed only where nothing speaks against it.
                results[at] = _said(operation) or before
        return Answer(results, strangers, doubled)

    def _bulk_refused(self, batch: Batch, ids: Mapping[int, str], known: Answer, response: Response) -> Verdict:
        if response.status in (403, 404, 405, 501):
            what = "may this key do that, or" if response.status == 403 else "it seems to have no bulk requests;"
            return Stop(f"{what} set target.bulk = false, and users go one a request, in this load, too")
        do = by_status(response)
        if do in (Do.SPLIT, Do.SHRINK) and len(batch) == 1:
            return known._replace(results=[_refused(response.status, _error(response.body), response)])
        return do


class _Places:
    """Whose operation of a bulk answer it is: by what the request called it, and by the user's address."""

    def __init__(self, by_bulk_id: Mapping[str, int], by_id: Mapping[str, int]) -> None:
        self._by_bulk_id = by_bulk_id
        self._by_id = by_id

    def find(self, operation: _Operation) -> int | None:
        """The user's position, or None: somebody else's. §3.7.3: PATCHes need not have a bulkId, if a location.

        Where an operation has both, neither may be another user's.
        """
        if isinstance(operation.method, str) and operation.method.upper() != "PATCH":
            return None
        located = self._by_id.get(_last(operation.location)) if isinstance(operation.location, str) else None
        if operation.bulkId in (None, ""):
            return located
        at = self._by_bulk_id.get(operation.bulkId) if isinstance(operation.bulkId, str) else None
        return at if located in (None, at) else None


@cache
def _frame(key: str) -> Frame:
    return Frame(None, key, "attributes", _OVERHEAD)


@cache
def _before(op: str, name: str) -> bytes:
    """An operation of a PATCH up to its value."""
    return b'{"op":"%b","path":%b' % (op.encode(), json_string(name))


def _place(ident: str) -> str:
    return f"{USERS}/{quote(ident, safe='')}"


def _last(location: str) -> str:
    """The id at the end of a user's address."""
    try:
        path = urlsplit(location).path
    except ValueError:  # [ and no ]
        return ""
    return unquote(path.rstrip("/").rpartition("/")[2])


def _bulk_id(row: int) -> str:
    """Of the row and not of the place in the request: an answer to another request can't be taken for this one's."""
    return f"row{row}"


def _once_each(batch: Batch, found: list[str | Result]) -> None:
    """Of two keys that the server takes for one user, the later goes in a later request, so that it wins."""
    first: dict[str, int] = {}
    for at, who in enumerate(found):
        if isinstance(who, str) and (row := first.setdefault(who, batch.numbers[at])) != batch.numbers[at]:
            found[at] = Result(Code.FAILED, "", f"the server takes this key for that of row {row:,}, which goes first")


def _text(value: object) -> str:
    """A text, or a number as one; "" for all else."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _texts(resource: Mapping[str, Any], path: str) -> set[str]:
    """The values at an attribute's path. RFC 7643 §2.1: case doesn't count; §3.3: extensions stand below their URN."""
    urn, _, names = path.rpartition(":")
    steps = [*([urn] if urn and urn.lower() != CORE.lower() else []), *names.split(".")]
    places: list[object] = [resource]
    for step in steps:
        places = [
            value
            for place in places
            if isinstance(place, dict)
            for name, at in place.items()
            if name.lower() == step.lower()
            for value in (at if isinstance(at, list) else [at])
        ]
    return {text for text in map(_text, places) if text}


@cache
def _nobody(key: str) -> Result:
    return Result(Code.USER_NOT_FOUND, "", f"no user has this {key}")


def _not_whole(total: int, seen: int) -> Result:
    return Result(Code.FAILED, "", f"the search found {total:,}, and its answer names {seen:,} of those asked for")


def _ambiguous(key: str, count: int) -> Result:
    return Result(Code.INVALID, "", f"{count} users have this {key}")


# What statuses and errors mean ---------------------------------------------------------------------------------------


def _error(body: bytes | msgspec.Raw) -> _Error:
    """The error in a body; an empty one if there is none that can be read."""
    try:
        return _errors(body)
    except _Unreadable:
        return _Error()


def _changed(ident: str, response: Response) -> Result | Do | Stop:
    """What the answer to a PATCH says of its user. §3.5.2: 204, or 200 and the resource."""
    if 200 <= response.status < 300:
        if response.status == 204 or (response.status == 200 and _is_of(ident, response.body)):
            return _TAKEN[str(response.status)]
        return Result(Code.FAILED, "", f"the answer doesn't show the user, {words(response)}")
    if response.status in (405, 501):
        return Stop("it doesn't take PATCH (patch.supported in its ServiceProviderConfig), and this needs it")
    return _refusal(response)


def _is_of(ident: str, body: bytes) -> bool:
    """Is this the resource of that id? An empty body is not what the RFC says, and speaks against nothing."""
    if not body.strip():
        return True
    try:
        return _text(_object(body).get("id")) == ident
    except _Unreadable:
        return False


def _refusal(response: Response) -> Result | Do:
    """What a refusal says of the one user that it is about, or what to do if it is about more.

    A 404 without JSON comes from something that is no SCIM server.
    """
    do = by_status(response)
    error = _error(response.body)
    if response.status == 404:
        is_told = not response.body.strip() or response.body.lstrip()[:1] == b"{"
        return _refused(404, error, response) if is_told else do
    is_own = do in (Do.SPLIT, Do.SHRINK) or response.status == 412 or (response.status == 409 and error.kind)
    return _refused(response.status, error, response) if is_own else do


def _refused(status: int, error: _Error, response: Response) -> Result:
    code = Code.USER_NOT_FOUND if status == 404 else Code.INVALID
    return Result(code, error.kind or str(status), error.words or words(response))


def _said(operation: _Operation) -> Result | None:
    """What an operation of a bulk answer says of its user; None if it has no status, so that it says nothing."""
    status, response = _status(bytes(operation.status)), bytes(operation.response)
    if response == b"null" and status in _TAKEN:
        return _TAKEN[status]
    error = _error(response)
    is_error = isinstance(error.schemas, list) and _ERROR in error.schemas
    if not status or (is_error and status in _TAKEN):  # what the error says of itself counts
        status = _status(bytes(error.status))
    if not status:
        return None
    code = Code.SUCCESS if status in _TAKEN and not is_error else _meaning(status, error.kind)
    return Result(code, error.kind or status, error.words)


def _status(raw: bytes) -> str:
    """The status of an operation: text as §3.7.3 has it, "200 OK", a number, or the object of drafts, {"code": "200"}.

    "" if there is none; text that is no status stays as it is.
    """
    try:
        value = msgspec.json.decode(raw)
    except _Unreadable:
        return raw.decode("utf-8", "replace")
    if isinstance(value, dict):
        value = value.get("code")
    text = _text(value)
    return text[:3] if _STATUS.match(text) else text or ("" if value in (None, "") else raw.decode())


def _meaning(status: str, kind: str) -> Code:
    """What a status other than success means for one user. FAILED: another time it may go."""
    if not _STATUS.fullmatch(status):
        return Code.INVALID
    if status == "404":
        return Code.USER_NOT_FOUND
    if status == "501" or (status == "409" and kind):
        return Code.INVALID
    return Code.FAILED if by_status(Response(int(status))) in (Do.AGAIN, Do.WAIT, Do.RENEW) else Code.INVALID
