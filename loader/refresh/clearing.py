"""Attributes that are gone, sent as null: with the rows of users who are there, behind them for users who aren't."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from loader.checkpoint import Checkpoint
from loader.outcome import Code
from loader.record import Frame, Rows, json_string
from loader.span import SpanSet

_BLOCK_ROWS = 8_192


def amended(
    blocks: Iterator[Rows], checkpoint: Checkpoint, frame: Frame, rows: int, settled: SpanSet
) -> Iterator[Rows]:
    """The blocks of an export of so many `rows`, with what the checkpoint says is to be cleared.

    Users who are gone get rows of their own, numbered on.
    """
    position = 0
    for block in blocks:
        position = block.position
        yield _cleared(block, checkpoint, frame)
    while part := checkpoint.cleared(rows + 1, sys.maxsize, _BLOCK_ROWS):
        rows = part[-1][0]
        part = [found for found in part if found[0] not in settled]
        yield Rows(
            [row for row, _, _ in part],
            [user for _, user, _ in part],
            [_nulls(frame, user, names) for _, user, names in part],
            position=position,
        )


def _cleared(block: Rows, checkpoint: Checkpoint, frame: Frame) -> Rows:
    """The block, in which what is cleared goes with the records. A row without any other value becomes one."""
    ends = (*block.settled[:1], *block.settled[-1:])
    edges = [*block.numbers[:1], *block.numbers[-1:], *(item.row for item in ends)]
    found = {row: names for row, _, names in checkpoint.cleared(min(edges), max(edges))} if edges else {}
    if not found:
        return block
    records = [
        frame.merge(user, _nulls(frame, user, found[row]), record) if row in found else record
        for row, user, record in zip(block.numbers, block.users, block.records, strict=True)
    ]
    emptied = [item for item in block.settled if item.row in found and item.outcome.code is Code.SKIPPED]
    if not emptied:
        return replace(block, records=records)
    whole = [*zip(block.numbers, block.users, records, strict=True)]
    whole += ((item.row, item.user, _nulls(frame, item.user, found[item.row])) for item in emptied)
    numbers, users, records = (list(column) for column in zip(*sorted(whole), strict=True))
    rest = [item for item in block.settled if item not in emptied]
    return replace(block, numbers=numbers, users=users, records=records, settled=rest)


def _nulls(frame: Frame, user: str, names: Sequence[str]) -> bytes:
    return frame.record(user, b"{" + b",".join(json_string(name) + b":null" for name in names) + b"}")
