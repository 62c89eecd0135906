"""What comes after a load, as commands that a shell takes, with the settings and overrides of its last run."""

import codecs
import shlex
from collections.abc import Sequence
from itertools import pairwise
from os.path import relpath
from pathlib import Path

from loader.advice import ADVICE
from loader.checkpoint import Checkpoint

#: The outcomes of rows that are taken out, corrected, and loaded by themselves.
CORRECTED = tuple(code for code, advice in ADVICE.items() if advice.way == "correct")


def go_on(checkpoint: Checkpoint) -> str:
    """What goes on with a load that is not finished."""
    return _loader("retry" if checkpoint.get("retried_at") else "run", checkpoint, *(checkpoint.get("flags") or ()))


def retry(checkpoint: Checkpoint) -> str:
    """What sends again what failed."""
    return _loader("retry", checkpoint)


def can_be_corrected(checkpoint: Checkpoint) -> bool:
    """Can rows be taken out, corrected, and loaded by themselves?

    Not of what is no file; not where rows that are left out go (a hierarchy), or are taken for gone (a refresh).
    """
    is_refresh = "refresh.mode" in (checkpoint.get("identity") or {})
    return bool(checkpoint.get("files")) and not is_refresh and not checkpoint.get("is_whole")


def corrected(checkpoint: Checkpoint, *codes: str) -> Path:
    """Where rows with these outcomes may go to be corrected, beside the settings.

    Those of one outcome don't go where those of another do, nor onto the export if that holds such rows itself.
    """
    suffix = {"csv": ".csv", "tsv": ".tsv"}.get((checkpoint.get("identity") or {}).get("export.format", ""), ".ndjson")
    name, several = checkpoint.path.stem, "corrected"
    stem = codes[0].lower() if len(codes) == 1 else several
    if name.startswith((several, *(code.lower() for code in CORRECTED))):
        stem = f"{name}-{'again' if stem == several else stem}"
    return Path(checkpoint.get("settings_path") or "").parent / f"{stem}{suffix}"


def taking_out(checkpoint: Checkpoint, *codes: str) -> str:
    """What writes the rows with these outcomes to be corrected."""
    only = [word for code in codes for word in ("--code", code)]
    return shlex.join(
        ["loader", "results", str(checkpoint.path), "--rows", *only, "-o", str(corrected(checkpoint, *codes))],
    )


def loading(checkpoint: Checkpoint, rows: Path) -> str:
    """What loads `rows` that were taken out, once they are corrected: a load of its own, with its own checkpoint."""
    settings = checkpoint.get("settings") or {}
    path = relpath(rows, Path(checkpoint.get("settings_path") or "").parent)  # as the settings read it
    changes = [f"export.path={path}"]
    if settings.get("export", {}).get("format") in ("json", "parquet", "arrow"):
        changes.append("export.format=ndjson")
    if is_other_than_utf8(settings.get("export", {}).get("encoding", "utf-8")):
        changes.append("export.encoding=utf-8")  # as they are written, whatever the export was
    if "path" in settings.get("checkpoint", {}):
        changes.append(f"checkpoint.path={Path(path).with_suffix('.ckpt')}")
    keys = set(map(_key, changes))
    settings_file, *given = _given(checkpoint)
    kept = [each for each in given[1::2] if _key(each) not in keys]
    sets = [word for change in (*kept, *changes) for word in ("--set", change)]
    return shlex.join(["loader", "run", settings_file, *sets])


def flagged(command: Sequence[str], flags: Sequence[str]) -> str:
    """A command, given as words, with more flags; what these override is left out."""
    keys = {_key(word) for before, word in pairwise(flags) if before == "--set"}
    kept = list(command)
    for at in reversed(range(len(kept) - 1)):
        if kept[at] == "--set" and _key(kept[at + 1]) in keys:
            del kept[at : at + 2]
    return shlex.join([*kept, *flags])


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def is_other_than_utf8(encoding: str) -> bool:
    """Is a text in this encoding none in UTF-8?"""
    return codecs.lookup(encoding).name != "utf-8"


def _loader(command: str, checkpoint: Checkpoint, *flags: str) -> str:
    return flagged(["loader", command, *_given(checkpoint)], flags)


def _given(checkpoint: Checkpoint) -> list[str]:
    """The settings file, and each override behind a `--set`."""
    return checkpoint.get("arguments") or [checkpoint.get("settings_path") or "SETTINGS"]
