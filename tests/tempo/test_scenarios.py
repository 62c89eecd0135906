"""The controllers in simulated weather: what they find must lie in the ranges that scenarios.yaml names."""

from pathlib import Path

import pytest
import yaml

from tests.tempo.simulation import Client, Scenario, Server, run
from tests.virtual_time import run_virtual

SCENARIOS = [
    Scenario.model_validate(each) for each in yaml.safe_load(Path(__file__).with_name("scenarios.yaml").read_text())
]


def check(scenario: Scenario, seed: int) -> None:
    trace = run_virtual(run(scenario, seed))
    for wanted in scenario.expect:
        for name in ("limit", "rate", "refused"):
            if (allowed := getattr(wanted, name)) is not None:
                found = getattr(trace, name)(wanted.since, wanted.until)
                assert allowed[0] <= found <= allowed[1], (
                    f"{name} between {wanted.since:g} s and {wanted.until:g} s is {found:.4g}, not in {allowed}"
                )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.about)
def test_what_is_found_lies_in_its_range(scenario: Scenario) -> None:
    check(scenario, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 22))
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.about)
def test_whatever_the_seed(scenario: Scenario, seed: int) -> None:
    check(scenario, seed)


@pytest.mark.parametrize("knee", [None, 24])
@pytest.mark.parametrize("latency_s", [0.005, 0.05, 0.25])
def test_it_is_no_worse_than_the_better_of_few_and_many(latency_s: float, knee: int | None) -> None:
    """From its first request on: 0.9 of what a limit of 8 or of 128 would have sent, in the time of 80 answers."""
    seconds = 80 * latency_s

    def rate(client: Client) -> float:
        server = Server(latency_s=latency_s, knee=knee)
        scenario = Scenario(about="", seconds=seconds, server=server, client=client, expect=[])
        return run_virtual(run(scenario, 1)).rate(0, seconds)

    few, many = rate(Client(concurrency=8, fixed=True)), rate(Client(concurrency=128, fixed=True))

    assert rate(Client(concurrency=128)) >= 0.9 * max(few, many)
