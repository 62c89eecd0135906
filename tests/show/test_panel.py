"""What a load looks like: as text, so that what is seen here is what is seen there."""

import shlex
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from loader.outcome import Code
from loader.show.panel import About, View, in_ascii, line
from loader.snapshot import Failure, Found, Snapshot, Trouble, Wire

ABOUT = About("users.csv.gz", "calven", "api.calven.com", "users.ckpt")

NOW = Snapshot(
    at=1_800_000_000.0,
    rows=1_234_567,
    counts={Code.SUCCESS: 1_228_438, Code.USER_NOT_FOUND: 5_204, Code.REJECTED: 925},
    share=0.6172,
    rows_per_s=797.2,
    now_per_s=812.4,
    elapsed_s=1548.0,
    left_s=961.0,
    wire=Wire(12_400, 3, 12, 12, p50_s=0.084, p95_s=1.21),
    at_once=16,
    failures=(
        Failure(12, "zoe@example.com", Code.REJECTED, "row 12: 3 fields, and the header has 5"),
        Failure(1_234_001, "former17@example.com", Code.USER_NOT_FOUND, "no such user"),
    ),
    found=Found(requests_per_s=48.7, concurrency=16, users=100, brake="quota"),
)


PAUSE = Trouble("pause", "HTTP 429: slow down", NOW.at - 7, NOW.at + 593, 30.2)
DOWN = Trouble("down", "can't connect to 127.0.0.1:9: Connection refused", NOW.at - 60, NOW.at + 540)


def changed(**fields: Any) -> Snapshot:
    return msgspec.structs.replace(NOW, **fields)


def drawn(now: Snapshot, width: int = 79, height: int = 23, *, is_ours: bool = True) -> list[str]:
    lines = [text.plain.rstrip() for text in View(ABOUT, is_ours=is_ours).at(now)(width, height)]
    assert len(lines) <= height
    return lines


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock on the wall is that of no place."""
    with monkeypatch.context() as changing:
        changing.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def test_a_panel_tells_all_at_a_glance() -> None:
    assert drawn(NOW) == [
        "",
        "● loading  users.csv.gz → calven at api.calven.com",
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━──────────────────────────── 61.7 %",
        "16 min left, done at 08:16 · 1,234,567 of about 2,000,000 rows · 25:48 gone",
        "",
        "pace      812 rows/s · 797 on average",
        "why       the quota allows no more",
        "wire      12 of 16 requests at once · p50 84 ms, p95 1.2 s · 429: 3",
        "found     up to 48.7 requests/s · up to 100 users a request",
        "",
        "outcomes  SUCCESS         1,228,438   99.5 %",
        "          USER_NOT_FOUND      5,204    0.4 %",
        "          REJECTED              925   <0.1 %",
        "",
        "failed    former17@example.com  USER_NOT_FOUND  no such user",
        "          zoe@example.com       REJECTED        row 12: 3 fields, and the",
        "            header has 5",
        "",
        "next      see who failed: loader results users.ckpt --code USER_NOT_FOUND",
    ]


def test_where_there_is_little_room_what_matters_most_is_shown() -> None:
    assert drawn(NOW, 40, 8) == [
        "● loading  users.csv.gz → calven",
        "━━━━━━━━━━━━━━━━━━━━───────────── 61.7 %",
        "16 min left, done at 08:16 · 25:48 gone",
        "812 rows/s · 797 on average",
        "the quota allows no more",
        "SUCCESS         1,228,438   99.5 %",
        "USER_NOT_FOUND      5,204    0.4 %",
        "REJECTED              925   <0.1 %",
    ]
    assert drawn(NOW, 30, 5)[4:] == ["6,129 failed"]
    assert drawn(NOW, 10, 1) == ["━╸─ 61.7 %"]


LONG = ABOUT._replace(checkpoint="/srv/loader/tenants/example/nightly/users.ckpt")


@pytest.mark.parametrize("width", [39, 59, 79, 119])
def test_a_command_is_whole_or_not_there(width: int) -> None:
    """It is to be copied, also where a shell needs it on several lines."""
    for height in range(1, 31):
        for about in (ABOUT, LONG, LONG._replace(checkpoint="/srv/" + "x" * 150)):
            text = "\n".join(each.plain.rstrip() for each in View(about).at(NOW)(width, height))
            assert len(text.splitlines()) <= height
            if (at := text.find("loader results ")) >= 0:
                found = shlex.split(text[at:].split(" · ")[0].replace("\\\n", " "))
                assert found == ["loader", "results", about.checkpoint, "--code", "USER_NOT_FOUND"]
            elif height > 20:
                assert text.splitlines()[-1].endswith("see who failed, with loader results")


def test_a_long_command_stands_on_lines_of_its_own() -> None:
    lines = [each.plain.rstrip() for each in View(LONG).at(NOW)(59, 23)]

    assert lines[-4:] == [
        "next      see who failed:",
        "          loader results \\",
        "          /srv/loader/tenants/example/nightly/users.ckpt \\",
        "          --code USER_NOT_FOUND",
    ]


def test_why_a_run_stops_has_room() -> None:
    """With the target's words; what is too long even so ends in an ellipsis."""
    why = "the credentials are not accepted: " + "the API said why, at length, " * 20
    lines = drawn(changed(stopping=why), 59)
    (first,) = (at for at, each in enumerate(lines) if each.startswith("why"))

    assert lines[first].endswith("the credentials are not accepted: the API said")
    assert lines[first + 2].endswith(" …")
    assert not lines[first + 3].startswith(" "), "three lines"


