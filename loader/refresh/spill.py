"""What is known of an export's rows, put aside on the disk: it is too much for memory.

`Spill` takes rows as they come and gives them back a partition at a time, by their digests' first bits; `KeyFile` keeps
the users' keys in order of row.
"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: Rows of numbers: shape (rows, columns), the first column a digest's first half.
Table = NDArray[np.uint64]

#: By the first byte: 100 million rows are 400,000 a partition.
PARTITIONS = 256
_SHIFT = np.uint64(56)

#: Numbers (of 8 bytes) that are held before they are put in order and written.
_HELD = 1_250_000

#: Bytes of a file that are copied at a time.
_COPIED = 1 << 20


def bounds(first: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where the partitions of an ordered column begin, and its end."""
    return np.searchsorted((first >> _SHIFT).astype(np.int64), np.arange(PARTITIONS + 1))


def nameless(folder: Path) -> BinaryIO:
    """A file without a name, that is gone when it is closed. Raises OSError."""
    found: BinaryIO = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # its owner closes it
    return found


def private(path: Path) -> BinaryIO:
    """A new file that is kept, for its owner alone. Raises OSError."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
    return open(handle, "w+b", buffering=0)


#: A part of a spilled table: the row of the file at which it begins, and where its partitions begin behind that.
Run = tuple[int, NDArray[np.int64]]


class Spill:
    """A table that may be larger than memory, in a file of its own.

    `runs`: what is in the file. It may come from another process, which wrote it.
    """

    def __init__(self, file: BinaryIO, columns: int) -> None:
        self.file = file
        self.columns = columns
        # Used again and again: memory that is new to the process costs more than all that is done with it.
        self._held, self._ordered = (np.empty((_HELD // columns, columns), np.uint64) for _ in range(2))
        self._rows_held = 0
        self.runs: list[Run] = []
        self._rows = 0

    def __enter__(self) -> "Spill":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, rows: Table) -> None:
        """Take more rows. Within a partition they keep their order. Raises OSError."""
        while len(rows):
            part, rows = np.split(rows, [len(self._held) - self._rows_held])
            self._held[self._rows_held : self._rows_held + len(part)] = part
            self._rows_held += len(part)
            if self._rows_held == len(self._held):
                self._write()

    def finish(self) -> None:
        """All rows are there, and partitions may be read. Raises OSError."""
        if self._rows_held:
            self._write()
        self._held = self._ordered = self._held[:0].copy()  # their memory is needed no more

    def _write(self) -> None:
        rows, ordered = self._held[: self._rows_held], self._ordered[: self._rows_held]
        order = np.argsort((rows[:, 0] >> _SHIFT).astype(np.uint8), kind="stable")
        rows.take(order, axis=0, out=ordered, mode="clip")  # another mode makes a copy first
        self.runs.append((self._rows, bounds(ordered[:, 0])))
        self._rows += len(ordered)
        self._rows_held = 0
        write_all(self.file, ordered)

    def size(self, number: int) -> int:
        """How many rows a partition has."""
        return sum(int(ends[number + 1] - ends[number]) for _, ends in self.runs)

    def partition(self, number: int) -> Table:
        """The rows of one partition, in the order in which they came. Raises OSError."""
        found = np.empty((self.size(number), self.columns), np.uint64)
        self.read(number, found)
        return found

    def read(self, number: int, found: Table) -> None:
        """The same into an array of this size. Raises OSError."""
        if not len(found):
            return
        room, width = found.data.cast("B"), self.columns * 8
        for first, ends in self.runs:
            begin, end = (int(each) for each in ends[number : number + 2])
            read_into(self.file.fileno(), room[: (end - begin) * width], (first + begin) * width)
            room = room[(end - begin) * width :]

    def close(self) -> None:
        """Give the room on the disk back."""
        self.file.close()


def write_all(file: BinaryIO, rows: Table | bytes) -> None:
    """Write all of it to a file without a buffer: a write may take less, as on a disk that fills up."""
    if not len(rows):
        return
    view = memoryview(np.ascontiguousarray(rows).data if isinstance(rows, np.ndarray) else rows).cast("B")
    while view:
        view = view[file.write(view) :]


def read_table(handle: int, first: int, count: int, columns: int, offset: int = 0) -> Table:
    """So many rows of a table in a file. Raises OSError if it is shorter."""
    found = np.empty((count, columns), np.uint64)
    if count:
        read_into(handle, found.data.cast("B"), offset + first * columns * 8)
    return found


def read_into(handle: int, room: memoryview, offset: int) -> None:
    """Fill `room` from a place in a file on. Raises OSError if it ends before."""
    while room:
        count = os.preadv(handle, [room], offset)
        if not count:
            raise OSError(0, "it ends too early")
        room, offset = room[count:], offset + count


class KeyBlock(NamedTuple):
    """The keys of some rows, in order, with the rows' numbers."""

    numbers: NDArray[np.int64]
    users: pa.StringArray


