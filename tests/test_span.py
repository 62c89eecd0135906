"""Spans behave as the set of their rows."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from loader.span import SpanSet

SPANS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 8)).map(lambda span: (span[0], sum(span))), max_size=12)


@given(SPANS, st.integers(0, 70), st.integers(0, 9))
def test_a_span_set_is_the_set_of_its_rows(spans: list[tuple[int, int]], row: int, length: int) -> None:
    """Overlapping, touching, in any order."""
    rows = {number for first, last in spans for number in range(first, last + 1)}
    found = SpanSet(spans)

    assert len(found) == len(rows)
    assert bool(found) is bool(rows)
    assert (row in found) is (row in rows)
    assert found.overlaps(row, row + length) is any(number in rows for number in range(row, row + length + 1))
    assert found.rest(row, row + length) == [number for number in range(row, row + length + 1) if number not in rows]
    assert found.first_hole() == min(set(range(1, 80)) - rows)
    assert found == SpanSet((number, number) for number in rows)
    assert found == SpanSet(iter(sorted(spans)), in_order=True)


@given(SPANS)
def test_spans_are_disjoint_and_ascend(spans: list[tuple[int, int]]) -> None:
    """With a gap between each two: touching ones are joined."""
    found = list(SpanSet(spans))

    assert all(first <= last for first, last in found)
    assert all(before[1] + 1 < behind[0] for before, behind in pairwise(found))


def test_the_repr_shows_the_spans() -> None:
    """A failing test should tell what is there."""
    assert repr(SpanSet([(5, 9), (1, 3), (4, 4)])) == "SpanSet(1-9)"
    assert repr(SpanSet()) == "SpanSet()"
