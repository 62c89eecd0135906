"""A SCIM 2.0 service as the RFCs describe it: a request and the time in, a response out, accepted users in the ledger.

Sources: RFC 7643 (schema) and RFC 7644 (protocol), to which every § without a number belongs.
What is emulated is what a client needs that changes users who exist: looking them up by name, PATCH, and PATCH in bulk.
All else that the RFC knows is answered with its 501. No ETags, no sorting, no schemas: §3.14, RFC 7643 §5 let a service
do without. The ledger holds a user's attributes by the path that each was written under, in the sender's spelling.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

import orjson

from loader.request import Request, Response
from loader.sandbox.api import Kind, Refused, header, path_of
from loader.sandbox.ledger import Attributes, Ledger
from loader.sandbox.options import ScimOptions
from loader.sandbox.roster import Roster

CONFIG = "/ServiceProviderConfig"
USERS = "/Users"
SEARCH = "/Users/.search"
BULK = "/Bulk"
USER = "/Users/{id}"

CORE = "urn:ietf:params:scim:schemas:core:2.0:User"
CONFIG_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"
_MESSAGE = "urn:ietf:params:scim:api:messages:2.0:"
LIST, SEARCH_REQUEST, PATCH_OP = f"{_MESSAGE}ListResponse", f"{_MESSAGE}SearchRequest", f"{_MESSAGE}PatchOp"
BULK_REQUEST, BULK_RESPONSE, ERROR = f"{_MESSAGE}BulkRequest", f"{_MESSAGE}BulkResponse", f"{_MESSAGE}Error"

# §3.4.2.2: one comparison; names and operators in any case, the value as in JSON, one space between.
_COMPARISON = re.compile(rf'(?:{re.escape(CORE)}:)?([A-Z][A-Z0-9_.]*) eq ("(?:[^"\\]|\\.)*")', re.IGNORECASE)
_OR = re.compile(r" or ", re.IGNORECASE)

# §3.5.2 and §3.10: [URN:]attribute[value filter][.sub-attribute]; value filters are `name eq value`, without escapes.
_NAME = r"\$?[A-Za-z][A-Za-z0-9_-]*"
_PATH = re.compile(
    rf'(?:(?P<urn>urn:[^"\[\s]+):)?(?P<name>{_NAME})'
    rf'(?:\[(?P<by>{_NAME}) eq (?P<is>"[^"\\\x00-\x1f]*"|true|false)\])?(?:\.(?P<sub>{_NAME}))?'
)

_VALUE_FILTER = re.compile(r"\[.*\]")

# RFC 7643 §3.1 and §4.1: what the service alone sets. To rename a user is more than this emulation does.
_READ_ONLY = {"schemas", "id", "meta", "groups", "username"}


class _Refused(Refused):
    """Ends the handling of a request, or of one operation of a bulk request, with an error (§3.12)."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(status, message)
        self.kind = kind  # `scimType`, "" if the status says all


class _Page(NamedTuple):
    """Which of the users found are asked for, and what of each: None is everything."""

    start: int  # from 1
    size: int
    attributes: frozenset[str] | None


