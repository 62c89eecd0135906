"""How a run ended, for those who did not watch it: silence, a summary as JSON, a command that tells somebody."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loader.cli.arguments import moment_of, settings_of
from loader.cli.messages import held_back, note, say
from loader.cli.output import written
from loader.errors import InUse, LoaderError, Refused
from loader.words import counted

if TYPE_CHECKING:
    from datetime import datetime

    from loader.settings import Settings


@dataclass(frozen=True)
class Telling:
    """How a run tells of itself."""

    quiet: bool
    summary_json: Path | None
    unless_running: bool


def telling(command: Callable[..., int]) -> Callable[..., int]:
    """The options that say so, given to the command as one, `telling`."""

    @click.option("--quiet", is_flag=True, help="Say nothing, unless something is wrong.")
    @click.option(
        "--summary-json",
        type=click.Path(path_type=Path, dir_okay=False),
        help="At the end, write there how it went, as JSON.",
    )
    @click.option(
        "--unless-running",
        is_flag=True,
        help="While another run of this load is at work, do nothing, and end with 0.",
    )
    @wraps(command)
    def told(*args: Any, quiet: bool, summary_json: Path | None, unless_running: bool, **kwargs: Any) -> int:
        return command(*args, telling=Telling(quiet, summary_json, unless_running), **kwargs)

    return told


def reported(
    path: Path,
    overrides: tuple[str, ...],
    until: str | None,
    how: Telling,
    work: "Callable[[Settings, datetime | None], int]",
) -> int:
    """Read the settings, do the work, and tell how it ended to whoever wants to know.

    Of a load that another run has, that one tells.
    """
    with held_back(how.quiet) as held:
        with _refused(how.summary_json):
            moment = moment_of(until)
            settings = settings_of(path, overrides, with_secrets=False)  # if they lack, that is to be told
        try:
            return _told(settings, partial(work, settings, moment), held, how)
        except InUse as error:
            if not how.unless_running:
                raise
            note(f"{error.fact}; this one leaves it alone, as --unless-running says")
            if how.quiet:
                held.clear()
            return 0


@contextmanager
def _refused(summary_json: Path | None) -> Iterator[None]:
    """Around what comes before there are settings: a summary of a run before would be taken for this one's."""
    began = time.time()
    try:
        yield
    except Refused as error:
        if summary_json is not None:
            from loader.notify import summary

            _write(summary_json, summary(None, began, error.exit_status, str(error)))
        raise


def _write(path: Path, state: Mapping[str, Any]) -> None:
    import json

    try:
        with written(path, "--summary-json") as file:
            file.write(json.dumps(state).encode() + b"\n")
    except Refused as error:  # too late to refuse anything
        say(f"loader: {error}")


def _told(settings: "Settings", work: Callable[[], int], held: list[str], how: Telling) -> int:
    """`held`: what was said so far, if nothing is to be when all is well."""
    from loader.notify import notify, summary, summary_line

    is_refresh, command = settings.refresh.mode == "changed", settings.notify.command
    if not (how.quiet or is_refresh or command or how.summary_json):
        return work()
    began = time.time()
    status, message, ended, is_ours = 3, "", None, True
    try:
        status = work()
    except InUse:
        is_ours = False
        raise
    except LoaderError as error:
        status, message, ended = error.exit_status, str(error), error
        say(f"loader: {error}", "error")
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
        raise
    except BaseException as error:
        message = f"internal error: {type(error).__name__}: {error}"
        raise
    finally:
        if is_ours:
            state = summary(settings.checkpoint_path, began, status, message, ended)
            if status == 1:
                state["message"] = "; ".join(
                    filter(None, (f"{counted(state['failures'], 'row')} failed", state["message"]))
                )
            if status == 0:
                held.clear()
                if how.quiet and state["message"]:
                    say(f"loader: {state['message']}")
            if is_refresh and (status or not how.quiet):
                say(summary_line(state, is_told=ended is not None))
            if command is not None:
                notify(
                    command,
                    settings.folder,
                    settings.notify.timeout_s,
                    state,
                    lambda told: say(f"loader: {told}"),
                )
            if how.summary_json is not None:
                _write(how.summary_json, state)
    return status
