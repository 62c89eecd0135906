"""What others wrote, on one line and harmless."""

from hypothesis import given
from hypothesis import strategies as st

from loader.plain import plain


@given(st.text())
def test_whatever_it_was_can_be_shown(text: str) -> None:
    found = plain(text)

    assert found.isprintable()
    assert found == plain(found)


def test_what_can_be_shown_stays_as_it_is() -> None:
    assert plain("Zoë, 東京 \N{PARTY POPPER}: no such user") == "Zoë, 東京 \N{PARTY POPPER}: no such user"


def test_what_does_something_to_a_terminal_is_seen_to_have_been_there() -> None:
    assert plain("a\x1b[2Jb\x9bc\u202ed\r\n\te\x00") == "a�[2Jb�c�d e�"
