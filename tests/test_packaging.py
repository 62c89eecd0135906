"""What people install: the wheel, the source distribution, the container file."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from email import message_from_string
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from loader import __version__
from loader.cli import endings
from tests.end_to_end.servers import installed_apart

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")))
    return zipfile.ZipFile(built)


def test_the_wheel_holds_the_loader_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Not the tests, and no file that happened to lie there."""
    info = f"directory_loader-{__version__}.dist-info"
    below = [*(ROOT / "loader").rglob("*.py"), *(ROOT / "loader" / "show" / "pages").iterdir()]
    sources = {str(path.relative_to(ROOT)) for path in below if path.is_file()}
    licences = ("licenses/LICENSE", "licenses/loader/show/pages/uPlot.LICENSE")

    assert set(wheel.namelist()) == sources | {
        "loader/py.typed",
        *(f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", *licences)),
    }
    assert wheel.read(f"{info}/entry_points.txt").decode().split() == [
        "[console_scripts]",
        "loader",
        "=",
        "loader.cli:main",
    ]
    assert "Root-Is-Purelib: true\nTag: py3-none-any" in wheel.read(f"{info}/WHEEL").decode()


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    said = message_from_string(wheel.read(f"directory_loader-{__version__}.dist-info/METADATA").decode())

    assert (said["Name"], said["Version"], said["License-Expression"]) == (
        "directory-loader",
        __version__,
        "Apache-2.0 AND MIT",
    )
    assert said["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert said["Description-Content-Type"] == "text/markdown"
    assert len(said.get_payload()) > 1000


def test_the_wheel_is_whole(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """From it alone commands work, those too that read the loader's own source."""
    wheel.extractall(tmp_path / "there")
    (tmp_path / "users.csv").write_text("email,Dept\na@x.com,Sales\n")
    code = "import loader, sys; assert 'there' in loader.__file__; from loader.cli import main; main()"

    for command in (
        "--version",
        "demo --help",
        "init users.csv --yes",
        "schema -o loader.schema.json",
        "sandbox --help",
    ):
        subprocess.run(
            [sys.executable, "-c", code, *command.split()],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path / "there")},
            check=True,
            capture_output=True,
        )

    assert '"description"' in (tmp_path / "loader.schema.json").read_text()


def test_the_source_distribution_can_be_tested(tmp_path: Path) -> None:
    """All that is committed is in it, but for what only a clone needs."""
    (built,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path))
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    top = {name.partition("/")[0] for name in names}
    assert top >= {"loader", "tests", "docs", "benchmarks", "examples", "scripts", "Containerfile", "constraints.txt"}
    assert {"README.md", "LICENSE", "pyproject.toml", "PKG-INFO"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".ckpt", ".pyc"))]


# The container -------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The container file's instructions, each on one line."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Containerfile").read_text("utf-8")).replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, rest in lines]


def test_what_the_image_is_made_of_is_there() -> None:
    """And is not left out of what the build is given."""
    listed = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    given = [line.removeprefix("!") for line in listed if line.startswith("!")]
    copied = [
        name for kind, rest in instructions() if kind == "COPY" and "--from" not in rest for name in rest.split()[:-1]
    ]

    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(fnmatchcase(name, each) for each in given), name


def test_the_image_runs_the_loader_as_nobody_special() -> None:
    kinds = dict(instructions())  # of the last stage, as far as it has one

    assert kinds["ENTRYPOINT"] == '["loader"]', "no shell between the loader and its signals"
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", kinds["USER"])
    assert kinds["VOLUME"] == kinds["WORKDIR"] == "/data"
    classifiers = (ROOT / "pyproject.toml").read_text("utf-8")
    for base in {rest.split()[0] for kind, rest in instructions() if kind == "FROM"}:
        python = re.fullmatch(r"docker\.io/library/python:(3\.\d+)-slim", base)
        assert python, base
        assert f"Python :: {python[1]}" in classifiers


@pytest.mark.soak
def test_a_linter_has_nothing_to_say() -> None:
    subprocess.run([installed_apart("hadolint"), ROOT / "Containerfile"], check=True)


def test_as_process_1_it_heeds_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ends any process with SIGTERM but the first of a container, which has to do it itself."""
    heard = []

    @endings.ends
    def command() -> int:
        heard.append(signal.getsignal(signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    real = os.getpid()
    pids = iter([1])
    monkeypatch.setattr(os, "getpid", lambda: next(pids, real))
    try:
        with pytest.raises(SystemExit) as ended:
            command()
    finally:
        signal.signal(signal.SIGTERM, before)

    assert heard != [signal.SIG_DFL]
    assert ended.value.code == 143


@pytest.mark.soak
@pytest.mark.skipif(not shutil.which("unshare"), reason="Linux alone has it")
def test_the_first_process_of_a_namespace_ends_at_sigterm(tmp_path: Path) -> None:
    """As in a container, while it waits for settings that never come."""
    os.mkfifo(tmp_path / "load.toml")
    inner = [sys.executable, "-m", "loader", "check", "load.toml"]
    process = subprocess.Popen(["unshare", "--pid", "--fork", *inner], cwd=tmp_path)
    time.sleep(2)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

    os.kill(int(child), signal.SIGTERM)

    assert process.wait(10) == 143, shlex.join(inner)
