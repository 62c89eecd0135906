"""The command line: arguments in, messages and exit status out. Imports late, so that `--help` is quick."""

import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click

from loader import __version__
from loader.errors import LoaderError, Refused, Stopped

if TYPE_CHECKING:
    from datetime import datetime

    from loader.bench import Pool, Sweep
    from loader.checkpoint import Checkpoint
    from loader.findings import Report
    from loader.lane import Lane
    from loader.progress import Meter
    from loader.resume import Resume
    from loader.settings import Settings
    from loader.whole import Whole

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(LoaderError):
    """A signal ended the run; `kept` says what is left of it."""

    def __init__(self, number: int, kept: str = "what was settled is kept") -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}; {kept}")
        self.exit_status = 128 + number


class _Group(click.Group):
    """Commands in the order of their use; the sandbox is imported only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, "sandbox"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "sandbox":
            from loader.sandbox.command import sandbox

            return sandbox
        return super().get_command(ctx, cmd_name)


def say(message: str) -> None:
    """A line for people, on stderr."""
    click.echo(message, err=True)


def _ends(command: Callable[..., int | None]) -> Callable[..., NoReturn]:
    """Turn what a command raises into a message and an exit status; a traceback goes to a file, never to a person."""

    @wraps(command)
    def ended(*args: Any, **kwargs: Any) -> NoReturn:
        try:
            status = command(*args, **kwargs) or 0
        except click.ClickException:
            raise
        except BaseExceptionGroup as group:
            status = _explain(_only(group))
        except KeyboardInterrupt:
            status = 130
        except BrokenPipeError:  # the reader of our results went away
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 141
        except Exception as error:  # noqa: BLE001  # the last resort: a person gets a line, the crash file the rest
            status = _explain(error)
        sys.exit(status)

    return ended


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error in a task group's wrapping that says most."""
    leaves: list[BaseException] = []
    todo: list[BaseException] = [group]
    while todo:
        error = todo.pop()
        if isinstance(error, BaseExceptionGroup):
            todo += error.exceptions
        else:
            leaves.append(error)
    return min(leaves, key=lambda error: isinstance(error, LoaderError))


def _explain(error: BaseException) -> int:
    if isinstance(error, LoaderError):
        say(f"loader: {error}")
        return error.exit_status
    path = Path(f"loader-crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt")
    text = f"directory-loader {__version__}, Python {sys.version}\n\n{''.join(traceback.format_exception(error))}"
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        where = f"details are in {path}"
    except OSError:
        where = "its details could not be written to the working directory"
    say(
        f"loader: internal error, please report it: {type(error).__name__}: {error} ({where}). What was settled is kept"
    )
    return 3


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="loader")
def main() -> None:
    """Load very large user exports into directory APIs: every user gets an outcome, and a kill costs nothing.

    \b
    loader demo                          see it work, end to end, on this machine
    loader check load.toml               what a load would do, without sending a user
    loader run load.toml                 load, or go on where the run before ended
    loader status users.ckpt             how it stands
    loader results users.ckpt --code USER_NOT_FOUND
    loader retry load.toml               send again what failed
    loader bench load.toml               how fast the target takes it, and with which limits
    """


_settings = click.argument("settings", type=click.Path(path_type=Path, dir_okay=False))
_checkpoint = click.argument("checkpoint", type=click.Path(path_type=Path, dir_okay=False))
_set = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting: --set limits.concurrency=4."
)


_until = click.option(
    "--until",
    metavar="TIME",
    help="At that time, finish what is in flight and stop: 06:00 (the next) or 2026-01-31T06:00.",
)
_form = click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)


