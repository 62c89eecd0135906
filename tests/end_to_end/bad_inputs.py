"""Every bad input known, as a table: what is there, what is run. What comes of it is docs/bad-inputs.md.

A new case is one `Case` in its section; then `UPDATE_DOCS=1 scripts/test tests/end_to_end/test_bad_inputs.py`.
"""

import gzip
import json
import resource
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from loader.checkpoint import lock
from tests.end_to_end.command import Ended, loader

SETTINGS = """\
[export]
path = "users.csv"
[mapping]
user = "email"
[target]
api = "calven"
base_url = "{url}"
[target.auth]
scheme = "hmac"
key_id = "env:CALVEN_KEY_ID"
secret = "env:CALVEN_SECRET"
[limits]
give_up_s = 0.2
"""
_INIT = ("init", "users.csv", "-o", "new.toml")
GOOD = "email,dept\nann@x.com,Sales\nbob@x.com,Legal\n"
KEYS = {"CALVEN_KEY_ID": "K", "CALVEN_SECRET": "S"}


@dataclass(frozen=True)
class Place:
    """Where a case happens: its folder, and the sandbox."""

    folder: Path
    url: str

    def write(self, name: str, content: str | bytes) -> None:
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def run(self, *arguments: str, environment: Mapping[str, str | None] | None = None) -> Ended:
        return loader(*arguments, environment=KEYS | dict(environment or {}))

    def load(self) -> None:
        """A load, finished."""
        assert self.run("run", "load.toml").status in (0, 1)

    def stop(self) -> None:
        """A load, stopped half-way."""
        assert self.run("run", "load.toml", "--first", "1").status in (0, 1)

    def answer_with(self, status: int | None) -> None:
        """Let the API refuse all requests with users, or none."""
        faults = {"fail_first_n": 0 if status is None else 1_000_000, "fail_first_status": status or 503}
        request = urllib.request.Request(f"{self.url}/_sandbox/options", json.dumps(faults).encode())
        urllib.request.urlopen(request).close()


def _nothing(_: Place) -> None: ...


@dataclass(frozen=True)
class Case:
    """One bad input. `name` says what it is; `export`, `settings`, `set` and `environment` are how, where they say it.

    `settings`: added to the settings, or instead of them if `whole`. `words`: how, where bytes don't say it.
    """

    name: str
    export: str | bytes = GOOD
    set: tuple[str, ...] = ()
    settings: str = ""
    whole: bool = False
    environment: Mapping[str, str | None] = field(default_factory=dict)
    arguments: tuple[str, ...] = ("run", "load.toml")
    words: str = ""
    file: str = "users.csv"
    before: Callable[[Place], None] = _nothing
    after: Callable[[Place], None] = _nothing
    during: Callable[[Place], AbstractContextManager[object]] = lambda _: nullcontext()
    process: Callable[[Place, list[str]], Ended] | None = None


