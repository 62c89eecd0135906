"""The command line: arguments in, messages and exit status out. Imports late, so that `--help` is quick."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from loader import __version__
from loader.errors import LoaderError, Refused

if TYPE_CHECKING:
    from loader.lane import Lane
    from loader.progress import Meter, Tally
    from loader.resume import Resume
    from loader.settings import Settings

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(LoaderError):
    """A signal ended the run; it can be resumed."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}; what was settled is kept")
        self.exit_status = 128 + number


class _Group(click.Group):
    """Commands in the order of their use; the sandbox is imported only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, "sandbox"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "sandbox":
            from loader.sandbox.command import sandbox

            return sandbox
        return super().get_command(ctx, cmd_name)


def say(message: str) -> None:
    """A line for people, on stderr."""
    click.echo(message, err=True)


def _ends(command: Callable[..., int | None]) -> Callable[..., NoReturn]:
    """Turn what a command raises into a message and an exit status; a traceback goes to a file, never to a person."""

    @wraps(command)
    def ended(*args: Any, **kwargs: Any) -> NoReturn:
        try:
            status = command(*args, **kwargs) or 0
        except click.ClickException:
            raise
        except BaseExceptionGroup as group:
            status = _explain(_only(group))
        except KeyboardInterrupt:
            status = 130
        except BrokenPipeError:  # the reader of our results went away
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 141
        except Exception as error:  # noqa: BLE001  # the last resort: a person gets a line, the crash file the rest
            status = _explain(error)
        sys.exit(status)

    return ended


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error in a task group's wrapping that says most."""
    leaves: list[BaseException] = []
    todo: list[BaseException] = [group]
    while todo:
        error = todo.pop()
        if isinstance(error, BaseExceptionGroup):
            todo += error.exceptions
        else:
            leaves.append(error)
    return min(leaves, key=lambda error: isinstance(error, LoaderError))


def _explain(error: BaseException) -> int:
    if isinstance(error, LoaderError):
        say(f"loader: {error}")
        return error.exit_status
    path = Path(f"loader-crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt")
    text = f"directory-loader {__version__}, Python {sys.version}\n\n{''.join(traceback.format_exception(error))}"
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        where = f"details are in {path}"
    except OSError:
        where = "its details could not be written to the working directory"
    say(
        f"loader: internal error, please report it: {type(error).__name__}: {error} ({where}). What was settled is kept"
    )
    return 3


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="loader")
def main() -> None:
    """Load very large user exports into directory APIs: every user gets an outcome, and a kill costs nothing.

    \b
    loader demo                          see it work, end to end, on this machine
    loader run load.toml                 load, or go on where the run before ended
    loader status users.ckpt             how it stands
    loader results users.ckpt --code USER_NOT_FOUND
    """


_settings = click.argument("settings", type=click.Path(path_type=Path, dir_okay=False))
_checkpoint = click.argument("checkpoint", type=click.Path(path_type=Path, dir_okay=False))
_set = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting: --set limits.concurrency=4."
)


@main.command()
@_settings
@_set
@click.option("--fresh", is_flag=True, help="Start over; the old checkpoint is kept aside.")
@click.option("--yes", is_flag=True, help="With --fresh: even if the load before is not finished.")
@_ends
def run(settings: Path, overrides: tuple[str, ...], fresh: bool, yes: bool) -> int:
    """Load an export, or go on where the run before ended.

    \b
    loader run load.toml
    loader run load.toml --set limits.concurrency=4
    loader run load.toml --fresh

    Exit status: 0 all is well; 1 finished, and some rows failed; 2 nothing was sent; 3 stopped, run again to go on;
    130 or 143 interrupted, run again to go on.
    """
    from loader.checkpoint import Checkpoint, lock
    from loader.progress import Tally
    from loader.resume import begin, set_aside
    from loader.settings import load_settings

    loaded = load_settings(settings, overrides)
    for key in loaded.literal_secrets():
        say(f"loader: {key} stands in the settings file; env:NAME or file:PATH keeps it out of there")
    loaded.secrets()
    export, path = loaded.source, loaded.checkpoint_path
    _check_export(loaded)
    with lock(path):
        if fresh and (aside := set_aside(path, even_unfinished=yes)):
            say(f"loader: the old checkpoint is kept as {aside.name}")
        is_new = not path.exists()
        with Checkpoint.open(path, create=True) as checkpoint:
            resume = begin(checkpoint, loaded.identity(), export)
            if resume.is_finished:
                tally = Tally(checkpoint.counts())
                say("loader: this load is finished; --fresh loads the export again")
                return _summarize(tally, path)
            if not is_new:
                say(f"loader: going on behind {len(resume.settled):,} settled rows")
            try:
                tally = _run(loaded, checkpoint, resume)
            except Refused:
                raise
            except LoaderError as error:
                say(f"loader: {error}")
                say(f"Go on with: {_again(settings, overrides)}")
                return error.exit_status
            return _summarize(tally, path)


