"""What became of a row: one code, always, and what the API said."""

from enum import StrEnum
from typing import NamedTuple


class Code(StrEnum):
    """The outcome of one row. Every row ends in exactly one."""

    SUCCESS = "SUCCESS"
    UNCHANGED = "UNCHANGED"
    SUPERSEDED = "SUPERSEDED"
    SKIPPED = "SKIPPED"
    REJECTED = "REJECTED"
    USER_NOT_FOUND = "USER_NOT_FOUND"
    LOCATION_NOT_FOUND = "LOCATION_NOT_FOUND"
    INVALID = "INVALID"
    PARTIAL = "PARTIAL"
    NO_RESULT = "NO_RESULT"
    FAILED = "FAILED"


#: A load in which every row ends in one of these exits 0.
GOOD = frozenset({Code.SUCCESS, Code.UNCHANGED, Code.SUPERSEDED, Code.SKIPPED})

#: What may become better when it is sent again as it is. A rejected row can't: it has to be mended first.
WORTH_RETRYING = frozenset(Code) - GOOD - {Code.REJECTED}


class Result(NamedTuple):
    """What one answer says of one user. `target_code` is the API's own code, as text."""

    code: Code
    target_code: str = ""
    message: str = ""


class Outcome(NamedTuple):
    """What became of one row. `http_status` 0: no answer; `attempts`: requests that carried the user."""

    code: Code
    message: str = ""
    target_code: str = ""
    http_status: int = 0
    attempts: int = 0


class Settled(NamedTuple):
    """The outcome of the row numbered `row`, whose user is `user`."""

    row: int
    user: str
    outcome: Outcome
