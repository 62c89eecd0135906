"""`loader sandbox`: options from the command line, a served sandbox, a ledger file at the end.

Each flag sets one field of options.py, which holds its type, its range and its default; both are said once, there.
"""

import asyncio
import gc
import os
import re
import shlex
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError

from loader.sandbox.ledger import Ledger
from loader.sandbox.options import (
    FAULTS,
    CalvenOptions,
    FaultOptions,
    LedgerOptions,
    Options,
    QuotaOptions,
    RosterOptions,
    Scheme,
)
from loader.sandbox.sandbox import Sandbox
from loader.sandbox.server import HOST, serve

_GROUPS: dict[str, type[BaseModel]] = {
    "calven": CalvenOptions,
    "roster": RosterOptions,
    "ledger": LedgerOptions,
    "faults": FaultOptions,
    "quota": QuotaOptions,
}

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class _Command(click.Command):
    """A command whose usage errors are one line, without the usage."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _UsageError(error.format_message()) from None


class _UsageError(click.ClickException):
    """Shown as one line."""

    exit_code = 2


def _sets(flag: str, where: str, about: str, **more: Any) -> Decorator:
    """A flag for the field `where` ("group.field") of the options. Not given: None or (), and the default rules."""
    group, field = where.split(".")
    info = _GROUPS[group].model_fields[field]
    if get_origin(info.annotation) is Literal:
        more["type"] = click.Choice([str(choice) for choice in get_args(info.annotation)])
    if isinstance(info.default, int | float | str) and not isinstance(info.default, bool):
        shown = info.default if isinstance(info.default, str) else f"{info.default:g}"
        about += f" Default: {shown}."
    if field.endswith("_s"):
        more["metavar"] = "SECONDS"
    return click.option(flag, f"{group}__{field}", default=() if more.get("multiple") else None, help=about, **more)


def _parts(form: str, text: str, example: str) -> tuple[str, ...]:
    """The groups of a regular expression that must match."""
    match = re.fullmatch(form, text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not of the form {example}")
    return match.groups()


def _split(form: str, example: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback that takes a repeated flag's values apart."""
    return lambda _context, _parameter, texts: tuple(_parts(form, text, example) for text in texts)


def _lines(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> frozenset[str] | None:
    if path is None:
        return None
    try:
        with path.open(encoding="utf-8") as file:
            return frozenset(line.rstrip("\n") for line in file) - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"can't read {path}: {error}") from None


_SECONDS = r"\d+(?:\.\d+)?"


@click.command("sandbox", cls=_Command)
@click.option("--port", metavar="N", default=0, type=click.IntRange(0, 65535), help="On 127.0.0.1. Default: any free.")
@_sets("--key-id", "calven.key_id", "API key id. Default: generated.")
@_sets("--secret", "calven.secret", "API key secret. Default: generated.")
@_sets("--token", "calven.token", "A bearer token that is valid from the start, until tokens are revoked.")
@_sets("--scheme", "calven.schemes", f"For what the key is: {', '.join(get_args(Scheme))}. Repeats.", multiple=True)
@_sets("--token-lifetime", "calven.token_lifetime_s", "Seconds.")
@_sets("--expiration-unit", "calven.expiration_unit", "Of `expiration` in the answer of /v1/auth.")
@_sets("--clock-skew", "calven.clock_skew_s", "Seconds that an HMAC timestamp may be off.")
@_sets("--result-code", "calven.result_code", "The form of resultCode.")
@_sets(
    "--code",
    "calven.codes",
    "Answer matching users with this result code. Repeats.",
    multiple=True,
    metavar="N=REGEX",
    callback=_split(r"(\d+)=(.+)", "N=REGEX"),
)
@_sets("--region", "calven.region", "Serve only this x-calven-region.")
@_sets("--repeated", "calven.repeated", "What of a user that is in a request twice.")
@_sets("--values", "calven.values", "Which attribute values are taken.")
@_sets("--max-users", "calven.max_users", "More users in a request: 413.", metavar="N")
@_sets("--max-bytes", "calven.max_bytes", "A larger body: 413.", metavar="N")
@_sets(
    "--known-users",
    "roster.known_users",
    "Only the users in this file exist, one a line.",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_lines,
)
@_sets("--unknown", "roster.unknown", "Users that don't exist.", metavar="REGEX")
@_sets("--poison", "roster.poison", "Users that get their whole request refused with 400.", metavar="REGEX")
@_sets("--write", "ledger.write", "What a write does to the attributes a user has.")
@_sets("--count-only", "ledger.count_only", "Keep no users, only counts.", is_flag=True)
@_sets("--journal", "ledger.journal", "Keep every write, in order.", is_flag=True)
@click.option(
    "--ledger-file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the ledger's users there at the end, as NDJSON.",
)
@click.option("--quota", metavar="N/SECONDSs", help="Requests in any such time, token calls included, e.g. 1000/60s.")
@_sets("--retry-after", "faults.retry_after", "The form of Retry-After, also of the quota's.")
@_sets("--retry-after-seconds", "faults.retry_after_s", "Of the faults 429 and 503.")
@_sets("--latency", "faults.latency_s", "Seconds before each answer.")
@_sets("--jitter", "faults.jitter_s", "Up to so many seconds more.")
@_sets("--seed", "faults.seed", "Of jitter and faults.", metavar="N")
@_sets(
    "--fault",
    "faults.rates",
    f"How often, 0 to 1: {', '.join(FAULTS)}. Repeats.",
    multiple=True,
    metavar="KIND=RATE",
    callback=_split(r"([^=]+)=([^=]+)", "KIND=RATE"),
)
@_sets("--faults-on", "faults.on", "What these and --fail-first are about.")
@_sets("--slow", "faults.slow_s", "Seconds that the fault slow adds.")
@_sets("--missing-share", "faults.missing_share", "Of the results, when they are missing.", metavar="SHARE")
@_sets("--fail-first", "faults.fail_first_n", "Refuse the first so many requests.", metavar="N")
@_sets("--fail-first-status", "faults.fail_first_status", "How.", metavar="STATUS")
@_sets(
    "--down",
    "faults.down",
    "Cut every connection, from so many seconds after the start, for so many more. Repeats.",
    multiple=True,
    metavar="FROM+FOR",
    callback=_split(rf"({_SECONDS})\+({_SECONDS})", "FROM+FOR, as 10+5"),
)
@_sets("--unauthorized-once-at", "faults.unauthorized_once_at_s", "Revoke all tokens once, seconds after the start.")
@click.pass_context
def sandbox(context: click.Context, /, port: int, ledger_file: Path | None, quota: str | None, **fields: Any) -> None:
    """Serve an emulation of Calven's API on loopback, until SIGINT or SIGTERM.

    The first line on stdout is its URL, the next two are the credentials as KEY=value. GET /_sandbox/stats tells what
    it saw.
    """
    if fields["ledger__count_only"] and (ledger_file or fields["ledger__journal"]):
        raise _UsageError("--count-only keeps no users: neither --journal nor --ledger-file goes with it")
    if ledger_file and not os.access(ledger_file.absolute().parent, os.W_OK):
        raise _UsageError(f"--ledger-file: can't write in {ledger_file.absolute().parent}")
    try:
        options = _options(fields, port, quota)
    except click.BadParameter as error:
        raise _UsageError(f"--quota: {error.message}") from None
    except ValidationError as error:
        raise _UsageError(_first_problem(error, context.command)) from None
    try:
        ledger = _run(_serve(options))
    except OSError as error:
        raise _UsageError(f"{HOST}:{port}: {error.strerror or error}") from None
    if ledger_file:
        try:
            _keep(ledger, ledger_file)
        except OSError as error:
            raise click.ClickException(f"the ledger is lost: {error}") from None


