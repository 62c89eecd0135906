"""Calven's API as its pages describe it: a request and the time in, a response out, accepted users in the ledger.

Sources: DOC-1 "Write directory user attributes", DOC-2 "Submit group hierarchy relationships", S-C6 its overview,
S-C1/S-C2 HMAC, S-C3 client secret, S-C15 Basic. The Basic paths are inferred [I]: every documented Basic path is the
other one plus "/basic". The body of an error, and every status but 200, 204, 400 and 401, is documented nowhere.
"""

import base64
import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any, NamedTuple

import orjson

from loader.request import Request, Response
from loader.sandbox.api import Kind, Refused, answer, header, path_of, raw_answer, refusal
from loader.sandbox.ledger import Attributes, Ledger
from loader.sandbox.options import CalvenOptions, Scheme
from loader.sandbox.roster import Roster

AUTH = "/v1/auth"
AUTH_TOKEN = "/v1/auth/token"
USER_ATTRIBUTES = "/v1/directory/user-attributes"
USER_ATTRIBUTES_BASIC = "/v1/directory/user-attributes/basic"
HIERARCHY = "/v1/directory/group-hierarchy-relationship"
HIERARCHY_BASIC = "/v1/directory/group-hierarchy-relationship/basic"

DEFAULT_REGION = "usce1"  # [DC] S-C14: what a request without x-calven-region means

SUCCESS, USER_NOT_FOUND, LOCATION_NOT_FOUND = 0, 1, 2
NAMES = {SUCCESS: "SUCCESS", USER_NOT_FOUND: "USERNOTFOUND", LOCATION_NOT_FOUND: "LOCATIONNOTFOUND"}  # [DC] S-C14
MESSAGES = {SUCCESS: "OK", USER_NOT_FOUND: "User not found", LOCATION_NOT_FOUND: "Location not found"}  # ours

_Group = tuple[str, str]  # name and type


class _Endpoint(NamedTuple):
    kind: Kind
    method: str
    check: Callable[[Request, float], None]  # raises Refused for wrong credentials in the header
    handle: Callable[[Request, float], Response]


