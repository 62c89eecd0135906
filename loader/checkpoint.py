"""The checkpoint: one SQLite file that says of every settled row what became of it, and where reading can go on.

A settled batch is one row of `batch`, or several are: its span, its users as a JSON array (null where a row in between
is not its own), and the outcome they share. Rows with another outcome, and rows far from the batch's span, stand alone
in `outcome`. Rows that a retry sends again keep what they had in `former`, until they have another. The view `results`
shows all as one row a row. Commits are durable (WAL, synchronous=FULL) before any
place in flight is freed; one thread at a time writes.
"""

import contextlib
import fcntl
import heapq
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
import orjson

from loader.batch import Batch
from loader.errors import CheckpointError, InUse, Stopped
from loader.outcome import GOOD, Code, Outcome, Settled
from loader.record import Mark
from loader.snapshot import Found, Note, Snapshot
from loader.span import SpanSet

VERSION = 3

_SCHEMA = """
CREATE TABLE load (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE mark (row INTEGER PRIMARY KEY, offset INTEGER NOT NULL, line INTEGER NOT NULL, digest TEXT NOT NULL,
    file INTEGER NOT NULL, after TEXT NOT NULL);
CREATE TABLE batch (
    id INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,            -- the span's rows, both inclusive
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,            -- rows of the span that are this batch's own
    users TEXT NOT NULL,               -- JSON array, one entry a row of the span; null: not its own
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    target_code TEXT NOT NULL,
    http_status INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    settled_at REAL NOT NULL           -- unix time
);
CREATE TABLE outcome (
    row INTEGER PRIMARY KEY,
    user TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    target_code TEXT NOT NULL,
    http_status INTEGER NOT NULL,
    attempts INTEGER NOT NULL
);
CREATE TABLE former (                  -- as outcome: of rows that are sent again, until they have a new one
    row INTEGER PRIMARY KEY,
    user TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    target_code TEXT NOT NULL,
    http_status INTEGER NOT NULL,
    attempts INTEGER NOT NULL
);
CREATE TABLE moment (                  -- the course of the load: each second at first, then ever fewer
    at REAL PRIMARY KEY,               -- unix time
    elapsed_s REAL NOT NULL,           -- since its run began; rows are over all runs, what is of the wire over this
    rows INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    rows_per_s REAL NOT NULL,          -- over some ten seconds
    requests INTEGER NOT NULL,
    refused INTEGER NOT NULL,          -- for the rate: 429
    broken INTEGER NOT NULL,           -- no answer, or 5xx
    on_wire INTEGER NOT NULL,
    at_once INTEGER NOT NULL,          -- so many were allowed on the wire
    p50_s REAL,                        -- of the last second's answers; null: there were none
    p95_s REAL,
    brake TEXT                         -- why it was not faster
) WITHOUT ROWID;
CREATE VIEW results AS
    SELECT batch.first + entry.key AS row, entry.value AS user, code, message, target_code,
           nullif(http_status, 0) AS http_status, attempts
    FROM batch, json_each(batch.users) AS entry WHERE entry.type = 'text'
    UNION ALL
    SELECT row, user, code, message, target_code, nullif(http_status, 0), attempts FROM outcome
    UNION ALL
    SELECT row, user, code, message, target_code, nullif(http_status, 0), attempts FROM former;
"""

_MERGED_INTO = "merged into row "

# What reopen() asks. A user's first row to send again is the first of those with such an outcome and those that were
# merged into one of them. Rejected, skipped and unchanged rows stay: nothing was sent for them, and nothing would be.
_AGAIN = """
CREATE TEMP TABLE bad (row INTEGER PRIMARY KEY, user TEXT NOT NULL);
CREATE TEMP TABLE since (user TEXT PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID;
CREATE TEMP TABLE again (row INTEGER PRIMARY KEY, batch INTEGER)
"""
_SINCE = f"""
INSERT INTO since SELECT user, min(row) FROM (
    SELECT user, row FROM bad UNION ALL
    SELECT outcome.user, outcome.row FROM outcome
    JOIN bad ON bad.row = CAST(substr(outcome.message, {len(_MERGED_INTO) + 1}) AS INTEGER)
    WHERE outcome.code = 'SUPERSEDED'
) GROUP BY user
"""
_NEVER_SENT = (Code.REJECTED.value, Code.SKIPPED.value, Code.UNCHANGED.value)

