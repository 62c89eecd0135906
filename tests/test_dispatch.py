"""Batches in flight: how many, when a place is freed, and how a run ends early."""

import asyncio
import gc
import re
import resource
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.checkpoint import Checkpoint, Entry
from loader.errors import Stopped
from loader.outcome import Code, Outcome, Settled
from loader.record import Rows
from loader.request import Request, Response
from loader.sandbox import FaultOptions, LedgerOptions, RosterOptions
from loader.snapshot import Note
from loader.transport import Send
from tests.faults.rig import Recorder, Rig, Row, blocks, options, stream, users, users_of
from tests.virtual_time import START_S, run_virtual, virtual_time


def elapsed() -> float:
    return asyncio.get_running_loop().time() - START_S


class Witness:
    """Knows at each moment which users were sent and are not yet durable."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.peak = 0

    def wire(self, send: Send) -> Send:
        async def watched(request: Request) -> Response:
            self.open.update(users_of(request))
            self.peak = max(self.peak, len(self.open))
            return await send(request)

        return watched

    def durable(self, entries: Iterable[Entry]) -> None:
        self.open.difference_update(*(entry.batch.users for entry in entries if entry.batch is not None))


class Watched(Recorder):
    """A checkpoint on a slow disk that tells the witness what is durable."""

    def __init__(self, witness: Witness, fails_from: int | None = None) -> None:
        super().__init__(fails_from, delay=lambda: time.sleep(0.001))
        self._witness = witness

    def commit(self, entries: Iterable[Entry], note: Note | None = None) -> None:
        entries = list(entries)
        super().commit(entries)
        self._witness.durable(entries)


@pytest.mark.parametrize("concurrency", [1, 3, 8])
@virtual_time
async def test_no_more_than_twice_the_concurrency_is_in_flight(concurrency: int) -> None:
    """Sent and not durable, backoffs included: a kill at any moment sends no more users twice."""
    witness = Witness()
    rig = Rig(
        options(FaultOptions(latency_s=0.1, jitter_s=1.0, rates={"500": 0.3, "missing": 0.2})),
        concurrency=concurrency,
        checkpoint=Watched(witness),
        wrap=witness.wire,
    )
    await rig.run(users(600))

    assert rig.codes() == {Code.SUCCESS: 600}
    assert witness.peak <= 2 * concurrency * 10
    assert witness.peak > concurrency * 10, "backoffs leave the wire to others"


@virtual_time
async def test_rows_never_sent_are_settled_with_the_rest() -> None:
    """REJECTED and SKIPPED rows have their outcome too, and their blocks' marks are kept."""
    rows = blocks(users(50), 10)
    for block in rows:
        row, user = block.numbers[3], block.users.pop(3)
        block.numbers = [*block.numbers[:3], *block.numbers[4:]]
        block.records = [*block.records[:3], *block.records[4:]]
        block.settled.append(Settled(row, user, Outcome(Code.REJECTED, "ragged")))
    rig = Rig()
    found = await rig.run(stream(rows))

    assert sorted(found) == list(range(1, 51))
    assert rig.codes() == {Code.SUCCESS: 45, Code.REJECTED: 5}
    assert [entry.mark for entry in rig.checkpoint.entries if entry.mark] == [block.end for block in rows]


@virtual_time
async def test_an_empty_export_sends_nothing() -> None:
    rig = Rig()

    assert await rig.run([]) == {}
    assert rig.sent == []


# Order per user


