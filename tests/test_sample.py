"""What is seen of an export of which nothing is known yet."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from loader.errors import ExportError
from loader.sample import LOOKED_AT, Sample, encoding_of, look

USERS = "email,Dept\nann@x.com,Büro\nbob@x.com,Legal\n"
SEEN: dict[str, Any] = {
    "columns": ["email", "Dept"],
    "rows": [{"email": "ann@x.com", "Dept": "Büro"}, {"email": "bob@x.com", "Dept": "Legal"}],
}
NDJSON = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in SEEN["rows"])


def seen(folder: Path, name: str, content: str | bytes) -> Sample:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return look(path)


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("users.csv", USERS, {}),
        ("users.csv", USERS.replace("\n", "\r\n"), {}),
        ("users.csv", "\ufeff" + USERS, {}),
        ("users.csv", USERS.replace(",", ";"), {"delimiter": ";"}),
        ("users.csv", USERS.replace(",", "\t"), {"delimiter": "\t"}),
        ("users.tsv", USERS.replace(",", "\t"), {}),
        ("users.tsv", USERS, {"delimiter": ","}),
        ("users.txt", USERS.replace(",", "|"), {"format": "csv", "delimiter": "|"}),
        ("users.csv", USERS.encode("cp1252"), {"encoding": "cp1252"}),
        ("users.csv", USERS.encode("utf-16"), {"encoding": "utf-16"}),
        ("users.csv", USERS.encode("utf-16-le"), {"encoding": "utf-16-le"}),
        ("users.csv.gz", gzip.compress(USERS.encode("cp1252"), mtime=0), {"encoding": "cp1252"}),
        ("users.csv", gzip.compress(USERS.encode(), mtime=0), {}),
        ("users.ndjson", NDJSON, {}),
        ("users.csv", NDJSON, {"format": "ndjson"}),
        ("users", NDJSON, {"format": "ndjson"}),
        ("users.json", json.dumps(SEEN["rows"], indent=1), {}),
        ("users.ndjson", json.dumps(SEEN["rows"]), {"format": "json"}),
    ],
    ids=lambda value: value if isinstance(value, str) and "\n" not in value else "",
)
def test_how_it_is_written_is_seen(tmp_path: Path, name: str, content: str | bytes, settings: dict[str, str]) -> None:
    """Format, delimiter and encoding are told where the name or the default would be wrong, and only there."""
    sample = seen(tmp_path, name, content)

    assert {"columns": sample.columns, "rows": sample.rows} == SEEN
    told = {key: getattr(sample, key) for key in ("format", "delimiter", "encoding")}
    assert {key: value for key, value in told.items() if value is not None} == settings
    assert (sample.broken, sample.warnings) == ((), ()) or (list(sample.broken), list(sample.warnings)) == ([], [])


def test_columns_have_types(tmp_path: Path) -> None:
    table = pa.table({"email": ["a", "b"], "n": [1, None], "for": pa.array([1, 2], pa.duration("s"))})
    pyarrow.parquet.write_table(table, tmp_path / "users.csv")

    sample = look(tmp_path / "users.csv")

    assert (sample.format, sample.kind, sample.columns) == ("parquet", "columns", ["email", "n"])
    assert sample.rows == [{"email": "a", "n": 1}, {"email": "b", "n": None}]
    assert "no form in JSON" in (sample.unusable or {})["for"]


def test_no_more_is_read_than_is_looked_at(tmp_path: Path) -> None:
    sample = seen(tmp_path, "users.csv", "email\n" + "".join(f"u{n}@x.com\n" for n in range(5 * LOOKED_AT)))

    assert len(sample.rows) == LOOKED_AT


def test_a_comma_in_values_is_no_delimiter(tmp_path: Path) -> None:
    sample = seen(tmp_path, "users.csv", "mail;name\na@x;Doe, Ann\nb@x;Roe, Bob\n")

    assert (sample.delimiter, sample.columns) == (";", ["mail", "name"])


def test_broken_rows_have_their_lines(tmp_path: Path) -> None:
    sample = seen(tmp_path, "users.csv", 'email,Dept\n\na,"x\ny"\nb\nc,"z\n')

    assert [row["email"] for row in sample.rows] == ["a"]
    assert sample.broken == [
        "users.csv line 5: 1 field, the header has 2",
        "users.csv line 6: a quote is opened in this row and never closed",
    ]


@pytest.mark.parametrize(
    ("header", "odd"),
    [("ann@x.com,Sales", "ann@x.com"), ("1,2,Sales", "1"), ("email,2024", None), ("a,b", None), ("2024-01-01", "2024")],
)
def test_a_first_row_that_is_no_header_is_warned_of(tmp_path: Path, header: str, odd: str | None) -> None:
    sample = seen(tmp_path, "users.csv", f"{header}\n{header}\n")

    assert [odd in warning and "line 1 looks like a row" in warning for warning in sample.warnings if odd] == (
        [True] if odd else []
    )
    assert bool(sample.warnings) == (odd is not None)


def test_records_that_need_no_mapping_are_known(tmp_path: Path) -> None:
    nested = seen(tmp_path, "a.ndjson", '{"userName":"a","attributes":{"d":1}}\n')
    flat = seen(tmp_path, "b.ndjson", '{"userName":"a","attributes":"d"}\n')

    assert (nested.is_nested, flat.is_nested) == (True, False)


def test_a_few_bad_bytes_are_no_other_encoding() -> None:
    """A file with both is UTF-8 with broken rows, and one cut in the middle of a letter is UTF-8 as well."""
    assert encoding_of("Büro Büro".encode() + b"\xfc") == ("utf-8", True)
    assert encoding_of(b"B\xfcro") == ("cp1252", False)
    assert encoding_of(b"B\xfcr\x81o") == ("cp1252", True), "latin-1 would make control characters of dashes"
    assert encoding_of(b"a" * ((1 << 20) - 1) + "ü".encode()[:1]) == ("utf-8", False)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("users.csv", b"", "is empty"),
        ("users.ndjson", b"\n\n", "is empty"),
        ("users.json", b"[]", "is empty"),
        ("users.ndjson", b"[1]\n", "line 1: not a JSON object"),
        ("users.csv", b'"email,Dept\n', "line 1: the header can't be read"),
        ("users.xlsx", b"PK\x03\x04", r"spreadsheet \(.xlsx\): unzip it, or save it as CSV"),
        ("users.json", b'{"users": [{"a": 1}]}', r"""jq -c '.\["users"\]\[\]' users.json > users.ndjson"""),
        ("users.json", b'{\n "users": [\n {"a": 1}]}', "one JSON object"),
        ("users.csv.gz", b"email\n", "is not gzip"),
        ("users.csv.gz", gzip.compress(USERS.encode(), mtime=0)[:20], "breaks off"),
        ("users.parquet", b"PAR1", "not a whole parquet file"),
    ],
)
def test_what_can_not_be_loaded_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        seen(tmp_path, name, content)


def test_an_ndjson_record_may_begin_with_a_list(tmp_path: Path) -> None:
    """As those of SCIM do."""
    assert seen(tmp_path, "a.ndjson", '{"emails":[{"value":"a@x"}],"userName":"a"}\n').columns == ["emails", "userName"]
