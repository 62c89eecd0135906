"""`loader status`: show how a load stands, finished or running."""

import json
from pathlib import Path

import click

from loader.cli.arguments import checkpoint_file, text_or_json
from loader.cli.endings import ends


@click.command()
@checkpoint_file
@text_or_json
@ends
def status(checkpoint: Path, form: str) -> None:
    """Show how a load stands, finished or running.

    \b
    loader status users.ckpt
    loader status users.ckpt --format json

    Rows by outcome and their sum, rate, and time left. It may be asked while a run is going on.

    Exit status: 0 that is how it stands; 2 there is no checkpoint, or it can't be read.
    """
    from loader.checkpoint import Checkpoint
    from loader.results import status as state_of
    from loader.results import status_lines

    with Checkpoint.read(checkpoint) as opened:
        state = state_of(opened)
    if form == "json":
        click.echo(json.dumps(state))
    else:
        for line in status_lines(state):
            click.echo(line)
