"""One snapshot a second, and what the checkpoint keeps of them."""

from collections.abc import Sequence
from itertools import pairwise

import anyio
import msgspec
import pytest

from loader.errors import Stopped
from loader.lane import Lane
from loader.meter import Meter
from loader.outcome import Code
from loader.progress import Tally
from loader.snapshot import Brake, Found, Note, Snapshot, Trouble
from loader.tempo.quota import Pace, Quota, pace_of
from loader.tempo.traffic import Traffic
from tests import make
from tests.virtual_time import virtual_time


class Bench:
    """A meter with all that it looks at in our hands."""

    def __init__(self, tally: Tally | None = None, size: int = 1_000, paces: Sequence[Pace] = ()) -> None:
        self.now = 100.0
        self.position = 0
        self.brake: Brake | None = None
        self.found = Found()
        self.tally = tally or Tally()
        self.lane = Lane(600.0, lambda: self.now)
        self.traffic = Traffic()
        self.meter = Meter(
            self.tally,
            size,
            lambda: self.position,
            self.lane,
            self.traffic,
            lambda: msgspec.structs.replace(self.found, brake=self.brake),
            lambda: 16,
            paces,
            wall=lambda: 1e9 + self.now,
        )

    def settle(self, rows: int) -> None:
        self.tally.add([make.outcome()] * rows, range(rows), ["somebody"] * rows)


def test_a_meter_measures_this_run_alone() -> None:
    """What earlier runs did counts for the share, not for the rate."""
    bench = Bench(Tally({Code.SUCCESS: 1000}))
    bench.position = 500
    assert bench.meter.snapshot().left_s is None

    bench.settle(400)
    bench.now, bench.position = 110.0, 700
    found = bench.meter.snapshot()

    assert (found.rows, found.share, found.rows_per_s, found.elapsed_s) == (1400, 0.7, 40, 10)
    assert found.left_s == pytest.approx(15)
    assert (found.at, found.before, found.at_once, found.counts) == (1e9 + 110, 1000, 16, {Code.SUCCESS: 1400})


def test_now_is_the_last_ten_seconds() -> None:
    bench = Bench()
    for second in range(1, 31):
        bench.now = 100.0 + second
        bench.settle(10 if second <= 20 else 50)
        bench.meter.snapshot()
    found = bench.meter.snapshot()

    assert found.now_per_s == 50
    assert round(found.rows_per_s, 2) == 23.33


def test_the_time_left_is_steady() -> None:
    """Of a load with a quota, batches of 100 every few seconds: no second tells much else than the one before."""
    bench = Bench(size=100_000)
    told = []
    for second in range(1, 3_000):
        bench.now = 100.0 + second
        if second % 3 == 0:
            bench.settle(100)
            bench.position = bench.tally.rows
        told.append((bench.meter.snapshot().left_s, 3_000 - second))

    late = [(left, true) for left, true in told[60:] if left is not None]
    assert len(late) == len(told) - 60
    assert all(abs(left - true) <= 0.05 * true + 3 for left, true in late)
    assert all(abs(before[0] - after[0] - 1) <= 0.01 * before[0] + 1 for before, after in pairwise(late[60:]))


def test_the_time_left_follows_what_changes() -> None:
    """Half as fast since five minutes: what was before tells nothing any more."""
    bench = Bench(size=1_000_000)
    for second in range(1, 1_000):
        bench.now = 100.0 + second
        bench.settle(100 if second < 600 else 50)
        bench.position = bench.tally.rows
        bench.meter.snapshot()

    assert bench.meter.snapshot().left_s == pytest.approx((1_000_000 - bench.tally.rows) / 50, rel=0.01)


@pytest.mark.parametrize("quota", ["600 requests/60s", "60000 users/60s", "2000 users/2s"])
def test_no_quota_allows_less_time(quota: str) -> None:
    """What went so fast until now can't go on like that."""
    bench = Bench(size=100_000, paces=[pace_of(Quota.parse(quota), 100)])
    for _ in range(100):
        bench.settle(100)
        bench.traffic.went()
        bench.traffic.answered(200, 0.1)
    bench.now, bench.position = 104.0, 10_000  # 2,500 users a second, of 1,000 that are allowed

    assert bench.meter.snapshot().left_s == pytest.approx(90.0, rel=0.03)


