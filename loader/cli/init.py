"""`loader init`: look at an export, and write settings for it."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loader.cli.endings import ends
from loader.cli.messages import say
from loader.cli.output import written
from loader.errors import LoaderError, Refused
from loader.words import counted

if TYPE_CHECKING:
    from loader.proposal import Attribute, Candidate, Proposal
    from loader.sample import Sample
    from loader.target import Target

#: What `loader schema -o` is told to write, and where it is found again.
SCHEMA = "loader.schema.json"


@click.command()
@click.argument("exports", metavar="EXPORT", nargs=-1, required=True, type=click.Path())
@click.option("--api", metavar="API", help="The target, such as calven, dx, descope, scim or http.")
@click.option("--base-url", metavar="URL", help="The API's address, where it isn't the vendor's.")
@click.option("--scheme", metavar="SCHEME", help="How requests are authorized, such as hmac or bearer.")
@click.option("--user", metavar="COLUMN", help="The column that holds the users' keys.")
@click.option(
    "-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="The settings file. Default: load.toml."
)
@click.option("--yes", is_flag=True, help="Ask nothing: take what is proposed.")
@click.option("--force", is_flag=True, help="Replace the settings file, if there is one.")
@ends
def init(
    exports: tuple[str, ...],
    api: str | None,
    base_url: str | None,
    scheme: str | None,
    user: str | None,
    output: Path | None,
    yes: bool,
    force: bool,
) -> int:
    """Look at an export, and write settings for it.

    \b
    loader init users.csv.gz
    loader init 'users-*.csv' --api calven --user email --yes
    loader init users.ndjson --api scim --base-url https://idp.example.com/scim/v2 -o scim.toml

    Proposes the column with the users' keys, the attributes and their types from the first 1,000 rows. On a terminal it
    asks, and Enter takes what is proposed; elsewhere, and with --yes, it asks nothing. The file says why each setting
    is as it is. No value of the export stands in it, and no secret.

    Exit status: 0 it is written, and the first rows can be mapped; 2 it is not, or can't be used yet.
    """
    from loader.cli.kinds import refuse_other_than
    from loader.export.address import scheme_of
    from loader.export.files import matching
    from loader.sample import look
    from loader.targets import find

    if len(exports) > 1:
        raise Refused(f"EXPORT: {len(exports)} files; put their pattern in quotes, and they are loaded as one export")
    (export,) = exports
    asks = not yes and sys.stdin.isatty() and sys.stderr.isatty()
    _refuse(output or (None if asks else Path("load.toml")), force=force)
    if scheme_of(export):
        raise Refused(
            "EXPORT: init looks at files of this machine; fetch the first lines of that one, and look at them"
        )
    paths = [Path(str(path)) for path in matching(export, Path.cwd())]
    if export == "-" or not (os.path.isfile(paths[0]) or os.path.isdir(paths[0]) or not os.path.exists(paths[0])):
        name = "stdin" if export == "-" else export
        raise Refused(f"EXPORT: {name} can't be read twice; write its first lines to a file, and look at that")
    refuse_other_than(Path(export) if os.path.isfile(export) else paths[0], "export")
    sample = look(paths[0])
    if asks:
        say(f"{paths[0].name}: {counted(len(sample.columns), 'column')}, {counted(len(sample.rows), 'row')} looked at")
    for warning in [*sample.warnings, *sample.broken[:1]]:
        say(f"loader: {warning}")
    target = find(_api(sample, api, asks=asks))
    proposal = _proposal(export, sample, target, asks=asks, scheme=scheme, base_url=base_url, user=user)
    if output is None:
        output = _settings_file(asks=asks)
        _refuse(output, force=force)
    return _write(proposal, output)


def _refuse(output: Path | None, *, force: bool) -> None:
    if output is not None and os.path.exists(output) and not force:
        raise Refused(f"-o {output}: it is there already; --force replaces it, and -o names another")


# Asking --------------------------------------------------------------------------------------------------------------


def _api(sample: "Sample", api: str | None, *, asks: bool) -> str:
    from loader.targets import known

    if api is not None:
        return api
    words = {column.casefold() for column in sample.columns}
    likely = "calven-hierarchy" if {"group", "parent"} <= words else "calven"
    return _ask("Which API", likely, known()) if asks else likely


def _proposal(
    export: str,
    sample: "Sample",
    target: "type[Target]",
    *,
    asks: bool,
    scheme: str | None,
    base_url: str | None,
    user: str | None,
) -> "Proposal":
    """What is proposed, as far as nobody knows better."""
    from loader.proposal import Proposal, attributes_of, fields_of

    schemes = list(target.schemes)
    options = _options(target, base_url, asks=asks)
    if scheme is None:
        scheme = _ask("How are requests authorized", schemes[0], schemes) if asks and len(schemes) > 1 else schemes[0]
    elif scheme not in schemes:
        raise Refused(f"--scheme: {scheme!r} is not one of {', '.join(schemes)}")
    made = Proposal(export, sample, target, scheme, options)
    if target.columns:
        if user is not None:
            raise Refused(f"--user: {target.api} has fixed columns: {', '.join(target.columns)}")
        return replace(made, fields=fields_of(sample, target))
    if sample.is_nested and user is None:
        return made
    key, others = _key(sample, user, asks=asks)
    attributes = attributes_of(sample, target, key.column)
    return replace(
        made,
        sample=replace(sample, is_nested=False),
        user=key,
        others=others,
        attributes=_chosen(attributes) if asks else attributes,
    )


def _options(target: "type[Target]", base_url: str | None, *, asks: bool) -> dict[str, str]:
    """The target's settings that have no default."""
    from loader.proposal import options_needed

    options = {"base_url": base_url} if base_url else {}
    for name, stand_in in options_needed(target).items():
        if name not in options:
            if not stand_in and not asks:
                raise Refused(
                    f"target.{name}: {target.api} needs it, and nothing tells what it is; run this on a terminal"
                )
            options[name] = _ask(f"target.{name}", stand_in or None) if asks else stand_in
    return options


