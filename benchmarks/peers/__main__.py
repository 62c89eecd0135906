"""The loader and its peers side by side: the same server, the same export, a core for the client, one for the server.

    python -m benchmarks.peers                  about 20 minutes; --quick: about 5, less to be trusted
    python -m benchmarks.peers --docs           also written to docs/speed.md, with plots (needs the extra `bench`)
    python -m benchmarks.peers --redraw         docs/speed.md again from the figures that are kept

They take turns (A, B, A, B …), and medians are told. Of each: users a second and CPU seconds per million users, without
its start, which a run with one request tells; the start; the peak of its memory; and what a SIGKILL half-way costs.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.generate import kept
from benchmarks.loading import ENVIRONMENT
from benchmarks.machine import Cores, cache, cores
from benchmarks.peers import PEERS, Peer
from benchmarks.process import Program, Used
from benchmarks.server import Server, Stats

_MOST_S = 180.0
_POLL_S = 0.02
#: A program that never ends by itself, and sends nothing for so long, won't send the rest either.
_SILENT_S = 15.0

_Row = dict[str, Any]


class Failed(Exception):
    """A run that didn't send all: no figure of it counts. The others go on."""


class Bench:
    """Runs peers against one server. `most`: users that any is given."""

    def __init__(self, server: Server, at: Cores, scratch: Path, seconds: float, most: int) -> None:
        self._server = server
        self._at = at
        self._scratch = scratch
        self._seconds = seconds
        self._most = most

    def run(self, peer: Peer, size: int, delay_s: float, users: int | None = None) -> _Row:
        """One run of one peer, `size` users a request."""
        asked = users or self._users(peer, size, delay_s)
        folder = self._folder()
        clock = self._server.reset(asked, delay_s)
        program = self._start(peer, folder, asked, size, delay_s)
        used, stats = self._finish(peer, program, asked)
        seconds = used.seconds if peer.ends else stats.last_ns / 1e9 - program.started
        self._check(peer, program, used, stats, asked)
        return {
            "peer": peer.name,
            "size": size,
            "delay_ms": round(delay_s * 1000),
            "at_once": peer.at_once(delay_s),
            "users": stats.users if peer.is_ceiling else asked,
            "seconds": (stats.last_ns - stats.first_ns) / 1e9 if peer.is_ceiling else seconds,
            "cpu_s": used.cpu_s,
            "peak_mib": used.peak_mib,
            "in_flight": stats.most_waiting if delay_s else None,
            "server_idle": clock.idle(),
            "server_cpu_s": stats.cpu_us / 1e6,
        }

    def killed(self, peer: Peer, size: int, delay_s: float) -> _Row:
        """What a SIGKILL half-way costs, with the same command run again."""
        asked = self._users(peer, size, delay_s)
        folder = self._folder()
        self._server.reset(asked, delay_s)
        program = self._start(peer, folder, asked, size, delay_s)
        while not program.is_over and self._server.stats().users < asked // 2:
            time.sleep(_POLL_S / 4)
        is_late = program.is_over  # it had ended: this tells nothing
        program.kill()
        program.wait(_MOST_S)
        before = self._server.stats().users
        program = self._start(peer, folder, asked, size, delay_s)
        used, stats = self._finish(peer, program, asked)
        return {
            "peer": peer.name,
            "users": asked,
            "killed_at": before,
            "lost": None if is_late else asked - stats.distinct,
            "again": None if is_late else stats.users - stats.distinct,
            "status": used.status if peer.ends else None,
            "after_kill": peer.after_kill,
        }

    def _users(self, peer: Peer, size: int, delay_s: float) -> int:
        """Runs with slow answers take longer, as it takes some time to find out how many requests may go at once."""
        return peer.users(size, delay_s, self._seconds * (2 if delay_s > 0.01 else 1), self._most)

    def _folder(self) -> Path:
        """A fresh one for a run, in place of the last."""
        folder = self._scratch / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _start(self, peer: Peer, folder: Path, users: int, size: int, delay_s: float) -> Program:
        export = kept(cache(), users if not peer.is_ceiling else self._most, peer.form)
        command = peer.command(folder, export, self._server.url, size, peer.at_once(delay_s), self._seconds)
        return Program(command, folder, self._at.client, ENVIRONMENT)

    def _finish(self, peer: Peer, program: Program, users: int) -> tuple[Used, Stats]:
        """Until it ends; or until it has sent all, where it would not end."""
        moved, last = time.monotonic(), -1
        while not peer.ends and not program.is_over:
            stats = self._server.stats()
            if stats.users != last:
                moved, last = time.monotonic(), stats.users
            if stats.distinct >= users or time.monotonic() - moved > _SILENT_S:
                program.end()
                break
            time.sleep(_POLL_S)
        return program.wait(_MOST_S), self._server.stats()

    def _check(self, peer: Peer, program: Program, used: Used, stats: Stats, users: int) -> None:
        """A figure of a run that failed is none."""
        is_whole = peer.is_ceiling or stats.distinct == stats.users == users
        if (peer.ends and used.status) or stats.strange or not is_whole:
            said = program.log.read_text(errors="replace")[-2000:]
            print(f"{peer.name}: {said}", file=sys.stderr)
            raise Failed(f"{peer.name} ended with {used.status} and {stats.distinct:,} of {users:,} users")