#: A batch of 100 users takes some 3 kB: on SQLite's own pages of 4 kB, a third of the file would be air.
_PAGE_BYTES = 16_384

#: So many users, of batches that go into one commit, may stand in one row.
_JOINED_USERS = 5_000

#: A batch's span may hold this many rows that aren't its own for each that is; rows farther off stand alone.
_SPREAD = 2

#: What is ours to mend, and not the disk's.
_OURS = (sqlite3.IntegrityError, sqlite3.ProgrammingError)

#: SQLite's words for a disk that doesn't do what it should.
_OF_DISK = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


_Item = TypeVar("_Item", bound=tuple[Any, ...])


class Entry(NamedTuple):
    """What one commit takes from one batch (None: rows that were never sent) and the reading around it.

    `position`: bytes of the export, as stored, that are read, and the last row in them.
    """

    batch: Batch | None = None
    outcomes: Sequence[Outcome] = ()
    settled: Sequence[Settled] = ()
    mark: Mark | None = None
    position: tuple[int, int] | None = None

    def rows(self) -> Iterator[int]:
        """All that it settles."""
        yield from (item.row for item in self.settled)
        if self.batch is not None:
            yield from self.batch.numbers
            for merged in self.batch.merged.values():
                yield from merged


class Span(NamedTuple):
    """Rows next to each other that were never sent, and share an outcome. `own`, `users`: as `batch` has them."""

    first: int
    last: int
    own: int
    users: str


class ResultRow(NamedTuple):
    """One line of the results. `http_status` None: nothing was sent, or nothing answered."""

    row: int
    user: str
    code: str
    message: str
    target_code: str
    http_status: int | None
    attempts: int


class Moment(NamedTuple):
    """One row of the load's course: see the table `moment`."""

    at: float
    elapsed_s: float
    rows: int
    failures: int
    rows_per_s: float
    requests: int
    refused: int
    broken: int
    on_wire: int
    at_once: int
    p50_s: float | None
    p95_s: float | None
    brake: str | None

    @classmethod
    def of(cls, now: Snapshot) -> "Moment":
        """What a snapshot leaves."""
        wire = now.wire
        return cls(
            now.at,
            now.elapsed_s,
            now.rows,
            now.failed,
            now.now_per_s,
            wire.requests,
            wire.refused,
            wire.broken,
            wire.on_wire,
            now.at_once,
            wire.p50_s,
            wire.p95_s,
            now.found.brake,
        )


class Retrying(NamedTuple):
    """A retry that is not finished: it sends so many `rows` again; those `kept`, by code, have the outcome they had."""

    rows: int
    kept: dict[Code, int]


class Reason(NamedTuple):
    """So many rows with one outcome, of which the API said the same."""

    target_code: str
    http_status: int | None
    rows: int


