"""Exports on a web server with a certificate of its own authority: loads as processes, killed, and exact."""

import gzip
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from loader.demo import Expected, make_export
from tests.end_to_end import oracle
from tests.export.web_server import WebServer, serving, trust

USERS = 6_000
SECRET = "s3cr3t-signature"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(tmp_path: Path, authority: trustme.CA) -> Iterator[WebServer]:
    trust(tmp_path, authority)
    with serving(WebServer(query=f"sig={SECRET}"), authority) as served:
        yield served


@pytest.fixture
def expected(tmp_path: Path, server: WebServer) -> Expected:
    made = make_export(tmp_path / "made.csv", USERS, 3)
    server.files["users.csv"] = (tmp_path / "made.csv").read_bytes()
    server.files["users.csv.gz"] = gzip.compress(server.files["users.csv"])
    return made


def settings_for(folder: Path, url: str) -> Path:
    """The address is a secret, and stands in the environment."""
    settings = oracle.write_settings(folder, url, export="env:EXPORT_URL", concurrency=4)
    more = '\n[checkpoint]\npath = "users.ckpt"\n[network]\nca_file = "ca.pem"\n'
    settings.write_text(settings.read_text() + more)
    return settings


def address(server: WebServer, name: str = "users.csv", signature: str = SECRET) -> dict[str, str]:
    return {"EXPORT_URL": f"{server.url}/{name}?sig={signature}"}


@pytest.mark.parametrize("name", ["users.csv", "users.csv.gz"])
def test_a_load_is_killed_and_goes_on(tmp_path: Path, server: WebServer, expected: Expected, name: str) -> None:
    """Also with an address that was signed anew; and the signature is written down nowhere."""
    server.drops = 2
    with oracle.sandbox("--latency", "0.1", "--unknown", "former") as url:
        settings = settings_for(tmp_path, url)
        process = oracle.start("run", settings, environment=address(server, name))
        oracle.wait_for_rows(tmp_path / "users.ckpt", 1_000)
        process.kill()
        _, said = process.communicate()
        server.query = "sig=another"
        refused, _, why = oracle.run("run", settings, environment=address(server, name))
        server.has_ranges = False
        status, _, err = oracle.run("run", settings, environment=address(server, name, "another"))

        assert err.count("takes no ranges") == 1
        assert (refused, status) == (2, 1), err
        assert "403" in why
        assert "get a new one" in why
        assert oracle.compare(url, tmp_path / "users.ckpt", expected) <= 2 * 4 * 100
    shown = [oracle.run(command, tmp_path / "users.ckpt")[1] for command in ("status", "results")]
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("users.ckpt*"))
    for text in (said, why, err, *shown, kept.decode("latin-1")):
        assert SECRET not in text
        assert "sig=" not in text
    assert f"{server.url}/{name}?…" in shown[0]


def test_every_command_takes_an_address(tmp_path: Path, server: WebServer, expected: Expected) -> None:
    who = address(server)
    with oracle.sandbox("--unknown", "former") as url:
        settings = settings_for(tmp_path, url)
        status, out, err = oracle.run("check", settings, environment=who)
        assert status == 1, err
        assert f"{server.url}/users.csv?…" in out + err
        assert oracle.run("run", settings, environment=who)[0] == 1
        status, _, err = oracle.run("retry", settings, environment=who)
        assert status == 1, err
        rows = ("results", tmp_path / "users.ckpt", "--rows", "--code", "USER_NOT_FOUND")
        status, _, err = oracle.run(*rows)
        assert status == 2
        assert "kept nowhere; give the whole address" in err
        assert "--export" in err
        status, out, err = oracle.run(*rows, "--export", who["EXPORT_URL"])
    assert status == 0, err
    assert len(out.splitlines()) == expected.kinds["unknown"] + 1


def test_a_nightly_refresh_reads_it_too(tmp_path: Path, server: WebServer, expected: Expected) -> None:
    assert expected.users
    who = address(server)
    with oracle.sandbox("--unknown", "former") as url:
        settings = settings_for(tmp_path, url)
        settings.write_text(settings.read_text() + '[refresh]\nmode = "changed"\n')
        assert oracle.run("run", settings, environment=who)[0] == 1
        server.files["users.csv"] += b'"new@example.com","Sales","1","Oslo","1"\n'
        status, _, err = oracle.run("plan", settings, environment=who)
        assert status == 0, err
        status, _, err = oracle.run("run", settings, environment=who)
        assert status == 1, err
        with sqlite3.connect(tmp_path / "users.ckpt") as db:
            (unchanged,) = db.execute("select count(*) from results where code = 'UNCHANGED'").fetchone()
    assert unchanged > USERS / 2
    assert (tmp_path / "users.state").exists()


def test_a_file_that_changes_stops_the_run_and_is_refused_then(
    tmp_path: Path, server: WebServer, expected: Expected
) -> None:
    whole = server.files["users.csv"] = server.files["users.csv"] * 12
    later = whole.replace(b"1", b"2")
    is_changed = threading.Event()
    server.on_range = lambda start: start >= 1 << 21 and is_changed.wait(25)
    with oracle.sandbox() as url:
        settings = settings_for(tmp_path, url)
        process = oracle.start("run", settings, environment=address(server))
        oracle.wait_for_rows(tmp_path / "users.ckpt", 500)
        server.files["users.csv"] = later
        is_changed.set()
        _, err = process.communicate()
        assert process.returncode == 3, err
        assert "has changed while it was read" in err
        status, _, err = oracle.run("run", settings, environment=address(server))
        assert status == 2
        assert "its size is the same, its content is not" in err
        server.files["users.csv"], server.on_range = whole, lambda _start: None
        status, _, err = oracle.run("run", settings, environment=address(server))
        assert status == 1, err
    assert len(whole) > 1 << 21
    assert len(oracle.results(tmp_path / "users.ckpt")) == 12 * expected.kinds.total() + 11  # its header, too


def test_a_signal_ends_it_while_the_server_is_silent(tmp_path: Path, server: WebServer, expected: Expected) -> None:
    server.files["users.csv"] *= 40
    server.on_range = lambda start: time.sleep(60 if start > 1 << 20 else 0)
    with oracle.sandbox() as url:
        settings = settings_for(tmp_path, url)
        process = oracle.start("run", settings, environment=address(server))
        oracle.wait_for_rows(tmp_path / "users.ckpt", 500)
        time.sleep(0.5)
        begin = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 143, err
    assert time.monotonic() - begin < 5
    assert expected.users