class Scim:
    """The endpoints for users who exist, for one client.

    A user's id tells the name, so that ids last and need no memory; to a client it is opaque. Where case doesn't count,
    a user is spelled as the roster lists it, else as somebody first asked for it, else in lower case.
    """

    entries = ("Resources", "Operations")

    def __init__(self, options: ScimOptions, roster: Roster, ledger: Ledger) -> None:
        self._options = options
        self._roster = roster
        self._ledger = ledger
        self._live = True
        self._spellings = {user.lower(): user for user in roster.listed or () if user != user.lower()}
        self._schema = None if options.attributes is None else {path.lower() for path in options.attributes}
        self._statuses: Counter[int] = Counter()
        self._looked_up = 0
        self._duplicates = 0
        self._largest = 0
        self._endpoints: dict[str, tuple[Kind, dict[str, Callable[[Request, str], Response]]]] = {
            CONFIG: ("token", {"GET": self._config}),
            USERS: ("data", {"GET": self._query}),
            SEARCH: ("data", {"POST": self._search} if options.search else {}),
            BULK: ("data", {"POST": self._bulk} if options.bulk else {}),
            USER: ("data", {"GET": self._get, "PATCH": self._patch}),
        }

    def renamed(self, entry: dict[str, Any], user: object) -> dict[str, Any]:
        """A user found has a name, an operation the id that its sender gave it."""
        return {**entry, ("userName" if "id" in entry else "bulkId"): user}

    def endpoint(self, path: str) -> tuple[Kind, str]:
        name, _ = self._place(path)
        if name not in self._endpoints:
            return "other", path
        return self._endpoints[name][0], self._options.prefix + name

    def users(self, request: Request) -> int:
        name, _ = self._place(path_of(request.path))
        if (name, request.method) == (USER, "PATCH"):
            return 1
        try:
            return len(orjson.loads(request.body)["Operations"]) if name == BULK else 0
        except (orjson.JSONDecodeError, TypeError, KeyError):
            return 0

    def handle(self, request: Request, now: float) -> Response:
        name, ident = self._place(path_of(request.path))
        try:
            if name not in self._endpoints or (name == SEARCH and not self._options.search):
                raise _Refused(404, "", f"there is no endpoint {request.path}")
            self._must_be_authentic(request, name)
            methods = self._endpoints[name][1]
            if request.method not in methods:
                raise _Refused(501, "", f"{request.method} {name} is not supported")
            return methods[request.method](request, ident)
        except _Refused as refused:
            return _answer(refused.status, _error(refused), self._challenge(refused.status))

    def refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
        return _answer(status, _error(_Refused(status, "", message)), {**self._challenge(status), **(headers or {})})

    def revoke(self) -> None:
        self._live = False

    def facts(self) -> dict[str, object]:
        """`statuses` are those of PATCHes, alone or in bulk; `largest_request` is in operations."""
        return {
            "statuses": {str(status): count for status, count in sorted(self._statuses.items())},
            "looked_up": self._looked_up,
            "duplicates": self._duplicates,
            "largest_request": self._largest,
        }

    def _place(self, path: str) -> tuple[str, str]:
        """The endpoint's name and the id in a path; "" if it lies outside the base path."""
        if not path.startswith(f"{self._options.prefix}/"):
            return "", ""
        path = path.removeprefix(self._options.prefix)
        above, _, last = path.rpartition("/")
        return (USER, unquote(last)) if above == USERS and path != SEARCH else (path, "")

    # The token and the configuration

    def _must_be_authentic(self, request: Request, name: str) -> None:
        """§2: a bearer token (RFC 6750), or Basic (RFC 7617); what is wrong is wrong even where nothing is needed."""
        given = header(request, "authorization")
        if name == CONFIG and self._options.public_config and not given:
            return
        scheme, _, token = given.partition(" ")
        pair = base64.b64encode(f"{self._options.basic_user}:{self._options.basic_password}".encode()).decode()
        is_bearer = self._live and (scheme.lower(), token) == ("bearer", self._options.token)
        if not is_bearer and (scheme.lower(), token) != ("basic", pair):
            raise _Refused(401, "", "credentials are missing, or not valid")

    def _challenge(self, status: int) -> dict[str, str]:
        return {"www-authenticate": 'Bearer realm="scim"'} if status == 401 else {}

    def _config(self, request: Request, _: str) -> Response:
        """RFC 7643 §5."""
        options = self._options
        bearer = {"type": "oauthbearertoken", "name": "OAuth Bearer Token", "description": "RFC 6750"}
        basic = {"type": "httpbasic", "name": "HTTP Basic", "description": "RFC 7617"}
        bulk = {
            "supported": options.bulk,
            "maxOperations": options.max_operations,
            "maxPayloadSize": options.max_payload_size,
        }
        return _answer(
            200,
            {
                "schemas": [CONFIG_SCHEMA],
                "patch": {"supported": True},
                "bulk": bulk,
                "filter": {"supported": True, "maxResults": options.max_results},
                "changePassword": {"supported": False},
                "sort": {"supported": False},
                "etag": {"supported": False},
                "authenticationSchemes": [bearer, basic],
                "meta": {"resourceType": "ServiceProviderConfig", "location": self._location(request, CONFIG)},
            },
        )

    # Users, by name and by id

    def _query(self, request: Request, _: str) -> Response:
        """§3.4.2, by parameters in the URL."""
        texts = {name: values[-1] for name, values in parse_qs(request.path.partition("?")[2]).items()}
        try:
            given: dict[str, int] = {name: int(texts[name]) for name in ("startIndex", "count") if name in texts}
        except ValueError:
            raise _Refused(400, "invalidValue", "startIndex and count are integers") from None
        return self._found(request, texts.get("filter"), self._page(given, _listed(texts)))

    def _search(self, request: Request, _: str) -> Response:
        """§3.4.3, by a body."""
        body = _message(request.body, SEARCH_REQUEST, request)
        given, wanted = body.get("filter"), body.get("attributes")
        if not isinstance(given, str | None):
            raise _Refused(400, "invalidFilter", "filter must be a string")
        if wanted is not None and not (isinstance(wanted, list) and all(isinstance(name, str) for name in wanted)):
            raise _Refused(400, "invalidValue", "attributes must be strings")
        if not all(type(body.get(name, 1)) is int for name in ("startIndex", "count")):
            raise _Refused(400, "invalidValue", "startIndex and count are integers")
        return self._found(request, given, self._page(body, wanted))

    def _page(self, given: Mapping[str, Any], wanted: Iterable[str] | None) -> _Page:
        """§3.4.2.4: less than 1 is 1, a negative count is 0, and of more than the maximum there is the maximum."""
        size = min(max(given.get("count", self._options.max_results), 0), self._options.max_results)
        attributes = None if wanted is None else frozenset(name.lower() for name in wanted)
        return _Page(max(given.get("startIndex", 1), 1), size, attributes)

    def _found(self, request: Request, given: str | None, page: _Page) -> Response:
        """A ListResponse (§3.4.2). The order is the service's own, and not that of the filter."""
        users = sorted(self._everyone() if given is None else self._matching(given))
        shown = users[page.start - 1 : page.start - 1 + page.size]
        body: dict[str, object] = {
            "schemas": [LIST],
            "totalResults": len(users),
            "startIndex": page.start,
            "itemsPerPage": len(shown),
        }
        if shown or self._options.no_resources == "empty":
            body["Resources"] = [self._resource(request, user, page.attributes) for user in shown]
        self._looked_up += len(shown)
        return _answer(200, body)

    def _everyone(self) -> set[str]:
        """§3.12 tooMany: a service need not list all that it has; this one does if the roster does."""
        if self._roster.listed is None:
            raise _Refused(400, "tooMany", "without a filter, there are too many users")
        return set(filter(self._roster.exists, self._roster.listed))

    def _matching(self, given: str) -> set[str]:
        comparisons = list(_comparisons(given, self._options.key.lower()))
        most = self._options.max_comparisons
        if most is not None and len(comparisons) > most:
            raise _Refused(400, "tooMany", f"more than {most} comparisons")
        users = (self._owner(value) if is_id else self._user(value) for is_id, value in comparisons)
        return {user for user in users if user is not None}

    def _get(self, request: Request, ident: str) -> Response:
        """§3.4.1."""
        user = self._must_exist(ident)
        self._looked_up += 1
        return _answer(200, self._resource(request, user, _wanted(request)))

    def _user(self, name: str) -> str | None:
        """The user of this name, as it is spelled; None if there is none."""
        if not self._options.case_exact:
            lower = name.lower()
            if name != lower and self._roster.listed is None:
                self._spellings.setdefault(lower, name)
            name = self._spellings.get(lower, lower)
        return name if name and self._roster.exists(name) else None

    def _owner(self, ident: str) -> str | None:
        """The user whose id this is."""
        try:
            name = base64.urlsafe_b64decode(ident + "=" * (-len(ident) % 4)).decode()
        except (binascii.Error, ValueError):  # not of our making
            return None
        return self._user(name) if self._ident(name) == ident else None

    def _must_exist(self, ident: str) -> str:
        user = self._owner(ident)
        if user is None:
            raise _Refused(404, "", f"Resource {ident} not found")
        return user

    def _ident(self, user: str) -> str:
        key = user if self._options.case_exact else user.lower()
        return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")

    def _location(self, request: Request, place: str) -> str:
        host = header(request, "host")
        return f"http://{host}{self._options.prefix}{place}" if host else self._options.prefix + place

    def _resource(self, request: Request, user: str, wanted: frozenset[str] | None) -> dict[str, Any]:
        """A user as an answer shows it. RFC 7643 §7 `returned`: the id always, a password never (§4.1.1)."""
        entry = self._ledger.users.get(user)
        paths = {"userName": user, self._options.key: user, **(entry.attributes if entry else {})}
        shown = {path: value for path, value in paths.items() if _is_wanted(path, wanted)}
        ident = self._ident(user)
        resource: dict[str, Any] = {"schemas": [CORE], "id": ident, **_nested(shown)}
        resource["schemas"] += [name for name in resource if name.startswith("urn:")]
        if _is_wanted("meta", wanted):
            resource["meta"] = {"resourceType": "User", "location": self._location(request, f"{USERS}/{ident}")}
        return resource

    # PATCH, alone and in bulk

    def _patch(self, request: Request, ident: str) -> Response:
        """§3.5.2. 204 has no body; with `attributes` asked for, it is 200 whatever the service prefers."""
        wanted = _wanted(request)
        try:
            user = self._must_exist(ident)
            attributes = self._attributes(user, _message(request.body, PATCH_OP, request))
        except _Refused as refused:
            self._statuses[refused.status] += 1
            raise
        self._largest = max(self._largest, 1)
        status = self._write(user, attributes)
        if status == 204 and wanted is None:
            return Response(204)
        return _answer(200, self._resource(request, user, wanted))

    def _write(self, user: str, attributes: Attributes) -> int:
        self._ledger.accept([user], [attributes], write="merge", null_removes=True)
        status = 200 if self._options.patch_answer == "resource" else 204
        self._statuses[status] += 1
        return status

    def _attributes(self, user: str, patch: dict[str, Any]) -> Attributes:
        """What a PatchOp writes: path to value, null to remove. It is done whole or not at all (§3.5.2)."""
        if self._roster.is_poison(user):
            raise _Refused(400, "invalidValue", f"userName {user!r} is not valid")
        operations = patch.get("Operations")
        if not isinstance(operations, list) or not operations:
            raise _Refused(400, "invalidSyntax", "Operations must be an array of one or more operations")
        selecting = {"replace"} if self._options.unmatched_add == "makes" else {"replace", "add"}
        entry = self._ledger.users.get(user)
        there = set(entry.attributes) if entry else set()
        attributes: Attributes = {}
        for operation in operations:
            for path, value in _changes(operation):
                self._must_be_writable(path, value)
                if operation["op"] in selecting:
                    _must_have_target(path, there)
                attributes.pop(path, None)  # what comes last stands last
                attributes[path] = value
                there.add(path)
        return attributes

    def _must_be_writable(self, path: str, value: object) -> None:
        parts = _PATH.fullmatch(path)
        if parts is None:
            raise _Refused(400, "invalidPath", f"{path!r} is not a path")
        if parts["urn"] in (None, CORE) and parts["name"].lower() in _READ_ONLY:
            raise _Refused(400, "mutability", f"{path} can't be changed")
        if self._schema is not None and _VALUE_FILTER.sub("", _short(path)) not in self._schema:
            raise _Refused(400, "invalidPath", f"{path} is not an attribute of the schema")
        if value is None and self._options.null == "refused":
            raise _Refused(400, "invalidValue", f"{path} can't be null")
        failing = self._options.failing
        if failing is not None and failing.search(f"{path}={'' if value is None else value}"):
            raise _Refused(400, "invalidValue", f"{path} is not valid")

    def _bulk(self, request: Request, _: str) -> Response:
        """§3.7. Operations are done one by one; after `failOnErrors` failures the others are not, nor answered.

        Too much of it is 413 (§3.7.4). A poisoned user spoils it whole: the RFC knows no such thing, but services do.
        """
        if len(request.body) > self._options.max_payload_size:
            raise _Refused(413, "", f"more than maxPayloadSize ({self._options.max_payload_size}) bytes")
        body = _message(request.body, BULK_REQUEST, request)
        given, limit = body.get("Operations"), body.get("failOnErrors")
        if not isinstance(given, list):
            raise _Refused(400, "invalidSyntax", "Operations must be an array")
        if limit is not None and (type(limit) is not int or limit < 1):
            raise _Refused(400, "invalidSyntax", "failOnErrors must be a positive integer")
        if len(given) > self._options.max_operations:
            raise _Refused(413, "", f"more than maxOperations ({self._options.max_operations}) operations")
        operations: list[dict[str, Any]] = [each if isinstance(each, dict) else {} for each in given]
        users = [self._addressed(operation) for operation in operations]
        self._largest = max(self._largest, len(users))
        known = [user for user in users if user is not None]
        self._duplicates += len(known) - len(set(known))
        if any(map(self._roster.is_poison, known)):
            raise _Refused(400, "invalidSyntax", "a user is not valid")
        results: list[dict[str, object]] = []
        failures = 0
        for operation in operations:
            results.append(self._result(request, operation))
            failures += "response" in results[-1]
            if failures == limit:
                break
        return _answer(200, {"schemas": [BULK_RESPONSE], "Operations": results})

    def _addressed(self, operation: dict[str, Any]) -> str | None:
        """The user that an operation of a bulk request is about, if there is one."""
        try:
            return self._owner(_ident_in(operation))
        except _Refused:
            return None

    def _result(self, request: Request, operation: dict[str, Any]) -> dict[str, object]:
        """One operation, done; §3.7: status as text, the location always, and a response if it failed."""
        result: dict[str, object] = {name: operation[name] for name in ("method", "bulkId") if name in operation}
        try:
            ident = _ident_in(operation)
            result["location"] = self._location(request, f"{USERS}/{ident}")
            if operation["method"] != "PATCH":
                raise _Refused(501, "", f"{operation['method']} is not supported")
            user = self._must_exist(ident)
            status = self._write(user, self._attributes(user, _must_be(operation.get("data"), PATCH_OP)))
            return {**result, "status": str(status)}
        except _Refused as refused:
            self._statuses[refused.status] += 1
            return {**result, "response": _error(refused), "status": str(refused.status)}


