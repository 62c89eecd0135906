"""A full load and the night behind it, in which 1 % of the users changed: seconds, rows compared, peak memory.

    python -m benchmarks.refresh 10000000
    python -m benchmarks.refresh 100000000 --alone

Each run is a fresh process, so that its memory is its own. The sandbox is another. With `--alone` nothing is sent: keys
with one short value are compared with themselves.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.generate import generate
from benchmarks.loading import ENVIRONMENT, LOADER, command
from loader.compare import Comparison
from loader.export.files import Files
from loader.mapping import RowMapping
from loader.record import Frame
from loader.spill import PARTITIONS
from loader.state import ACKED, MARKS, TAKEN, State

_REFRESH = """
[refresh]
mode = "changed"
missing = "{missing}"
"""


def change(export: Path, share: float) -> int:
    """Other values for a share of the users, at random; how many."""
    dice, count = random.Random(2), 0
    draft = export.with_suffix(".new")
    with export.open(encoding="utf-8") as old, draft.open("w", encoding="utf-8") as new:
        new.write(next(old))
        for line in old:
            if dice.random() < share:
                count += 1
                line = f"{line.rstrip()}9\n"
            new.write(line)
    draft.replace(export)
    return count


def run(folder: Path, *arguments: str) -> dict[str, float]:
    """The command in a fresh process: how long it took, and its memory."""
    began = time.monotonic()
    process = subprocess.Popen(
        [*LOADER, *arguments],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"loader {' '.join(arguments)} ended with {process.returncode}")
    return {
        "seconds": round(time.monotonic() - began, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": usage.ru_maxrss // 1024,
    }


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
    path = folder / "users.state"
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
    state = State.open(path)
    assert state is not None, "it was just written"
    with state:
        for number in range(PARTITIONS):
            entries = state.partition(number)
            entries[:, MARKS] |= ACKED | TAKEN
            state.mark(number, entries)
    counts = found.counts
    print(json.dumps({"unchanged": counts.unchanged, "new": counts.new, "rows_per_s": round(counts.rows / took)}))


def alone(users: int, folder: Path | None) -> None:
    """The comparison alone, in processes of its own: first with nothing, then with itself."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        make_keys(Path(name) / "users.csv", users)
        for _ in range(2):
            process = subprocess.Popen([sys.executable, "-m", "benchmarks.refresh", "0", "--compare", name])
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0
            cpu = usage.ru_utime + usage.ru_stime
            print(json.dumps({"cpu_us_per_row": round(cpu / users * 1e6, 2), "peak_mib": usage.ru_maxrss // 1024}))


def main() -> None:
    """What the arguments ask for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("users", type=int)
    options.add_argument("--changed", type=float, default=0.01, help="the share of users who change")
    options.add_argument("--missing", default="ignore", choices=["ignore", "report"])
    options.add_argument("--folder", type=Path, help="where the files stand, instead of a temporary folder")
    options.add_argument("--alone", action="store_true", help="the comparison alone")
    options.add_argument("--compare", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.compare is not None:
        compare(chosen.compare)
        return
    if chosen.alone:
        alone(chosen.users, chosen.folder)
        return
    sandbox = subprocess.Popen(
        [*LOADER, "sandbox", "--port", "0", "--token", "T", "--count-only"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert sandbox.stdout is not None
    try:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
            folder = Path(name)
            generate(folder / "users.csv", chosen.users)
            url = sandbox.stdout.readline().strip()
            more = _REFRESH.format(missing=chosen.missing)
            command(folder, folder / "users.csv", url, 500, 16, more=more)
            found = {"users": chosen.users, "full": run(folder, "run", "load.toml", "--summary-json", "full.json")}
            found["changed_users"] = change(folder / "users.csv", chosen.changed)
            found["plan"] = run(folder, "plan", "load.toml")
            found["changed"] = run(folder, "run", "load.toml", "--summary-json", "changed.json")
            found["outcomes"] = json.loads((folder / "changed.json").read_text())["outcomes"]
            found["state_bytes"] = (folder / "users.state").stat().st_size
    finally:
        sandbox.send_signal(signal.SIGTERM)
        sandbox.wait()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
