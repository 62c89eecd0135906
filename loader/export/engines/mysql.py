"""MySQL and MariaDB by PyMySQL, whose unbuffered cursor takes rows from the wire as they are asked for."""

import ssl
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote

import pyarrow as pa
import pymysql
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions
from pymysql.cursors import SSCursor

from loader.errors import ExportError
from loader.export.engines import Failed, block

_ROWS = 8_192
#: A time of day comes as it is written: as a duration, it would have no form in JSON.
_CONVERSIONS = {kind: convert for kind, convert in conversions.items() if kind != FIELD_TYPE.TIME}
#: Lost, gone away, or shutting down; see the server's own list of errors.
_LOST = {1053, 1077, 1079, 1927, 2006, 2013, 2055, 4031}


class MySQL:
    """How to reach one."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def quoted(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    def literal(self, key: str | int) -> str:
        # With NO_BACKSLASH_ESCAPES a quote is all that needs doubling.
        return str(key) if isinstance(key, int) else "'" + key.replace("'", "''") + "'"

    def columns(self, schema: pa.Schema) -> str:
        return "*"

    def connect(self) -> "_Connection":
        try:
            connection = pymysql.connect(**self._options, charset="utf8mb4", cursorclass=SSCursor, conv=_CONVERSIONS)
            with connection.cursor() as cursor:
                cursor.execute(
                    "set session sql_mode = concat(@@sql_mode, ',NO_BACKSLASH_ESCAPES'), time_zone = '+00:00'"
                )
                # A pause of ours is a pause of its: a minute, unless it is told otherwise.
                cursor.execute("set session net_write_timeout = 3600")
                cursor.execute("start transaction read only")
            return _Connection(connection, self._options)
        except pymysql.MySQLError as error:
            raise _failed(error) from error


class _Connection:
    def __init__(self, connection: Any, options: dict[str, Any]) -> None:
        self._connection = connection
        self._options = options

    def schema(self, query: str) -> pa.Schema:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(f"select * from ({query}\n) q limit 0")
                return pa.schema([(column[0], pa.null()) for column in cursor.description])
        except pymysql.MySQLError as error:
            raise _failed(error) from error

    def batches(self, query: str) -> Generator[pa.RecordBatch]:
        cursor = self._connection.cursor()
        try:
            cursor.execute(query)
            names = [column[0] for column in cursor.description]
            while rows := cursor.fetchmany(_ROWS):
                yield block(names, rows)
        except pymysql.MySQLError as error:
            raise _failed(error) from error
        except OSError as error:  # of the socket
            raise Failed(str(error), is_lost=True) from error

    def cancel(self) -> None:
        """By another connection: this one is in use."""
        with suppress(pymysql.MySQLError, OSError):
            other = pymysql.connect(**self._options)
            with other, other.cursor() as cursor:
                cursor.execute(f"kill query {self._connection.thread_id()}")

    def close(self) -> None:
        # Not close(): the unbuffered rows that nobody wants would be read to their end first.
        self._connection._force_close()


def _failed(error: pymysql.MySQLError) -> Failed:
    number, words = (*error.args, 0, "")[:2] if len(error.args) > 1 else (0, str(error))
    return Failed(f"{words} ({number})" if number else str(words), is_lost=number in _LOST)


def engine(parts: SplitResult, _folder: Path) -> MySQL:
    """The engine of a URL such as mysql://user:password@host:3306/database?ssl_ca=/path/ca.pem."""
    found = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    options: dict[str, Any] = {"connect_timeout": 30}
    for name in ("ssl_ca", "unix_socket"):
        if name in found:
            options[name] = found.pop(name)
    if found:
        raise ExportError(
            f"export.database: {min(found)} is not an option of mysql://; it takes ssl_ca and unix_socket"
        )
    if "ssl_ca" in options:
        options["ssl"] = ssl.create_default_context(cafile=options.pop("ssl_ca"))
    given = {
        "host": parts.hostname,
        "port": parts.port,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.removeprefix("/")),
    }
    return MySQL(options | {name: value for name, value in given.items() if value})