class Checkpoint:
    """An open checkpoint. Use as a context manager; methods block and belong into a thread."""

    def __init__(self, path: Path, db: sqlite3.Connection, *, is_read_only: bool = False) -> None:
        self.path = path
        self._db = db
        self._is_read_only = is_read_only
        self._is_retried = db.execute("SELECT 1 FROM former LIMIT 1").fetchone() is not None

    @classmethod
    def open(cls, path: Path, *, create: bool) -> "Checkpoint":
        """Open to write; a new one is readable by its owner alone. Raises CheckpointError."""
        is_new = not os.path.exists(path)
        if is_new and not create:
            raise CheckpointError(f"there is no checkpoint {path}")
        try:
            if is_new:
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            with _closed_on_error(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as db:
                if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                    db.execute(f"PRAGMA page_size={_PAGE_BYTES}")
                    db.executescript(f"BEGIN; PRAGMA user_version={VERSION}; {_SCHEMA} COMMIT;")
                _check(path, db)  # before anything is changed: it may be another program's
                db.execute("PRAGMA fullfsync=ON")  # macOS: else a sync ends in the drive's memory
                found = cls(path, db)
                found._with_log()
                return found
        except sqlite3.Error as error:
            raise CheckpointError(_unusable(path, error)) from error
        except OSError as error:
            raise CheckpointError(f"checkpoint {path}: {error.strerror}") from error

    @classmethod
    @contextlib.contextmanager
    def draft(cls, path: Path) -> Iterator["Checkpoint"]:
        """A new checkpoint that nobody sees: durable behind the block, it waits to be published, or discarded.

        So most of the file can be written once, without a log, and whoever reads what stands at `path` now is not in
        the way. Raises CheckpointError.
        """
        part = _part_of(path)
        discard(path)
        try:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            with contextlib.closing(sqlite3.connect(part, isolation_level=None, check_same_thread=False)) as db:
                for pragma in (
                    "locking_mode=EXCLUSIVE",
                    "journal_mode=MEMORY",
                    "synchronous=FULL",
                    f"page_size={_PAGE_BYTES}",
                    "fullfsync=ON",
                ):
                    db.execute(f"PRAGMA {pragma}").fetchone()
                db.executescript(f"BEGIN; PRAGMA user_version={VERSION}; {_SCHEMA} COMMIT;")
                yield cls(path, db)
                db.execute("PRAGMA journal_mode=WAL").fetchone()  # whoever opens it need not wait for others to switch
        except sqlite3.Error as error:
            raise CheckpointError(_unusable(path, error)) from error
        except OSError as error:
            raise CheckpointError(f"checkpoint {path}: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Open to read, also while a run writes: all that is read is of one moment. Raises CheckpointError."""
        if not os.path.isfile(path):  # Path.is_file() raises for a name that is too long
            raise CheckpointError(f"there is no checkpoint {path}; {_ANOTHER}")
        try:
            with _closed_on_error(_reading(path)) as db:
                db.execute("BEGIN")
                _check(path, db, _ANOTHER)
                return cls(path, db, is_read_only=True)
        except sqlite3.Error as error:
            raise CheckpointError(_unusable(path, error, _ANOTHER)) from error

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._db.close()
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, _OURS):
            raise (CheckpointError if self._is_read_only else Stopped)(_unusable(self.path, error)) from error

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Around what comes before anything is sent: a checkpoint that fails there forbids it: CheckpointError."""
        try:
            yield
        except Stopped as error:
            raise CheckpointError(str(error)) from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, _OURS):
                raise
            raise CheckpointError(_unusable(self.path, error)) from error

    # What load it is

    def get(self, key: str) -> Any:
        """A fact of the load, or None."""
        found = self._db.execute("SELECT value FROM load WHERE key = ?", (key,)).fetchone()
        return None if found is None else json.loads(found[0])

    def put(self, **facts: Any) -> None:
        """Set facts of the load, durably and together. Raises Stopped if the disk doesn't take them."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO load VALUES (?, ?)", [(key, json.dumps(value)) for key, value in facts.items()]
            )

    @property
    def good(self) -> frozenset[Code]:
        """The outcomes that make no load fail: the good ones, and those that its settings accept."""
        return GOOD | {Code(code) for code in self.get("accept") or ()}

    def merge_log(self) -> None:
        """Bring all that is committed into the file itself, as far as nobody reads what was there before."""
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    # What is settled

    def commit(self, entries: Iterable[Entry], note: Note | None = None) -> None:
        """Make the outcomes of `entries` durable: all or none. Raises Stopped if the disk doesn't take them."""
        now = time.time()
        alike: list[_Alike] = []
        batches: list[tuple[Any, ...]] = []
        singles: list[tuple[Any, ...]] = []
        marks: list[Mark] = []
        renewed: list[tuple[int]] = []
        position: tuple[int, int] | None = None
        for entry in entries:
            position = position if entry.position is None else entry.position
            if self._is_retried:
                renewed += ((row,) for row in entry.rows())
            singles += [(item.row, item.user, *_columns(item.outcome)) for item in entry.settled]
            if entry.mark is not None:
                marks.append(entry.mark)
            if entry.batch is None:
                continue
            if (one := _alike(entry.batch, entry.outcomes)) is not None:
                alike.append(one)
            else:
                _spread(entry.batch, entry.outcomes, now, batches, singles)
        batches += (
            (first, first + len(users) - 1, len(users), orjson.dumps(users).decode(), *_columns(outcome), now)
            for first, users, outcome in _joined(alike)
        )
        rows: list[tuple[str, Sequence[tuple[Any, ...]]]] = [
            ("INSERT INTO batch VALUES (NULL,?,?,?,?,?,?,?,?,?,?)", batches),
            ("INSERT INTO outcome VALUES (?,?,?,?,?,?,?)", singles),
            ("DELETE FROM former WHERE row = ?", renewed),
            ("INSERT OR REPLACE INTO mark VALUES (?,?,?,?,?,?)", marks),
            (
                "INSERT OR REPLACE INTO load VALUES ('position', ?)",
                [] if position is None else [(json.dumps(position),)],
            ),
            *(_noted(note) if note is not None else ()),
        ]
        # A single row is a transaction of its own, and that is most often all, where a request carries one user.
        with self._writing() if sum(len(each) for _, each in rows) == 1 else self._transaction():
            for statement, each in rows:
                if each:
                    self._db.executemany(statement, each)

    def begin_with(
        self,
        code: Code,
        spans: Iterable[Span],
        marks: Iterable[Mark],
        cleared: Iterable[tuple[int, str, Sequence[str]]],
        **facts: Any,
    ) -> None:
        """What is settled before anything is sent, all of it or nothing: spans with one outcome, and facts of the load.

        `marks`: those that are known.

        `cleared`: rows with which attributes are to be removed, as row, user and names.
        """
        now = time.time()
        same = (*_columns(Outcome(code)), now)
        with self._transaction():
            self._db.executemany("INSERT INTO mark VALUES (?,?,?,?,?,?)", marks)
            self._db.executemany("INSERT INTO batch VALUES (NULL,?,?,?,?,?,?,?,?,?,?)", (span + same for span in spans))
            self._db.execute("CREATE TABLE cleared (row INTEGER PRIMARY KEY, user TEXT, names TEXT)")
            self._db.executemany(
                "INSERT INTO cleared VALUES (?, ?, ?)", ((row, user, json.dumps(names)) for row, user, names in cleared)
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO load VALUES (?, ?)", [(key, json.dumps(value)) for key, value in facts.items()]
            )

    def cleared(self, first: int, last: int, most: int = -1) -> list[tuple[int, str, list[str]]]:
        """The rows from `first` to `last` with which attributes are removed, in order: row, user and names."""
        found = self._db.execute(
            "SELECT row, user, names FROM cleared WHERE row BETWEEN ? AND ? ORDER BY row LIMIT ?", (first, last, most)
        ).fetchall()
        return [(row, user, json.loads(names)) for row, user, names in found]

    def count_behind(self, row: int, code: str) -> int:
        """How many rows behind `row` have the outcome."""
        many = self._db.execute("SELECT first, users FROM batch WHERE code = ? AND last > ?", (code, row))
        count = sum(
            user is not None and at > row for first, users in many for at, user in enumerate(orjson.loads(users), first)
        )
        (single,) = self._db.execute("SELECT count(*) FROM outcome WHERE code = ? AND row > ?", (code, row)).fetchone()
        return count + int(single)

    def users(self, codes: Collection[str]) -> Iterator[tuple[int, list[str | None]]]:
        """The users of rows with one of `codes`, many at a time, in no order: the first one's row, and one a row.

        None: a row that has another outcome.
        """
        for first, users in self._db.execute(f"SELECT first, users FROM batch {_where(codes)}", tuple(codes)):
            yield first, orjson.loads(users)
        for row, user in self._db.execute(f"SELECT row, user FROM outcome {_where(codes)}", tuple(codes)):
            yield row, [user]

    def reopen(self, codes: Collection[str]) -> int:
        """Take the rows whose outcome is one of `codes` back out, so that the load is unfinished. Returns how many.

        What they had is put aside, and stands until they have another. With each goes whatever of the same user was
        sent with it or after it: rows merged into it lost their values with it, and later ones must be sent after it
        again to win. All or nothing, and durable.
        """
        with self._transaction():
            for table in _AGAIN.split(";"):  # not executescript: it would commit first
                self._db.execute(table)
            # Row by row, not by the view: SQLite's json_each (3.40) ends a key at a NUL.
            self._db.executemany("INSERT INTO bad VALUES (?, ?)", (found[:2] for found in self._settled(codes)))
            self._db.execute(_SINCE)
            self._db.execute(
                "INSERT INTO again SELECT outcome.row, NULL FROM outcome JOIN since USING (user)"
                " WHERE outcome.row >= since.row AND code NOT IN (?, ?, ?)",
                _NEVER_SENT,
            )
            self._db.executemany(
                "INSERT INTO again SELECT ?1, ?2 FROM since WHERE user = ?3 AND row <= ?1",
                (
                    (found.row, batch, found.user)
                    for (batch,) in self._db.execute("SELECT id FROM batch WHERE code NOT IN (?, ?, ?)", _NEVER_SENT)
                    for found in self._rows(batch)
                ),
            )
            count: int = self._db.execute("SELECT count(*) FROM again").fetchone()[0]
            if count:
                self._is_retried = True
                self._db.execute("INSERT INTO former SELECT * FROM outcome WHERE row IN (SELECT row FROM again)")
                self._db.execute("DELETE FROM outcome WHERE row IN (SELECT row FROM again)")
                self._thin_out()
                self._db.execute("DELETE FROM load WHERE key IN ('finished_at', 'position')")
                facts = {"retried_at": time.time(), "again": Retrying(count, self.counts())}
                self._db.executemany(
                    "INSERT OR REPLACE INTO load VALUES (?, ?)",
                    [(key, json.dumps(value)) for key, value in facts.items()],
                )
            for table in ("bad", "since", "again"):
                self._db.execute(f"DROP TABLE {table}")
        return count

    def _thin_out(self) -> None:
        """Take the rows in `again` out of their batches."""
        again = self._db.execute("SELECT batch, json_group_array(row) FROM again WHERE batch NOT NULL GROUP BY batch")
        for batch, rows in again:
            first, users, *same = self._db.execute(
                "SELECT first, users, code, message, target_code, http_status, attempts FROM batch WHERE id = ?",
                (batch,),
            ).fetchone()
            gone = set(orjson.loads(rows))
            own = {row: user for row, user in enumerate(orjson.loads(users), first) if user is not None}
            self._db.executemany(
                "INSERT INTO former VALUES (?,?,?,?,?,?,?)",
                ((row, user, *same) for row, user in own.items() if row in gone),
            )
            left = {row: user for row, user in own.items() if row not in gone}
            if left:
                self._db.execute(
                    "UPDATE batch SET first = ?, last = ?, count = ?, users = ? WHERE id = ?",
                    (min(left), max(left), len(left), _users(left), batch),
                )
            else:
                self._db.execute("DELETE FROM batch WHERE id = ?", (batch,))

    def settled(self) -> SpanSet:
        """The rows that have an outcome."""
        batches = self._db.execute(
            "SELECT first, last, CASE WHEN count < last - first + 1 THEN users END FROM batch ORDER BY first"
        )
        singles = self._db.execute("SELECT row FROM outcome ORDER BY row")
        spans = heapq.merge(_in_order(_runs(*found) for found in batches), ((row, row) for (row,) in singles))
        return SpanSet(spans, in_order=True)

    def marks(self) -> list[Mark]:
        """The places where reading can go on, in order of row."""
        found = self._db.execute("SELECT row, offset, line, digest, file, after FROM mark ORDER BY row")
        return [Mark(*each) for each in found]

    def forget_marks(self) -> None:
        """Another export may be read from now on."""
        with self._transaction():
            self._db.execute("DELETE FROM mark")

    def start_at(self, row: int) -> Mark | None:
        """The last mark before `row`, from which to read on. Reading makes the marks behind it again, the same."""
        found = self._db.execute(
            "SELECT row, offset, line, digest, file, after FROM mark WHERE row <= ? ORDER BY row DESC LIMIT 1", (row,)
        ).fetchone()
        return Mark(*found) if found else None

    def now(self) -> Snapshot | None:
        """The load at the last moment that was noted; None: there is none."""
        found = self._db.execute("SELECT value FROM load WHERE key = 'now'").fetchone()
        return None if found is None else msgspec.json.decode(found[0], type=Snapshot)

    def found(self) -> Found:
        """What the runs before found of the target."""
        found = self._db.execute("SELECT value FROM load WHERE key = 'found'").fetchone()
        return Found() if found is None else msgspec.json.decode(found[0], type=Found)

    def course(self) -> list[Moment]:
        """How the load went, over all its runs, in order of time."""
        return [Moment._make(found) for found in self._db.execute("SELECT * FROM moment ORDER BY at")]

    def retrying(self) -> Retrying | None:
        """The retry that this load is in; None: it is in none."""
        found = self.get("again")
        if found is None or self.get("finished_at") is not None:
            return None
        rows, kept = found
        return Retrying(rows, {Code(code): count for code, count in kept.items()})

    def outcomes(self) -> dict[Code, int]:
        """Rows by code, with what those had that a retry has not sent again yet: as results() has them."""
        former = dict(self._db.execute("SELECT code, count(*) FROM former GROUP BY code"))
        return dict(Counter(self.counts()) + Counter({Code(code): count for code, count in former.items()}))

    def counts(self) -> dict[Code, int]:
        """Rows that are settled, by code."""
        found = self._db.execute(
            "SELECT code, sum(n) FROM (SELECT code, sum(count) AS n FROM batch GROUP BY code"
            " UNION ALL SELECT code, count(*) FROM outcome GROUP BY code) GROUP BY code"
        )
        return {Code(code): count for code, count in found}

    def reasons(self, code: str, most: int = 10) -> list[Reason]:
        """What the API said where rows ended in `code`, the most frequent first."""
        found = self._db.execute(
            "SELECT target_code, nullif(http_status, 0), sum(n) FROM ("
            " SELECT target_code, http_status, sum(count) AS n FROM batch WHERE code = ?1 GROUP BY 1, 2"
            " UNION ALL SELECT target_code, http_status, count(*) FROM outcome WHERE code = ?1 GROUP BY 1, 2"
            " UNION ALL SELECT target_code, http_status, count(*) FROM former WHERE code = ?1 GROUP BY 1, 2"
            ") GROUP BY 1, 2 ORDER BY 3 DESC LIMIT ?2",
            (code, most),
        )
        return [Reason(*each) for each in found]

    def results(self, codes: Collection[str] = ()) -> Iterator[ResultRow]:
        """The settled rows in order of row, all or those with one of `codes`. Holds a few batches at a time.

        With what those had that a retry has not sent again yet.
        """
        return heapq.merge(self._settled(codes), self._singles("former", codes))

    def _settled(self, codes: Collection[str]) -> Iterator[ResultRow]:
        # The batches are sorted by their ids alone, and each is fetched when its turn comes.
        ids = self._db.execute(f"SELECT id FROM batch {_where(codes)} ORDER BY first", tuple(codes))
        return heapq.merge(_in_order(self._rows(at) for (at,) in ids), self._singles("outcome", codes))

    def _singles(self, table: Literal["outcome", "former"], codes: Collection[str]) -> Iterator[ResultRow]:
        found = self._db.execute(
            "SELECT row, user, code, message, target_code, nullif(http_status, 0), attempts"
            f" FROM {table} {_where(codes)} ORDER BY row",
            tuple(codes),
        )
        return map(ResultRow._make, found)

    def _rows(self, batch: int) -> list[ResultRow]:
        first, users, *same = self._db.execute(
            "SELECT first, users, code, message, target_code, nullif(http_status, 0), attempts FROM batch WHERE id = ?",
            (batch,),
        ).fetchone()
        return [ResultRow(row, user, *same) for row, user in enumerate(orjson.loads(users), first) if user is not None]

    def _with_log(self) -> None:
        # Fetched, as only that tells of an I/O error; after it, and without a log, a commit would end with the
        # removal of a file, which is not synced.
        self._db.execute("PRAGMA journal_mode=WAL").fetchone()
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("BEGIN IMMEDIATE")  # opens the log, or says why that can't be
        self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, and durable. Raises Stopped if the disk doesn't take it."""
        with self._writing():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises Stopped if the disk doesn't take what is written."""
        try:
            yield
        except sqlite3.DatabaseError as error:  # disk full, I/O error, file damaged
            if isinstance(error, _OURS):
                raise
            raise Stopped(
                f"can't write the checkpoint {self.path}: {error}; what was settled before is safe"
            ) from error


