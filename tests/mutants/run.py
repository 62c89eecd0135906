"""Make each mistake in a copy of the project, run the tests that are to notice it, and tell whether they do.

scripts/mutants             all
scripts/mutants split 429   those whose name holds one of these words
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.mutants.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]

#: What the tests need of the project, and what would only cost time.
_COPIED = ("loader", "tests", "docs", "examples", "benchmarks", "pyproject.toml", "constraints.txt")
_NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*cache*", "corpus")

_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


class Found(NamedTuple):
    """Which tests failed, and how many passed."""

    failed: list[str]
    passed: int
    took_s: float
    output: str


class Survived(AssertionError):
    """Nobody noticed."""


def mutated(mutation: Mutation, source: str) -> str:
    """The file's text with the mistake in it. Raises AssertionError if there is no such place, or more than one."""
    count = source.count(mutation.old)
    assert count == 1, f"{mutation.name}: in {mutation.file}, what it changes stands {count} times; mend mutations.py"
    return source.replace(mutation.old, mutation.new)


@contextmanager
def copy_of_project() -> Iterator[Path]:
    """A folder with all that the tests need, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        for part in _COPIED:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, folder / part, ignore=_NOT_COPIED)
            else:
                shutil.copy(ROOT / part, folder)
        yield folder


def run_tests(folder: Path, tests: Sequence[str], *, is_soak: bool = False) -> Found:
    """The tests, in the copy: the same each time."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-rfE", "-p", "no:cacheprovider", "--timeout=60"]
    command += ["--randomly-seed=1", *(["-m", "soak"] if is_soak else []), *tests]
    environment = os.environ | {"PYTHONPATH": str(folder), "HYPOTHESIS_PROFILE": "ci", "PYTHONDONTWRITEBYTECODE": "1"}
    started = time.monotonic()
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert ended.returncode in (0, 1), ended.stdout[-3000:] + ended.stderr[-3000:]
    return Found(
        _FAILED.findall(ended.stdout), int(passed[1]) if passed else 0, time.monotonic() - started, ended.stdout
    )


def is_of(failed: str, test: str) -> bool:
    """Is it this test, or one of its cases?"""
    return failed == test or failed.startswith((f"{test}[", f"{test}::"))


def try_out(mutation: Mutation) -> Found:
    """What the tests say of a mistake. Raises Survived if one that is to notice it doesn't."""
    with copy_of_project() as folder:
        path = folder / mutation.file
        path.write_text(mutated(mutation, path.read_text()))
        found = run_tests(folder, mutation.caught_by, is_soak=mutation.is_soak)
    blind = [test for test in mutation.caught_by if not any(is_of(failed, test) for failed in found.failed)]
    if blind:
        raise Survived(f"{mutation.name}: {', '.join(blind)} did not notice\n{found.output[-2000:]}")
    return found


def check_the_unchanged(mutations: Sequence[Mutation]) -> int:
    """Without a mistake, all these tests must pass. Returns how many did."""
    passed = 0
    with copy_of_project() as folder:
        for is_soak in (False, True):
            tests = dict.fromkeys(test for each in mutations if each.is_soak == is_soak for test in each.caught_by)
            if tests:
                found = run_tests(folder, list(tests), is_soak=is_soak)
                assert not found.failed, found.output[-3000:]
                passed += found.passed
    return passed


def main(words: Sequence[str]) -> int:
    chosen = [each for each in MUTATIONS if not words or any(word in each.name for word in words)]
    if not chosen:
        print(f"none has one of these words in its name: {', '.join(words)}")
        return 2
    print(f"{check_the_unchanged(chosen)} tests pass without a mistake", flush=True)
    survivors = 0
    for each in chosen:
        try:
            found = try_out(each)
        except Survived as error:
            survivors += 1
            print(f"SURVIVED  {error}", flush=True)
        else:
            caught = [failed for failed in found.failed if any(is_of(failed, test) for test in each.caught_by)]
            print(
                f"caught    {each.name}  ({found.took_s:.0f} s, {len(caught)} tests, such as {caught[0]})", flush=True
            )
    print(f"{len(chosen) - survivors} of {len(chosen)} mistakes are noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
