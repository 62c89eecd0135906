"""`loader results`: write a line per settled row, or the export's own rows, to correct and load again."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loader.cli.arguments import checkpoint_file, checkpoint_of
from loader.cli.endings import ends
from loader.cli.messages import say
from loader.cli.output import writing_to
from loader.errors import Refused
from loader.words import counted

if TYPE_CHECKING:
    from loader.checkpoint import Checkpoint


def _codes(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    from loader.outcome import Code

    return [code for code in Code if code.startswith(begun.upper())]


@click.command()
@checkpoint_file
@click.option(
    "--code",
    "codes",
    multiple=True,
    metavar="CODE",
    help="Only rows with this outcome; repeats.",
    shell_complete=_codes,
)
@click.option("--failed", is_flag=True, help="Only rows that failed, whatever their outcome.")
@click.option("--format", "form", type=click.Choice(["csv", "ndjson"]), help="Of the results. Default: csv.")
@click.option("-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="A file instead of stdout.")
@click.option("--rows", is_flag=True, help="The export's own rows and columns, to correct and load again.")
@click.option("--force", is_flag=True, help="With --rows: replace a file that is there, corrections and all.")
@click.option("--excel", is_flag=True, help="For Excel: with the mark by which it knows that letters are UTF-8.")
@click.option("--formula-safe", is_flag=True, help="For a spreadsheet: an apostrophe before what it would calculate.")
@click.option("--export", metavar="PATH", help="With --rows: where the export is now, if it was moved.")
@ends
def results(
    checkpoint: Path,
    codes: tuple[str, ...],
    failed: bool,
    form: str | None,
    output: Path | None,
    rows: bool,
    force: bool,
    excel: bool,
    formula_safe: bool,
    export: str | None,
) -> None:
    """Write a line per settled row, in order of row.

    \b
    loader results users.ckpt --failed
    loader results users.ckpt --code USER_NOT_FOUND --code INVALID --format ndjson
    loader results users.ckpt --excel --formula-safe -o results.csv
    loader results users.ckpt --rows --code REJECTED --code INVALID -o corrected.csv

    With --rows the export's rows come out as they stand in it, as CSV or NDJSON, with the columns loader_row,
    loader_code and loader_message behind. Correct them and load that file: these columns are never sent. Retry before
    you correct: a retry afterwards would send the old values again. A file that is there is kept.

    Exit status: 0 they are written, or there are none; 2 there is no checkpoint, or something can't be read or written.
    """
    from loader.outcome import Code

    codes = tuple(code.upper() for code in codes)
    for code in codes:
        if code not in Code.__members__:
            raise Refused(f"--code {code!r} is not an outcome; known: {', '.join(Code)}")
    if failed and codes:
        raise Refused("--failed: these are all outcomes that are not good; --code picks some of them")
    if force and not rows:
        raise Refused("--force: it is for --rows, which keeps a file that is there")
    if rows and form:
        raise Refused("--format: with --rows it is the export's own: CSV, TSV, or else NDJSON")
    if formula_safe and rows:
        raise Refused("--formula-safe: with --rows keys and values come out as they are, to be loaded again")
    if formula_safe and form == "ndjson":
        raise Refused("--formula-safe is for CSV: in NDJSON nothing is calculated")
    if excel and form == "ndjson":
        raise Refused("--excel is for CSV: Excel does not open NDJSON")
    if export and not rows:
        raise Refused("--export: it says where the rows of --rows are; without --rows none are read")
    with checkpoint_of(checkpoint) as opened:
        if failed:
            codes = tuple(code for code in Code if code not in opened.good)
        if rows:
            _write_rows(opened, codes, output, export, excel=excel, force=force)
        else:
            _write_results(opened, codes, output, form or "csv", excel=excel, formula_safe=formula_safe)


def _write_results(
    checkpoint: "Checkpoint", codes: tuple[str, ...], output: Path | None, form: str, *, excel: bool, formula_safe: bool
) -> None:
    from loader.results import write_results

    with writing_to(output, checkpoint) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig" if excel else "utf-8", newline="\n")
        write_results(checkpoint, text, form, codes, formula_safe=formula_safe)
        text.detach()  # flushes; the file stays open


def _write_rows(
    checkpoint: "Checkpoint", codes: tuple[str, ...], output: Path | None, path: str | None, *, excel: bool, force: bool
) -> None:
    from loader.commands import can_be_corrected, loading
    from loader.corrections import export_of, note_taken_out, write_rows
    from loader.outcome import WORTH_RETRYING, Code

    export = export_of(checkpoint, path)
    if excel and export.format not in ("csv", "tsv"):
        raise Refused(f"--excel is for CSV and TSV: the rows of {export} come out as NDJSON")
    outcomes = checkpoint.outcomes()
    if output is not None and not sum(outcomes.get(Code(code), 0) for code in codes or Code):
        say(f"loader: there are no such rows; nothing is written to {output}")
        return
    exported = [path for path in export.paths if isinstance(path, Path)]
    with writing_to(output, checkpoint, exported, is_kept=not force) as file:
        written = write_rows(checkpoint, export, file, codes, is_marked=excel)
    if output is not None:
        say(f"loader: {counted(written.rows, 'row')} in {output}; correct them, and load that file as it is")
        if can_be_corrected(checkpoint):
            say(f"  {loading(checkpoint, output)}")
            taken = [code for code in WORTH_RETRYING if outcomes.get(code) and (not codes or code in codes)]
            if taken:
                is_noted = note_taken_out(checkpoint.path, taken, output)
                will = "says so then" if is_noted else "does not know that these were taken out"
                say(f"loader: retry before you load it: a retry afterwards sends the old values again, and {will}")
    if written.too_long:
        say(f"loader: left out, as too long (export.max_row_bytes): {counted(written.too_long, 'row')}")
