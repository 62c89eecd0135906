"""Each stage of a load alone, in one process: CPU nanoseconds a user, and its share of a whole load's.

    python -m benchmarks.stages --users 200000
    python -m benchmarks.stages --docs        also written to docs/speed.md

The stages are the loader's own modules, put together as loader/load.py does; the answers are those of the counting
server. What a whole load takes beyond their sum is the rest: the event loop, and what is handed from thread to thread.
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import anyio

from benchmarks import report
from benchmarks.generate import kept
from benchmarks.loading import CHECKPOINT, ENVIRONMENT, command
from benchmarks.machine import cache, cores
from benchmarks.process import Program
from benchmarks.server import Server
from loader.batch import Batch, Batcher
from loader.ceiling import RequestSize
from loader.checkpoint import Checkpoint, Entry
from loader.client import Credentials, Tempo, layers, pace
from loader.lane import Lane
from loader.meter import Meter
from loader.outcome import Outcome
from loader.progress import Tally
from loader.record import Rows
from loader.request import Request, Response
from loader.settings import Settings, load_settings
from loader.settle import Settler
from loader.tempo.quota import Quota, pace_of
from loader.transport import Transport

_AT_ONCE = 16
#: Batches in a commit, about, when the loader runs as fast as it can.
_GROUP = 8
#: A layer takes microseconds a request: it is passed so often.
_ROUNDS = 10
#: A quota that is kept count of, and never reached.
_QUOTA = Quota(1_000_000_000, 1)

#: What takes each of these shares of a whole load's CPU, at most.
BOUNDS = {"checkpoint": 0.12, "batch, and the order of each user": 0.08, "limiter": 0.01, "progress": 0.01}
#: Stages that others hold: not to be added up.
_PARTS = ("limiter",)

_Timings = dict[str, float]


class _Clock:
    """CPU nanoseconds, by stage."""

    def __init__(self) -> None:
        self.took: _Timings = {}

    def time(self, stage: str, work: Callable[[], Any]) -> Any:
        gc.freeze()  # what is held here by now, a load doesn't hold
        begun = time.process_time_ns()
        result = work()
        self.took[stage] = self.took.get(stage, 0) + time.process_time_ns() - begun
        return result


def once(settings: Settings, folder: Path) -> _Timings:
    """Each stage once, over the whole export: CPU nanoseconds in all."""
    clock = _Clock()
    target = settings.build_target()
    batches = _batches(settings, clock)
    gc.collect()
    requests: list[Request] = clock.time("encode", lambda: [target.encode(batch)[0] for batch in batches])
    responses: list[Response] = _run(clock, "HTTP", lambda: _send(settings, requests))
    answered = list(zip(batches, responses, strict=True))
    clock.time("decode and compare", lambda: [target.read(batch, [response]) for batch, response in answered])
    outcomes: list[list[Outcome]] = _run(clock, "settle", lambda: _settle(settings, batches, responses))
    clock.took["settle"] -= clock.took["encode"] + clock.took["decode and compare"]
    _run(clock, "no layers", lambda: _through(requests, responses, lambda wire: wire))
    _run(clock, "layers of the client", lambda: _through(requests, responses, partial(_layered, settings)))
    _run(clock, "limiter", lambda: _through(requests, responses, partial(_paced, settings)))
    bare = clock.took.pop("no layers")
    for stage in ("layers of the client", "limiter"):
        clock.took[stage] = (clock.took[stage] - bare) / _ROUNDS
    entries = [Entry(batch, found) for batch, found in zip(batches, outcomes, strict=True)]
    with Checkpoint.open(folder / "stages.ckpt", create=True) as checkpoint:
        clock.time("checkpoint", lambda: _commit(checkpoint, entries))
    clock.time("progress", lambda: _count(entries))
    gc.unfreeze()
    return clock.took


def _batches(settings: Settings, clock: _Clock) -> list[Batch]:
    """Each block is read and cut before the next, and a window of batches is in flight, as in a load."""
    batcher = Batcher(settings.build_target().frame, settings.batch_limits)
    blocks = settings.source.rows(settings.row_mapping())
    batches: list[Batch] = []
    rows: Rows | None

    def cut() -> None:
        if rows is not None:
            batcher.feed(rows)
        while (batch := batcher.next(final=rows is None)) is not None:
            batches.append(batch)
            if len(batches) > 2 * _AT_ONCE:
                batcher.release(batches[-2 * _AT_ONCE - 1])

    while (rows := clock.time("read and map", lambda: next(blocks, None))) is not None:
        clock.time("batch, and the order of each user", cut)
    clock.time("batch, and the order of each user", cut)
    return batches


def _run(clock: _Clock, stage: str, work: Callable[[], Any]) -> Any:
    """A stage that needs an event loop, whose own start is not measured."""

    async def measured() -> Any:
        gc.freeze()
        begun = time.process_time_ns()
        result = await work()
        clock.took[stage] = time.process_time_ns() - begun
        return result

    return anyio.run(measured, backend_options={"use_uvloop": True})


async def _send(settings: Settings, requests: Sequence[Request]) -> list[Response]:
    """All of them on the wire, so many at once."""
    responses: dict[int, Response] = {}
    waiting = iter(enumerate(requests))

    async def send_each(wire: Transport) -> None:
        for number, request in waiting:
            responses[number] = await wire(request)

    async with Transport(settings.base_url, _AT_ONCE, 60.0) as wire, anyio.create_task_group() as tasks:
        for _ in range(_AT_ONCE):
            tasks.start_soon(send_each, wire)
    return [responses[number] for number in range(len(requests))]


async def _settle(
    settings: Settings, batches: Sequence[Batch], responses: Sequence[Response]
) -> list[Sequence[Outcome]]:
    """Batches with ready answers, one after the other."""
    ready = iter(responses)

    async def wire(_request: Request) -> Response:
        return next(ready)

    size = RequestSize(settings.batch_limits)
    settler = Settler(settings.build_target(), wire, _lane(), size, 8, print)
    return [await settler.settle(batch) for batch in batches]


async def _through(
    requests: Sequence[Request], responses: Sequence[Response], wrap: Callable[[Any], Callable[[Request], Any]]
) -> None:
    """Requests through layers of the client, so many times, round a wire with ready answers."""
    ready = cycle(responses)

    async def wire(_request: Request) -> Response:
        return next(ready)

    send = wrap(wire)
    for _ in range(_ROUNDS):
        for request in requests:
            await send(request)


def _layered(settings: Settings, wire: Any) -> Any:
    lane, tempo = _lane(), Tempo([pace_of(_QUOTA, 1)])
    target = settings.build_target()
    credentials = Credentials(target.scheme, settings.secrets, wire, lane, tempo)
    return layers(wire, lane, tempo, credentials, target.refuses_token)


def _paced(_settings: Settings, wire: Any) -> Any:
    return pace(wire, _lane(), Tempo([pace_of(_QUOTA, 1)]))


def _lane() -> Lane:
    """As a load has it."""
    return Lane(600.0, time.monotonic)


def _commit(checkpoint: Checkpoint, entries: Sequence[Entry]) -> None:
    """All of them, in groups."""
    for at in range(0, len(entries), _GROUP):
        checkpoint.commit(entries[at : at + _GROUP])


def _count(entries: Sequence[Entry]) -> None:
    """What a load does at each commit, and four times a second: here with each group."""
    tally, tempo = Tally(), Tempo()
    meter = Meter(tally, 1, lambda: 0, Lane(600.0, time.monotonic), tempo.traffic, tempo.found)
    for number, entry in enumerate(entries):
        if entry.batch is not None:
            tally.add(entry.outcomes, entry.batch.numbers, entry.batch.users)
        tally.reason_to_stop("5%")
        if number % _GROUP == 0:
            meter.sample()
            meter.note()


def whole(folder: Path, server: Server, core: int | None, users: int, size: int) -> float:
    """CPU nanoseconds a user of a load by the program, without its start."""
    took = []
    for count in (size, users):
        server.reset(count)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        run = command(folder, kept(cache(), count), server.url, size, _AT_ONCE)
        used = Program(run, folder, core, ENVIRONMENT).wait(180)
        if used.status:
            raise SystemExit(f"the load ended with {used.status}: {(folder / 'log').read_text()[-1000:]}")
        took.append(used.cpu_s)
    return (took[1] - took[0]) / (users - size) * 1e9


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Medians of each stage and of the whole, for each number of users a request."""
    at = cores()
    os.environ |= ENVIRONMENT
    rows = []
    with tempfile.TemporaryDirectory(dir=cache()) as name, Server(at.server) as server:
        folder = Path(name)
        if at.client is not None:
            os.sched_setaffinity(0, {at.client})
        for size in options.sizes:
            server.reset(options.users)
            command(folder, kept(cache(), options.users), server.url, size, _AT_ONCE)
            settings = load_settings(folder / "load.toml")
            runs = []
            wholes = []
            for _ in range(options.repeat):
                wholes.append(whole(folder, server, at.client, options.users, size))
                for old in folder.glob("stages.ckpt*"):
                    old.unlink()
                server.reset(options.users)
                runs.append(once(settings, folder))
            rows += _rows(size, options.users, runs, statistics.median(wholes))
    return report.whole({"options": vars(options), "rows": rows})


