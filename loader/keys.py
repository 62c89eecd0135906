"""Which of very many keys came before: 8 bytes a key in sorted arrays, where a set of Python's would take some 100."""

import numpy as np
from numpy.typing import NDArray

#: So many keys are remembered, in 80 MB (160 while arrays are merged); those behind are only compared with them.
MOST_KEYS = 10_000_000

Hashes = NDArray[np.int64]


class Keys:
    """Hashes seen, as sorted arrays of which each is more than twice as long as the next.

    Two keys of one hash would be taken for one: with 10 million keys of 64 bits that happens once in 300,000 exports.
    """

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most = most
        self._runs: list[Hashes] = []
        self.is_full = False

    def seen(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Which of `hashes` came before, here or in an earlier call; from now on all of them did.

        Once `is_full` new ones are no longer remembered, so that some which come again are missed.
        """
        order = np.argsort(hashes, kind="stable")
        ascending = hashes[order]
        before = np.zeros(len(hashes), np.bool_)
        before[1:] = ascending[1:] == ascending[:-1]
        for run in self._runs:
            places = np.searchsorted(run, ascending)
            before |= run[np.minimum(places, len(run) - 1)] == ascending
        self._remember(ascending[~before])
        found = np.empty(len(hashes), np.bool_)
        found[order] = before
        return found

    def _remember(self, ascending: Hashes) -> None:
        if sum(map(len, self._runs)) + len(ascending) > self._most:
            self.is_full = True
        elif len(ascending):
            self._runs.append(ascending)
            while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
                last = self._runs.pop()
                # A stable sort of two ascending runs is one merge.
                self._runs[-1] = np.sort(np.concatenate([self._runs[-1], last]), kind="stable")
