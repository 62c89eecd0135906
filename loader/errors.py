"""What can go wrong with a run, each class with the exit status it ends in.

A user that fails is not an error but an outcome (see outcome.py).

LoaderError
├── Refused            2: nothing was sent; usage, settings, export, checkpoint or lock forbid it
│   ├── SettingsError      a setting is wrong: its key and the way out are named
│   ├── ExportError        the export can't be read at all
│   ├── CheckpointError    the checkpoint is damaged, or belongs to another load
│   │   └── InUse              another run has it
│   └── Guarded            a guard of the refresh holds the night back
├── Stopped            3: stopped after talk with the target began; resumable
│   └── Asked              by whoever runs it, or because it is time
└── TransportError     one attempt got no usable answer; never leaves settle.py
    └── TimedOut           within the time it may take
"""

from collections.abc import Mapping


class LoaderError(Exception):
    """Base of all errors that carry a message for the user.

    `flags`: what the command to go on with needs, beside what it was called with.
    """

    exit_status = 3
    flags: tuple[str, ...] = ()


class Refused(LoaderError):
    """Nothing was sent, and nothing will be until the cause named is mended."""

    exit_status = 2


class SettingsError(Refused):
    """A setting is missing, unknown or out of range."""


class ExportError(Refused):
    """The export can't be opened, or its header doesn't fit the mapping."""


class CheckpointError(Refused):
    """The checkpoint can't be used for this run."""


class InUse(CheckpointError):
    """Another run of this load is at work, as `fact` says."""

    def __init__(self, fact: str) -> None:
        super().__init__(f"{fact}; wait for it, or end it")
        self.fact = fact


class Guarded(Refused):
    """A guard holds the night back: `guard` is its setting, `compared` what was found, in figures.

    `brief`: the message without `names`, which are users' keys, for summaries that are sent to places.
    """

    def __init__(self, guard: str, compared: Mapping[str, int], what: str, way_out: str, names: str = "") -> None:
        super().__init__(f"{what}{names}. {way_out}")
        self.guard, self.compared, self.brief = guard, compared, f"{what}. {way_out}"


class Stopped(LoaderError):
    """The run can't go on now; what was settled is kept, and the same command resumes."""

    exit_status = 3

    def __init__(self, message: str, *flags: str) -> None:
        super().__init__(message)
        self.flags = flags


class Asked(Stopped):
    """The run stopped as it was asked to."""


class TransportError(LoaderError):
    """No answer: connection refused or cut, deadline passed, body broken. The reason is the message."""


class TimedOut(TransportError):
    """No whole answer within the time that a request may take."""


def telling(error: BaseException) -> BaseException:
    """Of errors that come together, in a task group's wrapping, the one that says most; else the error itself."""
    leaves: list[BaseException] = []
    todo: list[BaseException] = [error]
    while todo:
        error = todo.pop()
        if isinstance(error, BaseExceptionGroup):
            todo += error.exceptions
        else:
            leaves.append(error)
    return min(leaves, key=lambda error: isinstance(error, LoaderError))
