"""SIGKILL at every step of a refresh: whatever it left, the night behind it makes the target what the export says.

The export flips: A was acknowledged, B is killed on its way, A comes back. A state that still took A for what the
target has would leave B there.
"""

import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.crash.disk import LOSSES, Disk, Loss
from tests.crash.loads import Directory, Load, write_settings
from tests.crash.runs import Ended, Runner
from tests.crash.steps import Plan, places, spread

KILLED = 128 + signal.SIGKILL
LOAD = Load(users=300)


@dataclass
class Flips:
    """One state, that of A, and nights with B, each killed elsewhere."""

    runs: Runner
    api: Directory
    folder: Path
    hits: Counter[str] = field(default_factory=Counter)
    missed: int = 0

    def __post_init__(self) -> None:
        self.template = self.folder / "template"
        self.template.mkdir()
        self.settings = write_settings(self.template, LOAD, self.api.url).name
        text = (self.template / self.settings).read_text()
        text = text.replace('types = { size = "number" }', "")
        (self.template / self.settings).write_text(f'{text}\n[refresh]\nmode = "changed"\n')
        self.night(self.template, "A")

    def write(self, folder: Path, value: str) -> None:
        """Every other user has the value; of every tenth there are two rows."""
        rows = [f"u{number}@x,{value if number % 2 else 'C'}" for number in range(LOAD.users)]
        rows += [f"u{number}@x,{value}2" for number in range(0, LOAD.users, 10)]
        (folder / LOAD.export).write_text("\n".join(["email,dept", *rows]) + "\n")

    def expected(self, value: str) -> dict[str, dict[str, str]]:
        found = {f"u{number}@x": {"dept": value if number % 2 else "C"} for number in range(LOAD.users)}
        return found | {f"u{number}@x": {"dept": f"{value}2"} for number in range(0, LOAD.users, 10)}

    def run(self, folder: Path, plan: Plan | None = None, *, is_logged: bool = False) -> Ended:
        started = self.runs.start(folder, "run", folder / self.settings, plan=plan, is_logged=is_logged)
        ended = started.wait()
        assert "Traceback" not in ended.err
        assert "internal error" not in ended.err, ended.err
        return ended

    def night(self, folder: Path, value: str) -> None:
        """A whole night, after which the target has what the export says."""
        self.write(folder, value)
        ended = self.run(folder)
        assert ended.status == 0, ended.err
        assert self.api.holds() == self.expected(value)

    def begin(self) -> Path:
        folder = self.folder / "load"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.template, folder)
        return folder

    def count(self) -> list[Plan]:
        """The steps of a night that nothing happens to.

        But those whose names can't be told before: the old checkpoint's new one has the time, and what is put aside
        while two exports are compared is in files without a name.
        """
        folder = self.begin()
        self.write(folder, "B")
        found = places(self.run(folder, is_logged=True).steps)
        self.night(folder, "A")
        return [plan for plan in found if ".ckpt.2" not in plan.name and not plan.name.startswith("#")]

    def crash(self, plan: Plan, *, is_deleted: bool) -> None:
        folder = self.begin()
        self.write(folder, "B")
        ended = self.run(folder, plan)
        if ended.status == KILLED:
            self.hits[f"{plan.kind} {plan.name}"] += 1
        else:
            assert ended.status == 0, ended.err
            self.missed += 1
        if is_deleted:
            for path in folder.glob("users.ckpt*"):
                path.unlink()
        self.night(folder, "A")
        assert not [path.name for path in folder.iterdir() if path.name.endswith(".part")]

    def crash_each(self, plans: Iterable[Plan]) -> None:
        dice = random.Random(1)
        for plan in plans:
            self.crash(plan, is_deleted=dice.random() < 0.5)


def test_killed_at_some_steps_a_refresh_tells_no_lie(runs: Runner, api: Directory, tmp_path: Path) -> None:
    """The steps on the state, as far as they differ; the soak test takes all of all files."""
    flips = Flips(runs, api, tmp_path)
    plans = [plan for plan in flips.count() if plan.name.startswith("users.state") and "lock" not in plan.name]
    flips.crash_each(spread(plans, 1))

    assert {"write users.state.part", "rename users.state.part", "write users.state", "sync users.state"} <= set(
        flips.hits
    )
    assert flips.missed <= 1


