"""Every format, packed in every way: the same rows, and reading that goes on from every mark."""

import bz2
import datetime as dt
import decimal
import gzip
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from loader.errors import ExportError, Stopped
from loader.export import Place, columnar
from loader.export.files import Files, matching
from loader.outcome import Code
from loader.record import Mark, Rows
from loader.span import SpanSet
from tests import make

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROWS = [{"email": f"u{at}@x.com", "dept": f'D "{at % 7}", ü', "cost": f"{at:05}"} for at in range(700)]
TABLE = pa.Table.from_pylist(ROWS)

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data[:999]) + gzip.compress(data[999:]),
    ".bz2": lambda data: bz2.compress(data[:999]) + bz2.compress(data[999:]),
    ".zst": lambda data: zstd.compress(data[:999]) + zstd.compress(data[999:]),
}


def csv_of(delimiter: str) -> bytes:
    lines = [["email", "dept", "cost"], *([row["email"], row["dept"], row["cost"]] for row in ROWS)]
    quoted = (['"' + cell.replace('"', '""') + '"' for cell in line] for line in lines)
    return "".join(delimiter.join(line) + "\r\n" for line in quoted).encode()


TEXT: dict[str, bytes] = {
    "csv": csv_of(","),
    "tsv": csv_of("\t"),
    "ndjson": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode(),
    "json": json.dumps(ROWS, indent=1).encode(),
}


def write(folder: Path, name: str) -> Path:
    """The rows as a file whose name tells format and compression."""
    path = folder / name
    if name == "u.parquet":
        pyarrow.parquet.write_table(TABLE, path, row_group_size=300)
    elif name == "u.arrow":
        with pyarrow.ipc.new_file(path, TABLE.schema) as file:
            file.write_table(TABLE, max_chunksize=256)
    elif name == "stream.arrow":
        with pyarrow.ipc.new_stream(path, TABLE.schema) as file:
            file.write_table(TABLE, max_chunksize=256)
    else:
        _, form, *packing = name.split(".")
        path.write_bytes(PACKED["." + packing[0] if packing else ""](TEXT[form]))
    return path


def said(blocks: list[Rows]) -> dict[int, tuple[str, dict[str, Any]]]:
    """User and attributes by row number."""
    return {
        number: (user, json.loads(record)["attributes"])
        for rows in blocks
        for number, user, record in zip(rows.numbers, rows.users, rows.records, strict=True)
    }


NAMES = [f"u.{form}{packing}" for form in TEXT for packing in PACKED] + ["u.parquet", "u.arrow", "stream.arrow"]


