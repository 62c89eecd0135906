"""Where an export comes from: reading and mapping alone, each in a fresh process. Rows/s, CPU time, peak memory.

    python -m benchmarks.sources                 400,000 users from everywhere, in three minutes
    python -m benchmarks.sources --docs          also written to docs/sources.md
    python -m benchmarks.sources --only file https --users 1000000 --latency 0.03

One user a row, five attributes. `https` is a web server of this machine, plain, which takes ranges; each of its answers
comes so many seconds late. `s3` is moto, which scripts/soak installs; PostgreSQL and MariaDB are Debian's.
"""

import argparse
import asyncio
import csv
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pymysql
from aiohttp import web

from benchmarks.formats import exports
from benchmarks.report import ROOT, Column, about, finish, table, whole
from tests.end_to_end import servers, stores

NAMES = (
    "users.csv",
    "users.csv.gz",
    "users.csv.zst",
    "users.ndjson",
    "users.ndjson.gz",
    "users.parquet",
    "users.arrow",
)
_QUERY = "select email, department, costCenter, site, title, headcount from users"
_TABLE = (
    "create table users (email varchar(100) primary key, department text, costCenter text, site text, title text, "
    "headcount int)"
)

#: Prints rows, seconds, CPU seconds and peak MiB.
_READ = """
import json, os, re, sys, time
from pathlib import Path
from loader.mapping import RowMapping
from loader.record import Frame
asked = json.loads(sys.argv[1])
form = asked.get("form")
if "path" in asked:
    from loader.export.address import Access
    from loader.export.files import Files, matching
    access = Access(endpoint=asked["endpoint"] or None)
    export = Files.of(matching(asked["path"], Path.cwd(), access), form)
elif "query" in asked:
    from loader.export.query import Query
    from loader.export.table import Table
    export = Table.of(Query(asked["query"], os.environ["BENCH_DATABASE"], "email", Path.cwd()))
else:
    import polars
    from loader.export.table import of
    frame = polars.read_parquet(asked["frame"])
    export = of(frame if asked["whole"] else frame.iter_rows(named=True))
user = None if form == "ndjson" else "email"
mapping = RowMapping(Frame("userAttributes", "userName", "attributes"), 1_000_000, user)
started, cpu = time.perf_counter(), time.process_time()
rows = sum(len(block.numbers) for block in export.rows(mapping))
took, cpu = time.perf_counter() - started, time.process_time() - cpu
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / (1 << 10)
print(json.dumps([rows, took, cpu, peak]))
"""


class Place(NamedTuple):
    """One row of the table: what is read, and how a run goes on there. `asked`: what the reader is told."""

    source: str
    form: str
    resume: str
    asked: Mapping[str, Any]
    environment: Mapping[str, str] = {}


def _resume(name: str, *, is_remote: bool) -> str:
    if name.endswith((".gz", ".zst")):
        return "reads that file again from its beginning, without parsing"
    if name.endswith("parquet"):
        return "skips whole row groups" + ", which are not asked for" * is_remote
    if name.endswith("arrow"):
        return "reads over the batches before"
    return ("asks for" if is_remote else "reads") + " the bytes from the last mark on"


@contextmanager
def files(folder: Path, forms: Mapping[str, str], _latency_s: float) -> Iterator[list[Place]]:
    """On this machine's disk."""
    yield [
        Place("file", name, _resume(name, is_remote=False), {"path": str(folder / name), "form": form, "endpoint": ""})
        for name, form in forms.items()
    ]


@contextmanager
def https(folder: Path, forms: Mapping[str, str], latency_s: float) -> Iterator[list[Place]]:
    """On a web server."""

    @web.middleware
    async def late(request: web.Request, handler: "web.Handler") -> web.StreamResponse:  # type: ignore[name-defined]
        await asyncio.sleep(latency_s)
        return await handler(request)  # type: ignore[no-any-return]

    loop = asyncio.new_event_loop()
    app = web.Application(middlewares=[late])
    app.router.add_static("/", folder)
    runner = web.AppRunner(app)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield [
            Place("https", name, _resume(name, is_remote=True), {"path": f"{url}/{name}", "form": form, "endpoint": ""})
            for name, form in forms.items()
        ]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


@contextmanager
def s3(folder: Path, forms: Mapping[str, str], _latency_s: float) -> Iterator[list[Place]]:
    """In a bucket."""
    with tempfile.TemporaryDirectory() as logs, stores.s3(Path(logs)) as store:
        for name in forms:
            store.put(name, (folder / name).read_bytes())
        yield [
            Place(
                "s3",
                name,
                _resume(name, is_remote=True),
                {"path": store.url(name), "form": form, "endpoint": store.endpoint},
                store.environment,
            )
            for name, form in forms.items()
        ]


def _asked(source: str, url: str) -> list[Place]:
    resume = "asks for the rows behind the last key"
    return [Place(source, "`[export] query`", resume, {"query": _QUERY}, {"BENCH_DATABASE": url})]


@contextmanager
def postgresql(folder: Path, _forms: Mapping[str, str], _latency_s: float) -> Iterator[list[Place]]:
    """In PostgreSQL."""
    with servers.postgresql() as url:
        psql = [servers.debian("psql", "/usr/lib/postgresql/*/bin"), url, "-qc"]
        for statement in (_TABLE, r"\copy users from 'users.csv' csv header", "vacuum analyze users"):
            subprocess.run([*psql, statement], check=True, cwd=folder)
        yield _asked("PostgreSQL", url)


