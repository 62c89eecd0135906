"""Loads into what others have written, by means that others have: settings alone, and a package of one's own.

What the servers then hold is read through their own APIs, and compared with the export's last values.
"""

import base64
import csv
import json
import random
import re
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest

from tests.end_to_end import oracle, servers
from tests.end_to_end.command import loader

EXAMPLE = Path(__file__).parents[2] / "examples" / "loader-kinto"

COLUMNS = {"department": "Dept", "costCenter": "Cost Centre", "note": "Note"}
TEXTS = ("Engineering", 'Research "Blue"', "Legal, Risk & Audit", "Café Crew", "名前 🙂", "a\\b/c", "00123", "")
KEYS = ("User", "user.+o'neil", "Zoë", "50%25", "a?b=c&d#e", '"x"', "名前")

Users = dict[str, dict[str, str | None]]


def names_of(count: int) -> list[str]:
    return [f"{KEYS[at % len(KEYS)]}{at}@example.com" for at in range(count)]


def write_export(path: Path, names: Iterable[str], seed: int) -> list[tuple[str, dict[str, str]]]:
    """A row for each name, and for every 30th a later one; the rows as they are written."""
    rng = random.Random(seed)
    rows: list[tuple[str, dict[str, str]]] = []
    for number, name in enumerate(names):
        for user in [name, rng.choice(rows)[0]] if number % 30 == 29 else [name]:
            values = {column: rng.choice(TEXTS) for column in COLUMNS.values()}
            rows.append((user, values | {"Note": values["Note"] or f"row {number}"}))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["Key", *COLUMNS.values()])
        writer.writerows([user, *values.values()] for user, values in rows)
    return rows


def write_settings(folder: Path, target: str, auth: str, *, empty: str = "omit", **limits: object) -> Path:
    attributes = ", ".join(f'{name} = "{column}"' for name, column in COLUMNS.items())
    path = folder / "load.toml"
    path.write_text(
        f'[export]\npath = "users.csv"\n'
        f'[mapping]\nuser = "Key"\nempty = "{empty}"\nattributes = {{ {attributes} }}\n'
        f"[target]\n{target}\n[target.auth]\n{auth}\n"
        "[limits]\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in limits.items())
    )
    return path