def _check_export(settings: "Settings") -> None:
    """Raise ExportError if the export can't be read or doesn't fit the mapping, before a checkpoint is made for it."""
    from contextlib import suppress

    from loader.errors import Stopped

    settings.source.fingerprint()
    with suppress(Stopped):  # it breaks off within its first block: the rows before that are loaded all the same
        next(settings.source.rows(settings.row_mapping()), None)


def _run(settings: "Settings", checkpoint: Any, resume: "Resume") -> "Tally":
    """The load on an event loop, with its progress on the screen and signals heeded."""
    import anyio
    from rich.console import Console

    from loader.load import load
    from loader.screen import show_progress

    async def heed_signals(lane: "Lane") -> None:
        with anyio.open_signal_receiver(*_SIGNALS) as received:
            async for number in received:
                if lane.stopping.is_set():
                    say("loader: stopped at once")
                    os._exit(128 + number)  # the checkpoint is made for being killed
                say("loader: stopping; what is in flight may finish (again to stop at once)")
                lane.stop(Interrupted(number))

    async def run_load() -> "Tally":
        async with anyio.create_task_group() as tasks:

            def watch(meter: "Meter", lane: "Lane") -> None:
                tasks.start_soon(show_progress, Console(stderr=True), meter, lane)
                tasks.start_soon(heed_signals, lane)

            tally = await load(settings, checkpoint, resume, watch, _Warnings())
            tasks.cancel_scope.cancel()
        return tally

    try:
        return anyio.run(run_load, backend_options={"use_uvloop": _has_uvloop()})
    except BaseExceptionGroup as group:
        raise _only(group) from group


def _has_uvloop() -> bool:
    from importlib.util import find_spec

    return find_spec("uvloop") is not None


class _Warnings:
    """Says the first few warnings of a run aloud, and how many more there were by then."""

    _most = 5

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, message: str) -> None:
        self._count += 1
        if self._count <= self._most:
            say(f"loader: {message}" + (" (no more of these are shown)" if self._count == self._most else ""))


def _again(settings: Path, overrides: tuple[str, ...]) -> str:
    import shlex

    sets = [part for override in overrides for part in ("--set", override)]
    return shlex.join(["loader", "run", str(settings), *sets])


def _summarize(tally: "Tally", path: Path) -> int:
    from loader.results import outcome_lines

    for line in outcome_lines(dict(tally.counts)):
        say(line)
    if tally.failures:
        say(f"{tally.failures:,} rows failed; see them with: loader results {path}")
    return tally.exit_status


@main.command()
@_checkpoint
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
@_ends
def status(checkpoint: Path, form: str) -> None:
    """Show how a load stands, finished or running."""
    import json

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


@main.command()
@_checkpoint
@click.option("--code", "codes", multiple=True, metavar="CODE", help="Only rows with this outcome; repeats.")
@click.option("--format", "form", type=click.Choice(["csv", "ndjson"]), default="csv", show_default=True)
@click.option("-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="A file instead of stdout.")
@_ends
def results(checkpoint: Path, codes: tuple[str, ...], form: str, output: Path | None) -> None:
    """Write a line per settled row, in order of row.

    \b
    loader results users.ckpt -o results.csv
    loader results users.ckpt --code USER_NOT_FOUND --code INVALID --format ndjson
    """
    from loader.checkpoint import Checkpoint
    from loader.outcome import Code
    from loader.results import write_results

    for code in codes:
        if code not in Code.__members__:
            raise Refused(f"--code {code!r} is not an outcome; known: {', '.join(Code)}")
    with Checkpoint.read(checkpoint) as opened:
        if output is None:
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
            write_results(opened, sys.stdout, form, codes)
            sys.stdout.flush()
        else:
            with open(os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                write_results(opened, file, form, codes)


@main.command()
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("loader-demo"), show_default=True
)
@click.option("--users", type=click.IntRange(1000, 5_000_000), default=200_000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@_ends
def demo(folder: Path, users: int, seed: int) -> int:
    """Show the whole job on this machine: load, kill, resume, compare.

    Starts the sandbox and the loads as processes, and leaves its files for a look.
    """
    from rich.console import Console

    from loader.demo import demo as show

    return show(folder, users, seed, Console())
