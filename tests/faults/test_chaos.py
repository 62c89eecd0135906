"""Whatever goes wrong, and all at once: every row has one outcome, and it is true."""

import random
import re

import pytest

from loader.outcome import Code
from loader.sandbox import FaultOptions, LedgerOptions, RosterOptions
from loader.sandbox.options import Fault
from tests.faults.rig import Rig, Row, options
from tests.virtual_time import run_virtual

FAULTS: tuple[Fault, ...] = (
    *("429", "500", "502", "503", "408", "reset", "lost", "torn", "slow"),
    *("garbage", "truncated", "shuffled", "missing", "doubled", "foreign", "wrong-type"),
)


async def chaos(seed: int) -> None:
    dice = random.Random(seed)
    names = [f"user{number:04}@example.com" for number in range(240)]
    rows: list[Row] = [(name, {"n": str(row), dice.choice("abc"): row}) for row, name in enumerate(names)]
    rows += [(dice.choice(names), {dice.choice("abc"): 1000 + row}) for row in range(60)]
    dice.shuffle(rows)
    rates: dict[Fault, float] = {fault: dice.uniform(0.0, 0.15) for fault in dice.sample(FAULTS, 5)}
    rig = Rig(
        options(
            FaultOptions(
                seed=seed, latency_s=0.05, jitter_s=0.4, rates=rates, on=dice.choice(["data", "all"]), slow_s=2.0
            ),
            ledger=LedgerOptions(journal=True),
            roster=RosterOptions(unknown=re.compile(r"user00[12]\d"), poison=re.compile(r"user0[01]99")),
        ),
        concurrency=dice.choice([1, 2, 8]),
        users_per_request=dice.choice([1, 7, 25]),
        rate=dice.choice([None, 20.0]),
        attempts=12,
        seed=seed,
    )

    found = await rig.run(rows, block=dice.choice([40, 300]))

    assert rig.lane.reason is None
    assert sorted(found) == list(range(1, len(rows) + 1))
    ledger = rig.memory.ledger.users
    expected: dict[str, dict[str, object]] = {}
    for row, (user, values) in enumerate(rows, 1):
        assert found[row].user == user
        code = found[row].outcome.code
        if user[4:7] in ("001", "002"):
            assert code in (Code.USER_NOT_FOUND, Code.SUPERSEDED)
        elif user[4:8] in ("0099", "0199"):
            assert code in (Code.INVALID, Code.SUPERSEDED)
        else:
            assert code in (Code.SUCCESS, Code.SUPERSEDED)
            expected.setdefault(user, {}).update(values)
    assert {user: entry.attributes for user, entry in ledger.items()} == expected
    for user, count in rig.carried.items():
        assert count == sum(
            found[row].outcome.attempts
            for row, (name, _) in enumerate(rows, 1)
            if name == user and found[row].outcome.code is not Code.SUPERSEDED
        )


@pytest.mark.parametrize("seed", range(200))
def test_every_row_ends_in_one_true_outcome(seed: int) -> None:
    """All faults mixed: outcomes = rows, what is called a success stands in the ledger, and nothing else does."""
    run_virtual(chaos(seed))