def _key(sample: "Sample", user: str | None, *, asks: bool) -> "tuple[Candidate, Sequence[Candidate]]":
    """The column with the users' keys, and others that may be."""
    from loader.proposal import candidate, candidates

    found = candidates(sample)
    if user is not None:
        return candidate(sample, user), []
    if not found:
        raise Refused("no column has a value that could be a user's key; --user names one that holds it")
    best = found[0]
    others = [each for each in found[1:] if each.is_certain and each.score > best.score - 3.5]
    if not asks:
        return best, others
    for each in [best, *others[:4]]:
        say(f"  {each.column}: {each.why}")
    named = _ask("Which column holds the users' keys", best.column, sample.columns)
    return candidate(sample, named), [each for each in [best, *others] if each.column != named]


def _chosen(attributes: "Sequence[Attribute]") -> "Sequence[Attribute]":
    """The attributes, with those left out that are not to be sent."""
    sent = [each for each in attributes if each.name is not None]
    for each in attributes:
        kind = f"{each.name} = {each.column!r}" if each.name is not None else f"not sent: {each.column!r}"
        say(f"  {kind}" + (f", {each.type}" if each.type != "string" else "") + (f" ({each.why})" if each.why else ""))
    if not sent or click.confirm("Send these", default=True, err=True):
        return attributes
    wanted = {
        each.column for each in sent if click.confirm(f"  Send {each.column!r} as {each.name}", default=True, err=True)
    }
    return [
        each if each.name is None or each.column in wanted else each._replace(name=None, why="not wanted")
        for each in attributes
    ]


def _settings_file(*, asks: bool) -> Path:
    default = Path("load.toml")
    return Path(_ask("Settings file", str(default))) if asks else default


def _ask(question: str, default: str | None, known: Sequence[str] = ()) -> str:
    choice = click.Choice(list(known)) if known else None
    answer: str = click.prompt(question, default=default, type=choice, show_choices=len(known) <= 12, err=True)
    return answer


# Writing -------------------------------------------------------------------------------------------------------------


def _write(proposal: "Proposal", output: Path) -> int:
    """Write the settings, try them, and tell what comes next. Returns the exit status."""
    from loader.proposal import toml

    if not os.path.isabs(proposal.export):
        proposal = replace(proposal, export=os.path.relpath(proposal.export, output.parent))
    schema = f"./{SCHEMA}" if (output.parent / SCHEMA).is_file() else None
    with written(output) as file:
        file.write(toml(proposal, str(output), schema).encode())
    try:
        tried = _try(proposal, output)
    except LoaderError as error:
        raise Refused(f"{output} is written, but can't be used yet: {error}") from error
    say(f"loader: {output} is written: {tried}")
    for line in _next(proposal, output):
        say(line)
    return 0


def _try(proposal: "Proposal", output: Path) -> str:
    """Load the settings and map the first rows with them; returns what becomes of these. Raises LoaderError."""
    from loader.errors import Stopped
    from loader.outcome import Code
    from loader.settings import load_settings

    loaded = load_settings(output)
    mapping = loaded.row_mapping()
    loaded.source.check(mapping)
    sent = skipped = rejected = 0
    reason = first = ""
    try:
        for rows in loaded.source.rows(mapping):
            sent += len(rows.users)
            skipped += sum(each.outcome.code is Code.SKIPPED for each in rows.settled)
            refused = [each for each in rows.settled if each.outcome.code is not Code.SKIPPED]
            rejected += len(refused)
            reason = reason or (refused[0].outcome.message if refused else "")
            first = first or (rows.records[0].decode() if rows.users else "")
            if sent + skipped + rejected >= len(proposal.sample.rows):
                break
    except Stopped as stopped:
        reason = reason or str(stopped)
    if rejected and not sent:
        raise Refused(f"none of the first rows can be sent: {reason}")
    rows_read = sent + skipped + rejected
    told = (
        f"of the first {rows_read:,} rows, {sent:,} would be sent"
        if rows_read != 1
        else f"of 1 row, {sent} would be sent"
    )
    told += f", {rejected:,} REJECTED" if rejected else ""
    told += f", {skipped:,} SKIPPED, as no attribute has a value" if skipped else ""
    told += f"\n  {reason}" if reason else ""
    return told + (f"\n  the first as {first[:200]}{'…' if len(first) > 200 else ''}" if first else "")


def _next(proposal: "Proposal", output: Path) -> list[str]:
    """What to do now."""
    missing = [name for name in proposal.variables.values() if not os.environ.get(name)]
    export = [f"  export {' '.join(f'{name}=…' for name in missing)}"] if missing else []
    changes = ", ".join(f"target.{name}" for name in proposal.stand_ins)
    edit = [f"  say in {output} what is right for {changes}"] if changes else []
    if any(each.name is not None for each in proposal.attributes):
        edit.append(f"  check in {output} the attributes' names and types: they are guessed from the export")
    return ["Next:", *edit, *export, f"  {shlex.join(['loader', 'check', str(output)])}"]
