"""How long it takes from the start of a process to the first request of a load: a fresh one of any size, and a resume.

    python -m benchmarks.start 1000 1000000 --repeat 15
    python -m benchmarks.start 10000000 --resume 0.9

Compared with a process that only imports the libraries which a load needs, which is as quick as one could be. The
first request is seen by a listener here, which never answers; then the load is killed. `--resume 0.9`: also from a
checkpoint that holds so much of each load, as the counting sandbox took it.
"""

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.generate import generate
from benchmarks.loading import CHECKPOINT, ENVIRONMENT, LOADER, command

#: What other people wrote, and a load of a CSV can't do without before its first request.
_LIBRARIES = """
import aiohttp, aiolimiter, anyio, asyncio, click, msgspec, numpy, orjson, pyarrow, pyarrow.compute, pyarrow.csv
import pydantic, rich.console, rich.live, sqlite3, uvloop
"""
_RUN = [*LOADER, "run", "load.toml"]
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
_ENVIRONMENT |= ENVIRONMENT
_PATIENCE_S = 60.0


def until_imported() -> float:
    """Seconds from the start of a process until it has imported the libraries."""
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", f"{_LIBRARIES}print(flush=True)"], stdout=subprocess.PIPE, env=_ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return time.monotonic() - started


def free_port() -> int:
    """One for the listener and the sandbox in turn: a checkpoint belongs to one address."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def until_first_request(folder: Path, port: int) -> float:
    """Seconds from the start of `loader run` until a request of it arrives. The load is killed, and nothing settled."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(_PATIENCE_S)
        started = time.monotonic()
        with subprocess.Popen(_RUN, cwd=folder, env=_ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(_PATIENCE_S)
                    assert connection.recv(1 << 16).startswith(b"POST ")
                    return time.monotonic() - started
            finally:
                process.kill()


def until_fresh_request(folder: Path, port: int) -> float:
    """The same, of a load that has no checkpoint yet."""
    for old in folder.glob(f"{CHECKPOINT}*"):
        old.unlink()
    return until_first_request(folder, port)


def load_some(folder: Path, port: int, rows: int) -> None:
    """Load the first rows of the export into the counting sandbox, and leave the checkpoint there."""
    command = [*LOADER, "sandbox", "--port", str(port), "--token", "T", "--count-only"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            server.stdout.readline()
            subprocess.run(
                [*_RUN, "--first", str(rows)], cwd=folder, env=_ENVIRONMENT, stderr=subprocess.DEVNULL, check=True
            )
        finally:
            server.send_signal(signal.SIGTERM)
            server.stdout.read()


def measure(folder: Path, users: int, options: argparse.Namespace) -> dict[str, float]:
    """An export of one size: medians, and what its checkpoint takes."""
    port = free_port()
    generate(folder / "users.csv", users)
    command(folder, folder / "users.csv", f"http://127.0.0.1:{port}", 100, 16)
    until_imported(), until_fresh_request(folder, port)  # files are read, and modules compiled, once and for all
    # In turn: a machine that gets busier does so for both.
    pairs = [(until_imported(), until_fresh_request(folder, port)) for _ in range(options.repeat)]
    libraries, fresh = map(statistics.median, zip(*pairs, strict=True))
    found = {"users": users, "libraries_s": libraries, "fresh_s": fresh}
    if options.resume:
        load_some(folder, port, int(users * options.resume))
        found["checkpoint_mib"] = (folder / CHECKPOINT).stat().st_size / (1 << 20)
        found["resumed_s"] = statistics.median(until_first_request(folder, port) for _ in range(options.repeat))
    return found


def main() -> None:
    """Run them and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("users", type=int, nargs="*", default=[1_000, 1_000_000])
    parser.add_argument("--resume", type=float, metavar="SHARE")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for users in options.users:
        with tempfile.TemporaryDirectory() as name:
            rows.append(measure(Path(name), users, options))
    if options.json:
        print(json.dumps({"machine": platform.platform(), "python": platform.python_version(), "runs": rows}))
        return
    print(f"{'users':>12} {'libraries s':>12} {'fresh s':>8} {'ratio':>6} {'resumed s':>10} {'checkpoint MiB':>15}")
    for row in rows:
        resumed = (
            f"{row['resumed_s']:>10.2f} {row['checkpoint_mib']:>15.0f}" if options.resume else f"{'-':>10} {'-':>15}"
        )
        print(
            f"{row['users']:>12,} {row['libraries_s']:>12.3f} {row['fresh_s']:>8.3f} "
            f"{row['fresh_s'] / row['libraries_s']:>6.2f} {resumed}"
        )


if __name__ == "__main__":
    main()
