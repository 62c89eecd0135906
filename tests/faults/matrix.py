"""Every fault with every target: what is expected, written down by hand. docs/faults.md is made of this.

A fault is an entry in its section: what happens, why the loader does what it does, and what becomes of the load, target
by target. test_matrix.py tries them all; `UPDATE_DOCS=1 scripts/test tests/faults/test_matrix.py` rewrites the page.
"""

import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import orjson

from loader.outcome import Code
from loader.request import Request, Response
from loader.sandbox import QuotaOptions
from loader.sandbox.sandbox import Sandbox
from loader.transport import Send
from tests.faults import front
from tests.faults.front import Misdeed, Talk
from tests.faults.rig import Clock
from tests.faults.trial import Cell, Fault
from tests.faults.ways import CULPRIT, WAYS, Way

# What may become of a load --------------------------------------------------------------------------------------------

OK = Cell("✓")
WAITS = Cell("waits ✓", waits=True)


def stops(words: str) -> Cell:
    return Cell("stops", 3, words=words)


def one(code: Code) -> Cell:
    return Cell(f"1 {code}", 1, one=code)


def every(code: Code) -> Cell:
    return Cell(f"all {code}", 1, every=code)


def never(why_not: str) -> Cell:
    return Cell("–", why_not=why_not)


INVALID, FAILED, ALL_INVALID = one(Code.INVALID), one(Code.FAILED), every(Code.INVALID)
GIVES_UP = stops("no usable answer for 6")
REFUSED = stops("the credentials are not accepted")
NO_TOKEN = stops("no token was given")

NO_BODY = never("a good answer has no body")
NO_CALL = never("no call for a token")
ALONE = never("one user a request, and one result in the answer")
WHOLE = never("the answer is about all groups at once")

# Who is meant ---------------------------------------------------------------------------------------------------------

LISTS = ("calven", "calven, static", "descope, bulk", "scim, bulk", "http, list")
SINGLES = ("dx", "descope", "scim", "http")
HIERARCHY = ("calven-hierarchy",)
TOKENS = ("calven", "calven-hierarchy", "http, list")
STATIC = ("calven, static", "dx", "descope", "descope, bulk", "scim", "scim, bulk")
assert {*LISTS, *SINGLES, *HIERARCHY} == set(WAYS)


def cells(*parts: tuple[Iterable[str], Cell], everywhere: Cell | None = None) -> Mapping[str, Cell]:
    """A row: a cell for each target, of several that are given the last."""
    found = dict.fromkeys(WAYS, everywhere) if everywhere else {}
    for names, cell in parts:
        found |= dict.fromkeys(names, cell)
    assert set(found) == set(WAYS), set(WAYS) - set(found)
    return {name: found[name] for name in WAYS}


def of_calls(*parts: tuple[Iterable[str], Cell], cell: Cell, descope: Cell = OK) -> Mapping[str, Cell]:
    """A row about the call for a token. Descope has none, but one for its licence, which it can do without."""
    return cells(*parts, (TOKENS, cell), (("descope", "descope, bulk"), descope), everywhere=NO_CALL)


ONCE_REFUSED = cells((LISTS, OK), (SINGLES, INVALID), (("descope",), one(Code.PARTIAL)), (HIERARCHY, ALL_INVALID))
OF_ONE = cells((HIERARCHY, GIVES_UP), everywhere=FAILED)
ABOUT = {"about": re.compile('culprit x|culprit"')}
#: So that there are others, as long as it takes, who show that the target is up.
AMONG_OTHERS: dict[str, Any] = {"times": 3, "attempts": 3}
FOR_EVER_S = 10_000.0


def too_fat(way: Way) -> Mapping[str, Any]:
    """A maximum that the culprit's record alone is above, or the whole hierarchy."""
    most = 1_000 if way.name in ("descope", "calven-hierarchy") else 1_800
    return {"max_payload_size" if way.name == "scim, bulk" else "max_bytes": most}


def too_many(way: Way) -> Mapping[str, Any]:
    return {"max_operations" if way.name == "scim, bulk" else "max_users": 3}


