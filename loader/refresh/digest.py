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

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loader.mapping.texts import Texts

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

#: Texts of more bytes are hashed one by one before (BLAKE2b, keyed): each place would need numbers of its own.
_LONG = 256


class Digester:
    """Makes digests with one secret. Any number of threads may use it."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._numbers: dict[str, NDArray[np.uint64]] = {}

    def keys(self, users: "pa.StringArray | Texts") -> Digests:
        """The digests of users' keys."""
        return finish(self.sums("", Texts.of(users)))  # no attribute's: those have a prefix

    def attribute(self, name: str, values: Texts) -> Sums:
        """What the values of an attribute add to the sums of their rows; nothing where they aren't sent."""
        return self.sums("=" + name, values)

    def sums(self, name: str, values: Texts) -> Sums:
        """The four sums of each text, with the numbers of `name`."""
        told = values.lengths.astype(np.uint64) + np.uint64(1)  # so "" is not nothing, and "a" not "a" and a zero
        if values.is_sent is not None:
            told[~values.is_sent] = 0
        if values.longest > _LONG:
            values = self._shortened(values)
        numbers = self._numbers_of(name, (values.longest + 7) // 8)
        found: Sums = told * numbers[0, :_LANES, None]
        for place, (rows, word) in enumerate(values.words(), 1):
            part = (word & _LOW) + numbers[place, 0::2, None]
            part *= (word >> _HALF) + numbers[place, 1::2, None]
            if rows is None:
                found += part
            else:
                found[:, rows] += part
        return found

    def _shortened(self, values: Texts) -> Texts:
        """The texts with a hash in the place of each long one."""
        texts = (
            text if len(text) <= _LONG else hashlib.blake2b(text, digest_size=32, key=self._secret).digest()
            for text in values.each()
        )
        return Texts.of(pa.array(texts, pa.binary()))

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


def nothing(rows: int) -> Sums:
    """The sums of rows without attributes."""
    return np.zeros((_LANES, rows), np.uint64)


def finish(sums: Sums) -> Digests:
    """Digests from sums: the upper half of each."""
    upper = sums >> _HALF
    return np.stack([(upper[0] << _HALF) | upper[1], (upper[2] << _HALF) | upper[3]], axis=1)
