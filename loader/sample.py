"""The first records of an export as they stand, and how it is written: what `loader init` makes settings from.

Nothing is known of the export yet, so that encoding, delimiter and format are told from its bytes.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import pyarrow as pa

from loader.errors import ExportError, Stopped
from loader.export.columnar import Columnar
from loader.export.delimited import preamble
from loader.export.elements import elements
from loader.export.files import Files, Format
from loader.export.source import BOM, SUFFIXES, Source, stranger
from loader.export.split import Cut, Splitter, count_lines
from loader.export.typed import check_type
from loader.mapping import NESTED_ATTRIBUTES, NESTED_USER, RowMapping
from loader.record import Frame

#: So many records are looked at.
LOOKED_AT = 1_000

_MAX_ROW_BYTES = 1 << 20
_HEAD_BYTES = 1 << 20
_DELIMITERS = ",;\t|"
_BLANK = b" \t\r\n"
#: So many records tell the delimiter.
_COMPARED = 50

#: An object that begins with a list of objects.
_WRAPPER = re.compile(rb'\{\s*"([^"\\]+)"\s*:\s*\[\s*\{')
_IS_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_IS_VALUE = re.compile(r"-?[0-9]+([.,][0-9]+)?|[0-9]{4}-[0-9]{2}-[0-9]{2}.*|true|false", re.IGNORECASE)


_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Sample:
    """What was seen. `rows`: records by column, which may be missing: texts, JSON's values, or those of typed columns.

    `format`, `delimiter`, `encoding`: where a setting must say them, as the name or the default says otherwise.
    `unusable`: columns that can't be read, by name, and why. `is_nested`: records need no mapping. `broken`: of some
    rows what is wrong, with their places. `warnings`: what a person should know of the file.
    """

    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    kind: Literal["text", "json", "columns"]
    is_nested: bool = False
    format: Format | None = None
    delimiter: str | None = None
    encoding: str | None = None
    unusable: Mapping[str, str] | None = None
    broken: Sequence[str] = ()
    warnings: Sequence[str] = ()

    def values(self, column: str) -> list[Any]:
        """A column's values that are not empty."""
        return [value for row in self.rows if (value := row.get(column)) is not None and value != ""]


def is_email(value: object) -> bool:
    """Does it look like an e-mail address?"""
    return isinstance(value, str) and _IS_EMAIL.fullmatch(value.strip()) is not None


def look(path: Path) -> Sample:
    """The first records of a file. Raises ExportError if it is none that can be loaded."""
    source = Source(path, SUFFIXES.get(path.suffix.lower()), 1 << 18)
    head = b"".join(_first_bytes(source.glance().chunks()))
    if words := stranger(head):
        raise ExportError(f"{source.name} {words}")
    try:
        named: Format | None = Files.of([path]).format
    except ExportError:
        named = None
    if (columnar := _columnar_format(head)) is not None:
        return replace(_columnar(source, columnar), format=columnar if named != columnar else None)
    encoding, is_mixed = encoding_of(head)
    source = replace(source, encoding=encoding)
    text = b"".join(_first_bytes(source.glance().chunks())).removeprefix(BOM).lstrip(_BLANK)
    found = _text_format(text, named, source.name)
    sample = _delimited(source, found) if found in ("csv", "tsv") else _json(source, found)
    if is_mixed:
        mixed = f"{source.name} is {encoding} but for some bytes: rows that hold one of these are REJECTED"
        sample = replace(sample, warnings=[*sample.warnings, mixed])
    return replace(
        sample,
        format=found if found != named else None,
        encoding=encoding if encoding != "utf-8" else None,
    )


def _first_bytes(chunks: Iterable[bytes]) -> Iterator[bytes]:
    size = 0
    for chunk in _as_far_as_it_goes(chunks):
        yield chunk[: _HEAD_BYTES - size]
        size += len(chunk)
        if size >= _HEAD_BYTES:
            return


