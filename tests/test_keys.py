"""Which keys came before, against a set of Python's."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loader.keys import Keys


@given(st.lists(st.lists(st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1), max_size=30), max_size=30))
def test_it_is_a_set(blocks: list[list[int]]) -> None:
    """Block by block, and within one."""
    keys = Keys()
    known: set[int] = set()
    for block in blocks:
        expected = []
        for key in block:
            expected.append(key in known)
            known.add(key)
        assert keys.seen(np.array(block, np.int64)).tolist() == expected
    assert not keys.is_full


def test_a_full_one_still_knows_the_first() -> None:
    """Then what it counts is a lower bound, and it says so."""
    keys = Keys(most=3)

    assert keys.seen(np.array([1, 2, 3])).tolist() == [False] * 3
    assert not keys.is_full
    assert keys.seen(np.array([4, 2])).tolist() == [False, True]
    assert keys.is_full
    assert keys.seen(np.array([4, 3])).tolist() == [False, True]
