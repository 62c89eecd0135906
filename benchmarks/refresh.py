"""The nightly refresh beside a full load, as one table: seconds, rows compared, peak memory.

    python -m benchmarks.refresh                    # 10 million users, of whom 1 % change
    python -m benchmarks.refresh --turns 3          # medians of three full loads and the nights behind them
    python -m benchmarks.refresh --keys 100000000   # so many keys compared, too, and nothing sent
    python -m benchmarks.refresh 0 --keys 100000000 # these alone: 150 bytes of disk a key, some 3 minutes on two cores

Each run is a fresh process, its memory that of all it starts. Full loads and nights go into two servers: the sandbox,
and the counting server in C, which leaves the loader nearly the whole machine.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.generate import generate
from benchmarks.loading import CHECKPOINT, ENVIRONMENT, LOADER, command
from benchmarks.machine import described
from benchmarks.process import Program, Used
from benchmarks.server import Server
from loader.export.files import Files
from loader.mapping import RowMapping
from loader.record import Frame
from loader.refresh.compare import Comparison
from loader.refresh.spill import PARTITIONS
from loader.refresh.state import ACKED, MARKS, TAKEN, State

_REFRESH = """
[refresh]
mode = "changed"
missing = "{missing}"
"""

#: Users a request, as the target has it where nobody sets it, and requests at once.
_USERS, _AT_ONCE = 100, 16

#: A run that takes longer is killed.
_MOST_S = 600.0

#: What the comparison of keys needs on the disk, for each: export, two states, and what is put aside.
_KEY_BYTES = 150


def change(export: Path, into: Path, share: float) -> int:
    """The export with other values for a share of the users, at random; how many."""
    dice, count = random.Random(2), 0
    with export.open(encoding="utf-8") as old, into.open("w", encoding="utf-8") as new:
        new.write(next(old))
        for line in old:
            if dice.random() < share:
                count += 1
                line = f"{line.rstrip()}9\n"
            new.write(line)
    return count


def run(folder: Path, *arguments: str) -> Used:
    """A program of its own in `folder`."""
    program = Program([sys.executable, "-m", *arguments], folder, None, ENVIRONMENT | {"PYTHONPATH": _root()})
    used = program.wait(_MOST_S)
    if used.status:
        raise SystemExit(f"{' '.join(arguments)} ended with {used.status}: {program.log.read_text()[-2000:]}")
    return used


def _root() -> str:
    return str(Path(__file__).parent.parent)


@contextmanager
def sandbox() -> Iterator[str]:
    """The address of `loader sandbox`."""
    process = subprocess.Popen(
        [*LOADER, "sandbox", "--port", "0", "--token", "T", "--count-only"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


@contextmanager
def counting(users: int) -> Iterator[str]:
    """The address of the counting server."""
    with Server(None) as server:
        server.reset(users)
        yield server.url


def turn(folder: Path, exports: tuple[Path, Path], url: str, missing: str) -> dict[str, Any]:
    """A full load of the first export, and the night behind it, with the second."""
    export = folder / "users.csv"
    for each in (*folder.glob(f"{CHECKPOINT}*"), *folder.glob("*.state*"), export):
        each.unlink(missing_ok=True)
    command(folder, export, url, _USERS, _AT_ONCE, more=_REFRESH.format(missing=missing))
    os.link(exports[0], export)
    full = run(folder, "loader", "run", "load.toml")
    export.unlink()
    os.link(exports[1], export)
    night = run(folder, "loader", "run", "load.toml", "--summary-json", "summary.json")
    outcomes = json.loads((folder / "summary.json").read_text())["outcomes"]
    return {"full": full._asdict(), "night": night._asdict(), "ratio": full.seconds / night.seconds, **outcomes}


def make_keys(path: Path, users: int) -> None:
    """An export of keys and one value, `u000000001,v1`, in no time."""
    with path.open("wb") as file:
        file.write(b"email,d\n")
        for first in range(0, users, 1_000_000):
            numbers = np.arange(first, min(first + 1_000_000, users))
            lines = np.tile(np.frombuffer(b"u000000000,v1\n", np.uint8), (len(numbers), 1))
            for place in range(9):
                lines[:, 9 - place] = 48 + numbers // 10**place % 10
            file.write(lines.tobytes())


def compare(folder: Path) -> None:
    """Compare the export in `folder` with the state there, and keep the new one, in which all are acknowledged."""
    path = folder / "alone.state"
    before = State.open(path)
    secret = before.about.secret if before is not None else bytes(32)
    began = time.monotonic()
    with Comparison(path, before, secret) as comparison:
        mapping = RowMapping(Frame(), 1 << 20, "email")
        found = comparison.run(Files.of([folder / "users.csv"]), mapping, lambda _rows: None)
        sets = [sorted(each) for each in comparison.sets.sets]
        facts = {"night": "", "begun_at": 0.0, "full_at": 0.0, "identity": {}, "secret": secret}
        comparison.draft.finish(comparison.sets.names, sets, facts)
        comparison.draft.replace()
    took = time.monotonic() - began
    (folder / "compared.json").write_text(json.dumps({"rows_per_s": found.counts.rows / took, **vars(found.counts)}))
    state = State.open(path)
    assert state is not None, "it was just written"
    with state:
        for number in range(PARTITIONS):
            entries = state.partition(number)
            entries[:, MARKS] |= ACKED | TAKEN
            state.mark(number, entries)


def alone(folder: Path, turns: int) -> dict[str, Any]:
    """The comparison alone, in processes of its own: first with nothing, then with what was there before."""
    found = []
    for _ in range(1 + turns):
        used = run(folder, "benchmarks.refresh", "--compare", str(folder))
        found.append({**used._asdict(), **json.loads((folder / "compared.json").read_text())})
    (folder / "alone.state").unlink()
    assert all(each["unchanged"] == each["users"] for each in found[1:])
    rows = found[0]["rows"]
    return {
        "rows": rows,
        "rows_per_s": median(each["rows_per_s"] for each in found[1:]),
        "cpu_us_per_row": median(each["cpu_s"] for each in found[1:]) / rows * 1e6,
        "peak_mib": max(each["peak_mib"] for each in found[1:]),
    }


def table(found: dict[str, Any]) -> str:
    """What was found, for people."""
    head = ["| | full load | night | full ÷ night | night's CPU | night's peak |", "|---|---|---|---|---|---|"]
    lines = head if found["users"] else []
    for name, turns in found["loads"].items():
        full, night = ([each[kind] for each in turns] for kind in ("full", "night"))
        lines.append(
            f"| {name} | {median(each['seconds'] for each in full):.1f} s "
            f"| {median(each['seconds'] for each in night):.1f} s | {median(each['ratio'] for each in turns):.1f} "
            f"| {median(each['cpu_s'] for each in night):.1f} s of {median(each['cpu_s'] for each in full):.0f} s "
            f"| {max(each['peak_mib'] for each in night):.0f} MiB |"
        )
    for each in found["compared"]:
        speed = f"{each['rows_per_s']:,.0f} rows/s, {each['cpu_us_per_row']:.2f} µs of CPU a row"
        lines += ["", f"{each['rows']:,} rows compared: {speed}, at most {each['peak_mib']:.0f} MiB"]
    return "\n".join(lines)


def measure(folder: Path, chosen: argparse.Namespace, found: dict[str, Any]) -> None:
    """Full loads and the nights behind them, and the comparison alone."""
    exports = (folder / "full.csv", folder / "night.csv")
    generate(exports[0], chosen.users)
    found["changed"] = change(*exports, chosen.changed)
    for _ in range(chosen.turns):
        for kind, server in (("`loader sandbox`", sandbox()), ("counting server", counting(chosen.users))):
            with server as url:
                one = turn(folder, exports, url, chosen.missing)
            assert one["SUCCESS"] == found["changed"], "exactly those who changed were sent"
            found["loads"].setdefault(kind, []).append(one)
    found["compared"].append(alone(folder, chosen.turns))
    for each in (*exports, folder / "users.csv"):
        each.unlink()


def main() -> None:
    """What the arguments ask for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("users", type=int, nargs="?", default=10_000_000, help="0: nothing is loaded")
    options.add_argument("--turns", type=int, default=1)
    options.add_argument("--changed", type=float, default=0.01, help="the share of users who change")
    options.add_argument("--missing", default="ignore", choices=["ignore", "report"])
    options.add_argument("--keys", type=int, default=0, help="compare so many keys, too")
    options.add_argument("--folder", type=Path, help="where the files stand, instead of a temporary folder")
    options.add_argument("--compare", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.compare is not None:
        compare(chosen.compare)
        return
    found: dict[str, Any] = {"machine": described(), "users": chosen.users, "loads": {}, "compared": []}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        if chosen.users:
            measure(folder, chosen, found)
        if chosen.keys:
            if (free := shutil.disk_usage(folder).free) < chosen.keys * _KEY_BYTES:
                raise SystemExit(f"{folder} has {free:,} bytes left, and {chosen.keys * _KEY_BYTES:,} are needed")
            make_keys(folder / "users.csv", chosen.keys)
            found["compared"].append(alone(folder, 1))
    print(json.dumps(found, indent=1), table(found), sep="\n\n")


if __name__ == "__main__":
    main()
