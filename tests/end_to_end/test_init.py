"""`loader init` as a person meets it: a file that works, questions on a terminal, clear words where it can't."""

import os
import pty
import re
import select
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from loader.targets import BUILT_IN
from tests.end_to_end import oracle
from tests.end_to_end.command import loader

USERS = "Login;E-Mail;Cost Centre;Reports\nann;ann@x.com;00123;3\nbob;bob@x.com;00124;\nann;ann@x.com;00125;4\n"


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.csv").write_text(USERS)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with oracle.sandbox() as address:
        yield address


def test_what_it_writes_is_loaded_as_it_stands(tmp_path: Path, url: str) -> None:
    ended = loader("init", "users.csv")
    assert ended.status == 0, ended.err
    assert "3 would be sent" in ended.err
    assert "export CALVEN_KEY_ID=… CALVEN_SECRET=…\n  loader check load.toml" in ended.err
    assert "check in load.toml the attributes' names and types: they are guessed from the export" in ended.err
    assert "# The names are GUESSED from the columns'" in (tmp_path / "load.toml").read_text()
    assert stat.S_IMODE((tmp_path / "load.toml").stat().st_mode) == 0o600

    keys = {"CALVEN_KEY_ID": "K", "CALVEN_SECRET": "S"}
    loaded = loader("run", "load.toml", "--set", f"target.base_url={url}", environment=keys)

    assert loaded.status == 0, loaded.err
    users = {each["userName"]: each["attributes"] for each in oracle.get(url, "users")}
    assert users["bob@x.com"] == {"login": "bob", "costCentre": "00124"}
    assert users["ann@x.com"] == {"login": "ann", "costCentre": "00125", "reports": "4"}


@pytest.mark.parametrize("api", BUILT_IN)
def test_every_target_and_scheme_gives_settings_that_load(tmp_path: Path, api: str) -> None:
    if api == "calven-hierarchy":
        (tmp_path / "users.csv").write_text("Team,groupType,parent,parentType\nOps,Team,,\n")
    for scheme in BUILT_IN[api].schemes:
        ended = loader("init", "users.csv", "--api", api, "--scheme", scheme, "-o", f"{scheme}.toml")
        if scheme == "oauth2":
            assert "is written, but can't be used yet" in ended.err
            assert "needs token_url" in ended.err
        else:
            assert ended.status == 0, ended.err


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "load.toml").write_text("mine")

    refused = loader("init", "users.csv")
    assert (refused.status, refused.err) == (
        2,
        "loader: -o load.toml: it is there already; --force replaces it, and -o names another\n",
    )
    assert (tmp_path / "load.toml").read_text() == "mine"
    assert loader("init", "users.csv", "--force").status == 0
    assert loader("init", "users.csv", "-o", "other.toml").status == 0


def test_paths_begin_at_the_settings_folder(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()

    assert loader("init", "users.csv", "-o", "conf/load.toml").status == 0
    assert loader("init", tmp_path / "users.csv", "-o", "conf/whole.toml").status == 0
    assert tomllib.loads((tmp_path / "conf" / "load.toml").read_text())["export"]["path"] == "../users.csv"
    assert tomllib.loads((tmp_path / "conf" / "whole.toml").read_text())["export"]["path"] == str(
        tmp_path / "users.csv"
    )


def test_a_pattern_gets_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "users-2.csv").write_text(USERS)
    (tmp_path / "users-1.csv").write_text(USERS)

    ended = loader("init", "users-*.csv")

    assert ended.status == 0, ended.err
    assert tomllib.loads((tmp_path / "load.toml").read_text())["checkpoint"] == {"path": "users.ckpt"}


def test_the_schema_is_pointed_at_where_there_is_one(tmp_path: Path) -> None:
    """A line that points at nothing would be an error in the editor."""
    assert loader("init", "users.csv").status == 0
    assert "#:schema" not in (tmp_path / "load.toml").read_text()

    written = loader("schema", "-o", "loader.schema.json")
    assert (written.status, written.out) == (0, "")
    assert loader("init", "users.csv", "--force").status == 0
    assert (tmp_path / "load.toml").read_text().startswith("#:schema ./loader.schema.json\n")


