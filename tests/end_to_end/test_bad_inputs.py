"""Every bad input is provoked, and docs/bad-inputs.md says what it says. UPDATE_DOCS=1 rewrites the page."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end import oracle
from tests.end_to_end.bad_inputs import CASES, GOOD, SETTINGS, Case, Place

PAGE = Path(__file__).parents[2] / "docs" / "bad-inputs.md"
IS_WRITING = "UPDATE_DOCS" in os.environ

HEAD = f"""\
# Bad inputs

What can be wrong, what the loader says then, and its exit status. A test provokes each and writes this page, so this is
what you will see. The rest of this page has these settings, and an export without a fault, unless it says otherwise:

```toml
{SETTINGS.format(url="http://127.0.0.1:8080").rstrip()}
```

**0** all is well · **1** finished, and some rows are not well · **2** nothing was sent · **3** stopped, the same
command goes on.

"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with oracle.sandbox() as address:
        yield address


def provoke(case: Case, place: Place) -> str:
    """What the page says of a case."""
    text = case.settings if case.whole else SETTINGS.format(url=place.url) + case.settings
    if case.file != "users.csv":
        text = text.replace("users.csv", case.file)
    place.write("load.toml", text)
    place.write(case.file, case.export)
    case.before(place)
    sets = [part.format(tls=place.url.replace("http:", "https:")) if "{tls}" in part else part for part in case.set]
    arguments = [*case.arguments, *(word for override in sets for word in ("--set", override))]
    with case.during(place):
        if case.process:
            ended = case.process(place, arguments)
        else:
            ended = place.run(*arguments, environment=case.environment)
    case.after(place)
    said = ended.out + ended.err
    rejected = ""
    if (place.folder / "users.ckpt").is_file() and ended.status in (0, 1) and case.arguments[0] == "run":
        rejected = place.run("results", "users.ckpt", "--code", "REJECTED").out
        rejected = rejected if rejected.count("\n") > 1 else ""
    for bad in ("Traceback", "internal error", "not-the-secret", "ann:secret"):
        assert bad not in said, said
    assert not list(place.folder.glob("loader-crash-*"))
    command = " ".join(["loader", *(_quoted(_same(word, place)) for word in arguments)])
    shown = [
        f"### {case.name}\n",
        *_given(case),
        f"`{command}` ends with **{ended.status}**:\n",
    ]
    if case.arguments[:2] == ("run", "load.toml") and not case.process and ended.status == 2:
        assert not said.startswith("loader: going on"), "nothing was sent"
    shown.append(_fenced(_same(said, place)))
    if rejected:
        shown.append("`loader results users.ckpt --code REJECTED`:\n")
        shown.append(_fenced(_same(rejected, place)))
    return "\n".join(shown)


def _given(case: Case) -> Iterator[str]:
    """What is there, as far as it is out of the ordinary."""
    if case.words:
        yield case.words[0].upper() + case.words[1:] + ".\n"
    for name, value in case.environment.items():
        yield f"`{name}` is {'not set' if value is None else 'empty' if not value else 'wrong'}.\n"
    if case.whole:
        yield "`load.toml`:\n\n" + _fenced(case.settings or "(nothing)")
    elif case.settings:
        yield "`load.toml` has this, too:\n\n" + _fenced(case.settings)
    content = case.export.encode() if isinstance(case.export, str) else case.export
    if content != GOOD.encode() and (content.isascii() or b"\n" in content[:60]):
        yield f"`{case.file}`:\n\n" + _fenced(_printable(content) or "(nothing)")


def _printable(content: bytes) -> str:
    text = content[:400].decode("utf-8", "backslashreplace").replace("\r", "\\r").replace("\0", "\\0")
    return "\n".join(
        line if len(line) <= 100 else line[:60] + " …" for line in text.replace("\ufeff", "\\ufeff").split("\n")
    )


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[\w./:=@,%-]+", word) else f"'{word}'"


def _fenced(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"


def _same(text: str, place: Place) -> str:
    """What differs from run to run, made alike."""
    text = text.replace(str(place.folder.resolve()), "/load").replace(str(place.folder), "/load")
    text = re.sub(r"'(/load[\w./-]*)'", r"\1", text)  # a shell may need quotes round the folder that it was
    text = re.sub(r"127\.0\.0\.1:\d{4,5}", "127.0.0.1:8080", text)
    text = re.sub(r"process \d+", "process 4711", text)
    return re.sub(r"no usable answer for \d+ s", "no usable answer for 0 s", text)


def _sections() -> dict[str, str]:
    """The page by heading: what stands below a case's name."""
    found: dict[str, str] = {}
    for part in re.split(r"(?m)^## ", PAGE.read_text("utf-8"))[1:]:
        name, _, rest = part.partition("\n")
        for case in re.split(r"(?m)^(?=### )", rest)[1:]:
            found[f"{name}: {case.partition(chr(10))[0].removeprefix('### ')}"] = case.strip()
    return found


NAMED = {f"{section}: {case.name}": case for section, cases in CASES.items() for case in cases}


@pytest.mark.skipif(IS_WRITING, reason="the page is being written")
@pytest.mark.parametrize("name", NAMED)
def test_the_page_says_what_is_said(name: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages, outcomes and exit status of one bad input are those on the page; no traceback, no secret."""
    monkeypatch.chdir(tmp_path)

    assert provoke(NAMED[name], Place(tmp_path, url)).strip() == _sections().get(name)


def test_the_page_is_whole(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every case is on the page, in its place, and nothing else is."""
    assert len(NAMED) == sum(map(len, CASES.values())), "names are told apart within a section"
    if IS_WRITING:
        page = HEAD
        for section, cases in CASES.items():
            page += f"## {section}\n\n"
            for number, case in enumerate(cases):
                folder = tmp_path / f"{section}-{number}"
                folder.mkdir()
                monkeypatch.chdir(folder)
                page += provoke(case, Place(folder, url)) + "\n"
        PAGE.write_text(page.rstrip() + "\n", "utf-8")
    assert list(_sections()) == list(NAMED)
    assert PAGE.read_text("utf-8").startswith(HEAD)
