"""JSON objects, one a row, into records: values pass through byte for byte.

A block of them is mapped at once, by what stands where in its text (structure.py); lines that are already what would be
sent go out as they lie. Only rows in which something is unusual are looked at one by one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loader.errors import ExportError
from loader.mapping import (
    ADDED,
    MAX_DEPTH,
    NESTED_ATTRIBUTES,
    NESTED_USER,
    SHALLOW,
    SKIPPED,
    TYPE_NAMES,
    Column,
    Mapped,
    Problem,
    RowMapping,
    Type,
    Values,
    check_columns,
    check_names,
    is_deep,
    misfit,
    short,
    too_large,
)
from loader.mapping.columns import Joiner
from loader.mapping.structure import NONE, Members, Places, Text, alike, members
from loader.outcome import Code
from loader.record import Records, json_string

_LF, _OPEN, _CLOSE, _QUOTE, _SPACE = b'\n{}" '


class Block(Sequence[bytes]):
    """Lines in one text. Between two of them stands white space alone; line ends, if they have any, are their own."""

    __slots__ = ("ends", "starts", "text")

    def __init__(self, text: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self.text = text
        self.starts = starts
        self.ends = ends

    @classmethod
    def of(cls, lines: Sequence[bytes]) -> "Block":
        """Lines put together, with a line end more between them."""
        sizes = np.fromiter(map(len, lines), np.int64, len(lines))
        ends = (sizes + 1).cumsum() - 1
        return cls(b"\n".join(lines), ends - sizes, ends)

    @property
    def stops(self) -> NDArray[np.int64]:
        """Where each line's content ends, before white space; no line is empty."""
        buf = np.frombuffer(self.text, np.uint8)
        stops: NDArray[np.int64] = self.ends - (buf[self.ends - 1] == _LF)
        left = np.flatnonzero((buf[stops - 1] <= _SPACE) & (stops > self.starts))
        while len(left):
            stops[left] -= 1
            left = left[(buf[stops[left] - 1] <= _SPACE) & (stops[left] > self.starts[left])]
        return stops

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return list(self)[at]
        return self.text[self.starts[at] : self.ends[at]]

    def __iter__(self) -> Iterator[bytes]:
        return (self.text[start:end] for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True))


class _Nested(msgspec.Struct):
    user: Any = msgspec.field(name=NESTED_USER, default=msgspec.UNSET)
    attributes: msgspec.Raw | msgspec.UnsetType = msgspec.field(name=NESTED_ATTRIBUTES, default=msgspec.UNSET)


class _Plain(msgspec.Struct, gc=False):
    """A record with the key as text; what else is wrong with it shows later."""

    user: str = msgspec.field(name=NESTED_USER)
    attributes: msgspec.Raw = msgspec.field(name=NESTED_ATTRIBUTES)


_Fields = dict[str, msgspec.Raw]
_decode_fields: Callable[[bytes], _Fields] = msgspec.json.Decoder(_Fields).decode
_decode_nested: Callable[[bytes], _Nested] = msgspec.json.Decoder(_Nested).decode
_decode_any: Callable[[msgspec.Raw], object] = msgspec.json.Decoder().decode

#: How the JSON of a type begins.
_BEGINS: Mapping[Type, tuple[bytes, ...]] = {
    "string": (b'"',),
    "number": tuple(b"-0123456789"[at : at + 1] for at in range(11)),
    "boolean": (b"true", b"false"),
    "json": (b"",),
}

#: By type, its first bytes and that of null: of a value that is JSON, they tell it.
_FIRST: Mapping[Type, NDArray[np.bool_]] = {
    kind: np.isin(np.arange(256), list(b"n" + b"".join(begin[:1] for begin in begins)))
    for kind, begins in _BEGINS.items()
    if kind != "json"
}

_MAX_TEXT = 1 << 30  # bytes; an array of Arrow's texts ends at twice as many


