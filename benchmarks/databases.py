"""Rows out of PostgreSQL: as `psql \\copy` writes them to a file, as the loader reads them, and as it loads them.

    python -m benchmarks.databases --users 5000000 --repeat 3

Needs Debian's package `postgresql`, of which it starts a cluster of its own, and adbc-driver-postgresql. The ways take
turns (A, B, C, D, A, B …); medians are told. Nothing is pinned to a core: server and client are busy at once.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.loading import ENVIRONMENT, LOADER
from benchmarks.process import Program, Used
from benchmarks.server import Server
from tests.end_to_end.servers import debian, postgresql

_MOST_S = 900.0
_TABLE = """create table users as
    select 'user' || i || '@example.com' as email, 'Dept ' || (i % 97) as dept, 'CC-' || (i % 1000) as cost_centre,
        'Site ' || (i % 31) as site, 'Title ' || (i % 211) as title, i % 100 as level
    from generate_series(0, {users} - 1) i;
    alter table users add primary key (email); vacuum analyze users"""
_SETTINGS = """
[export]
query = "select email, dept, cost_centre, site, title, level from users"
database = "env:BENCH_DATABASE"
[mapping]
user = "email"
[target]
api = "calven"
base_url = "{url}"
[target.auth]
scheme = "bearer"
token = "env:BENCH_TOKEN"
[limits]
users_per_request = 500
[checkpoint]
path = "load.ckpt"
"""
_READ = """
from pathlib import Path
from loader.settings import load_settings
settings = load_settings(Path("load.toml"))
"""
_BATCHES = f"""{_READ}
from loader.export.query import Query
import os
query = Query(settings.export.query, os.environ["BENCH_DATABASE"], "email", Path())
print(sum(batch.num_rows for batch in query.batches(None)))
"""
_ROWS = f"{_READ}print(sum(len(rows.numbers) for rows in settings.source.rows(settings.row_mapping())))"


def measured(users: int, repeat: int) -> Mapping[str, Sequence[Used]]:
    """Each way so many times. SystemExit if one doesn't get all the users."""
    with postgresql() as url, Server(None) as server, tempfile.TemporaryDirectory() as scratch:
        psql = [debian("psql", "/usr/lib/postgresql/*/bin"), url, "-qc"]
        for statement in _TABLE.format(users=users).split(";"):
            subprocess.run([*psql, statement], check=True)
        copy = r"\copy (select * from users order by email) to 'users.csv' csv header"
        ways = {
            "psql \\copy to a file, in order": [*psql, copy],
            "read as Arrow batches": [sys.executable, "-c", _BATCHES],
            "read and mapped to records": [sys.executable, "-c", _ROWS],
            "loaded": [*LOADER, "run", "load.toml"],
            "loaded from that file": [*LOADER, "run", "load.toml"],
        }
        subprocess.run([*psql, copy], check=True, cwd=scratch)
        found: dict[str, list[Used]] = {name: [] for name in ways}
        for _ in range(repeat):
            for name, command in ways.items():
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    settings = _SETTINGS.format(url=server.url)
                    if name.endswith("file") and name.startswith("loaded"):
                        begin, end = settings.index("query"), settings.index("[mapping]")
                        settings = f'{settings[:begin]}path = "{scratch}/users.csv"\n{settings[end:]}'
                    (Path(folder) / "load.toml").write_text(settings)
                    server.reset(users)
                    known = ENVIRONMENT | {"BENCH_DATABASE": url, "PYTHONPATH": str(Path.cwd())}
                    program = Program(command, Path(folder), None, known)
                    used = program.wait(_MOST_S)
                    said = program.log.read_text()
                    is_whole = server.stats().distinct == users if name.startswith("loaded") else str(users) in said
                    if used.status or not (is_whole or name.startswith("psql")):
                        raise SystemExit(f"{name} ended with {used.status}:\n{said[-2000:]}")
                    found[name].append(used)
                    print(f"{name}: {used.seconds:.1f} s", file=sys.stderr)
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--users", type=int, default=5_000_000)
    arguments.add_argument("--repeat", type=int, default=3)
    options = arguments.parse_args()
    found = measured(options.users, options.repeat)
    base = statistics.median(used.seconds for used in next(iter(found.values())))
    print(f"{options.users:,} rows, {options.repeat} runs each, on {os.cpu_count()} cores\n")
    print("| | s | CPU s of the client | rows/s | of `\\copy` | peak MiB |\n|---|---:|---:|---:|---:|---:|")
    for name, runs in found.items():
        seconds = statistics.median(used.seconds for used in runs)
        cpu = statistics.median(used.cpu_s for used in runs)
        peak = max(used.peak_mib for used in runs)
        rate = options.users / seconds
        print(f"| {name} | {seconds:.1f} | {cpu:.1f} | {rate:,.0f} | {base / seconds:.2f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
