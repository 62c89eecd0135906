"""Rows as read into records: which column is the key, which are attributes, and what their values become as JSON.

Columns (CSV, TSV) are mapped a block at a time by Arrow's compiled functions. So are lines (NDJSON), with values kept
as the bytes they came in, where it is certain that the result is what they give one by one. Either way a row that isn't
valid becomes an outcome, and the rest go on.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import accumulate
from operator import attrgetter, itemgetter
from typing import Any, Literal, NamedTuple, overload

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loader.errors import ExportError
from loader.outcome import Code, Outcome
from loader.record import Frame, Names, Records, json_string
from loader.texts import Texts

Type = Literal["string", "number", "boolean", "json"]
Empty = Literal["omit", "null", "keep"]

#: The user's key and the attributes in NDJSON/JSON records, where `mapping.user` isn't set.
NESTED_USER, NESTED_ATTRIBUTES = "userName", "attributes"

#: What `loader results --rows` adds to each row: never an attribute, unless it is named as one.
ADDED = ("loader_code", "loader_message")

_NUMBER = r"\A-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\z"
_LF, _CR, _OPEN, _CLOSE, _QUOTE = b'\n\r{}"'
_SPACE = 0x20  # what is below it, a JSON string must escape
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)

#: Values may be nested so deep. Parsers give up at about a thousand (ours at what is left of Python's stack), and a
#: record that can be mapped must be one that can be merged.
MAX_DEPTH = 200
_SHALLOW = 2 * MAX_DEPTH  # bytes: every level has a bracket at both ends


class Problem(NamedTuple):
    """Why a row is never sent: REJECTED or SKIPPED, the reason, and the key as far as it could be read."""

    code: Code
    reason: str
    user: str = ""

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.code, self.reason)


class Mapped(NamedTuple):
    """A block's rows in order: a key and a record each, or where a row has a problem, that (by position)."""

    users: list[str]
    records: Records
    problems: dict[int, Problem]


class Column(NamedTuple):
    """The values of one attribute. `rows`: positions of the rows that have one; None: all, null where it isn't sent."""

    rows: NDArray[np.int64] | None
    values: pa.Array | Texts


class Values(NamedTuple):
    """A block's rows as keys and values that are not put together yet: what is compared with the night before.

    Two rows with equal values give equal records. `invalid`: by position, rows that are never sent as they stand.
    """

    keys: pa.StringArray
    columns: Mapping[str, Column]
    invalid: NDArray[np.int64]


