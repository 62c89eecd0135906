"""What goes wrong with a request: a plan from (seed, kind of request, its number), and the spoiling of good answers.

Pure. Each kind of fault draws for itself, so setting one rate moves no other fault. Of several that would answer in the
API's place the first in order of `Refusal` wins; spoils add up, in order of `Spoil`.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import orjson

from loader.request import Response
from loader.sandbox.api import Api, Kind, refusal
from loader.sandbox.options import Fault, FaultOptions, Refusal, Spoil
from loader.sandbox.quota import retry_after

Cut = Literal["down", "reset", "lost", "torn"]
Refuse = Callable[[int, str, Mapping[str, str] | None], Response]

_MESSAGES: dict[Refusal, str] = {
    "429": "Too many requests",
    "500": "Internal server error",
    "503": "Service unavailable",
    "400": "Bad request",
    "401": "Unauthorized",
    "408": "Request timeout",
    "403": "Forbidden",
    "404": "Not found",
    "409": "Conflict",
    "413": "Payload too large",
    "422": "Unprocessable content",
    "425": "Too early",
}

_HTML = {"content-type": "text/html"}


def _gateway(words: str) -> bytes:
    """Gateways answer in HTML where an API would answer in JSON."""
    return f"<html><head><title>{words}</title></head><body><h1>{words}</h1></body></html>".encode()


_GARBAGE = b"<!doctype html><title>Welcome to the Wi-Fi of Hotel Sandbox</title>"
#: In the API's place, and not in its words.
_OTHERS: dict[Refusal, Response] = {
    "502": Response(502, _HTML, _gateway("502 Bad Gateway")),
    "504": Response(504, _HTML, _gateway("504 Gateway Timeout")),
    "302": Response(302, {**_HTML, "location": "https://elsewhere.invalid/sign-in"}, _gateway("302 Found")),
    "portal": Response(200, _HTML, _GARBAGE),
}

#: Deeper than any parser goes, and longer than any answer of these APIs, but no longer than a client should bear.
_DEEP = b"[" * 100_000 + b"]" * 100_000
_HUGE = b" " * (32 << 20)


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of one request.

    `cut`: "down" at once, "reset" before it is applied, "lost" after it, "torn" in the middle of the answer's body.
    `answer`: given in the API's place, nothing is applied. `spoils`: done to the API's good answer, by `seed`.
    """

    delay_s: float = 0.0
    cut: Cut | None = None
    answer: Response | None = None
    spoils: tuple[Spoil, ...] = ()
    seed: int = 0
    missing_share: float = 0.0


def plan(
    options: FaultOptions,
    kind: Kind,
    number: int,
    elapsed_s: float,
    now: float,
    refuse: Refuse = refusal,
    body: bytes = b"",
) -> Plan:
    """The plan for the request that is the `number`th of its kind (from 0), `elapsed_s` after the sandbox's start.

    `refuse` words an error as the API does; `body` is the request's.
    """
    if _is_in(options.down, elapsed_s):
        return Plan(cut="down")
    delay_s = options.latency_s
    if options.jitter_s:
        delay_s += options.jitter_s * _chance(options.seed, kind, number, "jitter")
    if kind == "other" or options.on not in (kind, "all"):
        return Plan(delay_s)
    refusal_s = 0.0 if options.refuses_at_once else delay_s
    if number < options.fail_first_n:
        return Plan(refusal_s, answer=refuse(options.fail_first_status, "Not yet", None))
    if not _is_meant(options, number, elapsed_s, body):
        return Plan(delay_s)

    def drawn(fault: Fault) -> bool:
        rate = options.rates.get(fault, 0.0)
        return rate > 0 and _chance(options.seed, kind, number, fault) < rate

    if drawn("slow"):
        delay_s += options.slow_s
    for fault in get_args(Refusal):
        if drawn(fault):
            return Plan(refusal_s, answer=_refusal(fault, options, now, refuse))
    cuts: tuple[Literal["reset", "lost", "torn"], ...] = ("reset", "lost", "torn")
    for cut in cuts:
        if drawn(cut):
            return Plan(delay_s, cut=cut)
    spoils = tuple(spoil for spoil in get_args(Spoil) if drawn(spoil))
    if not spoils:
        return Plan(delay_s)
    seed = _draw(options.seed, kind, number, "spoil")
    return Plan(delay_s, spoils=spoils, seed=seed, missing_share=options.missing_share)


def _is_in(windows: Sequence[tuple[float, float]], moment: float) -> bool:
    return any(start <= moment < start + length for start, length in windows)