class Read(NamedTuple):
    """A block's rows: their keys, and what stands where in `text`. `odd`: those that have to be looked at alone.

    `sent`: the attributes, and the number of the name that each has in the rows.
    """

    text: Text
    users: list[str]
    members: Members
    sent: list[tuple[str, int]]
    odd: set[int]

    def values(self, more: Sequence[bytes] = ()) -> pa.BinaryArray:
        """The value of each member, at twice its number, and behind them all what is in `more`."""
        members, many = self.members, 2 * len(self.members.begins)
        bounds = np.empty(many + 1 + len(more), np.int32)
        bounds[0:many:2] = members.begins
        bounds[1:many:2] = members.ends
        bounds[many:] = np.cumsum([len(self.text.text), *map(len, more)])
        data = self.text.followed_by(b"".join(more))
        return pa.BinaryArray.from_buffers(
            pa.binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(data)]
        )


class BlockMapper:
    """Maps a block of lines at once, with what LineMapper makes of each; None where it can't vouch for that.

    Rows that it sees something unusual with it only names.
    """

    def __init__(self, mapping: RowMapping) -> None:
        self._mapping = mapping
        self._frame = mapping.frame
        self._joiner = Joiner(mapping)
        self._key = (mapping.user or NESTED_USER).encode()
        self._inside = NESTED_ATTRIBUTES.encode() if mapping.user is None else None
        self._wanted: list[bytes] | None = None
        if mapping.attributes is not None:
            columns = (*mapping.attributes.values(), *([mapping.user] if mapping.user is not None else []))
            self._wanted = [column.encode() for column in dict.fromkeys(columns)]
        self._is_tellable = all(json_string(n.decode())[1:-1] == n for n in (self._key, *(self._wanted or ())))
        self._last: list[bytes] = []  # names that rows were found to have
        self._is_plain = not (mapping.user is not None or mapping.attributes is not None or mapping.types)
        self._is_plain &= not mapping.names
        self._is_like_sent = (mapping.frame.user, mapping.frame.attributes) == (NESTED_USER, NESTED_ATTRIBUTES)
        key = msgspec.field(name=self._key.decode())
        self._users = msgspec.json.Decoder(msgspec.defstruct("Key", [("user", str, key)], gc=False))
        self._plain = msgspec.json.Decoder(_Plain)
        self._blank = msgspec.json.encode(
            {NESTED_USER: "", NESTED_ATTRIBUTES: {}} if mapping.user is None else {mapping.user: ""}
        )

    def map(self, block: Block) -> tuple[list[str], Records, set[int]] | None:
        """The keys, the records, and the positions of those that may be wrong."""
        try:
            if self._is_plain:
                found = self._rows(block, self._plain)
                if found is None:
                    return None
                rows, block = found
                users = [row.user for row in rows]
                odd = _blanks(users)
                return users, self._spliced(block, rows, users, odd) or self._put(rows, users, odd), odd
            read = self.read(block)
            return None if read is None else (read.users, self._composed(read), read.odd)
        except (ValueError, msgspec.MsgspecError):  # a key that is not text, or a surrogate that stands alone
            return None

    def read(self, block: Block) -> Read | None:
        """What stands where in the lines. Raises ValueError and MsgspecError."""
        found = self._rows(block, self._users) if self._is_tellable else None
        if found is None:
            return None
        rows, block = found
        text = Text(block.text)
        members = self._members(text, block)
        if members is None:
            return None
        users = [row.user for row in rows]
        read = Read(text, users, members, self._sent(members), _blanks(users) | set(members.odd.tolist()))
        if self._wanted is None:
            unknown = np.flatnonzero(members.ids == NONE)
            read.odd.update(members.again().tolist(), members.rows(unknown).tolist())
        for name, number in read.sent:
            kind = self._mapping.types.get(name, "json")
            may_not = self._wanted is None and self._mapping.names.complaint([name]) is not None
            if kind != "json" or may_not:
                values = members.of(number)
                has_one = np.flatnonzero(values >= 0)
                first = text.bytes[members.begins[values[has_one]]]
                read.odd.update((has_one if may_not else has_one[~_FIRST[kind][first]]).tolist())
        return read

    def _rows(self, block: Block, decoder: "msgspec.json.Decoder[Any]") -> tuple[list[Any], Block] | None:
        """The lines decoded, and the lines; one that is not valid is one with a blank key.

        Each begins with a brace and ends with one, and between two of them stand line ends alone. Inside a JSON value
        no closing brace is followed by an opening one, nor do its strings hold line ends: so no value goes on from one
        line into the next, and if there are as many values as lines, each line is one.
        """
        if not 0 < len(block.text) <= _MAX_TEXT or (block.ends <= block.starts).any():
            return None
        starts, stops = block.starts, block.stops
        buf = np.frombuffer(block.text, np.uint8)
        is_certain = (
            bool((buf[starts] == _OPEN).all() and (buf[stops - 1] == _CLOSE).all())
            and bool((stops[:-1] < starts[1:]).all())
            and _is_text(block.text)
            and not any(is_deep(block[at]) for at in _crowded(block))
        )
        try:
            rows = decoder.decode_lines(block.text) if is_certain else []
        except (ValueError, msgspec.MsgspecError):
            rows = []
        if len(rows) == len(block):
            return rows, block
        read = [self._row(line, decoder) for line in block]
        return [row for row, _ in read], Block.of([line for _, line in read])

    def _row(self, line: bytes, decoder: "msgspec.json.Decoder[Any]") -> tuple[Any, bytes]:
        try:
            _check_line(line)
            return decoder.decode(line), line.strip()
        except _NOT_A_ROW:
            return decoder.decode(self._blank), self._blank

    def _spliced(self, block: Block, rows: list[Any], users: list[str], odd: set[int]) -> Records | None:
        """The lines themselves with commas between, if each is what would be made of it; those that are odd may be not.

        A line holds both names, the key, the attributes, and what joins them, so it is never shorter than its record
        (without a backslash, no key takes more bytes there than here). If all together are as long as all records, each
        is as long as its own: nothing else stands in it, and only the order of the two fields is left to be seen.
        """
        if not self._is_like_sent or b"\\" in block.text:
            return None
        starts, stops, frame = block.starts, block.stops, self._frame
        around = len(frame.before_user + b'""' + frame.before_attributes[:-1] + frame.after_record)
        sizes = stops - starts
        keys = "".join(users)
        buf = np.frombuffer(block.text, np.uint8)
        if (
            int(sizes.sum()) != len(rows) * around + len(keys.encode()) + sum([len(row.attributes) for row in rows])
            or (buf[starts + 2] != frame.before_user[2]).any()  # the first letter of a name
            or (stops[:-1] + 1 != starts[1:]).any()
        ):
            return None
        last = buf[stops - 3]  # of the attributes, before the bracket
        is_odd = (buf[stops - 2] != _CLOSE) | (last == _OPEN) | (last <= _SPACE)
        odd.update(np.flatnonzero(is_odd | (sizes > self._mapping.max_record_bytes)).tolist())
        data = bytearray(block.text)
        if stops[-1] == len(data):
            data += b","
        np.frombuffer(data, np.uint8)[stops] = ord(",")
        return Records(memoryview(data), np.append(starts, stops[-1] + 1).data)

    def _put(self, rows: list[Any], users: list[str], odd: set[int]) -> Records:
        """Records from the attributes as they stand."""
        values, sizes = _values([row.attributes for row in rows])
        buf, at = np.frombuffer(values.buffers()[2], np.uint8), sizes.cumsum() - sizes
        is_odd = (buf[at] != _OPEN) | (buf[np.minimum(at + 1, len(buf) - 1)] != _QUOTE)  # no object, or none with text
        odd.update(np.flatnonzero(is_odd).tolist())
        problems: dict[int, Problem] = {}
        before = self._frame.before_attributes.decode()
        if self._frame.attributes is None:  # they stand beside the key, without their bracket
            pieces = (before, pc.binary_slice(values.cast(pa.binary()), 1, _MAX_TEXT).cast(pa.string()))
        else:
            pieces = (before[:-1], values)
        records = self._joiner.put(pa.array(users, pa.string()), pieces, problems)
        odd.update(problems)
        return records

    def _members(self, text: Text, block: Block) -> Members | None:
        """Those of each line. Most often all have the same names as the line before."""
        if b"\\" not in block.text:
            for names in (self._last, self._names(block[0])):
                found = alike(text, block.starts, block.stops, names, self._key, self._inside)
                if found is not None:
                    self._last = names
                    return found
        return members(text, block.starts, block.stops, self._key, self._inside, self._wanted)

    def _names(self, line: bytes) -> list[bytes]:
        """The names in a line; nested, as far as it is like those that are sent."""
        fields = _decode_fields(line)
        names = list(fields)
        if self._inside is not None:
            if names != [NESTED_USER, NESTED_ATTRIBUTES] or not bytes(fields[NESTED_ATTRIBUTES]).startswith(b"{"):
                return []
            names += _decode_fields(fields[NESTED_ATTRIBUTES])
        return [name.encode() for name in names]

    def _sent(self, members: Members) -> list[tuple[str, int]]:
        """The attributes that are sent and the numbers of their names. Raises ValueError if one may not be."""
        numbers = {name.decode(): number for number, name in enumerate(members.names)}
        if self._mapping.attributes is not None:
            return [(name, numbers[column]) for name, column in self._mapping.attributes.items() if column in numbers]
        not_sent = (self._mapping.user, *ADDED) if self._mapping.user is not None else ()
        sent = [(name, at) for name, at in numbers.items() if name not in not_sent and "\\" not in name]
        names = self._mapping.names
        if names and names.complaint([name for name, _ in sent if not names.complaint([name])]):
            raise ValueError("names that may not stand side by side")
        return sent

    def _composed(self, read: Read) -> Records:
        """Records from keys and attributes, which are gathered in one go from the text and what is put between them."""
        members, rows = read.members, len(read.users)
        sent = [(json_string(name) + b":", number) for name, number in read.sent]
        if self._wanted is None:
            if members.is_tight:
                members = members.joined({number for _, number in sent})
                sent = [(b"", 0)]
            column = np.full(len(members.names) + 2, NONE)  # the last two are those of NONE and KEY
            column[[number for _, number in sent]] = np.arange(len(sent))
            columns = column[members.ids]
            chosen = np.flatnonzero(columns >= 0)
            columns = columns[chosen]
            firsts = np.searchsorted(chosen, members.firsts)
        else:
            found = np.stack([members.of(number) for _, number in sent], axis=1) if sent else np.empty((rows, 0), int)
            has_one = found >= 0
            chosen = found[has_one]
            columns = np.tile(np.arange(len(sent)), rows)[has_one.ravel()]
            firsts = np.append(0, np.count_nonzero(has_one, axis=1).cumsum())
        frame = self._frame
        before = [head for head, _ in sent]
        more = (frame.before_user, frame.before_attributes, b"}" + frame.after_record + b",", *before)
        pieces = self._pieces(2 * len(members.begins), members.keys, chosen, columns, firsts, len(sent))
        joined = (
            read._replace(members=members).values((*more, *(b"," + head for head in before))).take(pa.array(pieces))
        )
        _, bounds, data = joined.buffers()
        ends = np.frombuffer(bounds, np.int32)
        starts = ends[np.append(4 * np.arange(rows) + 2 * firsts[:-1], len(pieces))]
        too_long = np.diff(starts) - 1 > self._mapping.max_record_bytes
        read.odd.update(np.flatnonzero(too_long | (np.diff(firsts) == 0)).tolist())
        return Records(memoryview(data), starts.data)

    @staticmethod
    def _pieces(
        more: int, keys: Places, chosen: Places, columns: Places, firsts: Places, n_columns: int
    ) -> NDArray[np.int32]:
        """Of what a block's records consist, in order, as numbers of Read.values, with what is put between from `more`.

        In each: what stands before the key, the key, what stands before the attributes, all that are `chosen`, with the
        names of their columns, and what stands behind.
        """
        rows = np.arange(len(keys))
        pieces = np.empty(4 * len(keys) + 2 * len(chosen), np.int32)
        begin = 4 * rows + 2 * firsts[:-1]
        pieces[begin], pieces[begin + 1], pieces[begin + 2] = more, 2 * keys, more + 1
        pieces[4 * rows + 2 * firsts[1:] + 3] = more + 2
        at = 2 * np.arange(len(chosen)) + 4 * np.repeat(rows, np.diff(firsts)) + 3
        has_comma = np.ones(len(chosen), np.int32)
        has_comma[firsts[:-1][np.diff(firsts) > 0]] = 0
        pieces[at], pieces[at + 1] = more + 3 + columns + n_columns * has_comma, 2 * chosen
        return pieces


