"""DuckDB: its own files, and SQL over other files; blocks of Arrow as its pipeline makes them.

What doesn't fit into `_MEMORY`, such as a sort of all rows, it puts into a folder that is removed at the end.
"""

import shutil
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult

import duckdb
import pyarrow as pa

from loader.export.engines import Failed, double_quoted, file_of, single_quoted

_ROWS = 8_192
_MEMORY = "512MB"


class DuckDB:
    """One database file, opened to be read, or None: in memory. Files that a query names are relative to `folder`."""

    def __init__(self, path: Path | None, folder: Path) -> None:
        self._path = path
        self._folder = folder

    def quoted(self, name: str) -> str:
        return double_quoted(name)

    def literal(self, key: str | int) -> str:
        return single_quoted(key)

    def columns(self, schema: pa.Schema) -> str:
        return "*"

    def connect(self) -> "_Connection":
        if self._path is not None and not self._path.is_file():
            raise Failed(f"there is no file {self._path}")
        spill = Path(tempfile.mkdtemp(prefix="loader-"))
        try:
            database = duckdb.connect(
                str(self._path or ":memory:"),
                read_only=self._path is not None,
                config={"memory_limit": _MEMORY, "temp_directory": str(spill), "file_search_path": str(self._folder)},
            )
        except duckdb.Error as error:
            shutil.rmtree(spill, ignore_errors=True)
            raise _failed(error) from error
        return _Connection(database, spill)


class _Connection:
    def __init__(self, database: duckdb.DuckDBPyConnection, spill: Path) -> None:
        self._database = database
        self._spill = spill

    def schema(self, query: str) -> pa.Schema:
        try:
            return self._database.sql(f"select * from ({query}\n) limit 0").to_arrow_table().schema
        except duckdb.Error as error:
            raise _failed(error) from error

    def batches(self, query: str) -> Generator[pa.RecordBatch]:
        try:
            yield from self._database.sql(query).to_arrow_reader(_ROWS)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise _failed(error) from error

    def cancel(self) -> None:
        with suppress(duckdb.Error):  # it is closed by now
            self._database.interrupt()

    def close(self) -> None:
        self._database.close()
        shutil.rmtree(self._spill, ignore_errors=True)


def _failed(error: Exception) -> Failed:
    return Failed(" ".join(str(error).split()))


def engine(parts: SplitResult, folder: Path) -> DuckDB:
    """The engine of a URL such as duckdb:///users.duckdb, or duckdb:// for SQL over files."""
    return DuckDB(file_of(parts, folder), folder)
