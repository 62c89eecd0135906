"""What is published of a load: on a page, in a file, by OpenTelemetry; and the examples that read it."""

import json
import re
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import msgspec
import pytest
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from loader.errors import Refused
from loader.outcome import Code
from loader.settings import MetricsTable
from loader.show.metrics import Collector, prepared, publishing
from loader.show.telemetry import About
from loader.snapshot import Failure, Found, Snapshot, Wire

EXAMPLES = Path(__file__).parents[2] / "examples"
ABOUT = About("calven", "api.calven.com", "users.csv")
WIRE = Wire(20, 3, 2, 5, (0, 0, 4, 6, *[0] * 9), 1.5, 0.02, 0.05)
NOW = Snapshot(
    1e9,
    1_000,
    {Code.SUCCESS: 990, Code.INVALID: 10},
    0.25,
    50.0,
    60.0,
    20.0,
    60.0,
    WIRE,
    8,
    failures=(Failure(7, "jane@example.com", Code.INVALID, "no such department"),),
    found=Found(requests_per_s=48.5, brake="rate"),
)


def exposed(now: Snapshot | None = NOW) -> str:
    """What Prometheus gets."""
    registry, collector = CollectorRegistry(), Collector(ABOUT)
    collector.newest = now
    registry.register(collector)
    return generate_latest(registry).decode()


def samples(text: str) -> dict[str, float]:
    """By name and labels, as they are written."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_gets_the_figures_of_the_snapshot() -> None:
    found = samples(exposed())

    assert found["loader_load_info api=calven export=users.csv host=api.calven.com version=0.1.0"] == 1
    assert found["loader_rows_total code=SUCCESS"] == 990
    assert found["loader_rows_total code=INVALID"] == 10
    assert found["loader_rows_total code=FAILED"] == 0, "there from the start, so that a rate sees the first"
    assert {name.rpartition("=")[2]: found[name] for name in found if name.startswith("loader_requests_total")} == {
        "answered": 10,
        "refused": 3,
        "broken": 2,
    }
    assert found["loader_request_duration_seconds_bucket le=0.025"] == 4
    assert found["loader_request_duration_seconds_bucket le=+Inf"] == 10
    assert (found["loader_request_duration_seconds_sum"], found["loader_requests_in_flight"]) == (1.5, 5)
    assert (found["loader_export_ratio"], found["loader_time_left_seconds"]) == (0.25, 60)
    assert [name for name in found if name.startswith("loader_brake") and found[name]] == ["loader_brake by=rate"]


def test_what_is_not_known_is_left_out() -> None:
    nothing = samples(exposed(msgspec.structs.replace(NOW, share=None, left_s=None)))

    assert not {"loader_export_ratio", "loader_time_left_seconds"} & set(nothing)
    assert set(samples(exposed(None))) == {
        "loader_load_info api=calven export=users.csv host=api.calven.com version=0.1.0"
    }


def test_no_metric_holds_a_user() -> None:
    assert "jane" not in exposed()


@asynccontextmanager
async def published(
    table: MetricsTable, folder: Path, say: Callable[[str], None]
) -> AsyncIterator[Callable[[Snapshot], None]]:
    with ExitStack() as held:  # a run prepares before its event loop begins
        ready = await anyio.to_thread.run_sync(held.enter_context, prepared(table, folder, ABOUT))
        async with publishing(ready, say) as watch:
            yield watch


async def test_the_page_is_served_and_waited_for_at_the_end(tmp_path: Path) -> None:
    """Who asks after the last snapshot sees it; the run ends then, and not before."""
    said: list[str] = []
    table = MetricsTable(listen="127.0.0.1:0", linger="30s")  # type: ignore[arg-type]  # as the settings have it
    over = anyio.Event()

    async def run() -> None:
        async with published(table, tmp_path, said.append) as watch:
            watch(NOW)
        over.set()

    async with anyio.create_task_group() as tasks, aiohttp.ClientSession() as session:
        tasks.start_soon(run)
        while not said:  # noqa: ASYNC110  # nothing else tells of it
            await anyio.sleep(0.01)
        await anyio.sleep(0.05)
        assert not over.is_set(), "it waits"
        async with session.get(said[0].rpartition(" ")[2]) as answer:
            text = await answer.text()
        with anyio.fail_after(5):
            await over.wait()

    assert samples(text)["loader_rows_total code=SUCCESS"] == 990
    assert re.fullmatch(r"loader: metrics are at http://127\.0\.0\.1:\d+/metrics", said[0])


async def test_an_address_in_use_is_refused(tmp_path: Path) -> None:
    said: list[str] = []
    async with published(MetricsTable(listen="127.0.0.1:0"), tmp_path, said.append):
        port = said[0].rpartition(":")[2].partition("/")[0]
        with (
            pytest.raises(Refused, match=f"metrics.listen: can't listen at 127.0.0.1:{port}: Address already in use"),
            prepared(MetricsTable(listen=f"127.0.0.1:{port}"), tmp_path, ABOUT),
        ):
            raise AssertionError("it is in use")


async def test_the_file_is_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    """Its owner's alone at first; who lets the node exporter read it does so once."""
    table = MetricsTable(file="loader.prom")
    async with published(table, tmp_path, print) as watch:
        watch(NOW)
    path = anyio.Path(tmp_path / "loader.prom")
    first = stat.S_IMODE((await path.stat()).st_mode)
    await path.chmod(0o644)
    async with published(table, tmp_path, print) as watch:
        begun = await path.read_text()
        watch(NOW)

    assert (first, stat.S_IMODE((await path.stat()).st_mode)) == (0o600, 0o644)
    assert "loader_rows_total" not in begun
    assert samples(await path.read_text())["loader_rows_total code=SUCCESS"] == 990
    assert [each.name async for each in anyio.Path(tmp_path).iterdir()] == ["loader.prom"]