def _blanks(users: list[str]) -> set[int]:
    return set() if all(map(str.strip, users)) else {at for at, key in enumerate(users) if not key.strip()}


def _crowded(block: Block) -> list[int]:
    """Lines that may be nested too deep: they have brackets enough."""
    large = np.flatnonzero(block.ends - block.starts > SHALLOW)
    if not len(large):
        return []
    brackets = np.flatnonzero((np.frombuffer(block.text, np.uint8) | 0x20) == _OPEN)  # of either kind
    many = np.searchsorted(brackets, block.ends[large]) - np.searchsorted(brackets, block.starts[large])
    return large[many > MAX_DEPTH].tolist()  # type: ignore[no-any-return]


def _values(raws: list[msgspec.Raw]) -> tuple[pa.StringArray, NDArray[np.int32]]:
    """JSON values as an array, null where there is none, and their sizes."""
    sizes = np.fromiter(map(len, raws), np.int32, len(raws))
    ends = np.concatenate([np.zeros(1, np.int32), sizes.cumsum(dtype=np.int32)])
    valid = None if sizes.all() else pa.py_buffer(np.packbits(sizes > 0, bitorder="little"))
    values = pa.StringArray.from_buffers(len(raws), pa.py_buffer(ends), pa.py_buffer(b"".join(raws)), valid)
    return values, sizes


