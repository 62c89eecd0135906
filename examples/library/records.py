"""Dicts, as they come."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import loader


def users() -> Iterator[dict[str, Any]]:
    with closing(sqlite3.connect("hr.sqlite", check_same_thread=False)) as db:
        for email, dept in db.execute("select email, dept from person where active order by email"):
            yield {"email": email, "dept": dept}


loader.run("load.toml", export=users(), checkpoint="users.ckpt")