def hot(count: int, keys: int) -> list[Row]:
    """Rows that come again: every other one is of one hot key, the rest go round."""
    return [
        ("hot@example.com" if row % 2 else f"user{row % keys:02}@example.com", {"n": row, "abc"[row % 3]: row})
        for row in range(1, count + 1)
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [1, 7, 20])
@virtual_time
async def test_no_row_of_a_user_is_overtaken(seed: int, size: int) -> None:
    """With latency jitter, lost answers and 5xx: each attribute ends as the last row had it, and never goes back."""
    rows = hot(400, 23)
    rig = Rig(
        options(
            FaultOptions(
                seed=seed, latency_s=0.01, jitter_s=2.0, rates={"500": 0.2, "lost": 0.1, "torn": 0.1, "missing": 0.1}
            ),
            ledger=LedgerOptions(journal=True),
        ),
        concurrency=8,
        users_per_request=size,
        attempts=30,
        seed=seed,
    )
    found = await rig.run(rows, block=90)

    last: dict[str, dict[str, object]] = {}
    for user, values in rows:
        last.setdefault(user, {}).update(values)
    assert {user: entry.attributes for user, entry in rig.memory.ledger.users.items()} == last
    written: dict[str, int] = {}
    for write in rig.memory.ledger.journal:
        assert write.attributes["n"] >= written.get(write.user, 0), "an earlier row came after a later one"
        written[write.user] = write.attributes["n"]
    assert sorted(found) == list(range(1, 401))
    for row, (user, outcome_user, outcome) in {
        r: (rows[r - 1][0], s.user, s.outcome) for r, s in found.items()
    }.items():
        assert user == outcome_user
        if outcome.code is Code.SUPERSEDED:
            winner = int(outcome.message.removeprefix("merged into row "))
            assert winner > row
            assert found[winner].user == user
            assert found[winner].outcome.code is Code.SUCCESS
        else:
            assert outcome.code is Code.SUCCESS
    assert len(rig.data_requests) < 400 * 3


@virtual_time
async def test_a_hot_key_costs_one_record_a_request() -> None:
    """Rows held back while their user is in flight are merged: 1,000 rows of one user are a few requests."""
    rig = Rig(options(FaultOptions(latency_s=0.5)))
    await rig.run([("hot@example.com", {"n": row}) for row in range(1000)], block=100)

    assert rig.memory.ledger.users["hot@example.com"].attributes == {"n": 999}
    assert len(rig.data_requests) <= 21


# Stopping


@virtual_time
async def test_a_stop_lets_the_wire_finish_and_sends_nothing_more() -> None:
    """What was on the wire is settled and durable; what was not sent has no outcome."""
    rig = Rig(options(FaultOptions(latency_s=2.0)), concurrency=4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.run, users(1000))
        await anyio.sleep(11)
        sent = len(rig.data_requests)
        rig.lane.stop(Stopped("enough"))

    assert len(rig.data_requests) == sent
    assert elapsed() < 13
    assert len(rig.checkpoint.rows()) == sent * 10 == rig.memory.ledger.writes
    assert rig.codes() == {Code.SUCCESS: sent * 10}


@virtual_time
async def test_who_is_settled_of_a_batch_that_is_being_halved_stays_settled() -> None:
    """A stop leaves unsettled only whom it must: else a run in short pieces would halve the same batch for ever."""
    poisoned = "user00777@example.com"
    rig = Rig(
        options(FaultOptions(latency_s=1.0), roster=RosterOptions(poison=re.compile(poisoned))),
        users_per_request=64,
        concurrency=1,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.run, [*users(63), *users(1, 777)])
        await anyio.sleep(4.5)  # 64 are refused, the first 32 taken, the others refused …
        rig.lane.stop(Stopped("enough"))

    settled = [user for entry in rig.checkpoint.entries if entry.batch is not None for user in entry.batch.users]
    assert 32 <= len(settled) < 64
    assert sorted(settled) == sorted(rig.memory.ledger.users), "what the API took is known"
    assert rig.codes() == {Code.SUCCESS: len(settled)}


