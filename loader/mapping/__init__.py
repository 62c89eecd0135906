"""Which column is the key, which are attributes, and what mapping a block of rows gives.

Rows of columns are mapped by columns.py, those that are JSON by jsonlines.py. Either way a row that isn't valid becomes
an outcome, and the rest go on.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loader.errors import ExportError
from loader.mapping.texts import Texts
from loader.outcome import Code, Outcome
from loader.record import Frame, Names, Records, json_string

Type = Literal["string", "number", "boolean", "json"]
Empty = Literal["omit", "null", "keep"]

#: The user's key and the attributes in NDJSON/JSON records, where `mapping.user` isn't set.
NESTED_USER, NESTED_ATTRIBUTES = "userName", "attributes"

#: What `loader results --rows` adds to each row: never an attribute, unless it is named as one.
ADDED = ("loader_row", "loader_code", "loader_message")

_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)

#: Values may be nested so deep. Parsers give up at about a thousand (ours at what is left of Python's stack), and a
#: record that can be mapped must be one that can be merged.
MAX_DEPTH = 200
SHALLOW = 2 * MAX_DEPTH  # bytes: every level has a bracket at both ends


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
    `texts`: the keys where they were read, if they stand there.
    """

    keys: pa.StringArray
    columns: Mapping[str, Column]
    invalid: NDArray[np.int64]
    texts: Texts | None = None


NO_VALUES = Values(pa.array([], pa.string()), {}, np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class RowMapping:
    """How rows become records. `attributes` None: every column but the user's, under its own name.

    `fields`: those of a record where the target has fixed them, the key's first; `[mapping.columns]` maps them then.
    `encoding`: of the text, as messages name it; what comes here is UTF-8, and bytes that don't fit came as they were.
    """

    frame: Frame
    max_record_bytes: int
    user: str | None = None
    attributes: Mapping[str, str] | None = None
    types: Mapping[str, Type] = field(default_factory=dict)
    empty: Empty = "omit"
    names: Names = field(default_factory=Names)
    fields: tuple[str, ...] = ()
    encoding: str = "UTF-8"

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


#: What messages call a value of each type.
TYPE_NAMES: Mapping[Type, str] = {
    "string": "text",
    "number": "a JSON number",
    "boolean": "true or false",
    "json": "JSON",
}


def too_large(size: int, limit: int) -> str:
    return f"too large: the record takes {size:,} bytes, limits.bytes_per_request leaves {limit:,}"


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
    return f"; did you mean {near[0]!r}?" if near else f"; it has {listed(names)}"


def _cut_wrong(columns: Sequence[str]) -> str:
    """A header that is one column and holds another delimiter was cut at the wrong one."""
    found = next((mark for mark in ";\t|," if len(columns) == 1 and mark in columns[0]), None)
    return f". Is export.delimiter = {json_string(found).decode()}?" if found else ""


def listed(names: Sequence[str] | Mapping[str, str]) -> str:
    shown = [repr(name) for name in list(names)[:20]]
    return ", ".join(shown) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def misfit(error: UnicodeDecodeError, encoding: str) -> str:
    """What is wrong with a text that came as UTF-8 but for a byte that did not fit its encoding, and where in it."""
    before = error.object[: error.start]
    at = len(before) if encoding == "UTF-8" else len(before.decode())
    return f"not {encoding}: byte 0x{error.object[error.start]:02x} at {at + 1}"


def short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")


def is_deep(text: bytes) -> bool:
    """Is this JSON nested deeper than MAX_DEPTH? Counting tells it for all but the odd record."""
    if len(text) <= SHALLOW or text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    steps = (1 if byte in b"[{" else -1 for byte in _STRINGS.sub(b"", text) if byte in b"[]{}")
    return max(accumulate(steps), default=0) > MAX_DEPTH
