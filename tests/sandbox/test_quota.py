"""The quota and its witness."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.sandbox.options import QuotaOptions, RetryAfter
from loader.sandbox.quota import Quota, Window, retry_after


def test_the_window_slides() -> None:
    """A place is free again exactly one window after it was taken, not at a full minute."""
    quota = Quota(QuotaOptions(requests=2, window_s=60))

    assert [quota.admit(now) for now in (0, 50, 59, 60, 61, 110)] == [None, None, 1, None, 49, None]
    assert quota.refused == 2


def test_the_witness_counts_refused_requests_too() -> None:
    """The peak is of arrivals: it judges the client, not the server."""
    quota = Quota(QuotaOptions(requests=1, window_s=10))
    for now in (0, 1, 2, 30):
        quota.admit(now)

    assert quota.peak == 3


@given(st.lists(st.floats(0, 20), max_size=30).map(sorted))
def test_the_peak_is_that_of_the_fullest_window(moments: list[float]) -> None:
    """No half-open window of this length holds more moments than the peak says, and one holds as many."""
    window = Window(5.0)
    for moment in moments:
        window.add(moment)

    assert window.peak == max((sum(end - 5 < moment <= end for moment in moments) for end in moments), default=0)


@pytest.mark.parametrize(
    ("form", "header"),
    [
        ("int", {"retry-after": "2"}),
        ("decimal", {"retry-after": "1.250"}),
        ("date", {"retry-after": "Fri, 05 May 2023 03:36:34 GMT"}),
        ("none", {}),
    ],
)
def test_forms_of_retry_after(form: RetryAfter, header: dict[str, str]) -> None:
    """Whole seconds and dates are rounded up: who waits as told is not too early."""
    assert retry_after(form, 1.25, 1683257792.5) == header
