"""What is fuzzed: one table of functions that take any bytes, and raise if something that must hold does not.

A target, here, is what fuzzers call so. Whatever reads bytes that others wrote belongs into the table; the first bytes
of an input choose the options, so that one file says all. Used by test_corpus.py (inputs kept), test_any_bytes.py
(inputs that hypothesis makes up) and atheris (run.py).
"""

import bz2
import gzip
import io
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from loader.errors import ExportError, Refused, SettingsError, Stopped
from loader.export.files import Files
from loader.export.split import Cut, Splitter
from loader.record import Mark
from loader.request import Response
from loader.retry import retry_after_s
from loader.settings import Settings, load_settings
from loader.span import SpanSet
from loader.targets.calven import Calven
from loader.tokens import read_token
from loader.verdict import words
from tests import make

Target = Callable[[bytes, Path], None]
"""Takes an input and an empty folder for its files."""

_LIMITS = (1 << 20, 4, 7, 16, 40)
_DELIMITERS = ",;\t|"
_ENCODINGS = ("utf-8", "utf-8", "utf-8", "cp1252", "utf-16", "utf-16-le")


def _options(data: bytes, count: int) -> tuple[list[int], bytes]:
    """The first `count` bytes as numbers, 0 where there are none, and the rest."""
    return [*data[:count], *[0] * (count - len(data[:count]))], data[count:]


def _pieces(data: bytes, seed: int) -> list[bytes]:
    """`data` cut anywhere."""
    uniform = random.Random(seed)
    sizes = [uniform.randint(1, uniform.choice((1, 3, 30))) for _ in range(len(data))]
    return list(make.in_pieces(data, sizes))


# Rows of text --------------------------------------------------------------------------------------------------------


def split(data: bytes, _: Path) -> None:
    """All bytes come out, in order; rows, and what is wrong with them, don't depend on how the bytes arrive."""
    (how, limit, seed), content = _options(data, 3)
    most = _LIMITS[limit % len(_LIMITS)]

    def cuts(pieces: list[bytes]) -> list[Cut]:
        found = list(Splitter(_DELIMITERS[how & 3], most, quoted=not how & 4).cuts(pieces))
        assert b"".join(cut.data for cut in found) == content, "all bytes come out, in order"
        return found

    whole = cuts([content])
    for pieces in (_pieces(content, seed), [content[at : at + 1] for at in range(len(content))]):
        assert _rows(cuts(pieces)) == _rows(whole)


def _rows(cuts: list[Cut]) -> list[tuple[bytes, str]]:
    found = []
    for cut in cuts:
        for at in range(len(cut.starts)):
            reason = cut.bad.get(at, "")
            # Of a line that is too long the text may come in parts.
            found.append((b"" if "too long" in reason else cut.text(at), reason))
    return found


# Exports -------------------------------------------------------------------------------------------------------------


class Read(NamedTuple):
    """All that an export gave: rows by number, each a record to send or an outcome; places to resume from; the end."""

    rows: dict[int, tuple[str, ...]]
    marks: list[Mark]
    end: str


