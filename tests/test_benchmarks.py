"""The benchmarks still run: each on a thousand users, without a look at any time."""

import os
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import load, report, stages
from benchmarks.generate import generate
from benchmarks.loading import ENVIRONMENT, command
from benchmarks.machine import Cores
from benchmarks.peers import FOLDER, PEERS
from benchmarks.peers import __main__ as peers
from benchmarks.server import Server
from loader.settings import load_settings

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which(os.environ.get("CC", "cc")) is None,
    reason="the counting server needs Linux and a C compiler",
)

ANYWHERE = Cores(None, None)
LOADER = PEERS[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with Server(None) as running:
            yield running


@pytest.mark.parametrize("form", ["csv", "ndjson", "flat.ndjson", "parquet"])
def test_a_load_of_each_form_of_export_arrives_whole(server: Server, tmp_path: Path, form: str) -> None:
    assert load.Loads(server, ANYWHERE, tmp_path).run(1000, form=form)["checkpoint_bytes"]


@pytest.mark.parametrize("api", ["dx", "scim"])
def test_users_go_one_by_one_where_the_api_has_it_so(server: Server, tmp_path: Path, api: str) -> None:
    load.Loads(server, ANYWHERE, tmp_path).run(100, size=1, api=api)

    assert server.stats().requests == 100


def test_stages_add_up_to_a_whole_load(server: Server, tmp_path: Path) -> None:
    server.reset(1000)
    command(tmp_path, generate(tmp_path / "users.csv", 1000), server.url, 100, 16)
    took = stages.once(load_settings(tmp_path / "load.toml"), tmp_path)
    rows = stages._rows(100, 1000, [took], 1e6)

    assert server.stats().distinct == 1000
    assert set(stages.BOUNDS) < set(took)
    assert sum(row["share"] for row in rows if row["stage"] not in stages._PARTS) == pytest.approx(2)  # with the whole


def test_a_peer_is_run_and_killed_and_its_figures_are_told(server: Server, tmp_path: Path) -> None:
    bench = peers.Bench(server, ANYWHERE, tmp_path, 1.0, 1000)
    runs = [{**bench.run(LOADER, 100, delay_ms / 1000), "turn": 0} for delay_ms in (0, 50)]
    killed = bench.killed(LOADER, 10, 0.02)
    found: dict[str, Any] = {
        "rows": peers.summary(runs, {}),
        "killed": [killed],
        "left_out": {"wrk": "it is not installed"},
        "failures": [],
        "options": {"sizes": [100], "kill_delay": 20},
    }

    assert (killed["users"], killed["lost"], killed["status"]) == (1000, 0, 0)
    assert [row["times"] for row in found["rows"]] == [1.0, 1.0]
    assert "wrk (it is not installed)" in peers.page(report.whole(found))


def test_each_peer_has_its_program_and_its_versions() -> None:
    for peer in PEERS:
        assert not peer.file or (FOLDER / f"{peer.file}.py").exists()
        assert bool(peer.package) == (FOLDER / f"{peer.file}.txt").exists()
        assert peer.tool or all(peer.version()) == bool(peer.package)


def test_the_server_tells_who_came_twice_and_who_is_a_stranger(server: Server) -> None:
    body = b'{"userAttributes":[{"userName":"user0@x"},{"userName": "user0@x"},{"userName":"user9@x"}]}'
    server.reset(2)
    with urllib.request.urlopen(f"{server.url}/v1/directory/user-attributes", body) as answer:
        assert answer.read().count(b'"resultCode":0') == 3

    stats = server.stats()
    assert (stats.users, stats.distinct, stats.strange) == (3, 1, 1)


def test_a_part_of_the_page_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- part -->\nold\n<!-- /part -->\nafter\n")
    rows: list[dict[str, Any]] = [{"name": "a", "figure": 1234.5}, {"name": "b", "figure": None}]
    columns = [report.Column("", "name", None), report.Column("x", "figure", ",.0f")]
    report.insert(page, "part", report.table(columns, rows))

    assert page.read_text() == (
        "before\n<!-- part -->\n|  | x |\n| --- | ---: |\n| a | 1,234 |\n| b | – |\n<!-- /part -->\nafter\n"
    )


def test_the_page_has_a_place_for_every_benchmark() -> None:
    found = report.PAGE.read_text()

    assert all(f"<!-- {name} -->" in found and f"<!-- /{name} -->" in found for name in ("peers", "stages", "load"))


def test_sizes_forms_and_lone_users_are_told() -> None:
    figures = {"seconds": 1.0, "cpu_s": 1.0, "peak_mib": 90.0, "first_request_s": 0.3, "checkpoint_bytes": 9000}
    loads: Any = SimpleNamespace(
        run=lambda *_, **__: {**figures, "server_idle": None}, bare=lambda *_: figures, split=lambda *_: figures
    )
    options: Any = SimpleNamespace(users=[500], repeat=2, sizes=[100], form_users=1_000, alone_users=50)
    parts = {name: measure(loads, options) for name, (_, measure, _) in load._PARTS.items()}
    page = load.page(report.whole({"parts": parts}))

    assert all(name in page for name in ("NDJSON, mapped", "of one process", "SCIM", "18.0"))  # bytes a user
