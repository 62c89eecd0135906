"""What one writes by hand, and well: polars reads, orjson encodes, aiohttp posts, answers are compared with the users.

    python by_hand.py EXPORT URL USERS_PER_REQUEST AT_ONCE

Nothing is tried again, and nothing is remembered: after a kill it begins anew.
"""

import asyncio
import sys

import aiohttp
import orjson
import polars as pl
import uvloop

EXPORT, URL, USERS, AT_ONCE = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
PATH = "/v1/directory/user-attributes"
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer T"}


async def main() -> None:
    places = asyncio.Semaphore(AT_ONCE)
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session, asyncio.TaskGroup() as tasks:

        async def post(users: list[str], attributes: list[dict[str, str]]) -> None:
            records = [{"userName": user, "attributes": values} for user, values in zip(users, attributes, strict=True)]
            try:
                async with session.post(URL + PATH, data=orjson.dumps({"userAttributes": records})) as answer:
                    answer.raise_for_status()
                    results = orjson.loads(await answer.read())["results"]
            finally:
                places.release()
            taken = {result["userName"] for result in results if result["resultCode"] == 0}
            if missing := [user for user in users if user not in taken]:
                raise SystemExit(f"not taken: {missing[:10]}")

        for block in pl.scan_csv(EXPORT, infer_schema=False).collect_batches(chunk_size=100 * USERS):
            for batch in block.iter_slices(USERS):
                await places.acquire()
                tasks.create_task(post(batch["email"].to_list(), batch.drop("email").to_dicts()))


uvloop.run(main())
