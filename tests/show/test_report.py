"""A report says what the checkpoint holds, whatever the API and the export have put into it."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from loader.advice import ADVICE
from loader.checkpoint import Checkpoint, Entry, lock
from loader.commands import corrected, loading
from loader.outcome import GOOD, Code, Outcome, Settled
from loader.show.report import gather, render
from loader.snapshot import Note, Snapshot, Wire

HOSTILE = '</script><img src=x onerror="alert(1)">|`*_\x1b[31m\n'


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    """Two runs: ten rows, of which some failed, and one moment a second of twenty seconds."""
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as opened:
        outcomes = [Outcome(Code.SUCCESS)] * 6
        outcomes += [Outcome(Code.INVALID, f"no such department {HOSTILE}", "E17", 400, 2)] * 3
        outcomes += [Outcome(Code.REJECTED, "users.csv line 11: ragged")]
        settled = [Settled(row, f"u{row}{HOSTILE}", outcome) for row, outcome in enumerate(outcomes, 1)]
        about = {"settings": {"target": {"api": "calven"}}, "settings_path": "a b.toml"}
        opened.put(started_at=1e9, path="/data/users.csv", files=["/data/users.csv"], **about)
        opened.put(identity={"export.format": "csv"})
        opened.commit([Entry(settled=settled)])
        for run in range(2):
            for second in range(1, 11):
                wire = Wire(second * 4, second // 3, 0, 2, p50_s=0.2, p95_s=0.4)
                counts = {Code.SUCCESS: run * 10 + second}
                at = 1e9 + run * 100 + second
                now = Snapshot(at, run * 10 + second, counts, 0.1, 1.0, 1.0, second, None, wire, 8)
                opened.commit([], Note(now, is_moment=True))
        yield opened


def test_each_outcome_has_its_meaning_and_each_failure_its_way_out() -> None:
    assert set(ADVICE) == set(Code)
    assert {code for code, advice in ADVICE.items() if advice.todo and advice.way} == set(Code) - GOOD


def test_it_says_what_the_checkpoint_holds(checkpoint: Checkpoint) -> None:
    found = gather(checkpoint)
    outcomes = {each["code"]: each for each in found["outcomes"]}

    assert (found["rows"], found["failures"], found["state"], found["runs"]) == (10, 4, "unfinished", 2)
    assert {code: each["rows"] for code, each in outcomes.items()} == {"SUCCESS": 6, "INVALID": 3, "REJECTED": 1}
    (alike,) = outcomes["INVALID"]["messages"]
    assert (alike["rows"], [row["row"] for row in alike["examples"]]) == (3, [7, 8, 9])
    assert outcomes["INVALID"]["reasons"] == [{"target_code": "E17", "http_status": 400, "rows": 3}]
    assert outcomes["INVALID"]["command"].splitlines() == [
        f"loader results {checkpoint.path} --rows --code INVALID -o invalid.csv",
        "loader run 'a b.toml' --set export.path=invalid.csv",
    ]
    assert (found["seconds"], found["requests"], found["refused"]) == (20, 80, 6)
    assert found["go_on"][0]["command"] == "loader run 'a b.toml'"


def steps(checkpoint: Checkpoint) -> list[str]:
    return [step["command"] for step in gather(checkpoint)["go_on"]]


def test_it_names_the_next_command_whatever_has_happened(checkpoint: Checkpoint) -> None:
    """With the overrides that the last run was given: without them it would be another load."""
    path = checkpoint.path
    checkpoint.put(arguments=["sets/load.toml", "--set", "export.path=b c.csv"], settings_path="sets/load.toml")
    again = "sets/load.toml --set 'export.path=b c.csv'"
    last = Snapshot(2e9, 10, {}, 1.0, 1.0, 1.0, 1.0, None, stopping="no token was given: HTTP 401", is_last=True)

    assert steps(checkpoint) == [f"loader run {again}"]
    checkpoint.put(retried_at=1e9)
    assert steps(checkpoint) == [f"loader retry {again}"]
    checkpoint.put(retried_at=None, flags=["--fresh", "--yes"])
    assert steps(checkpoint) == [f"loader run {again} --fresh --yes"]
    checkpoint.commit([], Note(last))
    assert "If the reason above calls for something, do that first" in gather(checkpoint)["go_on"][0]["words"]
    with lock(path):
        assert steps(checkpoint) == [f"loader status {path} --watch"]
    checkpoint.put(finished_at=1e9, flags=[])
    assert steps(checkpoint) == [
        f"loader retry {again}",
        f"loader results {path} --rows --code REJECTED --code INVALID -o sets/corrected.csv",
        "loader run sets/load.toml --set export.path=corrected.csv",
        f"loader results {path} -o results.csv",
    ]
    checkpoint.put(settings={"checkpoint": {"path": "x.ckpt"}, "export": {"format": "parquet"}})
    checkpoint.put(identity={"export.format": "parquet"})
    assert steps(checkpoint)[2].endswith(
        "--set export.path=corrected.ndjson --set export.format=ndjson --set checkpoint.path=corrected.ckpt"
    )


@pytest.mark.parametrize(
    "fact",
    [{"files": []}, {"identity": {"export.format": "csv", "refresh.mode": "changed"}}, {"is_whole": True}],
    ids=["a query", "a refresh", "a hierarchy"],
)
def test_rows_that_can_not_be_loaded_by_themselves_are_corrected_elsewhere(
    checkpoint: Checkpoint, fact: dict[str, Any]
) -> None:
    """What is left out would go, or be taken for gone; and a query has no rows to take out."""
    checkpoint.put(finished_at=1e9, **fact)

    assert steps(checkpoint)[1:] == [
        f"loader results {checkpoint.path} --code=REJECTED --code=INVALID",
        f"loader results {checkpoint.path} -o results.csv",
    ]


def test_a_load_that_is_well_has_nothing_left_to_do(tmp_path: Path) -> None:
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as checkpoint:
        checkpoint.put(started_at=1e9, finished_at=1e9, files=["users.csv"])
        checkpoint.commit([Entry(settled=[Settled(1, "ann", Outcome(Code.SUCCESS))])])

        (step,) = gather(checkpoint)["go_on"]

    assert step["words"].startswith("All is well, and nothing is left to do")


def test_each_reason_shows_with_its_first_users(tmp_path: Path) -> None:
    """However many there are of another; what is a row's own makes no reason of its own."""
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as checkpoint:
        short = [f"users.csv line {row}: 2 fields, the header has 3" for row in range(1, 51)]
        messages = [*short, "users.csv line 52: 'three' is not a JSON number"]
        rows = [Settled(row, f"u{row}", Outcome(Code.REJECTED, text)) for row, text in enumerate(messages, 1)]
        gone = [(row, f"{name}@x.com") for row, name in ((60, "ann"), (61, "bob"))]
        rows += [Settled(row, user, Outcome(Code.INVALID, f"{user} has left")) for row, user in gone]
        rows += [Settled(row, "", Outcome(Code.FAILED, "x" * (row - 69))) for row in range(70, 95)]
        checkpoint.put(started_at=1e9, finished_at=1e9)
        checkpoint.commit([Entry(settled=rows)])
        found = gather(checkpoint)
    shown = {each["code"]: each for each in found["outcomes"]}

    assert [(each["rows"], each["examples"][0]["row"]) for each in shown["REJECTED"]["messages"]] == [(50, 1), (1, 51)]
    assert [each["rows"] for each in shown["INVALID"]["messages"]] == [2]
    assert (len(shown["FAILED"]["messages"]), shown["FAILED"]["other_rows"]) == (20, 5)
    lines = [line for line in render(found, "md").splitlines() if line.startswith(("| 1 |", "| 51 |"))]
    assert [line.rsplit("|", 2)[1].strip() for line in lines] == ["50", "1"]


