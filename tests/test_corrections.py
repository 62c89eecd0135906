"""Rows to correct and load again: what is still wrong is rejected once more, and nothing is guessed."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.checkpoint import Checkpoint, Entry
from loader.corrections import Written, export_of, write_rows
from loader.errors import CheckpointError, Refused
from loader.export.files import Files
from loader.outcome import Code, Settled
from loader.resume import begin
from tests import make

IDENTITY: dict[str, Any] = {
    "export.format": "csv",
    "export.delimiter": None,
    "export.encoding": "utf-8",
    "export.max_row_bytes": 1 << 20,
    "mapping.user": "email",
    "mapping.attributes": None,
    "mapping.types": {},
    "mapping.empty": "omit",
    "target.api": "calven",
}


def loaded(folder: Path, content: bytes | str, name: str = "users.csv", user: str | None = "email") -> Checkpoint:
    """A checkpoint in which every row has an outcome: those the reader rejects, and USER_NOT_FOUND for the others."""
    export = make.export(folder, content, name)
    identity = IDENTITY | {"export.format": export.format, "mapping.user": user}
    (folder / "users.ckpt").unlink(missing_ok=True)
    checkpoint = Checkpoint.open(folder / "users.ckpt", create=True)
    begin(checkpoint, identity, export, make.mapping(user))
    settle(checkpoint, export, user)
    return checkpoint


def settle(checkpoint: Checkpoint, export: Files, user: str | None) -> None:
    for rows in export.rows(make.mapping(user)):
        unknown = make.outcome(Code.USER_NOT_FOUND, 'who is "that"?')
        sent = [Settled(row, name, unknown) for row, name in zip(rows.numbers, rows.users, strict=True)]
        checkpoint.commit([Entry(settled=[*rows.settled, *sent], mark=rows.end)])


def written(checkpoint: Checkpoint, *codes: str) -> bytes:
    out = io.BytesIO()
    write_rows(checkpoint, export_of(checkpoint), out, codes)
    return out.getvalue()


def test_csv_has_three_columns_more(tmp_path: Path) -> None:
    """Whatever the message holds; the fields before stand as they stood."""
    with loaded(tmp_path, 'email,d\na,"x, ""y"""\nb,2\n') as checkpoint:
        text = written(checkpoint)

    assert text.decode() == (
        "email,d,loader_row,loader_code,loader_message\n"
        'a,"x, ""y""",1,USER_NOT_FOUND,"who is ""that""?"\n'
        'b,2,2,USER_NOT_FOUND,"who is ""that""?"\n'
    )


def test_what_is_taken_out_of_another_encoding_is_read_as_what_it_is(tmp_path: Path) -> None:
    """It comes out as UTF-8, with the mark that says so, though the settings go on to say otherwise."""
    export = replace(
        make.export(tmp_path, "email,stra\xdfe\na,Wei\xdf \x96 \x80\n".encode("latin-1")), encoding="cp1252"
    )
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as checkpoint:
        begin(checkpoint, IDENTITY | {"export.encoding": "cp1252"}, export, make.mapping())
        settle(checkpoint, export, "email")
        text = written(checkpoint)
    corrected = replace(make.export(tmp_path, text, "corrected.csv"), encoding="cp1252")

    assert text.startswith(b"\xef\xbb\xbf")
    assert make.sent(corrected.rows(make.mapping())) == {1: ("a", {"straße": "Weiß – €"})}


def test_ndjson_has_three_members_more(tmp_path: Path) -> None:
    """Objects only: what is none stays as it is."""
    with loaded(tmp_path, '{"email":"a","n":1.10 }\n{}\noops\n{"email":7}\n', "users.ndjson") as checkpoint:
        lines = written(checkpoint).decode().splitlines()

    assert lines[0] == (
        '{"email":"a","n":1.10 ,"loader_row":1,"loader_code":"USER_NOT_FOUND","loader_message":"who is \\"that\\"?"}'
    )
    assert json.loads(lines[1])["loader_code"] == "REJECTED"
    assert lines[2] == "oops"
    assert json.loads(lines[3])["loader_message"].startswith("users.ndjson line 4: ")


