"""A real Prometheus scrapes a running load. It is Debian's package `prometheus`."""

import json
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from loader.checkpoint import Checkpoint
from tests.end_to_end.servers import free_port, running
from tests.show.test_metrics import EXAMPLES, expressions

ROWS = 60_000


def asked(address: str, query: str) -> list[dict[str, Any]]:
    """What Prometheus answers."""
    with urllib.request.urlopen(f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}") as answer:
        found = json.load(answer)
    assert found["status"] == "success"
    result: list[dict[str, Any]] = found["data"]["result"]
    return result


def write(folder: Path, sandbox: str, listen: str) -> None:
    """An export, and settings that take some ten seconds for it."""
    lines = (f"user{row:06},{'' if row % 100 else row}" for row in range(1, ROWS + 1))
    (folder / "users.csv").write_text("email,dept\n" + "\n".join(lines) + "\n")
    (folder / "load.toml").write_text(f"""
        export.path = "users.csv"
        mapping = {{ user = "email", empty = "null" }}
        target.api = "calven"
        target.base_url = "{sandbox}"
        target.auth = {{ scheme = "client-secret", key_id = "K", secret = "S" }}
        limits.requests_per_minute = 3000
        metrics = {{ listen = "{listen}", linger = "30s" }}
    """)


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_its_numbers_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    """At the end, by code; and every question of the dashboard and the alerts is one that Prometheus understands."""
    assert shutil.which("prometheus"), "Debian's package prometheus is needed"
    port, page, sandbox = free_port(), free_port(), free_port()
    config = yaml.safe_load((EXAMPLES / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(EXAMPLES / "prometheus" / "alerts.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{page}"]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], check=True, capture_output=True)
    write(tmp_path, f"http://127.0.0.1:{sandbox}", f"127.0.0.1:{page}")
    program = [sys.executable, "-m", "loader"]
    serve = [*program, "sandbox", "--port", str(sandbox), "--key-id", "K", "--secret", "S", "--unknown", "^user0001"]
    prometheus = [
        *("prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--web.listen-address=127.0.0.1:{port}"),
        *(f"--storage.tsdb.path={tmp_path}/data", "--log.level=warn"),
    ]
    address = f"http://127.0.0.1:{port}"
    with (
        running(serve, f"http://127.0.0.1:{sandbox}/_sandbox/stats", tmp_path / "sandbox.log"),
        running(prometheus, f"{address}/-/ready", tmp_path / "prometheus.log"),
    ):
        ended = subprocess.run(
            [*program, "run", "load.toml"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 1, ended.stderr
        found = _by("code", asked(address, "last_over_time(loader_rows_total[5m])"))
        requests = _by("result", asked(address, "last_over_time(loader_requests_total[5m])"))
        grown = asked(address, 'max_over_time(rate(loader_rows_total{code="SUCCESS"}[5s])[60s:1s])')
        questions = {question: asked(address, _filled(question)) for question in expressions()}
    with Checkpoint.read(tmp_path / "users.ckpt") as checkpoint:
        counts = {code.value: count for code, count in checkpoint.counts().items()}
        course = checkpoint.course()
    print(f"\nPrometheus: {found}\ncheckpoint: {counts}; {requests}; {grown[0]['value'][1]} users/s at most")

    assert {code: count for code, count in found.items() if count} == counts
    assert counts["USER_NOT_FOUND"] == 100
    assert requests["answered"] == course[-1].requests
    assert len(questions) > 10


def _by(label: str, found: list[dict[str, Any]]) -> dict[str, float]:
    return {each["metric"][label]: float(each["value"][1]) for each in found}


def _filled(question: str) -> str:
    return question.replace("$job", ".*").replace("$instance", ".*")
