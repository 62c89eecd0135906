"""What it costs a load to be looked at: the same load in turns, quiet, on a terminal, and with a dashboard that is
followed; and what one frame of the panel costs by itself.

    python -m benchmarks.panel --users 2000000 --repeat 5

Each in pairs with a quiet one: by the clock, and in seconds of the processor, which neighbours disturb less.
"""

import argparse
import fcntl
import os
import re
import statistics
import struct
import subprocess
import tempfile
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO
from urllib.request import urlopen

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
        with suppress(OSError):  # nobody writes there any more
            while data := os.read(self._master, 65_536):
                self.bytes += len(data)


class Follower:
    """Somebody who follows the dashboard whose address is told on `stderr`, to its end."""

    def __init__(self) -> None:
        reader, self.stderr = os.pipe()
        threading.Thread(target=self._follow, args=[os.fdopen(reader, encoding="utf-8")], daemon=True).start()

    def _follow(self, lines: TextIO) -> None:
        for line in lines:
            if found := re.search(r"(http://127\.0\.0\.1:[0-9]+/)(\?token=\S+)", line):
                with urlopen(f"{found[1]}events{found[2]}") as events:
                    while events.read1(65_536):
                        pass


def run(folder: Path, load: list[str], core: int | None, way: str, terminal: Reader) -> tuple[float, float]:
    """One load: seconds of the clock, and of the processor."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
    shown = {"quiet": lambda: subprocess.DEVNULL, "panel": lambda: terminal.tty, "dashboard": lambda: Follower().stderr}
    stderr = shown[way]()
    began = time.monotonic()
    process = subprocess.Popen(
        [*pinned(core), *load, *{"quiet": ["--quiet"], "panel": [], "dashboard": ["--dashboard"]}[way]],
        cwd=folder,
        env=os.environ | ENVIRONMENT | {"TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )
    if way == "dashboard":
        os.close(stderr)
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
    runs: dict[str, list[tuple[float, float]]] = {way: [] for way in ("quiet", "panel", "dashboard")}
    with Server(at.server) as server, tempfile.TemporaryDirectory() as name:
        folder, terminal = Path(name), Reader()
        load = command(folder, kept(cache(), given.users), server.url, 500, 16)
        for _ in range(given.repeat):
            for way, done in runs.items():
                server.reset(given.users)
                done.append(run(folder, load, at.client, way, terminal))
                print(f"{way:9}  {done[-1][0]:6.2f} s  {done[-1][1]:6.2f} s CPU", flush=True)
        with Checkpoint.read(folder / CHECKPOINT) as opened:
            now, about = opened.now(), About.of(opened)
    assert now is not None
    for way, done in runs.items():
        clock, cpu = (
            statistics.median(mine[at] / quiet[at] - 1 for mine, quiet in zip(done, runs["quiet"], strict=True))
            for at in (0, 1)
        )
        print(f"{way:9}  in pairs with quiet, median: {clock:+.1%} by the clock, {cpu:+.1%} CPU")
    each = frame_cpu_s(now, about)
    print(f"a frame: {each * 1000:.1f} ms of CPU, so {each:.1%} of one core at one a second")


if __name__ == "__main__":
    main()
