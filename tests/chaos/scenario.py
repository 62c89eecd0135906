"""A load and its misfortunes, drawn from a seed: an export, an API on bad days, settings, and how often it is killed.

Each value in an export ends in the number of its row, so that whatever reaches the API tells where it is from. What
becomes of a user is told by how its key begins.
"""

import base64
import csv
import gzip
import io
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from loader.sandbox import (
    CalvenOptions,
    DescopeOptions,
    DxOptions,
    FaultOptions,
    LedgerOptions,
    Options,
    QuotaOptions,
    RecordsOptions,
    RosterOptions,
    ScimOptions,
)
from loader.sandbox.options import FAULTS, ApiName, Fault, RetryAfter

Kind = Literal["user", "gone", "poison", "place", "odd"]
"""Of a user: one that is taken, one that isn't there, one whose request is refused whole, one of an unknown location,
one of whom `displayName` is not valid."""

Write = Literal["merge", "replace"]
"""What a write does to attributes that it doesn't name."""

NAMES = ("title", "nickName", "displayName")
"""The attributes: names that SCIM knows, too."""

KEY_ID, SECRET, TOKEN = "chaos-key-id", "chaos-secret-0001", "chaos-token-0001"
PROJECT = "P2chaos"

#: Faults that end a run, or end it should they come twice: no request could succeed, for all that the loader can know.
STOPPING: frozenset[Fault] = frozenset({"302", "401", "403", "404"})
#: Faults that speak against the user.
BLAMING: frozenset[Fault] = frozenset({"400", "413", "422"})

#: What the settings point at.
ENVIRONMENT = {
    "CHAOS_KEY_ID": KEY_ID,
    "CHAOS_SECRET": SECRET,
    "CHAOS_TOKEN": TOKEN,
    "CHAOS_PROJECT_TOKEN": f"{PROJECT}:{TOKEN}",
}

_WITH_KEYS = ("hmac", "client-secret", "basic", "oauth2")
_AUTH: Mapping[str, Mapping[str, str]] = {
    **{name: {"key_id": "CHAOS_KEY_ID", "secret": "CHAOS_SECRET"} for name in _WITH_KEYS},
    "bearer": {"token": "CHAOS_TOKEN"},
    "api-key": {"token": "CHAOS_SECRET"},
    "project": {"token": "CHAOS_PROJECT_TOKEN"},
}

_RECORD = {
    "path": "/v1/records",
    "user": "id",
    "results": "results",
    "result_code": "status",
    "success": ["ok"],
}
_RECORDS = {**_RECORD, "wrapper": "records", "result_user": "id", "not_found": ["not_found"]}


class Shape(NamedTuple):
    """One target in one way of using it. `settings`: of `[target]`; `service`: what the emulated API is told."""

    api: ApiName
    scheme: str
    settings: Mapping[str, object] = {}
    service: Mapping[str, Any] = {}
    kinds: tuple[Kind, ...] = ("gone", "poison")
    most_users: int | None = None
    requests_per_user: int = 1  # where most_users is 1
    write: tuple[Write, ...] = ("merge",)
    has_tokens: bool = False


def _shapes() -> dict[str, Shape]:
    records: dict[str, Any] = {"client_id": KEY_ID, "client_secret": SECRET, "token": TOKEN}
    both: tuple[Write, ...] = ("merge", "replace")
    calven = {
        f"calven {scheme}": Shape(
            "calven", scheme, {}, {"schemes": {scheme}}, ("gone", "poison", "place", "odd"), write=both, has_tokens=has
        )
        for scheme, has in (("hmac", True), ("client-secret", True), ("basic", False), ("bearer", False))
    }
    http = {
        f"http {scheme}": Shape(
            "http",
            scheme,
            _RECORDS,
            {**records, "schemes": {own}},
            ("gone", "poison", "odd"),
            write=both,
            has_tokens=has,
        )
        for scheme, own, has in (
            ("oauth2", "oauth", True),
            ("bearer", "bearer", False),
            ("basic", "basic", False),
            ("api-key", "api-key", False),
        )
    }
    return {
        **calven,
        **http,
        "http one": Shape("http", "bearer", _RECORD, {**records, "body": "one"}, ("poison", "odd"), 1, write=both),
        "http status": Shape(
            "http",
            "oauth2",
            {"path": "/v1/records", "user": "id", "attributes": "about", "wrapper": "records"},
            {**records, "results": None, "attributes": "about"},
            ("poison", "odd"),
            write=both,
            has_tokens=True,
        ),
        "dx": Shape("dx", "bearer", {}, {}, ("gone", "poison", "odd"), 1),
        "descope": Shape("descope", "bearer", {}, {}, most_users=1, requests_per_user=3),
        "descope bulk": Shape("descope", "bearer", {"bulk": True}, {}, write=both),
        "scim": Shape("scim", "bearer", {}, {}, ("gone", "poison", "odd"), 1, 2),
        "scim bulk": Shape("scim", "basic", {"bulk": True}, {}, ("gone", "poison", "odd")),
    }


