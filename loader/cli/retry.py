"""`loader retry`: send again what failed in a finished load."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loader.cli.arguments import ending, overriding, settings_file, showing
from loader.cli.endings import ends
from loader.cli.importing import QuickImports
from loader.cli.loading import go, pages, summarize
from loader.cli.messages import again, log_json, note
from loader.cli.reporting import Telling, reported, telling
from loader.errors import Refused

if TYPE_CHECKING:
    from datetime import datetime

    from loader.settings import Settings


@click.command()
@settings_file
@overriding
@ending
@showing
@telling
@log_json
@ends
def retry(
    settings: Path, overrides: tuple[str, ...], until: str | None, dashboard: int | None, telling: Telling
) -> int:
    """Send again what failed in a finished load.

    \b
    loader retry load.toml
    loader retry load.toml --until 06:00 --set limits.concurrency=4
    loader retry load.toml --quiet --summary-json retried.json

    Reads the export again, which must not have changed, and sends the rows that are FAILED, NO_RESULT, PARTIAL,
    INVALID, USER_NOT_FOUND or LOCATION_NOT_FOUND, each followed by the later rows of its user. REJECTED rows have to be
    corrected instead: loader results CHECKPOINT --rows. Until a row has a new outcome, the one it had stands.

    Retry first, then correct: a retry sends the rows as they were, and says so where some were taken out to be
    corrected.

    Exit status: as of loader run, and about all rows of the load. If it is interrupted, the same command goes on.
    """
    with QuickImports():
        from loader.checkpoint import lock
        from loader.resume import taken_out
        from loader.runs import reopened

    def work(loaded: "Settings", moment: "datetime | None") -> int:
        loaded.secrets()
        export, path = loaded.source, loaded.checkpoint_path
        if export.comes_once:
            raise Refused(f"export.path: {export} can't be read again; load from a file to be able to retry")
        if not os.path.exists(path):  # Path.exists() raises for a name that is too long
            raise Refused(f"there is no checkpoint {path} yet; load first, with: {again('run', settings, overrides)}")
        export.check(loaded.row_mapping())
        once_more = reopened(loaded, note, even_taken_out=True)
        with lock(path), pages(loaded, dashboard) as on, once_more as load:
            if load.resume.is_finished:
                return summarize(load.checkpoint)
            if words := taken_out(load.checkpoint):
                note(words)
            command = again("retry", settings, overrides)
            return go(load, command, command, moment, quiet=telling.quiet, on=on)

    return reported(settings, overrides, until, telling, work)
