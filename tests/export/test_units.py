"""Units hold the rows that a load would read, as keys and values, whole or some of them."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from loader.export import Place, delimited
from loader.export.delimited import Delimited
from loader.export.files import Files
from loader.export.rows import Wanted
from loader.mapping import Column, Empty
from loader.mapping.texts import Texts
from loader.record import Mark
from loader.refresh.digest import Digester
from tests import make

ROWS = [("ann", "Ops", "Wien"), ("bob", "", "Graz"), ("cat", "Ops", ""), ("dan", "HR", "Linz")] * 50

Found = dict[int, tuple[str, dict[str, str]]]


def _export(folder: Path, form: str) -> Files:
    path = folder / f"users.{form}"
    match form:
        case "csv":
            path.write_text("email,dept,site\n" + "".join(f"{','.join(row)}\n" for row in ROWS))
        case "parquet":
            columns = dict(zip(("email", "dept", "site"), map(list, zip(*ROWS, strict=True)), strict=True))
            pa.parquet.write_table(pa.table(columns), path)
        case _:
            found = [dict(zip(("email", "dept", "site"), row, strict=True)) for row in ROWS]
            text = json.dumps(found) if form == "json" else "\n".join(map(json.dumps, found))
            path.write_text(text)
    one = Files.of([path])
    return Files(**{**vars(one), "chunk_bytes": 500})


def read(export: Files, *wanted: Wanted) -> Found:
    """Row by number, with its values as text."""
    found: Found = {}
    for unit in export.units(make.mapping(), Place(Mark()), *wanted):
        positions, values, strangers = unit.read()
        assert not strangers
        for at, user in enumerate(values.keys.to_pylist()):
            found[unit.first + int(positions[at])] = (user, {})
        for name, column in values.columns.items():
            rows = range(len(values.keys)) if column.rows is None else column.rows.tolist()
            texts = Texts.of(column.values)
            is_sent = np.ones(len(texts), bool) if texts.is_sent is None else texts.is_sent
            for at, text, counts in zip(rows, texts.each(), is_sent, strict=True):
                if counts:
                    found[unit.first + int(positions[at])][1][name] = text.decode().strip('"')
    return found


def expected(form: str) -> Found:
    rows = ((user, {"dept": dept, "site": site}) for user, dept, site in ROWS)
    if form == "csv":  # an empty cell is not sent
        rows = ((user, {name: value for name, value in values.items() if value}) for user, values in rows)
    return dict(enumerate(rows, 1))


@pytest.mark.parametrize("form", ["csv", "ndjson", "json", "parquet"])
def test_units_hold_all_rows(tmp_path: Path, form: str) -> None:
    assert read(_export(tmp_path, form)) == expected(form)


@pytest.mark.parametrize("form", ["csv", "ndjson", "json", "parquet"])
def test_some_rows_are_as_they_are_among_all(tmp_path: Path, form: str) -> None:
    chosen = {1, 2, 7, 100, 163, 200}

    def wanted(first: int, count: int) -> NDArray[np.int64]:
        return np.array([at for at in range(count) if first + at in chosen], np.int64)

    found = read(_export(tmp_path, form), wanted)

    assert found == {row: each for row, each in expected(form).items() if row in chosen}


def test_rows_of_several_files_are_numbered_on(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"email,dept\n{name}1,x\n\n{name}2,y\n")

    found = read(Files.of([tmp_path / "a.csv", tmp_path / "b.csv"]))

    assert {row: user for row, (user, _) in found.items()} == {1: "a1", 2: "a2", 3: "b1", 4: "b2"}


def test_rows_that_are_broken_are_told_by_their_keys_as_far_as_they_have_one(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_bytes(b'email,dept\nann,x\nbob,x,y\ncat,"x"y\n\xff,x\n ,x\ndan,\xff\neve,z\n')
    (unit,) = Files.of([tmp_path / "users.csv"]).units(make.mapping(), Place(Mark()))
    positions, values, strangers = unit.read()

    assert sorted(strangers) == ["bob", "cat"]
    assert positions.tolist() == [0, 3, 4, 5, 6]
    assert values.invalid.tolist() == [1, 2, 3]
    assert values.keys.to_pylist()[0::4] == ["ann", "eve"]


CELL = st.text(st.sampled_from(list('ab,"\r\n ü\0')), max_size=9) | st.sampled_from(["x" * 300, "7", "-", ""])


@pytest.mark.parametrize("empty", ["omit", "null", "keep"])
@given(rows=st.lists(st.lists(CELL, min_size=1, max_size=4).map(",".join), max_size=8), tail=st.binary(max_size=3))
def test_cells_are_the_same_whether_arrow_cuts_them_or_not(empty: Empty, rows: list[str], tail: bytes) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "users.csv"
        path.write_bytes(
            "\n".join(["email,dept,site", *rows, ""]).encode() + tail + b"\n"
        )  # without an end it breaks off
        mapping = replace(make.mapping(), empty=empty)

        def found() -> list[object]:
            reads = [unit.read() for unit in Files.of([path]).units(mapping, Place(Mark()))]
            digester = Digester(bytes(32))
            return [
                (
                    *(positions.tolist(), values.keys.to_pylist(), values.invalid.tolist(), list(strangers)),
                    {name: _digests(digester, name, column) for name, column in values.columns.items()},
                )
                for positions, values, strangers in reads
            ]

        quick = found()
        patch.setattr(Delimited, "_cells", lambda *_: None)
        patch.setattr(delimited, "_FEW_BYTES", 0)

        assert found() == quick


def _digests(digester: Digester, name: str, column: Column) -> list[list[int]]:
    sums: list[list[int]] = digester.attribute(name, Texts.of(column.values)).tolist()
    return sums
