"""`loader retry`: send again what failed in a finished load."""

import os
from pathlib import Path

import click

from loader.cli.arguments import ending, moment_of, overriding, settings_file, settings_of
from loader.cli.endings import ends
from loader.cli.importing import QuickImports
from loader.cli.loading import go, summarize
from loader.cli.messages import again, log_json, note
from loader.errors import Refused


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
        from loader.runs import reopened

    moment = moment_of(until)
    loaded = settings_of(settings, overrides)
    export, path = loaded.source, loaded.checkpoint_path
    if export.comes_once:
        raise Refused(f"export.path: {export} can't be read again; load from a file to be able to retry")
    if not os.path.exists(path):  # Path.exists() raises for a name that is too long
        raise Refused(f"there is no checkpoint {path} yet; load first, with: {again('run', settings, overrides)}")
    export.check(loaded.row_mapping())
    with lock(path), reopened(loaded, note) as load:
        if load.resume.is_finished:
            return summarize(load.checkpoint)
        command = again("retry", settings, overrides)
        return go(load, command, command, moment)
