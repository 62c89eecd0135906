"""The counting server (server.c): compiled when it is needed, on a core of its own, with its figures as values."""

import hashlib
import json
import os
import subprocess
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from benchmarks.machine import Clock, cache, pinned

SOURCE = Path(__file__).with_name("server.c")


class Stats(NamedTuple):
    """What the server counted since its reset.

    `users`: all that came; `distinct`: how many of those expected; `strange`: of names that were not. `first_ns` and
    `last_ns`: when the first request was whole and the last answered, by the clock of time.monotonic().
    """

    users: int
    distinct: int
    strange: int
    requests: int
    body_bytes: int
    first_ns: int
    last_ns: int
    most_waiting: int
    cpu_us: int


def compiled() -> Path:
    """The server's program. SystemExit if it can't be made."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    program = cache() / f"server-{digest}"
    if not program.exists():
        draft = program.with_name(f"{program.name}.{os.getpid()}")
        command = [os.environ.get("CC", "cc"), "-O2", "-std=c11", "-Wall", "-Wextra", "-o", str(draft), str(SOURCE)]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"the counting server needs a C compiler, and Linux (epoll): {error}") from error
        draft.replace(program)
    return program


class Server(AbstractContextManager["Server"]):
    """A running server. `url` is its address; it ends when this is left, or when this process ends."""

    def __init__(self, core: int | None) -> None:
        self.core = core
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [*pinned(self.core), str(compiled())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # closes its stdin, upon which it ends

    def reset(self, users: int, delay_s: float = 0.0) -> Clock:
        """Forget all, expect so many users, and answer after `delay_s`. Returns what watches the server's core."""
        self._ask(f"reset?users={users}&delay_us={round(delay_s * 1e6)}")
        return Clock(self.core)

    def stats(self) -> Stats:
        return Stats(**self._ask("stats"))

    def _ask(self, what: str) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}/-/{what}", timeout=10) as answer:
            found: dict[str, int] = json.load(answer)
        return found
