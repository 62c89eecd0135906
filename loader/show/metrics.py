"""A run's snapshots as metrics: on a page for Prometheus, in a file for its node exporter, and by OpenTelemetry.

Each is asked for in `[metrics]`. Names and units follow https://prometheus.io/docs/practices/naming/ . No metric holds
a user's key or a secret.
"""

import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anyio
from anyio import to_thread

from loader import __version__
from loader.errors import LoaderError, Refused
from loader.outcome import Code
from loader.settings import MetricsTable
from loader.show.telemetry import About, export, exporter
from loader.snapshot import BOUNDS_S, BRAKES, Snapshot

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

#: The file is written so often: Prometheus asks its node exporter every 15 s, as a rule.
_FILE_EVERY_S = 15.0


class Collector:
    """The newest snapshot, as Prometheus' metrics. Before there is one, only what is known then."""

    def __init__(self, about: About) -> None:
        self._about = about
        self.newest: Snapshot | None = None

    def collect(self) -> "Iterator[Metric]":
        """All metrics: prometheus_client calls it for each scrape."""
        from prometheus_client.metrics_core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
            InfoMetricFamily,
        )

        facts = {"version": __version__, **self._about._asdict()}
        yield InfoMetricFamily("loader_load", "What is loaded, by which version.", facts)
        if (now := self.newest) is None:
            return
        rows = CounterMetricFamily("loader_rows", "Rows settled, over all runs of the load.", labels=["code"])
        for code in Code:
            rows.add_metric([code.value], now.counts.get(code, 0))
        yield rows
        wire = now.wire
        requests = CounterMetricFamily("loader_requests", "Requests of this run.", labels=["result"])
        answered = wire.requests - wire.refused - wire.broken - wire.on_wire
        for result, count in (("answered", answered), ("refused", wire.refused), ("broken", wire.broken)):
            requests.add_metric([result], count)
        yield requests
        total = 0
        buckets = []
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), wire.times, strict=True):
            total += count
            buckets.append((bound, float(total)))
        seconds = HistogramMetricFamily("loader_request_duration_seconds", "Until the whole answer was there.")
        seconds.add_metric([], buckets, wire.seconds)
        yield seconds
        for name, value, words in _gauges(now):
            if value is not None:
                yield GaugeMetricFamily(f"loader_{name}", words, value)
        brake = GaugeMetricFamily("loader_brake", "Why the load is not faster: 1 for what it waits for.", labels=["by"])
        for by in BRAKES:
            brake.add_metric([by], by == now.found.brake)
        yield brake


def _gauges(now: Snapshot) -> "Iterator[tuple[str, float | None, str]]":
    """Name, value (None: not known) and meaning."""
    yield "requests_in_flight", now.wire.on_wire, "Requests on the wire."
    yield "requests_in_flight_limit", now.at_once, "Requests that may be on the wire now."
    yield "export_ratio", now.share, "Share of the export's bytes that are settled."
    yield "time_left_seconds", now.left_s, "Until the load is done, as far as that is known."
    yield "held_seconds", now.held_s, "So long the target is waited for."
    yield "run_duration_seconds", now.elapsed_s, "Since this run began."
    yield "snapshot_timestamp_seconds", now.at, "When these figures were taken, Unix time."
    yield "stopping", float(bool(now.stopping)), "1: the run is about to end, or ended, before the load is done."
    yield "found_requests_per_second", now.found.requests_per_s, "What the target takes before it refuses."


class Prepared(NamedTuple):
    """Where to publish: all that could be refused is there."""

    about: About
    collector: Collector
    registry: "CollectorRegistry"
    at: "Sequence[socket.socket]"
    linger: float
    file: Path | None
    otlp: "MetricExporter | None"


