"""SIGKILL at every step of a hierarchy's load: its state is the old one or the new, and never ahead of the target."""

import json
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.crash.runs import Ended, Runner
from tests.crash.steps import Plan, Step
from tests.end_to_end import oracle
from tests.end_to_end.test_hierarchy import chain, held, kept, settings

KILLED = 128 + signal.SIGKILL


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with oracle.sandbox() as address:
        yield address


class Nights:
    """A load of one hierarchy, accepted; then nights with another, each killed elsewhere, from the same beginning."""

    def __init__(self, runs: Runner, folder: Path, url: str) -> None:
        self._runs = runs
        self._folder = folder / "load"
        self._template = folder / "template"
        self._url = url
        self._number = 0
        self.found: Counter[str] = Counter()
        self._template.mkdir()
        settings(self._template, url, scheme="basic")
        (self._template / "org.csv").write_text(chain("abc"))
        ended = runs.start(self._template, "run", self._template / "load.toml").wait()
        assert ended.status == 0, ended.err
        self._old = kept(self._template)

    def _run(self, *, plan: Plan | None = None, is_logged: bool = False) -> Ended:
        ended = self._runs.start(self._folder, "run", self._folder / "load.toml", plan=plan, is_logged=is_logged).wait()
        assert "Traceback" not in ended.err
        assert "internal error" not in ended.err, ended.err
        return ended

    def _begin(self) -> list[str]:
        """Another export each night, so that what the target holds tells which."""
        self._number += 1
        names = ["a", "b", "c", f"night {self._number}"]
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._template, self._folder)
        (self._folder / "org.csv").write_text(chain(names))
        return names

    def steps(self) -> list[Step]:
        """Of a night in which nothing happens."""
        self._begin()
        ended = self._run(is_logged=True)
        assert ended.status == 0, ended.err
        return ended.steps

    def kill(self, plan: Plan) -> None:
        names = self._begin()
        assert self._run(plan=plan).status == KILLED, plan
        is_taken = [group["group"] for group in held(self._url)] == names
        state = json.loads((self._folder / "org.state").read_bytes())["records"]
        is_kept = state != self._old
        assert not is_kept or (is_taken and state == held(self._url)), plan
        self.found["kept" if is_kept else "taken" if is_taken else "not taken"] += 1

        ended = self._run()

        assert ended.status == 0, (plan, ended.err)
        assert [group["group"] for group in held(self._url)] == names, plan
        assert kept(self._folder) == held(self._url), plan
        left = {path.name for path in self._folder.iterdir()} - {"load.toml", "org.csv", "org.state", "org.ckpt"}
        assert all(name.startswith("org.ckpt.2") for name in left), (plan, left)

    def kill_each(self, plans: Sequence[Plan]) -> None:
        for plan in plans:
            self.kill(plan)


def at_each(steps: Sequence[Step]) -> list[Plan]:
    return [Plan("*", "*", number) for number in range(1, len(steps) + 1)]


def test_killed_where_it_is_kept_the_state_is_the_old_or_the_new(runs: Runner, url: str, tmp_path: Path) -> None:
    """Instead of each step that makes it; the soak test takes all steps of a run."""
    nights = Nights(runs, tmp_path, url)
    steps = nights.steps()
    first = next(number for number, step in enumerate(steps) if step.name == "org.state.part")

    nights.kill_each(at_each(steps)[first : first + 6])

    assert set(nights.found) == {"taken", "kept"}


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_killed_at_any_step_the_state_is_the_old_or_the_new(runs: Runner, url: str, tmp_path: Path) -> None:
    """From before the checkpoint is set aside to behind the end; writes of the state half done, too."""
    nights = Nights(runs, tmp_path, url)
    steps = nights.steps()
    torn = [Plan("write", "org.state.part", 1, "tear")]

    nights.kill_each([*at_each(steps), *torn])

    print(f"\n{len(steps)} steps: {dict(nights.found)}")
    assert set(nights.found) == {"not taken", "taken", "kept"}
