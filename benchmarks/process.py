"""A program that is measured: started on its core, watched, ended or killed with all that it started."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import pinned

_PEAK = re.compile(r"VmHWM:\s+(\d+)")
_LOOK_S = 0.05


class Used(NamedTuple):
    """What a program and all that it started took. `peak_mib`: their peaks added up; what they share counts twice."""

    seconds: float
    cpu_s: float
    peak_mib: float
    status: int


class Program:
    """One run of `command` in a group of its own, in `folder`, where `log` gets what it says."""

    def __init__(
        self, command: Sequence[str], folder: Path, core: int | None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = folder / "log"
        with self.log.open("ab") as log:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                [*pinned(core), *command],
                cwd=folder,
                env=os.environ | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self._peaks: dict[int, int] = {}
        self._is_over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @property
    def is_over(self) -> bool:
        return (
            self._process.returncode is not None
            or os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        )

    def wait(self, seconds: float) -> Used:
        """Its end, and what it took. After so many seconds it is killed; the status tells."""
        timer = threading.Timer(max(seconds - (time.monotonic() - self.started), 0.01), self.kill)
        timer.daemon = True
        timer.start()
        try:
            _, status, usage = os.wait4(self._process.pid, 0)
        finally:
            took = time.monotonic() - self.started
            timer.cancel()
            self._is_over.set()
        self._watcher.join()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        # What this process held when it started the program counts there, too; the watcher looks at the program alone.
        last = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
        seen = sum(self._peaks.values()) / (1 << 10)
        return Used(took, usage.ru_utime + usage.ru_stime, seen or last, self._process.returncode)

    def end(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, with all that it started."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass  # it was faster

    def _watch(self) -> None:
        while not self._is_over.wait(_LOOK_S):
            for pid in _tree(self._process.pid):
                try:
                    found = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
                except OSError:
                    continue
                if found:
                    self._peaks[pid] = int(found[1])


def _tree(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from _tree(int(child))
