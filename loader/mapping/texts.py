"""The cells of a column as bytes that stand somewhere in one buffer: compared where they were read, never copied."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

#: Bytes that must follow the last text, so that a word can be read from each place.
PADDING = 8

#: Of a text's last word, so many bytes are its own.
_MASKS = np.array([(1 << (8 * count)) - 1 for count in range(9)], np.uint64)
_HALF = np.uint64(32)

#: Arrow keeps so many bytes of a text in its view.
_INLINE = 12


@dataclass(frozen=True)
class Texts:
    """Texts in `data`, behind whose last one `PADDING` bytes stand: where each begins, and how long it is.

    `is_sent`: which count; None: all.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    is_sent: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, values: "pa.Array | Texts") -> "Texts":
        """The values of an array. Null doesn't count."""
        if isinstance(values, Texts):
            return values
        is_sent = values.is_valid().to_numpy(zero_copy_only=False) if values.null_count else None
        values = values.cast(pa.binary()).fill_null(b"")
        _, offsets, data = values.buffers()
        ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
        content = np.zeros(int(ends[-1] - ends[0]) + PADDING, np.uint8)
        if data is not None:
            content[:-PADDING] = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
        return cls(content, ends[:-1] - ends[0], np.diff(ends), is_sent)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def longest(self) -> int:
        return int(self.lengths.max()) if len(self) else 0

    def each(self) -> Iterator[bytes]:
        data = self.data.tobytes()
        return (data[at : at + length] for at, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True))

    def array(self) -> pa.StringArray:
        """The texts, which are UTF-8, as an array. Whether they count is not in it."""
        head, rest = self._word(self.starts), self._word(np.minimum(self.starts + 4, len(self.data) - PADDING))
        views = np.empty((len(self), 2), np.uint64)  # of each its length, four bytes, and eight more or where it begins
        views[:, 0] = self.lengths.astype(np.uint64) | ((head & _MASKS[np.minimum(self.lengths, 4)]) << _HALF)
        rest &= _MASKS[np.clip(self.lengths - 4, 0, 8)]
        views[:, 1] = np.where(self.lengths > _INLINE, self.starts.astype(np.uint64) << _HALF, rest)
        buffers = [None, pa.py_buffer(views), pa.py_buffer(self.data)]
        return pc.cast(pa.Array.from_buffers(pa.string_view(), len(self), buffers), pa.string())

    def words(self) -> Iterator[tuple[NDArray[np.int64] | None, NDArray[np.uint64]]]:
        """The first words of 64 bits, the second ones, …, zeros behind the ends: the rows that have one (None: all)."""
        shortest = int(self.lengths.min()) if len(self) else 0
        for before in range(0, self.longest, 8):
            if shortest > before:
                rows, lengths, starts = None, self.lengths, self.starts
            else:
                rows = np.flatnonzero(self.lengths > before)
                lengths, starts = self.lengths[rows], self.starts[rows]
            word = self._word(starts + before)
            if shortest < before + 8:
                word &= _MASKS[np.minimum(lengths - before, 8)]
            yield rows, word

    def _word(self, places: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The words that begin at these bytes. The processor reads them wherever they stand."""
        count = len(self.data) - PADDING + 1
        at: NDArray[np.uint64] = np.ndarray((count,), "<u8", self.data.data, strides=(1,))
        return at[places]
