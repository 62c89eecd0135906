"""wrk: one ready body, again and again, its answers thrown away. No loader can be faster: it reads and learns nothing.

python wrk_post.py EXPORT URL USERS_PER_REQUEST AT_ONCE [SECONDS]
"""

import csv
import json
import os
import sys
from itertools import islice
from pathlib import Path

EXPORT, URL, USERS, AT_ONCE = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
SECONDS = sys.argv[5] if len(sys.argv) > 5 else "3"
POST = """
wrk.method = "POST"
wrk.path = "/v1/directory/user-attributes"
wrk.headers["Content-Type"] = "application/json"
wrk.body = io.open("body.json", "rb"):read("*a")
"""

with open(EXPORT, newline="", encoding="utf-8") as file:
    records = [{"userName": row.pop("email"), "attributes": row} for row in islice(csv.DictReader(file), USERS)]
body = json.dumps({"userAttributes": records}, ensure_ascii=False, separators=(",", ":"))
Path("body.json").write_text(body, encoding="utf-8")
Path("post.lua").write_text(POST)
os.execvp("wrk", ["wrk", "-t1", f"-c{AT_ONCE}", f"-d{SECONDS}s", "--timeout", "30s", "-s", "post.lua", URL])
