"""A page of this process on the network, for as long as a run lasts."""

import contextlib
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence

import anyio
from aiohttp import web

from loader.errors import Refused

#: What a machine says of addresses that it has not, as of IPv6 where that is switched off.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def _unheard() -> logging.Logger:
    """Whoever sends nonsense to the port gets a 400 or 500, and writes no traceback over the screen of the run."""
    logger = logging.getLogger("loader.show.listening")
    logger.disabled = True
    return logger


@contextlib.contextmanager
def taken(host: str, port: int, setting: str) -> Iterator[Sequence[socket.socket]]:
    """The port, ours from now on: whoever asks waits until it is served. `port` 0: any that is free.

    Raises Refused, naming the `setting`, if nobody can listen there.
    """
    with contextlib.ExitStack() as held:
        found: list[socket.socket] = []
        trouble: OSError | None = None
        try:
            names = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, *_, address in dict.fromkeys(names):
                try:
                    found.append(held.enter_context(socket.create_server(address[:2], family=family)))
                except OSError as error:
                    trouble = error
                    if error.errno not in _NOT_HERE:
                        break
                if port == 0 and found:  # the next address would get another
                    break
            if trouble is not None and (not found or trouble.errno not in _NOT_HERE):
                raise trouble
        except OSError as error:
            is_name = isinstance(error, socket.gaierror) or not error.errno
            why = error.strerror if is_name else os.strerror(error.errno or 0)
            raise Refused(f"{setting}: can't listen at {host}:{port}: {why}") from error
        yield found


@contextlib.asynccontextmanager
async def listening(app: web.Application, at: Sequence[socket.socket]) -> AsyncIterator[str]:
    """Serve `app` there, and yield its address, such as http://127.0.0.1:9464."""
    runner = web.AppRunner(app, access_log=None, logger=_unheard(), shutdown_timeout=1.0)
    await runner.setup()
    try:
        for each in at:
            await web.SockSite(runner, each).start()
        host, port, *_ = at[0].getsockname()
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()
