"""The number of requests at once: what one round does to it. Whole loads: tests/tempo."""

from collections.abc import Callable

from loader.tempo.concurrency import Concurrency


def round_of(
    limit: Concurrency, now: float, seconds: float, users: int = 1, failing: Callable[[int], int] = lambda _: 0
) -> float:
    """All that may be on the wire goes, and is answered after so long, but for those that fail; some times."""
    for _ in range(4):
        count = limit.limit
        for _ in range(count):
            limit.went()
        now += seconds
        for number in range(count):
            if number < failing(count):
                limit.failed(now - seconds, now)
            else:
                limit.answered(now - seconds, now, users)
    return now


def grown(most: int, seconds: float = 0.1) -> tuple[Concurrency, float]:
    limit, now = Concurrency(most), 0.0
    for _ in range(20):
        now = round_of(limit, now, seconds)
    return limit, now


def test_it_doubles_while_answers_stay_quick_up_to_the_most_allowed() -> None:
    limit, _ = grown(100)

    assert limit.limit == 100
    assert limit.found is None, "the limit allowed is no finding"


def test_it_does_not_rise_while_not_all_of_it_is_used() -> None:
    """A quota holds the requests back: how many there could be, nobody knows."""
    limit, now = Concurrency(100), 0.0
    for _ in range(50):
        limit.went()
        now += 0.1
        limit.answered(now - 0.1, now, 1)

    assert limit.limit == 4


def test_it_falls_in_proportion_to_what_answers_take_longer() -> None:
    limit, now = grown(64)
    round_of(limit, now, 0.2)

    assert limit.limit <= 0.9 * 64
    assert limit.found == limit.limit


def test_times_count_per_user() -> None:
    """A batch of ten that takes ten times as long is no slower."""
    limit, now = Concurrency(64), 0.0
    for users in (10, 20, 30, 40, 50, 60):
        now = round_of(limit, now, users * 0.01, users)

    assert limit.limit == 64


def test_small_requests_are_not_compared_with_large_ones() -> None:
    """The last of a batch, sent again alone, takes long for a single user."""
    limit, now = Concurrency(64), 0.0
    for _ in range(6):
        now = round_of(limit, now, 0.1, users=100)
    for _ in range(6):
        now = round_of(limit, now, 0.05, users=1)

    assert limit.limit == 64


def test_failures_lower_it_and_a_target_that_is_down_does_not() -> None:
    """Nobody knows for how many it will be up again."""
    limit, now = grown(64)
    down, _ = grown(64)
    round_of(limit, now, 0.1, failing=lambda count: max(count - 40, 0))
    round_of(down, now, 0.1, failing=lambda count: count)

    assert 30 <= limit.limit < 64
    assert down.limit == 64


def test_answers_that_waited_for_this_side_say_nothing_against_it() -> None:
    """A target that answers at once is as slow as we are: each of the requests on the wire waits for all others.

    With fewer of them the event loop would do no more, and have less to do at a time.
    """

    def after_a_while(share: float) -> Concurrency:
        """`share`: of the time in which this side works."""
        now = 0.0
        limit = Concurrency(64, worked=lambda: share * now)
        for _ in range(100):
            count = limit.limit
            for _ in range(count):
                limit.went()
            sent_at, now = now, now + 0.0001 * count
            for _ in range(count):
                limit.answered(sent_at, now, 1)
        return limit

    assert after_a_while(0.95).limit == 64
    assert after_a_while(0.95).found is None
    assert after_a_while(0.5).limit < 16


def test_it_is_never_less_than_one() -> None:
    limit, now = grown(8)
    for number in range(100):
        now = round_of(limit, now, 0.1 * (number + 2), failing=lambda count: count // 2)

    assert limit.limit >= 1