@dataclass
class PowerLosses:
    """A night with B, recorded once, and the night behind it from what a power loss could have left of it."""

    flips: Flips

    def __post_init__(self) -> None:
        self.known = list(self.flips.api.answers)  # of A
        folder = self.flips.begin()
        self.flips.write(folder, "B")
        names = [path for path in folder.iterdir() if path.name.startswith("users.")]
        self.before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in names if path.suffix != ".csv"}
        started = self.flips.runs.start(folder, "run", folder / self.flips.settings, has_data=True)
        ended = started.wait()
        assert ended.status == 0, ended.err
        # What is put aside while two exports are compared is in files without a name, that nobody finds again.
        self.steps = [step for step in ended.steps if not step.name.startswith("#")]
        self.answers = list(self.flips.api.answers)

    def moments(self) -> list[int]:
        """Numbers of steps done, each just before something is synced, when most can be lost; and after the last."""
        return [at for at, step in enumerate(self.steps) if step.kind.startswith("sync")] + [len(self.steps)]

    def lose(self, moments: Iterable[int], losses: Iterable[Loss]) -> int:
        """Lose the power at each of these moments; how often that was."""
        disk, done, count = Disk.holding(self.before), 0, 0
        for at in moments:
            for step in self.steps[done:at]:
                disk.do(step)
            done = at
            for loss in losses:
                self._after(at, disk.after(loss, random.Random(at)))
                count += 1
        return count

    def _after(self, at: int, files: dict[str, bytes]) -> None:
        folder = self.flips.begin()
        for path in folder.iterdir():
            if path.name.startswith("users."):
                path.unlink()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        is_over = at == len(self.steps)
        self.flips.api.begin([each for each in self.answers if is_over or each.at_ns <= self.steps[at].begun_ns])
        self.flips.night(folder, "A")


def test_a_refresh_that_lost_the_power_tells_no_lie(runs: Runner, api: Directory, tmp_path: Path) -> None:
    """At some moments, with one way to lose what is not synced; the soak test takes all."""
    losses = PowerLosses(Flips(runs, api, tmp_path))
    moments = losses.moments()

    assert losses.lose(moments[:: len(moments) // 3], ["any"]) >= 3


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_refresh_that_lost_the_power_at_any_moment_tells_no_lie(runs: Runner, api: Directory, tmp_path: Path) -> None:
    """Whatever part of what was not synced is lost."""
    losses = PowerLosses(Flips(runs, api, tmp_path))

    print(f"\n{losses.lose(losses.moments(), LOSSES)} states of the disk")


#: Of the steps that differ in their number alone, and of the writes that are torn, so many are taken. Most are the
#: partitions of a state, one like the other: all steps are some 1,000, of which each is two runs.
SAMPLED = 10


def sampled(plans: Iterable[Plan], dice: random.Random) -> Iterator[Plan]:
    """Some of each kind on each file: the first and the last, and others drawn."""
    alike: dict[tuple[str, str], list[Plan]] = {}
    for plan in plans:
        alike.setdefault((plan.kind, plan.name), []).append(plan)
    for first, *rest in alike.values():
        yield first
        yield from rest[-1:]
        yield from dice.sample(rest[:-1], min(len(rest[:-1]), SAMPLED - 2))


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", [1])
def test_killed_at_any_kind_of_step_a_refresh_tells_no_lie(
    runs: Runner, api: Directory, tmp_path: Path, seed: int
) -> None:
    """Instead of a step, and in the middle of a write."""
    flips, dice = Flips(runs, api, tmp_path), random.Random(seed)
    steps = flips.count()
    torn = (plan._replace(action="tear") for plan in steps if plan.kind == "write")
    flips.crash_each([*sampled(steps, dice), *sampled(torn, dice)])

    print(f"\nof {len(steps)} steps {flips.hits.total()} were hit, {flips.missed} missed")
    assert {f"{plan.kind} {plan.name}" for plan in steps} <= flips.hits.keys() | {"sync "}
    assert flips.missed <= len(steps) / 3
