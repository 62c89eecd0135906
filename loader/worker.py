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
from threading import Thread
from typing import Any, Generic, TypeVar

_Answer = TypeVar("_Answer")

_MAIN = "import sys; sys.path[:] = {path!r}; from loader.worker import main; main()"


class Worker(Generic[_Answer]):
    """A call that runs while this one's owner goes on: use as a context manager, whose end ends the process.

    `work` and its arguments are pickled. `handles`: open files that keep their numbers there. It ends by itself should
    this process be killed.
    """

    def __init__(self, work: Callable[..., _Answer], arguments: Sequence[Any], handles: Sequence[int]) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                pass_fds=handles,
            )
            with open(self._stdin, "wb", closefd=False) as pipe:  # which stays open: its end would be the process's
                pickle.dump((work, arguments), pipe)
        except OSError:  # there may be no room for another, or no interpreter: answer() tells
            self.close()

    def __enter__(self) -> "Worker[_Answer]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self) -> _Answer | None:
        """Wait for what the call returned. None: there is nothing, whatever went wrong."""
        if self._process is None:
            return None
        assert self._process.stdout is not None
        with open(self._process.stdout.fileno(), "rb", closefd=False) as pipe:
            found = pipe.read()
        if self._process.wait() != 0:
            return None
        answer: _Answer = pickle.loads(found)  # from a process that this one started
        return answer

    def close(self) -> None:
        """End the process, if it hasn't ended."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with process:  # closes the pipes, and waits
                pass

    @property
    def _stdin(self) -> int:
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin.fileno()


def main() -> None:
    """What the process does. Its owner hears of Ctrl-C, too, and ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        work, arguments = pickle.load(pipe)
    Thread(target=_end_with_owner, daemon=True).start()
    try:
        answer = memoryview(pickle.dumps(work(*arguments)))
        while answer:
            answer = answer[os.write(1, answer) :]
    except BaseException:  # its owner does the work again, and finds out why
        os._exit(1)
    os._exit(0)  # without waiting for the thread


def _end_with_owner() -> None:
    os.read(0, 1)
    os._exit(1)
