"""Rows of a database query come in order of a key, as the database compares it, and are gone on with behind any row."""

import sqlite3
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pymysql
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from loader.errors import ExportError, SettingsError, Stopped
from loader.export import Export, engines, query, table
from loader.export.engines import Failed, engine, place_of, split
from loader.export.query import Query
from loader.export.table import Changed, Key, Table
from loader.span import SpanSet
from tests import make

SQL = "select email, dept, n from users"


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BLOCK_ROWS", 10)


def fill(folder: Path, rows: list[tuple[Any, ...]], kind: str = "sqlite", email: str = "text") -> str:
    """A database with a table of users, in no order; its URL."""
    rows = sorted(rows, key=lambda row: hash(row[1:]))
    path = folder / f"users.{kind}"
    path.unlink(missing_ok=True)
    make_table, insert = (
        f"create table users (email {email}, dept text, n integer)",
        "insert into users values (?, ?, ?)",
    )
    if kind == "sqlite":
        with closing(sqlite3.connect(path)) as db:
            db.execute(make_table)
            db.executemany(insert, rows)
            db.commit()
    else:
        with duckdb.connect(str(path)) as db:
            db.execute(make_table)
            if rows:
                db.executemany(insert, rows)
    return f"{kind}:///users.{kind}"


def users(count: int) -> list[tuple[Any, ...]]:
    return [(f"u{at:04}", f"D{at % 7}", at) for at in range(count)]


def export(folder: Path, url: str, sql: str = SQL, order_by: str | None = "email") -> Table:
    return Table.of(Query(sql, url, order_by, folder), "query")


def sent(of: Export, **mapping: Any) -> dict[int, tuple[str, dict[str, Any]]]:
    return make.sent(of.rows(make.mapping(**mapping)))


KINDS = pytest.mark.parametrize("kind", ["sqlite", "duckdb"])


@KINDS
def test_rows_come_in_order_of_the_key(tmp_path: Path, kind: str) -> None:
    of = export(tmp_path, fill(tmp_path, users(55), kind))

    of.check(make.mapping())

    assert of.names(make.mapping()) == ["dept", "n"]
    assert sent(of) == {at + 1: (f"u{at:04}", {"dept": f"D{at % 7}", "n": at}) for at in range(55)}


@KINDS
@pytest.mark.parametrize("order_by", ["email", "n", None])
def test_reading_goes_on_at_any_mark(tmp_path: Path, kind: str, order_by: str | None) -> None:
    """Behind a key, or, without one, by reading again what was read, which must be the same."""
    sql = SQL if order_by else f"{SQL} order by n desc"
    of = export(tmp_path, fill(tmp_path, users(55), kind), sql, order_by)
    blocks = list(of.rows(make.mapping()))
    whole = make.sent(blocks)
    marks = [block.end for block in blocks if block.end]
    assert [mark.row for mark in marks] == [11, 21, 31, 41, 51, 56]

    for mark in marks:
        again = list(of.rows(make.mapping(), mark, SpanSet([(1, mark.row - 1)]), {each.row: each for each in marks}))

        assert make.sent(again) == {row: found for row, found in whole.items() if row >= mark.row}


