"""A process that has imported the loader and forks its runs: each a process of its own, without the time of a start.

Orders come as lines of JSON, `{"start": {…}}` and `{"wait": pid}`; answers are a number each: a process id, or an exit
status (negative: the signal that ended it). A run ends as any Python process does, with all that comes behind main().
"""

import ctypes
import gc
import json
import os
import resource
from importlib import import_module
from typing import Any

import loader.check
import loader.cli.check
import loader.cli.results
import loader.cli.retry
import loader.cli.run
import loader.corrections
import loader.load
import loader.results
import loader.show.screen
import loader.targets.calven


def main() -> None:
    assert len(os.listdir("/proc/self/task")) == 1, "a thread that is not there in a fork may hold a lock"
    for late in ("uvloop", "encodings.idna", "anyio._core._signals"):
        import_module(late)
    gc.freeze()
    order = _serve()
    if order is not None:
        _become(order)
        loader.cli.main(order["arguments"], prog_name="loader")


def _serve() -> dict[str, Any] | None:
    """In this process: None, when nobody gives orders any more. In each that is forked: its order."""
    while line := _line():
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        elif (answer := os.fork()) == 0:
            return dict(order["start"])
        os.write(1, b"%d\n" % answer)
    return None


def _line() -> bytes:
    """Read byte by byte: what is read ahead would be read by a fork again."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def _become(order: dict[str, Any]) -> None:
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    for fd, name in enumerate(order["files"]):
        file = os.open(name, os.O_RDONLY if fd == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, fd)
        os.close(file)
    if order["file_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes"], order["file_bytes"]))
    ctypes.CDLL(None).crash_arm()


if __name__ == "__main__":
    main()
