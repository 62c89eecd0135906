"""Typed columns (Parquet, Arrow, databases) as JSON, each type in one form: docs/formats.md has the table of them.

Text, dates and times become strings; booleans and numbers what they are, with their digits; lists, structs and maps
arrays and objects; null is `null` in every type. Arrow's JSON type is sent as it stands, a UUID as its text, and any
other extension type as what it is stored as. What JSON has no form for (NaN, bytes that are no text) rejects the row;
inside lists and the like msgspec makes `null` and base64 of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loader.errors import ExportError
from loader.mapping import (
    Column,
    Mapped,
    Problem,
    RowMapping,
    Type,
    Values,
    check_columns,
    check_names,
    listed,
    others,
)
from loader.mapping.columns import Joiner, Part, json_strings, reject, reject_blank, text_of
from loader.outcome import Code
from loader.record import json_string

_NESTED = msgspec.json.Encoder(decimal_format="number")
_RAW = msgspec.json.Decoder(msgspec.Raw)
_KEY = msgspec.json.Decoder(str | int | None)


def is_text(kind: pa.DataType) -> bool:
    """Is it text, or bytes that may be text?"""
    types = pa.types
    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _is_uuid(kind) or (not (is_json(kind) or _is_numeric(kind)) and is_text(kind.storage_type))
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def is_json(kind: pa.DataType) -> bool:
    """Is it JSON already?"""
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.json"


def _is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def _is_numeric(kind: pa.DataType) -> bool:
    """Is it a decimal of any size, as its digits?"""
    return isinstance(kind, pa.OpaqueType) and kind.type_name == "numeric" and is_text(kind.storage_type)


def _stored(column: pa.Array) -> pa.Array:
    """A column without an extension type; UUIDs as text."""
    if _is_uuid(column.type):
        values = column.storage.to_pylist()
        return pa.array([None if value is None else str(UUID(bytes=value)) for value in values], pa.string())
    return column.storage if isinstance(column.type, pa.BaseExtensionType) else column


def check_type(name: str, kind: pa.DataType) -> None:
    """Raise ExportError for a type that has no form in JSON."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        if isinstance(kind, pa.OpaqueType) and types.is_binary(
            kind.storage_type
        ):  # in a form that only its maker reads
            raise ExportError(f"column {name!r} is of type {kind.type_name}, which is not known here; cast it to text")
        kind = kind.storage_type
    if types.is_nested(kind):
        for inner in (kind.field(at).type for at in range(kind.num_fields)):
            if isinstance(inner, pa.BaseExtensionType) and not _is_uuid(inner):
                raise ExportError(
                    f"column {name!r} is of type {kind}, which has no form in JSON; cast it in the export"
                )
    known = (
        *(types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_date, types.is_time),
        *(types.is_timestamp, types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_struct),
        *(types.is_map, types.is_null, is_text),
    )
    if not any(check(kind) for check in known):
        raise ExportError(f"column {name!r} is of type {kind}, which has no form in JSON; cast it in the export")


def as_json(column: pa.Array) -> pa.StringArray:
    """Values that are not text as JSON, nulls left null. NaN and infinity come out as Arrow writes them: no JSON."""
    kind, types = column.type, pa.types
    if types.is_timestamp(kind):
        if kind.tz is not None:
            column = column.cast(pa.timestamp(kind.unit, "UTC"))
        text = pc.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1)
        return _quoted(_short_fraction(text))
    if types.is_date(kind):
        return _quoted(column.cast(pa.date32()).cast(pa.string()))
    if types.is_time(kind):
        return _quoted(_short_fraction(column.cast(pa.string())))
    if types.is_null(kind):
        return column.cast(pa.string())
    if types.is_nested(kind):
        is_map = types.is_map(kind)
        values = (dict(value) if is_map and value is not None else value for value in column.to_pylist())
        return pa.array([None if value is None else _NESTED.encode(value).decode() for value in values], pa.string())
    return column.cast(pa.string())


def _short_fraction(text: pa.StringArray) -> pa.StringArray:
    """Times without the zeros that only tell in which unit they were stored."""
    text = pc.replace_substring_regex(text, r"\.0+(Z?)$", r"\1")
    return pc.replace_substring_regex(text, r"(\.[0-9]*[1-9])0+(Z?)$", r"\1\2")


def _quoted(text: pa.StringArray) -> pa.StringArray:
    return pc.binary_join_element_wise('"', text, '"', "")


def array_of(values: Sequence[object]) -> pa.Array:
    """Python values as a column: of their own type if they have one, else of JSON, each as it is."""
    kinds = set(map(type, values)) - {type(None)}
    if len(kinds) <= 1:
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError):
            pass
    texts = [None if value is None else _one_as_json(value) for value in values]
    return pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(texts, pa.string()))