def _answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """§8.1: the media type of SCIM."""
    return Response(status, {"content-type": "application/scim+json", **(headers or {})}, orjson.dumps(body))


def _error(refused: _Refused) -> dict[str, object]:
    """§3.12; the status is text."""
    kind = {"scimType": refused.kind} if refused.kind else {}
    return {"schemas": [ERROR], **kind, "detail": str(refused), "status": str(refused.status)}


def _message(body: bytes, schema: str, request: Request) -> dict[str, Any]:
    """A body of this schema. §3.8: application/scim+json; plain JSON is taken, too. That all else is 415 is ours."""
    kind = header(request, "content-type").partition(";")[0].strip().lower()
    if kind not in ("application/scim+json", "application/json"):
        raise _Refused(415, "", "Content-Type must be application/scim+json")
    try:
        return _must_be(orjson.loads(body), schema)
    except orjson.JSONDecodeError as error:
        raise _Refused(400, "invalidSyntax", f"the body is not JSON: {error}") from None


def _must_be(message: object, schema: str) -> dict[str, Any]:
    """§3.1: messages name their schema."""
    schemas = message.get("schemas") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(schemas, list) or schema not in schemas:
        raise _Refused(400, "invalidSyntax", f"schemas must hold {schema}")
    return message


def _ident_in(operation: dict[str, Any]) -> str:
    """§3.7: an operation has a method and the path of a user, below the base path."""
    if not isinstance(operation.get("method"), str):
        raise _Refused(400, "invalidSyntax", "an operation is an object with a method")
    path = operation.get("path")
    if not isinstance(path, str) or not path.startswith(f"{USERS}/"):
        raise _Refused(400, "invalidPath", f"the path of a user is {USERS}/ and an id")
    return unquote(path.removeprefix(f"{USERS}/"))


