"""A disk that loses its power: from the steps of a run, the files that could be there afterwards.

What was synced is there. Of the rest any part may be: POSIX promises no order between what is not synced, of a name no
more than of data, and not even that a write is done whole; only that a sector is old or new. A file that grew may have
zeros, or anything, where its data did not arrive. A name counts as synced when its folder is: stricter than most file
systems, which sync a new file's name with its data.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from tests.crash.steps import Step

Loss = Literal["all", "none", "tail", "torn", "any"]

#: What becomes of that which is not synced: all of it is lost, none of it, all from some step on, the same with a write
#: that is half done, or any sectors and any names.
LOSSES: tuple[Loss, ...] = ("all", "none", "tail", "torn", "any")


@dataclass
class Disk:
    """The files of one folder: what is synced of names and contents, and the steps since then."""

    names: dict[str, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    _unsynced: list[tuple[int, Step]] = field(default_factory=list)
    _files: dict[int, int] = field(default_factory=dict)  # inode -> file: a number is used again when a file is gone

    @classmethod
    def holding(cls, files: Mapping[str, tuple[int, bytes]]) -> "Disk":
        """A disk with synced files: name -> inode, content."""
        disk = cls()
        for number, (name, (inode, content)) in enumerate(files.items()):
            disk.names[name], disk.contents[number], disk._files[inode] = number, content, number
        return disk

    def do(self, step: Step) -> None:
        """One more step is done."""
        match step.kind:
            case "sync":
                file = self._files[step.file]
                mine = [each for number, each in self._unsynced if number == file and _is_of_content(each)]
                self.contents[file] = _written(self.contents[file], mine)
                self._unsynced = [
                    (number, each) for number, each in self._unsynced if number != file or not _is_of_content(each)
                ]
            case "sync-folder":
                self.names = _named(self.names, [found for found in self._unsynced if not _is_of_content(found[1])])
                self._unsynced = [found for found in self._unsynced if _is_of_content(found[1])]
            case _:
                if step.kind == "create":
                    self._files[step.file] = len(self.contents)
                    self.contents[len(self.contents)] = b""
                self._unsynced.append((self._files[step.file], step))

    def after(self, loss: Loss, rng: random.Random) -> dict[str, bytes]:
        """The files, name -> content, when the power comes back."""
        kept = list(self._unsynced)
        sector = rng.choice((512, 4096))
        match loss:
            case "all":
                kept = []
            case "tail" | "torn":
                kept = kept[: rng.randint(0, len(kept))]
                if loss == "torn" and kept and kept[-1][1].kind == "write":
                    number, last = kept[-1]
                    pieces = list(_sectors(last, sector))
                    kept[-1:] = [(number, piece) for piece in pieces[: rng.randrange(len(pieces))]]
            case "any":
                share = rng.random()
                pieces_of = [(number, piece) for number, step in kept for piece in _sectors(step, sector)]
                kept = [found for found in pieces_of if rng.random() < share]
        names = _named(self.names, [found for found in kept if not _is_of_content(found[1])])
        found = {}
        for name, number in names.items():
            mine = [step for file, step in kept if file == number and _is_of_content(step)]
            found[name] = _written(self.contents[number], mine)
            if loss == "any":
                lost = [step for file, step in self._unsynced if file == number and step.kind == "write"]
                size = max((step.offset + step.length for step in lost), default=0)
                found[name] = _grown(self.contents[number], mine, size, rng)
        return found


def _is_of_content(step: Step) -> bool:
    return step.kind in ("write", "cut")


def _sectors(step: Step, sector: int) -> Iterable[Step]:
    """A write in pieces that don't cross a sector's end; any other step is one piece."""
    if step.kind != "write":
        return [step]
    end = step.offset + step.length
    cuts = [step.offset, *range((step.offset // sector + 1) * sector, end, sector), end]
    return [
        step._replace(offset=a, length=b - a, data=step.data[a - step.offset : b - step.offset])
        for a, b in pairwise(cuts)
    ]


def _written(content: bytes, steps: Iterable[Step]) -> bytes:
    found = bytearray(content)
    for step in steps:
        if step.kind == "write":
            found.extend(bytes(max(step.offset - len(found), 0)))
            found[step.offset : step.offset + step.length] = step.data
        else:
            found.extend(bytes(max(step.offset - len(found), 0)))
            del found[step.offset :]
    return bytes(found)


def _grown(content: bytes, steps: list[Step], size: int, rng: random.Random) -> bytes:
    """As _written; and if the file had grown to `size`, that may be known while the data is not there."""
    filler = rng.choice((None, bytes, rng.randbytes))
    if filler is None or size <= len(content):
        return _written(content, steps)
    return _written(content + filler(size - len(content)), steps)


def _named(names: Mapping[str, int], steps: Iterable[tuple[int, Step]]) -> dict[str, int]:
    found = dict(names)
    for number, step in steps:
        if step.kind != "create":
            found.pop(step.name, None)
        if step.kind != "remove":
            found[step.other or step.name] = number
    return found
