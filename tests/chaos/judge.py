"""What must be true after each life of the loader, and at the end. Shares no code with the loader.

A *life* is one process, or what stands for it: from its start to its end or its kill. A *claim* is what the checkpoint
says of a row, by SQLite alone.
"""

import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from loader.request import Request
from loader.sandbox.ledger import Ledger, Write
from loader.sandbox.sandbox import Sandbox
from tests.chaos.scenario import BLAMING, SECRET, TOKEN, Row, Scenario, carried, row_of

CHECKPOINT = "users.ckpt"


class Claim(NamedTuple):
    """What a checkpoint says became of a row."""

    user: str
    code: str
    message: str


Claims = Mapping[int, Claim]


def claims(folder: Path) -> Claims:
    """What the checkpoint in `folder` says, if there is one. Looks at a copy: to open it is to mend it."""
    copy = folder / "look"
    copy.mkdir()
    try:
        for path in folder.glob(f"{CHECKPOINT}*"):
            if not path.name.endswith((".lock", "-shm")):
                shutil.copy(path, copy)
                content = path.read_bytes()
                assert not any(secret.encode() in content for secret in (SECRET, TOKEN)), f"{path.name} holds a secret"
        if not (copy / CHECKPOINT).exists():
            return {}
        with closing(sqlite3.connect(copy / CHECKPOINT)) as db:
            if not db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'results'").fetchone()[0]:
                return {}
            rows = db.execute("SELECT row, user, code, message FROM results").fetchall()
    finally:
        shutil.rmtree(copy)
    found = {row: Claim(*rest) for row, *rest in rows}
    assert len(found) == len(rows), "a row has two outcomes"
    return found