NO_VALUES = Values(pa.array([], pa.string()), {}, np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class RowMapping:
    """How rows become records. `attributes` None: every column but the user's, under its own name.

    `fields`: those of a record where the target has fixed them, the key's first; `[mapping.columns]` maps them then.
    """

    frame: Frame
    max_record_bytes: int
    user: str | None = None
    attributes: Mapping[str, str] | None = None
    types: Mapping[str, Type] = field(default_factory=dict)
    empty: Empty = "omit"
    names: Names = field(default_factory=Names)
    fields: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What messages call the key."""
        return self.fields[0] if self.fields else "the user's key"

    @property
    def settings(self) -> dict[str, str | None]:
        """The columns that are named, each by the setting that names it, the key's first."""
        user, table = ("mapping.user", "mapping.attributes")
        if self.fields:
            user, table = (f"mapping.columns.{self.fields[0]}", "mapping.columns")
        return {user: self.user, **{f"{table}.{name}": column for name, column in (self.attributes or {}).items()}}

    def as_json(self) -> dict[str, Any]:
        """What decides how a row is read, as JSON values. Not what only decides whether it may be sent."""
        frame = [self.frame.wrapper, self.frame.user, self.frame.attributes]
        named = dict(self.attributes) if self.attributes is not None else None
        return {"frame": frame, "user": self.user, "attributes": named, "types": dict(self.types), "empty": self.empty}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "RowMapping":
        """A mapping that reads rows as the one that was kept did; none of them is too large for it."""
        frame, user, attributes, types, empty = (
            kept[name] for name in ("frame", "user", "attributes", "types", "empty")
        )
        return cls(Frame(*frame), 1 << 60, user, attributes, types, empty)


SKIPPED = "no attribute has a value"


def _too_large(size: int, limit: int) -> str:
    return f"too large: the record takes {size:,} bytes, limits.bytes_per_request leaves {limit:,}"


# Columns -------------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """One attribute of a block's rows: what stands before each value, the values (null: not sent), what stands behind.

    Together they are JSON, `"name":value`.
    """

    before: str
    values: pa.StringArray
    after: str


class Joiner:
    """Puts keys and attributes together as records, a block at a time, and each byte is copied once."""

    def __init__(self, mapping: RowMapping) -> None:
        self._limit = mapping.max_record_bytes
        self._frame = mapping.frame

    def join(self, keys: pa.StringArray, parts: Sequence[Part], problems: dict[int, Problem]) -> Mapped:
        """Records from keys and attributes. `problems` gets those that show here, and ends up in what is returned."""
        return Mapped(keys.to_pylist(), self.records(keys, parts, problems), problems)

    def records(self, keys: pa.StringArray, parts: Sequence[Part], problems: dict[int, Problem]) -> Records:
        """The records alone."""
        nothing = _all_null(parts, len(keys))
        for at in where(nothing) if nothing.true_count else ():
            problems.setdefault(at, Problem(Code.SKIPPED, SKIPPED))
        return self.put(keys, (self._frame.before_attributes.decode(), *_members(parts), "}"), problems)

    def put(
        self, keys: pa.StringArray, inside: Iterable[str | pa.StringArray], problems: dict[int, Problem]
    ) -> Records:
        """Records from keys and what stands behind each, from the comma on, as pieces."""
        frame = self._frame
        key = (frame.before_user.decode() + '"', escaped(keys), '"')
        pieces = _dense((*key, *inside, frame.after_record.decode() + ","))
        joined = pc.binary_join_element_wise(*pieces, "", null_handling="replace", null_replacement="")
        _, starts, data = joined.buffers()
        assert joined.offset == 0, "what was just made begins at its beginning"
        records = Records(memoryview(data) if data else memoryview(b""), memoryview(starts).cast("i")[: len(keys) + 1])
        sizes = pc.binary_length(joined)
        if len(sizes) and pc.max(sizes).as_py() - 1 > self._limit:
            for at in where(pc.greater(sizes, self._limit + 1)):
                problems.setdefault(at, Problem(Code.REJECTED, _too_large(sizes[at].as_py() - 1, self._limit)))
        return records


def _members(parts: Sequence[Part]) -> list[str | pa.StringArray]:
    """The attributes with commas between them, as pieces to be joined.

    Where some values are not sent, their commas must go, too: those of the attributes before one that is always sent
    stand behind theirs, those behind it before. Where there is none, the attributes are joined first.
    """
    always = next((at for at, part in enumerate(parts) if not part.values.null_count), None)
    if always is None:
        pairs = [pc.binary_join_element_wise(*part, "") for part in parts]
        if not pairs:
            return []
        # Arrow 26 leaves a row out of the joined array when skipping leaves it nothing to join.
        pairs[0] = pc.if_else(_all_null(parts, len(pairs[0])), "", pairs[0])
        return [pc.binary_join_element_wise(*pairs, ",", null_handling="skip")]
    pieces: list[str | pa.StringArray] = []
    for at, (name, values, end) in enumerate(parts):
        before, after = "," * (at > always) + name, end + "," * (at < always)
        pieces += (
            [pc.binary_join_element_wise(before, values, after, "")] if values.null_count else [before, values, after]
        )
    return pieces


def _dense(pieces: Iterable[str | pa.StringArray]) -> Iterator[str | pa.StringArray]:
    """The same with texts that stand side by side made one."""
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
        else:
            yield text
            yield piece
            text = ""
    yield text


class ColumnMapper:
    """Maps blocks of one export with named columns, all of text. Raises ExportError if the names don't fit."""

    def __init__(self, mapping: RowMapping, columns: Sequence[str]) -> None:
        if mapping.user is None:
            raise ExportError(
                f"mapping.user is missing: name the column that holds the user's key, one of {_list(columns)}"
            )
        self._mapping = mapping
        self._user = mapping.user
        if mapping.attributes is None:
            self._attributes = {name: name for name in others(columns, mapping.user)}
        else:
            self._attributes = dict(mapping.attributes)
        check_columns(mapping, columns)
        check_names(mapping, self._attributes)
        self._joiner = Joiner(mapping)

    @property
    def columns(self) -> list[str]:
        """The columns that are read, the user's first."""
        return list(dict.fromkeys([self._user, *self._attributes.values()]))

    def map(self, block: pa.Table | pa.RecordBatch) -> Mapped:
        """One block; its columns are text, or binary where one is not UTF-8: which that is, is seen here."""
        problems: dict[int, Problem] = {}
        texts = self._texts(block, problems)
        keys = texts[self._user]
        parts = [self._part(name, column, texts[column], problems) for name, column in self._attributes.items()]
        mapped = self._joiner.join(keys, parts, problems)
        if problems:
            raw = block.column(self._user)
            for at, problem in problems.items():
                key = raw[at].as_py()
                problems[at] = problem._replace(user=key if isinstance(key, str) else key.decode("utf-8", "replace"))
        return mapped

    def values(self, block: pa.Table | pa.RecordBatch) -> Values:
        """The same block, not put together. An empty cell stands for what `mapping.empty` makes of it."""
        problems: dict[int, Problem] = {}
        texts = self._texts(block, problems)
        columns = {}
        for name, column in self._attributes.items():
            text = texts[column]
            empty = _empties(text)
            value = self._checked(name, column, text, empty, problems)
            if self._mapping.empty == "omit" and empty is not None:
                value = pc.if_else(empty, pa.scalar(None, pa.string()), value)
            columns[name] = Column(None, value)
        return Values(texts[self._user], columns, np.array(sorted(problems), np.int64))

    @property
    def is_text(self) -> bool:
        """Is each cell sent as it stands? Then values_in() will do."""
        return all(self._mapping.types.get(name, "string") == "string" for name in self._attributes)

    def values_in(self, cells: Mapping[str, Texts]) -> Values:
        """The same of the columns that are read, as they stand in the export, which is UTF-8."""
        problems: dict[int, Problem] = {}
        keys = cells[self._user].array()
        reject_blank(problems, keys, "")
        columns = {}
        for name, column in self._attributes.items():
            texts = cells[column]
            if self._mapping.empty == "omit" and not texts.lengths.all():
                texts = replace(texts, is_sent=texts.lengths > 0)
            columns[name] = Column(None, texts)
        return Values(keys, columns, np.array(sorted(problems), np.int64))

    def _texts(self, block: pa.Table | pa.RecordBatch, problems: dict[int, Problem]) -> dict[str, pa.StringArray]:
        """The columns that are read, as text."""
        texts = {name: text_of(block.column(name), name, problems) for name in self.columns}
        reject_blank(problems, texts[self._user], f"{self._mapping.key} is empty (column {self._user!r})")
        return texts

    def _checked(
        self, name: str, column: str, text: pa.StringArray, empty: pa.BooleanArray | None, problems: dict[int, Problem]
    ) -> pa.StringArray:
        """The cells of a column that is not text, as JSON; text stays as it is."""
        kind = self._mapping.types.get(name, "string")
        if kind == "string":
            return text
        value = pc.utf8_lower(text) if kind == "boolean" else text
        bad = _invalid(kind, value)
        if empty is not None and self._mapping.empty != "keep":
            bad = pc.and_not(bad, empty)
        for at in where(bad) if bad.true_count else ():
            cell = text[at].as_py()
            problems.setdefault(at, Problem(Code.REJECTED, f"column {column!r}: {_short(cell)} is not {_A[kind]}"))
        return value

    def _part(self, name: str, column: str, text: pa.StringArray, problems: dict[int, Problem]) -> Part:
        """The attribute `name`; its values are null where it is not sent."""
        empty = _empties(text)
        quote, value = "", self._checked(name, column, text, empty, problems)
        if self._mapping.types.get(name, "string") == "string":
            quote, value = '"', escaped(value)
        if empty is not None and self._mapping.empty == "omit":
            value = pc.if_else(empty, pa.scalar(None, pa.string()), value)
        elif empty is not None and self._mapping.empty == "null":
            quote, value = "", pc.if_else(empty, "null", pc.binary_join_element_wise(quote, value, quote, ""))
        return Part(json_string(name).decode() + ":" + quote, value, quote)


_A: Mapping[Type, str] = {"string": "text", "number": "a JSON number", "boolean": "true or false", "json": "JSON"}


def others(columns: Iterable[str], user: str | None) -> list[str]:
    """The columns that are attributes where `mapping.attributes` does not name them."""
    return [name for name in columns if name != user and name not in ADDED]


def check_columns(mapping: RowMapping, columns: Sequence[str]) -> None:
    """Raise ExportError if a column that the mapping names isn't there."""
    for setting, column in mapping.settings.items():
        if column is not None and column not in columns:
            raise ExportError(
                f"{setting}: the export has no column {column!r}{_nearest(column, columns)}{_cut_wrong(columns)}"
            )
    sent = others(columns, mapping.user) if mapping.attributes is None else mapping.attributes
    for name in mapping.types:
        if name not in sent:
            raise ExportError(f"mapping.types: {name!r} is not an attribute that is sent{_nearest(name, sent)}")


def check_names(mapping: RowMapping, sent: Iterable[str]) -> None:
    """Raise ExportError if one of the attributes that are sent must not be."""
    if complaint := mapping.names.complaint(sent):
        raise ExportError(f"{complaint}; mapping.attributes names columns anew, or picks those to send")


def _nearest(name: str, names: Sequence[str] | Mapping[str, str]) -> str:
    near = get_close_matches(name, list(names), 1, 0.6) or [
        n for n in names if n.strip().lower() == name.strip().lower()
    ]
    return f"; did you mean {near[0]!r}?" if near else f"; it has {_list(names)}"


def _cut_wrong(columns: Sequence[str]) -> str:
    """A header that is one column and holds another delimiter was cut at the wrong one."""
    found = next((mark for mark in ";\t|," if len(columns) == 1 and mark in columns[0]), None)
    return f". Is export.delimiter = {json_string(found).decode()}?" if found else ""


def _list(names: Sequence[str] | Mapping[str, str]) -> str:
    shown = [repr(name) for name in list(names)[:20]]
    return ", ".join(shown) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")


def where(mask: pa.BooleanArray) -> list[int]:
    return pc.indices_nonzero(mask).to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types


def reject(problems: dict[int, Problem], mask: pa.BooleanArray, reason: str) -> None:
    for at in where(mask):
        problems.setdefault(at, Problem(Code.REJECTED, reason))


def _all_null(parts: Sequence[Part], length: int) -> pa.BooleanArray:
    """Where no part has a value."""
    if any(not part.values.null_count for part in parts):
        return pa.repeat(pa.scalar(False), length)
    mask = pa.repeat(pa.scalar(True), length)
    for part in parts:
        mask = pc.and_(mask, pc.is_null(part.values))
    return mask


def reject_blank(problems: dict[int, Problem], keys: pa.StringArray, reason: str) -> None:
    """Keys that are empty, or nothing but white space, are none."""
    text = _bytes_of(keys)
    if _empties(keys) is not None or not text.isascii() or _lowest(text) <= _SPACE:
        blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(keys)), 0)
        if blank.true_count:
            reject(problems, blank, reason)


