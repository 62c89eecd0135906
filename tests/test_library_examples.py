"""The examples of docs/library.md run as they stand, and the page shows what they are."""

import re
import runpy
import sqlite3
from pathlib import Path

import pytest

from tests.test_library import KEY_ID, LEDGER, SECRET, USERS, a_file, ledger, sandbox_on_a_thread

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "examples" / "library").glob("*.py"))
PAGE = (ROOT / "docs" / "library.md").read_text("utf-8")

CAPITAL = {user: {"dept": held["dept"].upper()} for user, held in LEDGER.items()}


def prepare(folder: Path, url: str) -> None:
    """All that an example may want to find."""
    a_file(folder)
    (folder / "exports").mkdir()
    (folder / "exports" / "2026-01-31.csv").write_bytes((folder / "users.csv").read_bytes())
    (folder / "hr.csv").write_text(
        "email,dept,active\n" + "".join(f"{user['email']},{user['dept']},true\n" for user in USERS) + "x,gone,false\n"
    )
    with sqlite3.connect(folder / "hr.sqlite") as db:
        db.execute("create table person (email, dept, active)")
        db.executemany("insert into person values (:email, :dept, true)", USERS)
    db.close()
    (folder / "load.toml").write_text(f"""
        export.path = "users.csv"
        mapping.user = "email"
        [target]
        api = "calven"
        base_url = "{url}"
        auth = {{ scheme = "client-secret", key_id = "env:CALVEN_KEY_ID", secret = "env:CALVEN_SECRET" }}
    """)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_example_loads_every_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    monkeypatch.setenv("CALVEN_KEY_ID", KEY_ID)
    monkeypatch.setenv("CALVEN_SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    with sandbox_on_a_thread() as sandbox:
        prepare(tmp_path, sandbox.url)
        source = tmp_path / "example.py"
        source.write_text(path.read_text("utf-8").replace("http://127.0.0.1:8080", sandbox.url))
        runpy.run_path(str(source), run_name="__main__")

        assert ledger(sandbox) == (CAPITAL if path.stem == "tables" else LEDGER)
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.count("\n") <= 5


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), ids=lambda text: text[:30])
def test_the_page_shows_real_code(block: str) -> None:
    """Each block stands in an example, word for word."""
    assert any(block in path.read_text("utf-8") for path in FILES), block


def test_the_page_shows_every_example() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    for path in FILES:
        assert any(block in path.read_text("utf-8") for block in blocks), path.name
