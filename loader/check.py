"""What a load would do, found without sending a user: the export is read, mapped and batched as in a run.

Only the outcome of a run is not known here, and what in it depends on the target's speed: while a user is in flight,
that user's later rows are held back and merged, so a run may make a few requests less.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from anyio import to_thread

from loader.batch import Batch, Batcher
from loader.client import Credentials, Tempo, bearer
from loader.errors import LoaderError, SettingsError, Stopped, TransportError
from loader.keys import MOST_KEYS, Hashes, Keys
from loader.lane import Lane
from loader.outcome import Code, Settled
from loader.probe import Probed, probe, undeclared_words
from loader.reasons import kind
from loader.record import Frame, Rows
from loader.request import Request, Response
from loader.settings import Settings
from loader.snapshot import duration
from loader.target import Fault, Target
from loader.tempo.quota import Quota
from loader.transport import Transport
from loader.whole import Comparison, Whole, compare, fault_lines, faults, gather
from loader.words import counted

#: What an answer may take, where nobody knows: an estimate says so.
ASSUMED_LATENCY_S = 0.2
#: A target that is busy is not waited for as long as in a run.
_GIVE_UP_S = 10.0

#: Nobody was asked, as that was wanted.
OFFLINE = Probed("not tried, as --offline says")

_MOST_REASONS = 20
_MOST_EXAMPLES = 5
_MOST_NAMES = 1_000
#: Users of the first request that a person is shown; JSON has them all.
_SHOWN_USERS = 3


@dataclass
class Findings:
    """What reading a whole export showed.

    `reasons`: why rows are rejected, each with how many and the first of them. `again`: rows of users that came before.
    `look_alikes`: users whose key is another's but for case or space around it, and the first few such rows.
    `is_counted` False: there were more users than are remembered, so both are at least so many. `attributes`: how many
    records send each. `broke_off`: why the export could not be read to its end. Of an export that goes whole: `faults`,
    for which a run would refuse it, `figures` of one without, and how it `compares` with the one accepted last.
    """

    rows: int = 0
    records: int = 0
    codes: Counter[Code] = field(default_factory=Counter)
    reasons: dict[str, tuple[int, Settled]] = field(default_factory=dict)
    again: int = 0
    look_alikes: int = 0
    look_alike_rows: list[tuple[int, str]] = field(default_factory=list)
    is_counted: bool = True
    requests: int = 0
    body_bytes: int = 0
    largest_body: int = 0
    attributes: Counter[str] = field(default_factory=Counter)
    first: Batch | None = None
    broke_off: str = ""
    faults: list[Fault] = field(default_factory=list)
    figures: Mapping[str, int] = field(default_factory=dict)
    compares: Comparison | None = None


def inspect(settings: Settings, progress: Callable[[int, float], None]) -> Findings:
    """Read the whole export. `progress` is told the rows and the share of bytes read by now.

    Raises ExportError if the export can't be read at all, or doesn't fit the mapping.
    """
    target = settings.build_target()
    size = settings.source.fingerprint().size
    found = Findings()
    if (store := settings.store) is not None:
        _inspect_whole(found, gather(store, settings.source, settings.row_mapping()))
        return found
    users = _Users(found)
    batcher = Batcher(target.frame, settings.batch_limits, replace=target.write == "replace")
    try:
        for rows in settings.source.rows(settings.row_mapping()):
            found.rows += len(rows.numbers) + len(rows.settled)
            found.records += len(rows.numbers)
            _count_problems(found, rows.settled)
            users.add(rows)
            _count_attributes(found, target.frame, rows.records)
            batcher.feed(rows)
            _count_requests(found, target, _batches(batcher, final=False))
            progress(found.rows, rows.position / size if size else 1.0)
    except Stopped as error:
        found.broke_off = str(error)
    _count_requests(found, target, _batches(batcher, final=True))
    return found


def _inspect_whole(found: Findings, whole: Whole) -> None:
    """Judge an export as a run would."""
    target, rows = whole.store.target, whole.rows
    found.rows = len(rows.numbers) + len(rows.settled)
    found.records = len(rows.numbers)
    found.codes.update(item.outcome.code for item in rows.settled)
    found.faults = faults(whole)
    if not found.faults:
        found.figures = target.figures(whole.batch)
        found.compares = compare(whole.store, rows.records)
        _count_requests(found, target, [whole.batch])


def _batches(batcher: Batcher, *, final: bool) -> Iterator[Batch]:
    """As a run makes them, each settled at once."""
    while (batch := batcher.next(final=final)) is not None:
        batcher.release(batch)
        yield batch


def _count_requests(found: Findings, target: Target, batches: Iterable[Batch]) -> None:
    for batch in batches:
        found.first = found.first or batch
        for request in target.preview(batch):
            found.requests += 1
            found.body_bytes += len(request.body)
            found.largest_body = max(found.largest_body, len(request.body))


def _count_problems(found: Findings, settled: Iterable[Settled]) -> None:
    for item in settled:
        found.codes[item.outcome.code] += 1
        if item.outcome.code is Code.REJECTED:
            reason = kind(item.outcome.message)
            if reason not in found.reasons and len(found.reasons) >= _MOST_REASONS:
                reason = "another reason"
            count, first = found.reasons.get(reason, (0, item))
            found.reasons[reason] = (count + 1, first)


def _count_attributes(found: Findings, frame: Frame, records: Iterable[bytes]) -> None:
    for record in records:
        found.attributes.update(frame.attributes_of(record).keys())
    if len(found.attributes) > _MOST_NAMES:  # keys that are data: the most common say enough
        found.attributes = Counter(dict(found.attributes.most_common(_MOST_NAMES)))


class _Users:
    """Counts who comes again, and whose key looks like another's."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        self._keys = Keys()
        self._folded = Keys()

    def add(self, rows: Rows) -> None:
        found = self._found
        known = self._keys.seen(_hashes(rows.users))
        look_known = self._folded.seen(_hashes(user.strip().casefold() for user in rows.users))
        found.again += int(known.sum())
        for at in np.flatnonzero(look_known & ~known).tolist():
            found.look_alikes += 1
            if len(found.look_alike_rows) < _MOST_EXAMPLES:
                found.look_alike_rows.append((rows.numbers[at], rows.users[at]))
        found.is_counted = not self._keys.is_full