@pytest.mark.parametrize("name", ["users.csv", "users.ndjson"])
def test_loaded_again_the_columns_are_no_attributes(tmp_path: Path, name: str) -> None:
    """And in a second round they are replaced, not added to."""
    content = "email,d\na,1\nb,2\n" if name == "users.csv" else '{"email":"a","d":"1"}\n{"email":"b","d":"2"}\n'
    with loaded(tmp_path, content, name) as checkpoint:
        first = written(checkpoint)
    with loaded(tmp_path, first, name) as checkpoint:
        second = written(checkpoint)
        sent = make.sent(export_of(checkpoint).rows(make.mapping()))

    assert sent == {1: ("a", {"d": "1"}), 2: ("b", {"d": "2"})}
    assert second == first


def test_a_row_corrected_by_leaving_the_added_fields_out_loses_nothing_more(tmp_path: Path) -> None:
    """It is ragged then, and what is cut off it next time is ours alone."""
    with loaded(tmp_path, "email,d,loader_row,loader_code,loader_message\na,1\nb,2,9,FAILED,why\n") as checkpoint:
        lines = written(checkpoint).decode().splitlines()

    assert lines[1].startswith("a,1,1,REJECTED,")
    assert lines[2] == 'b,2,2,USER_NOT_FOUND,"who is ""that""?"'


ROWS = st.lists(
    st.text(st.sampled_from('ab,"\r\n é;'), min_size=1, max_size=12).map(lambda text: text.encode())
    | st.just(b"bad \xff,x")
    | st.just(b"good,1")
    | st.just(b'good,"1\n2"'),
    max_size=8,
)


@given(rows=ROWS)
def test_what_was_rejected_is_rejected_again_and_its_neighbours_are_not(
    rows: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever stands in broken rows, the others come back with the same fields."""
    folder = tmp_path_factory.mktemp("round")
    with loaded(folder, b"email,d\n" + b"\n".join(rows) + b"\n") as checkpoint:
        before = list(checkpoint.results())
        sent = make.sent(export_of(checkpoint).rows(make.mapping()))
        text = written(checkpoint)
    with loaded(folder, text) as checkpoint:
        after = list(checkpoint.results())
        again = make.sent(export_of(checkpoint).rows(make.mapping()))

    assert [(row.row, row.code) for row in after] == [(row.row, row.code) for row in before]
    assert again == sent


def test_every_row_that_is_right_can_be_read_by_other_programs(tmp_path: Path) -> None:
    """By Python's csv, for one."""
    with loaded(tmp_path, 'email,d\na,"x\ny"\nb,"""q"""\n') as checkpoint:
        found = list(csv.DictReader(io.StringIO(written(checkpoint).decode(), newline="")))

    assert [(row["email"], row["d"], row["loader_code"]) for row in found] == [
        ("a", "x\ny", "USER_NOT_FOUND"),
        ("b", '"q"', "USER_NOT_FOUND"),
    ]


def test_codes_filter_and_rows_too_long_are_counted(tmp_path: Path) -> None:
    """A row that no line can hold is left out."""
    with loaded(tmp_path, "email,d\na,1\nb,2,3\nc," + "x" * (3 << 20) + "\n") as checkpoint:
        out = io.BytesIO()
        count = write_rows(checkpoint, export_of(checkpoint), out, ["REJECTED"])

    assert count == Written(1, 1)
    assert out.getvalue().decode().splitlines()[1].startswith("b,2,3,2,REJECTED,")


def test_another_export_is_refused(tmp_path: Path) -> None:
    """Of another size, or of another content; a moved copy is the same."""
    with loaded(tmp_path, "email,d\na,1\n") as checkpoint:
        copy, changed, longer = (tmp_path / name for name in ("copy.csv", "changed.csv", "longer.csv"))
        copy.write_text("email,d\na,1\n")
        changed.write_text("email,d\na,2\n")
        longer.write_text("email,d\na,1\nb,2\n")

        assert export_of(checkpoint, str(copy)).paths == (copy,)
        for path in (changed, longer):
            with pytest.raises(CheckpointError, match=r"is not the export of .*; name the right one with --export"):
                export_of(checkpoint, str(path))
        with pytest.raises(Refused, match="stdin"):
            export_of(checkpoint, "-")
