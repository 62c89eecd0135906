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
    chunk_bytes: int = CHUNK_BYTES
    position: int = 0

    def fingerprint(self) -> Fingerprint:
        """Raises ExportError if there is no such file."""
        try:
            stat = self.path.stat()
        except OSError as error:
            raise ExportError(f"export.path: can't read {self.path}: {error.strerror}") from error
        return Fingerprint(stat.st_size, stat.st_mtime_ns)

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """The decompressed bytes from `offset` on. Chunks end at the same places whatever `offset` is.

        Raises ExportError if the file can't be opened, and Stopped where it breaks off or can't be read further.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                if self.compression is None:
                    file.seek(offset)
                    yield from self._plain(file, offset)
                else:
                    yield from _behind(offset, self._gzip(file))
        except OSError as error:
            where = f"{self.path}: {error.strerror or error}"
            if self.position == 0:
                raise ExportError(f"export.path: can't read {where}") from error
            raise Stopped(f"reading the export failed, {where}; all rows before are kept") from error

    def byte_order_mark(self) -> bytes:
        """The mark with which spreadsheets begin a text, or nothing."""
        begin = b""
        for chunk in self.chunks():
            begin += chunk
            if len(begin) >= len(_BOM):
                break
        return _BOM if begin.startswith(_BOM) else b""

    def _plain(self, file: BinaryIO, offset: int) -> Iterator[bytes]:
        while chunk := file.read(self.chunk_bytes - offset % self.chunk_bytes):
            offset = self.position = file.tell()
            yield chunk

    def _gzip(self, file: BinaryIO) -> Iterator[bytes]:
        """Any number of gzip members, one after the other; zeros behind the last are padding."""
        unpack = None
        is_first = True
        while raw := file.read(_RAW_BYTES):
            self.position = file.tell()
            while raw:
                if unpack is None:
                    if not is_first and not (raw := raw.lstrip(b"\0")):
                        break
                    unpack = zlib.decompressobj(wbits=31)
                try:
                    chunk = unpack.decompress(raw, self.chunk_bytes)
                except zlib.error as error:
                    if is_first:
                        raise ExportError(f"{self.path} is not gzip: {error}") from error
                    raise Stopped(
                        f"{self.path} is damaged near byte {self.position:,} ({error}); all rows before are kept"
                    ) from error
                raw = unpack.unconsumed_tail
                if chunk:
                    yield chunk
                if unpack.eof:
                    raw, unpack = unpack.unused_data, None
                is_first = False
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