def _is_meant(options: FaultOptions, number: int, elapsed_s: float, body: bytes) -> bool:
    """Are the rates about this request?"""
    if options.during and not _is_in(options.during, elapsed_s):
        return False
    if options.only and not _is_in(options.only, number):
        return False
    return options.about is None or options.about.search(body.decode("utf-8", "replace")) is not None


def spoil(response: Response, plan: Plan, api: Api) -> Response:
    """The answer as the plan would have it. Garbage takes the place of any good answer, even of one without a body."""
    if not plan.spoils or not 200 <= response.status < 300:
        return response
    if "garbage" in plan.spoils:
        return Response(200, _HTML, _GARBAGE)
    if not response.body or "empty" in plan.spoils:
        return replace(response, body=b"")
    if "deep" in plan.spoils:
        return replace(response, body=_DEEP)
    body, headers = response.body, response.headers
    if edits := [kind for kind in plan.spoils if kind not in ("truncated", "charset", "huge")]:
        body = orjson.dumps(_edited(orjson.loads(body), edits, _Hand(plan, api)))
    if "truncated" in plan.spoils:
        body = body[: len(body) // 2]
    if "charset" in plan.spoils:
        headers = {**headers, "content-type": "application/json; charset=utf-16"}
        body = body.decode("utf-8", "replace").encode("utf-16")
    return replace(response, headers=headers, body=body + _HUGE if "huge" in plan.spoils else body)


def _edited(answer: Any, edits: Sequence[Spoil], hand: "_Hand") -> Any:
    """The answer with each of its members that speak of users made wrong in all these ways."""
    around = {"": answer}
    for way in hand.api.entries:
        *steps, name = ["", *way.split(".")] if way else [""]
        holder: Any = around
        for step in steps:
            holder = holder.get(step) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or name not in holder:
            continue
        first = holder[name]
        for edit in edits:
            if isinstance(first, list):
                holder[name] = hand.many(holder[name], first, edit)
            elif isinstance(first, dict) and name in holder:
                hand.one(holder, name, first, edit)
    return around.get("", {})


class _Hand:
    """Makes entries wrong in one way at a time. `first` is what an API's answer had, for new entries to be made of."""

    def __init__(self, plan: Plan, api: Api) -> None:
        self.api = api
        self._share = plan.missing_share
        self._dice = random.Random(plan.seed)

    def many(self, entries: list[Any], first: list[Any], edit: Spoil) -> object:
        """The list, edited: never one that is right by chance, if it can be helped."""
        dice = self._dice
        match edit:
            case "shuffled":
                return dice.sample(entries, len(entries))
            case "missing":
                kept = [entry for entry in entries if dice.random() >= self._share]
                return kept if len(kept) < len(entries) else kept[1:]
            case "doubled":
                return entries + dice.choices(entries, k=1 + len(entries) // 10) if entries else entries
            case "foreign":
                return [*entries, *(self.api.renamed(entry, self._stranger()) for entry in first[:1])]
            case "wrong-type":
                nameless = [[*entries, self.api.renamed(entry, 7)] for entry in first[:1]]
                return dice.choice([None, "entries", {"0": entries}, [*entries, 7], *nameless])
            case _:
                return entries

    def one(self, holder: dict[str, Any], name: str, first: dict[str, Any], edit: Spoil) -> None:
        """Edit the one entry holder[name]. One alone can't be shuffled, nor doubled where there is no list for it."""
        match edit:
            case "missing":
                del holder[name]
            case "foreign":
                holder[name] = self.api.renamed(first, self._stranger())
            case "wrong-type":
                holder[name] = self._dice.choice([None, "entry", 7, [first], self.api.renamed(first, 7)])
            case _:
                pass

    def _stranger(self) -> str:
        """A user whom nobody sent."""
        return f"stranger-{self._dice.getrandbits(32):08x}@sandbox.invalid"


def _refusal(fault: Refusal, options: FaultOptions, now: float, refuse: Refuse) -> Response:
    if fault in _OTHERS:
        return _OTHERS[fault]
    pause = retry_after(options.retry_after, options.retry_after_s, now) if fault in ("429", "503") else {}
    return refuse(int(fault), _MESSAGES[fault], pause)


def _draw(seed: int, kind: Kind, number: int, what: str) -> int:
    """64 bits that depend on nothing else. Not Python's own hash(): that differs from process to process."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {kind} {number} {what}".encode(), digest_size=8).digest())


def _chance(seed: int, kind: Kind, number: int, what: str) -> float:
    return _draw(seed, kind, number, what) / 2**64
