"""Where the bytes of an export come from: a file or stdin, packed or not, read in chunks from any place on."""

import bz2
import codecs
import contextlib
import errno
import io
import itertools
import os
import re
import select
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from anyio import from_thread

from loader.errors import ExportError, Stopped
from loader.export.remote import Remote, RemoteFile
from loader.export.split import CHUNK_BYTES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Compression = Literal["gzip", "bzip2", "zstd"] | None
SUFFIXES: dict[str, Compression] = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd", ".zstd": "zstd"}
_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}

STDIN = Path("-")

BOM = b"\xef\xbb\xbf"

#: Files that people have in place of an export, by their first bytes, and what to do with them.
_STRANGERS = {
    b"PK\x03\x04": "is a zip archive, or a spreadsheet (.xlsx): unzip it, or save it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "is a spreadsheet (.xls): save it as CSV UTF-8",
    b"\xfd7zXZ": "is packed with xz, which is not read: pack it with gzip or zstd",
    b"%PDF-": "is a PDF: ask for the export as CSV",
    b"SQLite format 3\0": "is a SQLite database: export.query and export.database load from one",
}
#: So much of a text's beginning, and so many letters in it, tell whether it is UTF-8.
_TELLING_BYTES, _LETTERS_THAT_TELL = 4 << 20, 3
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_RAW_BYTES = 1 << 18
_GLANCE_BYTES = 1 << 15
_LOOK_UP_S = 0.2
#: What stdin can be read again of: its beginning, where the header stands, and what was read last.
REPLAYED_BYTES = 8 << 20


class Fingerprint(NamedTuple):
    """What tells an export from another without reading it, if anything is known.

    `tag`: the versions of what lies in object stores and on web servers.
    """

    size: int
    mtime_ns: int
    files: int = 1
    tag: str = ""

    @property
    def tells(self) -> bool:
        """Are two that are equal the same export? Not if their size is all that is known."""
        return bool(self.mtime_ns or self.tag)


#: Of what can't be known without being read.
UNTOLD = Fingerprint(0, 0, 0)


class _Decompressor(Protocol):
    """What bz2 and zstd share."""

    def decompress(self, data: bytes, /, max_length: int) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class _Readable(Protocol):
    """A file, wherever it lies."""

    def read(self, size: int, /) -> bytes: ...


