"""The story: an export is read in blocks, mapped to records, batched, sent, settled, and every outcome made durable.

    rows ──► records ──► batches ──► requests ──► responses ──► outcomes ──► checkpoint
    export   mapping     batch       targets      client         settle       checkpoint

Reading and mapping run on a thread, a block at a time; batching and sending on the event loop, a batch at a time; the
checkpoint is written by another thread, a group of batches at a time.
"""

import time
from collections.abc import Callable
from contextlib import aclosing, nullcontext, suppress
from datetime import UTC, datetime

from anyio import create_task_group, to_thread

from loader.batch import Batcher
from loader.ceiling import RequestSize
from loader.checkpoint import Checkpoint, Entry
from loader.client import Credentials, Tempo, layers, work_clock
from loader.dispatch import Dispatcher
from loader.errors import Stopped
from loader.export import Export
from loader.lane import Abandoned, Lane
from loader.meter import Meter
from loader.outcome import Code
from loader.probe import refuse_undeclared
from loader.progress import Tally
from loader.reading import Head, Reading
from loader.resume import Resume
from loader.settings import Settings
from loader.settle import Settler
from loader.snapshot import Snapshot
from loader.target import WholeTarget
from loader.tempo.concurrency import Concurrency
from loader.tempo.rate import Rate
from loader.transport import Transport
from loader.whole import Whole


async def load(
    settings: Settings,
    checkpoint: Checkpoint,
    resume: Resume,
    lane: Lane,
    watch: Callable[[Snapshot], None],
    warn: Callable[[str], None],
    first: int | None = None,
    whole: Whole | None = None,
) -> Tally:
    """Run a load to its end, from where `resume` says, and return the outcomes of all its rows.

    With `first` it goes no further than so many rows: if there are more, the load stays unfinished. `whole`: the
    export of a target that takes it in one request, prepared.
    `lane` stops it, and `watch` is told once a second how it stands. Raises Refused before anything was sent, Stopped
    where the run can't go on; what was settled is in the checkpoint either way.
    """
    target = settings.build_target()
    assert isinstance(target, WholeTarget) == (whole is not None), "what goes whole is prepared first"
    export: Export = await to_thread.run_sync(lambda: settings.source)  # a pattern is looked up
    limits = settings.limits
    await to_thread.run_sync(settings.secrets)  # what is missing is told before anything begins
    fingerprint = await to_thread.run_sync(export.fingerprint)
    about = {
        "settings": settings.shown(),
        "settings_path": str(settings.path or ""),
        "arguments": settings.arguments,
        "flags": [],
        "is_whole": whole is not None,
    }
    await to_thread.run_sync(lambda: checkpoint.put(**about))
    tally = Tally(await to_thread.run_sync(checkpoint.counts), await to_thread.run_sync(lambda: checkpoint.good))
    kept = await to_thread.run_sync(checkpoint.found)
    if whole is None:
        blocks = resume.amend(export.rows(settings.row_mapping(), resume.start, resume.settled, resume.known))
    else:
        blocks = whole.blocks(resume.settled, await to_thread.run_sync(checkpoint.get, "export"))
    rows = Head(blocks, first)
    reading = Reading(rows)
    way = await to_thread.run_sync(settings.way)
    try:
        with lane.waiting():  # a database may sort for minutes
            await reading.begin()
    except Abandoned:
        assert lane.reason is not None
        raise lane.reason from None

    def committed(entry: Entry) -> None:
        if aside := entry.settled:
            tally.add([item.outcome for item in aside], [item.row for item in aside], [item.user for item in aside])
        if batch := entry.batch:
            tally.add(entry.outcomes, batch.numbers, batch.users, sum(map(len, batch.merged.values())))
        # Where one answer is about all, there is nothing left to stop.
        if whole is None and (reason := tally.reason_to_stop(limits.max_failures)):
            lane.stop(reason)

    batcher = Batcher(
        target.frame, settings.batch_limits, replace=target.write == "replace", rows_are_users=whole is None
    )
    size = RequestSize(settings.batch_limits, kept.users, kept.body_bytes)
    at_once = Concurrency(limits.concurrency, kept.concurrency, worked=work_clock())
    tempo = Tempo(settings.paces, Rate(kept.requests_per_s), at_once)

    # Of what is read, most may still be waiting: what counts is the part that is settled.
    meter = Meter(
        tally,
        fingerprint.size,
        lambda: min(reading.position * tally.rows // max(reading.row, 1), fingerprint.size),
        lane,
        tempo.traffic,
        lambda: tempo.found(*size.found),
        lambda: tempo.concurrency.limit,
        settings.paces,
        await to_thread.run_sync(checkpoint.retrying),
    )
    async with (
        aclosing(reading),
        Transport(settings.base_url, limits.concurrency, limits.timeout_s, network=way) as wire,
        create_task_group() as tasks,
    ):
        credentials = Credentials(target.scheme, settings.secrets, wire, lane, tempo, warn=warn)
        send = layers(wire, lane, tempo, credentials, target.refuses_token)
        settler = Settler(
            target, send, lane, size, limits.attempts, warn, is_proven=tally.is_proven, traffic=tempo.traffic
        )
        tasks.start_soon(reading.pump)
        tasks.start_soon(meter.beat, watch)
        await refuse_undeclared(target, send, await to_thread.run_sync(export.names, settings.row_mapping()), warn)
        dispatcher = Dispatcher(batcher, settler, checkpoint, lane, limits.concurrency, committed, meter.note)
        await dispatcher.run(reading.blocks())
        tasks.cancel_scope.cancel()
    if error := lane.reason or reading.error:
        lane.stop(error)
    last = meter.end()
    watch(last.snapshot)
    with suppress(Stopped) if error else nullcontext():
        if error and error.flags:
            await to_thread.run_sync(lambda: checkpoint.put(flags=error.flags))
        await to_thread.run_sync(checkpoint.commit, (), last)
    if error:
        raise error
    if not rows.is_cut:
        await to_thread.run_sync(_finish, export, checkpoint, tally, whole)
    return tally


def _finish(export: Export, checkpoint: Checkpoint, tally: Tally, whole: Whole | None) -> None:
    """The load is finished, unless it wasn't one export that was read. What went whole is kept, if it was accepted."""
    if whole is not None:
        if tally.counts[Code.SUCCESS] == tally.rows:
            whole.store.write(whole.rows.records, datetime.now(UTC))
    elif list(export.fingerprint()) != list(checkpoint.get("export").values()):
        raise Stopped(f"{export} changed while it was read; what was settled is kept, but it is of the old content")
    checkpoint.put(finished_at=time.time(), rows=tally.rows)