def _rows(size: int, users: int, runs: Sequence[_Timings], all_of_it: float) -> list[dict[str, Any]]:
    stages = {stage: statistics.median(run[stage] for run in runs) / users for stage in runs[0]}
    rest = all_of_it - sum(took for stage, took in stages.items() if stage not in _PARTS)
    figures = {**stages, "the rest": rest, "a whole load": all_of_it}
    return [
        {"size": size, "stage": stage, "ns_per_user": took, "share": took / all_of_it, "bound": BOUNDS.get(stage)}
        for stage, took in figures.items()
    ]


_COLUMNS = (
    report.Column("stage", "stage", None),
    report.Column("ns a user", "ns_per_user", ",.0f"),
    report.Column("share", "share", ".1%"),
    report.Column("at most", "bound", ".0%"),
)


def page(found: Mapping[str, Any]) -> str:
    """The part of docs/speed.md."""
    parts = [report.about(found)]
    for size in sorted({row["size"] for row in found["rows"]}, reverse=True):
        parts.append(f"**{size} users a request:**\n")
        parts.append(report.table(_COLUMNS, [row for row in found["rows"] if row["size"] == size]))
    return "\n".join(parts)


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--sizes", nargs="+", type=int, default=[500, 100], help="users a request")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--docs", action="store_true", help="write docs/speed.md")
    options = parser.parse_args()
    report.finish("stages", measured(options), page, docs=options.docs)


if __name__ == "__main__":
    main()