def text_of(column: pa.Array | pa.ChunkedArray, name: str, problems: dict[int, Problem]) -> pa.StringArray:
    """A column as text; rows that are not UTF-8 become a problem and an empty text."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_string(array.type):
        return array
    try:
        return array.cast(pa.string())
    except pa.ArrowInvalid:
        cells = array.to_pylist()
    for at, cell in enumerate(cells):
        try:
            cells[at] = cell.decode()
        except UnicodeDecodeError as error:
            cells[at] = ""
            reason = f"column {name!r} is not UTF-8: byte 0x{cell[error.start]:02x} at {error.start + 1}"
            problems.setdefault(at, Problem(Code.REJECTED, reason))
    return pa.array(cells, pa.string())


def json_strings(text: pa.StringArray) -> pa.StringArray:
    """Each value as a JSON string."""
    return pc.binary_join_element_wise('"', escaped(text), '"', "")


def escaped(text: pa.StringArray) -> pa.StringArray:
    """Each value as it stands between the quotes of a JSON string. Most columns hold nothing that needs an escape."""
    used = _bytes_of(text)
    if used and (b'"' in used or b"\\" in used or _lowest(used) < _SPACE):
        return pa.array([json_string(value)[1:-1].decode() for value in text.to_pylist()], pa.string())
    return text


def _empties(text: pa.StringArray) -> pa.BooleanArray | None:
    """Which values are empty; None: none is."""
    has_some = len(text) > 0 and np.diff(_offsets(text)).min() == 0
    return pc.equal(pc.binary_length(text), 0) if has_some else None


def _offsets(text: pa.StringArray) -> "np.ndarray[Any, np.dtype[np.int32]]":
    return np.frombuffer(text.buffers()[1], np.int32, len(text) + 1, 4 * text.offset)


def _bytes_of(text: pa.StringArray) -> bytes:
    """All values in one; none is null."""
    data = text.buffers()[2]
    if data is None or len(text) == 0:
        return b""
    ends = _offsets(text)
    return bytes(memoryview(data)[ends[0] : ends[-1]])


def _lowest(text: bytes) -> int:
    return int(np.frombuffer(text, np.uint8).min()) if text else _SPACE + 1


def _invalid(kind: Type, text: pa.StringArray) -> pa.BooleanArray:
    if kind == "number":
        return pc.invert(pc.match_substring_regex(text, _NUMBER))
    if kind == "boolean":
        return pc.invert(pc.is_in(text, value_set=pa.array(["true", "false"])))
    return pa.array([not _is_json(value) for value in text.to_pylist()], pa.bool_())


def _is_json(text: str) -> bool:
    if _is_deep(text.encode()):
        return False
    try:
        _decode_value(text)
    except (ValueError, msgspec.MsgspecError):
        return False
    return True


def _is_deep(text: bytes) -> bool:
    """Is this JSON nested deeper than MAX_DEPTH? Counting tells it for all but the odd record."""
    if len(text) <= _SHALLOW or text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    steps = (1 if byte in b"[{" else -1 for byte in _STRINGS.sub(b"", text) if byte in b"[]{}")
    return max(accumulate(steps), default=0) > MAX_DEPTH


# Lines ---------------------------------------------------------------------------------------------------------------


class Block(Sequence[bytes]):
    """Lines in one text. Between two of them stands nothing; their line ends, if they have any, are their own."""

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
        """Where each line's content ends; no line is empty."""
        buf = np.frombuffer(self.text, np.uint8)
        stops: NDArray[np.int64] = self.ends - (buf[self.ends - 1] == _LF)
        if b"\r" in self.text:
            stops -= buf[stops - 1] == _CR
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


