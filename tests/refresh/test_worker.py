"""A call in another process answers, or it is told that there is no answer, and never leaves a process behind."""

import operator
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from loader.refresh.worker import Worker


# Pickled by name: the standard library's own are wrapped while tests run.
def wait(seconds: float) -> None:
    time.sleep(seconds)


def write(handle: int, text: bytes) -> int:
    return os.write(handle, text)


def whoami() -> int:
    return os.getpid()


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(pid: int) -> None:
    until = time.monotonic() + 10
    while not ended(pid):
        assert time.monotonic() < until
        time.sleep(0.01)


def pid_of(worker: Worker[Any]) -> int:
    assert worker._process is not None
    return worker._process.pid


def test_the_answer_of_another_process() -> None:
    with Worker(whoami, (), ()) as worker:
        found = worker.answer()

    assert found not in (None, os.getpid())


def test_an_answer_larger_than_a_pipe_and_arguments_too() -> None:
    with Worker(operator.mul, (b"x" * 300_000, 3), ()) as worker:
        assert worker.answer() == b"x" * 900_000


def test_files_keep_their_numbers(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        with Worker(write, (file.fileno(), b"written there"), (file.fileno(),)) as worker:
            assert worker.answer() == 13
        assert (tmp_path / "file").read_bytes() == b"written there"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_is_killed_has_no_answer(number: int) -> None:
    with Worker(wait, (60,), ()) as worker:
        os.kill(pid_of(worker), number)
        assert worker.answer() is None


def test_what_is_no_answer_is_none() -> None:
    """What runs at the start of each interpreter (sitecustomize) may print."""
    with Worker(write, (1, b"hello\n"), ()) as worker:
        assert worker.answer() is None


def test_work_that_fails_has_no_answer() -> None:
    with Worker(operator.truediv, (1, 0), ()) as worker:
        assert worker.answer() is None


@pytest.mark.parametrize("program", ["/nowhere/python", "/bin/true", ""])
def test_without_an_interpreter_there_is_no_answer(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """As where Python is built into another program."""
    monkeypatch.setattr(sys, "executable", program)
    with Worker(operator.mul, (b"x" * 1_000_000, 1), ()) as worker:
        assert worker.answer() is None


def test_it_ends_with_what_it_was_for() -> None:
    with Worker(wait, (60,), ()) as worker:
        pid = pid_of(worker)

    wait_for(pid)


def test_it_ends_with_its_owner() -> None:
    """Who is killed can't end anything: its end of the pipe is closed, and that is seen."""
    with Worker(wait, (60,), ()) as worker:
        pid = pid_of(worker)
        assert worker._process is not None
        assert worker._process.stdin is not None
        worker._process.stdin.close()
        wait_for(pid)


def test_ctrl_c_is_its_owners_matter() -> None:
    with Worker(wait, (1.5,), ()) as worker:
        time.sleep(0.7)  # it has begun
        os.kill(pid_of(worker), signal.SIGINT)
        time.sleep(0.1)
        assert not ended(pid_of(worker))
