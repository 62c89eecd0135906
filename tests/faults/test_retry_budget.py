"""A storm of failures gets no more requests a second than a load without one, and not many more in all.

docs/pace.md says what sees to it.
"""

import random
from bisect import bisect_left
from collections.abc import Sequence
from math import ceil
from typing import Literal, NamedTuple

import anyio
import pytest

from loader.errors import TransportError
from loader.outcome import Code
from loader.request import Request, Response
from loader.sandbox import FaultOptions
from loader.sandbox.options import Fault, RetryAfter
from tests.faults.rig import Rig, options, users
from tests.virtual_time import START_S, virtual_time

CONCURRENCY, LATENCY_S, TIMEOUT_S = 8, 0.3, 3.0
WINDOWS_S = (0.5, 1.0, 2.0, 5.0)


class Storm(NamedTuple):
    """Requests that fail; those that are refused, by the target or by its machine ("no"), as soon as they come.

    `most`: requests a batch when half of all fail. If each failure is sent again once, that is 2, and by chance some
    more. A batch that was not answered in time twice goes on in halves, which may time out, too: that makes up to 3.
    """

    fault: Fault | Literal["no"]
    retry_after: RetryAfter = "none"
    most: float = 2.4

    def __str__(self) -> str:
        return f"{self.fault}-{self.retry_after}"


STORMS = [
    *(Storm("500"), Storm("502"), Storm("503", "int"), Storm("408"), Storm("429"), Storm("429", "int")),
    *(Storm("no"), Storm("reset"), Storm("lost"), Storm("torn"), Storm("garbage"), Storm("slow", most=3.3)),
]


def rig_in(storm: Storm, share: float, during: tuple[float, float], users_per_request: int) -> Rig:
    """A load into a target that fails so often, from a moment on, for so long."""
    rates: dict[Fault, float] = {} if storm.fault == "no" else {storm.fault: share}
    dice = random.Random(1)

    async def wire(request: Request) -> Response:
        since_s = anyio.current_time() - START_S - during[0]
        if storm.fault == "no" and 0 <= since_s < during[1] and dice.random() < share:
            raise TransportError("can't connect: Connection refused")
        return await rig._in_memory(request)

    rig = Rig(
        options(
            FaultOptions(
                latency_s=LATENCY_S,
                rates=rates,
                during=(during,),
                refuses_at_once=True,
                retry_after=storm.retry_after,
                slow_s=3600,
            )
        ),
        concurrency=CONCURRENCY,
        users_per_request=users_per_request,
        timeout_s=TIMEOUT_S,
        wire=wire,
    )
    return rig


def most_within(times: Sequence[float], window_s: float) -> int:
    """The most requests in any window of that length."""
    return max((bisect_left(times, at + window_s) - place for place, at in enumerate(times)), default=0)


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("storm", STORMS, ids=str)
@virtual_time
async def test_a_storm_gets_no_more_requests_a_second(storm: Storm, share: float) -> None:
    """In no window, neither while it lasts nor when it is over: so many places on the wire, one answer's time each."""
    begins_s, lasts_s = 6.0, 12.0
    rig = rig_in(storm, share, (begins_s, lasts_s), users_per_request=2)
    await rig.run(users(2 * 350))

    times = [at - START_S for at, _ in rig.sent]
    before = [at for at in times if at < begins_s]
    after = [at for at in times if at >= begins_s]
    assert times[-1] >= begins_s + lasts_s
    assert rig.codes() == {Code.SUCCESS: 2 * 350}
    for window_s in WINDOWS_S:
        made = most_within(before, window_s)
        assert made == CONCURRENCY * ceil(window_s / LATENCY_S)
        assert most_within(after, window_s) <= made, f"in {window_s:g} s"


@pytest.mark.parametrize("storm", STORMS, ids=str)
@virtual_time
async def test_where_half_of_all_requests_fail_a_load_takes_twice_as_many(storm: Storm) -> None:
    """And hardly more: what is searched for a culprit, or is halved because it takes too long, is bounded, too."""
    batches = 300
    rig = rig_in(storm, 0.5, (0.0, 1e9), users_per_request=10)
    found = await rig.run(users(batches * 10))

    assert rig.lane.reason is None
    assert len(found) == batches * 10
    assert 1.8 * batches <= len(rig.data_requests) <= storm.most * batches
