"""How a command ends: whatever it raises becomes a message and an exit status."""

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click

from loader import __version__
from loader.cli.messages import say
from loader.cli.output import discard_stdout
from loader.errors import LoaderError, telling


def ends(command: Callable[..., int | None]) -> Callable[..., NoReturn]:
    """Turn what a command raises into a message and an exit status; a traceback goes to a file, never to a person."""

    @wraps(command)
    def ended(*args: Any, **kwargs: Any) -> NoReturn:
        if os.getpid() == 1:  # in a container: the kernel keeps a SIGTERM from process 1 that nobody there waits for
            signal.signal(signal.SIGTERM, _terminated)
        try:
            status = command(*args, **kwargs) or 0
        except click.ClickException:
            raise
        except BaseExceptionGroup as group:
            status = _explain(telling(group))
        except (KeyboardInterrupt, click.Abort):  # while it ran, or at a question
            status = 130
        except BrokenPipeError:  # the reader of our results went away
            discard_stdout()
            status = 141
        except Exception as error:  # noqa: BLE001  # the last resort: a person gets a line, the crash file the rest
            status = _explain(error)
        if status and gc.get_freeze_count():  # of what an error still holds, DuckDB would complain at the very end
            gc.unfreeze()
            gc.collect()
        sys.exit(status)

    return ended


def _terminated(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def _explain(error: BaseException) -> int:
    if isinstance(error, LoaderError):
        say(f"loader: {error}", "error")
        return error.exit_status
    path = Path(f"loader-crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt")
    text = f"directory-loader {__version__}, Python {sys.version}\n\n{''.join(traceback.format_exception(error))}"
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        where = f"details are in {path}"
    except OSError:
        where = "its details could not be written to the working directory"
    say(
        f"loader: internal error, please report it: {type(error).__name__}: {error} ({where}). "
        "What was settled is kept",
        "error",
    )
    return 3
