"""Completion in real shells: what TAB gives."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loader.cli import main

ROOT = Path(__file__).parents[2]
SHELLS = [
    "bash",
    # they are other packages of the system's
    *(
        pytest.param(shell, marks=[pytest.mark.soak, pytest.mark.skipif(not shutil.which(shell), reason="not here")])
        for shell in ("fish", "zsh")
    ),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files to complete, and `loader` as pip installs it."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "loader"
    program.write_text(f"#!{sys.executable}\nfrom loader.cli import main\nmain()\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "nightly load.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def script(shell: str) -> str:
    return subprocess.run(["loader", "completion", shell], check=True, capture_output=True, text=True).stdout


class Terminal:
    """A bash at whose prompt one types."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        environment = os.environ | {"PS1": "$ ", "TERM": "dumb", "INPUTRC": "/dev/null"}
        command = ["bash", "--norc", "--noprofile", "-i"]
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        self._read("$ ")
        self.type("bind 'set enable-bracketed-paste off'; source <(loader completion bash); echo rea''dy\n", "ready")

    def type(self, keys: str, awaited: str) -> str:
        """Type, and return what the screen shows up to what is awaited."""
        os.write(self._ours, keys.encode())
        return self._read(awaited)

    def _read(self, awaited: str) -> str:
        shown, until = "", time.monotonic() + 20
        while awaited not in shown and time.monotonic() < until:
            if select.select([self._ours], [], [], 0.1)[0]:
                shown += os.read(self._ours, 4096).decode()
        assert awaited in shown, shown
        return shown

    def clear(self) -> None:
        self.type("\x15echo cle''ar\n", "clear")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


def test_bash_completes_commands_options_values_and_files(place: Path) -> None:
    terminal = Terminal()
    try:
        terminal.type("loader stat\t", "status ")
        terminal.clear()
        terminal.type("loader run --su\t", "--summary-json ")
        terminal.clear()
        terminal.type("loader run nig\t", "nightly\\ load.toml")
        terminal.clear()
        terminal.type("loader results users.ckpt --code user\t", "USER_NOT_FOUND")
        terminal.clear()
        shown = terminal.type("loader re\t\t", "retry")
        assert "results" in shown
    finally:
        terminal.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_takes_the_script(place: Path, shell: str) -> None:
    (place / "script").write_text(script(shell))

    subprocess.run([shell, "-n", "script"], check=True)


@pytest.mark.soak
@pytest.mark.skipif(not shutil.which("fish"), reason="not here")
def test_fish_completes(place: Path) -> None:
    (place / "script").write_text(script("fish"))

    def offered(line: str) -> list[str]:
        done = subprocess.run(
            ["fish", "-c", f"source script; complete -C '{line}'"], check=True, capture_output=True, text=True
        )
        return [each.partition("\t")[0] for each in done.stdout.splitlines()]

    assert offered("loader re") == sorted(name for name in main.commands if name.startswith("re"))
    assert "--summary-json" in offered("loader run --")


@pytest.mark.soak
@pytest.mark.skipif(not shutil.which("zsh"), reason="not here")
def test_zsh_finds_it_in_its_fpath(place: Path) -> None:
    (place / "_loader").write_text(script("zsh"))
    asked = "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -d ./dump; echo $_comps[loader]"

    done = subprocess.run(["zsh", "-fc", asked], check=True, capture_output=True, text=True)

    assert done.stdout == "_loader\n"


def test_it_loads_nothing_but_the_command_line(place: Path) -> None:
    """Each TAB starts the loader: commands are completed without importing one of them."""
    asked = os.environ | {"_LOADER_COMPLETE": "bash_complete", "COMP_WORDS": "loader r", "COMP_CWORD": "1"}
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); sys.argv = ['loader']"
    code += "; from loader.cli import main; main()"

    done = subprocess.run([sys.executable, "-c", code], env=asked, check=True, capture_output=True, text=True)

    *offered, loaded = done.stdout.splitlines()
    assert offered == [f"plain,{name}" for name in main.commands if name.startswith("r")]
    assert not {"loader.cli.run", "loader.sandbox", "pydantic", "anyio", "orjson"} & set(loaded.split())
