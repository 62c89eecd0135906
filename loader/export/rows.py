"""What every format does alike: number the rows, put broken ones aside, drop those settled before, chain the hash."""

import hashlib
from collections.abc import Iterator
from typing import Protocol

from loader.export.split import Cut, count_lines
from loader.mapping import Mapped, Problem
from loader.outcome import Outcome, Settled
from loader.record import Mark, Rows
from loader.span import SpanSet


class Reader(Protocol):
    """A format: blocks of rows from a mark on, without the rows settled before."""

    def blocks(self, start: Mark | None, settled: SpanSet) -> Iterator[Rows]: ...


def chained(digest: str, data: bytes) -> str:
    """The hash of all bytes read so far, from the one before and the bytes since."""
    return hashlib.blake2b(data, key=digest.encode(), digest_size=16).hexdigest()


def assemble(cut: Cut, bad: dict[int, Problem], mapped: Mapped, start: Mark, name: str, settled: SpanSet) -> Rows:
    """The rows of one cut: `bad` by position among all its rows, `mapped` the others, in order.

    Every message gets the file's name and the physical line.
    """
    count = len(cut.starts)
    positions = [at for at in range(count) if at not in bad] if bad else range(count)
    end = Mark(
        start.row + count,
        start.offset + len(cut.data),
        start.line + count_lines(cut.data),
        chained(start.digest, cut.data),
    )
    numbers = [start.row + at for at in positions] if bad else list(range(start.row, end.row))
    users, records, aside = mapped.users, mapped.records, []
    problems = bad | {positions[at]: problem for at, problem in mapped.problems.items()}
    if problems:
        for at in sorted(problems):
            problem = problems[at]
            where = f"{name} line {start.line + cut.line(at)}: "
            aside.append(Settled(start.row + at, problem.user, Outcome(problem.code, where + problem.reason)))
    drop = set(mapped.problems)
    if settled.overlaps(start.row, end.row - 1):
        drop |= {at for at, number in enumerate(numbers) if number in settled}
        aside = [item for item in aside if item.row not in settled]
    if drop:
        keep = [at for at in range(len(numbers)) if at not in drop]
        numbers = [numbers[at] for at in keep]
        users = [users[at] for at in keep]
        records = [records[at] for at in keep]
    return Rows(numbers, users, records, aside, end)