@contextlib.contextmanager
def prepared(table: MetricsTable, folder: Path, about: About) -> Iterator[Prepared]:
    """What `table` asks for, before anything of a load is touched. Paths begin at `folder`.

    Raises Refused if the address can't be used, the file can't be written or a package is missing.
    """
    registry, collector = _registry(), Collector(about)
    registry.register(collector)
    file = None if table.file is None else folder / table.file
    otlp = None if table.otlp is None else exporter(table.otlp)
    with contextlib.ExitStack() as held:
        at: Sequence[socket.socket] = ()
        if table.listen is not None:
            from loader.show.listening import taken

            host, _, port = table.listen.rpartition(":")
            at = held.enter_context(taken(host.strip("[]"), int(port), "metrics.listen"))
        if file is not None:
            _write(file, registry)
        yield Prepared(about, collector, registry, at, table.linger, file, otlp)


@contextlib.asynccontextmanager
async def publishing(ready: Prepared, say: Callable[[str], None]) -> AsyncIterator[Callable[[Snapshot], None]]:
    """Publish each snapshot that is given, until this ends.

    At the end Prometheus is waited for, if that is wanted, so that it sees the last figures.
    """
    collector, registry = ready.collector, ready.registry
    async with contextlib.AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        if ready.otlp is not None:
            end = await to_thread.run_sync(export, ready.otlp, ready.about, lambda: collector.newest, say)
            stack.push_async_callback(_off_the_loop, end)
        if ready.file is not None:
            tasks.start_soon(_keep, ready.file, registry)
            stack.push_async_callback(_write_last, ready.file, registry, say)
        if ready.at:
            asked = await stack.enter_async_context(_served(ready.at, registry, say))
            stack.push_async_callback(_linger, asked, ready.linger)

        def watch(snapshot: Snapshot) -> None:
            collector.newest = snapshot

        yield watch


async def _off_the_loop(work: Callable[[], None]) -> None:
    with anyio.CancelScope(shield=True):
        await to_thread.run_sync(work)


def _registry() -> "CollectorRegistry":
    try:
        from prometheus_client import CollectorRegistry
    except ImportError as error:
        raise Refused("[metrics] needs prometheus-client: pip install 'directory-loader[metrics]'") from error
    return CollectorRegistry(auto_describe=False)


class _Asked:
    """Whether somebody asked since."""

    def __init__(self) -> None:
        self.event = anyio.Event()

    def forget(self) -> None:
        self.event = anyio.Event()


@contextlib.asynccontextmanager
async def _served(
    at: Sequence[socket.socket], registry: "CollectorRegistry", say: Callable[[str], None]
) -> AsyncIterator[_Asked]:
    """The page for Prometheus, at /metrics."""
    from aiohttp import web
    from prometheus_client.exposition import choose_encoder

    from loader.show.listening import listening

    asked = _Asked()

    async def page(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        asked.event.set()
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/metrics", page)
    async with listening(app, at) as address:
        say(f"loader: metrics are at {address}/metrics")
        yield asked


async def _linger(asked: _Asked, seconds: float) -> None:
    """Until the last figures were asked for, but not for ever."""
    asked.forget()
    with anyio.move_on_after(seconds):
        await asked.event.wait()


async def _keep(path: Path, registry: "CollectorRegistry") -> None:
    while True:
        await anyio.sleep(_FILE_EVERY_S)
        with contextlib.suppress(LoaderError):  # told at the end, if it is still so
            await to_thread.run_sync(_write, path, registry)


async def _write_last(path: Path, registry: "CollectorRegistry", say: Callable[[str], None]) -> None:
    with anyio.CancelScope(shield=True):
        try:
            await to_thread.run_sync(_write, path, registry)
        except Refused as error:  # too late to refuse anything
            say(f"loader: {error}")


def _write(path: Path, registry: "CollectorRegistry") -> None:
    """All of it or the old: who reads it never sees half. Its mode is kept, so that the node exporter may read it."""
    from prometheus_client.exposition import generate_latest

    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600
        with os.fdopen(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(generate_latest(registry))
        os.replace(new, path)
    except OSError as error:
        raise Refused(f"metrics.file: can't write {path}: {error.strerror}") from error