@pytest.mark.parametrize("name", NAMES)
def test_each_format_gives_the_same_rows_and_resumes_anywhere(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the file, rows are numbered and read alike, and from each mark exactly the rest comes."""
    monkeypatch.setattr(columnar, "BLOCK_ROWS", 100)
    made = Files.of([write(tmp_path, name)])
    export = Files(made.paths, made.format, chunk_bytes=4_000)
    blocks = list(export.rows(make.mapping()))
    marks = [rows.end for rows in blocks if rows.end]

    assert said(blocks) == {
        at: (row["email"], {"dept": row["dept"], "cost": row["cost"]}) for at, row in enumerate(ROWS, 1)
    }
    assert len(marks) > 3
    assert export.is_same_up_to(marks, make.mapping())
    place = Place(Mark())
    assert sum(unit.rows for unit in export.units(make.mapping(), place)) == len(ROWS)
    is_told = export.format not in ("parquet", "arrow")
    assert place.marks == [mark if is_told else mark._replace(digest="") for mark in marks]
    known = {mark.row: mark._replace(digest=f"known {mark.row}") for mark in marks[::2]}
    again = [rows.end for rows in export.rows(make.mapping(), known=known) if rows.end]
    assert [mark._replace(digest="") for mark in again] == [mark._replace(digest="") for mark in marks]
    assert again[::2] == list(known.values()), "what is known is not hashed again"
    for mark in marks[:-1]:
        rest = said(list(export.rows(make.mapping(), mark, SpanSet([(1, mark.row - 1), (600, 610)]))))
        assert sorted(rest) == [row for row in range(mark.row, 701) if not 600 <= row <= 610]


@pytest.mark.parametrize("name", [name for name in NAMES if name.count(".") == 2])
def test_a_packed_file_that_breaks_off_keeps_the_rows_before(tmp_path: Path, name: str) -> None:
    """Truncation is no end of file: what is whole comes out, then the run stops, resumable."""
    path = write(tmp_path, name)
    path.write_bytes(path.read_bytes()[:-40])

    blocks, message = make.until_stopped(Files.of([path]).rows(make.mapping()))

    assert "breaks off" in message
    assert list(said(blocks)) == list(range(1, len(said(blocks)) + 1))


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".zst"])
def test_a_packed_file_is_known_by_its_first_bytes(tmp_path: Path, packing: str) -> None:
    """Its name need not tell; a name that tells something else is an error that says so."""
    path = tmp_path / "u.csv"
    path.write_bytes(PACKED[packing](TEXT["csv"]))
    assert len(said(list(Files.of([path]).rows(make.mapping())))) == 700

    wrong = tmp_path / f"u.csv{packing}"
    wrong.write_bytes(TEXT["csv"])
    with pytest.raises(ExportError, match="is not"):
        list(Files.of([wrong]).rows(make.mapping()))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252", "utf-8-sig"])
def test_other_encodings_are_read_as_what_they_say(tmp_path: Path, encoding: str) -> None:
    """Text comes out as UTF-8."""
    path = tmp_path / "u.csv"
    path.write_bytes("email,d\nann@x,Zürich\n".encode(encoding))

    assert said(list(Files.of([path], encoding=encoding).rows(make.mapping()))) == {1: ("ann@x", {"d": "Zürich"})}


def test_a_byte_that_does_not_fit_the_encoding_rejects_its_row(tmp_path: Path) -> None:
    """And no other."""
    path = tmp_path / "u.csv"
    path.write_bytes(b"email,d\nann@x,a\nbob@x,\x81\ncat@x,c\n")
    blocks = list(Files.of([path], encoding="cp1252").rows(make.mapping()))

    assert sorted(said(blocks)) == [1, 3]
    assert [(item.row, item.outcome.code) for rows in blocks for item in rows.settled] == [(2, Code.REJECTED)]


def test_the_files_of_a_pattern_count_on(tmp_path: Path) -> None:
    """In byte order of their paths, each with its header; from a mark in the middle of any of them too."""
    for name, users in (("b.csv", "cd"), ("a.csv", "ab"), ("B.csv.gz", "x"), ("c.txt", "z")):
        data = ("email,d\n" + "".join(f"{user},1\n" for user in users)).encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    export = Files.of(matching("*.csv*", tmp_path))
    export.check(make.mapping())
    blocks = list(export.rows(make.mapping()))
    marks = [rows.end for rows in blocks if rows.end]

    assert [user for user, _ in said(blocks).values()] == ["x", "a", "b", "c", "d"]
    assert [mark.file for mark in marks] == [0, 1, 2]
    assert export.fingerprint().size == sum(os.stat(str(path)).st_size for path in export.paths)
    for mark in marks:
        assert sorted(said(list(export.rows(make.mapping(), mark)))) == list(range(mark.row, 6))
    assert export.is_same_up_to(marks, make.mapping())
    (tmp_path / "a.csv").write_text("email,d\na,1\nB,1\n")
    assert not export.is_same_up_to(marks, make.mapping())


def test_files_that_differ_in_columns_are_refused_unless_the_columns_are_named(tmp_path: Path) -> None:
    """A column that is only in some files would be sent for some users only, in silence."""
    (tmp_path / "a.csv").write_text("email,d\nann,1\n")
    (tmp_path / "b.csv").write_text("d,email,x\n2,bob,1\n")
    export = Files.of(matching("*.csv", tmp_path))

    with pytest.raises(ExportError, match=r"b.csv and a.csv differ in column 'x'"):
        export.check(make.mapping())
    mapping = make.mapping(attributes={"d": "d"})
    export.check(mapping)
    assert said(list(export.rows(mapping))) == {1: ("ann", {"d": "1"}), 2: ("bob", {"d": "2"})}


def test_a_pattern_that_nothing_matches_is_named(tmp_path: Path) -> None:
    """With the folder it was looked for in."""
    with pytest.raises(ExportError, match=r"no file matches '\*\.csv' in "):
        matching("*.csv", tmp_path)


COLUMNS: list[tuple[pa.Array, list[Any]]] = [
    (pa.array(["a", None, ""]), ["a", None, ""]),
    (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    (pa.array([b"a", None, b"z"], pa.binary()), ["a", None, "z"]),
    (pa.array([True, None, False]), [True, None, False]),
    (pa.array([1, None, -(2**63)]), [1, None, -(2**63)]),
    (pa.array([1.5, None, 1e300]), [1.5, None, 1e300]),
    (pa.array([decimal.Decimal("12.50"), None, decimal.Decimal("0.00")]), [12.5, None, 0.0]),
    (pa.array([dt.date(2026, 1, 31), None, dt.date(1, 1, 1)]), ["2026-01-31", None, "0001-01-01"]),
    (pa.array([dt.time(13, 45), None, None], pa.time32("s")), ["13:45:00", None, None]),
    (pa.array([0, None, 1], pa.timestamp("s")), ["1970-01-01T00:00:00", None, "1970-01-01T00:00:01"]),
    (
        pa.array([0, None, 1], pa.timestamp("s", "Europe/Vienna")),
        ["1970-01-01T00:00:00Z", None, "1970-01-01T00:00:01Z"],
    ),
    (pa.array([[1, None], None, []]), [[1, None], None, []]),
    (pa.array([{"a": "x"}, None, {"a": None}]), [{"a": "x"}, None, {"a": None}]),
    (pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int8())), [{"k": 1}, None, {}]),
    (pa.nulls(3), [None, None, None]),
]


@pytest.mark.parametrize(("column", "values"), COLUMNS, ids=[str(column.type) for column, _ in COLUMNS])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_each_type_has_one_form_in_json(tmp_path: Path, column: pa.Array, values: list[Any], form: str) -> None:
    """Null is sent as null, in every type."""
    table = pa.table({"email": ["a", "b", "c"], "v": column})
    path = tmp_path / f"u.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pyarrow.ipc.new_file(path, table.schema) as file:
            file.write_table(table)

    assert [attributes["v"] for _, attributes in said(list(Files.of([path]).rows(make.mapping()))).values()] == values


def test_decimals_keep_their_digits(tmp_path: Path) -> None:
    """As they are stored."""
    pyarrow.parquet.write_table(pa.table({"email": ["a"], "v": [decimal.Decimal("12.50")]}), tmp_path / "u.parquet")
    (rows,) = Files.of([tmp_path / "u.parquet"]).rows(make.mapping())

    assert b'"v":12.50}' in rows.records[0]


def test_bad_values_reject_their_rows_alone(tmp_path: Path) -> None:
    """NaN, bytes that are no text, an empty or missing key; whole numbers may be keys."""
    table = pa.table(
        {
            "email": pa.array(["a", "b", None, " ", "e"]),
            "n": pa.array([1.0, float("nan"), 1.0, 1.0, 1.0]),
            "b": pa.array([b"x", b"x", b"x", b"x", b"\xff"], pa.binary()),
            "id": pa.array([1, 2, 3, 4, 5]),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "u.parquet")
    export = Files.of([tmp_path / "u.parquet"])
    blocks = list(export.rows(make.mapping()))

    assert sorted(said(blocks)) == [1]
    assert [(item.row, item.user, item.outcome.message) for rows in blocks for item in rows.settled] == [
        (2, "b", "u.parquet row 2: column 'n': not a finite number, which JSON has no form for"),
        (3, "", "u.parquet row 3: the user's key is empty (column 'email')"),
        (4, " ", "u.parquet row 4: the user's key is empty (column 'email')"),
        (5, "e", "u.parquet row 5: column 'b' is not UTF-8: byte 0xff at 1"),
    ]
    assert said(list(export.rows(make.mapping(user="id", attributes={"n": "n"}))))[1] == ("1", {"n": 1.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": None}, "mapping.user is missing"),
        ({"user": "when"}, "a key is text or a whole number"),
        ({"types": {"when": "number"}}, "'when' is of type date32"),
        ({}, "column 'long' is of type duration"),
        ({"user": "emial"}, "did you mean 'email'"),
    ],
)
def test_a_mapping_that_the_types_do_not_fit_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Before anything is sent."""
    table = pa.table({"email": ["a"], "when": [dt.date(2026, 1, 1)], "long": [dt.timedelta(1)]})
    pyarrow.parquet.write_table(table, tmp_path / "u.parquet", store_schema=True)

    with pytest.raises(ExportError, match=message):
        Files.of([tmp_path / "u.parquet"]).check(make.mapping(**options))


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_damaged_columnar_file_is_no_crash(tmp_path: Path, form: str) -> None:
    """Garbage, a cut file and an empty one are errors with the file's name."""
    whole = write(tmp_path, f"u.{form}").read_bytes()
    path = tmp_path / f"x.{form}"
    for data in (b"", b"garbage" * 30, whole[:-10], whole[:200], whole[:300] + b"\xff" * 300 + whole[600:]):
        path.write_bytes(data)
        with pytest.raises((ExportError, Stopped), match=rf"x\.{form}"):
            list(Files.of([path]).rows(make.mapping()))


@pytest.mark.parametrize(
    ("text", "users"),
    [
        ("[]", []),
        (' [ {"email":"a","d":1} , {"email":"b","d":"],"} ] \n', ["a", "b"]),
        ('[{"email":"a","d":{"x":["\\"}"]}},]', ["a"]),
        ('[{"email":"a","d":1},,{"email":"b","d":1}]', ["a", "b"]),
        ('[{"email":"a","d":1},5,"x",{"email":"b","d":1}]', ["a", "b"]),
    ],
)
def test_elements_of_a_json_array_are_rows(tmp_path: Path, text: str, users: list[str]) -> None:
    """However they are laid out; what is no object is rejected alone."""
    (tmp_path / "u.json").write_text(text)
    blocks = list(Files.of([tmp_path / "u.json"]).rows(make.mapping()))

    assert [user for user, _ in said(blocks).values()] == users


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not even a JSON array"),
        ('{"email":"a"}\n{"email":"b"}', 'set export.format = "ndjson"'),
        ('[{"email":"a","d":1},{"email":"b"', "breaks off"),
        ('[{"email":"a","d":1}}', "a closing brace that nothing opened"),
        ('[{"email":"a","d":1}] x', "text behind the end"),
    ],
)
def test_a_broken_json_array_says_where_it_ends(tmp_path: Path, text: str, message: str) -> None:
    """Nobody can tell where the next element would begin, so reading ends, with the rows before."""
    (tmp_path / "u.json").write_text(text)

    with pytest.raises((ExportError, Stopped), match=message):
        list(Files.of([tmp_path / "u.json"]).rows(make.mapping()))


def test_marks_begin_where_files_do() -> None:
    """A mark without a place is the beginning of the first file."""
    assert Mark() == Mark(1, 0, 1, "", 0)
