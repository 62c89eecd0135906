"""HTTP clients that could stand in aiohttp's place, each in its own loop with ready bodies, in turns.

    python -m benchmarks.clients --repeat 5

Each is set up in an environment of its own, in the user's cache. What counts is CPU microseconds a request: with one
small user and with the body of 500.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.machine import cache, cores, pinned
from benchmarks.server import Server

_CLIENTS = {
    "aiohttp": ("aiohttp==3.14.5", "uvloop==0.23.0"),
    "httpx": ("httpx", "uvloop==0.23.0"),
    "niquests": ("niquests", "uvloop==0.23.0"),
}
_AT_ONCE = 16
_PATH = "/v1/directory/user-attributes"
_HEADERS = {"Authorization": "Bearer T", "Content-Type": "application/json"}


def _body(users: int) -> bytes:
    values = {"department": "Department 8", "site": "São Paulo", "title": "Engineer", "headcount": "261", "cc": "1033"}
    records = [{"userName": f"user{at}@example.com", "attributes": values} for at in range(users)]
    return json.dumps({"userAttributes": records}, separators=(",", ":"), ensure_ascii=False).encode()


async def _drive(post: Callable[[], Awaitable[int]], requests: int) -> float:
    """So many requests, some at once; CPU seconds."""
    import asyncio

    left = iter(range(requests))

    async def send() -> None:
        for _ in left:
            assert await post() == 200

    begun = time.process_time()
    await asyncio.gather(*(send() for _ in range(_AT_ONCE)))
    return time.process_time() - begun


async def _aiohttp(url: str, body: bytes, requests: int) -> float:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=_AT_ONCE)
    async with aiohttp.ClientSession(connector=connector, headers=_HEADERS) as session:

        async def post() -> int:
            async with session.post(url, data=body) as answer:
                await answer.read()
                return answer.status

        return await _drive(post, requests)


async def _httpx(url: str, body: bytes, requests: int) -> float:
    import httpx

    limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
    async with httpx.AsyncClient(limits=limits, headers=_HEADERS, timeout=60) as session:

        async def post() -> int:
            return (await session.post(url, content=body)).status_code

        return await _drive(post, requests)


async def _niquests(url: str, body: bytes, requests: int) -> float:
    import niquests

    async with niquests.AsyncSession(pool_connections=_AT_ONCE, pool_maxsize=_AT_ONCE) as session:

        async def post() -> int:
            return (await session.post(url, data=body, headers=_HEADERS)).status_code or 0

        return await _drive(post, requests)


def _measure(client: str, url: str, users: int, requests: int) -> None:
    """In the client's environment: CPU microseconds a request, on stdout."""
    import uvloop

    work = {"aiohttp": _aiohttp, "httpx": _httpx, "niquests": _niquests}[client]
    print(1e6 * uvloop.run(work(url + _PATH, _body(users), requests)) / requests)


def _interpreter(client: str) -> Path:
    """The client's environment, made when it is needed."""
    folder = cache() / f"client-{client}"
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *_CLIENTS[client]], check=True)
    return folder / "bin" / "python"


def main() -> None:
    """Measure them in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--one", nargs=3, metavar=("CLIENT", "URL", "USERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        client, url, users = options.one
        _measure(client, url, int(users), options.requests)
        return
    at = cores()
    found: dict[tuple[str, int], list[float]] = {}
    with Server(at.server) as server:
        server.reset(1_000)
        for _ in range(options.repeat):
            for client in _CLIENTS:
                for users in (1, 500):
                    command = [*pinned(at.client), str(_interpreter(client)), "-m", "benchmarks.clients"]
                    command += ["--requests", str(options.requests), "--one", client, server.url, str(users)]
                    folder = Path(__file__).parents[1]
                    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
                    found.setdefault((client, users), []).append(float(said))
    print(f"{'client':10} {'1 user':>10} {'500 users':>10}   CPU µs a request, medians of {options.repeat}")
    for client in _CLIENTS:
        print(f"{client:10} " + " ".join(f"{statistics.median(found[client, users]):>10.0f}" for users in (1, 500)))


if __name__ == "__main__":
    main()