def _one_as_json(value: object) -> str:
    """What has no form in JSON comes out as none, for its row to be rejected."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return "not UTF-8"
    try:
        return _NESTED.encode(value).decode()
    except (TypeError, ValueError, OverflowError) as error:
        return str(value) if isinstance(value, int) else str(error)


_TYPES: Mapping[Type, tuple[Callable[[pa.DataType], bool], ...]] = {
    "string": (is_text, pa.types.is_date, pa.types.is_time, pa.types.is_timestamp),
    "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    "boolean": (pa.types.is_boolean,),
    "json": (lambda kind: True,),
}


def _fits(kind: Type, found: pa.DataType) -> bool:
    """May a column of a type `found` be meant? JSON may hold any, and of null there is none that it isn't."""
    if isinstance(found, pa.BaseExtensionType) and not is_text(found):
        return is_json(found) or _fits(kind, found.storage_type)
    return pa.types.is_null(found) or any(fits(found) for fits in _TYPES[kind])


def check_mapped(name: str, kind: Type, found: pa.DataType) -> None:
    """Raise ExportError if a column is not what `mapping.types` says of its attribute."""
    if not _fits(kind, found):
        raise ExportError(f"mapping.types: {name!r} is of type {found} in the export, not {kind}")


class TypedMapper:
    """Maps blocks of one file with typed columns. Raises ExportError if its names or types don't fit the mapping.

    Values are what they are: null is sent as null and "" as "". `mapping.types` are checked, never applied.
    """

    def __init__(self, mapping: RowMapping, schema: pa.Schema) -> None:
        if mapping.user is None:
            raise ExportError(
                f"mapping.user is missing: name the column that holds the user's key, one of {listed(schema.names)}"
            )
        self._user = mapping.user
        self._key = mapping.key
        if mapping.attributes is None:
            self._attributes = {name: name for name in others(schema.names, mapping.user)}
        else:
            self._attributes = dict(mapping.attributes)
        check_columns(mapping, schema.names)
        check_names(mapping, self._attributes)
        key = schema.field(self._user).type
        if not (is_text(key) or is_json(key) or pa.types.is_integer(key) or pa.types.is_null(key)):
            setting = next(iter(mapping.settings))
            raise ExportError(f"{setting}: column {self._user!r} is of type {key}; a key is text or a whole number")
        for name, kind in mapping.types.items():
            check_mapped(name, kind, schema.field(self._attributes[name]).type)
        for column in self.columns:
            if schema.names.count(column) > 1:
                raise ExportError(f"the export has two columns {column!r}; rename one of them")
            check_type(column, schema.field(column).type)
        self._open = [column for column in self.columns if pa.types.is_null(schema.field(column).type)]
        self._types = mapping.types
        self._joiner = Joiner(mapping)

    @property
    def columns(self) -> list[str]:
        """The columns that are read, the user's first."""
        return list(dict.fromkeys([self._user, *self._attributes.values()]))

    def map(self, block: pa.RecordBatch) -> Mapped:
        """One block with at least the columns that are read."""
        self._check(block)
        problems: dict[int, Problem] = {}
        keys = self._keys(block.column(self._user), problems)
        parts = [
            Part(json_string(name).decode() + ":", value_of(block.column(column), column, problems), "")
            for name, column in self._attributes.items()
        ]
        mapped = self._joiner.join(keys, parts, problems)
        raw = block.column(self._user)
        if problems and is_text(raw.type):
            raw = _binary(raw)  # as text, Python would choke on what is not UTF-8
        raw = pa.array(mapped.users, pa.string()) if is_json(raw.type) else _stored(raw)
        for at, problem in problems.items():
            problems[at] = problem._replace(user=_shown(raw[at].as_py()))
        return mapped

    def values(self, block: pa.RecordBatch) -> Values:
        """The same block, not put together."""
        self._check(block)
        problems: dict[int, Problem] = {}
        keys = self._keys(block.column(self._user), problems)
        columns = {
            name: Column(None, value_of(block.column(column), column, problems))
            for name, column in self._attributes.items()
        }
        return Values(keys, columns, np.array(sorted(problems), np.int64))

    def _check(self, block: pa.RecordBatch) -> None:
        """Raise ExportError for types that only show in the block."""
        if not self._open:
            return
        for column in self._open:
            check_type(column, block.schema.field(column).type)
        for name, kind in self._types.items():
            check_mapped(name, kind, block.schema.field(self._attributes[name]).type)

    def _keys(self, column: pa.Array, problems: dict[int, Problem]) -> pa.StringArray:
        if is_text(column.type):
            keys = text_of(_binary(column), self._user, problems)
        elif is_json(column.type):
            keys = self._json_keys(column.storage.to_pylist(), problems)
        else:
            keys = column.cast(pa.string()).fill_null("")
        reject_blank(problems, keys, f"{self._key} is empty (column {self._user!r})")
        return keys

    def _json_keys(self, values: list[str | None], problems: dict[int, Problem]) -> pa.StringArray:
        """Keys that stand as JSON, each of a type of its own."""
        keys = []
        for at, text in enumerate(values):
            try:
                key = None if text is None else _KEY.decode(text)
            except msgspec.MsgspecError:
                problems.setdefault(
                    at, Problem(Code.REJECTED, f"column {self._user!r}: a key is text or a whole number")
                )
                key = "?"  # not empty, which would be another fault
            keys.append("" if key is None else str(key))
        return pa.array(keys, pa.string())