@KINDS
@given(
    keys=st.sets(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), max_size=40),
    at=st.integers(0, 3),
)
@how(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_may_be_a_key(tmp_path: Path, kind: str, keys: set[str], at: int) -> None:
    """Quotes, backslashes, comments and all; and in whatever order the database puts them."""
    of = export(tmp_path, fill(tmp_path, [(key, "x", 1) for key in keys], kind))
    blocks = list(of.rows(make.mapping()))
    found = [item.user for block in blocks for item in block.settled] + [u for block in blocks for u in block.users]
    assert set(found) == keys, "blank ones are rejected, and all others are sent"
    marks = [block.end for block in blocks if block.end]
    if not marks:
        return
    mark = marks[at % len(marks)]

    again = list(of.rows(make.mapping(), mark, known={each.row: each for each in marks}))

    assert [block.end for block in again if block.end] == [each for each in marks if each.row > mark.row]


@KINDS
def test_a_row_that_changed_behind_the_last_mark_is_read_as_it_is_now(tmp_path: Path, kind: str) -> None:
    of = export(tmp_path, fill(tmp_path, users(55), kind))
    marks = [block.end for block in of.rows(make.mapping()) if block.end][:2]
    changed = users(55)
    changed[3], changed[44] = ("u0003", "gone by", 3), ("u0044", "new", 44)
    fill(tmp_path, [*changed, ("a", "before all", 0), ("z", "behind all", 0)], kind)

    found = make.sent(of.rows(make.mapping(), marks[1], known={mark.row: mark for mark in marks}))

    assert (min(found), max(found)) == (21, 56)
    assert found[45] == ("u0044", {"dept": "new", "n": 44})
    assert found[56] == ("z", {"dept": "behind all", "n": 0})


@pytest.mark.parametrize(
    "sql", ["select email, n * 0.5 as half from users", "select email, cast(n as blob) as half from users"]
)
def test_behind_a_key_that_the_database_does_not_find_nothing_is_passed_by(tmp_path: Path, sql: str) -> None:
    """To SQLite a text is greater than any number, and less than any blob: no row would come, or all once more."""
    of = export(tmp_path, fill(tmp_path, users(55)), sql, "half")
    marks = [block.end for block in of.rows(make.mapping()) if block.end]

    with pytest.raises(ExportError, match=r"no row has the key .* a key of that type"):
        list(of.rows(make.mapping(), marks[0], known={mark.row: mark for mark in marks}))


def test_what_a_database_says_shows_no_signature_of_an_address(tmp_path: Path) -> None:
    of = Query(
        "select 1 as email, 'https://example.com/x?sig=secret' as a, nowhere", "sqlite:///users.db", "email", tmp_path
    )

    said = of._words(Failed("near 'https://example.com/x.csv?a=(1)&sig=secret': no"))

    assert query._masked("s3cret=no", split("postgresql://h/d?password=s3cret")) == "***=no"
    assert said == "sqlite:///users.db: near 'https://example.com/x.csv?…': no"


@KINDS
def test_rows_that_were_read_and_have_changed_are_not_gone_on_with(tmp_path: Path, kind: str) -> None:
    """Of some of them the outcome is known by number, and the numbers may be others' now."""
    of = export(tmp_path, fill(tmp_path, users(55), kind))
    marks = [block.end for block in of.rows(make.mapping()) if block.end]
    fill(tmp_path, [*users(55), ("u0012a", "new", 1)], kind)

    with pytest.raises(Changed, match=r"of its rows before row 21 some were read already.*--fresh --yes"):
        list(of.rows(make.mapping(), marks[0], known={mark.row: mark for mark in marks}))

    assert not of.is_same_up_to(marks, make.mapping())


def test_keys_that_only_the_database_takes_for_the_same_are_seen_where_it_matters(tmp_path: Path) -> None:
    """`> 'ann'` would pass ANN by."""
    rows = [*((f"a{at}", "x", at) for at in range(9)), ("b", "x", 9), ("B", "x", 10), ("c", "x", 11)]
    of = export(tmp_path, fill(tmp_path, rows, email="text collate nocase"))
    (first, *_) = [block.end for block in of.rows(make.mapping()) if block.end]

    with pytest.raises(ExportError, match=r"2 rows have the key '[bB]', as the database compares them"):
        list(of.rows(make.mapping(), first))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("ann", "x", 1), ("ann", "y", 2)], r'of row 2 is "ann", as that of the row before'),
        ([("ann", "x", 1), (None, "y", 2)], r"column 'email' of row 1 is null"),
    ],
)
def test_a_key_that_tells_no_row_apart_is_named(tmp_path: Path, rows: list[tuple[Any, ...]], words: str) -> None:
    with pytest.raises(ExportError, match=words):
        list(export(tmp_path, fill(tmp_path, rows)).rows(make.mapping()))


