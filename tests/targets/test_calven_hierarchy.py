"""Calven's group hierarchy, against its page "Submit group hierarchy relationships" and the overview's rules."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from loader.batch import Batch
from loader.outcome import Code, Result
from loader.targets import BUILT_IN
from loader.targets.calven import HIERARCHY, CalvenHierarchy
from loader.verdict import Answer, Do
from tests import make

#: The page's example, word for word.
EXAMPLE = """{
    "groupRelationships": [
        {
            "group": "Channel Marketing",
            "groupType": "Department",
            "parent": "Marketing",
            "parentType": "Division"
        },
        {
            "group": "Marketing",
            "groupType": "Division",
            "parent": null,
            "parentType": null
        }
    ]
}"""


class Line(NamedTuple):
    """A row of an export: a group and its parent."""

    group: Any
    kind: Any = "Team"
    parent: Any = None
    parent_kind: Any = None


def hierarchy(auth: str = "hmac", **options: Any) -> CalvenHierarchy:
    return CalvenHierarchy(auth=auth, **options)


def record(line: Line) -> bytes:
    fields = {"groupType": line.kind, "parent": line.parent, "parentType": line.parent_kind}
    return HIERARCHY.record(line.group, json.dumps(fields).encode())


def batch(lines: Sequence[Line]) -> Batch:
    return Batch(range(1, len(lines) + 1), [line.group for line in lines], list(map(record, lines)))


def places(lines: Sequence[Line]) -> dict[str, list[str]]:
    """What is wrong, and where."""
    found = hierarchy().faults(batch(lines))
    assert len({fault.what for fault in found}) == len(found), "each kind is told once"
    return {fault.what: list(fault.places) for fault in found}


def child(group: str, parent: str) -> Line:
    return Line(group, "Team", parent, "Team")


# Requests and answers


def test_the_page_s_example_is_sent_as_it_stands() -> None:
    """One PUT, the fields in the page's order."""
    lines = [Line("Channel Marketing", "Department", "Marketing", "Division"), Line("Marketing", "Division")]

    (request,) = hierarchy().encode(batch(lines))

    assert (request.method, request.path) == ("PUT", "/v1/directory/group-hierarchy-relationship")
    assert request.headers == {"Content-Type": "application/json"}
    assert request.users == 2
    assert request.body == json.dumps(json.loads(EXAMPLE), separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"auth": "basic"}, "/v1/directory/group-hierarchy-relationship/basic"),
        ({"auth": "client-secret"}, "/v1/directory/group-hierarchy-relationship"),
        ({"auth": "bearer"}, "/v1/directory/group-hierarchy-relationship"),
        ({"auth": "basic", "path": "/v2/x"}, "/v2/x"),
    ],
)
def test_the_basic_path_has_a_suffix(options: dict[str, Any], path: str) -> None:
    """Unless the setting says where; it isn't documented."""
    assert hierarchy(**options).encode(batch([Line("a")]))[0].path == path


def test_a_region_goes_with_the_request_and_makes_it_another_hierarchy() -> None:
    """As with the API's other operation."""
    target = hierarchy(region="ause1")

    assert target.encode(batch([Line("a")]))[0].headers["x-calven-region"] == "ause1"
    assert target.identity() == {"region": "ause1"}
    assert hierarchy().identity() == {}


@pytest.mark.parametrize(
    "attributes",
    [
        b'{"groupType":"T","parent":null,"parentType":null}',
        b'{"groupType":"T","parent":"","parentType":""}',
        b'{"groupType":"T","parentType":null}',
        b'{"groupType":"T"}',
        b'{"parentType":"","groupType":"T"}',
    ],
)
def test_a_parent_that_is_not_there_is_null(attributes: bytes) -> None:
    """Absent, empty or null: all four fields are sent, in the page's order."""
    sent = Batch([1], ["a"], [HIERARCHY.record("a", attributes)])

    assert hierarchy().faults(sent) == []
    assert hierarchy().encode(sent)[0].body == (
        b'{"groupRelationships":[{"group":"a","groupType":"T","parent":null,"parentType":null}]}'
    )


