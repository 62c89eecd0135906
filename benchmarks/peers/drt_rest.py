"""drt's generic REST destination in batch mode, fed by DuckDB, which reads the CSV.

    python drt_rest.py EXPORT URL USERS_PER_REQUEST AT_ONCE

It sends one request at a time, whatever AT_ONCE. `batch_size` is how many rows share a connection. Where the rows of a
sync have no cursor it has nothing to go on from, so after a kill it begins anew.
"""

import os
import sys
from pathlib import Path

EXPORT, URL, USERS = sys.argv[1], sys.argv[2], int(sys.argv[3])
FOLDER = Path.cwd() / "drt"

PROFILE = """
local:
  type: duckdb
  database: ":memory:"
  fetch_size: 20000
"""
PROJECT = """
name: users
profile: local
"""
SYNC = """
name: users
model: "select email, {{department: department, costCenter: costCenter, site: site, title: title,
  headcount: headcount}} as attributes from read_csv('{export}', all_varchar = true)"
destination:
  type: rest_api
  url: "{url}/plain"
  method: POST
  headers: {{Content-Type: application/json, Authorization: Bearer T}}
  body_mode: batch
  max_records_per_request: {users}
  batch_template: >-
    {{"userAttributes":[{{% for row in rows %}}{{"userName":{{{{ row.email | tojson_safe }}}},"attributes":{{{{
    row.attributes | tojson_safe }}}}}}{{{{ "," if not loop.last }}}}{{% endfor %}}]}}
sync:
  mode: full
  batch_size: 20000
  rate_limit: {{requests_per_second: 0}}
"""

(FOLDER / "syncs").mkdir(parents=True, exist_ok=True)
(FOLDER / ".drt").mkdir(exist_ok=True)
(FOLDER / ".drt" / "profiles.yml").write_text(PROFILE)
(FOLDER / "drt_project.yml").write_text(PROJECT)
(FOLDER / "syncs" / "users.yml").write_text(SYNC.format(export=EXPORT, url=URL, users=USERS))
os.chdir(FOLDER)
drt = str(Path(sys.executable).with_name("drt"))
os.execve(drt, [drt, "run", "--select", "users"], os.environ | {"HOME": str(FOLDER), "DO_NOT_TRACK": "1"})
