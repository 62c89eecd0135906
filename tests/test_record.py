"""Records and bodies as bytes: built once, measured before they exist, merged without a value re-encoded."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.record import Frame, Names, Records, json_string
from tests import make

FRAME = Frame("userAttributes", "userName", "attributes")
TEXT = st.text(max_size=8)
RECORDS = st.lists(st.tuples(TEXT, st.dictionaries(TEXT, TEXT, max_size=3)), max_size=5)


@given(RECORDS)
def test_a_body_is_json_of_the_size_foretold(records: list[tuple[str, dict[str, str]]]) -> None:
    """The batcher reckons with body_bytes, so it is exact."""
    made = [make.record(user, FRAME, **attributes) for user, attributes in records if attributes]
    body = FRAME.body(made)

    assert len(body) == FRAME.body_bytes(len(made), sum(map(len, made)))
    assert json.loads(body) == {
        "userAttributes": [{"userName": user, "attributes": values} for user, values in records if values]
    }


@given(TEXT)
def test_any_text_is_a_json_string(text: str) -> None:
    """Keys and names come as they like."""
    assert json.loads(json_string(text)) == text


def test_a_lone_surrogate_has_no_json_form() -> None:
    """It can't be sent as UTF-8, and says so as text that can't be encoded."""
    with pytest.raises(UnicodeEncodeError, match="a surrogate stands alone"):
        json_string("\ud800")


def test_merging_takes_the_last_value_byte_for_byte() -> None:
    """Numbers keep their digits, names their order, null is a value."""
    earlier = FRAME.record("ann", b'{"a":1.50,"b":1e400,"c":"\\u00e9"}')
    later = FRAME.record("ann", b'{"b":null,"d":123456789012345678901234567890}')

    merged = FRAME.merge("ann", earlier, later)

    assert merged == FRAME.record("ann", b'{"a":1.50,"b":null,"c":"\\u00e9","d":123456789012345678901234567890}')
    assert FRAME.attributes_of(later) == {"b": b"null", "d": b"123456789012345678901234567890"}


@pytest.mark.parametrize(
    ("frame", "record", "body"),
    [
        (Frame("users", "id", None), b'{"id":"ann","a":1.50,"b":null}', b'{"users":[{"id":"ann","a":1.50,"b":null}]}'),
        (Frame(None, "id", None), b'{"id":"ann","a":1.50,"b":null}', b'{"id":"ann","a":1.50,"b":null}'),
        (Frame(None, "id", "x"), b'{"id":"ann","x":{"a":1.50,"b":null}}', b'{"id":"ann","x":{"a":1.50,"b":null}}'),
    ],
)
def test_a_record_may_be_flat_and_a_body_may_be_one_record(frame: Frame, record: bytes, body: bytes) -> None:
    made = frame.record("ann", b'{"a":1.50,"b":null}')

    assert made == record
    assert frame.body([made]) == body
    assert len(body) == frame.body_bytes(1, len(made))
    assert frame.attributes_of(made) == {"a": b"1.50", "b": b"null"}
    assert frame.merge("ann", made, frame.record("ann", b'{"b":2}')) == made.replace(b"null", b"2")


def test_records_may_be_longer_in_a_body_of_another_form() -> None:
    """By so many bytes each, as the target estimates."""
    assert Frame(overhead=10).body_bytes(3, 100) == Frame().body_bytes(3, 100) + 30


@pytest.mark.parametrize(
    ("names", "sent", "complaint"),
    [
        (Names(), ["a", "A"], None),
        (Names(frozenset({"dept", "site"})), ["site", "dept"], None),
        (
            Names(frozenset({"dept", "site"})),
            ["dpt"],
            "'dpt' is not one of those that target.expect lists; did you mean",
        ),
        (Names(reserved=frozenset({"id"})), ["a", "id"], "'id' has the name of a field that the target gives"),
        (Names(fold_case=True), ["Dept", "site", "dept"], "'Dept' and 'dept' differ in case alone"),
        (Names(fold_case=True), ["Dept", "Dept"], None),
    ],
)
def test_names_that_may_not_be_sent_are_told(names: Names, sent: list[str], complaint: str | None) -> None:
    found = names.complaint(sent)

    assert (found is None) is (complaint is None)
    assert (complaint or "") in (found or "")
    assert bool(names) is (names != Names())


# Records in one piece of memory

PIECES = st.lists(st.binary(max_size=5), max_size=8)


@given(PIECES, st.slices(8), st.sets(st.integers(0, 7)))
def test_records_in_one_piece_are_a_list_of_them(pieces: list[bytes], part: slice, gone: set[int]) -> None:
    """Sliced, thinned out, measured and joined."""
    records = Records.of(pieces)
    left = [piece for at, piece in enumerate(pieces) if at not in gone]

    assert records == pieces
    assert (len(records), [records[at] for at in range(len(pieces))]) == (len(pieces), pieces)
    assert records[part] == pieces[part]
    assert bytes(records[part].inside) == b",".join(pieces[part])
    assert records.without({at for at in gone if at < len(pieces)}) == left
    assert bytes(records.without({at for at in gone if at < len(pieces)}).inside) == b",".join(left)
    assert [records.n_bytes(count) for count in range(len(pieces) + 1)] == [
        sum(map(len, pieces[:count])) for count in range(len(pieces) + 1)
    ]
    assert FRAME.body(records) == FRAME.body(pieces)


@given(PIECES, st.slices(8), st.slices(8))
def test_a_view_of_a_view_is_one(pieces: list[bytes], first: slice, second: slice) -> None:
    """As halves of halves are, when a batch is split."""
    assert Records.of(pieces)[first][second] == pieces[first][second]
