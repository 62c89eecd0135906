"""A load at one moment, as a value."""

import time
from typing import Any

import msgspec
import pytest

from loader.outcome import Code
from loader.snapshot import Failure, Found, Snapshot, Trouble, Wire, duration


def test_what_was_found_is_told_in_words() -> None:
    found = Found(requests_per_s=48.7, concurrency=24, users=120, brake="rate")

    assert list(found.words()) == [
        "24 requests at once",
        "up to 48.7 requests/s",
        "up to 120 users a request",
    ]
    assert list(Found().words()) == []


def test_nobody_found_what_it_waits_for() -> None:
    assert list(Found(brake="pause").words()) == []


def now(**fields: Any) -> Snapshot:
    return msgspec.structs.replace(Snapshot(1.5, 0, {}, None, 2.0, 3.0, 4.5, None), **fields)


def test_a_pause_and_an_outage_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """In both the target is waited for; what to do about them is not the same."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    pause = Trouble("pause", 'HTTP 429: {"error": "slow down"}', 0.0, 600.0, 53.4)
    down = Trouble("down", "no token: can't connect to 127.0.0.1:9: Connection refused\x1b[2J", 3_600.0, 4_200.0)

    assert now(trouble=pause).why == "the target asked for a pause (429), 53 s more"
    assert now(trouble=down).why == (
        "the target is down; gives up at 01:10; the last error: "
        "no token: can't connect to 127.0.0.1:9: Connection refused\ufffd[2J"
    )
    assert now(trouble=Trouble("down", "HTTP 500", 0.0)).why == "the target is down; the last error: HTTP 500"
    assert "gives up at Fri 02:00;" in Trouble("down", "HTTP 500", 0.0, 93_600.0).words()


def test_who_was_not_refused_is_not_told_so() -> None:
    """A pace may be known from the run before."""
    known = Found(requests_per_s=5.0, brake="rate")

    assert now(found=known, wire=Wire(refused=1)).why == "the target refuses to take more"
    assert now(found=known).why == "the target takes no more, by its headers or the run before"
    assert now(found=Found(brake="halving")).why == "what is refused is halved, to find the users it is about"
    assert now().why == ""


def test_a_snapshot_survives_as_json() -> None:
    """As other processes read it from the checkpoint."""
    failures = (Failure(3, "jürgen@example.com", Code.INVALID, "no such department"),)
    whole = Snapshot(1.5, 9, {Code.SUCCESS: 8, Code.INVALID: 1}, None, 2.0, 3.0, 4.5, None, failures=failures)
    whole = msgspec.structs.replace(whole, trouble=Trouble("pause", "HTTP 429", 1.0, None, 30.0))

    assert msgspec.json.decode(msgspec.json.encode(whole), type=Snapshot) == whole


def test_why_somebody_failed_is_harmless_to_show() -> None:
    """Whatever the API says of a user may end in a message on a terminal."""
    assert Failure(1, "zoe", Code.INVALID, "bad\x1b[2J\nname").words() == "INVALID: bad�[2J name"
    assert Failure(1, "zoe", Code.INVALID, "").words() == "INVALID"


def test_durations_are_written_as_clocks_do() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 3600, 36_061)] == ["0:00", "1:00", "1:00:00", "10:01:01"]
