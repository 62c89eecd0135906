"""Where a run begins: at the start, where the run before ended, or not at all."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from loader.checkpoint import Checkpoint
from loader.errors import CheckpointError, Refused
from loader.export import Export, Fingerprint
from loader.export.remote import Remote
from loader.mapping import RowMapping
from loader.outcome import WORTH_RETRYING, Code
from loader.record import Mark, Rows
from loader.span import SpanSet


@dataclass
class Resume:
    """`settled` rows are done already; reading goes on at `start` (None: from the first row).

    `known`: marks of the export, by row. `amend`: what becomes of the blocks that are read, before they are sent.
    """

    settled: SpanSet
    start: Mark | None
    known: Mapping[int, Mark] = field(default_factory=dict)
    is_finished: bool = False
    amend: Callable[[Iterator[Rows]], Iterator[Rows]] = iter


def begin(checkpoint: Checkpoint, identity: dict[str, Any], export: Export, mapping: RowMapping) -> Resume:
    """Make this run the next of the checkpoint's load, or its first. Raises CheckpointError if it is another load."""
    found = export.fingerprint()
    with checkpoint.refusing():
        known = checkpoint.get("identity")
        is_finished = checkpoint.get("finished_at") is not None
        if known is None or not _is_worth_keeping(checkpoint):
            checkpoint.forget_marks()
            files = list(map(str, export.paths))
            checkpoint.put(
                identity=identity, export=found._asdict(), path=str(export), files=files, mapping=mapping.as_json()
            )
            remote = [path for path in export.paths if isinstance(path, Remote)]
            checkpoint.put(access=dict(remote[0].access.facts) if remote else {})
            checkpoint.put(started_at=time.time())
            return Resume(SpanSet(), None)
        _same_load(checkpoint.path, known, identity)
        _same_export(checkpoint, export, mapping, found)
        return Resume(SpanSet(), None, is_finished=True) if is_finished else _go_on(checkpoint)


def standing(
    path: Path, identity: dict[str, Any], export: Export, mapping: RowMapping
) -> Literal["open", "answered", "finished", "outdated"]:
    """How the checkpoint at `path` stands to a load that goes whole, in one request. Nothing in it is changed.

    "answered": it holds the outcomes of this very export; "finished": and that is all. "outdated": it holds the same
    load of an export that has changed since, of which nothing can be resumed. "open": anything else, of which begin()
    says what it is.
    """
    if not path.exists():
        return "open"
    with Checkpoint.open(path, create=False) as checkpoint, checkpoint.refusing():
        known = checkpoint.get("identity")
        if known is None or _differing(known, identity) or not _is_worth_keeping(checkpoint):
            return "open"
        # All of it is compared, as nothing will be compared later; of what comes once, what can be.
        start = _start(checkpoint) if export.comes_once else None
        if _difference(checkpoint, export, mapping, export.fingerprint(), start):
            return "outdated"
        if checkpoint.get("finished_at") is not None:
            return "finished"
        return "answered" if checkpoint.counts() else "open"


def _is_worth_keeping(checkpoint: Checkpoint) -> bool:
    """Where nothing is settled, nothing is given up; but a retry may have taken every row back out."""
    facts = (checkpoint.get(name) for name in ("finished_at", "retried_at"))
    return any(fact is not None for fact in facts) or bool(checkpoint.counts())


def _go_on(checkpoint: Checkpoint) -> Resume:
    return resumed(checkpoint, checkpoint.settled())


def resumed(checkpoint: Checkpoint, settled: SpanSet) -> Resume:
    """What is left to do behind the `settled` rows of the checkpoint."""
    known = {mark.row: mark for mark in checkpoint.marks()}
    return Resume(settled, checkpoint.start_at(settled.first_hole()), known)


