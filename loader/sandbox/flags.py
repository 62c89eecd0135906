"""The flags of `loader sandbox`. Each sets one field of options.py, which holds its type, its range and its default."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import orjson
from pydantic import BaseModel

from loader.sandbox.options import (
    DOCUMENTED_QUOTAS,
    FAULTS,
    ApiName,
    AttributeType,
    CalvenOptions,
    DescopeOptions,
    DxOptions,
    FaultOptions,
    LedgerOptions,
    QuotaOptions,
    RecordsOptions,
    RecordsScheme,
    RosterOptions,
    Scheme,
    ScimOptions,
    WorkOptions,
)

GROUPS: dict[str, type[BaseModel]] = {
    "calven": CalvenOptions,
    "dx": DxOptions,
    "descope": DescopeOptions,
    "scim": ScimOptions,
    "http": RecordsOptions,
    "roster": RosterOptions,
    "ledger": LedgerOptions,
    "faults": FaultOptions,
    "quota": QuotaOptions,
    "work": WorkOptions,
}

_SECONDS = r"\d+(?:\.\d+)?"


def _flag(flag: str, where: str, about: str, **more: Any) -> click.Option:
    """A flag for the field `where` ("group.field"). It is there to be given; the default is the field's."""
    group, field = where.split(".")
    info = GROUPS[group].model_fields[field]
    if get_origin(info.annotation) is Literal:
        more["type"] = click.Choice([str(choice) for choice in get_args(info.annotation)])
    else:
        more.setdefault("metavar", _metavar(field, str(info.annotation)))
    if isinstance(info.default, int | float | str) and not isinstance(info.default, bool) and "Default:" not in about:
        shown = f"{info.default:g}" if isinstance(info.default, float) else str(info.default)
        about += f" Default: {shown or 'none'}."
    default = () if more.get("multiple") else None
    return click.Option([flag, f"{group}__{field}"], default=default, help=about, **more)


def _switch(flag: str, where: str, about: str) -> click.Option:
    """A flag that turns a boolean field into what it isn't by default."""
    group, field = where.split(".")
    return _flag(flag, where, about, is_flag=True, flag_value=not GROUPS[group].model_fields[field].default)


def _metavar(field: str, annotation: str) -> str | None:
    if "Pattern" in annotation:
        return "REGEX"
    if field.endswith("_s"):
        return "SECONDS"
    if "int" not in annotation or "str" in annotation:
        return None
    return "STATUS" if field.endswith("status") else "N"


