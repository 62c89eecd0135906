"""Records: valid rows as ready JSON, and the frame that puts them into a request body.

A record is bytes, `{"<user field>":"<key>","<attributes field>":{…}}`, built once per row by columns.py or
jsonlines.py.
A body is the frame's head, the records with commas between, and its tail: nothing is encoded twice, and the size of a
body is known before it exists.
"""

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple, overload

import msgspec
import orjson

from loader.outcome import Settled

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def json_string(text: str) -> bytes:
    """`text` as a JSON string. A lone surrogate (from JSON input) has no UTF-8 form and raises UnicodeEncodeError."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError as error:
        raise UnicodeEncodeError("utf-8", text, 0, 1, "a surrogate stands alone") from error


@dataclass(frozen=True)
class Names:
    """Which attributes may be sent: `expected` ones alone (None: any), and none that would stand for another.

    `reserved`: fields that are the frame's own. `fold_case`: the target takes names equal but for case for one.
    """

    expected: frozenset[str] | None = None
    reserved: frozenset[str] = frozenset()
    fold_case: bool = False

    def __bool__(self) -> bool:
        """Is there anything to look for?"""
        return self.expected is not None or bool(self.reserved) or self.fold_case

    def complaint(self, names: Iterable[str]) -> str | None:
        """What is wrong with the first of `names` that may not be sent, None if they all may."""
        seen: dict[str, str] = {}
        for name in names:
            if name in self.reserved:
                return f"the attribute {name!r} has the name of a field that the target gives the record itself"
            if self.expected is not None and name not in self.expected:
                near = get_close_matches(name, self.expected, 1, 0.6)
                guess = f"; did you mean {near[0]!r}?" if near else ""
                return f"the attribute {name!r} is not one of those that target.expect lists{guess}"
            if self.fold_case and (other := seen.setdefault(name.casefold(), name)) != name:
                return f"the attributes {other!r} and {name!r} differ in case alone, which the target may take for one"
        return None


@dataclass(frozen=True)
class Frame:
    """The names with which a target wraps users: `{wrapper: [{user: key, attributes: {…}}, …]}`.

    `attributes` None: they stand beside the key, `{user: key, …}`. `wrapper` None: a record is a body of its own.
    `overhead`: by how many bytes a target that writes records in a form of its own makes each longer, as an estimate.
    """

    wrapper: str | None = "users"
    user: str = "user"
    attributes: str | None = "attributes"
    overhead: int = 0

    @cached_property
    def head(self) -> bytes:
        return b"" if self.wrapper is None else b"{" + json_string(self.wrapper) + b":["

    @cached_property
    def tail(self) -> bytes:
        return b"" if self.wrapper is None else b"]}"

    @cached_property
    def before_user(self) -> bytes:
        return b"{" + json_string(self.user) + b":"

    @cached_property
    def before_attributes(self) -> bytes:
        """What stands between the key and the first attribute."""
        return b"," if self.attributes is None else b"," + json_string(self.attributes) + b":{"

    @cached_property
    def after_record(self) -> bytes:
        """What stands behind the bracket that closes the attributes."""
        return b"" if self.attributes is None else b"}"

    def record(self, user: str, attributes: bytes) -> bytes:
        """One record from its key and its attributes, a JSON object that has some."""
        return self.before_user + json_string(user) + self.before_attributes + attributes[1:] + self.after_record

    def attributes_of(self, record: bytes) -> dict[str, bytes]:
        """A record's attributes: name to value as JSON, byte for byte."""
        fields = _fields.decode(record)
        values = _fields.decode(fields[self.attributes]) if self.attributes is not None else fields
        if self.attributes is None:
            del values[self.user]
        return {name: bytes(value) for name, value in values.items()}

    def merge(self, user: str, earlier: bytes, later: bytes) -> bytes:
        """Two records of `user` as one: each attribute has the value of the last record that sends it."""
        values = self.attributes_of(earlier) | self.attributes_of(later)
        pairs = (json_string(name) + b":" + value for name, value in values.items())
        return self.record(user, b"{" + b",".join(pairs) + b"}")

    def body(self, records: Sequence[bytes]) -> bytes:
        inside = records.inside if isinstance(records, Records) else b",".join(records)
        return b"".join((self.head, inside, self.tail))

    def body_bytes(self, n_records: int, record_bytes: int) -> int:
        """The length of `body(records)` for records of `record_bytes` bytes in all; exact without `overhead`."""
        size = record_bytes + n_records * self.overhead
        return len(self.head) + size + max(n_records - 1, 0) + len(self.tail)


