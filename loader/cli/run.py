"""`loader run`: load an export, or go on where the run before ended."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

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
from loader.cli.loading import go, prepare_whole, refresh_of, summarize
from loader.cli.messages import again, counted, held_back, log_json, say
from loader.cli.reporting import reported
from loader.errors import Refused

if TYPE_CHECKING:
    from loader.checkpoint import Checkpoint
    from loader.refresh import Options
    from loader.resume import Resume
    from loader.settings import Settings
    from loader.whole import Whole


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
        from loader.refresh import Options

    def work() -> int:
        _check_flags(loaded, first, allow_shrink, is_refresh_meant=full or planned is not None)
        export, path = loaded.source, loaded.checkpoint_path
        export.check(loaded.row_mapping())  # before a checkpoint is made for it
        with lock(path), _begun(loaded, Options(full, fresh, yes), planned, allow_shrink=allow_shrink) as load:
            checkpoint, resume, whole = load
            if resume.is_finished:
                say("loader: this load is finished; --fresh loads the export again")
                return summarize(checkpoint)
            flags = ("--allow-shrink",) if allow_shrink else ()
            command = again("run", settings, overrides, flags)
            return go(loaded, checkpoint, resume, command, moment, first, whole, quiet=quiet, dashboard=dashboard)

    with held_back(quiet) as held:
        moment = moment_of(until)
        loaded = settings_of(settings, overrides)
        return reported(loaded, work, held, quiet=quiet, summary_json=summary_json)


@contextmanager
def _begun(
    settings: "Settings", options: "Options", planned: Path | None, *, allow_shrink: bool
) -> "Iterator[tuple[Checkpoint, Resume, Whole | None]]":
    """The load, begun or gone on with: its checkpoint, and what is left to do."""
    from loader.checkpoint import Checkpoint
    from loader.plan import refuse_drift
    from loader.resume import begin, set_aside

    path = settings.checkpoint_path
    if refresh := refresh_of(settings):
        if planned is not None and not (options.fresh or refresh.is_new(path)):
            raise Refused("--plan: a load of this export has begun; loader run without it goes on")
        judge = (lambda compared: refuse_drift(planned, refresh, compared)) if planned else (lambda _compared: None)
        with refresh.locked(), refresh.night(path, options, judge) as (checkpoint, resume):
            yield checkpoint, resume, None
        return
    kept = settings.store.locked() if settings.store else nullcontext()
    with kept:
        whole = prepare_whole(settings, path, fresh=options.fresh, allow_shrink=allow_shrink)
        if options.fresh and (aside := set_aside(path, even_unfinished=options.even_unfinished)):
            say(f"loader: the old checkpoint is kept as {aside.name}")
        is_new = not path.exists()
        with Checkpoint.open(path, create=True) as checkpoint:
            resume = begin(checkpoint, settings.identity(), settings.source, settings.row_mapping())
            if not is_new and not resume.is_finished:
                say(f"loader: going on behind {counted(len(resume.settled), 'settled row')}")
            yield checkpoint, resume, whole


def _check_flags(settings: "Settings", first: int | None, allow_shrink: bool, *, is_refresh_meant: bool) -> None:
    """Raise Refused for flags that this target, or this load, gives no meaning to."""
    if is_refresh_meant and settings.refresh.mode != "changed":
        raise Refused('--full and --plan are for a refresh, and refresh.mode is not "changed": all users are sent')
    is_whole, api = settings.store is not None, settings.target["api"]
    if is_whole and first is not None:
        raise Refused(
            f"--first: {api} takes the whole export in one request, and what a part of it leaves out would go; "
            "loader check tells what would be sent"
        )
    if allow_shrink and not is_whole:
        raise Refused(f"--allow-shrink: {api} keeps what an export leaves out, so a smaller one takes nothing away")
