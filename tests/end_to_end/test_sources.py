"""Exports of several files, and from stdin, as processes: killed and resumed, they are exact."""

import bz2
import gzip
from pathlib import Path

import pytest

from loader.demo import make_export
from tests.end_to_end import oracle

USERS = 6_000


def piped(settings: Path, export: Path, kill_at: int | None = None) -> tuple[int, str]:
    """`loader run` with the export on its stdin, killed as soon as so many rows are settled."""
    with export.open("rb") as file:
        process = oracle.start("run", settings, stdin=file)
        if kill_at is not None:
            oracle.wait_for_rows(settings.with_name("users.ckpt"), kill_at)
            process.kill()
        _, err = process.communicate()
    assert "Traceback" not in err
    return process.returncode, err


def settings_for(folder: Path, url: str, path: str) -> Path:
    settings = oracle.write_settings(folder, url, export=path, concurrency=4)
    settings.write_text(settings.read_text() + f'\n[checkpoint]\npath = "{folder}/users.ckpt"\n')
    return settings


@pytest.mark.parametrize("packed", [False, True])
def test_stdin_is_replayed_to_go_on(tmp_path: Path, packed: bool) -> None:
    """The same bytes again: what is settled is passed over, the rest is sent; other bytes are refused."""
    expected = make_export(tmp_path / "users.csv", USERS, 3)
    export = tmp_path / "users.csv"
    if packed:
        export = tmp_path / "users.csv.gz"
        export.write_bytes(gzip.compress((tmp_path / "users.csv").read_bytes()))
    with oracle.sandbox("--latency", "0.1", "--unknown", "former") as url:
        settings = settings_for(tmp_path, url, "-")
        settings.write_text(settings.read_text().replace('path = "-"', 'path = "-"\nformat = "csv"'))
        killed, _ = piped(settings, export, 1_000)
        other = tmp_path / "other.csv"
        make_export(other, USERS, 4)
        refused, why = piped(settings, other)
        status, err = piped(settings, export)
        again, said = piped(settings, export)

        assert killed == -9
        assert refused == 2, why
        assert "another export" in why
        assert status == 1, err
        assert again == 1
        assert "finished" in said
        resent = oracle.compare(url, tmp_path / "users.ckpt", expected)
    assert resent <= 2 * 4 * 100


def test_a_pattern_is_one_load(tmp_path: Path) -> None:
    """Three files, packed in different ways, killed in the middle: rows count on from file to file."""
    expected = make_export(tmp_path / "users.csv", USERS, 5)
    header, *rows = (tmp_path / "users.csv").read_bytes().splitlines(keepends=True)
    (tmp_path / "users.csv").unlink()
    for name, part, pack in (
        ("p1.csv", rows[:2500], bytes),
        ("p2.csv.gz", rows[2500:4000], gzip.compress),
        ("p3.csv.bz2", rows[4000:], bz2.compress),
    ):
        (tmp_path / name).write_bytes(pack(header + b"".join(part)))
    with oracle.sandbox("--latency", "0.1", "--unknown", "former") as url:
        settings = settings_for(tmp_path, url, "p*.csv*")
        assert oracle.run_and_kill(settings, 1.4)
        status, _, err = oracle.run("run", settings)

        assert status == 1, err
        assert oracle.compare(url, tmp_path / "users.ckpt", expected) <= 2 * 4 * 100


def test_stdin_needs_a_checkpoint_and_a_format(tmp_path: Path) -> None:
    """Neither has a name to be told by."""
    settings = oracle.write_settings(tmp_path, "http://127.0.0.1:9", export="-")

    status, _, err = oracle.run("run", settings)
    assert (status, "export.format" in err or "checkpoint.path" in err) == (2, True)