def reader(name: str, pack: Callable[[bytes, int, int], bytes] | None = None, *, is_exact: bool = True) -> Target:
    """The target that reads an export called `name` whose content is the input, packed by `pack` if need be.

    `is_exact`: rows and end are the same however the bytes arrive. Otherwise, how much comes out before what is damaged
    shows does depend on it, but no row is ever another.
    """

    def check(data: bytes, folder: Path) -> None:
        (how, limit, size, place), content = _options(data, 4)
        path = folder / name
        path.write_bytes(pack(content, how, place) if pack else content)
        mapping = make.mapping(
            None if how & 1 else "a",
            empty=("omit", "null", "keep")[how // 2 % 3],
            types={"b": ("string", "number", "boolean", "json")[how // 6 % 4]},
            max_record_bytes=1 << 30 if how & 128 else 60,
        )
        delimiter = None if limit & 64 else _DELIMITERS[limit // 8 % 4]
        most = _LIMITS[limit % len(_LIMITS)]

        encoding = _ENCODINGS[size // 50]

        def read(chunk_bytes: int, start: Mark | None = None) -> Read:
            export = Files.of([path], None, delimiter, most, encoding)
            return _read(Files(**{**vars(export), "chunk_bytes": chunk_bytes}), mapping, start)

        whole = read(1 << 20)
        in_chunks = read(1 + size % 50)
        _check_rows(whole, 1)
        _check_rows(in_chunks, 1)
        if not (is_exact and encoding == "utf-8") and (whole.end or in_chunks.end):
            shared = whole.rows.keys() & in_chunks.rows.keys()
            assert all(whole.rows[row] == in_chunks.rows[row] for row in shared)
        else:
            assert (in_chunks.rows, in_chunks.end) == (whole.rows, whole.end), "it's the bytes, not how they arrive"
        if in_chunks.marks:
            mark = in_chunks.marks[place % len(in_chunks.marks)]
            behind = read(1 + size % 50, mark)
            _check_rows(behind, mark.row)
            assert behind.rows == {row: value for row, value in in_chunks.rows.items() if row >= mark.row}
            assert behind.marks == [other for other in in_chunks.marks if other.row > mark.row]

    return check


def _read(export: Files, mapping: Any, start: Mark | None) -> Read:
    rows: dict[int, tuple[str, ...]] = {}
    marks: list[Mark] = []
    end = ""
    try:
        for block in export.rows(mapping, start, SpanSet()):
            for number, user, record in zip(block.numbers, block.users, block.records, strict=True):
                _check_record(user, record)
                assert number not in rows, "a number is a row's own"
                rows[number] = (user, record.decode())
            for number, user, outcome in block.settled:
                assert number not in rows, "a number is a row's own"
                # What is left of the key of a line that is too long depends on where it was cut.
                key = "" if "too long" in outcome.message else user
                rows[number] = (key, outcome.code.value, outcome.message)
            marks += [block.end] if block.end is not None else []
    except ExportError as error:
        end = f"refused: {error}"
        assert not rows, "what can't be read at all is told before the first row"
    except Stopped as error:
        end = f"stopped: {error}"
    return Read(rows, marks, end)


def _check_rows(read: Read, first: int) -> None:
    assert sorted(read.rows) == list(range(first, first + len(read.rows))), "each row has one outcome"


def _check_record(user: str, record: bytes) -> None:
    # As text: Python has a limit for the digits of an int.
    made = json.loads(record, parse_int=str, parse_float=str, parse_constant=str)
    assert made[make.FRAME.user] == user, "key and record belong together"
    assert isinstance(made[make.FRAME.attributes], dict)


def packed(compress: Callable[[bytes], bytes]) -> Callable[[bytes, int, int], bytes]:
    """The input compressed: whole, cut short, damaged, in two members, or just bytes called so."""

    def pack(content: bytes, how: int, place: int) -> bytes:
        made = compress(content)
        at = place * len(made) // 256
        return (
            content,
            made,
            made[:at],
            made[:at] + bytes([made[at] ^ (place | 1)]) + made[at + 1 :],
            made + compress(content[at:]) + b"\0" * (place % 3),
            made + content[at:],
        )[how // 8 % 6]

    return pack


def columns(write: Callable[[pa.Table, io.BytesIO, int], None]) -> Callable[[bytes, int, int], bytes]:
    """The input as columns: its lines are the keys, and values of some type; at times with a byte that is another."""

    def pack(content: bytes, how: int, place: int) -> bytes:
        if how & 64:
            return content
        lines = content.split(b"\n")
        kind, values = _VALUES[place % len(_VALUES)]
        texts = [line.decode("utf-8", "replace") for line in lines]
        made = pa.table({"a": texts, "b": pa.array([None if b"-" in line else values(line) for line in lines], kind)})
        out = io.BytesIO()
        write(made, out, 1 + how % 7)
        data = bytearray(out.getvalue())
        if how & 32:
            data[how * place % len(data)] ^= place | 1
        return bytes(data)

    return pack


_VALUES: list[tuple[pa.DataType, Callable[[bytes], object]]] = [
    (pa.string(), lambda line: line.decode("utf-8", "replace")),
    (pa.binary(), lambda line: line),
    (pa.int64(), lambda line: int.from_bytes(line[:7], "big", signed=True)),
    (pa.float64(), lambda line: float(f"{len(line)}e{int.from_bytes(line[:2], 'big', signed=True)}")),
    (pa.float32(), lambda line: (1.5, float("nan"), float("-inf"), 1e30)[len(line) % 4]),
    (pa.bool_(), lambda line: len(line) % 2 == 0),
    (pa.date32(), lambda line: int.from_bytes(line[:3], "big", signed=True)),
    (pa.timestamp("us", "Europe/Vienna"), lambda line: int.from_bytes(line[:7], "big", signed=True)),
    (pa.timestamp("ns"), lambda line: int.from_bytes(line[:8], "big", signed=True)),
    (pa.time64("us"), lambda line: int.from_bytes(line[:4], "big")),
    (pa.list_(pa.string()), lambda line: [part.decode("utf-8", "replace") for part in line.split(b",")]),
    (pa.struct([("x", pa.int8()), ("y", pa.binary())]), lambda line: {"x": len(line) % 100, "y": line}),
    (pa.map_(pa.string(), pa.float64()), lambda line: [(str(at), float(at)) for at in line]),
    (pa.dictionary(pa.int8(), pa.string()), lambda line: line[:1].decode("utf-8", "replace")),
]


# Settings ------------------------------------------------------------------------------------------------------------


def settings(data: bytes, folder: Path) -> None:
    """Any text is settings, or a SettingsError with a message that a terminal can show."""
    (how,), content = _options(data, 1)
    path = folder / "load.toml"
    overrides: list[str] = []
    if how & 1:
        path.write_bytes(content)
    else:
        path.write_text(make.SETTINGS, "utf-8")
        overrides = [part.replace("\0", "") for part in content.decode("utf-8", "replace").split("\n") if part]
    try:
        _use(load_settings(path, overrides))
    except Refused as error:
        str(error).encode()


def _use(loaded: Settings) -> None:
    """All that the commands ask of settings. The credentials last: what can be told without them comes first."""
    json.dumps(loaded.identity())
    assert repr(loaded)
    loaded.row_mapping()
    assert loaded.checkpoint_path.name
    loaded.literal_secrets()
    loaded.way()
    loaded.build_target()
    assert loaded.base_url.isprintable()
    assert loaded.batch_limits.users > 0
    try:
        loaded.source.fingerprint()
    except ExportError:
        pass  # no such file; what comes behind is asked all the same
    if "/dev/" not in str(loaded.target["auth"]):  # what some of them hold has no end
        try:
            assert all(secret.isprintable() for secret in loaded.secrets().values())
        except SettingsError:
            pass


# Answers -------------------------------------------------------------------------------------------------------------

_BATCH = make.batch("abc")
_APIS = (Calven(auth="hmac"), Calven(auth="hmac", result_codes={"3": "INVALID", "success": "FAILED"}))  # type: ignore[dict-item]


def token(data: bytes, folder: Path) -> None:
    """Whatever a token endpoint answers, it is a token or none."""
    _, response = _response(data)
    found = read_token(response, 1.75e9, 50.0)
    if found is not None:
        assert found.lifetime_s is None or found.lifetime_s > 0
        assert found.is_due(1.75e9 + 1e15, 0.0) or found.lifetime_s is None or found.lifetime_s > 1e14


def answer(data: bytes, _: Path) -> None:
    """Whatever the API answers, it says something of each user, or what to do with the batch."""
    how, response = _response(data)
    verdict = _APIS[how & 1].read(_BATCH, [response])
    if isinstance(verdict, list):
        assert len(verdict) == len(_BATCH.users)
        for result in verdict:
            assert result is None or f"{result.code.value} {result.target_code} {result.message}".encode() is not None
    assert words(response).isprintable()
    wait = retry_after_s(response.headers, 1.75e9)
    assert wait is None or 0 <= wait < 1e9


def _response(data: bytes) -> tuple[int, Response]:
    (how, status), content = _options(data, 2)
    head, _, body = content.partition(b"\n\n") if how & 2 else (b"", b"", content)
    value = head.decode("utf-8", "replace")
    headers: Mapping[str, str] = {"date": value, "retry-after": value, "location": value} if how & 2 else {}
    return how, Response((200, 201, 302, 400, 401, 429, 503)[status % 7], headers, body)


TARGETS: Mapping[str, Target] = {
    "split": split,
    "csv": reader("users.csv"),
    "ndjson": reader("users.ndjson"),
    "json": reader("users.json", is_exact=False),
    "gzip": reader("users.csv.gz", packed(lambda data: gzip.compress(data, 1, mtime=0)), is_exact=False),
    "bzip2": reader("users.csv.bz2", packed(bz2.compress), is_exact=False),
    "zstd": reader("users.csv.zst", packed(lambda data: pa.compress(data, "zstd", asbytes=True)), is_exact=False),
    "parquet": reader(
        "users.parquet",
        columns(lambda table, out, rows: pyarrow.parquet.write_table(table, out, row_group_size=rows)),
        is_exact=False,
    ),
    "arrow": reader(
        "users.arrow",
        columns(lambda table, out, rows: pyarrow.feather.write_feather(table, out, "uncompressed", chunksize=rows)),
        is_exact=False,
    ),
    "settings": settings,
    "token": token,
    "answer": answer,
}
