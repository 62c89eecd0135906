"""SCIM, as real processes: into the sandbox, and into scim2-server, which others wrote from the RFCs.

What the servers then hold is read through their own APIs, and compared with what the export says.
"""

import csv
import json
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from loader.demo import make_export
from tests.end_to_end import oracle, servers
from tests.end_to_end.command import loader

CONCURRENCY = 8

# The sandbox ---------------------------------------------------------------------------------------------------------


class Way(NamedTuple):
    """Settings under `[target]`, users a request, and what the sandbox is told."""

    target: str
    users: int
    flags: tuple[str, ...] = ()


WAYS = {
    "one": Way('api = "scim"', 1, ("--patch-answer", "empty")),
    "together": Way('api = "scim"\nusers_per_lookup = 20', 20),
    "bulk": Way('api = "scim"\nbulk = true', 30, ("--no-resources", "absent")),
    "bulk-together": Way('api = "scim"\nbulk = true\nusers_per_lookup = 50\nsearch = "post"', 100),
}


def sandbox_settings(way: Way, folder: Path, url: str) -> Path:
    return oracle.write_settings(
        folder,
        f"{url}/scim/v2",
        scheme="bearer",
        target=way.target,
        users_per_request=way.users,
        concurrency=CONCURRENCY,
    )


@pytest.mark.parametrize("name", WAYS)
def test_a_killed_load_loses_nothing(tmp_path: Path, name: str) -> None:
    """Killed under way, with answers that are lost, cut, mixed up, doubled, foreign, or not whole."""
    way = WAYS[name]
    expected = make_export(tmp_path / "users.csv", 400, seed=4)
    faults = ("shuffled=0.2", "doubled=0.02", "foreign=0.02", "missing=0.02", "garbage=0.01", "lost=0.01", "500=0.01")
    flags = [*way.flags, "--latency", "0.003", *(part for fault in faults for part in ("--fault", fault))]
    known = ("--api", "scim", "--token", "T", "--prefix", "/scim/v2")
    with oracle.sandbox(*flags, "--unknown", "former", knows=known) as url:
        settings = sandbox_settings(way, tmp_path, url)
        process = oracle.start("run", settings)
        oracle.wait_for_rows(tmp_path / "users.ckpt", 60)
        process.kill()
        _, err = process.communicate()
        assert process.returncode == -9, err

        status, _, err = loader("run", settings)

        assert status == 1, err  # some users are unknown
        oracle.compare(url, tmp_path / "users.ckpt", expected)


def test_a_load_goes_on_without_bulk(tmp_path: Path) -> None:
    """Where the server turns out to have none: the message says what to set, and it is the same load then."""
    expected = make_export(tmp_path / "users.csv", 100, seed=1)
    known = ("--api", "scim", "--token", "T", "--prefix", "/scim/v2")
    with oracle.sandbox("--no-bulk", "--unknown", "former", knows=known) as url:
        settings = sandbox_settings(WAYS["bulk"], tmp_path, url)

        status, _, err = loader("run", settings)
        assert status == 3
        assert "set target.bulk = false" in err

        flags = ("--set", "target.bulk=false", "--set", "limits.users_per_request=1")
        status, _, err = loader("run", settings, *flags)
        assert status == 1, err  # some users are unknown
        oracle.compare(url, tmp_path / "users.ckpt", expected)


def test_check_counts_searches_and_shows_what_is_sent(tmp_path: Path) -> None:
    """Though the id is not known yet."""
    (tmp_path / "users.csv").write_text("email,Dept,Cost Centre,Site,Reports\n" + "ann@x.com,Ops,1,Wien,2\n" * 3)
    with oracle.sandbox(knows=("--api", "scim", "--token", "T", "--prefix", "/scim/v2")) as url:
        status, out, err = loader("check", sandbox_settings(WAYS["one"], tmp_path, url), "--show")

    assert status == 0, err
    assert f"PATCH {url}/scim/v2/Users/ID" in out
    assert "requests: 6" in out


