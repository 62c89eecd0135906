"""directory-loader: very large user exports into directory APIs, fast, resumable, with an outcome for every user.

    report = loader.run("load.toml")

    async with loader.open("load.toml", watch=show) as load:
        report = await load.run()

`open` and `run` do what `loader run` does; `Load`, `Report` and `Snapshot` are what they give; `status` tells how the
load in a checkpoint stands; `Code` are the outcomes. The errors: LoaderError, of which Refused (SettingsError,
ExportError, CheckpointError) means that nothing was sent, and Stopped that the next run goes on. docs/library.md has
examples.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loader.errors import CheckpointError, ExportError, LoaderError, Refused, SettingsError, Stopped
    from loader.library import Load, open, run  # noqa: A004  # loader.open, as gzip.open
    from loader.outcome import Code
    from loader.snapshot import Failure, Found, Snapshot, Wire
    from loader.standing import Report, status

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Code",
    "ExportError",
    "Failure",
    "Found",
    "Load",
    "LoaderError",
    "Refused",
    "Report",
    "SettingsError",
    "Snapshot",
    "Stopped",
    "Wire",
    "__version__",
    "open",
    "run",
    "status",
]

_MODULES = {
    "errors": ("CheckpointError", "ExportError", "LoaderError", "Refused", "SettingsError", "Stopped"),
    "library": ("Load", "open", "run"),
    "outcome": ("Code",),
    "snapshot": ("Failure", "Found", "Snapshot", "Wire"),
    "standing": ("Report", "status"),
}


def __getattr__(name: str) -> Any:
    """What is public, imported when it is asked for: the command line waits for none of it."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"loader.{module}"), name)
    raise AttributeError(f"module 'loader' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
