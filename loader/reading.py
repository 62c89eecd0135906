"""The export's blocks, read and mapped on a thread while the ones before are sent."""

from collections.abc import AsyncIterator, Iterator

import anyio
from anyio import to_thread

from loader.errors import Refused, Stopped
from loader.record import Rows

#: Blocks that wait between the thread and the event loop.
_READ_AHEAD = 1


class Reading:
    """Blocks of an export, one ahead. `position`: bytes of the export, as stored, behind the block handed out last.

    `error` is why the export broke off, if it did: the rows before are handed out all the same.
    """

    def __init__(self, rows: Iterator[Rows]) -> None:
        self._rows = rows
        self._first: Rows | None = None
        self.position = 0
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
                self.position = block.position
                yield block

    async def _next(self) -> Rows | None:
        try:
            return await to_thread.run_sync(next, self._rows, None)
        except Stopped as error:
            self.error = error
            return None
