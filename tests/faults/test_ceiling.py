"""Targets that take less than they were said to: 413 in whole loads."""

import pytest

from loader.outcome import Code
from loader.sandbox import FaultOptions
from tests.faults.rig import Rig, Row, calven, options, users
from tests.virtual_time import virtual_time

DATA = "/v1/directory/user-attributes"


@pytest.mark.parametrize(
    ("ceiling", "users_per_request"),
    [
        ({"max_users": 37}, 500),
        ({"max_users": 1}, 100),
        ({"max_users": 250}, 300),
        ({"max_bytes": 5_000}, 500),
        ({"max_bytes": 40_000}, 1000),
    ],
)
@virtual_time
async def test_an_unknown_ceiling_is_learnt_in_few_refusals(ceiling: dict[str, int], users_per_request: int) -> None:
    """Of 20,000 users nobody fails; the ceiling is remembered, so refusals are few and later requests nearly full."""
    rig = Rig(
        options(FaultOptions(latency_s=0.1, jitter_s=0.1), calven=calven(**ceiling)),
        users_per_request=users_per_request,
        concurrency=8,
    )
    count = 20_000 if users_per_request > 100 else 2_000
    await rig.run(users(count), block=5_000)

    refused = rig.memory.stats.requests[DATA, "413"]
    assert rig.codes() == {Code.SUCCESS: count}
    assert refused <= 120
    if limit := ceiling.get("max_users"):
        fullest = limit
    else:
        size = sum(len(request.body) for _, request in rig.data_requests) / sum(rig.carried.values())
        fullest = int(ceiling["max_bytes"] / size)
    assert len(rig.data_requests) - refused <= 1.25 * count / fullest + 100


@virtual_time
async def test_one_fat_record_does_not_shrink_the_requests_of_others() -> None:
    """A record that the target never takes is INVALID by itself; the others go on in requests nearly as large."""
    fat: list[Row] = [("fat@example.com", {"n": "x" * 50_000})]
    rig = Rig(options(FaultOptions(latency_s=0.1), calven=calven(max_bytes=30_000)), users_per_request=100)
    rows = users(3000) + fat + users(17_000, 3001)
    found = await rig.run(rows)

    assert found[3001].outcome.code is Code.INVALID
    assert "413" in found[3001].outcome.message
    assert rig.codes() == {Code.SUCCESS: 20_000, Code.INVALID: 1}
    late = [request.users for _, request in rig.data_requests[-50:-5]]
    assert min(late) >= 95


@virtual_time
async def test_a_ceiling_that_is_known_is_never_met() -> None:
    """With limits.bytes_per_request set right there is no refusal, whatever the records' sizes."""
    rows: list[Row] = [(f"user{row}@example.com", {"n": "x" * (row * 7919 % 900)}) for row in range(3000)]
    rig = Rig(options(calven=calven(max_bytes=4_000)), users_per_request=100, bytes_per_request=4_000)
    await rig.run(rows)

    assert rig.memory.stats.requests[DATA, "413"] == 0
    assert max(len(request.body) for _, request in rig.data_requests) > 3_000
    assert rig.codes() == {Code.SUCCESS: 3000}
