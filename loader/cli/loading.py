"""A load, as `run` and `retry` run it: with its progress on the screen, signals and the clock heeded, and an end."""

import shlex
import time
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from loader.cli.importing import QuickImports
from loader.cli.loop import heed_signals, on_loop
from loader.cli.messages import is_json, log_line, say, tell, warn
from loader.errors import LoaderError, Refused
from loader.words import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from datetime import datetime
    from socket import socket

    from loader.checkpoint import Checkpoint
    from loader.progress import Tally
    from loader.runs import Run
    from loader.settings import Settings
    from loader.show.metrics import Prepared
    from loader.show.telemetry import About
    from loader.snapshot import Snapshot

_LOG_EVERY_S = 10.0


class Pages(NamedTuple):
    """Where a run is published: on a dashboard, as metrics, or nowhere (None)."""

    about: "About | None" = None
    dashboard: "Sequence[socket] | None" = None
    metrics: "Prepared | None" = None


def go(
    run: "Run",
    again: str,
    retry: str,
    until: "datetime | None",
    first: int | None = None,
    *,
    quiet: bool,
    on: Pages,
) -> int:
    """Run the load, and tell how it ended. `again` is the command to go on with, `retry` the one to send again with."""
    from loader.commands import flagged
    from loader.outcome import WORTH_RETRYING

    try:
        _run(run, until, first, quiet=quiet, on=on)
    except Refused:
        raise
    except LoaderError as error:
        if run.checkpoint.outcomes():
            _tell_outcomes(run.checkpoint)
        ended = LoaderError(f"{error}\nGo on with: {flagged(shlex.split(again), error.flags)}")
        ended.exit_status = error.exit_status
        raise ended from error
    status = summarize(run.checkpoint)
    if run.checkpoint.get("finished_at") is None:
        say(f"The load is not finished: this run ended after {counted(first or 0, 'row')}. Go on with: {again}")
    elif worth := sum(run.checkpoint.outcomes().get(code, 0) for code in WORTH_RETRYING - run.checkpoint.good):
        say(f"send {'it' if worth == 1 else f'{worth:,}'} again with: {retry}")
    return status


def _run(run: "Run", until: "datetime | None", first: int | None, *, quiet: bool, on: Pages) -> None:
    with QuickImports():
        import anyio
        from rich.console import Console

        import loader.load  # noqa: F401  # what `go` imports
        from loader.lane import Lane
        from loader.runs import Warnings
        from loader.show.panel import About, View
        from loader.show.screen import progress

    async def run_load(show: "Callable[[Snapshot], None]") -> None:
        lane = Lane(run.settings.limits.give_up_s, time.monotonic)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(heed_signals, lane, "what was settled is kept")
            async with _published(on) as publish:

                def watch(snapshot: "Snapshot") -> None:
                    show(snapshot)
                    publish(snapshot)

                await run.go(lane, watch, Warnings(warn), first, until)
            tasks.cancel_scope.cancel()

    drawn = _logged(quiet) if is_json() else progress(Console(stderr=True, quiet=quiet), View(About.of(run.checkpoint)))
    with drawn as show:
        on_loop(partial(run_load, show))


@contextmanager
def _logged(quiet: bool) -> "Iterator[Callable[[Snapshot], None]]":
    """What logs a snapshot each ten seconds, without the keys of users: logs are sent to places."""
    from msgspec import to_builtins
    from rich.console import Console

    from loader.show.screen import drawing

    next_s = 0.0

    def show(now: "Snapshot") -> None:
        nonlocal next_s
        if not quiet and now.elapsed_s >= next_s:
            next_s = now.elapsed_s + _LOG_EVERY_S
            facts = to_builtins(now)
            del facts["failures"], facts["wire"]["times"]
            tell(log_line("progress", **facts))

    with drawing(Console(stderr=True), is_for_people=False):  # whoever takes the lines may be slow
        yield show


@contextmanager
def pages(settings: "Settings", dashboard: int | None) -> "Iterator[Pages]":
    """What `[metrics]` and --dashboard ask for, with their ports taken. Nothing of the load is touched before.

    `dashboard`: its port; None: there is none. Raises Refused.
    """
    if not settings.metrics and dashboard is None:
        yield Pages()
        return
    with QuickImports():
        from loader.show import metrics as figures
        from loader.show.telemetry import About

    about = About(settings.api.api, urlsplit(settings.base_url).netloc, settings.export.name or str(settings.source))
    with ExitStack() as held:
        metrics = at = None
        if settings.metrics:
            metrics = held.enter_context(figures.prepared(settings.metrics, settings.folder, about))
        if dashboard is not None:
            from loader.show import dashboard as page

            at = held.enter_context(page.prepared(dashboard))
        yield Pages(about, at, metrics)


@asynccontextmanager
async def _published(on: Pages) -> "AsyncIterator[Callable[[Snapshot], None]]":
    """What publishes each snapshot there."""
    watchers: list[Callable[[Snapshot], None]] = []
    async with AsyncExitStack() as stack:
        if on.metrics is not None:
            from loader.show.metrics import publishing

            watchers.append(await stack.enter_async_context(publishing(on.metrics, say)))
        if on.dashboard is not None and on.about is not None:
            from loader.show.dashboard import dashboard

            watchers.append(await stack.enter_async_context(dashboard(on.dashboard, on.about, say)))

        def watch(snapshot: "Snapshot") -> None:
            for each in watchers:
                each(snapshot)

        yield watch


def summarize(checkpoint: "Checkpoint") -> int:
    """Tell the outcomes of all rows; returns the exit status that they mean."""
    from loader.outcome import GOOD
    from loader.show.panel import near

    tally = _tell_outcomes(checkpoint)
    if accepted := {code: tally.counts[code] for code in sorted(tally.good - GOOD) if tally.counts[code]}:
        words = ", ".join(f"{count:,} {code}" for code, count in accepted.items())
        say(f"accepted, as refresh.accept says: {words}")
    if tally.failures:
        command = shlex.join(["loader", "results", near(checkpoint.path), "--failed"])
        say(f"{counted(tally.failures, 'row')} failed; see them with: {command}")
    return tally.exit_status


def _tell_outcomes(checkpoint: "Checkpoint") -> "Tally":
    """Tell how many rows have which outcome, and how fast the last run was."""
    from loader.progress import Tally
    from loader.results import outcome_lines, retry_line
    from loader.snapshot import duration

    tally = Tally(checkpoint.outcomes(), checkpoint.good)
    if is_json():
        tell(log_line("outcomes", rows=tally.rows, failures=tally.failures, outcomes=dict(tally.counts)))
        return tally
    for line in outcome_lines(dict(tally.counts)):
        say(line)
    if (retrying := checkpoint.retrying()) is not None:
        sent_again = sum(checkpoint.counts().values()) - sum(retrying.kept.values())
        say(retry_line(sent_again, retrying.rows))
    now = checkpoint.now()
    if now is not None and now.is_last and now.rows > now.before and now.elapsed_s >= 1:
        pace = now.sent / now.elapsed_s
        say(f"{counted(now.rows - now.before, 'row')} in {duration(now.elapsed_s)}, {pace:,.0f} users sent/s")
    return tally
