"""Exports that go whole, in one request: read and judged before anything is sent, and kept once they are accepted.

What was accepted last stands in a file beside the export, so that the next one can be compared with it: an export that
was cut short would take all that is missing from it away at the target.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson

from loader.batch import Batch
from loader.checkpoint import lock, sync_folder
from loader.errors import CheckpointError, ExportError, Refused, Stopped
from loader.export import Export, Fingerprint
from loader.mapping import RowMapping
from loader.record import Rows
from loader.resume import set_aside, standing
from loader.span import SpanSet
from loader.target import Fault, WholeTarget

VERSION = 1

#: Places of each fault, and names, that a message shows; and characters of each.
_SHOWN = 5
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Whole:
    """All rows of an export, as one block, and where they are kept once they are accepted.

    `found` is what the files were before they were read. `broke_off`: why that was not to the end, "" if it was.
    """

    store: "Store"
    rows: Rows
    found: Fingerprint
    broke_off: str = ""

    @property
    def batch(self) -> Batch:
        """Its records, to be sent together."""
        return Batch(self.rows.numbers, self.rows.users, self.rows.records)

    def blocks(self, settled: SpanSet, begun: Mapping[str, Any]) -> Iterator[Rows]:
        """The one block, without its records if they are settled. `begun`: the export that the load began with.

        Raises ExportError if that is not what was read here, CheckpointError if only some records are settled.
        """
        if begun != self.found._asdict():
            raise ExportError("the export has just changed, and nothing was sent; run this again")
        if settled and len(settled) != len(self.rows.numbers):
            raise CheckpointError("the checkpoint lacks rows that went with the others; start over with --fresh --yes")
        return iter([replace(self.rows, numbers=[], users=[], records=[]) if settled else self.rows])


def prepare(
    store: "Store",
    export: Export,
    mapping: RowMapping,
    identity: dict[str, Any],
    checkpoint: Path,
    say: Callable[[str], None],
    *,
    fresh: bool = False,
    retry: bool = False,
    allow_shrink: bool = False,
) -> Whole | None:
    """Read and judge an export that goes whole. Raises Refused if it can't be sent; then nothing has changed here.

    None: the checkpoint holds a finished load of this very export, which is not to be sent again, as with `fresh` or
    `retry`. If it holds the answer, how much smaller the export was matters no more. The load of an export that has
    changed since is set aside, as nothing of it can be resumed.
    """
    stands = "open" if fresh else standing(checkpoint, identity, export, mapping)
    if stands == "finished" and not retry:
        return None
    whole = gather(store, export, mapping)
    refuse_faults(whole)
    if stands in ("open", "outdated"):
        refuse_shrinkage(whole, say, allow_shrink=allow_shrink)
    if stands == "outdated" and (aside := set_aside(checkpoint, even_unfinished=True)):
        say(f"{export} has changed since it was loaded, so this is a new load; the old one is kept as {aside.name}")
    return whole


def gather(store: "Store", export: Export, mapping: RowMapping) -> Whole:
    """Read a whole export. Raises ExportError if it can't be read at all, or changes meanwhile."""
    found = export.fingerprint()
    rows = Rows(numbers := list[int](), [], records := list[bytes]())
    broke_off = ""
    try:
        for block in export.rows(mapping):
            numbers += block.numbers
            rows.users += block.users
            records += block.records
            rows.settled += block.settled
            rows.end, rows.position = block.end or rows.end, block.position
    except Stopped as error:
        broke_off = str(error).partition(";")[0]  # what follows is for loads that have begun
    if export.fingerprint() != found:
        raise ExportError(f"{export} changed while it was read; run this again when it is all there")
    return Whole(store, rows, found, broke_off)


def faults(whole: Whole) -> list[Fault]:
    """Everything that forbids to send it; empty: nothing does."""
    target = whole.store.target
    found = [Fault("the export breaks off", [whole.broke_off])] if whole.broke_off else []
    if whole.rows.settled:
        places = [f"row {item.row}: {item.outcome.message}" for item in whole.rows.settled]
        found.append(Fault("a row that is not valid", places))
    if not whole.rows.numbers and not found:
        found.append(Fault(f"it holds no {target.things}, and all that {target.api} has would go"))
    return found + target.faults(whole.batch)


def fault_lines(found: Iterable[Fault]) -> Iterator[str]:
    """Faults for people: each with a handful of its places."""
    for fault in found:
        count = f" ({len(fault.places):,} times)" if len(fault.places) > 1 else ""
        yield f"- {fault.what}{count}" + (":" if fault.places else "")
        yield from (f"    {_cut(place)}" for place in fault.places[:_SHOWN])
        if (more := len(fault.places) - _SHOWN) > 0:
            yield f"    and {more:,} more"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