def start(bench: Bench, peer: Peer, size: int, turns: int) -> dict[str, float]:
    """What a run with one request takes."""
    runs = [bench.run(peer, size, 0.0, users=size) for _ in range(turns)]
    return {figure: statistics.median(run[figure] for run in runs) for figure in ("users", "seconds", "cpu_s")}


def rounds(bench: Bench, peers: Sequence[Peer], options: argparse.Namespace, failures: list[str]) -> Iterator[_Row]:
    """All runs, turn by turn. Those that fail join `failures`."""
    for size in options.sizes:
        for delay_ms in options.delays:
            many = options.repeat if delay_ms == 0 else max(options.repeat // 2, 1)
            for turn in range(many):
                for peer in peers:
                    try:
                        row = bench.run(peer, size, delay_ms / 1000)
                    except Failed as error:
                        failures.append(f"{error} ({size} a request, {delay_ms} ms)")
                        continue
                    yield {**row, "turn": turn}
                    told = f"{row['users'] / row['seconds']:>11,.0f} users/s  {peer.name}"
                    print(f"{size:>4} users  {delay_ms:>3} ms  {turn + 1}/{many} {told}", file=sys.stderr)


def summary(runs: Sequence[Mapping[str, Any]], starts: Mapping[str, Mapping[str, float]]) -> list[_Row]:
    """A row for each peer, size and delay: medians, with the start taken off."""
    groups: dict[tuple[str, int, int], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["peer"], run["size"], run["delay_ms"]), []).append(run)
    rows: list[_Row] = []
    for (name, size, delay_ms), found in groups.items():
        start = starts.get(name, {"users": 0, "seconds": 0.0, "cpu_s": 0.0})
        rates, cpus = zip(*(_without(start, run) for run in found), strict=True)
        rows.append(
            {
                "peer": name,
                "size": size,
                "delay_ms": delay_ms,
                "at_once": found[0]["at_once"],
                "users": found[0]["users"],
                "runs": len(found),
                "users_per_s": statistics.median(rates),
                "slowest": min(rates),
                "fastest": max(rates),
                "cpu_s_per_million": statistics.median(cpus),
                "whole_users_per_s": statistics.median(run["users"] / run["seconds"] for run in found),
                "start_s": start["seconds"] or None,
                "peak_mib": statistics.median(run["peak_mib"] for run in found),
                "server_idle": _median(run["server_idle"] for run in found),
                "server_busy": statistics.median(run["server_cpu_s"] / run["seconds"] for run in found),
            }
        )
    for row in rows:
        row["times"] = _ratio(runs, starts, row)
    return rows


def _without(start: Mapping[str, float], run: Mapping[str, Any]) -> tuple[float, float]:
    """Users a second and CPU seconds a million users, behind the start. Never twice what the whole run says."""
    users = run["users"] - start["users"]
    seconds = max(run["seconds"] - start["seconds"], run["seconds"] / 2)
    return users / seconds, max(run["cpu_s"] - start["cpu_s"], 0.0) / users * 1e6


def _ratio(runs: Sequence[Mapping[str, Any]], starts: Mapping[str, Mapping[str, float]], row: _Row) -> float | None:
    """How many times as fast the loader was with the same kind of export: the median of the turns."""
    ours = "loader, NDJSON" if row["peer"].endswith("NDJSON") else "loader"
    turns: dict[int, dict[str, float]] = {}
    for run in runs:
        if (run["size"], run["delay_ms"]) == (row["size"], row["delay_ms"]):
            start = starts.get(run["peer"], {"users": 0, "seconds": 0.0, "cpu_s": 0.0})
            turns.setdefault(run["turn"], {})[run["peer"]] = _without(start, run)[0]
    return _median(turn[ours] / turn[row["peer"]] for turn in turns.values() if ours in turn and row["peer"] in turn)