class _Gzip:
    """zlib in the others' clothes."""

    def __init__(self) -> None:
        self._unpack = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, /, max_length: int) -> bytes:
        return self._unpack.decompress(self._unpack.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        return self._unpack.eof

    @property
    def needs_input(self) -> bool:
        return not self._unpack.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._unpack.unused_data


_DECOMPRESSORS: dict[Compression, Callable[[], _Decompressor]] = {
    "gzip": _Gzip,
    "bzip2": bz2.BZ2Decompressor,
    "zstd": zstd.ZstdDecompressor,
}


@dataclass
class Source:
    """One file, here or elsewhere, or stdin. `position` is how far it has been read, in bytes as stored.

    `compression` None: told by its first bytes. `encoding`: of the text; what comes out is UTF-8, and bytes that don't
    fit the encoding come out as they are, so that a row that holds one is seen to be bad. `is_glance`: no more than the
    beginning is wanted, so plain bytes come in small chunks.
    """

    path: Path | Remote
    compression: Compression
    chunk_bytes: int = CHUNK_BYTES
    encoding: str = "utf-8"
    position: int = 0
    is_glance: bool = False

    def glance(self) -> "Source":
        """The same, for a look at its beginning. What is packed is unpacked as ever, so that damage shows."""
        return replace(self, position=0, is_glance=True)

    @property
    def is_stdin(self) -> bool:
        return self.path == STDIN

    @property
    def name(self) -> str:
        """What messages call it."""
        return "stdin" if self.is_stdin else self.path.name

    @property
    def encoding_in_force(self) -> str:
        """As messages name it: a byte order mark says UTF-8, whatever the settings say."""
        return "UTF-8" if self._is_utf8 or self.byte_order_mark() else self.encoding

    def line(self, number: int) -> str:
        """What messages call a line of it."""
        return f"{self.name} line {number}"

    def fingerprint(self) -> Fingerprint:
        """Raises ExportError if there is no such file."""
        if self.is_stdin:
            return UNTOLD
        if isinstance(self.path, Remote):
            seen = self.path.look()
            return Fingerprint(seen.size or 0, seen.mtime_ns, 1, seen.tag)
        try:
            stat = self.path.stat()
        except OSError as error:
            raise ExportError(f"export.path: can't read {self.path}: {error.strerror}") from error
        return Fingerprint(stat.st_size, stat.st_mtime_ns)

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """The decompressed bytes, as UTF-8, from `offset` on. Chunks end at the same places whatever `offset` is.

        Raises ExportError if the file can't be opened, and Stopped where it breaks off or can't be read further.
        """
        if self.is_stdin:
            yield from _stdin(self.compression, self.encoding).chunks(offset)
            return
        try:
            with self._opened() as file:
                compression = self.compression or _sniff(file.read(4))
                file.seek(0)
                if compression is None and isinstance(file, RemoteFile) and not file.has_end:
                    raise ExportError(
                        f"export.path: {self.path}: its server tells neither how long it is nor where it ends, so that "
                        "a connection that breaks off would look like the end, and rows be lost. Packed (.gz, .zst) it "
                        "knows its end; or get the file, see that it is whole, and name it here"
                    )
                if compression is None and self._is_utf8:
                    file.seek(offset)
                    yield from self._plain(file, offset)
                else:
                    yield from _behind(offset, self._text(self._bytes(file, compression)))
        except OSError as error:
            where = f"{self.path}: {error.strerror or error}"
            if error.errno == errno.ESPIPE:
                where += ', as a pipe can be read but once; give it as stdin: export.path = "-"'
            if self.position == 0:
                raise ExportError(f"export.path: can't read {where}") from error
            raise Stopped(f"reading the export failed, {where}; all rows before are kept") from error

    def anywhere(self) -> Path | RemoteFile:
        """What Arrow can read here and there. Raises ExportError."""
        if isinstance(self.path, Path):
            return self.path
        file = self.path.open(through=False)
        if not file.has_ranges:
            raise ExportError(
                f"export.path: {self.path}: an index stands at the end of such a file, and its server takes no ranges; "
                "get the file, and name it here"
            )
        return file

    def _opened(self) -> io.FileIO | RemoteFile:
        if isinstance(self.path, Path):
            return self.path.open("rb", buffering=0)
        return self.path.open(through=not self.is_glance)

    def byte_order_mark(self) -> bytes:
        """The mark with which spreadsheets begin a text, or nothing."""
        begin = b""
        for chunk in self.glance().chunks():
            begin += chunk
            if len(begin) >= len(BOM):
                break
        return BOM if begin.startswith(BOM) else b""

    def refuse_utf8_taken_for_another(self) -> None:
        """Raise ExportError if the encoding is of one byte a letter, and the text's beginning is UTF-8 all the same.

        In such an encoding any bytes are letters, so that nothing else would show it. By chance its letters are UTF-8
        once or twice; all of them, and several, never.
        """
        if self._is_utf8 or not _is_of_one_byte(self.encoding) or self.byte_order_mark():
            return
        letters = ""
        with contextlib.suppress(Stopped, UnicodeError):  # it breaks off, or is no UTF-8
            letters = _beyond_ascii(replace(self, position=0).chunks(), self.encoding, once=self.is_stdin)
        if len(letters) >= _LETTERS_THAT_TELL:
            wrong = letters[0].encode().decode(self.encoding, "replace")
            raise ExportError(
                f"{self.name} is UTF-8, and export.encoding says {self.encoding}: {letters[0]} would be sent as "
                f'{wrong}. Set export.encoding = "utf-8"; if it is {self.encoding} all the same, convert it first'
            )

    @property
    def _is_utf8(self) -> bool:
        return codecs.lookup(self.encoding).name == "utf-8"

    def _bytes(self, file: _Readable, compression: Compression) -> Iterator[bytes]:
        return self._plain(file, 0) if compression is None else self._unpacked(file, compression)

    def _plain(self, file: _Readable, offset: int) -> Iterator[bytes]:
        size = min(_GLANCE_BYTES, self.chunk_bytes) if self.is_glance else self.chunk_bytes
        while chunk := file.read(size - offset % size):
            offset += len(chunk)
            self.position = offset
            yield chunk

    def _unpacked(self, file: _Readable, compression: Compression) -> Iterator[bytes]:
        """Any number of members (or frames), one after the other; zeros behind the last are padding."""
        unpack: _Decompressor | None = None
        is_first = True
        while raw := file.read(_RAW_BYTES):
            self.position += len(raw)
            while raw or (unpack is not None and not unpack.needs_input):
                if unpack is None:
                    if not is_first and not (raw := raw.lstrip(b"\0")):
                        break
                    unpack = _DECOMPRESSORS[compression]()
                try:
                    chunk = unpack.decompress(raw, self.chunk_bytes)
                except (zlib.error, OSError, EOFError, ValueError, zstd.ZstdError) as error:
                    if is_first:
                        raise ExportError(f"{self.name} is not {compression}, or it is damaged: {error}") from error
                    raise Stopped(
                        f"{self.name} is damaged near byte {self.position:,} ({error}); all rows before are kept. "
                        "Get the file again"
                    ) from error
                raw = b""
                if chunk:
                    yield chunk
                if unpack.eof:
                    raw, unpack = unpack.unused_data, None
                is_first = False
        if unpack is not None:
            raise Stopped(
                f"{self.name} breaks off: its {compression} data ends at byte {self.position:,} without an end mark; "
                "all whole rows before are kept. Get the whole file again, and start over",
                *("--fresh", "--yes"),
            )

    def _text(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same as UTF-8."""
        if self._is_utf8:
            yield from chunks
            return
        begin = b""
        while len(begin) < len(BOM) and (more := next(chunks, b"")):
            begin += more
        if begin.startswith(BOM):  # it is UTF-8 whatever is said: rows that were taken out to be corrected, for one
            yield from itertools.chain((begin,), chunks)
            return
        decoder = codecs.getincrementaldecoder(self.encoding)("surrogateescape")
        is_first = True
        try:
            for chunk in itertools.chain((begin,), chunks):
                if text := decoder.decode(chunk):
                    yield text.encode("utf-8", "surrogateescape")
                    is_first = False
            if text := decoder.decode(b"", final=True):
                yield text.encode("utf-8", "surrogateescape")
        except UnicodeError as error:
            if is_first:
                raise ExportError(f"{self.name} is not {self.encoding} ({error}); is export.encoding right?") from error
            raise Stopped(
                f"{self.name} is not {self.encoding} near byte {self.position:,} ({error}); all rows before are kept. "
                "Is export.encoding right?"
            ) from error


class _Stdin(io.RawIOBase):
    """stdin, which may be silent for hours: whoever waits for it looks up now and then whether that is still wanted."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any, /) -> int:
        while not select.select([self._fd], [], [], _LOOK_UP_S)[0]:
            with contextlib.suppress(RuntimeError):  # not a worker of anyio's, but the main thread: a signal ends it
                from_thread.check_cancelled()
        return os.readv(self._fd, [room])


class _Replayed:
    """Chunks that come only once, kept as far as they are asked for again: the first, and the last."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._head: list[bytes] = []
        self._last: list[bytes] = []
        self._last_at = 0  # offset of the first of them
        self._end = 0

    def chunks(self, offset: int) -> Iterator[bytes]:
        """From `offset` on. Raises ExportError if that has gone by."""
        head = sum(map(len, self._head))
        at = 0
        if offset < self._last_at:
            for chunk in list(self._head):
                if at + len(chunk) > offset:
                    yield chunk[max(offset - at, 0) :]
                at += len(chunk)
            offset = head
        if offset < self._last_at:
            raise ExportError("stdin can't be read again from so far back; give the export as a file")
        at = self._last_at
        for chunk in list(self._last):
            if at + len(chunk) > offset:
                yield chunk[max(offset - at, 0) :]
            at += len(chunk)
        while at == self._end and (chunk := next(self._chunks, b"")):
            self._keep(chunk)
            at = self._end
            if at > offset:
                yield chunk[max(offset - (at - len(chunk)), 0) :]

    def _keep(self, chunk: bytes) -> None:
        if self._end < REPLAYED_BYTES:
            self._head.append(chunk)
        self._last.append(chunk)
        self._end += len(chunk)
        while self._end - self._last_at - len(self._last[0]) > REPLAYED_BYTES:
            self._last_at += len(self._last.pop(0))


@cache
def _stdin(compression: Compression, encoding: str) -> _Replayed:
    """There is one stdin, whoever asks for it."""
    source = Source(STDIN, compression, CHUNK_BYTES, encoding)
    file = sys.stdin.buffer
    begin = b""
    if isinstance(file, io.BufferedReader):
        file = io.BufferedReader(_Stdin(file.fileno()))
        begin = file.peek(4)[:4]
    return _Replayed(source._text(source._bytes(file, compression or _sniff(begin))))


def _is_of_one_byte(encoding: str) -> bool:
    return len(bytes(range(256)).decode(encoding, "replace")) == 256


def _beyond_ascii(chunks: Iterator[bytes], encoding: str, *, once: bool) -> str:
    """The letters beyond ASCII with which a text begins, were it UTF-8. Raises UnicodeError if it is none.

    `chunks`: as they come from a source, so that they are turned back into its bytes. `once`: no more than the first.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    letters, seen = "", 0
    for chunk in chunks:
        text = decoder.decode(chunk.decode("utf-8", "surrogateescape").encode(encoding, "surrogateescape"))
        letters += "".join(_BEYOND_ASCII.findall(text))
        seen += len(chunk)
        if once or seen >= _TELLING_BYTES:
            break
    return letters


def stranger(begin: bytes) -> str:
    """What a file is that is no text, and the way out; "": nothing that is known."""
    return next((words for magic, words in _STRANGERS.items() if begin.startswith(magic)), "")


def _sniff(begin: bytes) -> Compression:
    return next((kind for magic, kind in _MAGIC.items() if begin.startswith(magic)), None)


def _behind(offset: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if offset >= len(chunk):
            offset -= len(chunk)
            continue
        yield chunk[offset:] if offset else chunk
        offset = 0