def test_rows_of_one_outcome_do_not_go_where_those_of_another_do(checkpoint: Checkpoint) -> None:
    """Nor onto the export they are taken from."""
    names = {
        str(corrected(checkpoint, *codes)) for codes in (["REJECTED"], ["INVALID"], ["PARTIAL"], ["INVALID", "PARTIAL"])
    }
    checkpoint.path = checkpoint.path.with_name("rejected.ckpt")

    assert names == {"rejected.csv", "invalid.csv", "partial.csv", "corrected.csv"}
    assert str(corrected(checkpoint, "REJECTED")) == "rejected-rejected.csv"
    assert str(corrected(checkpoint, "REJECTED", "INVALID")) == "rejected-again.csv"


def test_what_was_taken_out_is_loaded_as_utf8(checkpoint: Checkpoint) -> None:
    """Whatever the encoding of the export was."""
    checkpoint.put(settings={"export": {"encoding": "cp1252"}})
    changed = loading(checkpoint, Path("invalid.csv"))
    checkpoint.put(settings={"export": {"encoding": "UTF8"}})

    assert changed.endswith(" --set export.path=invalid.csv --set export.encoding=utf-8")
    assert "encoding" not in loading(checkpoint, Path("invalid.csv"))


def test_letters_are_shown_as_letters(checkpoint: Checkpoint) -> None:
    checkpoint.put(settings={"export": {"path": "f\u00fcr-\u00e9lan.csv"}, "mapping": {"attributes": {"a": "<b>"}}})

    page, markdown = (render(gather(checkpoint), form) for form in ("html", "md"))

    assert "für-élan.csv" in page
    assert "<b>" not in page
    assert '`"für-élan.csv"`' in markdown


