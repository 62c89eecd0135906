"""The examples work as they stand, and the page that explains one shows what it is."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KINTO = ROOT / "examples" / "loader-kinto"
PAGE = (ROOT / "docs" / "write-a-target.md").read_text("utf-8")


def test_its_own_test_passes() -> None:
    """By itself, as its author runs it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-c", os.devnull]
    done = subprocess.run(
        [*command, "--rootdir", str(KINTO), str(KINTO)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{KINTO}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
    )

    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE), done.stdout + done.stderr


@pytest.mark.parametrize(
    "block", re.findall(r"```(?:python|toml)\n(.*?)```", PAGE, re.DOTALL), ids=lambda text: text[:30]
)
def test_the_page_shows_real_code(block: str) -> None:
    """Each block stands in the example, word for word."""
    files = [path.read_text("utf-8") for path in KINTO.iterdir() if path.suffix in (".py", ".toml")]

    assert any(block in text for text in files), block


def test_the_page_shows_all_that_matters() -> None:
    """The whole class, and the whole test."""
    source = (KINTO / "loader_kinto.py").read_text("utf-8")
    shown = "".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    body = source[source.index("class Kinto") : source.index("class Record")]

    assert [line for line in body.splitlines() if line not in shown.splitlines()] == []
    assert (KINTO / "test_loader_kinto.py").read_text("utf-8") in shown


def test_its_entry_point_is_the_targets_name() -> None:
    """Else it would be found, and refused."""
    project = tomllib.loads((KINTO / "pyproject.toml").read_text("utf-8"))["project"]
    source = (KINTO / "loader_kinto.py").read_text("utf-8")

    assert project["entry-points"]["loader.targets"] == {"kinto": "loader_kinto:Kinto"}
    assert 'api: ClassVar[str] = "kinto"' in source
