"""What went over the wire, and how long it took."""

from loader.snapshot import BOUNDS_S
from loader.tempo.traffic import Traffic


def test_each_request_is_counted_for_what_became_of_it() -> None:
    traffic = Traffic()
    for _ in range(7):
        traffic.went()
    for status in (200, 429, 500, 404):
        traffic.answered(status, 0.02)
    traffic.lost()
    traffic.dropped()
    wire = traffic.look()

    assert (wire.requests, wire.refused, wire.broken, wire.on_wire) == (7, 1, 2, 1)
    assert sum(wire.times) == 4, "of what got an answer"


def test_times_are_of_the_answers_since_the_last_look_and_classes_of_all() -> None:
    traffic = Traffic()
    for seconds in (0.005, 0.006, 60.0):
        traffic.answered(200, seconds)
    first = traffic.look()
    traffic.answered(200, 0.2)
    second = traffic.look()
    third = traffic.look()

    assert (first.p50_s, first.p95_s) == (0.006, 60.0)
    assert (second.p50_s, second.p95_s) == (0.2, 0.2)
    assert (third.p50_s, third.p95_s) == (None, None)
    assert first.times == (1, 1, *[0] * (len(BOUNDS_S) - 2), 1), "a bound belongs to its class"
    assert (sum(third.times), round(third.seconds, 3)) == (4, 60.211)
