"""SQLite by Python's own driver: rows as the cursor steps through them; each value may be of a type of its own."""

import sqlite3
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult

import pyarrow as pa

from loader.errors import ExportError
from loader.export.engines import Failed, block, double_quoted, file_of, single_quoted

_ROWS = 8_192


class SQLite:
    """One database file, opened to be read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def quoted(self, name: str) -> str:
        return double_quoted(name)

    def literal(self, key: str | int) -> str:
        return single_quoted(key)

    def columns(self, schema: pa.Schema) -> str:
        return "*"

    def connect(self) -> "_Connection":
        if not self._path.is_file():
            raise Failed(f"there is no file {self._path}")
        try:
            database = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            database.text_factory = bytes  # what is not UTF-8 is one row's matter
            return _Connection(database)
        except sqlite3.Error as error:
            raise Failed(str(error)) from error


class _Connection:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def schema(self, query: str) -> pa.Schema:
        try:
            found = self._database.execute(f"select * from ({query}\n) limit 0").description
        except sqlite3.Error as error:
            raise Failed(str(error)) from error
        return pa.schema([(_text(column[0]), pa.null()) for column in found])

    def batches(self, query: str) -> Generator[pa.RecordBatch]:
        try:
            cursor = self._database.execute(query)
            names = [_text(column[0]) for column in cursor.description]
            while rows := cursor.fetchmany(_ROWS):
                yield block(names, rows)
        except sqlite3.Error as error:
            raise Failed(str(error)) from error

    def cancel(self) -> None:
        with suppress(sqlite3.Error):  # it is closed by now
            self._database.interrupt()

    def close(self) -> None:
        self._database.close()


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def engine(parts: SplitResult, folder: Path) -> SQLite:
    """The engine of a URL such as sqlite:///users.db, whose path is relative to `folder`."""
    path = file_of(parts, folder)
    if path is None:
        raise ExportError("export.database: sqlite:// names no file; write sqlite:///users.db")
    return SQLite(path)
