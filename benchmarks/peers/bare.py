"""A bare aiohttp loop for APIs that take one user a request: ready bodies, a look at the status, and nothing else.

    python bare.py EXPORT URL API AT_ONCE

API is dx or scim. The export is read and the requests are made before the clock starts: it tells on stdout, as JSON,
how long sending them took.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote

import aiohttp
import orjson
import polars as pl
import uvloop

EXPORT, URL, API, AT_ONCE = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
HEADERS = {
    "Authorization": "Bearer T",
    "Content-Type": "application/scim+json" if API == "scim" else "application/json",
}
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"

Asked = tuple[str, str, bytes]  # method, path, body


def requests() -> Iterator[Asked]:
    for row in pl.read_csv(EXPORT, infer_schema=False).iter_rows(named=True):
        user = row.pop("email")
        if API == "dx":
            attributes = [{"name": name, "value": value} for name, value in row.items()]
            yield "POST", "/users.attributes.update", orjson.dumps({"email": user, "attributes": attributes})
        else:
            operations = [{"op": "replace", "path": name, "value": value} for name, value in row.items()]
            body = orjson.dumps({"schemas": [PATCH], "Operations": operations})
            yield "PATCH", f"/Users/{quote(user, safe='')}", body


async def main() -> None:
    waiting = iter(list(requests()))
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(URL, connector=connector, headers=HEADERS) as session:

        async def send() -> None:
            for method, path, body in waiting:
                async with session.request(method, path, data=body) as answer:
                    answer.raise_for_status()
                    await answer.read()

        started, cpu = time.monotonic(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(send())
        took = {"seconds": time.monotonic() - started, "cpu_s": time.process_time() - cpu}
    sys.stdout.buffer.write(orjson.dumps(took) + b"\n")


uvloop.run(main())