def _median(values: Iterator[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


# What is told --------------------------------------------------------------------------------------------------------

_SPEED = (
    report.Column("", "peer", None),
    report.Column("users/s", "users_per_s", ",.0f"),
    report.Column("from … to", "range", None),
    report.Column("loader is × as fast", "times", ".2f"),
    report.Column("CPU s / M users", "cpu_s_per_million", ".2f"),
    report.Column("start s", "start_s", ".2f"),
    report.Column("peak MiB", "peak_mib", ".0f"),
    report.Column("users", "users"),
    report.Column("server busy", "server_busy", ".0%"),
    report.Column("its core idle", "server_idle", ".0%"),
)
PLOTS = {"users": "users a second, by delay", "cost": "CPU and memory"}
_KILLED = (
    report.Column("", "peer", None),
    report.Column("users", "users"),
    report.Column("killed at", "killed_at"),
    report.Column("lost", "lost"),
    report.Column("sent again", "again"),
    report.Column("run again, it", "after_kill", None),
)


def page(found: Mapping[str, Any]) -> str:
    """The part of docs/speed.md."""
    plots = [f"![{title}]({report.KEPT.name}/{name}.svg)\n" for name, title in PLOTS.items()]
    parts = [*plots, report.about(found)]
    rows = [{**row, "range": f"{row['slowest']:,.0f} … {row['fastest']:,.0f}"} for row in found["rows"]]
    for size in sorted({row["size"] for row in rows}, reverse=True):
        for delay_ms in sorted({row["delay_ms"] for row in rows if row["size"] == size}):
            here = [row for row in rows if (row["size"], row["delay_ms"]) == (size, delay_ms)]
            at_once = max(row["at_once"] for row in here)
            parts.append(
                f"**{size} users a request, answers after {delay_ms} ms**, up to {at_once} requests at once, "
                f"{max(row['runs'] for row in here)} runs:\n"
            )
            parts.append(report.table(_SPEED, here))
    if found["killed"]:
        parts.append(
            f"**SIGKILL half-way, and run again**, {found['options']['sizes'][0]} users a request, answers after "
            f"{found['options']['kill_delay']} ms:\n"
        )
        parts.append(report.table(_KILLED, found["killed"]))
    if found["failures"]:
        parts.append("Failed: " + "; ".join(found["failures"]) + ".\n")
    if found["left_out"]:
        parts.append("Left out: " + "; ".join(f"{name} ({why})" for name, why in found["left_out"].items()) + ".\n")
    return "\n".join(parts)


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="+", metavar="NAME", help=", ".join(peer.name for peer in PEERS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[500, 100], help="users a request")
    parser.add_argument("--delays", nargs="+", type=int, default=[0, 5, 50, 250], help="ms before an answer")
    parser.add_argument("--repeat", type=int, default=5, help="turns without delay; half as many with one")
    parser.add_argument("--seconds", type=float, default=2.5, help="that a run is to take, about")
    parser.add_argument("--most", type=int, default=1_000_000, help="users a run, at most")
    parser.add_argument("--kill-delay", type=int, default=50, help="ms before an answer, for the runs that are killed")
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one turn, 500 users a request, shorter runs")
    parser.add_argument("--docs", action="store_true", help="write docs/speed.md, its plots and figures")
    parser.add_argument("--redraw", action="store_true", help="the same from figures that are kept")
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes, options.repeat, options.seconds = [500], 1, min(options.seconds, 1.2)
        options.most = min(options.most, 500_000)
    return options


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for."""
    wanted = [peer for peer in PEERS if options.peers is None or peer.name in options.peers]
    left_out = {peer.name: why for peer in wanted if (why := peer.missing())}
    peers = [peer for peer in wanted if peer.name not in left_out]
    at = cores()
    if at.server is not None:
        os.sched_setaffinity(0, {at.server})  # this program, too, keeps off the client's core
    with tempfile.TemporaryDirectory(dir=cache()) as name, Server(at.server) as server:
        bench = Bench(server, at, Path(name), options.seconds, options.most)
        size = options.sizes[0]
        starts, failures = {}, list[str]()
        for peer in peers:
            try:
                if not peer.is_ceiling:
                    starts[peer.name] = start(bench, peer, size, min(options.repeat, 3))
            except Failed as error:
                left_out[peer.name] = str(error)
        peers = [peer for peer in peers if peer.name not in left_out]
        runs = list(rounds(bench, peers, options, failures))
        killed = []
        for peer in peers:
            if not options.no_kill and not peer.is_ceiling:
                killed.append(bench.killed(peer, size, options.kill_delay / 1000))
                print(f"killed: {killed[-1]}", file=sys.stderr)
    found = {
        "options": vars(options),
        "peers": {peer.name: peer.about for peer in peers},
        "left_out": left_out,
        "failures": failures,
        "starts": starts,
        "runs": runs,
        "rows": summary(runs, starts),
        "killed": killed,
    }
    return report.whole(found, {name: number for peer in peers for name, number in [peer.version()] if name})


def main() -> None:
    """Run what was asked for, and tell."""
    options = options_of()
    found = report.kept("peers") if options.redraw else measured(options)
    docs = options.docs or options.redraw
    report.finish("peers", found, page, docs=docs)
    if docs:
        from benchmarks.plots import of_peers  # not before the runs: it is large, and is needed only here

        of_peers(found, report.KEPT)


if __name__ == "__main__":
    main()
