"""The rows of a table on disk, for as long as a run lasts: read as often as one likes, and the same each time.

The file has no name, so that nothing is left of it however the run ends. In it stands one Arrow stream a block, as each
block of some sources has types of its own.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from loader.errors import ExportError
from loader.export.source import Fingerprint
from loader.refresh.spill import nameless, write_all

_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


class Spool:
    """A TableSource that gives what was put into it: use as a context manager, whose end takes it away.

    `name`: what messages call the table.
    """

    order_by = None  # it is read from its beginning, which is at hand
    comes_once = False

    def __init__(self, name: str, schema: pa.Schema, folder: Path) -> None:
        self._name = name
        self._schema = schema
        self._folder = folder
        self._ends = [0]
        self._hash = hashlib.sha256()
        try:
            self._file = nameless(folder)
        except OSError as error:
            raise self._told(error) from error

    def __str__(self) -> str:
        return self._name

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        """Its bytes."""
        return self._ends[-1]

    @property
    def fingerprint(self) -> Fingerprint:
        """Two that are alike hold the same rows. How much of its bytes is read, no row tells, so it has no size."""
        return Fingerprint(0, 0, 1, self._hash.hexdigest())

    def fill(self, blocks: Iterable[pa.RecordBatch]) -> None:
        """Put all of them in. Raises ExportError if there is no room."""
        for block in blocks:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, block.schema, options=_OPTIONS) as stream:
                stream.write_batch(block)
            data = sink.getvalue().to_pybytes()
            self._hash.update(data)
            try:
                write_all(self._file, data)
            except OSError as error:
                raise self._told(error) from error
            self._ends.append(self._file.tell())

    def columns(self) -> pa.Schema:
        return self._schema

    def batches(self, after: object) -> Iterator[pa.RecordBatch]:
        assert after is None, "it has no order to begin behind a key of"
        handle = self._file.fileno()
        for start, end in zip(self._ends, self._ends[1:], strict=False):
            yield from pa.ipc.open_stream(os.pread(handle, end - start, start))

    def _told(self, error: OSError) -> ExportError:
        return ExportError(
            f"can't keep the rows of {self._name} in {self._folder} to compare them ({error.strerror or error}); "
            "refresh.state puts them elsewhere"
        )
