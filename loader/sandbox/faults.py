"""What goes wrong with a request: a plan from (seed, kind of request, its number), and the spoiling of good answers.

Pure. Each kind of fault draws for itself, so setting one rate moves no other fault. Of several that would answer in the
API's place the first in order of `Refusal` wins; spoils add up, in order of `Spoil`.
"""

import hashlib
import random
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import orjson

from loader.request import Response
from loader.sandbox.api import Kind, refusal
from loader.sandbox.options import Fault, FaultOptions, Refusal, Spoil
from loader.sandbox.quota import retry_after

Cut = Literal["down", "reset", "lost", "torn"]

_MESSAGES: dict[Refusal, str] = {
    "429": "Too many requests",
    "500": "Internal server error",
    "502": "Bad gateway",
    "503": "Service unavailable",
    "400": "Bad request",
    "401": "Unauthorized",
    "408": "Request timeout",
}
# Gateways answer in HTML where an API would answer in JSON.
_BAD_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_GARBAGE = b"<!doctype html><title>Welcome to the Wi-Fi of Hotel Sandbox</title>"


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


def plan(options: FaultOptions, kind: Kind, number: int, elapsed_s: float, now: float) -> Plan:
    """The plan for the request that is the `number`th of its kind (from 0), `elapsed_s` after the sandbox's start."""
    if any(start <= elapsed_s < start + length for start, length in options.down):
        return Plan(cut="down")
    delay_s = options.latency_s
    if options.jitter_s:
        delay_s += options.jitter_s * _chance(options.seed, kind, number, "jitter")
    if kind == "other" or options.on not in (kind, "all"):
        return Plan(delay_s)
    if number < options.fail_first_n:
        return Plan(delay_s, answer=refusal(options.fail_first_status, "Not yet"))

    def drawn(fault: Fault) -> bool:
        rate = options.rates.get(fault, 0.0)
        return rate > 0 and _chance(options.seed, kind, number, fault) < rate

    if drawn("slow"):
        delay_s += options.slow_s
    for fault in get_args(Refusal):
        if drawn(fault):
            return Plan(delay_s, answer=_refuse(fault, options, now))
    cuts: tuple[Literal["reset", "lost", "torn"], ...] = ("reset", "lost", "torn")
    for cut in cuts:
        if drawn(cut):
            return Plan(delay_s, cut=cut)
    spoils = tuple(spoil for spoil in get_args(Spoil) if drawn(spoil))
    if not spoils:
        return Plan(delay_s)
    seed = _draw(options.seed, kind, number, "spoil")
    return Plan(delay_s, spoils=spoils, seed=seed, missing_share=options.missing_share)


def spoil(response: Response, plan: Plan, results: str) -> Response:
    """The answer as the plan would have it; `results` names the list of per-user results in it."""
    if response.status != 200 or not plan.spoils:
        return response
    if "garbage" in plan.spoils:
        return Response(200, {"content-type": "text/html"}, _GARBAGE)
    body = response.body
    edits = [kind for kind in plan.spoils if kind != "truncated"]
    document = orjson.loads(body)
    if edits and isinstance(document.get(results), list):
        dice = random.Random(plan.seed)
        for edit in edits:
            document[results] = _edit(document[results], edit, dice, plan.missing_share)
        body = orjson.dumps(document)
    if "truncated" in plan.spoils:
        body = body[: len(body) // 2]
    return replace(response, body=body)


def _edit(entries: list[Any], edit: Spoil, dice: random.Random, missing_share: float) -> object:
    """The list of results, made wrong in one way. An edit never leaves a list that is right by chance, if it can."""
    match edit:
        case "shuffled":
            return dice.sample(entries, len(entries))
        case "missing":
            kept = [entry for entry in entries if dice.random() >= missing_share]
            return kept if len(kept) < len(entries) else kept[1:]
        case "doubled":
            return entries + dice.choices(entries, k=1 + len(entries) // 10) if entries else entries
        case "foreign":
            stranger = {"userName": f"stranger-{dice.getrandbits(32):08x}@sandbox.invalid"}
            model = entries[0] if entries else {"message": "", "resultCode": 0}
            return [*entries, {**model, **stranger}]
        case "wrong-type":
            wrong: list[object] = [None, "results", {"0": entries}, [*entries, 7], [*entries, {"userName": 7}]]
            return dice.choice(wrong)
        case _:
            return entries


def _refuse(fault: Refusal, options: FaultOptions, now: float) -> Response:
    if fault == "502":
        return Response(502, {"content-type": "text/html"}, _BAD_GATEWAY)
    pause = retry_after(options.retry_after, options.retry_after_s, now) if fault in ("429", "503") else {}
    return refusal(int(fault), _MESSAGES[fault], pause)


def _draw(seed: int, kind: Kind, number: int, what: str) -> int:
    """64 bits that depend on nothing else. Not Python's own hash(): that differs from process to process."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {kind} {number} {what}".encode(), digest_size=8).digest())


def _chance(seed: int, kind: Kind, number: int, what: str) -> float:
    return _draw(seed, kind, number, what) / 2**64