class Calven:
    """The endpoints for tokens, user attributes and the group hierarchy, for one API key."""

    entries: tuple[str, ...] = ("results",)

    def __init__(self, options: CalvenOptions, roster: Roster, ledger: Ledger) -> None:
        self._options = options
        self._roster = roster
        self._ledger = ledger
        self._tokens: dict[str, float] = {}  # live token -> when it expires, unix seconds; oldest first
        self._fixed_token = options.token
        self._issued = 0
        self._results: Counter[int] = Counter()
        self._duplicates = 0
        self._largest = 0
        self._last_region: str | None = None
        self._all_success = roster.open and not options.codes
        self._endpoints = {
            AUTH: _Endpoint("token", "POST", _check_nothing, self._auth),
            AUTH_TOKEN: _Endpoint("token", "POST", _check_nothing, self._auth_token),
            USER_ATTRIBUTES: _Endpoint("data", "POST", self._check_bearer, self._write),
            USER_ATTRIBUTES_BASIC: _Endpoint("data", "POST", self._check_basic, self._write),
            HIERARCHY: _Endpoint("data", "PUT", self._check_bearer, self._replace_hierarchy),
            HIERARCHY_BASIC: _Endpoint("data", "PUT", self._check_basic, self._replace_hierarchy),
        }

    def renamed(self, entry: dict[str, Any], user: object) -> dict[str, Any]:
        return {**entry, "userName": user}

    def endpoint(self, path: str) -> tuple[Kind, str]:
        return self._endpoints[path].kind if path in self._endpoints else "other", path

    def users(self, request: Request) -> int:
        try:
            records = orjson.loads(request.body)["userAttributes"]
        except (orjson.JSONDecodeError, TypeError, KeyError):
            return 0
        return len(records) if isinstance(records, list) else 0

    def refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
        return refusal(status, message, headers)

    def handle(self, request: Request, now: float) -> Response:
        """A trailing slash is tolerated: the vendor's SDK sends one [DC] S-C14."""
        endpoint = self._endpoints.get(path_of(request.path))
        if endpoint is None:
            return self.refuse(404, f"Cannot {request.method} {request.path}")
        if request.method != endpoint.method:
            return self.refuse(405, f"{request.method} is not allowed here", {"allow": endpoint.method})
        try:
            endpoint.check(request, now)
            return endpoint.handle(request, now)
        except Refused as refused:
            return self.refuse(refused.status, str(refused))

    def revoke(self) -> None:
        self._tokens.clear()
        self._fixed_token = None

    def facts(self) -> dict[str, object]:
        return {
            "tokens_issued": self._issued,
            "results": {str(code): count for code, count in sorted(self._results.items())},
            "duplicates": self._duplicates,
            "largest_request": self._largest,
            "last_region": self._last_region,
            "hierarchies": self._ledger.hierarchies,
        }

    # Tokens

    def _auth(self, request: Request, now: float) -> Response:
        """[D] S-C1: hash = lower-case hex HMAC-SHA256 of apiKey + timestamp, keyed with the secret."""
        self._must_accept("hmac")
        body = _fields(_json(request), "the body", apiKey=str, timestamp=int, hash=str)
        signed = f"{body['apiKey']}{body['timestamp']}".encode()
        expected = hmac.new(self._options.secret.encode(), signed, hashlib.sha256).hexdigest()
        if body["apiKey"] != self._options.key_id or not _same(body["hash"], expected):
            raise Refused(401, "apiKey or hash is wrong")
        if abs(now - body["timestamp"]) > self._options.clock_skew_s:
            raise Refused(401, "timestamp is too far from the server's clock")
        token, expires = self._issue(now)
        expiration = int(expires if self._options.expiration_unit == "s" else expires * 1000)
        return answer(
            200,
            # [D] S-C1, message as in the example
            {
                "authenticated": True,
                "message": "Authentication successful",
                "token": token,
                "expiration": expiration,
            },
        )

    def _auth_token(self, request: Request, now: float) -> Response:
        """[D] S-C3: JSON, no grant_type; the lifetime is relative here, absolute in the HMAC flow."""
        self._must_accept("client-secret")
        body = _fields(_json(request), "the body", client_id=str, client_secret=str)
        if body["client_id"] != self._options.key_id or not _same(body["client_secret"], self._options.secret):
            raise Refused(401, "client_id or client_secret is wrong")
        token, _ = self._issue(now)
        lifetime = self._options.token_lifetime_s
        expires_in = int(lifetime) if lifetime.is_integer() else lifetime
        return answer(200, {"access_token": token, "expires_in": expires_in, "token_type": "Bearer"})

    def _issue(self, now: float) -> tuple[str, float]:
        """A new token and its end. Earlier ones live on: how many may is not documented, and the SDK makes many."""
        for expired in list(takewhile(lambda token: self._tokens[token] <= now, self._tokens)):
            del self._tokens[expired]
        self._issued += 1
        seed = hashlib.sha256(f"{self._options.secret} {self._issued} {now}".encode()).digest()
        token = "ey" + base64.urlsafe_b64encode(seed).decode().rstrip("=")  # [D] the example starts with "ey"
        expires = now + self._options.token_lifetime_s
        self._tokens[token] = expires
        return token, expires

    def _must_accept(self, scheme: Scheme) -> None:
        if scheme not in self._options.schemes:
            raise Refused(401, f"this key is not for {scheme}")

    # Data requests

    def _check_bearer(self, request: Request, now: float) -> None:
        scheme, _, token = header(request, "authorization").partition(" ")
        is_fixed = token == self._fixed_token and "bearer" in self._options.schemes
        if scheme.lower() != "bearer" or not (is_fixed or self._tokens.get(token, 0.0) > now):
            raise Refused(401, "no valid bearer token")

    def _check_basic(self, request: Request, _now: float) -> None:
        """[D] S-C15: user name = key id, password = secret; base64 as the samples on every endpoint page show."""
        self._must_accept("basic")
        scheme, _, encoded = header(request, "authorization").partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True).decode()
        except ValueError:  # not base64, or not text
            given = ""
        if scheme.lower() != "basic" or not _same(given, f"{self._options.key_id}:{self._options.secret}"):
            raise Refused(401, "no valid Basic credentials")

    def _list(self, request: Request, name: str) -> list[Any]:
        """The one list that a body is, from a region and of a size that are served."""
        self._note_region(request)
        if self._options.max_bytes is not None and len(request.body) > self._options.max_bytes:
            raise Refused(413, f"more than {self._options.max_bytes} bytes")
        found: list[Any] = _fields(_json(request), "the body", **{name: list})[name]
        return found

    # User attributes

    def _write(self, request: Request, _now: float) -> Response:
        """[D] DOC-1. A request is taken whole or refused whole; one result per record, in the order sent [I]."""
        records = self._list(request, "userAttributes")
        if self._options.max_users is not None and len(records) > self._options.max_users:
            raise Refused(413, f"more than {self._options.max_users} users")
        users, attributes = self._columns(records)
        self._largest = max(self._largest, len(users))
        self._note_repeated(users)
        if self._all_success:
            self._ledger.accept(users, attributes)
            self._results[SUCCESS] += len(users)
            return self._all_taken(users)
        for user in users:
            if self._roster.is_poison(user):
                raise Refused(400, f"userName {user!r} is not valid")
        codes = [self._code(user) for user in users]
        self._results.update(codes)
        good = [number for number, code in enumerate(codes) if code == SUCCESS]
        self._ledger.accept([users[n] for n in good], [attributes[n] for n in good])
        return self._answer(users, codes)

    def _note_region(self, request: Request) -> None:
        """[DC] S-C14 names the header; what a wrong one does is documented nowhere, so 400 is ours."""
        self._last_region = header(request, "x-calven-region") or None
        region = self._last_region or DEFAULT_REGION
        if self._options.region not in (None, region):
            raise Refused(400, f"this is not region {region}")

    def _note_repeated(self, users: list[str]) -> None:
        repeated = len(users) - len(set(users))
        self._duplicates += repeated
        if repeated and self._options.repeated == "refuse":
            raise Refused(400, "a userName is there more than once")

    def _columns(self, records: list[Any]) -> tuple[list[str], list[Attributes]]:
        """Records as two columns, checked a column at a time: the sandbox must outrun the loader that it is to test."""
        try:
            users = [record["userName"] for record in records]
            attributes = [record["attributes"] for record in records]
        except (TypeError, KeyError):
            raise Refused(400, _first_fault(records)) from None
        types = {*map(type, users)}, {*map(type, attributes)}, {*map(len, records)}
        if records and (types != ({str}, {dict}, {2}) or not all(users)):
            raise Refused(400, _first_fault(records))
        if self._options.values == "string":
            for number, values in enumerate(attributes):
                if not set(map(type, values.values())) <= {str}:
                    raise Refused(400, f"userAttributes[{number}]: every attribute must be a string")
        return users, attributes

    def _code(self, user: str) -> int:
        if not self._roster.exists(user):
            return USER_NOT_FOUND
        return next((code for code, pattern in self._options.codes if pattern.search(user)), SUCCESS)

    def _answer(self, users: list[str], codes: list[int]) -> Response:
        rests = {code: self._rest(code) for code in set(codes)}
        results = [{"userName": user, **rests[code]} for user, code in zip(users, codes, strict=True)]
        return answer(200, {"results": results})

    def _all_taken(self, users: list[str]) -> Response:
        """The same answer, for nothing but successes and four times as fast: names are encoded and joined in C."""
        names = orjson.dumps(users)
        # With an escape about, or a user called ",", the quotes that end a name can't be told by sight.
        if not users or b"\\" in names or "," in users:
            return self._answer(users, [SUCCESS] * len(users))
        start, end = b'{"userName":', b"," + orjson.dumps(self._rest(SUCCESS))[1:]
        results = names[1:-1].replace(b'","', b'"' + end + b"," + start + b'"')
        return raw_answer(200, b'{"results":[' + start + results + end + b"]}")

    def _rest(self, code: int) -> dict[str, object]:
        """A result without its user name. The page shows `resultCode` as {}, hence the choice of forms."""
        name = NAMES.get(code, f"CODE{code}")
        forms = {"number": code, "string": str(code), "name": name, "object": {"value": code, "name": name}}
        return {"message": MESSAGES.get(code, name), "resultCode": forms[self._options.result_code]}

    # The group hierarchy

    def _replace_hierarchy(self, request: Request, _now: float) -> Response:
        """[D] DOC-2, S-C6. What is sent replaces the whole hierarchy, or is refused whole."""
        relationships = self._list(request, "groupRelationships")
        try:
            self._check_hierarchy(relationships)
        except Refused as refused:
            return self.refuse(self._options.hierarchy_status, str(refused))
        self._ledger.replace_hierarchy(relationships)
        return Response(204)

    def _check_hierarchy(self, relationships: list[Any]) -> None:
        """[D] S-C6: no circles, one parent a group, no parent at the top. A group is known by its name and its type."""
        if not relationships and self._options.hierarchy_empty == "refuse":
            raise Refused(400, "groupRelationships is empty")
        parents: dict[_Group, _Group | None] = {}
        for number, relationship in enumerate(relationships):
            where = f"groupRelationships[{number}]"
            group, parent = _relationship(relationship, where)
            if group in parents:
                if parents[group] != parent:
                    raise Refused(400, f"{where}: {_shown(group)} has another parent already")
                if self._options.hierarchy_repeated == "refuse":
                    raise Refused(400, f"{where}: {_shown(group)} is there already")
            parents[group] = parent
        if self._options.hierarchy_unknown_parent == "refuse":
            for parent in parents.values():
                if parent is not None and parent not in parents:
                    raise Refused(400, f"the parent {_shown(parent)} is no group of this hierarchy")
        in_circle = _in_circle(parents)
        if in_circle is not None:
            raise Refused(400, f"{_shown(in_circle)} is its own ancestor")


