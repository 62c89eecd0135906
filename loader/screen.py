"""The progress line: redrawn in place on a terminal, a plain line now and then elsewhere, on stderr. And tables."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import anyio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from loader.outcome import GOOD
from loader.snapshot import Snapshot, duration

_PLAIN_EVERY_S = 10.0
_SAMPLE_EVERY_S = 0.25
_WIDE = 1_000


def line(snapshot: Snapshot) -> str:
    """A load at one moment in one line."""
    failed = sum(count for code, count in snapshot.counts.items() if code not in GOOD)
    parts = [
        f"{snapshot.rows:,} rows",
        f"{snapshot.rows_per_s:,.0f}/s",
        f"{failed:,} failed",
        f"{duration(snapshot.elapsed_s)} gone",
    ]
    if snapshot.share is not None:
        parts.insert(0, f"{snapshot.share:4.0%}")
    if snapshot.left_s is not None:
        parts.append(f"{duration(snapshot.left_s)} left")
    if snapshot.stopping:
        parts.append("stopping: what is in flight may finish")
    elif snapshot.held_s > 1:
        parts.append(f"the target is waited for, {snapshot.held_s:.0f} s")
    return " · ".join([*parts, *snapshot.found.words()])


@contextmanager
def progress(console: Console) -> Iterator[Callable[[Snapshot], None]]:
    """What draws a load, one snapshot after the other."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda snapshot: live.update(Text(line(snapshot), no_wrap=True, overflow="ellipsis"), refresh=True)
        return
    next_s = _PLAIN_EVERY_S

    def show(snapshot: Snapshot) -> None:
        nonlocal next_s
        if snapshot.elapsed_s >= next_s:
            next_s = snapshot.elapsed_s + _PLAIN_EVERY_S
            console.print(line(snapshot), markup=False, highlight=False, soft_wrap=True)

    yield show


async def show_line(console: Console, line: Callable[[], str]) -> None:
    """Draw what `line` says at each moment, until cancelled."""
    if not console.is_terminal:
        while True:
            await anyio.sleep(_PLAIN_EVERY_S)
            console.print(line(), markup=False, highlight=False, soft_wrap=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(Text(line(), no_wrap=True, overflow="ellipsis"), refresh=True)
            await anyio.sleep(_SAMPLE_EVERY_S)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout, numbers to the right, remarks in the last column; without lines where that is no terminal."""
    from rich import box  # late: a load draws no tables
    from rich.table import Table

    is_plain = not sys.stdout.isatty()
    table = Table(box=None if is_plain else box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings, 1):
        table.add_column(heading, justify="left" if place == len(headings) else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    width = Console(width=_WIDE).measure(table).maximum  # figures are not cut off, however narrow a terminal is
    Console(width=width).print(table, highlight=False)
