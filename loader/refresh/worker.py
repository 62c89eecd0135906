"""One call in a process of its own, at the same time as what its caller does: two threads would wait for Python's lock.

The process is a new interpreter. A fork would take along the locks that other threads hold, and `multiprocessing` would
run the script of whoever uses the loader as a library once more.
"""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, Generic, TypeVar

Answer_co = TypeVar("Answer_co", covariant=True)

_MAIN = "import sys; sys.path[:] = {path!r}; from loader.refresh.worker import main; main()"


class Worker(Generic[Answer_co]):
    """A call that runs while this one's owner goes on: use as a context manager, whose end ends the process.

    `work` and its arguments are pickled. `handles`: open files that keep their numbers there. It ends by itself should
    this process be killed.
    """

    def __init__(self, work: Callable[..., Answer_co], arguments: Sequence[Any], handles: Sequence[int]) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        task = pickle.dumps((work, arguments))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=handles,
            )
            assert self._process.stdin is not None
            self._process.stdin.write(task)
            self._process.stdin.flush()  # and not closed: that would end the process
        except OSError:  # there may be no room for another, or no interpreter: answer() tells
            self.close()

    def __enter__(self) -> "Worker[Answer_co]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self) -> Answer_co | None:
        """Wait for what the call returned. None: there is nothing, whatever went wrong."""
        if self._process is None:
            return None
        assert self._process.stdout is not None
        found = self._process.stdout.read()
        if self._process.wait() != 0:
            return None
        try:
            answer: Answer_co = pickle.loads(found)  # from a process that this one started
        except Exception:  # noqa: BLE001  # what runs at the start of each interpreter may have printed something
            return None
        return answer

    def close(self) -> None:
        """End the process, if it hasn't ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what it didn't read
                assert pipe is not None
                pipe.close()


def main() -> None:
    """What the process does. Its owner hears of Ctrl-C, too, and ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 1  # of whatever goes wrong: its owner does the work again, and finds out why
    try:
        with open(0, "rb", closefd=False) as pipe:
            work, arguments = pickle.load(pipe)
        Thread(target=_end_with_owner, daemon=True).start()
        answer = memoryview(pickle.dumps(work(*arguments)))
        while answer:
            answer = answer[os.write(1, answer) :]
        status = 0
    finally:
        os._exit(status)  # without waiting for the thread


def _end_with_owner() -> None:
    os.read(0, 1)
    os._exit(1)
