"""Whatever goes wrong, and all at once, to a loader that is killed again and again: nothing is lost, or made up.

A seed stands for a whole story: a target and a way of using it, an export, an API on bad days, settings, and kills. It
tells the same story each time. To see one: `scripts/test tests/chaos -k "test_a_story[17]"`, or all of them by
`scripts/soak tests/chaos -s`.
"""

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.chaos.judge import Figures
from tests.chaos.processes import live_through
from tests.chaos.scenario import SHAPES, draw
from tests.chaos.simulation import simulate

SEEDS = range(500)
#: So many are told at the same time; each core tells one, unless CHAOS_WORKERS says otherwise.
WORKERS = int(os.environ.get("CHAOS_WORKERS") or os.cpu_count() or 1)
#: Of the seeds, each that leaves this remainder is lived through by processes, and of the others each that leaves the
#: next one is told twice.
EVERY = 10


def name(seed: int) -> str:
    return f"{seed}-{list(SHAPES)[seed % len(SHAPES)]}"


@pytest.mark.parametrize("seed", range(1000, 1000 + len(SHAPES)), ids=name)
def test_a_story(tmp_path: Path, seed: int) -> None:
    """One of each target: conservation, order, promises, quota; see judge.py."""
    story = simulate(draw(seed, users=250), tmp_path)

    assert story.figures.codes.total() == 250


@pytest.mark.parametrize("seed", [1004, 1018], ids=name)
def test_a_seed_tells_the_same_story_again(tmp_path: Path, seed: int) -> None:
    """The same requests, in the same order, at the same moments, of as many lives."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    first, second = (simulate(draw(seed, users=250), tmp_path / folder) for folder in "ab")

    assert first == second
    assert first.figures.kills > 0


@pytest.mark.parametrize("seed", [1014], ids=name)
def test_a_story_of_processes(tmp_path: Path, seed: int) -> None:
    """The same, lived through by processes that are killed."""
    figures = live_through(draw(seed, users=250, is_real=True), tmp_path)

    assert figures.codes.total() == 250
    assert figures.kills > 0


class _Told(NamedTuple):
    seed: int
    took_s: float
    figures: Figures
    failure: str = ""


def tell(seed: int) -> _Told:
    """For a process of a pool."""
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            if seed % EVERY == 0:
                figures = live_through(draw(seed, is_real=True), Path(folder))
            else:
                figures = simulate(draw(seed), Path(folder)).figures
    except Exception as error:  # noqa: BLE001  # one story's end is not the end of all
        return _Told(seed, time.monotonic() - started, Figures(), f"{type(error).__name__}: {error}")
    return _Told(seed, time.monotonic() - started, figures)


def _digest(seed: int) -> str:
    """For a process of a pool, whose hashes are its own."""
    with tempfile.TemporaryDirectory() as folder:
        return simulate(draw(seed), Path(folder)).digest


@pytest.mark.soak
def test_five_hundred_stories() -> None:
    """Of 2,000 rows each; a tenth of them lived through by processes, the others in virtual time."""
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        told = list(pool.map(tell, SEEDS))
        again = [seed for seed in SEEDS if seed % (2 * EVERY) == 1]
        digests = zip(pool.map(_digest, again), pool.map(_digest, again), strict=True)
        differing = [seed for seed, (first, second) in zip(again, digests, strict=True) if first != second]
    for kind, is_real in (("virtual time", False), ("processes", True)):
        of_kind = [each for each in told if (each.seed % EVERY == 0) == is_real]
        total = Figures()
        for each in of_kind:
            total += each.figures
        took_s = sum(each.took_s for each in of_kind)
        print(f"\n{kind}: {len(of_kind)} stories in {took_s:,.0f} s of one core, {total.rows:,} rows")
        print(f"  {total.lives:,} lives, {total.kills:,} killed, stopped: {dict(total.stops.most_common())}")
        print(f"  {total.requests:,} requests, {total.refusals:,} refused or lost; outcomes: {dict(total.codes)}")
        print(
            f"  {total.resent:,} users in flight at a kill, {total.resent / max(total.kills, 1):.1f} a kill, at most "
            f"{total.most_resent:.0%} of what promise 2 allows"
        )
    print(f"told twice: {len(again)}")

    assert [f"{each.seed}: {each.failure}" for each in told if each.failure] == []
    assert differing == []
