"""Quotas as servers count them, and what they say of their client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.sandbox.options import DOCUMENTED_QUOTAS, Options, QuotaOptions, RetryAfter
from loader.sandbox.quota import Quota, Window, admit, retry_after


def waits(quota: Quota | list[Quota], *arrivals: float | tuple[float, int]) -> list[float | None]:
    """What becomes of requests at these moments, or (moment, users): None if one passes, else the seconds to wait."""
    found = []
    for arrival in arrivals:
        now, users = arrival if isinstance(arrival, tuple) else (arrival, 0)
        pause = admit(quota if isinstance(quota, list) else [quota], now, users)
        found.append(None if pause is None else float(pause["retry-after"]))
    return found


def of(requests: int | None = None, **more: object) -> Quota:
    return Quota(QuotaOptions.model_validate({"requests": requests, "retry_after": "decimal", **more}))


def test_a_sliding_window_slides() -> None:
    """A place is free again exactly one window after it was taken, not at a full minute."""
    quota = of(2)

    assert waits(quota, 0, 50, 59, 60, 61, 110) == [None, None, 1, None, 49, None]
    assert quota.refused == 2


def test_a_fixed_window_begins_at_full_minutes() -> None:
    """All places are free again with the next multiple of the window on the unix clock, and at once."""
    quota = of(2, kind="fixed")

    assert waits(quota, 50, 58, 59, 60, 60, 61, 179.5, 180) == [None, None, 1, None, None, 59, None, None]
    assert quota.refused == 2


def test_the_witness_counts_refused_requests_too() -> None:
    """The peak is of arrivals in the quota's own windows: it judges the client, not the server."""
    sliding, fixed = of(1, window_s=10), of(1, window_s=10, kind="fixed")
    for quota in (sliding, fixed):
        waits(quota, 8, 9, 11, 30)

    assert (sliding.peak, sliding.refused) == (3, 2)
    assert (fixed.peak, fixed.refused) == (2, 1)


def test_a_penalty_refuses_everything() -> None:
    """After a breach nothing passes for the penalty; refusals in it don't prolong it; then the window rules again."""
    quota = of(2, penalty_s=100)

    assert waits(quota, 0, 1, 2, 61, 101, 102, 103, 104) == [None, None, 100, 41, 1, None, None, 100]
    assert quota.refused == 4


def test_a_penalty_in_fixed_windows() -> None:
    """A new window doesn't end a penalty."""
    assert waits(of(1, kind="fixed", penalty_s=60), 50, 59, 61, 118, 119) == [None, 60, 58, 1, None]


def test_a_penalty_shorter_than_the_window() -> None:
    """When the penalty is over the window is still full: the wait is the longer of the two."""
    assert waits(of(1, penalty_s=10), 0, 1, 30, 60) == [None, 59, 30, None]


def test_refused_requests_may_count() -> None:
    """Then they use the quota up, and begin a penalty anew: who doesn't wait never gets through."""
    assert waits(of(1, window_s=10, counts_refused=True), 0, 5, 12, 22) == [None, 10, 10, None]
    assert waits(of(1, window_s=10, counts_refused=True, penalty_s=30), 0, 5, 30, 60) == [None, 30, 30, None]


def test_users_are_counted_as_they_come() -> None:
    """A request needs room for all its users; a token call needs none, and waits for a penalty alone."""
    quota = of(users=10)
    assert waits(quota, (0, 6), (10, 4), (20, 5), (21, 0), (60, 6), (61, 1)) == [None, None, 40, None, None, 9]
    assert (quota.peak, quota.refused) == (16, 2)

    assert waits(of(users=10, window_s=2, penalty_s=5), (0, 11), (1, 0), (5, 0)) == [5, 4, None]


def test_more_users_than_a_quota_has_never_pass() -> None:
    """Such a request is refused however long it waits."""
    assert waits(of(users=10, window_s=20), (0, 11), (1, 8), (2, 11), (400, 11)) == [20, None, 19, 20]


def test_several_quotas_hold_at_once() -> None:
    """What one refuses uses up no other; each counts its own refusals, and the longest wait is told."""
    burst, users = of(2, window_s=1), of(users=10)
    arrivals = [(0.0, 5), (0.0, 5), (0.0, 5), (1.5, 0), (1.5, 0), (1.5, 0), (60.0, 10)]

    assert waits([burst, users], *arrivals) == [None, None, 60, None, None, 1, None]
    assert (burst.peak, burst.refused) == (3, 2)
    assert (users.peak, users.refused) == (15, 1)


# In eighths of a second, of which floats know the sums exactly.
moments = st.integers(0, 160).map(lambda eighths: eighths / 8)
arrivals = st.lists(st.tuples(moments, st.integers(0, 5)), max_size=30).map(sorted)


@given(arrivals)
def test_the_peak_is_that_of_the_fullest_window(made: list[tuple[float, int]]) -> None:
    """No window of this length holds more than the peak says, and one holds as much."""
    sliding, fixed = Window(5.0), Window(5.0, "fixed")
    for moment, amount in made:
        sliding.add(moment, amount)
        fixed.add(moment, amount)

    ends = [end for end, _ in made]
    slid = (sum(part for moment, part in made if end - 5 < moment <= end) for end in ends)
    stepped = (sum(part for moment, part in made if moment // 5 == end // 5) for end in ends)
    assert (sliding.peak, fixed.peak) == (max(slid, default=0), max(stepped, default=0))


@given(
    arrivals,
    st.sampled_from(["requests", "users"]),
    st.sampled_from(["sliding", "fixed"]),
    st.sampled_from([0, 2, 30]),
    st.booleans(),
)
def test_who_waits_as_told_gets_through(
    made: list[tuple[float, int]], unit: str, kind: str, penalty_s: float, counts_refused: bool
) -> None:
    """If nothing comes between, the same request passes after the wait, and not before."""
    rules = {unit: 5, "window_s": 5, "kind": kind, "penalty_s": penalty_s, "counts_refused": counts_refused}
    quota = Quota(QuotaOptions.model_validate(rules))
    for now, users in made:
        if admit([quota], now, users) is not None:
            wait_s = quota.wait_s(now, users)
            assert wait_s > 0
            assert not quota.has_room(now + wait_s * 0.999, users)
            assert quota.has_room(now + wait_s + 1e-6, users)
            return


def test_documented_quotas() -> None:
    """They hold unless others are named, or none."""
    assert {name: list(map(str, quotas)) for name, quotas in DOCUMENTED_QUOTAS.items() if quotas} == {
        "dx": ["1000 requests/60s sliding"],
        "descope": ["500 requests/60s sliding, penalty 60s"],
    }
    assert Options(api="dx").quotas_in_force == DOCUMENTED_QUOTAS["dx"]
    assert Options(api="dx", quotas=()).quotas_in_force == ()
    assert Options(quotas=(QuotaOptions(users=5),)).quotas_in_force[0].limit == 5


@pytest.mark.parametrize(
    ("form", "header"),
    [
        ("int", {"retry-after": "2"}),
        ("decimal", {"retry-after": "1.250"}),
        ("date", {"retry-after": "Fri, 05 May 2023 03:36:34 GMT"}),
        ("negative", {"retry-after": "-2"}),
        ("huge", {"retry-after": "1000000000"}),
        ("words", {"retry-after": "in a while"}),
        ("none", {}),
    ],
)
def test_forms_of_retry_after(form: RetryAfter, header: dict[str, str]) -> None:
    """Whole seconds and dates are rounded up: who waits as told is not too early."""
    assert retry_after(form, 1.25, 1683257792.5) == header