def short_tokens(way: Way) -> Mapping[str, Any]:
    """So that another has to be fetched in the midst of the load."""
    return {"token_lifetime_s": 2.0} if way.first_call else {}


def silent_about_the_culprit(way: Way, sandbox: Sandbox) -> Callable[[Send], Send]:
    """Leaves the culprit's result out of each answer, and no other."""

    def wrap(send: Send) -> Send:
        async def silent(request: Request) -> Response:
            response = await send(request)
            users = way.carries(request)
            if CULPRIT not in users or response.status != 200:
                return response
            answer = orjson.loads(response.body)
            for name in sandbox.api.entries:
                found = answer.get(name)
                if isinstance(found, list) and len(found) == len(users):
                    del found[users.index(CULPRIT)]
                elif isinstance(found, dict):
                    del answer[name]
            return replace(response, body=orjson.dumps(answer))

        return silent

    return wrap


def ahead(clock: Clock) -> None:
    clock.ahead_s = 3600.0


def back(clock: Clock) -> None:
    clock.ahead_s = -3600.0


def asleep(clock: Clock) -> None:
    clock.slept_s = 3600.0


def misdeed(
    name: str,
    why: str,
    do: Callable[[Talk], Coroutine[Any, Any, None]],
    at: Literal["connection", "head", "request"] = "request",
    cell: Cell = OK,
    count: int = 2,
    timeout_s: float = 10.0,
    *,
    has_body: bool = True,
) -> Fault:
    """A row about real sockets. `has_body`: it is done to the body of an answer, so it takes one."""
    found = cells((HIERARCHY, NO_BODY), everywhere=cell) if has_body else cells(everywhere=cell)
    return Fault(name, why, found, count=count, timeout_s=timeout_s, misdeed=Misdeed(do, at))


