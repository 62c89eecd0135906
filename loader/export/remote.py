"""Exports that lie in an object store or on a web server: opened like files, read by ranges, some ahead of the reader.

A file that is open is one version of its object: every range asks for that version, and a store whose object has
changed says so instead of giving bytes of another. What is asked for waits on threads of its own, so that whoever reads
can be cancelled while the network is silent.
"""

import concurrent.futures
import contextlib
import io
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property, partial
from threading import Event, Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from anyio import from_thread

from loader.errors import ExportError, Stopped
from loader.export.address import (
    HIDDEN,
    STORES,
    Access,
    Bytes,
    Changed,
    Denied,
    RemoteObject,
    Seen,
    Trouble,
    shown,
)

#: Bytes of a range, and how many are asked for at once while a file is read through: 8 MiB, which at 30 ms a request
#: still come faster than any format is parsed.
PIECE_BYTES = 2 << 20
_AT_ONCE = 4
#: Bytes asked for at least where one reads here and there: Arrow asks for a few at a time.
_WINDOW_BYTES = 1 << 18
_LOOK_UP_S = 0.2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 15.0
#: A first answer is waited for no longer: nothing has been sent yet, and a person may be waiting for the message.
_OPENING_S = 20.0

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Remote:
    """The address of an export, which may hold a secret behind its `?`: no message shows that."""

    url: str = field(repr=False)
    access: Access = field(default_factory=Access, repr=False)

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def scheme(self) -> str:
        """`s3`, `gs`, `az`, `https`, or `http` on this machine."""
        return urlsplit(self.url).scheme

    @property
    def name(self) -> str:
        """Its last part, which tells the format and what messages call it."""
        return shown(self.url).removesuffix(HIDDEN).rstrip("/").rpartition("/")[2]

    @cached_property
    def _object(self) -> RemoteObject:
        if self.url.endswith(HIDDEN):
            raise ExportError(
                f"export.path: {self} had more behind the ?, which is secret and kept nowhere; give the whole address"
            )
        if self.scheme in STORES:
            from loader.export.stores import stored

            try:
                return stored(self.url, self.access)
            except Denied as error:
                raise ExportError(f"export.path: can't read {self}: {error}") from error
        from loader.export.web import Page

        return Page(self.url, self.access)

    @property
    def comes_whole(self) -> bool:
        """Does its server give nothing but all of it? Raises ExportError."""
        return self.scheme not in STORES and not self.look().has_ranges

    def look(self) -> Seen:
        """What is there now. Raises ExportError if it can't be read."""
        tries = _Tries(min(self.access.give_up_s, _OPENING_S))
        try:
            return _patiently(partial(tries.until, self._object.look))
        except (Trouble, Denied) as error:
            raise ExportError(f"export.path: can't read {self}: {error}") from error

    def open(self, *, through: bool) -> "RemoteFile":
        """The object as it is now, from its beginning. `through`: most of it is going to be read, in order.

        Raises ExportError if it can't be read.
        """
        return RemoteFile(str(self), self._object, self.look(), self.access.give_up_s, through=through)


