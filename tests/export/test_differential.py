"""The CSV reader against Python's own: row for row the same, whatever the file looks like and wherever it is cut."""

import csv
import io
import json
import random
from pathlib import Path

import pytest

from loader.export.files import Files
from tests import make

_PIECES = ["a", "bc", "é", "日", "😀", " ", "'", "\\", '"', "\n", "\r\n", ",", ";", "\t", "|", "0012", "x" * 40]


def well_formed(rng: random.Random) -> tuple[str, str, list[list[str]]]:
    """A file's text, its delimiter, and its rows: a key and up to five cells of anything."""
    delimiter = rng.choice(",;\t|")
    width = rng.randrange(1, 6)
    header = ["email", *(f"c{at}" for at in range(width))]
    rows = [
        [f"u{number}", *("".join(rng.choices(_PIECES, k=rng.randrange(4))) for _ in range(width))]
        for number in range(rng.randrange(15))
    ]
    special, end = set('"\r\n' + delimiter), rng.choice(("\n", "\r\n", "\r"))
    quote_all = rng.random() < 0.3

    def cell(text: str) -> str:
        # Not csv.writer: before Python 3.13 it leaves some line ends unquoted.
        return '"' + text.replace('"', '""') + '"' if quote_all or special & set(text) else text

    written = "".join(delimiter.join(map(cell, row)) + end for row in [header, *rows])
    return (written.rstrip("\r\n") if rng.random() < 0.3 and rows else written), delimiter, rows


def check(folder: Path, seed: int) -> int:
    """Read one file in every block size; return how many readings that were."""
    rng = random.Random(seed)
    text, delimiter, rows = well_formed(rng)
    encoding = rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16"))
    path = folder / "u.csv"
    path.write_bytes(text.encode(encoding))
    header, *expected = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    assert expected == rows
    wanted = {at: (cells[0], dict(zip(header[1:], cells[1:], strict=True))) for at, cells in enumerate(expected, 1)}
    size = path.stat().st_size
    small = {1, 2, 3} if size < 120 else set()  # a block a byte takes its time
    sizes = sorted(small | {size, *(rng.randrange(max(size // 60, 1), size + 2) for _ in range(4))})
    for chunk_bytes in sizes:
        export = Files((path,), "csv", delimiter, encoding=encoding, chunk_bytes=chunk_bytes)
        found = {}
        for block in export.rows(make.mapping(empty="keep")):
            assert not block.settled
            for number, user, record in zip(block.numbers, block.users, block.records, strict=True):
                found[number] = (user, json.loads(record)["attributes"])
        assert found == wanted, (seed, chunk_bytes)
    return len(sizes)


def test_files_read_as_pythons_csv_reads_them(tmp_path: Path) -> None:
    """Forty of them, each in several block sizes."""
    assert sum(check(tmp_path, seed) for seed in range(40)) > 160


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_ten_thousand_files_read_as_pythons_csv_reads_them(tmp_path: Path) -> None:
    """The same with 10,000 files."""
    readings = sum(check(tmp_path, seed) for seed in range(100, 10_100))
    print(f"\n10,000 files, {readings:,} readings")  # noqa: T201  # a soak run's figure
