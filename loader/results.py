"""What the checkpoint tells a person: a line per settled row, and one screen of how the load stands."""

import csv
import json
import time
from collections.abc import Collection, Iterator
from typing import Any, TextIO

from msgspec import to_builtins

from loader.checkpoint import Checkpoint, runner
from loader.commands import go_on
from loader.outcome import GOOD, Code
from loader.snapshot import FINDING, Found, Snapshot, duration
from loader.words import counted

COLUMNS = ("row", "user", "code", "message", "target_code", "http_status", "attempts")


#: What a spreadsheet takes for the beginning of a formula, or passes over before one (OWASP: CSV injection).
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n", "\0")


#: A run notes how it stands every five seconds at least; what is older than this is of a run before.
_FRESH_S = 15.0


def write_results(
    checkpoint: Checkpoint, out: TextIO, form: str, codes: Collection[str] = (), *, formula_safe: bool = False
) -> int:
    """Write the settled rows in order of row, as `csv` or `ndjson`; with `codes`, those alone. Returns how many.

    `formula_safe`: in CSV, what could be a formula begins with an apostrophe, so that a spreadsheet shows it as it is.
    """
    rows = checkpoint.results(codes)
    count = 0
    if form == "csv":
        plain = csv.writer(out, lineterminator="\n")
        quoting = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        plain.writerow(COLUMNS)
        for count, row in enumerate(rows, 1):  # noqa: B007  # the count is the result
            # A lone CR ends a line for those who read this, and Python before 3.13 does not quote it by itself.
            has_return = "\r" in row.user or "\r" in row.message or "\r" in row.target_code
            (quoting if has_return or formula_safe else plain).writerow(map(_harmless, row) if formula_safe else row)
    else:
        for count, row in enumerate(rows, 1):  # noqa: B007
            out.write(
                json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False, separators=(",", ":")) + "\n"
            )
    return count


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def status(checkpoint: Checkpoint) -> dict[str, Any]:
    """How the load stands: rows by code, their sum, how fast, and when it will be done (None: nobody knows).

    `users_per_s`: those sent, of late while a run is on, else over the last one. Rows that a retry has not sent again
    yet have the outcome they had.
    """
    counts = {code.value: count for code, count in sorted(checkpoint.outcomes().items(), key=lambda item: -item[1])}
    finished, process, now = checkpoint.get("finished_at"), runner(checkpoint.path), checkpoint.now()
    rows, good, retrying = sum(counts.values()), checkpoint.good, checkpoint.retrying()
    rate, left, trouble = 0.0, None, None
    if process is not None and now is not None and is_fresh(now):
        rate, left, trouble = now.sent_per_s, now.left_s, now.trouble
    elif now is not None and process is None:
        rate = now.sent / max(now.elapsed_s, 1.0)
    waiting = rows - sum(checkpoint.counts().values())
    return {
        "checkpoint": str(checkpoint.path),
        "export": checkpoint.get("path"),
        "state": "finished" if finished else "unfinished" if process is None else "running",
        "process": process,
        "rows": rows,
        "outcomes": counts,
        "failures": sum(count for code, count in counts.items() if code not in good),
        "accepted": sorted(good - GOOD),
        "users_per_s": round(rate, 1),
        "left_s": None if left is None else round(left, 1),
        "trouble": trouble and {**to_builtins(trouble), "words": trouble.words()},
        "started_at": checkpoint.get("started_at"),
        "retried_at": checkpoint.get("retried_at"),
        "retry": retrying and {"rows": retrying.rows, "sent_again": retrying.rows - waiting},
        "finished_at": finished,
        "ended": None if finished or process is not None or now is None else ending(now),
        "settings": checkpoint.get("settings_path"),
        "refresh": told_of(checkpoint),
        "go_on": None if finished or process is not None else go_on(checkpoint),
        "found": checkpoint.get("found"),
    }


def told_of(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What the comparison of a refresh found, in figures; None: it was none."""
    compared = checkpoint.get("refresh")
    return compared and {name: value for name, value in compared.items() if name not in ("night", "clears", "alarm")}


def is_fresh(now: Snapshot) -> bool:
    """Is it of a run that goes on? One that was killed leaves its last, until the next run has noted something."""
    return not now.is_last and time.time() - now.at < _FRESH_S


def ending(now: Snapshot) -> str:
    """How the run ended whose last snapshot that is."""
    if now.is_last:
        return f"the last run ended {_time(now.at)}" + (f": {now.stopping}" if now.stopping else "")
    return f"the last run was killed, or broke down, after {_time(now.at)}"


def status_lines(state: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    yield f"{state['export'] or 'no export yet'} → {state['checkpoint']}"
    yield from outcome_lines({Code(code): count for code, count in state["outcomes"].items()})
    if compared := state["refresh"]:
        yield f"compared {compared['rows']:,} rows: {compared['unchanged_rows']:,} unchanged, which are not sent"
    pace = f", {state['users_per_s']:,.0f} users sent/s" if state["users_per_s"] else ""
    if state["finished_at"]:
        yield f"finished {_time(state['finished_at'])}{pace}"
    elif state["started_at"] is None:
        yield "not begun"
    else:
        left = f", {duration(state['left_s'])} left" if state["left_s"] is not None else ""
        if not left and (state["found"] or {}).get("is_guess"):
            left = f", {FINDING}"
        begun = f"begun {_time(state['started_at'])}"
        if retry := state["retry"]:
            begun = f"retry begun {_time(state['retried_at'])}"
            yield retry_line(retry["sent_again"], retry["rows"])
        if state["state"] == "running":
            yield f"running (process {state['process']}); {begun}{pace}{left}"
            if state["trouble"]:
                yield f"waiting: {state['trouble']['words']}"
        else:
            yield f"not finished; {begun}{pace}. Go on with: {state['go_on']}"
            if state["ended"]:
                yield state["ended"]
    if words := ", ".join(Found(**state["found"] or {}).words()):
        yield f"found: {words}"


def retry_line(sent_again: int, rows: int) -> str:
    """How far a retry is, that is not finished."""
    return f"{sent_again:,} of {counted(rows, 'row')} sent again; what the others had stands until they are"


def outcome_lines(counts: dict[Code, int]) -> Iterator[str]:
    """A table of outcomes and their sum."""
    total = sum(counts.values())
    width = max([*map(len, counts), len("rows")])
    numbers = max(len(f"{total:,}"), 1)
    for code, count in sorted(counts.items(), key=lambda item: -item[1]):
        if count:
            yield f"  {code:<{width}}  {count:>{numbers},}"
    yield f"  {'rows':<{width}}  {total:>{numbers},}"


def _time(unix: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix))
