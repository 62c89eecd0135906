"""The event loop of a command that talks for long, and the signals that end it."""

import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

from loader.cli.messages import say
from loader.errors import LoaderError, telling

if TYPE_CHECKING:
    from loader.lane import Lane

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: The collector looks for cycles after so many more objects than it freed: hardly anything here makes any.
_GC_AFTER = 20_000

_Result = TypeVar("_Result")


class Interrupted(LoaderError):
    """A signal ended the run; `kept` says what is left of it."""

    def __init__(self, number: int, kept: str) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}; {kept}")
        self.exit_status = 128 + number


def on_loop(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run it to its end, on uvloop where there is one. Of errors that come together, raises the one that says most."""
    import anyio

    gc.set_threshold(_GC_AFTER)
    try:
        return anyio.run(work, backend_options={"use_uvloop": find_spec("uvloop") is not None})
    except BaseExceptionGroup as group:
        raise telling(group) from group


async def heed_signals(lane: "Lane", kept: str) -> None:
    """Stop the lane when a signal comes, and this process when another does. `kept`: what is left then."""
    import anyio

    with anyio.open_signal_receiver(*_SIGNALS) as received:
        async for number in received:
            if lane.stopping.is_set():
                say("loader: stopped at once")
                with suppress(OSError):
                    sys.stderr.close()  # a screen may still have to write that
                os._exit(128 + number)  # the checkpoint is made for being killed
            mark = "\n" if sys.stderr.isatty() else ""  # behind the ^C that the terminal shows
            say(f"{mark}loader: stopping; what is in flight may finish (again to stop at once)")
            lane.stop(Interrupted(number, kept))
