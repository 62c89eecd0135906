"""What a file is that was given in another's place, by its bytes, and the command that takes it."""

import re
import shlex
import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Literal

from loader.errors import Refused

Kind = Literal["settings", "checkpoint", "state", "plan", "database", "export"]

_HEAD_BYTES = 1 << 16
_MOST_BYTES = 1 << 20  # of settings
_PACKED = (b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd", b"PAR1", b"ARROW1", b"PK\x03\x04")
_EXPORTS = re.compile(r"\.(csv|tsv|ndjson|jsonl|json|parquet|pq|arrow|feather)(\.(gz|bz2|zst|zstd))?$", re.IGNORECASE)

_WHAT: dict[Kind, str] = {
    "settings": "holds settings",
    "checkpoint": "is a checkpoint",
    "state": "is the state of a refresh",
    "plan": "is a plan",
    "database": "is a SQLite database",
    "export": "is an export",
}
_WAYS: dict[Kind, str] = {
    "settings": "see what would be loaded with them: loader check {}",
    "checkpoint": "see how its load stands: loader status {}",
    "state": "the load's checkpoint stands beside it",
    "plan": "send what it says: loader run SETTINGS --plan {}",
    "database": "[export] query and database load from one (docs/sources.md)",
    "export": "make settings for it: loader init {}",
}


def refuse_other_than(path: Path, wanted: Literal["settings", "checkpoint", "export"]) -> None:
    """Raise Refused, with what to do, if the file is certainly of another kind than `wanted`."""
    kind = _kind(path)
    if kind is None or kind == wanted:
        return
    way = _WAYS[kind].format(shlex.quote(str(path)))
    if kind == "settings" and wanted == "checkpoint" and (checkpoint := _checkpoint(path)):
        way = f"its load's checkpoint is this: {shlex.quote(checkpoint)}"
    taken = "settings" if wanted == "settings" else "a checkpoint" if wanted == "checkpoint" else "an export"
    raise Refused(f"{path} {_WHAT[kind]}, and this takes {taken}; {way}")


def _checkpoint(settings: Path) -> str:
    """Where the checkpoint of a load with these settings is; "": there is none yet."""
    from loader.settings import load_settings
    from loader.show.panel import near

    try:
        path = load_settings(settings).checkpoint_path
    except Refused:
        return ""
    return near(path) if path.is_file() else ""


def _kind(path: Path) -> Kind | None:
    """None: it can't be told, or there is nothing that could be looked at twice."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            rest = file.read(_MOST_BYTES)
    except (OSError, ValueError):
        return None
    if head.startswith(b"SQLite format 3\0"):
        return "checkpoint" if _has_load(path) else "database"
    if head.startswith(b"loader state\n"):
        return "state"
    if head.startswith(b'{"version":1,"export":{'):
        return "plan"
    if head.startswith(_PACKED):
        return "export"
    if _is_settings(head + rest):
        return "settings"
    return "export" if _EXPORTS.search(path.name) else None


def _has_load(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = 'load'").fetchone())
    except sqlite3.Error:
        return False


def _is_settings(text: bytes) -> bool:
    try:
        return bool({"export", "target", "mapping"} & tomllib.loads(text.decode()).keys())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False
