"""The documentation builds as a site, strictly, and its pages do what they say."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest

from loader.checkpoint import Checkpoint, Entry
from loader.cli import main
from loader.outcome import Code, Outcome, Settled
from tests.pages import PORT, Block, blocks, complaint, run

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "examples").glob("*/README.md")])


class _Addresses(HTMLParser):
    """What a browser fetches for a page by itself, and what its reader may follow."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.followed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = [value for name, value in attrs if name in ("href", "src", "srcset", "data") and value]
        (self.followed if tag == "a" else self.fetched).extend(found)


def test_the_site_builds_without_a_warning_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    """Sphinx fails for a link or an anchor of a page that leads nowhere, and for a page that stands in no list."""
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-c", "docs", ".", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    for page in PAGES:
        assert (tmp_path / page.relative_to(ROOT).with_suffix(".html")).is_file(), page
    assert "url=docs/index.html" in (tmp_path / "index.html").read_text("utf-8")
    assert list(dead_links(tmp_path)) == []
    assert list(asks_others(tmp_path)) == []


def dead_links(site: Path) -> Iterator[str]:
    """Those of its frame and of what is generated too: to a file, and to a place in it."""
    places: dict[Path, set[str]] = {}
    for path in site.rglob("*.html"):
        addresses = _Addresses()
        addresses.feed(path.read_text("utf-8"))
        for address in {*addresses.fetched, *addresses.followed}:
            parts = urlsplit(address)
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            target = (path.parent / parts.path).resolve() if parts.path else path
            if target.exists() and parts.fragment and target.suffix == ".html" and target not in places:
                places[target] = set(re.findall(r'\bid="([^"]*)"', target.read_text("utf-8")))
            if not target.exists() or (parts.fragment and parts.fragment not in places.get(target, {parts.fragment})):
                yield f"{path.relative_to(site)}: {address}"


def asks_others(site: Path) -> Iterator[str]:
    """Fonts, scripts and pictures from elsewhere: who reads it would tell somebody."""
    for path in site.rglob("*.html"):
        addresses = _Addresses()
        addresses.feed(path.read_text("utf-8"))
        yield from (f"{path.name}: {each}" for each in addresses.fetched if urlsplit(each).netloc)
    for path in site.rglob("*.css"):
        yield from re.findall(r"(?:url\(|@import)[\s\"']*(?:https?:)?//[^)\"']*", path.read_text("utf-8"))


def test_a_dead_link_and_a_foreign_font_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="here"><a href="b.html"></a><a href="#here"></a><a href="#gone"></a>')
    (tmp_path / "a.css").write_text("@import url(https://fonts.example.com/x.css)")

    assert sorted(dead_links(tmp_path)) == ["a.html: #gone", "a.html: b.html"]
    assert len(list(asks_others(tmp_path))) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_addresses_of_others_have_the_form_of_one(page: Path) -> None:
    """Whether they are there is no matter for tests, which ask nobody."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for address in re.findall(r"\]\((\w+:[^)\s]*)\)|(?<![(\w])(https?://[^\s)>|]+)", text):
        parts = urlsplit(address[0] or address[1])
        assert parts.scheme in ("https", "mailto"), address
        assert parts.scheme == "mailto" or re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), address


# Commands that are shown ---------------------------------------------------------------------------------------------

EXPORT = """awk 'BEGIN { print "email,Dept,Cost Centre"
    for (i = 1; i <= 3000; i++) printf "%s%d@example.com,Sales,%d\\n", i == 500 ? "{former}" : "user", i, i % 40
}' | gzip > users.csv.gz
"""
#: The loader, with what is meant for a vendor turned to a sandbox, and the credentials, which no page tells.
TURNED = f"""loader() {{
    [ "$1" != init ] || set -- "$@" --base-url http://127.0.0.1:{PORT}
    case "$*" in
        sandbox*) exec loader "$@" ;;  # it is in the background: no shell between it and `kill`
        *base_url*) ;;
        run*|check*) (: < /dev/tcp/127.0.0.1/{PORT}) 2>/dev/null ||
            command loader sandbox --port {PORT} --key-id test --secret test --unknown '^former' > vendor.log 2>&1 & ;;
    esac
    CALVEN_KEY_ID=test CALVEN_SECRET=test command loader "$@"
}}
"""
#: Pages that are run, and what is there before their first line.
READY = {
    "docs/tutorial.md": "",
    "docs/failures.md": "",
    "docs/onboard.md": EXPORT.replace("{former}", "former") + TURNED,
    "README.md": EXPORT.replace("{former}", "user") + TURNED,
}


def play(name: str, folder: Path, *left_out: str) -> None:
    page = [block for block in blocks((ROOT / name).read_text("utf-8")) if block.mark not in left_out]
    page.insert(0, Block(0, READY[name], ""))
    found = [complaint(block, said) for block, said in zip(page, run(page, folder), strict=True)]

    assert not any(found), "\n".join(filter(None, found))


@pytest.mark.timeout(240)  # some forty processes, one after the other
@pytest.mark.parametrize("name", ["docs/tutorial.md", "docs/failures.md"])
def test_the_commands_of_a_page_do_what_it_says(name: str, tmp_path: Path) -> None:
    play(name, tmp_path, "not run", "takes long")


@pytest.mark.soak
@pytest.mark.parametrize("name", READY)
def test_the_commands_that_take_long_do_too(name: str, tmp_path: Path) -> None:
    play(name, tmp_path, "not run")


PAGE = """
```sh
echo one
(exit 3)    # exit status 3: as it should
```

