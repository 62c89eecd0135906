"""Where a benchmark runs: which cores it uses, what the machine is, which versions were measured."""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

#: What was measured depends on these.
PACKAGES = ("aiohttp", "anyio", "msgspec", "numpy", "orjson", "polars", "pyarrow", "uvloop")


class Cores(NamedTuple):
    """The client's core and the server's; None: the machine has only one, or can't pin."""

    client: int | None
    server: int | None


def cores() -> Cores:
    """The first two of those that this process may use. Runs have a core each, or they would measure each other."""
    if not hasattr(os, "sched_getaffinity"):
        return Cores(None, None)
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[1]) if len(usable) > 1 else Cores(None, None)


def pinned(core: int | None) -> list[str]:
    """What goes before a command so that it runs on that core alone."""
    return [] if core is None else ["taskset", "-c", str(core)]


def cache() -> Path:
    """Where compiled servers, virtual environments and runs are kept: outside of the repository."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "directory-loader-benchmarks"
    root.mkdir(parents=True, exist_ok=True)
    return root


class Clock:
    """How busy a core is, over the time since this was made."""

    def __init__(self, core: int | None) -> None:
        self._core = core
        self._begun = self._ticks()

    def idle(self) -> float | None:
        """The share in which the core did nothing; None: that is not known."""
        if self._begun is None or (now := self._ticks()) is None:
            return None
        idle, whole = (after - before for before, after in zip(self._begun, now, strict=True))
        return idle / whole if whole else None

    def _ticks(self) -> tuple[int, int] | None:
        """Those without work, and all."""
        if self._core is None:
            return None
        for line in Path("/proc/stat").read_text().splitlines():
            name, *fields = line.split()
            if name == f"cpu{self._core}":
                ticks = [int(field) for field in fields[:8]]  # the guests' are in the user's
                return ticks[3] + ticks[4], sum(ticks)
        return None


def described() -> dict[str, object]:
    """The machine, for the record."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _commit(),
    }


def versions(names: Iterable[str] = PACKAGES) -> Mapping[str, str]:
    """Of the packages that are installed here."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields: dict[str, str] = {}
    for line in reversed(lines):  # the first processor's stay
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else name


def _commit() -> str:
    """The repository's state: a commit, with a + if files have changed since."""
    root = Path(__file__).parent
    asked = (["git", "rev-parse", "--short", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changes = (
            subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for command in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changes else "")
