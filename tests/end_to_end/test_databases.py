"""Loads out of databases, as processes: killed and gone on with, the target holds what the table holds."""

import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pymysql
import pytest

from loader.export.engines import engine, split
from tests.end_to_end import oracle, servers

_USERS = 6_000
_MANY = 100_000

Row = tuple[str, str | None, int]


def rows(count: int) -> list[Row]:
    """Users in no order, with keys that SQL has to quote."""
    found: list[Row] = [(f"o'user\\{at:06}@x.com", None if at % 10 == 3 else f"D{at % 7}", at) for at in range(count)]
    return [*found[1::2], *found[::2]]


def attributes(row: Row) -> dict[str, Any]:
    return {"dept": row[1], "n": row[2]}


def settings_for(folder: Path, url: str, concurrency: int = 4) -> Path:
    path = folder / "load.toml"
    path.write_text(f"""
[export]
query = "select email, dept, n from users"
database = "env:LOADER_TEST_DATABASE"
[mapping]
user = "email"
[target]
api = "calven"
base_url = "{url}"
[target.auth]
scheme = "hmac"
key_id = "env:LOADER_TEST_KEY"
secret = "env:LOADER_TEST_SECRET"
[limits]
concurrency = {concurrency}
[checkpoint]
path = "users.ckpt"
""")
    return path


def held(url: str) -> dict[str, Any]:
    return {str(user["userName"]): user["attributes"] for user in oracle.get(url, "users")}


def told_to_stop(process: "subprocess.Popen[str]") -> str:
    """What a run says that SIGTERM ends, as it has to, at once."""
    process.terminate()
    begun = time.monotonic()
    _, err = process.communicate(timeout=20)

    assert time.monotonic() - begun < 4
    assert process.returncode == 143, err
    return str(err)


def killed(settings: Path, database: str, at: int) -> None:
    """A run that is killed as soon as so many rows are settled."""
    process = oracle.start("run", settings, environment={"LOADER_TEST_DATABASE": database})
    oracle.wait_for_rows(settings.with_name("users.ckpt"), at, 60)
    process.kill()
    _, err = process.communicate()
    assert process.returncode == -9, err


def run(settings: Path, database: str, *more: str) -> tuple[int, str]:
    status, _, err = oracle.run("run", settings, *more, environment={"LOADER_TEST_DATABASE": database})
    assert "s3c" not in err
    return status, err


def load_and_compare(
    folder: Path,
    database: str,
    users: Sequence[Row],
    kills: Sequence[int],
    adapt: Callable[[Path], None] = lambda _settings: None,
) -> None:
    """The whole of it: killed so often, each user is there with what the table says, and has one outcome."""
    with oracle.sandbox("--latency", "0.05") as url:
        settings = settings_for(folder, url)
        adapt(settings)
        for at in kills:
            killed(settings, database, at)
        status, err = run(settings, database)
        assert status == 0, err
        assert "going on behind" in err
        assert wrong(url, users) == []
        assert len(held(url)) == len(users)
        writes = sum(int(str(user["writes"])) for user in oracle.get(url, "users"))
        assert writes - len(users) <= len(kills) * 2 * 4 * 100
        found = oracle.results(folder / "users.ckpt")
        assert [int(row["row"]) for row in found] == list(range(1, len(users) + 1))
        assert "s3c" not in (folder / "users.ckpt").read_bytes().decode("latin-1")

        again, said = run(settings, database)
        assert again == 0
        assert "finished" in said


def sqlite_table(folder: Path, users: Sequence[Row]) -> str:
    with closing(sqlite3.connect(folder / "users.db")) as db:
        db.execute("create table if not exists users (email text primary key, dept text, n integer)")
        db.execute("delete from users")
        db.executemany("insert into users values (?, ?, ?)", users)
        db.commit()
    return "sqlite:///users.db"


def duckdb_table(folder: Path, users: Sequence[Row]) -> str:
    lines = [json.dumps({"email": email, "dept": dept, "n": n}) for email, dept, n in users]
    (folder / "users.ndjson").write_text("\n".join(lines))
    with duckdb.connect(str(folder / "users.duckdb")) as db:
        db.execute(f"create or replace table users as select * from '{folder}/users.ndjson'")
    return "duckdb:///users.duckdb"