def _parts(form: str, text: str, example: str) -> tuple[str, ...]:
    """The groups of a regular expression that must match."""
    match = re.fullmatch(form, text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not of the form {example}")
    return match.groups()


Callback = Callable[[click.Context, click.Parameter, Any], Any]


def _split(form: str, example: str) -> Callback:
    """Takes each of a repeated flag's values apart."""
    return lambda _context, _parameter, texts: tuple(_parts(form, text, example) for text in texts)


def _pairs(example: str) -> Callback:
    """Makes a dict of a repeated KEY=VALUE."""
    form = r"([^=]+)=([^=]+)"
    return lambda _context, _parameter, texts: {
        name: value for text in texts for name, value in [_parts(form, text, example)]
    }


def _or_none(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    return None if text == "none" else text


def _scalar(_context: click.Context, _parameter: click.Parameter, text: str | None) -> object:
    """A number or boolean of JSON, else the text."""
    if text is None:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, bool | int) else text


def _lines(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> frozenset[str] | None:
    if path is None:
        return None
    try:
        with path.open(encoding="utf-8") as file:
            return frozenset(line.rstrip("\n") for line in file) - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"can't read {path}: {error}") from None


def _quotas(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> list[dict[str, str]]:
    """Each quota as its unit and window; the word none, alone, as none."""
    form = rf"(\d+)(?: (requests|users))?/({_SECONDS})s"
    split = [] if texts == ("none",) else [_parts(form, text, "N/SECONDSs or 'N users/SECONDSs'") for text in texts]
    return [{unit or "requests": limit, "window_s": window_s} for limit, unit, window_s in split]


def _documented() -> str:
    """The quotas of the APIs' documents, for the help."""
    own = [f"{api} {quota}" for api, quotas in DOCUMENTED_QUOTAS.items() for quota in quotas]
    return "; ".join([*own, "the others none"])


def _max_bytes(api: ApiName) -> click.Option:
    return _flag("--max-bytes", f"{api}.max_bytes", "A larger body: 413.")


def _write() -> click.Option:
    return _flag("--write", "ledger.write", "What a write does to the attributes that a user has.")


CALVEN = [
    _flag("--key-id", "calven.key_id", "API key id. Default: generated."),
    _flag("--secret", "calven.secret", "API key secret. Default: generated."),
    _flag("--token", "calven.token", "A bearer token that is valid from the start, until tokens are revoked."),
    _flag("--scheme", "calven.schemes", f"What the key is for: {', '.join(get_args(Scheme))}. Repeats.", multiple=True),
    _flag("--token-lifetime", "calven.token_lifetime_s", "How long its tokens live."),
    _flag("--expiration-unit", "calven.expiration_unit", "The unit of `expiration` in an answer of /v1/auth."),
    _flag("--clock-skew", "calven.clock_skew_s", "How much an HMAC timestamp may be off."),
    _flag("--result-code", "calven.result_code", "The form of resultCode."),
    _flag(
        "--code",
        "calven.codes",
        "Answer matching users with this result code. Repeats.",
        multiple=True,
        metavar="N=REGEX",
        callback=_split(r"(\d+)=(.+)", "N=REGEX"),
    ),
    _flag("--region", "calven.region", "Serve only this x-calven-region."),
    _flag("--repeated", "calven.repeated", "What of a user that is in a request twice."),
    _flag("--values", "calven.values", "Which attribute values are taken."),
    _write(),
    _flag("--max-users", "calven.max_users", "More users in a request: 413."),
    _max_bytes("calven"),
    _flag("--hierarchy-status", "calven.hierarchy_status", "How a hierarchy that breaks the rules is refused."),
    _flag(
        "--hierarchy-unknown-parent",
        "calven.hierarchy_unknown_parent",
        "What of a parent that is no group of the hierarchy.",
    ),
    _flag("--hierarchy-empty", "calven.hierarchy_empty", "What of a hierarchy without groups."),
    _flag("--hierarchy-repeated", "calven.hierarchy_repeated", "What of a relationship that is there twice."),
]

DX = [
    _flag("--token", "dx.token", "The organization token. Default: generated."),
    _flag(
        "--scope", "dx.scopes", "A scope of the token. Repeats. Default: users:write and snapshots:read.", multiple=True
    ),
    _flag("--auth-status", "dx.auth_status", "How a request without the right token is refused."),
    _flag("--unknown-status", "dx.unknown_status", "How a request for a user that doesn't exist is refused."),
    _flag("--unknown-error", "dx.unknown_error", "The error code for it."),
    _flag("--group", "dx.groups", "An attribute group that is there from the start. Repeats.", multiple=True),
    _flag("--group-case", "dx.group_case", "How a group is looked for."),
    _flag("--failing", "dx.failing", "Attributes that end in `failures`; searched for in name=value."),
    _flag("--failure", "dx.failure", "The form of an element of `failures`."),
    _flag("--updated", "dx.updated", "When `updated` is true."),
    _flag("--values", "dx.values", "Which attribute values are taken, besides null."),
    _flag("--repeated", "dx.repeated", "What of an attribute that is in a request twice."),
    _flag("--email", "dx.email", "How an answer writes it."),
    _flag("--edge", "dx.edge", "What the body of 429 and 5xx is."),
    _flag("--max-attributes", "dx.max_attributes", "More attributes in a request: 422."),
    _max_bytes("dx"),
]

DESCOPE = [
    _flag("--project-id", "descope.project_id", "The project's id. Default: generated."),
    _flag("--management-key", "descope.management_key", "The key. Default: generated."),
    _flag(
        "--declare",
        "descope.declared",
        f"An attribute that is declared, as {', '.join(get_args(AttributeType))}. Repeats. Default: any is.",
        multiple=True,
        metavar="NAME=TYPE",
        callback=_pairs("NAME=TYPE"),
    ),
    _switch("--no-definitions", "descope.definitions", "The key may not read what is declared."),
    _flag("--undeclared-error", "descope.undeclared_error", "The error code for an attribute that isn't declared."),
    _flag("--wrong-type-error", "descope.wrong_type_error", "The error code for a value of another type."),
    _flag("--unknown-status", "descope.unknown_status", "How a request for a user that doesn't exist is refused."),
    _flag("--null", "descope.null", "What null does to an attribute."),
    _write(),
    _flag("--bulk-key", "descope.bulk_key", "The field of a batch that says whose it is."),
    _flag("--bulk-failures", "descope.bulk_failures", "Where a batch's answer tells of users that failed."),
    _flag("--repeated", "descope.repeated", "What of a user that is in a batch twice."),
    _switch("--second-login-id", "descope.second_login_id", "Answers list another login id before the one sent."),
    _flag(
        "--tier",
        "descope.tier",
        "What the licence says; none: the call for it fails.",
        metavar="[tier1|tier2|tier3|tier4|none]",
        callback=_or_none,
    ),
    _flag("--edge", "descope.edge", "What the body of 429 and 5xx is."),
    _flag("--max-users", "descope.max_users", "More users in a batch: 400."),
    _max_bytes("descope"),
]

SCIM = [
    _flag("--token", "scim.token", "The bearer token. Default: generated."),
    _flag("--basic-user", "scim.basic_user", "The user name of Basic."),
    _flag("--basic-password", "scim.basic_password", "The password of Basic. Default: generated."),
    _flag("--prefix", "scim.prefix", "The path that all others begin with, such as /scim/v2."),
    _flag("--key", "scim.key", "The attribute that the names of users are, by which they are searched."),
    _switch("--case-exact", "scim.case_exact", "That attribute minds case."),
    _switch("--private-config", "scim.public_config", "The configuration needs a token, too."),
    _flag("--patch-answer", "scim.patch_answer", "What a PATCH is answered with: the user, or 204."),
    _flag("--unmatched-add", "scim.unmatched_add", "What of an add below a value filter that selects nothing."),
    _flag("--null", "scim.null", "What of an attribute that is null."),
    _flag("--attribute", "scim.attributes", "A path that the schema has. Repeats. Default: any.", multiple=True),
    _flag("--failing", "scim.failing", "Values that are invalid; searched for in path=value."),
    _switch("--no-bulk", "scim.bulk", "No bulk requests: 501."),
    _switch("--no-search", "scim.search", "No /Users/.search: 404."),
    _flag("--no-resources", "scim.no_resources", "`Resources` of a search that finds nobody."),
    _flag("--max-operations", "scim.max_operations", "More operations in a bulk request: 413."),
    _flag("--max-payload-size", "scim.max_payload_size", "More bytes in a bulk request: 413."),
    _flag("--max-results", "scim.max_results", "How many users a search gives at most."),
    _flag("--max-comparisons", "scim.max_comparisons", "More comparisons in a filter: 400 tooMany."),
]

HTTP = [
    _flag("--path", "http.path", "Where records are sent."),
    _flag("--method", "http.method", "How records are sent."),
    _flag("--body", "http.body", "What a body is: {wrapper: [records]}, [records], or one record."),
    _flag("--wrapper", "http.wrapper", "The field that wraps records."),
    _flag("--key", "http.key", "The field of a record that says whose it is."),
    _flag("--attributes", "http.attributes", "The field that holds the others. Default: they stand beside the key."),
    _flag(
        "--results",
        "http.results",
        'The field of the answer that has results: a.b is b in a, "" the answer itself; none: no body.',
        callback=_or_none,
    ),
    _flag("--result-key", "http.result_key", "The field of a result that says whose it is. Default: as in a record."),
    _flag("--result-status", "http.status", "The field of a result that says what became of the record."),
    _flag("--result-success", "http.success", "What it says of a record that was taken.", callback=_scalar),
    _flag("--result-unknown", "http.unknown", "What it says if there is no such user.", callback=_scalar),
    _flag("--result-invalid", "http.invalid", "What it says of a record that is invalid.", callback=_scalar),
    _flag("--success-status", "http.success_status", "The status of a request that was taken."),
    _flag("--unknown-status", "http.unknown_status", "How a request for a user that doesn't exist is refused."),
    _flag("--invalid-status", "http.invalid_status", "The status of a request that is invalid."),
    _flag("--failing", "http.failing", "Records that are invalid; searched for in name=value."),
    _flag("--repeated", "http.repeated", "What of a user that is in a request twice."),
    _write(),
    _flag("--max-users", "http.max_users", "More users in a request are too many."),
    _flag("--max-bytes", "http.max_bytes", "A larger body is too large."),
    _flag("--too-large-status", "http.too_large_status", "The status of either."),
    _flag(
        "--scheme",
        "http.schemes",
        f"What credentials it takes: {', '.join(get_args(RecordsScheme))}. Repeats.",
        multiple=True,
    ),
    _flag("--client-id", "http.client_id", "For OAuth and Basic. Default: generated."),
    _flag("--client-secret", "http.client_secret", "For OAuth and Basic, and the API key. Default: generated."),
    _flag("--token", "http.token", "A bearer token that is valid from the start, until tokens are revoked."),
    _flag("--api-key-header", "http.api_key_header", "The header that holds an API key."),
    _flag("--token-path", "http.token_path", "Where a client asks for a token."),
    _flag("--client-auth", "http.client_auth", "Where a client must say who it is: in a Basic header, or in the body."),
    _flag("--client-encoding", "http.client_encoding", "How id and secret are written in a Basic header."),
    _flag("--scope", "http.scopes", "What a client may ask for. Repeats. Default: anything.", multiple=True),
    _flag("--token-lifetime", "http.token_lifetime_s", "How long its tokens live."),
    _flag("--expires-in", "http.expires_in", "The form of expires_in."),
]

OF_API: dict[ApiName, list[click.Option]] = {
    "calven": CALVEN,
    "dx": DX,
    "descope": DESCOPE,
    "scim": SCIM,
    "http": HTTP,
}

SANDBOX = [
    click.Option(
        ["--api"], type=click.Choice(get_args(ApiName)), default="calven", help="What to emulate. Default: calven."
    ),
    click.Option(
        ["--port"], metavar="N", default=0, type=click.IntRange(0, 65535), help="On 127.0.0.1. Default: any free."
    ),
]

USERS = [
    _flag(
        "--known-users",
        "roster.known_users",
        "Only the users in this file exist, one a line.",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=_lines,
    ),
    _flag("--unknown", "roster.unknown", "Users that don't exist."),
    _flag("--poison", "roster.poison", "Users that get their whole request refused."),
    _switch("--count-only", "ledger.count_only", "Keep no users, only counts."),
    _switch("--journal", "ledger.journal", "Keep every write, in order."),
    click.Option(
        ["--ledger-file"],
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        help="Write the ledger's users there at the end, as NDJSON.",
    ),
]

QUOTAS = [
    click.Option(
        ["--quota", "quotas"],
        metavar="N/SECONDSs",
        multiple=True,
        callback=_quotas,
        help="Requests in a window, token calls too, as 1000/60s; or users, as '5000 users/60s'; or none. Repeats."
        f" Default: what the API documents: {_documented()}.",
    ),
    _flag("--quota-kind", "quota.kind", "Windows that slide, or begin at multiples of their length."),
    _flag("--quota-penalty", "quota.penalty_s", "Refuse everything for so long after a breach."),
    _switch("--quota-counts-refused", "quota.counts_refused", "What is refused uses it up, too, and renews a penalty."),
    _flag(
        "--retry-after", "faults.retry_after", "The form of Retry-After. Default: int; of dx's documented quota: none."
    ),
]

WORK = [
    _flag("--request-seconds", "work.request_s", "What a request for users takes."),
    _flag("--user-seconds", "work.user_s", "What it takes more for each user."),
    _flag("--at-once", "work.at_once", "It works on so many at once; more wait their turn. Default: any number."),
]

FAULTY = [
    _flag("--latency", "faults.latency_s", "Before each answer."),
    _flag("--jitter", "faults.jitter_s", "Up to so much more."),
    _flag("--seed", "faults.seed", "What jitter and faults are drawn from."),
    _flag(
        "--fault",
        "faults.rates",
        f"How often, 0 to 1: {', '.join(FAULTS)}. Repeats.",
        multiple=True,
        metavar="KIND=RATE",
        callback=_pairs("KIND=RATE"),
    ),
    _flag("--faults-on", "faults.on", "Which requests --fault and --fail-first are about."),
    _flag(
        "--faults-during",
        "faults.during",
        "When --fault counts: from so many seconds after the start, for so many more. Repeats. Default: always.",
        multiple=True,
        metavar="FROM+FOR",
        callback=_split(rf"({_SECONDS})\+({_SECONDS})", "FROM+FOR, as 10+5"),
    ),
    _flag(
        "--faults-only",
        "faults.only",
        "Which requests --fault is about: from this one on (the first is 0), so many. Repeats. Default: all.",
        multiple=True,
        metavar="FIRST+COUNT",
        callback=_split(r"(\d+)\+(\d+)", "FIRST+COUNT, as 10+5"),
    ),
    _flag("--faults-about", "faults.about", "Which requests --fault is about: those with this in their body."),
    _switch("--refuse-at-once", "faults.refuses_at_once", "What the faults refuse is refused without latency."),
    _flag("--slow", "faults.slow_s", "What the fault slow adds."),
    _flag(
        "--missing-share",
        "faults.missing_share",
        "How many of the results the fault missing leaves out.",
        metavar="SHARE",
    ),
    _flag("--retry-after-seconds", "faults.retry_after_s", "How long a pause the faults 429 and 503 ask for."),
    _flag("--fail-first", "faults.fail_first_n", "Refuse the first so many requests."),
    _flag("--fail-first-status", "faults.fail_first_status", "With which status."),
    _flag(
        "--down",
        "faults.down",
        "Cut every connection, from so many seconds after the start, for so many more. Repeats.",
        multiple=True,
        metavar="FROM+FOR",
        callback=_split(rf"({_SECONDS})\+({_SECONDS})", "FROM+FOR, as 10+5"),
    ),
    _flag(
        "--unauthorized-once-at", "faults.unauthorized_once_at_s", "Revoke all tokens once, so long after the start."
    ),
]

OF_ALL = {"Sandbox": SANDBOX, "Users": USERS, "Quotas": QUOTAS, "Work": WORK, "Faults": FAULTY}
