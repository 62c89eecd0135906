"""A local emulation of the directory APIs, with a ledger of what it accepted. Written from the APIs' documents alone.

    async with serve(Options()) as sandbox:
        ...  # load into sandbox.url, then look at sandbox.ledger and sandbox.stats

`Memory` is the same without sockets.
"""

from loader.sandbox.ledger import Entry, Ledger, Write
from loader.sandbox.memory import Memory
from loader.sandbox.options import (
    CalvenOptions,
    DescopeOptions,
    DxOptions,
    FaultOptions,
    LedgerOptions,
    Options,
    QuotaOptions,
    RecordsOptions,
    RosterOptions,
    ScimOptions,
    WorkOptions,
)
from loader.sandbox.sandbox import Sandbox
from loader.sandbox.server import serve
from loader.sandbox.stats import Stats

__all__ = [
    "CalvenOptions",
    "DescopeOptions",
    "DxOptions",
    "Entry",
    "FaultOptions",
    "Ledger",
    "LedgerOptions",
    "Memory",
    "Options",
    "QuotaOptions",
    "RecordsOptions",
    "RosterOptions",
    "Sandbox",
    "ScimOptions",
    "Stats",
    "WorkOptions",
    "Write",
    "serve",
]
