"""A disk that is full, broken or read-only, at any step: the run says so and ends, and goes on when it is mended."""

import errno
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
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
from tests.crash.steps import Action, Plan, places

FINISHED, REFUSED, STOPPED = 1, 2, 3  # 1: some of the rows are broken

FAULTS: dict[str, tuple[Action, int]] = {
    "an I/O error": ("fail", errno.EIO),
    "a dead disk": ("break", errno.EIO),
    "a full disk": ("full", errno.ENOSPC),
    "a disk that is read-only of a sudden": ("break", errno.EROFS),
}

#: Steps that SQLite, or the loader, can do without. The last of a run are: what is settled is in the log by then.
_NEEDLESS = {("sync-folder", ""), ("remove", f"{CHECKPOINT}.lock")}
_LAST = {f"{CHECKPOINT}", f"{CHECKPOINT}-wal", f"{CHECKPOINT}-shm"}


@dataclass
class Faults:
    """One load, over and over, each time with a fault elsewhere."""

    runs: Runner
    api: Directory
    folder: Path
    load: Load
    most_resent: int = 0

    def run(self, settings: Path, plan: Plan | None = None, file_bytes: int | None = None) -> Ended:
        run = self.runs.start(
            settings.parent, "run", settings, plan=plan, is_logged=plan is None, file_bytes=file_bytes
        )
        ended = run.wait()
        assert "Traceback" not in ended.err
        assert "internal error" not in ended.err, (plan, ended.err)
        assert list(settings.parent.glob("loader-crash-*")) == []
        return ended

    def begin(self) -> Path:
        folder = self.folder / "load"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.expected = make_export(folder / self.load.export, self.load)
        self.api.begin()
        return write_settings(folder, self.load, self.api.url)

    def count(self) -> list[Plan]:
        """The steps of a run that nothing happens to."""
        return places(self.run(self.begin()).steps)

    def fail(self, plan: Plan) -> int:
        """A run into this fault, and another without it. Returns the status of the first."""
        settings = self.begin()
        first = self.run(settings, plan)
        self.check(first, plan)
        self.finish(settings)
        return first.status

    def check(self, ended: Ended, plan: Plan | None = None) -> None:
        """It told what is wrong, and claims nothing that isn't so."""
        found = claims(self.folder / "load", self.folder)
        assert_claims_are_true(found, self.api.answers, self.expected)
        if ended.status == FINISHED:
            assert plan is not None
            assert (plan.kind, plan.name) in _NEEDLESS or plan.name in _LAST
            assert_exact(found, self.api, self.expected)
            return
        assert ended.status in (REFUSED, STOPPED), (plan, ended.err)
        assert any(line.startswith("loader: ") and CHECKPOINT in line for line in ended.err.splitlines()), ended.err
        if ended.status == REFUSED:
            assert (self.api.answers, self.api.token_calls) == ([], 0), ended.err
        else:
            assert "Go on with: loader run " in ended.err

    def finish(self, settings: Path) -> None:
        """The same command, on a disk that is well again."""
        ended = self.run(settings)
        assert ended.status == FINISHED, ended.err
        resent = assert_exact(claims(self.folder / "load", self.folder), self.api, self.expected)
        assert resent <= self.load.in_flight
        self.most_resent = max(self.most_resent, resent)


def with_fault(plans: Iterable[Plan], name: str) -> list[Plan]:
    action, value = FAULTS[name]
    return [plan._replace(action=action, value=value) for plan in plans]


@pytest.mark.parametrize(
    ("name", "plan", "status"),
    [
        ("an I/O error", Plan("sync", f"{CHECKPOINT}-wal", 2), REFUSED),
        ("a dead disk", Plan("write", CHECKPOINT, 9), FINISHED),
        ("a full disk", Plan("write", f"{CHECKPOINT}-wal", 23), STOPPED),
        ("a disk that is read-only of a sudden", Plan("write", f"{CHECKPOINT}-wal", 23), STOPPED),
    ],
)
def test_a_fault_ends_a_run_that_can_go_on(
    runs: Runner, api: Directory, tmp_path: Path, name: str, plan: Plan, status: int
) -> None:
    """A sample: refused, 2, before anything is sent; then stopped, 3; and at the very end it is no matter."""
    faults = Faults(runs, api, tmp_path, Load(users=300))

    assert [faults.fail(each) for each in with_fault([plan], name)] == [status]


@pytest.mark.soak
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_at_any_step(runs: Runner, api: Directory, tmp_path: Path, name: str) -> None:
    """Each step of the checkpoint, its log, its index and the lock."""
    faults = Faults(runs, api, tmp_path, Load())
    plans = with_fault(faults.count(), name)
    statuses = [faults.fail(plan) for plan in plans]

    print(
        f"\n{name}: {len(plans)} steps; refused {statuses.count(REFUSED)}, stopped {statuses.count(STOPPED)}, "
        f"finished all the same {statuses.count(FINISHED)}; at most {faults.most_resent} users sent again"
    )
    assert set(statuses) == {REFUSED, STOPPED, FINISHED}


def test_the_log_is_not_done_without(runs: Runner, api: Directory, tmp_path: Path) -> None:
    """An I/O error while SQLite changes to its log was not asked for: the run went on without one, and each commit
    ended with the removal of a file, which is not synced."""
    faults = Faults(runs, api, tmp_path, Load(users=300))
    ended = faults.run(faults.begin(), Plan("sync", f"{CHECKPOINT}-journal", 3, "fail", errno.EIO))

    assert ended.status == REFUSED, ended.err
    assert f"can't use the checkpoint {tmp_path}/load/{CHECKPOINT}: disk I/O error" in ended.err


def test_a_file_that_may_not_grow_stops_a_run(runs: Runner, api: Directory, tmp_path: Path) -> None:
    """A real limit of the system's (ulimit -f), at which a write is cut short and the next one fails."""
    faults = Faults(runs, api, tmp_path, Load(users=300))
    settings = faults.begin()
    ended = faults.run(settings, file_bytes=180_000)

    assert ended.status == STOPPED, ended.err
    faults.check(ended)
    assert len(claims(settings.parent, tmp_path)) > 0
    faults.finish(settings)
