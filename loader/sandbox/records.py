"""A JSON API of the plainest kind: a request and the time in, a response out, accepted users in the ledger.

Whoever owns such an API describes it by options; nothing of it is documented but the token endpoint, which is that of
the client credentials grant of RFC 6749, to which every § belongs. The body of an error elsewhere is ours.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote_plus

import orjson

from loader.request import Request, Response
from loader.sandbox.api import Kind, Refused, answer, header, path_of, refusal
from loader.sandbox.ledger import Attributes, Ledger
from loader.sandbox.options import RecordsOptions
from loader.sandbox.roster import Roster

Fate = Literal["success", "unknown", "invalid"]
"""What became of one record."""

MESSAGES: dict[Fate, str] = {"success": "stored", "unknown": "no such user", "invalid": "not valid"}


class _GrantRefused(Refused):
    """Ends a token call with an error of §5.2."""

    def __init__(self, error: str, message: str, status: int = 400) -> None:
        super().__init__(status, message)
        self.error = error


class Records:
    """The endpoint for records and the one for tokens, for one client."""

    def __init__(self, options: RecordsOptions, roster: Roster, ledger: Ledger) -> None:
        self._options = options
        self._roster = roster
        self._ledger = ledger
        self._key = options.key if options.result_key is None else options.result_key
        self._tokens: dict[str, float] = {}  # live token -> when it expires, unix seconds; oldest first
        self._fixed_token = options.token
        self._issued = 0
        self._fates: Counter[Fate] = Counter()
        self._duplicates = 0
        self._largest = 0
        self._endpoints: dict[str, tuple[Kind, str, Callable[[Request, float], Response]]] = {
            options.path: ("data", options.method, self._write),
            options.token_path: ("token", "POST", self._token),
        }

    @property
    def entries(self) -> tuple[str, ...]:
        return () if self._options.results is None else (self._options.results,)

    def renamed(self, entry: dict[str, Any], user: object) -> dict[str, Any]:
        return {**entry, self._key: user}

    def endpoint(self, path: str) -> tuple[Kind, str]:
        return (self._endpoints[path][0] if path in self._endpoints else "other"), path

    def users(self, request: Request) -> int:
        if path_of(request.path) != self._options.path:
            return 0
        try:
            return len(self._records(request))
        except Refused:
            return 0

    def handle(self, request: Request, now: float) -> Response:
        if (path := path_of(request.path)) not in self._endpoints:
            return self.refuse(404, f"there is no {path}")
        _, method, endpoint = self._endpoints[path]
        if request.method != method:
            return self.refuse(405, f"{request.method} is not allowed here", {"allow": method})
        try:
            return endpoint(request, now)
        except _GrantRefused as refused:
            return self._grant_refusal(request, refused)
        except Refused as refused:
            return self.refuse(refused.status, str(refused))

    def refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
        return refusal(status, message, {**self._challenge(status), **(headers or {})})

    def revoke(self) -> None:
        """Passwords and API keys are no tokens, and stay."""
        self._tokens.clear()
        self._fixed_token = None

    def facts(self) -> dict[str, object]:
        return {
            "tokens_issued": self._issued,
            "results": dict(sorted(self._fates.items())),
            "duplicates": self._duplicates,
            "largest_request": self._largest,
        }

    # Credentials

    def _token(self, request: Request, now: float) -> Response:
        """§4.4.2 and §4.4.3: form-encoded parameters; no refresh token. Tokens live side by side."""
        if "oauth" not in self._options.schemes:
            raise _GrantRefused("unauthorized_client", "this client gets no tokens")
        form = _form(request)
        self._must_be_the_client(request, form)
        if "grant_type" not in form:
            raise _GrantRefused("invalid_request", "grant_type is missing")
        if form["grant_type"] != "client_credentials":
            raise _GrantRefused("unsupported_grant_type", "grant_type must be client_credentials")
        scope = form.get("scope")
        if scope and self._options.scopes and not set(scope.split()) <= self._options.scopes:
            raise _GrantRefused("invalid_scope", f"this client has the scopes {' '.join(sorted(self._options.scopes))}")
        body: dict[str, object] = {"access_token": self._issue(now), "token_type": "Bearer"}
        if self._options.expires_in != "absent":
            lifetime_s = self._options.token_lifetime_s
            whole = int(lifetime_s) if lifetime_s.is_integer() else lifetime_s
            body["expires_in"] = str(whole) if self._options.expires_in == "text" else whole
        if scope:
            body["scope"] = scope
        return answer(200, body, {"cache-control": "no-store"})

    def _issue(self, now: float) -> str:
        for expired in list(takewhile(lambda token: self._tokens[token] <= now, self._tokens)):
            del self._tokens[expired]
        self._issued += 1
        seed = f"{self._options.client_secret} {self._issued} {now}".encode()
        token = base64.urlsafe_b64encode(hashlib.sha256(seed).digest()).decode().rstrip("=")
        self._tokens[token] = now + self._options.token_lifetime_s
        return token

    def _must_be_the_client(self, request: Request, form: Mapping[str, str]) -> None:
        """§2.3.1: by Basic, where id and secret are form-encoded first, or by the body; never by both (§2.3)."""
        given = header(request, "authorization")
        in_body = "client_secret" in form
        if given and in_body:
            raise _GrantRefused("invalid_request", "credentials come by the header or by the body, not by both")
        if (self._options.client_auth, in_body) in {("basic", True), ("body", False)}:
            raise _GrantRefused("invalid_client", f"credentials come by {self._options.client_auth}", 401)
        if in_body:
            pair = form.get("client_id", ""), form["client_secret"]
        else:
            name, _, secret = _basic(given).partition(":")
            pair = name, secret
            if self._options.client_encoding == "form":
                pair = unquote_plus(name), unquote_plus(secret)
        if pair != (self._options.client_id, self._options.client_secret):
            raise _GrantRefused("invalid_client", "the client is unknown, or its secret wrong", 401)

    def _grant_refusal(self, request: Request, refused: _GrantRefused) -> Response:
        """§5.2; a client that tried the header is told what it should have held."""
        tried = refused.status == 401 and header(request, "authorization")
        headers = {"cache-control": "no-store", **({"www-authenticate": 'Basic realm="sandbox"'} if tried else {})}
        return answer(refused.status, {"error": refused.error, "error_description": str(refused)}, headers)

    def _must_be_authentic(self, request: Request, now: float) -> None:
        """RFC 6750 bearer tokens, RFC 7617 Basic, or a header that holds the key. One that is right is enough."""
        options = self._options
        scheme, _, token = header(request, "authorization").partition(" ")
        rights = {
            "oauth": scheme.lower() == "bearer" and self._tokens.get(token, 0.0) > now,
            "bearer": scheme.lower() == "bearer" and token == self._fixed_token,
            "basic": _basic(header(request, "authorization")) == f"{options.client_id}:{options.client_secret}",
            "api-key": header(request, options.api_key_header.lower()) == options.client_secret,
        }
        if not any(rights[scheme] for scheme in options.schemes):
            raise Refused(401, "no valid credentials")

    def _challenge(self, status: int) -> dict[str, str]:
        """RFC 9110 §15.5.2: a 401 names a scheme. An API key has none that is registered."""
        if status != 401:
            return {}
        is_basic = not self._options.schemes & {"oauth", "bearer"} and "basic" in self._options.schemes
        return {"www-authenticate": 'Basic realm="sandbox"' if is_basic else 'Bearer realm="sandbox"'}

    # Records

    def _write(self, request: Request, now: float) -> Response:
        """A request is taken record by record if results can tell of each, else whole or not at all."""
        self._must_be_authentic(request, now)
        options = self._options
        if options.max_bytes is not None and len(request.body) > options.max_bytes:
            raise Refused(options.too_large_status, f"more than {options.max_bytes} bytes")
        records = self._records(request)
        if options.max_users is not None and len(records) > options.max_users:
            raise Refused(options.too_large_status, f"more than {options.max_users} records")
        users = [self._user(number, record) for number, record in enumerate(records)]
        attributes = [self._attributes(number, record) for number, record in enumerate(records)]
        self._largest = max(self._largest, len(users))
        repeated = len(users) - len(set(users))
        self._duplicates += repeated
        if repeated and options.repeated == "refuse":
            raise Refused(options.invalid_status, f"one {options.key} is there more than once")
        for user in users:
            if self._roster.is_poison(user):
                raise Refused(options.invalid_status, f"{options.key} {user!r} is not valid")
        fates = [self._fate(user, values) for user, values in zip(users, attributes, strict=True)]
        if options.results is None or options.body == "one":
            self._must_all_succeed(users, fates)
        self._fates.update(fates)
        good = [number for number, fate in enumerate(fates) if fate == "success"]
        self._ledger.accept([users[n] for n in good], [attributes[n] for n in good])
        return self._answer(users, fates)

    def _records(self, request: Request) -> list[Any]:
        """The records in a body, whatever they are."""
        if header(request, "content-type").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "Content-Type must be application/json")
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            raise Refused(400, f"the body is not JSON: {error}") from None
        wrapper = self._options.wrapper
        if self._options.body == "one":
            return [body]
        if self._options.body == "wrapped":
            shape = f"an object with an array {wrapper}, and no more"
            body = body[wrapper] if isinstance(body, dict) and body.keys() == {wrapper} else None
        else:
            shape = "an array"
        if not isinstance(body, list):
            raise Refused(self._options.invalid_status, f"the body must be {shape}")
        return body

    def _user(self, number: int, record: object) -> str:
        user = record.get(self._options.key) if isinstance(record, dict) else None
        if not isinstance(user, str) or not user:
            raise Refused(
                self._options.invalid_status,
                f"record {number} must be an object whose {self._options.key} is a string, and not empty",
            )
        return user

    def _attributes(self, number: int, record: dict[str, Any]) -> Attributes:
        key, place = self._options.key, self._options.attributes
        if place is None:
            return {name: value for name, value in record.items() if name != key}
        attributes = record.get(place)
        if record.keys() != {key, place} or not isinstance(attributes, dict):
            raise Refused(self._options.invalid_status, f"record {number} must have {key} and an object {place}")
        return attributes

    def _fate(self, user: str, attributes: Attributes) -> Fate:
        if not self._roster.exists(user):
            return "unknown"
        failing = self._options.failing
        if failing is not None and any(
            failing.search(f"{name}={'' if value is None else value}") for name, value in attributes.items()
        ):
            return "invalid"
        return "success"

    def _must_all_succeed(self, users: list[str], fates: list[Fate]) -> None:
        """The first that doesn't decides: of a user that isn't there the request is refused as such."""
        statuses = {"unknown": self._options.unknown_status, "invalid": self._options.invalid_status}
        for user, fate in zip(users, fates, strict=True):
            if fate != "success":
                self._fates[fate] += 1
                raise Refused(statuses[fate], f"{self._options.key} {user!r}: {MESSAGES[fate]}")

    def _answer(self, users: list[str], fates: list[Fate]) -> Response:
        """Results in the order sent, at their place; no body if they have none."""
        options = self._options
        if options.results is None:
            return Response(options.success_status)
        codes = {"success": options.success, "unknown": options.unknown, "invalid": options.invalid}
        body: Any = [
            {self._key: user, options.status: codes[fate], "message": MESSAGES[fate]}
            for user, fate in zip(users, fates, strict=True)
        ]
        if options.body == "one":
            body = body[0]
        for name in reversed(options.results.split(".") if options.results else []):
            body = {name: body}
        return answer(options.success_status, body)


def _form(request: Request) -> dict[str, str]:
    """§4.4.2 and appendix B; §3.2: a parameter without a value is as if absent, and none may come twice."""
    if header(request, "content-type").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise _GrantRefused("invalid_request", "Content-Type must be application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(request.body.decode(), strict_parsing=bool(request.body), errors="strict")
    except ValueError as error:
        raise _GrantRefused("invalid_request", f"the body is no form: {error}") from None
    form = dict(pairs)
    if len(form) < len(pairs):
        raise _GrantRefused("invalid_request", "a parameter is there more than once")
    return form


def _basic(given: str) -> str:
    """What a Basic Authorization header holds (RFC 7617); "" if it is no such header."""
    scheme, _, encoded = given.partition(" ")
    try:
        return base64.b64decode(encoded, validate=True).decode() if scheme.lower() == "basic" else ""
    except ValueError:  # not base64, or not text
        return ""
