"""The state file: for each user a digest of what the target last acknowledged, in order of the keys' digests.

An entry is five numbers of 64 bits: the digest of the key, the digest of the values that were to be sent last, and a
word of marks; where keys are kept, a sixth says where this one stands in the file beside it. The digest counts only
while the mark ACKED is set: a new file takes it from all who are to be sent before the first of them is, and it comes
back by itself, in its place, when a success is known. So each entry is right at any moment, whatever becomes of the
others. Behind the entries stands what the file is about, as JSON.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from loader.checkpoint import sync_folder
from loader.errors import CheckpointError
from loader.refresh import digest
from loader.refresh.spill import PARTITIONS, Table, read_into, read_table, write_all

VERSION = 1

_HEAD = b"loader state\n".ljust(63) + b"\n"
_END = b"state-end-1\n".rjust(24)
_TAIL_BYTES = len(_END) + 8

#: The columns of an entry.
KEY, KEY_2, VALUES, VALUES_2, MARKS, PLACE = range(6)

#: Marks. ACKED: the target has the values of the digest. TAKEN: it acknowledged this user at some time. MISSING: not in
#: the last export. CLEARED: not there, and its attributes are removed.
ACKED, TAKEN, MISSING, CLEARED = (np.uint64(1 << bit) for bit in range(4))
_16 = np.uint64(0xFFFF)
_ROWS_AT, _NAMES_AT, _HELD_AT = np.uint64(16), np.uint64(32), np.uint64(48)

#: A user of so many rows, or more, is sent each time: more can't be counted here.
MOST_ROWS = 0xFFFF


#: One word of marks, or an array of them.
_Marks = TypeVar("_Marks", np.uint64, NDArray[np.uint64])


def rows_of(marks: _Marks) -> _Marks:
    """How many rows of the export the user had."""
    return (marks >> _ROWS_AT) & _16


def names_of(marks: _Marks) -> _Marks:
    """Which set of attributes these rows had together."""
    return (marks >> _NAMES_AT) & _16


def held_of(marks: _Marks) -> _Marks:
    """Which set of attributes the target may have of the user."""
    return marks >> _HELD_AT


def held_at(marks: NDArray[np.uint64], held: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The marks, with another set for what the target may have."""
    return (marks & ~(_16 << _HELD_AT)) | (held << _HELD_AT)


def marks_of(flags: _Marks, rows: _Marks, names: _Marks, held: _Marks) -> _Marks:
    """The word of marks."""
    most = np.minimum(rows, np.uint64(MOST_ROWS))
    found: _Marks = flags | (most << _ROWS_AT) | (names << _NAMES_AT) | (held << _HELD_AT)
    return found


#: Which facts of a load name the target that its state is of.
_TARGET = ("target.api", "target.base_url")


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a state file is about.

    `night`: the load that its marks are about, an id of its own. `identity`: of that load, as a checkpoint keeps it.
    `sets`: the sets of attributes, by number, each as places in `names`. `keys`: the name of the file with the keys.
    """

    version: int
    digests: int
    night: str
    begun_at: float
    full_at: float
    identity: dict[str, Any]
    secret: bytes
    entries: int
    bounds: list[int]
    names: list[str]
    sets: list[list[int]]
    keys: str | None = None

    @property
    def columns(self) -> int:
        """Numbers of an entry."""
        return 5 if self.keys is None else 6

    def is_of(self, identity: Mapping[str, Any]) -> bool:
        """Is it of the target that a load with this identity has?"""
        return all(self.identity.get(name) == identity.get(name) for name in _TARGET)


class _Version(msgspec.Struct):
    version: int


class State:
    """An open state file."""

    def __init__(self, path: Path, file: BinaryIO, about: About) -> None:
        self.path = path
        self.about = about
        self._file = file

    @classmethod
    def open(cls, path: Path) -> "State | None":
        """Open to read and to mark; None: there is none. Raises CheckpointError."""
        try:
            file = path.open("r+b", buffering=0)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"can't use the state {path}: {error.strerror}; refresh.state names it") from error
        try:
            return cls(path, file, _about(path, file))
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> "State":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def partition(self, number: int) -> Table:
        """The entries of one partition, in order. Raises CheckpointError."""
        first, last = self.about.bounds[number : number + 2]
        with told(self.path):
            return read_table(self._file.fileno(), first, last - first, self.about.columns, len(_HEAD))

    def mark(self, number: int, entries: Table) -> None:
        """Set the marks of a partition's entries anew, in their places. Raises CheckpointError.

        Nothing but the marks may differ from what is there: a word is written whole, or not at all.
        """
        with told(self.path):
            self._file.seek(len(_HEAD) + self.about.bounds[number] * self.about.columns * 8)
            write_all(self._file, entries)

    def sync(self) -> None:
        """Make marks durable. Raises CheckpointError."""
        with told(self.path):
            os.fsync(self._file.fileno())

    @property
    def key_path(self) -> Path | None:
        """The file with the users' keys, if they are kept."""
        return None if self.about.keys is None else self.path.with_name(self.about.keys)