_decode_value: Callable[[str], msgspec.Raw] = msgspec.json.Decoder(msgspec.Raw).decode
_Fields = dict[str, msgspec.Raw]
_decode_fields: Callable[[bytes], _Fields] = msgspec.json.Decoder(_Fields).decode
_decode_nested: Callable[[bytes], _Nested] = msgspec.json.Decoder(_Nested).decode
_decode_texts: Callable[[bytes], list[str]] = msgspec.json.Decoder(list[str]).decode
_decode_any: Callable[[msgspec.Raw], object] = msgspec.json.Decoder().decode

#: How the JSON of a type begins.
_BEGINS: Mapping[Type, tuple[bytes, ...]] = {
    "string": (b'"',),
    "number": tuple(b"-0123456789"[at : at + 1] for at in range(11)),
    "boolean": (b"true", b"false"),
    "json": (b"",),
}

#: By type, its first bytes and that of null: of a value that is JSON, they tell it.
_FIRST = {
    kind: np.isin(np.arange(256), list(b"n" + b"".join(begin[:1] for begin in begins)))
    for kind, begins in _BEGINS.items()
    if kind != "json"
}

_MAX_TEXT = 1 << 30  # bytes; an array of Arrow's texts ends at twice as many
_NO_VALUE = msgspec.Raw(b"")


