"""Batches out, outcomes in: a bounded window of batches in flight, each freed only when its outcomes are durable."""

from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from loader.batch import Batch, Batcher
from loader.checkpoint import Checkpoint, Entry
from loader.errors import Stopped
from loader.lane import Abandoned, Lane
from loader.record import Rows
from loader.settle import Settler
from loader.snapshot import Note

#: Batches in flight for each place on the wire: one there, one in backoff or waiting for its commit (promise 2).
WINDOW = 2

#: Entries that one commit takes at most, so that no commit takes long.
_GROUP = 256

#: A commit waits so long for more to go into it. The other half of the window is on the wire meanwhile.
_PATIENCE_S = 0.02

#: Where nothing is settled for so long, that is noted, too: somebody may look how the load stands.
_QUIET_S = 5.0


class Dispatcher:
    """Moves rows through batcher, settler and checkpoint. `committed` is told of every entry that became durable.

    `note`: what is to be kept beside the outcomes.
    """

    def __init__(
        self,
        batcher: Batcher,
        settler: Settler,
        checkpoint: Checkpoint,
        lane: Lane,
        concurrency: int,
        committed: Callable[[Entry], None],
        note: Callable[[], Note] = Note,
    ) -> None:
        self._batcher = batcher
        self._settler = settler
        self._checkpoint = checkpoint
        self._lane = lane
        self._window = anyio.Semaphore(WINDOW * concurrency, fast_acquire=True)
        self._committed = committed
        self._note = note
        self._enough = (WINDOW * concurrency + 1) // 2
        self._freed: anyio.Event | None = None  # where somebody waits
        self._in_flight = 0
        self._entries, self._to_commit = anyio.create_memory_object_stream[Entry](WINDOW * concurrency + 8)

    async def run(self, blocks: AsyncIterable[Rows]) -> None:
        """Send all rows of `blocks`, or those read until the lane stops. Returns when all that is settled is durable.

        A stopped lane (lane.reason tells why) leaves unsettled what it had in flight and could not finish.
        """
        async with anyio.create_task_group() as committing:
            committing.start_soon(self._commit)
            async with self._entries, anyio.create_task_group() as settling:
                await self._feed(blocks, settling)

    async def _feed(self, blocks: AsyncIterable[Rows], settling: TaskGroup) -> None:
        stopping = self._lane.stopping
        reader = aiter(blocks)
        while (rows := await self._next_block(reader)) is not None:
            await self._entries.send(
                Entry(settled=rows.settled, mark=rows.end, position=(rows.position, rows.last) if rows.last else None)
            )
            self._batcher.feed(rows)
            while await self._send_next(settling, final=False):
                pass
            while self._batcher.is_full and not stopping.is_set():
                if not await self._send_next(settling, final=True):
                    await self._release()
        while not self._batcher.is_empty and not stopping.is_set():
            if not await self._send_next(settling, final=True):
                await self._release()
        self._settler.is_last = True

    async def _next_block(self, blocks: AsyncIterator[Rows]) -> Rows | None:
        """The next block; None: that was the last, or the run stops."""
        try:
            with self._lane.waiting():
                return await anext(blocks)
        except (StopAsyncIteration, Abandoned):
            return None

    async def _send_next(self, settling: TaskGroup, *, final: bool) -> bool:
        """Start settling the next batch when there is room in flight. False: there is none to send now."""
        await self._window.acquire()
        batch = None if self._lane.stopping.is_set() else self._batcher.next(self._settler.limits, final=final)
        if batch is None:
            self._window.release()
            return False
        self._in_flight += 1
        settling.start_soon(self._settle, batch)
        return True

    async def _settle(self, batch: Batch) -> None:
        try:
            outcomes = await self._settler.settle(batch)
        except Abandoned:  # unsettled: the next run sends it again
            self._free()
        except Stopped as error:
            self._lane.stop(error)
            self._free()
        else:
            await self._entries.send(Entry(batch, outcomes))

    async def _release(self) -> None:
        """Wait until rows that are held back may go: until a batch in flight is durable."""
        if self._in_flight:
            self._freed = self._freed or anyio.Event()
            await self._freed.wait()
        elif not self._lane.stopping.is_set():
            raise AssertionError("rows are held back, and nothing is in flight that they could wait for")

    def _free(self) -> None:
        self._in_flight -= 1
        self._window.release()
        if self._freed is not None:
            self._freed.set()
            self._freed = None

    async def _commit(self) -> None:
        """Whatever is settled goes into one commit together, as each costs a wait for the disk."""
        async with self._to_commit:
            while (group := await self._next_group()) is not None:
                is_durable = await self._try_commit(group)
                for done in group:
                    if is_durable:
                        self._committed(done)
                    if done.batch is not None:
                        if is_durable:
                            self._batcher.release(done.batch)
                        self._free()

    async def _next_group(self) -> list[Entry] | None:
        """The entries of one commit; none if it was quiet for a while. None: that was the last."""
        try:
            with anyio.move_on_after(_QUIET_S) as quiet:
                entry = await self._to_commit.receive()
        except anyio.EndOfStream:
            return None
        return [] if quiet.cancelled_caught else await self._gather(entry)

    async def _gather(self, entry: Entry) -> list[Entry]:
        """Until half of what may be in flight is settled, or no more is, or for a moment."""
        group = [entry]
        batches = int(entry.batch is not None)
        with anyio.move_on_after(_PATIENCE_S), suppress(anyio.EndOfStream):
            while len(group) < _GROUP:
                try:
                    more = self._to_commit.receive_nowait()
                except anyio.WouldBlock:
                    if batches >= min(self._enough, self._in_flight):
                        break
                    more = await self._to_commit.receive()
                group.append(more)
                batches += more.batch is not None
        return group

    async def _try_commit(self, group: list[Entry]) -> bool:
        """False: it failed, so the run stops, and nothing is claimed of these rows; the next run sends them again."""
        try:
            await to_thread.run_sync(self._checkpoint.commit, group, self._note())
        except Stopped as error:
            self._lane.stop(error)
            return False
        return True