async def stopped_at(stop_s: float, seed: int, concurrency: int, rate: float | None, size: int) -> None:
    rows = users(200) + hot(100, 11) + users(100, 500)
    witness = Witness()
    rig = Rig(
        options(
            FaultOptions(
                seed=seed,
                latency_s=0.05,
                jitter_s=0.6,
                rates={"500": 0.15, "429": 0.1, "missing": 0.1, "lost": 0.1},
                retry_after="decimal" if seed % 2 else "none",
                retry_after_s=3.0,
                on="all",
            ),
            roster=RosterOptions(poison=re.compile("user0003")),
        ),
        concurrency=concurrency,
        users_per_request=size,
        rate=rate,
        checkpoint=Watched(witness),
        wrap=witness.wire,
        seed=seed,
    )
    sent_at_stop = -1

    async def stop() -> None:
        nonlocal sent_at_stop
        await anyio.sleep(stop_s)
        sent_at_stop = len(rig.sent)
        rig.lane.stop(Stopped("enough"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop)
        found = await rig.run(rows, block=64)
        ended = elapsed()
        tasks.cancel_scope.cancel()

    if sent_at_stop >= 0:
        assert len(rig.sent) == sent_at_stop, "nothing is sent after the stop"
        assert ended <= stop_s + 0.7, "only the wire is waited for"
    else:
        assert sorted(found) == list(range(1, len(rows) + 1))
    for row, item in found.items():
        assert rows[row - 1][0] == item.user
        if item.outcome.code is Code.SUCCESS:
            assert item.user in rig.memory.ledger.users
    assert witness.peak <= 2 * concurrency * size


@given(
    stop_s=st.floats(0, 12),
    seed=st.integers(0, 1000),
    concurrency=st.sampled_from([1, 2, 5]),
    rate=st.sampled_from([None, 10.0]),
    size=st.sampled_from([1, 10, 40]),
)
@settings(max_examples=60)
def test_a_stop_at_any_moment_ends_well(
    stop_s: float, seed: int, concurrency: int, rate: float | None, size: int
) -> None:
    """No deadlock, nothing sent after it, all that is settled is durable and true."""
    run_virtual(stopped_at(stop_s, seed, concurrency, rate, size))


@virtual_time
async def test_a_stop_with_rows_held_back_and_all_in_flight_abandoned() -> None:
    """When the stop empties the flight at once, held-back rows have nothing to wait for: that is no internal error."""
    rig = Rig(options(FaultOptions(rates={"500": 1.0})), concurrency=1, users_per_request=5)
    again: Row = ("hot@example.com", {"n": 1})
    rows: list[Row] = [again, *users(5), again]  # the second is held back, and two batches fill the flight
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.run, rows)
        await anyio.sleep(20)
        rig.lane.stop(Stopped("enough"))

    assert rig.checkpoint.rows() == {}


@virtual_time
async def test_a_stop_does_not_wait_for_the_next_block() -> None:
    """An export that comes slowly (a pipe) does not hold the stop up."""

    async def slow() -> AsyncIterator[Rows]:
        yield blocks(users(10))[0]
        await anyio.sleep(3600)
        pytest.fail("it was waited for")

    rig = Rig()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.run, slow())
        await anyio.sleep(5)
        rig.lane.stop(Stopped("enough"))

    assert elapsed() < 6
    assert rig.codes() == {Code.SUCCESS: 10}


@pytest.mark.parametrize("at_s", [0.0, 0.05, 0.5, 1.3, 2.9])
@virtual_time
async def test_cancellation_ends_the_run_at_any_stage(at_s: float) -> None:
    """No task, stream or lock stays behind; what was committed is complete."""
    rig = Rig(options(FaultOptions(latency_s=0.2, jitter_s=0.5, rates={"500": 0.3})), rate=40.0)
    with anyio.move_on_after(at_s) as scope:
        await rig.run(users(1000))
    gc.collect()

    assert scope.cancelled_caught
    assert len(asyncio.all_tasks()) == 1
    for item in rig.checkpoint.rows().values():
        assert item.user in rig.memory.ledger.users


@pytest.mark.parametrize("fails_from", [0, 1, 2, 5])
@virtual_time
async def test_a_commit_that_fails_stops_the_run_and_claims_nothing(fails_from: int) -> None:
    """The disk is full: exit 3, and what is counted is what is durable."""
    rig = Rig(options(FaultOptions(latency_s=0.5, jitter_s=0.5)), checkpoint=Recorder(fails_from))
    found = await rig.run(users(1000), block=100)

    assert isinstance(rig.lane.reason, Stopped)
    assert "disk is full" in str(rig.lane.reason)
    assert rig.tally.rows == len(found) < 1000
    assert rig.memory.ledger.writes <= len(found) + 2 * 4 * 10 + 40


