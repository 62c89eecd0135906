"""Real processes, and what must be true of them: a sandbox, runs of the command, and a comparison of both ends.

The export is made by `loader.demo.make_export`, which knows what it wrote; nothing here uses the loader's own reading,
mapping or encoding.
"""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from loader.demo import Expected

LOADER = [sys.executable, "-m", "loader"]


@contextmanager
def sandbox(*flags: str, knows: Sequence[str] = ("--key-id", "K", "--secret", "S")) -> Iterator[str]:
    """A sandbox process that knows the credentials K and S, or others; its URL."""
    command = [*LOADER, "sandbox", "--port", "0", *knows, *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def get(url: str, path: str) -> list[dict[str, object]]:
    """Lines of JSON from the sandbox's own pages."""
    with urllib.request.urlopen(f"{url}/_sandbox/{path}") as answer:
        return [json.loads(line) for line in answer]


def write_settings(
    folder: Path,
    url: str,
    *,
    scheme: str = "hmac",
    export: str = "users.csv",
    target: str = 'api = "calven"',
    token: str = "env:LOADER_TEST_TOKEN",
    **limits: object,
) -> Path:
    """A settings file for the demo's export; the credentials are in the environment that `run` gives."""
    lines = [
        f'[export]\npath = "{export}"',
        '[mapping]\nuser = "email"\ntypes = { headcount = "number" }',
        'attributes = { department = "Dept", costCenter = "Cost Centre", location = "Site", headcount = "Reports" }',
        f'[target]\n{target}\nbase_url = "{url}"',
        f'[target.auth]\nscheme = "{scheme}"',
        f'token = "{token}"'
        if scheme == "bearer"
        else 'key_id = "env:LOADER_TEST_KEY"\nsecret = "env:LOADER_TEST_SECRET"',
        "[limits]",
        *(f"{name} = {json.dumps(value)}" for name, value in limits.items()),
    ]
    path = folder / "load.toml"
    path.write_text("\n".join(lines))
    return path


def start(
    *arguments: str | Path, environment: dict[str, str] | None = None, stdin: BinaryIO | None = None
) -> "subprocess.Popen[str]":
    """`loader` with these arguments, its output piped."""
    known = {"LOADER_TEST_KEY": "K", "LOADER_TEST_SECRET": "S", "LOADER_TEST_TOKEN": "T"}
    return subprocess.Popen(
        [*LOADER, *map(str, arguments)],
        env=os.environ | known | (environment or {}),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run(*arguments: str | Path, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """The same to its end: exit status, stdout, stderr."""
    process = start(*arguments, environment=environment)
    out, err = process.communicate()
    assert "Traceback" not in err, err
    return process.returncode, out, err


def run_and_kill(settings: Path, after_s: float) -> bool:
    """A run that is SIGKILLed after so many seconds. False: it was done before."""
    process = start("run", settings)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def results(checkpoint: Path) -> list[dict[str, str]]:
    """The rows that `loader results` writes."""
    status, out, err = run("results", checkpoint)
    assert status == 0, err
    return list(csv.DictReader(out.splitlines()))


def compare(url: str, checkpoint: Path, expected: Expected) -> int:
    """Assert that ledger, outcomes and export agree; return how many users were sent more often than needed."""
    rows = results(checkpoint)
    codes = Counter(row["code"] for row in rows)
    kinds = expected.kinds
    assert [int(row["row"]) for row in rows] == list(range(1, kinds.total() + 1))
    assert {
        "REJECTED": kinds["broken"],
        "SKIPPED": kinds["blank"],
        "USER_NOT_FOUND": kinds["unknown"],
        "taken": kinds["good"] + kinds["again"],
    } == {
        "REJECTED": codes.pop("REJECTED", 0),
        "SKIPPED": codes.pop("SKIPPED", 0),
        "USER_NOT_FOUND": codes.pop("USER_NOT_FOUND", 0),
        "taken": codes["SUCCESS"] + codes.pop("SUPERSEDED", 0),
    }
    assert set(codes) <= {"SUCCESS"}
    ledger = get(url, "users")
    assert {str(user["userName"]): user["attributes"] for user in ledger} == expected.users
    return sum(int(str(user["writes"])) for user in ledger) - codes["SUCCESS"]


def wait_for_file(path: Path) -> None:
    """Until it is there."""
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_for_rows(path: Path, rows: int, within_s: float = 20) -> None:
    """Until a checkpoint holds so many outcomes."""
    wait_for_file(path)
    end = time.monotonic() + within_s
    while True:
        assert time.monotonic() < end
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
                if db.execute("select count(*) from results").fetchone()[0] >= rows:
                    return
        except sqlite3.Error:
            pass
        time.sleep(0.02)
