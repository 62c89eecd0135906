"""Sources of packages that somebody has installed: found by name, with options of their own."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loader.errors import ExportError, SettingsError
from loader.record import Frame
from loader.settings import Settings
from loader.sources import find
from tests import make

ROOT = Path(__file__).parents[1]
#: The example of the docs.
EXAMPLE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "sources.md").read_text("utf-8"), re.DOTALL)[-1]

TOML = make.SETTINGS.replace('path = "users.csv"', 'source = "staff"') + '[checkpoint]\npath = "u.ckpt"\n'


FRAME = Frame(user="userName")


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Nothing that one test installs is known to another."""
    find.cache_clear()
    yield
    find.cache_clear()
    sys.modules.pop("loader_staff", None)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are imported from."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site: Path, source: str = EXAMPLE, package: str = "loader-staff") -> None:
    (site / "loader_staff.py").write_text(source)
    metadata = site / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[loader.sources]\nstaff = loader_staff:Staff\n")


OPTIONS = 'token = "env:LOADER_TEST_TOKEN"\nsite = "graz"'


def settings(folder: Path, *overrides: str, options: str = OPTIONS) -> Settings:
    return make.settings(folder, f"{TOML}[export.options]\n{options}\n", overrides)


def said(made: Settings, start: Any = None) -> dict[int, tuple[str, dict[str, Any]]]:
    return make.sent(made.source.rows(made.row_mapping(), start), FRAME)


def test_the_example_of_the_docs_works(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is gone on with behind a key."""
    install(site)
    monkeypatch.setenv("LOADER_TEST_TOKEN", "s3cret")
    made = settings(site)

    made.source.check(made.row_mapping())
    blocks = list(made.source.rows(made.row_mapping()))
    found = make.sent(blocks, FRAME)
    mark = blocks[0].end

    assert len(blocks) > 1
    assert mark is not None
    assert len(found) == 20_000
    assert found[1] == ("u00000@graz", {"level": 0})
    assert said(made, mark) == {row: user for row, user in found.items() if row >= mark.row}


def test_what_a_load_is_holds_its_options_but_no_secret(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site)
    monkeypatch.setenv("LOADER_TEST_TOKEN", "s3cret")
    made = settings(site)

    assert made.identity()["export.format"] == "staff"
    assert made.identity()["export.options"] == {"site": "graz"}
    assert "s3cret" not in repr(made)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (f'{OPTIONS}\nsit = "graz"', "export.options.sit is not a setting; did you mean site"),
        ('site = "graz"', "export.options.token is missing"),
        ('token = "env:LOADER_TEST_NONE"\nsite = "graz"', "LOADER_TEST_NONE is not set"),
    ],
)
def test_options_that_are_wrong_are_named(
    site: Path, monkeypatch: pytest.MonkeyPatch, options: str, words: str
) -> None:
    install(site)
    monkeypatch.setenv("LOADER_TEST_TOKEN", "s3cret")

    with pytest.raises(SettingsError) as told:
        _ = settings(site, options=options).source

    assert words in str(told.value)
    assert "s3cret" not in str(told.value)


def test_one_that_is_not_there_is_told_with_the_nearest(site: Path) -> None:
    install(site)

    with pytest.raises(SettingsError, match=r"no package that is installed has a source 'staf'.*did you mean staff"):
        _ = settings(site, "export.source=staf").source


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nothing_of_that_name", "can't be imported: ModuleNotFoundError"),
        ("Staff = 5", "is not made from CustomSource"),
    ],
)
def test_one_that_can_not_be_used_is_told_with_its_package(site: Path, source: str, words: str) -> None:
    install(site, source)

    with pytest.raises(SettingsError, match=words) as told:
        _ = settings(site).source

    assert "loader-staff" in str(told.value)


def test_two_of_one_name_are_refused(site: Path) -> None:
    install(site)
    install(site, package="other")

    with pytest.raises(SettingsError, match=r"in the package .* and in the package"):
        _ = settings(site).source


def test_a_column_that_is_not_there_is_told(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, EXAMPLE.replace('return "email"', 'return "id"'))
    monkeypatch.setenv("LOADER_TEST_TOKEN", "s3cret")
    made = settings(site)

    with pytest.raises(ExportError, match="has no column 'id'"):
        made.source.check(made.row_mapping())
