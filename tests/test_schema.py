"""The settings as JSON Schema, and their reference in docs/settings.md. UPDATE_DOCS=1 rewrites the page's tables."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from loader.errors import SettingsError
from loader.schema import SHARED, Key, keys, schema, tables
from loader.settings import Settings, load_settings
from loader.target import OAuth2Target, Target
from loader.targets import BUILT_IN, find
from tests.end_to_end.servers import installed_apart

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "settings.md"
IS_WRITING = "UPDATE_DOCS" in os.environ

SOUND = """
[export]
path = "users.csv"
[mapping]
user = "email"
[target]
api = "calven"
[target.auth]
scheme = "hmac"
key_id = "env:A"
secret = "env:B"
"""


@pytest.fixture(scope="module")
def judge() -> Draft202012Validator:
    made = schema()
    Draft202012Validator.check_schema(made)
    return Draft202012Validator(made)


def complaints(judge: Draft202012Validator, settings: dict[str, Any]) -> list[str]:
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in judge.iter_errors(settings)]


# What it takes -------------------------------------------------------------------------------------------------------


def examples() -> Iterator[Any]:
    """Every settings file that the documentation shows, but for those of a target that is not installed here."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]:
        for at, block in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)):
            if not {"project", "kinto"} & {*tomllib.loads(block), tomllib.loads(block).get("target", {}).get("api")}:
                yield pytest.param(block, id=f"{page.relative_to(ROOT)}:{at + 1}")
    for path in sorted((ROOT / "examples").rglob("*.toml")):
        if path.name != "pyproject.toml":
            yield pytest.param(path.read_text("utf-8"), id=str(path.relative_to(ROOT)))


@pytest.mark.parametrize("text", list(examples()))
def test_every_settings_file_shown_fits(judge: Draft202012Validator, text: str) -> None:
    """What is left out of an excerpt is taken from a sound file."""
    shown = tomllib.loads(text)
    if not any(name in shown for name in Settings.model_fields):
        shown = {"target": {"api": "http", "base_url": "https://x.example.com", "path": "/x", "user": "id"} | shown}
    target = shown.setdefault("target", {})
    sound = tomllib.loads(SOUND)
    target.setdefault("api", "calven")
    scheme = next(iter(find(target["api"]).schemes.items()))
    target.setdefault("auth", {"scheme": scheme[0], **dict.fromkeys(scheme[1].needs, "env:X")})

    assert complaints(judge, sound | shown) == []


@pytest.mark.parametrize("api", BUILT_IN)
def test_each_scheme_of_each_target_fits(judge: Draft202012Validator, api: str) -> None:
    """With just what it needs."""
    for name, scheme in BUILT_IN[api].schemes.items():
        target = {"api": api, "base_url": "https://x.example.com"}
        target |= {"path": "/x", "user": "id"} if api == "http" else {}
        auth = {"scheme": name, **dict.fromkeys(scheme.needs, "env:X")}

        assert complaints(judge, {"export": {"path": "-"}, "target": target | {"auth": auth}}) == []


@pytest.mark.parametrize(
    ("where", "value", "complaint"),
    [
        ("exprot", {}, "'exprot' was unexpected"),
        ("export.delimeter", ";", "'delimeter' was unexpected"),
        ("export.delimiter", "::", "does not match"),
        ("export.delimiter", "\n", "does not match"),
        ("export.format", "xls", "is not one of"),
        ("export.path", 7, "is not of type 'string'"),
        ("mapping.empty", "drop", "is not one of"),
        ("mapping.types", {"dept": "text"}, "is not one of"),
        ("mapping.attributes", {}, "non-empty|enough"),
        ("limits.concurrency", "4", "is not of type 'integer'"),
        ("limits.concurrency", 0, "less than the minimum"),
        ("limits.concurrency", True, "is not of type 'integer'"),
        ("limits.max_failures", "5 percent", "not valid under any"),
        ("limits.quota", "500/60s", "is not of type 'array'"),
        ("refresh.full_every", "a month", "does not match"),
        ("network.compress", "zstd", "was expected"),
        ("target.api", "calvin", "is not one of"),
        ("target.regoin", "usce1", "'regoin' was unexpected"),
        ("target.bulk", True, "'bulk' was unexpected"),
        ("target.auth.scheme", "hmacs", "is not one of"),
        ("target.auth.secrets", "env:X", "'secrets' was unexpected"),
        ("target.auth.token", "env:X", "'token' was unexpected"),
        ("target.result_codes", {"3": "WRONG"}, "is not one of"),
    ],
)
def test_what_the_loader_refuses_does_not_fit(
    judge: Draft202012Validator, tmp_path: Path, where: str, value: object, complaint: str
) -> None:
    """A typing error, another type, a value out of range: once each by the schema, and by the loader as well."""
    settings = tomllib.loads(SOUND)
    *tables, key = where.split(".")
    table = settings
    for name in tables:
        table = table.setdefault(name, {})
    table[key] = value
    path = tmp_path / "load.toml"
    path.write_text(SOUND)
    shown = json.dumps(value).replace(": ", " = ") if isinstance(value, dict) else json.dumps(value)

    (found,) = complaints(judge, settings)
    assert re.search(complaint, found), found
    with pytest.raises(SettingsError):
        load_settings(path, [f"{where}={shown}"])