def test_a_key_that_is_not_there_is_said_of_the_mapping_and_a_bad_row_of_the_query(tmp_path: Path) -> None:
    """Nobody has set export.order_by, which takes the key's column; and a query has rows, no lines."""
    found = export(tmp_path, fill(tmp_path, users(3)), order_by="mail")

    with pytest.raises(ExportError, match=r"mapping\.user: the export has no column 'mail'; did you mean 'email'\?"):
        found.check(make.mapping("mail"))
    empty = export(tmp_path, fill(tmp_path, users(3)), "select '' as email, dept from users limit 1", None)
    (told,) = make.settled(empty.rows(make.mapping())).values()
    assert told[2] == "query row 1: the user's key is empty (column 'email')"


def test_the_column_to_order_by_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"export\.order_by: the query has no column 'id'; it has 'email', "):
        export(tmp_path, fill(tmp_path, users(3)), order_by="id").check(make.mapping())


def test_values_of_sqlite_are_each_what_they_are(tmp_path: Path) -> None:
    """A column has no type of its own there."""
    with closing(sqlite3.connect(tmp_path / "users.sqlite")) as db:
        db.execute("create table users (email, v)")
        values = [1, 2.5, "x", None, b"blob", "", "00123", 1 << 62, b"\xff", float("inf")]
        db.executemany("insert into users values (?, ?)", [(f"u{at}", value) for at, value in enumerate(values)])
        db.execute("insert into users values (7, 1)")
        db.commit()

    blocks = list(export(tmp_path, "sqlite:///users.sqlite", "select * from users").rows(make.mapping()))

    found = {user: attributes["v"] for user, attributes in make.sent(blocks).values()}
    assert found == {
        "7": 1,
        "u0": 1,
        "u1": 2.5,
        "u2": "x",
        "u3": None,
        "u4": "blob",
        "u5": "",
        "u6": "00123",
        "u7": 1 << 62,
    }
    assert {user: code for code, user, _ in make.settled(blocks).values()} == {"u8": "REJECTED", "u9": "REJECTED"}


def test_values_of_duckdb(tmp_path: Path) -> None:
    sql = """select 'ann' as email, 5::hugeint as h, 12.50::decimal(10,2) as n, '{"a":1}'::json as j, [1,2] as l,
        {'a':1} as s, timestamptz '2026-01-31 13:45:00+01' as z, date '2026-01-31' as d, null as nil, true as b,
        'x'::enum('x','y') as e, 'aa0e8400-e29b-41d4-a716-446655440000'::uuid as u"""

    found = sent(export(tmp_path, "duckdb://", sql))

    assert found[1][1] == {
        "h": 5,
        "n": 12.5,
        "l": [1, 2],
        "s": {"a": 1},
        "z": "2026-01-31T12:45:00Z",
        "d": "2026-01-31",
        "nil": None,
        "b": True,
        "e": "x",
        "u": "aa0e8400-e29b-41d4-a716-446655440000",
        "j": found[1][1]["j"],
    }


def test_duckdb_transforms_files_that_stand_beside_the_settings(tmp_path: Path) -> None:
    """Rename, filter, join, format: in SQL."""
    (tmp_path / "people.csv").write_text("Mail,Dept Id\nBOB@X,2\nann@x,1\neve@x,9\n")
    (tmp_path / "depts.ndjson").write_text('{"id":1,"name":"Sales"}\n{"id":2,"name":"Legal"}\n')
    sql = """select lower(Mail) as email, name as department from 'people.csv'
        join 'depts.ndjson' on id = "Dept Id" -- who has one;"""

    assert sent(export(tmp_path, "duckdb://", sql + "\n;")) == {
        1: ("ann@x", {"department": "Sales"}),
        2: ("bob@x", {"department": "Legal"}),
    }


