"""Counters add up, and a load that can't end well stops early."""

import pytest

from loader.outcome import Code, Outcome
from loader.progress import Brake, Found, Meter, Tally
from tests import make


def tally(**counts: int) -> Tally:
    """A run with these outcomes."""
    made = Tally()
    for name, count in counts.items():
        made.counts[Code[name]] = count
    return made


def test_rows_are_the_sum_over_the_codes() -> None:
    """Of all runs; those merged away count as SUPERSEDED."""
    made = tally(SUCCESS=5)
    made.add([make.outcome()] * 3 + [make.outcome(Code.FAILED, "why")], superseded=2)

    assert made.counts == {Code.SUCCESS: 8, Code.FAILED: 1, Code.SUPERSEDED: 2}
    assert (made.rows, made.failures, made.last_failure) == (11, 1, "FAILED: why")


@pytest.mark.parametrize("code", Code)
def test_the_exit_status_is_0_only_for_good_outcomes(code: Code) -> None:
    """SUCCESS, UNCHANGED, SUPERSEDED and SKIPPED."""
    good = {Code.SUCCESS, Code.UNCHANGED, Code.SUPERSEDED, Code.SKIPPED}

    assert Tally({code: 1}).exit_status == (0 if code in good else 1)
    assert Tally({code: 1}).is_proven is (code is Code.SUCCESS)


@pytest.mark.parametrize(
    ("counts", "stops"),
    [
        ({"USER_NOT_FOUND": 999}, False),
        ({"USER_NOT_FOUND": 1000}, True),
        ({"USER_NOT_FOUND": 900, "INVALID": 100}, True),
        ({"USER_NOT_FOUND": 5000, "SUCCESS": 1}, False),
        ({"USER_NOT_FOUND": 5000, "PARTIAL": 1}, False),
        ({"REJECTED": 5000}, False),
        ({"USER_NOT_FOUND": 500, "REJECTED": 5000, "SKIPPED": 100, "SUPERSEDED": 100}, False),
    ],
)
def test_a_load_of_which_nothing_succeeds_stops(counts: dict[str, int], stops: bool) -> None:
    """After the first thousand users sent: the mapping is wrong, not the users."""
    assert (tally(**counts).reason_to_stop("100%") is not None) is stops


@pytest.mark.parametrize(
    ("most", "counts", "stops"),
    [
        (0, {"SUCCESS": 9}, False),
        (0, {"SUCCESS": 9, "FAILED": 1}, True),
        (5, {"REJECTED": 5}, False),
        (5, {"REJECTED": 5, "INVALID": 1}, True),
        ("5%", {"SUCCESS": 95, "FAILED": 5}, False),
        ("5%", {"SUCCESS": 94, "FAILED": 6}, True),
        ("5%", {"SUCCESS": 9, "FAILED": 5}, False),  # of so few rows a share says nothing: 5 % of 100 may fail
        ("5%", {"SUCCESS": 9, "FAILED": 6}, True),
        ("0%", {"SUCCESS": 9, "FAILED": 1}, True),
        ("0.5%", {"SUCCESS": 994, "REJECTED": 6}, True),
        ("100%", {"REJECTED": 500}, False),
        ("5%", {"SUCCESS": 100, "SKIPPED": 500}, False),
    ],
)
def test_more_failures_than_allowed_stop_a_load(most: str | int, counts: dict[str, int], stops: bool) -> None:
    """A number of rows, or a share of those so far."""
    assert (tally(**counts).reason_to_stop(most) is not None) is stops


def test_the_reason_to_stop_has_the_targets_words() -> None:
    """And the setting, where it was one."""
    made = tally(SUCCESS=1)
    made.add([Outcome(Code.USER_NOT_FOUND, "no such UPN")] * 2)

    assert made.reason_to_stop(1) == (
        "2 of 3 rows failed, more than limits.max_failures = 1; the last: USER_NOT_FOUND: no such UPN. "
        "To go on all the same, raise that limit"
    )


def test_a_meter_measures_this_run_alone() -> None:
    """What earlier runs did counts for the share, not for the rate."""
    now = 100.0
    position = 500
    made = Tally({Code.SUCCESS: 1000})
    meter = Meter(made, 1000, lambda: position, lambda: now)
    assert meter.snapshot().left_s is None

    made.add([make.outcome()] * 400)
    now, position = 110.0, 700
    found = meter.snapshot()

    assert (found.rows, found.share, found.rows_per_s, found.elapsed_s, found.left_s) == (1400, 0.7, 40, 10, 15)


def test_who_runs_it_again_has_decided_to_go_on() -> None:
    """The first thousand users are judged once: the users may really not be there."""
    again = Tally({Code.USER_NOT_FOUND: 2_100})
    again.add([Outcome(Code.USER_NOT_FOUND)] * 2_000)

    assert again.reason_to_stop("100%") is None


def test_of_an_export_without_a_size_no_share_is_known() -> None:
    """Stdin has none; that is no division by zero."""
    assert Meter(tally(), 0, lambda: 0, lambda: 0.0).snapshot().share is None


def test_what_was_found_is_told_in_words() -> None:
    found = Found(requests_per_s=48.7, concurrency=24, users=120, brake="rate")

    assert list(found.words()) == [
        "the target refuses to take more",
        "24 requests at once",
        "up to 48.7 requests/s",
        "up to 120 users a request",
    ]
    assert list(Found().words()) == []


def test_the_brake_is_what_was_waited_for_most_of_late() -> None:
    at_work: list[Brake] = ["quota"]
    meter = Meter(Tally(), 0, lambda: 0, lambda: 0.0, lambda: Found(brake=at_work[0]))
    assert meter.found().brake is None, "nothing was looked at yet"
    seen = []
    for at_work[0] in ("quota", "target"):
        for _ in range(30):
            meter.sample()
        seen.append(meter.found().brake)

    assert seen == ["quota", "target"]