@dataclass
class Figures:
    """What happened, to be told."""

    lives: int = 0
    kills: int = 0
    stops: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    refusals: int = 0
    rows: int = 0
    resent: int = 0
    most_resent: float = 0.0  # of what promise 2 allows
    codes: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: "Figures") -> "Figures":
        for name in ("lives", "kills", "requests", "refusals", "rows", "resent"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.stops += other.stops
        self.codes += other.codes
        self.most_resent = max(self.most_resent, other.most_resent)
        return self


class Judge:
    """Follows the lives of one load. `users_per_request`: the most that the settings let into one."""

    def __init__(self, scenario: Scenario, users_per_request: int) -> None:
        self.figures = Figures(rows=len(scenario.rows))
        self._scenario = scenario
        self._allowed = 2 * int(str(scenario.limits["concurrency"])) * users_per_request
        self._claims: Claims = {}
        self._accepted: set[tuple[str, str, str]] = set()
        self._writes = 0

    def judge_life(
        self, sent: Sequence[Request], ledger: Ledger, after: Claims, *, is_killed: bool, reason: str = ""
    ) -> None:
        """`sent`: the requests of this life; `after`: what is claimed at its end; `reason`: why it stopped, if so."""
        before, self._claims = self._claims, after
        figures = self.figures
        figures.lives += 1
        figures.kills += is_killed
        figures.requests += len(sent)
        if reason:
            figures.stops[re.split("[:(]| for ", reason)[0][:70]] += 1
        assert before.items() <= after.items(), "an outcome was changed, or lost"
        users = self._check_requests(sent, before, after)
        writes = ledger.journal[self._writes :]
        self._writes = len(ledger.journal)
        self._check_order(writes)
        self._accepted |= {(write.user, *pair) for write in writes for pair in write.attributes.items()}
        self._check_claims(after)
        # Sent, and not durable: the next life sends them again.
        assert len(users) <= self._allowed, f"{len(users)} users were in flight, where {self._allowed} may be"
        if is_killed:
            figures.resent += len(users)
            figures.most_resent = max(figures.most_resent, len(users) / self._allowed)

    def _check_requests(self, sent: Sequence[Request], before: Claims, after: Claims) -> set[str]:
        """Nothing is sent but what the export holds, nobody twice in a request, nothing that is settled.

        Returns the users who were sent something that is not settled.
        """
        rows, unsettled = self._scenario.rows, set[str]()
        for request in sent:
            users = carried(self._scenario.shape.api, request.method, request.path, request.body)
            assert len(users) == len({user for user, _ in users}), "a user is twice in a request"
            for user, attributes in users:
                for name, value in attributes.items():
                    number = row_of(value)
                    row = rows[number - 1]
                    assert (row.user, row.attributes.get(name)) == (user, value), (
                        f"{user}: {name} is not row {number}'s"
                    )
                    assert not row.is_broken, f"row {number} is broken, and was sent"
                    assert number not in before, f"row {number} was settled, and was sent again"
                    if number not in after:
                        unsettled.add(user)
        return unsettled

    def _check_order(self, writes: Iterable[Write]) -> None:
        """No row of a user overtakes another. (The next life begins again, at the first row that isn't settled.)"""
        last: dict[tuple[str, str], int] = {}
        for user, attributes in writes:
            for name, value in attributes.items():
                number = row_of(value)
                assert number >= last.get((user, name), 0), f"{user}: row {number} came after {last[user, name]}"
                last[user, name] = number

    def _check_claims(self, found: Claims) -> None:
        """The checkpoint is not ahead of the API: what it calls a success was accepted, of that very row."""
        for number, claim in found.items():
            row = self._scenario.rows[number - 1]
            assert claim.user == row.user or row.is_broken, f"row {number} is of {row.user}, not of {claim.user}"
            if claim.code == "SUCCESS":
                for pair in row.attributes.items():
                    assert (row.user, *pair) in self._accepted, f"row {number} is claimed, and {pair} was not accepted"
            elif claim.code == "SUPERSEDED":
                winner = _winner(claim)
                assert winner > number, f"row {number} is merged into an earlier one"
                assert found[winner].user == claim.user, f"row {number} is merged into another user's"

    def judge_end(self, sandbox: Sandbox) -> None:
        """Conservation: each row has one outcome, which is true, and the API holds the last values and no others."""
        found, rows = self._claims, self._scenario.rows
        assert sorted(found) == list(range(1, len(rows) + 1)), "a row has no outcome"
        for number, row in enumerate(rows, 1):
            self._check_code(number, row, found[number].code)
        held = {user: entry.attributes for user, entry in sandbox.ledger.users.items()}
        possible = self._possible()
        assert held.keys() <= possible.keys(), f"nobody sent {held.keys() - possible.keys()}"
        for user, choices in possible.items():
            assert held.get(user, {}) in choices, f"{user} has {held.get(user)}, not one of {choices}"
        for quota in sandbox.quotas:
            if self._scenario.is_quota_known:
                assert quota.peak <= quota.options.limit, f"{quota.peak} in a window of {quota.options}"
                assert quota.refused == 0, f"{quota.options} refused"
        most = int(str(self._scenario.limits["concurrency"]))
        assert sandbox.stats.peak_in_flight["data"] <= most, "more requests at once than limits.concurrency"
        assert sandbox.stats.peak_in_flight["token"] <= 1, "more than one token call at once"
        self.figures.refusals = sum(
            count for (_, ending), count in sandbox.stats.requests.items() if not ending.startswith("2")
        )
        self.figures.codes = Counter(claim.code for claim in found.values())

    def _check_code(self, number: int, row: Row, code: str) -> None:
        faults = self._scenario.faults
        if row.is_broken or not row.attributes:
            expected = {"REJECTED" if row.is_broken else "SKIPPED"}
        else:
            # FAILED and NO_RESULT: the API had as many attempts as the settings allow. Whether it had no other fault is
            # told by the tests that count attempts.
            expected = {self._right_code(row), "SUPERSEDED", *(["FAILED", "NO_RESULT"] if faults else [])}
            # Made up by the API, but the loader can't know.
            expected |= {"INVALID", "PARTIAL"} if faults.keys() & BLAMING else set()
            expected |= {"USER_NOT_FOUND"} if "404" in faults and self._scenario.shape.api in ("dx", "scim") else set()
        assert code in expected, f"row {number} of {row.user} is {code}, not one of {expected}"

    def _right_code(self, row: Row) -> str:
        own = {"user": "SUCCESS", "gone": "USER_NOT_FOUND", "poison": "INVALID", "place": "LOCATION_NOT_FOUND"}
        partial = "PARTIAL" if self._scenario.shape.api == "dx" else "INVALID"
        return {**own, "odd": partial}[row.kind]

    def _possible(self) -> dict[str, list[dict[str, str]]]:
        """What the API may hold of each user in the end: one thing, but where an outcome says that nobody knows."""
        found: dict[str, list[dict[str, str]]] = {}
        for number, row in enumerate(self._scenario.rows, 1):
            values = dict(row.attributes)
            if row.is_broken or not values or row.kind in ("gone", "poison", "place"):
                continue
            if row.kind == "odd":
                if self._scenario.shape.api != "dx":
                    continue
                del values["displayName"]
            before = found.get(row.user, [{}])
            code = self._code(number)
            parts = [values]
            if code not in ("SUCCESS", "PARTIAL") or (code == "PARTIAL" and row.kind != "odd"):
                # Anything between nothing and all: an API may take attributes one by one.
                parts = [{}]
                for pair in values.items():
                    parts += [{**part, pair[0]: pair[1]} for part in parts]
            is_whole = self._scenario.write == "replace"
            after = [part if is_whole and part else {**old, **part} for old in before for part in parts]
            found[row.user] = [each for at, each in enumerate(after) if each not in after[:at]]
        return found

    def _code(self, number: int) -> str:
        """A row's outcome; of one that was merged, that of the row it went with."""
        claim = self._claims[number]
        return self._code(_winner(claim)) if claim.code == "SUPERSEDED" else claim.code


def _winner(claim: Claim) -> int:
    return int(claim.message.removeprefix("merged into row "))
