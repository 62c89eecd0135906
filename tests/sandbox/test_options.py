"""Options are checked once, at the door."""

import re

import pytest
from pydantic import ValidationError

from loader.sandbox import CalvenOptions, LedgerOptions, Options
from loader.sandbox.options import FaultOptions


def test_credentials_are_generated() -> None:
    """Each sandbox has a key of its own, unless told; the id looks like the page's."""
    first, second = CalvenOptions(), CalvenOptions()

    assert (first.key_id, first.secret) != (second.key_id, second.secret)
    assert re.fullmatch(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", first.key_id)


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": -1},
        {"more": 1},
        {"calven": {"token_lifetime_s": 0}},
        {"calven": {"max_users": 0}},
        {"roster": {"poison": "("}},
        {"faults": {"rates": {"429": 1.5}}},
        {"faults": {"rates": {"418": 0.5}}},
        {"faults": {"latency_s": -1}},
        {"faults": {"about": "("}},
        {"faults": {"only": [[-1, 2]]}},
        {"faults": {"during": [[0, -2]]}},
        {"faults": {"latency_s": float("inf")}},
        {"api": "azure"},
        {"quotas": [{"requests": 0}]},
        {"quotas": [{"window_s": 60}]},
        {"quotas": [{"requests": 1, "users": 1}]},
        {"quotas": [{"requests": 1, "kind": "leaky"}]},
        {"ledger": {"count_only": True, "journal": True}},
        {"work": {"request_s": 1, "at_once": 0}},
        {"work": {"at_once": 4}},
    ],
)
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    """Out of range, unknown or contradictory: a ValidationError, not a surprise later."""
    with pytest.raises(ValidationError):
        Options.model_validate(wrong)


def test_options_are_frozen() -> None:
    """What was checked stays so."""
    with pytest.raises(ValidationError):
        FaultOptions().seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        LedgerOptions().journal = True  # type: ignore[misc]
