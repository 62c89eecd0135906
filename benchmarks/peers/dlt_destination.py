"""dlt with a custom destination ("reverse ETL"): Arrow tables in, batches of them to a function of ours, on threads.

    python dlt_destination.py EXPORT URL USERS_PER_REQUEST AT_ONCE

Tables and Parquet, as its docs advise for speed: rows are not looked at one by one before they are loaded. A load job
is a file and a thread, so files are kept small. After a kill the same command finishes the package that was begun.
"""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import orjson
import pyarrow.csv
import requests

EXPORT, URL, USERS, AT_ONCE = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
FOLDER = Path.cwd() / "dlt"
with open(EXPORT, "rb") as file:
    ROWS = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
FILE_ROWS = min(max(ROWS // AT_ONCE // USERS, 1), 20) * USERS  # so that each thread has a file, and none has thousands
os.environ |= {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    "DLT_DATA_DIR": str(FOLDER),
    "LOAD__WORKERS": str(AT_ONCE),
    "DATA_WRITER__FILE_MAX_ITEMS": str(FILE_ROWS),
    "EXTRACT__DATA_WRITER__BUFFER_MAX_ITEMS": str(FILE_ROWS),
}

LOCAL = threading.local()
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer T"}


@dlt.resource(name="users")  # type: ignore[untyped-decorator]  # no types where it isn't installed
def users() -> Iterator[Any]:
    text = pyarrow.csv.ConvertOptions(column_types={"headcount": pyarrow.string()})
    for batch in pyarrow.csv.open_csv(EXPORT, convert_options=text):
        for first in range(0, len(batch), FILE_ROWS):
            yield pyarrow.Table.from_batches([batch.slice(first, FILE_ROWS)])


@dlt.destination(batch_size=USERS, loader_file_format="parquet", max_parallel_load_jobs=AT_ONCE)  # type: ignore[untyped-decorator]
def directory(items: Any, _table: Any) -> None:
    if not hasattr(LOCAL, "session"):
        LOCAL.session = requests.Session()
    names = items.drop_columns(["email"]).to_pylist()
    records = [
        {"userName": user, "attributes": values}
        for user, values in zip(items.column("email").to_pylist(), names, strict=True)
    ]
    answer = LOCAL.session.post(f"{URL}/plain", data=orjson.dumps({"userAttributes": records}), headers=HEADERS)
    answer.raise_for_status()


dlt.pipeline("users", pipelines_dir=str(FOLDER), destination=directory).run(users(), loader_file_format="parquet")