def _is_text(text: bytes) -> bool:
    """Is this UTF-8? Arrow sees it in a quarter of the time that decoding takes."""
    if not text.isascii():
        ends = pa.py_buffer(np.array([0, len(text)], np.int32))
        try:
            pa.StringArray.from_buffers(1, ends, pa.py_buffer(text)).validate(full=True)
        except pa.ArrowInvalid:
            return False
    return True


def _columns(read: Read, is_wanted: NDArray[np.bool_] | None = None) -> dict[str, Column]:
    """The attributes of all rows, or some."""
    values = read.values()
    columns: dict[str, Column] = {}
    for name, number in read.sent:
        found = read.members.of(number)
        has_one = found >= 0 if is_wanted is None else (found >= 0) & is_wanted
        if has_one.any():
            rows = None if has_one.all() else np.flatnonzero(has_one)
            columns[name] = Column(rows, values.take(pa.array(2 * found[has_one])))
    return columns


def _together(some: dict[str, Column], others: Mapping[str, Column]) -> dict[str, Column]:
    """The columns of some rows and those of others, of which none has all rows."""
    columns = dict(some)
    for name, column in others.items():
        if name in columns:
            first = columns[name]
            assert first.rows is not None
            assert column.rows is not None
            column = Column(np.concatenate([first.rows, column.rows]), pa.concat_arrays([first.values, column.values]))
        columns[name] = column
    return columns


