"""The shim sees every step of a run that changes a file, and does to it what the plan says."""

import errno
import random
import signal
from pathlib import Path

import pytest

from tests.crash.disk import Disk
from tests.crash.loads import CHECKPOINT, Directory, Load, make_export, write_settings
from tests.crash.runs import Runner
from tests.crash.steps import Action, Plan, places, spread

LOAD = Load(users=300)
PAGE = 16_384


@pytest.fixture
def settings(tmp_path: Path, api: Directory) -> Path:
    make_export(tmp_path / LOAD.export, LOAD)
    return write_settings(tmp_path, LOAD, api.url)


def test_the_steps_alone_make_the_files(runs: Runner, settings: Path) -> None:
    """Done again on an empty disk, they give the checkpoint byte for byte, with its log: nothing was overlooked."""
    plan = Plan("sync", f"{CHECKPOINT}-wal", 5)
    ended = runs.start(settings.parent, "run", settings, plan=plan, has_data=True).wait()
    disk = Disk()
    for step in ended.steps:
        disk.do(step)
    made = disk.after("none", random.Random(0))

    files = {path.name: path.read_bytes() for path in settings.parent.glob(f"{CHECKPOINT}*")}
    assert files.keys() == made.keys() == {f"{CHECKPOINT}{suffix}" for suffix in ("", "-wal", "-shm", ".lock")}
    del files[f"{CHECKPOINT}-shm"]  # it is memory, that is written without a call
    assert files == {name: made[name] for name in files}


@pytest.mark.parametrize(
    ("action", "value", "status", "done", "goes_on"),
    [
        ("kill", 0, 128 + signal.SIGKILL, 0, False),
        ("tear", 0, 128 + signal.SIGKILL, PAGE // 2, False),
        ("fail", errno.EIO, 3, 0, True),
        ("full", errno.ENOSPC, 3, PAGE // 2, True),
        ("break", errno.EIO, 3, 0, False),
        ("signal", signal.SIGTERM, 128 + signal.SIGTERM, PAGE, True),
    ],
)
def test_a_plan_is_kept(
    runs: Runner, settings: Path, action: Action, value: int, status: int, done: int, goes_on: bool
) -> None:
    """At the step that it names, the eleventh page in the log, of which so many bytes are done; and nowhere before."""
    log = f"{CHECKPOINT}-wal"
    plan = Plan("write", log, 23, action, value)
    ended = runs.start(settings.parent, "run", settings, plan=plan, is_logged=True).wait()
    writes = [step for step in ended.steps if (step.kind, step.name) == ("write", log)]
    behind = ended.steps[ended.steps.index(writes[21]) + 1 :]

    assert ended.status == status, ended.err
    assert [step.length for step in writes[:22]] == [32, *[24, PAGE] * 10, 24]
    if goes_on:
        assert ("remove", f"{CHECKPOINT}.lock") in [(step.kind, step.name) for step in behind]
        assert [step.length for step in writes[22:23]] == [done] or not done
    else:
        assert behind == []
        assert settings.with_name(log).stat().st_size == writes[21].offset + 24 + done


def test_a_sample_has_each_kind_of_step() -> None:
    """The first of each, and others at even distances."""
    plans = [Plan("write", "a", at) for at in range(1, 11)] + [Plan("sync", "a", 1), Plan("sync", "b", 1)]

    assert [(plan.kind, plan.name, plan.number) for plan in spread(plans, 5)] == [
        ("write", "a", 1),
        ("write", "a", 2),
        ("write", "a", 6),
        ("sync", "a", 1),
        ("sync", "b", 1),
    ]
    assert len(places([])) == 0