def _where(codes: Collection[str]) -> str:
    """Rows with one of the codes; none given: all."""
    return f"WHERE code IN ({', '.join('?' * len(codes))})" if codes else ""


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def publish(path: Path) -> None:
    """Put a draft where there is no checkpoint. Raises CheckpointError."""
    try:
        _part_of(path).rename(path)
        sync_folder(path.absolute().parent)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in it durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def discard(path: Path) -> None:
    """Remove a draft, if there is one."""
    remove(_part_of(path))


def remove(path: Path) -> None:
    """Remove a checkpoint, if it is there, with what SQLite puts beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _closed_on_error(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield db
    except BaseException:
        db.close()
        raise


def _connected(path: Path, mode: Literal["ro", "rw"]) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def _reading(path: Path) -> sqlite3.Connection:
    """What changes nothing. But who closes the file last takes its log away, if it may write: so it may, if it can."""
    if not (os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)):
        return _connected(path, "ro")
    db = _connected(path, "rw")
    db.execute("PRAGMA query_only=ON")
    return db


#: What to do about a file that is no checkpoint: if one was to be made there, and if one was to be read.
_ELSEWHERE = "move it away, or name another file in checkpoint.path"
_ANOTHER = "loader run makes it, beside the export or where checkpoint.path says"


def _check(path: Path, db: sqlite3.Connection, way_out: str = _ELSEWHERE) -> None:
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute("SELECT count(*) FROM load")
    except sqlite3.Error as error:
        raise CheckpointError(_unusable(path, error, way_out)) from error
    if version != VERSION:
        way_out = "a newer loader reads it" if version > VERSION else "finish its load with the loader that began it"
        raise CheckpointError(f"{path} is of version {version}, and this loader reads version {VERSION}; {way_out}")


def _unusable(path: Path, error: sqlite3.Error, way_out: str = _ELSEWHERE) -> str:
    """Why it can't be used. `way_out`: if it is none."""
    if path.is_dir():
        return f"checkpoint {path} is a folder; name a file in checkpoint.path"
    if "malformed" in str(error):
        return f"{path} is damaged ({error}); move it away to load all rows again, or bring back a copy of it"
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the bits above say more of the same
    if kind == sqlite3.SQLITE_BUSY and (process := runner(path)) not in (None, str(os.getpid())):
        return f"the checkpoint {path} is being written by a run (process {process}); try again in a moment"
    if kind == sqlite3.SQLITE_BUSY:
        return f"the checkpoint {path} is in use by another program ({error}); end that, and run this again"
    if kind in _OF_DISK:
        return f"can't use the checkpoint {path}: {error}; see to its disk, or set checkpoint.path to put it elsewhere"
    return f"{path} is not a checkpoint ({error}); {way_out}"


