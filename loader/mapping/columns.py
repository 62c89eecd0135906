"""Columns (CSV, TSV) into records, a block at a time, by Arrow's compiled functions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loader.errors import ExportError
from loader.mapping import (
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
    listed,
    misfit,
    others,
    short,
    too_large,
)
from loader.mapping.texts import Texts
from loader.outcome import Code
from loader.record import Records, json_string

_NUMBER = r"\A-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\z"
_SPACE = 0x20  # what is below it, a JSON string must escape

_decode_value: Callable[[str], msgspec.Raw] = msgspec.json.Decoder(msgspec.Raw).decode


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
                problems.setdefault(at, Problem(Code.REJECTED, too_large(sizes[at].as_py() - 1, self._limit)))
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
                f"mapping.user is missing: name the column that holds the user's key, one of {listed(columns)}"
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
        return Values(keys, columns, np.array(sorted(problems), np.int64), cells[self._user])

    def _texts(self, block: pa.Table | pa.RecordBatch, problems: dict[int, Problem]) -> dict[str, pa.StringArray]:
        """The columns that are read, as text."""
        texts = {name: text_of(block.column(name), name, problems, self._mapping.encoding) for name in self.columns}
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
            problems.setdefault(
                at, Problem(Code.REJECTED, f"column {column!r}: {short(cell)} is not {TYPE_NAMES[kind]}")
            )
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


def text_of(
    column: pa.Array | pa.ChunkedArray, name: str, problems: dict[int, Problem], encoding: str = "UTF-8"
) -> pa.StringArray:
    """A column as text; rows that are not UTF-8, as they did not fit `encoding`, become a problem and an empty text."""
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
            reason = f"column {name!r} is {misfit(error, encoding)}"
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
    if is_deep(text.encode()):
        return False
    try:
        _decode_value(text)
    except (ValueError, msgspec.MsgspecError):
        return False
    return True
