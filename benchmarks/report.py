"""What a benchmark found: as JSON, as a table, and as a part of a page of the docs, between two marks."""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import described, versions

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "speed.md"
KEPT = ROOT / "docs" / "speed"


class Column(NamedTuple):
    """A column of a table: its title, the figure it shows, and how (None: as text)."""

    title: str
    name: str
    form: str | None = ","


def whole(found: Mapping[str, Any], others: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Figures with the machine and the versions they were taken with. `others`: versions of what else ran."""
    return {"machine": described(), "versions": {**versions(), **(others or {})}, **found}


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as Markdown; a figure that is None is a dash."""
    lines = [
        [column.title for column in columns],
        ["---" if column.form is None else "---:" for column in columns],
        *([_cell(row.get(column.name), column.form) for column in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _cell(value: object, form: str | None) -> str:
    return "–" if value is None else str(value) if form is None else format(value, form)


def about(found: Mapping[str, Any]) -> str:
    """The machine and the versions, in a sentence."""
    machine, packages = found["machine"], found["versions"]
    named = ", ".join(f"{name} {number}" for name, number in sorted(packages.items()))
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}; {named}; commit {machine['commit']}.\n"
    )


def insert(page: Path, part: str, text: str) -> None:
    """Put `text` between the marks of `part`, which the page must have."""
    begin, end = f"<!-- {part} -->", f"<!-- /{part} -->"
    found = page.read_text()
    marked = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if not marked.search(found):
        raise SystemExit(f"{page.name} has no place for {part}: {begin} and {end}, each on a line")
    page.write_text(marked.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", found))


def finish(
    name: str, found: Mapping[str, Any], text: Callable[[Mapping[str, Any]], str], *, docs: bool, page: Path = PAGE
) -> None:
    """Print a benchmark's part of the page; with `docs`, write it and keep the figures."""
    print(text(found))
    if docs:
        KEPT.mkdir(exist_ok=True)
        (KEPT / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        insert(page, name, text(found))
        print(f"written: {page.relative_to(ROOT)}, {(KEPT / name).relative_to(ROOT)}.json", file=sys.stderr)


def kept(name: str) -> dict[str, Any]:
    """The figures that stand in the docs."""
    found: dict[str, Any] = json.loads((KEPT / f"{name}.json").read_text())
    return found