def _hashes(keys: Iterable[str]) -> Hashes:
    return np.fromiter(map(hash, keys), np.int64)


# Credentials ---------------------------------------------------------------------------------------------------------


async def try_credentials(settings: Settings, names: Collection[str]) -> Probed:
    """Fetch a token if the scheme has a call for that, and make the target's harmless call if it has one.

    `names`: the attributes that would be sent. Raises SettingsError if there are no credentials, and Stopped if they
    are refused, or nobody answers.
    """
    await to_thread.run_sync(settings.secrets)
    target = settings.build_target()
    lane = Lane(min(settings.limits.give_up_s, _GIVE_UP_S))
    way = await to_thread.run_sync(settings.way)
    async with Transport(settings.base_url, 1, settings.limits.timeout_s, network=way) as wire:

        async def send(request: Request) -> Response:
            try:
                return await wire(request)
            except TransportError as error:  # who watches a check wants to know now, not after the backoffs of a run
                raise Stopped(str(error)) from error

        credentials = Credentials(target.scheme, settings.secrets, send, lane, Tempo())
        if target.scheme.call is None:
            return await probe(target, bearer(send, credentials, target.refuses_token), names)
        token = await credentials.token()
        lives = f" that lives for {duration(token.lifetime_s)}" if token.lifetime_s else ""
        given = f"taken; {settings.base_url} gave a token{lives}"
        if target.probe() is None:
            return Probed(given)
        found = await probe(target, bearer(send, credentials, target.refuses_token), names)
        return Probed(f"{given}; {found.words}", found.undeclared)


# For people and programs ---------------------------------------------------------------------------------------------


