"""SIGTERM and SIGINT, whatever a run is doing: 143 and 130, soon, and the next run goes on exactly."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.crash.loads import (
    Directory,
    Expected,
    Load,
    assert_claims_are_true,
    assert_exact,
    claims,
    make_export,
    write_settings,
)
from tests.crash.runs import Ended, Run, Runner
from tests.crash.steps import Plan, places

FINISHED = 1  # some of the rows are broken
LOAD = Load(users=300, suffix=".gz")
SOON_S = 10.0  # far below the pauses that are cut short, far above what a busy machine takes


class Stage(NamedTuple):
    """What a run does while the API has these faults, and how that is seen."""

    is_reached: Callable[[Directory], bool]
    faults: dict[str, Any]


STAGES = {
    "a token call": Stage(lambda api: api.stats.in_flight["token"] > 0, {"latency_s": 0.4}),
    "a token call's backoff": Stage(lambda api: api.stats.arrivals["token"] > 2, {"rates": {"500": 1}, "on": "token"}),
    "requests on the wire": Stage(lambda api: api.stats.in_flight["data"] > 0, {"latency_s": 0.4}),
    "a backoff": Stage(lambda api: api.stats.arrivals["data"] > 8, {"rates": {"500": 1}}),
    "a pause that the API asked for": Stage(
        lambda api: ("/v1/directory/user-attributes", "429") in api.stats.requests,
        {"rates": {"429": 1}, "retry_after_s": 60},
    ),
}


class Interruptions:
    """A load that is interrupted, and gone on with."""

    def __init__(self, runs: Runner, api: Directory, folder: Path, load: Load = LOAD) -> None:
        self.runs, self.api, self.load = runs, api, load
        self.scratch = folder / "scratch"
        self.folder = folder / "load"
        self.scratch.mkdir()

    def start(self, plan: Plan | None = None, *, is_logged: bool = False, stdin: Path | None = None) -> Run:
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.iterdir():
            path.unlink()
        self.expected: Expected = make_export(self.folder / self.load.export, self.load)
        self.settings = write_settings(self.folder, self.load, self.api.url)
        return self.runs.start(self.folder, "run", self.settings, plan=plan, is_logged=is_logged, stdin=stdin)

    def ended(self, run: Run, status: int) -> Ended:
        """It ended so, and claims nothing that isn't so."""
        found = run.wait()
        assert found.status == status, found.err
        assert "Traceback" not in found.err
        assert_claims_are_true(self.claims(), self.api.answers, self.expected)
        return found

    def claims(self) -> dict[int, Any]:
        return claims(self.folder, self.scratch)

    def finish(self) -> int:
        """The same command again. Returns how many users were sent again."""
        self.api.set_faults()
        stdin = self.folder / self.load.export if self.load.is_stdin else None
        ended = self.runs.start(self.folder, "run", self.settings, stdin=stdin).wait()
        assert ended.status == FINISHED, ended.err
        return assert_exact(self.claims(), self.api, self.expected)


def wait_until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("stage", "number"), [(stage, [signal.SIGTERM, signal.SIGINT][at % 2]) for at, stage in enumerate(STAGES)]
)
def test_a_run_is_interrupted(runs: Runner, api: Directory, tmp_path: Path, stage: str, number: signal.Signals) -> None:
    """Pauses are cut short; what is on the wire is left to finish and is settled, so that nothing is sent again."""
    load = Interruptions(runs, api, tmp_path)
    api.set_faults(**STAGES[stage].faults)
    run = load.start()
    wait_until(lambda: STAGES[stage].is_reached(api))
    sent_at = time.monotonic()
    os.kill(run.pid, number)
    ended = load.ended(run, 128 + number)

    assert time.monotonic() - sent_at < SOON_S
    assert f"interrupted by {number.name}" in ended.err
    assert "Go on with: loader run" in ended.err
    assert load.finish() == 0


def test_a_second_signal_ends_a_run_at_once(runs: Runner, api: Directory, tmp_path: Path) -> None:
    """What is on the wire is not waited for, and is sent again."""
    load = Interruptions(runs, api, tmp_path)
    api.set_faults(latency_s=1)
    run = load.start()
    wait_until(lambda: api.stats.in_flight["data"])
    os.kill(run.pid, signal.SIGINT)
    wait_until(lambda: "stopping; what is in flight may finish" in run.err())
    os.kill(run.pid, signal.SIGTERM)
    ended = load.ended(run, 128 + signal.SIGTERM)

    assert api.stats.in_flight["data"], "it did not wait"
    assert "stopped at once" in ended.err
    wait_until(lambda: not api.stats.in_flight["data"])  # the API takes them all the same
    assert 0 < load.finish() <= load.load.in_flight


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_export_that_does_not_come_holds_nobody_up(
    runs: Runner, api: Directory, tmp_path: Path, number: signal.Signals
) -> None:
    """stdin is a pipe whose other end is silent: a run that waits for it can be interrupted, too."""
    load = Interruptions(runs, api, tmp_path, Load(users=300, is_stdin=True, note_bytes=8_000))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)  # both ends, so that opening it waits for nobody
    try:
        run = load.start(stdin=pipe)
        left = memoryview((load.folder / load.load.export).read_bytes()[: 3 << 19])
        while left:
            left = left[os.write(writer, left[: 1 << 15]) :]
        wait_until(lambda: api.answers)
        sent_at = time.monotonic()
        os.kill(run.pid, number)
        load.ended(run, 128 + number)
    finally:
        os.close(writer)

    assert time.monotonic() - sent_at < SOON_S
    assert load.finish() == 0


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_step(runs: Runner, api: Directory, tmp_path: Path, number: signal.Signals) -> None:
    """Before the first request, during each commit, at the very end: once the load is finished, it stays so."""
    load = Interruptions(runs, api, tmp_path)
    plans = places(load.start(is_logged=True).wait().steps)
    late, resent = list[int](), 0
    for at, plan in enumerate(plans):
        api.begin()
        ended = load.start(plan._replace(action="signal", value=number)).wait()
        assert ended.status in (128 + number, FINISHED), (plan, ended.err)
        assert "Traceback" not in ended.err
        late += [at] * (ended.status == FINISHED)
        assert_claims_are_true(load.claims(), api.answers, load.expected)
        resent = max(resent, load.finish())

    print(f"\n{number.name}: {len(plans)} steps, {len(late)} too late to be heeded; at most {resent} users sent again")
    assert min(late, default=len(plans)) > len(plans) * 2 / 3, "all is on the wire by then, but not before"
    assert resent <= load.load.in_flight
