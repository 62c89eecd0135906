"""Where the bytes of an export come from: a file, plain or gzip, read in chunks from any place on."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from loader.errors import ExportError, Stopped
from loader.export.split import CHUNK_BYTES

Compression = Literal["gzip"] | None
SUFFIXES: dict[str, Compression] = {".gz": "gzip"}

_BOM = b"\xef\xbb\xbf"
_RAW_BYTES = 1 << 18


class Fingerprint(NamedTuple):
    """What tells an export from another without reading it."""

    size: int
    mtime_ns: int


@dataclass
class Source:
    """One file. `position` is how far it has been read, in bytes as stored."""

    path: Path
    compression: Compression
    position: int = 0

    def fingerprint(self) -> Fingerprint:
        """Raises ExportError if there is no such file."""
        try:
            stat = self.path.stat()
        except OSError as error:
            raise ExportError(f"export.path: can't read {self.path}: {error.strerror}") from error
        return Fingerprint(stat.st_size, stat.st_mtime_ns)

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """The decompressed bytes from `offset` on, about a mebibyte at a time; at the start without a byte order mark.

        Raises ExportError if the file can't be opened, and Stopped where it breaks off or can't be read further.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                if self.compression is None:
                    file.seek(offset)
                    yield from self._plain(file)
                else:
                    yield from _behind(offset, self._gzip(file))
        except OSError as error:
            where = f"{self.path}: {error.strerror or error}"
            if self.position == 0:
                raise ExportError(f"export.path: can't read {where}") from error
            raise Stopped(f"reading the export failed, {where}; all rows before are kept") from error

    def has_bom(self) -> bool:
        """Does the text begin with a byte order mark, as spreadsheets write it?"""
        return next(self.chunks(), b"").startswith(_BOM)

    def _plain(self, file: BinaryIO) -> Iterator[bytes]:
        while chunk := file.read(CHUNK_BYTES):
            self.position = file.tell()
            yield chunk

    def _gzip(self, file: BinaryIO) -> Iterator[bytes]:
        """Any number of gzip members, one after the other; zeros behind the last are padding."""
        unpack = None
        while raw := file.read(_RAW_BYTES):
            first = self.position == 0
            self.position = file.tell()
            while raw:
                if unpack is None:
                    if not first and not raw.strip(b"\0"):
                        break
                    unpack = zlib.decompressobj(wbits=31)
                try:
                    chunk = unpack.decompress(raw, CHUNK_BYTES)
                except zlib.error as error:
                    if first:
                        raise ExportError(f"{self.path} is not gzip: {error}") from error
                    raise Stopped(
                        f"{self.path} is damaged near byte {self.position:,} ({error}); all rows before are kept"
                    ) from error
                raw = unpack.unconsumed_tail
                if chunk:
                    yield chunk
                if unpack.eof:
                    raw, unpack = unpack.unused_data, None
                first = False
        if unpack is not None:
            raise Stopped(
                f"{self.path} breaks off: its gzip data ends at byte {self.position:,} without an end mark; "
                "all whole rows before are kept. Get the file again and start over with --fresh"
            )


def _behind(offset: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if offset >= len(chunk):
            offset -= len(chunk)
            continue
        yield chunk[offset:] if offset else chunk
        offset = 0