def _as_far_as_it_goes(items: Iterable[_Item]) -> Iterator[_Item]:
    """All of them, until the file breaks off. Raises ExportError if that is before the first."""
    is_any = False
    try:
        for item in items:
            yield item
            is_any = True
    except Stopped as stopped:  # behind some it is no matter here: who reads it all is told
        if not is_any:
            raise ExportError(str(stopped)) from stopped


def _columnar_format(head: bytes) -> Format | None:
    if head.startswith(b"PAR1"):
        return "parquet"
    return "arrow" if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")) else None


def encoding_of(head: bytes) -> tuple[str, bool]:
    """The encoding of a text by its first bytes, and whether it is that but for some bytes.

    What is no UTF-8 anywhere is taken for cp1252, in which spreadsheets in western countries write.
    """
    for mark, name in ((b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if head.startswith(mark):
            return name, False
    pairs = head[:2000]
    for name, zeros in (("utf-16-le", pairs[1::2]), ("utf-16-be", pairs[::2])):
        if zeros.count(0) > len(pairs) / 4:
            return name, False
    text = head.decode("utf-8", "surrogateescape")
    stray = [letter for letter in text[: -3 if len(head) == _HEAD_BYTES else None] if "\udc80" <= letter <= "\udcff"]
    if not stray:
        return "utf-8", False
    if any(letter > "\x7f" and not "\udc80" <= letter <= "\udcff" for letter in text):
        return "utf-8", True
    try:
        head.decode("cp1252")
    except UnicodeDecodeError:
        return "cp1252", True
    return "cp1252", False


def _text_format(text: bytes, named: Format | None, name: str) -> Format:
    """What it is, whatever its name says."""
    line, *others = text.splitlines() or [b""]
    first = _object(line)
    is_wrapper = first is not None and not others and not any(isinstance(value, str) for value in first.values())
    if (first is None or is_wrapper) and (found := _WRAPPER.match(text)):
        inner = found[1].decode("utf-8", "replace")
        raise ExportError(
            f"{name} is one JSON object; if its list {inner!r} is what is meant, make that a file of its own: "
            f"jq -c '.[\"{inner}\"][]' {name} > users.ndjson"
        )
    if first is not None:
        return "ndjson"
    if text.startswith(b"[") and text[1:].lstrip(_BLANK)[:1] in (b"{", b"]"):
        return "json"
    if named in ("csv", "tsv", "ndjson", "json"):
        return named
    return "csv"


def _object(line: bytes) -> dict[str, Any] | None:
    """The JSON object on a line; None if it is none."""
    try:
        found = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# Delimited -----------------------------------------------------------------------------------------------------------


def _delimited(source: Source, form: Format) -> Sample:
    usual = "\t" if form == "tsv" else ","
    said = preamble(source).delimiter
    delimiter = said or _delimiter(source, usual)
    records = list(islice(_records(source, delimiter), LOOKED_AT + 1))
    if not records:
        raise ExportError(f"{source.name} is empty: not even a header")
    line, text, reason = records[0]
    if reason:
        raise ExportError(f"{source.name} line {line}: the header can't be read: {reason}")
    header = fields(text, delimiter)
    unusable = {name: f"the header names {name!r} twice: rename one" for name in header if header.count(name) > 1}
    if "" in header:
        unusable[""] = f"column {header.index('') + 1} has no name: name it"
    rows, broken = [], []
    for line, text, reason in records[1:]:
        cells = [] if reason else fields(text, delimiter)
        if not reason and len(cells) != len(header):
            reason = f"{len(cells)} field{'' if len(cells) == 1 else 's'}, the header has {len(header)}"
        if reason:
            broken.append(f"{source.name} line {line}: {reason}")
        else:
            rows.append({name: cell for name, cell in zip(header, cells, strict=True) if name not in unusable})
    warnings = []
    if (odd := _no_name(header)) is not None:
        warnings.append(
            f"{source.name} line {records[0][0]} looks like a row and not like a header ({odd!r} is no column's name); "
            "put a line with the columns' names above it, else this row is not loaded"
        )
    return Sample(
        [name for name in header if name not in unusable],
        rows,
        kind="text",
        delimiter=delimiter if delimiter not in (usual, said) else None,
        unusable=unusable,
        broken=broken,
        warnings=warnings,
    )


def fields(text: bytes, delimiter: str) -> list[str]:
    """A record's fields."""
    return next(csv.reader(io.StringIO(text.decode("utf-8", "replace"), newline=""), delimiter=delimiter), [])


def _records(source: Source, delimiter: str) -> Iterator[tuple[int, bytes, str]]:
    """Records with their lines, and what is wrong with them."""
    begin = preamble(source).data
    cuts = Splitter(delimiter, _MAX_ROW_BYTES).cuts(source.glance().chunks(len(begin)))
    return _numbered(cuts, 1 + count_lines(begin))


def _unmarked(source: Source) -> Iterator[bytes]:
    """The text without its byte order mark."""
    return source.glance().chunks(len(source.byte_order_mark()))


def _numbered(cuts: Iterable[Cut], before: int = 1) -> Iterator[tuple[int, bytes, str]]:
    for cut in _as_far_as_it_goes(cuts):
        for at, lines in enumerate(cut.lines(range(len(cut.starts)))):
            yield before + lines, cut.text(at), cut.bad.get(at, "")
        before += count_lines(cut.data)


def _delimiter(source: Source, usual: str) -> str:
    """What stands between the fields: what makes most columns of the header, and as many of the rows behind it."""

    def score(delimiter: str) -> tuple[float, int, bool]:
        records = [
            fields(text, delimiter) for _, text, bad in islice(_records(source, delimiter), _COMPARED) if not bad
        ]
        if not records or len(records[0]) < 2:
            return 0, 0, delimiter == usual
        share = sum(len(record) == len(records[0]) for record in records) / len(records)
        return round(share, 1), len(records[0]), delimiter == usual

    return max(_DELIMITERS, key=score)


def _no_name(header: Sequence[str]) -> str | None:
    """What in the first record is a value, so that it is no header; None: nothing."""
    values = [name for name in header if is_email(name) or _IS_VALUE.fullmatch(name.strip())]
    return values[0] if any(map(is_email, values)) or len(values) * 2 > len(header) else None


# JSON ----------------------------------------------------------------------------------------------------------------


def _json(source: Source, form: Format) -> Sample:
    if form == "json":
        texts = _numbered(elements(_unmarked(source), source.name, _MAX_ROW_BYTES))
    else:
        texts = _numbered(Splitter(max_row_bytes=_MAX_ROW_BYTES, quoted=False).cuts(_unmarked(source)))
    rows: list[dict[str, Any]] = []
    broken = []
    for line, text, reason in islice(texts, LOOKED_AT):
        if (record := _object(text)) is not None:
            rows.append(record)
        else:
            broken.append(f"{source.name} line {line}: {reason or 'not a JSON object'}")
    if not rows:
        raise ExportError(broken[0] if broken else f"{source.name} is empty")
    nested = sum(isinstance(r.get(NESTED_USER), str) and isinstance(r.get(NESTED_ATTRIBUTES), dict) for r in rows)
    columns = dict.fromkeys(name for row in rows for name in row)
    return Sample(list(columns), rows, kind="json", is_nested=nested * 2 > len(rows), broken=broken)


# Columns -------------------------------------------------------------------------------------------------------------


def _columnar(source: Source, form: Format) -> Sample:
    reader = Columnar(source, RowMapping(Frame(), 0, ""), "arrow" if form == "arrow" else "parquet")
    schema, opened = reader._open()
    unusable: dict[str, str] = {}
    for name in schema.names:
        if schema.names.count(name) > 1:
            unusable[name] = f"{name!r} is there twice: rename one"
            continue
        try:
            check_type(name, schema.field(name).type)
        except ExportError as error:
            unusable[name] = str(error)
    names = [name for name in schema.names if name not in unusable]
    rows: list[dict[str, Any]] = []
    try:
        for block in opened.batches(0, names):
            rows += block.slice(0, LOOKED_AT - len(rows)).to_pylist()
            if len(rows) >= LOOKED_AT:
                break
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{source.name} is damaged: {str(error).splitlines()[0]}") from error
    return Sample(names, rows, kind="columns", unusable=unusable)
