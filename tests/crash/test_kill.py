"""SIGKILL at every step that a disk has to remember, or in its middle: nothing is lost (promises 1 and 2)."""

import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from tests.crash.loads import (
    CHECKPOINT,
    Answer,
    Directory,
    Load,
    assert_claims_are_true,
    assert_exact,
    claims,
    make_export,
    write_settings,
)
from tests.crash.runs import Ended, Runner
from tests.crash.steps import Plan, places, spread

Command = Literal["run", "run --fresh", "retry"]

KILLED = 128 + signal.SIGKILL
FINISHED, REFUSED = 1, 2  # 1: some of the rows are broken

LOADS = [
    Load(),
    Load(concurrency=1, users_per_request=100),
    Load(concurrency=16, users_per_request=5, users=1_000),
    Load(suffix=".gz"),
    Load(is_stdin=True),
    Load(suffix=".gz", is_stdin=True, note_bytes=1_500),
    Load(note_bytes=1_500),
]


@dataclass
class Crashes:
    """One command on one load, over and over, each time killed elsewhere."""

    runs: Runner
    api: Directory
    folder: Path
    load: Load
    command: Command = "run"
    hits: Counter[str] = field(default_factory=Counter)
    missed: list[Plan] = field(default_factory=list)
    most_resent: int = 0

    def __post_init__(self) -> None:
        """What is there before the command: the export, and a finished load, of it or of another."""
        self.template = self.folder / "template"
        self.template.mkdir()
        self.settings = write_settings(self.template, self.load, self.api.url).name
        self.before: list[Answer] = []
        if self.command == "run --fresh":
            make_export(self.template / self.load.export, replace(self.load, seed=0))
            assert self._run(self.template, "run").status == FINISHED
            self.older = claims(self.template, self.folder)
            self.api.begin()
        self.expected = make_export(self.template / self.load.export, self.load)
        if self.command == "retry":
            assert self._run(self.template, "run").status == FINISHED
            self.before = list(self.api.answers)
        self.needed = self._finish(self._begin())  # users that it sends a second time if nothing happens

    def _run(self, folder: Path, command: str, *, plan: Plan | None = None, is_logged: bool = False) -> Ended:
        name, *flags = command.split()
        stdin = folder / self.load.export if self.load.is_stdin else None
        run = self.runs.start(folder, name, folder / self.settings, *flags, plan=plan, is_logged=is_logged, stdin=stdin)
        ended = run.wait()
        assert "Traceback" not in ended.err
        assert "internal error" not in ended.err, ended.err
        return ended

    def _begin(self) -> Path:
        folder = self.folder / "load"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.template, folder)
        self.api.begin(self.before)
        return folder

    def count(self) -> list[Plan]:
        """The steps of a run that nothing happens to."""
        return places(self._run(self._begin(), self.command, is_logged=True).steps)

    def crash(self, *plans: Plan) -> None:
        """Kill the command at the first plan, its successor at the next, …; look at the claims; finish; compare."""
        folder = self._begin()
        kills = 0
        for plan in plans:
            ended = self._run(folder, self.command, plan=plan)
            if ended.status != KILLED:
                assert ended.status == FINISHED, ended.err
                self.missed.append(plan)
                continue
            kills += 1
            self.hits[f"{plan.kind} {plan.name}"] += 1
            if self.command != "run --fresh":  # that may hold the older load still
                assert_claims_are_true(claims(folder, self.folder), self.api.answers, self.expected)
            self._look(folder)
        resent = self._finish(folder) - self.needed
        assert resent <= kills * self.load.in_flight + self.needed, plans  # a retry that was done is done once more
        self.most_resent = max(self.most_resent, resent)

    def _finish(self, folder: Path) -> int:
        """Go on as a person would: without --fresh, once the new load has begun. Returns how many were sent again."""
        ended = self._run(folder, self.command.removesuffix(" --fresh"))
        if self.command == "run --fresh":
            if ended.status == REFUSED:
                ended = self._run(folder, self.command)
            (aside,) = folder.glob(f"{CHECKPOINT}.2*")
            assert claims(folder, self.folder, aside.name) == self.older
        assert ended.status == FINISHED, ended.err
        return assert_exact(claims(folder, self.folder), self.api, self.expected)

    def _look(self, folder: Path) -> None:
        """Whoever asks for the status before going on gets an answer, or hears that there is nothing yet."""
        ended = self.runs.start(folder, "status", folder / CHECKPOINT).wait()
        assert ended.status in (0, 2), ended.err
        assert "Traceback" not in ended.err

    def crash_each(self, plans: Iterable[Plan]) -> None:
        for plan in plans:
            self.crash(plan)

    def assert_hit(self, plans: Sequence[Plan]) -> None:
        """Runs differ a little in how outcomes are grouped, so that some steps are not reached; not many."""
        assert {f"{plan.kind} {plan.name}" for plan in plans} == set(self.hits)
        assert len(self.missed) <= len(plans) / 4


def torn(plans: Iterable[Plan]) -> list[Plan]:
    """The writes among them, as writes of which half is done."""
    return [plan._replace(action="tear") for plan in plans if plan.kind == "write"]


def test_killed_at_some_steps_a_load_loses_nothing(runs: Runner, api: Directory, tmp_path: Path) -> None:
    """Of the kinds of steps on the checkpoint, its log and its index, every third; the soak test takes all steps."""
    crashes = Crashes(runs, api, tmp_path, Load(users=300))
    plans = spread(crashes.count(), 1)[::3]

    crashes.crash_each(plans)

    crashes.assert_hit(plans)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("load", "command"),
    [*((load, "run") for load in LOADS), (Load(), "run --fresh"), (Load(), "retry")],
    ids=lambda value: str(value).replace(" ", "-"),
)
def test_killed_at_any_step_a_load_loses_nothing(
    runs: Runner, api: Directory, tmp_path: Path, load: Load, command: Command
) -> None:
    """Instead of each step, and in the middle of each write."""
    crashes = Crashes(runs, api, tmp_path, load, command)
    steps = crashes.count()
    plans = steps + torn(steps)
    crashes.crash_each(plans)

    print(
        f"\n{command}, {load}: {len(steps)} steps, {len(plans)} kills planned, {crashes.hits.total()} hit; "
        f"at most {crashes.most_resent} users sent again (allowed: {load.in_flight})"
    )
    crashes.assert_hit(plans)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_killed_again_and_again_a_load_loses_nothing(runs: Runner, api: Directory, tmp_path: Path) -> None:
    """Five kills in a row, wherever the step with that number is in each run: recovery is killed like anything else."""
    rng = random.Random(1)
    crashes = Crashes(runs, api, tmp_path, Load())
    for _ in range(100):
        crashes.crash(*(Plan("*", "*", int(rng.triangular(1, 200, 1))) for _ in range(5)))

    print(f"\n100 loads, {crashes.hits.total()} kills; at most {crashes.most_resent} users sent again")
    assert crashes.hits.total() > 300
