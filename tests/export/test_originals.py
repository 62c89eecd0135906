"""Rows come out as they stand in the export, under the numbers that a run gives them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from loader.export.files import Files
from loader.export.originals import header, originals
from tests import make


def every(export: Files, count: int) -> list[bytes | None]:
    return [text for _, text in originals(export, range(1, count + 1), "email")]


@pytest.mark.parametrize("chunk_bytes", [8, 1 << 20])
@pytest.mark.parametrize("name", ["users.csv", "users.csv.gz"])
def test_delimited_rows_are_the_bytes_between_their_line_ends(tmp_path: Path, name: str, chunk_bytes: int) -> None:
    """Quotes, line ends inside them, bad bytes and broken rows; blank lines are no rows."""
    rows = [b'a,"x\ny"', b'"b",""""', b"bad \xff,1", b'open,"1', b"ragged", b"last,\xc3\xa9"]
    content = b"email,d\r\n\r\n" + b"\r\n".join(rows)
    export = make.export(tmp_path, content, name, chunk_bytes=chunk_bytes)

    assert header(export) == (b"", b"email,d")
    assert every(export, 6) == rows


def test_a_few_rows_are_found_by_number(tmp_path: Path) -> None:
    """As a run numbers them, in any block."""
    export = make.export(tmp_path, "email,d\n" + "".join(f"u{at},{at}\n" for at in range(1, 100)), chunk_bytes=64)
    sent = make.sent(export.rows(make.mapping()))

    found = dict(originals(export, [1, 50, 51, 99], "email"))

    assert found == {at: f"u{at},{at}".encode() for at in (1, 50, 51, 99)}
    assert all(sent[at][0] == f"u{at}" for at in found)


def test_a_byte_order_mark_stays_before_the_header(tmp_path: Path) -> None:
    """Spreadsheets look for it."""
    export = make.export(tmp_path, "\ufeffemail;d\na;1\n", delimiter=";")

    assert (header(export), every(export, 1)) == (("\ufeff".encode(), b"email;d"), [b"a;1"])


def test_a_row_too_long_to_be_held_is_none(tmp_path: Path) -> None:
    """A part of it would look like a row."""
    export = make.export(tmp_path, "email,d\na,1\nb," + "x" * 500 + "\nc,3\n", chunk_bytes=64, max_row_bytes=100)

    assert every(export, 3) == [b"a,1", None, b"c,3"]


def test_files_whose_columns_stand_in_another_order(tmp_path: Path) -> None:
    """Their rows come under the first file's header; broken ones as they are."""
    first = make.export(tmp_path, "email,d,e\na,1,2\n", "a.csv")
    second = make.export(tmp_path, 'e,email,d\n4,b,"3,""3"\nragged\n', "b.csv")
    export = Files((*first.paths, *second.paths), "csv")

    assert every(export, 3) == [b"a,1,2", b'b,"3,""3",4', b"ragged"]


def test_files_whose_delimiter_is_another(tmp_path: Path) -> None:
    """As their first lines say, for Excel: all come under the first file's header, and with its delimiter."""
    first = make.export(tmp_path, "sep=;\nemail;d\na;1\n", "a.csv")
    second = make.export(tmp_path, "email,d\nb,x;y\n", "b.csv")
    export = Files((*first.paths, *second.paths), "csv")

    assert header(export) == (b"sep=;\n", b"email;d")
    assert every(export, 2) == [b"a;1", b'b;"x;y"']
    assert make.sent(export.rows(make.mapping())) == {1: ("a", {"d": "1"}), 2: ("b", {"d": "x;y"})}


def test_lines_are_as_they_stand(tmp_path: Path) -> None:
    """Valid or not."""
    lines = [b'{"email": "a",  "n":1.10}', b"{bad", b"[1]"]
    export = make.export(tmp_path, b"\n".join(lines), "users.ndjson")

    assert every(export, 3) == lines


def test_elements_of_an_array_come_on_one_line(tmp_path: Path) -> None:
    """With their numbers' digits; one that is no JSON is still one line."""
    text = '[{"email": "a",\n "n": 1.10}, {"email": "b"},\n {"email":\n oops}]'
    export = make.export(tmp_path, text, "users.json")

    assert every(export, 3) == [b'{"email":"a","n":1.10}', b'{"email": "b"}', b'{"email": oops}']


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_columns_come_as_json(tmp_path: Path, form: str) -> None:
    """A key that is a number becomes text, as it is in a run."""
    table = pa.table({"email": [7, 8], "n": [1.5, None], "t": ['"x"', None], "l": [[1], []]})
    path = tmp_path / f"users.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        pyarrow.feather.write_feather(table, path, compression="uncompressed")

    rows = every(Files.of([path]), 2)

    assert [json.loads(row or b"") for row in rows] == [
        {"email": "7", "n": 1.5, "t": '"x"', "l": [1]},
        {"email": "8", "n": None, "t": None, "l": []},
    ]
