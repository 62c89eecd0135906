"""Builders with defaults: one per value, so that a test names only what it is about."""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from loader.batch import Batch, BatchLimits
from loader.checkpoint import Entry
from loader.errors import Stopped
from loader.export import Export
from loader.export.files import Files
from loader.mapping import RowMapping
from loader.outcome import Code, Outcome
from loader.record import Frame, Rows
from loader.request import Response
from loader.settings import Settings, load_settings

_T = TypeVar("_T")

FRAME = Frame()
LIMITS = BatchLimits(users=3, body_bytes=10_000)

SETTINGS = """
[export]
path = "users.csv"
[mapping]
user = "email"
[target]
api = "calven"
base_url = "http://127.0.0.1:8080"
[target.auth]
scheme = "hmac"
key_id = "KEY"
secret = "env:CALVEN_SECRET"
"""


def record(user: str = "ann", frame: Frame = FRAME, /, **attributes: Any) -> bytes:
    """One record as mapping.py makes it."""
    return frame.record(user, json.dumps(attributes or {"department": "Ops"}, separators=(",", ":")).encode())


def rows(users: Iterable[str] | str, first: int = 1) -> Rows:
    """Rows numbered from `first`, each with an attribute that tells its number."""
    names = list(users)
    numbers = list(range(first, first + len(names)))
    records = [record(name, row=number) for name, number in zip(names, numbers, strict=True)]
    return Rows(numbers, names, records)


def batch(users: Iterable[str] | str = "abc", first: int = 1, merged: dict[int, list[int]] | None = None) -> Batch:
    """A batch of consecutive rows."""
    found = rows(users, first)
    return Batch(found.numbers, found.users, found.records, merged or {})


def outcome(code: Code = Code.SUCCESS, message: str = "", target_code: str = "0", attempts: int = 1) -> Outcome:
    """An outcome of a user that was sent."""
    return Outcome(code, message, target_code, 200, attempts)


def entry(of: Batch, *outcomes: Outcome) -> Entry:
    """A settled batch: one outcome for each user, or one for all."""
    return Entry(of, outcomes if len(outcomes) == len(of) else outcomes * len(of) or [outcome()] * len(of))


def response(body: Any = b"", status: int = 200, **headers: str) -> Response:
    """An answer; `body` is JSON unless it is bytes, and `retry_after` is the header of that name."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, names, body if isinstance(body, bytes) else json.dumps(body).encode())


def mapping(user: str | None = "email", **options: Any) -> RowMapping:
    """How rows become records; records may be of any size unless `max_record_bytes` says otherwise."""
    return RowMapping(FRAME, options.pop("max_record_bytes", 1 << 30), user, **options)


def export(folder: Path, content: bytes | str, name: str = "users.csv", **options: Any) -> Files:
    """An export in a file; a name that ends in .gz compresses it."""
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    made = Files.of([path], options.pop("format", None), options.pop("delimiter", None), 1 << 20)
    return Files(**{**vars(made), **options})


def file_of(export: Export) -> Path:
    """The file that it is."""
    (path,) = export.paths
    assert isinstance(path, Path)
    return path


def settings(folder: Path, text: str = SETTINGS, overrides: Sequence[str] = ()) -> Settings:
    """Settings from a file in `folder`."""
    path = folder / "load.toml"
    path.write_text(text, "utf-8")
    return load_settings(path, overrides)


def sent(blocks: Iterable[Rows], frame: Frame = FRAME) -> dict[int, tuple[str, dict[str, Any]]]:
    """Rows to send: number to key and attributes, read back from the record."""
    found = {}
    for block in blocks:
        for number, user, made in zip(block.numbers, block.users, block.records, strict=True):
            whole = json.loads(made)
            assert whole[frame.user] == user, "key and record belong together"
            assert number not in found, "a number is a row's own"
            found[number] = (user, whole[frame.attributes])
    return found


def settled(blocks: Iterable[Rows]) -> dict[int, tuple[str, str, str]]:
    """Rows never sent: number to code, key and message."""
    return {
        item.row: (item.outcome.code.value, item.user, item.outcome.message)
        for block in blocks
        for item in block.settled
    }


def in_pieces(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """`data` in pieces of these sizes, and the rest."""
    at = 0
    for size in sizes:
        if at < len(data):
            yield data[at : at + size]
        at += size
    if at < len(data):
        yield data[at:]


def merged(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What is left of attributes sent one after the other."""
    return {name: value for sent_ in records for name, value in sent_.items()}


def until_stopped(items: Iterable[_T]) -> tuple[list[_T], str]:
    """What comes before Stopped is raised, and its message ("" if it isn't)."""
    found: list[_T] = []
    try:
        for item in items:
            found.append(item)  # noqa: PERF402  # list() would lose what came before the error
    except Stopped as error:
        return found, str(error)
    return found, ""