class Mark(NamedTuple):
    """A place in the export from which reading can go on.

    `row`: the number of the first row behind it; `file`: which of the export's files it stands in, from 0; `offset`:
    decompressed bytes of that file before it (Parquet and Arrow: rows); `line`: the physical line it stands on;
    `digest`: the hash of all that was read before, chained block by block ("": not known); `after`: the key of the last
    row before it, where reading goes on behind a key, as its source writes it.
    """

    row: int = 1
    offset: int = 0
    line: int = 1
    digest: str = ""
    file: int = 0
    after: str = ""


class Records(Sequence[bytes]):
    """Records in one piece of memory, a comma behind each: any run of them is the inside of a body as it lies there.

    `starts`: where each begins, and where one behind the last would. A slice is a view, and costs nothing.
    """

    __slots__ = ("_data", "_first", "_last", "_starts")

    def __init__(self, data: memoryview, starts: Sequence[int], first: int = 0, last: int | None = None) -> None:
        self._data = data
        self._starts = starts
        self._first = first
        self._last = len(starts) - 1 if last is None else last

    @classmethod
    def of(cls, records: Sequence[bytes]) -> "Records":
        """Records that were made one by one."""
        starts = array("q", accumulate((len(record) + 1 for record in records), initial=0))
        return cls(memoryview(b",".join(records) + b","), starts)

    @classmethod
    def chained(cls, parts: Sequence["Records"]) -> "Records":
        """Those of all parts, in one piece."""
        starts = array("q", [0])
        for part in parts:
            shift = starts[-1] - part._starts[part._first]
            starts.extend([start + shift for start in part._starts[part._first + 1 : part._last + 1]])
        pieces = [part._data[part._starts[part._first] : part._starts[part._last]] for part in parts]
        return cls(memoryview(b"".join(pieces)), starts)

    @property
    def inside(self) -> memoryview:
        """All of them, with commas between."""
        return self._data[self._starts[self._first] : max(self._starts[self._last] - 1, 0)]

    def n_bytes(self, count: int) -> int:
        """What the first `count` take, without the commas."""
        return self._starts[self._first + count] - self._starts[self._first] - count

    def without(self, positions: Collection[int]) -> "Records":
        """The others, in one piece again."""
        starts, first = self._starts, self._first
        pieces: list[memoryview] = []
        begin = 0
        for at in [*sorted(positions), len(self)]:
            pieces.append(self._data[starts[first + begin] : starts[first + at]])
            begin = at + 1
        gone = set(positions)
        sizes = (b - a for at, (a, b) in enumerate(pairwise(starts[first : self._last + 1])) if at not in gone)
        return Records(memoryview(b"".join(pieces)), array("q", accumulate(sizes, initial=0)))

    def replaced(self, others: Mapping[int, bytes]) -> "Records":
        """The same with other records at some positions."""
        starts, first = self._starts, self._first
        pieces: list[bytes | memoryview] = []
        begin = 0
        for at, record in sorted(others.items()):
            pieces += [self._data[starts[first + begin] : starts[first + at]], record, b","]
            begin = at + 1
        pieces.append(self._data[starts[first + begin] : starts[self._last]])
        sizes = [b - a for a, b in pairwise(starts[first : self._last + 1])]
        for at, record in others.items():
            sizes[at] = len(record) + 1
        return Records(memoryview(b"".join(pieces)), array("q", accumulate(sizes, initial=0)))

    def __len__(self) -> int:
        return self._last - self._first

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> "Records": ...
    def __getitem__(self, at: int | slice) -> "bytes | Records":
        if isinstance(at, slice):
            first, last, step = at.indices(len(self))
            if step != 1:
                return Records.of(list(self)[at])
            return Records(self._data, self._starts, self._first + first, self._first + max(first, last))
        place = range(self._first, self._last)[at]
        return bytes(self._data[self._starts[place] : self._starts[place + 1] - 1])

    def __iter__(self) -> Iterator[bytes]:
        data = self._data
        return (bytes(data[a : b - 1]) for a, b in pairwise(self._starts[self._first : self._last + 1]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # compared by value, and never a key

    def __repr__(self) -> str:
        return f"Records.of({list(self)!r})"


@dataclass(slots=True)
class Rows:
    """One mapped block: records to send and rows that are settled already, in order of row.

    `numbers`, `users` and `records` go together, the numbers a range where no row is missing; `settled` are the rows
    never sent (REJECTED, SKIPPED). `end` is the mark behind the block (None: reading can't begin there), `position` how
    many bytes of the export, as it is stored, are read.
    """

    numbers: Sequence[int]
    users: list[str]
    records: Sequence[bytes]
    settled: list[Settled] = field(default_factory=list)
    end: Mark | None = None
    position: int = 0

    @property
    def last(self) -> int:
        """The number of its last row; 0 if it has none to settle."""
        return max(self.numbers[-1] if self.numbers else 0, self.settled[-1].row if self.settled else 0)
