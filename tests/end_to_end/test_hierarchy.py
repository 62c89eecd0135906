"""The group hierarchy, as processes: whole or not at all, compared with the one before, whatever kills it."""

import csv
import io
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.end_to_end import oracle
from tests.end_to_end.command import loader

FIELDS = ("group", "groupType", "parent", "parentType")
HEADER = ",".join(FIELDS) + "\n"
SOUND = HEADER + "Channel Marketing,Department,Marketing,Division\nMarketing,Division,,\n"

Groups = list[dict[str, str | None]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with oracle.sandbox("--token", "T") as address:
        yield address


def settings(folder: Path, url: str, export: str = "org.csv", *more: str, scheme: str = "hmac") -> Path:
    needs = 'token = "env:LOADER_TEST_TOKEN"'
    if scheme != "bearer":
        needs = 'key_id = "env:LOADER_TEST_KEY"\nsecret = "env:LOADER_TEST_SECRET"'
    lines = [
        f'[export]\npath = "{export}"' + '\nformat = "csv"' * (export == "-"),
        f'[target]\napi = "calven-hierarchy"\nbase_url = "{url}"',
        f'[target.auth]\nscheme = "{scheme}"\n{needs}',
        *more,
    ]
    path = folder / "load.toml"
    path.write_text("\n".join(lines))
    return path


def write(folder: Path, text: str) -> None:
    (folder / "org.csv").write_text(text)


def forest(count: int, seed: int = 1) -> Groups:
    """So many groups, each below one made before it or below none, in any order."""
    rng = random.Random(seed)
    made: Groups = []
    for at in range(count):
        parent = rng.choice(made) if made and rng.random() < 0.99 else None
        group = f'Group {at}, the "{rng.choice("äß✓")}"'
        kind = f"Level {rng.randrange(4)}"
        made.append(
            {
                "group": group,
                "groupType": kind,
                "parent": parent["group"] if parent else None,
                "parentType": parent["groupType"] if parent else None,
            }
        )
    rng.shuffle(made)
    return made


def as_csv(groups: Groups) -> str:
    text = io.StringIO()
    rows = csv.DictWriter(text, FIELDS, lineterminator="\n")
    rows.writeheader()
    rows.writerows(groups)
    return text.getvalue()


def held(url: str) -> list[dict[str, object]]:
    return oracle.get(url, "hierarchy")


def requests(url: str) -> object:
    """All that the sandbox was asked, token calls too."""
    return oracle.get(url, "stats")[0]["requests"]


def kept(folder: Path) -> object:
    return json.loads((folder / "org.state").read_bytes())["records"]


def chain(names: Sequence[str]) -> str:
    return HEADER + "".join(f"{name},T,,\n" for name in names)


# What is accepted


@pytest.mark.parametrize("scheme", ["hmac", "client-secret", "basic", "bearer"])
def test_every_scheme_carries_it(tmp_path: Path, url: str, scheme: str) -> None:
    """Basic to a path of its own."""
    write(tmp_path, SOUND.replace("Channel", scheme))

    status, _, err = oracle.run("run", settings(tmp_path, url, scheme=scheme))

    assert status == 0, err
    assert held(url) == [
        {"group": f"{scheme} Marketing", "groupType": "Department", "parent": "Marketing", "parentType": "Division"},
        {"group": "Marketing", "groupType": "Division", "parent": None, "parentType": None},
    ]
    path = "/v1/directory/group-hierarchy-relationship" + "/basic" * (scheme == "basic")
    assert path in str(requests(url))


def test_a_large_hierarchy_arrives_as_it_was(tmp_path: Path, url: str) -> None:
    """5,000 groups, in one request; the state holds the same."""
    groups = forest(5_000)
    write(tmp_path, as_csv(groups))
    path = settings(tmp_path, url)
    before = oracle.get(url, "stats")[0]["hierarchies"]

    check = oracle.run("check", path, "--format", "json")
    status, _, err = oracle.run("run", path)

    assert (check[0], status) == (0, 0), check[2] + err
    figures = json.loads(check[1])["figures"]
    assert figures["groups"] == 5_000
    assert figures["roots"] == sum(group["parent"] is None for group in groups)
    assert held(url) == kept(tmp_path) == groups
    assert oracle.get(url, "stats")[0]["hierarchies"] == int(str(before)) + 1
    rows = oracle.results(tmp_path / "org.ckpt")
    assert [(row["user"], row["code"]) for row in rows] == [(group["group"], "SUCCESS") for group in groups]


@pytest.mark.parametrize("form", ["tsv", "ndjson", "json", "parquet"])
def test_every_format_arrives_the_same(tmp_path: Path, url: str, form: str) -> None:
    """Columns that have other names, and some that don't count."""
    groups = forest(50, seed=len(form))
    renamed = [{"Team": group["group"], "n": "1", **group} for group in groups]
    for each in renamed:
        del each["group"]
    path = tmp_path / f"org.{form}"
    match form:
        case "tsv":
            with path.open("w") as file:
                rows = csv.DictWriter(file, list(renamed[0]), delimiter="\t", lineterminator="\n")
                rows.writeheader()
                rows.writerows(renamed)
        case "ndjson":
            path.write_text("".join(json.dumps(each) + "\n" for each in renamed))
        case "json":
            path.write_text(json.dumps(renamed))
        case _:
            pa.parquet.write_table(pa.Table.from_pylist(renamed), path)

    status, _, err = loader("run", settings(tmp_path, url, path.name, "[mapping.columns]", 'group = "Team"'))

    assert status == 0, err
    assert held(url) == groups


def test_it_may_come_from_stdin_and_from_several_files(tmp_path: Path, url: str) -> None:
    """Then the checkpoint's name is the state's, too."""
    checkpoint = "[checkpoint]\npath = 'all.ckpt'"
    for name, rows in (("o1.csv", "a,T,b,T\n"), ("o2.csv", "b,T,,\n")):
        (tmp_path / name).write_text(HEADER + rows)

    files = loader("run", settings(tmp_path, url, "o*.csv", checkpoint))

    assert files.status == 0, files.err
    assert [(group["group"], group["parent"]) for group in held(url)] == [("a", "b"), ("b", None)]
    assert (tmp_path / "all.state").exists()
    path = settings(tmp_path, url, "-", checkpoint)
    (tmp_path / "all.ckpt").unlink()
    same, more = piped(path, chain("abc")), piped(path, chain("abcd"))
    assert (same[0], more[0]) == (0, 0), same[1] + more[1]
    assert "stdin has changed since it was loaded" in more[1]
    assert [group["group"] for group in held(url)] == ["a", "b", "c", "d"]


def piped(path: Path, text: str) -> tuple[int, str]:
    """`loader run` with this on its stdin."""
    export = path.with_name("piped.csv")
    export.write_text(text)
    with export.open("rb") as file:
        process = oracle.start("run", path, stdin=file)
        _, err = process.communicate()
    return process.returncode, err


# What is refused

BROKEN = {
    "a circle": ("a,T,b,T\nb,T,a,T\n", "'a' (T) → 'b' (T) → 'a' (T): rows 1, 2"),
    "two parents": ("r,T,,\ns,T,,\na,T,r,T\na,T,s,T\n", "'a' (T): under 'r' (T) in row 3, under 's' (T) in row 4"),
    "a line twice": ("r,T,,\na,T,r,T\na,T,r,T\n", "'a' (T): rows 2, 3"),
    "a parent that is not there": ("r,T,,\na,T,R,T\n", "row 2: 'a' (T) is under 'R' (T); did you mean 'r' (T)?"),
    "a parent without a type": ("r,T,,\na,T,r,\n", "row 2: 'a' (T) has the parent 'r' without its type"),
    "a type without a parent": ("a,T,,T\n", "row 1: 'a' (T) has the parentType 'T' without a parent"),
    "no type": ("a,,,\n", "no groupType:\n    row 1: 'a'"),
    "no name": ("a,T,,\n,T,,\n", "row 2: org.csv line 3: group is empty (column 'group')"),
    "a ragged row": ("a,T,,\nb,T\n", "row 2: org.csv line 3: 2 fields, the header has 4"),
    "a byte that is not UTF-8": ("a,T,,\nb\xff,T,,\n", "column 'group' is not UTF-8: byte 0xff at 2"),
    "no groups": ("", "it holds no groups"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_refused_with_nothing_sent(tmp_path: Path, url: str, kind: str) -> None:
    """Status 2, not even a token asked for; `check` says the same."""
    rows, words = BROKEN[kind]
    (tmp_path / "org.csv").write_bytes((HEADER + rows).encode("latin-1"))
    path = settings(tmp_path, url)
    before = requests(url)

    run = loader("run", path)

    assert run.status == 2
    assert words in run.err
    assert "nothing was sent" in run.err
    assert requests(url) == before
    check = loader("check", path)
    assert check.status == 2
    assert words in check.out
    assert "A RUN WOULD REFUSE THIS EXPORT" in check.out
    assert sorted(each.name for each in tmp_path.iterdir()) == ["load.toml", "org.csv"]


def test_a_process_says_all_of_it_readably(tmp_path: Path, url: str) -> None:
    """Each kind with its rows, and a handful of them."""
    rows = "r,T,,\n" + "".join(f"g{at},T,nobody,T\n" for at in range(2, 9)) + "a,T,b,T\nb,T,a,T\n"
    write(tmp_path, HEADER + rows)
    before = requests(url)

    status, _, err = oracle.run("run", settings(tmp_path, url))

    assert status == 2
    assert requests(url) == before
    assert err.splitlines() == [
        "loader: the export is not fit to be sent, and nothing was sent:",
        "- a parent that is no group of the export (7 times):",
        *(f"    row {at}: 'g{at}' (T) is under 'nobody' (T)" for at in range(2, 7)),
        "    and 2 more",
        "- a circle of parents:",
        "    'a' (T) → 'b' (T) → 'a' (T): rows 9, 10",
        "Correct it, and run this again",
    ]


def test_a_column_that_is_not_there_is_named_by_its_setting(tmp_path: Path, url: str) -> None:
    """Where `mapping.columns` says what is right."""
    write(tmp_path, SOUND.replace("parentType", "ParentType"))
    path = settings(tmp_path, url)

    found = loader("run", path)

    assert found.status == 2
    assert "mapping.columns.parentType: the export has no column 'parentType'; did you mean 'ParentType'?" in found.err


def test_flags_that_make_no_sense_are_refused(tmp_path: Path, url: str) -> None:
    """Part of a hierarchy would drop the rest; and elsewhere nothing shrinks."""
    write(tmp_path, SOUND)
    path = settings(tmp_path, url)

    first = loader("run", path, "--first", "1")
    until = loader("run", path, "--until", "23:59")
    users = tmp_path / "users"
    users.mkdir()
    (users / "users.csv").write_text("email,Dept,Cost Centre,Site,Reports\na@x.com,Ops,,,\n")
    shrink = loader("run", oracle.write_settings(users, url), "--allow-shrink")

    assert [found.status for found in (first, until, shrink)] == [2, 0, 2]
    assert "--first: calven-hierarchy takes the whole export in one request" in first.err
    assert "--allow-shrink: calven keeps what an export leaves out" in shrink.err


# The one before


def test_an_export_that_lost_groups_needs_leave(tmp_path: Path, url: str) -> None:
    """Refused with what would vanish, by run and by check; let through when it is meant."""
    write(tmp_path, chain([f"g{at}" for at in range(100)]))
    path = settings(tmp_path, url)
    assert oracle.run("run", path)[0] == 0
    write(tmp_path, chain([f"g{at}" for at in range(89)]))
    before = requests(url)

    refused = oracle.run("run", path)

    assert refused[0] == 2
    assert requests(url) == before
    for words in ("in this export: 89", ": 100;", "'g89' (T)", "and 6 more", "--allow-shrink"):
        assert words in refused[2]
    check = loader("check", path)
    assert check.status == 2
    assert "'g89' (T)" in check.out
    assert loader("run", path, "--set", "target.max_shrink=11%").status == 0
    write(tmp_path, chain(["g1"]))
    allowed = oracle.run("run", path, "--allow-shrink")
    assert allowed[0] == 0, allowed[2]
    assert [group["group"] for group in held(url)] == ["g1"]
    assert loader("run", path).status == 0


def test_what_is_kept_of_another_address_says_nothing(tmp_path: Path, url: str) -> None:
    """It is passed over, aloud; and one that is damaged is refused, with a way out."""
    write(tmp_path, chain([f"g{at}" for at in range(100)]))
    path = settings(tmp_path, url)
    assert loader("run", path).status == 0
    write(tmp_path, SOUND)
    with oracle.sandbox() as other:
        elsewhere = loader("run", path, "--set", f"target.base_url={other}", "--set", "checkpoint.path=other.ckpt")
    (tmp_path / "org.state").write_text("{")
    damaged = loader("run", path)

    assert elsewhere.status == 0, elsewhere.err
    assert f"org.state is of calven-hierarchy, {url}, not of calven-hierarchy, {other}" in elsewhere.err
    assert damaged.status == 2
    assert "org.state is damaged" in damaged.err
    assert "move it away to load without comparing" in damaged.err


def test_a_changed_export_starts_anew_and_an_unchanged_one_does_nothing(tmp_path: Path, url: str) -> None:
    """Every night the same command."""
    path = settings(tmp_path, url)
    write(tmp_path, SOUND)
    assert oracle.run("run", path)[0] == 0
    before = requests(url)

    same = oracle.run("run", path)

    assert same[0] == 0
    assert "this load is finished" in same[2]
    assert requests(url) == before
    write(tmp_path, SOUND + "Sales,Division,,\n")
    changed = oracle.run("run", path)
    assert changed[0] == 0
    assert "has changed since it was loaded, so this is a new load; the old one is kept as org.ckpt." in changed[2]
    assert len(held(url)) == 3
    assert len(list(tmp_path.glob("org.ckpt.2*"))) == 1


# What fails, and what is killed


def test_what_the_target_refuses_is_retried(tmp_path: Path) -> None:
    """INVALID for each group with its words; results, --rows and status as of any load."""
    groups = forest(1_200)
    write(tmp_path, as_csv(groups))
    with oracle.sandbox("--fail-first", "1", "--fail-first-status", "422") as url:
        path = settings(tmp_path, url)
        status, _, err = oracle.run("run", path)
        rows = oracle.results(tmp_path / "org.ckpt")
        again = loader("run", path)
        state = json.loads(loader("status", tmp_path / "org.ckpt", "--format", "json").out)
        originals = loader("results", tmp_path / "org.ckpt", "--rows", "--code", "INVALID").out
        retried = oracle.run("retry", path)

        assert (status, again.status, retried[0]) == (1, 1, 0), err + retried[2]
        assert {(row["code"], row["http_status"], row["attempts"]) for row in rows} == {("INVALID", "422", "1")}
        assert all("422" in row["message"] for row in rows)
        assert (state["state"], state["outcomes"]) == ("finished", {"INVALID": 1_200})
        assert [row["group"] for row in csv.DictReader(io.StringIO(originals))] == [group["group"] for group in groups]
        assert held(url) == kept(tmp_path) == groups


def test_a_run_that_is_killed_before_the_answer_goes_again(tmp_path: Path) -> None:
    """The old state stays until then; whether the target has taken it or not, in the end it has."""
    path = tmp_path / "load.toml"
    with oracle.sandbox() as url:
        write(tmp_path, chain("abc"))
        assert oracle.run("run", settings(tmp_path, url))[0] == 0
    before = kept(tmp_path)
    with oracle.sandbox("--latency", "1", "--port", url.rpartition(":")[2]):
        write(tmp_path, chain("abcd"))
        process = oracle.start("run", path, "--set", "target.auth.scheme=basic")
        wait_until_asked(url)
        process.kill()
        process.communicate()
        assert kept(tmp_path) == before
        status, _, err = oracle.run("run", path)

        assert status == 0, err
        assert held(url) == kept(tmp_path)
        assert len(held(url)) == 4
        assert loader("status", tmp_path / "org.ckpt").status == 0


def test_a_run_that_ends_behind_the_answer_is_finished_by_the_next(tmp_path: Path) -> None:
    """What was accepted is kept then, and nothing is sent again."""
    write(tmp_path, chain("abc"))
    with oracle.sandbox("--latency", "1") as url:
        path = settings(tmp_path, url, scheme="basic")
        process = oracle.start("run", path)
        wait_until_asked(url)
        (tmp_path / "org.state").mkdir()  # a file can't take its place
        _, err = process.communicate()
        assert process.returncode == 3
        assert "accepted the export, but that can't be kept" in err
        (tmp_path / "org.state").rmdir()

        status, _, err = oracle.run("run", path)

        assert status == 0, err
        assert held(url) == kept(tmp_path)
        assert oracle.get(url, "stats")[0]["hierarchies"] == 1
        assert not list(tmp_path.glob("*.part"))


def wait_until_asked(url: str) -> None:
    """Until a data request is on the wire."""
    end = time.monotonic() + 20
    while not oracle.get(url, "stats")[0]["peak_data_requests"]:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_hundred_kills_at_any_moment(tmp_path: Path) -> None:
    """The state is always whole, and never ahead of the target; the next run brings all three together.

    Every other kill comes just behind the moment in which the target has taken the hierarchy.
    """
    rng = random.Random(7)
    taken = unkept = 0
    with oracle.sandbox("--latency", "0.05") as url:
        path = settings(tmp_path, url)
        known: object = None
        for number in range(100):
            groups = forest(300 + number, seed=number)
            write(tmp_path, as_csv(groups))
            if number % 2:
                process = oracle.start("run", path)
                wait_until_taken(url, groups)
                time.sleep(rng.uniform(0, 0.04))
                process.kill()
                process.communicate()
            else:
                oracle.run_and_kill(path, rng.uniform(0.2, 3))
            state = kept(tmp_path) if (tmp_path / "org.state").exists() else None
            is_taken = held(url) == groups
            assert state == known or (state == groups and is_taken)
            taken += is_taken
            unkept += is_taken and state == known
            status, _, err = oracle.run("run", path)
            assert status == 0, err
            assert held(url) == kept(tmp_path) == groups
            known = groups
    print(f"of 100 kills, {taken} came behind the target's answer, {unkept} of them before it was kept")
    assert unkept > 0


def wait_until_taken(url: str, groups: Groups) -> None:
    """Until the target holds them."""
    end = time.monotonic() + 20
    while held(url) != groups:
        assert time.monotonic() < end
