"""Imports point down, the pure parts stay pure, and the sandbox stands beside it all. Read from the source, by AST.

And nobody waits for modules that the command doesn't need: seen in processes of their own.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import click
import pytest

import loader.errors
from loader.checkpoint import Checkpoint
from loader.cli import main

ROOT = Path(loader.errors.__file__).parent

# Bottom-up. A module imports from the lines above its own (the layers below it), or within its line, one way.
# A module is in the first line that names it.
# "loader" is loader/__init__.py, `x.*` is the package x with all in it. A new module needs a place here.
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("errors", ("errors",)),
    (
        "values",
        (
            "span",
            "record",
            "request",
            "outcome",
            "reasons",
            "advice",
            "snapshot",
            "progress",
            "until",
            "keys",
            "mapping.texts",
            "refresh.digest",
            "echo",
            "words",
            "plain",
        ),
    ),
    ("decisions", ("batch", "ceiling", "retry", "tokens", "verdict", "target", "mapping.*")),
    ("tempo", ("tempo.*", "bench.optimum", "bench.visit")),
    ("plug-ins", ("targets.*",)),
    ("edges", ("export.*", "sources", "network", "transport", "checkpoint", "refresh.spill", "refresh.state")),
    ("shell", ("lane", "meter", "reading", "resume", "client", "settle", "dispatch", "probe", "whole")),
    ("refresh", ("refresh.*",)),
    ("settings", ("settings",)),
    (
        "story",
        (
            "load",
            "commands",
            "results",
            "check",
            "corrections",
            "bench.*",
            "plan",
            "notify",
            "schema",
            "sample",
            "proposal",
            "runs",
            "standing",
        ),
    ),
    ("public", ("loader", "library", "testing")),
    (
        "publishing",
        ("show", "show.pages", "show.report", "show.listening", "show.metrics", "show.telemetry", "show.dashboard"),
    ),
    ("commands", ("show.screen", "show.panel", "cli.*", "demo", "__main__")),
)

# Beside the layers: a sandbox that shared code with the loader would share its mistakes.
SANDBOX = "sandbox.*"
SANDBOX_MAY_IMPORT = {"request", "errors"}
MAY_IMPORT_SANDBOX = {"cli", "demo"}  # and only inside a function: a run never loads it

# (importer, imported): why an import inside a function may point up. Empty is best.
LAZY_UPWARDS: dict[tuple[str, str], str] = {}

# Values and decisions: given the same arguments they give the same answer.
PURE_LAYERS = {"values", "decisions", "tempo"}
FORBIDDEN_IN_PURE = {
    *("asyncio", "anyio", "aiohttp", "aiolimiter", "concurrent", "threading", "multiprocessing", "subprocess"),
    *("os", "io", "pathlib", "shutil", "tempfile", "socket", "ssl", "sqlite3"),
    *("time", "random", "secrets", "logging"),
}


# Who only asks waits for none of these: together they take longer to import than all else that `loader status` does.
FORBIDDEN_IN_QUESTIONS = {
    *("aiohttp", "aiolimiter", "anyio", "asyncio", "numpy", "pyarrow", "pydantic", "rich", "ssl", "uvloop"),
}
# And for help the command line is enough.
FORBIDDEN_IN_HELP = {
    *FORBIDDEN_IN_QUESTIONS,
    *("backports", "csv", "json", "msgspec", "orjson", "sqlite3"),
}


@dataclass(frozen=True, slots=True)
class Import:
    """One import as written: `name` is dotted and absolute, `lazy` means inside a function."""

    name: str
    line: int
    lazy: bool


def imports(tree: ast.Module, package: str) -> Iterator[Import]:
    """All imports of a module that lies in `package`. `from a import b` gives a.b, whether b is a module or not."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, node.lineno, lazy)
            case ast.ImportFrom(names=names, module=module, level=level):
                above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                for alias in names:
                    yield Import(".".join([*above, *([module] if module else []), alias.name]), node.lineno, lazy)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield Import(name, node.lineno, lazy)
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    return walk(tree, False)


def matches(module: str, pattern: str) -> bool:
    return fnmatchcase(module, pattern) or module == pattern.removesuffix(".*")