```text
on…
```

<!-- not run: it would wait -->
```sh
sleep 100
```
"""


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("", "", ""),
        ("    # exit status 3: as it should", "", "exit statuses [3], the page says []"),
        ("(exit 3)", "true", "exit statuses [], the page says [3]"),
        ("on…", "two", "the page shows 'two'"),
        ("echo one", "echo one; kill $$", "<block 0>"),
    ],
)
def test_a_page_that_is_wrong_is_noticed(old: str, new: str, found: str, tmp_path: Path) -> None:
    first, second = blocks(PAGE.replace(old, new, 1))
    assert (first.line, second.mark) == (2, "not run")
    try:
        said = complaint(first, *run([first], tmp_path))
    except AssertionError as error:  # it came to no end
        said = str(error)

    assert found in said if found else said == ""


@pytest.mark.parametrize("name", READY)
def test_a_block_that_is_not_run_says_why(name: str) -> None:
    """And none is overlooked, for a fence or a comment that is written otherwise."""
    text = (ROOT / name).read_text("utf-8")

    assert set(re.findall(r"^```(\w*)$", text, re.MULTILINE)) <= {"sh", "text", "toml", "python", "console", ""}
    assert text.count("```sh\n") == len(blocks(text))
    assert text.count("<!--") == sum(block.mark != "" for block in blocks(text))


# What pages show of others --------------------------------------------------------------------------------------


def options() -> Iterator[str]:
    """What each command says of itself, in processes of their own: click keeps a help option once it was asked for."""
    for name in main.list_commands(click.Context(main)):
        told = subprocess.run(
            [sys.executable, "-m", "loader", name, "--help"],
            env={**os.environ, "COLUMNS": "98"},
            check=True,
            capture_output=True,
            text=True,
        )
        yield f"## {name}\n\n```text\n{told.stdout}```\n"


def test_the_page_on_options_is_the_help_of_the_commands() -> None:
    """UPDATE_DOCS=1 writes it."""
    path = DOCS / "options.md"
    before = path.read_text("utf-8")
    text = "\n".join([before.partition("\n## ")[0].rstrip("\n") + "\n", *options()])
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(text, "utf-8")

    assert path.read_text("utf-8") == text


@pytest.mark.parametrize(
    ("mended", "out"), [("other,1\nann,3\n", "0"), ("other,1\n", "1"), ("ann,3\n", "1"), ("other\nann,3\n", "1")]
)
def test_what_is_still_out_is_exact_for_each_row(mended: str, out: str, tmp_path: Path) -> None:
    """Of the page on failures: of a key that was corrected, and of a user with two such rows."""
    rejected = [Settled(row, "ann", Outcome(Code.REJECTED)) for row in (1, 3)]
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as checkpoint:
        checkpoint.commit([Entry(settled=[*rejected, Settled(2, "bob", Outcome(Code.SUCCESS))])])
    again = [
        Settled(row, line.split(",")[0], Outcome(Code.SUCCESS if "," in line else Code.REJECTED))
        for row, line in enumerate(mended.splitlines(), 1)
    ]
    with Checkpoint.open(tmp_path / "mended.ckpt", create=True) as checkpoint:
        checkpoint.commit([Entry(settled=again)])
    (tmp_path / "mended.csv").write_text("email,loader_row\n" + mended)
    text = (DOCS / "failures.md").read_text("utf-8")
    (command,) = re.findall(r"^```sh\n(sqlite3 :memory: .*?)^```$", text, re.MULTILINE | re.DOTALL)

    told = subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, capture_output=True, text=True)

    assert told.stdout == f"{out}\n"


def test_the_page_on_schedules_shows_the_examples_as_they_are() -> None:
    shown = re.findall(r"^```\w+\n(.*?)^```$", (DOCS / "schedule.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    files = {
        path.read_text("utf-8"): path.name for path in (ROOT / "examples" / "schedule").iterdir() if path.is_file()
    }

    for block in shown:
        assert block in files, block
        del files[block]
    assert set(files.values()) == {"README.md"}


def test_figures_of_the_comparison_are_those_that_were_measured() -> None:
    """Each number of its tables of speed and kills stands in docs/speed.md."""
    text = (DOCS / "comparison.md").read_text("utf-8")
    measured = set(re.findall(r"[\d.,]*\d", (DOCS / "speed.md").read_text("utf-8")))
    for title in ("Speed", "Killed half-way"):
        section = text.split(f"## {title}\n")[1].split("\n## ")[0]
        for row in re.findall(r"^\| (?:loader|a loop|by hand|syslog|dlt|drt|singer|elastic).*$", section, re.MULTILINE):
            for number in re.findall(r"[\d.,]*\d", row.split("|", 2)[2]):
                assert number in measured, row
