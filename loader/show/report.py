"""A load as a report: one page that needs nothing but itself, Markdown, or JSON. Made from the checkpoint alone."""

import json
import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from loader import __version__, commands
from loader.advice import ADVICE, ELSEWHERE
from loader.checkpoint import Checkpoint, Moment, ResultRow
from loader.outcome import GOOD, WORTH_RETRYING, Code
from loader.reasons import kind
from loader.results import status
from loader.snapshot import BRAKES, Found
from loader.words import counted

#: So many rows are shown of each reason, and so many reasons of each outcome that is not good.
_EXAMPLES = 5
_MOST_REASONS = 20

#: The course is drawn from so many moments: more than a screen has points.
_MOMENTS = 1_500

#: A run's beginning is known as exactly as this: clocks are set, machines sleep.
_SAME_S = 0.5

#: A key that is longer is shown by its beginning.
_SHOWN = 200


def gather(checkpoint: Checkpoint) -> dict[str, Any]:
    """All that a report says, as plain values."""
    state = status(checkpoint)
    course = checkpoint.course()
    runs = _runs(course)
    settings, stopping = checkpoint.get("settings"), getattr(checkpoint.now(), "stopping", "")
    gone_s = sum(run[-1].elapsed_s for run in runs)
    unchanged = state["outcomes"].get(Code.UNCHANGED, 0)  # settled before anything was sent
    return {
        "made_at": time.time(),
        "version": __version__,
        **{key: state[key] for key in ("checkpoint", "export", "state", "rows", "failures", "started_at")},
        **{key: state[key] for key in ("retried_at", "finished_at", "left_s")},
        "ended_at": course[-1].at if course else state["finished_at"],
        "target": (settings or {}).get("target"),
        "runs": len(runs),
        "seconds": gone_s,
        "rows_per_s": max(course[-1].rows - unchanged, 0) / gone_s if course and gone_s else 0.0,
        "stopping": stopping,
        "outcomes": [
            {
                "code": code,
                "rows": rows,
                "share": rows / state["rows"],
                "is_good": Code(code) in GOOD,
                "meaning": ADVICE[Code(code)].meaning,
                **_advice(checkpoint, Code(code)),
                **_what_failed(checkpoint, Code(code)),
            }
            for code, rows in state["outcomes"].items()
        ],
        "go_on": _go_on(checkpoint, state, stopping),
        "found": list(Found(**state["found"] or {}).words()),
        "brakes": _brakes(runs),
        "requests": sum(run[-1].requests for run in runs),
        "refused": sum(run[-1].refused for run in runs),
        "broken": sum(run[-1].broken for run in runs),
        "course": columns(runs),
        "settings": settings,
    }


def _runs(course: Sequence[Moment]) -> list[list[Moment]]:
    """The moments of each run: those that began at the same time."""
    runs: list[list[Moment]] = []
    for moment in course:
        if not runs or moment.at - moment.elapsed_s > runs[-1][-1].at - runs[-1][-1].elapsed_s + _SAME_S:
            runs.append([])
        runs[-1].append(moment)
    return runs


def _what_failed(checkpoint: Checkpoint, code: Code) -> dict[str, Any]:
    """Reasons and examples, of an outcome that is not good."""
    if code in GOOD:
        return {"reasons": [], "messages": [], "other_rows": 0}
    reasons = [reason for reason in checkpoint.reasons(code) if reason.target_code or reason.http_status]
    return {"reasons": [reason._asdict() for reason in reasons], **_alike(checkpoint.results([code]))}


def _alike(rows: Iterable[ResultRow]) -> dict[str, Any]:
    """The first rows of each reason, the most frequent reason first, and how many rows have one.

    `other_rows`: those with reasons that are too many to be shown.
    """
    other = 0
    counts: Counter[str] = Counter()
    first: dict[str, list[ResultRow]] = defaultdict(list)
    for row in rows:
        reason = kind(row.message, row.user)
        if reason not in counts and len(counts) >= _MOST_REASONS:
            other += 1
            continue
        counts[reason] += 1
        if len(first[reason]) < _EXAMPLES:
            first[reason].append(row)
    messages = [
        {"rows": count, "examples": [_example(row) for row in first[reason]]} for reason, count in counts.most_common()
    ]
    return {"messages": messages, "other_rows": other}


def _example(row: ResultRow) -> dict[str, Any]:
    return row._asdict() | {"user": row.user[:_SHOWN], "message": row.message[: 2 * _SHOWN]}


