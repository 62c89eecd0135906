"""Every input that was ever of interest: seeds, and what broke something once, does not any more."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs(name: str, tmp_path: Path) -> None:
    """All inputs of one target."""
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs, "a target begins with a few inputs to learn from"
    for path in inputs:
        try:
            TARGETS[name](path.read_bytes(), tmp_path)
        except BaseException as error:
            error.add_note(f"input: {path}")
            raise


def test_no_input_is_left_without_a_target() -> None:
    """A folder whose target has another name now would be replayed by nobody."""
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
