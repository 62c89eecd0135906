"""A load at one moment, as a value."""

import msgspec

from loader.outcome import Code
from loader.snapshot import Failure, Found, Snapshot, duration


def test_what_was_found_is_told_in_words() -> None:
    found = Found(requests_per_s=48.7, concurrency=24, users=120, brake="rate")

    assert list(found.words()) == [
        "the target refuses to take more",
        "24 requests at once",
        "up to 48.7 requests/s",
        "up to 120 users a request",
    ]
    assert list(Found().words()) == []


def test_a_snapshot_survives_as_json() -> None:
    """As other processes read it from the checkpoint."""
    failures = (Failure(3, "jürgen@example.com", Code.INVALID, "no such department"),)
    whole = Snapshot(1.5, 9, {Code.SUCCESS: 8, Code.INVALID: 1}, None, 2.0, 3.0, 4.5, None, failures=failures)

    assert msgspec.json.decode(msgspec.json.encode(whole), type=Snapshot) == whole


def test_why_somebody_failed_is_harmless_to_show() -> None:
    """Whatever the API says of a user may end in a message on a terminal."""
    assert Failure(1, "zoe", Code.INVALID, "bad\x1b[2J\nname").words() == "INVALID: bad�[2J name"
    assert Failure(1, "zoe", Code.INVALID, "").words() == "INVALID"


def test_durations_are_written_as_clocks_do() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 3600, 36_061)] == ["0:00", "1:00", "1:00:00", "10:01:01"]