def _in_order(groups: Iterable[Sequence[_Item]]) -> Iterator[_Item]:
    """The items of groups that ascend by their first items, each in order itself.

    Groups may overlap a little (a row that was held back goes with a later batch), so items wait in a heap until no
    group that is still to come can begin before them.
    """
    waiting: list[_Item] = []
    for group in groups:
        while waiting and waiting[0] < group[0]:
            yield heapq.heappop(waiting)
        for item in group:
            heapq.heappush(waiting, item)
    while waiting:
        yield heapq.heappop(waiting)


def _runs(first: int, last: int, users: str | None) -> list[tuple[int, int]]:
    """The rows of a batch's span that are its own, as spans. `users` None: all of them."""
    if users is None:
        return [(first, last)]
    holes = [row for row, user in enumerate(orjson.loads(users), first) if user is None]
    edges = zip([first - 1, *holes], [*holes, last + 1], strict=True)
    return [(before + 1, behind - 1) for before, behind in edges if behind - before > 1]


def _columns(outcome: Outcome) -> tuple[str, str, str, int, int]:
    return (
        outcome.code.value,
        outcome.message,
        outcome.target_code,
        outcome.http_status,
        outcome.attempts,
    )


def _users(own: dict[int, str]) -> str:
    """A batch's users by row, as they stand in its span."""
    return orjson.dumps([own.get(row) for row in range(min(own), max(own) + 1)]).decode()


