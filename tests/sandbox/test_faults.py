"""What goes wrong is planned, seeded, and wrong in the way it says."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, get_args

import pytest

from loader.request import Response
from loader.sandbox.api import Kind, answer
from loader.sandbox.calven import Calven
from loader.sandbox.faults import Plan, plan, spoil
from loader.sandbox.ledger import Ledger
from loader.sandbox.options import (
    FAULTS,
    CalvenOptions,
    Fault,
    FaultOptions,
    LedgerOptions,
    Refusal,
    RosterOptions,
    Spoil,
)
from loader.sandbox.roster import Roster


class Elsewhere(Calven):
    """An API that speaks of users elsewhere in its answers."""

    def __init__(self, *entries: str) -> None:
        super().__init__(CalvenOptions(), Roster(RosterOptions()), Ledger(LedgerOptions()))
        self.entries = entries


CALVEN = Calven(CalvenOptions(), Roster(RosterOptions()), Ledger(LedgerOptions()))
USERS = [f"user{number}" for number in range(40)]
GOOD = answer(200, {"results": [{"userName": user, "message": "OK", "resultCode": 0} for user in USERS]})


def plans(options: FaultOptions, count: int = 1000, kind: Kind = "data") -> list[Plan]:
    return [plan(options, kind, number, elapsed_s=0.0, now=0.0) for number in range(count)]


def spoiled(*kinds: Spoil, seed: int = 1, response: Response = GOOD) -> Response:
    return spoil(response, Plan(spoils=kinds, seed=seed, missing_share=0.5), CALVEN)


def names(response: Response) -> list[Any]:
    return [result["userName"] for result in json.loads(response.body)["results"]]


def test_by_default_nothing_goes_wrong() -> None:
    """Without options every plan is the empty one."""
    assert set(plans(FaultOptions())) == {Plan()}


def test_a_seed_repeats_itself() -> None:
    """The same seed gives the same plans, another one gives others."""
    options = FaultOptions(seed=7, jitter_s=1, rates={"500": 0.3, "lost": 0.3, "shuffled": 0.3})

    assert plans(options) == plans(options)
    assert plans(options) != plans(options.model_copy(update={"seed": 8}))


@pytest.mark.parametrize("fault", FAULTS)
def test_rates_are_met(fault: Fault) -> None:
    """About as many requests as the rate says are hit; none at 0, all at 1."""
    for rate, low, high in ((0.0, 0, 0), (0.2, 150, 250), (1.0, 1000, 1000)):
        hit = [p for p in plans(FaultOptions(rates={fault: rate})) if p != Plan()]
        assert low <= len(hit) <= high


def test_one_rate_moves_no_other_fault() -> None:
    """A fault hits the same requests whether others are on or not."""
    alone = plans(FaultOptions(rates={"shuffled": 0.3}))
    among = plans(FaultOptions(rates={"shuffled": 0.3, "doubled": 0.5, "slow": 0.5}))

    assert [bool(p.spoils) for p in alone] == ["shuffled" in p.spoils for p in among]


@pytest.mark.parametrize("fault", [fault for fault in get_args(Refusal) if fault != "portal"])
def test_refusals_have_their_status(fault: Fault) -> None:
    """A refusal answers in the API's place; 429 and 503 ask for a pause; what stands before an API speaks HTML."""
    options = FaultOptions(rates={fault: 1}, retry_after="decimal", retry_after_s=0.5)
    response = plan(options, "data", 0, 0.0, 0.0).answer

    assert response is not None
    assert response.status == int(fault)
    assert response.headers.get("retry-after") == ("0.500" if fault in ("429", "503") else None)
    is_page = fault in ("302", "502", "504")
    assert response.headers["content-type"].startswith("text/html" if is_page else "application/json")


