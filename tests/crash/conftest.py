"""What all of these tests need: the shim, compiled once, and a process that forks the runs."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.loads import Directory, directory
from tests.crash.runs import Runner, runner
from tests.crash.steps import build_shim


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux":
        pytest.skip("what sees the steps of a process is Linux's: LD_PRELOAD and /proc")
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def runs(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with runner(shim, tmp_path_factory.mktemp("runs")) as found:
        yield found


@pytest.fixture
def api() -> Iterator[Directory]:
    with directory() as found:
        yield found


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder beside the load's, which is not watched."""
    path = tmp_path / "scratch"
    path.mkdir()
    return path
