"""What a load looks like on a terminal: is it well, when is it done, who fails and why, what to do now.

A panel is made anew for each snapshot, for the size that the terminal has at that moment. Where that is too small, what
matters least is left out.
"""

import shlex
import textwrap
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import msgspec
from rich.cells import cell_len
from rich.text import Text

from loader.checkpoint import Checkpoint
from loader.outcome import Code
from loader.plain import plain
from loader.snapshot import FINDING, Failure, Snapshot, duration
from loader.words import counted

#: Lines of a panel, none longer than so many cells, and at most so many lines.
Frame = Callable[[int, int], list[Text]]

#: The curve shows so many seconds.
_COURSE_S = 300
#: If more of the rows fail, that is the first thing to say.
_MANY = 0.10
_DAY_S = 86_400 / 2

#: What goes before a line, and from which width on.
_LABEL, _LABELLED = 10, 50
_FAILURES, _ALIKE = 5, 3
#: So many lines a reason to stop may have, and what to do now; what is set in, by so many cells.
_REASON, _ADVICE, _INDENT = 3, 4, 2
#: Words that have less than this are no words.
_WORD = 8
_GAPS = "gaps"
_BAR, _HALF, _REST = "━", "╸", "─"
_CURVE = "▁▂▃▄▅▆▇"

_ASCII = str.maketrans(
    {"━": "=", "╸": "-", "─": ".", "→": ">", "·": "-", "…": "~", "●": "*", "×": "x"} | dict.fromkeys(_CURVE)
)


class About(NamedTuple):
    """What is loaded where, and the checkpoint's path."""

    export: str
    api: str
    host: str
    checkpoint: str

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """As a checkpoint tells it."""
        identity = checkpoint.get("identity") or {}
        host = urlsplit(identity.get("target.base_url") or "").netloc.rpartition("@")[2]
        export = checkpoint.get("path") or "no export yet"
        return cls(*map(plain, (near(export), identity.get("target.api") or "", host, near(checkpoint.path))))


def near(path: str | Path) -> str:
    """A path as it is seen from the working directory, if it is below that."""
    return str(path).removeprefix(f"{Path.cwd()}/")


class View:
    """The panel of one load, moment after moment. `is_ours`: this process runs it, so that Ctrl-C stops it.

    `course`: how fast it was before, as pairs of Unix time and rows a second.
    """

    def __init__(self, about: About, course: Iterable[tuple[float, float]] = (), *, is_ours: bool = True) -> None:
        self._about = about
        self._course = deque(course, maxlen=2 * _COURSE_S)
        self._is_ours = is_ours

    @property
    def title(self) -> str:
        """What is loaded where."""
        return f"{self._about.export} → {self._about.api} at {self._about.host}"

    def at(self, now: Snapshot) -> Frame:
        """The panel of a moment."""
        self._course.append((now.at, now.now_per_s))
        return partial(_lines, self._about, now.shown, tuple(self._course), self._is_ours)


def line(now: Snapshot) -> str:
    """A load at one moment in one line."""
    now = now.shown
    parts = [
        _sent_again(now) if now.again else f"{now.rows:,} rows",
        f"{now.rows_per_s:,.0f}/s",
        f"{now.failed:,} failed",
        f"{duration(now.elapsed_s)} gone",
    ]
    if now.share is not None:
        parts.insert(0, f"{now.share:4.0%}")
    if now.left_s is not None and not now.is_last:
        parts.append(f"{duration(now.left_s)} left")
    elif now.found.is_guess and not now.is_last:
        parts.append(FINDING)
    if now.stopping:
        parts.append("stopping: what is in flight may finish")
    elif now.why and not now.is_last:
        parts.append(now.why)
    return " · ".join([*parts, *now.found.words()])


def _sent_again(now: Snapshot) -> str:
    return f"{now.rows:,} of {counted(now.again, 'row')} sent again"


def in_ascii(text: str) -> str:
    """The same for a terminal that shows nothing else."""
    return text.translate(_ASCII)


# The panel ------------------------------------------------------------------------------------------------------------


#: The parts of a panel, as they stand below each other. All but the first have a label.
_GROUPS = (("title", "bar", "progress"), ("pace", "why", "wire", "found"), ("outcomes",), ("failed",), ("next",))

#: What is shown first, where there is little room: so many lines of each part.
_BY_IMPORTANCE = (
    *(("bar", 1), ("title", 1), ("progress", 1), ("pace", 1), ("outcomes", 3), ("why", 1), ("next", 1), ("failed", 1)),
    *(("why", _REASON), ("next", _ADVICE), ("wire", 1), ("outcomes", len(Code)), ("found", 1)),
)


