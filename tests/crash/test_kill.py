"""SIGKILL at every step that a disk has to remember, or in its middle: nothing is lost (promises 1 and 2)."""

import shutil
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.crash.loads import (
    CHECKPOINT,
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

KILLED = 128 + signal.SIGKILL
FINISHED = 1  # some of the rows are broken

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
        """What is there before the command: the export, and if it needs one, a finished load."""
        self.template = self.folder / "template"
        self.template.mkdir()
        self.settings = write_settings(self.template, self.load, self.api.url).name
        self.before: list[Answer] = []
        if self.command == "run --fresh":  # of an older export
            older = replace(self.load, seed=self.load.seed + 1)
            self.older = make_export(self.template / older.export, older)
            assert self._run(self.template, "run").status == FINISHED
        self.api.begin()
        self.expected = make_export(self.template / self.load.export, self.load)
        if self.command == "retry":
            assert self._run(self.template, "run").status == FINISHED
            self.before = list(self.api.answers)
        self.needed = self._finish(self._begin())  # users that the command sends a second time, if nothing happens

    def _run(self, folder: Path, command: str, *, plan: Plan | None = None, is_logged: bool = False) -> Ended:
        name, *flags = command.split()
        stdin = folder / self.load.export if self.load.is_stdin else None
        run = self.runs.start(
            folder, name, folder / self.settings, *flags, plan=plan, is_logged=is_logged, stdin=stdin
        )
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
        """Kill the command at the first plan, its successor at the next, …; look at what is claimed; finish; compare."""
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
        assert resent <= kills * self.load.in_flight, plans
        self.most_resent = max(self.most_resent, resent)

    def _finish(self, folder: Path) -> int:
        """Go on as a person would: without --fresh if the new load has begun. Returns how many were sent again."""
        command = "run" if self.command == "run --fresh" else self.command
        ended = self._run(folder, command)
        if self.command == "run --fresh":
            if ended.status == REFUSED:
                ended = self._run(folder, self.command)
            (aside,) = folder.glob(f"{CHECKPOINT}.2*")
            aside.rename(folder / "aside" / CHECKPOINT)
            
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


def test_killed_at_a_step_of_each_kind_a_load_loses_nothing(runs: Runner, api: Directory, tmp_path: Path) -> None:
    """A sample; the soak test takes them all."""
    crashes = Crashes(runs, api, tmp_path, Load(users=600))
    plans = spread(crashes.count(), 1)

    crashes.crash_each(plans)

    crashes.assert_hit(plans)


@pytest.mark.soak
@pytest.mark.parametrize("load", LOADS, ids=str)
def test_killed_at_any_step_a_load_loses_nothing(runs: Runner, api: Directory, tmp_path: Path, load: Load) -> None:
    """Instead of each step, and in the middle of each write."""
    crashes = Crashes(runs, api, tmp_path, load)
    steps = crashes.count()
    plans = steps + torn(steps)
    crashes.crash_each(plans)

    print(
        f"\n{load}: {len(steps)} steps, {len(plans)} kills planned, {crashes.hits.total()} hit; "
        f"at most {crashes.most_resent} users sent again (allowed: {load.in_flight})"
    )
    crashes.assert_hit(plans)
