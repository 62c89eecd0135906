"""Exports into mapped rows: one file a format, each a stream of blocks with row numbers and places to resume from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from loader.errors import ExportError, Stopped
from loader.export import delimited, lines
from loader.export.rows import Reader, hash_from
from loader.export.source import SUFFIXES, Compression, Fingerprint, Source
from loader.export.split import CHUNK_BYTES
from loader.mapping import RowMapping
from loader.record import Mark, Rows
from loader.span import SpanSet

Format = Literal["csv", "tsv", "ndjson"]
_BY_SUFFIX: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".ndjson": "ndjson", ".jsonl": "ndjson"}

__all__ = ["Export", "Fingerprint", "Format", "stem"]


@dataclass(frozen=True)
class Export:
    """One export and how to read it. `delimiter` None: the format's own. `chunk_bytes`: read at a time."""

    path: Path
    format: Format
    compression: Compression = None
    delimiter: str | None = None
    max_row_bytes: int = 1 << 20
    chunk_bytes: int = CHUNK_BYTES

    @classmethod
    def of(cls, path: Path, format: Format | None, delimiter: str | None, max_row_bytes: int) -> "Export":
        """An export whose compression, and format if it isn't given, are told by its name. Raises ExportError."""
        inner, compression = _uncompressed(path)
        found = format or _BY_SUFFIX.get(inner.suffix.lower())
        if found is None:
            raise ExportError(
                f"export.format: {path.name!r} does not tell the format; set it to one of {', '.join(get_args(Format))}"
            )
        return cls(path, found, compression, delimiter, max_row_bytes)

    def fingerprint(self) -> Fingerprint:
        """Size and time of the file. Raises ExportError if it isn't there."""
        return self._source.fingerprint()

    def rows(self, mapping: RowMapping, start: Mark | None = None, settled: SpanSet | None = None) -> Iterator[Rows]:
        """Blocks of rows from `start` on, without those in `settled`. Blocking: for a thread.

        Raises ExportError where the export doesn't fit the mapping (before the first block), Stopped where it breaks
        off (behind the last whole row).
        """
        source = self._source
        reader: Reader
        if self.format == "ndjson":
            reader = lines.Lines(source, mapping, self.max_row_bytes)
        else:
            delimiter = self.delimiter or ("\t" if self.format == "tsv" else ",")
            reader = delimited.Delimited(source, mapping, delimiter, self.max_row_bytes)
        yield from reader.blocks(start, settled or SpanSet())

    def is_same_up_to(self, marks: Sequence[Mark]) -> bool:
        """Does the export hold, up to the last mark, the bytes that were read when the marks were made? Reads it."""
        chunks = self._source.chunks()
        data, offset, link = b"", 0, hash_from("")
        try:
            for mark in marks:
                while offset < mark.offset:
                    if not (data := data or next(chunks, b"")):
                        return False
                    piece = data[: mark.offset - offset]
                    link.update(piece)
                    offset += len(piece)
                    data = data[len(piece) :]
                if link.hexdigest() != mark.digest:
                    return False
                link = hash_from(mark.digest)
        except Stopped:  # it breaks off where it did not before
            return False
        return True

    @property
    def _source(self) -> Source:
        return Source(self.path, self.compression, self.chunk_bytes)


def stem(path: Path) -> str:
    """A file's name without the suffixes that tell format and compression."""
    inner, _ = _uncompressed(path)
    return inner.stem if inner.suffix.lower() in _BY_SUFFIX else inner.name


def _uncompressed(path: Path) -> tuple[Path, Compression]:
    compression = SUFFIXES.get(path.suffix.lower())
    return (path.with_suffix(""), compression) if compression else (path, None)
