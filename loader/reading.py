"""The export's blocks, read and mapped on a thread while the ones before are sent."""

from bisect import bisect_right
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import replace

import anyio
from anyio import to_thread

from loader.errors import Refused, Stopped
from loader.record import Rows

#: Blocks that wait between the thread and the event loop.
_READ_AHEAD = 1


class Head:
    """The blocks of an export up to its first `count` rows (None: all of it). `is_cut`: there are more."""

    def __init__(self, blocks: Iterator[Rows], count: int | None) -> None:
        self._blocks = blocks
        self._left = count
        self._position = 0
        self.is_cut = False

    def __iter__(self) -> Iterator[Rows]:
        return self

    def close(self) -> None:
        """Leave the export where it is."""
        if isinstance(self._blocks, Generator):
            self._blocks.close()

    def __next__(self) -> Rows:
        if self.is_cut:
            raise StopIteration
        block = next(self._blocks)
        count = len(block.numbers) + len(block.settled)
        if self._left is None or count <= self._left:
            self._left = None if self._left is None else self._left - count
            self._position = block.position
            return block
        self.is_cut = True
        return _cut(block, self._left, self._position)


def _cut(block: Rows, count: int, position: int) -> Rows:
    """The first `count` rows of a block. Reading goes on before it, so it has no mark, and its bytes don't count."""
    numbers = sorted([*block.numbers, *(item.row for item in block.settled)])
    last = numbers[count - 1] if count else 0
    at = bisect_right(block.numbers, last)
    return replace(
        block,
        numbers=block.numbers[:at],
        users=block.users[:at],
        records=block.records[:at],
        settled=[item for item in block.settled if item.row <= last],
        end=None,
        position=position,
    )


class Reading:
    """Blocks of an export, one ahead.

    `position`: bytes of the export, as stored, behind the block handed out last; `row`: its last row's number.

    `error` is why the export broke off, if it did: the rows before are handed out all the same.
    """

    def __init__(self, rows: Iterator[Rows]) -> None:
        self._rows = rows
        self._first: Rows | None = None
        self.position = 0
        self.row = 0
        self.error: Stopped | None = None

    async def begin(self) -> None:
        """Read the first block. Raises ExportError if the export can't be read, or doesn't fit the mapping."""
        self._first = await self._next()
        self._send, self._receive = anyio.create_memory_object_stream[Rows](_READ_AHEAD)

    async def pump(self) -> None:
        """Read to the end, or until nobody wants more. For a task of its own."""
        async with self._send:
            block = self._first
            self._first = None
            while block is not None:
                try:
                    await self._send.send(block)
                    block = await self._next()
                except anyio.BrokenResourceError:
                    return
                except Refused as error:  # what was read before it may have been sent: too late to refuse
                    self.error = Stopped(str(error))
                    return

    async def blocks(self) -> AsyncIterator[Rows]:
        """The blocks that `pump` reads."""
        async with self._receive:
            async for block in self._receive:
                self.position, self.row = block.position, block.last or self.row
                yield block

    async def aclose(self) -> None:
        """Whether anybody came for the blocks or not, nobody will any more."""
        await self._send.aclose()
        await self._receive.aclose()
        if close := getattr(self._rows, "close", None):
            with anyio.CancelScope(shield=True):  # a database is told, too
                await to_thread.run_sync(close)

    async def _next(self) -> Rows | None:
        try:
            return await to_thread.run_sync(next, self._rows, None)
        except Stopped as error:
            self.error = error
            return None
