"""`loader schema`: the settings as JSON Schema, for editors."""

import json
from pathlib import Path

import click

from loader.cli.endings import ends
from loader.cli.messages import say
from loader.cli.output import written


@click.command()
@click.option("-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="A file instead of stdout.")
@ends
def schema(output: Path | None) -> None:
    """Write the settings as JSON Schema, for editors.

    \b
    loader schema -o loader.schema.json
    loader schema | jq .properties.target

    An editor that knows TOML (Even Better TOML, Taplo, Tombi) then completes and checks a settings file whose first
    line is

    \b
    #:schema ./loader.schema.json
    """
    from loader.schema import schema as made

    text = json.dumps(made(), indent=1, ensure_ascii=False)
    if output is None:
        click.echo(text)
        return
    with written(output) as file:
        file.write(text.encode() + b"\n")
    say(f"loader: {output} is written; a settings file beside it begins with: #:schema ./{output.name}")
