"""Runs on terminals: seen from another one, and with one that takes nothing."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loader.checkpoint import Checkpoint, runner
from loader.demo import make_export
from tests.end_to_end import oracle
from tests.show.test_screen import Terminal


class Window(Terminal):
    """A terminal, and what runs there."""

    def __init__(self) -> None:
        super().__init__(80, 24)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str | Path) -> "subprocess.Popen[bytes]":
        """`loader` on this terminal."""
        known = {"LOADER_TEST_KEY": "K", "LOADER_TEST_SECRET": "S"}
        command = [*oracle.LOADER, *map(str, arguments)]
        process = subprocess.Popen(command, env=os.environ | known, stdin=self.file, stdout=self.file, stderr=self.file)
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        super().close()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Window]:
    monkeypatch.setenv("TERM", "xterm")
    found = Window()
    yield found
    found.close()


def is_seen(terminal: Window, text: str) -> bool:
    return any(text in each for each in terminal.seen)


def wait(process: "subprocess.Popen[bytes]", terminal: Window) -> int:
    """Its end, while the terminal is read."""
    terminal.until(lambda: process.poll() is not None, 20)
    terminal.read()
    assert process.returncode is not None
    return process.returncode


@pytest.fixture
def running(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A load of half a minute, without a terminal; it is ended before."""
    make_export(tmp_path / "users.csv", 20_000, 1)
    with oracle.sandbox("--latency", "0.3") as address:
        process = oracle.start("run", oracle.write_settings(tmp_path, address, concurrency=2))
        oracle.wait_for_rows(tmp_path / "users.ckpt", 200)
        yield process
        process.kill()
        process.communicate()


def test_a_run_is_watched_from_another_terminal_to_its_end(
    tmp_path: Path, terminal: Window, running: "subprocess.Popen[str]"
) -> None:
    checkpoint = tmp_path / "users.ckpt"
    watching = terminal.start("status", checkpoint, "--watch")
    terminal.until(lambda: is_seen(terminal, "● loading"), 20)
    running.send_signal(signal.SIGTERM)

    assert wait(watching, terminal) == 0
    assert not is_seen(terminal, "●"), "the panel made way"
    assert is_seen(terminal, "the last run ended")
    assert is_seen(terminal, "interrupted by SIGTERM")
    with Checkpoint.read(checkpoint) as opened:
        rows = sum(opened.counts().values())
    assert any(each.split() == ["rows", f"{rows:,}"] for each in terminal.seen)


def test_who_watches_a_run_that_is_killed_is_told(
    tmp_path: Path, terminal: Window, running: "subprocess.Popen[str]"
) -> None:
    watching = terminal.start("status", tmp_path / "users.ckpt", "--watch")
    terminal.until(lambda: is_seen(terminal, "● loading"), 20)
    running.kill()

    assert wait(watching, terminal) == 0
    assert is_seen(terminal, "the last run was killed")


def test_ctrl_c_ends_the_watching_and_not_the_run(
    tmp_path: Path, terminal: Window, running: "subprocess.Popen[str]"
) -> None:
    watching = terminal.start("status", tmp_path / "users.ckpt", "--watch")
    terminal.until(lambda: is_seen(terminal, "● loading"), 20)
    watching.send_signal(signal.SIGINT)

    assert wait(watching, terminal) == 130
    assert terminal.seen == []
    assert runner(tmp_path / "users.ckpt") == str(running.pid)


def test_of_a_load_that_is_over_watch_tells_how_it_stands(tmp_path: Path, terminal: Window) -> None:
    make_export(tmp_path / "users.csv", 50, 1)
    with oracle.sandbox() as address:
        oracle.run("run", oracle.write_settings(tmp_path, address))
    status, out, _ = oracle.run("status", tmp_path / "users.ckpt", "--watch")

    assert status == 0
    assert out == oracle.run("status", tmp_path / "users.ckpt")[1]
    assert oracle.run("status", tmp_path / "users.ckpt", "--watch", "--format", "json")[0] == 2


def test_a_terminal_that_is_stopped_holds_up_no_load(tmp_path: Path, terminal: Window) -> None:
    """Ctrl-S, and everybody goes home: the load is done all the same, and its end is told when somebody looks again."""
    make_export(tmp_path / "users.csv", 4_000, 1)
    terminal.fill()
    with oracle.sandbox("--latency", "0.3", "--unknown", "former") as address:
        process = terminal.start("run", oracle.write_settings(tmp_path, address, concurrency=4))
        end = time.monotonic() + 30
        while not is_finished(tmp_path / "users.ckpt") and time.monotonic() < end:
            time.sleep(0.1)
        assert process.poll() is None, "it has something to say"
    assert is_finished(tmp_path / "users.ckpt")

    terminal.discard()
    assert wait(process, terminal) == 1
    assert is_seen(terminal, "rows failed; see them with")


def is_finished(checkpoint: Path) -> bool:
    if not checkpoint.exists():
        return False
    with Checkpoint.read(checkpoint) as opened:
        return opened.get("finished_at") is not None


def test_a_second_signal_leaves_the_terminal_as_it_was(tmp_path: Path, terminal: Window) -> None:
    make_export(tmp_path / "users.csv", 2_000, 1)
    with oracle.sandbox("--latency", "20", "--faults-on", "data") as address:
        process = terminal.start("run", oracle.write_settings(tmp_path, address))
        terminal.until(lambda: is_seen(terminal, "●"), 20)
        process.send_signal(signal.SIGINT)
        terminal.until(lambda: is_seen(terminal, "● stopping"), 20)
        process.send_signal(signal.SIGINT)

        assert wait(process, terminal) == 130
    said = ["loader: stopping; what is in flight may finish (again to stop at once)", "loader: stopped at once"]
    assert [each for each in terminal.seen if each] == said
