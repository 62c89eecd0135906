"""A run's snapshots by OpenTelemetry (OTLP over HTTP), under names of its conventions."""

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from loader import __version__
from loader.errors import Refused
from loader.snapshot import Snapshot

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics.export import MetricExporter


class About(NamedTuple):
    """What is loaded, as it stands beside the figures."""

    api: str
    host: str
    export: str


Look = Callable[[Snapshot], "Iterable[tuple[float | None, dict[str, str]]]"]

_EVERY_MS = 10_000
_LAST_MS = 5_000

#: Name, kind, unit, meaning, and what a snapshot says of it.
_INSTRUMENTS: tuple[tuple[str, str, str, str, Look], ...] = (
    (
        "loader.rows",
        "counter",
        "{row}",
        "Rows settled, over all runs of the load.",
        lambda now: [(count, {"code": code.value}) for code, count in now.counts.items()],
    ),
    (
        "loader.requests",
        "counter",
        "{request}",
        "Requests of this run.",
        lambda now: [
            (now.wire.requests - now.wire.refused - now.wire.broken - now.wire.on_wire, {"result": "answered"}),
            (now.wire.refused, {"result": "refused"}),
            (now.wire.broken, {"result": "broken"}),
        ],
    ),
    ("loader.requests.active", "gauge", "{request}", "Requests on the wire.", lambda now: [(now.wire.on_wire, {})]),
    (
        "loader.requests.limit",
        "gauge",
        "{request}",
        "Requests that may be on the wire now.",
        lambda now: [(now.at_once, {})],
    ),
    (
        "loader.request.duration.quantile",
        "gauge",
        "s",
        "Until the whole answer was there, of the last second's answers.",
        lambda now: [(now.wire.p50_s, {"quantile": "0.5"}), (now.wire.p95_s, {"quantile": "0.95"})],
    ),
    ("loader.progress", "gauge", "1", "Share of the export's bytes that are settled.", lambda now: [(now.share, {})]),
    ("loader.time_left", "gauge", "s", "Until the load is done, if that is known.", lambda now: [(now.left_s, {})]),
    ("loader.held", "gauge", "s", "So long the target is waited for.", lambda now: [(now.held_s, {})]),
)


class _Trouble(logging.Handler):
    """What OpenTelemetry says when it can't export, told once and not on top of a screen."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say
        self._is_told = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_told:
            self._is_told = True
            self._say(f"loader: metrics.otlp: {record.getMessage().splitlines()[0][:200]} (not told again)")


def exporter(endpoint: str) -> "MetricExporter":
    """What sends to a collector, such as the one at http://127.0.0.1:4318. Raises Refused if a package is missing.

    More, headers too, by the environment variables of OpenTelemetry (OTEL_EXPORTER_OTLP_HEADERS,
    OTEL_RESOURCE_ATTRIBUTES ...).
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError as error:
        raise Refused("metrics.otlp needs OpenTelemetry: pip install 'directory-loader[otel]'") from error
    return OTLPMetricExporter(endpoint=f"{endpoint.rstrip('/')}/v1/metrics")


def export(
    to: "MetricExporter", about: About, newest: Callable[[], Snapshot | None], say: Callable[[str], None]
) -> Callable[[], None]:
    """Export what `newest` gives, on a thread. Returns what ends it, with a last export: that may block for
    seconds.
    """
    from opentelemetry.metrics import Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource

    reader = PeriodicExportingMetricReader(to, _EVERY_MS, _LAST_MS)
    facts = {"service.name": "directory-loader", "service.version": __version__, "loader.api": about.api}
    provider = MeterProvider([reader], Resource.create(facts), shutdown_on_exit=False)
    meter = provider.get_meter("loader", __version__)

    def observed(look: Look) -> "Callable[[CallbackOptions], list[Observation]]":
        def observe(_options: "CallbackOptions") -> "list[Observation]":
            now = newest()
            found = look(now) if now is not None else ()
            return [Observation(value, attributes) for value, attributes in found if value is not None]

        return observe

    for name, kind, unit, words, look in _INSTRUMENTS:
        make = meter.create_observable_counter if kind == "counter" else meter.create_observable_gauge
        make(name, [observed(look)], unit, words)

    logger, trouble = logging.getLogger("opentelemetry"), _Trouble(say)
    logger.addHandler(trouble)

    def end() -> None:
        provider.shutdown(_LAST_MS)
        logger.removeHandler(trouble)

    return end
