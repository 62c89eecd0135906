"""Targets by name: those built in, and those of packages that somebody has installed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loader.errors import SettingsError
from loader.target import Target
from loader.targets import BUILT_IN, find, known
from tests import make

ACME = """
from loader.target import Target

class Acme(Target):
    api = "acme"
    schemes = {}
"""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Nothing that one test installs is known to another."""
    find.cache_clear()
    modules = set(sys.modules)
    yield
    find.cache_clear()
    for name in set(sys.modules) - modules:
        if name.startswith("acme_"):
            del sys.modules[name]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are imported from."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site: Path, package: str, source: str, point: str = "acme = {module}:Acme") -> None:
    """A package as pip leaves it: a module, and metadata with its entry points."""
    module = f"acme_{package.replace('-', '_')}"
    (site / f"{module}.py").write_text(source)
    metadata = site / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[loader.targets]\n{point.format(module=module)}\n")


@pytest.mark.parametrize("api", BUILT_IN)
def test_a_target_that_is_built_in_is_found_by_its_name(api: str) -> None:
    assert find(api) is BUILT_IN[api]
    assert find(api).api == api


def test_a_package_adds_one(site: Path) -> None:
    """It is named among those that are known, behind those built in."""
    install(site, "loader-acme", ACME)

    assert issubclass(find("acme"), Target)
    assert known() == [*BUILT_IN, "acme"]


def test_a_package_is_not_imported_before_its_target_is_asked_for(site: Path) -> None:
    """What is installed and not used can neither slow a load down nor break it."""
    install(site, "loader-acme", "raise RuntimeError")

    assert find("calven") is BUILT_IN["calven"]
    assert "acme" in known()


def test_what_is_built_in_can_not_be_replaced(site: Path) -> None:
    """By a package that happens to be there."""
    install(site, "loader-acme", ACME.replace('"acme"', '"calven"'), "calven = {module}:Acme")

    assert find("calven") is BUILT_IN["calven"]
    assert known() == list(BUILT_IN)


@pytest.mark.parametrize(
    ("api", "words"),
    [
        ("acmee", "'acmee' is not an API; known: calven, .*, acme; did you mean acme?"),
        ("calvn", "'calvn' is not an API; known: calven, .*; did you mean calven?"),
        ("zzzz", "'zzzz' is not an API; known: calven, .*, acme$"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(site: Path, api: str, words: str) -> None:
    install(site, "loader-acme", ACME)

    with pytest.raises(SettingsError, match=f"^target.api: {words}"):
        find(api)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("def x(:", "invalid syntax"),
        ("raise RuntimeError('no licence')", "no licence"),
        ("raise SystemExit('no licence')", "no licence"),
        ("Other = 1", "has no attribute 'Acme'"),
    ],
)
def test_a_package_that_can_not_be_imported_is_named(site: Path, source: str, words: str) -> None:
    """With what its import ran into, whatever that was."""
    install(site, "loader-acme", source)

    with pytest.raises(SettingsError, match=f"^target.api: the package loader-acme can't be imported: .*{words}"):
        find("acme")


def test_a_module_that_is_not_there_is_told(site: Path) -> None:
    """The metadata of a package may outlive it."""
    install(site, "loader-acme", ACME, "acme = acme_gone:Acme")

    with pytest.raises(SettingsError, match="acme_gone"):
        find("acme")


@pytest.mark.parametrize(
    "source",
    [
        "Acme = 1",
        "class Acme: api = 'acme'",
        "from loader.targets.calven import Calven\nAcme = Calven(auth='hmac')",
        "from loader.targets.calven import Calven as Acme",
        "from loader.target import Target as Acme",
    ],
    ids=["a number", "a class of its own", "a target with settings", "of another name", "without a name"],
)
def test_what_is_not_a_target_is_named(site: Path, source: str) -> None:
    install(site, "loader-acme", source)

    with pytest.raises(
        SettingsError, match=r"^target.api: acme_loader_acme:Acme of the package loader-acme is not a target"
    ):
        find("acme")


def test_two_packages_of_one_name_are_named(site: Path) -> None:
    """Which of them is meant, nobody can tell."""
    install(site, "loader-acme", ACME)
    install(site, "acme-tools", ACME)

    with pytest.raises(SettingsError, match="'acme' is the name of a target in the package ") as error:
        find("acme")
    assert "the package loader-acme" in str(error.value)
    assert "the package acme-tools" in str(error.value)


def test_settings_take_such_a_target(site: Path, tmp_path: Path) -> None:
    """With its own schemes and without an address of its own."""
    install(
        site,
        "loader-acme",
        ACME.replace("schemes = {}", "schemes = {'none': Scheme(())}").replace(
            "from loader.target import Target", "from loader.target import Target\nfrom loader.tokens import Scheme"
        ),
    )
    text = make.SETTINGS.replace('"calven"', '"acme"').replace('"hmac"', '"none"').partition("key_id")[0]

    assert make.settings(tmp_path, text).build_target().api == "acme"
