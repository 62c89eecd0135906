"""`loader bench`: find out how fast the target takes users, and with which limits."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loader.cli.arguments import overriding, settings_file, settings_of
from loader.cli.endings import ends
from loader.cli.loop import heed_signals, on_loop
from loader.cli.messages import say, warn
from loader.cli.output import written
from loader.errors import LoaderError, Refused

if TYPE_CHECKING:
    from loader.bench.bench import Pool, Sweep
    from loader.bench.findings import Report
    from loader.settings import Settings


def _share(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    number = text.removesuffix("%")
    if number == text or not number.replace(".", "", 1).isdecimal():
        raise click.BadParameter(f"{text!r} is not a share such as 10%")
    return float(number) / 100


@click.command()
@settings_file
@overriding
@click.option(
    "--users",
    metavar="N",
    type=click.IntRange(min=1),
    default=5_000,
    show_default=True,
    help="So many, the first ones.",
)
@click.option(
    "--seconds", metavar="N", type=click.FloatRange(min=1), default=60.0, show_default=True, help="So long at most."
)
@click.option("--yes", is_flag=True, help="Write to a target that is not on this machine.")
@click.option("-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="Keep the figures, as JSON.")
@click.option(
    "--compare", "earlier", type=click.Path(path_type=Path, dir_okay=False), help="With the figures of an earlier one."
)
@click.option(
    "--tolerance",
    metavar="SHARE",
    default="10%",
    show_default=True,
    callback=_share,
    help="How much slower is no matter.",
)
@ends
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
    from loader.bench import findings
    from loader.bench.bench import read_pool

    loaded = settings_of(settings, overrides)
    api = loaded.target["api"]
    if loaded.store is not None:
        raise Refused(f"bench: {api} takes the whole export in one request, so there is nothing to try out")
    before = findings.read(earlier) if earlier else None
    if output is not None and not os.access(output.absolute().parent, os.W_OK):
        raise Refused(f"-o {output}: can't write in {output.absolute().parent}")
    loaded.source.check(loaded.row_mapping())
    pool = read_pool(loaded, users)
    what = (
        f"{len(pool):,} users of {loaded.export.name or loaded.source} to {api} at {loaded.base_url}, again and again"
    )
    if not yes and not loaded.is_local:
        raise Refused(f"bench would write {what}, for up to {seconds:g} s; if that is meant, say --yes")
    say(f"loader: writing {what}")
    report, reason = _bench(loaded, pool, seconds)
    _show(report, loaded.build_target().defaults.max_users)
    if output is not None:
        with written(output) as file:
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

    from loader.bench.bench import bench
    from loader.runs import Warnings
    from loader.show.screen import drawing, show_line

    async def run_bench() -> "tuple[Report, LoaderError | None]":
        async with anyio.create_task_group() as tasks:

            def watch(sweep: "Sweep") -> None:
                tasks.start_soon(show_line, screen, sweep.line)
                tasks.start_soon(heed_signals, sweep.lane, "what was measured by then is shown")

            found = await bench(settings, pool, seconds, watch, Warnings(warn))
            tasks.cancel_scope.cancel()
        return found

    with drawing(Console(stderr=True)) as screen:
        return on_loop(run_bench)


def _show(report: "Report", most_users: int | None) -> None:
    """The figures, on stdout: as a table, what it means, and lines for the settings."""
    from loader.bench import findings
    from loader.show.screen import print_table

    if report.steps:
        print_table(findings.HEADINGS, findings.rows(report))
    for line in findings.lines(report):
        click.echo(line)
    if lines := list(findings.settings_lines(report, most_users)):
        click.echo("\n".join(["", *lines]))
