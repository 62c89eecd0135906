"""Sources of other packages, by the name that `[export] source` gives.

A package adds one through the entry point group `loader.sources`: a class made from `CustomSource`, under that name.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, SecretStr

from loader.errors import SettingsError
from loader.export.table import Key

GROUP = "loader.sources"


class CustomSource(BaseModel, ABC):
    """A table of somebody's own (see loader.export.table.TableSource). Its fields are what `[export.options]` may hold.

    A field of type SecretStr is written as `env:NAME` or `file:PATH`, and is no part of what makes a load the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    comes_once: ClassVar[bool] = False

    @property
    def order_by(self) -> str | None:
        """The column whose values rise from row to row, so that `batches` can begin behind one. None: there is none."""
        return None

    @abstractmethod
    def columns(self) -> pa.Schema:
        """The columns of each batch. Raises ExportError if the table can't be read."""

    @abstractmethod
    def batches(self, after: Key | None) -> Iterator[pa.RecordBatch]:
        """All rows in one order, the same each time, in batches of any size; or those behind the key `after`.

        Raises Stopped where it breaks off; any other exception is taken for that.
        """

    def __str__(self) -> str:
        return f"the {type(self).__name__}"

    @classmethod
    def secrets(cls) -> list[str]:
        """The options that are secrets."""
        return [name for name, field in cls.model_fields.items() if field.annotation in (SecretStr, SecretStr | None)]

    def identity(self) -> dict[str, Any]:
        """What makes a load of it the same load."""
        return self.model_dump(mode="json", exclude=set(self.secrets()))


def known() -> list[str]:
    """The names of all that are installed."""
    return sorted({point.name for point in entry_points(group=GROUP)})


@cache
def find(name: str) -> type[CustomSource]:
    """The source of that name. Raises SettingsError if there is none, or it can't be used."""
    added = [point for point in entry_points(group=GROUP) if point.name == name]
    if not added:
        near = get_close_matches(name, known(), 1, 0.5)
        guess = f"; did you mean {near[0]}?" if near else ""
        names = ", ".join(known()) or "none"
        raise SettingsError(f"export.source: no package that is installed has a source {name!r}; known: {names}{guess}")
    if len(added) > 1:
        packages = " and in ".join(map(_package, added))
        raise SettingsError(f"export.source: {name!r} is the name of a source in {packages}")
    (point,) = added
    try:
        found = point.load()
    except (Exception, SystemExit) as error:  # somebody else's code: whatever it raises, the person gets a line
        raise SettingsError(f"export.source: {_package(point)} can't be imported: {error!r}") from error
    if not (isinstance(found, type) and issubclass(found, CustomSource)):
        raise SettingsError(f"export.source: {point.value} of {_package(point)} is not made from CustomSource")
    return found


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name if point.dist else point.value}"
