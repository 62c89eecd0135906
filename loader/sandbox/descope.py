"""Descope's management API as its pages describe it: a request and the time in, a response out, users in the ledger.

Sources: DOC-4 "Update User Custom Attribute", S-P3 patch, S-P4 patch in batch, S-P7 definitions of attributes; codes of
errors, the licence and the look of a 429 are read in the vendor's clients [DC] (S-P10 Python, S-P11 Go, S-P12 Node,
S-P13 .NET). [D] names no status but 200. Values are not checked against the options of a select.
"""

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from loader.request import Request, Response
from loader.sandbox.api import Kind, Refused, answer, header, path_of
from loader.sandbox.ledger import Attributes, Ledger
from loader.sandbox.options import AttributeType, DescopeOptions
from loader.sandbox.roster import Roster

CUSTOM_ATTRIBUTE = "/v1/mgmt/user/update/customAttribute"
PATCH = "/v1/mgmt/user/patch"
PATCH_BATCH = "/v1/mgmt/user/patch/batch"
USER = "/v1/mgmt/user"
DEFINITIONS = "/v1/mgmt/user/customattributes"
LICENSE = "/v1/mgmt/license"

MALFORMED, MISSING, INVALID, ARGUMENTS = "E011001", "E011002", "E011003", "E011004"
UNAUTHORIZED, USER_NOT_FOUND, TOO_MANY = "E111119", "E112102", "E130429"
DESCRIPTIONS = {  # [DC] but for the wording of some; a 429 has the address of a page there
    MALFORMED: "Request is malformed",
    MISSING: "Missing arguments",
    INVALID: "Validation failure",
    ARGUMENTS: "Invalid arguments",
    UNAUTHORIZED: "Unauthorized",
    USER_NOT_FOUND: "User not found",
    TOO_MANY: "https://docs.descope.com/rate-limit",
}
CODES = {400: MALFORMED, 401: UNAUTHORIZED, 429: TOO_MANY}  # any other status: a code of ours, E000 and the status

# [DC] numbers: S-P10, in the class CustomAttribute. The form of a date is not documented: text or a number passes.
TYPES: dict[AttributeType, tuple[int, tuple[type, ...]]] = {
    "string": (1, (str,)),
    "number": (2, (int, float)),
    "boolean": (3, (bool,)),
    "singleselect": (4, (str,)),
    "multiselect": (5, (list,)),
    "date": (6, (str, int)),
}

# [D] S-P3, [DC] S-P10: the other fields of a patch. They are taken and not kept.
OTHER_FIELDS = {
    *("email", "phone", "verifiedEmail", "verifiedPhone", "name", "displayName", "givenName", "middleName"),
    *("familyName", "roleNames", "userTenants", "status", "picture", "ssoAppIds", "test", "familyAssociations"),
}

_USER_ID = "U2sandbox"  # then the login id in base64: an id that says whose it is needs no memory


