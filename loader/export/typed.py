"""Typed columns (Parquet, Arrow) as JSON, each type in one form. docs/formats.md is the table of them.

| type | JSON |
|---|---|
| text, dictionaries of text | string |
| boolean | `true`, `false` |
| integer, decimal | number, with the digits that are stored: `12.50` |
| float | number, the shortest digits that mean it; NaN and infinity are no JSON and reject the row |
| date, time, timestamp | string: `2026-01-31`, `13:45:00`, `2026-01-31T13:45:00`; with a zone, in UTC: `…T12:45:00Z` |
| binary | string, if it is UTF-8; else the row is rejected |
| list, struct, map | array, object, object, of the above |
| null, of any type | `null` |
"""

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from loader.errors import ExportError

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
        return _quoted(text)
    if types.is_date(kind):
        return _quoted(column.cast(pa.date32()).cast(pa.string()))
    if types.is_time(kind):
        return _quoted(column.cast(pa.string()))
    if types.is_null(kind):
        return column.cast(pa.string())
    if types.is_nested(kind):
        is_map = types.is_map(kind)
        values = (dict(value) if is_map and value is not None else value for value in column.to_pylist())
        return pa.array([None if value is None else _NESTED.encode(value).decode() for value in values], pa.string())
    return column.cast(pa.string())


def _quoted(text: pa.StringArray) -> pa.StringArray:
    return pc.binary_join_element_wise('"', text, '"', "")
