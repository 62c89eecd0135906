"""Snowflake by its ADBC driver, which takes a result as Arrow, a part of it after the other.

The driver is found by its name, where `dbc install snowflake` puts it: that on PyPI is no longer kept
(https://github.com/apache/arrow-adbc/issues/4593).
"""

import re
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote

import adbc_driver_manager.dbapi as driver
import pyarrow as pa

from loader.errors import ExportError
from loader.export.engines import Failed, double_quoted
from loader.network import is_loopback

_OPTION = "adbc.snowflake.sql."
_NAMED = {"warehouse": f"{_OPTION}warehouse", "role": f"{_OPTION}role"}
_KEY, _AUTH = f"{_OPTION}client_option.jwt_private_key", f"{_OPTION}auth_type"
_HOST, _PROTOCOL = f"{_OPTION}uri.host", f"{_OPTION}uri.protocol"
_NEVER = (f"{_OPTION}client_option.tls_skip_verify", f"{_OPTION}client_option.tls_root_cert")
#: One part of a result after the other. Of several at once (10 by default) the driver gives those behind one that broke
#: off, and says so only at the end: seen with 1.11.0. And so many batches may wait, not 200.
_AHEAD = {"adbc.snowflake.rpc.prefetch_concurrency": "1", "adbc.rpc.result_queue_size": "8"}


class Snowflake:
    """How to reach one account."""

    def __init__(self, options: dict[str, str]) -> None:
        self._options = options

    def quoted(self, name: str) -> str:
        return double_quoted(name)

    def literal(self, key: str | int) -> str:
        return str(key) if isinstance(key, int) else "'" + key.replace("\\", "\\\\").replace("'", "''") + "'"

    def columns(self, schema: pa.Schema) -> str:
        return "*"

    def connect(self) -> "_Connection":
        try:
            return _Connection(driver.connect("snowflake", db_kwargs=self._options, autocommit=True))
        except driver.Error as error:
            if "[Driver Manager]" in str(error):
                raise Failed("its driver is not there, or can't be loaded: dbc install snowflake") from error
            raise _failed(error) from error


class _Connection:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._cursor.adbc_statement.set_options(**_AHEAD)

    def schema(self, query: str) -> pa.Schema:
        try:
            return self._cursor.adbc_execute_schema(query)
        except driver.Error as error:
            raise _failed(error) from error

    def batches(self, query: str) -> Generator[pa.RecordBatch]:
        try:
            self._cursor.execute(query)
            count = 0
            for batch in self._cursor.fetch_record_batch():
                count += batch.num_rows
                yield batch
        except (driver.Error, pa.ArrowException, OSError) as error:  # of the stream, Arrow raises its own
            raise _failed(error) from error
        if 0 <= count < self._cursor.rowcount:
            raise Failed(f"{count:,} of {self._cursor.rowcount:,} rows came, and nothing tells which are missing")

    def cancel(self) -> None:
        with suppress(driver.Error):
            self._cursor.adbc_cancel()

    def close(self) -> None:
        with suppress(driver.Error):
            self._cursor.close()
            self._connection.close()


def _failed(error: Exception) -> Failed:
    """In Snowflake's own words, which begin with a number: without it, it is the way there that failed."""
    words = _AROUND.sub("", " ".join(str(error).split()))
    return Failed(words, is_lost=_NUMBER.match(words) is None)


_AROUND = re.compile(r"^[A-Z_]+: (\[Snowflake\] )?(?=\S)|(?<=\): )\d{6} \(\w{5}\): |\. Vendor code: .*$")
_NUMBER = re.compile(r"\d{6} \(\w*\)")


def engine(parts: SplitResult, folder: Path) -> Snowflake:
    """The engine of a URL such as snowflake://user:password@account/database/schema?warehouse=W&role=R."""
    if not parts.hostname:
        raise ExportError("export.database: write snowflake://user:password@account/database/schema?warehouse=…")
    database, _, schema = unquote(parts.path.strip("/")).partition("/")
    options = {
        "username": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        f"{_OPTION}account": parts.hostname,
        f"{_OPTION}db": database,
        f"{_OPTION}schema": schema,
    }
    options = {name: value for name, value in options.items() if value}
    for name, (*_, value) in parse_qs(parts.query).items():
        if name == "private_key":
            options |= {_AUTH: "auth_jwt", _KEY: str(folder / value)}
        elif name.startswith("adbc.") and name not in _NEVER:
            options[name] = value
        elif name in _NAMED:
            options[_NAMED[name]] = value
        else:
            raise ExportError(
                f"export.database: {name} is not an option of snowflake://; it takes {', '.join(_NAMED)}, private_key, "
                "and the driver's own, which begin with adbc."
            )
    if options.get(_PROTOCOL, "https") != "https" and not is_loopback(options.get(_HOST, "")):
        raise ExportError("export.database: plain http is for this machine alone")
    return Snowflake({f"{_OPTION}client_option.disable_telemetry": "true"} | options)
