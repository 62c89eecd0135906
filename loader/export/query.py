"""Exports that are the rows of a database query, in order of a key, so that a run can go on behind any row.

What is asked is `select * from (<query>) q where key > <last> order by key`: the database compares, by its own rules,
and the key's index, if there is one, spares it the sort.
"""

import json
import re
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Full, Queue
from typing import TypeVar
from urllib.parse import SplitResult, parse_qs, unquote

import pyarrow as pa
from anyio import from_thread

from loader.errors import ExportError, Stopped
from loader.export.address import without_secrets
from loader.export.engines import Connection, Engine, Failed, engine, place_of, split
from loader.export.table import Key
from loader.export.typed import value_of

#: A connection that breaks is made again behind the last row that came, after so many seconds each.
_AGAIN_S = (1.0, 5.0, 15.0, 40.0)
_LOOK_UP_S = 0.2
#: What is asked of a database after this, when it was told to stop, isn't waited for.
_STOP_S = 5.0

#: Options of drivers that are secrets.
_SECRET = re.compile("password|passcode|token|secret|credential|pkcs8")

_T = TypeVar("_T")


class Query:
    """A query of a database (see TableSource). `order_by` None: the query gives its rows in one order by itself."""

    comes_once = False

    def __init__(self, query: str, url: str, order_by: str | None, folder: Path) -> None:
        self._query = query.strip().rstrip("; \n\t")
        self._parts = split(url)
        self._engine: Engine = engine(self._parts, folder)
        self.order_by = order_by
        self._schema: pa.Schema | None = None
        self._select = "*"

    def __str__(self) -> str:
        return "the query"

    @property
    def database(self) -> str:
        """Which it is, without who asks, and how."""
        return place_of(self._parts)

    def columns(self) -> pa.Schema:
        """The columns. Raises ExportError if the database can't be asked, or doesn't take the query."""
        if self._schema is None:
            try:
                found = self._columns_of(self._query)
                self._select = self._engine.columns(found)
                if self._select != "*":
                    found = self._columns_of(f"select {self._select} from ({self._query}\n) q")
                self._schema = found
            except Failed as error:
                raise ExportError(f"export.query: {self._words(error)}") from error
        return self._schema

    def _columns_of(self, query: str) -> pa.Schema:
        connection = self._engine.connect()
        (found,) = _ahead(_one(lambda: connection.schema(query)), connection)
        return found

    def batches(self, after: Key | None) -> Iterator[pa.RecordBatch]:
        """The rows behind the key `after`. Raises ExportError before the first batch, Stopped behind it."""
        self.columns()
        waits = iter(_AGAIN_S)
        has_begun = False
        while True:
            try:
                for batch in self._ask(after):
                    has_begun = True
                    yield batch
                    if self.order_by is not None:
                        after = last_key(batch.column(self.order_by))
                        waits = iter(_AGAIN_S)
                return
            except Failed as error:
                wait = next(waits, None) if error.is_lost and self.order_by is not None else None
                if wait is None:
                    raise self._broken(error, has_begun=has_begun) from error
                _pause(wait)

    def _ask(self, after: Key | None) -> Iterator[pa.RecordBatch]:
        sql = f"select {self._select} from ({self._query}\n) q"
        if self.order_by is not None:
            key = f"q.{self._engine.quoted(self.order_by)}"
            behind = f" where {key} > {self._engine.literal(after)}" if after is not None else ""
            sql += f"{behind} order by {key}"
            if after is not None:
                self._check_alone(key, after)
        connection = self._engine.connect()
        yield from _ahead(connection.batches(sql), connection)

    def _check_alone(self, key: str, after: Key) -> None:
        """Raise ExportError unless one row has the key. Others that the database takes for the same would be passed by.

        If none has it, the row is gone, or the database compares the key not as it gave it: to SQLite each text is
        greater than any number, so behind a computed '0.5' there is nothing, and all that is left would be lost.
        """
        connection = self._engine.connect()
        sql = f"select count(*) as n from ({self._query}\n) q where {key} = {self._engine.literal(after)}"
        count = sum(batch.column(0)[0].as_py() for batch in _ahead(connection.batches(sql), connection))
        if count > 1:
            raise ExportError(
                f"export.order_by: {count:,} rows have the key {after!r}, as the database compares them; name a column "
                "that is unique"
            )
        if count == 0:
            raise ExportError(
                f"export.order_by: no row has the key {after!r}, to go on behind: it was removed, or the database "
                "doesn't find a row by a key of that type (then order by text or a whole number); start over with "
                "--fresh --yes"
            )

    def _broken(self, error: Failed, *, has_begun: bool) -> ExportError | Stopped:
        if not has_begun:
            return ExportError(f"export.query: {self._words(error)}")
        return Stopped(f"the query broke off: {self._words(error)}; all rows before are kept")

    def _words(self, error: Failed) -> str:
        """What the database says, without the password, and without the secrets of addresses that the query names."""
        return without_secrets(_masked(f"{self.database}: {error}", self._parts))


def last_key(keys: pa.Array) -> Key:
    """The last of a column's values, as it is given back to the database."""
    key = json.loads(value_of(keys.slice(len(keys) - 1), "", {})[0].as_py(), parse_float=str)
    return key if isinstance(key, int) else str(key)


def _masked(text: str, parts: SplitResult) -> str:
    secrets = {parts.password or "", unquote(parts.password or "")}
    for name, values in parse_qs(parts.query).items():  # there libpq takes them, too, and other drivers
        if _SECRET.search(name):
            secrets.update(values)
    for secret in secrets - {""}:
        text = text.replace(secret, "***")
    return text


def _pause(seconds: float) -> None:
    """Wait, unless nobody wants more."""
    waited = threading.Event()
    for _ in range(int(seconds / _LOOK_UP_S)):
        waited.wait(_LOOK_UP_S)
        _look_up()


def _look_up() -> None:
    with suppress(RuntimeError):  # not a worker of anyio's, but the main thread: a signal ends it
        from_thread.check_cancelled()


def _one(work: Callable[[], _T]) -> Generator[_T]:
    yield work()


def _ahead(items: Generator[_T], connection: Connection) -> Generator[_T]:
    """The same, made on a thread of its own, one ahead; then the connection is closed.

    Who waits looks up now and then whether that is still wanted: a database may sort for minutes before the first row
    comes. And while a batch is mapped, the next one is fetched.
    """
    made: Queue[tuple[_T] | BaseException | None] = Queue(1)
    is_left = threading.Event()

    def put(item: tuple[_T] | BaseException | None) -> None:
        while not is_left.is_set():
            with suppress(Full):
                made.put(item, timeout=_LOOK_UP_S)
                return

    def fetch() -> None:
        try:
            for item in items:
                put((item,))
                if is_left.is_set():
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it belongs to who waits
            put(error)
        finally:
            items.close()
            connection.close()

    thread = threading.Thread(target=fetch, name="query", daemon=True)
    thread.start()
    is_over = False
    try:
        while (item := _next(made)) is not None:
            if isinstance(item, BaseException):
                is_over = True
                raise item
            yield item[0]
        is_over = True
    finally:
        if not is_over:
            is_left.set()
            connection.cancel()
        thread.join(_STOP_S)


def _next(made: "Queue[_T]") -> _T:
    while True:
        with suppress(Empty):
            return made.get(timeout=_LOOK_UP_S)
        _look_up()
