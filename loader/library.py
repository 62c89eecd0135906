"""The loader inside other programs: a load as an object that is held, run, and stopped.

It is what `loader run` does without what belongs to a command: nothing is printed, no signal is taken, and nothing of
the process is changed. What a run has to say goes to the logger "loader".
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import anyio
from anyio import CancelScope, from_thread, to_thread

from loader.checkpoint import lock
from loader.errors import Asked, telling
from loader.export import Export
from loader.export.table import of
from loader.lane import Lane
from loader.runs import Flags, Run, Warnings, begun, reopened
from loader.settings import Settings, put, read_tables, settings_from
from loader.snapshot import Snapshot
from loader.standing import Report

_log = logging.getLogger("loader")

_KEPT = "what was settled is kept"

#: A settings file, or what would stand in one.
Given = str | PathLike[str] | Mapping[str, Any]

Watch = Callable[[Snapshot], None]

#: Objects of an async iterable that cross to a thread at a time.
_FETCHED = 200

_T = TypeVar("_T")


def _ignore(_snapshot: Snapshot) -> None:
    pass


def open(  # noqa: A001  # loader.open, as gzip.open
    settings: Given,
    *,
    export: object = None,
    checkpoint: str | PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    watch: Watch = _ignore,
) -> "Load":
    """A load, to be held with `async with`.

    `settings`: a settings file, or a mapping with the same tables; relative paths in it begin at the file's folder, of
    a mapping at the working directory. `overrides`: `{"limits.concurrency": 4}`.

    `export`: what is loaded in place of `[export]`: a table (anything with `__arrow_c_stream__`: pyarrow, polars,
    pandas, DuckDB) or an iterable of dicts, each a record as in NDJSON. It is read on other threads, a block at a time;
    an async iterable on the event loop. To go on with a load, give the same again from its beginning; that it is the
    same is checked. It has no name, so the checkpoint needs one: `checkpoint`, relative to the working directory, or
    `checkpoint.path` in the settings.

    `watch` is called on the event loop, once a second, with how the load stands; an error that it raises ends the run.
    """
    return Load(partial(_settings, settings, export, checkpoint, overrides or {}), watch)


def run(
    settings: Given,
    *,
    export: object = None,
    checkpoint: str | PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    watch: Watch = _ignore,
    first: int | None = None,
    until: datetime | None = None,
    fresh: bool = False,
    yes: bool = False,
    full: bool = False,
    plan: str | PathLike[str] | None = None,
    allow_shrink: bool = False,
) -> Report:
    """Load an export, or go on where the run before ended: `open` and `Load.run` where no event loop runs.

    A KeyboardInterrupt is raised when what is on the wire has ended; the second one at once.
    """

    async def main() -> Report:
        async with open(settings, export=export, checkpoint=checkpoint, overrides=overrides, watch=watch) as load:
            return await load.run(
                first=first, until=until, fresh=fresh, yes=yes, full=full, plan=plan, allow_shrink=allow_shrink
            )

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return anyio.run(main, backend_options={"use_uvloop": find_spec("uvloop") is not None})
    raise RuntimeError("an event loop runs here already; instead: async with loader.open(…) as load: await load.run()")


class Load:
    """One load, held for as long as its `async with` lasts: no other run, in this process or another, has it meanwhile.

    To enter raises Refused (SettingsError, ExportError, CheckpointError) where settings, credentials or the export are
    wrong, or another run holds it. To leave ends a run that is still on, as cancelling it does.

    Of one event loop, asyncio's; `stop` from elsewhere goes through `loop.call_soon_threadsafe`.
    """

    def __init__(self, read: Callable[[Callable[[object], Export]], Settings], watch: Watch) -> None:
        self._read = read
        self._watch = watch
        self._held = ExitStack()
        self._settings: Settings | None = None
        self._job: asyncio.Task[Report] | None = None
        self._scope = CancelScope()
        self._lane: Lane | None = None
        self._stopped: Asked | None = None  # for good
        self._ending: Asked | None = None  # this run
        self._fetching = CancelScope()

    async def __aenter__(self) -> "Load":
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("a load needs asyncio's event loop: aiohttp knows no other") from None
        try:
            hold = asyncio.create_task(to_thread.run_sync(self._hold))
            await _outlast(hold, lambda: self._end(Asked("cancelled as it was opened")))
        except BaseException:
            await self._let_go()
            raise
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        try:
            if self._job is not None and not self._job.done():
                self._end(Asked(f"the load was left; {_KEPT}"))
                await _outlast(asyncio.create_task(_ended(self._job)), self._scope.cancel, self._scope.cancel)
        finally:
            await self._let_go()

    async def run(
        self,
        *,
        first: int | None = None,
        until: datetime | None = None,
        fresh: bool = False,
        yes: bool = False,
        full: bool = False,
        plan: str | PathLike[str] | None = None,
        allow_shrink: bool = False,
    ) -> Report:
        """Load the export, or go on where the run before ended. A finished load sends nothing, and is reported again.

        The arguments are the options of `loader run`; an `until` without a zone is local time. It may be called again:
        after `first=10`, the next run goes on.

        Returns where the command ends with 0 or 1, and where it was stopped as asked (`until`, `stop`). Raises where it
        ends with 2 or 3: Refused, nothing was sent; Stopped, the run can't go on now, and the next one will.

        Cancelled, it sends no more, waits for what is on the wire (`limits.timeout_s` at most), keeps what is settled,
        and then raises the cancellation; cancelled again, it doesn't wait. Either way a later run goes on.
        """
        if first is not None and first < 1:
            raise ValueError(f"first: a number of rows, at least 1, not {first}")
        flags = Flags(first, until, fresh, yes, full, None if plan is None else Path(plan), allow_shrink)
        return await self._do(begun(self._ready(), flags, _log.info, self._heed), first, until)

    async def retry(self, *, until: datetime | None = None, even_taken_out: bool = False) -> Report:
        """Send again what failed in a finished load, as `loader retry` does. Returns and raises as `run` does.

        `even_taken_out`: also rows that were taken out to be corrected, as they were. Else that is Refused, where the
        command only says so.
        """
        return await self._do(reopened(self._ready(), _log.info, even_taken_out=even_taken_out), None, until)

    def stop(self, reason: str = "stopped as asked") -> None:
        """Send nothing more; what is on the wire may finish. `run` then returns, and each one after this at once."""
        self._stopped = Asked(f"{reason}; {_KEPT}")
        self._end(self._stopped)

    # Inside

    def _hold(self) -> None:
        settings = self._read(self._exported)
        settings.secrets()  # what is missing is told before anything begins
        settings.source.check(settings.row_mapping())
        self._held.enter_context(lock(settings.checkpoint_path))
        self._settings = settings

    async def _let_go(self) -> None:
        self._settings = None
        with CancelScope(shield=True):
            await to_thread.run_sync(self._held.close)

    def _ready(self) -> Settings:
        if self._settings is None:
            raise RuntimeError("this load is not held: async with loader.open(…) as load")
        if self._job is not None and not self._job.done():
            raise RuntimeError("this load is being run; open another, or wait for it")
        return self._settings

    async def _do(self, begin: AbstractContextManager[Run], first: int | None, until: datetime | None) -> Report:
        """In a task of its own: cancelling whoever waits for it is only a word to it."""
        self._lane, self._ending, self._scope = None, self._stopped, CancelScope()
        self._job = asyncio.create_task(self._work(self._ready(), begin, first, until))
        return await _outlast(self._job, lambda: self._end(Asked(f"cancelled; {_KEPT}")), self._scope.cancel)

    async def _work(
        self, settings: Settings, begin: AbstractContextManager[Run], first: int | None, until: datetime | None
    ) -> Report:
        with self._scope:
            try:
                async with _on_thread(begin) as begun_:
                    stopped = None
                    try:
                        await self._go(begun_, first, until)
                    except Asked as asked:
                        stopped = str(asked)
                    return await to_thread.run_sync(Report.of, begun_.checkpoint, stopped)
            except Asked as asked:  # before there was anything to report
                return Report(settings.checkpoint_path, {}, finished=False, stopped=str(asked))
        raise asyncio.CancelledError

    async def _go(self, run: Run, first: int | None, until: datetime | None) -> None:
        if run.resume.is_finished:
            return
        if self._ending is not None:
            raise self._ending
        self._lane = Lane(run.settings.limits.give_up_s, asyncio.get_running_loop().time)
        try:
            await run.go(self._lane, self._watch, Warnings(_log.warning), first, until)
        except BaseExceptionGroup as group:
            raise telling(group) from group

    def _end(self, reason: Asked) -> None:
        self._ending = self._ending or reason
        self._fetching.cancel()
        if self._lane is not None:
            self._lane.stop(reason)

    def _heed(self, _rows: int = 0) -> None:
        """Called now and then by what reads, on its thread: nobody knows how long it takes."""
        if self._ending is not None:
            raise self._ending

    def _exported(self, data: object) -> Export:
        return of(self._fetched(aiter(data)) if isinstance(data, AsyncIterable) else data, self._heed)

    def _fetched(self, objects: AsyncIterator[Any]) -> Iterator[Any]:
        """What comes on the event loop, for a thread."""

        async def fetch() -> tuple[list[Any], Exception | None]:
            found: list[Any] = []
            try:
                with CancelScope() as self._fetching:
                    while self._ending is None and len(found) < _FETCHED:
                        found.append(await anext(objects))
            except StopAsyncIteration:
                pass
            except Exception as error:  # noqa: BLE001  # whatever it is: raised behind what came before it
                return found, error
            return found, None

        found, error = from_thread.run(fetch)
        while found:
            yield from found
            found, error = ([], error) if error else from_thread.run(fetch)
        self._heed()
        if error is not None:
            raise error


def _nothing() -> None:
    pass


async def _outlast(
    job: asyncio.Task[_T], gently: Callable[[], None] = _nothing, at_once: Callable[[], None] = _nothing
) -> _T:
    """Wait for a task to its end, and whoever is cancelled meanwhile hears of it then.

    The first time `gently` asks the task to end, each further time `at_once` does. A cancelled scope of anyio's says it
    once.
    """
    try:
        await asyncio.wait({job})
    except asyncio.CancelledError:
        gently()
        with CancelScope(shield=True):
            while not job.done():
                try:
                    await asyncio.wait({job})
                except asyncio.CancelledError:
                    at_once()
        if not job.cancelled() and not isinstance(error := job.exception(), Asked | None):
            _log.warning("cancelled, and meanwhile it ended: %s", error)
        raise
    return job.result()


async def _ended(job: asyncio.Task[_T]) -> None:
    await asyncio.wait({job})


@asynccontextmanager
async def _on_thread(manager: AbstractContextManager[_T]) -> AsyncIterator[_T]:
    """What blocks as it begins and as it ends."""
    value = await to_thread.run_sync(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        with CancelScope(shield=True):
            if not await to_thread.run_sync(manager.__exit__, type(error), error, error.__traceback__):
                raise
    else:
        with CancelScope(shield=True):
            await to_thread.run_sync(manager.__exit__, None, None, None)


def _settings(
    given: Given,
    export: object,
    checkpoint: str | PathLike[str] | None,
    overrides: Mapping[str, Any],
    exported: Callable[[object], Export],
) -> Settings:
    path = None if isinstance(given, Mapping) else Path(given)
    data = _plain(given) if path is None else read_tables(path)
    folder = Path.cwd() if path is None else path.absolute().parent
    for key, value in overrides.items():
        put(data, key, _plain(value), "overrides:")
    if checkpoint is not None:
        put(data, "checkpoint.path", os.path.abspath(checkpoint), "checkpoint:")
    settings = settings_from(data, folder, path, None if export is None else exported(export))
    for key in settings.literal_secrets() if path is not None else ():
        _log.warning("%s is given as plain text; env:NAME or file:PATH keeps it out of files and logs", key)
    return settings


def _plain(value: Any) -> Any:
    """As it would stand in TOML: a copy, with paths as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return os.fspath(value) if isinstance(value, PathLike) else value
