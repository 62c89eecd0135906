"""Exports that are files: one reader a format, each a stream of blocks with row numbers and places to resume from."""

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, get_args

from loader.errors import ExportError, LoaderError, Stopped
from loader.export.address import Access, is_pattern, scheme_of
from loader.export.columnar import Columnar
from loader.export.delimited import Delimited
from loader.export.lines import Lines
from loader.export.remote import Remote, objects
from loader.export.rows import Place, Reader, Unit, Wanted
from loader.export.source import REPLAYED_BYTES, STDIN, SUFFIXES, Compression, Fingerprint, Source
from loader.export.split import CHUNK_BYTES
from loader.mapping import RowMapping, others
from loader.record import Mark, Rows
from loader.span import SpanSet

Format = Literal["csv", "tsv", "ndjson", "json", "parquet", "arrow"]
_BY_SUFFIX: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}


@dataclass(frozen=True)
class Files:
    """One export, of one file or several, or stdin, and how to read it.

    `delimiter` None: the format's own. `encoding`: of text formats. `chunk_bytes`: read at a time.
    """

    paths: tuple[Path | Remote, ...]
    format: Format
    delimiter: str | None = None
    max_row_bytes: int = 1 << 20
    encoding: str = "utf-8"
    chunk_bytes: int = CHUNK_BYTES

    @classmethod
    def of(
        cls,
        paths: Sequence[Path | Remote],
        format: Format | None = None,
        delimiter: str | None = None,
        max_row_bytes: int = 1 << 20,
        encoding: str = "utf-8",
    ) -> "Files":
        """An export whose format, if it isn't given, is told by the first file's name. Raises ExportError."""
        found = format or _BY_SUFFIX.get(_uncompressed(paths[0].name)[0].suffix.lower())
        if found is None:
            name = "stdin" if paths[0] == STDIN else repr(paths[0].name)
            if paths[0].name.lower().endswith((".xlsx", ".xls", ".ods")):
                raise ExportError(f"export.path: {name} is a spreadsheet: save it as CSV UTF-8")
            raise ExportError(
                f"export.format: {name} does not tell the format; set it to one of {', '.join(get_args(Format))}"
            )
        return cls(tuple(paths), found, delimiter, max_row_bytes, encoding)

    @property
    def usual_delimiter(self) -> str:
        """What stands between fields, if nothing else is said."""
        return "\t" if self.format == "tsv" else ","

    @property
    def comes_once(self) -> bool:
        """Is it stdin?"""
        return self.paths == (STDIN,)

    def __str__(self) -> str:
        if self.comes_once:
            return "stdin"
        return str(self.paths[0]) + (f" and {len(self.paths) - 1} more files" if len(self.paths) > 1 else "")

    def fingerprint(self) -> Fingerprint:
        """Size and time of the files, the newest, and their versions. Raises ExportError if one isn't there."""
        found = [self._source(file).fingerprint() for file in range(len(self.paths))]
        return Fingerprint(
            sum(each.size for each in found),
            max(each.mtime_ns for each in found),
            sum(each.files for each in found),
            _together([each.tag for each in found]),
        )

    def held(self, _folder: Path, _watch: Callable[[int], None]) -> AbstractContextManager["Files"]:
        """Files stay where they are."""
        return nullcontext(self)

    def check(self, mapping: RowMapping) -> None:
        """Raise ExportError if a file can't be read, or doesn't fit the mapping or the other files."""
        first: list[str] | None = None
        for file in range(len(self.paths)):
            if self.format not in ("parquet", "arrow"):
                self._source(file).refuse_utf8_taken_for_another()
            reader = self._reader(self._source(file).glance(), mapping)
            columns = reader.columns()
            if columns is not None and mapping.attributes is None:
                first = first or columns
                if odd := sorted(set(columns) ^ set(first)):
                    raise ExportError(
                        f"{self.paths[file].name} and {self.paths[0].name} differ in column {odd[0]!r}; "
                        "list the columns to send in mapping.attributes, or load the files one by one"
                    )
            try:
                next(reader.blocks(Place(Mark()), SpanSet()), None)
            except Stopped:
                pass  # it breaks off within its first block: the rows before that are loaded all the same

    def names(self, mapping: RowMapping) -> list[str] | None:
        """The attributes that would be sent, as far as that is known before the rows are read. None: it isn't."""
        if mapping.attributes is not None:
            return list(mapping.attributes)
        columns = self._reader(self._source(0), mapping).columns()
        return None if columns is None else others(columns, mapping.user)

    def rows(
        self,
        mapping: RowMapping,
        start: Mark | None = None,
        settled: SpanSet | None = None,
        known: Mapping[int, Mark] | None = None,
    ) -> Iterator[Rows]:
        """Blocks of rows from `start` on, without those in `settled`. Blocking: for a thread.

        `known`: marks that were made of this export before, by row: these are not made again.

        Raises ExportError where the export doesn't fit the mapping (before the first block), Stopped where it breaks
        off (behind the last whole row).
        """
        place = Place(start or Mark(), known)
        before = sum(self._source(file).fingerprint().size for file in range(place.file))
        for file in range(place.file, len(self.paths)):
            if file > place.file:
                place.begin(file)
            for rows in self._reader(self._source(file), mapping).blocks(place, settled or SpanSet()):
                rows.position += before
                yield rows
            before += self._source(file).fingerprint().size

    def units(self, mapping: RowMapping, place: Place, wanted: Wanted = lambda _first, _count: None) -> Iterator[Unit]:
        """All rows as units that are read elsewhere, in order, and `wanted` rows alone. Blocking: for a thread.

        `place`, at the beginning, goes along. Raises as rows() does.
        """
        for file in range(len(self.paths)):
            if file > place.file:
                place.begin(file)
            yield from self._reader(self._source(file), mapping).units(place, wanted)

    def is_same_up_to(self, marks: Sequence[Mark], mapping: RowMapping, start: Mark | None = None) -> bool:
        """Does the export hold, up to the last mark, what was read when the marks were made? Reads it.

        Of stdin no more is read than can be replayed from `start` on.
        """
        if self.comes_once and start is not None:
            marks = [mark for mark in marks if mark.offset <= start.offset + REPLAYED_BYTES // 2]
        wanted = {mark.row: mark for mark in marks}
        last = marks[-1].row if marks else 0
        try:
            for rows in self.rows(mapping) if marks else ():
                if rows.end is not None and wanted.pop(rows.end.row, rows.end) != rows.end:
                    return False
                if rows.end is not None and rows.end.row >= last:
                    break
        except LoaderError:  # it breaks off where it did not before
            return False
        return not wanted

    def _reader(self, source: Source, mapping: RowMapping) -> Reader:
        match self.format:
            case "parquet" | "arrow":
                return Columnar(source, mapping, self.format)
            case "json" | "ndjson":
                return Lines(source, mapping, self.max_row_bytes, is_array=self.format == "json")
            case "csv" | "tsv":
                return Delimited(source, mapping, self.delimiter, self.max_row_bytes, self.usual_delimiter)

    def _source(self, file: int) -> Source:
        path = self.paths[file]
        return Source(path, _uncompressed(path.name)[1], self.chunk_bytes, self.encoding)


def matching(path: str, folder: Path, access: Access | None = None) -> list[Path | Remote]:
    """The files that `export.path` means: "-" is stdin, a pattern all that match, in byte order. Raises ExportError.

    `access`: how remote ones are reached.
    """
    if path == "-":
        return [STDIN]
    if scheme_of(path):
        access = access or Access()
        return [*objects(path, access)] if is_pattern(path) else [Remote(path, access)]
    whole = folder / path
    if not glob.has_magic(path) or os.path.exists(whole):  # Path.exists() raises for a name that is too long
        return [whole]
    found = [name for name in glob.glob(str(whole), recursive=True) if not os.path.isdir(name)]
    if not found:
        raise ExportError(f"export.path: no file matches {path!r} in {folder}")
    return [Path(name) for name in sorted(found, key=os.fsencode)]


def located(name: str, access: Access) -> Path | Remote:
    """A file by the name that a checkpoint has of it."""
    return Remote(name, access) if scheme_of(name) else Path(name)


def stem(path: Path) -> str:
    """A file's name without the suffixes that tell format and compression."""
    inner, _ = _uncompressed(path.name)
    return inner.stem if inner.suffix.lower() in _BY_SUFFIX else inner.name


def _uncompressed(name: str) -> tuple[PurePath, Compression]:
    path = PurePath(name)
    compression = SUFFIXES.get(path.suffix.lower())
    return (path.with_suffix(""), compression) if compression else (path, None)


def _together(tags: list[str]) -> str:
    """One version for several files; none, if none of them has one."""
    if len(tags) == 1 or not any(tags):
        return tags[0]
    return hashlib.sha256("\n".join(tags).encode()).hexdigest()
