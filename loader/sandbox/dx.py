"""DX's Web API as its pages describe it: a request and the time in, a response out, accepted users in the ledger.

Sources: DOC-3 "users.attributes.update", S-D1 the overview, S-D3 the body of an error, S-D6 "auth.whoami", S-D7 the
code for a missing scope, S-D8 the vendor's command line, S-D9 and S-D10 the help pages on attributes. Methods lie at
the root of the host [D]. The status and the code of an error are documented for hardly any; see the options.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from loader.request import Request, Response
from loader.sandbox.api import Kind, Refused, answer, header, path_of
from loader.sandbox.ledger import Attributes, Ledger
from loader.sandbox.options import DxOptions
from loader.sandbox.roster import Roster

UPDATE = "/users.attributes.update"
WHOAMI = "/auth.whoami"
INFO = "/auth.info"

SCOPE = "users:write"  # [D] DOC-3

# [D] not_authed, invalid_auth, not_authorized, invalid_arguments; [DC] not_found; ours: the others.
CODES = {
    401: "invalid_auth",
    403: "not_authorized",
    404: "not_found",
    408: "request_timeout",
    409: "conflict",
    425: "too_early",
    429: "rate_limited",
}


class _Refused(Refused):
    """Ends the handling of a request with this status and code; the message is for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, message)
        self.code = code


