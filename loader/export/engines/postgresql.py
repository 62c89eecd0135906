"""PostgreSQL by its ADBC driver: COPY in its binary form, straight into Arrow's columns, some 16 MB at a time."""

import re
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult

import adbc_driver_postgresql.dbapi as driver
import pyarrow as pa

from loader.export.engines import Failed, double_quoted, single_quoted

#: What is sent as it comes: as text, or as the number that it is. The driver has no other form for the rest.
_TAKEN = {"numeric"}


#: Of a client that is gone a server should learn while it sorts, not when it has sorted; it can from version 14 on.
_LOOK = """select set_config('client_connection_check_interval', '5s', true)
    where current_setting('server_version_num')::int >= 140000"""


class PostgreSQL:
    """How to reach one."""

    def __init__(self, url: str) -> None:
        self._url = url

    def quoted(self, name: str) -> str:
        return double_quoted(name)

    def literal(self, key: str | int) -> str:
        return single_quoted(key)

    def columns(self, schema: pa.Schema) -> str:
        if len(set(schema.names)) < len(schema.names) or not any(map(_form, schema)):
            return "*"
        return ", ".join(f"{_form(field) or 'q.%s'} as %s" % ((double_quoted(field.name),) * 2) for field in schema)

    def connect(self) -> "_Connection":
        try:
            connection = driver.connect(self._url)
            with connection.cursor() as cursor:
                cursor.execute("set transaction read only")
                # A backslash in a literal is one; what time zone a timestamptz is shown in changes no key.
                cursor.execute("set local standard_conforming_strings = on")
                cursor.execute(_LOOK)
            return _Connection(connection)
        except driver.Error as error:
            raise _failed(error) from error


class _Connection:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def schema(self, query: str) -> pa.Schema:
        try:
            with self._connection.cursor() as cursor:
                return cursor.adbc_execute_schema(query)
        except driver.Error as error:
            raise _failed(error) from error

    def batches(self, query: str) -> Generator[pa.RecordBatch]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(query)
                yield from cursor.fetch_record_batch()
        except (driver.Error, pa.ArrowException, OSError) as error:  # of the stream, Arrow raises its own
            raise _failed(error) from error

    def cancel(self) -> None:
        with suppress(driver.Error):
            self._connection.adbc_cancel()

    def close(self) -> None:
        with suppress(driver.Error):
            self._connection.close()


def _form(field: pa.Field) -> str:
    """What to select for a column of a type that Arrow lacks: JSON for arrays of such, else its text; "": itself."""
    kind = field.type
    if pa.types.is_list(kind) and isinstance(kind.value_type, pa.BaseExtensionType):
        return "to_jsonb(q.%s)"
    name = (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
    is_strange = isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.opaque" and name not in _TAKEN
    return "q.%s::text" if is_strange or name in ("money", "interval") else ""


def _failed(error: Exception) -> Failed:
    """In PostgreSQL's own words, without those of drivers around them."""
    state = getattr(error, "sqlstate", None) or ""
    details = dict(getattr(error, "details", ()))
    words = details.get(b"PG_DIAG_MESSAGE_PRIMARY", b"").decode("utf-8", "replace")
    if not words:  # Arrow's errors, while rows come, are nothing but text; so are those of connecting
        words = _DRIVERS.sub("", " ".join(str(error).split()))
    # Class 08: the connection; 57P0x: the server goes down. Else a server that can still say ERROR is there.
    is_lost = state[:2] == "08" or state.startswith("57P0") or not (state or words.startswith("ERROR:"))
    return Failed(f"{words} (SQLSTATE {state})" if state else words, is_lost=is_lost)


_DRIVERS = re.compile(r"^(IO: |\[libpq\] |Execution error |\[PGRES_FATAL_ERROR\]: )+")


def engine(parts: SplitResult, _folder: Path) -> PostgreSQL:
    """The engine of a URL, of which libpq takes all."""
    return PostgreSQL(parts.geturl())
