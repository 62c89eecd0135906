"""Rows as they stand in the export, to be given back to a person. Numbered as in a run, and read without the mapping.

Text formats give a row's bytes as they came (as UTF-8), those of broken rows too. Columnar ones have no text, so that
their rows come out as JSON.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from loader.errors import ExportError
from loader.export.columnar import Columnar
from loader.export.delimited import preamble
from loader.export.elements import elements
from loader.export.files import Files
from loader.export.source import Source
from loader.export.split import Cut, Splitter
from loader.export.typed import check_type, is_text, value_of
from loader.mapping import RowMapping
from loader.mapping.columns import json_strings
from loader.record import Frame, json_string

#: A row's number, and its text on one line, but for line ends inside quotes. None: it is too long to be held.
Original = tuple[int, bytes | None]


@dataclass(frozen=True)
class _Block:
    """Some rows, each made only when it is asked for, by its position."""

    count: int
    text: Callable[[int], bytes | None]


def delimiter_of(export: Files, file: int = 0) -> str:
    """What stands between the fields of a file of a delimited format."""
    return export.delimiter or preamble(_source(export, file)).delimiter or export.usual_delimiter


def header(export: Files) -> tuple[bytes, bytes]:
    """What stands before the header of the first file, and that, as they stand; of a delimited format."""
    return preamble(_source(export, 0)).data, _header(export, 0)


def originals(export: Files, wanted: Iterable[int], user: str | None) -> Iterator[Original]:
    """The rows numbered `wanted`, which ascend. `user`: the column with the key, which must be text in JSON.

    Raises ExportError, or Stopped, where the export can't be read.
    """
    numbers = iter(wanted)
    number = next(numbers, None)
    before = 0
    for file in range(len(export.paths)):
        for block in _columnar(export, file, user) if _is_columnar(export) else _text(export, file):
            while number is not None and number <= before + block.count:
                yield number, block.text(number - before - 1)
                number = next(numbers, None)
            if number is None:
                return
            before += block.count


def fields(line: bytes, delimiter: str) -> list[str]:
    """A record's fields."""
    return next(csv.reader(io.StringIO(line.decode("utf-8", "replace"), newline=""), delimiter=delimiter), [])


# Text ----------------------------------------------------------------------------------------------------------------


def _source(export: Files, file: int) -> Source:
    return Source(export.paths[file], None, export.chunk_bytes, export.encoding)


def _cuts(export: Files, file: int) -> Iterator[Cut]:
    source = _source(export, file)
    if export.format in ("csv", "tsv"):
        chunks = source.chunks(len(preamble(source).data))
        return Splitter(delimiter_of(export, file), export.max_row_bytes).cuts(chunks)
    chunks = source.chunks(len(source.byte_order_mark()))
    if export.format == "json":
        return elements(chunks, source.name, export.max_row_bytes)
    return Splitter(max_row_bytes=export.max_row_bytes, quoted=False).cuts(chunks)


def _header(export: Files, file: int) -> bytes:
    return next((cut.text(0) for cut in _cuts(export, file) if len(cut.starts)), b"")


def _text(export: Files, file: int) -> Iterator[_Block]:
    skip = int(export.format in ("csv", "tsv"))
    arrange = _arrangement(export, file) if skip else _as_it_is
    for cut in _cuts(export, file):
        count = max(len(cut.starts) - skip, 0)
        yield _Block(count, lambda at, cut=cut, skip=skip: _of(export, cut, at + skip, arrange))  # type: ignore[misc]
        skip = 0 if len(cut.starts) else skip


def _of(export: Files, cut: Cut, at: int, arrange: Callable[[bytes], bytes]) -> bytes | None:
    if export.format == "json":
        return _on_one_line(cut.data[int(cut.starts[at]) : int(cut.ends[at])])
    is_whole = not cut.is_open or at < len(cut.starts) - 1
    return arrange(cut.text(at)) if is_whole else None


def _as_it_is(text: bytes) -> bytes:
    return text


def _arrangement(export: Files, file: int) -> Callable[[bytes], bytes]:
    """What puts a row of a file under the first file's header: only their columns' order and delimiter may differ."""
    delimiter, others = delimiter_of(export), delimiter_of(export, file)
    first, own = fields(_header(export, 0), delimiter), fields(_header(export, file), others)
    if first == own and delimiter == others:
        return _as_it_is

    def arrange(text: bytes) -> bytes:
        found = fields(text, others)
        if len(found) != len(own):
            return text  # broken, and to be mended by hand
        cells = dict(zip(own, found, strict=True))
        line = io.StringIO()
        csv.writer(line, delimiter=delimiter, lineterminator="").writerow([cells.get(name, "") for name in first])
        return line.getvalue().encode()

    return arrange


def _on_one_line(text: bytes) -> bytes:
    try:
        return msgspec.json.format(text, indent=-1) if b"\n" in text or b"\r" in text else text
    except msgspec.MsgspecError:
        return b" ".join(text.split())  # it is no JSON anyhow


# Columns -------------------------------------------------------------------------------------------------------------


def _is_columnar(export: Files) -> bool:
    return export.format in ("parquet", "arrow")


def _columnar(export: Files, file: int, user: str | None) -> Iterator[_Block]:
    reader = Columnar(
        _source(export, file), RowMapping(Frame(), 0, user), "arrow" if export.format == "arrow" else "parquet"
    )
    schema, opened = reader._open()
    names = [name for name in schema.names if _has_form(name, schema)]
    for block in opened.batches(0, names):
        cells = [_cells(name, block.column(name), name == user) for name in names]
        rows = pc.binary_join_element_wise("{", pc.binary_join_element_wise(*cells, ","), "}", "")
        yield _Block(block.num_rows, lambda at, rows=rows: rows[at].as_py().encode())  # type: ignore[misc]


def _has_form(name: str, schema: pa.Schema) -> bool:
    try:
        check_type(name, schema.field(name).type)
    except ExportError:
        return False  # no load could read it, so it isn't missed
    return True


def _cells(name: str, column: pa.Array, is_key: bool) -> pa.StringArray:
    if is_key and not is_text(column.type):
        values: Sequence[str] = json_strings(column.cast(pa.string()).fill_null(""))
    else:
        values = value_of(column, name, {})
    return pc.binary_join_element_wise(json_string(name).decode(), values, ":")
