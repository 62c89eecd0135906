"""Answers like one before are known by their bytes, and by nothing less."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loader.echo import Echo
from loader.outcome import Code, Result

GOOD = Result(Code.SUCCESS, "0")
NAMES = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), min_size=3, max_size=8, unique=True)


def answer(users: list[str], **more: object) -> bytes:
    results = [{"userName": user, "resultCode": 0, **more} for user in users]
    return json.dumps({"results": results}, ensure_ascii=False).encode()


def learnt(users: list[str], body: bytes | None = None) -> Echo:
    echo = Echo()
    echo.learn(users, answer(users) if body is None else body, GOOD)
    return echo


@given(NAMES, NAMES)
def test_what_it_knows_is_what_json_says(before: list[str], users: list[str]) -> None:
    """Of any names, those that JSON writes in another way among them."""
    if learnt(before).read(users, answer(users)) is not None:
        assert [item["userName"] for item in json.loads(answer(users))["results"]] == users


@given(st.lists(st.from_regex(r"[a-z@.é]{1,9}", fullmatch=True), min_size=3, max_size=9, unique=True))
def test_ordinary_names_are_known(users: list[str]) -> None:
    """However many, and one alone: else it would be of no use."""
    assume(not set(users) & set("abc"))
    echo = learnt(["ann", "bob", "cid"])

    assert echo.read(users, answer(users)) == GOOD
    assert echo.read(users[:1], answer(users[:1])) == GOOD


@pytest.mark.parametrize(
    "body",
    [
        answer(["x", "z", "y"]),
        answer(["x", "y"]),
        answer(["x", "y", "z", "z"]),
        answer(["x", "y", "Z"]),
        answer(["x", "y", "z"]).replace(b"0", b"1", 1),
        answer(["x", "y", "z"]).replace(b"0}]", b"1}]"),
        answer(["x", "y", "z"]) + b" ",
        answer(["x", "y", "z"])[:-1],
        b"",
    ],
)
def test_anything_else_has_to_be_decoded(body: bytes) -> None:
    assert learnt(["ann", "bob", "cid"]).read(["x", "y", "z"], body) is None


@pytest.mark.parametrize("user", ['a","resultCode":0},{"userName":"b', "a\\u0062", "a\nb", 'a"'])
def test_a_name_that_json_writes_otherwise_stands_for_nobody_here(user: str) -> None:
    """As it is, it would be another name, or two."""
    body = answer(["@"]).replace(b"@", user.encode())

    assert learnt(["ann", "bob", "cid"]).read([user], body) is None


@pytest.mark.parametrize(
    ("users", "body"),
    [
        (["ann", "bob"], answer(["ann", "bob"])),  # what stands between may be about one of the two
        (
            ["ann", "bob", "cid"],
            b'{"results":[{"n":1,"userName":"ann"},{"n":2,"userName":"bob"},{"n":3,"userName":"cid"}]}',
        ),
        (["ann", "bob", "cid"], answer(["ann", "bob", "cid"]).replace(b"0", b"1", 1)),
        (["ann", "bob", "cid"], b'[{"m":"ann","u":"ann"},{"m":"bob","u":"bob"},{"m":"cid","u":"cid"}]'),
        (["ann", "bob", "cid"], b"ok"),
        (["ann", "bob", "cid"], b"\xff"),
    ],
)
def test_an_answer_that_differs_from_user_to_user_teaches_nothing(users: list[str], body: bytes) -> None:
    assert learnt(users, body).read(users, body) is None


def test_what_was_learnt_gives_way() -> None:
    """To the last answer that was decoded."""
    echo, users = learnt(["ann", "bob", "cid"]), ["x", "y", "z"]
    echo.learn(users, answer(users, message="later"), Result(Code.INVALID, "9"))

    assert echo.read(["q"], answer(["q"])) is None
    assert echo.read(["q"], answer(["q"], message="later")) == Result(Code.INVALID, "9")
