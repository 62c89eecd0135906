"""`loader plan`: what a refresh would send."""

from pathlib import Path

import click

from loader.cli.arguments import overriding, settings_file, settings_of, text_or_json
from loader.cli.endings import ends
from loader.cli.messages import again, note, say
from loader.cli.output import written
from loader.errors import Refused


@click.command()
@settings_file
@overriding
@text_or_json
@click.option("--full", is_flag=True, help="As with loader run --full.")
@click.option(
    "-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="Keep it, as JSON, for loader run --plan."
)
@ends
def plan(settings: Path, overrides: tuple[str, ...], form: str, full: bool, output: Path | None) -> int:
    """Compare the export with what the target acknowledged, and tell what a run would send. No user is sent.

    \b
    loader plan load.toml
    loader plan load.toml -o plan.json
    loader run load.toml --plan plan.json

    With --plan, a run refuses if export, state or settings are no longer those of the plan.

    Exit status: 0 that is the plan; 2 a run would refuse the export, or there is nothing to plan.
    """
    import msgspec

    from loader import plan as planning
    from loader.checkpoint import lock
    from loader.refresh.night import Options
    from loader.runs import refresh_of

    loaded = settings_of(settings, overrides)
    if loaded.refresh.mode != "changed":
        raise Refused('plan: refresh.mode is not "changed", so that all users are sent; loader check tells of that')
    refresh, path = refresh_of(loaded, note), loaded.checkpoint_path
    assert refresh is not None
    loaded.source.check(loaded.row_mapping())
    with lock(path), refresh.locked() as held:
        if not held.is_new(path):
            raise Refused(
                f"a load of this export has begun, and loader run goes on with it; loader status {path} tells"
            )
        with held.compared(path, Options(is_full=full)) as compared:
            made = planning.plan(loaded.reading(held.export), held, compared)
    text = msgspec.json.encode(made)
    if output is not None:
        with written(output) as file:
            file.write(text + b"\n")
    if form == "json":
        click.echo(text.decode())
    else:
        for line in planning.lines(made):
            click.echo(line)
    if made.refusal:
        return 2
    if made.is_empty and output is None:
        return 0
    flags = ["--full"] if full else []
    if output is not None:
        flags += ["--plan", str(output)]
        note(f"the plan is in {output}; a run that does just this, or nothing:")
    say(f"{'  ' if output else 'send it with: '}{again('run', settings, overrides, tuple(flags))}")
    return 0
