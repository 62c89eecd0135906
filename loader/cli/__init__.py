"""The command line: arguments in, messages and exit status out.

Each command has a module of its own, which tells what it does in order; it is imported when the command is called, and
imports what it works with when it runs. So `--help` is quick, and `status` loads no HTTP client.

    arguments   what several commands are given        messages   what is said to people, on stderr
    endings     errors into exit statuses              output     where results go
    loop        an event loop that heeds signals       loading    a load that is run, and how it ended
    importing   imports that come late
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from loader import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

#: In the order of their use, as each says of itself: help needs none of them.
_COMMANDS = {
    "init": "Look at an export, and write settings for it.",
    "run": "Load an export, or go on where the run before ended.",
    "plan": "Compare the export with what the target acknowledged, and tell what a run would send.",
    "retry": "Send again what failed in a finished load.",
    "check": "Read the whole export and tell what a load would do.",
    "status": "Show how a load stands, finished or running.",
    "report": "Make a report of a load: one page that needs no network, Markdown, or JSON.",
    "results": "Write a line per settled row, in order of row.",
    "bench": "Find out how fast the target takes users, and with which limits.",
    "demo": "Show the whole job on this machine: load, kill, resume, compare.",
    "schema": "Write the settings as JSON Schema, for editors.",
    "completion": "Write what a shell needs to complete commands, options and files with TAB.",
    "sandbox": "Serve an emulation of a directory API on loopback, until SIGINT or SIGTERM.",
}


class _Group(click.Group):
    """Commands that are imported when they are called; until then others stand in for them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(commands=[click.Command(name, help=words) for name, words in _COMMANDS.items()], **attributes)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.commands)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            return None
        if cmd_name == "sandbox":
            from loader.sandbox.command import sandbox

            return sandbox
        command: click.Command = getattr(import_module(f"loader.cli.{cmd_name}"), cmd_name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        named = [CompletionItem(name, help=words) for name, words in _COMMANDS.items() if name.startswith(incomplete)]
        return named + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="loader")
def main() -> None:
    """Load very large user exports into directory APIs: every user gets an outcome, and a kill costs nothing.

    \b
    loader demo                          see it work, end to end, on this machine
    loader init users.csv                settings for an export, proposed from its first rows
    loader check load.toml               what a load would do, without sending a user
    loader run load.toml                 load, or go on where the run before ended
    loader status users.ckpt             how it stands
    loader results users.ckpt --code USER_NOT_FOUND
    loader report users.ckpt -o report.html
    loader retry load.toml               send again what failed
    loader plan load.toml                what a nightly refresh would send
    loader bench load.toml               how fast the target takes it, and with which limits

    Each command has examples: loader run --help.
    """