@main.command()
@_settings
@_set
@click.option("--first", type=click.IntRange(min=1), metavar="N", help="Stop after N rows; the next run goes on.")
@_until
@click.option("--fresh", is_flag=True, help="Start over; the old checkpoint is kept aside.")
@click.option("--yes", is_flag=True, help="With --fresh: even if the load before is not finished.")
@click.option("--allow-shrink", is_flag=True, help="Send a hierarchy that is much smaller than the one accepted last.")
@_ends
def run(
    settings: Path,
    overrides: tuple[str, ...],
    first: int | None,
    until: str | None,
    fresh: bool,
    yes: bool,
    allow_shrink: bool,
) -> int:
    """Load an export, or go on where the run before ended.

    \b
    loader run load.toml
    loader run load.toml --first 10
    loader run load.toml --until 06:00 --set limits.concurrency=4
    loader run load.toml --fresh

    Exit status: 0 all rows are well; 1 some rows failed; 2 nothing was sent; 3 stopped, run again to go on;
    130 or 143 interrupted, run again to go on. After --first, 0 and 1 are about the rows so far.
    """
    from loader.checkpoint import Checkpoint, lock
    from loader.resume import begin, set_aside

    moment = _moment(until)
    loaded = _settings_of(settings, overrides)
    _check_flags(loaded, first, allow_shrink)
    export, path = loaded.source, loaded.checkpoint_path
    export.check(loaded.row_mapping())  # before a checkpoint is made for it
    kept = loaded.store.locked() if loaded.store else nullcontext()
    with lock(path), kept:
        whole = _prepare(loaded, path, fresh=fresh, allow_shrink=allow_shrink)
        if fresh and (aside := set_aside(path, even_unfinished=yes)):
            say(f"loader: the old checkpoint is kept as {aside.name}")
        is_new = not path.exists()
        with Checkpoint.open(path, create=True) as checkpoint:
            resume = begin(checkpoint, loaded.identity(), export, loaded.row_mapping())
            if resume.is_finished:
                say("loader: this load is finished; --fresh loads the export again")
                return _summarize(checkpoint)
            if not is_new:
                say(f"loader: going on behind {len(resume.settled):,} settled rows")
            flags = ("--allow-shrink",) if allow_shrink else ()
            return _go(loaded, checkpoint, resume, _again("run", settings, overrides, flags), moment, first, whole)


@main.command()
@_settings
@_set
@_until
@_ends
def retry(settings: Path, overrides: tuple[str, ...], until: str | None) -> int:
    """Send again what failed in a finished load.

    \b
    loader retry load.toml

    Reads the export again, which must not have changed, and sends the rows that are FAILED, NO_RESULT, PARTIAL,
    INVALID, USER_NOT_FOUND or LOCATION_NOT_FOUND, each followed by the later rows of its user. REJECTED rows have to be
    corrected instead: loader results CHECKPOINT --rows.

    Exit status: as of loader run, and about all rows of the load. If it is interrupted, the same command goes on.
    """
    from loader.checkpoint import Checkpoint, lock
    from loader.resume import begin, reopen

    moment = _moment(until)
    loaded = _settings_of(settings, overrides)
    export, path = loaded.source, loaded.checkpoint_path
    if export.is_stdin:
        raise Refused("export.path: stdin can't be read again; load from a file to be able to retry")
    if not path.exists():
        raise Refused(f"there is no checkpoint {path} yet; load first, with: {_again('run', settings, overrides)}")
    export.check(loaded.row_mapping())
    kept = loaded.store.locked() if loaded.store else nullcontext()
    with lock(path), kept, Checkpoint.open(path, create=False) as checkpoint:
        resume = begin(checkpoint, loaded.identity(), export, loaded.row_mapping())
        whole = _prepare(loaded, path, retry=True)
        resume = reopen(checkpoint, resume)
        if resume.is_finished:
            say("loader: there is nothing to retry")
            return _summarize(checkpoint)
        say(f"loader: {checkpoint.get('rows') - len(resume.settled):,} rows are sent again")
        return _go(loaded, checkpoint, resume, _again("retry", settings, overrides), moment, whole=whole)


def _check_flags(settings: "Settings", first: int | None, allow_shrink: bool) -> None:
    """Raise Refused for flags that this target gives no meaning to."""
    is_whole, api = settings.store is not None, settings.target["api"]
    if is_whole and first is not None:
        raise Refused(
            f"--first: {api} takes the whole export in one request, and what a part of it leaves out would go; "
            "loader check tells what would be sent"
        )
    if allow_shrink and not is_whole:
        raise Refused(f"--allow-shrink: {api} keeps what an export leaves out, so a smaller one takes nothing away")


