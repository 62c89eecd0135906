"""The sandbox on a socket: loopback only, over aiohttp.web."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from loader.request import Request, Response
from loader.sandbox import admin
from loader.sandbox.options import Options
from loader.sandbox.sandbox import ConnectionCut, Sandbox

HOST = "127.0.0.1"
# A request of some hundred users is larger than aiohttp's 64 KiB; more room saves pausing and resuming the reading.
_READ_BYTES = 2**20
_SHUTDOWN_S = 0.1


@asynccontextmanager
async def serve(options: Options | None = None) -> AsyncIterator[Sandbox]:
    """Serve on loopback until the block ends; `.url` is where. OSError if the port is taken."""
    options = options or Options()
    sandbox = Sandbox(options, time.time)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path.startswith(admin.PREFIX):
            return await admin.handle(sandbox, request)
        with sandbox.on_the_wire(request.raw_path):
            try:
                # Straight from the stream: request.read() has a maximum, and here only the emulated API may have one.
                body = await request.content.read()
                response = await sandbox.answer(Request(request.method, request.raw_path, body, request.headers))
            except ConnectionCut as cut:
                return await _cut(request, cut.torn)
            except ConnectionError:
                return web.Response()  # the client hung up in the middle of its request: there is nobody to answer
        return web.Response(status=response.status, headers=response.headers, body=response.body)

    runner = web.ServerRunner(
        web.Server(handle, access_log=None, read_bufsize=_READ_BYTES), shutdown_timeout=_SHUTDOWN_S
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, options.port).start()
        sandbox.url = f"http://{HOST}:{runner.addresses[0][1]}"
        yield sandbox
    finally:
        await runner.cleanup()


async def _cut(request: web.BaseRequest, torn: Response | None) -> web.StreamResponse:
    """Cut the connection; before that, send the head and half of the body of a `torn` answer."""
    response = web.StreamResponse()
    if torn:
        response = web.StreamResponse(status=torn.status, headers=torn.headers)
        response.content_length = len(torn.body)
        await response.prepare(request)
        await response.write(torn.body[: len(torn.body) // 2])
        if request.transport:
            request.transport.close()  # unlike abort, close sends what was written
    elif request.transport:
        request.transport.abort()
    return response
