"""Lives of the loader as processes, in real time, killed by SIGKILL; the API is served by a thread of the test."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from loader.request import Request, Response
from loader.sandbox import FaultOptions, Sandbox, serve
from tests.chaos.judge import Figures, Judge, claims
from tests.chaos.scenario import ENVIRONMENT, SECRET, TOKEN, Scenario

#: Lives after which the API's bad days are over, and lives that a load may need in all.
BAD_LIVES, MOST_LIVES = 8, 16
_PATIENCE_S = 120.0


def live_through(scenario: Scenario, folder: Path) -> Figures:
    """Live it through, and judge each life and the end."""
    try:
        with _api(scenario) as (sandbox, sent):
            return _live_through(scenario, folder, sandbox, sent)
    except AssertionError as error:
        raise AssertionError(f"{scenario}, as processes: {error}") from error


def _live_through(scenario: Scenario, folder: Path, sandbox: Sandbox, sent: list[Request]) -> Figures:
    settings = scenario.prepare(folder, sandbox.url)
    judge = Judge(scenario, int(str(scenario.limits["users_per_request"])))
    dice = random.Random(f"{scenario.seed} lives")
    kills = list(scenario.kills)
    for number in range(MOST_LIVES):
        if number == BAD_LIVES:
            sandbox.faults = FaultOptions()
        first = len(sent)
        # What the simulation calls a moment is half a request, roughly: it is sent, and answered.
        status, message = _run(folder, settings, sent, kills.pop() // 2 if kills else 0, dice.uniform(0, 0.03))
        _wait_for_rest(sandbox)
        is_killed = status == -signal.SIGKILL
        judge.judge_life(sent[first:], sandbox.ledger, claims(folder), is_killed=is_killed, reason=message)
        if status in (0, 1):
            judge.judge_end(sandbox)
            return judge.figures
        assert is_killed or status == 3, f"exit status {status}: {message}"
    raise AssertionError(f"it goes on and on: {judge.figures.stops}")


@contextmanager
def _api(scenario: Scenario) -> Iterator[tuple[Sandbox, list[Request]]]:
    """The API, and the list of all requests that reach it."""
    sent: list[Request] = []
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serve(scenario.options)) as sandbox:
        answer = sandbox.answer

        async def noted(request: Request) -> Response:
            sent.append(request)
            return await answer(request)

        sandbox.answer = noted  # type: ignore[method-assign]
        yield sandbox, sent


def _run(folder: Path, settings: Path, sent: list[Request], requests: int, delay_s: float) -> tuple[int, str]:
    """One process; killed `delay_s` after so many requests, if it lives so long (0: not at all). How it ended."""
    end = len(sent) + requests
    with (folder / "stderr").open("w+") as err:
        command = [sys.executable, "-m", "loader", "run", str(settings)]
        process = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=err)
        try:
            while requests and process.poll() is None and len(sent) < end:
                time.sleep(0.002)
            if requests and process.poll() is None:
                time.sleep(delay_s)
            else:
                process.wait(_PATIENCE_S)
        finally:
            process.kill()
            process.wait()
        err.seek(0)
        said = err.read()
    assert "Traceback" not in said, said
    assert "internal error" not in said, said
    assert not any(secret in said for secret in (SECRET, TOKEN)), said
    is_stopped = process.returncode == 3
    return process.returncode, said.splitlines()[-2].removeprefix("loader: ") if is_stopped else ""


def _wait_for_rest(sandbox: Sandbox) -> None:
    """Until the API has ended what it had begun."""
    end = time.monotonic() + _PATIENCE_S
    while sum(sandbox.stats.in_flight.values()):
        assert time.monotonic() < end, json.dumps(sandbox.stats.as_json())
        time.sleep(0.01)