def _about(path: Path, file: BinaryIO) -> About:
    size = os.fstat(file.fileno()).st_size
    way_out = "move it away, and the next run loads all users"
    try:
        with told(path):
            tail = bytearray(_TAIL_BYTES)
            head = bytearray(len(_HEAD))
            if size < len(head) + len(tail):
                raise ValueError("it is too short")
            read_into(file.fileno(), memoryview(head), 0)
            read_into(file.fileno(), memoryview(tail), size - len(tail))
            length = int.from_bytes(tail[:8], "little")
            if head != _HEAD or tail[8:] != _END or length > size:
                raise ValueError("it doesn't begin and end as one")
            text = bytearray(length)
            read_into(file.fileno(), memoryview(text), size - len(tail) - length)
        version = msgspec.json.decode(text, type=_Version).version
        if version != VERSION:
            raise CheckpointError(f"{path} is of version {version}, and this loader reads version {VERSION}; {way_out}")
        about = msgspec.json.decode(text, type=About)
        if len(_HEAD) + about.entries * about.columns * 8 + length + len(tail) != size:
            raise ValueError("its length is not that of its entries")
    except ValueError as error:  # msgspec's are, too
        raise CheckpointError(f"{path} is no state of a refresh, or damaged ({error}); {way_out}") from error
    return about


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Around what uses a state, or files beside it: its disk's errors are CheckpointErrors."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"can't use the state {path}: {error.strerror or error}; see to its disk, or set refresh.state"
        ) from error


# One path, several targets -------------------------------------------------------------------------------------------


def aside_of(path: Path, identity: Mapping[str, Any]) -> Path:
    """Where the state of a load's target is kept while that of another target stands at `path`."""
    api, address = (str(identity.get(name)) for name in _TARGET)
    host = re.sub(r"[^A-Za-z0-9.]+", "-", urlsplit(address).netloc)[:60]
    code = hashlib.sha256(f"{api} {address}".encode()).hexdigest()[:8]
    return path.with_name(f"{path.name}.of-{api}-{host}-{code}")


def take_place(path: Path, identity: Mapping[str, Any]) -> list[str]:
    """Have the state at `path`, if there is any, be that of the load's own target: another's is kept aside.

    Returns what was done, for people. Raises CheckpointError.
    """
    other = None
    found = State.open(path)
    if found is not None:
        with found:
            if found.about.is_of(identity):
                return []
            other = found.about.identity
    own, said = aside_of(path, identity), []
    with told(path):
        if other is not None:
            aside = aside_of(path, other)
            path.replace(aside)
            api, address = (other.get(name) for name in _TARGET)
            said.append(f"{path.name} was of another target, {api} at {address}, and is kept as {aside.name}")
        if own.exists():
            own.replace(path)
            said.append(f"{own.name} is this target's, and is {path.name} again")
        if said:
            sync_folder(path.absolute().parent)
    return said


def kept_keys(path: Path) -> set[Path]:
    """The files with users' keys that belong to the state at `path`, or to one that is kept aside for it."""
    found: set[Path] = set()
    for each in (path, *path.parent.glob(f"{path.name.replace('[', '[[]')}.of-*")):
        with suppress(CheckpointError):  # who needs it is told
            state = State.open(each)
            if state is not None:
                with state:
                    found |= {state.key_path} if state.key_path is not None else set()
    return found


class Draft:
    """A state file to be: entries a partition at a time, and in the place of the old one all at once, or never."""

    def __init__(self, path: Path, columns: int) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._columns = columns
        self.is_in_place = False
        with told(path):
            handle = os.open(self._part, os.O_CREAT | os.O_WRONLY, 0o600)
            self._file = open(handle, "wb", buffering=0)  # noqa: SIM115  # close() ends it
        self.begin()

    def begin(self) -> None:
        """From the first partition on. Raises CheckpointError."""
        self._bounds = [0]
        with told(self._path):
            self._file.seek(0)
            self._file.truncate()
            write_all(self._file, _HEAD)

    def add(self, entries: Table) -> None:
        """The entries of the next partition, in order. Raises CheckpointError."""
        with told(self._path):
            write_all(self._file, entries)
        self._bounds.append(self._bounds[-1] + len(entries))

    def finish(self, names: Sequence[str], sets: Sequence[Sequence[int]], facts: Mapping[str, Any]) -> None:
        """Write what it is about, and make it durable. Raises CheckpointError."""
        assert len(self._bounds) == PARTITIONS + 1, "all partitions are there"
        about = About(
            version=VERSION,
            digests=digest.VERSION,
            entries=self._bounds[-1],
            bounds=self._bounds,
            names=list(names),
            sets=[list(each) for each in sets],
            **facts,
        )
        assert about.columns == self._columns
        text = msgspec.json.encode(about)
        with told(self._path):
            write_all(self._file, text + len(text).to_bytes(8, "little") + _END)
            os.fsync(self._file.fileno())
            self._file.close()

    def replace(self) -> None:
        """Put it in the old one's place, durably. Raises CheckpointError."""
        with told(self._path):
            os.replace(self._part, self._path)
            self.is_in_place = True
            sync_folder(self._path.parent)

    def close(self) -> None:
        """Leave nothing behind, if it hasn't taken the old one's place."""
        self._file.close()
        self._part.unlink(missing_ok=True)
