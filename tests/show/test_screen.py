"""What is written to terminals, and that nobody ever waits for one."""

import fcntl
import io
import os
import re
import select
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import anyio
import pytest
from rich.console import Console
from rich.text import Text

from loader.outcome import Code
from loader.show import screen as screens
from loader.show.panel import About, Frame, View
from loader.show.screen import drawing, progress, show_line
from loader.snapshot import Failure, Snapshot

ABOUT = About("users.csv", "calven", "api.calven.com", "users.ckpt")


def snapshot(second: float, rows: int = 0, *, failures: tuple[Failure, ...] = (), is_last: bool = False) -> Snapshot:
    counts = {Code.SUCCESS: rows}
    return Snapshot(1e9 + second, rows, counts, 0.5, 10.0, 10.0, second, 9.0, failures=failures, is_last=is_last)


def frame(*lines: str) -> Frame:
    return lambda width, _height: [Text(each[:width]) for each in lines]


_PIECE = re.compile(r"\x1b\[(?P<up>\d+)A|\x1b\[(?P<clear>[KJ])|\x1b\[(?P<style>[\d;]*)m|(?P<other>.)", re.DOTALL)


class Terminal:
    """A pty, and what one would see there. It knows what a screen may write, and refuses anything else."""

    def __init__(self, width: int = 60, height: int = 20) -> None:
        self._master, self._slave = os.openpty()
        os.set_blocking(self._master, False)
        self.resize(width, height)
        self.write_in("utf-8")
        self.written = ""
        self._filled = 0
        self._rows = [""]
        self._at = 0  # the row of the cursor; its column is the end of what was written there since
        self._column = 0

    def write_in(self, encoding: str) -> None:
        """What programs write to it."""
        self.file = os.fdopen(self._slave, "w", encoding=encoding, closefd=False)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def console(self) -> Console:
        return Console(file=self.file, force_terminal=True)

    def fill(self) -> None:
        """Until it takes nothing more."""
        os.set_blocking(self._slave, False)
        before = -1
        while before != self._filled:  # the system moves what it took, and then takes more
            before = self._filled
            for piece in (b"." * 64, b"."):
                with suppress(BlockingIOError):
                    while True:
                        self._filled += os.write(self._slave, piece)
            time.sleep(0.02)
        os.set_blocking(self._slave, True)

    def discard(self) -> None:
        """Read what filled it."""
        while self._filled:
            select.select([self._master], [], [])
            self._filled -= len(os.read(self._master, self._filled))

    def read(self, wait_s: float = 0.05) -> str:
        """What has come since the last time."""
        fresh = ""
        while select.select([self._master], [], [], wait_s)[0]:
            fresh += os.read(self._master, 65_536).decode()
        self.written += fresh
        self._feed(fresh.replace("\r\n", "\n"))
        return fresh

    def until(self, is_so: Callable[[], bool], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, self._rows
            self.read()

    @property
    def seen(self) -> list[str]:
        """The lines that are there, without the empty ones at the end."""
        rows = [each.rstrip() for each in self._rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def close(self) -> None:
        self.file.close()
        os.close(self._slave)
        os.close(self._master)

    def _feed(self, text: str) -> None:
        for piece in _PIECE.finditer(text):
            if up := piece["up"]:
                self._at = max(self._at - int(up), 0)
            elif piece["clear"] == "K":
                self._rows[self._at] = self._rows[self._at][: self._column]
            elif piece["clear"] == "J":
                self._rows[self._at] = self._rows[self._at][: self._column]
                del self._rows[self._at + 1 :]
            elif (other := piece["other"]) == "\n":
                self._at, self._column = self._at + 1, 0
                self._rows += [""] * (self._at + 1 - len(self._rows))
            elif other == "\r":
                self._column = 0
            elif other is not None:
                assert other.isprintable(), f"{other!r} does something to the terminal"
                row = self._rows[self._at]
                self._rows[self._at] = row[: self._column].ljust(self._column) + other + row[self._column + 1 :]
                self._column += 1


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    found = Terminal()
    yield found
    found.close()


# On a terminal --------------------------------------------------------------------------------------------------------


def test_each_frame_replaces_the_one_before(terminal: Terminal) -> None:
    with drawing(terminal.console()) as screen:
        for lines in (["one", "two", "three"], ["uno"], ["a", "b", "c", "d"]):
            screen.show(frame(*lines))
            terminal.until(lambda lines=lines: terminal.seen == lines)  # type: ignore[misc]
    terminal.read()

    assert terminal.seen == []


def test_what_is_said_stands_above_the_frame_and_stays(terminal: Terminal) -> None:
    with drawing(terminal.console()) as screen:
        screen.show(frame("panel", "below"))
        terminal.until(lambda: terminal.seen == ["panel", "below"])
        sys.stderr.write("loader: a war")
        sys.stderr.write("ning\n\nloader: another\n")
        terminal.until(lambda: terminal.seen == ["loader: a warning", "loader: another", "panel", "below"])
    terminal.read()

    assert terminal.seen == ["loader: a warning", "loader: another"]


def test_nothing_flickers(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame is one write, and no line is cleared before it is written anew."""
    written: list[bytes] = []
    write = os.write

    def noted(fd: int, data: bytes) -> int:
        written.append(data)
        return write(fd, data)

    monkeypatch.setattr(os, "write", noted)
    with drawing(terminal.console()) as screen:
        for number in range(3):
            screen.show(frame(f"rows {number}", "below"))
            terminal.until(lambda number=number: terminal.seen == [f"rows {number}", "below"])  # type: ignore[misc]

    frames = [data.decode() for data in written][:3]
    assert frames[1:] == [f"\x1b[2A\rrows {number}\x1b[K\nbelow\x1b[K\n\x1b[J" for number in (1, 2)]


def test_what_the_target_says_does_nothing_to_the_terminal(terminal: Terminal) -> None:
    """Neither in the panel nor in a warning. The terminal of this test refuses what it doesn't know."""
    bad = "gone\x1b[2J\x1b]0;owned\x07\x9b1;1H\x1b[99A"
    with progress(terminal.console(), View(ABOUT)) as watch:
        watch(snapshot(1.0, 10, failures=(Failure(1, bad, Code.INVALID, bad),)))
        terminal.until(lambda: any("INVALID" in each for each in terminal.seen))
        sys.stderr.write(f"loader: it says {bad}\n")
        terminal.until(lambda: terminal.seen[0].startswith("loader: it says gone"))


def test_a_new_size_is_drawn_at_once(terminal: Terminal) -> None:
    """Lines that a narrower terminal has wrapped are counted as it shows them."""
    drawn: list[tuple[int, int]] = []

    def lines(width: int, height: int) -> Sequence[Text]:
        drawn.append((width, height))
        return [Text("x" * width), Text("y")]

    with drawing(terminal.console()) as screen:
        screen.show(lines)  # type: ignore[arg-type]
        terminal.until(lambda: drawn == [(59, 19)] and len(terminal.seen) == 2)
        terminal.resize(20, 10)
        terminal.until(lambda: len(drawn) == 2)
        terminal.read()

    assert drawn == [(59, 19), (19, 9)]
    assert "\x1b[4A" in terminal.written, "59 cells are three rows of 20, and one more is y"


def test_in_the_background_nothing_is_drawn(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal belongs to whatever the person does there now; what is said is still said."""
    monkeypatch.setattr(os, "tcgetpgrp", lambda _fd: -1)
    with drawing(terminal.console()) as screen:
        screen.show(frame("panel"))
        screen.say("loader: a warning")
        terminal.until(lambda: terminal.seen == ["loader: a warning"])
    terminal.read()

    assert "\x1b" not in terminal.written


def test_who_was_stopped_draws_below_what_others_wrote(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-Z, some commands, fg: going up would write over them."""
    monkeypatch.setattr(screens, "_STOPPED_S", -1.0)
    with drawing(terminal.console()) as screen:
        for text in ("panel", "again"):
            screen.show(frame(text))
            terminal.until(lambda text=text: text in terminal.seen)  # type: ignore[misc]

        assert terminal.seen == ["panel", "again"]


def test_without_colours_nothing_is_lost(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with progress(terminal.console(), View(ABOUT)) as watch:
        watch(snapshot(1.0, 10))
        terminal.until(lambda: any("SUCCESS" in each for each in terminal.seen))
        seen = terminal.seen

    assert seen[1].startswith("● loading  users.csv → calven")
    assert set(re.findall(r"\x1b\[([\d;]*)m", terminal.written)) <= {"0", "1", "2"}, "bold and dim are no colours"


def test_a_terminal_without_unicode_is_written_to_in_ascii(terminal: Terminal) -> None:
    terminal.write_in("ascii")
    with progress(terminal.console(), View(ABOUT)) as watch:
        watch(snapshot(1.0, 10))
        terminal.until(lambda: any("SUCCESS" in each for each in terminal.seen))

    assert terminal.written.isascii()
    assert "?" not in terminal.written


# Terminals that take nothing ------------------------------------------------------------------------------------------


def test_a_terminal_that_is_stopped_holds_nobody_up(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever draws goes on at once; as soon as somebody reads again, only the newest frame is drawn."""
    monkeypatch.setattr(screens, "_PATIENCE_S", 0.1)
    terminal.fill()
    with drawing(terminal.console()) as screen:
        began = time.monotonic()
        for number in range(5_000):
            screen.show(frame(f"rows {number}"))
            if number % 1_000 == 0:
                sys.stderr.write(f"loader: warning {number}\n")
        assert time.monotonic() - began < 1.0
        terminal.discard()
        terminal.until(lambda: "rows 4999" in terminal.written)

    assert terminal.written.count("rows ") <= 3
    assert terminal.written.count("warning") == 5


def test_the_end_waits_for_a_stopped_terminal_but_not_for_long(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screens, "_PATIENCE_S", 0.2)
    terminal.fill()
    began = time.monotonic()
    with drawing(terminal.console()) as screen:
        screen.say("loader: a warning")

    assert 0.15 < time.monotonic() - began < 2.0
    terminal.discard()  # lets the thread end


def test_a_terminal_that_is_gone_ends_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window was closed, or whoever read the pipe has ended."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as file, drawing(Console(file=file)) as screen:
        for _ in range(3):
            screen.say("loader: a warning")
            time.sleep(0.02)


# Elsewhere ------------------------------------------------------------------------------------------------------------


def plain_lines(seconds: Sequence[float], term: str | None = None) -> list[str]:
    file = io.StringIO()
    with progress(Console(file=file), View(ABOUT)) as watch:
        for second in seconds:
            watch(snapshot(second, int(100 * second), is_last=second == seconds[-1]))
    return file.getvalue().splitlines()


def test_elsewhere_there_is_a_line_at_first_every_ten_seconds_and_at_last() -> None:
    lines = plain_lines([*map(float, range(1, 24)), 23.4])

    assert lines[0] == "users.csv → calven at api.calven.com"
    assert [each.split(" · ")[1] for each in lines[1:]] == ["100 rows", "1,100 rows", "2,100 rows", "2,340 rows"]
    assert lines[-1] == " 50% · 2,340 rows · 10/s · 0 failed · 0:23 gone"


def test_of_what_is_over_at_once_the_summary_says_all() -> None:
    assert plain_lines([0.4]) == []


@pytest.mark.parametrize("name", ["dumb", "unknown", ""])
def test_a_terminal_that_can_not_go_back_gets_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TERM", name)
    with progress(terminal.console(), View(ABOUT)) as watch:
        watch(snapshot(1.0, 10))
        terminal.until(lambda: len(terminal.seen) == 2)

    assert "\x1b" not in terminal.written


def test_colours_that_are_forced_make_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI services force them; a panel there would be a thousand lines a minute."""
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert not any("\x1b" in each for each in plain_lines([1.0, 2.0]))


def test_quiet_is_quiet() -> None:
    file = io.StringIO()
    with progress(Console(file=file, quiet=True), View(ABOUT)) as watch:
        watch(snapshot(1.0))

    assert file.getvalue() == ""
    assert "screen" not in [thread.name for thread in threading.enumerate()]


def test_a_line_is_shown_as_long_as_it_is_wanted(terminal: Terminal) -> None:
    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(show_line, screen, lambda: "step 3 " + "x" * 100)
            await anyio.to_thread.run_sync(terminal.until, lambda: bool(terminal.seen))
            tasks.cancel_scope.cancel()

    with drawing(terminal.console()) as screen:
        anyio.run(work)
        assert terminal.seen == ["step 3 ".ljust(58, "x") + "…"]
    terminal.read()

    assert terminal.seen == []
