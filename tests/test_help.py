"""What `--help` says, of all commands as a set."""

import re
import shlex
from pathlib import Path

import click
import pytest

from loader.cli import main

COMMANDS = list(main.commands)
#: Commands that a run ends in one of several ways say which.
WITHOUT_STATUS = {"schema", "completion", "sandbox"}


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


def examples(name: str) -> list[list[str]]:
    """The examples of a command's help, as a shell would split them."""
    text = main.help if name == "loader" else command(name).help
    lines = [line.strip() for line in (text or "").splitlines() if re.match(r" *loader ", line)]
    return [shlex.split(re.split(r" {3,}| [|>] ", line)[0]) for line in lines]


@pytest.mark.parametrize("name", COMMANDS)
def test_it_has_two_to_four_examples(name: str) -> None:
    assert 2 <= len(examples(name)) <= 4
    assert [example for example in examples(name) if example[1] == name]


@pytest.mark.parametrize(
    ("name", "example"), [(name, example) for name in ["loader", *COMMANDS] for example in examples(name)], ids=str
)
def test_each_example_is_a_command_that_is_understood(
    name: str, example: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    called, *arguments = example[1:]
    words = "schema" if "schema" in called else called

    command(words).make_context(f"loader {words}", arguments)


def test_the_overview_names_every_command_that_loads() -> None:
    named = {example[1] for example in examples("loader")}

    assert set(COMMANDS) - named == {"schema", "completion", "sandbox"}


@pytest.mark.parametrize("name", COMMANDS)
def test_it_speaks_as_the_others_do(name: str) -> None:
    """A sentence first, every option explained by a sentence, and how it ends."""
    made = command(name)
    context = click.Context(made, info_name=name)
    said = (made.help or "").partition("\n")[0]

    assert re.fullmatch(r"[A-Z].*\.", said), said
    assert "Exit status:" in (made.help or "") or name in WITHOUT_STATUS
    for parameter in made.get_params(context):
        if isinstance(parameter, click.Option) and parameter.name != "help":
            words = parameter.help or ""
            assert re.fullmatch(r"[A-Z-].*[.0-9]", words, re.DOTALL), (parameter.name, words)
            assert "TEXT" not in (parameter.get_help_record(context) or ("",))[0] or name == "sandbox", parameter.name