def test_the_line_by_which_excel_knows_the_delimiter_is_understood(tmp_path: Path, url: str) -> None:
    """What is written needs no delimiter, and loads."""
    (tmp_path / "users.csv").write_text(f"sep=;\n{USERS}broken\n")

    ended = loader("init", "users.csv", "--base-url", url)

    assert ended.status == 0, ended.err
    assert "users.csv line 6: 1 field, the header has 4" in ended.err
    assert "delimiter" not in tomllib.loads((tmp_path / "load.toml").read_text())["export"]
    loaded = loader("run", "load.toml", environment={"CALVEN_KEY_ID": "K", "CALVEN_SECRET": "S"})
    assert loaded.status == 1
    assert "SUCCESS     " in loaded.err
    rows = loader("results", "users.ckpt", "--rows", "--code", "REJECTED", "-o", "corrected.csv")
    assert (rows.status, (tmp_path / "corrected.csv").read_text().startswith("sep=;\nLogin;")) == (0, True)


def test_rows_that_would_be_rejected_are_told(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("email,Dept\na@x.com,S\nb@x.com\n,L\n")

    ended = loader("init", "users.csv")

    assert ended.status == 0
    assert (
        "of the first 3 rows, 1 would be sent, 2 REJECTED\n  users.csv line 3: 1 field, the header has 2" in ended.err
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody.csv",), "can't read .*nobody.csv: No such file"),
        (("nobody-*.csv",), "no file matches"),
        (("users.csv", "users.csv"), "EXPORT: 2 files; put their pattern in quotes"),
        (("-",), "EXPORT: stdin can't be read twice"),
        (("pipe",), "EXPORT: pipe can't be read twice; write its first lines to a file"),
        ((".",), "Is a directory"),
        (("users.csv", "--user", "Log"), "--user: the export has no column 'Log'; did you mean 'Login'?"),
        (("users.csv", "--api", "calvin"), "'calvin' is not an API; .*did you mean calven"),
        (("users.csv", "--scheme", "hmacs"), "--scheme: 'hmacs' is not one of hmac, client-secret, basic, bearer"),
        (("users.csv", "--api", "calven-hierarchy", "--user", "Login"), "--user: calven-hierarchy has fixed columns"),
        (("users.csv", "-o", "no/load.toml"), "-o no/load.toml: can't write it: No such file"),
        (("users.csv", "--base-url", "http://api.calven.com"), "can't be used yet: .*plain http is for loopback"),
        (("empty.csv",), "no column has a value that could be a user's key; --user names one"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "empty.csv").write_text("a,b\n,\n")
    os.mkfifo(tmp_path / "pipe")

    ended = loader("init", *arguments)

    assert ended.status == 2
    assert re.search(words, ended.err), ended.err
    assert ended.err.startswith("loader: ")
    assert ended.err.count("\n") == 1


# On a terminal -------------------------------------------------------------------------------------------------------


def on_a_terminal(*arguments: str, answers: list[str]) -> tuple[int, str]:
    """`loader init`, each question answered, with Enter when the answers are used up. Returns status and screen."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "loader", "init", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    screen = b""
    asked = 0
    try:
        while select.select([ours], [], [], 30)[0]:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # Linux: the other end is closed
                break
            if not piece:
                break
            screen += piece
            if screen.endswith(b"]: ") and (questions := screen.count(b"]: ")) > asked:
                asked = questions
                os.write(ours, (answers.pop(0) if answers else "").encode() + b"\n")
    finally:
        os.close(ours)
        status = process.wait(10)
    return status, screen.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("api", ["calven", "scim", "http"])
def test_enter_all_the_way_gives_what_yes_gives(tmp_path: Path, api: str) -> None:
    status, screen = on_a_terminal("users.csv", "--api", api, answers=[])

    assert status == 0, screen
    asked = (tmp_path / "load.toml").read_text()
    assert loader("init", "users.csv", "--api", api, "--yes", "--force").status == 0
    assert (tmp_path / "load.toml").read_text() == asked
    assert "Which column holds the users' keys" in screen


def test_answers_count(tmp_path: Path) -> None:
    """Another API, another key, one attribute left out, and another file."""
    answers = ["dxx", "dx", "Login", "n", "y", "n", "y", "dx.toml"]

    status, screen = on_a_terminal("users.csv", answers=answers)

    assert status == 0, screen
    assert "'dxx' is not one of" in screen
    read = tomllib.loads((tmp_path / "dx.toml").read_text())
    assert read["mapping"]["user"] == "Login"
    assert read["mapping"]["attributes"] == {"E-Mail": "E-Mail", "Reports": "Reports"}
    assert read["target"]["expect"] == ["E-Mail", "Reports"]


def test_whoever_gives_up_gets_no_file(tmp_path: Path) -> None:
    status, _ = on_a_terminal("users.csv", answers=["\x04"])

    assert status == 130
    assert not (tmp_path / "load.toml").exists()
