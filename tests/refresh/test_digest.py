"""Digests: equal for equal values, different for all others, whatever stands around them in a column."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.mapping.texts import Texts
from loader.refresh.digest import Digester, finish, nothing

SECRET = b"s" * 32
TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=40), st.binary(max_size=600).map(lambda raw: raw.hex())))


def of(texts: Sequence[str | None], name: str = "dept", secret: bytes = SECRET) -> list[tuple[int, ...]]:
    """The digests of values of one attribute."""
    return [
        tuple(each)
        for each in finish(Digester(secret).attribute(name, Texts.of(pa.array(texts, pa.string())))).tolist()
    ]


@given(TEXTS, TEXTS)
def test_equal_texts_have_equal_digests_and_others_have_others(
    before: list[str | None], texts: list[str | None]
) -> None:
    """Wherever they stand in a column, sliced or not, and whatever else is in it."""
    known = {text: of([text])[0] for text in dict.fromkeys([*before, *texts])}
    column = pa.array([*before, *texts, "tail"], pa.string())[len(before) : len(before) + len(texts)]
    found = [tuple(each) for each in finish(Digester(SECRET).attribute("dept", Texts.of(column))).tolist()]

    assert found == [known[text] for text in texts]
    assert len(set(known.values())) == len(known)


@pytest.mark.parametrize("text", ["", "a", "12345678", "x" * 256, "x" * 257, "é" * 200])
def test_zeros_behind_a_text_are_not_nothing(text: str) -> None:
    found = of([text, text + "\0", text + "\0" * 8, None])

    assert len(set(found)) == 4


def test_a_digest_depends_on_the_secret_and_on_the_attribute() -> None:
    assert len({of(["x"])[0], of(["x"], "site")[0], of(["x"], secret=b"t" * 32)[0]}) == 3


def test_nothing_is_added_for_what_is_not_sent() -> None:
    sums = Digester(SECRET).attribute("dept", Texts.of(pa.array([None, None], pa.string())))

    assert (sums == nothing(2)).all()


def test_the_order_of_attributes_does_not_matter_but_which_has_which_value() -> None:
    digester = Digester(SECRET)

    def both(**values: str) -> tuple[int, ...]:
        sums = nothing(1)
        for name, value in values.items():
            sums += digester.attribute(name, Texts.of(pa.array([value], pa.string())))
        return tuple(finish(sums)[0].tolist())

    assert both(a="1", b="2") == both(b="2", a="1")
    assert both(a="1", b="2") != both(a="2", b="1")


def test_keys_and_attributes_share_no_numbers() -> None:
    digester = Digester(SECRET)

    assert (digester.keys(pa.array(["x"])) != finish(digester.attribute("", Texts.of(pa.array(["x"]))))).all()


def test_digests_are_the_same_for_good() -> None:
    """A state file holds them: to change them is to raise digest.VERSION."""
    assert of(["Sales", "x" * 300]) == [
        (2459783688788956717, 18142014697476819164),
        (8039888849592287938, 10460136639795981352),
    ]


def test_all_bits_of_all_halves_vary() -> None:
    """As they would if chance had drawn them: of 20,000 texts that differ little, each bit is set in about half."""
    texts = pa.array([f"user{number}@example.com" for number in range(20_000)])
    found = Digester(SECRET).keys(texts)
    shares = [((found[:, half] >> np.uint64(bit)) & np.uint64(1)).mean() for half in (0, 1) for bit in range(64)]

    assert min(shares) > 0.47
    assert max(shares) < 0.53
    assert len(np.unique(found[:, 0])) == len(np.unique(found[:, 1])) == 20_000
