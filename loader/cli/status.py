"""`loader status`: show how a load stands, finished or running."""

import json
import time
from pathlib import Path

import click

from loader.cli.arguments import checkpoint_file, checkpoint_of, text_or_json
from loader.cli.endings import ends
from loader.cli.messages import say
from loader.errors import Refused

_EVERY_S = 1.0
#: A run has this many seconds to tell how it stands: at first it may read, or compare.
_PATIENCE = 5


@click.command()
@checkpoint_file
@text_or_json
@click.option("--watch", is_flag=True, help="Show it live, until the run ends.")
@ends
def status(checkpoint: Path, form: str, watch: bool) -> None:
    """Show how a load stands, finished or running.

    \b
    loader status users.ckpt
    loader status users.ckpt --watch
    loader status users.ckpt --format json

    Rows by outcome and their sum, rate, and time left, or how the last run ended. It may be asked while a run is going
    on; with --watch that is shown as in its own terminal, until it ends. Ctrl-C ends the watching alone.

    Exit status: 0 that is how it stands; 2 there is no checkpoint, or it can't be read; 130 interrupted.
    """
    if watch and form == "json":
        raise Refused("--watch draws for people; for programs, ask --format json again and again")
    if watch:
        _watch(checkpoint)
    from loader.results import status as state_of
    from loader.results import status_lines

    with checkpoint_of(checkpoint) as opened:
        state = state_of(opened)
    if form == "json":
        click.echo(json.dumps(state))
    else:
        for line in status_lines(state):
            click.echo(line)


def _watch(path: Path) -> None:
    """Show the run of a load, second by second, until it has ended."""
    from rich.console import Console

    from loader.checkpoint import Checkpoint, runner
    from loader.results import is_fresh
    from loader.show.panel import About, View
    from loader.show.screen import progress

    with checkpoint_of(path) as opened:
        course = [(moment.at, moment.rows_per_s) for moment in opened.course()]
        view = View(About.of(opened), course, is_ours=False)
    if runner(path) is None:
        say(f"loader: no run of {path} is on: start it, then watch it. This is how it stands:")
    silent = 0
    with progress(Console(), view) as show:
        while (process := runner(path)) is not None:
            with Checkpoint.read(path) as opened:  # each time anew: who reads for long keeps the log from being emptied
                now = opened.now()
            if now is not None and is_fresh(now):
                show(now)
            elif (silent := silent + 1) == _PATIENCE:
                say(f"loader: process {process} has nothing to tell yet")
            time.sleep(_EVERY_S)
