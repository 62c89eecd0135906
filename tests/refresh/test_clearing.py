"""What is cleared goes as null: with its user's row, or in a row of its own."""

import json
from pathlib import Path

from loader.checkpoint import Checkpoint
from loader.outcome import Code, Outcome, Settled
from loader.record import Rows
from loader.refresh.clearing import amended
from loader.span import SpanSet
from tests import make


def test_nulls_go_with_rows_and_behind_them(tmp_path: Path) -> None:
    """A row that had nothing to send has something now; what is settled is not sent again."""
    settled = [Settled(2, "bob", Outcome(Code.SKIPPED)), Settled(4, "dan", Outcome(Code.REJECTED))]
    records = [make.record("ann", dept="x"), make.record("cat", dept="y")]
    blocks = [Rows([1, 3], ["ann", "cat"], records, settled, position=7), make.rows("e", 5)]
    cleared = [(1, "ann", ["site"]), (2, "bob", ["dept"]), (4, "dan", ["dept"])]
    gone = [(6, "fay", ["dept", "site"]), (7, "gus", ["dept"]), (8, "hal", ["dept"])]
    with Checkpoint.open(tmp_path / "c", create=True) as checkpoint:
        checkpoint.begin_with(Code.UNCHANGED, (), (), [*cleared, *gone])
        found = list(amended(iter(blocks), checkpoint, make.FRAME, 5, SpanSet([(7, 7)])))

    sent = make.sent(found)
    assert sent == {
        1: ("ann", {"site": None, "dept": "x"}),
        2: ("bob", {"dept": None}),
        3: ("cat", {"dept": "y"}),
        5: ("e", {"row": 5}),
        6: ("fay", {"dept": None, "site": None}),
        8: ("hal", {"dept": None}),
    }
    assert [(item.row, item.outcome.code) for block in found for item in block.settled] == [(4, "REJECTED")]
    assert [number for block in found for number in block.numbers] == sorted(sent)
    assert json.loads(found[0].records[0])["user"] == "ann"