def test_texts_are_sent_byte_for_byte() -> None:
    """Escapes, spaces and all."""
    values = rb'"groupType":" T\u0041 ","parent":"\"\\\u00e9\ud83d\ude00 ","parentType":"\n"'

    (request,) = hierarchy().encode(Batch([1], ["a"], [b'{"group":"\xc3\xa9 ",' + values + b"}"]))

    assert request.body == b'{"groupRelationships":[{"group":"\xc3\xa9 ",' + values + b"}]}"


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize("body", [b"", b"OK", b'{"ok":true}'])
def test_any_2xx_is_success_for_every_group(status: int, body: bytes) -> None:
    """The page lists 204, which has no body."""
    verdict = hierarchy().read(batch([Line("a"), Line("b")]), [make.response(body, status)])

    assert verdict == Answer([Result(Code.SUCCESS)] * 2)


def test_a_web_page_is_no_answer() -> None:
    """A proxy's or a sign-in's may come with 200, and nothing was taken."""
    assert hierarchy().read(batch([Line("a")]), [make.response(b"<html>Welcome")]) is Do.AGAIN


@pytest.mark.parametrize(
    ("status", "do"),
    [(400, Do.SPLIT), (401, Do.RENEW), (403, Do.STOP), (413, Do.SHRINK), (429, Do.WAIT), (500, Do.AGAIN)],
)
def test_other_answers_mean_what_their_status_says(status: int, do: Do) -> None:
    """The documentation lists 401 alone."""
    assert hierarchy().read(batch([Line("a")]), [make.response(b"", status)]) is do


# What is refused


@pytest.mark.parametrize(
    ("lines", "what", "where"),
    [
        (
            [child("a", "b"), child("b", "a")],
            "a circle of parents",
            ["'a' (Team) → 'b' (Team) → 'a' (Team): rows 1, 2"],
        ),
        ([child("a", "a")], "a circle of parents", ["'a' (Team) → 'a' (Team): row 1"]),
        (
            [Line("r"), child("x", "c"), child("c", "b"), child("b", "a"), child("a", "c")],
            "a circle of parents",
            ["'c' (Team) → 'b' (Team) → 'a' (Team) → 'c' (Team): rows 3, 4, 5"],
        ),
        (
            [child("a", "a"), child("b", "c"), child("c", "b")],
            "a circle of parents",
            ["'a' (Team) → 'a' (Team): row 1", "'b' (Team) → 'c' (Team) → 'b' (Team): rows 2, 3"],
        ),
        (
            [Line("a"), Line("b"), child("c", "a"), child("c", "b")],
            "a group with two parents",
            ["'c' (Team): under 'a' (Team) in row 3, under 'b' (Team) in row 4"],
        ),
        (
            [Line("a"), child("c", "a"), Line("c")],
            "a group with two parents",
            ["'c' (Team): under 'a' (Team) in row 2, at the top in row 3"],
        ),
        ([Line("a"), child("b", "a"), child("b", "a")], "the same line twice", ["'b' (Team): rows 2, 3"]),
        (
            [Line("a"), child("b", "z")],
            "a parent that is no group of the export",
            ["row 2: 'b' (Team) is under 'z' (Team)"],
        ),
        (
            [Line("Sales & Co"), child("b", " sales  & co")],
            "a parent that is no group of the export",
            ["row 2: 'b' (Team) is under ' sales  & co' (Team); did you mean 'Sales & Co' (Team)?"],
        ),
        (
            [Line("a", "Division"), child("b", "a")],
            "a parent that is no group of the export",
            ["row 2: 'b' (Team) is under 'a' (Team); did you mean 'a' (Division)?"],
        ),
        (
            [Line("a"), Line("b", "Team", "a", None)],
            "only one of parent and parentType",
            ["row 2: 'b' (Team) has the parent 'a' without its type"],
        ),
        (
            [Line("a"), Line("b", "Team", "", "Team")],
            "only one of parent and parentType",
            ["row 2: 'b' (Team) has the parentType 'Team' without a parent"],
        ),
        ([Line("a", "")], "no groupType", ["row 1: 'a'"]),
        ([Line("a", " ")], "no groupType", ["row 1: 'a'"]),
        ([Line("a", None)], "no groupType", ["row 1: 'a'"]),
        ([Line("a"), Line("b", 7)], "a field that is not text", ["row 2: groupType is 7"]),
        ([Line("a", "T", ["x"], "T")], "a field that is not text", ['row 1: parent is ["x"]']),
    ],
)  # fmt: skip
def test_each_defect_is_named_with_its_rows(lines: list[Line], what: str, where: list[str]) -> None:
    """And nothing else is."""
    assert places(lines) == {what: where}


