"""Whole loads, as programs, into the counting server; the loader has one core, the server the other.

    python -m benchmarks.load size --users 1000000 10000000 50000000   time and memory in proportion
    python -m benchmarks.load form                                     CSV, NDJSON, Parquet; 500 and 100 users a request
    python -m benchmarks.load alone                                    one user a request, against a bare loop
    python -m benchmarks.load split                                    one process or two, on two cores
    python -m benchmarks.load --docs                                   all of it, also written to docs/speed.md

What is compared takes turns (A, B, A, B …); medians are told. Exports and environments are kept between runs, in the
user's cache.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.generate import kept
from benchmarks.loading import CHECKPOINT, ENVIRONMENT, command
from benchmarks.machine import Cores, cache, cores
from benchmarks.peers import FOLDER as PEERS
from benchmarks.peers import interpreter
from benchmarks.process import Program
from benchmarks.server import Server

_AT_ONCE = 16
_MOST_S = 900.0
_FORMS = {
    "csv": "CSV, mapped",
    "ndjson": "NDJSON, records as they are sent",
    "flat.ndjson": "NDJSON, mapped",
    "parquet": "Parquet",
}
_ALONE = {"dx": "DX", "scim": "SCIM without bulk requests, by id"}

_Row = dict[str, Any]


class Loads:
    """Runs loads, each in a folder of its own."""

    def __init__(self, server: Server, at: Cores, scratch: Path) -> None:
        self._server = server
        self._at = at
        self._both = [] if at.client is None else ["taskset", "-c", f"{at.client},{at.server}"]
        self._scratch = scratch

    def run(self, users: int, *, form: str = "csv", size: int = 500, api: str = "calven") -> _Row:
        """One load of so many users, `size` a request."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as name:
            folder = Path(name)
            export = kept(cache(), users, form)
            clock = self._server.reset(users)
            load = command(folder, export, self._server.url, size, _AT_ONCE, api)
            program = Program(load, folder, self._at.client, ENVIRONMENT)
            used, stats = program.wait(_MOST_S), self._server.stats()
            if used.status or not stats.distinct == stats.users == users:
                raise SystemExit(f"a load ended with {used.status}: {stats}\n{program.log.read_text()[-2000:]}")
            return {
                "seconds": used.seconds,
                "cpu_s": used.cpu_s,
                "peak_mib": used.peak_mib,
                "first_request_s": stats.first_ns / 1e9 - program.started,
                "checkpoint_bytes": (folder / CHECKPOINT).stat().st_size,
                "server_idle": clock.idle(),
            }

    def split(self, users: int, processes: int) -> _Row:
        """So many loads at the same time, of as many users each, on all cores: the server's as well."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as name:
            self._server.reset(users)
            programs = []
            for number in range(processes):
                folder = Path(name) / str(number)
                folder.mkdir()
                load = command(folder, kept(cache(), users), self._server.url, 500, _AT_ONCE)
                programs.append(Program([*self._both, *load], folder, None, ENVIRONMENT))
            used = [program.wait(_MOST_S) for program in programs]
            if any(each.status for each in used) or self._server.stats().users != users * processes:
                raise SystemExit(f"loads ended with {[each.status for each in used]}")
            return {
                "seconds": max(each.seconds for each in used),
                "cpu_s": sum(each.cpu_s for each in used),
                "peak_mib": sum(each.peak_mib for each in used),
            }

    def bare(self, users: int, api: str) -> _Row:
        """The same users by a bare loop, which tells itself how long it took to send them."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as name:
            self._server.reset(users)
            export = kept(cache(), users)
            loop = [interpreter("by_hand"), str(PEERS / "bare.py"), str(export), self._server.url, api, str(_AT_ONCE)]
            program = Program(loop, Path(name), self._at.client)
            used, stats = program.wait(_MOST_S), self._server.stats()
            said = program.log.read_text()
            if used.status or not stats.distinct == stats.users == users:
                raise SystemExit(f"the bare loop ended with {used.status}: {stats}\n{said[-2000:]}")
            found: _Row = json.loads(said)
            return found


