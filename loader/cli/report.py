"""`loader report`: a load as a page, to be kept, sent and printed."""

from pathlib import Path
from typing import Literal, get_args

import click

from loader.cli.arguments import checkpoint_file, checkpoint_of
from loader.cli.endings import ends
from loader.cli.messages import say
from loader.cli.output import writing_to
from loader.errors import Refused

_Form = Literal["html", "md", "json"]
_SUFFIXES: dict[str, _Form] = {
    **dict.fromkeys((".html", ".htm"), "html"),
    **dict.fromkeys(("", ".md", ".markdown", ".txt"), "md"),
    ".json": "json",
}


@click.command()
@checkpoint_file
@click.option("-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="Write there; else to stdout.")
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(_Form)),
    help="Default: by the name of the output; md on stdout.",
)
@ends
def report(checkpoint: Path, output: Path | None, form: _Form | None) -> None:
    """Make a report of a load: one page that needs no network, Markdown, or JSON.

    \b
    loader report users.ckpt -o report.html
    loader report users.ckpt
    loader report users.ckpt --format json | jq .outcomes

    Outcomes with examples and what to do about each, how the load went over time, and how to go on. It holds keys of
    users, and no secrets. A load that is on its way can be reported, too.

    Exit status: 0 it is made; 2 there is no checkpoint, or something can't be read or written.
    """
    from loader.show.report import gather, render

    form = form or _form(output)
    with checkpoint_of(checkpoint) as opened:
        text = render(gather(opened), form)
        with writing_to(output, opened) as file:
            file.write(text.encode())
    if output is not None:
        say(f"loader: the report is in {output}")


def _form(output: Path | None) -> _Form:
    """By the name of the output. Raises Refused if that means something else."""
    suffix = output.suffix.lower() if output else ""
    if (form := _SUFFIXES.get(suffix)) is None:
        way_out = (
            "write .html, and print that to PDF in a browser" if suffix == ".pdf" else "name it .html, .md or .json"
        )
        raise Refused(f"-o {output}: no report is written as {suffix}; {way_out}")
    return form
