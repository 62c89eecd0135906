"""syslog-ng: a file in, requests out, in C. Its csv-parser and format-json do what a mapping does.

    python syslog_ng.py EXPORT URL USERS_PER_REQUEST AT_ONCE

A CSV is parsed, and each row put together as a record; of NDJSON, whose lines are records already, none is looked at.
It never ends by itself, since a log never does: end it when the server has all. After a kill it goes on from where its
persist file says.
"""

import os
import sys
from pathlib import Path

EXPORT, URL, USERS, AT_ONCE = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
WAITING = max(20_000, 4 * USERS * AT_ONCE)  # messages between file and requests: each worker fills a batch of its own

COLUMNS = "email", "department", "costCenter", "site", "title", "headcount"
PARSE = """
parser p_csv {{ csv-parser(columns({columns}) delimiters(",") flags(escape-double-char)); }};
filter f_rows {{ not match("email" value("email") type(string)); }};
""".format(columns=", ".join(f'"{name}"' for name in COLUMNS))
RECORD = "$(format-json userName=$email {})".format(
    " ".join(f"attributes.{name}=${name}" for name in COLUMNS if name != "email")
)

CONFIG = """@version: 3.38
options {{ stats-freq(0); keep-hostname(yes); use-dns(no); threaded(yes); log-msg-size(65536); }};
source s_file {{
    file("{export}" flags(no-parse) read-old-records(yes) follow-freq(0.1)
         log-fetch-limit({waiting}) log-iw-size({waiting}));
}};
{parse}
destination d_http {{
    http(url("{url}/plain") method("POST") headers("Content-Type: application/json", "Authorization: Bearer T")
         body("{record}") body-prefix('{{"userAttributes":[') body-suffix("]}}") delimiter(",")
         batch-lines({users}) batch-bytes(8388608) batch-timeout(1000) workers({at_once}) log-fifo-size({fifo})
         persist-name("users"));
}};
log {{ source(s_file); {steps} destination(d_http); flags(flow-control); }};
"""

is_csv = EXPORT.endswith(".csv")
Path("syslog-ng.conf").write_text(
    CONFIG.format(
        export=EXPORT,
        url=URL,
        users=USERS,
        at_once=AT_ONCE,
        waiting=WAITING,
        fifo=2 * WAITING,
        parse=PARSE if is_csv else "",
        record=RECORD if is_csv else "$MESSAGE",
        steps="parser(p_csv); filter(f_rows);" if is_csv else "",
    )
)
files = ["--cfgfile=syslog-ng.conf", "--persist-file=persist", "--pidfile=pid", "--control=control"]
os.execvp("syslog-ng", ["syslog-ng", "--foreground", "--no-caps", *files])
