"""What a sandbox is told: frozen values, checked once, here.

Whatever Calven's pages leave open is an option with a stated default. Times are in seconds; rates are shares, 0 to 1.
"""

import secrets
import uuid
from re import Pattern
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Status = Annotated[int, Field(ge=400, le=599)]
Code = Annotated[int, Field(ge=0)]

RetryAfter = Literal["int", "decimal", "date", "none"]
Scheme = Literal["hmac", "client-secret", "basic", "bearer"]

Refusal = Literal["429", "500", "502", "503", "400", "401", "408"]
Spoil = Literal["garbage", "truncated", "shuffled", "missing", "doubled", "foreign", "wrong-type"]
Fault = Literal[Refusal, Spoil, "reset", "lost", "torn", "slow"]

FAULTS: tuple[Fault, ...] = get_args(Fault)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CalvenOptions(_Frozen):
    """What Calven's documentation leaves open, and the one key that the sandbox knows.

    [D] expiration is in seconds (S-C1); the vendor's SDK takes it for milliseconds [DC], hence `expiration_unit`.
    Not documented, so defaults are ours: clock skew, lifetime, wire form of `resultCode`, types of values, the effect
    of a wrong region, a user twice in a request, every maximum.
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
    max_users: Annotated[int, Field(ge=1)] | None = None
    max_bytes: Annotated[int, Field(ge=1)] | None = None


class RosterOptions(_Frozen):
    """Who is in the directory. Patterns are searched for anywhere in the user's key."""

    known_users: frozenset[str] | None = None  # only these exist; None: everyone does
    unknown: Pattern[str] | None = None  # these don't exist
    poison: Pattern[str] | None = None  # a request with one of these is refused whole, with 400


class LedgerOptions(_Frozen):
    """What is kept of what was accepted. Attributes are merged [I]: DOC-1 says "write attribute name/value pairs"."""

    write: Literal["merge", "replace"] = "merge"
    journal: bool = False
    count_only: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.count_only and self.journal:
            raise ValueError("count_only keeps no journal")
        return self


class FaultOptions(_Frozen):
    """How slow it is and what goes wrong. The same seed and order of arrival give the same faults."""

    seed: int = 0
    latency_s: Seconds = 0.0
    jitter_s: Seconds = 0.0  # up to so much more, evenly spread
    rates: dict[Fault, Share] = {}
    on: Literal["data", "token", "all"] = "data"  # which requests the rates and fail_first_n are about
    slow_s: Seconds = 1.0  # what `slow` adds
    missing_share: Share = 0.5  # of the results, when they are `missing`
    retry_after: RetryAfter = "int"
    retry_after_s: Seconds = 1.0  # of a random 429 and 503
    fail_first_n: Annotated[int, Field(ge=0)] = 0
    fail_first_status: Status = 503
    down: tuple[tuple[Seconds, Seconds], ...] = ()  # (from_s, for_s) since the start
    unauthorized_once_at_s: Seconds | None = None


class QuotaOptions(_Frozen):
    """At most `requests` in any `window_s` seconds, token calls too. [D] Calven itself has no limit today (S-C13)."""

    requests: Annotated[int, Field(ge=1)]
    window_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    retry_after: RetryAfter = "int"


class Options(_Frozen):
    """One sandbox. `port` 0 is any free one."""

    port: Annotated[int, Field(ge=0, le=65535)] = 0
    calven: CalvenOptions = Field(default_factory=CalvenOptions)
    roster: RosterOptions = RosterOptions()
    ledger: LedgerOptions = LedgerOptions()
    faults: FaultOptions = FaultOptions()
    quota: QuotaOptions | None = None
