"""Row numbers as spans: which rows of an export are settled, and which are left."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator


class SpanSet:
    """An immutable set of row numbers, kept as disjoint ascending spans `(first, last)`, both inclusive.

    >>> SpanSet([(5, 9), (1, 3), (4, 4)])
    SpanSet(1-9)
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, spans: Iterable[tuple[int, int]] = (), *, in_order: bool = False) -> None:
        """`in_order`: the spans ascend by their first row, and need not all be held to be sorted."""
        firsts, lasts = array("q"), array("q")  # of very many, after a night in which single rows changed
        for first, last in spans if in_order else sorted(spans):
            if lasts and first <= lasts[-1] + 1:
                lasts[-1] = max(lasts[-1], last)
            else:
                firsts.append(first)
                lasts.append(last)
        self._firsts = firsts
        self._lasts = lasts

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def __contains__(self, row: int) -> bool:
        at = bisect_right(self._firsts, row) - 1
        return at >= 0 and row <= self._lasts[at]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self)

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpanSet) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # compared by value, and never a key

    def first_hole(self) -> int:
        """The lowest row number, counted from 1, that is not in the set."""
        return self._lasts[0] + 1 if self._firsts and self._firsts[0] <= 1 else 1

    def overlaps(self, first: int, last: int) -> bool:
        """Is any row of `first` to `last` in the set?"""
        at = bisect_right(self._firsts, last) - 1
        return at >= 0 and self._lasts[at] >= first

    def rest(self, first: int, last: int) -> list[int]:
        """The rows of `first` to `last` that are not in the set."""
        found: list[int] = []
        at = max(bisect_right(self._firsts, first) - 1, 0)
        while at < len(self._firsts) and self._firsts[at] <= last:
            found.extend(range(first, self._firsts[at]))
            first = max(first, self._lasts[at] + 1)
            at += 1
        found.extend(range(first, last + 1))
        return found

    def __repr__(self) -> str:
        return f"SpanSet({', '.join(f'{first}-{last}' for first, last in self)})"
