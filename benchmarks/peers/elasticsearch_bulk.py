"""elasticsearch-py's bulk helpers, which pair each item of an answer with the document that was sent.

    python elasticsearch_bulk.py EXPORT URL USERS_PER_REQUEST AT_ONCE [async|parallel]

`async_bulk` sends one request at a time; `parallel_bulk` has threads. What is left after a kill is the caller's
business: here it begins anew, which does no harm where documents have ids.
"""

import asyncio
import csv
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

from elasticsearch import AsyncElasticsearch, Elasticsearch, OrjsonSerializer
from elasticsearch.helpers import async_bulk, parallel_bulk

EXPORT, URL, USERS, AT_ONCE = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
KIND = sys.argv[5] if len(sys.argv) > 5 else "parallel"


def actions() -> Iterator[dict[str, Any]]:
    with open(EXPORT, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            user = row.pop("email")
            yield {"_index": "users", "_id": user, "_source": {"userName": user, "attributes": row}}


async def one_after_the_other() -> None:
    async with AsyncElasticsearch(URL, serializer=OrjsonSerializer(), request_timeout=60) as client:
        await async_bulk(client, actions(), chunk_size=USERS, stats_only=True)


def at_once() -> None:
    client = Elasticsearch(URL, serializer=OrjsonSerializer(), connections_per_node=AT_ONCE, request_timeout=60)
    sent = parallel_bulk(client, actions(), thread_count=AT_ONCE, queue_size=AT_ONCE, chunk_size=USERS)
    deque(sent, maxlen=0)  # it raises for an item that failed


if KIND == "async":
    asyncio.run(one_after_the_other())
else:
    at_once()
