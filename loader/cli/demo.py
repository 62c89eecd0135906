"""`loader demo`: show the whole job on this machine."""

from pathlib import Path

import click

from loader.cli.endings import ends


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("loader-demo"),
    show_default=True,
    help="Where its files are left.",
)
@click.option(
    "--users", type=click.IntRange(1000, 5_000_000), default=200_000, show_default=True, help="So many in its export."
)
@click.option("--seed", type=int, default=1, show_default=True, help="What users and faults are drawn from.")
@ends
def demo(folder: Path, users: int, seed: int) -> int:
    """Show the whole job on this machine: load, kill, resume, compare.

    \b
    loader demo
    loader demo --users 1000000 --folder /tmp/demo

    Starts the sandbox and the loads as processes, and leaves its files for a look. Nothing leaves this machine.

    Exit status: 0 all users arrived as they should; 1 they did not.
    """
    from rich.console import Console

    from loader.demo import demo as show

    return show(folder, users, seed, Console())
