"""The steps of a run that a disk has to remember, as shim.c sees them, and what may become of one of them."""

import errno
import struct
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["create", "write", "cut", "sync", "sync-folder", "rename", "remove"]
Action = Literal["kill", "tear", "fail", "full", "break", "signal"]

_KINDS: tuple[Kind, ...] = ("create", "write", "cut", "sync", "sync-folder", "rename", "remove")
_RECORD = struct.Struct("=QQQqIIHHHH")


class Step(NamedTuple):
    """One step that was done. `name` is the file's in the folder ("": the folder itself), `file` its inode.

    `other`: the name that a rename gave it. `offset`: of a write; of a cut, the size that is left. Times are
    CLOCK_MONOTONIC, as time.monotonic_ns().
    """

    begun_ns: int
    ended_ns: int
    file: int
    offset: int
    length: int
    kind: Kind
    name: str
    other: str
    data: bytes


class Plan(NamedTuple):
    """What becomes of the `number`-th (1, 2, …) step of a kind on a file ("*": any): see shim.c for the actions.

    `value`: an errno, or a signal.
    """

    kind: Kind | Literal["*"]
    name: str
    number: int
    action: Action = "kill"
    value: int = 0

    def __str__(self) -> str:
        value = f" {errno.errorcode[self.value]}" if self.action in ("fail", "full", "break") else ""
        return f"{self.action}{value} at {self.kind} {self.number} of {self.name or 'the folder'}"

    def environment(self) -> dict[str, str]:
        """For a process to come. A file without a name can't be told from none, so that the folder is "*"."""
        return {"CRASH_PLAN": f"{self.kind} {self.name or '*'} {self.number} {self.action} {int(self.value)}"}


def build_shim(folder: Path) -> Path:
    """Compile shim.c into a library in `folder`."""
    source, library = Path(__file__).with_name("shim.c"), folder / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source], check=True)
    return library


def read_log(path: Path) -> list[Step]:
    """The steps that a process has written down."""
    return list(_steps(path.read_bytes())) if path.exists() else []


def _steps(log: bytes) -> Iterator[Step]:
    at = 0
    while at < len(log):
        begun, ended, file, offset, length, size, kind, name, other, _ = _RECORD.unpack_from(log, at)
        at += _RECORD.size
        parts = []
        for count in (name, other, size):
            parts.append(log[at : at + count])
            at += count
        yield Step(
            begun, ended, file, offset, length, _KINDS[kind], parts[0].decode(), parts[1].decode(), bytes(parts[2])
        )


def places(steps: Iterable[Step]) -> list[Plan]:
    """Each step by its kind, its file and how many such steps there were: a run that takes another way has it too."""
    seen: Counter[tuple[Kind, str]] = Counter()
    found = []
    for step in steps:
        seen[step.kind, step.name] += 1
        found.append(Plan(step.kind, step.name, seen[step.kind, step.name]))
    return found


def spread(plans: list[Plan], count: int) -> list[Plan]:
    """About `count` of the plans: the first of each kind and file, and others at even distances."""
    first = {(plan.kind, plan.name): plan for plan in reversed(plans)}
    rest = [plan for plan in plans if plan not in first.values()]
    wanted = max(count - len(first), 0)
    chosen = {*first.values(), *(rest[at * len(rest) // wanted] for at in range(wanted))}
    return [plan for plan in plans if plan in chosen]