def test_a_portal_answers_in_the_api_s_place() -> None:
    """A page with status 200, of something on the way: nothing is applied."""
    (found,) = plans(FaultOptions(rates={"portal": 1}), 1)

    assert found.answer is not None
    assert (found.answer.status, found.answer.headers["content-type"]) == (200, "text/html")
    assert found.answer.body.startswith(b"<!doctype html>")


def test_a_redirect_says_where() -> None:
    (found,) = plans(FaultOptions(rates={"302": 1}), 1)

    assert found.answer is not None
    assert found.answer.headers["location"].startswith("https://elsewhere.invalid/")


def hit(options: FaultOptions, **more: Any) -> list[int]:
    """Which of ten requests, one a second, are refused."""
    found = [plan(options, "data", number, float(number), 0.0, **more) for number in range(10)]
    return [number for number, each in enumerate(found) if each.answer]


def test_faults_may_have_their_time() -> None:
    """`during` is in seconds since the start; outside of it nothing goes wrong."""
    options = FaultOptions(rates={"500": 1}, during=((2, 3), (8, 1)))

    assert hit(options) == [2, 3, 4, 8]


def test_faults_may_be_of_some_requests() -> None:
    """`only` counts the requests of a kind, from 0; `during` and `only` go together."""
    options = FaultOptions(rates={"500": 1}, only=((1, 2), (5, 4)))

    assert hit(options) == [1, 2, 5, 6, 7, 8]
    assert hit(options.model_copy(update={"during": ((6, 2),)})) == [6, 7]


def test_faults_may_be_about_what_is_sent() -> None:
    """`about` is looked for in the body, whatever bytes that is."""
    options = FaultOptions.model_validate({"rates": {"500": 1}, "about": "ann|bob"})

    assert hit(options, body=b'{"user":"ann"}') == list(range(10))
    assert hit(options, body=b"\xff bob") == list(range(10))
    assert hit(options, body=b'{"user":"eve"}') == hit(options) == []


def test_refusals_may_come_at_once() -> None:
    """Without the latency of an answer, as from a gateway that sheds load; good answers take their time."""
    options = FaultOptions(latency_s=1, rates={"503": 1}, refuses_at_once=True)

    assert plans(options, 1)[0].delay_s == 0
    assert plans(options.model_copy(update={"refuses_at_once": False}), 1)[0].delay_s == 1
    assert plans(options.model_copy(update={"rates": {}}), 1)[0].delay_s == 1
    assert plans(options.model_copy(update={"fail_first_n": 1, "rates": {}}), 1)[0].delay_s == 0


def test_faults_are_for_data_unless_told() -> None:
    """Token calls are spared by default; `on` says which requests are meant; unknown paths have no faults."""

    def hit(on: str) -> list[Kind]:
        options = FaultOptions.model_validate({"rates": {"500": 1}, "on": on})
        kinds: list[Kind] = ["data", "token", "other"]
        return [kind for kind in kinds if plan(options, kind, 0, 0.0, 0.0).answer]

    assert (hit("data"), hit("token"), hit("all")) == (["data"], ["token"], ["data", "token"])


def test_latency_is_for_all() -> None:
    """Latency is added to every answer, jitter spreads evenly above it, `slow` adds its own."""
    delays = [p.delay_s for p in plans(FaultOptions(latency_s=1, jitter_s=0.5), kind="token")]

    assert min(delays) >= 1
    assert max(delays) < 1.5
    assert sum(delays) / len(delays) == pytest.approx(1.25, abs=0.03)
    assert plans(FaultOptions(latency_s=1, rates={"slow": 1}, slow_s=3), 1)[0].delay_s == 4


def test_the_first_may_fail() -> None:
    """fail_first_n refuses the first n, with the status asked for."""
    found = plans(FaultOptions(fail_first_n=2, fail_first_status=418), 3)

    assert [p.answer and p.answer.status for p in found] == [418, 418, None]


