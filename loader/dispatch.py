"""Batches out, outcomes in: so many in flight, each in a place that is free again when its outcomes are durable."""

from collections.abc import AsyncIterable, AsyncIterator, Callable

import anyio
from anyio import to_thread

from loader.batch import Batch, Batcher
from loader.checkpoint import Checkpoint, Entry
from loader.errors import Stopped
from loader.lane import Abandoned, Lane
from loader.record import Rows
from loader.settle import Settler
from loader.snapshot import Note

#: Batches in flight for each place on the wire: one there, one in backoff or waiting for its commit (promise 2).
WINDOW = 2

#: Blocks whose rows were never sent that wait for one commit: reading is no further ahead of it.
_BLOCKS = 8

#: A commit waits so long for more to go into it. The other half of what may be in flight is on the wire meanwhile.
_PATIENCE_S = 0.02

#: Where nothing is settled for so long, that is noted, too: somebody may look how the load stands.
_QUIET_S = 5.0


class _Group:
    """What goes into one commit. `begun`: there is something; `is_due`: it should wait no longer; `over`: it was made.

    These are waited for, and a group is waited for by all whose batches are in it: one wake-up, and no task, for each.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.batches = 0
        self.begun, self.due, self.over = anyio.Event(), anyio.Event(), anyio.Event()

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.batches += entry.batch is not None
        self.begun.set()


class Dispatcher:
    """Moves rows through batcher, settler and checkpoint. `committed` is told of every entry that became durable.

    `note`: what is to be kept beside the outcomes, if there is something new.
    """

    def __init__(
        self,
        batcher: Batcher,
        settler: Settler,
        checkpoint: Checkpoint,
        lane: Lane,
        concurrency: int,
        committed: Callable[[Entry], None],
        note: Callable[[], Note | None] = lambda: None,
    ) -> None:
        self._batcher = batcher
        self._settler = settler
        self._checkpoint = checkpoint
        self._lane = lane
        self._places = WINDOW * concurrency
        self._committed = committed
        self._note = note
        self._in_flight = 0
        self._group = _Group()
        self._is_read = False  # all of the export
        self._is_over = False  # nothing more comes to be committed
        self._change = anyio.Event()  # there may be something to send that was not there before
        self._hungry = anyio.Event()  # more may be read: there is nothing to send, or that was all there was

    async def run(self, blocks: AsyncIterable[Rows]) -> None:
        """Send all rows of `blocks`, or those read until the lane stops. Returns when all that is settled is durable.

        A stopped lane (lane.reason tells why) leaves unsettled what it had in flight and could not finish.
        """
        async with anyio.create_task_group() as committing:
            committing.start_soon(self._commit)
            async with anyio.create_task_group() as settling:
                for _ in range(self._places):
                    settling.start_soon(self._fill_place)
                await self._feed(blocks)
            self._is_over = True
            self._group.begun.set()

    async def _feed(self, blocks: AsyncIterable[Rows]) -> None:
        """Read on whenever nothing is left to send."""
        reader = aiter(blocks)
        try:
            while (rows := await self._next_block(reader)) is not None:
                position = (rows.position, rows.last) if rows.last else None
                group = self._put(Entry(settled=rows.settled, mark=rows.end, position=position))
                self._batcher.feed(rows)
                self._hungry = anyio.Event()
                self._tell()
                with self._lane.waiting():
                    await self._hungry.wait()
                    if len(group.entries) - group.batches >= _BLOCKS:
                        await group.over.wait()
            self._is_read = True
            self._settler.is_last = self._batcher.is_empty
        except Abandoned:
            pass
        self._tell()

    async def _next_block(self, blocks: AsyncIterator[Rows]) -> Rows | None:
        """The next block; None: that was the last. Raises Abandoned if the run stops."""
        with self._lane.waiting():
            return await anext(blocks, None)

    async def _fill_place(self) -> None:
        """One place in flight: a batch, and when that is durable, the next."""
        while (batch := await self._next()) is not None:
            self._in_flight += 1
            entry = await self._settled(batch)
            if entry is None:
                self._free()
            else:
                await self._put(entry).over.wait()

    async def _settled(self, batch: Batch) -> Entry | None:
        """All of a batch, or who of it could be settled before the run stopped. None: nobody; the next run sends it."""
        salvaged: list[Entry] = []
        try:
            outcomes = await self._settler.settle(batch, lambda *some: salvaged.append(Entry(*some)))
            return Entry(batch, outcomes)
        except Abandoned:
            pass
        except Stopped as error:
            self._lane.stop(error)
        return salvaged[0] if salvaged else None

    async def _next(self) -> Batch | None:
        """The next batch, as soon as there is one. None: there is none any more, or the run stops."""
        while not self._lane.stopping.is_set():
            is_final = self._is_read or self._batcher.is_full
            batch = self._batcher.next(self._settler.limits, final=is_final)
            if self._batcher.is_empty:
                self._settler.is_last = self._is_read
                self._hungry.set()
            if batch is not None or self._settler.is_last:
                return batch
            if not is_final:
                self._hungry.set()
            elif not self._in_flight:
                raise AssertionError("rows are held back, and nothing is in flight that they could wait for")
            await self._change.wait()
        return None

    def _tell(self) -> None:
        """All who have a place, and nothing to send, look again."""
        self._change.set()
        self._change = anyio.Event()

    def _put(self, entry: Entry) -> _Group:
        """Into the next commit."""
        group = self._group
        group.add(entry)
        if self._is_due(group):
            group.due.set()
        return group

    def _is_due(self, group: _Group) -> bool:
        """Is half of what may be in flight settled, or all that is?"""
        return group.batches >= min(self._places // 2, self._in_flight)

    def _free(self, places: int = 1) -> None:
        self._in_flight -= places
        if self._is_due(self._group):
            self._group.due.set()
        self._tell()  # rows that were held back may go now, or never will

    async def _commit(self) -> None:
        """Whatever is settled goes into one commit together, as each costs a wait for the disk."""
        while not self._is_over or self._group.entries:
            group = self._group
            with anyio.move_on_after(_QUIET_S):
                await group.begun.wait()
            if not group.entries:
                if self._is_over:
                    return
                await self._try_commit([])
                continue
            if not self._is_due(group):
                with anyio.move_on_after(_PATIENCE_S):
                    await group.due.wait()
            self._group = _Group()
            is_durable = await self._try_commit(group.entries)
            for done in group.entries if is_durable else ():
                self._committed(done)
                if done.batch is not None:
                    self._batcher.release(done.batch)
            self._free(group.batches)
            group.over.set()

    async def _try_commit(self, group: list[Entry]) -> bool:
        """False: it failed, so the run stops, and nothing is claimed of these rows; the next run sends them again."""
        note = self._note()
        if not group and note is None:
            return True
        try:
            await to_thread.run_sync(self._checkpoint.commit, group, note)
        except Stopped as error:
            self._lane.stop(error)
            return False
        return True
