"""The figures of a visit: throughput without its beginning and its end, and what each batch cost."""

import heapq
from collections.abc import Sequence

import pytest

from loader.bench.visit import Sent, Watched
from loader.outcome import Code, Outcome
from tests.make import outcome


def settle(watched: Watched, now: float, *sent: Sent, took_s: float = 1.0, of: Sequence[Outcome] = ()) -> None:
    watched.note(now - took_s, now, of or [outcome()] * 10, sent or [Sent(took_s, 200, 10)])
    watched.sent += sent or [Sent(took_s, 200, 10)]


@pytest.mark.parametrize(("begin_s", "error"), [(1.0, 0.06), (0.0, 0.1)])
@pytest.mark.parametrize(("places", "at_once"), [(2, 24), (8, 24), (24, 24), (25, 24), (32, 24), (64, 24)])
def test_throughput_is_that_of_the_target(places: int, at_once: int, begin_s: float, error: float) -> None:
    """Whether answers come evenly or in waves, and whether all places are worked on at once or some wait."""
    apart_s = begin_s / places
    watched = Watched(places, 0.0, apart_s * (places - 1), least_s=2.0, latest=10.0)
    free = [0.0] * at_once
    coming = [(apart_s * place, place) for place in range(places)]
    settled: list[tuple[float, float]] = []
    while coming and len(settled) < 1000:
        began, place = heapq.heappop(coming)
        done = max(began, heapq.heappop(free)) + 1.0
        heapq.heappush(free, done)
        heapq.heappush(coming, (done, place))
        settled.append((done, began))
    for done, began in sorted(settled):
        if watched.is_over(done):
            break
        settle(watched, done, took_s=done - began)
        watched.is_over(done)

    visit = watched.visit(10, cpu_s=0.0)

    assert visit is not None
    assert visit.users_per_s == pytest.approx(10 * min(places, at_once), rel=error)


def test_a_visit_that_is_broken_off_says_nothing() -> None:
    """Neither without a batch, nor before it had its time."""
    watched = Watched(1, 0.0, 0.0, least_s=5.0, latest=10.0)
    assert watched.visit(10, 0.0) is None
    settle(watched, 1.0)
    settle(watched, 2.0)

    assert not watched.is_over(2.0)
    assert watched.visit(10, 0.0) is None


def test_it_ends_at_the_latest_with_what_there_is() -> None:
    """A target that is slower than the whole visit: one batch must do."""
    watched = Watched(1, 0.0, 0.0, least_s=1.0, latest=3.0)
    settle(watched, 8.0, took_s=8.0)

    assert watched.is_over(8.0)
    visit = watched.visit(10, 2.0)
    assert visit is not None
    assert (visit.users_per_s, visit.request_s, visit.cpu) == (1.25, 8.0, 0.25)


def test_what_a_batch_cost_is_all_of_its_requests() -> None:
    """Several requests of a batch add up; refusals for the rate are no cost of it, and trouble makes it no measure."""
    watched = Watched(1, 0.0, 0.0, least_s=0.0, latest=0.0)
    settle(watched, 1.0, Sent(0.2, 200, 0), Sent(0.4, 200, 10))
    settle(watched, 2.0, Sent(0.1, 429, 10), Sent(0.5, 204, 10))
    settle(watched, 3.0, Sent(0.1, 503, 10), Sent(0.5, 200, 10))
    settle(watched, 4.0, Sent(0.1, 0, 10), Sent(0.5, 200, 10))
    watched.is_over(4.0)

    visit = watched.visit(10, 0.0)

    assert watched.batches == [pytest.approx(0.6), 0.5]
    assert visit is not None
    assert [visit.request_s, visit.requests_per_s] == pytest.approx([0.55, 2.0])
    assert visit.refused == 1
    assert (visit.p50_s, visit.p95_s) == (0.5, 0.5)  # of those that carried users, and were taken
    assert watched.waits == pytest.approx(1 - 2.4 / 4)


def test_where_many_are_on_their_way_nobody_knows_what_one_costs() -> None:
    """Their requests can't be told apart, and they wait for each other."""
    watched = Watched(2, 0.0, 0.0, least_s=0.0, latest=0.0)
    settle(watched, 1.0)
    watched.is_over(1.0)

    visit = watched.visit(10, 0.0)

    assert visit is not None
    assert visit.request_s is None


def test_users_that_failed_are_counted() -> None:
    """Each outcome that is not well is one."""
    watched = Watched(1, 0.0, 0.0, least_s=0.0, latest=0.0)
    settle(watched, 1.0, of=[outcome(), outcome(Code.USER_NOT_FOUND), outcome(Code.INVALID)])
    watched.is_over(1.0)

    visit = watched.visit(3, 0.0)

    assert visit is not None
    assert (visit.sent, visit.failed) == (3, 2)
