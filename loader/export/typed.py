"""Typed columns (Parquet, Arrow) as JSON, each type in one form: docs/formats.md has the table of them.

Text, dates and times become strings; booleans and numbers what they are, with their digits; lists, structs and maps
arrays and objects; null is `null` in every type. What JSON has no form for (NaN, bytes that are no text) rejects the
row; inside lists and the like msgspec makes `null` and base64 of them.
"""

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loader.columns import Joiner, Part, json_strings, reject, reject_blank, text_of
from loader.errors import ExportError
from loader.mapping import Column, Mapped, Problem, RowMapping, Type, Values, check_columns, check_names, others
from loader.record import json_string

_NESTED = msgspec.json.Encoder(decimal_format="number")


def is_text(kind: pa.DataType) -> bool:
    """Is it text, or bytes that may be text?"""
    types = pa.types
    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def check_type(name: str, kind: pa.DataType) -> None:
    """Raise ExportError for a type that has no form in JSON."""
    types = pa.types
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


_TYPES: Mapping[Type, tuple[Callable[[pa.DataType], bool], ...]] = {
    "string": (is_text, pa.types.is_date, pa.types.is_time, pa.types.is_timestamp),
    "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    "boolean": (pa.types.is_boolean,),
    "json": (lambda kind: True,),
}


class TypedMapper:
    """Maps blocks of one file with typed columns. Raises ExportError if its names or types don't fit the mapping.

    Values are what they are: null is sent as null and "" as "". `mapping.types` are checked, never applied.
    """

    def __init__(self, mapping: RowMapping, schema: pa.Schema) -> None:
        if mapping.user is None:
            raise ExportError(f"mapping.user is missing: name the column that holds the user's key: {schema.names}")
        self._user = mapping.user
        self._key = mapping.key
        if mapping.attributes is None:
            self._attributes = {name: name for name in others(schema.names, mapping.user)}
        else:
            self._attributes = dict(mapping.attributes)
        check_columns(mapping, schema.names)
        check_names(mapping, self._attributes)
        key = schema.field(self._user).type
        if not (is_text(key) or pa.types.is_integer(key)):
            setting = next(iter(mapping.settings))
            raise ExportError(f"{setting}: column {self._user!r} is of type {key}; a key is text or a whole number")
        for name, kind in mapping.types.items():
            found = schema.field(self._attributes[name]).type
            if not any(fits(found) for fits in _TYPES[kind]):
                raise ExportError(f"mapping.types: {name!r} is of type {found} in the export, not {kind}")
        for column in self.columns:
            if schema.names.count(column) > 1:
                raise ExportError(f"the export has two columns {column!r}; rename one of them")
            check_type(column, schema.field(column).type)
        self._joiner = Joiner(mapping)

    @property
    def columns(self) -> list[str]:
        """The columns that are read, the user's first."""
        return list(dict.fromkeys([self._user, *self._attributes.values()]))

    def map(self, block: pa.RecordBatch) -> Mapped:
        """One block with at least the columns that are read."""
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
        for at, problem in problems.items():
            problems[at] = problem._replace(user=_shown(raw[at].as_py()))
        return mapped

    def values(self, block: pa.RecordBatch) -> Values:
        """The same block, not put together."""
        problems: dict[int, Problem] = {}
        keys = self._keys(block.column(self._user), problems)
        columns = {
            name: Column(None, value_of(block.column(column), column, problems))
            for name, column in self._attributes.items()
        }
        return Values(keys, columns, np.array(sorted(problems), np.int64))

    def _keys(self, column: pa.Array, problems: dict[int, Problem]) -> pa.StringArray:
        if is_text(column.type):
            keys = text_of(_binary(column), self._user, problems)
        else:
            keys = column.cast(pa.string()).fill_null("")
        reject_blank(problems, keys, f"{self._key} is empty (column {self._user!r})")
        return keys


def value_of(column: pa.Array, name: str, problems: dict[int, Problem]) -> pa.StringArray:
    """A column as JSON, nulls as `null`."""
    if is_text(column.type):
        text = json_strings(text_of(_binary(column), name, problems))
        return pc.if_else(column.is_null(), "null", text)
    if pa.types.is_floating(column.type):
        odd = pc.invert(pc.is_finite(column)).fill_null(False)
        if odd.true_count:
            reject(problems, odd, f"column {name!r}: not a finite number, which JSON has no form for")
            column = pc.if_else(odd, None, column)
    if pa.types.is_nested(column.type):
        column = _readable(column, name, problems)
    return as_json(column).fill_null("null")


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
    return column.cast(pa.binary()).fill_null(b"")


def _shown(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    return "" if key is None else str(key)