@pytest.mark.parametrize("table", [sqlite_table, duckdb_table])
def test_a_query_that_is_killed_is_gone_on_with(tmp_path: Path, table: Callable[[Path, Sequence[Row]], str]) -> None:
    users = rows(_USERS)
    load_and_compare(tmp_path, table(tmp_path, users), users, [800, 2_500])


def test_a_finished_load_of_a_query_is_told_from_a_table_that_has_changed(tmp_path: Path) -> None:
    """Retried while nothing has changed; refused, with the way out, when something has."""
    users = rows(300)
    database = sqlite_table(tmp_path, users)
    environment = {"LOADER_TEST_DATABASE": database}
    with oracle.sandbox() as url:
        settings = settings_for(tmp_path, url)
        assert run(settings, database)[0] == 0

        status, _, err = oracle.run("retry", settings, environment=environment)
        assert (status, "nothing to retry" in err) == (0, True), err
        status, _, err = oracle.run("results", tmp_path / "users.ckpt", "--rows")
        assert status == 2
        assert "--rows is for exports that are files, and this was the query" in err
        status, _, err = oracle.run("check", settings, environment=environment)
        assert status == 0, err
        for changed in ([*users, ("zoe@x.com", "new", 1)], [("zoe@x.com", "new", 1), *users[1:]], users[1:]):
            sqlite_table(tmp_path, changed)
            status, err = run(settings, database)
            assert status == 2
            assert "the query has changed since the load began" in err


Fill = Callable[[Sequence[Row]], object]


def refresh_for(folder: Path, url: str) -> Path:
    settings = settings_for(folder, url)
    settings.write_text(settings.read_text() + '[refresh]\nmode = "changed"\n')
    return settings