def _lines(
    about: About, now: Snapshot, course: Sequence[tuple[float, float]], is_ours: bool, width: int, height: int
) -> list[Text]:
    """The panel, for this size."""
    label = _LABEL if width >= _LABELLED else 0
    room = width - label
    parts = {
        "title": [_title(about, now, width)],
        "bar": [_bar(now, width)],
        "progress": [_progress(now, width)],
        "pace": [_pace(now, course, room)],
        "why": _why(now, room),
        "wire": [_wire(now, room)],
        "found": list(_found(now, room)),
        "outcomes": list(_outcomes(now)),
        "failed": _failures(now.failures, room),
        "next": _advice(about, now, room, is_ours),
    }
    shown = _shares({name: len(lines) for name, lines in parts.items()}, height)
    parts["outcomes"] = list(_outcomes(now, shown["outcomes"]))
    parts["why"] = _why(now, room, shown["why"])
    parts["failed"] = _failures(now.failures, room, shown["failed"])
    parts["next"] = _advice(about, now, room, is_ours, shown["next"])
    found: list[Text] = []
    for group in _GROUPS:
        if shown[_GAPS] and any(shown[name] for name in group):
            found.append(Text())
        for name in group:
            for at, text in enumerate(parts[name][: shown[name]]):
                is_named = label and group is not _GROUPS[0]
                before = f"{name if at == 0 else '':<{label}}" if is_named else ""
                found.append(Text.assemble((before, "dim"), text))
    for text in found:
        text.truncate(width, overflow="ellipsis")
    return found


def _shares(wanted: Mapping[str, int], height: int) -> dict[str, int]:
    """How many lines of each part are shown, and of gaps, in this height: first those that matter most."""
    shown = dict.fromkeys([*wanted, _GAPS], 0)

    def give(name: str, most: int) -> None:
        free = height - sum(shown.values()) + shown[name]
        shown[name] = max(min(most, wanted[name], free), 0)

    for name, most in _BY_IMPORTANCE:
        give(name, most)
    gaps = sum(any(shown[name] for name in group) for group in _GROUPS)
    if sum(shown.values()) + gaps <= height:
        shown[_GAPS] = gaps
    give("failed", 2 * _FAILURES)
    return shown


def _joined(parts: Sequence[str | tuple[str, str] | Text], width: int, between: str = " · ") -> Text:
    """As many of the parts as fit, those that matter most first. The first is shown in any case."""
    found = Text()
    for part in parts:
        text = Text.assemble(part)
        if found and found.cell_len + len(between) + text.cell_len > width:
            continue
        found = Text.assemble(found, (between if found else "", "dim"), text)
    return found


def _state(now: Snapshot) -> tuple[str, str]:
    """How the load is, in a word and a colour."""
    if now.stopping:
        return "stopping", "yellow"
    if now.trouble is not None:
        return "waiting", "yellow"
    if now.failed > _MANY * max(now.rows, 100):
        return "many fail", "red"
    if now.rows == now.before and now.elapsed_s < 10:
        return "starting", "dim"
    return "loading", "green"


def _title(about: About, now: Snapshot, width: int) -> Text:
    word, style = _state(now)
    export = about.export if len(about.export) <= width // 2 else Path(about.export).name
    parts: list[str | tuple[str, str]] = [(export, "bold"), f"→ {about.api}", f"at {about.host}"]
    if now.before:
        parts.append((f"· resumed at {now.before:,} rows", "dim"))
    what = _joined(parts, width - len(word) - 4, " ")
    return Text.assemble((f"● {word}", f"bold {style}"), "  ", what)