def _prepare(settings: "Settings", path: Path, **how: bool) -> "Whole | None":
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


def _settings_of(path: Path, overrides: tuple[str, ...]) -> "Settings":
    """The settings, with all secrets there and a warning of those that stand in the file."""
    import pyarrow as pa

    from loader.settings import load_settings

    # Arrow's own allocator keeps what it was given: 188 MiB at the peak of a load with the system's, 232 with that.
    pa.set_memory_pool(pa.system_memory_pool())
    loaded = load_settings(path, overrides)
    for key in loaded.literal_secrets():
        say(f"loader: {key} is given as plain text; env:NAME or file:PATH keeps it out of files and logs")
    loaded.secrets()
    return loaded


def _moment(until: str | None) -> "datetime | None":
    """When --until is. Raises Refused for what is no time, or has passed."""
    if until is None:
        return None
    from datetime import datetime

    from loader.until import moment

    try:
        found = moment(until, datetime.now().astimezone())
    except ValueError as error:
        raise Refused(f"--until: {error}") from error
    say(f"loader: this run ends by {found:%A %Y-%m-%d %H:%M %Z}")
    return found


def _go(
    settings: "Settings",
    checkpoint: "Checkpoint",
    resume: "Resume",
    again: str,
    until: "datetime | None",
    first: int | None = None,
    whole: "Whole | None" = None,
) -> int:
    """Run the load, and tell how it ended. `again` is the command to go on with."""
    try:
        _run(settings, checkpoint, resume, until, first, whole)
    except Refused:
        raise
    except LoaderError as error:
        say(f"loader: {error}")
        say(f"Go on with: {again}")
        return error.exit_status
    status = _summarize(checkpoint)
    if checkpoint.get("finished_at") is None:
        say(f"The load is not finished: this run ended after {first:,} rows. Go on with: {again}")
    return status


def _run(
    settings: "Settings",
    checkpoint: "Checkpoint",
    resume: "Resume",
    until: "datetime | None",
    first: int | None,
    whole: "Whole | None",
) -> None:
    """The load on an event loop, with its progress on the screen, signals and the clock heeded."""
    import anyio
    from rich.console import Console

    from loader.load import load
    from loader.screen import show_progress

    async def heed_the_clock(lane: "Lane") -> None:
        assert until is not None
        while (left := until.timestamp() - time.time()) > 0:  # noqa: ASYNC110
            await anyio.sleep(min(left, 10))  # in steps: a suspended machine's clock goes on, a timer's doesn't
        lane.stop(Stopped(f"it is {until:%H:%M}, as --until says; what was settled is kept"))

    async def run_load() -> None:
        async with anyio.create_task_group() as tasks:

            def watch(meter: "Meter", lane: "Lane") -> None:
                tasks.start_soon(show_progress, Console(stderr=True), meter, lane)
                tasks.start_soon(_heed_signals, lane, "what was settled is kept")
                if until is not None:
                    tasks.start_soon(heed_the_clock, lane)

            await load(settings, checkpoint, resume, watch, _Warnings(), first, whole)
            tasks.cancel_scope.cancel()

    try:
        anyio.run(run_load, backend_options={"use_uvloop": _has_uvloop()})
    except BaseExceptionGroup as group:
        raise _only(group) from group


async def _heed_signals(lane: "Lane", kept: str) -> None:
    """Stop the lane when a signal comes, and this process when another does. `kept`: what is left then."""
    import anyio

    with anyio.open_signal_receiver(*_SIGNALS) as received:
        async for number in received:
            if lane.stopping.is_set():
                say("loader: stopped at once")
                os._exit(128 + number)  # the checkpoint is made for being killed
            mark = "\n" if sys.stderr.isatty() else ""  # behind the ^C that the terminal shows
            say(f"{mark}loader: stopping; what is in flight may finish (again to stop at once)")
            lane.stop(Interrupted(number, kept))


