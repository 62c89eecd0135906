"""What a sandbox is told: frozen values, checked once, here.

Whatever the APIs' pages leave open is an option with a stated default. Times are in seconds; rates are shares, 0 to 1.
"""

import secrets
import uuid
from re import Pattern
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Status = Annotated[int, Field(ge=400, le=599)]
AnswerStatus = Annotated[int, Field(ge=200, le=599)]
Code = Annotated[int, Field(ge=0)]
Number = Annotated[int, Field(ge=0)]

ApiName = Literal["calven", "dx", "descope", "scim", "http"]
RetryAfter = Literal["int", "decimal", "date", "none", "negative", "huge", "words"]
Scheme = Literal["hmac", "client-secret", "basic", "bearer"]
RecordsScheme = Literal["oauth", "bearer", "basic", "api-key"]
AttributeType = Literal["string", "number", "boolean", "singleselect", "multiselect", "date"]

# fmt: off
Refusal = Literal[
    "429", "500", "502", "503", "400", "401", "408", "302", "403", "404", "409", "413", "422", "425", "504", "portal",
]
Spoil = Literal[
    "garbage", "truncated", "shuffled", "missing", "doubled", "foreign", "wrong-type",
    "empty", "charset", "deep", "huge",
]
# fmt: on
Fault = Literal[Refusal, Spoil, "reset", "lost", "torn", "slow"]

FAULTS: tuple[Fault, ...] = get_args(Fault)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CalvenOptions(_Frozen):
    """What Calven's documentation leaves open, and the one key that the sandbox knows.

    [D] expiration is in seconds (S-C1); the vendor's SDK takes it for milliseconds [DC], hence `expiration_unit`.
    Not documented, so defaults are ours: clock skew, lifetime, wire form of `resultCode`, types of values, the effect
    of a wrong region, a user twice in a request, every maximum; and of a group hierarchy: the status of one that breaks
    the rules, a parent that is no group of it, an empty one, the same relationship twice.
    """

    key_id: str = Field(default_factory=lambda: str(uuid.uuid4()).upper(), min_length=1)  # [D] example: such a UUID
    secret: str = Field(default_factory=lambda: secrets.token_hex(32), min_length=1, repr=False)
    token: str | None = Field(default=None, min_length=1, repr=False)  # a bearer token valid until revoked
    schemes: frozenset[Scheme] = frozenset(get_args(Scheme))  # pages differ on what one key may do: all, unless told
    token_lifetime_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3600.0  # [D] example of S-C3; S-C1: 409
    expiration_unit: Literal["s", "ms"] = "s"
    clock_skew_s: Seconds = 300.0
    result_code: Literal["number", "string", "name", "object"] = "number"  # [I] the sibling time-off is enum<number>
    codes: tuple[tuple[Code, Pattern[str]], ...] = ()  # users answered with this result code, and not written
    region: str | None = None  # the only region served; None: any
    repeated: Literal["last", "refuse"] = "last"  # the same user twice in a request
    values: Literal["any", "string"] = "any"  # [D] shows strings only
    hierarchy_status: Status = 400
    hierarchy_unknown_parent: Literal["accept", "refuse"] = "refuse"  # [D] S-C6 "expects a complete payload"
    hierarchy_empty: Literal["accept", "refuse"] = "accept"  # then there is no hierarchy any more
    hierarchy_repeated: Literal["accept", "refuse"] = "accept"  # with another parent it is always refused [D]
    max_users: Annotated[int, Field(ge=1)] | None = None
    max_bytes: Annotated[int, Field(ge=1)] | None = None


class DxOptions(_Frozen):
    """What DX's documentation leaves open, and the one token that the sandbox knows.

    [D] statuses are 200, 422 "There was an error with your request" and 429 (S-D1); which error has which is not
    documented. Neither are the unknown user, `failures`, `updated` but for true, a name twice in a request, and maxima:
    those defaults are ours.
    """

    token: str = Field(default_factory=lambda: secrets.token_hex(16), min_length=1, repr=False)
    scopes: frozenset[str] = frozenset({"snapshots:read", "users:write"})  # [D] the first is in every token (S-D1)
    auth_status: AnswerStatus = 401  # of not_authed, invalid_auth and not_authorized
    unknown_status: AnswerStatus = 404
    unknown_error: str = "not_found"  # [DC] S-D8, as no_users_found is: codes of other methods
    groups: frozenset[str] = frozenset()  # attribute groups that are there from the start
    group_case: Literal["ignore", "exact"] = "ignore"  # [D] S-D10 ignores case when looking for a group; S-D9 doesn't
    failing: Pattern[str] | None = None  # attributes that end in `failures`, searched for in "name=value"
    failure: Literal["object", "text", "name"] = "object"  # the shape of an element of `failures`
    updated: Literal["always", "changed"] = "always"  # when `updated` is true. [D] shows no false
    values: Literal["string", "any"] = "string"  # [D] S-D10: a string; null in DOC-3
    repeated: Literal["last", "refuse"] = "last"  # the same attribute twice in a request
    email: Literal["sent", "lower"] = "sent"  # how the answer writes it
    edge: Literal["json", "html"] = "json"  # the body of 429 and 5xx
    max_attributes: Annotated[int, Field(ge=1)] | None = None  # more: 422
    max_bytes: Annotated[int, Field(ge=1)] | None = None  # more: 413