def _bar(now: Snapshot, width: int) -> Text:
    """How much of the export is settled; where its size is unknown, something that moves."""
    _, style = _state(now)
    style = "green" if style == "dim" else style
    if now.share is None:
        length = max(width // 8, 3)
        track = max(width - length, 1)
        at = int(now.elapsed_s) * 2 % (2 * track)
        at = min(at, 2 * track - at)
        return Text.assemble((_REST * at, "dim"), (_BAR * length, style), (_REST * (track - at), "dim"))
    percent = f" {'100' if now.share >= 1 else f'{min(100 * now.share, 99.9):.1f}'} %"
    length = max(width - len(percent), 0)
    halves = int(min(now.share, 1.0) * 2 * length)
    full, half = divmod(halves, 2)
    bar = _BAR * full + _HALF * half
    return Text.assemble((bar, style), (_REST * (length - len(bar)), "dim"), (percent, "bold"))


def _progress(now: Snapshot, width: int) -> Text:
    parts: list[str | tuple[str, str]] = []
    if now.left_s is not None and not now.stopping:
        form = "%H:%M" if now.left_s < _DAY_S else "%a %H:%M"
        done = time.strftime(form, time.localtime(now.at + now.left_s))
        parts.append((f"{_about(now.left_s)} left, done at {done}", "bold"))
    elif now.share is not None and not now.stopping:
        parts.append((f"time left: {_no_time_left(now)}", "dim"))
    if now.again:
        parts.append(_sent_again(now))
    elif now.share and now.share < 1 and width >= _LABELLED + 20:
        parts.append(f"{now.rows:,} of about {_rounded(now.rows / now.share)} rows")
    else:
        parts.append(f"{now.rows:,} rows")
    parts.append(f"{duration(now.elapsed_s)} gone")
    return _joined(parts, width)


def _no_time_left(now: Snapshot) -> str:
    if now.trouble is not None and now.trouble.kind == "down":
        return "not known while the target is down"
    return FINDING if now.found.is_guess else "not known yet"


def _rounded(count: float) -> str:
    """To three digits, as it is an estimate."""
    return f"{float(f'{count:.3g}'):,.0f}"


def _about(seconds: float) -> str:
    """A time that is not exactly known: no seconds that jump."""
    if seconds < 60:
        return f"{max(round(seconds), 0)} s"
    if seconds < 600:
        return f"{seconds // 60:.0f} min {seconds % 60 // 10 * 10:02.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def _pace(now: Snapshot, course: Sequence[tuple[float, float]], width: int) -> Text:
    words = _joined([(f"{now.now_per_s:,.0f} rows/s", "bold"), f"{now.rows_per_s:,.0f} on average"], width)
    column = 34
    cells = min(width - column - 8, 60)
    if words.cell_len >= column or cells < 10:
        return words
    drawn, seconds = _curve(now.at, course, cells)
    if len(drawn) < 3:
        return words
    words.pad_right(column - words.cell_len)
    long = f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"
    return Text.assemble(words, (drawn, "dim cyan"), (f" {long}", "dim"))


def _curve(now: float, course: Sequence[tuple[float, float]], cells: int) -> tuple[str, int]:
    """The pace of the last minutes, and how many seconds that is. The seconds of a cell don't depend on the moment."""
    since = max(course[0][0], now - _COURSE_S) if course else now
    each = max(-(-int(now - since) // cells), 1)
    sums: dict[int, list[float]] = {}
    for at, per_s in course:
        if at > since - each:
            sums.setdefault(int(at // each), []).append(per_s)
    means = {place: sum(found) / len(found) for place, found in sums.items()}
    if not means:
        return "", 0
    first, last = max(min(means), max(means) - cells + 1), max(means)
    top = max(means.values()) or 1.0
    drawn, before = "", 0.0
    for place in range(first, last + 1):
        before = means.get(place, before)
        drawn += _CURVE[min(int(before / top * len(_CURVE)), len(_CURVE) - 1)]
    return drawn, len(drawn) * each


def _why(now: Snapshot, width: int, most: int = _REASON) -> list[Text]:
    """Why it is not faster, or why it ends."""
    if not now.stopping and now.trouble is None:
        return [Text(now.why)] if now.why else []
    lines = _wrapped(Text(), now.stopping or now.why, width, most)
    for line in lines:
        line.stylize("yellow")
    return lines


def _wire(now: Snapshot, width: int) -> Text:
    wire = now.wire
    parts: list[str | tuple[str, str]] = [f"{wire.on_wire:,} of {now.at_once:,} requests at once"]
    if wire.halved:
        parts.append((f"refused and halved: {wire.halved:,}", "yellow"))
    if wire.p50_s is not None and wire.p95_s is not None:
        parts.append(f"p50 {_short(wire.p50_s)}, p95 {_short(wire.p95_s)}")
    parts.append((f"429: {wire.refused:,}", "yellow" if wire.refused else "dim"))
    parts.append((f"5xx or broken: {wire.broken:,}", "yellow" if wire.broken else "dim"))
    return _joined(parts, width)


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _found(now: Snapshot, width: int) -> Iterator[Text]:
    """What else is known of the target."""
    if words := list(msgspec.structs.replace(now.found, concurrency=None).words()):
        yield _joined(words, width)


def _outcomes(now: Snapshot, most: int = len(Code)) -> Iterator[Text]:
    """The most frequent ones first; in so few lines, what isn't shown by its code is counted."""
    counts = [(code, count) for code, count in sorted(now.counts.items(), key=lambda item: -item[1]) if count]
    if not counts:
        yield Text("none yet", style="dim")
        return
    if most == 1 < len(counts):
        yield Text(f"{now.failed:,} failed", style="red" if now.failed else "")
        return
    codes, numbers = max(len(code) for code, _ in counts), len(f"{counts[0][1]:,}")
    rest = counts[most - 1 :] if most < len(counts) else []
    for code, count in counts[: len(counts) - len(rest)]:
        style = "green" if code is Code.SUCCESS else "" if code in now.good else "red"
        share = 100 * count / now.rows
        percent = "100" if count == now.rows else "<0.1" if share < 0.1 else f"{min(share, 99.9):.1f}"
        yield Text.assemble((f"{code:<{codes}}", style), f"  {count:>{numbers},}", (f"  {percent:>5} %", "dim"))
    if rest:
        yield Text(f"{f'{len(rest)} more':<{codes}}  {sum(count for _, count in rest):>{numbers},}")


def _failures(failures: Sequence[Failure], width: int, most: int = 2 * _FAILURES) -> list[Text]:
    """Who, and why: the latest first, and no more than some that failed alike.

    A reason that is too long for a line has two, if there is room for all.
    """
    alike: Counter[tuple[Code, str]] = Counter()
    chosen = []
    for failure in reversed(failures):
        alike[failure.code, failure.message] += 1
        if alike[failure.code, failure.message] <= _ALIKE:
            chosen.append((Text(plain(failure.user)), failure))
    chosen = chosen[:_FAILURES]
    widest = min(max((user.cell_len for user, _ in chosen), default=0), max(width // 3, 8))
    codes = max((len(failure.code) for _, failure in chosen), default=0)
    heads = []
    for user, failure in chosen:
        user.truncate(widest, overflow="ellipsis", pad=True)
        heads.append(Text.assemble(user, "  ", (f"{failure.code:<{codes}}", "red"), "  "))
    for each in (2, 1):
        lines = [_wrapped(head, failure.message, width, each) for head, (_, failure) in zip(heads, chosen, strict=True)]
        if each == 1 or sum(map(len, lines)) <= most:
            return [line for one in lines for line in one]
    return []


def _wrapped(head: Text, words: str, width: int, most: int) -> list[Text]:
    """So many lines at most, all but the first set in; what is too long for them ends in an ellipsis."""
    if most <= 1 or head.cell_len > width - _WORD:
        return [Text.assemble(head, plain(words))]
    begin, indent = " " * head.cell_len, " " * _INDENT
    first, *rest = textwrap.wrap(
        plain(words), width, initial_indent=begin, subsequent_indent=indent, max_lines=most, placeholder=" …"
    ) or [begin]
    return [Text.assemble(head, first[len(begin) :]), *map(Text, rest)]


def _advice(about: About, now: Snapshot, width: int, is_ours: bool, most: int = _ADVICE) -> list[Text]:
    """What to do now. A command is to be copied, so it is whole, or not there."""
    if now.stopping:
        return [Text(f"what is in flight may finish{' (Ctrl-C again to stop at once)' if is_ours else ''}")]
    leave = "Ctrl-C stops it, the same command goes on" if is_ours else "Ctrl-C ends the watching, not the load"
    if not now.failed or now.trouble is not None:
        return [_joined(["nothing to do", leave], width)]
    bad = {code: count for code, count in now.counts.items() if code not in now.good}
    words = ["loader results", shlex.quote(about.checkpoint), f"--code {max(bad, key=lambda code: bad[code])}"]
    what, command = "see who failed:", Text(" ".join(words), "bold")
    if len(what) + 1 + command.cell_len <= width:
        return [_joined([Text.assemble(what, " ", command), leave], width)]
    lines = _continued(words, width)
    if lines and len(lines) < most:
        return [Text(what), *lines]
    return lines if 0 < len(lines) <= most else [Text("see who failed, with loader results")]


def _continued(words: Sequence[str], width: int) -> list[Text]:
    """A command, given as what belongs together, over several lines as a shell takes it; [] if it can't be."""
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}".lstrip()
        if cell_len(f"{longer} \\") <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if any(cell_len(f"{line} \\") > width for line in lines[:-1]) or cell_len(lines[-1]) > width:
        return []
    return [Text(line if line is lines[-1] else f"{line} \\", "bold") for line in lines]
