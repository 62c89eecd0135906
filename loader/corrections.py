"""Rows of a load as they stand in the export, with what became of them: to be corrected, and loaded again as is."""

import itertools
import json
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, NamedTuple, get_args

from loader.checkpoint import Checkpoint, ResultRow, lock
from loader.commands import is_other_than_utf8
from loader.errors import CheckpointError, ExportError, Refused, Stopped
from loader.export import Fingerprint
from loader.export.files import Files, Format, located, matching
from loader.export.originals import delimiter_of, fields, header, originals
from loader.export.source import BOM
from loader.mapping import ADDED, RowMapping
from loader.outcome import Code
from loader.settings import access_from

_ROW, _CODE, _MESSAGE = (json.dumps(name).encode() for name in ADDED)
#: The members as they are written here, at the end of a row that was corrected once and has failed again.
_MEMBERS = re.compile(rb',?%s:[0-9]+,%s:"[A-Z_]*",%s:"(?:[^"\\]|\\.)*"\s*\}\Z' % (_ROW, _CODE, _MESSAGE))


class Written(NamedTuple):
    """How many rows were written, and how many could not be: no line that long is held."""

    rows: int
    too_long: int


def export_of(checkpoint: Checkpoint, path: str | None = None) -> Files:
    """The export of a load, from where it was or from `path`. Raises CheckpointError if it is another."""
    identity = checkpoint.get("identity")
    if identity is None:
        raise CheckpointError(f"{checkpoint.path} holds no load yet")
    if identity["export.format"] not in get_args(Format):
        raise Refused(
            f"--rows is for exports that are files, and this was {checkpoint.get('path')}; without it, results "
            "name the users, whose rows can be asked for again"
        )
    access = access_from(checkpoint.get("access") or {})
    found = matching(path, Path.cwd(), access) if path else [located(name, access) for name in checkpoint.get("files")]
    export = Files.of(
        found,
        identity["export.format"],
        identity["export.delimiter"],
        identity["export.max_row_bytes"],
        identity["export.encoding"],
    )
    if export.comes_once:
        raise Refused("the export came from stdin; name a file that holds it with --export")
    known = Fingerprint(**checkpoint.get("export"))
    mapping = RowMapping.from_json(checkpoint.get("mapping"))
    try:
        now = export.fingerprint()
    except ExportError as error:
        raise ExportError(f"{error}; name the file that holds it now with --export") from error
    is_same = (now == known and now.tells) or (
        (now.size == known.size or not known.tells) and export.is_same_up_to(checkpoint.marks(), mapping)
    )
    if not is_same:
        raise CheckpointError(
            f"{export} is not the export of {checkpoint.path}, or has changed since; name the right one with --export"
        )
    return export


def write_rows(
    checkpoint: Checkpoint, export: Files, out: BinaryIO, codes: Collection[str] = (), *, is_marked: bool = False
) -> Written:
    """Write the settled rows, or those with one of `codes`, in order of row: CSV for CSV and its like, else NDJSON.

    `is_marked`: CSV begins with a byte order mark, by which spreadsheets know that it is UTF-8.
    """
    # Behind them stand those who are gone from the export: a refresh clears them, and they have no row of their own.
    rows = (checkpoint.get("refresh") or {}).get("rows", sys.maxsize)
    found, again = itertools.tee(itertools.takewhile(lambda result: result.row <= rows, checkpoint.results(codes)))
    key = RowMapping.from_json(checkpoint.get("mapping")).user
    texts = originals(export, (result.row for result in found), key)
    is_delimited = export.format in ("csv", "tsv")
    delimiter = delimiter_of(export)
    is_second = False
    if is_delimited:
        begin, first = header(export)
        is_second = tuple(fields(first, delimiter)[-len(ADDED) :]) == ADDED
        if (is_marked or is_other_than_utf8(export.encoding)) and not begin.startswith(BOM):
            out.write(BOM)  # so that it is read as what it is, though export.encoding still says otherwise
        out.write(begin)
        out.write(
            (first if is_second else delimiter.encode().join([first, *(name.encode() for name in ADDED)])) + b"\n"
        )
    written = too_long = 0
    for (_, text), result in zip(texts, again, strict=True):
        if text is None:
            too_long += 1
            continue
        line = _delimited(text, result, delimiter, is_second=is_second) if is_delimited else _member(text, result)
        out.write(line + b"\n")
        written += 1
    return Written(written, too_long)


def note_taken_out(path: Path, codes: Collection[str], file: Path) -> bool:
    """Note in the checkpoint that rows with these outcomes were taken out into `file`. False: it can't be written now.

    A retry afterwards would send what they were before.
    """
    try:
        with lock(path), Checkpoint.open(path, create=False) as checkpoint:
            known = checkpoint.get("taken_out") or {}
            checkpoint.put(taken_out=known | dict.fromkeys(codes, str(file)))
    except (CheckpointError, Stopped):  # a run has it, or it is to be read alone
        return False
    return True


def _delimited(text: bytes, result: ResultRow, delimiter: str, *, is_second: bool) -> bytes:
    """A row with three fields more. One that is broken stays broken: unmended it is rejected again, nothing guessed."""
    if is_second:
        text = _without_ours(text, delimiter)
    message = _line(result.message).replace('"', '""')
    return text + f'{delimiter}{result.row}{delimiter}{result.code}{delimiter}"{message}"'.encode("utf-8", "replace")


def _without_ours(text: bytes, delimiter: str) -> bytes:
    """Without the fields that were written here the time before, if they are still there."""
    sep, codes = re.escape(delimiter), "|".join(Code)
    ours = rf'{sep}"?[0-9]+"?{sep}"?(?:{codes})"?{sep}(?:"(?:[^"]|"")*"|[^"{sep}]*)\Z'
    return re.sub(ours.encode(), b"", text)


def _member(text: bytes, result: ResultRow) -> bytes:
    """A JSON object with three members more. What is none comes out as it is, and is rejected again unless mended."""
    text = text.strip()
    if not (text.startswith(b"{") and text.endswith(b"}")):
        return text
    text = _MEMBERS.sub(b"}", text)
    comma = b"" if text[1:-1].isspace() or text == b"{}" else b","
    code, message = (json.dumps(value).encode() for value in (result.code, _line(result.message)))
    return text[:-1] + comma + b"%s:%d,%s:%s,%s:%s}" % (_ROW, result.row, _CODE, code, _MESSAGE, message)


def _line(message: str) -> str:
    return " ".join(message.splitlines())