# scim2-server --------------------------------------------------------------------------------------------------------

TOKEN = "t0ken-of-the-tests"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
DEPARTMENT = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department"
COLUMNS = {"title": "Title", "name.familyName": "Surname", "nickName": "Nick", DEPARTMENT: "Dept"}
BEFORE = {"title": "before", "nickName": "before"}
TEXTS = ("Engineering", 'Research "Blue"', "Legal, Risk & Audit", "Café Crew", "名前 🙂", "a\\b/c", "")


@dataclass
class Directory:
    """A server and its users: the id of each name, and what it should hold of each in the end."""

    url: str
    idents: dict[str, str] = field(default_factory=dict)
    users: dict[str, dict[str, str]] = field(default_factory=dict)

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/scim+json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def fill(self, names: Sequence[str], at_once: int = 200) -> None:
        """Create users of these names, each with attributes that a load can change or remove."""
        for first in range(0, len(names), at_once):
            operations = [
                {
                    "method": "POST",
                    "path": "/Users",
                    "bulkId": name,
                    "data": {"schemas": [USER], "userName": name} | BEFORE,
                }
                for name in names[first : first + at_once]
            ]
            body = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"], "Operations": operations}
            for done in self.call("POST", "/Bulk", body)["Operations"]:
                assert done["status"] == "201", done
                self.idents[done["bulkId"]] = done["location"].rpartition("/")[2]
        self.users = {name: dict(BEFORE) for name in names}

    def held(self) -> dict[str, dict[str, str]]:
        """What it holds of each user, page by page."""
        found: dict[str, dict[str, str]] = {}
        while True:
            page = self.call("GET", f"/Users?startIndex={len(found) + 1}&count=1000")
            found |= {user["userName"]: attributes_of(user) for user in page["Resources"]}
            if len(found) >= page["totalResults"]:
                return found


def attributes_of(user: Mapping[str, Any]) -> dict[str, str]:
    urn, _, name = DEPARTMENT.rpartition(":")
    values = {
        "title": user.get("title"),
        "nickName": user.get("nickName"),
        "name.familyName": user.get("name", {}).get("familyName"),
        DEPARTMENT: user.get(urn, {}).get(name),
    }
    return {path: value for path, value in values.items() if value is not None}


def names_of(count: int) -> list[str]:
    kinds = ("User", "user.+o'neil", "Zoë")
    return [f"{kinds[at % len(kinds)]}{at}@example.com" for at in range(count)]


