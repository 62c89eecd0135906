"""Texts are the same wherever they stand."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from loader.mapping.texts import PADDING, Texts

TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=30)))


def scattered(texts: list[str]) -> Texts:
    """Texts that stand in something else."""
    data, starts = b"", []
    for text in texts:
        data += b"#,"
        starts.append(len(data))
        data += text.encode()
    lengths = [len(text.encode()) for text in texts]
    return Texts(
        np.frombuffer(data + bytes(PADDING), np.uint8), np.array(starts, np.int64), np.array(lengths, np.int64)
    )


def words(texts: Texts) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(len(texts))]
    for rows, word in texts.words():
        for row, each in zip(range(len(texts)) if rows is None else rows.tolist(), word.tolist(), strict=True):
            found[row].append(each)
    return found


@given(TEXTS, st.integers(0, 3))
def test_an_array_comes_back(texts: list[str | None], skip: int) -> None:
    column = pa.array(texts, pa.string())[skip:]
    found = Texts.of(column)

    assert found.array().to_pylist() == [text or "" for text in texts[skip:]]
    assert list(found.each()) == [(text or "").encode() for text in texts[skip:]]
    is_sent = [True] * len(found) if found.is_sent is None else found.is_sent.tolist()
    assert is_sent == [text is not None for text in texts[skip:]]


@given(st.lists(st.text(max_size=30)))
def test_texts_between_others_are_the_same(texts: list[str]) -> None:
    found = scattered(texts)

    assert found.array().to_pylist() == texts
    assert words(found) == words(Texts.of(pa.array(texts, pa.string())))


def test_words_end_with_their_text() -> None:
    assert words(scattered(["", "a", "12345678", "123456789"])) == [
        [],
        [ord("a")],
        [int.from_bytes(b"12345678", "little")],
        [int.from_bytes(b"12345678", "little"), ord("9")],
    ]