def _options(fields: dict[str, Any], port: int, quota: str | None) -> Options:
    """Flags to options; those not given are left to their defaults."""
    groups: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    for name, value in fields.items():
        group, _, field = name.partition("__")
        if value not in (None, ()):
            groups[group][field] = value
    if "rates" in groups["faults"]:
        groups["faults"]["rates"] = dict(groups["faults"]["rates"])
    if quota is None:
        del groups["quota"]
    else:
        requests, window_s = _parts(rf"(\d+)/({_SECONDS})s", quota, "N/SECONDSs, as 1000/60s")
        groups["quota"] = {"requests": requests, "window_s": window_s}
        if "retry_after" in groups["faults"]:
            groups["quota"]["retry_after"] = groups["faults"]["retry_after"]
    return Options.model_validate({"port": port, **groups})


def _first_problem(error: ValidationError, command: click.Command) -> str:
    """The first thing that is wrong, under the name of its flag."""
    problem = error.errors(include_url=False)[0]
    group, *field = map(str, problem["loc"])
    flags = {parameter.name: parameter.opts[0] for parameter in command.params}
    flag = flags.get("__".join([group, *field[:1]]), f"--{group}")
    return ": ".join([flag, *(part for part in field[1:] if part != "[key]"), problem["msg"]])


async def _serve(options: Options) -> Ledger:
    """Serve until a signal comes. Handlers come first: a signal may come at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serve(options) as served:
        _announce(served)
        await stop.wait()
    return served.ledger


_KEY, _SECRET = 'key_id = "env:CALVEN_KEY_ID"', 'secret = "env:CALVEN_SECRET"'


def _announce(served: Sandbox) -> None:
    calven = served.options.calven
    scheme = next(name for name in get_args(Scheme) if name in calven.schemes)
    needs = 'token = "the one given"' if scheme == "bearer" else f"{_KEY}\n  {_SECRET}"
    click.echo(served.url)  # echo flushes: whoever started this waits for the line
    click.echo(f"CALVEN_KEY_ID={shlex.quote(calven.key_id)}")
    click.echo(f"CALVEN_SECRET={shlex.quote(calven.secret)}")
    click.echo(
        "Export these two, and load with\n"
        "\n"
        "  [target]\n"
        '  api = "calven"\n'
        f'  base_url = "{served.url}"\n'
        "  [target.auth]\n"
        f'  scheme = "{scheme}"\n'
        f"  {needs}\n"
        "\n"
        f"What it saw: curl {served.url}/_sandbox/stats",
        err=True,
    )


def _keep(ledger: Ledger, path: Path) -> None:
    """Whole or not at all, and for the owner's eyes alone: it holds users."""
    draft = path.with_name(path.name + ".part")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.writelines(ledger.lines())
    draft.replace(path)


def _run(main: Coroutine[Any, Any, Ledger]) -> Ledger:
    """Run it with a lazy collector, on uvloop where there is one.

    Parsed bodies hold no cycles, so looking for some after every 700 objects is wasted. Measured on 2 cores, 500 users
    a request, medians: 0.96 -> 1.16 M users/s count-only, 0.28 -> 0.33 M with a million users in the ledger. uvloop
    makes no difference that could be told from noise at that size; for small requests it was not measured.
    """
    gc.set_threshold(100_000)
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):  # not there on every platform
        from uvloop import new_event_loop as loop_factory
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)
