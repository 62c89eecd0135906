"""Power lost at any moment of a load, with any part of what was not synced: nothing is lost (promises 1 and 2).

A load's steps are recorded with their data; from them come the files that could be on the disk afterwards (disk.py).
The next run opens those, and goes on with an API that holds what it had taken by then.
"""

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from tests.crash.disk import LOSSES, Disk, Loss
from tests.crash.loads import (
    CHECKPOINT,
    Answer,
    Directory,
    Expected,
    Load,
    assert_claims_are_true,
    assert_exact,
    claims,
    make_export,
    write_settings,
)
from tests.crash.runs import Runner
from tests.crash.steps import Step

FINISHED = 1  # some of the rows are broken

#: Each answer is a commit, so that SQLite brings its log of 1,000 pages into the file and begins it anew, too.
MANY_COMMITS = Load(concurrency=1, users_per_request=3)

LOADS = [Load(), MANY_COMMITS, Load(suffix=".gz", is_stdin=True, note_bytes=1_500, users_per_request=100)]


@dataclass
class Recording:
    """A run to its end: the files there were before it, its steps, and what the API answered until its end."""

    before: dict[str, tuple[int, bytes]]
    steps: list[Step]
    answers: list[Answer]

    def moments(self) -> list[int]:
        """Numbers of steps done, each just before something is synced, when most can be lost; and after the last."""
        return [at for at, step in enumerate(self.steps) if step.kind.startswith("sync")] + [len(self.steps)]

    def disks(self) -> Iterator[tuple[int, Disk]]:
        """The disk at each of the moments."""
        disk = Disk.holding(self.before)
        moments = set(self.moments())
        for at, step in enumerate(self.steps):
            if at in moments:
                yield at, disk
            disk.do(step)
        yield len(self.steps), disk

    def answered(self, at: int) -> list[Answer]:
        """What the API had answered for sure when so many steps were done."""
        end = self.steps[at - 1].ended_ns if at else self.steps[0].begun_ns
        return [answer for answer in self.answers if answer.at_ns <= end]

    def taken(self, at: int) -> list[Answer]:
        """What it may have answered before the next step began."""
        return [answer for answer in self.answers if at == len(self.steps) or answer.at_ns <= self.steps[at].begun_ns]


@dataclass
class PowerLosses:
    """One load, recorded once, and gone on with from what is left of it."""

    runs: Runner
    api: Directory
    folder: Path
    load: Load
    expected: Expected
    most_resent: int = 0

    def record(self, folder: Path, answers: Sequence[Answer] = (), *flags: str) -> Recording:
        """A run in `folder`, to its end."""
        before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in folder.glob(f"{CHECKPOINT}*")}
        self.api.begin(answers)
        settings = write_settings(folder, self.load, self.api.url)
        stdin = folder / self.load.export if self.load.is_stdin else None
        ended = self.runs.start(folder, "run", settings, *flags, has_data=True, stdin=stdin).wait()
        assert ended.status == FINISHED, ended.err
        resent = assert_exact(claims(folder, self.folder), self.api, self.expected)
        self.most_resent = max(self.most_resent, resent)
        return Recording(before, ended.steps, list(self.api.answers))

    def folder_with(self, files: dict[str, bytes]) -> Path:
        folder = self.folder / "after"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / self.load.export).hardlink_to(self.folder / self.load.export)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder

    def lose(self, recording: Recording, at: int, disk: Disk, loss: Loss, seed: int, losses: int = 1) -> Recording:
        """Lose the power after `at` steps, and go on."""
        folder = self.folder_with(disk.after(loss, random.Random(seed)))
        assert_claims_are_true(claims(folder, self.folder), recording.answered(at), self.expected)
        self.most_resent = 0
        found = self.record(folder, recording.taken(at))
        assert self.most_resent <= losses * self.load.in_flight
        return found


def prepared(runs: Runner, api: Directory, folder: Path, load: Load) -> tuple[PowerLosses, Recording]:
    """The load as it goes without a fault."""
    first = folder / "first"
    first.mkdir()
    losses = PowerLosses(runs, api, folder, load, make_export(folder / load.export, load))
    (first / load.export).hardlink_to(folder / load.export)
    return losses, losses.record(first)


def test_what_is_left_by_a_power_loss_is_gone_on_with(runs: Runner, api: Directory, tmp_path: Path) -> None:
    """A sample of moments and losses; the soak test takes all moments."""
    losses, recording = prepared(runs, api, tmp_path, Load(users=600))
    moments = recording.moments()
    wanted = {moments[at * (len(moments) - 1) // 9]: LOSSES[at % len(LOSSES)] for at in range(10)}

    for at, disk in recording.disks():
        if at in wanted:
            losses.lose(recording, at, disk, wanted[at], seed=at)


@pytest.mark.soak
@pytest.mark.parametrize("load", LOADS, ids=str)
def test_power_lost_at_any_moment(runs: Runner, api: Directory, tmp_path: Path, load: Load) -> None:
    """Before each sync of a load, in several ways; and from some of those, again while the next run recovers."""
    losses, recording = prepared(runs, api, tmp_path, load)
    states = again = most = 0
    for at, disk in recording.disks():
        for loss in (*LOSSES, "any", "any"):
            states += 1
            next_run = losses.lose(recording, at, disk, loss, seed=states)
            most = max(most, losses.most_resent)
            if states % 7 == 0 and next_run.steps:
                number = states % min(len(next_run.moments()), 12)  # recovery is in the first few
                later, next_disk = next(islice(next_run.disks(), number, None))
                losses.lose(next_run, later, next_disk, "any", seed=states, losses=2)
                again += 1
    print(
        f"\n{load}: {len(recording.steps)} steps, {len(recording.moments())} moments, {states} states, {again} after a "
        f"second loss; at most {most} users sent again (allowed: {load.in_flight})"
    )
