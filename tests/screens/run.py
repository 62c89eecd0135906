"""Screens for the documentation: real loads against the sandbox, in a real terminal, as SVG.

Each is a story: what is typed, and when the terminal is captured. tmux is the terminal, so that what is shown is what a
person sees; only the captured text becomes a picture here.
"""

import argparse
import io
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from loader.checkpoint import Checkpoint
from tests.end_to_end import oracle

OUTPUT = Path(__file__).parents[2] / "docs" / "screens"
COLUMNS, LINES = 90, 24

_THEME = TerminalTheme(
    (27, 30, 38),
    (222, 226, 233),
    [
        (84, 91, 104),
        (244, 118, 124),
        (142, 206, 126),
        (238, 196, 108),
        (118, 176, 244),
        (204, 156, 234),
        (110, 204, 218),
        (222, 226, 233),
    ],
)
_FONT = "'DejaVu Sans Mono', Menlo, Consolas, ui-monospace, monospace"
# Fonts of another server are not loaded: a picture is one file.
_FORM = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code, monospace", _FONT
)

_SETTINGS = """\
[export]
path = "users.csv"
[mapping]
user = "email"
types = {{ headcount = "number" }}
[target]
api = "calven"
base_url = "{url}"
[target.auth]
scheme = "hmac"
key_id = "env:CALVEN_KEY_ID"
secret = "env:CALVEN_SECRET"
[limits]
{limits}
"""


class Scene(NamedTuple):
    """One screen. `sandbox`: its flags; `play`: what is done until the capture.

    Of `rows` in the export, every so many (`strange`, `broken`; 0: none) is of a user that the API doesn't know, or is
    not valid.
    """

    sandbox: str
    play: Callable[["Stage"], None]
    rows: int = 120_000
    limits: str = "concurrency = 12"
    strange: int = 900
    broken: int = 7_000
    title: str = "loader run load.toml"


