"""The nightly refresh: what the target acknowledged last is not sent again.

    state ──► compare ──► guards ──► new state ──► checkpoint ──► load ──► marks in the state
    of last night         refuse     who is sent   UNCHANGED               who was acknowledged
                                     has no mark

In this order, so that a run may end anywhere: the state never says more than the target has said. A comparison settles
the unchanged rows in the checkpoint; behind that it is a load like any other, that goes on, is retried and tells its
results. `loader plan` compares, too, and goes no further.
"""

import csv
import os
import re
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loader.checkpoint import Checkpoint, Span, discard, lock, publish, remove, sync_folder
from loader.errors import CheckpointError, Guarded, Refused, Stopped
from loader.export import Export, Fingerprint
from loader.mapping import RowMapping
from loader.mapping.columns import escaped
from loader.outcome import Code
from loader.refresh import digest
from loader.refresh.clearing import amended
from loader.refresh.compare import Comparison, Counts, Found, Gone, match
from loader.refresh.digest import Digester
from loader.refresh.scan import in_order, unbroken
from loader.refresh.spill import PARTITIONS, KeyBlock, Spill, Table, nameless
from loader.refresh.state import (
    ACKED,
    CLEARED,
    MARKS,
    MOST_ROWS,
    TAKEN,
    About,
    Draft,
    State,
    aside_of,
    held_at,
    kept_keys,
    names_of,
    rows_of,
    take_place,
    told,
)
from loader.resume import Resume, begin, differing, reopen, resumed, set_aside, standing
from loader.snapshot import duration
from loader.span import SpanSet

Missing = Literal["ignore", "report", "clear"]

#: Of what a state tells: of users and their values, of users alone, of nobody.
_Of = Literal["values", "keys", "nothing"]

#: The setting that says what a user's key is.
_KEY = "mapping.user"

#: Users' keys are hashed so many at a time.
_KEYS = 20_000

#: Of those who have lost attributes, so many are looked at to say which.
_LOOKED_AT = 10_000

#: The first line of the report of who is gone.
_HEADING = "user,row,attributes\n"

#: Of those who are gone, so many are named in a message.
_SHOWN = 5

_ASIDE = re.compile(r"\.[0-9]{8}-[0-9]{6}(-[0-9]+)?")


class Rules(NamedTuple):
    """`[refresh]`. `state`: the file; `is_replaced`: an attribute that isn't sent is lost at the target.

    `keep`: the checkpoints of so many nights before.
    """

    state: Path
    missing: Missing = "ignore"
    max_missing: str | int = "5%"
    max_changed: str | int | None = None
    full_every_s: float | None = None
    keep: int = 7
    is_replaced: bool = False


class Options(NamedTuple):
    """What a run is told. `fresh`: start over, `even_unfinished`: a load that isn't finished, too."""

    is_full: bool = False
    fresh: bool = False
    even_unfinished: bool = False


_PLAIN = Options()


class Compared(NamedTuple):
    """What a comparison found, and of what. `full`: why all users are sent, "" if that isn't so.

    `unguarded`: which guards can't be held.
    """

    night: str
    found: Found
    before: State | None
    full: str
    full_at: float
    secret: bytes
    fingerprint: Fingerprint
    comparison: Comparison
    unguarded: str = ""

    @property
    def alarm(self) -> str:
        """What those hear, too, who hear of nothing else, in one line: the export is not compared as it was before."""
        if self.before is None or self.comparison.are_values_known:
            return ""
        text = "\n".join(filter(None, (f"all users are sent: {self.full}", self.unguarded)))
        return text.replace(":\n  ", ": ").replace("\n  ", "; ").replace("\n", "; ")


