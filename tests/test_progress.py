"""Counters add up, and a load that can't end well stops early."""

import pytest

from loader.outcome import GOOD, Code, Outcome
from loader.progress import Tally
from loader.snapshot import Failure
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
    made.add([make.outcome()] * 3 + [make.outcome(Code.FAILED, "why")], range(1, 5), "abcd", superseded=2)

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
    made.add([Outcome(Code.USER_NOT_FOUND, "no such UPN")] * 2, [1, 2], ["a", "b"])

    reason = made.reason_to_stop(1)
    assert str(reason) == (
        "2 of 3 rows failed, more than limits.max_failures = 1; the last: USER_NOT_FOUND: no such UPN. "
        "To go on all the same, raise that limit"
    )


@pytest.mark.parametrize(
    ("most", "failures", "raised"), [(1, 2, "4"), ("5%", 20, "20%"), ("5%", 11, "11%"), ("60%", 180, "100%")]
)
def test_the_command_to_go_on_with_allows_more_failures(most: str | int, failures: int, raised: str) -> None:
    """With the limit that stopped it, it could not go on."""
    made = tally(SUCCESS=200 - failures, INVALID=failures)

    reason = made.reason_to_stop(most)
    assert reason is not None
    assert reason.flags == ("--set", f"limits.max_failures={raised}")
    assert made.reason_to_stop(int(raised) if raised.isdigit() else raised) is None


def test_who_runs_it_again_has_decided_to_go_on() -> None:
    """The first thousand users are judged once: the users may really not be there."""
    again = Tally({Code.USER_NOT_FOUND: 2_100})
    again.add([Outcome(Code.USER_NOT_FOUND)] * 2_000, range(2_000), [""] * 2_000)

    assert again.reason_to_stop("100%") is None


def test_what_is_accepted_fails_no_load_and_passes_no_limit() -> None:
    """For the exit status it counts as well; but a wrong key column, which makes all users unknown, still stops."""
    good = GOOD | {Code.USER_NOT_FOUND}
    one = Tally({Code.SUCCESS: 90, Code.USER_NOT_FOUND: 10}, good)
    one.add([make.outcome(Code.USER_NOT_FOUND), make.outcome(Code.FAILED)], [1, 2], ["a", "b"])

    assert (one.failures, one.exit_status) == (1, 1)
    assert [failure.user for failure in one.failed] == ["b"]
    assert Tally({Code.USER_NOT_FOUND: 10}, good).exit_status == 0
    assert "more than limits.max_failures = 5%" in str(one.reason_to_stop("5%"))
    for counts, stops in (({}, True), ({Code.UNCHANGED: 1}, False), ({Code.SUCCESS: 1}, False)):
        quiet = Tally(counts, good)
        quiet.add([make.outcome(Code.USER_NOT_FOUND)] * 1_500, range(1_500), [""] * 1_500)
        assert (quiet.reason_to_stop("100%") is not None) is stops


def test_the_failures_seen_last_are_kept() -> None:
    """Of each batch a few, so that the screen shows more than one batch's; rows and users with them."""
    made = Tally()
    for batch in range(4):
        rows = range(batch * 10, batch * 10 + 10)
        outcomes = [make.outcome(Code.INVALID if row % 2 else Code.SUCCESS, f"no. {row}") for row in rows]
        made.add(outcomes, rows, [f"user{row}" for row in rows])

    assert [failure.row for failure in made.failed] == [9, 15, 17, 19, 25, 27, 29, 35, 37, 39]
    assert made.failed[-1] == Failure(39, "user39", Code.INVALID, "no. 39")
    assert made.last_failure == "INVALID: no. 39"