@pytest.mark.parametrize("missing", ["export", "target", "target.api", "target.auth", "target.auth.secret"])
def test_what_is_missing_is_missed(judge: Draft202012Validator, missing: str) -> None:
    settings = tomllib.loads(SOUND)
    *tables, key = missing.split(".")
    table = settings
    for name in tables:
        table = table[name]
    del table[key]

    (found,) = complaints(judge, settings)
    assert f"'{key}' is a required property" in found


def test_every_key_says_what_it_means() -> None:
    """In an editor, which shows no links."""
    made = schema()
    models = [*tables().values(), *BUILT_IN.values()]
    for model in models:
        named = made["$defs"][getattr(model, "api", model.__name__)]["properties"]
        for name, key in named.items():
            assert key.get("description"), (model, name)
            assert "](" not in key["description"]


@pytest.mark.soak
def test_an_editor_takes_it(tmp_path: Path) -> None:
    """Taplo is what Even Better TOML checks files with: it finds the schema that the first line names."""
    (tmp_path / "loader.schema.json").write_text(json.dumps(schema()))
    sound, odd = tmp_path / "sound.toml", tmp_path / "odd.toml"
    sound.write_text(f"#:schema ./loader.schema.json\n{SOUND}")
    odd.write_text(f"{sound.read_text()}[limits]\nconcurency = 4\n")

    def judged(path: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([installed_apart("taplo"), "lint", path], check=False, capture_output=True, text=True)

    assert judged(sound).returncode == 0, judged(sound).stderr
    assert judged(odd).returncode == 1
    assert "'concurency' was unexpected" in judged(odd).stderr


# The reference -------------------------------------------------------------------------------------------------------

#: The headings of docs/settings.md whose first table is written from the settings.
LISTED = {
    **{f"##{'#' * ('.' in name)} `[{name}]`": keys(model) for name, model in tables().items()},
    "## `[target]`": [*(Key(name, "", said) for name, said in SHARED.items()), *keys(Target)],
    **{f"### `{api}`": [key for key in keys(target) if key not in keys(Target)] for api, target in BUILT_IN.items()},
}


def lines(listed: list[Key]) -> list[str]:
    shown = [(key.name, key.default and f"`{key.default}` ", key.meaning.replace("|", "\\|")) for key in listed]
    return ["| key | default | meaning |", "|---|---|---|", *(f"| `{a}` | {b}| {c} |" for a, b, c in shown)]


def written(page: str) -> str:
    """The page with the tables as they must be."""
    for heading, listed in LISTED.items():
        place = re.compile(rf"(?ms)^{re.escape(heading)}\n.*?(?P<table>^\|.*?\n)(?!\|)")
        found = place.search(page)
        assert found, f"docs/settings.md has no {heading} with a table"
        page = page[: found.start("table")] + "\n".join(lines(listed)) + "\n" + page[found.end("table") :]
    return page


def test_the_page_of_settings_lists_them_all() -> None:
    page = PAGE.read_text("utf-8")
    if IS_WRITING:
        PAGE.write_text(written(page), "utf-8")

    assert PAGE.read_text("utf-8") == written(page), "UPDATE_DOCS=1 scripts/test tests/test_schema.py writes it"
    assert {"base_url", "api", "expect", "write", "missing_result"} == {key.name for key in LISTED["## `[target]`"]}
    assert {key.name for key in LISTED["### `http`"]} > {key.name for key in keys(OAuth2Target)} - {
        key.name for key in keys(Target)
    }