def killed_load(settings: Path, rows: int, environment: dict[str, str] | None = None) -> tuple[int, Counter[str], str]:
    """A load that is killed after a tenth of its rows, and resumed: its status, its codes, and how fast it was."""
    checkpoint = settings.parent / "users.ckpt"
    started = time.monotonic()
    with oracle.start("run", settings, environment=environment) as process:
        try:
            oracle.wait_for_rows(checkpoint, rows // 10, within_s=300)
        finally:
            process.kill()
        _, err = process.communicate()
    assert process.returncode == -9, err
    killed_s = time.monotonic() - started
    before = len(oracle.results(checkpoint))
    assert before < rows
    started = time.monotonic()
    status, _, err = oracle.run("run", settings, environment=environment)
    took_s = time.monotonic() - started
    found = oracle.results(checkpoint)
    assert [int(row["row"]) for row in found] == list(range(1, rows + 1)), err
    figures = (
        f"{rows:,} rows, of which {before:,} in {killed_s:.1f} s up to the kill; "
        f"the others in {took_s:.1f} s, {(rows - before) / took_s:,.0f} rows/s"
    )
    return status, Counter(row["code"] for row in found), figures


def call(method: str, url: str, authorization: str, body: object = None) -> tuple[dict[str, Any], Mapping[str, str]]:
    headers = {"Authorization": authorization, "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
        return found, dict(answer.headers)


# A generic API, and a login elsewhere ---------------------------------------------------------------------------------


class Api(BaseHTTPRequestHandler):
    """`POST /token` as RFC 6749 has it, and `PUT /people`, which takes each token for two requests."""

    def do_POST(self) -> None:
        form = parse_qs(self.body.decode())
        pair = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
        is_known = (pair, form) == ("K:S", {"grant_type": ["client_credentials"], "scope": ["write"]})
        self.server.tokens.append(f"token{len(self.server.tokens)}")  # type: ignore[attr-defined]
        token = {"access_token": self.server.tokens[-1], "token_type": "Bearer", "expires_in": 3600}  # type: ignore[attr-defined]
        self.reply(200 if is_known else 401, token if is_known else {"error": "invalid_client"})

    def do_PUT(self) -> None:
        other = self.server.login  # type: ignore[attr-defined]
        used = self.server.used  # type: ignore[attr-defined]
        token = self.headers["Authorization"].removeprefix("Bearer ")
        used[token] += 1
        if not other.tokens or token != other.tokens[-1] or used[token] > 2:
            self.reply(401, {"error": "invalid_token"})
            return
        people = json.loads(self.body)["people"]
        self.server.held.update({one["name"]: one["is"] for one in people})  # type: ignore[attr-defined]
        self.reply(200, [{"who": one["name"], "code": 0} for one in reversed(people)])

    @property
    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def reply(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(**state: object) -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    vars(server).update(state)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_token_from_another_host_is_renewed(tmp_path: Path) -> None:
    """OAuth2 and a list of results, by settings alone."""
    rows = write_export(tmp_path / "users.csv", names_of(60), seed=1)
    with serving(tokens=[]) as login, serving(login=login, used=Counter(), held={}) as api:
        target = (
            f'api = "http"\nbase_url = "http://127.0.0.1:{api.server_port}"\nmethod = "PUT"\npath = "/people"\n'
            'wrapper = "people"\nuser = "name"\nattributes = "is"\n'
            'results = "."\nresult_user = "who"\nresult_code = "code"\nsuccess = [0]\n'
            f'token_url = "http://127.0.0.1:{login.server_port}/token"\nscope = "write"'
        )
        auth = 'scheme = "oauth2"\nkey_id = "env:LOADER_TEST_KEY"\nsecret = "env:LOADER_TEST_SECRET"'
        settings = write_settings(tmp_path, target, auth, empty="null", users_per_request=10, concurrency=1)

        status, _, err = loader("run", settings)

        assert status == 0, err
        assert api.held == {user: named(values, None) for user, values in dict(rows).items()}
        assert len(login.tokens) > 2


def named(values: Mapping[str, str], empty: str | None) -> dict[str, str | None]:
    """A row's values under the names that are sent, with that in the place of empty ones."""
    return {name: values[column] or empty for name, column in COLUMNS.items()}


# Datasette, by settings alone -----------------------------------------------------------------------------------------

TABLE = "create table users (id text primary key, department text, costCenter text, note text, kept text)"


def make_table(folder: Path, names: Iterable[str] = ()) -> Path:
    path = folder / "data.db"
    with sqlite3.connect(path) as db:
        db.execute(TABLE)
        db.executemany(
            "insert into users (id, department, kept) values (?, 'before', 'kept')", [(name,) for name in names]
        )
    db.close()
    return path


def datasette_settings(
    folder: Path, url: str, token: str, path: str = "/data/users/-/upsert", **limits: object
) -> Path:
    target = f'api = "http"\nbase_url = "{url}"\npath = "{path}"\nwrapper = "rows"\nuser = "id"'
    return write_settings(folder, target, f'scheme = "bearer"\ntoken = "{token}"', empty="null", **limits)


def held_by_datasette(url: str) -> Users:
    """All rows, page by page, without their key."""
    found: Users = {}
    page = f"{url}/data/users.json?_size=max"
    while page:
        answer, _ = call("GET", page, "")
        found |= {row.pop("id"): row for row in answer["rows"]}
        page = answer["next_url"]
    return found


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_twenty_thousand_users_into_datasette(tmp_path: Path) -> None:
    """A table of users, half of them there before; what isn't sent is kept."""
    names = names_of(20_000)
    rows = write_export(tmp_path / "users.csv", names, seed=2)
    database = make_table(tmp_path, names[::2])
    with servers.datasette(tmp_path, database) as (url, token):
        settings = datasette_settings(tmp_path, url, token, concurrency=4)
        status, codes, figures = killed_load(settings, len(rows))

        assert status == 0
        assert set(codes) <= {"SUCCESS", "SUPERSEDED"}
        before = set(names[::2])
        assert held_by_datasette(url) == {
            user: named(values, None) | {"kept": "kept" if user in before else None}
            for user, values in dict(rows).items()
        }
    print(f"http, datasette: {figures}")


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_what_datasette_refuses(tmp_path: Path) -> None:
    """Too many rows, too long a body, a column that isn't there, a wrong token, a table that isn't there."""
    rows = write_export(tmp_path / "users.csv", names_of(3_000), seed=3)
    database = make_table(tmp_path)
    with servers.datasette(tmp_path, database, "max_insert_rows", "150", "max_post_body_bytes", "20000") as (
        url,
        token,
    ):
        for wrong, table, words in (
            ("another", "users", "refuses to go on: HTTP 403: .*Permission denied"),
            ("dstok_x", "users", "credentials are not accepted: HTTP 401: .*Invalid token"),
            (token, "nobody", "refuses to go on: HTTP 404: .*Table not found"),
        ):
            settings = datasette_settings(tmp_path, url, wrong, f"/data/{table}/-/upsert")
            status, _, err = oracle.run("run", settings, "--fresh", "--yes")
            assert status == 3
            assert re.search(words, err), err

        many = datasette_settings(tmp_path, url, token, users_per_request=400, concurrency=2)
        status, _, err = oracle.run("run", many, "--fresh", "--yes")
        assert status == 0, err
        assert held_by_datasette(url) == {
            user: named(values, None) | {"kept": None} for user, values in dict(rows).items()
        }

        text = many.read_text().replace('note = "Note"', 'noSuchColumn = "Note"')
        (tmp_path / "odd.toml").write_text(text)
        status, _, err = oracle.run("run", tmp_path / "odd.toml", "--first", "40", "--fresh", "--yes")
        found = oracle.results(tmp_path / "users.ckpt")
        assert {row["code"] for row in found} == {"INVALID", "SUPERSEDED"}, err
        assert "noSuchColumn" in found[0]["message"]


# Kinto, by the package in examples/ -----------------------------------------------------------------------------------

RECORDS = "/buckets/people/collections/staff/records"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The example as pip installs it, in a folder of its own; the environment in which the loader finds it."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(EXAMPLE)]
    subprocess.run(pip, check=True, capture_output=True)
    return {"PYTHONPATH": str(folder)}


def authorization(name: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:secret".encode()).decode()


def make_collection(url: str) -> None:
    for path in ("/buckets/people", "/buckets/people/collections/staff"):
        call("PUT", url + path, authorization("ann"))


def fill_kinto(url: str, names: list[str]) -> None:
    for first in range(0, len(names), 25):
        requests = [
            {"path": f"{RECORDS}/{quote(name, safe='')}", "body": {"data": {"department": "before", "kept": "kept"}}}
            for name in names[first : first + 25]
        ]
        done, _ = call(
            "POST", f"{url}/batch", authorization("ann"), {"defaults": {"method": "PUT"}, "requests": requests}
        )
        assert {each["status"] for each in done["responses"]} == {201}


def held_by_kinto(url: str) -> Users:
    """All records, page by page, without what is the server's own."""
    found: Users = {}
    page = f"{url}{RECORDS}?_limit=5000"
    while page:
        answer, headers = call("GET", page, authorization("ann"))
        for record in answer["data"]:
            del record["last_modified"]
            found[record.pop("id")] = record
        page = headers.get("Next-Page", "")
    return found


def kinto_settings(folder: Path, url: str, write: str, name: str = "ann", **limits: object) -> Path:
    target = f'api = "kinto"\nbase_url = "{url}"\nbucket = "people"\ncollection = "staff"\nwrite = "{write}"'
    return write_settings(
        folder, target, f'scheme = "basic"\nkey_id = "{name}"\nsecret = "secret"', empty="omit", **limits
    )


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("write", ["merge", "replace"])
def test_twenty_thousand_users_into_kinto(tmp_path: Path, installed: dict[str, str], write: str) -> None:
    """Merged into records that are there, where some are missing; or written whole, whether there or not.

    Kinto's memory backend gets slower with each record: one client that writes 25 a request, one request after the
    other, does 330 a second into an empty collection, and 90 into one of 16,000 (on two busy cores).
    """
    names = names_of(20_000)
    rows = write_export(tmp_path / "users.csv", names, seed=4)
    with servers.kinto(tmp_path) as url:
        make_collection(url)
        there = names if write == "replace" else [name for at, name in enumerate(names) if at % 50]
        if write == "merge":
            fill_kinto(url, there)
        expected: Users = {name: {"department": "before", "kept": "kept"} for name in there} if write == "merge" else {}
        for user, values in rows:
            sent: dict[str, str | None] = {
                name: value for name, value in named(values, None).items() if value is not None
            }
            if write == "replace":
                expected[user] = sent
            elif user in expected:
                expected[user] |= sent
        settings = kinto_settings(tmp_path, url, write, concurrency=4)
        status, out, err = oracle.run("check", settings, environment=installed)
        assert status == 0, err
        assert "kinto at " in out

        status, codes, figures = killed_load(settings, len(rows), installed)

        assert held_by_kinto(url) == expected
        missing = sum(user not in expected for user, _ in rows)
        assert (status, codes["USER_NOT_FOUND"]) == (1 if missing else 0, missing)
        assert codes["SUCCESS"] + codes["SUPERSEDED"] == len(rows) - missing
    print(f"loader-kinto, write = {write}: {figures}")


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_what_kinto_refuses(tmp_path: Path, installed: dict[str, str]) -> None:
    """Somebody else's collection, more requests than a batch may hold, a key that it doesn't take."""
    rows = write_export(tmp_path / "users.csv", [*names_of(500), "two words", "Ops/ann"], seed=5)
    with servers.kinto(tmp_path, most=20) as url:
        make_collection(url)
        status, _, err = oracle.run("run", kinto_settings(tmp_path, url, "replace", "bob"), environment=installed)
        assert (status, "target.bucket and target.collection" in err) == (3, True), err

        settings = kinto_settings(tmp_path, url, "replace", users_per_request=70)
        status, _, err = oracle.run("run", settings, "--fresh", "--yes", environment=installed)

        assert status == 1, err
        found = oracle.results(tmp_path / "users.ckpt")
        assert {row["user"]: row["code"] for row in found if row["code"] not in ("SUCCESS", "SUPERSEDED")} == {
            "two words": "INVALID",
            "Ops/ann": "INVALID",
        }
        assert held_by_kinto(url).keys() == {user for user, _ in rows} - {"two words", "Ops/ann"}
