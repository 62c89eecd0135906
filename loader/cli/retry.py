"""`loader retry`: send again what failed in a finished load."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loader.cli.arguments import ending, moment_of, overriding, settings_file, settings_of
from loader.cli.endings import ends
from loader.cli.importing import QuickImports
from loader.cli.loading import go, prepare_whole, refresh_of, summarize
from loader.cli.messages import again, counted, log_json, say
from loader.errors import Refused

if TYPE_CHECKING:
    from loader.checkpoint import Checkpoint
    from loader.resume import Resume
    from loader.settings import Settings
    from loader.whole import Whole


@click.command()
@settings_file
@overriding
@ending
@log_json
@ends
def retry(settings: Path, overrides: tuple[str, ...], until: str | None) -> int:
    """Send again what failed in a finished load.

    \b
    loader retry load.toml
    loader retry load.toml --until 06:00 --set limits.concurrency=4

    Reads the export again, which must not have changed, and sends the rows that are FAILED, NO_RESULT, PARTIAL,
    INVALID, USER_NOT_FOUND or LOCATION_NOT_FOUND, each followed by the later rows of its user. REJECTED rows have to be
    corrected instead: loader results CHECKPOINT --rows.

    Exit status: as of loader run, and about all rows of the load. If it is interrupted, the same command goes on.
    """
    with QuickImports():
        from loader.checkpoint import lock

    moment = moment_of(until)
    loaded = settings_of(settings, overrides)
    export, path = loaded.source, loaded.checkpoint_path
    if export.is_stdin:
        raise Refused("export.path: stdin can't be read again; load from a file to be able to retry")
    if not os.path.exists(path):  # Path.exists() raises for a name that is too long
        raise Refused(f"there is no checkpoint {path} yet; load first, with: {again('run', settings, overrides)}")
    export.check(loaded.row_mapping())
    with lock(path), _reopened(loaded) as (checkpoint, resume, whole):
        if resume.is_finished:
            say("loader: there is nothing to retry")
            return summarize(checkpoint)
        rows = checkpoint.get("rows") - len(resume.settled)
        say(f"loader: {counted(rows, 'row')} {'is' if rows == 1 else 'are'} sent again")
        return go(loaded, checkpoint, resume, again("retry", settings, overrides), moment, whole=whole)


@contextmanager
def _reopened(settings: "Settings") -> "Iterator[tuple[Checkpoint, Resume, Whole | None]]":
    """The load, with the rows that are worth it taken out again."""
    from loader.checkpoint import Checkpoint
    from loader.resume import begin, reopen

    path = settings.checkpoint_path
    if refresh := refresh_of(settings):
        with refresh.locked(), refresh.retrying(path) as (checkpoint, resume):
            yield checkpoint, resume, None
        return
    kept = settings.store.locked() if settings.store else nullcontext()
    with kept, Checkpoint.open(path, create=False) as checkpoint:
        resume = begin(checkpoint, settings.identity(), settings.source, settings.row_mapping())
        whole = prepare_whole(settings, path, retry=True)
        yield checkpoint, reopen(checkpoint, resume), whole
