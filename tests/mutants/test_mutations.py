"""The list of mistakes doesn't rot: each can still be made, and who is to notice it is there.

Whether they do is `scripts/mutants`' to say.
"""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.mutations import MUTATIONS, Mutation
from tests.mutants.run import ROOT, mutated


@cache
def source(file: str) -> str:
    return (ROOT / file).read_text()


@cache
def known_tests(file: str) -> frozenset[str]:
    """As pytest names them, without parameters."""
    found = set[str]()
    for node in ast.parse(source(file)).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = [each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {node.name, *(f"{node.name}::{name}" for name in methods)}
    return frozenset(name for name in found if name.rpartition("::")[2].lower().startswith("test"))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_can_be_made_and_somebody_is_to_notice(mutation: Mutation) -> None:
    """What it changes stands once in its file, which still is Python afterwards; and there are such tests."""
    ast.parse(mutated(mutation, source(mutation.file)))

    assert mutation.caught_by
    for test in mutation.caught_by:
        file, _, name = test.partition("::")
        assert Path(file).name.startswith("test_")
        assert name in known_tests(file) if name else known_tests(file)


def test_each_has_its_name() -> None:
    assert Counter(mutation.name for mutation in MUTATIONS).most_common(1)[0][1] == 1