def report(
    settings: Settings, found: Findings, probed: Probed | None, refused: LoaderError | None = None
) -> dict[str, Any]:
    """All of it, for `--format json`. `refused`: why the credentials are not taken, or could not be tried."""
    limits = settings.limits
    slowest = max(settings.quotas, key=lambda quota: _seconds(found, quota), default=None)
    return {
        "export": str(settings.source),
        "broke_off": found.broke_off or None,
        "rows": found.rows,
        "to_send": found.records,
        "rejected": found.codes[Code.REJECTED],
        "skipped": found.codes[Code.SKIPPED],
        "reasons": [
            {"count": count, "first_row": first.row, "first": first.outcome.message}
            for count, first in sorted(found.reasons.values(), key=lambda reason: -reason[0])
        ],
        "faults": [fault._asdict() for fault in found.faults],
        "figures": dict(found.figures),
        "compared": found.compares.words if found.compares else None,
        "shrinks": (found.compares and found.compares.refusal) or None,
        "rows_of_users_again": found.again,
        "keys_that_look_alike": found.look_alikes,
        "look_alike_rows": [{"row": row, "user": user} for row, user in found.look_alike_rows],
        "repeats_are_at_least": not found.is_counted,
        "attributes": dict(found.attributes.most_common()),
        "api": settings.api.api,
        "note": settings.api.note,
        "target": f"{settings.api.api} at {_address(settings)}",
        "requests": found.requests,
        "bytes": found.body_bytes,
        "largest_body": found.largest_body,
        "quota": str(slowest) if slowest else None,
        "seconds_by_quota": round(_seconds(found, slowest), 1) if slowest else None,
        "concurrency": limits.concurrency,
        "assumed_latency_s": ASSUMED_LATENCY_S,
        "seconds_by_latency": round(found.requests * ASSUMED_LATENCY_S / limits.concurrency, 1),
        "undeclared": probed.undeclared if probed else None,
        "credentials": probed.words if probed else str(refused),
        "credentials_missing": isinstance(refused, SettingsError),
        "credentials_failed": refused is not None,
    }


def _address(settings: Settings) -> str:
    """Where the target is, as far as that is known: some APIs' addresses depend on the credentials."""
    try:
        return settings.base_url
    except SettingsError:
        return f"{settings.address} (or in its region, which the credentials tell)"


def _seconds(found: Findings, quota: Quota) -> float:
    """How long it takes at least, if there is no more than this quota."""
    return (found.records if quota.unit == "users" else found.requests) * quota.window_s / quota.amount


def exit_status(found: Findings, probed: Probed | None, refused: LoaderError | None) -> int:
    """2 a run would be refused, also for want of credentials; 3 they are refused; 1 rows would be; 0 all is well."""
    if found.broke_off or found.faults or (found.compares and found.compares.refusal):
        return 2
    if refused is not None:
        return refused.exit_status
    if probed is not None and probed.undeclared:
        return 2
    return 1 if found.codes[Code.REJECTED] else 0


def first_request(settings: Settings, found: Findings, most_users: int | None = None) -> dict[str, Any] | None:
    """The first request that carries users, at most so many, without what is secret. None: there is none."""
    if found.first is None:
        return None
    target = settings.build_target()
    batch = found.first.part(0, most_users or len(found.first))
    request = max(target.preview(batch), key=lambda request: request.users > 0)  # the first of these
    scheme = target.scheme
    stand_ins = dict.fromkeys(scheme.needs, "***")  # what isn't read can't be shown
    added = {"Authorization": "Bearer …"} if scheme.headers is None else scheme.headers(stand_ins)
    masked = {name: _masked(name, text) for name, text in added.items()}
    return {
        "method": request.method,
        "url": _address(settings).partition(" ")[0] + request.path,
        "headers": {**request.headers, **masked},
        "body": request.body.decode(),
    }


def _masked(name: str, text: str) -> str:
    """A header with a secret: of Authorization the scheme is none. A key of one's own may be of several words."""
    scheme, blank, _ = text.partition(" ")
    return f"{scheme} ***" if blank and name == "Authorization" else "***"


def request_lines(settings: Settings, found: Findings) -> Iterator[str]:
    """The first request for people: its first few users."""
    shown = first_request(settings, found, _SHOWN_USERS)
    if shown is None or found.first is None:
        yield "No request: there is nothing to send"
        return
    yield f"{shown['method']} {shown['url']}"
    yield from (f"{name}: {value}" for name, value in shown["headers"].items())
    yield ""
    yield msgspec.json.format(shown["body"], indent=2)
    if (more := len(found.first) - _SHOWN_USERS) > 0:
        things = settings.store.target.things if settings.store else "users"
        yield f"… and {more:,} more {things} in this request (--format json shows it whole)"
    yield ""


