"""An export as a value: told by its name, and known again by what was read of it."""

from pathlib import Path

import pytest

from loader.errors import ExportError
from loader.export.files import Files, stem
from loader.record import Mark
from tests import make


@pytest.mark.parametrize(
    ("name", "format", "stem_"),
    [
        ("users.csv", "csv", "users"),
        ("users.CSV.GZ", "csv", "users"),
        ("users.2024.tsv", "tsv", "users.2024"),
        ("a.ndjson.gz", "ndjson", "a"),
        ("a.jsonl", "ndjson", "a"),
    ],
)
def test_the_name_tells_format_and_compression(name: str, format: str, stem_: str) -> None:
    """And what is left of it names the checkpoint."""
    found = Files.of([Path(name)])

    assert (format, stem_) == (found.format, stem(Path(name)))


def test_a_name_that_tells_nothing_needs_the_setting() -> None:
    """The setting and its values are named."""
    with pytest.raises(ExportError, match=r"export.format: 'users.txt' does not tell.* csv, tsv, ndjson"):
        Files.of([Path("users.txt")])
    assert Files.of([Path("users.txt")], "tsv").format == "tsv"
    assert stem(Path("users.txt")) == "users.txt"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With the setting that names it."""
    with pytest.raises(ExportError, match=r"export.path: can't read .*users.csv: No such file"):
        Files((tmp_path / "users.csv",), "csv").fingerprint()


CSV = "email,d\n" + "".join(f"u{at},{at}\n" for at in range(200))
NDJSON = "".join(f'{{"email":"u{at}","d":{at}}}\n' for at in range(200))


def marks_of(export: Files) -> list[Mark]:
    return [block.end for block in export.rows(make.mapping()) if block.end]


@pytest.mark.parametrize("name", ["users.csv", "users.csv.gz", "users.ndjson"])
@pytest.mark.parametrize("chunk_bytes", [64, 1 << 20])
def test_every_byte_that_was_read_counts(tmp_path: Path, name: str, chunk_bytes: int) -> None:
    """A changed copy is seen wherever the change is, in the header and the first block too: an export smaller than a
    block was taken for the same as any other of its size."""
    content = NDJSON if name == "users.ndjson" else CSV
    export = make.export(tmp_path, "\ufeff" + content, name, chunk_bytes=chunk_bytes)
    marks = marks_of(export)

    assert export.is_same_up_to(marks, make.mapping())
    for at in (0, 3, 9, 40, len(content) // 2, len(content) - 2):
        changed = make.export(
            tmp_path, "\ufeff" + content[:at] + "X" + content[at + 1 :], "x" + name, chunk_bytes=chunk_bytes
        )
        assert not changed.is_same_up_to(marks, make.mapping())


def test_bytes_behind_the_last_mark_do_not_matter(tmp_path: Path) -> None:
    """They were not read when it was made."""
    export = make.export(tmp_path, CSV, chunk_bytes=64)
    marks = marks_of(export)[:5]

    read = -(-marks[-1].offset // 64) * 64  # whole chunks
    changed = make.export(tmp_path, CSV[:read] + "other", "x.csv", chunk_bytes=64)

    assert changed.is_same_up_to(marks, make.mapping())


def test_a_shorter_or_broken_copy_is_not_the_same(tmp_path: Path) -> None:
    """It ends before the last mark."""
    export = make.export(tmp_path, CSV, "users.csv.gz")
    marks = marks_of(export)

    make.file_of(export).write_bytes(make.file_of(export).read_bytes()[:-20])
    assert not export.is_same_up_to(marks, make.mapping())
    assert not make.export(tmp_path, CSV[:-5], "x.csv").is_same_up_to(marks, make.mapping())


def test_without_marks_nothing_was_read(tmp_path: Path) -> None:
    """A run that was killed before its first commit left none, and resuming with a touched copy failed."""
    assert make.export(tmp_path, CSV).is_same_up_to([], make.mapping())


def test_a_run_resumed_midway_makes_the_marks_the_first_one_made(tmp_path: Path) -> None:
    """So the chain of hashes in the checkpoint stays whole, whichever run wrote which mark."""
    for name, content in (("users.csv", CSV), ("users.csv.gz", CSV), ("users.ndjson", NDJSON)):
        export = make.export(tmp_path, content, name, chunk_bytes=100)
        marks = marks_of(export)

        for at in (0, 3, 7):
            assert marks[at + 1 :] == [block.end for block in export.rows(make.mapping(), marks[at]) if block.end]
