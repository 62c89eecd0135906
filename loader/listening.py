"""A page of this process on the network, for as long as a run lasts."""

import contextlib
import logging
from collections.abc import AsyncIterator

import anyio
from aiohttp import web

from loader.errors import Refused


def _unheard() -> logging.Logger:
    """Whoever sends nonsense to the port gets a 400 or 500, and writes no traceback over the screen of the run."""
    logger = logging.getLogger("loader.listening")
    logger.disabled = True
    return logger


@contextlib.asynccontextmanager
async def listening(app: web.Application, host: str, port: int, setting: str) -> AsyncIterator[str]:
    """Serve `app`, and yield its address, such as http://127.0.0.1:9464. `port` 0: any that is free.

    Raises Refused, naming the `setting`, if nobody can listen there.
    """
    runner = web.AppRunner(app, access_log=None, logger=_unheard(), shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise Refused(f"{setting}: can't listen at {host}:{port}: {error.strerror}") from error
        at, taken, *_ = runner.addresses[0]
        yield f"http://{f'[{at}]' if ':' in at else at}:{taken}"
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()
