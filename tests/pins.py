"""Is what is installed what was tested? Says of each distribution that the loader stands on whether its pin is missing.

Run by scripts/check, behind `pip check`: that one says whether they fit together. Neither asks the network. Whether one
of them has a known hole is another question; docs/testing.md says how to ask it.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


class Installed(NamedTuple):
    """A distribution: its version, and what it requires, each as in its metadata."""

    version: str
    requires: tuple[str, ...] = ()


def installed(name: str) -> Installed:
    """As it is in this environment. Raises PackageNotFoundError."""
    found = distribution(name)
    return Installed(found.version, tuple(found.requires or ()))


def pinned(text: str) -> dict[str, str]:
    """Versions by name, of a constraints file."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {plain(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def plain(name: str) -> str:
    """A name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def below(start: str, look_up: Callable[[str], Installed]) -> Iterator[tuple[str, str]]:
    """Name and version of everything that a requirement stands on, itself left out."""
    todo, seen = [Requirement(start)], set[tuple[str, str]]()
    while todo:
        requirement = todo.pop()
        name = plain(requirement.name)
        found = look_up(name)
        if requirement.name != Requirement(start).name and (name, "") not in seen:
            yield name, found.version
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                needs = [Requirement(text) for text in found.requires]
                todo += [each for each in needs if not each.marker or each.marker.evaluate({"extra": extra})]


def complaints(start: str, look_up: Callable[[str], Installed], pins: Mapping[str, str]) -> list[str]:
    """What is not as constraints.txt has it."""
    found = sorted(set(below(start, look_up)))
    return [
        f"{name} {version} is installed, and constraints.txt {f'pins {pins[name]}' if name in pins else 'has no pin'}"
        for name, version in found
        if pins.get(name) != version
    ]


if __name__ == "__main__":
    if found := complaints("directory-loader[dev]", installed, pinned((ROOT / "constraints.txt").read_text())):
        sys.exit("\n".join(found))
