"""The progress line: redrawn in place on a terminal, a plain line now and then elsewhere. Always on stderr."""

import anyio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from loader.lane import Lane
from loader.outcome import GOOD
from loader.progress import Meter, Snapshot, duration

_PLAIN_EVERY_S = 10.0
_SAMPLE_EVERY_S = 0.25


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