@dataclass(frozen=True)
class Refresh:
    """The refresh of one export. `say` tells people; `watch` is told how many rows are read."""

    rules: Rules
    identity: dict[str, Any]
    export: Export
    mapping: RowMapping
    say: Callable[[str], None]
    watch: Callable[[int], None] = lambda _rows: None

    @contextmanager
    def locked(self) -> Iterator["Refresh"]:
        """Keep other runs off the state for as long as this lasts, and have the export be the same at each reading.

        Raises Refused if that can't be.
        """
        folder = self.rules.state.absolute().parent
        if not os.access(folder, os.W_OK):
            raise Refused(f"refresh.state: {folder} is not there, or can't be written to")
        with lock(self.rules.state, "refresh.state"), ExitStack() as held:
            with unbroken():
                export = held.enter_context(self.export.held(folder, self.watch))
            if not export.fingerprint().tells:
                raise Refused(
                    f'refresh.mode = "changed" reads the export twice, and nothing tells whether {export} is the same '
                    "then: give it as a file"
                )
            for line in take_place(self.rules.state, self.identity):
                self.say(line)
            yield replace(self, export=export)

    # Before a load

    def is_new(self, path: Path) -> bool:
        """Does tonight's load begin with this run? Else the checkpoint at `path` holds a part of it, or forbids it."""
        stands = standing(path, self.identity, self.export, self.mapping)
        if stands in ("finished", "outdated") or not path.exists():
            return True
        with Checkpoint.open(path, create=False) as checkpoint, checkpoint.refusing():
            if stands == "answered":
                return self._is_of_another_night(checkpoint)
            facts = ("refresh", "finished_at", "identity")
            is_ours, is_finished, is_any = (checkpoint.get(name) is not None for name in facts)
            # A load that was no refresh, and isn't finished, is not given up unasked.
            return is_ours or is_finished or not is_any or not checkpoint.counts()

    @contextmanager
    def compared(self, path: Path, options: Options = _PLAIN) -> Iterator[Compared]:
        """Compare; nothing is changed but that the state knows what the load before acknowledged."""
        if path.exists():
            with Checkpoint.open(path, create=False) as checkpoint:
                if (count := self.conclude(checkpoint)) and checkpoint.get("finished_at") is None:
                    self.say(f"the load before was not finished; {count:,} users that it had acknowledged count")
        state, night, now = self.rules.state, secrets.token_hex(8), time.time()
        fingerprint = self.export.fingerprint()
        _remove_leftovers(state)
        with State.open(state) or _none() as before:
            full, of = self._full(before, now, is_full=options.is_full)
            is_named = self.rules.missing != "ignore"
            known = None if of == "nothing" else before
            secret = secrets.token_bytes(digest.SECRET_BYTES) if known is None else known.about.secret
            with Comparison(
                state,
                known,
                secret,
                is_full=bool(full),
                is_named=is_named,
                are_values_known=of == "values",
                clears=self.rules.missing == "clear",
                is_replaced=self.rules.is_replaced,
                key_path=state.with_name(f"{state.name}.keys-{night}") if is_named else None,
            ) as comparison:
                found = comparison.run(self.export, self.mapping, self.watch)
                full_at = now if full or before is None else before.about.full_at
                unguarded = self._unguarded(before, of)
                yield Compared(night, found, before, full, full_at, secret, fingerprint, comparison, unguarded)

    def _full(self, before: State | None, now: float, *, is_full: bool) -> tuple[str, _Of]:
        """Why all users are sent, "" if they aren't; and of what the state tells."""
        if before is None:
            return f"there is no state {self.rules.state.name} yet", "nothing"
        about = before.about
        if about.digests != digest.VERSION:
            return f"{self.rules.state.name} is of a loader that made digests in another way", "nothing"
        if lines := differing(about.identity, self.identity):
            has_same_keys = about.identity.get(_KEY) == self.identity.get(_KEY)
            why = "\n".join([f"{self.rules.state.name} is of a load with other settings:", *lines, *self._left(about)])
            return why, "keys" if has_same_keys else "nothing"
        if is_full:
            return "--full", "values"
        every = self.rules.full_every_s
        if every is not None and now - about.full_at >= every:
            return f"the last time was {duration(now - about.full_at)} ago, and refresh.full_every is over", "values"
        return "", "values"

    def _left(self, about: About) -> Iterator[str]:
        """The attributes that were sent and are no more, of which nothing is known from now on."""
        now = None if self.rules.is_replaced else self.export.names(self.mapping)
        sent = {about.names[place] for each in about.sets for place in each}
        if now is not None and (left := sorted(sent - set(now))):
            yield f"  not mapped any more, left at the target: {', '.join(left)}"

    def _unguarded(self, before: State | None, of: _Of) -> str:
        """Which guards there are no more."""
        if before is None or of == "values":
            return ""
        if of == "nothing":
            return "refresh.max_missing can't be held tonight: who is gone can't be told"
        return "refresh.max_changed can't be held tonight" if self.rules.max_changed is not None else ""

    def refuse(self, compared: Compared) -> None:
        """Raise Guarded if so much is gone, or other, that the export can't be right; Refused if it is another now."""
        if self.export.fingerprint() != compared.fingerprint:
            raise Refused(f"{self.export} changed while it was compared; nothing was sent")
        counts, rules = compared.found.counts, self.rules
        gone = counts.missing + counts.uncleared
        if gone > _limit(rules.max_missing, counts.known):
            names = ", ".join(_first_gone(compared.found))
            earlier = f", and {counts.uncleared:,} gone earlier would be CLEARED with them" if counts.uncleared else ""
            raise Guarded(
                "max_missing",
                vars(counts),
                f"{counts.missing:,} of the {counts.known:,} users of the export before are not in {self.export}"
                f"{earlier}, more than refresh.max_missing = {rules.max_missing}; nothing was sent",
                "If they are really gone, say so once: --set refresh.max_missing="
                + ("100%" if gone <= counts.known else str(gone)),
                names=f". The first: {names}" if names else "",
            )
        if rules.missing == "clear" and counts.removed > _limit(rules.max_missing, counts.known):
            names = ", ".join(_lost_most(compared.found))
            raise Guarded(
                "max_missing",
                vars(counts),
                f"{counts.removed:,} of the {counts.known:,} users of the export before lack attributes that they had "
                f'(most often {names}), and refresh.missing = "clear" would remove these at the target, more than '
                f"refresh.max_missing = {rules.max_missing}; nothing was sent",
                "A column that was renamed, or came empty, looks like this. If they are really gone, say so once: "
                "--set refresh.max_missing=100%",
            )
        if rules.max_changed is not None and not compared.full:
            known = counts.unchanged + counts.changed + counts.again
            if counts.changed > _limit(rules.max_changed, known):
                raise Guarded(
                    "max_changed",
                    vars(counts),
                    f"{counts.changed:,} of {known:,} known users have other values than before, more than "
                    f"refresh.max_changed = {rules.max_changed}; nothing was sent",
                    "If that is right, say so once: --set refresh.max_changed=100%",
                )

    # The load

    @contextmanager
    def night(
        self,
        path: Path,
        options: Options = _PLAIN,
        judge: Callable[[Compared], None] = lambda _: None,
    ) -> Iterator[tuple[Checkpoint, Resume]]:
        """Tonight's load, begun or gone on with: its checkpoint, and what is left to do. `judge` may refuse to begin.

        At the end the state knows what was acknowledged.
        """
        resume = None
        if options.fresh or self.is_new(path):
            with self.compared(path, options) as compared:
                if compared.full:
                    self.say("\n".join(filter(None, (f"all users are sent: {compared.full}", compared.unguarded))))
                self.refuse(compared)
                judge(compared)
                resume = self._begin(path, compared, options)
        elif options.is_full:
            raise Refused("--full: a load of this export has begun; finish it, or give it up: --fresh --yes --full")
        with Checkpoint.open(path, create=resume is None) as checkpoint:
            if resume is None:
                resume = self.resume(checkpoint)
                if not resume.is_finished:
                    self.say(f"going on behind {len(resume.settled):,} settled rows")
            resume.amend = self._amending(checkpoint, resume.settled)
            with self._concluding(checkpoint):
                yield checkpoint, resume

    @contextmanager
    def retrying(self, path: Path) -> Iterator[tuple[Checkpoint, Resume]]:
        """The same for the rows of a finished load that are worth being sent again."""
        with Checkpoint.open(path, create=False) as checkpoint:
            resume = self.resume(checkpoint)
            if self._is_of_another_night(checkpoint):
                raise CheckpointError(
                    f"{path} is of another night than {self.rules.state}, and what it would send may be older than "
                    "what the target has; load tonight's export instead, with loader run"
                )
            resume = reopen(checkpoint, resume)
            with self._concluding(checkpoint):
                yield checkpoint, resume

    @contextmanager
    def _concluding(self, checkpoint: Checkpoint) -> Iterator[None]:
        try:
            yield
        finally:
            try:
                self.conclude(checkpoint)
            except CheckpointError as error:
                raise Stopped(f"{error}; the next run marks what was acknowledged") from error

    def _is_of_another_night(self, checkpoint: Checkpoint) -> bool:
        with State.open(self.rules.state) or _none() as state:
            return state is not None and state.about.night != (checkpoint.get("refresh") or {}).get("night")

    def resume(self, checkpoint: Checkpoint) -> Resume:
        """What is left to do of the load in the checkpoint. Raises CheckpointError if it is none of these."""
        resume = begin(checkpoint, self.identity, self.export, self.mapping)
        if checkpoint.get("refresh") is None:
            raise CheckpointError(f"{checkpoint.path} holds a load that was no refresh; finish it, or --fresh --yes")
        return replace(resume, amend=self._amending(checkpoint, resume.settled))

    def _begin(self, path: Path, compared: Compared, options: Options) -> Resume:
        """First the state, in which nobody who is sent has a mark; then the checkpoint, with the unchanged rows.

        Both are made aside and take their places when they are whole.
        """
        comparison, found, old = compared.comparison, compared.found, compared.before
        clears = self.rules.missing == "clear"
        if self.rules.missing != "ignore":
            self._report(path, found)
        draft: Draft = comparison.draft
        keys = comparison.key_path
        about = {
            "night": compared.night,
            "begun_at": time.time(),
            "full_at": compared.full_at,
            "identity": self.identity,
            "secret": compared.secret,
            "keys": None if keys is None else keys.name,
        }
        try:
            with ThreadPoolExecutor(1, "state") as beside:  # both are synced, which takes its time
                sets = [sorted(each) for each in comparison.sets.sets]
                state = beside.submit(draft.finish, comparison.sets.names, sets, about)
                with Checkpoint.draft(path) as checkpoint, checkpoint.refusing():
                    begin(checkpoint, self.identity, self.export, self.mapping)
                    rows = found.counts.rows
                    gone = _numbered(found.gone(), rows) if clears else ()
                    facts = {"night": compared.night, "clears": clears, "full": compared.full, **vars(found.counts)}
                    facts["alarm"] = compared.alarm
                    checkpoint.begin_with(Code.UNCHANGED, _spans(found, comparison), found.marks, gone, refresh=facts)
                    resume = resumed(checkpoint, _settled(found.unchanged))
                state.result()
            self._clear_the_way(path, options)
            draft.replace()
            publish(path)
        finally:
            discard(path)
        if old is not None and old.key_path is not None:
            old.key_path.unlink(missing_ok=True)
        return resume

    def _clear_the_way(self, path: Path, options: Options) -> None:
        """Keep the checkpoint before as another file. Raises CheckpointError if its load is not to be given up."""
        if not _holds_something(path):
            remove(path)
        elif aside := set_aside(path, even_unfinished=options.even_unfinished or not options.fresh):
            self.say(f"a new load begins; the checkpoint of the one before is kept as {aside.name}")
            _prune(path, self.rules.keep)

    def _report(self, path: Path, found: Found) -> None:
        """Who and what is gone, as a file beside the checkpoint."""
        counts = found.counts
        report = path.with_name(f"{path.stem}.missing.csv")
        if report.is_file() and report.stat().st_size > len(_HEADING):  # of an earlier night, perhaps not read yet
            report.replace(report.with_name(f"{report.name}.{time.strftime('%Y%m%d-%H%M%S')}"))
            _prune(report, self.rules.keep)
        try:
            handle = os.open(report, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with open(handle, "w", encoding="utf-8", newline="") as file:
                lines = csv.writer(file, lineterminator="\n")
                file.write(_HEADING)
                lines.writerows((gone.user, gone.row or "", " ".join(gone.names)) for gone in found.gone())
        except OSError as error:
            raise CheckpointError(f"can't write {report}, and nothing was sent: {error.strerror}") from error
        if counts.missing or counts.removed or counts.uncleared:
            what = "are cleared" if self.rules.missing == "clear" else "are left as they are"
            earlier = f"{counts.uncleared:,} gone earlier; " if counts.uncleared else ""
            self.say(
                f"gone since the last export: {counts.missing:,} users, and attributes of {counts.removed:,} more; "
                f"{earlier}they {what} at the target, and {report.name} names them"
            )
        if counts.unnamed:
            self.say(
                f"{counts.unnamed:,} users who are gone can't be named: their keys were not kept when they were there"
            )

    def _amending(self, checkpoint: Checkpoint, settled: SpanSet) -> Callable[[Iterator[Any]], Iterator[Any]]:
        if not checkpoint.cleared(1, sys.maxsize, 1):
            return iter
        rows = checkpoint.get("refresh")["rows"]
        return lambda blocks: amended(blocks, checkpoint, self.mapping.frame, rows, settled)

    # After a load

    def conclude(self, checkpoint: Checkpoint) -> int:
        """Mark in the state who was acknowledged, as the checkpoint says; returns how many. May be done again.

        Not if the checkpoint is of another night than the state.
        """
        with checkpoint.refusing():
            fact, finished = checkpoint.get("refresh"), checkpoint.get("finished_at")
            is_done = finished is not None and checkpoint.get("concluded") == finished
        if fact is None or is_done or not self.rules.state.exists():
            return 0
        with told(self.rules.state), State.open(self.rules.state) or _none() as state, ExitStack() as files:
            if state is None or state.about.night != fact["night"]:
                return 0
            digester = Digester(state.about.secret)
            folder = self.rules.state.parent
            good, cleared = (
                files.enter_context(Spill(nameless(folder), 2)),
                files.enter_context(Spill(nameless(folder), 2)),
            )
            _hash_users(checkpoint, (Code.SUCCESS, Code.SUPERSEDED), digester, good, range(1, fact["rows"] + 1))
            if fact["clears"]:
                gone = range(fact["rows"] + 1, 1 << 62)
                _hash_users(checkpoint, (Code.SUCCESS, Code.USER_NOT_FOUND), digester, cleared, gone)
            count = 0
            for number in range(PARTITIONS):
                taken, removed = good.partition(number), cleared.partition(number)
                if len(taken) or len(removed):
                    is_held_no_more = fact["clears"] or self.rules.is_replaced
                    count += _mark(state, number, taken, removed, is_held_no_more=is_held_no_more)
            state.sync()
        if finished is not None:
            with checkpoint.refusing():
                checkpoint.put(concluded=finished)
        return count


def _mark(state: State, number: int, taken: Table, removed: Table, *, is_held_no_more: bool) -> int:
    """Mark the users of one partition whose rows are all among those `taken`; returns how many.

    `is_held_no_more`: what was not sent, the target has no longer.
    """
    entries = state.partition(number)
    marks = entries[:, MARKS]
    rows = np.zeros(len(entries), np.uint64)
    at, is_found = match(taken, entries[:, :2])
    np.add.at(rows, at[is_found], np.uint64(1))
    wanted = rows_of(marks)
    is_whole = (rows > 0) & (rows == wanted) & (wanted < MOST_ROWS)
    marked = np.where(is_whole, marks | ACKED | TAKEN, marks)
    if is_held_no_more:
        marked = np.where(is_whole, held_at(marked, names_of(marked)), marked)
    at, is_found = match(removed, entries[:, :2])
    marked[at[is_found]] |= CLEARED
    if (marked != marks).any():
        entries[:, MARKS] = marked
        state.mark(number, entries)
    return int(is_whole.sum())


@contextmanager
def _none() -> Iterator[None]:
    yield None


def _hash_users(checkpoint: Checkpoint, codes: Iterable[Code], digester: Digester, spill: Spill, rows: range) -> None:
    """Put the digests of the users' keys aside whose rows have one of the outcomes."""
    waiting: list[str] = []
    for first, users in checkpoint.users([code.value for code in codes]):
        waiting += (user for row, user in enumerate(users, first) if user is not None and row in rows)
        if len(waiting) >= _KEYS:
            spill.add(digester.keys(pa.array(waiting, pa.string())))
            waiting.clear()
    if waiting:
        spill.add(digester.keys(pa.array(waiting, pa.string())))
    spill.finish()


def _spans(found: Found, comparison: Comparison) -> Iterator[Span]:
    """The unchanged rows with their users, as the checkpoint keeps them, made while others are written."""
    blocks = comparison.key_blocks()
    return filter(None, in_order(lambda at: _span(blocks[at](), found.unchanged), len(blocks)))


def _span(block: KeyBlock, unchanged: "np.ndarray[Any, np.dtype[np.bool_]]") -> Span | None:
    """The rows of a block that are unchanged; None: there are none."""
    own = np.flatnonzero(unchanged[block.numbers - 1])
    if not len(own):
        return None
    rows = block.numbers[own]
    begins = np.flatnonzero(np.diff(rows, prepend=-1) > 1)  # of rows that stand side by side
    stops = np.append(begins[1:], len(own)) - 1
    edges = np.column_stack([own[begins], own[stops] + 1]).ravel()  # every other list is of rows in between
    lists = pa.ListArray.from_arrays(pa.array(edges, pa.int32()), escaped(block.users))
    runs = pc.binary_join(lists, '","').to_pylist()[::2]
    gaps = ['",' + "null," * gap + '"' for gap in (rows[begins[1:]] - rows[stops[:-1]] - 1).tolist()]
    users = "".join(chain.from_iterable(zip(runs, [*gaps, ""], strict=True)))
    return Span(int(rows[0]), int(rows[-1]), len(own), f'["{users}"]')


def _settled(unchanged: "np.ndarray[Any, np.dtype[np.bool_]]") -> SpanSet:
    edges = np.flatnonzero(np.diff(unchanged, prepend=False, append=False))
    return SpanSet(zip((edges[0::2] + 1).tolist(), edges[1::2].tolist(), strict=True), in_order=True)


def _numbered(gone: Iterable[Gone], rows: int) -> Iterator[tuple[int, str, list[str]]]:
    """What is to be cleared, by row; users who are gone are numbered on behind the export's rows."""
    for found in gone:
        if not found.names:
            continue
        if not found.row:
            rows += 1
        yield found.row or rows, found.user, found.names


def _limit(most: str | int, of: int) -> Fraction | int:
    return most if isinstance(most, int) else Fraction(most.rstrip("%")) / 100 * of


def _lost_most(found: Found) -> list[str]:
    """The attributes that users who are there have lost, the most frequent first."""
    names = Counter(name for gone in islice(found.gone(), _LOOKED_AT) if gone.row for name in gone.names)
    return [repr(name) for name, _ in names.most_common(3)]


def _first_gone(found: Found) -> list[str]:
    names: list[str] = []
    for gone in found.gone():
        if gone.row == 0:
            names.append(repr(gone.user))
        if len(names) == _SHOWN:
            break
    return names


def _remove_leftovers(state: Path) -> None:
    """Files of a comparison that was killed."""
    known = kept_keys(state)
    for path in state.parent.glob(f"{state.name.replace('[', '[[]')}.keys-*"):
        if path not in known:
            path.unlink(missing_ok=True)


def _prune(path: Path, keep: int) -> None:
    """Remove the checkpoints that were set aside, but for the newest."""
    found = [each for each in path.parent.iterdir() if each.name.startswith(path.name)]
    aside = sorted(each.name for each in found if _ASIDE.fullmatch(each.name[len(path.name) :]))
    for name in aside[: max(len(aside) - keep, 0)]:
        remove(path.with_name(name))


def _holds_something(path: Path) -> bool:
    """Is any row settled in the checkpoint, or was any user sent?"""
    if not path.exists():
        return False
    with Checkpoint.open(path, create=False) as checkpoint, checkpoint.refusing():
        return bool(checkpoint.counts()) or checkpoint.get("finished_at") is not None


def set_state_aside(path: Path | None, identity: dict[str, Any]) -> Path | None:
    """Move the state of this target out of the way of a load that doesn't keep it. None: there is none."""
    for each in () if path is None else (path, aside_of(path, identity)):
        with suppress(CheckpointError), State.open(each) or _none() as state:  # else it is another's file
            if state is not None and state.about.is_of(identity):
                aside = each.with_name(f"{each.name}.old")
                each.rename(aside)
                if state.key_path is not None:
                    state.key_path.unlink(missing_ok=True)
                sync_folder(each.absolute().parent)
                return aside
    return None


__all__ = ["Compared", "Counts", "Missing", "Options", "Refresh", "Rules", "set_state_aside"]
