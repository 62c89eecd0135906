"""The targets, by the name that `[target] api` gives: those built in, and those of installed packages.

A package adds one through the entry point group `loader.targets`, with the target's `api` as the entry point's name.
"""

from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from loader.errors import SettingsError
from loader.target import Target
from loader.targets.calven import Calven, CalvenHierarchy
from loader.targets.descope import Descope
from loader.targets.dx import Dx
from loader.targets.http import Http
from loader.targets.scim import Scim

BUILT_IN: dict[str, type[Target]] = {
    target.api: target for target in (Calven, CalvenHierarchy, Dx, Descope, Scim, Http)
}

GROUP = "loader.targets"


def known() -> list[str]:
    """The names of all targets."""
    return list(dict.fromkeys([*BUILT_IN, *sorted(point.name for point in entry_points(group=GROUP))]))


@cache
def find(api: str) -> type[Target]:
    """The target of that name; a built-in one wins. Raises SettingsError if there is none, or it can't be used."""
    if api in BUILT_IN:
        return BUILT_IN[api]
    added = [point for point in entry_points(group=GROUP) if point.name == api]
    if not added:
        near = get_close_matches(api, known(), 1, 0.5)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise SettingsError(f"target.api: {api!r} is not an API; known: {', '.join(known())}{guess}")
    if len(added) > 1:
        raise SettingsError(f"target.api: {api!r} is the name of a target in {' and in '.join(map(_package, added))}")
    (point,) = added
    try:
        found = point.load()
    except (Exception, SystemExit) as error:  # somebody else's code: whatever it raises, the person gets a line
        raise SettingsError(f"target.api: {_package(point)} can't be imported: {error!r}") from error
    if not (isinstance(found, type) and issubclass(found, Target)) or getattr(found, "api", "") != api:
        raise SettingsError(f"target.api: {point.value} of {_package(point)} is not a target with the name {api!r}")
    return found


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name if point.dist else point.value}"
