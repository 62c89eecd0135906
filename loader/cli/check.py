"""`loader check`: read the whole export and tell what a load would do."""

import json
from pathlib import Path

import click

from loader.cli.arguments import overriding, settings_file, settings_of, text_or_json
from loader.cli.endings import ends
from loader.errors import LoaderError


@click.command()
@settings_file
@overriding
@text_or_json
@click.option("--show", is_flag=True, help="Print the first request, secrets masked.")
@click.option("--offline", is_flag=True, help="Ask nobody: no credentials are needed, and no network to the target.")
@ends
def check(settings: Path, overrides: tuple[str, ...], form: str, show: bool, offline: bool) -> int:
    """Read the whole export and tell what a load would do. No user is sent.

    \b
    loader check load.toml
    loader check load.toml --show
    loader check load.toml --offline
    loader check load.toml --format json

    Counts rows, rejects, users that come again, requests and bytes, estimates the time, and tries the credentials where
    the API has a call for that which changes nothing. Credentials that are not there are told of behind all the rest;
    with --offline nobody asks for them.

    Exit status: 0 all is well; 1 rows would be rejected; 2 the settings or the export are wrong, or credentials are not
    there; 3 the credentials are refused, or the target can't be reached.
    """
    import anyio
    from rich.console import Console

    from loader import check as checking

    loaded = settings_of(settings, overrides, with_secrets=False)  # if they lack, that is told with the rest
    loaded.source.check(loaded.row_mapping())
    with Console(stderr=True).status("reading the export") as shown:  # nothing, where stderr is no terminal
        found = checking.inspect(loaded, lambda rows, share: shown.update(f"{share:.0%} · {rows:,} rows read"))
    refused: LoaderError | None = None
    probed = None
    try:
        probed = checking.OFFLINE if offline else anyio.run(checking.try_credentials, loaded, list(found.attributes))
    except LoaderError as error:
        refused = error
    state = checking.report(loaded, found, probed, refused)
    if form == "json":
        first = {"first_request": checking.first_request(loaded, found)} if show else {}
        click.echo(json.dumps(state | first))
    else:
        for line in [*(checking.request_lines(loaded, found) if show else ()), *checking.report_lines(state)]:
            click.echo(line)
    return checking.exit_status(found, probed, refused)
