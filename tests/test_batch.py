"""Whatever comes in whatever order: no row is lost or doubled, no user overtaken, no limit passed."""

import json
import time
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.batch import MAX_HELD_ROWS, Batch, Batcher, BatchLimits
from loader.record import Frame, Rows
from tests import make

FRAME = make.FRAME
Step = tuple[str, Any]

FEEDS = st.lists(
    st.tuples(st.sampled_from("aaaabcdefgh"), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9), min_size=1)),
    max_size=12,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), FEEDS),
        st.tuples(st.just("next"), st.booleans()),
        st.tuples(st.just("shrink"), st.integers(1, 4)),
        st.tuples(st.just("release"), st.integers(0, 5)),
    ),
    max_size=40,
)


class Watch:
    """A batcher, and all that has to hold for it."""

    def __init__(self, limits: BatchLimits, *, replace: bool) -> None:
        self.batcher = Batcher(FRAME, limits, replace=replace)
        self.limits = limits
        self.replace = replace
        self.rows: dict[int, tuple[str, dict[str, int]]] = {}
        self.settled: list[int] = []
        self.last: dict[str, int] = defaultdict(int)
        self.in_flight: list[Batch] = []

    def feed(self, values: list[tuple[str, dict[str, int]]]) -> None:
        first = len(self.rows) + 1
        rows = Rows(numbers := list[int](), [], records := list[bytes]())
        for row, (user, attributes) in enumerate(values, first):
            self.rows[row] = (user, attributes)
            numbers.append(row)
            rows.users.append(user)
            records.append(make.record(user, FRAME, **attributes))
        self.batcher.feed(rows)

    def next(self, limits: BatchLimits | None = None, *, final: bool = False) -> bool:
        batch = self.batcher.next(limits, final=final)
        if batch is None:
            return False
        limits = limits or self.limits
        assert 1 <= len(batch) <= limits.users
        assert len(batch) == len(batch.numbers) == len(batch.records) == len(set(batch.users))
        size = FRAME.body_bytes(len(batch), sum(map(len, batch.records)))
        assert size == len(FRAME.body(batch.records))
        assert size <= limits.body_bytes or len(batch) == 1
        busy = {user for other in self.in_flight for user in other.users}
        assert busy.isdisjoint(batch.users), "a user stands in one batch in flight"
        assert set(batch.merged) <= set(batch.numbers)
        for row, user, record in zip(batch.numbers, batch.users, batch.records, strict=True):
            parts = [*batch.merged.get(row, []), row]
            assert parts == sorted(parts)
            assert parts[0] > self.last[user], "two rows of a user never overtake each other"
            self.last[user] = row
            assert {self.rows[part][0] for part in parts} == {user}
            sent = [self.rows[part][1] for part in parts]
            assert json.loads(record)["attributes"] == (sent[-1] if self.replace else make.merged(sent))
            self.settled += parts
        self.in_flight.append(batch)
        return True

    def release(self, at: int) -> None:
        if self.in_flight:
            self.batcher.release(self.in_flight.pop(at % len(self.in_flight)))