class Stored(NamedTuple):
    """Where a block of keys is: its first row, its keys' and its index's offsets in their files, how many they are.

    `is_whole`: the rows stand side by side, and their numbers need not be kept.
    """

    row: int
    keys_at: int
    index_at: int
    rows: int
    is_whole: bool


#: Where a key stands: its offset, and in the lowest bits its length. 0: nobody knows.
_LENGTH_BITS = np.uint64(20)
_LONGEST = (1 << 20) - 1


class KeyFile:
    """Keys, one behind the other as they are. `index`: another file, with what is known of them."""

    def __init__(self, keys: BinaryIO, index: BinaryIO) -> None:
        self.files = (keys, index)
        self._keys, self._index = self.files
        self._size = self._index_size = 0
        self.stored: list[Stored] = []

    def add(self, numbers: NDArray[np.int64], users: pa.StringArray) -> NDArray[np.uint64]:
        """Take the keys of more rows; where each of them stands. Raises OSError."""
        if not len(users):
            return np.empty(0, np.uint64)
        _, offsets, data = users.buffers()
        ends = np.frombuffer(offsets, np.int32)[users.offset : users.offset + len(users) + 1]
        if data is not None:
            write_all(self._keys, bytes(memoryview(data)[int(ends[0]) : int(ends[-1])]))
        ends = ends - ends[0]
        starts, lengths = ends[:-1].astype(np.int64) + self._size, np.diff(ends)
        is_whole = int(numbers[-1] - numbers[0]) == len(numbers) - 1
        index = ends.tobytes() + (b"" if is_whole else np.ascontiguousarray(numbers, np.int64).tobytes())
        write_all(self._index, index)
        self.stored.append(Stored(int(numbers[0]), self._size, self._index_size, len(users), is_whole))
        self._size += int(ends[-1])
        self._index_size += len(index)
        places = (starts.astype(np.uint64) << _LENGTH_BITS) | lengths.astype(np.uint64)
        # Nothing stands at place 0 with length 0, so that this is free to mean "not known".
        return np.where(lengths > _LONGEST, np.uint64(0), places)

    def take(self, other: "KeyFile", stored: Iterable[Stored]) -> np.uint64:
        """Take what is stored in the other's files; what to add to a place there for the place here. Raises OSError."""
        for mine, theirs in zip(self.files, other.files, strict=True):
            theirs.seek(0)
            while part := theirs.read(_COPIED):
                write_all(mine, part)
        self.stored += (
            each._replace(keys_at=each.keys_at + self._size, index_at=each.index_at + self._index_size)
            for each in stored
        )
        moved = np.uint64(self._size) << _LENGTH_BITS
        self._size, self._index_size = (file.tell() for file in self.files)
        return moved

    def key(self, place: int) -> str:
        """The key at a place. Raises OSError."""
        return key_at(self._keys.fileno(), place)

    def append(self, key: bytes) -> int:
        """One more key, of no row; where it stands. Raises OSError."""
        write_all(self._keys, key)
        place = (self._size << int(_LENGTH_BITS)) | len(key)
        self._size += len(key)
        return place

    def block(self, stored: Stored) -> KeyBlock:
        """Keys that are stored. Raises OSError."""
        row, first, at, count, is_whole = stored
        index = bytearray(4 * (count + 1) + (0 if is_whole else 8 * count))
        read_into(self._index.fileno(), memoryview(index), at)
        ends = np.frombuffer(index, np.int32, count + 1)
        keys = bytearray(int(ends[-1]))
        read_into(self._keys.fileno(), memoryview(keys), first)
        users = pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(keys))
        numbers = np.arange(row, row + count) if is_whole else np.frombuffer(index, np.int64, count, 4 * (count + 1))
        return KeyBlock(numbers, users)

    def sync(self) -> None:
        """Make it durable. Raises OSError."""
        os.fsync(self._keys.fileno())

    def close(self) -> None:
        """Give the room on the disk back, but for a file that has a name."""
        for file in self.files:
            file.close()


def key_at(handle: int, place: int) -> str:
    """The key at a place of a key file. Raises OSError, and ValueError if none can stand there."""
    room = bytearray(place & _LONGEST)
    read_into(handle, memoryview(room), place >> int(_LENGTH_BITS))
    return room.decode()