def _check_nothing(_request: Request, _now: float) -> None:
    """The credentials are in the body."""


def _json(request: Request) -> object:
    """[D] every page: Content-Type must be application/json. That anything else is a 400 is ours."""
    if header(request, "content-type").partition(";")[0].strip().lower() != "application/json":
        raise Refused(400, "Content-Type must be application/json")
    try:
        return orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}") from None


def _fields(value: object, where: str, **types: type) -> dict[str, Any]:
    """An object with exactly these fields. Whether Calven minds further ones is not documented; a loader sends none."""
    if not isinstance(value, dict):
        raise Refused(400, f"{where} must be an object")
    if value.keys() != types.keys():
        raise Refused(400, f"{where} must have exactly the fields {', '.join(types)}")
    for name, kind in types.items():
        if type(value[name]) is not kind:  # not isinstance: true is no number
            raise Refused(400, f"{where}: {name} must be of type {kind.__name__}")
    return value


def _first_fault(records: list[Any]) -> str:
    """Which record is wrong, and why."""
    for number, record in enumerate(records):
        where = f"userAttributes[{number}]"
        try:
            fields = _fields(record, where, userName=str, attributes=dict)
        except Refused as refused:
            return str(refused)
        if not fields["userName"]:
            return f"{where}: userName is empty"
    raise AssertionError("every record is valid")


def _relationship(value: object, where: str) -> tuple[_Group, _Group | None]:
    """The group and its parent. [D] all four fields are required; at the top both of the parent's are null."""
    if not isinstance(value, dict) or value.keys() != {"group", "groupType", "parent", "parentType"}:
        raise Refused(400, f"{where} must have exactly the fields group, groupType, parent, parentType")
    group = value["group"], value["groupType"]
    parent = value["parent"], value["parentType"]
    for pair in (group,) if parent == (None, None) else (group, parent):
        if not all(isinstance(name, str) and name for name in pair):
            raise Refused(400, f"{where}: names and types must be text, or null for both of a parent that there isn't")
    return group, None if parent == (None, None) else parent


def _in_circle(parents: Mapping[_Group, _Group | None]) -> _Group | None:
    """A group that is its own ancestor, if there is one."""
    sound: set[_Group] = set()
    for start in parents:
        trail: set[_Group] = set()
        group: _Group | None = start
        while group is not None and group not in sound:
            if group in trail:
                return group
            trail.add(group)
            group = parents.get(group)
        sound |= trail
    return None


def _shown(group: _Group) -> str:
    return f"{group[0]!r} of type {group[1]!r}"


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
