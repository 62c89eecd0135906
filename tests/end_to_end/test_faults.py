"""Whole loads of 20,000 users, as processes, into an API that fails in one way each: the outcomes are exact.

Too long for every test run; `scripts/soak` runs them and prints the figures.
"""

import re
import time
from collections import Counter
from pathlib import Path

import pytest

from loader.demo import make_export
from tests.end_to_end import oracle

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

USERS = 20_000

FAULTS = {
    "401 for all in flight at once": ["--unauthorized-once-at", "1.5", "--latency", "0.1"],
    "413 above 37 users": ["--max-users", "37"],
    "413 above 4 kB": ["--max-bytes", "4000"],
    "results shuffled": ["--fault", "shuffled=1"],
    "results missing": ["--fault", "missing=0.3", "--missing-share", "0.2"],
    "results doubled": ["--fault", "doubled=1"],
    "results of users not sent": ["--fault", "foreign=1"],
    "answers lost": ["--fault", "lost=0.05"],
    "5xx": ["--fault", "500=0.1", "--fault", "502=0.1", "--fault", "503=0.02", "--retry-after-seconds", "0.1"],
    "429": ["--fault", "429=0.05", "--retry-after-seconds", "0.05"],
    "connections cut": ["--fault", "reset=0.05", "--fault", "torn=0.05", "--fault", "truncated=0.03"],
    "garbage": ["--fault", "garbage=0.05"],
    "down for three seconds": ["--down", "1+3", "--latency", "0.05"],
    "all of it": [
        *("--fault", "429=0.02", "--fault", "500=0.03", "--fault", "reset=0.02", "--fault", "lost=0.02"),
        *("--fault", "shuffled=0.2", "--fault", "missing=0.1", "--fault", "doubled=0.1", "--fault", "foreign=0.1"),
        *("--fault", "garbage=0.01", "--token-lifetime", "2", "--max-users", "60", "--retry-after-seconds", "0.05"),
    ],
}


@pytest.mark.parametrize("flags", FAULTS.values(), ids=FAULTS)
def test_outcomes_are_exact_whatever_the_api_does(tmp_path: Path, flags: list[str]) -> None:
    """Every row has the outcome that the export's maker knows, and the ledger holds the last values."""
    expected = make_export(tmp_path / "users.csv", USERS, 7)
    with oracle.sandbox("--unknown", "former", "--seed", "7", *flags) as url:
        started = time.monotonic()
        status, _, err = oracle.run("run", oracle.write_settings(tmp_path, url, give_up_s=60))
        took = time.monotonic() - started
        assert status == 1, err
        resent = oracle.compare(url, tmp_path / "users.ckpt", expected)
        stats = oracle.get(url, "stats")[0]
    print(f"\n{took:.1f} s, {resent} users sent again, {stats['requests']}")


def test_a_poisoned_user_costs_itself_alone(tmp_path: Path) -> None:
    """A user in every tenth batch for whom the API refuses the whole request: INVALID, and nobody else."""
    rows = [f"{'poison' if n % 1000 == 500 else 'user'}{n}@x.com,d{n % 7}" for n in range(USERS)]
    (tmp_path / "users.csv").write_text("email,dept\n" + "\n".join(rows) + "\n")
    with oracle.sandbox("--poison", "^poison") as url:
        path = oracle.write_settings(tmp_path, url)
        path.write_text(re.sub(r"(?ms)^types.*?^\[target\]", "[target]", path.read_text()))
        status, _, err = oracle.run("run", path)
        assert status == 1, err
        requests = oracle.get(url, "stats")[0]["requests"]
    codes = Counter((row["code"], row["user"][:4]) for row in oracle.results(tmp_path / "users.ckpt"))
    print(f"\n{requests}")
    assert codes == {("SUCCESS", "user"): USERS - USERS // 1000, ("INVALID", "pois"): USERS // 1000}


def test_short_tokens_under_many_requests(tmp_path: Path) -> None:
    """Tokens of 2 s, 32 requests at once: few token calls, never two at a time, and no user fails."""
    expected = make_export(tmp_path / "users.csv", 100_000, 8)
    flags = ("--token-lifetime", "2", "--latency", "0.3", "--jitter", "0.1", "--unknown", "former")
    with oracle.sandbox(*flags) as url:
        started = time.monotonic()
        status, _, err = oracle.run("run", oracle.write_settings(tmp_path, url, concurrency=32))
        took = time.monotonic() - started
        assert status == 1, err
        assert oracle.compare(url, tmp_path / "users.ckpt", expected) == 0
        stats = oracle.get(url, "stats")[0]
    calls = len(stats["token_calls"])  # type: ignore[arg-type]
    print(f"\n{took:.1f} s, {calls} token calls, at most {stats['peak_token_calls']} at once, {stats['requests']}")
    assert calls <= took / 0.8 + 2
    assert stats["peak_token_calls"] == 1
    assert stats["peak_data_requests"] == 32
