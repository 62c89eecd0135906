"""The targets, by the name that `[target] api` gives."""

from loader.target import Target
from loader.targets.calven import Calven

TARGETS: dict[str, type[Target]] = {target.api: target for target in (Calven,)}
