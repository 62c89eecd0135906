"""`loader plan`: what tonight's refresh would send, and whether that is still so when it runs."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson

from loader.batch import Batch
from loader.errors import LoaderError, Refused
from loader.refresh.night import Compared, Refresh
from loader.settings import Settings
from loader.snapshot import duration
from loader.span import SpanSet

#: What an answer is taken to need, as in `loader check`: nobody knows before.
ASSUMED_LATENCY_S = 0.2

_GONE_SHOWN = 10


class Sample(msgspec.Struct, frozen=True):
    """A user who would be sent, and the values. Of those before only digests are kept, so that they can't be told."""

    kind: Literal["new", "changed", "again"]
    row: int
    user: str
    attributes: msgspec.Raw


class Lost(msgspec.Struct, frozen=True):
    """Attributes that are gone; `row` 0: with the user."""

    row: int
    user: str
    attributes: list[str]


class Plan(msgspec.Struct, frozen=True):
    """What would be sent, and of what that was told: `export`, `state` and `settings`. `full`: why all are sent."""

    version: int
    export: dict[str, Any]
    state: dict[str, Any] | None
    settings: dict[str, Any]
    full: str
    counts: dict[str, int]
    to_send: int
    requests: int
    seconds_by_quota: float | None
    seconds_by_latency: float
    samples: list[Sample]
    gone: list[Lost]
    refusal: str | None = None
    unguarded: str = ""

    @property
    def is_empty(self) -> bool:
        """Is there nothing that a run would send?"""
        return not (self.to_send or self.counts["removed"])


def plan(settings: Settings, refresh: Refresh, compared: Compared) -> Plan:
    """The plan of a comparison."""
    counts = compared.found.counts
    samples = list(_samples(refresh, compared))
    cleared = (
        sum(gone.row == 0 and bool(gone.names) for gone in compared.found.gone())
        if refresh.rules.missing == "clear"
        else 0
    )
    users = counts.to_send + cleared
    requests = _requests(settings, users, samples)
    seconds = [
        (users if quota.unit == "users" else requests) * quota.window_s / quota.amount for quota in settings.quotas
    ]
    try:
        refresh.refuse(compared)
        refusal = None
    except Refused as error:
        refusal = str(error)
    return Plan(
        version=1,
        **_basis(refresh, compared),
        full=compared.full,
        counts=vars(counts),
        to_send=users,
        requests=requests,
        seconds_by_quota=round(max(seconds), 1) if seconds else None,
        seconds_by_latency=round(requests * ASSUMED_LATENCY_S / settings.limits.concurrency, 1),
        samples=samples,
        gone=[Lost(*each) for each in islice(compared.found.gone(), _GONE_SHOWN)],
        refusal=refusal,
        unguarded=compared.unguarded,
    )


def refuse_drift(path: Path, refresh: Refresh, compared: Compared) -> None:
    """Raise Refused if the plan at `path` was made of another export or state, or with other settings."""
    planned = read(path)
    now = _basis(refresh, compared)
    found = []
    for name, what in now.items():
        before = getattr(planned, name)
        if before != what:
            keys = sorted(
                key for key in (before or {}).keys() | (what or {}).keys() if _of(before, key) != _of(what, key)
            )
            found.append(f"  {name}: {', '.join(keys)}")
    if planned.full != compared.full:
        found.append(f"  all users are sent: {compared.full or 'no more'}")
    if found:
        lines = "\n".join(found)
        raise Refused(f"{path} was made of something else, and nothing was sent:\n{lines}\nMake it anew: loader plan")


def _of(facts: dict[str, Any] | None, key: str) -> Any:
    return (facts or {}).get(key)