def test_down_means_down() -> None:
    """In a down window every connection is cut at once, whatever its kind."""
    options = FaultOptions(down=((10, 5), (30, 1)), latency_s=3)
    cuts = [plan(options, "other", 0, elapsed_s, 0.0) for elapsed_s in (9.9, 10, 14.9, 15, 30.5)]

    assert [p.cut for p in cuts] == [None, "down", "down", None, "down"]
    assert cuts[1].delay_s == 0


def test_only_good_answers_are_spoiled() -> None:
    """What is an error already stays as it is."""
    response = answer(401, {})

    assert spoiled("garbage", response=response) is response


def test_garbage_is_not_json() -> None:
    """A 200 from something that isn't the API."""
    response = spoiled("garbage", "shuffled")

    assert response.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(response.body)


def test_truncated_is_half() -> None:
    """The body ends in the middle, though the message is whole."""
    assert spoiled("truncated").body == GOOD.body[: len(GOOD.body) // 2]


def test_empty_is_nothing() -> None:
    """A good status, and no more."""
    assert spoiled("empty", "shuffled").status == 200
    assert spoiled("empty", "shuffled").body == b""


def test_charset_is_another() -> None:
    """The same text, in bytes that no JSON has, and a header that says so."""
    found = spoiled("charset")

    assert found.headers["content-type"] == "application/json; charset=utf-16"
    assert json.loads(found.body.decode("utf-16")) == json.loads(GOOD.body)


def test_deep_is_too_deep() -> None:
    """JSON that no parser goes down into."""
    with pytest.raises(RecursionError):
        json.loads(spoiled("deep").body)


def test_huge_is_right_and_long() -> None:
    """Tens of megabytes of what a parser has to walk through."""
    found = spoiled("huge")

    assert json.loads(found.body) == json.loads(GOOD.body)
    assert len(found.body) > 30_000_000


def test_shuffled_is_the_same_in_another_order() -> None:
    """Every result is there once, elsewhere."""
    found = names(spoiled("shuffled"))

    assert found != USERS
    assert sorted(found) == sorted(USERS)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_missing_leaves_out_a_share(share: float) -> None:
    """At least one result is left out, the others keep their order."""
    found = names(spoil(GOOD, Plan(spoils=("missing",), seed=1, missing_share=share), CALVEN))

    assert found == [user for user in USERS if user in found]
    assert {0.0: 39, 1.0: 0}.get(share, len(found)) == len(found)
    assert len(found) < len(USERS)


def test_doubled_repeats_some() -> None:
    """All results are there, some of them again."""
    counts = Counter(names(spoiled("doubled")))

    assert sorted(counts) == sorted(USERS)
    assert len(USERS) < counts.total() <= len(USERS) * 1.2


def test_foreign_names_a_stranger() -> None:
    """One result more, for a user nobody sent, shaped like the others."""
    results = json.loads(spoiled("foreign").body)["results"]

    assert [result["userName"] for result in results[:-1]] == USERS
    assert results[-1]["userName"] not in USERS
    assert results[-1].keys() == results[0].keys()


def test_wrong_type_breaks_the_schema() -> None:
    """In one of several ways, results aren't the list of objects they should be."""

    def is_right(results: object) -> bool:
        return isinstance(results, list) and all(
            isinstance(result, dict) and isinstance(result["userName"], str) for result in results
        )

    found = [json.loads(spoiled("wrong-type", seed=seed).body)["results"] for seed in range(30)]
    assert not any(map(is_right, found))
    assert len({json.dumps(results) for results in found}) == 5


def test_spoils_add_up() -> None:
    """One answer can be wrong in several ways."""
    found = names(spoiled("shuffled", "missing", "doubled", "foreign"))

    assert set(found) - set(USERS)
    assert set(USERS) - set(found)
    assert len(found) > len(set(found))


@pytest.mark.parametrize("kind", ["shuffled", "missing", "doubled", "foreign", "wrong-type", "truncated"])
def test_an_empty_answer_can_be_spoiled(kind: Spoil) -> None:
    """No result to spoil is no reason to fail; nor is an answer without results, such as a token's."""
    spoiled(kind, response=answer(200, {"results": []}))
    spoiled(kind, response=answer(200, {"token": "x"}))


JANE = {"userName": "jane", "resultCode": 0}


def one(*kinds: Spoil, seed: int = 1) -> Any:
    """An answer about one user, spoiled."""
    plan = Plan(spoils=kinds, seed=seed, missing_share=0.0)
    return json.loads(spoil(answer(200, {"ok": True, "user": JANE}), plan, Elsewhere("user")).body)


def test_one_entry_is_spoiled_as_one() -> None:
    """It may be missing, of somebody else, or of another type; alone it can't be shuffled, nor doubled."""
    stranger = one("foreign")["user"]

    assert one("missing") == {"ok": True}
    assert one("missing", "foreign", "wrong-type") == {"ok": True}
    assert one("shuffled") == one("doubled") == {"ok": True, "user": JANE}
    assert stranger == {**JANE, "userName": stranger["userName"]}
    assert stranger["userName"].startswith("stranger-")
    wrong = [one("wrong-type", seed=seed)["user"] for seed in range(40)]
    assert {json.dumps(each) for each in wrong} == {
        json.dumps(each) for each in (None, "entry", 7, [JANE], {**JANE, "userName": 7})
    }


def test_every_place_is_spoiled() -> None:
    """Where an answer has several lists, each is; one that isn't there, or is empty, is left."""
    api = Elsewhere("good", "bad", "worse")
    body = {"good": [{"userName": "a"}, {"userName": "b"}], "bad": [{"userName": "c"}], "total": 3}
    for found in ({**body, "worse": []}, body):
        spoiled_ = json.loads(spoil(answer(200, found), Plan(spoils=("foreign",), seed=1), api).body)

        assert [len(spoiled_[name]) for name in ("good", "bad")] == [3, 2]
        assert spoiled_["total"] == 3
        assert spoiled_.keys() == found.keys()
        assert not spoiled_.get("worse")


@pytest.mark.parametrize(
    ("where", "body"),
    [
        ("data.results", {"data": {"results": [JANE], "n": 1}}),
        ("data.user", {"data": {"user": JANE, "n": 1}}),
        ("", [JANE]),
        ("", JANE),
    ],
)
def test_entries_may_lie_deeper_or_be_all(where: str, body: object) -> None:
    """A dot leads into a member, and no name is the whole answer."""
    api = Elsewhere(where)
    foreign = spoil(answer(200, body), Plan(spoils=("foreign",), seed=1), api).body
    missing = spoil(answer(200, body), Plan(spoils=("missing",), seed=1, missing_share=1.0), api).body

    assert b"stranger-" in foreign
    assert b"jane" not in missing
    assert (b"data" in missing) == where.startswith("data")
    for other in ("data.results.user", "nowhere", "nowhere.user", "n"):
        untouched = spoil(answer(200, body), Plan(spoils=("foreign", "missing"), seed=1), Elsewhere(other)).body
        assert untouched == answer(200, body).body


def test_an_answer_without_a_body() -> None:
    """Only garbage can take its place."""
    nothing = Response(204)

    assert spoiled("shuffled", "truncated", "foreign", response=nothing) == nothing
    assert spoiled("garbage", response=nothing).status == 200


def test_the_api_words_its_refusals() -> None:
    """Status, message and pause are the fault's, the rest is the API's."""

    def refuse(status: int, message: str, headers: Mapping[str, str] | None) -> Response:
        return answer(status, {"error": message}, headers)

    options = FaultOptions(rates={"503": 1}, fail_first_n=1, fail_first_status=418)
    found = [plan(options, "data", number, 0.0, 0.0, refuse).answer for number in range(2)]

    assert [each and (each.status, json.loads(each.body), each.headers.get("retry-after")) for each in found] == [
        (418, {"error": "Not yet"}, None),
        (503, {"error": "Service unavailable"}, "1"),
    ]
