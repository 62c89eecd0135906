"""A load, as `run` and `retry` run it: with its progress on the screen, signals and the clock heeded, and an end."""

import shlex
from typing import TYPE_CHECKING

from loader.cli.importing import QuickImports
from loader.cli.loop import heed_signals, on_loop
from loader.cli.messages import say, tell
from loader.errors import LoaderError, Refused

if TYPE_CHECKING:
    from datetime import datetime

    from loader.checkpoint import Checkpoint
    from loader.runs import Run


def go(run: "Run", again: str, until: "datetime | None", first: int | None = None, *, quiet: bool = False) -> int:
    """Run the load, and tell how it ended. `again` is the command to go on with."""
    try:
        _run(run, until, first, quiet=quiet)
    except Refused:
        raise
    except LoaderError as error:
        ended = LoaderError(f"{error}\nGo on with: {again}")
        ended.exit_status = error.exit_status
        raise ended from error
    status = summarize(run.checkpoint)
    if run.checkpoint.get("finished_at") is None:
        say(f"The load is not finished: this run ended after {first:,} rows. Go on with: {again}")
    return status


def _run(run: "Run", until: "datetime | None", first: int | None, *, quiet: bool) -> None:
    with QuickImports():
        import anyio
        from rich.console import Console

        import loader.load  # noqa: F401  # what `go` imports
        from loader.lane import Lane
        from loader.runs import Warnings
        from loader.screen import progress

    async def run_load() -> None:
        lane = Lane(run.settings.limits.give_up_s)
        with progress(Console(stderr=True, quiet=quiet)) as watch:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(heed_signals, lane, "what was settled is kept")
                await run.go(lane, watch, Warnings(tell), first, until)
                tasks.cancel_scope.cancel()

    on_loop(run_load)


def summarize(checkpoint: "Checkpoint") -> int:
    """Tell the outcomes of all rows; returns the exit status that they mean."""
    from loader.progress import Tally
    from loader.results import outcome_lines

    tally = Tally(checkpoint.counts())
    for line in outcome_lines(dict(tally.counts)):
        say(line)
    if tally.failures:
        rows = f"{tally.failures:,} row{'s' if tally.failures > 1 else ''}"
        say(f"{rows} failed; see them with: {shlex.join(['loader', 'results', str(checkpoint.path)])}")
    return tally.exit_status
