"""`loader run`: load an export, or go on where the run before ended."""

from pathlib import Path

import click

from loader.cli.arguments import (
    ending,
    moment_of,
    overriding,
    quietly,
    settings_file,
    settings_of,
    showing,
    summarizing,
)
from loader.cli.endings import ends
from loader.cli.importing import QuickImports
from loader.cli.loading import go, summarize
from loader.cli.messages import again, held_back, log_json, note
from loader.cli.reporting import refused, reported


@click.command()
@settings_file
@overriding
@click.option("--first", type=click.IntRange(min=1), metavar="N", help="Stop after N rows; the next run goes on.")
@ending
@click.option("--fresh", is_flag=True, help="Start over; the old checkpoint is kept aside.")
@click.option("--yes", is_flag=True, help="With --fresh: even if the load before is not finished.")
@click.option("--allow-shrink", is_flag=True, help="Send a hierarchy that is much smaller than the one accepted last.")
@click.option("--full", is_flag=True, help="A refresh: send all users, changed or not.")
@click.option(
    "--plan",
    "planned",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A refresh: only if it sends what loader plan -o wrote there.",
)
@showing
@quietly
@summarizing
@log_json
@ends
def run(
    settings: Path,
    overrides: tuple[str, ...],
    first: int | None,
    until: str | None,
    fresh: bool,
    yes: bool,
    allow_shrink: bool,
    full: bool,
    planned: Path | None,
    dashboard: int | None,
    quiet: bool,
    summary_json: Path | None,
) -> int:
    """Load an export, or go on where the run before ended.

    \b
    loader run load.toml
    loader run load.toml --first 10
    loader run load.toml --until 06:00 --set limits.concurrency=4
    loader run load.toml --quiet --summary-json last.json

    With refresh.mode = "changed" each night's export is compared with what the target acknowledged, and only what
    changed is sent.

    Exit status: 0 all rows are well; 1 some rows failed; 2 nothing was sent; 3 stopped, run again to go on;
    130 or 143 interrupted, run again to go on. After --first, 0 and 1 are about the rows so far.
    """
    with QuickImports():
        from loader.checkpoint import lock
        from loader.runs import Flags, begun

    def work() -> int:
        loaded.secrets()
        flags = Flags(first, moment, fresh, yes, full, planned, allow_shrink)
        loaded.source.check(loaded.row_mapping())  # before a checkpoint is made for it
        with lock(loaded.checkpoint_path), begun(loaded, flags, note) as load:
            if load.resume.is_finished:
                note("this load is finished; --fresh loads the export again")
                return summarize(load.checkpoint)
            command = again("run", settings, overrides, ("--allow-shrink",) if allow_shrink else ())
            retry = again("retry", settings, overrides)
            return go(load, command, retry, moment, first, quiet=quiet, dashboard=dashboard)

    with held_back(quiet) as held:
        with refused(summary_json):
            moment = moment_of(until)
            loaded = settings_of(settings, overrides, with_secrets=False)  # if they lack, that is to be told
        return reported(loaded, work, held, quiet=quiet, summary_json=summary_json)
