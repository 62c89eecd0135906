"""What several commands are given, and what it means."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loader.cli.importing import QuickImports
from loader.cli.messages import say
from loader.errors import CheckpointError, Refused, SettingsError

if TYPE_CHECKING:
    from datetime import datetime

    from loader.checkpoint import Checkpoint
    from loader.settings import Settings

settings_file = click.argument("settings", type=click.Path(path_type=Path, dir_okay=False))
checkpoint_file = click.argument("checkpoint", type=click.Path(path_type=Path, dir_okay=False))
overriding = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting: --set limits.concurrency=4."
)
ending = click.option(
    "--until",
    metavar="TIME",
    help="At that time, finish what is in flight and stop: 06:00 (the next) or 2026-01-31T06:00.",
)
showing = click.option(
    "--dashboard",
    type=click.IntRange(0, 65_535),
    is_flag=False,
    flag_value=0,
    metavar="[PORT]",
    help="Show it live on a page of this machine; its address, with a secret in it, is told at the start.",
)
text_or_json = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Text for people, or JSON for programs.",
)


def settings_of(path: Path, overrides: tuple[str, ...], *, with_secrets: bool = True) -> "Settings":
    """The settings, with all secrets there (if not `with_secrets`, unseen) and a warning of those in the file."""
    with QuickImports():
        import pyarrow as pa

        from loader.cli.kinds import refuse_other_than
        from loader.settings import load_settings

    # Arrow's own allocator keeps what it was given: 188 MiB at the peak of a load with the system's, 232 with that.
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        loaded = load_settings(path, overrides)
    except SettingsError:
        refuse_other_than(path, "settings")
        raise
    for key in loaded.literal_secrets():
        say(f"loader: {key} is given as plain text; env:NAME or file:PATH keeps it out of files and logs")
    if with_secrets:
        loaded.secrets()
    return loaded


def checkpoint_of(path: Path) -> "Checkpoint":
    """The checkpoint, to be read."""
    from loader.checkpoint import Checkpoint

    try:
        return Checkpoint.read(path)
    except CheckpointError:
        from loader.cli.kinds import refuse_other_than

        refuse_other_than(path, "checkpoint")
        raise


def moment_of(until: str | None) -> "datetime | None":
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