def write_export(path: Path, directory: Directory, key: str, seed: int) -> Counter[str]:
    """A row for most users, several for some, and some for nobody; how many rows are of which kind.

    An empty cell removes. Every 50th user's name is in another case, as exports have them.
    """
    rng = random.Random(seed)
    kinds: Counter[str] = Counter()
    names = list(directory.users)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["Key", *COLUMNS.values()])
        for number, name in enumerate(names):
            kind = "good" if number % 50 == 0 else rng.choices(("good", "again", "unknown"), (95, 3, 2))[0]
            kinds[kind] += 1
            values = {path: rng.choice(TEXTS) for path in COLUMNS}
            if kind == "unknown":
                rows.writerow([f"former{name}" if key == "userName" else f"{number:032x}", *values.values()])
                continue
            if kind == "again":  # rows of one user keep their order where they have one key, in one spelling
                name = names[rng.randrange(number // 50 * 50 + 1, number + 1)]
            shown = name.upper() if number % 50 == 0 else name
            rows.writerow([shown if key == "userName" else directory.idents[name], *values.values()])
            held = directory.users[name] | values
            directory.users[name] = {path: value for path, value in held.items() if value}
    return kinds


def write_settings(folder: Path, url: str, target: str, token: str = TOKEN, **limits: object) -> Path:
    attributes = ", ".join(f'"{path}" = "{column}"' for path, column in COLUMNS.items())
    path = folder / "load.toml"
    path.write_text(
        f'[export]\npath = "users.csv"\n'
        f'[mapping]\nuser = "Key"\nempty = "null"\nattributes = {{ {attributes} }}\n'
        f'[target]\napi = "scim"\nbase_url = "{url}"\n{target}\n'
        f'[target.auth]\nscheme = "bearer"\ntoken = "{token}"\n'
        "[limits]\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in limits.items())
    )
    return path


LOADS = {
    "one": ("userName", ""),
    "bulk": ("userName", "bulk = true"),
    "id": ("id", 'key = "id"'),
    "id-bulk": ("id", 'key = "id"\nbulk = true'),
}


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", LOADS)
def test_twenty_thousand_users_of_a_real_server(tmp_path: Path, name: str) -> None:
    """Killed, resumed, and read back: each attribute has the export's last value, and nobody else was touched."""
    key, target = LOADS[name]
    with servers.scim2_server(tmp_path, TOKEN) as url:
        directory = Directory(url)
        directory.fill(names_of(20_000))
        kinds = write_export(tmp_path / "users.csv", directory, key, seed=len(name))
        settings = write_settings(tmp_path, url, target, concurrency=CONCURRENCY)
        status, out, err = oracle.run("check", settings)
        assert (status, "credentials: taken" in out) == (0, True), err

        killed_at = time.monotonic()
        process = oracle.start("run", settings)
        oracle.wait_for_rows(tmp_path / "users.ckpt", 2_000)
        process.kill()
        process.communicate()
        killed_s = time.monotonic() - killed_at
        before = len(oracle.results(tmp_path / "users.ckpt"))
        started = time.monotonic()
        status, _, err = oracle.run("run", settings)
        took_s = time.monotonic() - started

        assert status == 1, err  # some users are unknown
        rows = oracle.results(tmp_path / "users.ckpt")
        codes = Counter(row["code"] for row in rows)
        assert codes["USER_NOT_FOUND"] == kinds["unknown"]
        assert codes["SUCCESS"] + codes["SUPERSEDED"] == kinds["good"] + kinds["again"] == len(rows) - kinds["unknown"]
        assert directory.held() == directory.users
    print(
        f"{name}: {len(rows):,} rows, of which {before:,} in {killed_s:.0f} s up to the kill; "
        f"the others in {took_s:.0f} s, {(len(rows) - before) / took_s:,.0f} rows/s"
    )


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_what_a_real_server_refuses(tmp_path: Path) -> None:
    """Too many operations are sent in smaller requests; refusals keep their scimType; a wrong token stops the run."""
    with servers.scim2_server(tmp_path, TOKEN) as url:
        directory = Directory(url)
        directory.fill(names_of(3_000))
        kinds = write_export(tmp_path / "users.csv", directory, "id", seed=3)

        wrong = write_settings(tmp_path, url, "", token="another")
        status, _, err = oracle.run("run", wrong, "--set", "checkpoint.path=wrong.ckpt")
        assert status == 3
        assert "Authorization failure" in err

        large = write_settings(tmp_path, url, 'key = "id"\nbulk = true', users_per_request=1_500, concurrency=2)
        status, _, err = oracle.run("run", large)
        assert status == 1, err
        assert directory.held() == directory.users
        codes = Counter(row["code"] for row in oracle.results(tmp_path / "users.ckpt"))
        assert codes["USER_NOT_FOUND"] == kinds["unknown"]

        for target in ('key = "id"', 'key = "id"\nbulk = true'):
            text = write_settings(tmp_path, url, target).read_text()
            (tmp_path / "odd.toml").write_text(text.replace('"nickName"', '"noSuchName"').replace('"title"', '"id"'))
            arguments = ("--first", "20", "--set", "checkpoint.path=odd.ckpt", "--fresh", "--yes")
            oracle.run("run", tmp_path / "odd.toml", *arguments)
            rows = oracle.results(tmp_path / "odd.ckpt")
            assert {row["code"] for row in rows} == {"INVALID"}
            assert {row["target_code"] for row in rows} <= {"invalidPath", "mutability"}
        assert directory.held() == directory.users
