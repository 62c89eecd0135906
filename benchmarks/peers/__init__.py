"""Whom the loader is measured against, and how each is run.

Each peer is a program in this folder that runs alone, too: `python by_hand.py EXPORT URL USERS_PER_REQUEST AT_ONCE`.
Those in Python have a virtual environment each, outside of the repository, with what stands in the .txt of their name.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loading import command as load_command
from benchmarks.machine import cache

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A program that sends an export. `about`: how it is set up; `after_kill`: what its users do then.

    `rough`: users a second that it may reach here, which decides how many it is given. `at_most`: requests at once.
    `tool`: the system's program that it needs; `package`: the one in FILE.txt that is meant.
    """

    name: str
    about: str
    after_kill: str
    rough: int
    file: str = ""
    form: str = "csv"
    at_most: int | None = None
    ends: bool = True
    tool: str = ""
    package: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def is_ceiling(self) -> bool:
        """Does it send the same body again and again, rather than an export?"""
        return self.tool == "wrk"

    def at_once(self, delay_s: float) -> int:
        """Requests at once: more, where each takes long."""
        return min(64 if delay_s > 0.01 else 16, self.at_most or 64)

    def users(self, size: int, delay_s: float, seconds: float, most: int) -> int:
        """How many users it is given to be busy for about so many seconds, `size` a request."""
        rate: float = self.rough
        if delay_s:
            rate = min(rate, self.at_once(delay_s) * size / delay_s)
        requests = max(round(rate * seconds / size), 2 * self.at_once(delay_s), 10)
        return min(requests * size, most)

    def missing(self) -> str:
        """Why it can't be run here; "": it can."""
        if self.tool and shutil.which(self.tool) is None:
            return f"{self.tool} is not installed"
        try:
            interpreter(self.file)
        except subprocess.CalledProcessError:
            return f"what {self.file}.txt lists can't be installed"
        return ""

    def version(self) -> tuple[str, str]:
        """What is measured, and which version of it."""
        if self.tool:
            flag = "-v" if self.tool == "wrk" else "--version"
            said = subprocess.run([self.tool, flag], capture_output=True, text=True, check=False).stdout
            found = re.search(r"\d+\.\d+\.\d+", said)
            return self.tool, found[0] if found else "of unknown version"
        if not self.package:
            return "", ""
        listed = (FOLDER / f"{self.file}.txt").read_text()
        found = re.search(rf"^{re.escape(self.package)}==(.+)$", listed, re.MULTILINE)
        assert found is not None, f"{self.file}.txt does not list {self.package}"
        return self.package, found[1]

    def command(self, folder: Path, export: Path, url: str, size: int, at_once: int, seconds: float) -> Sequence[str]:
        """What sends `export` from within `folder`; after a kill the same goes on, or begins anew."""
        if not self.file:
            return load_command(folder, export, url, size, at_once)
        arguments = [*self.arguments, *([f"{max(round(seconds), 1)}"] if self.is_ceiling else [])]
        program = FOLDER / f"{self.file}.py"
        return [interpreter(self.file), str(program), str(export), url, str(size), str(at_once), *arguments]


def interpreter(name: str) -> str:
    """Of the environment with what NAME.txt lists; on first use it is made. Of none, where there is no such file."""
    requirements = FOLDER / f"{name}.txt"
    if not requirements.exists():
        return sys.executable
    wanted = requirements.read_bytes() + sys.version.encode()
    home = cache() / "venvs" / f"{name}-{hashlib.sha256(wanted).hexdigest()[:12]}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        print(f"setting up {name} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--no-deps", "-r", str(requirements)], check=True)
        (home / "complete").touch()
    return str(python)


_ANEW = "begins anew"

PEERS = (
    Peer("loader", "this one, CSV mapped, everything on", "goes on", rough=1_000_000),
    Peer("loader, NDJSON", "records as they are sent", "goes on", rough=1_500_000, form="ndjson"),
    Peer(
        "wrk",
        "the ceiling: one ready body, again and again, nothing read or learnt",
        "–",
        rough=5_000_000,
        file="wrk_post",
        tool="wrk",
    ),
    Peer(
        "by hand",
        "polars, orjson and aiohttp on uvloop; users compared; no checkpoint, no second try",
        _ANEW,
        rough=500_000,
        file="by_hand",
        package="aiohttp",
    ),
    Peer(
        "syslog-ng",
        "C; csv-parser and format-json, `http()` with a worker a request; answers not read",
        "goes on from its persist file",
        rough=250_000,
        file="syslog_ng",
        ends=False,
        tool="syslog-ng",
    ),
    Peer(
        "syslog-ng, NDJSON",
        "the same, with lines passed on as they are",
        "goes on from its persist file",
        rough=500_000,
        file="syslog_ng",
        form="ndjson",
        ends=False,
        tool="syslog-ng",
    ),
    Peer(
        "dlt",
        "`@dlt.destination` on threads, Arrow tables through Parquet; answers not read",
        "finishes the package it had begun",
        rough=150_000,
        file="dlt_destination",
        package="dlt",
    ),
    Peer(
        "drt",
        "REST destination in batch mode, from DuckDB, one request at a time; answers not read",
        _ANEW,
        rough=60_000,
        file="drt_rest",
        package="drt-core",
        at_most=1,
    ),
    Peer(
        "singer-sdk",
        "BatchSink fed by the least of taps, one request at a time; answers not read",
        _ANEW,
        rough=18_000,
        file="singer_target",
        package="singer-sdk",
        at_most=1,
    ),
    Peer(
        "elasticsearch-py, threads",
        "`parallel_bulk` with orjson; each item of the answer is looked at",
        _ANEW,
        rough=45_000,
        file="elasticsearch_bulk",
        package="elasticsearch",
        arguments=("parallel",),
    ),
    Peer(
        "elasticsearch-py, async",
        "`async_bulk` with orjson, one request at a time; each item of the answer is looked at",
        _ANEW,
        rough=50_000,
        file="elasticsearch_bulk",
        package="elasticsearch",
        at_most=1,
        arguments=("async",),
    ),
)
