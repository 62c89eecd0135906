"""What can go wrong with a run, each class with the exit status it ends in.

A user that fails is not an error but an outcome (see outcome.py).

LoaderError
├── Refused            2: nothing was sent; usage, settings, export, checkpoint or lock forbid it
│   ├── SettingsError      a setting is wrong: its key and the way out are named
│   ├── ExportError        the export can't be read at all
│   └── CheckpointError    the checkpoint is in use, damaged, or belongs to another load
├── Stopped            3: stopped after talk with the target began; resumable
│   └── Asked              by whoever runs it, or because it is time
└── TransportError     one attempt got no usable answer; never leaves settle.py
    └── TimedOut           within the time it may take
"""


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
