"""What is said to people: lines on stderr, and the command to go on with.

Or to programs: with --log-json each line is a JSON object.
"""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import click

Level = Literal["info", "warning", "error"]

_is_json: ContextVar[bool] = ContextVar("_is_json", default=False)
_held: ContextVar[list[str] | None] = ContextVar("_held", default=None)


def say(message: str, level: Level = "info") -> None:
    """A line for people, on stderr."""
    tell(log_line("message", level, message=message.removeprefix("loader: ")) if _is_json.get() else message)


def note(message: str) -> None:
    """What a run says of itself."""
    say(f"loader: {message}")


def warn(message: str) -> None:
    """What a run warns of."""
    say(f"loader: {message}", "warning")


def tell(line: str) -> None:
    """A line as it is."""
    lines = _held.get()
    if lines is None:
        click.echo(line, err=True)
    else:
        lines.append(line)


def log_line(event: str, level: Level = "info", **facts: Any) -> str:
    """One line of a log for programs."""
    import json  # late: help does without it

    now = time.time()
    at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03}Z"
    return json.dumps({"time": at, "level": level, "event": event, **facts}, ensure_ascii=False)


def is_json() -> bool:
    """Are programs spoken to?"""
    return _is_json.get()


def _speak_json(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    _is_json.set(value)


#: For commands that run long.
log_json = click.option(
    "--log-json",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_speak_json,
    help="Write what is said as JSON, a line each, with the progress every ten seconds.",
)


@contextmanager
def held_back(is_held: bool) -> Iterator[list[str]]:
    """What is said meanwhile is said at the end, as far as it is still in the list; False: it is said at once."""
    lines: list[str] = []
    token = _held.set(lines if is_held else None)
    try:
        yield lines
    finally:
        _held.reset(token)
        for line in lines:
            tell(line)


def again(command: str, settings: Path, overrides: tuple[str, ...], flags: tuple[str, ...] = ()) -> str:
    """The command to go on with, as a shell takes it."""
    from loader.settings import arguments

    return shlex.join(["loader", command, *arguments(settings, overrides), *flags])
