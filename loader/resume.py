"""Where a run begins: at the start, where the run before ended, or not at all."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loader.checkpoint import Checkpoint
from loader.errors import CheckpointError
from loader.export import Export, Fingerprint
from loader.record import Mark
from loader.span import SpanSet


@dataclass
class Resume:
    """`settled` rows are done already; reading goes on at `start` (None: from the first row)."""

    settled: SpanSet
    start: Mark | None
    is_finished: bool = False


def begin(checkpoint: Checkpoint, identity: dict[str, Any], export: Export) -> Resume:
    """Make this run the next of the checkpoint's load, or its first. Raises CheckpointError if it is another load."""
    found = export.fingerprint()
    known = checkpoint.get("identity")
    if known is None:
        checkpoint.put(identity=identity, export=found._asdict(), path=str(export.path), started_at=time.time())
        return Resume(SpanSet(), None)
    _same_load(checkpoint.path, known, identity)
    _same_export(checkpoint, export, found)
    if checkpoint.get("finished_at") is not None:
        return Resume(SpanSet(), None, is_finished=True)
    settled = checkpoint.settled()
    return Resume(settled, checkpoint.start_at(settled.first_hole()))


def set_aside(path: Path, *, even_unfinished: bool) -> Path | None:
    """Move the checkpoint out of the way of a new load, and say where to. None: there is none.

    Raises CheckpointError for a load that is not finished, unless `even_unfinished`.
    """
    if not path.exists():
        return None
    with Checkpoint.open(path, create=False) as checkpoint:
        if checkpoint.get("finished_at") is None and checkpoint.get("identity") is not None and not even_unfinished:
            raise CheckpointError(
                f"{path} holds a load that is not finished; resume it without --fresh, or give it up: --fresh --yes"
            )
        checkpoint.merge_log()
    aside = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    name, number = aside.name, 1
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{name}-{number}")
    # Its WAL, there still if somebody is reading, goes along and first: the new checkpoint would take it for its own.
    for suffix in ("-shm", "-wal", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _same_load(path: Path, known: dict[str, Any], identity: dict[str, Any]) -> None:
    differ = [name for name in known.keys() | identity.keys() if known.get(name) != identity.get(name)]
    if differ:
        lines = (f"  {name}: was {_show(known.get(name))}, is {_show(identity.get(name))}" for name in sorted(differ))
        raise CheckpointError(
            f"{path} belongs to another load:\n" + "\n".join(lines) + "\n"
            "Undo the change to go on with that load, or start over with --fresh"
        )


def _same_export(checkpoint: Checkpoint, export: Export, found: Fingerprint) -> None:
    known = Fingerprint(**checkpoint.get("export"))
    if known == found:
        return
    if known.size == found.size and export.is_same_up_to(checkpoint.marks()):
        checkpoint.put(export=found._asdict())  # a copy, or touched
        return
    difference = (
        f"its size was {known.size:,} bytes and is {found.size:,}"
        if known.size != found.size
        else "its size is the same, its content is not"
    )
    raise CheckpointError(
        f"{checkpoint.path} belongs to another export: {export.path} has changed since the load began ({difference}). "
        "Bring the old export back to go on with that load, or start over with --fresh"
    )


def _show(value: Any) -> str:
    return "not set" if value is None else repr(value)
