"""A run around the load: where it begins, what is read and judged before, and what is kept behind it.

    lock ──► begun, or reopened for a retry ──► load ──► concluded

What is begun is over when its `with` ends. It blocks, and belongs into a thread where an event loop runs.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import anyio

from loader.checkpoint import Checkpoint
from loader.errors import Asked, Refused
from loader.export.remote import Remote
from loader.lane import Lane
from loader.progress import Tally
from loader.refresh.night import Options, Refresh, set_state_aside
from loader.resume import Resume, begin, reopen, set_aside
from loader.settings import Settings
from loader.snapshot import Snapshot
from loader.whole import Whole, prepare
from loader.words import counted

Say = Callable[[str], None]


@dataclass(frozen=True)
class Flags:
    """How a run goes: the options of `loader run`. An `until` without a zone is local time."""

    first: int | None = None
    until: datetime | None = None
    fresh: bool = False
    yes: bool = False
    full: bool = False
    plan: Path | None = None
    allow_shrink: bool = False

    def check(self, settings: Settings) -> None:
        """Raise Refused for what this target, or this load, gives no meaning to."""
        if (self.full or self.plan is not None) and settings.refresh.mode != "changed":
            raise Refused('--full and --plan are for a refresh, and refresh.mode is not "changed": all users are sent')
        is_whole, api = settings.store is not None, settings.target["api"]
        if is_whole and self.first is not None:
            raise Refused(
                f"--first: {api} takes the whole export in one request, and what a part of it leaves out would go; "
                "loader check tells what would be sent"
            )
        if self.allow_shrink and not is_whole:
            raise Refused(f"--allow-shrink: {api} keeps what an export leaves out, so a smaller one takes nothing away")


@dataclass(frozen=True)
class Run:
    """A run that has begun: its checkpoint is open, and what is left to do is known."""

    settings: Settings
    checkpoint: Checkpoint
    resume: Resume
    whole: Whole | None = None

    async def go(
        self,
        lane: Lane,
        watch: Callable[[Snapshot], None],
        warn: Say,
        first: int | None = None,
        until: datetime | None = None,
    ) -> Tally:
        """Do what is left, or as much of it as there is time for. Raises as load() does, alone or in a group."""
        from loader.load import load  # late: what only begins needs no HTTP client

        async with anyio.create_task_group() as tasks:
            if until is not None:
                tasks.start_soon(_heed_the_clock, lane, until)
            tally = await load(
                self.settings, self.checkpoint, self.resume, lane, watch, warn, first=first, whole=self.whole
            )
            tasks.cancel_scope.cancel()
        return tally


class Warnings:
    """Says the first few warnings of a run, and with the last of them that no more will be."""

    _most = 5

    def __init__(self, say: Say) -> None:
        self._say = say
        self._count = 0

    def __call__(self, message: str) -> None:
        self._count += 1
        if self._count <= self._most:
            self._say(message + (" (no more of these are shown)" if self._count == self._most else ""))


async def _heed_the_clock(lane: Lane, until: datetime) -> None:
    while (left := until.timestamp() - time.time()) > 0:  # noqa: ASYNC110
        await anyio.sleep(min(left, 10))  # in steps: a suspended machine's clock goes on, a timer's doesn't
    lane.stop(Asked(f"it is {until:%H:%M}, as --until says; what was settled is kept"))


@contextmanager
def begun(settings: Settings, flags: Flags, say: Say, watch: Callable[[int], None] = lambda _: None) -> Iterator[Run]:
    """The load, begun or gone on with, for whoever has its lock.

    `watch` is told how many rows are read before anything is sent, and may raise. Raises Refused; Stopped where what
    the run leaves behind can't be kept.
    """
    flags.check(settings)
    path = settings.checkpoint_path
    for file in settings.source.paths:
        if isinstance(file, Remote) and file.comes_whole:
            say(f"the server of {file} takes no ranges: after a drop or a kill all of it is read again")
    if refresh := refresh_of(settings, say, watch):
        with refresh.locked() as held, _night(held, path, flags) as (checkpoint, resume):
            yield _of(settings.reading(held.export), checkpoint, resume)
        return
    with settings.store.locked() if settings.store else nullcontext():
        whole = _whole(settings, say, fresh=flags.fresh, allow_shrink=flags.allow_shrink)
        if flags.fresh and (aside := set_aside(path, even_unfinished=flags.yes)):
            say(f"the old checkpoint is kept as {aside.name}")
        is_new = not path.exists()
        with Checkpoint.open(path, create=True) as checkpoint:
            resume = begin(checkpoint, settings.identity(), settings.source, settings.row_mapping())
            if not is_new and not resume.is_finished:
                say(f"going on behind {counted(len(resume.settled), 'settled row')}")
            yield _of(settings, checkpoint, resume, whole)


@contextmanager
def _night(refresh: Refresh, path: Path, flags: Flags) -> Iterator[tuple[Checkpoint, Resume]]:
    from loader.plan import refuse_drift

    planned = flags.plan
    if planned is not None and not (flags.fresh or refresh.is_new(path)):
        raise Refused("--plan: a load of this export has begun; loader run without it goes on")
    judge = (lambda compared: refuse_drift(planned, refresh, compared)) if planned else (lambda _compared: None)
    with refresh.night(path, Options(flags.full, flags.fresh, flags.yes), judge) as night:
        yield night


@contextmanager
def reopened(settings: Settings, say: Say, *, even_taken_out: bool = False) -> Iterator[Run]:
    """A finished load with the rows that are worth it taken out again, for whoever has its lock. Raises as begun().

    `even_taken_out`: also those that were given out to be corrected.
    """
    path, export = settings.checkpoint_path, settings.source
    if export.comes_once:
        raise Refused(f"{export} can't be read again; load from what can to be able to retry")
    if refresh := refresh_of(settings, say):
        with refresh.locked() as held, held.retrying(path) as (checkpoint, resume):
            yield _again(_of(settings.reading(held.export), checkpoint, resume), say)
        return
    kept = settings.store.locked() if settings.store else nullcontext()
    with kept, Checkpoint.open(path, create=False) as checkpoint:
        resume = begin(checkpoint, settings.identity(), export, settings.row_mapping())
        whole = _whole(settings, say, retry=True)
        yield _again(_of(settings, checkpoint, reopen(checkpoint, resume, even_taken_out=even_taken_out), whole), say)


def _of(settings: Settings, checkpoint: Checkpoint, resume: Resume, whole: Whole | None = None) -> Run:
    """The run, with what the checkpoint is to say of how it ends."""
    with checkpoint.refusing():
        if (checkpoint.get("accept") or []) != settings.accepted:
            checkpoint.put(accept=settings.accepted)
    return Run(settings, checkpoint, resume, whole)


def _again(run: Run, say: Say) -> Run:
    retrying = run.checkpoint.retrying()
    if retrying is None:
        say("there is nothing to retry")
        return run
    rows = retrying.rows - (len(run.resume.settled) - sum(retrying.kept.values()))
    rest = "" if rows == retrying.rows else f", the rest of {retrying.rows:,}"
    say(f"{counted(rows, 'row')} {'is' if rows == 1 else 'are'} sent again{rest}")
    return run


def _whole(settings: Settings, say: Say, **how: bool) -> Whole | None:
    """The export of a target that takes it in one request, fit to be sent. None: it goes in parts, or is done."""
    if settings.store is None:
        return None
    return prepare(
        settings.store,
        settings.source,
        settings.row_mapping(),
        settings.identity(),
        settings.checkpoint_path,
        say,
        **how,
    )


def refresh_of(settings: Settings, say: Say, watch: Callable[[int], None] = lambda _: None) -> Refresh | None:
    """The refresh that the settings ask for; None: all users are sent each time."""
    rules, identity = settings.refresh_rules, settings.identity()
    if rules is not None:
        return Refresh(rules, identity, settings.source, settings.row_mapping(), say, watch)
    if settings.store is None and (aside := set_state_aside(settings.stale_state, identity)):
        say(f"this load sends all, and no state is kept of it: that of the last refresh is now {aside.name}")
    return None
