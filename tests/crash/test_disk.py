"""The disk that loses its power: what was synced stays, what was not may stay, in part, and in any order."""

import random
from typing import Any

import pytest

from tests.crash.disk import LOSSES, Disk, Loss
from tests.crash.steps import Kind, Step

SEEDS = range(200)


def step(kind: Kind, name: str = "a", *, file: int = 1, offset: int = 0, data: bytes = b"", other: str = "") -> Step:
    return Step(0, 0, file, offset, len(data), kind, name, other, data)


def disk_after(*steps: Step, **files: Any) -> Disk:
    disk = Disk.holding(files)
    for each in steps:
        disk.do(each)
    return disk


def outcomes(disk: Disk, loss: Loss) -> set[tuple[tuple[str, bytes], ...]]:
    """All that may be there, as far as the seeds show it."""
    return {tuple(sorted(disk.after(loss, random.Random(seed)).items())) for seed in SEEDS}


MADE = (step("create"), step("write", data=b"old"), step("sync"), step("sync-folder", "", file=9))


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_synced_stays(loss: Loss) -> None:
    """Its content by its own sync, its name by the folder's."""
    assert outcomes(disk_after(*MADE), loss) == {(("a", b"old"),)}


def test_a_name_that_is_not_synced_may_be_gone() -> None:
    """However often its content was synced."""
    assert outcomes(disk_after(*MADE[:3]), "any") == {(), (("a", b"old"),)}


def test_a_write_that_is_not_synced_is_lost_or_kept() -> None:
    """As told; with "tail" it goes with all behind it."""
    disk = disk_after(*MADE, step("write", data=b"N"), step("write", offset=2, data=b"W"))

    assert outcomes(disk, "all") == {(("a", b"old"),)}
    assert outcomes(disk, "none") == {(("a", b"NlW"),)}
    assert outcomes(disk, "tail") == {(("a", content),) for content in (b"old", b"Nld", b"NlW")}
    assert outcomes(disk, "any") == {(("a", content),) for content in (b"old", b"Nld", b"olW", b"NlW")}


def test_a_long_write_is_torn_where_a_sector_ends() -> None:
    """Sectors are of 512 bytes or of 4,096; with "torn" those before the tear are there, with "any" any of them."""
    disk = disk_after(*MADE, step("write", offset=500, data=b"x" * 8_192))

    torn = {len(dict(found)["a"]) for found in outcomes(disk, "torn")}
    any_of_them = {dict(found)["a"].count(b"x") for found in outcomes(disk, "any")}

    assert torn >= {3, 512, 1_024, 4_096, 8_192}
    assert all(length == 3 or length % 512 == 0 for length in torn)
    assert len(any_of_them) > 20


def test_what_a_file_grew_by_may_hold_anything() -> None:
    """Zeros, or what was there before, as if its length had been written first."""
    disk = disk_after(*MADE, step("write", offset=3, data=b"data" * 10))

    lengths = {len(dict(found)["a"]) for found in outcomes(disk, "any")}
    contents = {dict(found)["a"][3:] for found in outcomes(disk, "any")}

    assert lengths == {3, 43}
    assert contents > {b"", bytes(40), b"data" * 10}


def test_removed_and_renamed_files_may_be_back() -> None:
    """Under their old names, as long as the folder is not synced; a cut may not have happened."""
    gone = disk_after(*MADE, step("remove"))
    moved = disk_after(*MADE, step("rename", other="b"), step("cut", "b", offset=1))

    assert outcomes(gone, "tail") == {(), (("a", b"old"),)}
    assert outcomes(moved, "any") == {((name, content),) for name in "ab" for content in (b"old", b"o")}
    for disk in (gone, moved):
        disk.do(step("sync-folder", "", file=9))
    assert outcomes(gone, "any") == {()}
    assert outcomes(moved, "all") == {(("b", b"old"),)}


def test_a_new_file_is_not_the_one_whose_number_it_has() -> None:
    """File systems give a removed file's inode to the next."""
    disk = disk_after(*MADE, step("remove"), step("create", "b"), step("write", "b", data=b"new"), step("sync", "b"))

    assert outcomes(disk, "all") == {(("a", b"old"),)}
    assert outcomes(disk, "none") == {(("b", b"new"),)}


def test_files_of_before_are_there() -> None:
    """Known by their inodes."""
    disk = disk_after(step("write", "x", file=7, offset=1, data=b"!"), x=(7, b"abc"))

    assert outcomes(disk, "tail") == {(("x", b"abc"),), (("x", b"a!c"),)}