def sizes(loads: Loads, options: argparse.Namespace) -> list[_Row]:
    """Loads of growing exports: time in proportion, the same memory. Large ones run once."""
    rows = []
    for users in options.users:
        many = options.repeat if users <= 2_000_000 else 1
        found = _medians([loads.run(users) for _ in range(many)])
        keys = sum(len(f"user{number}@example.com") for number in range(0, users, max(users // 1000, 1)))
        rows.append(
            {
                "users": users,
                "runs": many,
                **found,
                "users_per_s": users / found["seconds"],
                "us_per_user": found["seconds"] / users * 1e6,
                "checkpoint_bytes_per_user": found["checkpoint_bytes"] / users,
                "key_bytes": keys / len(range(0, users, max(users // 1000, 1))),
            }
        )
        if users > 2_000_000:
            kept(cache(), users).unlink()
    return rows


def forms(loads: Loads, options: argparse.Namespace) -> list[_Row]:
    """The same users from exports of each form, with the start taken off."""
    rows = []
    for size in options.sizes:
        starts = {form: _medians([loads.run(size, form=form, size=size) for _ in range(3)]) for form in _FORMS}
        work = {form: _partial(loads.run, options.form_users, form=form, size=size) for form in _FORMS}
        for form, runs in _in_turns(work, options.repeat).items():
            rates = [_rate(options.form_users, run, size, starts[form]) for run in runs]
            found = _medians(runs)
            rows.append(
                {
                    "form": _FORMS[form],
                    "size": size,
                    "users": options.form_users,
                    "runs": len(runs),
                    **found,
                    "start_s": starts[form]["seconds"],
                    "users_per_s": statistics.median(rates),
                    "range": f"{min(rates):,.0f} … {max(rates):,.0f}",
                    "cpu_s_per_million": (found["cpu_s"] - starts[form]["cpu_s"]) / (options.form_users - size) * 1e6,
                }
            )
    return rows


def split(loads: Loads, options: argparse.Namespace) -> list[_Row]:
    """One process that has two cores, and two that share them: what splitting a load would bring at the very most.

    Two loads know nothing of each other: one that is split would have to hand rows and outcomes round, too.
    """
    starts = {count: _medians([loads.split(500, count) for _ in range(3)]) for count in (1, 2)}
    work = {str(count): _partial(loads.split, options.form_users, count) for count in (1, 2)}
    rows = []
    for name, runs in _in_turns(work, options.repeat).items():
        count = int(name)
        rates = [count * _rate(options.form_users, run, 500, starts[count]) for run in runs]
        rows.append(
            {
                "processes": count,
                "runs": len(runs),
                **_medians(runs),
                "users_per_s": statistics.median(rates),
                "range": f"{min(rates):,.0f} … {max(rates):,.0f}",
            }
        )
    for row in rows:
        row["of_one"] = row["users_per_s"] / rows[0]["users_per_s"]
    return rows


def alone(loads: Loads, options: argparse.Namespace) -> list[_Row]:
    """APIs that take one user a request, in turns with a bare aiohttp loop that sends the same requests."""
    rows = []
    for api, name in _ALONE.items():
        start = _medians([loads.run(1, size=1, api=api) for _ in range(3)])
        work = {
            "loader": _partial(loads.run, options.alone_users, size=1, api=api),
            "bare": _partial(loads.bare, options.alone_users, api),
        }
        runs = _in_turns(work, options.repeat)
        ours = [_rate(options.alone_users, run, 1, start) for run in runs["loader"]]
        bare = [options.alone_users / run["seconds"] for run in runs["bare"]]
        rows.append(
            {
                "api": name,
                "users": options.alone_users,
                "runs": len(ours),
                "users_per_s": statistics.median(ours),
                "bare_users_per_s": statistics.median(bare),
                "of_bare": statistics.median(mine / its for mine, its in zip(ours, bare, strict=True)),
                "peak_mib": _medians(runs["loader"])["peak_mib"],
            }
        )
    return rows


def _partial(work: Callable[..., _Row], *arguments: Any, **more: Any) -> Callable[[], _Row]:
    return lambda: work(*arguments, **more)


def _in_turns(work: Mapping[str, Callable[[], _Row]], turns: int) -> dict[str, list[_Row]]:
    runs: dict[str, list[_Row]] = {name: [] for name in work}
    for _ in range(turns):
        for name, each in work.items():
            runs[name].append(each())
            print(f"{name}: {runs[name][-1]['seconds']:.2f} s", file=sys.stderr)
    return runs


def _medians(runs: Sequence[_Row]) -> _Row:
    figures: Iterator[str] = (name for name in runs[0] if all(run[name] is not None for run in runs))
    return {name: statistics.median(run[name] for run in runs) for name in figures}


def _rate(users: int, run: _Row, first: int, start: _Row) -> float:
    """Users a second without the start, which a load of `first` users tells."""
    return float((users - first) / max(run["seconds"] - start["seconds"], run["seconds"] / 10))


# What is told --------------------------------------------------------------------------------------------------------

_SIZE = (
    report.Column("users", "users"),
    report.Column("s", "seconds", ",.1f"),
    report.Column("users/s", "users_per_s", ",.0f"),
    report.Column("µs a user", "us_per_user", ".2f"),
    report.Column("CPU s", "cpu_s", ",.1f"),
    report.Column("peak MiB", "peak_mib", ".0f"),
    report.Column("first request s", "first_request_s", ".2f"),
    report.Column("checkpoint B a user", "checkpoint_bytes_per_user", ".1f"),
    report.Column("a key has", "key_bytes", ".1f"),
    report.Column("runs", "runs"),
)
_FORM = (
    report.Column("export", "form", None),
    report.Column("a request", "size"),
    report.Column("users/s", "users_per_s", ",.0f"),
    report.Column("from … to", "range", None),
    report.Column("CPU s / M users", "cpu_s_per_million", ".2f"),
    report.Column("start s", "start_s", ".2f"),
    report.Column("peak MiB", "peak_mib", ".0f"),
    report.Column("server's core idle", "server_idle", ".0%"),
)
_ONE = (
    report.Column("API", "api", None),
    report.Column("users/s", "users_per_s", ",.0f"),
    report.Column("bare loop", "bare_users_per_s", ",.0f"),
    report.Column("of the bare loop", "of_bare", ".2f"),
    report.Column("peak MiB", "peak_mib", ".0f"),
)
_SPLIT = (
    report.Column("processes", "processes"),
    report.Column("users/s", "users_per_s", ",.0f"),
    report.Column("from … to", "range", None),
    report.Column("of one process", "of_one", ".2f"),
    report.Column("peak MiB", "peak_mib", ".0f"),
)
_PARTS: dict[str, tuple[str, Callable[[Loads, argparse.Namespace], list[_Row]], tuple[report.Column, ...]]] = {
    "size": ("Exports of growing size (CSV, 500 users a request, the start included)", sizes, _SIZE),
    "form": ("Forms of the export (without the start)", forms, _FORM),
    "split": ("On two cores, which the server shares: one load, and two at the same time", split, _SPLIT),
    "alone": ("One user a request (without the start)", alone, _ONE),
}


def page(found: Mapping[str, Any]) -> str:
    """The part of docs/speed.md."""
    parts = [report.about(found)]
    for name, rows in found["parts"].items():
        title, _, columns = _PARTS[name]
        runs = ", ".join(sorted({f"{row['runs']}" for row in rows}))
        parts += [f"**{title}**; {runs} runs each:\n", report.table(columns, rows)]
    return "\n".join(parts)


def main() -> None:
    """Run them, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *_PARTS], metavar="PART", help=", ".join(_PARTS))
    parser.add_argument("--users", nargs="+", type=int, default=[1_000_000, 10_000_000, 50_000_000])
    parser.add_argument("--sizes", nargs="+", type=int, default=[500, 100], help="users a request, for form")
    parser.add_argument("--form-users", type=int, default=1_000_000)
    parser.add_argument("--alone-users", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--docs", action="store_true", help="write docs/speed.md")
    options = parser.parse_args()
    at = cores()
    if at.server is not None:
        os.sched_setaffinity(0, {at.server})  # this program, too, keeps off the client's core
    with tempfile.TemporaryDirectory(dir=cache()) as name, Server(at.server) as server:
        loads = Loads(server, at, Path(name))
        parts = {part: _PARTS[part][1](loads, options) for part in options.parts or _PARTS}
    found = report.whole({"options": vars(options), "parts": parts})
    report.finish("load", found, page, docs=options.docs)


if __name__ == "__main__":
    main()