def test_all_defects_are_told_at_once() -> None:
    """So that an export is corrected once."""
    lines = [Line("a"), Line("a"), child("a", "x"), child("b", "b"), Line("c", ""), Line("d", "T", "a"), Line("e", 1)]

    assert set(places(lines)) == {
        "a field that is not text",
        "no groupType",
        "only one of parent and parentType",
        "a group with two parents",
        "the same line twice",
        "a parent that is no group of the export",
        "a circle of parents",
    }


def test_a_long_circle_and_many_rows_are_cut_short() -> None:
    """A message is for people."""
    names = [f"g{at}" for at in range(1000)]
    circle = [child(name, after) for name, after in zip(names, [*names[1:], "g0"], strict=True)]

    (shown,) = places(circle)["a circle of parents"]

    assert shown == (
        "'g0' (Team) → 'g1' (Team) → 'g2' (Team) → 'g3' (Team) → 'g4' (Team) → 995 more → 'g0' (Team): "
        "rows 1, 2, 3, 4, 5 and 995 more"
    )


def test_groups_of_different_type_may_have_one_name() -> None:
    """Name and type together tell a group from the others, and one may be the other's parent."""
    lines = [Line("Ops", "Division"), Line("Ops", "Department", "Ops", "Division")]

    assert places(lines) == {}
    assert len({hierarchy().label(record(line)) for line in lines}) == 2


def test_a_deep_hierarchy_is_judged_as_any_other() -> None:
    """A chain of 20,000 groups, which no recursion would survive."""
    lines = [Line("g0"), *(child(f"g{at}", f"g{at - 1}") for at in range(1, 20_000))]

    assert places(lines[::-1]) == {}
    assert hierarchy().figures(batch(lines[::-1])) == {"groups": 20_000, "roots": 1, "levels": 20_000}


@pytest.mark.parametrize("record", [b"", b"{}", b"[]", b'{"group":1,"groupType":"T"}', b'{"group":"a"}', b"\xff"])
def test_what_is_no_record_has_no_label(record: bytes) -> None:
    """As in a file that is damaged."""
    with pytest.raises(ValueError, match=r"."):
        hierarchy().label(record)


# Properties

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4).filter(str.strip)


@st.composite
def forests(draw: st.DrawFn, min_groups: int = 1) -> list[Line]:
    """Rows of a sound hierarchy, in any order."""
    groups = draw(st.lists(st.tuples(NAMES, NAMES), min_size=min_groups, max_size=12, unique=True))
    lines = [Line(*groups[0])]
    for at, group in enumerate(groups[1:], 1):
        parent = draw(st.none() | st.integers(0, at - 1))
        lines.append(Line(*group, *(groups[parent] if parent is not None else (None, None))))
    return draw(st.permutations(lines))


@given(forests())
def test_a_forest_is_accepted(lines: list[Line]) -> None:
    """And counted: a level more than the parent's, which for a root is 1."""
    above = {(line.group, line.kind): (line.parent, line.parent_kind) for line in lines}

    def level(group: tuple[str, str]) -> int:
        return 1 + level(above[group]) if group in above else 0

    assert places(lines) == {}
    assert hierarchy().figures(batch(lines)) == {
        "groups": len(lines),
        "roots": sum(line.parent is None for line in lines),
        "levels": max(map(level, above)),
    }
    sent = json.loads(hierarchy().encode(batch(lines))[0].body)["groupRelationships"]
    assert [tuple(each.values()) for each in sent] == lines