class _Alike(NamedTuple):
    """Rows next to each other that end alike: the first one's number, and one user a row."""

    first: int
    users: list[str]
    outcome: Outcome


def _alike(batch: Batch, outcomes: Sequence[Outcome]) -> _Alike | None:
    """A batch as such rows, which most are. None: it isn't, or rows were merged."""
    count = len(outcomes)
    is_so = count == 1 or (outcomes.count(outcomes[0]) == count and _are_consecutive(batch.numbers))
    return _Alike(batch.numbers[0], list(batch.users), outcomes[0]) if is_so and not batch.merged else None


def _joined(found: list[_Alike]) -> Iterator[_Alike]:
    """Those made one that follow each other and end alike.

    Of requests that carry one user each, that is most of the file.
    """
    found.sort(key=itemgetter(0))
    before: _Alike | None = None
    for rows in found:
        if before is not None:
            first, users, outcome = before
            is_next = rows.first == first + len(users) and len(users) + len(rows.users) <= _JOINED_USERS
            if is_next and rows.outcome == outcome:
                users += rows.users
                continue
            yield before
        before = rows
    if before is not None:
        yield before


def _noted(note: Note) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """What a note leaves: statements, and rows for each."""
    now = note.snapshot
    facts = {"found": now.found, "now": now}
    yield (
        "INSERT OR REPLACE INTO load VALUES (?, ?)",
        [(key, msgspec.json.encode(value).decode()) for key, value in facts.items()],
    )
    if note.is_moment:
        yield f"INSERT OR REPLACE INTO moment VALUES ({', '.join('?' * len(Moment._fields))})", [Moment.of(now)]


