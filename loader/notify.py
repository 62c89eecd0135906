"""How a run ended, in one line, as JSON, and for a command that tells somebody."""

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loader.checkpoint import Checkpoint
from loader.errors import Guarded, LoaderError
from loader.outcome import GOOD, Code
from loader.results import told_of
from loader.snapshot import duration


def summary(
    path: Path | None, began: float, status: int, message: str, error: LoaderError | None = None
) -> dict[str, Any]:
    """How a run ended that began at `began`, unix time. `path`: its checkpoint; None: nobody knows.
    `message`: why it did not go well, "" if it did; `error`: what ended it. Of one that went well the message says what
    is not as in other nights: who was cleared, and which guards could not be held.

    It names no user. A checkpoint that this run has not touched is not told of.
    """
    found: dict[str, Any] = {
        "exit_status": status,
        "message": message,
        "seconds": round(time.time() - began, 1),
        "ended_at": round(time.time(), 3),
        "checkpoint": path and str(path),
        "export": None,
        "finished": False,
        "rows": 0,
        "outcomes": {},
        "failures": 0,
        "accepted": [],
        "refresh": None,
    }
    if isinstance(error, Guarded):
        return found | {"message": error.brief, "refresh": {"guard": error.guard, **error.compared}}
    if path is None or status == 2 or not path.is_file():
        return found  # nothing was sent: what the checkpoint holds is of a run before
    try:
        with Checkpoint.read(path) as checkpoint:
            counts, good = checkpoint.outcomes(), checkpoint.good
            return found | {
                "message": "; ".join(filter(None, (message, *_odd(checkpoint, began)))),
                "export": checkpoint.get("path"),
                "finished": checkpoint.get("finished_at") is not None,
                "rows": sum(counts.values()),
                "outcomes": {code.value: count for code, count in counts.items()},
                "failures": sum(count for code, count in counts.items() if code not in good),
                "accepted": sorted(good - GOOD),
                "refresh": told_of(checkpoint),
            }
    except LoaderError:  # it ended because of that, and `message` says so
        return found


def _odd(checkpoint: Checkpoint, began: float) -> Iterator[str]:
    """What else is to be known of a refresh that began, or ended, with the run that began then."""
    compared = checkpoint.get("refresh")
    if compared is None or max(checkpoint.get("started_at") or 0, checkpoint.get("finished_at") or 0) < began:
        return
    if compared.get("clears") and (cleared := checkpoint.count_behind(compared["rows"], Code.SUCCESS)):
        yield f"{cleared:,} cleared"
    if alarm := compared.get("alarm"):
        yield alarm


def summary_line(state: Mapping[str, Any], *, is_told: bool = False) -> str:
    """The same in one line. `is_told`: without the message, which stands above."""
    counts = sorted(state["outcomes"].items(), key=lambda item: -item[1])
    outcomes = ", ".join(f"{count:,} {code}" for code, count in counts if count)
    parts = [f"exit status {state['exit_status']}", f"{state['rows']:,} rows" + (f": {outcomes}" if outcomes else "")]
    parts.append(f"in {duration(state['seconds'])}")
    if state["accepted"]:
        parts.append(f"accepted: {', '.join(state['accepted'])}")
    if state["message"] and not is_told:
        parts.append(state["message"].splitlines()[0])
    return "loader: " + "; ".join(parts)


def notify(
    command: str | list[str], folder: Path, timeout_s: float, state: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Run the command, with the summary as JSON on its stdin. Its own failure is said, and changes nothing.

    A relative path begins at `folder`; a name without a slash is looked up as a shell would.
    """
    named = repr(command)
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        if "/" in words[0]:
            words[0] = str(folder.absolute() / words[0])
        named = words[0]
        ended = subprocess.run(
            words,
            input=json.dumps(state).encode(),
            env={**os.environ, "LOADER_EXIT_STATUS": str(state["exit_status"]), "LOADER_SUMMARY": summary_line(state)},
            timeout=timeout_s,
            check=False,
        )
    except (OSError, ValueError, IndexError) as error:
        say(f"notify.command: can't run {named}: {getattr(error, 'strerror', None) or error}")
    except subprocess.TimeoutExpired:
        say(f"notify.command: it was ended, as it took longer than notify.timeout_s = {timeout_s:g}")
    else:
        if ended.returncode:
            say(f"notify.command: it ended with {ended.returncode}")