def value_of(column: pa.Array, name: str, problems: dict[int, Problem]) -> pa.StringArray:
    """A column as JSON, nulls as `null`."""
    if is_text(column.type):
        text = json_strings(text_of(_binary(column), name, problems))
        return pc.if_else(column.is_null(), "null", text)
    if is_json(column.type):
        return _checked(column.storage.fill_null("null"), name, problems)
    is_numeric = _is_numeric(column.type)
    column = _stored(column)
    if is_numeric:
        odd = pc.match_substring_regex(column, "^-?[0-9.]+$").fill_null(True)
        reject(problems, pc.invert(odd), f"column {name!r}: not a finite number, which JSON has no form for")
        return pc.if_else(odd, column, "null").fill_null("null")
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = _dated(column, name, problems)
    if pa.types.is_floating(column.type):
        odd = pc.invert(pc.is_finite(column)).fill_null(False)
        if odd.true_count:
            reject(problems, odd, f"column {name!r}: not a finite number, which JSON has no form for")
            column = pc.if_else(odd, None, column)
    if pa.types.is_nested(column.type):
        column = _readable(column, name, problems)
    return as_json(column).fill_null("null")


#: The first and last day of years that are written with four digits, from 1970-01-01.
_DAYS = (-719_162, 2_932_896)
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def _dated(column: pa.Array, name: str, problems: dict[int, Problem]) -> pa.Array:
    """Times; those of no year that is written with four digits, as a database's infinity, reject their rows."""
    if pa.types.is_timestamp(column.type):
        ticks, each = column.cast(pa.int64()), _PER_DAY[column.type.unit]
    else:
        ticks, each = column.cast(pa.date32()).cast(pa.int32()), 1
    if column.type == pa.timestamp("ns", column.type.tz if each > 1 else None):
        return column  # none is out of reach of these
    first, last = _DAYS[0] * each, (_DAYS[1] + 1) * each - 1
    ends = pc.min_max(ticks).as_py()
    if ends["min"] is None or (first <= ends["min"] and ends["max"] <= last):
        return column
    odd = pc.or_(pc.less(ticks, first), pc.greater(ticks, last)).fill_null(False)
    reject(problems, odd, f"column {name!r}: a time that is none, or of a year that is not written with four digits")
    return pc.if_else(odd, pa.scalar(None, column.type), column)


def _checked(column: pa.Array, name: str, problems: dict[int, Problem]) -> pa.StringArray:
    """JSON as it stands; what is none rejects its row."""
    text = text_of(_binary(column), name, problems)
    odd = pa.array([not _is_json(value) for value in text.to_pylist()], pa.bool_())
    if not odd.true_count:
        return text
    reject(problems, odd, f"column {name!r}: not JSON")
    return pc.if_else(odd, "null", text)


def _is_json(text: str) -> bool:
    try:
        _RAW.decode(text)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return False
    return True


def _readable(column: pa.Array, name: str, problems: dict[int, Problem]) -> pa.Array:
    """Nested values; those that hold text that is not UTF-8, or a time that is none, reject their rows and are null."""
    try:
        column.to_pylist()
        return column
    except (ValueError, OverflowError):
        odd = pa.array([not _is_readable(value) for value in column], pa.bool_())
    reject(problems, odd, f"column {name!r}: holds text that is not UTF-8, or a time that is none")
    return pc.if_else(odd, pa.scalar(None, column.type), column)


def _is_readable(value: pa.Scalar) -> bool:
    try:
        value.as_py()
    except (ValueError, OverflowError):
        return False
    return True


def _binary(column: pa.Array) -> pa.Array:
    """Text or bytes as bytes, nulls as none: what is not UTF-8 is seen later, and named."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return _stored(column).cast(pa.binary()).fill_null(b"")


def _shown(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    return "" if key is None else str(key)