def test_while_a_quota_is_being_found_no_time_is_told_and_then_a_steady_one() -> None:
    """30,000 users at once, nothing for a minute, a first guess that rises, and then 500 users a second."""
    bench = Bench(size=150_000)

    def second(batches: int) -> float | None:
        for _ in range(batches):
            bench.settle(100)
            bench.traffic.went()
            bench.traffic.answered(200, 0.1)
        bench.now += 1
        bench.position = bench.tally.rows
        return bench.meter.snapshot().left_s

    assert second(300) is None
    bench.found = Found(is_guess=True)
    jammed = [second(0) for _ in range(60)]
    bench.found = Found(requests_per_s=1.2, is_guess=True)
    guessed = [second(1 + at // 4) for at in range(20)]
    bench.found = Found(requests_per_s=5.0)
    told = [(second(5), (150_000 - bench.tally.rows) / 500) for _ in range(150)]

    assert set(jammed + guessed) == {None}
    assert all(left is not None and abs(left - true) <= 0.02 * true + 1 for left, true in told), told


def test_a_pause_is_a_part_of_the_time_left() -> None:
    """30,000 users in seven seconds, then nothing for 53, again and again: 0 s were left, and then nobody knew."""
    bench = Bench(size=300_000)
    told = []
    for second in range(600):
        if second % 60 < 7:
            bench.settle(30_000 // 7)
        elif second % 60 == 7:
            bench.lane.hold(53)
        bench.now += 1
        bench.position = min(bench.tally.rows, 300_000)
        told.append((bench.meter.snapshot().left_s, 600 - second))

    late = [(left, true) for left, true in told[40:530]]
    assert all(left is not None and abs(left - true) <= 0.15 * true + 60 for left, true in late), late


def test_of_a_quota_in_hours_the_time_is_told_by_what_was_taken_until_then() -> None:
    """A pace that is still not found after five minutes is no reason to tell nothing all night."""
    bench = Bench(size=1_000_000)
    bench.found = Found(requests_per_s=2.0, is_guess=True)
    told = []
    for _ in range(400):
        bench.settle(100)
        bench.now += 1
        bench.position = bench.tally.rows
        told.append(bench.meter.snapshot().left_s)

    assert set(told[:295]) == {None}
    assert told[-1] == pytest.approx((1_000_000 - bench.tally.rows) / 100, rel=0.02)


def test_of_a_load_that_stands_still_nobody_knows_the_end() -> None:
    bench = Bench()
    bench.settle(100)
    bench.position = 100
    for second in range(1, 400):
        bench.now = 100.0 + second
        bench.meter.snapshot()

    assert bench.meter.snapshot().left_s is None


def test_of_an_export_without_a_size_no_share_is_known() -> None:
    """Stdin has none; that is no division by zero."""
    found = Bench(size=0).meter.snapshot()

    assert (found.share, found.left_s) == (None, None)


def test_the_brake_is_what_was_waited_for_most_of_late() -> None:
    bench = Bench()
    bench.brake = "quota"
    assert bench.meter.snapshot().found.brake is None, "nothing was looked at yet"
    seen = []
    brakes: list[Brake] = ["quota", "target"]
    for bench.brake in brakes:
        for _ in range(30):
            bench.meter.sample()
        seen.append(bench.meter.snapshot().found.brake)

    assert seen == brakes


def test_while_the_target_is_down_no_time_is_told_but_why_and_when_it_gives_up() -> None:
    bench = Bench()
    bench.settle(400)
    bench.now, bench.position = 110.0, 400
    assert bench.meter.snapshot().left_s == pytest.approx(15)

    bench.lane.failed("HTTP 500")
    bench.now = 114.0
    bench.lane.failed("Connection refused")
    found = bench.meter.snapshot()
    assert found.left_s is None
    assert found.trouble == Trouble("down", "Connection refused", 1e9 + 110, 1e9 + 710)

    bench.lane.succeeded(0.1)
    assert bench.meter.snapshot().left_s is not None
    bench.lane.hold(30, "HTTP 429")
    found = bench.meter.snapshot()
    assert found.left_s is not None
    assert found.trouble == Trouble("pause", "HTTP 429", 1e9 + 114, 1e9 + 714, 30.0)


def test_what_stops_and_holds_a_load_is_seen() -> None:
    bench = Bench()
    bench.lane.hold(30)
    held = bench.meter.snapshot()
    bench.lane.stop(Stopped("the disk is full"))

    assert (held.held_s, held.stopping) == (30, "")
    assert bench.meter.snapshot().stopping == "the disk is full"


def test_a_snapshot_is_kept_once() -> None:
    bench = Bench()
    found = bench.meter.snapshot()

    assert bench.meter.note() == Note(found, is_moment=True)
    assert bench.meter.note() is None


def test_the_course_of_a_long_load_is_kept_ever_more_thinly() -> None:
    """Each second for ten minutes; of two days not more than some thousands."""
    bench = Bench()
    moments = []
    for second in range(48 * 3600):
        bench.now = 100.0 + second
        bench.meter.snapshot()
        note = bench.meter.note()
        if note is not None and note.is_moment:
            moments.append(second)

    assert moments[:500] == list(range(500))
    assert len(moments) < 5_000
    assert max(after - before for before, after in pairwise(moments)) <= 48 * 3600 / 500
    end = bench.meter.end()
    assert (end.snapshot.is_last, end.is_moment) == (True, True), "the end is always kept"


@virtual_time
async def test_watchers_are_told_once_a_second() -> None:
    seen: list[Snapshot] = []
    lane = Lane(600.0)
    meter = Meter(Tally(), 0, lambda: 0, lane, Traffic())
    with anyio.move_on_after(10.1):
        await meter.beat(seen.append)

    assert [round(snapshot.elapsed_s) for snapshot in seen] == list(range(1, 11))