class Dx:
    """The method for user attributes and two that tell about the token, for one organization token."""

    entries = ("user",)

    def __init__(self, options: DxOptions, roster: Roster, ledger: Ledger) -> None:
        self._options = options
        self._roster = roster
        self._ledger = ledger
        self._live = True
        self._groups = {self._key(name): name for name in sorted(options.groups)}
        self._failures = 0
        self._duplicates = 0
        self._largest = 0
        self._methods: dict[str, tuple[Kind, str, Callable[[Request], Response]]] = {
            UPDATE: ("data", "POST", self._update),
            WHOAMI: ("token", "GET", self._whoami),
            INFO: ("token", "GET", self._info),
        }

    def renamed(self, entry: dict[str, Any], user: object) -> dict[str, Any]:
        return {**entry, "email": user}

    def endpoint(self, path: str) -> tuple[Kind, str]:
        return (self._methods[path][0] if path in self._methods else "other"), path

    def users(self, request: Request) -> int:
        """[D] One user a request."""
        try:
            self._arguments(request)
        except Refused:
            return 0
        return 1

    def handle(self, request: Request, now: float) -> Response:
        if (path := path_of(request.path)) not in self._methods:
            return self.refuse(404, f"there is no method {path}")
        _, verb, method = self._methods[path]
        if request.method != verb:
            return self.refuse(405, f"{request.method} is not allowed here", {"allow": verb})
        try:
            self._must_be_authentic(request)
            return method(request)
        except _Refused as refused:
            return _error(refused.status, refused.code, str(refused))

    def refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
        if self._options.edge == "html" and (status == 429 or status >= 500):
            page = f"<html><title>{status}</title><h1>{message}</h1></html>"
            return Response(status, {"content-type": "text/html", **(headers or {})}, page.encode())
        code = CODES.get(status, "invalid_arguments" if status < 500 else "internal_error")
        return _error(status, code, message, headers)

    def revoke(self) -> None:
        self._live = False

    def facts(self) -> dict[str, object]:
        """`largest_request` is in attributes."""
        return {
            "groups": list(self._groups.values()),
            "failures": self._failures,
            "duplicates": self._duplicates,
            "largest_request": self._largest,
        }

    # The token

    def _must_be_authentic(self, request: Request) -> None:
        """[D] DOC-3: not_authed without a token, invalid_auth with one that is no good."""
        scheme, _, token = header(request, "authorization").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _Refused(self._options.auth_status, "not_authed", "no authentication token provided")
        if not self._live or token != self._options.token:
            raise _Refused(self._options.auth_status, "invalid_auth", "the token is not valid")

    def _whoami(self, _request: Request) -> Response:
        """[D] S-D6, for an organization token."""
        account = {"name": "Sandbox"}
        kind = "account_web_api_token"
        return answer(200, {"ok": True, "auth_token_type": kind, "account": account, "user": None, "team": None})

    def _info(self, _request: Request) -> Response:
        """[DC] S-D8."""
        about = {
            "token_type": "account_web_api_token",
            "token_name": "sandbox",
            "scopes": sorted(self._options.scopes),
            "expires_at": None,
            "created_at": "2024-01-01T00:00:00Z",
        }
        return answer(200, {"ok": True, "auth": about, "account": {"name": "Sandbox"}})

    # User attributes

    def _update(self, request: Request) -> Response:
        """[D] DOC-3: merges what is sent; a null removes, and isn't in the answer. Attributes fail one by one [I]."""
        if SCOPE not in self._options.scopes:
            raise _Refused(self._options.auth_status, "not_authorized", f"the token lacks the scope {SCOPE}")
        if self._options.max_bytes is not None and len(request.body) > self._options.max_bytes:
            raise _Refused(413, "invalid_arguments", f"more than {self._options.max_bytes} bytes")
        email, attributes = self._arguments(request)
        self._largest = max(self._largest, len(attributes))
        self._note_repeated([attribute["name"] for attribute in attributes])
        if self._roster.is_poison(email):
            raise _invalid(f"email {email!r} is not valid")
        if not self._roster.exists(email):
            raise _Refused(self._options.unknown_status, self._options.unknown_error, f"no user {email!r}")

        taken: Attributes = {}
        failures: list[object] = []
        for attribute in attributes:
            if self._fails(**attribute):
                failures.append(self._failure(**attribute))
            else:
                taken[self._group(**attribute)] = attribute["value"]
        self._failures += len(failures)
        shown = self._shown(email, taken)
        if taken:
            self._ledger.accept([email], [taken], write="merge", null_removes=True)
        user = {
            "id": f"user_{hashlib.blake2b(email.encode(), digest_size=6).hexdigest()}",
            "email": email if self._options.email == "sent" else email.lower(),
            "failures": failures,
            "attributes": shown,
        }
        return answer(200, {"ok": True, "user": user})

    def _arguments(self, request: Request) -> tuple[str, list[dict[str, Any]]]:
        """The two arguments [D]. Whether DX minds further ones is not documented; a loader sends none."""
        arguments = _body(request)
        if not isinstance(arguments, dict) or arguments.keys() != {"email", "attributes"}:
            raise _invalid("the arguments are email and attributes")
        email, attributes = arguments["email"], arguments["attributes"]
        if not isinstance(email, str) or not email:
            raise _invalid("email must be a string, and not empty")
        if not isinstance(attributes, list):
            raise _invalid("attributes must be an array")
        if self._options.max_attributes is not None and len(attributes) > self._options.max_attributes:
            raise _invalid(f"more than {self._options.max_attributes} attributes")
        for number, attribute in enumerate(attributes):
            where = f"attributes[{number}]"
            if not isinstance(attribute, dict) or attribute.keys() != {"name", "value"}:
                raise _invalid(f"{where} must be an object with exactly name and value")
            if not isinstance(attribute["name"], str) or not attribute["name"]:
                raise _invalid(f"{where}: name must be a string, and not empty")
            if self._options.values == "string" and not isinstance(attribute["value"], str | None):
                raise _invalid(f"{where}: value must be a string or null")
        return email, attributes

    def _note_repeated(self, names: list[str]) -> None:
        repeated = len(names) - len({self._key(name) for name in names})
        self._duplicates += repeated
        if repeated and self._options.repeated == "refuse":
            raise _invalid("an attribute is there more than once")

    def _key(self, name: str) -> str:
        return name.casefold() if self._options.group_case == "ignore" else name

    def _group(self, name: str, value: object) -> str:
        """The group's own name, which is answered [I]. A name without a group makes one [D]; a null, none [I]."""
        key = self._key(name)
        return self._groups.get(key, name) if value is None else self._groups.setdefault(key, name)

    def _shown(self, email: str, taken: Attributes) -> list[dict[str, object]]:
        """Attributes for the answer, in the order sent [I]; to be called before they are written."""
        entry = self._ledger.users.get(email) if self._options.updated == "changed" else None
        before = entry.attributes if entry else {}
        return [
            {"name": name, "value": value, "updated": name not in before or before[name] != value}
            for name, value in taken.items()
            if value is not None
        ]

    def _fails(self, name: str, value: object) -> bool:
        failing = self._options.failing
        return failing is not None and failing.search(f"{name}={'' if value is None else value}") is not None

    def _failure(self, name: str, value: object) -> object:
        """An element of `failures`, which the page shows empty; every form of it is ours."""
        why = "could not be updated"
        forms = {"object": {"name": name, "value": value, "error": why}, "text": f"{name}: {why}", "name": name}
        return forms[self._options.failure]


def _body(request: Request) -> object:
    """[D] S-D1: arguments as JSON or as a URL-encoded form. That a form holds `attributes` as JSON text is ours."""
    kind = header(request, "content-type").partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            return orjson.loads(request.body)
        if kind != "application/x-www-form-urlencoded":
            raise _invalid("Content-Type must be application/json or application/x-www-form-urlencoded")
        form = parse_qs(request.body.decode(), keep_blank_values=True, strict_parsing=True)
        arguments: dict[str, object] = {name: texts[-1] for name, texts in form.items()}
        return {**arguments, "attributes": orjson.loads(form.get("attributes", [""])[-1])}
    except ValueError as error:  # orjson's errors are such, too
        raise _invalid(f"the body can't be read: {error}") from None


def _invalid(message: str) -> _Refused:
    """[D] S-D1 has 422 for "an error with your request", S-D3 the code."""
    return _Refused(422, "invalid_arguments", message)


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """[D] S-D3: `ok` and `error`. [DC] S-D8: the vendor's clients look for `error_details.message`."""
    return answer(status, {"ok": False, "error": code, "error_details": {"message": message}}, headers)
