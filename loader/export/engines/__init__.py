"""The databases that `[export] query` can ask, a file each: how to connect, and how rows come as Arrow record batches.

An engine is found by the scheme of the URL, and its driver is imported only then.
"""

from collections.abc import Callable, Generator, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit

import pyarrow as pa

from loader.errors import ExportError
from loader.export.typed import array_of

#: By scheme: the module, the package it needs, and the extra that brings that ("": nothing is needed).
_KNOWN = {
    "postgresql": ("postgresql", "adbc-driver-postgresql", "postgresql"),
    "mysql": ("mysql", "PyMySQL", "mysql"),
    "sqlite": ("sqlite", "", ""),
    "duckdb": ("duckdb", "duckdb", "duckdb"),
    "snowflake": ("snowflake", "adbc-driver-manager", "snowflake"),
}
_ALIASES = {"postgres": "postgresql", "mariadb": "mysql", "sqlite3": "sqlite"}


class Failed(Exception):
    """The database, or the way to it, says no. `is_lost`: the connection is gone, and another may do."""

    def __init__(self, words: str, *, is_lost: bool = False) -> None:
        super().__init__(words.strip())
        self.is_lost = is_lost


class Connection(Protocol):
    """One connection, in a session that can't write as far as the database has such. Methods raise Failed."""

    def schema(self, query: str) -> pa.Schema:
        """The columns of a query's rows; of type null, where each row may have another."""
        ...

    def batches(self, query: str) -> Generator[pa.RecordBatch]:
        """A query's rows as they come, never all of them in memory."""
        ...

    def cancel(self) -> None:
        """Have what another thread waits for end soon, with an error."""
        ...

    def close(self) -> None: ...


class Engine(Protocol):
    """One kind of database."""

    def quoted(self, name: str) -> str:
        """A column's name in SQL."""
        ...

    def literal(self, key: str | int) -> str:
        """A value in SQL, to be compared with a column of any type."""
        ...

    def columns(self, schema: pa.Schema) -> str:
        """What to select of a query called q with these columns: all, or some in a form that Arrow has, too."""
        ...

    def connect(self) -> Connection:
        """Raises Failed."""
        ...


def split(url: str) -> SplitResult:
    """The URL of a database, whose scheme is known. Raises ExportError, which doesn't show it: it may be a secret."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # reading it checks it
    except ValueError:
        parts = urlsplit("")
    scheme = _ALIASES.get(parts.scheme, parts.scheme)
    if scheme not in _KNOWN:
        near = get_close_matches(scheme, _KNOWN, 1, 0.5)
        guess = f"; did you mean {near[0]}://?" if near else ""
        raise ExportError(
            f"export.database: not the URL of a database, such as {', '.join(f'{each}://' for each in _KNOWN)}{guess} "
            "(in a password, @ : / ? # % are written %40 %3A %2F %3F %23 %25)"
        )
    if parts.netloc.count("@") > 1:
        raise ExportError("export.database: an @ in the user's name or password is written %40")
    return parts._replace(scheme=scheme)


def place_of(parts: SplitResult) -> str:
    """The address of a database without user, password and options."""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def engine(parts: SplitResult, folder: Path) -> Engine:
    """The engine of a URL. Paths are relative to `folder`. Raises ExportError if its driver isn't installed."""
    module, package, extra = _KNOWN[parts.scheme]
    try:
        made: Callable[[SplitResult, Path], Engine] = import_module(f"loader.export.engines.{module}").engine
    except ImportError as error:
        raise ExportError(
            f"export.database: {parts.scheme} needs {package}, which is not installed ({error}): "
            f"pip install 'directory-loader[{extra}]'"
        ) from error
    return made(parts, folder)


def double_quoted(name: str) -> str:
    """A name as standard SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def single_quoted(key: str | int) -> str:
    """A value as standard SQL has it."""
    return str(key) if isinstance(key, int) else "'" + key.replace("'", "''") + "'"


def file_of(parts: SplitResult, folder: Path) -> Path | None:
    """The file that sqlite:///users.db and the like mean; None: none. Four slashes begin an absolute path."""
    path = unquote(parts.netloc + parts.path)
    if parts.path.startswith("/") and not parts.netloc:
        path = path[1:]
    return folder / path if path else None


def block(names: Sequence[str], rows: Sequence[Sequence[object]]) -> pa.RecordBatch:
    """Rows of Python values as columns, each of one type if its values are."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pa.RecordBatch.from_arrays([array_of(values) for values in columns], names=list(names))
