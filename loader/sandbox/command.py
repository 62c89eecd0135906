"""`loader sandbox`: options from the command line, a served sandbox, a ledger file at the end."""

import asyncio
import gc
import os
import shlex
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from pydantic import ValidationError

from loader.sandbox import flags
from loader.sandbox.ledger import Ledger
from loader.sandbox.options import DOCUMENTED_QUOTAS, ApiName, Options
from loader.sandbox.sandbox import Sandbox
from loader.sandbox.server import HOST, serve
from loader.sandbox.settings import told


class _UsageError(click.ClickException):
    """Shown as one line."""

    exit_code = 2


class _Command(click.Command):
    """A command with the flags of the API that --api names, and whose usage errors are one line, without the usage."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = [
            after if arg == "--api" else arg.removeprefix("--api=")
            for arg, after in pairwise([*args, ""])
            if arg == "--api" or arg.startswith("--api=")
        ]
        ctx.meta[__name__] = named[-1] if named else None
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            others = [api for api in flags.OF_API if error.option_name in _names(flags.OF_API[api])]
            if not others:
                raise _UsageError(error.format_message()) from None
            api = _api(ctx)
            raise _UsageError(f"{error.option_name} is a flag of --api {', '.join(others)}, not of {api}") from None
        except click.UsageError as error:
            raise _UsageError(error.format_message()) from None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        common = [flag for group in flags.OF_ALL.values() for flag in group]
        return [*common, *flags.OF_API[_api(ctx)], *super().get_params(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Flags by what they are about."""
        for about, group in {**flags.OF_ALL, f"--api {_api(ctx)}": flags.OF_API[_api(ctx)]}.items():
            with formatter.section(about):
                formatter.write_dl([record for flag in group if (record := flag.get_help_record(ctx))])
        others = [f"--api {api} --help" for api in flags.OF_API if api != _api(ctx)]
        formatter.write_paragraph()
        formatter.write_text(f"Each API has flags of its own: {', '.join(others)}.")


def _api(context: click.Context) -> ApiName:
    """The API that is named; of a wrong name the flag itself complains."""
    return next((api for api in flags.OF_API if api == context.meta.get(__name__)), "calven")


def _names(options: list[click.Option]) -> set[str]:
    return {name for option in options for name in option.opts}


@click.command("sandbox", cls=_Command)
@click.pass_context
def sandbox(context: click.Context, /, port: int, ledger_file: Path | None, **fields: Any) -> None:
    """Serve an emulation of a directory API on loopback, until SIGINT or SIGTERM.

    \b
    loader sandbox --port 8080
    loader sandbox --api dx --port 8080 --quota 100/60s
    loader sandbox --fault 500=0.02 --fault lost=0.01 --unknown '^former'

    The first line on stdout is its URL, the next ones are the credentials as KEY=value. GET /_sandbox/stats tells what
    it saw, GET /_sandbox/users what it holds.
    """
    if fields["ledger__count_only"] and (ledger_file or fields["ledger__journal"]):
        raise _UsageError("--count-only keeps no users: neither --journal nor --ledger-file goes with it")
    try:
        options = options_of(context)
    except ValidationError as error:
        raise _UsageError(_first_problem(error, context)) from None
    if ledger_file and not os.access(ledger_file.absolute().parent, os.W_OK):
        raise _UsageError(f"--ledger-file: can't write in {ledger_file.absolute().parent}")
    try:
        ledger = _run(_serve(options))
    except OSError as error:
        raise _UsageError(f"{HOST}:{port}: {error.strerror or error}") from None
    if ledger_file:
        try:
            _keep(ledger, ledger_file)
        except OSError as error:
            raise click.ClickException(f"the ledger is lost: {error}") from None


def options_of(context: click.Context) -> Options:
    """Flags to options; those not given are left to their defaults."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in context.params.items():
        group, _, field = name.partition("__")
        if field and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            groups.setdefault(group, {})[field] = value
    given = {"api": context.params["api"], "port": context.params["port"], "quotas": _quotas(context, groups)}
    return Options.model_validate({**given, **groups})


def _quotas(context: click.Context, groups: dict[str, dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The quotas that are named, else the API's own, changed as told; None: the API's own as they are."""
    changes = groups.pop("quota", {})
    named = context.get_parameter_source("quotas") is ParameterSource.COMMANDLINE
    own = [quota.model_dump() for quota in DOCUMENTED_QUOTAS[context.params["api"]]]
    quotas: list[dict[str, Any]] = context.params["quotas"] if named else own
    if changes and not quotas:
        flag = next(each for each in flags.QUOTAS if each.name == f"quota__{next(iter(changes))}").opts[0]
        raise _UsageError(f"{flag}: there is no quota for it to change; name one with --quota")
    changes |= {name: value for name, value in groups.get("faults", {}).items() if name == "retry_after"}
    return [{**quota, **changes} for quota in quotas] if named or changes else None


def _first_problem(error: ValidationError, context: click.Context) -> str:
    """The first thing that is wrong, under the name of its flag."""
    problem = error.errors(include_url=False)[0]
    group, *field = map(str, problem["loc"])
    if group == "quotas":
        group, field = "quota", field[1:]
    names = {flag.name: flag.opts[0] for flag in context.command.get_params(context)}
    flag = names.get("__".join([group, *field[:1]]), f"--{group}")
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


def _announce(served: Sandbox) -> None:
    credentials, settings = told(served.options, served.url)
    click.echo(served.url)  # echo flushes: whoever started this waits for the line
    for name, value in credentials.items():
        click.echo(f"{name}={shlex.quote(value)}")
    click.echo(
        f"Export {'these' if len(credentials) > 1 else 'this'}, and load with\n"
        "\n"
        f"{settings}"
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
