"""Blocks of an export, read on a thread ahead of their use."""

import asyncio
import gc
import threading
from collections.abc import Iterator

import anyio
import pytest

from loader.errors import ExportError, Stopped
from loader.outcome import Code, Outcome, Settled
from loader.reading import Head, Reading
from loader.record import Mark, Rows
from tests import make
from tests.faults.rig import blocks, users
from tests.virtual_time import virtual_time


class Export:
    """Blocks of ten rows; notes how many were read, and on which threads. `ends` is raised instead of the end."""

    def __init__(self, count: int, ends: Exception | None = None) -> None:
        self.count = count
        self.ends = ends
        self.read = 0
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[Rows]:
        for number, block in enumerate(blocks(users(10 * self.count), 10), 1):
            self.read += 1
            self.threads.add(threading.get_ident())
            block.position = number * 100
            yield block
        if self.ends is not None:
            raise self.ends


async def test_the_export_is_left_when_nobody_wants_more() -> None:
    """A database is told, and its connection closed."""
    left = []

    def blocks() -> Iterator[Rows]:
        try:
            for first in range(1, 100):
                yield make.rows("a", first)
        finally:
            left.append(True)

    reading = Reading(Head(blocks(), None))
    await reading.begin()
    await reading.aclose()

    assert left == [True]


async def numbers(reading: Reading) -> list[int]:
    """The rows that are handed out."""
    await reading.begin()
    found: list[int] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reading.pump)
        async for block in reading.blocks():
            found += block.numbers
    return found


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@virtual_time
async def test_all_blocks_come_in_order(count: int) -> None:
    """Read on threads other than the event loop's."""
    export = Export(count)
    reading = Reading(iter(export))

    assert await numbers(reading) == list(range(1, 10 * count + 1))
    assert reading.position == 100 * count
    assert reading.error is None
    assert threading.get_ident() not in export.threads


@virtual_time
async def test_no_more_than_two_blocks_are_read_ahead() -> None:
    """However long the one handed out takes: one waits, one is in the reader's hand."""
    export = Export(20)
    reading = Reading(iter(export))
    await reading.begin()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reading.pump)
        handed_out = 0
        async for block in reading.blocks():
            handed_out += 1
            assert reading.position == block.position == 100 * handed_out
            await anyio.sleep(60)
            assert export.read <= handed_out + 2


@virtual_time
async def test_an_export_that_can_not_be_read_is_told_at_the_beginning() -> None:
    """Before anything is sent, and as what it is: exit 2."""
    reading = Reading(iter(Export(0, ExportError("the header names 'a' twice"))))

    with pytest.raises(ExportError, match="twice"):
        await reading.begin()


@pytest.mark.parametrize("error", [Stopped("its gzip data breaks off"), ExportError("its third file is no CSV")])
@virtual_time
async def test_where_an_export_breaks_off_the_rows_before_are_handed_out(error: Exception) -> None:
    """Then the run stops, resumable: something may have been sent by then."""
    reading = Reading(iter(Export(3, error)))

    assert await numbers(reading) == list(range(1, 31))
    assert isinstance(reading.error, Stopped)
    assert str(reading.error) == str(error)


@virtual_time
async def test_an_export_that_breaks_off_at_once_has_no_rows() -> None:
    reading = Reading(iter(Export(0, Stopped("I/O error"))))

    assert await numbers(reading) == []
    assert reading.error is not None


@virtual_time
async def test_an_internal_error_is_not_hidden() -> None:
    with pytest.raises(ExceptionGroup) as group:
        await numbers(Reading(iter(Export(2, AssertionError("3 records were cut, 2 parsed")))))
    assert isinstance(group.value.exceptions[0], AssertionError)


@virtual_time
async def test_who_stops_reading_ends_the_pump() -> None:
    """A run that stops drops the blocks; the thread reads no further, and nothing is raised or left open."""
    export = Export(20)
    reading = Reading(iter(export))
    await reading.begin()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reading.pump)
        async for _ in reading.blocks():
            break
    gc.collect()

    assert export.read <= 4
    assert len(asyncio.all_tasks()) == 1


def rejected(*numbers: int) -> list[Settled]:
    return [Settled(number, "", Outcome(Code.REJECTED, "broken")) for number in numbers]


@pytest.mark.parametrize(
    ("count", "numbers", "is_cut"),
    [
        (1, [1], True),
        (3, [1, 2, 3], True),
        (4, [1, 2, 3, 4], True),
        (5, [1, 2, 3, 4, 5], True),
        (7, [1, 2, 3, 4, 5, 6, 7], False),
        (None, [1, 2, 3, 4, 5, 6, 7], False),
    ],
)
def test_the_first_rows_are_the_first_whatever_becomes_of_them(
    count: int | None, numbers: list[int], is_cut: bool
) -> None:
    """Rejected rows count as well. An export with no more rows is whole."""
    first, empty, last = make.rows("abc", 1), make.rows("", 4), make.rows("efg", 5)
    first.numbers, first.settled = [1, 2, 4], rejected(3)
    first.end, last.end = Mark(5), Mark(8)
    first.position, empty.position, last.position = 10, 11, 20

    head = Head(iter([first, empty, last]), count)
    blocks = list(head)

    assert sorted(n for block in blocks for n in [*block.numbers, *(item.row for item in block.settled)]) == numbers
    assert all(len(block.numbers) == len(block.users) == len(block.records) for block in blocks)
    assert head.is_cut is is_cut


def test_a_block_that_is_cut_is_read_again() -> None:
    """So it has no mark, and its bytes are not read yet."""
    first, last = make.rows("abc", 1), make.rows("def", 4)
    first.end, first.position, last.end, last.position = Mark(4), 10, Mark(7), 20

    blocks = list(Head(iter([first, last]), 4))

    assert [(block.numbers, block.end, block.position) for block in blocks] == [
        ([1, 2, 3], Mark(4), 10),
        ([4], None, 10),
    ]
