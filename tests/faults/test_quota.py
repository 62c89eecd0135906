"""Quotas as a server counts them: never passed, nearly used up, and no burst where a run goes on after another."""

from collections.abc import Mapping
from typing import Any, Literal

import anyio
import pytest

from loader.errors import Stopped
from loader.sandbox import Memory, QuotaOptions
from tests.faults.rig import Rig, blocks, calven, options, stream, users, wall
from tests.virtual_time import virtual_time

REQUESTS, USERS = 300, 3_000
WINDOW_S = 60.0


@pytest.mark.parametrize("penalty_s", [0.0, 60.0])
@pytest.mark.parametrize("kind", ["sliding", "fixed"])
@pytest.mark.parametrize(
    ("unit", "quota", "size"),
    [("requests", f"{REQUESTS}/60s", 10), ("users", f"{USERS} users/60s", 40), ("users", f"{USERS} users/60s", 100)],
)
@virtual_time
async def test_three_windows_and_a_resume(
    unit: str, quota: str, size: int, kind: Literal["sliding", "fixed"], penalty_s: float
) -> None:
    """The second run begins the moment that the first was stopped, and its tokens are paid for too."""
    limit: Mapping[str, Any] = {"requests": REQUESTS} if unit == "requests" else {"users": USERS}
    served = Memory(
        options(
            calven=calven(token_lifetime_s=45.0),
            quotas=(QuotaOptions(**limit, window_s=WINDOW_S, kind=kind, penalty_s=penalty_s),),
        ),
        clock=wall,
    )
    (witness,) = served.sandbox.quotas
    per_window = REQUESTS * size if unit == "requests" else USERS
    rows = users(4 * per_window)
    start = wall()
    carried = 0
    for until_s in (1.4 * WINDOW_S, 3 * WINDOW_S):
        rig = Rig(served, quota=quota, concurrency=8, users_per_request=size)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rig.dispatcher.run, stream(blocks(rows[carried:])))
            await anyio.sleep(start + until_s - wall())
            rig.lane.stop(Stopped("the time is over"))
        carried += len(rig.checkpoint.rows())

    assert witness.refused == 0
    assert witness.peak <= (REQUESTS if unit == "requests" else USERS)
    assert wall() - start < 3.05 * WINDOW_S
    assert served.ledger.writes >= 0.95 * 3 * per_window


@pytest.mark.parametrize("kind", ["sliding", "fixed"])
@virtual_time
async def test_of_ten_windows_hardly_anything_is_left(kind: Literal["sliding", "fixed"]) -> None:
    """98 % of a declared quota is used, token calls counted, none is refused; with a resume in the fourth."""
    quota = QuotaOptions(requests=REQUESTS, window_s=WINDOW_S, kind=kind, penalty_s=60)
    served = Memory(options(calven=calven(token_lifetime_s=5.0), quotas=(quota,)), clock=wall)
    (witness,) = served.sandbox.quotas
    rows = users(11 * REQUESTS)
    start, carried = wall(), 0
    for until_s in (3.7 * WINDOW_S, 10 * WINDOW_S):
        rig = Rig(served, quota=f"{REQUESTS}/{WINDOW_S:g}s", concurrency=8, users_per_request=1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rig.dispatcher.run, stream(blocks(rows[carried:])))
            await anyio.sleep(start + until_s - wall())
            rig.lane.stop(Stopped("the time is over"))
        carried += len(rig.checkpoint.rows())

    assert (witness.refused, witness.peak <= REQUESTS) == (0, True)
    assert served.sandbox.stats.arrivals.total() >= 0.98 * 10 * REQUESTS