class OnDisk(Recorder):
    """A real checkpoint, and what it took."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self._checkpoint = checkpoint

    def commit(self, entries: Iterable[Entry], note: Note | None = None) -> None:
        entries = list(entries)
        self._checkpoint.commit(entries)
        super().commit(entries)


def test_a_checkpoint_on_a_full_disk(tmp_path: Path) -> None:
    """What fits is durable and counted, the rest is not; here files may not grow beyond 200 KB."""

    async def load(checkpoint: Checkpoint) -> None:
        rig = Rig(users_per_request=20, checkpoint=OnDisk(checkpoint))
        await rig.run(users(10_000))

        assert "can't write the checkpoint" in str(rig.lane.reason)
        assert 0 < rig.tally.rows < 10_000

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoint.open(tmp_path / "x.ckpt", create=True) as checkpoint:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            run_virtual(load(checkpoint))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        rows = list(checkpoint.results())

    assert [row.row for row in rows] == sorted({row.row for row in rows})
    assert {row.code for row in rows} == {"SUCCESS"}


# Stopping early, for a reason of its own


@virtual_time
async def test_max_failures_as_a_number() -> None:
    """The run stops when more rows than that failed; all that was settled is durable, and the last words are shown."""
    rig = Rig(
        options(FaultOptions(latency_s=0.1), roster=RosterOptions(unknown=re.compile(r"user00[1-9]"))), max_failures=25
    )
    found = await rig.run(users(2000))

    assert "rows failed, more than limits.max_failures = 25; the last: USER_NOT_FOUND" in str(rig.lane.reason)
    assert 25 < rig.codes()[Code.USER_NOT_FOUND] <= 25 + 2 * 4 * 10
    assert rig.memory.ledger.writes == rig.codes()[Code.SUCCESS]
    assert len(found) == rig.tally.rows < 2000


@virtual_time
async def test_max_failures_as_a_share() -> None:
    """Of the rows so far, once there are a hundred."""
    every_tenth = options(roster=RosterOptions(unknown=re.compile(r"0@")))
    for share, stops in (("11%", False), ("9%", True)):
        rig = Rig(every_tenth, max_failures=share)
        await rig.run(users(1000))
        assert (rig.lane.reason is not None) == stops


@virtual_time
async def test_the_run_stops_if_the_first_thousand_all_fail() -> None:
    """A wrong mapping, not a thousand bad users: the target's words say which."""
    rig = Rig(options(roster=RosterOptions(known_users=frozenset({"nobody"}))), users_per_request=50)
    await rig.run(users(5000))

    assert "not one of the first 1," in str(rig.lane.reason)
    assert "USER_NOT_FOUND: User not found" in str(rig.lane.reason)
    assert 1000 <= len(rig.checkpoint.rows()) <= 1000 + 2 * 4 * 50


@virtual_time
async def test_one_success_in_the_first_thousand_is_enough() -> None:
    rig = Rig(options(roster=RosterOptions(known_users=frozenset({users(1)[0][0]}))), users_per_request=50)
    await rig.run(users(1500))

    assert rig.lane.reason is None
    assert rig.codes() == {Code.SUCCESS: 1, Code.USER_NOT_FOUND: 1499}


# Memory


@virtual_time
async def test_reading_waits_for_a_slow_target() -> None:
    """No more blocks are taken than fill the flight: memory does not grow with the export."""
    taken = 0

    async def counted() -> AsyncIterator[Rows]:
        nonlocal taken
        for block in blocks(users(20_000), 100):
            taken += 1
            yield block

    rig = Rig(options(FaultOptions(latency_s=10.0)), concurrency=4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.run, counted())
        await anyio.sleep(95)
        settled = len(rig.checkpoint.rows())
        assert taken * 100 <= settled + 2 * 4 * 10 + 2 * 100
        tasks.cancel_scope.cancel()


@virtual_time
async def test_reading_waits_for_commits_of_rows_that_are_never_sent() -> None:
    """An export of nothing but rejected rows is read no faster than it is settled."""
    taken, rejected = 0, Outcome(Code.REJECTED, "ragged")
    ahead: list[int] = []
    rig = Rig()

    async def blocks_of_them() -> AsyncIterator[Rows]:
        nonlocal taken
        for row in range(1, 101):
            taken += 1
            ahead.append(taken - len(rig.checkpoint.rows()))
            yield Rows([], [], [], settled=[Settled(row, "", rejected)])

    found = await rig.run(blocks_of_them())

    assert len(found) == taken == 100
    assert max(ahead) <= 20
