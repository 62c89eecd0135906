"""What scripts/check says of pins."""

import pytest

from tests.pins import Installed, complaints, pinned

INSTALLED = {
    "loader": Installed(
        "1", ("web[fast]>=2", "Odd.Name; python_version > '3'", "old; python_version < '3'", "test; extra == 'dev'")
    ),
    "web": Installed("2.1", ("loop; extra == 'fast'", "slow; extra == 'slow'", "loader")),
    "loop": Installed("3"),
    "odd-name": Installed("4"),
    "test": Installed("5", ("web",)),
}
PINS = "# all of it\nweb==2.1\nloop==3\nodd_name==4\ntest==5  # to test\nunused==6\n"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("", ""), []),
        (("loop==3", ""), ["loop 3 is installed, and constraints.txt has no pin"]),
        (("loop==3", "loop==4"), ["loop 3 is installed, and constraints.txt pins 4"]),
        (("odd_name==4\n", ""), ["odd-name 4 is installed, and constraints.txt has no pin"]),
        (("test==5", ""), ["test 5 is installed, and constraints.txt has no pin"]),
    ],
)
def test_all_that_the_loader_stands_on_is_pinned(change: tuple[str, str], found: list[str]) -> None:
    """What its dependencies need too, as far as extras and markers ask for it; a circle is no trouble."""
    assert complaints("loader[dev]", INSTALLED.__getitem__, pinned(PINS.replace(*change))) == found


def test_of_extras_only_those_asked_for_count() -> None:
    assert complaints("loader", INSTALLED.__getitem__, pinned(PINS.replace("test==5", ""))) == []
