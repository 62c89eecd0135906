"""What follows from a bench's steps, its report, and its comparison with an earlier one."""

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

from loader.bench.findings import (
    HEADINGS,
    Course,
    Found,
    Pair,
    Report,
    Step,
    choices,
    compare,
    compare_lines,
    is_slower,
    line,
    lines,
    read,
    recommend,
    rows,
    settings_lines,
    throughputs,
)
from loader.bench.optimum import Caps, Choice
from loader.bench.visit import Held, Visit
from loader.errors import Refused


def visit(users_per_s: float, request_s: float | None = None, held_by: Held | None = None, **more: Any) -> Visit:
    figures = {"requests_per_s": users_per_s / 10, "p50_s": 0.1, "p95_s": 0.2, "sent": 100, "failed": 0, "refused": 0}
    return Visit(users_per_s=users_per_s, request_s=request_s, held_by=held_by, **{**figures, "cpu": 0.1, **more})


def step(users: int, at_once: int, *users_per_s: float, **more: Any) -> Step:
    return Step(users_per_request=users, concurrency=at_once, visits=tuple(visit(each, **more) for each in users_per_s))


def steps(*given: Step) -> dict[tuple[int, int], list[Visit]]:
    return {each.key: list(each.visits) for each in given}


def found(**more: Any) -> Found:
    known = {"request_s": 0.1, "user_s": 0.001, "is_even": True, "knee": 8, "most_at_once": 16, "requests_per_s": None}
    return Found(**{**known, "largest_request": None, "noise": 0.01, **more})


def report(*given: Step, **more: Any) -> Report:
    limits = {"concurrency": 16, "quota": []}
    facts: dict[str, Any] = {
        "at": "2026-01-02T03:04:05+00:00",
        "machine": {"cores": 2},
        "settings": {"limits": limits, "target": {"api": "calven", "base_url": "http://127.0.0.1:1"}},
        "users": 5000,
        "rejected": 0,
        "seconds": 60.0,
        "took_s": 50.0,
        "ended": "",
        "found": found(),
        "best": given[-1].pair if given else None,
        "recommended": given[0].pair if given else None,
        "sent": 1000,
        "failed": 0,
        "last_failure": "",
        "refused": 0,
        "is_refusing": False,
    }
    return Report(steps=given, **{**facts, **more})


ALONE = [step(users, 1, users / (0.1 + users * 0.001), request_s=0.1 + users * 0.001) for users in (1, 25, 50, 100)]


# What follows


def test_what_a_request_costs_is_seen_where_it_is_alone() -> None:
    """Steps with more at once say nothing of it."""
    cost = line(steps(*ALONE, step(100, 8, 5000.0, request_s=9.0)))

    assert cost is not None
    assert [cost.request_s, cost.user_s] == pytest.approx([0.1, 0.001])
    assert line({}) is None


def test_a_step_that_a_quota_held_shows_no_throughput() -> None:
    """Not of the target, that is."""
    known = steps(step(100, 1, 500.0), step(100, 2, 1000.0, 980.0, 990.0), step(100, 4, 1200.0, held_by="quota"))

    assert throughputs(known, 100) == {1: 500.0, 2: 990.0}


def test_the_choice_follows_line_knee_and_quota() -> None:
    """Ten at once are worked on; a quota of requests asks for the largest, and for few at once."""
    climb = [step(100, at_once, 500.0 * min(at_once, 10)) for at_once in (2, 4, 8, 10, 16)]
    free = choices(steps(*ALONE, *climb), Course(100, 16, 100, Caps()))
    held = [step(100, 2, 1000.0), step(100, 4, 1300.0, held_by="rate")]
    paced = choices(steps(*ALONE, *held), Course(100, 16, 100, Caps(requests_per_s=13.0)))

    assert free is not None
    assert (free[0].at_once, free[1].at_once) == (10, 10)
    assert free[1].users == 91  # 91 / (0.1 + 0.091) = 476, of 500
    assert paced is not None
    assert (paced[1].users, paced[1].at_once) == (95, 3)  # 13 a second, each for 0.2 s


def test_without_a_climb_there_is_no_choice() -> None:
    """Nor without a request alone."""
    assert choices(steps(*ALONE), Course(100, 16, 0, Caps())) is None
    assert choices({}, Course(100, 16, 100, Caps())) is None


