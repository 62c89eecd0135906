"""How a run ended, for those who did not watch it: silence, a summary as JSON, a command that tells somebody."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loader.cli.messages import say
from loader.cli.output import written
from loader.errors import LoaderError, Refused

if TYPE_CHECKING:
    from loader.settings import Settings


@contextmanager
def refused(summary_json: Path | None) -> Iterator[None]:
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


def reported(
    settings: "Settings", work: Callable[[], int], held: list[str], *, quiet: bool, summary_json: Path | None
) -> int:
    """Do it, and tell how it ended to whoever wants to know.

    `held`: what is said, if nothing is to be when all is well (`quiet`).
    """
    from loader.notify import notify, summary, summary_line

    is_refresh, command = settings.refresh.mode == "changed", settings.notify.command
    if not (quiet or is_refresh or command or summary_json):
        return work()
    began = time.time()
    status, message = 3, ""
    try:
        status = work()
    except LoaderError as error:
        status, message = error.exit_status, str(error)
        say(f"loader: {error}", "error")
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
        raise
    except BaseException as error:
        message = f"internal error: {type(error).__name__}: {error}"
        raise
    finally:
        state = summary(settings.checkpoint_path, began, status, message)
        if status == 1:
            state["message"] = f"{state['failures']:,} rows failed"
        if status == 0:
            held.clear()
        if is_refresh and (status or not quiet):
            say(summary_line(state))
        if command is not None:
            notify(command, settings.notify.timeout_s, state, lambda told: say(f"loader: {told}"))
        if summary_json is not None:
            _write(summary_json, state)
    return status
