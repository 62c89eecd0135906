"""Runs that are killed: nothing is lost, and no more is sent twice than promised."""

import random
from pathlib import Path

import pytest

from loader.demo import make_export
from tests.end_to_end import oracle

CONCURRENCY = 8
USERS_PER_REQUEST = 100
PER_KILL = 2 * CONCURRENCY * USERS_PER_REQUEST


def killed_load(folder: Path, users: int, kills: int, seed: int, slowest_s: float) -> tuple[int, int]:
    """One load, killed so often at random moments, then finished: how often it was hit, how many users were resent."""
    rng = random.Random(seed)
    expected = make_export(folder / "users.csv", users, seed)
    hits = 0
    with oracle.sandbox("--latency", "0.05", "--jitter", "0.02", "--unknown", "former", "--seed", str(seed)) as url:
        settings = oracle.write_settings(folder, url, concurrency=CONCURRENCY)
        for _ in range(kills):
            hits += oracle.run_and_kill(settings, rng.uniform(0.3, slowest_s))
        status, _, err = oracle.run("run", settings)
        assert status == 1, err  # some users are unknown
        resent = oracle.compare(url, folder / "users.ckpt", expected)
        assert resent <= hits * PER_KILL
    return hits, resent


def test_a_killed_load_loses_nothing(tmp_path: Path) -> None:
    """Killed three times, a load ends with every outcome and every value as if it had not been."""
    hits, _ = killed_load(tmp_path, users=8_000, kills=3, seed=5, slowest_s=1.4)

    assert hits > 0


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_twenty_loads_killed_one_to_five_times(tmp_path: Path) -> None:
    """20 loads of 50,000 users, each killed 1 to 5 times at random moments, are exact."""
    total = resends = 0
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        kills = random.Random(seed).randint(1, 5)
        hits, resent = killed_load(folder, users=50_000, kills=kills, seed=seed, slowest_s=1.8)
        print(f"load {seed}: killed {hits} of {kills} times, {resent} users sent again (at most {hits * PER_KILL})")
        total += hits
        resends += resent
    print(f"{total} kills, {resends} users sent again, {resends / max(total, 1):.0f} a kill (at most {PER_KILL})")
    assert total >= 20