class DescopeOptions(_Frozen):
    """What Descope's documentation leaves open, and the one management key that the sandbox knows.

    [D] names no status but 200 and no code of an error. Codes are the vendor's clients' [DC] (S-P10, S-P11); statuses,
    the code for an undeclared attribute or a value of the wrong type, and what null does, are ours. Whether a patch
    merges the map of attributes isn't documented either: that is `LedgerOptions.write`.
    """

    project_id: str = Field(default_factory=lambda: f"P2{secrets.token_hex(13)}", min_length=1)
    management_key: str = Field(default_factory=lambda: f"K2{secrets.token_hex(24)}", min_length=1, repr=False)
    declared: dict[str, AttributeType] | None = None  # None: every name is, for values of any type
    definitions: bool = True  # whether the key may read what is declared
    undeclared_error: str = "E011003"  # [I]
    wrong_type_error: str = "E011004"  # [I]
    unknown_status: Status = 400
    null: Literal["removes", "stays"] = "removes"  # what the value null does: the attribute goes, or is null
    bulk_key: Literal["loginId", "identifier"] = "loginId"  # [DC] Python, Go and Node; .NET: identifier
    bulk_failures: Literal["failedUsers", "additionalErrors"] = "failedUsers"
    repeated: Literal["last", "refuse"] = "last"  # the same user twice in a batch
    second_login_id: bool = False  # answers list one more, before the one that was sent
    tier: Literal["tier1", "tier2", "tier3", "tier4"] | None = "tier1"  # [DC]; None: the call for it fails
    edge: Literal["json", "html"] = "json"  # the body of 429 and 5xx; [DC] "from infra" it may be anything
    max_users: Annotated[int, Field(ge=1)] | None = None  # in a batch; more: 400
    max_bytes: Annotated[int, Field(ge=1)] | None = None  # more: 413


class ScimOptions(_Frozen):
    """What SCIM (RFC 7643, RFC 7644) leaves to each service, and the one client that the sandbox knows.

    Maxima are those of the RFC's example of a configuration (RFC 7643 §8.5). A base path, the effect of null in a
    PATCH and how much of a filter is too much are documented nowhere: those defaults are ours.
    """

    token: str = Field(default_factory=lambda: secrets.token_hex(32), min_length=1, repr=False)
    basic_user: str = Field(default="scim", pattern=r"^[^:]+$")  # §2: the client may use Basic instead
    basic_password: str = Field(default_factory=lambda: secrets.token_hex(32), min_length=1, repr=False)
    prefix: Annotated[str, Field(pattern=r"^(/[^/?#]+)*$")] = ""  # the base path, such as "/scim/v2"
    key: str = Field(default="userName", pattern=r"^[A-Za-z]\w*(\.[A-Za-z]\w*)?$")  # what the roster's names are
    case_exact: bool = False  # whether that minds case; RFC 7643 §4.1.1: userName doesn't
    public_config: bool = True  # whether the configuration needs no token; RFC 7643 §5: some of it SHOULD NOT
    patch_answer: Literal["resource", "empty"] = "resource"  # §3.5.2: 200 with the user, or 204
    null: Literal["removes", "refused"] = "removes"  # what the value null does; RFC 7643 §2.5: it means "unassigned"
    unmatched_add: Literal["makes", "noTarget"] = "makes"  # `add` below a value filter that selects nothing: it is made
    attributes: frozenset[str] | None = None  # paths that the schema has, in any case; None: every one. Others: 400
    failing: Pattern[str] | None = None  # a PATCH with one of these is 400 invalidValue, searched for in "path=value"
    bulk: bool = True  # False: 501
    search: bool = True  # whether there is POST /Users/.search; False: 404
    no_resources: Literal["empty", "absent"] = "empty"  # `Resources` where none match; §3.4.2 asks for it if some do
    max_operations: Annotated[int, Field(ge=0)] = 1000  # in a bulk request; more: 413
    max_payload_size: Annotated[int, Field(ge=0)] = 1_048_576  # bytes of a bulk request; more: 413
    max_results: Annotated[int, Field(ge=1)] = 200  # on a page
    max_comparisons: Annotated[int, Field(ge=1)] | None = None  # in a filter; more: 400 tooMany