@settings(max_examples=300)
@given(STEPS, st.integers(1, 5), st.sampled_from([60, 100, 10_000]), st.booleans())
def test_every_row_is_settled_once_in_the_order_of_its_user(
    steps: list[Step], users: int, body_bytes: int, replace: bool
) -> None:
    """However feeding, batching and releasing take turns."""
    watch = Watch(BatchLimits(users, body_bytes), replace=replace)
    for action, value in steps:
        if action == "feed":
            watch.feed(value)
        elif action == "next":
            watch.next(final=value)
        elif action == "shrink":
            watch.next(BatchLimits(min(value, users), max(body_bytes // 2, 50)))
        else:
            watch.release(value)
    while not watch.batcher.is_empty:
        if not watch.next(final=True):
            assert watch.in_flight, "what is held back waits for a batch in flight"
            watch.release(0)

    assert sorted(watch.settled) == list(watch.rows)


def test_a_full_batch_is_given_and_a_rest_waits() -> None:
    """More rows may come; with `final` none will."""
    batcher = Batcher(FRAME, BatchLimits(3, 10_000))
    batcher.feed(make.rows("abcd"))

    assert batcher.next() == make.batch("abc")
    assert batcher.next() is None
    assert batcher.next(final=True) == make.batch("d", 4)
    assert batcher.is_empty


def test_a_full_body_is_given_too() -> None:
    """A batch can be full of bytes before it is full of users."""
    two = make.rows("ab")
    batcher = Batcher(FRAME, BatchLimits(10, FRAME.body_bytes(2, sum(map(len, two.records)))))
    batcher.feed(make.rows("abc"))

    assert batcher.next() == make.batch("ab")
    assert batcher.next() is None


def test_a_record_over_the_limit_goes_alone() -> None:
    """Where the target takes less than the limits given at the start, its answer decides."""
    batcher = Batcher(FRAME, BatchLimits(3, 10_000))
    batcher.feed(make.rows("ab"))

    assert batcher.next(BatchLimits(3, 1)) == make.batch("a")


def test_rows_of_one_user_in_one_batch_are_merged() -> None:
    """The last row counts, and carries what earlier ones sent and it did not."""
    batcher = Batcher(FRAME, BatchLimits(3, 10_000))
    records = [make.record("a", x=1, y=1), make.record("b", x=2), make.record("a", y=3)]
    batcher.feed(Rows([1, 2, 3], ["a", "b", "a"], records))

    batch = batcher.next()

    assert batch == Batch([3, 2], ["a", "b"], [make.record("a", x=1, y=3), make.record("b", x=2)], {3: [1]})


def test_a_row_of_a_user_in_flight_waits_for_its_release() -> None:
    """And goes first when it may."""
    batcher = Batcher(FRAME, BatchLimits(2, 10_000))
    batcher.feed(make.rows("abac"))
    first = batcher.next()
    second = batcher.next(final=True)

    assert (first, second) == (make.batch("ab"), make.batch("c", 4))
    assert batcher.next(final=True) is None
    assert not batcher.is_empty
    assert first is not None
    batcher.release(first)
    assert batcher.next(final=True) == make.batch("a", 3)


def test_parts_of_a_batch_are_batches_to_send() -> None:
    """Its merged rows stay with the whole."""
    whole = make.batch("abcd", merged={2: [1]})

    assert whole.part(1, 3) == make.batch("bc", 2)
    assert whole.pick([0, 3]) == Batch([1, 4], ["a", "d"], [whole.records[0], whole.records[3]])


@pytest.mark.parametrize("replace", [True, False])
def test_a_hot_key_costs_time_in_line_with_its_rows_and_one_record(replace: bool) -> None:
    """An export in which every row is the same user: what is held back stays bounded, and is merged."""

    def seconds(count: int) -> float:
        batcher = Batcher(FRAME, BatchLimits(100, 1_000_000), replace=replace)
        started = time.process_time()
        settled = 0
        flying: list[Batch] = []
        for first in range(1, count + 1, 10_000):
            batcher.feed(make.rows(["hot"] * 10_000, first))
            while batch := batcher.next(final=batcher.is_full):
                flying.append(batch)
            if batcher.is_full:
                batcher.release(flying[-1])
        while not batcher.is_empty:
            if batch := batcher.next(final=True):
                flying.append(batch)
            else:
                batcher.release(flying[-1])
        settled = sum(len(batch) + sum(map(len, batch.merged.values())) for batch in flying)
        assert settled == count
        assert len(flying) <= 2 + count // MAX_HELD_ROWS + 1
        return time.process_time() - started

    small, large = seconds(20_000), seconds(100_000)

    assert large < 10 * small + 0.1


def test_no_more_rows_are_held_than_the_bound() -> None:
    """Reading waits instead: a user whose answer is late must not fill the memory with its rows."""
    batcher = Batcher(Frame(), BatchLimits(2, 10_000))
    batcher.feed(make.rows("ab"))
    assert batcher.next() is not None
    batcher.feed(make.rows("a" * (MAX_HELD_ROWS + 10), 3))

    while batcher.next():
        pass

    assert batcher.is_full
    assert batcher.next() is None
