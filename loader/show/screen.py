"""The terminal while a command works: a panel redrawn in place, a plain line now and then elsewhere. And tables.

All of it is written by a thread. A terminal may be stopped (Ctrl-S), or stand at the end of a slow line, and whoever
writes to it waits; a load must not. Of what can't be drawn in time only the newest is drawn.
"""

import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from functools import partial
from typing import IO, Any, cast

import anyio
from rich.console import Console
from rich.text import Text

from loader.plain import plain
from loader.show.panel import Frame, View, in_ascii, line
from loader.snapshot import Snapshot

_PLAIN_EVERY_S = 10.0
_SAMPLE_EVERY_S = 0.25
_WIDE = 1_000

#: What is over sooner is told by its summary alone.
_SHORT_S = 0.9

#: So often is looked whether the terminal has another size.
_LOOK_S = 0.25
#: Who wakes so much later than that was stopped (Ctrl-Z): somebody else has written meanwhile.
_STOPPED_S = 2.0
#: So long is waited at the end for a terminal that takes nothing, and so many lines wait for it.
_PATIENCE_S, _LINES = 2.0, 1_000

#: Terminals that can't go back to a line that they have shown.
_DUMB = frozenset({"", "dumb", "unknown"})

# ECMA-48: up so many lines; clear the rest of the line, of the screen. What is written over does not flicker.
_UP, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[{}A", "\x1b[K", "\x1b[J"


class Screen:
    """Where `console` writes, written to by a thread. `is_live`: it can be drawn on; else it takes lines alone."""

    def __init__(self, console: Console, *, is_for_people: bool = True) -> None:
        self._console = console
        self._file = console.file
        self._fd = _descriptor(self._file)
        self.is_live = is_for_people and self._file.isatty() and os.environ.get("TERM", "").lower() not in _DUMB
        self._news = threading.Condition()
        self._frame: Frame | None = None
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._is_over = False
        self._drawn: list[int] = []  # cells of each line of the frame that is on the screen
        self._thread = threading.Thread(target=self._work, name="screen", daemon=True)
        self._thread.start()

    def show(self, frame: Frame) -> None:
        """Draw this instead of what is there."""
        with self._news:
            self._frame = frame
            self._news.notify()

    def say(self, text: str) -> None:
        """Write a line, above what is drawn."""
        with self._news:
            self._lines.append(text)
            self._news.notify()

    def close(self) -> None:
        """Write all that was said, and take away what is drawn; give up if the terminal takes nothing for a while."""
        with self._news:
            self._is_over = True
            self._news.notify()
        self._thread.join(_PATIENCE_S)

    def _work(self) -> None:
        shown: Frame | None = None
        size = (0, 0)
        is_over = False
        try:
            while not is_over:
                with self._news:
                    began = time.monotonic()
                    if not (self._is_over or self._lines or self._frame is not shown):
                        self._news.wait(_LOOK_S if self.is_live else None)
                    frame, is_over = self._frame, self._is_over
                    said = list(self._lines)
                    self._lines.clear()
                is_front = self.is_live and self._is_in_front()
                if not is_front or time.monotonic() - began > _STOPPED_S:
                    self._drawn = []
                before, size = size, self._size() if self.is_live else size
                if said or is_over or frame is not shown or size != before:
                    self._draw(frame if is_front and not is_over else None, said, *size)
                    shown = frame
        except OSError:
            pass  # nobody looks any more; the load goes on

    def _draw(self, frame: Frame | None, said: Sequence[str], width: int, height: int) -> None:
        """Write what was said, and the frame over the one before: all at once, so that nothing flickers.

        The cursor ends below the frame, in the first column: whatever else is written there comes after it.
        """
        lines = frame(max(width - 1, 1), max(height - 1, 1)) if frame is not None else []
        if not lines and not self._drawn:
            self._write("".join(f"{each}\n" for each in said))
            return
        # A terminal that became narrower has wrapped what was too long for it.
        up = sum(max(-(-cells // width), 1) for cells in self._drawn)
        text = [_UP.format(up) if up else "", "\r"]
        text += [f"{each}{_CLEAR_LINE}\n" for each in (*said, *self._rendered(lines))]
        self._write("".join([*text, _CLEAR_BELOW]))
        self._drawn = [each.cell_len for each in lines]

    def _rendered(self, lines: Iterable[Text]) -> Iterator[str]:
        """With the colours that the terminal has, and is to have (NO_COLOR)."""
        for each in lines:
            with self._console.capture() as captured:
                self._console.print(each, end="", soft_wrap=True)
            yield captured.get()

    def _write(self, text: str) -> None:
        encoding = self._console.encoding
        if not encoding.startswith("utf"):
            text = in_ascii(text)
        if self._fd is None:
            self._file.write(text)
            self._file.flush()
            return
        # Past the file: its lock, held by a thread that waits for the terminal, would hold up whoever uses it.
        data = text.encode(encoding, "replace")
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # some other program that has this terminal made it so
                select.select([], [self._fd], [])

    def _size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            columns, lines = os.get_terminal_size(self._fd if self._fd is not None else -1)
        except OSError:
            columns, lines = self._console.size
        return columns or 80, lines or 24  # a line without a size, as a serial one

    def _is_in_front(self) -> bool:
        """Is the terminal this process's? From the background (`&`, bg) it draws over nobody's work."""
        try:
            return self._fd is None or os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:  # it is not the one that we were started from
            return True


def _descriptor(file: IO[str]) -> int | None:
    """What the system knows a file by; None: it is one of Python's alone."""
    try:
        file.flush()
        return file.fileno()
    except (OSError, ValueError):
        return None


class _Stderr:
    """Stands for stderr while there is a screen: what is written to it is shown there, and nobody waits for that."""

    def __init__(self, screen: Screen, file: IO[str]) -> None:
        self._screen = screen
        self._file = file
        self._rest = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for each in lines:
            # What came from the target must not draw on a panel; and empty lines only keep a ^C from it.
            if shown := plain(each) if self._screen.is_live else each:
                self._screen.say(shown)
        return len(text)

    def flush(self) -> None:
        """Nobody waits."""

    def close(self) -> None:
        """This process is about to end: what was said is to be read."""
        self._screen.close()


@contextmanager
def drawing(console: Console, *, is_for_people: bool = True) -> Iterator[Screen]:
    """A screen that shows whatever is written to stderr meanwhile, too."""
    screen = Screen(console, is_for_people=is_for_people)
    stderr = cast(IO[str], _Stderr(screen, sys.stderr))
    try:
        with redirect_stderr(stderr) if console.stderr or screen.is_live else nullcontext():
            yield screen
    finally:
        screen.close()


@contextmanager
def progress(console: Console, view: View) -> Iterator[Callable[[Snapshot], None]]:
    """What shows a load, one snapshot after the other: live, or as a line at first, every ten seconds and at last."""
    if console.quiet:
        yield lambda _snapshot: None
        return
    with drawing(console) as screen:
        if screen.is_live:
            yield lambda snapshot: screen.show(view.at(snapshot))
            return
        next_s, last = 0.0, None

        def show(snapshot: Snapshot) -> None:
            nonlocal next_s, last
            last = snapshot
            if not next_s and snapshot.elapsed_s > _SHORT_S:
                screen.say(view.title)
            elif not next_s or snapshot.elapsed_s < next_s:
                return
            next_s, last = snapshot.elapsed_s + _PLAIN_EVERY_S, None
            screen.say(line(snapshot))

        try:
            yield show
        finally:
            if next_s and last is not None:
                screen.say(line(last))


async def show_line(screen: Screen, line: Callable[[], str]) -> None:
    """Show what `line` says at each moment, until cancelled."""
    while True:
        if screen.is_live:
            screen.show(partial(_shortened, line()))
            await anyio.sleep(_SAMPLE_EVERY_S)
        else:
            await anyio.sleep(_PLAIN_EVERY_S)
            screen.say(line())


def _shortened(text: str, width: int, _height: int) -> list[Text]:
    found = Text(text)
    found.truncate(width, overflow="ellipsis")
    return [found]


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout, numbers to the right, remarks in the last column; without lines where that is no terminal."""
    from rich import box  # late: a load draws no tables
    from rich.table import Table

    is_plain = not sys.stdout.isatty()
    table = Table(box=None if is_plain else box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings, 1):
        table.add_column(heading, justify="left" if place == len(headings) else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    width = Console(width=_WIDE).measure(table).maximum  # figures are not cut off, however narrow a terminal is
    Console(width=width).print(table, highlight=False)