def _has_uvloop() -> bool:
    from importlib.util import find_spec

    return find_spec("uvloop") is not None


class _Warnings:
    """Says the first few warnings of a run aloud, and how many more there were by then."""

    _most = 5

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, message: str) -> None:
        self._count += 1
        if self._count <= self._most:
            say(f"loader: {message}" + (" (no more of these are shown)" if self._count == self._most else ""))


def _again(command: str, settings: Path, overrides: tuple[str, ...], flags: tuple[str, ...] = ()) -> str:
    sets = [part for override in overrides for part in ("--set", _without_secret(override))]
    return shlex.join(["loader", command, str(settings), *sets, *flags])


def _without_secret(override: str) -> str:
    """An override as a message may show it: messages are kept in logs."""
    key, _, value = override.partition("=")
    is_secret = key.strip().startswith(("target.auth", "network.proxy")) and not value.startswith(("env:", "file:"))
    return f"{key}=…" if is_secret and "scheme" not in key else override


def _summarize(checkpoint: "Checkpoint") -> int:
    from loader.progress import Tally
    from loader.results import outcome_lines

    tally = Tally(checkpoint.counts())
    for line in outcome_lines(dict(tally.counts)):
        say(line)
    if tally.failures:
        rows = f"{tally.failures:,} row{'s' if tally.failures > 1 else ''}"
        say(f"{rows} failed; see them with: {shlex.join(['loader', 'results', str(checkpoint.path)])}")
    return tally.exit_status


@main.command()
@_settings
@_set
@_form
@click.option("--show", is_flag=True, help="Print the first request, secrets masked.")
@_ends
def check(settings: Path, overrides: tuple[str, ...], form: str, show: bool) -> int:
    """Read the whole export and tell what a load would do. No user is sent.

    \b
    loader check load.toml
    loader check load.toml --show
    loader check load.toml --format json

    Counts rows, rejects, users that come again, requests and bytes, estimates the time, and tries the credentials where
    the API has a call for that which changes nothing.

    Exit status: 0 all is well; 1 rows would be rejected; 2 the settings or the export are wrong; 3 the credentials are
    refused, or the target can't be reached.
    """
    import json

    import anyio
    from rich.console import Console

    from loader import check as checking

    loaded = _settings_of(settings, overrides)
    loaded.source.check(loaded.row_mapping())
    with Console(stderr=True).status("reading the export") as shown:  # nothing, where stderr is no terminal
        found = checking.inspect(loaded, lambda rows, share: shown.update(f"{share:.0%} · {rows:,} rows read"))
    refused: LoaderError | None = None
    probed = None
    try:
        probed = anyio.run(checking.try_credentials, loaded, list(found.attributes))
    except LoaderError as error:
        refused = error
    state = checking.report(loaded, found, probed, str(refused or ""))
    if form == "json":
        first = {"first_request": checking.first_request(loaded, found)} if show else {}
        click.echo(json.dumps(state | first))
    else:
        for line in [*(checking.request_lines(loaded, found) if show else ()), *checking.report_lines(state)]:
            click.echo(line)
    return checking.exit_status(found, probed, refused)


@main.command()
@_checkpoint
@_form
@_ends
def status(checkpoint: Path, form: str) -> None:
    """Show how a load stands, finished or running."""
    import json

    from loader.checkpoint import Checkpoint
    from loader.results import status as state_of
    from loader.results import status_lines

    with Checkpoint.read(checkpoint) as opened:
        state = state_of(opened)
    if form == "json":
        click.echo(json.dumps(state))
    else:
        for line in status_lines(state):
            click.echo(line)