def _advice(checkpoint: Checkpoint, code: Code) -> dict[str, str]:
    """What to do about the rows with this outcome, and by which commands, a line each."""
    advice = ADVICE[code]
    if advice.way == "correct" and not commands.can_be_corrected(checkpoint):
        return {"todo": ELSEWHERE, "command": _results(checkpoint, "--code", code)}
    if advice.way == "correct":
        steps = [
            commands.taking_out(checkpoint, code),
            commands.loading(checkpoint, commands.corrected(checkpoint, code)),
        ]
        return {"todo": advice.todo, "command": "\n".join(steps)}
    return {"todo": advice.todo, "command": commands.retry(checkpoint) if advice.way else ""}


def _go_on(checkpoint: Checkpoint, state: Mapping[str, Any], stopping: str) -> list[dict[str, str]]:
    """What is to be done about the load as a whole, step by step."""
    if state["state"] == "running":
        follow = shlex.join(["loader", "status", str(checkpoint.path), "--watch"])
        steps = [("A run is on its way. Follow it with:", follow)]
    elif state["state"] == "unfinished":
        first = "If the reason above calls for something, do that first. " if stopping else ""
        steps = [(f"It is not finished; what is settled is kept. {first}Go on with:", commands.go_on(checkpoint))]
    elif not state["failures"]:
        kept = _results(checkpoint, "-o", "results.csv")
        steps = [("All is well, and nothing is left to do. A line for every row, to keep:", kept)]
    else:
        steps = list(_mending(checkpoint, state["outcomes"]))
    return [{"words": words, "command": command} for words, command in steps]


def _mending(checkpoint: Checkpoint, outcomes: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """What is to be done about rows that failed, and by which commands."""
    if again := sum(outcomes.get(code, 0) for code in WORTH_RETRYING - checkpoint.good):
        words = f"When the causes below are mended, send {counted(again, 'row')} again:"
        yield words, commands.retry(checkpoint)
    if wrong := [code for code in commands.CORRECTED if outcomes.get(code)]:
        if commands.can_be_corrected(checkpoint):
            words = "Then, as a retry sends the old values: take the rows to correct out as they stand in the export, …"
            yield words, commands.taking_out(checkpoint, *wrong)
            load = commands.loading(checkpoint, commands.corrected(checkpoint, *wrong))
            yield "… correct them in that file, and load it:", load
        else:
            yield f"What has to be corrected. {ELSEWHERE}", _results(checkpoint, *(f"--code={code}" for code in wrong))
    yield "A line for every row, to look further:", _results(checkpoint, "-o", "results.csv")


def _results(checkpoint: Checkpoint, *flags: str) -> str:
    return shlex.join(["loader", "results", str(checkpoint.path), *flags])


def _brakes(runs: Sequence[Sequence[Moment]]) -> list[dict[str, Any]]:
    """What the load waited for, and for which share of its time."""
    seconds: dict[str, float] = defaultdict(float)
    for run in runs:
        for before, moment in zip([None, *run[:-1]], run, strict=True):
            if moment.brake:
                seconds[moment.brake] += moment.elapsed_s - (before.elapsed_s if before else 0.0)
    whole = sum(seconds.values())
    return [
        {"by": by, "words": words, "share": seconds[by] / whole}
        for by, words in sorted(BRAKES.items(), key=lambda item: -seconds[item[0]])
        if seconds[by]
    ]


def columns(runs: Sequence[Sequence[Moment]]) -> dict[str, list[float | None]]:
    """The course as columns, thinned out; nothing between one run and the next."""
    step = max(sum(map(len, runs)) // _MOMENTS, 1)
    names = ("at", "rows", "rows_per_s", "p50_s", "p95_s", "on_wire", "at_once", "refused_per_s", "broken_per_s")
    columns: dict[str, list[float | None]] = {name: [] for name in names}
    for number, run in enumerate(runs):
        if number and columns["at"]:
            for name in names:
                columns[name].append(columns["at"][-1] if name == "at" else None)
        kept = [*run[:-1:step], run[-1]]
        for before, moment in zip([None, *kept[:-1]], kept, strict=True):
            lasted = max(moment.elapsed_s - (before.elapsed_s if before else 0.0), 1e-3)
            values: dict[str, float | None] = {
                "at": round(moment.at, 1),
                "rows": moment.rows,
                "rows_per_s": round(moment.rows_per_s, 1),
                "p50_s": moment.p50_s,
                "p95_s": moment.p95_s,
                "on_wire": moment.on_wire,
                "at_once": moment.at_once,
                "refused_per_s": round((moment.refused - (before.refused if before else 0)) / lasted, 3),
                "broken_per_s": round((moment.broken - (before.broken if before else 0)) / lasted, 3),
            }
            for name in names:
                columns[name].append(values[name])
    return columns


def render(found: dict[str, Any], form: Literal["html", "md", "json"]) -> str:
    """The report, as gather() found it."""
    if form == "json":
        return json.dumps(found, ensure_ascii=False, indent=2) + "\n"
    from loader.show.pages import page

    return page("report.html" if form == "html" else "report.md", **found)