class RemoteFile(io.RawIOBase):
    """One version of an object. Whole reads: no fewer bytes than asked for, but at the end.

    Raises ExportError if nothing could be read at all, and Stopped where it can't be read further.
    """

    def __init__(self, name: str, remote: RemoteObject, seen: Seen, give_up_s: float, *, through: bool) -> None:
        self._name = name
        self._object = remote
        self._seen = seen
        self._tries = _Tries(give_up_s)
        self._give_up_s = give_up_s
        self._through = through
        self._pieces: Iterator[Bytes] = iter(())
        self._piece = memoryview(b"")
        self._piece_at = self._at = 0
        self._end = seen.size
        self._has_read = False

    @property
    def has_ranges(self) -> bool:
        """Can it be read from anywhere? Else it comes from its beginning each time."""
        return self._seen.has_ranges

    @property
    def has_end(self) -> bool:
        """Does a connection that breaks off look like one, and not like its end?"""
        return self._seen.has_end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END and self._seen.size is None:
            raise io.UnsupportedOperation("the server doesn't tell where its end is")
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._seen.size or 0}[whence]
        if not self._piece_at <= at <= self._piece_at + len(self._piece):
            self._drop()
            self._piece_at = at
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        found: list[memoryview] = []
        while size and (part := self._next(size)):
            found.append(part)
            size = size - len(part) if size > 0 else size
        return b"".join(found)

    def readinto(self, room: Any, /) -> int:
        found = self.read(len(room))
        room[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._tries.given_up.set()
        self._drop()
        super().close()

    def _drop(self) -> None:
        if close := getattr(self._pieces, "close", None):
            close()
        self._pieces, self._piece = iter(()), memoryview(b"")

    def _next(self, most: int) -> memoryview:
        """Some bytes, at most so many (< 0: as many as are at hand); none at the end."""
        behind = self._at - self._piece_at
        if behind == len(self._piece):
            self._piece, self._piece_at, behind = memoryview(self._following(most)), self._at, 0
        found = self._piece[behind : behind + most if most >= 0 else None]
        self._at += len(found)
        return found

    def _following(self, most: int) -> Bytes:
        try:
            piece = next(self._pieces, b"")
            if not piece and self._at != self._end:
                self._pieces = self._from(self._at, most)
                piece = next(self._pieces, b"")
        except Changed as error:
            if not self._has_read:
                raise ExportError(f"{self._name} has just changed; run this again") from error
            raise Stopped(f"{self._name} has changed while it was read; all rows before are kept") from error
        except (Trouble, Denied) as error:
            if not self._has_read:
                raise ExportError(f"export.path: can't read {self._name}: {error}") from error
            tried = f", and for {self._give_up_s:g} s no better" if isinstance(error, Trouble) else ""
            where = f"{self._name} at byte {self._at:,}"
            raise Stopped(f"reading the export failed, {where}: {error}{tried}; all rows before are kept") from error
        self._has_read = True
        return piece

    def _from(self, at: int, most: int) -> Iterator[Bytes]:
        size = self._seen.size
        if not self._seen.has_ranges:
            return self._streamed(at)
        assert size is not None, "who takes ranges tells the size"
        if most < 0 or (self._through and most >= _WINDOW_BYTES):  # less is a look at what stands there
            return self._ranges(at, size)
        return self._ranges(at, min(size, at + max(most, _WINDOW_BYTES)))

    def _ranges(self, start: int, stop: int) -> Iterator[Bytes]:
        """The bytes between, a piece at a time, with some asked for ahead."""
        asked: deque[Future[Bytes]] = deque()
        while asked or start < stop:
            while start < stop and len(asked) < _AT_ONCE:
                end = min(start + PIECE_BYTES, stop)
                asked.append(_started(partial(self._tries.until, partial(self._object.fetch, start, end, self._seen))))
                start = end
            yield _wait(asked.popleft())

    def _streamed(self, start: int) -> Iterator[bytes]:
        """The bytes from `start` on of what only comes from its beginning: after a drop, all before come once more."""
        handed_on, at = start, 0
        answer: Iterator[bytes] | None = None

        def following() -> bytes:
            nonlocal at, answer
            if answer is None:
                at, answer = 0, self._object.stream(self._seen)
            try:
                for part in answer:
                    at += len(part)
                    if at > handed_on:
                        return part[len(part) - (at - handed_on) :]
            except Trouble:
                answer = None
                raise
            return b""

        while part := _patiently(partial(self._tries.until, following)):
            handed_on += len(part)
            yield part
        self._end = handed_on  # to look there again would be to get all of it again


class _Tries:
    """Calls that are made again after trouble, for so long; `given_up`: nobody waits for them any more."""

    def __init__(self, give_up_s: float) -> None:
        self._give_up_s = give_up_s
        self.given_up = Event()

    def until(self, call: Callable[[], _Result]) -> _Result:
        """What the call returns in the end. Raises Denied and Changed at once, Trouble when there is no more time."""
        since = 0.0
        longest = _FIRST_PAUSE_S
        while True:
            try:
                return call()
            except Trouble:
                now = time.monotonic()
                since = since or now
                pause = random.uniform(longest / 2, longest)
                if now + pause - since > self._give_up_s or self.given_up.wait(pause):
                    raise
                longest = min(2 * longest, _LONGEST_PAUSE_S)


def _started(call: Callable[[], _Result]) -> "Future[_Result]":
    """The call, on a thread that no end of the process waits for."""
    future: Future[_Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  # whoever waits for it gets it
            future.set_exception(error)

    Thread(target=work, name="loader-remote", daemon=True).start()
    return future


def _wait(future: "Future[_Result]") -> _Result:
    """Its result; whoever waits looks up now and then whether that is still wanted."""
    while not concurrent.futures.wait([future], _LOOK_UP_S).done:
        with contextlib.suppress(RuntimeError):  # not a worker of anyio's, but the main thread: a signal ends it
            from_thread.check_cancelled()
    return future.result()


def _patiently(call: Callable[[], _Result]) -> _Result:
    return _wait(_started(call))


def objects(url: str, access: Access) -> list[Remote]:
    """The objects that a pattern means, in byte order. Raises ExportError."""
    from loader.export.stores import listed

    tries = _Tries(min(access.give_up_s, _OPENING_S))
    try:
        found = _patiently(partial(tries.until, lambda: listed(url, access)))
    except (Trouble, Denied) as error:
        raise ExportError(f"export.path: can't list {url}: {error}") from error
    if not found:
        raise ExportError(f"export.path: no object matches {url}")
    return [Remote(each, access) for each in sorted(found, key=str.encode)]
