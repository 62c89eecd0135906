"""A Singer target made with the Meltano SDK: a BatchSink, fed on stdin as `tap-csv | target` would be.

    python singer_target.py EXPORT URL USERS_PER_REQUEST AT_ONCE

The tap here writes its messages with orjson, and does nothing else that a tap does: it takes less than any real one.
It sends one request at a time, whatever AT_ONCE. A CSV has no bookmark to go on from: after a kill it begins anew.
"""

import csv
import subprocess
import sys
from typing import Any

import orjson

EXPORT, URL, USERS = sys.argv[1], sys.argv[2], int(sys.argv[3])
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer T"}


def tap() -> None:
    with open(EXPORT, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        assert rows.fieldnames is not None
        text = {name: {"type": "string"} for name in rows.fieldnames}
        schema = {"type": "object", "properties": text}
        say({"type": "SCHEMA", "stream": "users", "schema": schema, "key_properties": ["email"]})
        for row in rows:
            say({"type": "RECORD", "stream": "users", "record": row})


def say(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")


def target() -> None:
    import requests
    from singer_sdk import BatchSink, Target

    class Users(BatchSink):  # type: ignore[misc]  # of a package that is installed beside this project only
        max_size = USERS
        session = requests.Session()

        def process_batch(self, context: dict[str, Any]) -> None:
            records = [{"userName": row.pop("email"), "attributes": row} for row in context["records"]]
            body = orjson.dumps({"userAttributes": records})
            self.session.post(f"{URL}/plain", data=body, headers=HEADERS).raise_for_status()

    class Directory(Target):  # type: ignore[misc]  # the same
        name = "target-directory"
        config_jsonschema: dict[str, Any] = {"type": "object", "properties": {}}  # noqa: RUF012  # as the SDK has it
        default_sink_class = Users

    Directory.cli(["--config", "ENV"])


match sys.argv[5:]:
    case ["tap"]:
        tap()
    case ["target"]:
        target()
    case _:
        command = [sys.executable, *sys.argv]
        feed = subprocess.Popen([*command, "tap"], stdout=subprocess.PIPE)
        loaded = subprocess.run([*command, "target"], stdin=feed.stdout, check=False)
        sys.exit(feed.wait() or loaded.returncode)
