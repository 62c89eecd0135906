"""Loads to crash: an export that knows what must become of it, an API that remembers what it answered, and comparisons.

Nothing here uses the loader's own reading, mapping or encoding; of its checkpoint only the view `results`, by sqlite3.
"""

import csv
import gzip
import io
import json
import random
import re
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from anyio.from_thread import start_blocking_portal

from loader.request import Request, Response
from loader.sandbox import CalvenOptions, FaultOptions, Ledger, Options, RosterOptions, Sandbox, Stats, serve
from loader.sandbox.api import Api
from loader.sandbox.calven import Calven
from loader.sandbox.roster import Roster

Attributes = dict[str, str]

SUCCESS, UNKNOWN = 0, 1  # Calven's result codes
CHECKPOINT = "users.ckpt"

_SETTINGS = """
[export]
path = "{export}"
format = "csv"
[mapping]
user = "email"
types = {{ size = "number" }}
[target]
api = "calven"
base_url = "{url}"
[target.auth]
scheme = "client-secret"
key_id = "env:LOADER_TEST_KEY"
secret = "env:LOADER_TEST_SECRET"
[limits]
concurrency = {load.concurrency}
users_per_request = {load.users_per_request}
[checkpoint]
path = "{checkpoint}"
"""


@dataclass(frozen=True)
class Load:
    """What is loaded, and how. `note_bytes` makes rows long: a block of the export is a mebibyte."""

    users: int = 2_000
    concurrency: int = 4
    users_per_request: int = 25
    suffix: str = ""  # ".gz": compressed
    is_stdin: bool = False
    note_bytes: int = 0
    seed: int = 1

    @property
    def export(self) -> str:
        return f"users.csv{self.suffix}"

    @property
    def in_flight(self) -> int:
        """The users that a kill may cost (promise 2)."""
        return 2 * self.concurrency * self.users_per_request

    def __str__(self) -> str:
        how = "stdin" if self.is_stdin else self.export
        return f"{how} {self.concurrency}x{self.users_per_request}{' long' if self.note_bytes else ''}"


@dataclass
class Expected:
    """What its maker knows of an export: each row's kind, what each user has at the end, its later rows."""

    kinds: list[str] = field(default_factory=list)  # by row, from 1 on
    names: list[str] = field(default_factory=list)
    users: dict[str, Attributes] = field(default_factory=dict)


def make_export(path: Path, load: Load) -> Expected:
    """Rows that each carry their number, some of them broken, blank, of unknown users, or of users who come again."""
    rng = random.Random(load.seed)
    expected = Expected()
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("email", "row", "dept", "size", "note"))
    for row in range(1, load.users + 1):
        kind = rng.choices(("good", "again", "hot", "unknown", "broken", "blank"), (900, 40, 10, 15, 20, 15))[0]
        name = f"user{rng.randrange(row) if kind == 'again' else row}@example.com"
        name = {"hot": "hot@example.com", "unknown": f"former{row}@example.com"}.get(kind, name)
        values = {"row": str(row), "dept": rng.choice(("Ops", "R,D", "")), "size": rng.choice(("", "7", "12"))}
        values["note"] = rng.choice("abc") * load.note_bytes
        if kind == "broken":
            rows.writerow([name, row, "Ops", *rng.choice((["many", ""], []))])  # no number, or too few fields
        elif kind == "blank":
            rows.writerow([name, "", "", "", ""])
        else:
            rows.writerow([name, *values.values()])
        if kind in ("good", "again", "hot"):
            expected.users.setdefault(name, {}).update({key: value for key, value in values.items() if value})
        expected.kinds.append(kind)
        expected.names.append(name)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content, mtime=0) if load.suffix == ".gz" else content)
    return expected


def write_settings(folder: Path, load: Load, url: str) -> Path:
    path = folder / "load.toml"
    export = "-" if load.is_stdin else load.export
    path.write_text(_SETTINGS.format(load=load, url=url, export=export, checkpoint=CHECKPOINT))
    return path


class Sent(NamedTuple):
    """One user of a request that the API answered."""

    user: str
    attributes: Attributes
    code: int


class Answer(NamedTuple):
    """What the API said of a request's users, and when: time.monotonic_ns(), before anybody could read it."""

    at_ns: int
    sent: list[Sent]