def test_of_a_retry_the_rows_that_are_sent_again_are_shown() -> None:
    """What the load had before stays as it is, and is not this run's."""
    kept = {Code.SUCCESS: 1_228_438, Code.REJECTED: 925}
    now = changed(
        counts={**kept, Code.USER_NOT_FOUND: 1_000, Code.SUCCESS: 1_228_638},
        rows=1_230_563,
        before=1_229_363,
        again=5_204,
        kept=kept,
        share=1_200 / 5_204,
        failures=(),
    )

    lines = drawn(now)

    assert lines[1] == "● many fail  users.csv.gz → calven at api.calven.com"
    assert lines[3].startswith("16 min left, done at 08:16 · 1,200 of 5,204 rows sent again")
    assert [each for each in lines if each.startswith(("outcomes", "          SUCC"))] == [
        "outcomes  USER_NOT_FOUND  1,000   83.3 %",
        "          SUCCESS           200   16.7 %",
    ]
    assert not any("REJECTED" in each for each in lines)
    assert " 23% · 1,200 of 5,204 rows sent again · " in f" {line(now)}"


def test_an_outcome_that_is_accepted_is_no_failure() -> None:
    lines = drawn(changed(accepted=(Code.USER_NOT_FOUND,), failures=()))

    assert lines[-1].endswith("--code REJECTED")
    assert "925 failed" in line(changed(accepted=(Code.USER_NOT_FOUND,)))


@pytest.mark.parametrize("height", range(1, 31))
def test_no_line_is_too_long_and_none_is_too_many(height: int) -> None:
    for width in (1, 2, 5, 20, 39, 49, 50, 79, 200):
        for now in (NOW, changed(share=None, left_s=None, failures=(), counts={}, rows=0), changed(stopping="x" * 300)):
            lines = View(ABOUT).at(now)(width, height)
            assert len(lines) <= height
            assert all(text.cell_len <= width for text in lines), (width, [text.plain for text in lines])


def test_of_outcomes_that_have_no_room_the_sum_is_shown() -> None:
    lines = drawn(changed(counts=dict.fromkeys(Code, 10) | {Code.SUCCESS: 100}, rows=200), height=10)

    assert [each.split() for each in lines if "more" in each and "allows" not in each] == [["9", "more", "90"]]