class RecordsOptions(_Frozen):
    """A JSON API of the plainest kind, described by its owner, and the one client that the sandbox knows.

    Nothing here is anybody's documentation but the token endpoint, which is RFC 6749's client credentials grant.
    """

    path: Annotated[str, Field(pattern=r"^(/[^/?#]+)+$")] = "/v1/records"
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    body: Literal["wrapped", "list", "one"] = "wrapped"  # {wrapper: [records]}, [records], or one record
    wrapper: str = Field(default="records", min_length=1)
    key: str = Field(default="id", min_length=1)  # the field of a record that says whose it is
    attributes: str | None = Field(default=None, min_length=1)  # where the others are; None: beside the key
    results: str | None = "results"  # where the answer has them: "a.b" is b in a, "" itself; None: no body
    result_key: str | None = None  # the field of a result that says whose it is; None: as in the record
    status: str = Field(default="status", min_length=1)  # the field of a result that says what became of the record
    success: str | int | bool = "ok"
    unknown: str | int | bool = "not_found"
    invalid: str | int | bool = "invalid"
    success_status: Annotated[int, Field(ge=200, le=299)] = 200
    unknown_status: Status = 404  # of a request where no result can tell of the user
    invalid_status: Status = 422  # the same; and of a body that is not as it should be, and of a poisoned one
    failing: Pattern[str] | None = None  # records with one of these are invalid, searched for in "name=value"
    repeated: Literal["last", "refuse"] = "last"  # the same user twice in a request
    max_users: Annotated[int, Field(ge=1)] | None = None
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    too_large_status: Status = 413  # of more than a maximum

    schemes: frozenset[RecordsScheme] = frozenset(get_args(RecordsScheme))
    token: str | None = Field(default=None, min_length=1, repr=False)  # a bearer token valid until revoked
    api_key_header: str = Field(default="x-api-key", min_length=1)
    client_id: str = Field(default_factory=lambda: str(uuid.uuid4()), min_length=1)  # the user name of Basic, too
    client_secret: str = Field(default_factory=lambda: secrets.token_hex(32), min_length=1, repr=False)  # the API key
    token_path: Annotated[str, Field(pattern=r"^(/[^/?#]+)+$")] = "/oauth/token"
    client_auth: Literal["any", "basic", "body"] = "any"  # RFC 6749 §2.3.1: Basic MUST be, the body MAY be taken
    client_encoding: Literal["form", "raw"] = "form"  # in Basic; §2.3.1: form; many services differ
    scopes: frozenset[str] = frozenset()  # what may be asked for; empty: anything
    token_lifetime_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3600.0
    expires_in: Literal["number", "text", "absent"] = "number"  # RFC 6749 §5.1: RECOMMENDED; text is seen in the wild


class RosterOptions(_Frozen):
    """Who is in the directory. Patterns are searched for anywhere in the user's key."""

    known_users: frozenset[str] | None = None  # only these exist; None: everyone does
    unknown: Pattern[str] | None = None  # these don't exist
    poison: Pattern[str] | None = None  # a request with one of these is refused whole


class LedgerOptions(_Frozen):
    """What is kept of what was accepted.

    `write` is for APIs whose documents leave open what becomes of attributes that are not sent. For Calven's "merge" is
    [I]: DOC-1 says "write attribute name/value pairs".
    """

    write: Literal["merge", "replace"] = "merge"
    journal: bool = False
    count_only: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.count_only and self.journal:
            raise ValueError("count_only keeps no journal")
        return self


