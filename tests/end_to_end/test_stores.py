"""Loads out of object stores: other people's servers, killed in the middle, and exact."""

import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
import pytest

from loader.demo import make_export
from tests.end_to_end import oracle
from tests.end_to_end.stores import STORES, Store, environment

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

USERS = 20_000


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with STORES[request.param](tmp_path_factory.mktemp(request.param)) as found:
        yield found


def settings_for(folder: Path, url: str, store: Store, key: str) -> Path:
    settings = oracle.write_settings(folder, url, export=store.url(key), concurrency=4)
    settings.write_text(settings.read_text() + f'\n[checkpoint]\npath = "users.ckpt"\n{store.settings}\n')
    return settings


def killed_once(settings: Path, who: dict[str, str], rows: int = 2_000) -> None:
    process = oracle.start("run", settings, environment=who)
    try:
        oracle.wait_for_rows(settings.with_name("users.ckpt"), rows)
        assert process.poll() is None, "it was done before it could be killed"
    finally:
        process.kill()
        process.communicate()


def columnar(csv: bytes, form: str) -> bytes:
    """The same, without the rows that no such file can hold: those with too few fields."""
    table = pyarrow.csv.read_csv(
        io.BytesIO(csv),
        parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=lambda _row: "skip", newlines_in_values=True),
    )
    sink = io.BytesIO()
    if form == "parquet":
        pyarrow.parquet.write_table(table, sink, row_group_size=2_000)
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, 2_000)
    return sink.getvalue()


@pytest.mark.parametrize("name", ["users.csv", "users.csv.gz"])
def test_a_load_out_of_a_store_is_killed_and_goes_on(tmp_path: Path, store: Store, name: str) -> None:
    expected = make_export(tmp_path / "made.csv", USERS, 7)
    content = (tmp_path / "made.csv").read_bytes()
    store.put(name, gzip.compress(content) if name.endswith(".gz") else content)
    who = environment(store)
    with oracle.sandbox("--latency", "0.1", "--unknown", "former") as url:
        settings = settings_for(tmp_path, url, store, name)
        killed_once(settings, who)
        status, _, err = oracle.run("run", settings, environment=who)
        assert status == 1, err  # some users are unknown

        assert oracle.compare(url, tmp_path / "users.ckpt", expected) <= 2 * 4 * 100
        status, out, err = oracle.run("status", tmp_path / "users.ckpt")
        assert (status, store.url(name) in out) == (0, True), err
        corrected = tmp_path / "corrected.csv"
        status, _, err = oracle.run(
            *("results", tmp_path / "users.ckpt", "--rows", "--code", "USER_NOT_FOUND", "-o", corrected),
            environment=who,
        )
        assert status == 0, err
        assert len(corrected.read_text().splitlines()) == expected.kinds["unknown"] + 1
        assert oracle.run("check", settings, environment=who)[0] == 1
        assert oracle.run("retry", settings, environment=who)[0] == 1


def test_a_pattern_of_objects_is_one_load(tmp_path: Path, store: Store) -> None:
    expected = make_export(tmp_path / "made.csv", USERS, 8)
    header, *rows = (tmp_path / "made.csv").read_bytes().splitlines(keepends=True)
    for at in range(4):
        part = header + b"".join(rows[at * len(rows) // 4 : (at + 1) * len(rows) // 4])
        store.put(f"night/part-{at}.csv.gz", gzip.compress(part))
    store.put("night/more/part-9.csv.gz", b"another folder's")
    store.put("night/readme.txt", b"no part of it")
    who = environment(store)
    with oracle.sandbox("--latency", "0.1", "--unknown", "former") as url:
        settings = settings_for(tmp_path, url, store, "night/part-*.csv.gz")
        killed_once(settings, who)
        status, _, err = oracle.run("run", settings, environment=who)

        assert status == 1, err
        assert oracle.compare(url, tmp_path / "users.ckpt", expected) <= 2 * 4 * 100


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_columnar_objects_are_read_here_and_there(tmp_path: Path, store: Store, form: str) -> None:
    make_export(tmp_path / "made.csv", USERS, 9)
    store.put(f"users.{form}", columnar((tmp_path / "made.csv").read_bytes(), form))
    who = environment(store)
    with oracle.sandbox("--latency", "0.1", "--unknown", "former") as url:
        settings = settings_for(tmp_path, url, store, f"users.{form}")
        settings.write_text(settings.read_text().replace('types = { headcount = "number" }', ""))
        killed_once(settings, who)
        status, _, err = oracle.run("run", settings, environment=who)

        assert status == 1, err
        rows = oracle.results(tmp_path / "users.ckpt")
        sent = [row["user"] for row in rows if row["code"] in ("SUCCESS", "SUPERSEDED")]
        assert [int(row["row"]) for row in rows] == list(range(1, len(rows) + 1))
        assert {str(user["userName"]) for user in oracle.get(url, "users")} == set(sent)


def test_an_object_that_changes_is_refused_and_one_that_is_missing_too(tmp_path: Path, store: Store) -> None:
    make_export(tmp_path / "made.csv", USERS, 7)
    content = (tmp_path / "made.csv").read_bytes()
    store.put("changing.csv", content)
    who = environment(store)
    with oracle.sandbox("--latency", "0.1", "--unknown", "former") as url:
        settings = settings_for(tmp_path, url, store, "changing.csv")
        killed_once(settings, who)
        store.put("changing.csv", content + b"more\n")
        status, _, err = oracle.run("run", settings, environment=who)
        assert status == 2
        assert f"{store.url('changing.csv')} has changed since the load began" in err

        store.put("changing.csv", content)  # as it was, by another time and perhaps another version
        assert oracle.run("run", settings, environment=who)[0] == 1

        missing = settings_for(tmp_path, url, store, "nowhere.csv")
        status, _, err = oracle.run("run", missing, environment=who)
        assert status == 2
        assert "there is no such object" in err
