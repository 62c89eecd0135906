"""A load, as `run` and `retry` run it: with its progress on the screen, signals and the clock heeded, and an end."""

import shlex
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from loader.cli.importing import QuickImports
from loader.cli.loop import heed_signals, on_loop
from loader.cli.messages import Warnings, counted, is_json, log_line, say, tell
from loader.errors import LoaderError, Refused, Stopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from datetime import datetime

    from loader.checkpoint import Checkpoint
    from loader.lane import Lane
    from loader.refresh import Refresh
    from loader.resume import Resume
    from loader.settings import Settings
    from loader.snapshot import Snapshot
    from loader.whole import Whole

_KEPT = "what was settled is kept"
_LOG_EVERY_S = 10.0


def prepare_whole(settings: "Settings", path: Path, **how: bool) -> "Whole | None":
    """The export of a target that takes it in one request, fit to be sent. None: it goes in parts, or is done."""
    from loader.whole import prepare

    if settings.store is None:
        return None
    return prepare(
        settings.store,
        settings.source,
        settings.row_mapping(),
        settings.identity(),
        path,
        lambda message: say(f"loader: {message}"),
        **how,
    )


def go(
    settings: "Settings",
    checkpoint: "Checkpoint",
    resume: "Resume",
    again: str,
    until: "datetime | None",
    first: int | None = None,
    whole: "Whole | None" = None,
    *,
    quiet: bool = False,
    dashboard: int | None = None,
) -> int:
    """Run the load, and tell how it ended. `again` is the command to go on with."""
    try:
        _run(settings, checkpoint, resume, until, first, whole, quiet=quiet, dashboard=dashboard)
    except Refused:
        raise
    except LoaderError as error:
        ended = LoaderError(f"{error}\nGo on with: {' '.join([again, *error.flags])}")
        ended.exit_status = error.exit_status
        raise ended from error
    status = summarize(checkpoint)
    if checkpoint.get("finished_at") is None:
        say(f"The load is not finished: this run ended after {counted(first or 0, 'row')}. Go on with: {again}")
    return status


def _run(
    settings: "Settings",
    checkpoint: "Checkpoint",
    resume: "Resume",
    until: "datetime | None",
    first: int | None,
    whole: "Whole | None",
    *,
    quiet: bool,
    dashboard: int | None,
) -> None:
    with QuickImports():
        import anyio
        from rich.console import Console

        from loader.lane import Lane
        from loader.load import load
        from loader.screen import progress

    async def run_load() -> None:
        lane = Lane(settings.limits.give_up_s, time.monotonic)
        with _logged(quiet) if is_json() else progress(Console(stderr=True, quiet=quiet)) as show:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(heed_signals, lane, _KEPT)
                if until is not None:
                    tasks.start_soon(_heed_the_clock, lane, until)
                async with _published(settings, dashboard) as publish:

                    def watch(snapshot: "Snapshot") -> None:
                        show(snapshot)
                        publish(snapshot)

                    await load(settings, checkpoint, resume, lane, watch, Warnings(), first, whole)
                tasks.cancel_scope.cancel()

    on_loop(run_load)


@contextmanager
def _logged(quiet: bool) -> "Iterator[Callable[[Snapshot], None]]":
    """What logs a snapshot each ten seconds, without the keys of users: logs are sent to places."""
    from msgspec import to_builtins

    next_s = 0.0

    def show(now: "Snapshot") -> None:
        nonlocal next_s
        if not quiet and now.elapsed_s >= next_s:
            next_s = now.elapsed_s + _LOG_EVERY_S
            facts = to_builtins(now)
            del facts["failures"], facts["wire"]["times"]
            tell(log_line("progress", **facts))

    yield show


@asynccontextmanager
async def _published(settings: "Settings", port: int | None) -> "AsyncIterator[Callable[[Snapshot], None]]":
    """What publishes each snapshot, where [metrics] asks for it, and on a dashboard at `port`, unless that is None."""
    watchers: list[Callable[[Snapshot], None]] = []
    if not settings.metrics and port is None:
        yield lambda _snapshot: None
        return
    from loader.telemetry import About

    about = About(settings.api.api, urlsplit(settings.base_url).netloc, settings.export.path)
    async with AsyncExitStack() as stack:
        if settings.metrics:
            from loader.metrics import publishing

            watchers.append(await stack.enter_async_context(publishing(settings.metrics, settings.folder, about, say)))
        if port is not None:
            from loader.dashboard import dashboard

            watchers.append(await stack.enter_async_context(dashboard(port, about, say)))

        def watch(snapshot: "Snapshot") -> None:
            for each in watchers:
                each(snapshot)

        yield watch


async def _heed_the_clock(lane: "Lane", until: "datetime") -> None:
    import anyio

    while (left := until.timestamp() - time.time()) > 0:  # noqa: ASYNC110
        await anyio.sleep(min(left, 10))  # in steps: a suspended machine's clock goes on, a timer's doesn't
    lane.stop(Stopped(f"it is {until:%H:%M}, as --until says; {_KEPT}"))


def refresh_of(settings: "Settings") -> "Refresh | None":
    """The refresh that the settings ask for; None: all users are sent each time."""
    from loader.refresh import Refresh, set_state_aside

    rules, identity = settings.refresh_rules, settings.identity()
    if rules is not None:
        return Refresh(
            rules, identity, settings.source, settings.row_mapping(), lambda message: say(f"loader: {message}")
        )
    if settings.store is None and (aside := set_state_aside(settings.stale_state, identity)):
        say(f"loader: this load sends all, and no state is kept of it: that of the last refresh is now {aside.name}")
    return None


def summarize(checkpoint: "Checkpoint") -> int:
    """Tell the outcomes of all rows; returns the exit status that they mean."""
    from loader.progress import Tally
    from loader.results import outcome_lines

    tally = Tally(checkpoint.counts())
    if is_json():
        tell(log_line("outcomes", rows=tally.rows, failures=tally.failures, outcomes=dict(tally.counts)))
    else:
        for line in outcome_lines(dict(tally.counts)):
            say(line)
    if tally.failures:
        command = shlex.join(["loader", "results", str(checkpoint.path)])
        say(f"{counted(tally.failures, 'row')} failed; see them with: {command}")
    return tally.exit_status
