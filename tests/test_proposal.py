"""Settings that are proposed: the key, the names, the types, and a file that says why."""

import gzip
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.errors import ExportError, SettingsError
from loader.proposal import Proposal, attributes_of, candidate, candidates, fields_of, options_needed, toml
from loader.sample import Sample, look
from loader.targets import BUILT_IN, find


def sample(columns: Mapping[str, list[Any]], **more: Any) -> Sample:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return Sample(list(columns), rows, **{"kind": "text", **more})


MAILS = ["a@x.com", "b@x.com", "c@x.com"]


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ({"id": ["1", "2", "3"], "E-Mail": MAILS, "Dept": ["S", "S", "L"]}, "E-Mail"),
        ({"Manager Email": MAILS, "work_email": MAILS}, "work_email"),
        ({"Kontakt": MAILS, "id": ["1", "2", "3"]}, "Kontakt"),
        ({"Dept": ["S", "S", "L"], "login": ["ann", "bob", "cid"]}, "login"),
        ({"first": ["a", "b", "c"], "userName": ["d", "e", "f"]}, "userName"),
        ({"email": ["a@x.com", "", ""], "login": ["ann", "bob", "cid"]}, "login"),
        ({"user": ["", "", ""], "x": ["1", "1", "1"]}, "x"),
    ],
)
def test_the_key_is_different_in_each_row_and_looks_like_one(columns: dict[str, list[str]], key: str) -> None:
    assert candidates(sample(columns))[0].column == key


def test_without_rows_the_name_tells() -> None:
    assert [each.column for each in candidates(Sample(["Dept", "Mail"], [], kind="text"))] == ["Mail"]


def test_in_json_a_number_is_no_key() -> None:
    columns: dict[str, list[Any]] = {"n": [1, 2], "login": ["a", "b"]}

    assert [each.column for each in candidates(sample(columns, kind="json"))] == ["login"]
    assert {each.column for each in candidates(sample(columns, kind="columns"))} == {"n", "login"}


def test_a_key_that_is_not_sound_says_so() -> None:
    found = candidate(sample({"mail": ["a@x.com", "a@x.com", ""]}), "mail")

    assert "EMPTY in 1 of the first 3 rows" in found.why
    assert "1 of the first 3 rows are of users who came before" in found.why


def test_a_column_that_is_not_there_has_a_near_one() -> None:
    with pytest.raises(SettingsError, match="no column 'emial'; did you mean 'email'"):
        candidate(sample({"email": MAILS}), "emial")


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("Reports", ["3", "", "0"] * 10, "number"),
        ("Reports", ["3", "", "0"], "string"),
        ("Load", ["0.5", "-1.25"] * 10, "number"),
        ("Personalnummer", ["123"] * 20, "string"),
        ("Sum", ["123"] * 19, "string"),
        ("Sum", ["123"] * 19 + ["0123"], "string"),
        ("Active", ["TRUE", "false"], "boolean"),
        ("Active", ["yes", "no"], "string"),
        ("Cost Centre", ["100", "200"], "string"),
        ("Code", ["00123", "123"], "string"),
        ("Sum", ["00123", "123"], "string"),
        ("Sum", ["1.50", "2"], "string"),
        ("Sum", ["1,5"], "string"),
        ("Sum", ["1E5"], "string"),
        ("Sum", ["12345678901234567890"], "string"),
        ("Sum", ["", ""], "string"),
        ("Sum", ["3", "three"], "string"),
        ("Phone", ["43123"], "string"),
    ],
)
def test_a_type_is_proposed_only_if_nothing_is_lost(name: str, values: list[str], kind: str) -> None:
    (made,) = attributes_of(sample({name: values}), find("calven"), "email")

    assert made.type == kind
    assert made.why or kind == "string"


def test_a_guess_says_from_how_many_values() -> None:
    """A type that is guessed from few of them is not taken."""
    many, few, one, both = (
        attributes_of(sample({"Sum": values}), find("calven"), None)[0].why
        for values in (["1"] * 30, ["1", "2"], ["1"], ["true", "false"])
    )

    assert many == "guessed: all 30 values seen are numbers of which nothing is lost"
    assert few == "text, though all 2 values seen are numbers: too few to tell"
    assert one == "text, though the one value seen is a number: too few to tell"
    assert both == "guessed: all 2 values seen are true or false"


def test_a_few_values_that_are_no_numbers_are_told() -> None:
    """Most likely they are mistakes: as numbers, their rows would be REJECTED."""
    (made,) = attributes_of(sample({"Sum": ["1"] * 99 + ["one"]}), find("calven"), None)

    assert (made.type, made.why) == ("string", "text, as 1 of 100 values seen are no numbers")


