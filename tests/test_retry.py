"""How long to wait: random below a doubling bound, or as the server asks, within reason."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.retry import CAP_S, MAX_RETRY_AFTER_S, Allowance, allowance, backoff_s, retry_after_s, unix_time

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT
LATER = 1_750_000_000.0


def bounds(low: float, high: float) -> float:
    assert low == 0
    return high


def test_backoff_doubles_up_to_its_cap() -> None:
    """From half a second; full jitter begins at zero."""
    assert [backoff_s(failures, bounds) for failures in (1, 2, 3, 6, 7, 8, 10_000)] == [
        0.5,
        1,
        2,
        16,
        CAP_S,
        CAP_S,
        CAP_S,
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("0.25", 0.25),
        ("86400", MAX_RETRY_AFTER_S),
        ("9" * 400, MAX_RETRY_AFTER_S),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10),
        ("Sun Nov  6 08:49:47 1994", 10),
        ("Sun, 06 Nov 1994 08:49:47", 10),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER_S),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float) -> None:
    """In seconds, and never more than is reasonable; all three forms of an HTTP date are in UTC."""
    assert retry_after_s({"retry-after": text}, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "-0.5",
        "soon",
        "nan",
        "inf",
        "1_0",
        "1e3",
        "1,5",
        "٣",
        "Sun, 99 Nov",
        "Sun, 06 Nov 1994 08:49:27 GMT",
    ],
)
def test_what_asks_for_nothing_is_ignored(text: str) -> None:
    """Garbage, negative numbers, dates that are over: then backoff decides."""
    assert retry_after_s({"retry-after": text}, NOW) is None


def test_an_absent_header_asks_for_nothing() -> None:
    """As most answers have none."""
    assert retry_after_s({}, NOW) is None


@pytest.mark.parametrize(("date", "seconds"), [("Sun, 06 Nov 1994 08:49:37 GMT", 10), ("garbage", 110), ("", 110)])
def test_a_date_is_measured_by_the_servers_own_clock(date: str, seconds: float) -> None:
    """This machine's clock may be wrong by an hour."""
    headers: Mapping[str, str] = {"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT", "date": date}

    assert retry_after_s(headers, NOW - 100) == seconds


def test_no_date_is_no_time() -> None:
    """Whatever a server writes there."""
    assert [unix_time(text) for text in ("", "x", "Mon, 32 Foo 2024 25:00:00 GMT")] == [None, None, None]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ratelimit": '"default";r=50;t=30'}, Allowance(50, 30)),
        ({"ratelimit": '"burst";r=7;t=1, "daily";r=900;t=50'}, Allowance(7, 1)),
        ({"ratelimit": "limit=100, remaining=50, reset=30"}, Allowance(50, 30)),
        ({"ratelimit-policy": '"default";q=100;w=60'}, Allowance(per_s=100 / 60)),
        ({"ratelimit-policy": '"a";q=100;w=60, "b";q=5;w=1'}, Allowance(per_s=100 / 60)),
        (
            {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "9", "ratelimit-reset": "4"},
            Allowance(9, 4, 5 / 3),
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}, Allowance(0, 12)),
        ({"x-rate-limit-remaining": "3", "x-rate-limit-reset": f"{LATER + 20:.0f}"}, Allowance(3, 20)),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": f"{(LATER + 20) * 1000:.0f}"}, Allowance(3, 20)),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "99999"}, Allowance(3, MAX_RETRY_AFTER_S)),
        ({"x-ratelimit-remaining": "-1", "x-ratelimit-reset": "5"}, None),
        ({"x-ratelimit-remaining": "nan", "x-ratelimit-reset": "5"}, None),
        ({"x-ratelimit-remaining": "5"}, None),
        ({"x-ratelimit-reset": f"{LATER - 20:.0f}", "x-ratelimit-remaining": "5"}, None),
        ({"ratelimit-policy": '"a";q=0;w=0'}, None),
        ({"ratelimit": "unlimited"}, None),
        ({"retry-after": "5"}, None),
        ({}, None),
    ],
)
def test_what_headers_say_of_a_quota(headers: Mapping[str, str], expected: Allowance | None) -> None:
    """In each form that is in use; what makes no sense is not believed, and nothing is believed for over 5 minutes."""
    assert allowance(headers, LATER) == expected


@given(
    st.dictionaries(
        st.sampled_from(["ratelimit", "ratelimit-policy", "x-ratelimit-reset", "x-ratelimit-remaining"]), st.text()
    )
)
def test_any_headers_can_be_read(headers: dict[str, str]) -> None:
    found = allowance(headers, NOW)

    assert found is None or all(value is None or value >= 0 for value in found)
