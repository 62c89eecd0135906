"""What the panel costs a load: the same load in turns, quiet and on a terminal; and what one frame costs by itself.

    python -m benchmarks.panel --users 2000000 --repeat 5

Seconds of the processor are compared, as those of the clock tell more of the machine's neighbours.
"""

import argparse
import fcntl
import os
import statistics
import struct
import subprocess
import tempfile
import termios
import threading
import time
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.generate import kept
from benchmarks.loading import CHECKPOINT, ENVIRONMENT, command
from benchmarks.machine import cache, cores, pinned
from benchmarks.server import Server
from loader.checkpoint import Checkpoint
from loader.show.panel import About, View
from loader.show.screen import drawing
from loader.snapshot import Snapshot

_FRAMES = 500


class Reader:
    """A terminal whose every byte is read and thrown away."""

    def __init__(self) -> None:
        self.bytes = 0
        self._master, self.tty = os.openpty()
        fcntl.ioctl(self.tty, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while data := os.read(self._master, 65_536):
            self.bytes += len(data)


def run(folder: Path, load: list[str], core: int | None, terminal: Reader | None) -> tuple[float, float]:
    """One load: seconds of the clock, and of the processor."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
    began = time.monotonic()
    shown = subprocess.DEVNULL if terminal is None else terminal.tty
    process = subprocess.Popen(
        [*pinned(core), *load, *(["--quiet"] if terminal is None else [])],
        cwd=folder,
        env=os.environ | ENVIRONMENT | {"TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=shown,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the load ended with {process.returncode}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime


def frame_cpu_s(now: Snapshot, about: About) -> float:
    """What this process spends on one frame, from the snapshot to the terminal, drawn as quickly as it can be."""
    terminal = Reader()
    view = View(about)
    began = 0.0
    with open(terminal.tty, "w", encoding="utf-8") as file, drawing(Console(file=file, force_terminal=True)) as screen:
        for number in range(-20, _FRAMES):
            began = began if number else time.process_time()
            before = terminal.bytes
            screen.show(view.at(msgspec.structs.replace(now, at=now.at + number, rows=now.rows + number)))
            while terminal.bytes == before:
                time.sleep(0.0005)
        return (time.process_time() - began) / _FRAMES


def main() -> None:
    """Run it."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--users", type=int, default=2_000_000)
    arguments.add_argument("--repeat", type=int, default=5)
    given = arguments.parse_args()
    at = cores()
    quiet, drawn = list[tuple[float, float]](), list[tuple[float, float]]()
    with Server(at.server) as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load = command(folder, kept(cache(), given.users), server.url, 500, 16)
        for _ in range(given.repeat):
            for runs, terminal in ((quiet, None), (drawn, Reader())):
                server.reset(given.users)
                runs.append(run(folder, load, at.client, terminal))
                print(
                    f"{'quiet' if terminal is None else 'panel'}  {runs[-1][0]:6.2f} s  {runs[-1][1]:6.2f} s CPU",
                    flush=True,
                )
        with Checkpoint.read(folder / CHECKPOINT) as opened:
            now, about = opened.now(), About.of(opened)
    assert now is not None
    without, with_it = (statistics.median(cpu for _, cpu in runs) for runs in (quiet, drawn))
    pairs = statistics.median(after[1] / before[1] - 1 for before, after in zip(quiet, drawn, strict=True))
    each = frame_cpu_s(now, about)
    print(f"CPU, median: {without:.2f} s quiet, {with_it:.2f} s with the panel; in pairs {pairs:+.1%}")
    print(f"a frame: {each * 1000:.1f} ms of CPU, so {each:.1%} of one core at one a second")


if __name__ == "__main__":
    main()
