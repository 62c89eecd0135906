"""What a request costs the API: a time, at one of the places where it is worked on."""

import asyncio
from contextlib import nullcontext

from loader.sandbox.options import WorkOptions


class Work:
    """Takes the time that requests take, so many of them at once. False: it takes none."""

    def __init__(self, options: WorkOptions) -> None:
        self._options = options
        self._places = nullcontext() if options.at_once is None else asyncio.Semaphore(options.at_once)

    def __bool__(self) -> bool:
        return bool(self._options.request_s or self._options.user_s)

    async def do(self, users: int) -> None:
        """Work on a request for so many users, as soon as it is its turn."""
        async with self._places:
            await asyncio.sleep(self._options.request_s + users * self._options.user_s)
