"""Exports into mapped rows: a stream of blocks with row numbers and places to resume from, wherever they come from.

files.py reads files and stdin, table.py what comes as columns or objects: in memory, out of a database, of a plug-in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from loader.export.remote import Remote
from loader.export.rows import Place, Unit, Wanted
from loader.export.source import Fingerprint
from loader.mapping import RowMapping
from loader.record import Mark, Rows
from loader.span import SpanSet

__all__ = ["Export", "Fingerprint", "Place"]


class Export(Protocol):
    """What a load reads. `str()` of it is what messages call it."""

    @property
    def format(self) -> str:
        """What its rows are read as: a part of the load's identity."""
        ...

    @property
    def paths(self) -> Sequence[Path | Remote]:
        """Its files, if it has any: where to find them again, and what nobody may write over."""
        ...

    @property
    def comes_once(self) -> bool:
        """Must it be given anew to be read again?"""
        ...

    def fingerprint(self) -> Fingerprint:
        """What is known of it without reading it. Raises ExportError if it isn't there."""
        ...

    def held(self, folder: Path, watch: Callable[[int], None]) -> AbstractContextManager["Export"]:
        """What can be read again and again until this ends: itself, or its rows in a file in `folder`.

        `watch` is told how many rows are there, and may raise. Raises as rows() does.
        """
        ...

    def check(self, mapping: RowMapping) -> None:
        """Raise ExportError if it can't be read, or doesn't fit the mapping."""
        ...

    def names(self, mapping: RowMapping) -> list[str] | None:
        """The attributes that would be sent, as far as that is known before the rows are read. None: it isn't."""
        ...

    def rows(
        self,
        mapping: RowMapping,
        start: Mark | None = None,
        settled: SpanSet | None = None,
        known: Mapping[int, Mark] | None = None,
    ) -> Iterator[Rows]:
        """Blocks of rows from `start` on, without those in `settled`. Blocking: for a thread.

        `known`: marks that were made of this export before, by row.

        Raises ExportError where the export doesn't fit the mapping, or is another than `known` says; Stopped where it
        breaks off (behind the last whole row).
        """
        ...

    def units(self, mapping: RowMapping, place: Place, wanted: Wanted = ...) -> Iterator[Unit]:
        """All rows as units that are read elsewhere, in order, and `wanted` rows alone. Blocking: for a thread.

        `place`, at the beginning, goes along. Raises as rows() does.
        """
        ...

    def is_same_up_to(self, marks: Sequence[Mark], mapping: RowMapping, start: Mark | None = None) -> bool:
        """Does it hold, up to the last mark, what was read when the marks were made? Reads it.

        `start`: a run is to go on there, so that no more needs to be compared than rows() will not compare itself.
        """
        ...