def test_runs_stand_apart_in_its_charts(checkpoint: Checkpoint) -> None:
    """Between them nothing was measured, and nothing is drawn."""
    course = gather(checkpoint)["course"]

    assert len(course["at"]) == 21
    assert [at for at, rows in enumerate(course["rows"]) if rows is None] == [10]
    assert course["at"] == sorted(course["at"])
    assert sum(each or 0 for each in course["refused_per_s"]) == pytest.approx(6)


def test_a_long_course_is_thinned_out(tmp_path: Path) -> None:
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as checkpoint:
        for second in range(1, 5_001):
            now = Snapshot(float(second), second, {}, None, 1.0, 1.0, float(second), None)
            checkpoint.commit([], Note(now, is_moment=True))
        course = gather(checkpoint)["course"]

    assert 1_000 < len(course["at"]) < 2_000
    assert course["at"][-1] == 5_000, "the end is never left out"


class Seen(HTMLParser):
    """What a browser takes for markup."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, set[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")


def test_the_page_needs_nothing_but_itself_and_believes_nobody(checkpoint: Checkpoint) -> None:
    """No address to load from; words of an API are text."""
    text = render(gather(checkpoint), "html")
    seen = Seen(text)

    assert "img" not in seen.tags
    assert not {"src", "onerror", "onload"} & set(seen.attributes)
    assert all(link.startswith("#") for link in seen.attributes.get("href", ()))
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert text.count("</script>") == 3, "its own"
    data = re.search(r'<script type="application/json" id="course">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert len(json.loads(data[1])["at"]) == 21


def test_markdown_keeps_its_tables(checkpoint: Checkpoint) -> None:
    text = render(gather(checkpoint), "md")
    rows = [line for line in text.splitlines() if line.startswith("| 7 ")]

    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 8
    assert "\x1b" not in text


def test_json_is_what_was_gathered(checkpoint: Checkpoint) -> None:
    found: dict[str, Any] = gather(checkpoint)

    assert json.loads(render(found, "json")) == json.loads(json.dumps(found))


def test_a_load_that_has_not_begun_has_a_report_too(tmp_path: Path) -> None:
    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as checkpoint:
        found = gather(checkpoint)

    assert found["rows"] == 0
    assert "<!doctype html>" in render(found, "html")
    assert "# Load of" in render(found, "md")