def layer_of(module: str) -> int | None:
    for height, (_, patterns) in enumerate(LAYERS):
        if any(matches(module, pattern) for pattern in patterns):
            return height
    return None


def is_above(imported: str, importer: str) -> bool:
    """False if one of them has no place: that is a complaint of its own."""
    low, high = layer_of(importer), layer_of(imported)
    return low is not None and high is not None and high > low


def violations(sources: Mapping[str, str], packages: Set[str]) -> list[str]:
    """What is wrong with a tree of modules: name below loader ("" is spelled "loader") -> source."""
    found: list[str] = []
    inside: dict[str, set[str]] = {module: set() for module in sources}

    def ours(name: str) -> str | None:
        """The module of ours that an import means, None if it is somebody else's."""
        if name != "loader" and not name.startswith("loader."):
            return None
        below = name.removeprefix("loader").removeprefix(".")
        while below and below not in sources:
            below = below.rpartition(".")[0]  # a name in a module, or a package
        return below or "loader"

    for module, source in sources.items():
        height = layer_of(module)
        is_sandbox = matches(module, SANDBOX)
        if height is None and not is_sandbox:
            found.append(f"{module}: not in the table; add it to LAYERS in tests/test_architecture.py")
            continue
        is_pure = height is not None and LAYERS[height][0] in PURE_LAYERS
        full = "loader" if module == "loader" else f"loader.{module}"
        package = full if module in packages else full.rpartition(".")[0]

        tree = ast.parse(source, filename=full)
        for what in imports(tree, package):
            where = f"{module}:{what.line}"
            if is_pure and what.name.partition(".")[0] in FORBIDDEN_IN_PURE:
                found.append(f"{where}: imports {what.name}, but values and decisions are pure")
            imported = ours(what.name)
            if imported is None or imported == module:
                continue
            if matches(imported, SANDBOX):
                if not is_sandbox and (module not in MAY_IMPORT_SANDBOX or not what.lazy):
                    found.append(f"{where}: imports {imported}; only cli and demo may, inside a function")
            elif is_sandbox:
                if imported not in SANDBOX_MAY_IMPORT:
                    found.append(f"{where}: imports {imported}; the sandbox may import request and errors only")
            elif is_above(imported, module) and not (what.lazy and (module, imported) in LAZY_UPWARDS):
                found.append(f"{where}: imports {imported}, which is above it")
            if layer_of(imported) == height:
                inside[module].add(imported)

        if is_pure:
            found += [
                f"{module}:{node.lineno}: opens a file, but values and decisions are pure"
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
            ]

    try:
        TopologicalSorter(inside).prepare()
    except CycleError as error:
        found.append("import each other: " + " -> ".join(error.args[1]))
    return found


def read_tree() -> tuple[dict[str, str], set[str]]:
    sources: dict[str, str] = {}
    packages: set[str] = set()
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
            packages.add(".".join(parts) or "loader")
        sources[".".join(parts) or "loader"] = path.read_text(encoding="utf-8")
    return sources, packages


def test_the_loader_keeps_to_its_layers() -> None:
    sources, packages = read_tree()

    assert "errors" in sources
    assert violations(sources, packages) == []


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        ("--help", FORBIDDEN_IN_HELP | {"loader.cli.run", "loader.sandbox"}),
        ("--version", FORBIDDEN_IN_HELP | {"loader.cli.run", "loader.sandbox"}),
        ("run --help", FORBIDDEN_IN_HELP),
        ("status users.ckpt", FORBIDDEN_IN_QUESTIONS),
        ("results users.ckpt", FORBIDDEN_IN_QUESTIONS),
    ],
)
def test_who_only_asks_waits_for_nothing_else(tmp_path: Path, arguments: str, forbidden: Set[str]) -> None:
    with Checkpoint.open(tmp_path / "users.ckpt", create=True):
        pass
    called = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from loader.cli import main; main()"

    ended = subprocess.run(
        [sys.executable, "-c", called, *arguments.split()], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    loaded = ended.stdout.splitlines()[-1].split()
    assert "loader.cli" in loaded
    assert not forbidden & set(loaded)


def test_a_load_waits_for_no_more_than_a_load_needs() -> None:
    """Other formats, tables and the sandbox are for those who ask for them."""
    called = "import sys, loader.settings, loader.load, loader.show.screen; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", called], capture_output=True, text=True, check=True).stdout.split()

    assert {"loader.transport", "pyarrow.csv"} <= set(loaded)
    assert not {"pyarrow.parquet", "rich.table", "loader.sandbox", "loader.check", "loader.bench.bench"} & set(loaded)


