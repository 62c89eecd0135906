"""What is said to people: lines on stderr, and the command to go on with."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import click

_held: ContextVar[list[str] | None] = ContextVar("_held", default=None)


def say(message: str) -> None:
    """A line for people, on stderr."""
    lines = _held.get()
    if lines is None:
        click.echo(message, err=True)
    else:
        lines.append(message)


def tell(message: str) -> None:
    """What a run says of itself."""
    say(f"loader: {message}")


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
            say(line)


def again(command: str, settings: Path, overrides: tuple[str, ...], flags: tuple[str, ...] = ()) -> str:
    """The command to go on with, as a shell takes it."""
    sets = [part for override in overrides for part in ("--set", _without_secret(override))]
    return shlex.join(["loader", command, str(settings), *sets, *flags])


def _without_secret(override: str) -> str:
    """An override as a message may show it: messages are kept in logs."""
    key, _, value = override.partition("=")
    is_secret = key.strip().startswith(("target.auth", "network.proxy")) and not value.startswith(("env:", "file:"))
    return f"{key}=…" if is_secret and "scheme" not in key else override