@pytest.mark.parametrize(
    ("fields", "word", "seen"),
    [
        ({"trouble": PAUSE}, "waiting", "the target asked for a pause (429), 30 s more"),
        ({"trouble": DOWN, "left_s": None}, "waiting", "the target is down; gives up at 08:09; the last error: can't"),
        ({"trouble": DOWN, "left_s": None}, "waiting", "time left: not known while the target is down"),
        ({"trouble": DOWN, "rows": 0, "counts": {}, "elapsed_s": 4.0}, "waiting", "Connection refused"),
        ({"wire": Wire(900, on_wire=12, halved=62)}, "loading", "at once · refused and halved: 62"),
        ({"found": Found(5.0, brake="rate"), "wire": Wire()}, "loading", "the target takes no more, by its headers"),
        ({"stopping": "interrupted by SIGINT"}, "stopping", "may finish (Ctrl-C again to stop at once)"),
        ({"counts": {Code.SUCCESS: 600, Code.INVALID: 400}, "rows": 1000}, "many fail", "--code INVALID"),
        ({"before": 1_000_000, "left_s": None}, "loading", "resumed at 1,000,000 rows"),
        ({"rows": 0, "counts": {}, "elapsed_s": 2.0, "share": 0.0, "left_s": None}, "starting", "not known yet"),
        ({"left_s": 40.0}, "loading", "40 s left"),
        ({"left_s": None, "found": Found(3.0, is_guess=True)}, "loading", "time left: finding the pace"),
        ({"left_s": 100_000.0}, "loading", "27 h 47 min left, done at Sat 11:46"),
        ({"counts": {Code.SUCCESS: 1_234_567}}, "loading", "nothing to do · Ctrl-C stops it"),
    ],
)
def test_how_it_is_and_what_to_do_is_said(fields: dict[str, Any], word: str, seen: str) -> None:
    lines = drawn(changed(**fields))

    assert lines[1].startswith(f"● {word} ")
    assert any(seen in each for each in lines), lines


def test_who_only_watches_stops_nothing() -> None:
    good = {"counts": {Code.SUCCESS: 9}, "rows": 9}

    assert drawn(changed(**good), is_ours=False)[-1].endswith("Ctrl-C ends the watching, not the load")
    assert "Ctrl-C" not in drawn(changed(stopping="it is 06:00"), is_ours=False)[-1]


def test_an_export_of_unknown_size_has_something_that_moves() -> None:
    bars = [drawn(changed(share=None, elapsed_s=float(second)))[2] for second in range(200)]

    assert {len(bar) for bar in bars} == {79}
    assert len(set(bars)) > 30
    assert bars[0].startswith("━")


def test_what_the_target_says_moves_no_cursor() -> None:
    """A hostile API, or a hostile row: no escape, no other control character, nothing that runs from right to left."""
    bad = "a\x1b[2J\x1b]0;title\x07\x9b31m\r\n\tb\u202ec\u2066d\x00e\x85f\u200bg"
    now = changed(failures=(Failure(1, bad, Code.INVALID, bad),), stopping=bad)

    text = "".join(drawn(now))

    assert text.isprintable()
    assert "�[2J�]0;title��31m b�c�d�e f�g" in text


def test_of_failures_that_are_alike_some_are_shown() -> None:
    alike = [Failure(row, f"user{row}", Code.USER_NOT_FOUND, "no") for row in range(9)]
    lines = drawn(changed(failures=(Failure(0, "zoe", Code.INVALID, "odd"), *alike)))

    shown = [each.split()[-3] for each in lines if each.endswith((" no", " odd"))]
    assert shown == ["user8", "user7", "user6", "zoe"]


def test_the_curve_is_that_of_the_last_minutes() -> None:
    view = View(ABOUT, [(NOW.at - second, 500.0 if second < 100 else 1000.0) for second in range(900, 0, -1)])
    curve = view.at(changed(now_per_s=500.0))(79, 23)[5].plain.split("average")[1]

    drawn, _, words = curve.strip().partition(" ")
    assert words == "5 min"
    assert set(drawn) == {"▇", "▄"}
    assert 0.6 < drawn.index("▄") / len(drawn) < 0.7, "two thirds of it were twice as fast"


def test_a_line_tells_the_same_in_short() -> None:
    assert line(NOW) == (
        " 62% · 1,234,567 rows · 797/s · 6,129 failed · 25:48 gone · 16:01 left · the quota allows no more · "
        "16 requests at once · up to 48.7 requests/s · up to 100 users a request"
    )
    assert "the target asked for a pause (429), 30 s more" in line(changed(trouble=PAUSE))
    assert "the target is down; gives up at 08:09; the last error: can't connect" in line(changed(trouble=DOWN))
    assert "stopping: what is in flight may finish" in line(changed(stopping="it is 06:00"))
    assert " left" not in line(changed(is_last=True))


def test_a_terminal_without_unicode_gets_none_of_ours() -> None:
    assert all(in_ascii(each).isascii() for each in drawn(NOW))