def _are_consecutive(numbers: Sequence[int]) -> bool:
    """Not by their ends alone: in 10, 13, 12, where row 11 was merged into 13, the last less the first fits, too."""
    whole = range(numbers[0], numbers[0] + len(numbers))
    return numbers == whole or list(numbers) == list(whole)


def _spread(
    batch: Batch,
    outcomes: Sequence[Outcome],
    now: float,
    batches: list[tuple[Any, ...]],
    singles: list[tuple[Any, ...]],
) -> None:
    """A batch as one span with one outcome, as far as it is one, and single rows for the rest."""
    numbers, users = batch.numbers, batch.users
    common = Counter(outcomes).most_common(1)[0][0]
    own = {n: u for n, u, o in zip(numbers, users, outcomes, strict=True) if o == common}
    reach = max(own) - (1 + _SPREAD) * len(own)
    near = {number: user for number, user in own.items() if number > reach}
    batches.append((min(near), max(near), len(near), _users(near), *_columns(common), now))
    singles += (
        (number, user, *_columns(outcome))
        for number, user, outcome in zip(numbers, users, outcomes, strict=True)
        if number not in near
    )
    for at, (number, user) in enumerate(zip(numbers, users, strict=True)) if batch.merged else ():
        outcome = Outcome(Code.SUPERSEDED, f"{_MERGED_INTO}{number}", attempts=outcomes[at].attempts)
        singles += ((row, user, *_columns(outcome)) for row in batch.merged.get(number, ()))