def _comparisons(given: str, key: str) -> Iterator[tuple[bool, str]]:
    """The comparisons of a filter such as `userName eq "…" or id eq "…"`: whether each is of the id, and its value."""
    position = 0
    while (comparison := _COMPARISON.match(given, position)) and comparison[1].lower() in ("id", key):
        try:
            yield comparison[1].lower() == "id", orjson.loads(comparison[2])
        except orjson.JSONDecodeError:
            break
        position = comparison.end()
        if position == len(given):
            return
        if not (link := _OR.match(given, position)):
            break
        position = link.end()
    raise _Refused(400, "invalidFilter", f'not {key} eq "…" or {key} eq "…": {given[position : position + 40]!r}')


def _changes(operation: object) -> Iterator[tuple[str, Any]]:
    """§3.5.2.1-3: what one operation writes, as paths and values; null removes.

    Without a path, an object holds attributes by name, those of an extension in an object below its URN.
    """
    if not isinstance(operation, dict) or operation.get("op") not in ("add", "remove", "replace"):
        raise _Refused(400, "invalidSyntax", "an operation is an object whose op is add, remove or replace")
    path = operation.get("path")
    if not isinstance(path, str | None):
        raise _Refused(400, "invalidPath", "path must be a string")
    if operation["op"] == "remove":
        if path is None:
            raise _Refused(400, "noTarget", "what is to be removed needs a path")
        yield path, None
        return
    if "value" not in operation:
        raise _Refused(400, "invalidValue", f"{operation['op']} needs a value")
    value = operation["value"]
    if path is not None:
        yield path, value
    elif not isinstance(value, dict):
        raise _Refused(400, "invalidValue", "without a path, the value is an object")
    else:
        for name, part in value.items():
            if name.startswith("urn:") and isinstance(part, dict):
                yield from ((f"{name}:{below}", below_value) for below, below_value in part.items())
            else:
                yield name, part