class _Remembering:
    """An emulated API that writes down what it answers."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.answers: list[Answer] = []
        self.token_calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    def handle(self, request: Request, now: float) -> Response:
        response = self._api.handle(request, now)
        body = json.loads(request.body)
        if "userAttributes" not in body:
            self.token_calls += 1
        elif response.status == 200:
            codes = {result["userName"]: result["resultCode"] for result in json.loads(response.body)["results"]}
            records = body["userAttributes"]
            self.answers.append(
                Answer(
                    time.monotonic_ns(),
                    [Sent(each["userName"], _texts(each["attributes"]), codes[each["userName"]]) for each in records],
                )
            )
        return response


def _texts(attributes: dict[str, Any]) -> Attributes:
    return {key: str(value) for key, value in attributes.items()}


class Directory:
    """The API, and what it has answered."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.begin()

    def begin(self, before: Sequence[Answer] = (), **faults: Any) -> None:
        """Begin anew, at the same address, with what was answered `before`."""
        options = self._sandbox.options
        ledger = self._sandbox.ledger = Ledger(options.ledger)
        self._api = _Remembering(Calven(options.calven, Roster(options.roster), ledger))
        self._sandbox.api = cast(Api, self._api)
        self.set_faults(**faults)
        for answer in before:
            taken = [sent for sent in answer.sent if sent.code == SUCCESS]
            ledger.accept([sent.user for sent in taken], [dict(sent.attributes) for sent in taken])
        self.answers.extend(before)

    def set_faults(self, **faults: Any) -> None:
        """How it behaves from now on."""
        self._sandbox.faults = FaultOptions.model_validate(faults)

    @property
    def url(self) -> str:
        return self._sandbox.url

    @property
    def answers(self) -> list[Answer]:
        return self._api.answers

    @property
    def token_calls(self) -> int:
        return self._api.token_calls

    @property
    def stats(self) -> Stats:
        """What has arrived since the address is served."""
        return self._sandbox.stats

    def holds(self) -> dict[str, Attributes]:
        """What it has of each user."""
        return {user: _texts(entry.attributes) for user, entry in self._sandbox.ledger.users.items()}


@contextmanager
def directory() -> Iterator[Directory]:
    """An API on a socket, on a thread of its own."""
    options = Options(calven=CalvenOptions(key_id="K", secret="S"), roster=RosterOptions(unknown=re.compile("^former")))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serve(options)) as sandbox:
        yield Directory(sandbox)


class Claim(NamedTuple):
    """What a checkpoint says became of a row."""

    user: str
    code: str
    message: str


def claims(folder: Path, scratch: Path, name: str = CHECKPOINT) -> dict[int, Claim]:
    """What the checkpoint in `folder` says, if it says anything yet. Looks at a copy: to open it is to mend it."""
    copy = scratch / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for suffix in ("", "-wal", "-journal"):
        if (file := folder / f"{name}{suffix}").exists():
            shutil.copy(file, copy)
    with closing(sqlite3.connect(copy / name)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'results'").fetchone()[0]:
            return {}
        rows = db.execute("SELECT row, user, code, message FROM results").fetchall()
    found = {row: Claim(*rest) for row, *rest in rows}
    assert len(found) == len(rows), "a row has two outcomes"
    return found


def assert_claims_are_true(found: dict[int, Claim], answers: Sequence[Answer], expected: Expected) -> None:
    """The checkpoint is not ahead of the API: it answered what is claimed, of that very row. (Promise 2.)"""
    answered = {(sent.user, sent.attributes["row"], sent.code) for answer in answers for sent in answer.sent}
    for row, claim in found.items():
        assert claim.user == expected.names[row - 1]
        match claim.code:
            case "SUCCESS":
                assert (claim.user, str(row), SUCCESS) in answered, f"row {row} is claimed, and was not answered"
            case "USER_NOT_FOUND":
                assert (claim.user, str(row), UNKNOWN) in answered, f"row {row} is claimed, and was not answered"
            case "SUPERSEDED":
                winner = claim.message.removeprefix("merged into row ")
                assert int(winner) > row
                assert (claim.user, winner, SUCCESS) in answered, f"row {winner} is claimed, and was not answered"
            case "REJECTED" | "SKIPPED":
                assert expected.kinds[row - 1] == {"REJECTED": "broken", "SKIPPED": "blank"}[claim.code]
            case _:
                raise AssertionError(f"row {row} ended as {claim}")


def assert_exact(found: dict[int, Claim], api: Directory, expected: Expected) -> int:
    """Every row has its outcome, and the API holds the last values. (Promise 1.) Returns how many were sent again."""
    assert sorted(found) == list(range(1, len(expected.kinds) + 1))
    assert_claims_are_true(found, api.answers, expected)
    codes = Counter(claim.code for claim in found.values())
    kinds = Counter(expected.kinds)
    assert codes["REJECTED"] == kinds["broken"]
    assert codes["SKIPPED"] == kinds["blank"]
    assert codes["USER_NOT_FOUND"] == kinds["unknown"]
    assert api.holds() == expected.users
    carried = sum(len(answer.sent) for answer in api.answers)
    return carried - codes["SUCCESS"] - codes["USER_NOT_FOUND"]
