"""Tables and keys that are put aside come back as they were."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.refresh import spill
from loader.refresh.spill import PARTITIONS, KeyFile, Spill, bounds, key_at, nameless, private, read_into, read_table


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=30), max_size=6), st.integers(2, 40))
def test_rows_come_back_by_partition_in_the_order_in_which_they_came(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], held: int
) -> None:
    numbers = [number for part in parts for number in part]
    with pytest.MonkeyPatch.context() as patch, Spill(nameless(tmp_path_factory.mktemp("spill")), 2) as one:
        patch.setattr(spill, "_HELD", held)
        row = 0
        for part in parts:
            one.add(np.array([(number, row + at) for at, number in enumerate(part)], np.uint64).reshape(-1, 2))
            row += len(part)
        one.finish()
        found = [tuple(each) for number in range(PARTITIONS) for each in one.partition(number).tolist()]

    assert found == sorted(((number, row) for row, number in enumerate(numbers)), key=lambda each: each[0] >> 56)


def test_partitions_are_told_by_the_first_byte() -> None:
    first = np.array([0, 1 << 55, 1 << 56, 255 << 56, (1 << 64) - 1], np.uint64)

    found = bounds(first)

    assert (found[0], found[1], found[2], found[255], found[256]) == (0, 2, 3, 3, 5)


def test_a_file_that_ends_too_early_is_told(tmp_path: Path) -> None:
    with (tmp_path / "short").open("w+b", buffering=0) as file:
        file.write(b"12345678")
        with pytest.raises(OSError, match="ends too early"):
            read_table(file.fileno(), 0, 1, 2)
        with pytest.raises(OSError, match="ends too early"):
            read_into(file.fileno(), memoryview(bytearray(1)), 8)


def test_keys_come_back_with_their_rows_and_each_from_its_place(tmp_path: Path) -> None:
    one = KeyFile(private(tmp_path / "keys"), nameless(tmp_path))
    first = one.add(np.array([1, 2, 4]), pa.array(["ann", "", "bö"]))
    second = one.add(np.array([7]), pa.array(["skipped", "cat"])[1:])
    last = one.append(b"dan")

    assert [(block.numbers.tolist(), block.users.to_pylist()) for block in map(one.block, one.stored)] == [
        ([1, 2, 4], ["ann", "", "bö"]),
        ([7], ["cat"]),
    ]
    assert [one.key(int(place)) for place in (*first, *second, last)] == ["ann", "", "bö", "cat", "dan"]
    one.close()
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600
    with (tmp_path / "keys").open("rb") as file:
        assert key_at(file.fileno(), last) == "dan"


def test_a_key_that_is_too_long_has_no_place(tmp_path: Path) -> None:
    one = KeyFile(nameless(tmp_path), nameless(tmp_path))

    assert one.add(np.array([1, 2]), pa.array(["x" * (1 << 20), "y"])).tolist() == [0, (1 << 40) | 1]
    one.close()
