"""How a load stands, as an immutable value, and the outcome of each of its rows as Arrow."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from loader.checkpoint import Checkpoint
from loader.errors import Refused
from loader.outcome import GOOD, Code
from loader.snapshot import Found

if TYPE_CHECKING:
    import pyarrow as pa

#: So many results are in memory at a time.
_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Report:
    """How a load stands.

    `counts`: rows by outcome, over all runs. `finished`: every row of the export has one. `stopped`: why the last run
    ended before that, "" if it didn't, or was killed. `elapsed_s`, `found`: of the last run, how long it took, and what
    it found of the target. `good`: outcomes that don't fail a load (`refresh.accept` adds to them).
    """

    checkpoint: Path
    counts: Mapping[Code, int]
    finished: bool
    stopped: str = ""
    elapsed_s: float = 0.0
    found: Found = field(default_factory=Found)
    good: frozenset[Code] = GOOD

    @classmethod
    def of(cls, checkpoint: Checkpoint, stopped: str | None = None) -> "Report":
        """What an open checkpoint says; `stopped` None: that, too."""
        now, finished = checkpoint.now(), checkpoint.get("finished_at") is not None
        if stopped is None:
            stopped = now.stopping if now is not None and not finished else ""
        elapsed_s = now.elapsed_s if now is not None else 0.0
        counts, found = checkpoint.outcomes(), checkpoint.found()
        return cls(checkpoint.path, counts, finished, stopped, elapsed_s, found, checkpoint.good)

    @property
    def rows(self) -> int:
        """Rows that have an outcome: the sum of `counts`."""
        return sum(self.counts.values())

    @property
    def failures(self) -> int:
        """Rows whose outcome is not one of the `good`: SUCCESS, UNCHANGED, SUPERSEDED, SKIPPED."""
        return sum(count for code, count in self.counts.items() if code not in self.good)

    @property
    def exit_status(self) -> int:
        """As `loader run` has it: 0 all rows so far are well, 1 some aren't, 3 it was stopped."""
        return 3 if self.stopped else 1 if self.failures else 0

    def results(self, codes: str | Iterable[str] = ()) -> "pa.RecordBatchReader":
        """The outcome of each settled row, in order of row: all, or those with one of `codes`.

        Columns: `row` int64, `user`, `code`, `message`, `target_code` string, `http_status` int16 (null: nothing was
        sent, or nothing answered), `attempts` int32; docs/commands.md says what each means. It is read a few thousand
        rows at a time, of the moment at which reading begins. Raises Refused for what is no outcome, CheckpointError.
        """
        import pyarrow as pa  # late: who asks for figures needs no tables

        wanted = [codes] if isinstance(codes, str) else list(codes)
        for code in wanted:
            if code not in Code.__members__:
                raise Refused(f"{code!r} is not an outcome; known: {', '.join(Code)}")
        with Checkpoint.read(self.checkpoint):
            pass  # what can't be read is told now
        schema = pa.schema(
            [
                pa.field("row", pa.int64(), nullable=False),
                *(pa.field(name, pa.string(), nullable=False) for name in ("user", "code", "message", "target_code")),
                pa.field("http_status", pa.int16()),
                pa.field("attempts", pa.int32(), nullable=False),
            ]
        )
        return pa.RecordBatchReader.from_batches(schema, _batches(self.checkpoint, wanted, schema))


def _batches(path: Path, codes: list[str], schema: "pa.Schema") -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    with Checkpoint.read(path) as checkpoint:
        found = checkpoint.results(codes)
        while rows := list(islice(found, _ROWS)):
            columns = [
                pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def status(checkpoint: str | PathLike[str]) -> Report:
    """How the load in a checkpoint stands, also while it runs. Raises CheckpointError if there is none."""
    with Checkpoint.read(Path(checkpoint)) as opened:
        return Report.of(opened)