class Stage:
    """A terminal in a folder with an export, settings and a sandbox that runs."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint = folder / "users.ckpt"
        self._folder = folder
        self._tmux = ["tmux", "-L", f"screens-{os.getpid()}", "-f", "/dev/null"]

    def __enter__(self) -> Self:
        tools = self._folder / "bin"
        tools.mkdir()
        command = tools / "loader"
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m loader "$@"\n')
        command.chmod(0o755)
        known = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(OUTPUT.parents[1]),
            "HOME": str(self._folder),
            "LANG": "C.UTF-8",
            "PS1": r"\[\e[1;32m\]$\[\e[0m\] ",
            "CALVEN_KEY_ID": "K",
            "CALVEN_SECRET": "S",
        }
        shell = ["env", "-i", *(f"{name}={value}" for name, value in known.items()), "TERM=screen-256color"]
        self._shell = shlex.join([*shell, "bash", "--norc", "--noprofile"])
        size = ("-x", str(COLUMNS), "-y", str(LINES))
        self._call("new-session", "-d", *size, "-c", str(self._folder), self._shell)
        return self

    def __exit__(self, *_: object) -> None:
        self._call("kill-server")

    def _call(self, *arguments: str) -> str:
        return subprocess.run([*self._tmux, *arguments], check=True, capture_output=True, text=True).stdout

    def type(self, text: str) -> None:
        """A line, and Enter, as soon as the shell asks for it."""
        self._until(lambda: self._call("capture-pane", "-p").rstrip("\n ").endswith("$"))
        self._call("send-keys", "-l", text)
        self._call("send-keys", "Enter")

    def press(self, key: str) -> None:
        self._call("send-keys", key)

    def clear(self) -> None:
        self.type("clear")
        self._until(lambda: self._call("capture-pane", "-p").strip() == "$")

    def another(self) -> None:
        """Go on in another window of the terminal."""
        self._call("new-window", "-c", str(self._folder), self._shell)

    def until_share(self, share: float, rows: int) -> None:
        """Until so much of the export is settled."""
        self._until(lambda: self._rows() >= share * rows)

    def until_shown(self, text: str) -> None:
        self._until(lambda: text in self._call("capture-pane", "-p"))

    def _rows(self) -> int:
        if not self.checkpoint.exists():
            return 0
        with Checkpoint.read(self.checkpoint) as opened:
            return sum(opened.counts().values())

    def _until(self, is_so: Callable[[], bool], seconds: float = 300.0) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > end:
                raise TimeoutError(self._call("capture-pane", "-p"))
            time.sleep(0.1)

    def capture(self) -> str:
        """What the terminal shows, with its colours."""
        lines = self._call("capture-pane", "-p", "-e").splitlines()
        return "\n".join(each.rstrip() for each in lines).rstrip("\n")


def picture(captured: str, title: str) -> str:
    """A captured terminal as SVG."""
    text = Text.from_ansi(captured)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for each in text.split("\n"):
        each.rstrip()
        console.print(each, soft_wrap=True)
    return console.export_svg(title=title, theme=_THEME, code_format=_FORM, unique_id="screen")


def make_export(path: Path, scene: Scene) -> None:
    """Users as exports have them."""
    rng = random.Random(7)
    with path.open("w") as file:
        file.write("email,department,costCenter,location,headcount\n")
        for number in range(scene.rows):
            name = "former" if scene.strange and number % scene.strange == scene.strange // 2 else "user"
            count = "many" if scene.broken and number % scene.broken == scene.broken // 2 else str(rng.randrange(40))
            values = (
                rng.choice(("Sales", "Finance")),
                f"{rng.randrange(1000):05}",
                rng.choice(("Sydney", "Wien")),
                count,
            )
            file.write(f"{name}{number}@example.com,{','.join(values)}\n")


def _good(stage: Stage) -> None:
    stage.type("loader run load.toml")
    stage.until_share(0.62, 120_000)


def _finished(stage: Stage) -> None:
    stage.type("loader run load.toml")
    stage.until_shown("failed; see them")
    time.sleep(0.5)


def _quota(stage: Stage) -> None:
    stage.type("loader run load.toml")
    stage.until_share(0.3, 60_000)


def _resumed(stage: Stage) -> None:
    stage.type("loader run load.toml")
    stage.until_share(0.3, 120_000)
    stage.press("C-c")
    stage.until_shown("Go on with")
    stage.clear()
    stage.type("loader run load.toml")
    stage.until_share(0.62, 120_000)


def _refused(stage: Stage) -> None:
    stage.type("loader run load.toml")
    stage.until_shown("Go on with")
    time.sleep(0.5)


def _watched(stage: Stage) -> None:
    stage.type("loader run load.toml")
    stage.until_share(0.3, 120_000)
    stage.another()
    stage.type("loader status users.ckpt --watch")
    stage.until_share(0.62, 120_000)


_PLAIN = "--latency 0.45 --jitter 0.05 --unknown ^former"

SCENES = {
    "good": Scene(_PLAIN, _good),
    "finished": Scene("--latency 0.02 --unknown ^former", _finished, rows=100_000),
    "quota": Scene(
        "--latency 0.08 --jitter 0.04 --quota 600/60s --unknown ^former",
        _quota,
        rows=60_000,
        limits='quota = ["600/60s"]',
    ),
    "failures": Scene(
        "--latency 0.45 --jitter 0.05 --unknown ^former --fault 429=0.01 --fault 500=0.02 --retry-after-seconds 1",
        _good,
        strange=6,
        broken=60,
    ),
    "resumed": Scene(_PLAIN, _resumed),
    "refused": Scene("--key-id K --secret another", _refused, rows=1_000),
    "watch": Scene(_PLAIN, _watched, title="loader status users.ckpt --watch"),
}


@contextmanager
def stage(scene: Scene) -> Iterator[Stage]:
    """All that a scene needs."""
    knows = () if "--secret" in scene.sandbox else ("--key-id", "K", "--secret", "S")
    with tempfile.TemporaryDirectory() as name, oracle.sandbox(*scene.sandbox.split(), knows=knows) as url:
        folder = Path(name)
        make_export(folder / "users.csv", scene)
        (folder / "load.toml").write_text(_SETTINGS.format(url=url, limits=scene.limits))
        with Stage(folder) as ready:
            ready.clear()
            yield ready


def main() -> None:
    """Make the screens that are named, or all."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("names", nargs="*", choices=[*SCENES, []], metavar="NAME", help=", ".join(SCENES))
    arguments.add_argument("-o", "--output", type=Path, default=OUTPUT)
    given = arguments.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for name in given.names or SCENES:
        scene = SCENES[name]
        with stage(scene) as ready:
            scene.play(ready)
            time.sleep(1.2)  # a moment that the panel has drawn
            path = given.output / f"{name}.svg"
            path.write_text(picture(ready.capture(), scene.title))
            print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
