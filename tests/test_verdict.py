"""The table of design §7: what a status means where the body says nothing."""

import pytest

from loader.verdict import Do, by_status, is_page, way_out, words
from tests import make


@pytest.mark.parametrize(
    ("status", "do"),
    [
        (200, Do.AGAIN),
        (204, Do.AGAIN),
        (301, Do.STOP),
        (302, Do.STOP),
        (400, Do.SPLIT),
        (401, Do.RENEW),
        (403, Do.STOP),
        (404, Do.STOP),
        (405, Do.STOP),
        (408, Do.AGAIN),
        (413, Do.SHRINK),
        (415, Do.STOP),
        (422, Do.SPLIT),
        (425, Do.AGAIN),
        (429, Do.WAIT),
        (500, Do.AGAIN),
        (502, Do.AGAIN),
        (503, Do.AGAIN),
        (504, Do.AGAIN),
        (599, Do.AGAIN),
    ],
)
def test_every_status_has_a_meaning(status: int, do: Do) -> None:
    """A 2xx gets here only if it could not be read."""
    assert by_status(make.response(status=status)) is do


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"<!doctype html><title>Welcome</title>", True),
        (b"<!DOCTYPE HTML PUBLIC>", True),
        (b"\xef\xbb\xbf \r\n<html lang=en>", True),
        (b"", False),
        (b"{}", False),
        (b"<ok/>", False),
        (b'{"page": "<html>"}', False),
    ],
)
def test_a_web_page_is_told_from_an_answer(body: bytes, expected: bool) -> None:
    """By how it begins: headers can't be relied on."""
    assert is_page(make.response(body)) is expected


def test_a_503_that_says_when_is_a_wait() -> None:
    """It slows the lane, and costs no attempt; other statuses with the header don't."""
    assert by_status(make.response(status=503, retry_after="5")) is Do.WAIT
    assert by_status(make.response(status=500, retry_after="5")) is Do.AGAIN


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "HTTP 500"),
        (b" \n ", "HTTP 500"),
        (b"a\n\tb\x1b[31m\x00c", "HTTP 500: a b [31m c"),
        (b"\xff", "HTTP 500: \ufffd"),
        (b"x" * 400, "HTTP 500: " + "x" * 299 + "…"),
        ("é" * 100_000, 'HTTP 500: "' + "\\u00e9" * 49 + "\\u00…"),
    ],
)
def test_a_responses_words_are_one_printable_line(body: object, expected: str) -> None:
    """Whatever the server sent: it goes to a terminal and into the checkpoint."""
    assert words(make.response(body, 500)) == expected


def test_a_redirect_says_where_to() -> None:
    """It isn't followed, as the credentials would travel along."""
    assert "redirect to https://x.example/, not followed" in words(
        make.response(b"", 302, location="https://x.example/")
    )


def test_words_are_one_printable_line_whatever_the_answer_holds() -> None:
    """The address of a redirect is somebody else's text, too."""
    assert (
        words(make.response(b"a\n\x1bb", 302, location="/x\x05\r\n")) == "HTTP 302: redirect to /x , not followed a b"
    )


@pytest.mark.parametrize(
    ("status", "named"), [(401, "[target.auth]"), (403, "right"), (404, "target.base_url"), (301, "target.base_url")]
)
def test_refusals_name_a_way_out(status: int, named: str) -> None:
    assert named in way_out(make.response(status=status))


@pytest.mark.parametrize("status", [200, 400, 413, 429, 500, 503])
def test_what_nobody_can_mend_names_none(status: int) -> None:
    assert way_out(make.response(status=status)) == ""