def reopen(checkpoint: Checkpoint, resume: Resume, *, even_taken_out: bool = False) -> Resume:
    """Take what may become better out of a finished load, for a run to send it again; finished still: nothing may.

    A retry that was interrupted just goes on. Raises CheckpointError if the load itself is not finished; and, unless
    `even_taken_out`, Refused if rows that would be sent were taken out to be corrected: they may be loaded by now.
    """
    with checkpoint.refusing():
        if not resume.is_finished and checkpoint.get("retried_at") is None:
            raise CheckpointError(
                f"{checkpoint.path} holds a load that is not finished; finish it first, with loader run"
            )
        if resume.is_finished and not even_taken_out and (words := taken_out(checkpoint)):
            raise Refused(f"{words}; even_taken_out=True sends them")
        if not resume.is_finished or not checkpoint.reopen(WORTH_RETRYING):
            return resume
        return replace(_go_on(checkpoint), amend=resume.amend)


def taken_out(checkpoint: Checkpoint) -> str:
    """What to know of rows that a retry sends, and that were taken out to be corrected; "": none were."""
    outcomes = checkpoint.outcomes()
    taken = {code: file for code, file in (checkpoint.get("taken_out") or {}).items() if outcomes.get(Code(code))}
    if not taken:
        return ""
    files = ", ".join(sorted({*taken.values()}))
    return (
        f"rows that are {', '.join(taken)} were taken out to be corrected, into {files}. "
        "A retry sends them as they were: if that file is loaded already, its corrections are undone, so load it again "
        "behind the retry (loader run … --fresh)"
    )


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


def differing(known: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    """What two loads differ in, as lines for people."""
    names = _differing(known, identity)
    return [f"  {name}: was {_show(name, known.get(name))}, is {_show(name, identity.get(name))}" for name in names]


def _same_load(path: Path, known: dict[str, Any], identity: dict[str, Any]) -> None:
    if lines := differing(known, identity):
        raise CheckpointError(
            f"{path} belongs to another load:\n" + "\n".join(lines) + "\n"
            "Undo the change to go on with that load, or start over with --fresh (--fresh --yes if it isn't finished)"
        )


def _differing(known: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in known.keys() | identity.keys() if known.get(name) != identity.get(name))


def _same_export(checkpoint: Checkpoint, export: Export, mapping: RowMapping, found: Fingerprint) -> None:
    if difference := _difference(checkpoint, export, mapping, found, _start(checkpoint)):
        raise CheckpointError(
            f"{checkpoint.path} belongs to another export: {export} has changed since the load began ({difference}). "
            "Bring the old export back to go on with that load, or start over with --fresh"
        )
    if checkpoint.get("export") != found._asdict():
        checkpoint.put(export=found._asdict())  # a copy, or touched


def _start(checkpoint: Checkpoint) -> Mark | None:
    """Where a load that isn't finished goes on."""
    if checkpoint.get("finished_at") is not None:
        return None
    return checkpoint.start_at(checkpoint.settled().first_hole()) or Mark()


def _difference(
    checkpoint: Checkpoint, export: Export, mapping: RowMapping, found: Fingerprint, start: Mark | None
) -> str:
    """What tells the export from the one that the checkpoint's load began with; "" if it is the same.

    `start`: where a run is to go on, and will compare what it reads from there.
    """
    known = Fingerprint(**checkpoint.get("export"))
    if known == found and found.tells:
        return ""
    marks = checkpoint.marks()
    compared = (checkpoint.get("refresh") or {}).get("rows", 0)
    if compared and (not marks or marks[-1].row <= compared or not marks[-1].digest):
        return "its time or version is another, and that its content is the same can't be told"
    if known.size != found.size:
        return f"its size was {known.size:,} bytes and is {found.size:,}"
    return "" if export.is_same_up_to(marks, mapping, start) else "its size is the same, its content is not"


def _show(name: str, value: Any) -> str:
    if name == "mapping.attributes" and isinstance(value, dict):  # by attribute, each with its column
        return ", ".join(own if own == column else f"{column} → {own}" for own, column in value.items())
    return "not set" if value is None else repr(value)
