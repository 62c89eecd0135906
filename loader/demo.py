"""The whole job on this machine: an export with all that real ones have, an API that misbehaves, a kill, a resume, and
a comparison of what the API holds with what the export says.

Everything runs as the processes a person would start; only the comparison is made here, by code that is not the
loader's.
"""

import csv
import json
import os
import random
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from loader.errors import Refused, Stopped

_LOADER = [sys.executable, "-m", "loader"]
_DEPARTMENTS = ("Engineering", "Sales", "Finance", 'Research "Blue"', "Legal, Risk & Audit", "Café Crew", "People")
_UNKNOWN = "former.employee"
_FAULTS = {"429": 0.003, "500": 0.01, "503": 0.002, "reset": 0.005, "lost": 0.003, "shuffled": 0.05}
_RESENT_BY_A_KILL = 2 * 16 * 100  # twice the default concurrency, times the users of a request

_SETTINGS = """\
# What the demo loads. The same file, with your export and your address, loads your tenant.

[export]
path = "users.csv"

[mapping]
user = "email"
attributes = {{ department = "Dept", costCenter = "Cost Centre", location = "Site", headcount = "Reports" }}
types = {{ headcount = "number" }}

[target]
api = "calven"
base_url = "{url}"

[target.auth]
scheme = "hmac"
key_id = "env:CALVEN_KEY_ID"
secret = "env:CALVEN_SECRET"
"""


@dataclass
class Expected:
    """What the export says, known to its maker: last values by user, and how many rows are of each kind."""

    users: dict[str, dict[str, object]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)