SHAPES = _shapes()


class Row(NamedTuple):
    """A row of the export. `broken`: it can't be read. Without attributes there is nothing to send."""

    user: str
    attributes: Mapping[str, str]
    is_broken: bool = False

    @property
    def kind(self) -> Kind:
        return kind_of(self.user)


def kind_of(user: str) -> Kind:
    """What kind of user has this key."""
    for kind in ("gone", "poison", "place", "odd"):
        if user.startswith(kind):
            return kind
    return "user"


def row_of(value: str) -> int:
    """The number of the row that a value is from."""
    return int(value.rpartition("-")[2])


@dataclass(frozen=True)
class Scenario:
    """All that is drawn from a seed. `kills`: after so many moments each, see simulation.py and processes.py."""

    seed: int
    name: str
    shape: Shape
    rows: list[Row]
    form: str
    options: Options
    limits: Mapping[str, object]
    write: Write
    kills: list[int]
    block_bytes: int
    is_quota_known: bool
    faults: Mapping[Fault, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"seed {self.seed} ({self.name})"

    @property
    def export(self) -> str:
        return f"users.{self.form}"

    def prepare(self, folder: Path, url: str) -> Path:
        """Write the export and the settings. Returns the settings' path."""
        text = self._ndjson() if self.form.startswith("ndjson") else self._csv()
        (folder / self.export).write_bytes(gzip.compress(text, 1, mtime=0) if self.form.endswith(".gz") else text)
        scheme, auth = self.shape.scheme, self.shape.scheme
        if self.shape.api == "descope":
            auth = "project"
        target = {"api": self.shape.api, "base_url": url, **self.shape.settings}
        if self.write != "merge":
            target["write"] = self.write
        if scheme == "oauth2":
            target["token_url"] = "/oauth/token"
        tables: dict[str, Mapping[str, object]] = {
            "export": {"path": self.export},
            "mapping": {"user": "email"},
            "target": target,
            "target.auth": {"scheme": scheme, **{key: f"env:{name}" for key, name in _AUTH[auth].items()}},
            "limits": self.limits,
        }
        lines = [
            f"[{table}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items())
            for table, values in tables.items()
        ]
        path = folder / "load.toml"
        path.write_text("\n".join(lines))
        return path

    def _csv(self) -> bytes:
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(("email", *NAMES))
        draw = random.Random(self.seed)
        for row in self.rows:
            cells = [row.user, *(row.attributes.get(name, "") for name in NAMES)]
            if row.is_broken:
                cells = draw.choice([cells[:2], [*cells, "more"], ["", *cells[1:]], [cells[0], "\udce3", *cells[2:]]])
            lines.writerow(cells)
        return text.getvalue().encode("utf-8", "surrogateescape")

    def _ndjson(self) -> bytes:
        draw = random.Random(self.seed)
        lines = []
        for row in self.rows:
            line = json.dumps({"email": row.user, **row.attributes}).encode()
            if row.is_broken:
                line = draw.choice([line[:-5], b"[" + line + b"]", b'{"title": "nobody"}', b'"' + line[1:]])
            lines.append(line)
        return b"\n".join(lines) + b"\n"


def draw(seed: int, users: int = 2_000, *, is_real: bool = False) -> Scenario:
    """The scenario of a seed. `is_real`: for processes in real time, so that no wait is long."""
    dice = random.Random(seed)
    name = list(SHAPES)[seed % len(SHAPES)]
    shape = SHAPES[name]
    rows = _rows(dice, users, shape)
    per_request = shape.most_users or dice.choice([7 if is_real else 1, 7, 25, 100, 100, 500])
    limits: dict[str, object] = {
        "users_per_request": per_request,
        "concurrency": dice.choice([4, 8, 16, 32] if is_real else [1, 2, 4, 8, 16, 32]),
        "attempts": dice.choice([4, 8, 12]),
        "timeout_s": 5 if is_real else 30,
    }
    if dice.random() < 0.3:
        limits["bytes_per_request"] = dice.choice([2_000, 20_000])
    requests = math.ceil(users / per_request) * shape.requests_per_user
    quota = _quota(dice, requests, per_request, is_real=is_real)
    known = dice.choice(["none", "known", "known", "unknown"])
    if known == "known":
        unit = "requests" if quota.requests else "users"
        limits["quota"] = [f"{quota.limit} {unit}/{quota.window_s:g}s"]
    elif shape.api in ("dx", "descope"):
        limits["quota"] = [f"{10**6}/60s"]  # they have one of their own
    faults = _faults(dice, shape, requests, is_real=is_real)
    write: Write = dice.choice(shape.write)
    options = Options.model_validate(
        {
            "api": shape.api,
            shape.api: _service(dice, shape),
            "faults": faults,
            "quotas": () if known == "none" else (quota,),
            "ledger": LedgerOptions(journal=True, write=write),
            "roster": RosterOptions(unknown=re.compile("^gone"), poison=re.compile("^poison")),
        }
    )
    lives = dice.choice([1, 2, 3, 4, 6])
    return Scenario(
        seed,
        name,
        shape,
        rows,
        dice.choice(["csv", "csv.gz", "ndjson"]),
        options,
        limits,
        write,
        [int(dice.choice([15, 10 + 4 * requests / lives]) * dice.uniform(0.2, 1.0)) for _ in range(lives - 1)],
        dice.choice([4_000, 20_000, 1 << 20]),
        known == "known",
        faults.rates,
    )


def _rows(dice: random.Random, users: int, shape: Shape) -> list[Row]:
    """`users` rows: some of users who came before, of one who comes all the time, broken, blank, or not to be taken."""
    again, hot, trouble, broken = (dice.choice(shares) for shares in ([0, 0.05, 0.4], [0, 0.02], [0, 0.03], [0, 0.02]))
    known: list[str] = []
    rows = []
    for number in range(1, users + 1):
        if known and dice.random() < again:
            user = dice.choice(known[-300:])
        elif dice.random() < hot:
            user = "user-hot@example.com"
        else:
            kind = dice.choice(shape.kinds) if dice.random() < trouble else "user"
            user = f"{kind}{number}@example.com"
            known.append(user)
        names = dice.sample(NAMES, dice.randint(1, len(NAMES)))
        if kind_of(user) == "odd":
            names = ["displayName", dice.choice(["title", "nickName"])]
        values = {name: f"{name}-{number}" for name in names}
        if kind_of(user) == "odd":
            values["displayName"] = f"odd-{number}"
        is_blank = dice.random() < broken
        rows.append(Row(user, {} if is_blank else values, dice.random() < broken))
    return rows


def _service(dice: random.Random, shape: Shape) -> dict[str, Any]:
    """The emulated API: its client, its maxima, and how it refuses."""
    odd, most = re.compile("(^|=)odd"), dice.choice([None, None, 3, 37])
    lifetime = dice.choice([3600.0, 40.0, 5.0])
    common = {**shape.service}
    match shape.api:
        case "calven":
            codes = ((2, re.compile("^place")), (3, odd))
            common |= {"key_id": KEY_ID, "secret": SECRET, "token": TOKEN, "codes": codes, "max_users": most}
            common |= {"token_lifetime_s": lifetime, "expiration_unit": dice.choice(["s", "ms"])}
            common |= {"result_code": dice.choice(["number", "string", "name", "object"])}
            return CalvenOptions.model_validate(common).model_dump()
        case "dx":
            return DxOptions(token=TOKEN, failing=odd, failure=dice.choice(["object", "text", "name"])).model_dump()
        case "descope":
            common |= {"project_id": PROJECT, "management_key": TOKEN, "max_users": most}
            common |= {"bulk_failures": dice.choice(["failedUsers", "additionalErrors"])}
            return DescopeOptions.model_validate(common).model_dump()
        case "scim":
            common |= {"token": TOKEN, "basic_user": KEY_ID, "basic_password": SECRET, "failing": odd}
            common |= {"max_operations": most or 1000, "patch_answer": dice.choice(["resource", "empty"])}
            return ScimOptions.model_validate(common).model_dump()
        case "http":
            common |= {"failing": odd, "max_users": most, "token_lifetime_s": lifetime}
            return RecordsOptions.model_validate(common).model_dump()


def _faults(dice: random.Random, shape: Shape, requests: int, *, is_real: bool) -> FaultOptions:
    """Outages, refused tokens, slow answers, and faults of some kinds or of all: up to half of the requests.

    In real time a tenth.
    """
    known = [fault for fault in FAULTS if fault != "portal" or shape.settings.get("results") or shape.api != "http"]
    chosen = dice.sample(known, dice.choice([0, 5, 10, len(known)]))
    weights = {fault: dice.random() for fault in chosen}
    trouble = dice.uniform(0.05, 0.5) * (0.2 if is_real else 1.0) / (sum(weights.values()) or 1)
    rates = {fault: weight * trouble for fault, weight in weights.items()}
    for fault in rates.keys() & STOPPING:
        rates[fault] = min(rates[fault], 2 / requests, 0.01)  # or a load would need hundreds of lives
    rates |= {fault: 0.03 * rates[fault] for fault in rates.keys() & {"huge"}}  # 32 MiB each
    if is_real:
        rates.pop("429", None)  # it makes the loader slow for minutes
    forms: list[RetryAfter] = ["decimal", "none", "words"] if is_real else list(get_args(RetryAfter))
    is_revoked, is_down, is_late = (dice.random() < 0.2 for _ in range(3))
    scale = 0.03 if is_real else 1.0
    return FaultOptions(
        seed=dice.randrange(1 << 30),
        latency_s=0.05 * scale,
        jitter_s=dice.choice([0.0, 0.4]) * scale,
        rates=rates,
        on=dice.choice(["data", "all"]),
        slow_s=dice.choice([2.0, 40.0]) * scale,
        refuses_at_once=dice.random() < 0.5,
        retry_after=dice.choice(forms),
        retry_after_s=dice.choice([0.5, 5.0]) * scale,
        fail_first_n=dice.randrange(1, 5 if is_real else 30) if is_late else 0,
        down=((dice.uniform(0, 30) * scale, dice.uniform(1, 40) * scale),) if is_down else (),
        unauthorized_once_at_s=dice.uniform(1, 20) * scale if is_revoked and shape.has_tokens else None,
    )


def _quota(dice: random.Random, requests: int, per_request: int, *, is_real: bool) -> QuotaOptions:
    """A quota that the load needs some of its windows for."""
    window_s = 2.0 if is_real else 60.0
    amount = max(math.ceil(requests / dice.uniform(1, 3)), 60)
    unit: dict[str, Any] = {"requests": amount}
    if dice.random() < 0.3:
        unit = {"users": amount * per_request}
    kinds: list[Literal["sliding", "fixed"]] = ["sliding", "fixed"]
    return QuotaOptions(**unit, window_s=window_s, kind=dice.choice(kinds), retry_after=dice.choice(["int", "none"]))


# What a request carries ----------------------------------------------------------------------------------------------

Carried = list[tuple[str, Mapping[str, str]]]


def _calven(path: str, body: Any) -> Carried:
    return [(each["userName"], each["attributes"]) for each in body.get("userAttributes", ())]


def _dx(path: str, body: Any) -> Carried:
    return [(body["email"], {each["name"]: each["value"] for each in body["attributes"]})]


def _descope(path: str, body: Any) -> Carried:
    if "users" in body:
        return [(each["loginId"], each["customAttributes"]) for each in body["users"]]
    return [(body["loginId"], {body["attributeKey"]: body["attributeValue"]})]


def _scim(path: str, body: Any) -> Carried:
    """The ids there are the names, in base64."""

    def patched(path: str, patch: Any) -> tuple[str, Mapping[str, str]]:
        ident = path.rpartition("/")[2]
        user = base64.urlsafe_b64decode(ident + "=" * (-len(ident) % 4)).decode()
        return user, {each["path"]: each["value"] for each in patch["Operations"]}

    if path == "/Bulk":
        return [patched(each["path"], each["data"]) for each in body["Operations"]]
    return [patched(path, body)]


def _http(path: str, body: Any) -> Carried:
    records = body.get("records", [body])
    return [
        (each["id"], each.get("about") or {name: value for name, value in each.items() if name != "id"})
        for each in records
    ]


_CARRIED: Mapping[ApiName, Callable[[str, Any], Carried]] = {
    "calven": _calven,
    "dx": _dx,
    "descope": _descope,
    "scim": _scim,
    "http": _http,
}
_TOKEN_PATHS = ("/v1/auth", "/v1/auth/token", "/oauth/token")


def carried(api: ApiName, method: str, path: str, body: bytes) -> Carried:
    """The users that a request is to change, and to what. None: it is a search, or about a token."""
    return [] if method == "GET" or path in _TOKEN_PATHS else _CARRIED[api](path, json.loads(body))


def counted(rows: list[Row]) -> Counter[str]:
    """Rows by kind, for messages."""
    return Counter("broken" if row.is_broken else "blank" if not row.attributes else row.kind for row in rows)
