"""Runs of the loader as processes that are forked, watched, and hit where a plan says."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.crash.steps import Plan, Step, read_log
from tests.end_to_end.command import KNOWN

#: No thread may be there before the forks: numpy's and Arrow's own start with the import.
_SINGLE = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


class Ended(NamedTuple):
    """How a run ended: the status as a shell gives it, so that 137 is a SIGKILL; the steps, if they were asked for."""

    status: int
    out: str
    err: str
    steps: list[Step]


@dataclass
class Run:
    """A run that is going on."""

    pid: int
    _runner: "Runner"
    _files: list[Path]
    _log: Path

    def err(self) -> str:
        """What it has said so far."""
        return self._files[1].read_text()

    def wait(self) -> Ended:
        """Until it ends."""
        status = self._runner.order({"wait": self.pid})
        out, err = (path.read_text() for path in self._files)
        return Ended(128 - status if status < 0 else status, out, err, read_log(self._log))


class Runner:
    """Starts runs, one after the other or several at once. `scratch` is for their output, and not watched."""

    def __init__(self, process: "subprocess.Popen[bytes]", scratch: Path) -> None:
        self._process = process
        self._scratch = scratch
        self._runs = 0

    def start(
        self,
        folder: Path,
        *arguments: str | Path,
        plan: Plan | None = None,
        is_logged: bool = False,
        has_data: bool = False,
        stdin: Path | None = None,
        file_bytes: int | None = None,
    ) -> Run:
        """`loader` with these arguments in `folder`, whose files are watched; none may grow beyond `file_bytes`."""
        self._runs += 1
        log = self._scratch / f"{self._runs}.log"
        files = [self._scratch / f"{self._runs}.{kind}" for kind in ("out", "err")]
        watched = {"CRASH_FOLDER": str(folder.resolve())}
        watched |= {"CRASH_LOG": str(log)} if is_logged or has_data else {}
        watched |= {"CRASH_DATA": "1"} if has_data else {}
        watched |= plan.environment() if plan else {}
        pid = self.order(
            {
                "start": {
                    "folder": str(folder),
                    "arguments": list(map(str, arguments)),
                    "environment": KNOWN | watched,
                    "file_bytes": file_bytes,
                    "files": [str(stdin or os.devnull), *map(str, files)],
                }
            }
        )
        return Run(pid, self, files, log)

    def order(self, order: dict[str, object]) -> int:
        """What the forker answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def runner(shim: Path, scratch: Path) -> Iterator[Runner]:
    """A forker that is there until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.forker"],
        env=os.environ | _SINGLE | {"LD_PRELOAD": str(shim)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield Runner(process, scratch)