class _Refused(Refused):
    """Ends the handling of a request with this status and code; the message says more than the code does."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, message)
        self.code = code


class Descope:
    """The endpoints for custom attributes, for one project and its management key."""

    entries = ("user", "patchedUsers", "failedUsers")

    def __init__(self, options: DescopeOptions, roster: Roster, ledger: Ledger) -> None:
        self._options = options
        self._roster = roster
        self._ledger = ledger
        self._bearer: str | None = f"{options.project_id}:{options.management_key}"
        self._failures: Counter[str] = Counter()
        self._duplicates = 0
        self._largest = 0
        self._last_license: str | None = None
        self._endpoints: dict[str, tuple[Kind, str, Callable[[Request], Response]]] = {
            CUSTOM_ATTRIBUTE: ("data", "POST", self._update_attribute),
            PATCH: ("data", "PATCH", self._patch),
            PATCH_BATCH: ("data", "PATCH", self._patch_batch),
            USER: ("data", "GET", self._load),
            DEFINITIONS: ("token", "GET", self._definitions),
            LICENSE: ("token", "GET", self._license),
        }

    def renamed(self, entry: dict[str, Any], user: object) -> dict[str, Any]:
        if isinstance(failed := entry.get("user"), dict):
            return {**entry, "user": self.renamed(failed, user)}
        return {**entry, "loginIds": [user], "userId": ""}

    def endpoint(self, path: str) -> tuple[Kind, str]:
        return (self._endpoints[path][0] if path in self._endpoints else "other"), path

    def users(self, request: Request) -> int:
        path = path_of(request.path)
        try:
            body = orjson.loads(request.body)
            if path == PATCH_BATCH:
                return len(body["users"])
            return int(path in (CUSTOM_ATTRIBUTE, PATCH) and "loginId" in body)
        except (orjson.JSONDecodeError, TypeError, KeyError):
            return 0

    def handle(self, request: Request, now: float) -> Response:
        if (path := path_of(request.path)) not in self._endpoints:
            return self.refuse(404, f"there is nothing at {path}")
        _, method, endpoint = self._endpoints[path]
        if request.method != method:
            return self.refuse(405, f"{request.method} is not allowed here", {"allow": method})
        try:
            self._must_be_authentic(request)
            if path != LICENSE:
                self._last_license = header(request, "x-descope-license") or None
            return endpoint(request)
        except _Refused as refused:
            return _error(refused.status, refused.code, str(refused))

    def refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
        """[DC] S-P10: a 429 in the API's words, or, from its infrastructure, a page."""
        if self._options.edge == "html" and (status == 429 or status >= 500):
            return _page(status, message, headers)
        code = CODES.get(status, f"E000{status}")
        return _error(status, code, "API rate limit exceeded." if code == TOO_MANY else message, headers)

    def revoke(self) -> None:
        """As when the key is deactivated or has expired [D] S-P8."""
        self._bearer = None

    def facts(self) -> dict[str, object]:
        """`failures` counts users of batches; `last_license` is what the last call said of its tier."""
        return {
            "failures": dict(sorted(self._failures.items())),
            "duplicates": self._duplicates,
            "largest_request": self._largest,
            "last_license": self._last_license,
        }

    def _must_be_authentic(self, request: Request) -> None:
        """[D] DOC-4: the project's id, a colon and the management key, as bearer."""
        scheme, _, token = header(request, "authorization").partition(" ")
        if scheme.lower() != "bearer" or token != self._bearer:
            raise _Refused(401, UNAUTHORIZED, "no valid project id and management key")

    # Writing

    def _update_attribute(self, request: Request) -> Response:
        """[D] DOC-4: one attribute of one user; the others stay as they are."""
        body = self._body(request)
        if unknown := body.keys() - {"loginId", "attributeKey", "attributeValue"}:
            raise _Refused(400, ARGUMENTS, f"unknown: {', '.join(sorted(unknown))}")
        if "attributeValue" not in body:
            raise _Refused(400, MISSING, "attributeValue is missing")
        key = _text(body, "attributeKey")
        self._must_not_be_poison(_text(body, "loginId"))
        login_id = self._existing(body, "loginId")
        attributes = {key: body["attributeValue"]}
        self._must_be_declared(attributes)
        self._largest = max(self._largest, 1)
        self._ledger.accept([login_id], [attributes], write="merge", null_removes=self._options.null == "removes")
        return answer(200, {"user": self._user(login_id, attributes)})

    def _patch(self, request: Request) -> Response:
        """[D] S-P3: only the fields given change. For the map of attributes, the ledger's option says what that is."""
        body = self._body(request)
        self._must_be_a_patch(body, "loginId")
        return answer(200, {"user": self._apply(body, "loginId")})

    def _patch_batch(self, request: Request) -> Response:
        """[D] S-P4, [DC] S-P12: the same for many. Users fail one by one; those patched come in the order sent [I]."""
        users = self._body(request).get("users")
        if not isinstance(users, list):
            raise _Refused(400, MISSING, "users is missing, or no array")
        if self._options.max_users is not None and len(users) > self._options.max_users:
            raise _Refused(400, ARGUMENTS, f"more than {self._options.max_users} users")
        for patch in users:
            self._must_be_a_patch(patch, self._options.bulk_key)
        self._largest = max(self._largest, len(users))
        self._note_repeated([_login_id(patch[self._options.bulk_key]) for patch in users])

        patched: list[dict[str, object]] = []
        failed: dict[str, str] = {}  # login id as sent -> why
        for patch in users:
            try:
                patched.append(self._apply(patch, self._options.bulk_key))
            except _Refused as refused:
                failed[patch[self._options.bulk_key]] = str(refused)
                self._failures[refused.code] += 1
        return answer(200, {"patchedUsers": patched, **self._failed(failed)})

    def _apply(self, patch: dict[str, Any], key: str) -> dict[str, object]:
        """Write one patch; the user as it is then."""
        login_id = self._existing(patch, key)
        attributes: Attributes | None = patch.get("customAttributes")
        if attributes is not None:
            self._must_be_declared(attributes)
            self._ledger.accept([login_id], [attributes], null_removes=self._options.null == "removes")
        return self._user(login_id, attributes or {})

    def _failed(self, failed: dict[str, str]) -> dict[str, object]:
        """The users that failed, in one of the two places that the page has. What `user` then holds is ours."""
        if self._options.bulk_failures == "additionalErrors":
            return {"failedUsers": [], "additionalErrors": failed}
        shown = [{"failure": why, "user": self._user(login_id, {})} for login_id, why in failed.items()]
        return {"failedUsers": shown, "additionalErrors": {}}

    def _body(self, request: Request) -> dict[str, Any]:
        if self._options.max_bytes is not None and len(request.body) > self._options.max_bytes:
            raise _Refused(413, MALFORMED, f"more than {self._options.max_bytes} bytes")
        if header(request, "content-type").partition(";")[0].strip().lower() != "application/json":
            raise _Refused(400, MALFORMED, "Content-Type must be application/json")
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            raise _Refused(400, MALFORMED, f"the body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise _Refused(400, MALFORMED, "the body must be an object")
        return body

    def _must_be_a_patch(self, patch: object, key: str) -> None:
        """What is shaped otherwise, or poison, has its whole request refused."""
        if not isinstance(patch, dict):
            raise _Refused(400, MALFORMED, "a user must be an object")
        login_id = _text(patch, key)
        if unknown := patch.keys() - {key, "customAttributes"} - OTHER_FIELDS:
            raise _Refused(400, ARGUMENTS, f"unknown: {', '.join(sorted(unknown))}")
        if not isinstance(patch.get("customAttributes", {}), dict):
            raise _Refused(400, ARGUMENTS, "customAttributes must be an object")
        self._must_not_be_poison(login_id)

    def _must_not_be_poison(self, login_id: str) -> None:
        if self._roster.is_poison(_login_id(login_id)):
            raise _Refused(400, INVALID, f"{login_id!r} is not valid")

    def _must_be_declared(self, attributes: Attributes) -> None:
        """[DC] S-P11: "already declared ... value should match the type of the declared attribute"."""
        if self._options.declared is None:
            return
        for name, value in attributes.items():
            if name not in self._options.declared:
                raise _Refused(400, self._options.undeclared_error, f"there is no attribute {name!r}")
            kind = self._options.declared[name]
            if value is not None and type(value) not in TYPES[kind][1]:  # not isinstance: true is no number
                raise _Refused(400, self._options.wrong_type_error, f"attribute {name!r} is a {kind}")

    def _existing(self, body: dict[str, Any], key: str) -> str:
        """The login id of a user that exists, who may be called by user id, too [DC] S-P11, S-P12."""
        login_id = _login_id(_text(body, key))
        if not self._roster.exists(login_id):
            raise _Refused(self._options.unknown_status, USER_NOT_FOUND, DESCRIPTIONS[USER_NOT_FOUND])
        return login_id

    def _note_repeated(self, login_ids: list[str]) -> None:
        repeated = len(login_ids) - len(set(login_ids))
        self._duplicates += repeated
        if repeated and self._options.repeated == "refuse":
            raise _Refused(400, ARGUMENTS, "a user is there more than once")

    # Reading

    def _load(self, request: Request) -> Response:
        """[D] GET with `loginId` or `userId`. Every user of the roster is there, written or not."""
        asked = {name: texts[-1] for name, texts in parse_qs(request.path.partition("?")[2]).items()}
        login_id = self._existing(asked, "loginId" if "loginId" in asked else "userId")
        return answer(200, {"user": self._user(login_id, {})})

    def _user(self, login_id: str, written: Attributes) -> dict[str, object]:
        """The whole user, as every answer has it [D] DOC-4. Where none is kept, with the attributes just `written`."""
        entry = self._ledger.users.get(login_id)
        login_ids = [f"also-{login_id}", login_id] if self._options.second_login_id else [login_id]
        return {
            "loginIds": login_ids,
            "userId": _user_id(login_id),
            "name": "",
            "email": login_id if "@" in login_id else "",
            "phone": "",
            "verifiedEmail": "@" in login_id,
            "verifiedPhone": False,
            "roleNames": [],
            "userTenants": [],
            "status": "enabled",
            "externalIds": login_ids,
            "picture": "",
            "test": False,
            "customAttributes": dict(entry.attributes if entry else written),
            "createdTime": 1704067200,
            "TOTP": False,
            "SAML": False,
            "OAuth": {},
            "webauthn": False,
            "password": False,
            "ssoAppIds": [],
            "givenName": "",
            "middleName": "",
            "familyName": "",
            "editable": True,
        }

    def _definitions(self, _request: Request) -> Response:
        """[D] S-P7, as answered when one is created. Where every name is declared there is no list to be had."""
        if self._options.declared is None or not self._options.definitions:
            return self.refuse(403, "this key may not read definitions")
        data = [
            {"name": name, "type": TYPES[kind][0], "options": [], "displayName": name, "editable": True}
            for name, kind in self._options.declared.items()
        ]
        return answer(200, {"data": data, "total": str(len(data))})

    def _license(self, _request: Request) -> Response:
        """[DC] S-P10."""
        if self._options.tier is None:
            return _page(500, "no licence today")
        return answer(200, {"rateLimitTier": self._options.tier})


def _text(body: dict[str, Any], key: str) -> str:
    text = body.get(key)
    if text is None or text == "":
        raise _Refused(400, MISSING, f"{key} is missing")
    if not isinstance(text, str):
        raise _Refused(400, ARGUMENTS, f"{key} must be a string")
    return text


def _user_id(login_id: str) -> str:
    return _USER_ID + base64.urlsafe_b64encode(login_id.encode()).decode().rstrip("=")


def _login_id(given: str) -> str:
    """The login id, whichever of the two was given."""
    if not given.startswith(_USER_ID):
        return given
    encoded = given.removeprefix(_USER_ID)
    try:
        login_id = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except ValueError:
        return given  # a login id that only looks like a user id
    return login_id or given


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """[DC] S-P10, S-P11: the three fields that the vendor's clients read."""
    description = DESCRIPTIONS.get(code, message)
    return answer(status, {"errorCode": code, "errorDescription": description, "errorMessage": message}, headers)


def _page(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """What stands before an API answers like this."""
    page = f"<html><title>{status}</title><h1>{message}</h1></html>"
    return Response(status, {"content-type": "text/html", **(headers or {})}, page.encode())
