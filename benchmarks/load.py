"""Whole loads, as processes, into the counting sandbox: users/s, CPU seconds, peak memory.

    python -m benchmarks.load 1000000 10000000 --users-per-request 500 --repeat 3

Each load is a fresh process, so that its memory is its own. The sandbox is another.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.generate import generate

_LOADER = [sys.executable, "-m", "loader"]
_SETTINGS = """
[export]
path = "{export}"
[mapping]
{mapping}
[target]
api = "calven"
base_url = "{url}"
[target.auth]
scheme = "hmac"
key_id = "env:BENCH_KEY"
secret = "env:BENCH_SECRET"
[limits]
users_per_request = {users_per_request}
concurrency = {concurrency}
[checkpoint]
path = "bench.ckpt"
"""


def measure(folder: Path, export: Path, url: str, options: argparse.Namespace) -> dict[str, float]:
    """One load in a fresh process."""
    settings = folder / "load.toml"
    mapping = "" if export.suffix == ".ndjson" else 'user = "email"'
    settings.write_text(_SETTINGS.format(export=export, mapping=mapping, url=url, **vars(options)))
    for old in folder.glob("bench.ckpt*"):
        old.unlink()
    environment = os.environ | {"BENCH_KEY": "K", "BENCH_SECRET": "S"}
    started = time.monotonic()
    process = subprocess.Popen([*_LOADER, "run", str(settings)], env=environment, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the load ended with {process.returncode}")
    return {
        "seconds": took,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024),
        "checkpoint_bytes": (folder / "bench.ckpt").stat().st_size,
    }


def main() -> None:
    """Run them and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("users", type=int, nargs="+")
    parser.add_argument("--users-per-request", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--format", choices=("csv", "ndjson"), default="csv")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [*_LOADER, "sandbox", "--port", "0", "--key-id", "K", "--secret", "S", "--count-only"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            for users in options.users:
                export = generate(folder / f"users.{options.format}", users)
                runs = [measure(folder, export, url, options) for _ in range(options.repeat)]
                row = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
                rows.append({"users": users, "users_per_s": users / row["seconds"], **row})
                export.unlink()
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate()
    if options.json:
        print(json.dumps({"machine": platform.platform(), "python": platform.python_version(), "runs": rows}))
        return
    print(f"{'users':>12} {'s':>8} {'users/s':>10} {'CPU s':>8} {'peak MiB':>9} {'checkpoint B/user':>18}")
    for row in rows:
        print(
            f"{row['users']:>12,} {row['seconds']:>8.1f} {row['users_per_s']:>10,.0f} {row['cpu_s']:>8.1f} "
            f"{row['peak_mib']:>9.0f} {row['checkpoint_bytes'] / row['users']:>18.1f}"
        )


if __name__ == "__main__":
    main()
