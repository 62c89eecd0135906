"""Who exists, and who is poison."""

import re

from loader.sandbox import RosterOptions
from loader.sandbox.roster import Roster


def test_everyone_exists_by_default() -> None:
    """Without rules nobody need be asked about."""
    assert Roster(RosterOptions()).open


def test_rules_add_up() -> None:
    """A user exists if it is in the list of the known and not among the unknown; case matters."""
    roster = Roster(RosterOptions(known_users=frozenset({"ann", "xaver"}), unknown=re.compile("^x")))

    assert not roster.open
    assert [user for user in ("ann", "Ann", "bob", "xaver") if roster.exists(user)] == ["ann"]


def test_poison_is_found_anywhere_in_the_key() -> None:
    """The pattern is searched for, not matched from the start."""
    roster = Roster(RosterOptions(poison=re.compile("evil")))

    assert not roster.open
    assert (roster.is_poison("dr-evil@example.com"), roster.is_poison("ann")) == (True, False)
    assert roster.exists("dr-evil@example.com")
