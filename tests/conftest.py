"""What holds for every test: the event loop is never blocked, sockets stay on loopback, properties can be repeated."""

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

# ci: the same examples each time, so that a red build is red again. dev: new examples each time.
# No deadline in either: a shared machine pauses when it likes, and pytest's timeout ends what hangs.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """A call that blocks the event loop raises blockbuster.BlockingError, wherever code of the loader caused it.

    Calls that only the test or a library makes don't count: a test may write its export in an async function. Allowed
    by blockbuster itself: imports, starting threads, standard output. To allow one more, say here why it can't be
    avoided: `guard.functions["os.stat"].can_block_in("loader/x.py", "function")`.
    """
    if request.node.get_closest_marker("soak"):  # those run the loader as processes of its own
        yield
        return
    with blockbuster_ctx("loader"):
        yield


_LOOPBACK_NAMES = {"localhost", "localhost.localdomain"}
_WATCHED = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"}
_outside: list[str] | None = None  # what left loopback in this test; None between tests


def _is_loopback(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def _watch_sockets(event: str, args: tuple[object, ...]) -> None:
    """An audit hook: it sees every socket of Python, whoever opens it (but not uvloop's, which are C)."""
    if _outside is None:
        return
    if event in _WATCHED:
        sock, address = args[0], args[-1]
        if not isinstance(sock, socket.socket) or sock.family not in (socket.AF_INET, socket.AF_INET6):
            return
        if address is None or (isinstance(address, tuple) and _is_loopback(address[0])):
            return  # None: sendmsg on a connected socket
        what = f"{event} {address!r}"
    elif event == "socket.getaddrinfo" and args[0] is not None and not _is_loopback(args[0]):
        what = f"{event} {args[0]!r}"  # a question to a name server leaves the machine as well
    else:
        return
    _outside.append(what)
    raise OSError(f"tests stay on loopback: {what}")


sys.addaudithook(_watch_sockets)  # for the life of the process: audit hooks can't be taken back


@pytest.fixture(autouse=True)
def loopback_only() -> Iterator[list[str]]:
    """A socket to or on anything but loopback fails the call, and then the test, even if the code handled the error."""
    global _outside  # noqa: PLW0603  # the hook is one for the process
    seen = _outside = list[str]()
    try:
        yield seen
    finally:
        _outside = None
    if seen:
        pytest.fail("left loopback: " + ", ".join(seen))