def _must_have_target(path: str, there: set[str]) -> None:
    """§3.5.2.3: what a value filter selects must be there: some path with that filter was written."""
    selection, bracket, _ = path.rpartition("]")
    if bracket and not any(other.startswith(f"{selection}]") for other in there):
        raise _Refused(400, "noTarget", f"no value of {path} is there")


def _nested(paths: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes by path as one object."""
    resource: dict[str, Any] = {}
    for path, value in paths.items():
        parts = _PATH.fullmatch(path)
        assert parts is not None, "only such paths are written"
        urn, name, sub = parts["urn"], parts["name"], parts["sub"]
        value = deepcopy(value)  # what the ledger has is not ours
        holder = resource if urn in (None, CORE) else resource.setdefault(urn, {})
        if parts["by"]:
            holder = _selected(holder, name, parts["by"], orjson.loads(parts["is"]))
        elif sub:
            holder = _below(holder, name, dict)
        if sub:
            holder[sub] = value
        elif not parts["by"]:
            holder[name] = value
        elif isinstance(value, dict):
            holder.update(value)
    return resource


def _selected(holder: dict[str, Any], name: str, by: str, value: object) -> dict[str, Any]:
    """The element of a list that a value filter selects, made if need be."""
    elements: list[Any] = _below(holder, name, list)
    for element in elements:
        if isinstance(element, dict) and element.get(by) == value:
            return element
    elements.append(made := {by: value})
    return made


def _below(holder: dict[str, Any], name: str, kind: type) -> Any:
    """holder[name], which is put there empty unless it is of this kind."""
    if not isinstance(holder.get(name), kind):
        holder[name] = kind()
    return holder[name]


def _listed(texts: Mapping[str, str]) -> list[str] | None:
    """§3.9: names, with commas between."""
    return [name.strip() for name in texts["attributes"].split(",")] if "attributes" in texts else None


def _wanted(request: Request) -> frozenset[str] | None:
    names = _listed({name: values[-1] for name, values in parse_qs(request.path.partition("?")[2]).items()})
    return None if names is None else frozenset(name.lower() for name in names)


def _is_wanted(path: str, wanted: frozenset[str] | None) -> bool:
    """§3.9: an attribute is asked for by its name, with those below it, or by a name below it."""
    path = _short(path)
    if path == "password":
        return False
    return wanted is None or any(
        path == name or path.startswith((f"{name}.", f"{name}[", f"{name}:")) or name.startswith(f"{path}.")
        for name in map(_short, wanted)
    )


def _short(path: str) -> str:
    """A path for comparison: case doesn't count (RFC 7643 §2.1), nor whether the core schema is named (§3.10)."""
    return path.lower().removeprefix(f"{CORE.lower()}:")
