"""What remote exports have in common: addresses, the ways to them, and what can be asked of an object."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from loader.errors import ExportError
from loader.network import Proxy

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
#: In the words of a library, where an address ends is a guess; better too much is hidden than too little.
_QUERY = re.compile(r"\?\S+")
#: There a quote ends it.
_IN_SQL = re.compile(r"(https?://[^\s'\"?]*)\?[^\s'\"]*", re.IGNORECASE)
#: Of patterns; in the address of a web server these are letters like any others.
_MAGIC = re.compile(r"[*?\[]")

STORES = ("s3", "gs", "az")
SCHEMES = (*STORES, "https")
#: What stands for the part of an address that is kept nowhere.
HIDDEN = "?…"

Bytes = bytes | memoryview


class Seen(NamedTuple):
    """What is known of an object before it is read: its size (None: the server doesn't tell), and its version.

    `has_end` False: where it ends nobody tells, so that a connection that breaks off looks like its end.
    """

    size: int | None
    tag: str = ""
    mtime_ns: int = 0
    has_ranges: bool = True
    has_end: bool = True


class Trouble(Exception):
    """No answer, or half of one: another try may get it."""


class Denied(Exception):
    """An answer that no further try would better; the message has the way out."""


class Changed(Exception):
    """It is another version than the one that was opened."""


class RemoteObject(Protocol):
    """What an address holds. Blocking; raises Trouble, Denied, Changed."""

    def look(self) -> Seen:
        """What is there now."""
        ...

    def fetch(self, start: int, stop: int, seen: Seen) -> Bytes:
        """So many bytes of the version that was seen."""
        ...

    def stream(self, seen: Seen) -> Iterator[bytes]:
        """All of them, where no range can be asked for."""
        ...


def _no_proxy(_url: str) -> Proxy | None:
    return None


@dataclass(frozen=True)
class Access:
    """How remote exports are reached. `headers`: of web servers; they are secret, and read anew each time.

    `proxy`: by address. `facts`: what a checkpoint keeps of all this to read the export again; no secret.
    """

    endpoint: str | None = None
    region: str | None = None
    account: str | None = None
    anonymous: bool = False
    headers: Callable[[], Mapping[str, str]] = dict
    ca_file: Path | None = None
    proxy: Callable[[str], Proxy | None] = _no_proxy
    give_up_s: float = 600.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    #: Connections, by where they lead: the objects of a pattern share them.
    connections: dict[str, Any] = field(default_factory=dict, compare=False)


def scheme_of(path: str) -> str | None:
    """The scheme of an address, such as `s3`; None: it is no address, but a path."""
    found = _SCHEME.match(path)
    return found[1].lower() if found else None


def is_pattern(url: str) -> bool:
    """Is it a pattern of objects in a store?"""
    return scheme_of(url) in STORES and _MAGIC.search(url) is not None


def shown(text: str) -> str:
    """An address without what stands behind its `?`: with many a store that is a secret. Another text as it stands."""
    if scheme_of(text) not in ("https", "http"):
        return text
    place, query, _ = text.partition("?")  # whatever comes then: in `?name=users(1).csv&sig=…` a bracket is a letter
    return place + HIDDEN if query else place


def without_secrets(text: str) -> str:
    """SQL, or what is said of it, without what stands behind the `?` of the addresses in it."""
    return _IN_SQL.sub(rf"\1{HIDDEN}", text)


def line_of(error: BaseException) -> str:
    """The first line of what a library says, without the secrets of addresses in it."""
    text = str(error).strip() or type(error).__name__
    return _QUERY.sub(HIDDEN, text.splitlines()[0])[:500]


def missing(what: str, extra: str) -> ExportError:
    """What to say if a package is not there."""
    return ExportError(f"{what} needs: pip install 'directory-loader[{extra}]'")
