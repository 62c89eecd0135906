"""Quotas as they are written, and the pace that keeps them: counted in windows that slide and in windows that don't."""

import math
from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loader.tempo.quota import Pace, Quota, fitting, pace_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500/60s", Quota(500, 60)),
        ("1000 requests/1min", Quota(1000, 60)),
        ("1 request/s", Quota(1, 1)),
        ("5000 users/60s", Quota(5000, 60, "users")),
        ("2.5 users per 0.5 h", Quota(2.5, 1800, "users")),
        (" 20 requests / 10 s ", Quota(20, 10)),
    ],
)
def test_a_quota_is_written_as_a_count_in_a_time(text: str, expected: Quota) -> None:
    assert Quota.parse(text) == expected
    assert Quota.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "500", "500/", "0/60s", "5/0s", "-1/s", "500/60", "500 apples/60s", "5/60d", "nan/s"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a quota such as"):
        Quota.parse(text)


def moments(pace: Pace, sizes: list[int]) -> Iterator[tuple[float, float]]:
    """When requests of these sizes go as early as the bucket lets them, which begins full, and what each pays."""
    level, now = pace.burst, 0.0
    for size in sizes:
        price = pace.price(size)
        now += max(0.0, (level + price - pace.burst) / pace.per_s)
        level = max(0.0, level - max(0.0, (level + price - pace.burst))) + price
        yield now, size


@given(
    amount=st.integers(1, 5000),
    window_s=st.sampled_from([1.0, 10.0, 60.0]),
    unit=st.sampled_from(["requests", "users"]),
    most=st.integers(1, 500),
    sizes=st.lists(st.integers(0, 500), min_size=1, max_size=400),
    run=st.integers(1, 400),
)
def test_no_window_ever_holds_more(
    amount: int, window_s: float, unit: str, most: int, sizes: list[int], run: int
) -> None:
    """Whatever the requests' sizes, and with a run that ends anywhere and another that begins at once."""
    quota = Quota(amount, window_s, "users" if unit == "users" else "requests")
    most = min(most, amount) if unit == "users" else most
    pace = pace_of(quota, most)
    sizes = [min(size, most) for size in sizes]
    first = list(moments(pace, sizes[:run]))
    start = first[-1][0]
    sent = first + [(start + at, size) for at, size in moments(pace, sizes[run:])]

    for begin, _ in sent:
        inside = [size for at, size in sent if begin <= at < begin + window_s * (1 - 1e-9)]
        assert (sum(inside) if unit == "users" else len(inside)) <= amount


@given(amount=st.integers(1, 100_000), most=st.integers(1, 100_000))
def test_full_requests_use_nearly_all_of_it(amount: int, most: int) -> None:
    """At least 95 %, where requests are small or fitted; always where the quota counts requests."""
    quota = Quota(amount, 60, "users")
    users = fitting(min(most, amount), quota)
    pace = pace_of(quota, users)

    used = pace.per_s * 60 * (users if pace.unit == "carriers" else 1) / amount
    assume(users >= 20 or amount % users == 0)  # of three users, a request can't hold one and a half
    assert 0.92 <= used <= 1
    assert math.isclose(pace_of(Quota(amount, 60), 1).per_s * 60, 0.99 * amount)


def test_calls_that_carry_nobody_pay_only_where_requests_count() -> None:
    in_requests, in_users = pace_of(Quota(500, 60), 100), pace_of(Quota(50_000, 60, "users"), 100)
    in_full_requests = pace_of(Quota(500, 60, "users"), 100)

    assert [in_requests.price(0), in_users.price(0), in_full_requests.price(0)] == [1, 0, 0]
    assert [in_requests.price(7), in_users.price(7), in_full_requests.price(7)] == [1, 7, 1]
