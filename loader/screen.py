"""The progress line: redrawn in place on a terminal, a plain line now and then elsewhere, on stderr. And tables."""

import sys
from collections.abc import Callable, Iterable, Sequence

import anyio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from loader.lane import Lane
from loader.outcome import GOOD
from loader.progress import Meter, Snapshot, duration

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
    return " · ".join([*parts, *snapshot.found.words()])


async def show_progress(console: Console, meter: Meter, lane: Lane) -> None:
    """Draw until cancelled."""
    if not console.is_terminal:
        while True:
            for _ in range(round(_PLAIN_EVERY_S / _SAMPLE_EVERY_S)):
                await anyio.sleep(_SAMPLE_EVERY_S)
                meter.sample()
            console.print(line(meter.snapshot()), markup=False, highlight=False, soft_wrap=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            text = line(meter.snapshot())
            if lane.stopping.is_set():
                text += " · stopping: what is in flight may finish"
            elif lane.held_for_s() > 1:
                text += f" · the target asks to wait {lane.held_for_s():.0f} s"
            live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
            await anyio.sleep(_SAMPLE_EVERY_S)
            meter.sample()


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