def two_nights(folder: Path, database: str, fill: Fill, users: list[Row]) -> None:
    """The first is killed and gone on with, the second is planned: what is sent is exact."""
    fill(users)
    with oracle.sandbox("--latency", "0.05") as url:
        settings = refresh_for(folder, url)
        killed(settings, database, len(users) // 4)
        status, err = run(settings, database)
        assert status == 0, err
        assert "going on behind" in err, "the same rows: the same night"
        assert wrong(url, users) == []
        assert len(oracle.results(folder / "users.ckpt")) == len(users)

        writes = written(url)
        count = len(users) // 5
        users = [(email, f"new{n}", n) for email, _, n in users[:count]] + users[count:-1] + [("zoe@x.com", "new", 1)]
        fill(users)
        environment = {"LOADER_TEST_DATABASE": database}
        status, out, err = oracle.run("plan", settings, "-o", folder / "plan.json", environment=environment)
        assert status == 0, err
        assert f"{count + 1:,}" in out
        assert written(url) == writes

        status, err = run(settings, database, "--plan", str(folder / "plan.json"))
        assert status == 0, err
        assert written(url) - writes == count + 1
        assert wrong(url, users) == []
    left = {path.name.partition(".ckpt.")[0] for path in folder.iterdir()}
    assert left <= {"load.toml", "plan.json", "users.ckpt", "users", "users.state", "users.db"}, left


def a_night_of_two_tables(folder: Path, database: str, fill: Fill, users: list[Row]) -> None:
    """It is killed, and finds another table when it is run again: what was acknowledged counts."""
    fill(users)
    with oracle.sandbox("--latency", "0.05") as url:
        settings = refresh_for(folder, url)
        killed(settings, database, len(users) // 4)
        users = [*users[:-1], ("yve@x.com", "new", 1)]
        fill(users)
        status, err = run(settings, database)
        assert status == 0, err
        assert "that it had acknowledged count" in err
        assert len(users) <= written(url) <= len(users) + 1 + 2 * 4 * 100
        assert wrong(url, users) == []

        writes = written(url)
        assert run(settings, database)[0] == 0
        assert written(url) == writes, "nothing has changed"
        status, _, err = oracle.run("retry", settings, environment={"LOADER_TEST_DATABASE": database})
        assert (status, "nothing to retry" in err) == (0, True), err


def wrong(url: str, users: Sequence[Row]) -> list[Row]:
    """A few of the users of whom the target holds something else."""
    there = held(url)
    return [row for row in users if there.get(row[0]) != attributes(row)][:3]


def written(url: str) -> int:
    return sum(int(str(user["writes"])) for user in oracle.get(url, "users"))


@pytest.mark.parametrize("nights", [two_nights, a_night_of_two_tables])
def test_a_query_is_refreshed_night_by_night(
    tmp_path: Path, nights: Callable[[Path, str, Fill, list[Row]], None]
) -> None:
    users = rows(_USERS // 2)

    nights(tmp_path, sqlite_table(tmp_path, users), lambda now: sqlite_table(tmp_path, now), users)


def test_a_query_that_can_not_be_refreshed_sends_nothing(tmp_path: Path) -> None:
    """What breaks off is refused, as what is missing can't be told from what is gone; and nothing is left of it."""
    database = sqlite_table(tmp_path, rows(30_000))
    with oracle.sandbox() as url:
        settings = refresh_for(tmp_path, url)
        broken = "export.query=select email, dept, case when n > 29000 then json('{') else n end as n from users"
        status, err = run(settings, database, "--set", broken)

        assert status == 2, err
        assert "malformed JSON" in err
        assert "nothing was sent" in err
        assert written(url) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"load.toml", "users.db"}


def test_a_run_that_stops_says_why_and_nothing_else(tmp_path: Path) -> None:
    """DuckDB complains, at the very end of a process, of objects that are still there."""
    database = duckdb_table(tmp_path, rows(10))
    status, err = run(settings_for(tmp_path, "http://127.0.0.1:9"), database, "--set", "limits.give_up_s=0.2")

    assert status == 3
    assert err.splitlines()[-1].startswith("Go on with: loader run"), err


@pytest.mark.parametrize("table", [sqlite_table, duckdb_table])
def test_a_signal_is_heeded_while_a_database_computes(
    tmp_path: Path, table: Callable[[Path, Sequence[Row]], str]
) -> None:
    """Before the first row comes, and nothing is waited for but the word that it may stop."""
    database = table(tmp_path, rows(10))
    settings = settings_for(tmp_path, "http://127.0.0.1:1")
    endless = "(with recursive c(i) as (select 1 union all select i + 1 from c where i < 1e12) select max(i) from c)"
    slow = f"export.query=select email, dept, n from users where n < {endless}"
    process = oracle.start("run", settings, "--set", slow, environment={"LOADER_TEST_DATABASE": database})
    oracle.wait_for_file(tmp_path / "users.ckpt")
    time.sleep(1.5)

    err = told_to_stop(process)
    assert "interrupted by SIGTERM; what was settled is kept" in err
    assert err.splitlines()[-1].startswith("Go on with: loader run"), err


# With servers --------------------------------------------------------------------------------------------------------


def in_postgresql(url: str, sql: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        [servers.debian("psql", "/usr/lib/postgresql/*/bin"), url, "-qAtc", sql],
        input=stdin,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with servers.postgresql() as url:
        yield url


@pytest.fixture(scope="module")
def mariadb() -> Iterator[str]:
    with servers.mariadb() as url:
        yield url


def postgresql_table(url: str, users: Sequence[Row]) -> None:
    in_postgresql(url, "drop table if exists users; create table users (email text primary key, dept text, n int)")
    text = "".join(
        "\t".join(["\\N" if cell is None else str(cell).replace("\\", "\\\\") for cell in row]) + "\n" for row in users
    )
    in_postgresql(url, r"\copy users from stdin", text)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_postgresql_killed_and_gone_on_with(tmp_path: Path, postgresql: str) -> None:
    users = rows(_MANY)
    postgresql_table(postgresql, users)

    load_and_compare(tmp_path, postgresql, users, [5_000, 40_000, 70_000])


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_mariadb_killed_and_gone_on_with(tmp_path: Path, mariadb: str) -> None:
    users = rows(_MANY)
    with in_mariadb(mariadb) as connection, connection.cursor() as cursor:
        cursor.execute("create or replace table users (email varchar(100) primary key, dept text, n int)")
        cursor.executemany("insert into users values (%s, %s, %s)", users)
        connection.commit()

    load_and_compare(tmp_path, mariadb, users, [5_000, 40_000, 70_000])


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("nights", [two_nights, a_night_of_two_tables])
def test_postgresql_refreshed_night_by_night(
    tmp_path: Path, postgresql: str, nights: Callable[[Path, str, Fill, list[Row]], None]
) -> None:
    nights(tmp_path, postgresql, lambda now: postgresql_table(postgresql, now), rows(_MANY))


@pytest.fixture
def snowflake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of one that has users, of whom a result has 10,000 in each of its parts."""
    folder = tmp_path / "snowflake"
    folder.mkdir()
    with servers.snowflake(folder) as (url, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        connection = engine(split(url), folder).connect()
        list(
            connection.batches(
                f"""create table users as select 'o''user\\\\' || lpad(n::text, 6, '0') || '@x.com' as "email",
                case when n % 10 = 3 then null else 'D' || (n % 7) end as "dept", n as "n"
                from (select seq4() as n from table(generator(rowcount => {_MANY})))"""
            )
        )
        connection.close()
        yield url


def of_snowflake(settings: Path) -> None:
    """Names are in upper case there, unless they are quoted."""
    text = settings.read_text()
    settings.write_text(
        text.replace('"select email, dept, n from users"', """'select "email", "dept", "n" from users'""")
    )


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_snowflake_killed_and_gone_on_with(tmp_path: Path, snowflake: str) -> None:
    load_and_compare(tmp_path, snowflake, rows(_MANY), [5_000, 40_000, 70_000], of_snowflake)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", [1, 3, 8])
def test_a_result_of_snowflake_that_breaks_off_in_the_middle_lacks_nobody(
    tmp_path: Path, snowflake: str, part: int
) -> None:
    """Asked for several parts at once, the driver goes on behind a broken one, and tells of it at the end."""
    (tmp_path / "snowflake" / "broken").write_text(str(part))
    with oracle.sandbox() as url:
        settings = settings_for(tmp_path, url)
        of_snowflake(settings)
        status, err = run(settings, snowflake)

        assert status == 0, err
        assert wrong(url, rows(_MANY)) == []
        assert len(held(url)) == len(oracle.results(tmp_path / "users.ckpt")) == _MANY


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_signal_is_heeded_while_snowflake_computes(tmp_path: Path, snowflake: str) -> None:
    settings = settings_for(tmp_path, "http://127.0.0.1:1")
    of_snowflake(settings)
    endless = (
        "(with recursive c(i) as (select 1 union all select i + 1 from c where i < 100000000) select max(i) from c)"
    )
    settings.write_text(settings.read_text().replace("from users'", f'from users where "n" < {endless}\''))
    process = oracle.start("run", settings, environment={"LOADER_TEST_DATABASE": snowflake})
    oracle.wait_for_file(tmp_path / "users.ckpt")
    time.sleep(2)

    told_to_stop(process)


def in_mariadb(url: str) -> Any:
    port = int(url.rpartition(":")[2].partition("/")[0])
    return pymysql.connect(host="127.0.0.1", port=port, user="loader", password="s3c@ret", database="users")


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_values_of_postgresql(tmp_path: Path, postgresql: str) -> None:
    """Each type as docs/sources.md says."""
    sql = """create table typed as select 'ann' as email, 'x'::varchar as v, 5::int2 as i2, 1.5::float4 as f4,
        12.50::numeric as n, -0.001::numeric as m, true as b, date '2026-01-31' as d, time '13:45' as t,
        timestamp '2026-01-31 13:45:00.5' as ts, timestamptz '2026-01-31 13:45:00+01' as tz,
        'aa0e8400-e29b-41d4-a716-446655440000'::uuid as u, '{"a": 1.50}'::json as j, '{"b": [1]}'::jsonb as jb,
        array[1,2] as ia, array['x',null] as ta, array[1.5]::numeric[] as na, 'text'::bytea as bt, null::int as nil,
        'happy'::mood as e, interval '1 day' as iv, '10.0.0.1'::inet as ip, 12.3::money as mo, int4range(1,5) as r"""
    in_postgresql(postgresql, f"create type mood as enum ('sad', 'happy'); {sql}")
    with oracle.sandbox() as url:
        settings = settings_for(tmp_path, url)
        status, err = run(settings, postgresql, "--set", "export.query=select * from typed")

        assert status == 0, err
        assert held(url) == {
            "ann": {
                "v": "x",
                "i2": 5,
                "f4": 1.5,
                "n": 12.5,
                "m": -0.001,
                "b": True,
                "d": "2026-01-31",
                "t": "13:45:00",
                "ts": "2026-01-31T13:45:00.5",
                "tz": "2026-01-31T12:45:00Z",
                "j": {"a": 1.5},
                "jb": {"b": [1]},
                "u": "aa0e8400-e29b-41d4-a716-446655440000",
                "ia": [1, 2],
                "ta": ["x", None],
                "na": [1.5],
                "bt": "text",
                "nil": None,
                "e": "happy",
                "iv": "1 day",
                "ip": "10.0.0.1/32",
                "mo": "$12.30",
                "r": "[1,5)",
            }
        }


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["bigint", "uuid", "timestamptz", "numeric", "text"])
def test_postgresql_goes_on_behind_keys_of_any_type(tmp_path: Path, postgresql: str, kind: str) -> None:
    """Compared as the database compares that type."""
    made = {
        "bigint": "i * 7 - 30000",
        "uuid": "md5(i::text)::uuid",
        "timestamptz": "timestamptz '2026-01-01' + i * interval '1.000001 s'",
        "numeric": "i * 1.01",
        "text": "md5(i::text)",
    }[kind]
    in_postgresql(
        postgresql,
        f"drop table if exists keyed; create table keyed as select ({made})::{kind} as k, 'user' || i as email, "
        "i as n, null::text as dept from generate_series(1, 30000) i",
    )
    with oracle.sandbox("--latency", "0.05") as url:
        settings = settings_for(tmp_path, url)
        text = settings.read_text().replace("select email, dept, n from users", "select email, dept, n, k from keyed")
        text = text.replace("[mapping]", 'order_by = "k"\n[mapping]\nattributes = { dept = "dept", n = "n" }')
        settings.write_text(text)
        killed(settings, postgresql, 12_000)
        status, err = run(settings, postgresql)

        assert status == 0, err
        assert held(url) == {f"user{i}": {"dept": None, "n": i} for i in range(1, 30_001)}


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("s3c%40ret", "wrong"), "password authentication failed"),
        (("/postgres", "/nothing"), 'database "nothing" does not exist'),
        (("@127.0.0.1:", "@127.0.0.1:1/none#"), "Connection refused"),
    ],
)
def test_postgresql_that_does_not_let_us_in(
    tmp_path: Path, postgresql: str, change: tuple[str, str], words: str
) -> None:
    settings = settings_for(tmp_path, "http://127.0.0.1:1")

    status, err = run(settings, postgresql.replace(*change).partition("#")[0])

    assert status == 2
    assert words in err
    assert "wrong" not in err


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_statement_that_takes_too_long_for_postgresql_ends_the_run(tmp_path: Path, postgresql: str) -> None:
    postgresql_table(postgresql, rows(10))
    settings = settings_for(tmp_path, "http://127.0.0.1:1")
    slow = "--set", "export.query=select email, dept, n, pg_sleep(1)::text as s from users"

    status, err = run(settings, f"{postgresql}?options=-c%20statement_timeout%3D500", *slow)

    assert status == 2
    assert "ERROR: canceling statement due to statement timeout" in err


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_connection_that_postgresql_ends_is_made_again(tmp_path: Path, postgresql: str) -> None:
    """Each second somebody ends all: the load goes on behind the last row that came, and all of it is there."""
    users = rows(_MANY)
    postgresql_table(postgresql, users)
    end_all = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity "
        "where query like 'COPY%' and pid <> pg_backend_pid()"
    )
    with oracle.sandbox("--latency", "0.02") as url:
        settings = settings_for(tmp_path, url)
        process = oracle.start("run", settings, environment={"LOADER_TEST_DATABASE": postgresql})
        ended = 0
        while process.poll() is None:
            ended += int(in_postgresql(postgresql, end_all))
            time.sleep(0.2 if ended else 0.0)  # on an idle machine all rows are soon on their way
        _, err = process.communicate()

        assert process.returncode == 0, err
        assert ended > 0
        assert held(url) == {row[0]: attributes(row) for row in users}


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_signal_is_heeded_while_postgresql_sorts(tmp_path: Path, postgresql: str) -> None:
    """It is not waited for; and the server, too, learns of it soon."""
    postgresql_table(postgresql, rows(10))
    settings = settings_for(tmp_path, "http://127.0.0.1:1")
    slow = "export.query=select email, dept, n, pg_sleep(60)::text as s from users"
    process = oracle.start("run", settings, "--set", slow, environment={"LOADER_TEST_DATABASE": postgresql})
    asked = "select count(*) from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()"
    end = time.monotonic() + 20
    while in_postgresql(postgresql, asked).strip() != "1" and time.monotonic() < end:
        time.sleep(0.1)

    process.terminate()
    begun = time.monotonic()
    process.communicate(timeout=20)

    assert time.monotonic() - begun < 5
    assert process.returncode in (143, -15), "at its start, nothing has to be said before it ends"
    end = time.monotonic() + 20
    while in_postgresql(postgresql, asked).strip() != "0":
        assert time.monotonic() < end
        time.sleep(0.5)