def test_where_no_line_fits_only_sizes_that_were_tried_are_chosen() -> None:
    """A request of more than 50 users takes twice as long: 50 are best."""
    odd = [step(users, 1, users / each, request_s=each) for users, each in ((1, 0.1), (25, 0.1), (50, 0.1), (100, 0.3))]
    chosen = choices(steps(*odd, step(100, 4, 1333.0)), Course(100, 4, 100, Caps()))

    assert chosen is not None
    assert (chosen[0].users, chosen[1].users) == (50, 50)


# What is recommended

CHOICES = (Choice(100, 10, 5000.0), Choice(90, 10, 4760.0))


def test_the_choice_is_recommended_if_it_holds_its_promise() -> None:
    """Measured, it comes close to the best."""
    best, chosen = recommend([step(100, 10, 5000.0), step(90, 10, 4800.0)], CHOICES, 0.01)

    assert (best.users_per_s, chosen.users_per_s, chosen.is_measured) == (5000.0, 4800.0, True)


def test_else_it_is_the_smallest_that_came_close() -> None:
    """What was measured rules what was expected."""
    known = [step(100, 10, 5000.0), step(100, 12, 5010.0), step(100, 16, 4900.0), step(90, 10, 3000.0)]
    _, chosen = recommend(known, CHOICES, 0.01)

    assert (chosen.users_per_request, chosen.concurrency) == (100, 10)


def test_what_was_not_measured_is_said_to_be_expected() -> None:
    """There was no time, or too few users."""
    best, chosen = recommend(ALONE, CHOICES, None)

    assert (best.users_per_s, best.is_measured, chosen.users_per_s, chosen.is_measured) == (5000, False, 4760, False)


def test_what_is_faster_than_the_quota_does_not_last() -> None:
    """At first a window has room for more than it allows in the long run."""
    known = [step(100, 8, 9000.0), step(100, 2, 990.0), step(95, 2, 950.0)]
    best, chosen = recommend(known, (Choice(100, 2, 1000.0), Choice(95, 2, 950.0)), 0.01, Caps(requests_per_s=10.0))

    assert (best.users_per_s, chosen.users_per_s) == (990.0, 950.0)


def test_of_nothing_nothing_is_recommended() -> None:
    """And of a few steps alone, no more than the best."""
    assert recommend([], None, None) == ()
    assert recommend(ALONE[:2], None, None) == (ALONE[1].pair,)


def test_best_of_steps_that_differ_by_accident_is_the_one_expected() -> None:
    """A single visit that was quick by chance is no better than one that was quick three times."""
    known = [step(100, 10, 5000.0, 5010.0, 4990.0), step(100, 32, 5100.0), step(90, 10, 4800.0)]

    assert recommend(known, CHOICES, 0.02)[0].concurrency == 10


# The report


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    """JSON there and back."""
    path = tmp_path / "bench.json"
    kept = report(*ALONE, step(100, 8, 4000.0, 4100.0, held_by="rate"))
    path.write_text(kept.model_dump_json())

    assert read(path) == kept


@pytest.mark.parametrize(
    ("content", "words"), [("{}", "at: Field required"), ("x", "Invalid JSON"), (None, "No such file")]
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    """Named, with the reason."""
    path = tmp_path / "bench.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(Refused, match=words) as error:
        read(path)
    assert "bench.json" in str(error.value)


def test_the_table_has_a_row_a_step() -> None:
    """Single requests first, by size; figures are the medians of visits, and failures add up."""
    table = list(
        rows(report(step(50, 8, 4000.0, 4200.0, 4400.0, failed=2, refused=1), step(100, 1, 500.0), step(50, 1, 9.876)))
    )

    assert {len(row) for row in table} == {len(HEADINGS)}
    assert [row[:4] for row in table] == [
        ("50", "1", "9.88", ""),
        ("100", "1", "500", ""),
        ("50", "8", "4,200", "5%"),
    ]
    assert table[2][4:] == ("420", "100 ms", "200 ms", "6", "3", "recommended")
    assert table[0][-1] == "best"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "A request takes 100 ms, and 1 ms more for each of its users"),
        ({}, "It works on 8 requests at once; more only wait"),
        ({}, "Two visits of the same step differ by 1.0%"),
        ({"found": found(user_s=0.0)}, "A request takes 100 ms"),
        ({"found": found(is_even=False)}, "does not grow evenly"),
        ({"found": found(largest_request=470)}, "over about 470 users turned out to be too large"),
        (
            {"found": found(requests_per_s=20.0), "refused": 7},
            "It refuses more than 20 requests/s (429): 7 were refused",
        ),
        ({"found": found(knee=None)}, "Up to 16 at once, each brought more; limits.concurrency allowed no more"),
        ({"found": found(knee=None, most_at_once=8)}, "Up to 8 at once, each brought more; --users or --seconds"),
        ({"is_refusing": True, "refused": 9}, "It refused 9 requests (429), and 50 s did not show beyond which rate"),
        ({"failed": 3, "last_failure": "INVALID: no"}, "3 of 1,000 users sent failed; the last: INVALID: no"),
        ({"rejected": 3}, "3 rows among them can't be sent"),
        ({"ended": "time is over"}, "This is not all there is to know: time is over"),
    ],
)
def test_what_the_table_means(more: dict[str, Any], words: str) -> None:
    """Each finding in a line."""
    assert any(words in each for each in lines(report(step(90, 8, 4000.0), step(100, 8, 4200.0), **more)))