@pytest.mark.parametrize(
    ("api", "names"),
    [
        ("calven", {"Cost Centre": "costCentre", "first_name": "firstName", "Büro": "büro", "mobileNo": "mobileNo"}),
        ("dx", {"Cost Centre": "Cost Centre", " Site ": "Site"}),
        (
            "descope",
            {"Cost Centre": "costCentre", "Büro": "bro", "A very long name for a column": "aVeryLongNameForACol"},
        ),
        ("scim", {"First Name": "name.givenName", "Shoe Size": None}),
        ("http", {"Cost Centre": "Cost Centre"}),
    ],
)
def test_names_are_those_usual_at_the_target(api: str, names: dict[str, str | None]) -> None:
    made = attributes_of(sample({name: ["x"] for name in names}), find(api), "email")

    assert {each.column: each.name for each in made} == names


def test_two_columns_never_become_one_attribute() -> None:
    made = attributes_of(
        sample({"cost centre": ["x"], "Cost-Centre": ["y"], "COST_CENTRE": ["z"]}), find("calven"), None
    )

    assert [each.name for each in made] == ["costCentre", "costCentre2", "costCentre3"]


def test_secrets_and_the_key_and_what_results_add_are_not_sent() -> None:
    columns = {"email": MAILS, "Password": MAILS, "loader_code": MAILS, "pin": MAILS, "Shipping": MAILS}

    made = {each.column: each.name for each in attributes_of(sample(columns), find("calven"), "email")}

    assert made == {"Password": None, "pin": None, "Shipping": "shipping"}


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        ("group groupType parent parentType", {}),
        ("Team groupType parent parentType", {"group": "Team"}),
        (
            "Group Group_Type Parent Parent_Type",
            {"group": "Group", "groupType": "Group_Type", "parent": "Parent", "parentType": "Parent_Type"},
        ),
        (
            "Unit Kind ParentUnit ParentKind",
            {"group": "Unit", "groupType": "Kind", "parent": "ParentUnit", "parentType": "ParentKind"},
        ),
    ],
)
def test_the_columns_of_a_hierarchy_are_found(columns: str, fields: dict[str, str]) -> None:
    assert fields_of(sample({name: ["x"] for name in columns.split()}), find("calven-hierarchy")) == fields


ODD = {'a"b\\c': ["1"], "tab\tand\x7f": ["2"], "новый": ["3"], "line\nend": ["4"], "#": ["5"]}


@pytest.mark.parametrize("api", BUILT_IN)
@pytest.mark.parametrize("kind", ["text", "json", "columns"])
def test_it_is_toml_whatever_columns_are_called(api: str, kind: str) -> None:
    """And no value of the export stands in it."""
    target = find(api)
    seen = sample(
        {"email": MAILS[:1], **ODD, "Password": ["geheim"]}, kind=kind, unusable={"": "no\nname"}, warnings=["a\nb"]
    )
    made = Proposal(
        "users-*.csv",
        seen,
        target,
        next(iter(target.schemes)),
        options_needed(target),
        candidate(seen, "email"),
        candidates(seen),
        attributes_of(seen, target, "email"),
        fields_of(seen, target),
    )
    if target.columns:
        made = Proposal("users-*.csv", seen, target, "hmac", fields=fields_of(seen, target))

    text = toml(made, "load.toml", "./loader.schema.json")

    read = tomllib.loads(text)
    assert text.startswith("#:schema ./loader.schema.json\n")
    assert read["checkpoint"] == {"path": "users.ckpt"}
    assert not {"a@x.com", "geheim"} & set(text.split('"'))
    if api in ("calven", "dx", "http"):
        assert set(read["mapping"]["attributes"].values()) == set(ODD)


_CELLS = st.sampled_from(
    ["", "a@x.com", "1", "007", "1.50", "true", '"', '"q"', "{", "[", "\0", "ü", "\x7f", "e\nf", "="]
)
_CSV = st.lists(st.lists(_CELLS, max_size=4).map(",".join), max_size=6).map("\n".join).map(str.encode)
_NAMES = st.sampled_from(
    ["users.csv", "users.tsv", "users.ndjson", "users.json", "users.parquet", "users.txt", "users.csv.gz"]
)


@given(st.one_of(st.binary(max_size=80), _CSV, _CSV.map(gzip.compress)), _NAMES, st.sampled_from(sorted(BUILT_IN)))
@settings(deadline=None, max_examples=300)
def test_whatever_a_file_holds_it_is_refused_or_gives_toml(content: bytes, name: str, api: str) -> None:
    """Never anything else, such as a traceback."""
    target = find(api)
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            seen = look(path)
        except ExportError:
            return
    found = candidates(seen)
    key = found[0] if found else None
    made = Proposal(name, seen, target, next(iter(target.schemes)), options_needed(target), key, found)
    if target.columns:
        made = replace(made, fields=fields_of(seen, target))
    elif key is not None and not seen.is_nested:
        made = replace(made, attributes=attributes_of(seen, target, key.column))
    elif not seen.is_nested:
        return

    assert tomllib.loads(toml(made, "load.toml"))["export"]["path"] == name


def test_a_stand_in_is_to_be_changed() -> None:
    made = Proposal("u.csv", sample({}, is_nested=True), find("scim"), "bearer", options_needed(find("scim")))

    assert 'base_url = "https://api.example.com"   # CHANGE THIS' in toml(made, "load.toml")
    assert made.stand_ins == ["base_url"]