# What was accepted last ----------------------------------------------------------------------------------------------


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a target accepted last. `target` says whose it is; `rows` is how many `records` there are."""

    version: int
    target: Mapping[str, Any]
    accepted_at: str
    rows: int
    records: list[msgspec.Raw]


class _Version(msgspec.Struct):
    version: int


_read = msgspec.json.Decoder(State).decode
_read_version = msgspec.json.Decoder(_Version).decode


@dataclass(frozen=True)
class Store:
    """The file at `path` that keeps the export a target took last, as JSON, a record a line."""

    path: Path
    target: WholeTarget
    base_url: str

    @property
    def owner(self) -> Mapping[str, Any]:
        """Whose export it is: what another API, address or region holds says nothing of this one."""
        return {"api": self.target.api, "base_url": self.base_url, **self.target.identity()}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs off it for as long as this lasts. Raises Refused if one has it, or it can't be written."""
        if not os.access(self.path.absolute().parent, os.W_OK):
            raise Refused(f"what {self.target.api} accepts is kept in {self.path}, and that folder can't be written to")
        with lock(self.path):
            yield

    def read(self) -> State | None:
        """What was accepted last, whoever accepted it; None: nothing is known of that. Raises CheckpointError."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"can't read {self.path}: {error.strerror}") from error
        try:
            version = _read_version(data).version
            if version != VERSION:
                raise CheckpointError(
                    f"{self.path} is of version {version}, and this loader reads version {VERSION}; {self._way_out}"
                )
            state = _read(data)
            if len(state.records) != state.rows:
                raise ValueError(f"it holds {len(state.records):,} records, not {state.rows:,}")
            if state.target == self.owner:
                _labels(self.target, state.records)
        except (ValueError, RecursionError) as error:  # msgspec's are the former, too
            raise CheckpointError(f"{self.path} is damaged ({error}); {self._way_out}") from error
        return state

    def write(self, records: Sequence[bytes], now: datetime) -> None:
        """Keep what was accepted: whole, or not at all, and for its owner alone. Raises Stopped."""
        facts = {
            "version": VERSION,
            "target": dict(self.owner),
            "accepted_at": now.isoformat(timespec="seconds"),
            "rows": len(records),
        }
        head = orjson.dumps(facts, option=orjson.OPT_INDENT_2).removesuffix(b"\n}")
        lines = b",\n    ".join(records)
        try:
            _replace(self.path, head + b',\n  "records": [\n    ' + lines + b"\n  ]\n}\n")
        except OSError as error:
            raise Stopped(
                f"{self.target.api} accepted the export, but that can't be kept in {self.path}: {error.strerror}"
            ) from error

    @property
    def _way_out(self) -> str:
        return (
            f"it only tells what {self.target.api} accepted last: bring back a copy of it, or move it away to load "
            "without comparing"
        )


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that a kill, or a power cut, leaves it as it was or as it will be."""
    draft = path.with_name(f"{path.name}.part")
    try:
        with open(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.absolute().parent)


def refuse_shrinkage(whole: Whole, say: Callable[[str], None], *, allow_shrink: bool) -> None:
    """Raise Refused if it is too small beside the one accepted last; else say what is known of that one."""
    found = compare(whole.store, whole.rows.records)
    if found.refusal and not allow_shrink:
        raise Refused(found.refusal)
    say(found.words)


def refuse_faults(whole: Whole) -> None:
    """Raise Refused if there is any fault, naming all of them."""
    if found := faults(whole):
        lines = "\n".join(fault_lines(found))
        raise Refused(
            f"the export is not fit to be sent, and nothing was sent:\n{lines}\nCorrect it, and run this again"
        )


class Comparison(NamedTuple):
    """An export beside the one accepted last. `words`: for people; `refusal`: why it is too small, "" if it isn't."""

    words: str
    refusal: str = ""


def compare(store: Store, records: Sequence[bytes]) -> Comparison:
    """What sending these records would change, as far as it is known here. Raises CheckpointError."""
    target, before = store.target, store.read()
    if before is None:
        return Comparison(f"nothing is known of {target.things} accepted before ({store.path.name} is not there)")
    if before.target != store.owner:
        return Comparison(
            f"{store.path.name} is of {_owner(before.target)}, not of {_owner(store.owner)}, so there is nothing to "
            "compare with; it is replaced once this export is accepted"
        )
    known, now = _labels(target, before.records), _labels(target, records)
    gone = [label for label in known if label not in now]
    new = sum(label not in known for label in now)
    words = f"{target.things} accepted last ({before.accepted_at}): {before.rows:,}; new: {new:,}, gone: {len(gone):,}"
    lost = before.rows - len(records)
    if lost * 100 <= Fraction(target.max_shrink.rstrip("%")) * before.rows:
        return Comparison(words)
    shown = [f"  {_cut(label)}" for label in gone[:_SHOWN]]
    more = [f"  and {len(gone) - _SHOWN:,} more"] if len(gone) > _SHOWN else []
    refusal = (
        f"{target.things} in this export: {len(records):,}, in the one accepted last ({before.accepted_at}): "
        f"{before.rows:,}; that is fewer by more than target.max_shrink = {target.max_shrink}. These would vanish:"
    )
    way_out = "If they are to, loader run --allow-shrink lets it through; nothing was sent"
    return Comparison(words, "\n".join([refusal, *shown, *more, way_out]))


def _labels(target: WholeTarget, records: Iterable[bytes]) -> dict[str, None]:
    """What the records stand for, in their order. Raises ValueError."""
    return dict.fromkeys(target.label(bytes(record)) for record in records)


def _owner(owner: Mapping[str, Any]) -> str:
    return ", ".join(map(str, owner.values()))