def _picker(mapping: RowMapping) -> msgspec.json.Decoder[Any] | None:
    """Decodes what is picked of a record: `user`, and the attributes in order as `a0`, `a1`, …, empty where one lacks.

    None where a structure can't: a name that needs escapes, or a field that is both the key and an attribute.
    """
    columns = list(dict.fromkeys((mapping.attributes or {}).values()))
    if mapping.user in columns or any(
        json_string(name)[1:-1] != name.encode() for name in [mapping.user or "", *columns]
    ):
        return None
    fields = [
        (f"a{at}", msgspec.Raw, msgspec.field(name=column, default=_NO_VALUE)) for at, column in enumerate(columns)
    ]
    if mapping.user is not None:
        return msgspec.json.Decoder(
            msgspec.defstruct("Flat", [("user", str, msgspec.field(name=mapping.user)), *fields], gc=False)
        )
    inside = msgspec.defstruct("Attributes", fields, gc=False)
    key, attributes = msgspec.field(name=NESTED_USER), msgspec.field(name=NESTED_ATTRIBUTES)
    return msgspec.json.Decoder(
        msgspec.defstruct("Picked", [("user", str, key), ("attributes", inside, attributes)], gc=False)
    )


class BlockMapper:
    """Maps a block of lines at once, with what LineMapper makes of each; None where it can't vouch for that.

    Rows that it sees something wrong with it only names.
    """

    def __init__(self, mapping: RowMapping) -> None:
        self._mapping = mapping
        self._frame = mapping.frame
        self._joiner = Joiner(mapping)
        self._picks = list((mapping.attributes or {}).items())
        self._columns = {column: at for at, column in enumerate(dict.fromkeys(column for _, column in self._picks))}
        self._decoder: msgspec.json.Decoder[Any] | None = None
        if mapping.attributes is not None:
            self._decoder = _picker(mapping)
        elif mapping.user is None and not mapping.types and not mapping.names and mapping.frame.attributes is not None:
            self._decoder = msgspec.json.Decoder(_Plain)
        elif mapping.user is not None:
            self._decoder = msgspec.json.Decoder(_Fields)
        self._is_whole = mapping.user is not None and mapping.attributes is None
        self._is_like_sent = (mapping.frame.user, mapping.frame.attributes) == (NESTED_USER, NESTED_ATTRIBUTES)
        self._blank = msgspec.json.encode(
            {NESTED_USER: "", NESTED_ATTRIBUTES: {}} if mapping.user is None else {mapping.user: ""}
        )

    def map(self, block: Block) -> tuple[list[str], Records, set[int]] | None:
        """The keys, the records, and the positions of those that may be wrong."""
        try:
            rows = self._rows(block)
            if rows is None:
                return None
            users = self._keys(rows) if self._is_whole else [row.user for row in rows]
            odd = set() if all(map(str.strip, users)) else {at for at, key in enumerate(users) if not key.strip()}
            if self._is_whole or self._mapping.attributes is not None:
                records = self._joined(users, self._fields(rows), odd)
            else:
                records = self._spliced(block, rows, odd) or self._put(rows, users, odd)
        except (ValueError, msgspec.MsgspecError):  # a key that is not text, or a surrogate that stands alone
            return None
        return users, records, odd

    def _rows(self, block: Block) -> list[Any] | None:
        """The lines decoded; one that is not valid or unusual gets a blank key.

        Each begins with a brace and ends with one, and between two of them stand line ends alone. Inside a JSON value
        no closing brace is followed by an opening one, nor do its strings hold line ends: so no value goes on from one
        line into the next, and if there are as many values as lines, each line is one.
        """
        if self._decoder is None or not 0 < len(block.text) <= _MAX_TEXT or (block.ends <= block.starts).any():
            return None
        starts, stops = block.starts, block.stops
        buf = np.frombuffer(block.text, np.uint8)
        is_certain = (
            bool((buf[starts] == _OPEN).all() and (buf[stops - 1] == _CLOSE).all())
            and bool((stops[:-1] < starts[1:]).all())
            and _is_text(block.text)
            and not any(_is_deep(block[at]) for at in np.flatnonzero(block.ends - starts > _SHALLOW).tolist())
        )
        try:
            rows = self._decoder.decode_lines(block.text) if is_certain else []
        except (ValueError, msgspec.MsgspecError):
            rows = []
        return rows if len(rows) == len(block) else [self._row(line) for line in block]

    def _row(self, line: bytes) -> Any:
        assert self._decoder is not None
        try:
            _check_line(line)
            return self._decoder.decode(line)
        except _NOT_A_ROW:
            return self._decoder.decode(self._blank)

    def _spliced(self, block: Block, rows: list[Any], odd: set[int]) -> Records | None:
        """The lines themselves with commas between, if each is what would be made of it; those that are odd may be not.

        A line holds both names, the key, the attributes, and what joins them, so it is never shorter than its record
        (without a backslash, no key takes more bytes there than here). If all together are as long as all records, each
        is as long as its own: nothing else stands in it, and only the order of the two fields is left to be seen.
        """
        if not self._is_like_sent or b"\\" in block.text:
            return None
        starts, stops = block.starts, block.stops
        sure, frame = np.delete(np.arange(len(rows)), list(odd)), self._frame
        if odd:
            rows = [rows[at] for at in sure.tolist()]
        around = len(frame.before_user + b'""' + frame.before_attributes[:-1] + frame.after_record)
        keys = "".join([row.user for row in rows]).encode()
        buf = np.frombuffer(block.text, np.uint8)
        if (
            int((stops - starts)[sure].sum())
            != len(rows) * around + len(keys) + sum([len(row.attributes) for row in rows])
            or (buf[starts[sure] + 2] != frame.before_user[2]).any()  # the first letter of a name
            or (stops[:-1] + 1 != starts[1:]).any()
        ):
            return None
        last = buf[stops - 3]  # of the attributes, before the bracket
        is_odd = (buf[stops - 2] != _CLOSE) | (last == _OPEN) | (last <= _SPACE)
        odd.update(np.flatnonzero(is_odd | (stops - starts > self._mapping.max_record_bytes)).tolist())
        data = np.empty(stops[-1] + 1, np.uint8)
        data[: len(buf)] = buf[: len(data)]
        data[stops] = ord(",")
        return Records(data.data, np.append(starts, len(data)).data)

    def _put(self, rows: list[Any], users: list[str], odd: set[int]) -> Records:
        """Records from the attributes as they stand."""
        values, sizes = _values([row.attributes for row in rows])
        buf, at = np.frombuffer(values.buffers()[2], np.uint8), sizes.cumsum() - sizes
        is_odd = (buf[at] != _OPEN) | (buf[np.minimum(at + 1, len(buf) - 1)] != _QUOTE)  # no object, or none with text
        odd.update(np.flatnonzero(is_odd).tolist())
        problems: dict[int, Problem] = {}
        pieces = (self._frame.before_attributes[:-1].decode(), values)
        records = self._joiner.put(pa.array(users, pa.string()), pieces, problems)
        odd.update(problems)
        return records

    def _keys(self, rows: list[_Fields]) -> list[str]:
        """The keys of flat records whose fields are all sent. Raises ValueError if they don't all have the same."""
        names = list(rows[0])
        if any(list(row) != names for row in rows) or self._mapping.user not in names:
            raise ValueError("other fields, or in another order")
        if self._mapping.names.complaint(self._sent(names)):
            raise ValueError("a name that may not be sent")
        return _decode_texts(b"[" + b",".join(map(itemgetter(self._mapping.user), rows)) + b"]")

    def _sent(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in (self._mapping.user, *ADDED)]

    def _fields(self, rows: list[Any]) -> list[tuple[str, list[msgspec.Raw]]]:
        """The attributes that are sent, and of each the values, empty where a row lacks it."""
        if self._is_whole:
            return [(name, list(map(itemgetter(name), rows))) for name in self._sent(rows[0])]
        if self._mapping.user is None:
            rows = [row.attributes for row in rows]
        return [(name, list(map(attrgetter(f"a{self._columns[column]}"), rows))) for name, column in self._picks]

    def _joined(self, users: list[str], fields: list[tuple[str, list[msgspec.Raw]]], odd: set[int]) -> Records:
        """Records from keys and attributes."""
        parts = []
        for name, raws in fields:
            values, sizes = _values(raws)
            kind = self._mapping.types.get(name, "json")
            if kind != "json":
                has_one = np.flatnonzero(sizes)
                first = np.frombuffer(values.buffers()[2], np.uint8)[(sizes.cumsum() - sizes)[has_one]]
                odd.update(has_one[~_FIRST[kind][first]].tolist())
            parts.append(Part(json_string(name).decode() + ":", values, ""))
        problems: dict[int, Problem] = {}
        records = self._joiner.records(pa.array(users, pa.string()), parts, problems)
        odd.update(problems)
        return records


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
        for at in sorted(odd):
            users[at], _, problem = self._line(block[at])
            if problem is None:  # only what will not be sent may be odd
                return self.map_each(block)
            problems[at] = problem
        return Mapped(users, records, problems)

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
            if len(line) > _SHALLOW or not line.isascii():
                _check_line(line)
            user, attributes = self._nested(line) if self._mapping.user is None else self._flat(line)
            record = self._mapping.frame.record(user, attributes)
            if attributes == b"{}":
                return user, record, Problem(Code.SKIPPED, SKIPPED, user)
            if len(record) > self._mapping.max_record_bytes:
                reason = _too_large(len(record), self._mapping.max_record_bytes)
                return user, record, Problem(Code.REJECTED, reason, user)
        except _NOT_A_ROW as error:
            user = error.user if isinstance(error, _Invalid) else self._guess_user(line)
            return user, record, Problem(Code.REJECTED, _reason(error), user)
        return user, record, None

    def values(self, lines: Sequence[bytes]) -> Values:
        """The same lines, not put together."""
        users: list[str] = []
        invalid: list[int] = []
        found: dict[str, tuple[list[int], list[bytes]]] = {}
        for at, line in enumerate(lines):
            try:
                if len(line) > _SHALLOW or not line.isascii():
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
            users.append(user.encode("utf-8", "replace").decode())
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
                f"{self._mapping.key} must be text ({column!r} is {_short(msgspec.json.encode(key).decode())})"
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
                    raise _Invalid(f"{name!r}: {_short(value.decode())} is not {_A[kind]}", user)
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
    if _is_deep(line):
        raise _Invalid(f"nested more than {MAX_DEPTH} levels deep")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start + 1}"
    if isinstance(error, msgspec.MsgspecError):
        if isinstance(error, msgspec.ValidationError):
            return "a number is out of range" if "out of range" in str(error) else "not a JSON object"
        return f"not JSON: {str(error).removeprefix('JSON is malformed: ')}"
    return str(error)
