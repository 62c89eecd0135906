"""Every fault with every target ends as matrix.py says, and docs/faults.md is made of that. UPDATE_DOCS=1 writes it."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults.matrix import SECTIONS
from tests.faults.trial import Fault, judge, load, load_on_the_wire
from tests.faults.ways import WAYS, Way
from tests.virtual_time import run_virtual

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
IS_WRITING = "UPDATE_DOCS" in os.environ

FAULTS = [fault for faults in SECTIONS.values() for fault in faults]

#: Those whose sockets are tried each time: a list and a call for a token, a PUT, and requests that follow from answers.
ON_THE_WIRE = ("calven", "calven-hierarchy", "scim")

#: Of a mixture no number of seeds is enough.
SOAKED_SEEDS = range(100)


def trials(*, on_the_wire: bool) -> Iterator[Any]:
    """Each fault with each target, where there is something to try."""
    for section, faults in SECTIONS.items():
        for fault in faults:
            for name, cell in fault.cells.items():
                if fault.is_on_the_wire == on_the_wire and not cell.why_not:
                    is_soaked = on_the_wire and name not in ON_THE_WIRE
                    marks = [pytest.mark.soak] if is_soaked else []
                    yield pytest.param(fault, WAYS[name], id=f"{section}: {fault.name}: {name}", marks=marks)


@pytest.mark.parametrize(("fault", "way"), list(trials(on_the_wire=False)))
def test_it_ends_as_the_page_says(fault: Fault, way: Way) -> None:
    """In virtual time."""
    for seed in fault.seeds:
        judge(run_virtual(load(way, fault, seed)), way, fault, fault.cells[way.name])


@pytest.mark.parametrize(("fault", "way"), list(trials(on_the_wire=True)))
async def test_it_ends_so_over_sockets(fault: Fault, way: Way) -> None:
    """In real time."""
    judge(await load_on_the_wire(way, fault), way, fault, fault.cells[way.name])


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("way", list(WAYS.values()), ids=list(WAYS))
def test_whatever_the_mixture(way: Way) -> None:
    """The one row in which everything goes wrong, with many seeds."""
    (fault,) = (fault for fault in FAULTS if fault.is_mixed)
    for seed in SOAKED_SEEDS:
        judge(run_virtual(load(way, fault, seed)), way, fault, fault.cells[way.name])


# The page -------------------------------------------------------------------------------------------------------------

HEAD = """\
# What goes wrong, and what becomes of a load

Every fault that we could think of, with every target. Tests try them all, and this page is made of what they expect:
the first section over real sockets, the others in simulated time, so that minutes cost nothing. Each target stands for
a load of some hundred users into the sandbox that is its API; how it is set up stands below its name.

| in a cell | meaning |
|---|---|
| ✓ | every user is `SUCCESS`; exit status 0 |
| waits ✓ | the same, after a pause in which nothing is sent, or now and then one request that asks whether it is over |
| 1 `INVALID` | that is the outcome of one user, all others are `SUCCESS`; exit status 1 |
| all `INVALID` | that is the outcome of every user; exit status 1 |
| stops | exit status 3, with the reason; what was settled is kept, and the same command goes on |
| – | there is nothing to try, for the reason given below |

However a load ends, each of these tests sees to it that

- every row has one outcome, or, after a stop, those in flight have none;
- whoever is called a `SUCCESS` is in the API's ledger, with the last value that the export has;
- nothing is in the ledger that the export doesn't have;
- of two rows of one user the later one comes later, whatever was sent again;
- the outcomes say how often each user was sent, and it was not sent without end;
- nothing goes out after a stop;
- the quota is never passed, as the API counts it;
- a target in trouble gets no more requests a second than before.

"""


def heading(way: Way) -> str:
    return f"{way.name}<br>{way.about}"


def page() -> str:
    reasons: list[str] = []
    parts = [HEAD]
    for section, faults in SECTIONS.items():
        parts += [f"## {section}\n\n", table(faults, reasons), "\n"]
        parts += [*reasons_why(faults), "\n"]
    parts += ["## Where there is nothing to try\n\n"]
    parts += [f"{number}. {reason[0].upper()}{reason[1:]}.\n" for number, reason in enumerate(reasons, 1)]
    return "".join(parts)


def reasons_why(faults: Sequence[Fault]) -> list[str]:
    """A sentence for each fault, or for several that stand together."""
    lines: list[tuple[list[str], str]] = []
    for fault in faults:
        if fault.why:
            lines.append(([], fault.why))
        lines[-1][0].append(f"**{fault.name}**")
    return [f"- {', '.join(names)}: {why}\n" for names, why in lines]


def table(faults: Sequence[Fault], reasons: list[str]) -> str:
    """A row for each fault, a column for each target. New reasons for an empty cell join the others."""
    lines = ["| | " + " | ".join(map(heading, WAYS.values())) + " |", "|---" * (len(WAYS) + 1) + "|"]
    for fault in faults:
        signs = []
        for cell in fault.cells.values():
            if cell.why_not and cell.why_not not in reasons:
                reasons.append(cell.why_not)
            signs.append(cell.sign + (f"<sup>{reasons.index(cell.why_not) + 1}</sup>" if cell.why_not else ""))
        lines.append(f"| {fault.name} | " + " | ".join(signs) + " |")
    return "\n".join(lines) + "\n"


def test_the_page_is_made_of_the_matrix() -> None:
    """To the letter."""
    if IS_WRITING:
        PAGE.write_text(page(), "utf-8")
    assert PAGE.read_text("utf-8") == page()


def test_each_fault_has_its_name() -> None:
    """Within its section: the page and the tests are told apart by it."""
    for faults in SECTIONS.values():
        names = [fault.name for fault in faults]
        assert len(names) == len(set(names))
        assert all(list(fault.cells) == list(WAYS) for fault in faults)