def test_help_tells_of_each_command_what_it_says_itself() -> None:
    context = click.Context(main)

    for name, stand_in in main.commands.items():
        command = main.get_command(context, name)
        assert command is not None
        assert (name, stand_in.get_short_help_str(200)) == (command.name, command.get_short_help_str(200))


def test_no_module_has_two_places() -> None:
    names = [name for _, patterns in LAYERS for name in patterns]

    assert len(names) == len(set(names))
    assert set(LAZY_UPWARDS) <= {(a, b) for a in read_tree()[0] for b in read_tree()[0]}, "an exception nobody needs"


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("span", "from loader.batch import Batch", "span:1: imports batch, which is above it"),
        ("span", "import loader.batch", "above it"),
        ("span", "from loader import batch", "above it"),
        ("span", "from . import batch", "above it"),
        ("span", "from .batch import Batch", "above it"),
        ("span", "def f():\n    import loader.batch", "span:2: imports batch, which is above it"),
        ("span", "if TYPE_CHECKING:\n    import loader.batch", "above it"),
        ("span", "import_module('loader.batch')", "above it"),
        ("settle", "from loader import load", "above it"),
        ("settle", "from loader import PublicName", "settle:1: imports loader, which is above it"),
        ("targets.dx", "from ..settings import Settings", "above it"),
        ("targets.dx", "from loader.export import csv", "targets.dx:1: imports export.csv, which is above it"),
        ("span", "import asyncio", "pure"),
        ("batch", "from os.path import join", "pure"),
        ("batch", "def f():\n    import random", "pure"),
        ("record", "def f(path):\n    return open(path)", "record:2: opens a file"),
        ("helpers", "", "helpers: not in the table; add it to LAYERS"),
        ("sandbox.server", "from loader.outcome import Code", "request and errors only"),
        ("sandbox", "import loader.targets", "request and errors only"),
        ("settle", "from loader.sandbox.server import app", "only cli and demo may"),
        ("settle", "def f():\n    import loader.sandbox", "only cli and demo may"),
        ("cli", "from loader import sandbox", "only cli and demo may"),
        ("span", "import loader.record", "import each other"),
        ("sandbox.faults", "import loader.sandbox.server", "import each other"),
    ],
)
def test_breaches_are_seen(module: str, source: str, complaint: str) -> None:
    sources, packages = sample_tree()

    (found,) = violations(sources | {module: source}, packages)

    assert complaint in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("batch", "from loader.span import Span\nfrom loader import errors"),
        ("batch", "import collections, json, orjson"),
        ("load", "from loader.targets import TARGETS\nimport loader.export.csv"),
        ("cli", "def sandbox():\n    from loader.sandbox import server"),
        ("sandbox.server", "from loader.request import Request\nimport asyncio, aiohttp.web"),
        ("targets", "from loader.targets import dx\nfrom .dx import target"),
    ],
)
def test_what_is_right_passes(module: str, source: str) -> None:
    sources, packages = sample_tree()

    assert violations(sources | {module: source}, packages) == []


def sample_tree() -> tuple[dict[str, str], set[str]]:
    """A small loader without a fault."""
    names = ["loader", "errors", "span", "request", "outcome", "batch", "targets", "targets.dx", "export", "export.csv"]
    names += ["settle", "settings", "load", "cli", "sandbox"]
    sources = dict.fromkeys(names, "")
    sources["record"] = "import loader.span"
    sources["sandbox.server"] = "from loader.sandbox import faults"
    sources["sandbox.faults"] = "from loader.request import Request"
    return sources, {"loader", "targets", "export", "sandbox"}