def report_lines(state: dict[str, Any]) -> Iterator[str]:
    """The report for people."""
    yield f"{state['export']} → {state['target']}"
    if state["broke_off"]:
        yield f"THE EXPORT BREAKS OFF: {state['broke_off']}. Up to there:"
    width = len(f"{state['rows']:,}")
    shown = {"to send": state["to_send"], "REJECTED": state["rejected"], "SKIPPED": state["skipped"]}
    yield from (f"  {name:<8}  {count:>{width},}" for name, count in shown.items() if count or name == "to send")
    yield f"  {'rows':<8}  {state['rows']:>{width},}"
    if state["reasons"]:
        yield "rejected:"
    for reason in state["reasons"]:
        like = "  " if reason["count"] == 1 else f"  {reason['count']:,} rows like "
        yield f"{like}row {reason['first_row']:,}: {reason['first']}"
    yield from _whole_lines(state)
    yield from _repeat_lines(state)
    if state["attributes"]:
        yield f"attributes{f' ({note})' if (note := state['note']) else ''}, and how many rows send them:"
    names = max(map(len, state["attributes"]), default=0)
    yield from (f"  {name:<{names}}  {count:>{width},}" for name, count in state["attributes"].items())
    sizes = f"{_size(state['bytes'])} in all, the largest {_size(state['largest_body'])}"
    yield f"requests: {state['requests']:,}" + (f"; {sizes}" if state["requests"] else "")
    yield f"time: {_time(state)}"
    if state["undeclared"]:
        yield f"NOT DECLARED: {undeclared_words(state['api'], state['undeclared'])}"
    outcome = "NOT TRIED: " if state["credentials_missing"] else "FAILED: " if state["credentials_failed"] else ""
    yield f"credentials: {outcome}{state['credentials']}"


def _whole_lines(state: dict[str, Any]) -> Iterator[str]:
    """What there is to say of an export that goes whole."""
    if state["faults"]:
        yield "A RUN WOULD REFUSE THIS EXPORT:"
        yield from fault_lines(Fault(**fault) for fault in state["faults"])
    if state["figures"]:
        yield ", ".join(f"{name}: {count:,}" for name, count in state["figures"].items())
    if state["compared"]:
        yield state["compared"]
    if state["shrinks"]:
        yield f"A RUN WOULD REFUSE THIS EXPORT: {state['shrinks']}"


def _repeat_lines(state: dict[str, Any]) -> Iterator[str]:
    again, alike = state["rows_of_users_again"], state["keys_that_look_alike"]
    at_least = "at least " if state["repeats_are_at_least"] else ""
    if again:
        rows = counted(again, "row")
        yield f"repeated: {at_least}{rows} of users that came before; the last value of each attribute wins"
    if alike:
        yield f"look alike: {at_least}{alike:,} keys are another's but for case or space, and are sent as they are:"
        yield from (f"  row {item['row']:,}: {item['user']!r}" for item in state["look_alike_rows"])
        if (more := alike - len(state["look_alike_rows"])) > 0:
            yield f"  and {more:,} more"
    if at_least:
        yield f"  (of the users, {MOST_KEYS:,} are remembered for this)"


def _time(state: dict[str, Any]) -> str:
    quota, concurrency = state["quota"], state["concurrency"]
    by_latency = (
        f"{duration(state['seconds_by_latency'])} if an answer takes {state['assumed_latency_s']:g} s "
        f"({concurrency} requests at once)"
    )
    if not quota:
        return f"{by_latency};\n  there is no rate limit, so the target's speed decides, and only a run shows that"
    if state["seconds_by_latency"] > state["seconds_by_quota"]:
        return f"{by_latency};\n  the quota of {quota} alone would allow {duration(state['seconds_by_quota'])}"
    most = concurrency * state["seconds_by_quota"] / max(state["requests"], 1)
    enough = f"if an answer takes under {most:.2g} s ({concurrency} requests at once)"
    return f"{duration(state['seconds_by_quota'])} at {quota}, {enough}"


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000  # type: ignore[assignment]
    return f"{count:,} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