class LineMapper:
    """Maps records that are one JSON object each. Values pass through byte for byte.

    `mapping.types` are checked here, never applied: a value that isn't null must have the type named.
    """

    def __init__(self, mapping: RowMapping) -> None:
        self._mapping = mapping
        self._picks = None
        if mapping.attributes is not None:
            check_names(mapping, mapping.attributes)
            self._picks = [(json_string(name) + b":", name, column) for name, column in mapping.attributes.items()]
        self._block = BlockMapper(mapping)
        self._is_plain = self._picks is None and not mapping.types and not mapping.names

    def check(self, lines: Iterable[bytes]) -> None:
        """Raise ExportError if a column that the mapping names is in none of these records (the first ones)."""
        names: dict[str, None] = {}
        for line in lines:
            try:
                _check_line(line)
                fields = _decode_nested(line).attributes if self._mapping.user is None else line
                names.update(dict.fromkeys(_decode_fields(bytes(fields) if fields else b"{}")))
            except _NOT_A_ROW:
                continue  # map() says what is wrong with it
        if self._mapping.user == NESTED_USER and NESTED_ATTRIBUTES in names and self._mapping.attributes is None:
            raise ExportError(
                f'the records are nested, {{"{NESTED_USER}": …, "{NESTED_ATTRIBUTES}": {{…}}}}; leave mapping.user out'
            )
        if names:
            check_columns(self._mapping, list(names))

    def map(self, lines: Sequence[bytes]) -> Mapped:
        """One block of lines, none of them blank."""
        block = lines if isinstance(lines, Block) else Block.of(lines)
        found = self._block.map(block)
        if found is None:
            return self.map_each(block)
        users, records, odd = found
        problems: dict[int, Problem] = {}
        others: dict[int, bytes] = {}
        for at in sorted(odd):
            users[at], record, problem = self._line(block[at])
            if problem is None:
                others[at] = record
            else:
                problems[at] = problem
        return Mapped(users, records.replaced(others) if others else records, problems)

    def map_each(self, lines: Iterable[bytes]) -> Mapped:
        """The same, line by line."""
        users: list[str] = []
        records: list[bytes] = []
        problems: dict[int, Problem] = {}
        for at, line in enumerate(lines):
            user, record, problem = self._line(line)
            if problem is not None:
                problems[at] = problem
            users.append(user)
            records.append(record)
        return Mapped(users, Records.of(records), problems)

    def _line(self, line: bytes) -> tuple[str, bytes, Problem | None]:
        user, record = "", b""
        try:
            if len(line) > SHALLOW or not line.isascii():
                _check_line(line)
            user, attributes = self._nested(line) if self._mapping.user is None else self._flat(line)
            record = self._mapping.frame.record(user, attributes)
            if attributes == b"{}":
                return user, record, Problem(Code.SKIPPED, SKIPPED, user)
            if len(record) > self._mapping.max_record_bytes:
                reason = too_large(len(record), self._mapping.max_record_bytes)
                return user, record, Problem(Code.REJECTED, reason, user)
        except _NOT_A_ROW as error:
            user = error.user if isinstance(error, _Invalid) else self._guess_user(line)
            return user, record, Problem(Code.REJECTED, _reason(error, self._mapping.encoding), user)
        return user, record, None

    def values(self, lines: Sequence[bytes]) -> Values:
        """The same lines, not put together."""
        block = lines if isinstance(lines, Block) else Block.of(lines)
        try:
            read = self._block.read(block)
        except (ValueError, msgspec.MsgspecError):  # a key that is not text, or a surrogate that stands alone
            read = None
        if read is None:
            return self.values_each(enumerate(block), len(block))
        if not read.odd:
            return Values(pa.array(read.users, pa.string()), _columns(read), np.empty(0, np.int64))
        others = self.values_each(((at, block[at]) for at in sorted(read.odd)), len(block))
        is_odd = np.zeros(len(block), np.bool_)
        is_odd[list(read.odd)] = True
        keys = pc.if_else(pa.array(is_odd), others.keys, pa.array(read.users, pa.string()))
        return Values(keys, _together(_columns(read, ~is_odd), others.columns), others.invalid)

    def values_each(self, lines: Iterable[tuple[int, bytes]], many: int) -> Values:
        """The same, line by line: some of so `many`, each with its position."""
        users = [""] * many
        invalid: list[int] = []
        found: dict[str, tuple[list[int], list[bytes]]] = {}
        for at, line in lines:
            try:
                if len(line) > SHALLOW or not line.isascii():
                    _check_line(line)
                user, attributes = self._nested(line) if self._mapping.user is None else self._flat(line)
                json_string(user)
                for name, raw in _decode_fields(attributes).items():
                    rows, values = found.setdefault(name, ([], []))
                    rows.append(at)
                    values.append(bytes(raw))
            except _NOT_A_ROW as error:
                user = error.user if isinstance(error, _Invalid) else self._guess_user(line)
                invalid.append(at)
            users[at] = user.encode("utf-8", "replace").decode()
        columns = {
            name: Column(np.array(rows, np.int64), pa.array(values, pa.binary()))
            for name, (rows, values) in found.items()
        }
        return Values(pa.array(users, pa.string()), columns, np.array(invalid, np.int64))

    def _nested(self, line: bytes) -> tuple[str, bytes]:
        row = _decode_nested(line)
        user = self._key(row.user, NESTED_USER)
        if isinstance(row.attributes, msgspec.UnsetType) or bytes(row.attributes)[:1] != b"{":
            raise _Invalid(f"{NESTED_ATTRIBUTES!r} must be an object", user)
        attributes = bytes(row.attributes)
        if self._is_plain:
            return user, b"{}" if attributes[1:-1].isspace() else attributes
        return user, self._pick(_decode_fields(attributes), user)

    def _flat(self, line: bytes) -> tuple[str, bytes]:
        fields = _decode_fields(line)
        column = self._mapping.user
        assert column is not None
        raw = fields.get(column)
        user = self._key(msgspec.UNSET if raw is None else _decode_any(raw), column)
        if self._picks is None:
            for name in (column, *ADDED):
                fields.pop(name, None)
        return user, self._pick(fields, user)

    def _guess_user(self, line: bytes) -> str:
        """The key of a record that is not valid, if it can be told all the same: bad bytes become U+FFFD."""
        text = line.decode("utf-8", "replace").encode()
        name = self._mapping.user
        try:
            key = _decode_nested(text).user if name is None else _decode_any(_decode_fields(text)[name])
        except (*_NOT_A_ROW, KeyError):
            return ""
        return key if isinstance(key, str) else ""

    def _key(self, key: object, column: str) -> str:
        if key is msgspec.UNSET or key is None:
            raise _Invalid(f"{self._mapping.key} is empty ({column!r} is {'null' if key is None else 'missing'})")
        if not isinstance(key, str):
            raise _Invalid(
                f"{self._mapping.key} must be text ({column!r} is {short(msgspec.json.encode(key).decode())})"
            )
        if not key.strip():
            raise _Invalid(f"{self._mapping.key} is empty ({column!r})", key)
        return key

    def _pick(self, fields: _Fields, user: str) -> bytes:
        types = self._mapping.types
        if self._picks is None:
            if complaint := self._mapping.names.complaint(fields):
                raise _Invalid(complaint, user)
            found = [(json_string(name) + b":", name, bytes(raw)) for name, raw in fields.items()]
        else:
            found = [(prefix, name, bytes(fields[column])) for prefix, name, column in self._picks if column in fields]
        if types:
            for _, name, value in found:
                kind = types.get(name)
                if kind is not None and value != b"null" and not value.startswith(_BEGINS[kind]):
                    raise _Invalid(f"{name!r}: {short(value.decode())} is not {TYPE_NAMES[kind]}", user)
        return b"{" + b",".join([prefix + value for prefix, _, value in found]) + b"}"


class _Invalid(Exception):
    """This row is not valid; `user` is its key as far as it was read."""

    def __init__(self, reason: str, user: str = "") -> None:
        super().__init__(reason)
        self.user = user


#: What a line that is no valid row ends in. A surrogate that stands alone is a UnicodeError, and so a ValueError.
_NOT_A_ROW = (_Invalid, ValueError, msgspec.MsgspecError)


def _check_line(line: bytes) -> None:
    """What msgspec doesn't: the text inside raw values, and how deep they are nested."""
    if not line.isascii():
        line.decode()
    if is_deep(line):
        raise _Invalid(f"nested more than {MAX_DEPTH} levels deep")


def _reason(error: Exception, encoding: str) -> str:
    if isinstance(error, UnicodeDecodeError):
        return misfit(error, encoding)
    if isinstance(error, msgspec.MsgspecError):
        if isinstance(error, msgspec.ValidationError):
            return "a number is out of range" if "out of range" in str(error) else "not a JSON object"
        return f"not JSON: {str(error).removeprefix('JSON is malformed: ')}"
    return str(error)