@main.command()
@_checkpoint
@click.option("--code", "codes", multiple=True, metavar="CODE", help="Only rows with this outcome; repeats.")
@click.option("--format", "form", type=click.Choice(["csv", "ndjson"]), help="Of the results; csv if not given.")
@click.option("-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="A file instead of stdout.")
@click.option("--rows", is_flag=True, help="The export's own rows and columns, to correct and load again.")
@click.option("--export", metavar="PATH", help="With --rows: where the export is now, if it was moved.")
@_ends
def results(
    checkpoint: Path, codes: tuple[str, ...], form: str | None, output: Path | None, rows: bool, export: str | None
) -> None:
    """Write a line per settled row, in order of row.

    \b
    loader results users.ckpt -o results.csv
    loader results users.ckpt --code USER_NOT_FOUND --code INVALID --format ndjson
    loader results users.ckpt --rows --code REJECTED --code INVALID -o corrected.csv

    With --rows the export's rows come out as they stand in it, as CSV or NDJSON, with the columns loader_code and
    loader_message behind. Correct them and load that file: these two columns are never sent.
    """
    from loader.checkpoint import Checkpoint
    from loader.outcome import Code

    codes = tuple(code.upper() for code in codes)
    for code in codes:
        if code not in Code.__members__:
            raise Refused(f"--code {code!r} is not an outcome; known: {', '.join(Code)}")
    if rows and form:
        raise Refused("--format: with --rows it is the export's own: CSV, TSV, or else NDJSON")
    if export and not rows:
        raise Refused("--export is for --rows")
    with Checkpoint.read(checkpoint) as opened:
        if rows:
            _write_rows(opened, codes, output, export)
        else:
            _write_results(opened, codes, output, form or "csv")


def _write_results(checkpoint: "Checkpoint", codes: tuple[str, ...], output: Path | None, form: str) -> None:
    import io

    from loader.results import write_results

    with _output(output, checkpoint) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        write_results(checkpoint, text, form, codes)
        text.detach()  # flushes; the file stays open


def _write_rows(checkpoint: "Checkpoint", codes: tuple[str, ...], output: Path | None, path: str | None) -> None:
    from loader.corrections import export_of, write_rows

    export = export_of(checkpoint, path)
    with _output(output, checkpoint, export.paths) as file:
        written = write_rows(checkpoint, export, file, codes)
    if output is not None:
        say(f"loader: {written.rows:,} rows in {output}; correct them, and load that file as it is")
    if written.too_long:
        say(f"loader: {written.too_long:,} rows are left out, as they are too long (export.max_row_bytes)")


@contextmanager
def _output(path: Path | None, checkpoint: "Checkpoint", kept: Iterable[Path] = ()) -> Iterator[BinaryIO]:
    """Where results go: stdout, or a file, as they hold users.

    Raises Refused if it can't be written, or if it is the checkpoint or the export.
    """
    if path is None:
        try:
            yield sys.stdout.buffer
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left can't be written either
            raise Refused(f"can't write to stdout: {error.strerror}") from error
        return
    ours = [checkpoint.path.with_name(checkpoint.path.name + suffix) for suffix in ("", "-wal", "-shm", ".lock")]
    if path.resolve() in [each.resolve() for each in (*ours, *kept, *map(Path, checkpoint.get("files") or ()))]:
        raise Refused(f"-o {path} would overwrite the checkpoint or the export; name another file")
    with _written(path) as file:
        yield file


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """A file for its owner alone; whole, or not at all. Raises Refused if it can't be written."""
    is_plain = path.is_file() or not path.exists()  # not a pipe or a device
    draft = path.with_name(path.name + ".part") if is_plain else path
    try:
        with open(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            yield file
        if is_plain:
            draft.replace(path)
    except OSError as error:
        raise Refused(f"-o {path}: can't write it: {error.strerror}") from error
    finally:
        if is_plain:
            draft.unlink(missing_ok=True)


def _share(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    number = text.removesuffix("%")
    if number == text or not number.replace(".", "", 1).isdecimal():
        raise click.BadParameter(f"{text!r} is not a share such as 10%")
    return float(number) / 100


@main.command()
@_settings
@_set
@click.option("--users", type=click.IntRange(min=1), default=5_000, show_default=True, help="So many, the first ones.")
@click.option("--seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="So long at most.")
@click.option("--yes", is_flag=True, help="Write to a target that is not on this machine.")
@click.option("-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="Keep the figures, as JSON.")
@click.option(
    "--compare", "earlier", type=click.Path(path_type=Path, dir_okay=False), help="With the figures of an earlier one."
)
@click.option("--tolerance", default="10%", show_default=True, callback=_share, help="How much slower is no matter.")
@_ends
def bench(
    settings: Path,
    overrides: tuple[str, ...],
    users: int,
    seconds: float,
    yes: bool,
    output: Path | None,
    earlier: Path | None,
    tolerance: float,
) -> int:
    """Find out how fast the target takes users, and with which limits.

    \b
    loader bench load.toml
    loader bench load.toml --seconds 300 -o friday.json
    loader bench load.toml --seconds 300 --compare friday.json

    IT WRITES: the first users of the export, with the values that a load would write, again and again, in requests of
    all sizes and more and more at once, up to what [limits] allows. Quotas are kept. There is no checkpoint.

    Exit status: 0 it was measured; 1 with --compare: it has become slower; 2 nothing was sent; 3 stopped by the target;
    130 or 143 interrupted. The table has what was measured by then.
    """
    from loader import findings
    from loader.bench import read_pool

    loaded = _settings_of(settings, overrides)
    api = loaded.target["api"]
    if loaded.store is not None:
        raise Refused(f"bench: {api} takes the whole export in one request, so there is nothing to try out")
    before = findings.read(earlier) if earlier else None
    if output is not None and not os.access(output.absolute().parent, os.W_OK):
        raise Refused(f"-o {output}: can't write in {output.absolute().parent}")
    loaded.source.check(loaded.row_mapping())
    pool = read_pool(loaded, users)
    what = f"{len(pool):,} users of {loaded.export.path} to {api} at {loaded.base_url}, again and again"
    if not yes and not loaded.is_local:
        raise Refused(f"bench would write {what}, for up to {seconds:g} s; if that is meant, say --yes")
    say(f"loader: writing {what}")
    report, reason = _bench(loaded, pool, seconds)
    _show(report, loaded.build_target().defaults.max_users)
    if output is not None:
        with _written(output) as file:
            file.write(report.model_dump_json(indent=1).encode())
    if reason is not None:
        say(f"loader: {reason}")
        return reason.exit_status
    if before is None:
        return 0
    for line in findings.compare_lines(before, report, tolerance):
        click.echo(line)
    return 1 if findings.is_slower(before, report, tolerance) else 0


def _bench(settings: "Settings", pool: "Pool", seconds: float) -> "tuple[Report, LoaderError | None]":
    """The bench on an event loop, with its progress on the screen and signals heeded."""
    import anyio
    from rich.console import Console

    from loader.bench import bench
    from loader.screen import show_line

    async def run_bench() -> "tuple[Report, LoaderError | None]":
        async with anyio.create_task_group() as tasks:

            def watch(sweep: "Sweep") -> None:
                tasks.start_soon(show_line, Console(stderr=True), sweep.line)
                tasks.start_soon(_heed_signals, sweep.lane, "what was measured by then is shown")

            found = await bench(settings, pool, seconds, watch, _Warnings())
            tasks.cancel_scope.cancel()
        return found

    try:
        return anyio.run(run_bench, backend_options={"use_uvloop": _has_uvloop()})
    except BaseExceptionGroup as group:
        raise _only(group) from group


def _show(report: "Report", most_users: int | None) -> None:
    """The figures, on stdout: as a table, what it means, and lines for the settings."""
    from loader import findings
    from loader.screen import print_table

    if report.steps:
        print_table(findings.HEADINGS, findings.rows(report))
    for line in findings.lines(report):
        click.echo(line)
    if lines := list(findings.settings_lines(report, most_users)):
        click.echo("\n".join(["", *lines]))


@main.command()
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("loader-demo"), show_default=True
)
@click.option("--users", type=click.IntRange(1000, 5_000_000), default=200_000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@_ends
def demo(folder: Path, users: int, seed: int) -> int:
    """Show the whole job on this machine: load, kill, resume, compare.

    Starts the sandbox and the loads as processes, and leaves its files for a look.
    """
    from rich.console import Console

    from loader.demo import demo as show

    return show(folder, users, seed, Console())