def circle(lines: list[Line], at: int, draw: Callable[[Any], Any]) -> str:
    """Its root gets it, or one below it, as a parent."""
    by_group = {(line.group, line.kind): line for line in lines}
    root = below = lines[at]
    while root.parent is not None:
        root = by_group[root.parent, root.parent_kind]
    lines[lines.index(root)] = root._replace(parent=below.group, parent_kind=below.kind)
    return "a circle of parents"


def second_parent(lines: list[Line], at: int, draw: Callable[[Any], Any]) -> str:
    """A root stands below another group, too, or another below none."""
    line = lines[at]
    others = [other for other in lines if (other.group, other.kind) != (line.parent, line.parent_kind)]
    parent = draw(st.sampled_from(others)) if line.parent is None else None
    lines.append(line._replace(parent=parent and parent.group, parent_kind=parent and parent.kind))
    return "a group with two parents"


def repeated(lines: list[Line], at: int, draw: Callable[[Any], Any]) -> str:
    lines.append(lines[at])
    return "the same line twice"


def missing_parent(lines: list[Line], at: int, draw: Callable[[Any], Any]) -> str:
    line = lines[at]
    known = {(line.group, line.kind) for line in lines}
    parent = draw(st.tuples(NAMES, NAMES).filter(lambda group: group not in known))
    lines[at] = Line(line.group, line.kind, *parent)
    return "a parent that is no group of the export"


def half_a_parent(lines: list[Line], at: int, draw: Callable[[Any], Any]) -> str:
    parent = draw(st.sampled_from([("x", None), ("x", ""), (None, "x"), ("", "x")]))
    lines[at] = Line(lines[at].group, lines[at].kind, *parent)
    return "only one of parent and parentType"


def no_type(lines: list[Line], at: int, draw: Callable[[Any], Any]) -> str:
    lines[at] = lines[at]._replace(kind=draw(st.sampled_from([None, "", " ", "\n"])))
    return "no groupType"


def no_text(lines: list[Line], at: int, draw: Callable[[Any], Any]) -> str:
    field = draw(st.sampled_from(["kind", "parent", "parent_kind"]))
    lines[at] = lines[at]._replace(**{field: draw(st.sampled_from([1, 0, True, False, [], {}]))})
    return "a field that is not text"


DEFECTS = [circle, second_parent, repeated, missing_parent, half_a_parent, no_type, no_text]


@pytest.mark.parametrize("spoil", DEFECTS)
@given(data=st.data())
def test_a_forest_with_any_one_defect_is_refused_and_the_defect_named(
    spoil: Callable[[list[Line], int, Callable[[Any], Any]], str], data: st.DataObject
) -> None:
    """With the number of a row that has it."""
    sound = data.draw(forests())
    lines = list(sound)
    at = data.draw(st.integers(0, len(lines) - 1))

    what = spoil(lines, at, data.draw)

    changed = [number for number, line in enumerate(lines, 1) if number > len(sound) or line is not sound[number - 1]]
    found = places(lines)
    assert what in found
    assert any(str(changed[0]) in place for place in found[what])


# Settings


@pytest.mark.parametrize("name", ["expect", "missing_result", "write", "result_codes", "max_user"])
def test_what_has_no_meaning_here_is_no_setting(name: str) -> None:
    """It isn't taken in silence."""
    with pytest.raises(ValidationError, match=name):
        hierarchy(**{name: "merge"})


@pytest.mark.parametrize("share", ["10", "-1%", "%", "x%", 10, ""])
def test_max_shrink_is_a_share(share: object) -> None:
    """As text, such as "2.5%"."""
    with pytest.raises(ValidationError, match="is not a share such as"):
        hierarchy(max_shrink=share)
    assert hierarchy(max_shrink="2.5%").max_shrink == "2.5%"


def test_it_is_found_by_its_name() -> None:
    """As `[target] api` gives it."""
    assert BUILT_IN["calven-hierarchy"] is CalvenHierarchy