def test_a_file_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(Refused, match="can't write"),
        prepared(MetricsTable(file="nowhere/loader.prom"), tmp_path, ABOUT),
    ):
        raise AssertionError("there is no such folder")


@contextmanager
def receiving(status: int = 200) -> Iterator[tuple[str, list[ExportMetricsServiceRequest]]]:
    """An OpenTelemetry collector: its address, and what it got."""
    got: list[ExportMetricsServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_opentelemetry_gets_the_last_figures(tmp_path: Path) -> None:
    with receiving() as (address, got):
        async with published(MetricsTable(otlp=address), tmp_path, print) as watch:
            watch(NOW)
    (resource,) = got[-1].resource_metrics
    facts = {each.key: each.value.string_value for each in resource.resource.attributes}
    metrics: dict[str, Any] = {each.name: each for each in resource.scope_metrics[0].metrics}
    rows = {point.attributes[0].value.string_value: point.as_int for point in metrics["loader.rows"].sum.data_points}

    assert facts["service.name"] == "directory-loader"
    assert facts["loader.api"] == "calven"
    assert rows == {"SUCCESS": 990, "INVALID": 10}
    assert metrics["loader.rows"].sum.is_monotonic
    assert metrics["loader.progress"].gauge.data_points[0].as_double == 0.25
    assert b"jane" not in got[-1].SerializeToString()


async def test_a_collector_that_refuses_is_told_of_once(tmp_path: Path) -> None:
    """And is no reason to stop a load."""
    said: list[str] = []
    with receiving(400) as (address, _):
        async with published(MetricsTable(otlp=address), tmp_path, said.append) as watch:
            watch(NOW)

    assert len(said) == 1
    assert said[0].startswith("loader: metrics.otlp: ")


def expressions() -> Iterator[str]:
    """All that the examples ask Prometheus."""
    dashboard = json.loads((EXAMPLES / "grafana" / "loader.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for group in yaml.safe_load((EXAMPLES / "prometheus" / "alerts.yml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


@pytest.mark.parametrize("expression", list(expressions()))
def test_the_examples_ask_for_what_there_is(expression: str) -> None:
    known = {name.partition(" ")[0] for name in samples(exposed())}

    assert set(re.findall(r"loader_\w+", expression)) <= known
