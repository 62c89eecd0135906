"""`loader report`: a load as a page, to be kept, sent and printed."""

from pathlib import Path
from typing import Literal

import click

from loader.cli.arguments import checkpoint_file
from loader.cli.endings import ends
from loader.cli.messages import say
from loader.cli.output import writing_to


@click.command()
@checkpoint_file
@click.option("-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="Write there; else to stdout.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "md", "json"]),
    help="Default: by the name of the output, else md.",
)
@ends
def report(checkpoint: Path, output: Path | None, form: Literal["html", "md", "json"] | None) -> None:
    """Make a report of a load: one page that needs no network, Markdown, or JSON.

    \b
    loader report users.ckpt -o report.html
    loader report users.ckpt
    loader report users.ckpt --format json | jq .outcomes

    Outcomes with examples and what to do about each, how the load went over time, and how to go on. It holds keys of
    users, and no secrets. A load that is on its way can be reported, too.

    Exit status: 0 it is made; 2 there is no checkpoint, or something can't be read or written.
    """
    from loader.checkpoint import Checkpoint
    from loader.report import gather, render

    if form is None:
        form = {".html": "html", ".htm": "html", ".json": "json"}.get(output.suffix.lower() if output else "", "md")  # type: ignore[assignment]
    assert form is not None
    with Checkpoint.read(checkpoint) as opened:
        text = render(gather(opened), form)
        with writing_to(output, opened) as file:
            file.write(text.encode())
    if output is not None:
        say(f"loader: the report is in {output}")