def test_a_busy_machine_is_told() -> None:
    """What was measured then may be the machine."""
    assert any("machine was busy" in each for each in lines(report(step(90, 8, 4000.0, cpu=0.97))))


def test_best_and_recommended_are_told_together() -> None:
    """With what the second is of the first."""
    told = list(lines(report(step(90, 8, 4000.0), step(100, 8, 4200.0))))

    assert told[-2:] == [
        "Best: 100 users a request, 8 at once: 4,200 users/s",
        "Recommended, as it comes close with less: 90 users a request, 8 at once: 4,000 users/s, 95% of the best",
    ]
    assert list(lines(report(found=None))) == []


def test_what_is_recommended_is_ready_for_the_settings() -> None:
    """As TOML; a rate that was found is rounded down; an API of one user a request has no size to set."""
    paced = report(step(90, 8, 4000.0), found=found(requests_per_s=19.777))

    assert tomllib.loads("\n".join(settings_lines(paced, None))) == {
        "limits": {"users_per_request": 90, "concurrency": 8, "requests_per_minute": 1180}
    }
    assert list(settings_lines(report(step(1, 8, 40.0)), 1)) == ["[limits]", "concurrency = 8"]
    assert list(settings_lines(report(), None)) == []


# Compared


def slowed(by: float) -> Report:
    return report(
        step(100, 1, *[500.0 / (1 + by)] * 3, request_s=0.2 * (1 + by)), step(100, 8, *[4000.0 / (1 + by)] * 3)
    )


@pytest.mark.parametrize(("by", "is_it"), [(0.2, True), (0.05, False), (0.0, False), (-0.2, False)])
def test_a_target_that_became_slower(by: float, is_it: bool) -> None:
    """By more than the tolerance of a tenth."""
    assert is_slower(slowed(0.0), slowed(by), 0.1) is is_it


def test_slower_alone_is_slower() -> None:
    """Where a quota holds both to the same throughput, requests that take longer show."""
    before = report(step(100, 1, 500.0, 500.0, request_s=0.2), step(100, 8, 1000.0, 1000.0, held_by="quota"))
    now = report(step(100, 1, 400.0, 400.0, request_s=0.25), step(100, 8, 1000.0, 1000.0, held_by="quota"))

    assert [each.change.share for each in compare(before, now)] == [0.0, pytest.approx(-0.2)]
    assert is_slower(before, now, 0.1)


def test_sizes_that_only_one_tried_are_not_compared() -> None:
    """The largest that both tried is."""
    both = compare(report(*ALONE), report(*ALONE[:3]))

    assert [each.name for each in both] == ["at best", "50 users a request, one at a time"]
    assert compare(report(found=None), report(*ALONE)) == []


def test_the_comparison_in_words() -> None:
    """What changed, whether that may be chance, and what else differs."""
    now = slowed(0.2).model_copy(update={"machine": {"cores": 4}, "users": 100})
    told = list(compare_lines(slowed(0.0), now, 0.1))

    assert "4,000 users/s then, 3,333 now: -16.7%" in told[1]
    assert told[1].endswith("SLOWER")
    assert told[-2:] == ["  another cores: was 2, is 4", "  another users: was 5000, is 100"]
    noisy = report(step(100, 4, 1500.0, 2000.0, 2500.0), step(100, 8, 3000.0, 4000.0, 5000.0))
    assert list(compare_lines(noisy, slowed(0.2), 0.1))[1].endswith("too noisy to tell")
    assert list(compare_lines(slowed(0.2), slowed(0.0), 0.1))[1].endswith("faster")


def test_a_pair_is_a_plain_value() -> None:
    """It can be compared."""
    assert step(1, 2, 3.0).pair == Pair(users_per_request=1, concurrency=2, users_per_s=3.0, is_measured=True)
    assert math.isinf(Caps().users(5))