def read(path: Path) -> Plan:
    """The plan in a file. Raises Refused."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except OSError as error:
        raise Refused(f"--plan {path}: can't read it: {error.strerror}") from error
    except ValueError as error:
        raise Refused(f"--plan {path} is no plan of loader plan -o: {error}") from error


def _basis(refresh: Refresh, compared: Compared) -> dict[str, Any]:
    """What a plan depends on."""
    rules = refresh.rules
    state = None
    if compared.before is not None:
        known = rules.state.stat()
        state = {"night": compared.before.about.night, "size": known.st_size, "changed_ns": known.st_mtime_ns}
    ours = {f"refresh.{name}": value for name, value in rules._asdict().items() if name not in ("state", "keep")}
    settings = orjson.loads(orjson.dumps({**refresh.identity, **ours}))
    return {"export": refresh.export.fingerprint()._asdict(), "state": state, "settings": settings}


def _samples(refresh: Refresh, compared: Compared) -> Iterator[Sample]:
    kinds = {row: kind for kind, rows in compared.found.samples.items() for row in rows}
    wanted = sorted(kinds)
    edges = zip([0, *wanted], [*wanted, compared.found.counts.rows + 1], strict=True)
    others = SpanSet((before + 1, behind - 1) for before, behind in edges if behind - before > 1)
    for block in refresh.export.rows(refresh.mapping, None, others) if wanted else ():
        for row, user, record in zip(block.numbers, block.users, block.records, strict=True):
            values = {name: msgspec.Raw(raw) for name, raw in refresh.mapping.frame.attributes_of(record).items()}
            yield Sample(kinds[row], row, user, msgspec.Raw(msgspec.json.encode(values)))  # type: ignore[arg-type]
        if block.end is not None and block.end.row > wanted[-1]:
            break


def _requests(settings: Settings, users: int, samples: list[Sample]) -> int:
    """Requests for so many users, searches among them, as `loader check` counts them; told by the samples."""
    most = settings.batch_limits.users
    whole, rest = divmod(users, most)
    if not samples:
        return whole + bool(rest)
    target = settings.build_target()
    records = [target.frame.record(each.user, bytes(each.attributes)) for each in samples]

    def of(count: int) -> int:
        chosen = range(count)
        batch = Batch(
            [*range(1, count + 1)],
            [samples[at % len(samples)].user for at in chosen],
            [records[at % len(samples)] for at in chosen],
        )
        return max(len(target.preview(batch)), 1)

    try:
        return (whole * of(most) if whole else 0) + (of(rest) if rest else 0)
    except LoaderError:
        return whole + bool(rest)


def lines(made: Plan) -> Iterator[str]:
    """A plan for people."""
    counts = made.counts
    if made.full:
        yield f"all users would be sent: {made.full}"
    if made.unguarded:
        yield made.unguarded
    missing = made.settings["refresh.missing"]
    fate = "would be CLEARED" if missing == "clear" else "stay at the target as they are"
    again = "as all are" if made.full else "as what was sent last failed, or its answer was lost"
    yield f"{counts['rows']:,} rows of {counts['users']:,} users:"
    for kind, words in (
        ("unchanged", "are as the target acknowledged them, and would not be sent"),
        ("new", "are new"),
        ("changed", "have other values"),
        ("again", f"are known, and would be sent again, {again}"),
        ("missing", f"are gone since the last export, and {fate}"),
        ("uncleared", "are gone earlier, and would be CLEARED"),
        ("removed", "lack an attribute that they had" + (", which would be CLEARED" if missing == "clear" else "")),
    ):
        if counts.get(kind):
            yield f"  {counts[kind]:>12,}  {words}"
    time = f"{duration(made.seconds_by_latency)} if an answer takes {ASSUMED_LATENCY_S:g} s"
    if made.seconds_by_quota is not None and made.seconds_by_quota >= made.seconds_by_latency:
        time = f"{duration(made.seconds_by_quota)} at the quota"
    users, requests = (
        f"{n:,} {what}{'s' * (n != 1)}" for n, what in ((made.to_send, "user"), (made.requests, "request"))
    )
    yield f"to send: {users} in {requests}; {time}"
    for sample in made.samples:
        yield f"  {sample.kind}: row {sample.row:,}: {sample.user} {bytes(sample.attributes).decode()}"
    word, lack = ("clear", "clear") if missing == "clear" else ("gone", "lost")
    for lost in made.gone:
        if lost.row:
            yield f"  {lack} {', '.join(lost.attributes)}: {lost.user}, row {lost.row:,}"
        else:
            yield f"  {word}: {lost.user}"
    if made.refusal:
        yield f"A RUN WOULD REFUSE THIS EXPORT: {made.refusal}"