def test_a_database_is_only_read(tmp_path: Path) -> None:
    for kind in ("sqlite", "duckdb"):
        url = fill(tmp_path, users(3), kind)

        with pytest.raises(ExportError, match=r"export\.query"):
            list(export(tmp_path, url, "delete from users returning email").rows(make.mapping()))

        assert len(sent(export(tmp_path, url))) == 3


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///none.db", "there is no file"),
        ("duckdb:///none.db", "there is no file"),
        ("sqlite://", "names no file"),
        ("postgers://u:s3cret@h/d", "did you mean postgresql://?"),
        ("users.csv", "not the URL of a database"),
        ("postgresql://u:s3c@ret@h/d", "is written %40"),
        ("postgresql://u:s3cret@h:x/d", "not the URL of a database"),
        ("mysql://u:s3cret@h/d?nope=1", "nope is not an option"),
        ("mysql://u:s3cret@h/d?ssl_ca=none.pem", "ssl_ca: none.pem: No such file"),
        (f"mysql://u:s3cret@h/d?ssl_ca={__file__}", "holds no certificate"),
        ("mysql://u:s3c%D0%B4@127.0.0.1:9/d", "letters beyond Latin-1's"),
        ("mysql://u:s3cret@a..b/d", "the host is none"),
    ],
)
def test_a_database_that_is_none_is_told_without_its_password(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(ExportError) as told:
        export(tmp_path, url).check(make.mapping())

    assert words in str(told.value)
    assert "s3c" not in str(told.value)


def test_a_way_to_sign_in_that_wants_another_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MySQL 8's own, where the connection is not encrypted: PyMySQL raises a RuntimeError."""

    def connect(**_options: object) -> None:
        raise RuntimeError("'cryptography' package is required")

    monkeypatch.setattr(pymysql, "connect", connect)

    with pytest.raises(ExportError, match="'cryptography' package is required"):
        export(tmp_path, "mysql://u:s3cret@h/d").check(make.mapping())


def test_a_query_that_is_wrong_is_told_in_the_databases_words(tmp_path: Path) -> None:
    url = fill(tmp_path, users(3))

    with pytest.raises(ExportError, match=r"export\.query: sqlite:///users.sqlite: no such column: nope"):
        export(tmp_path, url, "select nope from users").check(make.mapping())


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError("No module named 'duckdb'")

    monkeypatch.setattr(engines, "import_module", missing)

    with pytest.raises(
        ExportError, match=r"needs duckdb, which is not installed.*pip install 'directory-loader\[duckdb\]'"
    ):
        export(tmp_path, "duckdb://")


class Shaky:
    """An engine whose connections break after so many batches each; of `query.Query` it is told what is asked."""

    def __init__(self, rows: list[tuple[Any, ...]], lives: Iterator[int], *, is_lost: bool = True) -> None:
        self.rows = rows
        self.lives = lives
        self.is_lost = is_lost
        self.behind = ""
        self.open = self.made = self.cancelled = 0
        self.waits = threading.Event()
        self.waits.set()

    def quoted(self, name: str) -> str:
        return name

    def literal(self, key: Key) -> str:
        self.behind = str(key)
        return f"'{key}'"

    def columns(self, schema: pa.Schema) -> str:
        return "*"

    def connect(self) -> "Shaky":
        self.made += 1
        self.open += 1
        return self

    def schema(self, sql: str) -> pa.Schema:
        return pa.schema([("email", pa.string()), ("n", pa.int64())])

    def batches(self, sql: str) -> Generator[pa.RecordBatch]:
        if "count(*)" in sql:
            yield pa.RecordBatch.from_pydict({"n": [1]})
            return
        left = [row for row in self.rows if row[0] > self.behind]
        for _ in range(next(self.lives)):
            part, left = left[:7], left[7:]
            if not part:
                return
            yield pa.RecordBatch.from_pydict({"email": [row[0] for row in part], "n": [row[2] for row in part]})
        self.waits.wait()
        raise Failed("server closed the connection of u:s3cret", is_lost=self.is_lost)

    def cancel(self) -> None:
        self.cancelled += 1
        self.waits.set()

    def close(self) -> None:
        self.open -= 1


@pytest.fixture
def shaky(monkeypatch: pytest.MonkeyPatch) -> Shaky:
    made = Shaky(users(55), iter([2, 1, 0, 3, 9]))
    monkeypatch.setattr(query, "engine", lambda _parts, _folder: made)
    monkeypatch.setattr(query, "_AGAIN_S", (0.0,) * 4)
    return made


def test_a_connection_that_breaks_is_made_again_behind_the_last_row(tmp_path: Path, shaky: Shaky) -> None:
    of = export(tmp_path, "postgresql://u:s3cret@h/d")

    assert sent(of) == {at + 1: (f"u{at:04}", {"n": at}) for at in range(55)}
    assert shaky.open == 0


def test_one_that_breaks_again_and_again_ends_the_run(tmp_path: Path, shaky: Shaky) -> None:
    """With all rows before kept; and the password isn't shown, whoever repeats it."""
    shaky.lives = iter([2, 0, 0, 0, 0, 0])

    blocks, message = make.until_stopped(export(tmp_path, "postgresql://u:s3cret@h/d").rows(make.mapping()))

    assert list(make.sent(blocks)) == list(range(1, 11)), "whole blocks: the rest comes with the next run"
    assert message == (
        "the query broke off: postgresql://h/d: server closed the connection of u:***; all rows before are kept"
    )
    assert shaky.open == 0


@pytest.mark.parametrize(("order_by", "is_lost"), [(None, True), ("email", False)])
def test_what_can_not_be_gone_on_with_is_not_asked_again(
    tmp_path: Path, shaky: Shaky, order_by: str | None, is_lost: bool
) -> None:
    """Without a key nothing tells where it was; and a statement that timed out would again."""
    shaky.is_lost = is_lost
    made = shaky.made

    with pytest.raises(Stopped, match="broke off"):
        list(export(tmp_path, "postgresql://h/d", order_by=order_by).rows(make.mapping()))

    assert shaky.made - made == 2, "once for the columns, once for the rows"


def test_who_leaves_does_not_wait_for_the_database(tmp_path: Path, shaky: Shaky) -> None:
    shaky.lives = iter([3])
    shaky.waits.clear()
    rows = export(tmp_path, "postgresql://h/d").rows(make.mapping())
    next(rows)

    rows.close()  # type: ignore[attr-defined]  # it is a generator

    assert (shaky.cancelled, shaky.open) == (1, 0)


# Settings


TOML = make.SETTINGS.replace(
    'path = "users.csv"', 'query = "select * from users"\ndatabase = "env:LOADER_TEST_DATABASE"'
)


def test_a_query_is_a_part_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADER_TEST_DATABASE", fill(tmp_path, users(3)))
    made = make.settings(tmp_path, TOML, ['checkpoint.path="u.ckpt"'])

    assert str(made.source) == "the query"
    assert len(sent(made.source)) == 3
    assert made.state_path == tmp_path / "u.state"


def test_who_asks_is_no_part_of_what_a_load_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password may be rotated, and is in no file."""
    identities = []
    for url in ("postgresql://u:s3cret@h:5/d?sslmode=require", "postgresql://v:other@h:5/d"):
        monkeypatch.setenv("LOADER_TEST_DATABASE", url)
        identities.append(make.settings(tmp_path, TOML).identity())

    assert identities[0] == identities[1]
    assert identities[0]["export.database"] == "postgresql://h:5/d"
    assert identities[0]["export.query"] == "select * from users"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("export.path=users.csv", "export.path and export.query: one export is loaded at a time"),
        ("export.format=csv", "export.format is for export.path, and the export is given by export.query"),
        ("export.delimiter=;", "export.delimiter is for export.path"),
    ],
)
def test_what_has_no_meaning_for_a_query_is_refused(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make.settings(tmp_path, TOML, [override])


def test_a_query_needs_a_database_and_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"export\.database is missing: a URL such as postgresql://"):
        make.settings(tmp_path, TOML.replace("database", "# "))
    with pytest.raises(SettingsError, match=r"checkpoint\.path is missing: the export has no name"):
        _ = make.settings(tmp_path, TOML).checkpoint_path
    with pytest.raises(SettingsError, match=r"export\.order_by is for export\.query"):
        make.settings(tmp_path, overrides=["export.order_by=email"])
    with pytest.raises(SettingsError, match=r"export\.path is missing"):
        make.settings(tmp_path, TOML.replace("query =", "# ").replace("database", "# "))


def test_a_password_in_the_file_is_warned_about(tmp_path: Path) -> None:
    made = make.settings(tmp_path, TOML, ['export.database="postgresql://u:s3cret@h/d"'])

    assert (
        made.literal_secrets() == ["target.auth.key_id", "export.database"]
        or "export.database" in made.literal_secrets()
    )
    assert "s3cret" not in repr(made)


def test_the_place_of_a_database() -> None:
    assert place_of(split("postgres://u:p@[::1]:5432/db?sslmode=require")) == "postgresql://[::1]:5432/db"
    assert place_of(split("sqlite:////srv/users.db")) == "sqlite:////srv/users.db"


# Snowflake, as far as it goes without one

_AT = "snowflake://ann:s3c%40ret@acme-eu/Staff%20DB/HR"


def test_an_address_of_snowflake_becomes_what_its_driver_takes(tmp_path: Path) -> None:
    made: Any = engine(split(f"{_AT}?warehouse=W&role=R&private_key=key.p8&adbc.snowflake.sql.region=eu"), tmp_path)

    assert made._options == {
        "username": "ann",
        "password": "s3c@ret",
        "adbc.snowflake.sql.account": "acme-eu",
        "adbc.snowflake.sql.db": "Staff DB",
        "adbc.snowflake.sql.schema": "HR",
        "adbc.snowflake.sql.warehouse": "W",
        "adbc.snowflake.sql.role": "R",
        "adbc.snowflake.sql.region": "eu",
        "adbc.snowflake.sql.auth_type": "auth_jwt",
        "adbc.snowflake.sql.client_option.jwt_private_key": str(tmp_path / "key.p8"),
        "adbc.snowflake.sql.client_option.disable_telemetry": "true",
    }
    assert made.literal("o'b\\n") == r"'o''b\\n'"
    assert made.literal(7) == "7"
    assert made.quoted('a"b') == '"a""b"'


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("snowflake:///DB", "write snowflake://user:password@account/database/schema"),
        (f"{_AT}?warehose=W", "warehose is not an option of snowflake://; it takes warehouse, role, private_key"),
        (f"{_AT}?adbc.snowflake.sql.client_option.tls_skip_verify=true", "tls_skip_verify is not an option"),
        (f"{_AT}?adbc.snowflake.sql.uri.protocol=http", "plain http is for this machine alone"),
    ],
)
def test_an_address_of_snowflake_that_is_none_is_refused(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(ExportError) as caught:
        engine(split(url), tmp_path)

    assert words in str(caught.value)
    assert "s3c" not in str(caught.value)


def test_snowflakes_driver_is_found_by_its_name_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADBC_DRIVER_PATH", str(tmp_path))
    query = Query("select 1 as email", _AT, "email", tmp_path)

    with pytest.raises(ExportError, match=r"acme-eu/.*its driver is not there.*: dbc install snowflake$"):
        query.columns()


def test_tokens_among_a_drivers_options_are_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = Query("select 1", f"{_AT}?adbc.snowflake.sql.client_option.auth_token=t0ken", "email", tmp_path)

    def refuse() -> None:
        raise Failed("390303 (08001): Invalid OAuth token t0ken of s3c@ret")

    monkeypatch.setattr(query._engine, "connect", refuse)
    with pytest.raises(ExportError, match=r"Invalid OAuth token \*\*\* of \*\*\*$"):
        query.columns()


class _Cursor:
    """A driver's, whose result has fewer rows than it says."""

    rowcount = 3
    adbc_statement = SimpleNamespace(set_options=lambda **_: None)

    def execute(self, _query: str) -> None:
        pass

    def fetch_record_batch(self) -> list[pa.RecordBatch]:
        return [pa.record_batch({"email": ["ann", "bob"]})]


def test_a_result_of_snowflake_that_lacks_rows_is_not_whole() -> None:
    from loader.export.engines.snowflake import _Connection

    found = _Connection(SimpleNamespace(cursor=_Cursor)).batches("select email from users")

    assert next(found).num_rows == 2
    with pytest.raises(Failed, match="2 of 3 rows came"):
        next(found)