def _in_a_full_disk(place: Place, arguments: list[str]) -> Ended:
    """In a process whose files may not grow over 200 kB: nothing else ends a disk without a disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run(
        [sys.executable, "-m", "loader", *arguments],
        env=KEYS,
        cwd=place.folder,
        preexec_fn=limit,
        check=False,
        capture_output=True,
        text=True,
    )
    said = [line for line in done.stderr.splitlines(True) if not line.startswith("  ")]  # how far it came is chance
    return Ended(done.returncode, done.stdout, "".join(said))


def _many(place: Place) -> None:
    place.write("users.csv", "email,dept\n" + "".join(f"{n:060}@x.com,Sales\n" for n in range(6000)))


def _folder(name: str) -> Callable[[Place], None]:
    return lambda place: (place.folder / name).mkdir()


def _written(name: str, content: str | bytes) -> Callable[[Place], None]:
    return lambda place: place.write(name, content)


def _no_export(place: Place) -> None:
    (place.folder / "users.csv").unlink()


def _loaded_then(change: Callable[[Place], None]) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        place.load()
        change(place)

    return prepare


def _overwrite_checkpoint(place: Place) -> None:
    place.load()
    data = bytearray((place.folder / "users.ckpt").read_bytes())
    data[16_384:32_768] = b"\xff" * 16_384
    place.write("users.ckpt", bytes(data))


_ROWS = "email,dept\n" + "".join(f"user{n * 7919 % 1000}@x.com,{n}\n" for n in range(300))
_GZIP = gzip.compress(_ROWS.encode(), 0, mtime=0)  # stored: the same bytes by every zlib
_CLOSED = "target.base_url=http://127.0.0.1:9"

CASES: dict[str, list[Case]] = {
    "Rows": [
        Case("Too few fields", "email,dept\nann@x.com\nbob@x.com,Legal\n"),
        Case("Too many fields", "email,dept\nann@x.com,Sales,1\nbob@x.com,Legal\n"),
        Case("A key that is not UTF-8", b"email,dept\nj\xf6rg@x.com,Sales\nbob@x.com,Legal\n"),
        Case("A value that is not UTF-8", b"email,dept\nann@x.com,B\xfcro\nbob@x.com,Legal\n"),
        Case(
            "A value that is not of the encoding set",
            b"email,dept\nann@x.com,B\x81ro\nbob@x.com,B\xfcro\n",
            ("export.encoding=cp1252",),
        ),
        Case(
            "A NUL byte", b"email,dept\nann@x.com,Sa\0les\nbob@x.com,Legal\n", words="is sent as it is: JSON can say it"
        ),
        Case("An empty key", "email,dept\n,Sales\nbob@x.com,Legal\n"),
        Case("A key of white space", 'email,dept\n"  ",Sales\nbob@x.com,Legal\n'),
        Case(
            "A number that JSON can't say",
            'email,heads\nann@x.com,"1,5"\nbob@x.com,NaN\ncid@x.com,007\ndee@x.com,7\n',
            ('mapping.types={heads="number"}',),
        ),
        Case(
            "A boolean that is neither",
            "email,active\nann@x.com,yes\nbob@x.com,TRUE\n",
            ('mapping.types={active="boolean"}',),
        ),
        Case("JSON that is not", 'email,more\nann@x.com,"{""a"":"\nbob@x.com,[1]\n', ('mapping.types={more="json"}',)),
        Case(
            "A row that is too long",
            f"email,dept\nann@x.com,{'x' * 40}\nbob@x.com,Legal\n",
            ("export.max_row_bytes=30",),
        ),
        Case(
            "A record too large for a request",
            f"email,dept\nann@x.com,{'x' * 200}\nbob@x.com,Legal\n",
            ("limits.bytes_per_request=150",),
        ),
        Case("A quote that is never closed", 'email,dept\nann@x.com,"Sales\nbob@x.com,Legal\n'),
        Case("Text behind a closing quote", 'email,dept\nann@x.com,"Sales" North\nbob@x.com,Legal\n'),
        Case("Blank lines", "email,dept\n\nann@x.com,Sales\n\n\nbob@x.com,Legal\n\n", words="are no rows"),
        Case(
            "A byte order mark, CRLF and lone CR",
            b"\xef\xbb\xbfemail,dept\r\nann@x.com,Sales\rbob@x.com,Legal",
            words="are read as any other",
        ),
        Case(
            "NDJSON: lines that are no records",
            '{"email":"ann@x.com","n":1}\n{"email":"bob@x.com"\n["cid@x.com"]\n{"email":7,"n":1}\n{"n":1}\n'
            '{"email":null,"n":1}\n',
            file="users.ndjson",
        ),
        Case("NDJSON that is not UTF-8", b'{"email":"j\xf6rg@x.com","n":1}\n', file="users.ndjson"),
        Case(
            "NDJSON: a value of another type",
            '{"email":"ann@x.com","n":"1"}\n{"email":"bob@x.com","n":2}\n',
            ('mapping.types={n="number"}',),
            file="users.ndjson",
        ),
        Case("NDJSON nested without end", '{"email":"a","n":' + "[" * 300 + "]" * 300 + "}\n", file="users.ndjson"),
    ],
    "The export": [
        Case("It is not there", before=_no_export),
        Case("It is a folder", set=("export.path=exports.csv",), before=_folder("exports.csv")),
        Case(
            "It can't be read",
            set=("export.path=around.csv",),
            before=lambda place: (place.folder / "around.csv").symlink_to("around.csv"),
            words="`around.csv` is a link to itself",
        ),
        Case("It is empty", ""),
        Case("It holds blank lines only", "\n\n\r\n"),
        Case("It holds a header only", "email,dept\n", words="is a load of no rows"),
        Case("A column is there twice", "email,dept,dept\nann@x.com,Sales,Legal\n"),
        Case("The key's column is missing", "mail,dept\nann@x.com,Sales\n"),
        Case("A column has no name", "email,dept,\nann@x.com,Sales,\n"),
        Case("The header is not UTF-8", b"email,B\xfcro\nann@x.com,Sales\n"),
        Case("It is of another encoding than it should", set=("export.encoding=utf-16",)),
        Case("It is UTF-16 without a mark", GOOD.encode("utf-16-le"), words="as UTF-16-LE"),
        Case("It is a spreadsheet called CSV", b"PK\x03\x04\xff", words="what Excel writes"),
        Case("It begins with Excel's line", "sep=;\nemail;dept\nann@x.com;Sales\n", words="is read as what it is"),
        Case("The header's quote is never closed", '"email,dept\nann@x.com,Sales\n'),
        Case("The delimiter is another", "email;dept\nann@x.com;Sales\n"),
        Case("gzip that breaks off", _GZIP[:-200], file="users.csv.gz", words="the last 200 bytes are missing"),
        Case(
            "gzip that is damaged",
            _GZIP[:-4] + b"\0\0\0\0",
            file="users.csv.gz",
            words="the length at its end is wrong",
        ),
        Case("Called gzip, and it isn't", GOOD, file="users.csv.gz"),
        Case("Called CSV, and it is gzip", gzip.compress(GOOD.encode(), mtime=0), words="a gzip file called users.csv"),
        Case("NDJSON called CSV", '{"email":"ann@x.com","dept":"Sales"}\n'),
        Case("CSV called NDJSON", GOOD, file="users.ndjson"),
        Case("JSON that is no NDJSON", '{\n  "users": []\n}\n', file="users.ndjson"),
        Case("A name that tells no format", set=("export.path=users.txt",), before=_written("users.txt", GOOD)),
        Case("A spreadsheet", set=("export.path=users.xlsx",), before=_written("users.xlsx", b"PK\x03\x04\xff")),
        Case("A format that is none", set=("export.format=xls",)),
        Case("It changed since the load began", before=_loaded_then(_written("users.csv", GOOD + "cid@x.com,Ops\n"))),
    ],
    "Settings": [
        Case("The file is not there", arguments=("run", "laod.toml")),
        Case("It is a folder", arguments=("run", "loads"), before=_folder("loads")),
        Case("It is not TOML", settings="[export\n", whole=True),
        Case(
            "It is not UTF-8",
            before=_written("load.toml", b'[export]\npath = "B\xfcro.csv"\n'),
            words="the path holds the byte 0xfc",
        ),
        Case("It is UTF-16", before=_written("load.toml", "[export]\n".encode("utf-16"))),
        Case("It is empty", whole=True),
        Case("A table that is unknown", settings="[limit]\nattempts = 3\n"),
        Case("A key that is unknown", set=("limits.concurency=4",)),
        Case("A key of the target that is unknown", set=("target.regio=usce1",)),
        Case("A key of the credentials that is unknown", set=("target.auth.secrets=env:X",)),
        Case("A value of another type", set=('limits.concurrency="many"',)),
        Case("A value out of range", set=("limits.concurrency=0",)),
        Case("A share that is none", set=("limits.max_failures=5 percent",)),
        Case("A quota that is none", set=('limits.quota=["500/minute"]',)),
        Case("A list that is none", set=('target.expect="dept"',)),
        Case("An encoding that is unknown", set=("export.encoding=ansi-1",)),
        Case("A delimiter of two characters", set=("export.delimiter=::",)),
        Case("A type that is unknown", set=('mapping.types={dept="text"}',)),
        Case("A type for an attribute that is not sent", set=('mapping.types={depp="number"}',)),
        Case("A column that is not there", set=('mapping.attributes={department="Dep"}',)),
        Case("No column for the key", set=("mapping={}",)),
        Case("An API that is unknown", set=("target.api=calvin",)),
        Case("No API", set=("target.api=",)),
        Case("An address that is none", set=("target.base_url=api.calven.com",)),
        Case("Plain http to another machine", set=("target.base_url=http://api.calven.com",)),
        Case("Credentials in the address", set=("target.base_url=https://ann:secret@api.calven.com",)),
        Case("--set without a value", arguments=("run", "load.toml", "--set", "limits.attempts")),
        Case("--set below a value", set=("limits.attempts.max=3",)),
    ],
    "Credentials": [
        Case("An environment variable that is not set", environment={"CALVEN_SECRET": None}),
        Case("An environment variable that is empty", environment={"CALVEN_SECRET": ""}),
        Case(
            "check without them",
            environment={"CALVEN_SECRET": None},
            arguments=("check", "load.toml"),
            words="tells all the rest first; `--offline` asks for none",
        ),
        Case("A secret's file that is not there", set=("target.auth.secret=file:secret.txt",)),
        Case("A secret's file that is a folder", set=("target.auth.secret=file:keys",), before=_folder("keys")),
        Case("A secret's file that is empty", set=("target.auth.secret=file:k",), before=_written("k", "\n")),
        Case("A secret of two lines", set=("target.auth.secret=file:k",), before=_written("k", "one\ntwo\n")),
        Case("No scheme", set=('target.auth={key_id="x"}',)),
        Case("A scheme that is unknown", set=("target.auth.scheme=hmacs",)),
        Case("A secret that is missing", set=('target.auth={scheme="hmac", key_id="env:CALVEN_KEY_ID"}',)),
        Case("A wrong secret", environment={"CALVEN_SECRET": "not-the-secret"}),
        Case("A wrong password", set=("target.auth.scheme=basic",), environment={"CALVEN_SECRET": "not-the-secret"}),
        Case("A wrong bearer token", set=('target.auth={scheme="bearer", token="env:CALVEN_SECRET"}',)),
        Case(
            "A secret in the settings",
            set=("target.auth.secret=S",),
            words="is warned about, here and whenever it is run",
        ),
        Case(
            "No right to write",
            before=lambda place: place.answer_with(403),
            after=lambda place: place.answer_with(None),
            words="the API answers 403",
        ),
    ],
    "Network": [
        Case("Nobody listens", set=(_CLOSED,)),
        Case("A wrong path", set=("target.path=/v2/users",)),
        Case("https at a port of http", set=("target.base_url={tls}",)),
        Case("A ca_file that is not there", set=("network.ca_file=ca.pem",)),
        Case("A ca_file without a certificate", set=("network.ca_file=ca.pem",), before=_written("ca.pem", "hello\n")),
        Case("A client_key alone", set=("network.client_key=key.pem",)),
        Case("A client_cert that is none", set=("network.client_cert=me.pem",), before=_written("me.pem", "\0\1")),
        Case("A proxy that is no address", set=("network.proxy=proxy:port", "target.base_url=https://api.calven.com")),
        Case(
            "A proxy that is down",
            set=("network.proxy=http://ann:secret@127.0.0.1:9", "target.base_url=https://api.calven.com"),
        ),
    ],
    "Checkpoint": [
        Case("Its folder is not there", set=("checkpoint.path=loads/users.ckpt",)),
        Case("Its folder can't be written", set=("checkpoint.path=/sys/users.ckpt",)),
        Case("It is a folder", before=_folder("users.ckpt")),
        Case("It is something else", before=_written("users.ckpt", "hello\n")),
        Case("It is another program's database", before=lambda place: _database(place, "CREATE TABLE t (x)")),
        Case("It is a later version's", before=_loaded_then(lambda place: _database(place, "PRAGMA user_version=99"))),
        Case("It is damaged", before=_overwrite_checkpoint, words="a page of it is overwritten"),
        Case("Another run has it", during=lambda place: lock(place.folder / "users.ckpt")),
        Case("It belongs to another load", set=("mapping.empty=null",), before=Place.load),
        Case("--fresh, and its load is not finished", arguments=("run", "load.toml", "--fresh"), before=Place.stop),
        Case("The disk is full", before=_many, process=_in_a_full_disk, words="at 200 kB"),
    ],
    "Commands": [
        Case("A command that is unknown", arguments=("rnu", "load.toml")),
        Case("No settings", arguments=("run",)),
        Case("An option that is unknown", arguments=("run", "load.toml", "--frehs")),
        Case("status without a checkpoint", arguments=("status", "users.ckpt")),
        Case("status of a name that is too long", arguments=("status", f"{'x' * 300}.ckpt")),
        Case("results without a checkpoint", arguments=("results", "users.ckpt")),
        Case("run of an export", arguments=("run", "users.csv")),
        Case("run of a checkpoint", arguments=("run", "users.ckpt"), before=Place.load),
        Case("status of an export", arguments=("status", "users.csv")),
        Case("results of a settings file", arguments=("results", "load.toml")),
        Case(
            "results of a settings file, and there is a checkpoint",
            arguments=("results", "load.toml"),
            before=Place.load,
        ),
        Case("report as what is not written", arguments=("report", "users.ckpt", "-o", "load.pdf"), before=Place.load),
        Case(
            "results: a code that is unknown", arguments=("results", "users.ckpt", "--code", "LOST"), before=Place.load
        ),
        Case(
            "results into a folder that is not there",
            arguments=("results", "users.ckpt", "-o", "out/results.csv"),
            before=Place.load,
        ),
        Case("retry before a load", arguments=("retry", "load.toml")),
        Case(
            "retry: a checkpoint whose name is too long",
            arguments=("retry", "load.toml"),
            set=(f"checkpoint.path={'x' * 300}.ckpt",),
        ),
        Case("init where there are settings", arguments=("init", "users.csv")),
        Case("init into a name that is too long", arguments=("init", "users.csv", "-o", f"{'x' * 300}.toml")),
        Case("init without a header", export="ann@x.com,Sales\nbob@x.com,Legal\n", arguments=_INIT),
        Case(
            "init of a spreadsheet",
            export=b"PK\x03\x04\xff",
            file="users.xlsx",
            words="what Excel writes",
            arguments=("init", "users.xlsx", "-o", "new.toml"),
        ),
        Case("init of a checkpoint", before=Place.load, arguments=("init", "users.ckpt", "-o", "new.toml")),
        Case("init: a column that is not there", arguments=(*_INIT, "--user", "mail")),
        Case("init of several files", arguments=("init", "users-1.csv", "users-2.csv")),
        Case("--first 0", arguments=("run", "load.toml", "--first", "0")),
        Case("--until what is no time", arguments=("run", "load.toml", "--until", "6 o'clock")),
    ],
}


def _database(place: Place, sql: str) -> None:
    import sqlite3

    db = sqlite3.connect(place.folder / "users.ckpt")
    db.executescript(sql)
    db.close()
