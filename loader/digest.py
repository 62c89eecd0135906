"""Keys and values as digests of 128 bits, a whole column at a time.

The hash is multilinear and keyed (MULTILINEAR-HM in Lemire and Kaser, "Strongly universal string hashing is fast",
2014): a text is cut into words of 32 bits, to each a random number of 64 bits that belongs to its place is added, the
sums are multiplied in pairs, and of the sum of these, modulo 2**64, the upper half counts. Two different texts have the
same half with a chance of 2**-32, whatever they are, as long as whoever chose them does not know the numbers. Four such
halves, of numbers of their own, make the digest: 2**-128.

The numbers come from a secret that is drawn anew with each state file. As the sums of attributes are added up, the
digest of a user does not depend on the attributes' order, and attributes can be put together that stand in rows far
apart.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

#: What the digests in a state file depend on, besides its secret. To change how they are made is to raise it.
VERSION = 1

SECRET_BYTES = 32

#: For each row four sums: shape (4, rows).
Sums = NDArray[np.uint64]
#: For each row the digest's two halves: shape (rows, 2).
Digests = NDArray[np.uint64]

_LANES = 4
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
#: Of a text's last word, so many bytes are its own.
_MASKS = np.array([(1 << (8 * count)) - 1 for count in range(9)], np.uint64)

#: Texts of more bytes are hashed one by one before (BLAKE2b, keyed): each place would need numbers of its own.
_LONG = 256


class Digester:
    """Makes digests with one secret. Any number of threads may use it."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._numbers: dict[str, NDArray[np.uint64]] = {}

    def keys(self, users: pa.StringArray) -> Digests:
        """The digests of users' keys."""
        return finish(self.sums("", users))  # no attribute's: those have a prefix

    def attribute(self, name: str, values: pa.Array) -> Sums:
        """What the values of an attribute add to the sums of their rows; nothing where they are null."""
        return self.sums("=" + name, values)

    def sums(self, name: str, values: pa.Array) -> Sums:
        """The four sums of each text, with the numbers of `name`."""
        missing = pc.is_null(values).to_numpy(zero_copy_only=False) if values.null_count else None
        lengths, words = self._words(values)
        numbers = self._numbers_of(name, len(words))
        told = lengths.astype(np.uint64) + np.uint64(1)  # so that "" is not nothing, and "a" not "a" and a zero
        if missing is not None:
            told[missing] = 0
        # All lanes at a time: few long calls, as each lets go of Python's lock and has to wait for it again.
        found: Sums = told * numbers[0, :_LANES, None]
        for place, (rows, word) in enumerate(words.each(), 1):
            part = (word & _LOW) + numbers[place, 0::2, None]
            part *= (word >> _HALF) + numbers[place, 1::2, None]
            if rows is None:
                found += part
            else:
                found[:, rows] += part
        return found

    def _words(self, values: pa.Array) -> "tuple[NDArray[np.int64], _Words]":
        """The length of each text, and its words of 64 bits. Of long texts the words are a hash's."""
        values = values.cast(pa.binary()).fill_null(b"")
        lengths = pc.binary_length(values).to_numpy(zero_copy_only=False).astype(np.int64)
        if len(lengths) and lengths.max() > _LONG:
            texts = values.to_pylist()
            for at in np.flatnonzero(lengths > _LONG).tolist():
                texts[at] = hashlib.blake2b(texts[at], digest_size=32, key=self._secret).digest()
            values = pa.array(texts, pa.binary())
        return lengths, _Words(values)

    def _numbers_of(self, name: str, words: int) -> NDArray[np.uint64]:
        """Random numbers for the length and for so many words: eight each, always the same."""
        known = self._numbers.get(name)
        if known is None or len(known) <= words:
            seed = self._secret + name.encode("utf-8", "surrogatepass")
            count = max(words + 1, 8)
            stream = hashlib.shake_128(seed).digest(count * 2 * _LANES * 8)
            known = np.frombuffer(stream, "<u8").reshape(count, 2 * _LANES)
            self._numbers[name] = known
        return known


class _Words:
    """The texts of a column as words of 64 bits, zeros behind their ends."""

    def __init__(self, values: pa.BinaryArray) -> None:
        _, offsets, data = values.buffers()
        ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
        self._starts = ends[:-1] - ends[:1]
        self._own = np.diff(ends)
        content = np.zeros(int(ends[-1] - ends[0]) + 8, np.uint8)
        if data is not None:
            content[:-8] = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
        # One word for each byte: those that begin there. The processor reads them wherever they stand.
        self._at: NDArray[np.uint64] = np.ndarray((len(content) - 7,), "<u8", content.data, strides=(1,))

    def __len__(self) -> int:
        """Words of the longest text."""
        return (int(self._own.max()) + 7) // 8 if len(self._own) else 0

    def each(self) -> Iterator[tuple[NDArray[np.int64] | None, NDArray[np.uint64]]]:
        """The first words, the second ones, …: the rows that have one (None: all), and the words."""
        shortest = int(self._own.min()) if len(self._own) else 0
        for place in range(len(self)):
            before = 8 * place
            if shortest > before:
                rows, own, starts = None, self._own, self._starts
            else:
                rows = np.flatnonzero(self._own > before)
                own, starts = self._own[rows], self._starts[rows]
            word = self._at[starts + before]
            if shortest < before + 8:
                word &= _MASKS[np.minimum(own - before, 8)]
            yield rows, word


def nothing(rows: int) -> Sums:
    """The sums of rows without attributes."""
    return np.zeros((_LANES, rows), np.uint64)


def finish(sums: Sums) -> Digests:
    """Digests from sums: the upper half of each."""
    upper = sums >> _HALF
    return np.stack([(upper[0] << _HALF) | upper[1], (upper[2] << _HALF) | upper[3]], axis=1)
