"""What a response means, as a table. A target reads the body first; this is for what the body doesn't say."""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Literal, NamedTuple

from loader.outcome import Code, Result
from loader.request import Request, Response


class Do(Enum):
    """What to do with a batch whose response has no result for each of its users."""

    SPLIT = auto()  # refused as a whole: halve it until the culprit stands alone
    SHRINK = auto()  # too large: halve it, and remember how large was too large
    RENEW = auto()  # the token was refused: one refresh for all waiters, then again
    STOP = auto()  # no request can succeed: stop the run and show the response's words
    WAIT = auto()  # slow down: the whole lane waits; costs no attempt
    AGAIN = auto()  # try again after a backoff; costs an attempt


class Answer(NamedTuple):
    """What an answer says, matched by user. `results`: per user of the batch, in its order; None: left out.

    FAILED says that the API could not do it now: the user is sent again, while attempts are left.
    `strangers`: entries for users that were not sent; `doubled`: entries for users that had one already.
    """

    results: Sequence[Result | None]
    strangers: int = 0
    doubled: int = 0


class Stop(NamedTuple):
    """As Do.STOP, with what the person can do about it, where the target knows better than `way_out`."""

    way_out: str


class Then(NamedTuple):
    """Requests that the answers so far lead to, to be sent after those before; at least one."""

    requests: Sequence[Request]


#: What the answer says of each user of a batch, what to do with them all, or what else to ask.
Verdict = Answer | Do | Stop | Then

#: What a setting may say that a code of an API's own means: an outcome of the user, or what to do.
Meaning = Literal["USER_NOT_FOUND", "INVALID", "again", "wait", "stop"]


def meant(word: Meaning) -> Code | Do:
    """A setting's word as what it names."""
    return Do[word.upper()] if word.islower() else Code(word)


_BY_STATUS = {
    400: Do.SPLIT,
    401: Do.RENEW,
    403: Do.STOP,
    404: Do.STOP,
    408: Do.AGAIN,
    409: Do.AGAIN,
    413: Do.SHRINK,
    422: Do.SPLIT,
    423: Do.AGAIN,
    425: Do.AGAIN,
    429: Do.WAIT,
}


def by_status(response: Response) -> Do:
    """The table for a response whose body says nothing the target knows. A 2xx that comes here can't be decoded."""
    if response.status == 503 and "retry-after" in response.headers:
        return Do.WAIT
    if found := _BY_STATUS.get(response.status):
        return found
    # Redirects are not followed (credentials would travel), and what is left of 4xx (405, 410, 415 …) is a wrong
    # address or a wrong API, for every user alike. 1xx never arrive here; 2xx and 5xx may be better next time.
    return Do.STOP if 300 <= response.status < 500 else Do.AGAIN


def is_page(response: Response) -> bool:
    """Is it a web page? Then something on the way answered and not the API, be the status what it may."""
    return response.body[:100].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))


def way_out(response: Response) -> str:
    """What the person who reads of this refusal can do about it, as the end of a message; "" if nobody knows."""
    if response.status == 401:
        return "; are the credentials in [target.auth] those of this API?"
    if response.status == 403:
        return "; has this key the right to do that? Whoever issued it can tell"
    if response.status == 404 or 300 <= response.status < 400:
        return "; is target.base_url right (and target.path, where it is set)?"
    return ""


def words(response: Response, limit: int = 300) -> str:
    """The response's own words, for a message: one line, printable, bounded."""
    text = response.body[: 4 * limit].decode("utf-8", "replace")
    if 300 <= response.status < 400 and "location" in response.headers:
        text = f"redirect to {response.headers['location']}, not followed {text}"
    line = " ".join("".join(ch if ch.isprintable() else " " for ch in text).split())
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return f"HTTP {response.status}" + (f": {line}" if line else "")