SECTIONS: dict[str, list[Fault]] = {
    "On the wire": [
        Fault(
            "connection refused at first",
            "Tried again, each time later.",
            cells(everywhere=OK),
            road="late",
        ),
        Fault(
            "connection refused for good",
            "After `limits.give_up_s` the run stops.",
            cells(everywhere=stops("Connection refused")),
            road="closed",
            give_up_s=0.3,
        ),
        Fault(
            "a name that is not known at first",
            "Name servers fail, too: tried again.",
            cells(everywhere=OK),
            road="unnamed",
        ),
        Fault(
            "a name that is not known",
            "It may be a matter of minutes, so it takes `limits.give_up_s` until the run stops.",
            cells(everywhere=stops("Name or service not known")),
            road="nameless",
            give_up_s=0.3,
        ),
        Fault(
            "a certificate that has expired",
            "Nothing is sent to who can't show who it is, and the run stops at once.",
            cells(everywhere=stops("the certificate of 127.0.0.1 is not trusted: certificate has expired")),
            road="expired",
        ),
        Fault(
            "a certificate that expires on the way",
            "It was good before, so somebody is about to renew it: tried again.",
            cells(everywhere=OK),
            road="renewed",
        ),
        misdeed("reset as soon as connected", "Tried again.", front.reset, "connection", has_body=False),
        misdeed(
            "slow to accept",
            "As long as it is within `limits.timeout_s`, it is an answer.",
            front.slow,
            "connection",
            has_body=False,
        ),
        misdeed(
            "never reads the request",
            "After `limits.timeout_s`, tried again.",
            front.hang,
            "connection",
            timeout_s=0.3,
            has_body=False,
        ),
        misdeed("reset while the request is sent", "Tried again.", front.reset, "head", has_body=False),
        misdeed("reset behind the request", "Tried again.", front.reset, has_body=False),
        misdeed("reset once it is applied", "Sent again: nobody knows.", front.answer_and_reset, has_body=False),
        misdeed("reset within the answer", "Half an answer is none.", front.reset_within, has_body=False),
        misdeed(
            "closed behind an answer, unsaid",
            "The next request on that connection is tried again, by us and not beneath us.",
            front.close_unsaid,
            has_body=False,
        ),
        misdeed("a chunk cut short", "Half an answer is none.", front.cut_chunk),
        misdeed("no last chunk", "The same, though all of it may be there.", front.no_last_chunk),
        misdeed("Content-Length too great", "", front.length_too_great),
        misdeed(
            "Content-Length too small",
            "What is left is nobody's answer, and the connection isn't used again.",
            front.length_too_small,
        ),
        misdeed(
            "the answer dribbles in",
            "As long as it is within `limits.timeout_s`, it is an answer.",
            front.dribble,
            has_body=False,
        ),
        misdeed(
            "an answer that never ends, slowly", "`limits.timeout_s` is for all of it.", front.never_end, timeout_s=0.3
        ),
        misdeed("an answer that never ends, fast", "Beyond 64 MiB it is none, and is not kept.", front.flood),
        misdeed("an answer too long to be one", "Its head says so, and it isn't read.", front.announce_too_much),
        misdeed("gzip that is none", "It can't be unpacked.", front.bad_gzip),
        misdeed("gzip that is cut short", "Half an answer is none.", front.cut_gzip),
        misdeed("gzip, unasked", "Unpacked.", front.good_gzip),
        misdeed("bytes that are not HTTP", "No answer.", front.garbage, has_body=False),
        misdeed("100 and 103 before the answer", "Passed over.", front.interim, has_body=False),
        misdeed(
            "102 and no answer", "They don't start the clock anew.", front.only_interim, timeout_s=0.3, has_body=False
        ),
        misdeed(
            "a redirect",
            "Not followed: credentials would travel.",
            front.redirect,
            cell=stops("not followed"),
            has_body=False,
        ),
        misdeed("two answers to one request", "The second is nobody's.", front.answer_twice, has_body=False),
    ],
    "Connections": [
        Fault(
            "reset before the request is read",
            "Nobody was served, and the request is sent again after a moment.",
            cells(everywhere=OK),
            {"reset": 1},
            count=3,
        ),
        Fault(
            "applied, and the answer lost",
            "What was applied is sent again, as nobody knows that it was; the same values, so nothing changes.",
            cells(everywhere=OK),
            {"lost": 1},
            count=3,
        ),
        Fault(
            "cut in the middle of the answer",
            "Half an answer is none.",
            cells(everywhere=OK),
            {"torn": 1},
            count=3,
        ),
        Fault(
            "no answer in time",
            "After `limits.timeout_s` the request is sent again, the second time in halves.",
            cells(everywhere=OK),
            {"slow": 1},
            count=3,
            more={"slow_s": 3600},
            pause_s=90,
        ),
        Fault(
            "answers take 5 s for 20 s",
            "Slow is not down: everything goes on, with no more requests at once.",
            cells(everywhere=OK),
            {"slow": 1},
            for_s=20,
            more={"slow_s": 5},
            pause_s=20,
            is_storm=True,
        ),
        Fault(
            "down for a minute",
            "Asked now and then whether it is back; nobody fails, whatever `limits.attempts` is.",
            cells(everywhere=WAITS),
            down_s=60,
            pause_s=60,
            is_storm=True,
        ),
        Fault(
            "down for five minutes",
            "The same, as long as it is shorter than `limits.give_up_s`.",
            cells(everywhere=WAITS),
            down_s=300,
            pause_s=300,
        ),
        Fault(
            "down for good",
            "After `limits.give_up_s` without one usable answer the run stops, and can be resumed.",
            cells(everywhere=GIVES_UP),
            down_s=FOR_EVER_S,
            is_storm=True,
        ),
        Fault(
            "one user breaks the connection",
            "Its batch is halved until it stands alone, and then its attempts are used up. Of a hierarchy nothing can "
            "be left out, and as nothing else shows that the target is up, it is taken to be down.",
            OF_ONE,
            {"reset": 1},
            more=ABOUT,
            **AMONG_OTHERS,
        ),
        Fault(
            "one user gets no answer",
            "The same, a timeout at a time.",
            OF_ONE,
            {"slow": 1},
            more={**ABOUT, "slow_s": 3600},
            timeout_s=1,
            **AMONG_OTHERS,
        ),
    ],
    "Answers that can't be read": [
        Fault(
            "a web page instead of the answer",
            "Applied or not, it doesn't say so.",
            cells(everywhere=OK),
            {"garbage": 1},
            count=3,
        ),
        Fault(
            "a sign-in page in the API's place",
            "Status 200, and nothing was applied: a web page is never taken for a success.",
            cells(everywhere=OK),
            {"portal": 1},
            count=3,
        ),
        Fault(
            "JSON that is cut short",
            "No part of it is believed.",
            cells((HIERARCHY, NO_BODY), everywhere=OK),
            {"truncated": 1},
            count=3,
        ),
        Fault(
            "no body",
            "Without results nobody is a success, but where the status alone says it.",
            cells((HIERARCHY, NO_BODY), everywhere=OK),
            {"empty": 1},
            count=3,
        ),
        Fault(
            "another charset",
            "JSON is UTF-8.",
            cells((HIERARCHY, NO_BODY), everywhere=OK),
            {"charset": 1},
            count=3,
        ),
        Fault(
            "JSON a hundred thousand levels deep",
            "It can't be read, and breaks nothing.",
            cells((HIERARCHY, NO_BODY), everywhere=OK),
            {"deep": 1},
            count=3,
        ),
        Fault(
            "a good answer of 32 MB",
            "Read like any other; beyond 64 MiB it is no answer.",
            cells((HIERARCHY, NO_BODY), everywhere=OK),
            {"huge": 1},
            count=1,
        ),
        Fault(
            "web pages for good",
            "As if it were down.",
            cells(everywhere=GIVES_UP),
            {"portal": 1},
            for_s=FOR_EVER_S,
        ),
        Fault(
            "one user garbles its answer",
            "As with one that breaks the connection.",
            OF_ONE,
            {"garbage": 1},
            more=ABOUT,
            **AMONG_OTHERS,
        ),
    ],
    "Statuses": [
        Fault(
            "302",
            "Not followed: credentials would travel. The message says where it leads.",
            cells(everywhere=stops("redirect to https://elsewhere.invalid/sign-in, not followed")),
            {"302": 1},
            count=1,
        ),
        Fault(
            "400 to one request",
            "A refusal is taken for some user's: of many, halves are sent; one alone is told so.",
            ONCE_REFUSED,
            {"400": 1},
            count=1,
        ),
        Fault(
            "400 because of one user",
            "Halves are sent until it stands alone. A hierarchy goes whole, and is refused whole.",
            cells((HIERARCHY, ALL_INVALID), everywhere=INVALID),
            {"400": 1},
            more=ABOUT,
        ),
        Fault(
            "400 to every request",
            "Each user is told so. Should the first 1,000 all fail, the run stops instead.",
            cells(everywhere=ALL_INVALID),
            {"400": 1},
        ),
        Fault(
            "401 once",
            "Another token is fetched, or the same credentials tried once more.",
            cells(everywhere=OK),
            {"401": 1},
            count=1,
        ),
        Fault(
            "401 to all in flight",
            "One token is fetched for all of them.",
            cells((HIERARCHY, never("it goes alone")), everywhere=OK),
            {"401": 1},
            count=3,
        ),
        Fault(
            "all tokens revoked",
            "A new one is fetched. A static one can't be: that stops the run.",
            cells((STATIC, REFUSED), (("http",), never("an API key is no token")), everywhere=OK),
            revoked_after_s=0.5,
        ),
        Fault(
            "401 for good",
            "A fresh token that is refused means that the credentials are wrong.",
            cells(everywhere=REFUSED),
            {"401": 1},
        ),
        Fault(
            "403",
            "No request of this key can succeed.",
            cells(
                (("dx",), stops("lacks the scope users:write")),
                (("scim, bulk",), stops("may this key do that, or set target.bulk = false")),
                everywhere=stops("has this key the right to do that?"),
            ),
            {"403": 1},
            count=1,
        ),
        Fault(
            "404 for the address",
            "No request to it can succeed. Where an API says in its own words that there is no such user, as DX does, "
            "it is about the user.",
            cells((("dx",), every(Code.USER_NOT_FOUND)), everywhere=stops("is target.base_url right")),
            {"404": 1},
        ),
        Fault(
            "a user that isn't there",
            "It costs that user alone. The API described here has no code for it, so its 404 is one for the address.",
            cells(
                (HIERARCHY, never("it has no users")),
                (("http",), stops("is target.base_url right")),
                everywhere=one(Code.USER_NOT_FOUND),
            ),
            roster={"unknown": re.compile("culprit")},
        ),
        Fault("408", "It took too long to arrive: sent again.", cells(everywhere=OK), {"408": 1}, count=3),
        Fault("409", "Another write was in the way: sent again.", cells(everywhere=OK), {"409": 1}, count=3),
        Fault(
            "413 to one request",
            "As 400, and the size is remembered, until a larger request is taken.",
            ONCE_REFUSED,
            {"413": 1},
            count=1,
        ),
        Fault(
            "413 above 3 users",
            "Requests are made smaller; nobody fails.",
            cells((LISTS, OK), (SINGLES, ALONE), (HIERARCHY, never("it has no number to make smaller"))),
            own=too_many,
        ),
        Fault(
            "413 for one user's bytes",
            "It is INVALID; the others go on in requests as large as before.",
            cells(
                (HIERARCHY, ALL_INVALID),
                (("scim",), never("RFC 7644 has a maximum for bulk alone")),
                everywhere=INVALID,
            ),
            own=too_fat,
        ),
        Fault("422 to one request", "As 400.", ONCE_REFUSED, {"422": 1}, count=1),
        Fault("425", "Too early: sent again.", cells(everywhere=OK), {"425": 1}, count=3),
        Fault("500", "Sent again, each time later.", cells(everywhere=OK), {"500": 1}, count=3),
        Fault("502, a gateway's page", "", cells(everywhere=OK), {"502": 1}, count=3),
        Fault(
            "503 without Retry-After",
            "",
            cells(everywhere=OK),
            {"503": 1},
            count=3,
            more={"retry_after": "none"},
        ),
        Fault("504, a gateway's page", "", cells(everywhere=OK), {"504": 1}, count=3),
        Fault(
            "500 because of one user",
            "Its attempts are used up, while the others show that the target is up.",
            OF_ONE,
            {"500": 1},
            more=ABOUT,
            **AMONG_OTHERS,
        ),
    ],
    "Too many requests": [
        *(
            Fault(
                f"429, Retry-After {words}",
                why,
                cells(everywhere=WAITS if pause_s else OK),
                {"429": 1},
                count=1,
                more={"retry_after": form, "retry_after_s": 20},
                pause_s=pause_s,
            )
            for form, words, pause_s, why in (
                ("int", "20 s", 20, "Nobody sends before that is over."),
                ("decimal", "20.000 s", 20, "RFC 9110 has no fractions, and some APIs do."),
                ("date", "a date", 20, "By the answer's own `Date`, so that clocks may differ."),
                ("huge", "30 years", 300, "Five minutes at most: a wrong one must not put a load to sleep."),
                ("negative", "−20 s", 0, "No pause, but the pace is lowered."),
                ("words", "in words", 0, ""),
                ("none", "absent", 0, ""),
            )
        ),
        Fault(
            "503, Retry-After 20 s",
            "As with a 429.",
            cells(everywhere=WAITS),
            {"503": 1},
            count=1,
            more={"retry_after_s": 20},
            pause_s=20,
        ),
        Fault(
            "429 to one in twenty",
            "Each costs no attempt.",
            cells(everywhere=OK),
            {"429": 0.05},
            more={"retry_after": "none"},
            pause_s=60,
        ),
        Fault(
            "429 for 10 s",
            "Slower, and never faster than before.",
            cells(everywhere=OK),
            {"429": 1},
            for_s=10,
            more={"retry_after": "none"},
            pause_s=60,
            is_storm=True,
        ),
        Fault(
            "a quota that nobody knew of",
            "The pace is found from what is refused; nobody fails.",
            cells(everywhere=OK),
            quota=QuotaOptions(requests=8, window_s=4),
            pause_s=60,
            is_storm=True,
        ),
        Fault(
            "429 for good",
            "It costs nobody an attempt, and at last the run stops.",
            cells(everywhere=GIVES_UP),
            {"429": 1},
            for_s=FOR_EVER_S,
        ),
    ],
    "Storms": [
        Fault(
            "500 for 30 s",
            "One request at a time asks whether it is over.",
            cells(everywhere=WAITS),
            {"500": 1},
            for_s=30,
            pause_s=30,
            is_storm=True,
        ),
        Fault(
            "502, 503 and 504 for two minutes",
            "",
            cells(everywhere=WAITS),
            {"502": 0.4, "503": 0.6, "504": 1},
            for_s=120,
            more={"retry_after": "none"},
            pause_s=120,
            is_storm=True,
        ),
        Fault(
            "503 with Retry-After 1 s for 30 s",
            "It is believed each time.",
            cells(everywhere=OK),
            {"503": 1},
            for_s=30,
            pause_s=30,
            is_storm=True,
        ),
        Fault(
            "half of all requests fail for 20 s",
            "Those that fail come back later, and take no more room than before.",
            cells(everywhere=OK),
            {"500": 0.5},
            for_s=20,
            pause_s=60,
            is_storm=True,
        ),
        Fault(
            "500 for good",
            "After `limits.give_up_s` the run stops; what is in flight stays unsettled.",
            cells(everywhere=GIVES_UP),
            {"500": 1},
            for_s=FOR_EVER_S,
            is_storm=True,
        ),
    ],
    "Results": [
        Fault(
            "results missing",
            "Those left out are sent again, and that is said.",
            cells((HIERARCHY, WHOLE), everywhere=OK),
            {"missing": 1},
            count=3,
        ),
        Fault(
            "one user's result always missing",
            "The API answered, and left this user out in every attempt.",
            cells(
                (HIERARCHY, WHOLE),
                (("scim",), never("the answer to a PATCH is the user")),
                (("http",), FAILED),
                everywhere=one(Code.NO_RESULT),
            ),
            wrap=silent_about_the_culprit,
            **AMONG_OTHERS,
        ),
        Fault(
            "all results always missing",
            "Keys that don't fit, or an API that lists failures alone: the message names `target.missing_result`.",
            cells(
                (HIERARCHY, WHOLE),
                (("scim", "http"), GIVES_UP),
                (("scim, bulk",), GIVES_UP._replace(every=Code.FAILED)),
                everywhere=stops("target.missing_result"),
            ),
            {"missing": 1},
            more={"missing_share": 1.0},
        ),
        Fault(
            "results doubled",
            "The same said twice is said once, and warned of.",
            cells((HIERARCHY, WHOLE), (("dx", "descope", "http"), ALONE), everywhere=OK),
            {"doubled": 1},
            is_loud=True,
        ),
        Fault(
            "results in another order",
            "They are matched by user.",
            cells((HIERARCHY, WHOLE), (("dx", "descope", "http"), ALONE), everywhere=OK),
            {"shuffled": 1},
        ),
        Fault(
            "results of users not sent",
            "They count for nobody, and are warned of.",
            cells((HIERARCHY, WHOLE), (("http",), never("its answer names nobody")), everywhere=OK),
            {"foreign": 1},
            count=3,
            is_loud=True,
        ),
        Fault(
            "results of another type",
            "Whoever is not named in what can be read is sent again.",
            cells((HIERARCHY, WHOLE), everywhere=OK),
            {"wrong-type": 1},
            count=3,
        ),
    ],
    "The call for a token": [
        *(
            Fault(
                name,
                why,
                of_calls(cell=OK),
                {fault: 1},
                count=2,
                more={"on": "token", "slow_s": 3600},
                own=short_tokens,
                pause_s=60,
            )
            for fault, name, why in (
                ("reset", "reset", "Tried again, each time later; requests with users wait for it."),
                ("lost", "the answer lost", "Another token is as good."),
                ("torn", "cut in the middle of the answer", ""),
                ("slow", "no answer in time", ""),
                ("portal", "a sign-in page in its place", "There is no token in it."),
                ("truncated", "JSON that is cut short", ""),
                ("empty", "no body", ""),
                ("charset", "another charset", ""),
                ("deep", "JSON a hundred thousand levels deep", ""),
                ("huge", "a good answer of 32 MB", "Read like any other."),
                ("408", "408", "Tried again."),
                ("409", "409", ""),
                ("425", "425", ""),
                ("500", "500", ""),
                ("502", "502, a gateway's page", ""),
                ("504", "504, a gateway's page", ""),
            )
        ),
        *(
            Fault(
                f"{status}, Retry-After 20 s",
                why,
                of_calls(cell=WAITS, descope=WAITS),
                {status: 1},
                count=1,
                more={"on": "token", "retry_after_s": 20},
                own=short_tokens,
                pause_s=20,
            )
            for status, why in (("429", "Everybody waits."), ("503", ""))
        ),
        *(
            Fault(
                status,
                why,
                of_calls(cell=NO_TOKEN, descope=descope),
                {status: 1},
                count=2,
                more={"on": "token"},
                own=short_tokens,
            )
            for status, descope, why in (
                ("302", OK, "Not followed: the secret would travel."),
                ("400", OK, "The same credentials would be refused again."),
                ("401", REFUSED, ""),
                ("403", OK, ""),
                ("404", OK, "Is `target.base_url` right?"),
                ("413", OK, "As 400."),
                ("422", OK, ""),
            )
        ),
        Fault(
            "503 for a minute",
            "While the target takes requests, and nobody has a token for them.",
            of_calls(cell=WAITS, descope=OK),
            {"503": 1},
            for_s=60,
            more={"on": "token", "retry_after": "none"},
            own=short_tokens,
            pause_s=60,
        ),
        Fault(
            "500 for good",
            "As if the target were down.",
            of_calls(cell=stops("no token: HTTP 500"), descope=OK),
            {"500": 1},
            for_s=FOR_EVER_S,
            more={"on": "token"},
            own=short_tokens,
        ),
    ],
    "Time": [
        Fault(
            "our clock jumps an hour ahead",
            "Tokens are renewed at once. An HMAC is made with the time, and the API refuses one that is an hour off.",
            cells((("calven",), stops("this machine's clock is 60 min ahead of the API's")), everywhere=OK),
            clock=ahead,
            own=short_tokens,
        ),
        Fault(
            "our clock jumps an hour back",
            "A token's age is counted by a clock that doesn't jump, too. For the HMAC it is as above.",
            cells((("calven",), stops("this machine's clock is 60 min behind the API's")), everywhere=OK),
            clock=back,
            own=short_tokens,
        ),
        *(
            Fault(
                f"a 429 names a date, and our clock has jumped an hour {side}",
                why,
                cells((("calven",), calven), everywhere=WAITS),
                {"429": 1},
                for_s=1.0,
                more={"retry_after": "date", "retry_after_s": 20},
                clock=clock,
                pause_s=20,
            )
            for side, clock, calven, why in (
                (
                    "ahead",
                    ahead,
                    stops("this machine's clock is 60 min ahead of the API's"),
                    "It is a date by the answer's own `Date`. (For the HMAC a new token is due at once.)",
                ),
                ("back", back, WAITS, ""),
            )
        ),
        Fault(
            "the machine sleeps for an hour",
            "Its tokens are over when it wakes, its connections broken.",
            cells(everywhere=OK),
            clock=asleep,
            own=short_tokens,
        ),
    ],
    "Everything at once": [
        Fault(
            "all of these, a little",
            "Refusals, breaks, delays, garbage, odd results and an outage, mixed anew with each seed.",
            cells(everywhere=OK),
            {
                **dict.fromkeys(("429", "500", "502", "503", "504", "408", "409", "425"), 0.02),
                **dict.fromkeys(("reset", "lost", "torn", "slow", "garbage", "portal", "truncated"), 0.02),
                **dict.fromkeys(("empty", "charset", "deep", "missing", "foreign", "wrong-type"), 0.02),
                **dict.fromkeys(("shuffled", "doubled"), 0.1),
            },
            more={"on": "all", "slow_s": 45, "retry_after": "decimal", "retry_after_s": 0.5},
            down_s=10,
            pause_s=300,
            attempts=16,
            is_mixed=True,
            seeds=range(3),
        ),
    ],
}