@contextmanager
def mariadb(folder: Path, _forms: Mapping[str, str], _latency_s: float) -> Iterator[list[Place]]:
    """In MariaDB."""
    with servers.mariadb() as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        who = {"host": "127.0.0.1", "port": port, "user": "loader", "password": "s3c@ret", "database": "users"}
        load = (
            f"load data local infile '{folder / 'users.csv'}' into table users fields terminated by ',' ignore 1 lines"
        )
        with pymysql.connect(**who, local_infile=True, autocommit=True) as connection, connection.cursor() as cursor:
            for statement in ("set global local_infile = 1", _TABLE, load):
                cursor.execute(statement)
        yield _asked("MariaDB", url)


@contextmanager
def sqlite(folder: Path, _forms: Mapping[str, str], _latency_s: float) -> Iterator[list[Place]]:
    """In SQLite."""
    with closing(sqlite3.connect(folder / "users.db")) as db, (folder / "users.csv").open(newline="") as file:
        lines = csv.reader(file)
        next(lines)
        db.execute(_TABLE)
        db.executemany("insert into users values (?, ?, ?, ?, ?, ?)", lines)
        db.commit()
    yield _asked("SQLite", f"sqlite:///{folder / 'users.db'}")


@contextmanager
def in_duckdb(folder: Path, _forms: Mapping[str, str], _latency_s: float) -> Iterator[list[Place]]:
    """In DuckDB, and in a file that it is asked for."""
    with duckdb.connect(str(folder / "users.duckdb")) as db:
        db.execute(f"create table users as from '{folder / 'users.csv'}'")
    yield _asked("DuckDB", f"duckdb:///{folder / 'users.duckdb'}")


@contextmanager
def memory(folder: Path, _forms: Mapping[str, str], _latency_s: float) -> Iterator[list[Place]]:
    """In the memory of who uses the loader as a library."""
    resume = "is given again, compared and skipped"
    frame = str(folder / "users.parquet")
    yield [
        Place("Python", "a DataFrame (polars)", resume, {"frame": frame, "whole": True}),
        Place("Python", "dicts, one by one", resume, {"frame": frame, "whole": False}),
    ]


SOURCES: Mapping[str, Callable[[Path, Mapping[str, str], float], AbstractContextManager[list[Place]]]] = {
    "file": files,
    "https": https,
    "s3": s3,
    "postgresql": postgresql,
    "mariadb": mariadb,
    "sqlite": sqlite,
    "duckdb": in_duckdb,
    "memory": memory,
}


def measured(place: Place, users: int, repeat: int) -> dict[str, Any]:
    """A row of the table. SystemExit if it doesn't get all the users."""
    runs = []
    for _ in range(repeat):
        command = [sys.executable, "-c", _READ, json.dumps(place.asked)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | dict(place.environment))
        rows, *run = json.loads(done.stdout)
        if rows != users:
            raise SystemExit(f"{place.source}, {place.form}: {rows:,} of {users:,} users")
        runs.append(run)
    took, cpu, peak = (statistics.median(each) for each in zip(*runs, strict=True))
    form = place.form if " " in place.form else f"`{place.form}`"
    found = {
        "source": place.source,
        "format": form,
        "resume": place.resume,
        "rows_per_s": users / took,
        "cpu_s": cpu / users * 1e6,
        "peak_mib": peak,
    }
    print(f"{place.source}, {place.form}: {users / took:,.0f} rows/s", file=sys.stderr, flush=True)
    return found


def text(found: Mapping[str, Any]) -> str:
    """The part of the page."""
    columns = [
        Column("source", "source", None),
        Column("format", "format", None),
        Column("a run that goes on", "resume", None),
        Column("rows/s", "rows_per_s", ",.0f"),
        Column("CPU s a million rows", "cpu_s", ".2f"),
        Column("peak MiB", "peak_mib", ".0f"),
    ]
    how = f"{found['users']:,} users, medians of {found['repeat']} runs" if found["repeat"] > 1 else "one run each"
    late = f", each answer of the web server {found['latency_s'] * 1e3:g} ms late"
    return f"{table(columns, found['rows'])}\n{how}{late}. {about(found)}"


def main() -> None:
    """Print the table as Markdown, and write it, if that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=400_000)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--latency", type=float, default=0.03, metavar="S", help="of each answer of the web server")
    parser.add_argument("--only", nargs="+", choices=SOURCES, default=list(SOURCES), metavar="SOURCE")
    parser.add_argument("--docs", action="store_true", help="write docs/sources.md")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        forms = {path.name: form for path, form in exports(folder, options.users, NAMES) if path.name in NAMES}
        for source in options.only:
            with SOURCES[source](folder, forms, options.latency) as places:
                found += map(partial(measured, users=options.users, repeat=options.repeat), places)
    facts = {"users": options.users, "repeat": options.repeat, "latency_s": options.latency, "rows": found}
    finish("sources", whole(facts), text, docs=options.docs, page=ROOT / "docs" / "sources.md")


if __name__ == "__main__":
    main()
