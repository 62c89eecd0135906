"""A sandbox without sockets: the same emulation, latency and faults behind one awaitable call."""

import time
from dataclasses import replace

from loader.errors import TransportError
from loader.request import Request, Response
from loader.sandbox.options import Options
from loader.sandbox.sandbox import Clock, ConnectionCut, Sandbox

_REASONS = {
    "down": "connection refused",
    "reset": "connection reset",
    "lost": "server disconnected",
    "torn": "response body is incomplete",
}


class Memory:
    """Request in, response out. `clock` gives unix seconds; waits are asyncio.sleep, so a virtual loop's time works."""

    def __init__(self, options: Options | None = None, clock: Clock = time.time) -> None:
        self.sandbox = Sandbox(options or Options(), clock)
        self.ledger = self.sandbox.ledger
        self.stats = self.sandbox.stats
        self._clock = clock

    async def __call__(self, request: Request) -> Response:
        start = self._clock()
        with self.sandbox.on_the_wire(request.path):
            try:
                response = await self.sandbox.answer(request)
            except ConnectionCut as cut:
                raise TransportError(_REASONS[cut.cut]) from None
        return replace(response, elapsed_s=self._clock() - start)