def demo(folder: Path, users: int, seed: int, console: Console) -> int:
    """Run it all in `folder`, which is made anew. Returns 0 if the comparison is exact, else 1."""
    _make_folder(folder)
    started = time.monotonic()
    _say(console, 1, f"An export of {users:,} users, as exports are")
    expected = make_export(folder / "users.csv", users, seed)
    kinds = expected.kinds
    _tell(console, f"{folder / 'users.csv'}: {kinds.total():,} rows")
    _tell(console, f"{kinds['again']:,} of users who come again, {kinds['unknown']:,} of users the API doesn't know,")
    _tell(console, f"{kinds['broken']:,} broken, {kinds['blank']:,} without a value")
    _say(console, 2, "A directory API on this machine, in a bad mood")
    with _sandbox(folder, seed) as (url, environment):
        _tell(console, f"{url}: its tokens live 3 s, it answers 429, 500 and 503,")
        _tell(console, "breaks connections, loses answers to what it has done, and doesn't know everyone")
        (folder / "load.toml").write_text(_SETTINGS.format(url=url))
        command = [*_LOADER, "run", str(folder / "load.toml")]
        checkpoint = folder / "users.ckpt"
        _say(console, 3, "loader run, killed half-way with SIGKILL")
        _run_and_kill(command, environment, checkpoint, kinds.total() // 2)
        console.print()
        _tell(console, f"killed; the checkpoint holds {_settled(checkpoint):,} outcomes")
        _say(console, 4, "The same command again")
        status = subprocess.run(command, env=environment, check=False).returncode
        if status not in (0, 1):
            raise Stopped(f"the second run ended with {status}; {folder} is left for a look")
        _tell(console, f"exit status {status}: finished{', and some rows failed, as they should' if status else ''}")
        _say(console, 5, "What the API now holds, against what the export says")
        is_exact = _compare(console, url, checkpoint, expected)
    _say(console, 6, "For a look")
    loader, name = shlex.quote(_command()), shlex.quote(str(checkpoint))
    _tell(console, f"{loader} status {name}")
    _tell(console, f"{loader} results {name} --code REJECTED")
    _tell(console, f"sqlite3 {name} \"select * from results where user = 'user7@example.com'\"")
    took = time.monotonic() - started
    console.print(
        f"\n{'Exact' if is_exact else 'NOT EXACT'}, in {took:.0f} s.", style="bold green" if is_exact else "bold red"
    )
    return 0 if is_exact else 1


def make_export(path: Path, users: int, seed: int) -> Expected:
    """A CSV of about `users` rows with quotes, commas, accents, empty cells, broken rows and users who come again."""
    rng = random.Random(seed)
    expected = Expected()
    with path.open("wb") as file:
        file.write(b"email,Dept,Cost Centre,Site,Reports\n")
        for number in range(users):
            kind = rng.choices(("good", "again", "unknown", "broken", "blank"), (950, 20, 15, 10, 5))[0]
            kind = "good" if number == 0 and kind == "again" else kind
            expected.kinds[kind] += 1
            name = f"user{rng.randrange(max(number, 1)) if kind == 'again' else number}@example.com"
            values = {
                "department": rng.choice(_DEPARTMENTS),
                "costCenter": f"{rng.randrange(1000):05}",
                "location": rng.choice(("Sydney", "Wien", "")),
                "headcount": rng.choice(("", str(rng.randrange(40)))),
            }
            if kind == "broken":
                file.write(_broken(rng, name))
                continue
            if kind == "unknown":
                name = f"{_UNKNOWN}{number}@example.com"
            elif kind == "blank":
                values = dict.fromkeys(values, "")
            elif kind == "good" or name in expected.users:
                sent = {key: int(text) if key == "headcount" else text for key, text in values.items() if text}
                expected.users.setdefault(name, {}).update(sent)
            else:  # whom it names was unknown or broken: then the row makes them a user
                expected.users[name] = {key: int(t) if key == "headcount" else t for key, t in values.items() if t}
            file.write(_csv_row([name, *values.values()]))
    return expected


def _csv_row(cells: list[str]) -> bytes:
    quoted = ('"' + cell.replace('"', '""') + '"' if set(cell) & set('",') else cell for cell in cells)
    return ",".join(quoted).encode() + b"\n"


def _broken(rng: random.Random, name: str) -> bytes:
    row = name.encode()
    return rng.choice(
        (
            row + b",Sales,00001\n",  # too few fields
            row + b",Sales,00001,Wien,3,extra\n",
            row + b",S\xe3les,00001,Wien,3\n",  # Latin-1 in a UTF-8 file
            b",Sales,00001,Wien,3\n",  # nobody
            row + b",Sales,00001,Wien,three\n",  # not a number
            row + b',"Sales,00001,Wien,3\n',  # a quote never closed
        )
    )


def _make_folder(folder: Path) -> None:
    marker = folder / ".loader-demo"
    if os.path.exists(folder) and not marker.exists():
        raise Refused(f"{folder} exists and was not made by the demo; name another with --folder")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        marker.touch()
    except OSError as error:
        raise Refused(f"--folder {folder}: can't make it: {error.strerror}; name another") from error


@contextmanager
def _sandbox(folder: Path, seed: int) -> Iterator[tuple[str, dict[str, str]]]:
    """The sandbox as a process of its own; its address, and an environment with its credentials."""
    faults = [part for kind, rate in _FAULTS.items() for part in ("--fault", f"{kind}={rate}")]
    command = [*_LOADER, "sandbox", "--port", "0", "--token-lifetime", "3", "--unknown", _UNKNOWN]
    command += ["--latency", "0.01", "--jitter", "0.02", "--seed", str(seed), *faults]
    command += ["--retry-after", "decimal", "--retry-after-seconds", "0.2"]
    with (folder / "sandbox.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(3)]
            if not lines[0].startswith("http"):
                raise Stopped(f"the sandbox did not start; see {folder / 'sandbox.log'}")
            credentials = dict(line.split("=", 1) for line in lines[1:])
            yield lines[0], os.environ | credentials
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _run_and_kill(command: list[str], environment: dict[str, str], checkpoint: Path, at: int) -> None:
    """Start a run, and kill it as soon as `at` rows are settled. It can't defend itself, nor clean up."""
    process = subprocess.Popen(command, env=environment)
    try:
        while process.poll() is None and _settled(checkpoint) < at:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()


def _settled(checkpoint: Path) -> int:
    """Rows with an outcome, as anyone can ask."""
    if not checkpoint.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{checkpoint}?mode=ro", uri=True) as db:
            count = "SELECT (SELECT coalesce(sum(count), 0) FROM batch) + (SELECT count(*) FROM outcome)"
            return int(db.execute(count).fetchone()[0])
    except sqlite3.Error:
        return 0  # not there yet


def _compare(console: Console, url: str, checkpoint: Path, expected: Expected) -> bool:
    """Ledger against export, and every row's outcome against what was put there."""
    held: dict[str, dict[str, object]] = {}
    writes = 0
    assert urlsplit(url).hostname == "127.0.0.1"
    with urllib.request.urlopen(f"{url}/_sandbox/users") as answer:  # loopback, just checked
        for line in answer:
            user = json.loads(line)
            held[user["userName"]] = user["attributes"]
            writes += user["writes"]
    results = subprocess.run(
        [*_LOADER, "results", str(checkpoint)], stdout=subprocess.PIPE, check=True, text=True, encoding="utf-8"
    ).stdout
    codes = Counter(row["code"] for row in csv.DictReader(results.splitlines()))
    differ = sum(held.get(user) != values for user, values in expected.users.items())
    checks = {
        "rows in the export = rows with an outcome": (expected.kinds.total(), codes.total()),
        "broken rows = REJECTED": (expected.kinds["broken"], codes["REJECTED"]),
        "rows without a value = SKIPPED": (expected.kinds["blank"], codes["SKIPPED"]),
        "rows of unknown users = USER_NOT_FOUND": (expected.kinds["unknown"], codes["USER_NOT_FOUND"]),
        "all others = SUCCESS or SUPERSEDED": (
            expected.kinds["good"] + expected.kinds["again"],
            codes["SUCCESS"] + codes["SUPERSEDED"],
        ),
        "users in the export = users the API holds": (len(expected.users), len(held)),
        "users whose values differ": (0, differ),
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 4))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column()
    for name, (wanted, found) in checks.items():
        good = wanted == found
        table.add_row(name, f"{wanted:,}", f"{found:,}", "[green]✓[/]" if good else "[red]✗[/]")
    console.print(table)
    resent = writes - codes["SUCCESS"]
    _tell(console, f"users sent twice: {resent:,}, for lost answers and for the kill")
    _tell(console, f"(which may cost 2 x concurrency x users a request = {_RESENT_BY_A_KILL:,})")
    return all(wanted == found for wanted, found in checks.values())


def _command() -> str:
    """How this command is called from here: the demo's environment need not be the shell's."""
    beside = Path(sys.executable).with_name("loader")
    if shutil.which("loader") == str(beside) or not beside.exists():
        return "loader"
    here = Path.cwd()
    return str(beside.relative_to(here)) if beside.is_relative_to(here) else str(beside)


def _tell(console: Console, text: str) -> None:
    console.print(f"    {text}", markup=False, highlight=False, soft_wrap=True)


def _say(console: Console, number: int, text: str) -> None:
    console.print(f"\n[bold]{number}[/]  [bold]{text}[/]", highlight=False)