@contextlib.contextmanager
def lock(path: Path, setting: str = "checkpoint.path") -> Iterator[None]:
    """Keep other runs off the checkpoint, or what else `setting` puts at `path`, for as long as this lasts.

    Raises InUse if one has the checkpoint, CheckpointError if what else it is.
    """
    name = path.with_name(path.name + ".lock")
    what = "checkpoint" if setting == "checkpoint.path" else "state"
    while True:
        try:
            handle = os.open(name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise CheckpointError(f"{what} {path}: its folder is not there; make it, or set {setting}") from error
            raise CheckpointError(
                f"{what} {path}: can't make {name.name} beside it: {error.strerror}; {setting} can put both elsewhere"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 100, 0).decode("ascii", "replace").strip()
            os.close(handle)
            in_use = InUse(f"{path} is in use by another run{f' (process {holder})' if holder else ''}")
            raise in_use if what == "checkpoint" else CheckpointError(str(in_use)) from error
        try:
            if os.fstat(handle).st_ino == name.stat().st_ino:
                break
        except FileNotFoundError:
            pass
        os.close(handle)  # the run before removed it between our opening and our locking
    try:
        try:
            os.truncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise CheckpointError(f"{what} {path}: can't write {name.name} beside it: {error.strerror}") from error
        yield
    finally:
        with contextlib.suppress(OSError):  # it may stay: what counts is who holds it
            name.unlink()
        os.close(handle)


def runner(path: Path) -> str | None:
    """The process that runs a load into the checkpoint at `path`, or None."""
    try:
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(handle, 100, 0).decode("ascii", "replace").strip()
    finally:
        os.close(handle)
    return None