class FaultOptions(_Frozen):
    """How slow it is and what goes wrong. The same seed and order of arrival give the same faults.

    Rates are about the requests that `on`, `during`, `only` and `about` all let them be about. A connection that is
    down is so for all.
    """

    seed: int = 0
    latency_s: Seconds = 0.0
    jitter_s: Seconds = 0.0  # up to so much more, evenly spread
    rates: dict[Fault, Share] = {}
    on: Literal["data", "token", "all"] = "data"  # which requests the rates and fail_first_n are about
    during: tuple[tuple[Seconds, Seconds], ...] = ()  # (from_s, for_s) since the start; empty: always
    only: tuple[tuple[Number, Number], ...] = ()  # (first, count) of the requests of a kind, from 0; empty: all
    about: Pattern[str] | None = None  # requests whose body this is found in; None: any
    refuses_at_once: bool = False  # without latency
    slow_s: Seconds = 1.0  # what `slow` adds
    missing_share: Share = 0.5  # of the results, when they are `missing`
    retry_after: RetryAfter = "int"
    retry_after_s: Seconds = 1.0  # of a random 429 and 503
    fail_first_n: Annotated[int, Field(ge=0)] = 0
    fail_first_status: Status = 503
    down: tuple[tuple[Seconds, Seconds], ...] = ()  # (from_s, for_s) since the start
    unauthorized_once_at_s: Seconds | None = None


class WorkOptions(_Frozen):
    """What a request for users costs the API, once it has passed the quotas: so much time, at one of so many places.

    `at_once` None: each request has a place of its own; else more than that wait for one, first come, first served.
    """

    request_s: Seconds = 0.0
    user_s: Seconds = 0.0  # more, for each of its users
    at_once: Annotated[int, Field(ge=1)] | None = None

    @field_validator("at_once")
    @classmethod
    def _takes_time(cls, at_once: int | None, others: ValidationInfo) -> int | None:
        if at_once is not None and not any(others.data.values()):
            raise ValueError("work that takes no time needs no place")
        return at_once


class QuotaOptions(_Frozen):
    """At most so many `requests`, or `users` in them, in a window of `window_s` seconds. Token calls carry no users.

    A window is "sliding", so that the limit holds in any stretch of that length; or it is "fixed", and begins at every
    multiple of `window_s` of the unix clock. After a breach everything is refused for `penalty_s`.
    """

    requests: Annotated[int, Field(ge=1)] | None = None
    users: Annotated[int, Field(ge=1)] | None = None
    window_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    kind: Literal["sliding", "fixed"] = "sliding"
    penalty_s: Seconds = 0.0
    counts_refused: bool = False  # what is refused uses the quota up as well, and begins the penalty anew
    retry_after: RetryAfter = "int"

    @model_validator(mode="after")
    def _of_one_unit(self) -> Self:
        if (self.requests is None) == (self.users is None):
            raise ValueError("a quota is of requests or of users")
        return self

    @property
    def limit(self) -> int:
        return self.requests or self.users or 0

    def __str__(self) -> str:
        unit = "requests" if self.requests else "users"
        penalty = f", penalty {self.penalty_s:g}s" if self.penalty_s else ""
        return f"{self.limit} {unit}/{self.window_s:g}s {self.kind}{penalty}"


DOCUMENTED_QUOTAS: dict[ApiName, tuple[QuotaOptions, ...]] = {
    "calven": (),  # [D] S-C13: no rate limiting today
    # [D] S-D1: an account's, sliding. That its 429 has a Retry-After is documented nowhere.
    "dx": (QuotaOptions(requests=1000, window_s=60, retry_after="none"),),
    # [D] S-P1, the newer copy: /v1/mgmt/user/*, a project's, "60-second backoff"; [I] that is a penalty, and the window
    # slides. [DC] S-P10: whole seconds.
    "descope": (QuotaOptions(requests=500, window_s=60, penalty_s=60),),
    "scim": (),
    "http": (),
}


class Options(_Frozen):
    """One sandbox, which emulates one API. `port` 0 is any free one. `quotas` None: those that the API documents."""

    api: ApiName = "calven"
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    calven: CalvenOptions = Field(default_factory=CalvenOptions)
    dx: DxOptions = Field(default_factory=DxOptions)
    descope: DescopeOptions = Field(default_factory=DescopeOptions)
    scim: ScimOptions = Field(default_factory=ScimOptions)
    http: RecordsOptions = Field(default_factory=RecordsOptions)
    roster: RosterOptions = RosterOptions()
    ledger: LedgerOptions = LedgerOptions()
    faults: FaultOptions = FaultOptions()
    work: WorkOptions = WorkOptions()
    quotas: tuple[QuotaOptions, ...] | None = None

    @property
    def quotas_in_force(self) -> tuple[QuotaOptions, ...]:
        return DOCUMENTED_QUOTAS[self.api] if self.quotas is None else self.quotas
