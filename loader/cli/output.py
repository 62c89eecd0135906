"""Where results go: stdout, or a file for its owner alone."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from loader.errors import Refused

if TYPE_CHECKING:
    from loader.checkpoint import Checkpoint


@contextmanager
def writing_to(
    path: Path | None, checkpoint: "Checkpoint", kept: Iterable[Path] = (), *, is_kept: bool = False
) -> Iterator[BinaryIO]:
    """Stdout, or the file at `path`, as results hold users.

    Raises Refused if it can't be written, if it is the checkpoint or the export, or if it is there and `is_kept`.
    """
    if path is None:
        try:
            yield sys.stdout.buffer
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            discard_stdout()
            raise Refused(f"can't write to stdout: {error.strerror}") from error
        return
    suffixes = ("", "-wal", "-shm", "-journal", ".lock")
    ours = [checkpoint.path.with_name(checkpoint.path.name + suffix) for suffix in suffixes]
    if path.resolve() in [each.resolve() for each in (*ours, *kept, *map(Path, checkpoint.get("files") or ()))]:
        raise Refused(f"-o {path} would overwrite the checkpoint or the export; name another file")
    if is_kept and os.path.isfile(path):
        raise Refused(
            f"-o {path}: it is there already, and may hold corrections; --force replaces it, and -o names another"
        )
    with written(path) as file:
        yield file


@contextmanager
def written(path: Path, flag: str = "-o") -> Iterator[BinaryIO]:
    """A file for its owner alone; whole, or not at all. Raises Refused if it can't be written."""
    # Not a pipe or a device. These two of Path's raise for a name that is too long.
    is_plain = os.path.isfile(path) or not os.path.exists(path)
    draft = path.with_name(path.name + ".part") if is_plain else path
    try:
        with open(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            yield file
        if is_plain:
            draft.replace(path)
    except OSError as error:
        raise Refused(f"{flag} {path}: can't write it: {error.strerror}") from error
    finally:
        if is_plain:
            with suppress(OSError):  # it was never made, or is in its place already
                draft.unlink()


def discard_stdout() -> None:
    """Nobody takes it any more: what is still to be flushed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
