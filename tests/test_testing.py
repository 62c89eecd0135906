"""The contract itself: a good target passes all of it, and each fault of the others is caught by the check for it."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar

import msgspec
import pytest
from pydantic import ConfigDict

from loader.batch import Batch
from loader.outcome import Code, Result
from loader.request import Request, Response
from loader.target import Defaults, Target
from loader.testing import Said, TargetContract, as_json
from loader.tokens import Scheme, bearer_headers
from loader.verdict import Answer, Do, Then, Verdict, by_status


class Acme(Target):
    """`POST /users`, answered by a result for each user."""

    api: ClassVar[str] = "acme"
    schemes: ClassVar[Mapping[str, Scheme]] = {"bearer": Scheme(("token",), headers=bearer_headers)}

    def encode(self, batch: Batch) -> list[Request]:
        body = self.frame.body(batch.records)
        return [Request("POST", "/users", body, {"Content-Type": "application/json"}, len(batch))]

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        if not 200 <= responses[-1].status < 300:
            return by_status(responses[-1])
        try:
            return self.matched(batch, msgspec.json.decode(responses[-1].body, type=_Body).results)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return Do.AGAIN

    def matched(self, batch: Batch, entries: "list[_Entry]") -> Verdict:
        found: dict[str, Result | None] = dict.fromkeys(batch.users)
        strangers = doubled = 0
        for entry in entries:
            if entry.user not in found:
                strangers += 1
                continue
            before = found[entry.user]
            doubled += before is not None
            if before is None or before.code is Code.SUCCESS:
                found[entry.user] = self.result(entry)
        return Answer(list(found.values()), strangers, doubled)

    def result(self, entry: "_Entry") -> Result:
        return Result(Code.SUCCESS if entry.ok else Code.USER_NOT_FOUND)


class _Entry(msgspec.Struct):
    user: str
    ok: bool


class _Body(msgspec.Struct):
    results: list[_Entry]


class Contract(TargetContract):
    target = Acme(auth="bearer")

    def answer(self, request: Request, said: Sequence[Said]) -> Response:
        return as_json({"results": [{"user": one.user, "ok": one.is_known} for one in said]})


CHECKS = [name for name in dir(TargetContract) if name.startswith("test_")]


@pytest.mark.parametrize("check", CHECKS)
def test_a_good_target_passes(check: str) -> None:
    getattr(Contract(), check)()


# Faults, each with the check that has to see it


class ByPosition(Acme):
    def matched(self, batch: Batch, entries: list[_Entry]) -> Verdict:
        results = [self.result(entry) for entry in entries[: len(batch)]]
        return Answer([*results, *[None] * (len(batch) - len(results))])


class ByFoldedKey(Acme):
    def matched(self, batch: Batch, entries: list[_Entry]) -> Verdict:
        found = {entry.user.casefold(): self.result(entry) for entry in entries}
        return Answer([found.get(user.casefold()) for user in batch.users])


class TooFewResults(Acme):
    def matched(self, batch: Batch, entries: list[_Entry]) -> Verdict:
        return Answer([self.result(entry) for entry in entries])


class SuccessByStatus(Acme):
    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        verdict = super().read(batch, responses)
        return (
            Answer([Result(Code.SUCCESS)] * len(batch))
            if verdict is Do.AGAIN and responses[-1].status == 200
            else verdict
        )


class SuccessByBody(Acme):
    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        found = super().read(batch, [*responses[:-1], replace(responses[-1], status=200)])
        return found if isinstance(found, Answer) else by_status(responses[-1])


class SilenceIsSuccess(Acme):
    def matched(self, batch: Batch, entries: list[_Entry]) -> Verdict:
        verdict = super().matched(batch, entries)
        assert isinstance(verdict, Answer)
        return verdict._replace(results=[result or Result(Code.SUCCESS) for result in verdict.results])


class SilenceIsNoUser(Acme):
    def matched(self, batch: Batch, entries: list[_Entry]) -> Verdict:
        verdict = super().matched(batch, entries)
        assert isinstance(verdict, Answer)
        return verdict._replace(results=[result or Result(Code.USER_NOT_FOUND) for result in verdict.results])


class CountsNobody(Acme):
    def matched(self, batch: Batch, entries: list[_Entry]) -> Verdict:
        verdict = super().matched(batch, entries)
        assert isinstance(verdict, Answer)
        return Answer(verdict.results)


class LastWins(Acme):
    def matched(self, batch: Batch, entries: list[_Entry]) -> Verdict:
        kept = {entry.user: entry for entry in entries}
        verdict = super().matched(batch, list(kept.values()))
        assert isinstance(verdict, Answer)
        return verdict._replace(doubled=len(entries) - len(kept))


class OneForAll(Acme):
    def matched(self, batch: Batch, entries: list[_Entry]) -> Verdict:
        if all(entry.ok for entry in entries):
            return super().matched(batch, entries)
        return Answer([Result(Code.USER_NOT_FOUND)] * len(batch))


class Trusting(Acme):
    """Takes for granted that an answer is as it should be."""

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        if not 200 <= responses[-1].status < 300:
            return by_status(responses[-1])
        return self.matched(
            batch, [_Entry(one["user"], one["ok"]) for one in json.loads(responses[-1].body)["results"]]
        )


class Shallow(Acme):
    """Handles what json.loads is said to raise: not the depth, the encoding, the size of numbers."""

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        try:
            return super().read(batch, responses) if json.loads(responses[-1].body) else Do.AGAIN
        except json.JSONDecodeError:
            return by_status(responses[-1])


class OddMessage(Acme):
    """Passes a text on that no file can hold."""

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        if responses[-1].status != 200:
            return Answer(
                [Result(Code.INVALID, "", responses[-1].body.decode("utf-8", "surrogateescape"))] * len(batch)
            )
        return super().read(batch, responses)


class SaysSkipped(Acme):
    def result(self, entry: _Entry) -> Result:
        return Result(Code.SUCCESS if entry.ok else Code.SKIPPED)


class Forgetful(Acme):
    """Says something else when it is asked again."""

    seen: ClassVar[set[bytes]] = set()

    def matched(self, batch: Batch, entries: list[_Entry]) -> Verdict:
        key = repr(entries).encode()
        if key in self.seen:
            return Do.AGAIN
        self.seen.add(key)
        return super().matched(batch, entries)


class ForEver(Acme):
    def matched(self, batch: Batch, entries: list[_Entry]) -> Verdict:
        return Then(self.encode(batch))


class NoWhere(Acme):
    def matched(self, batch: Batch, entries: list[_Entry]) -> Verdict:
        return Then([])


class NoCeiling(Acme):
    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        return Do.SPLIT if responses[-1].status == 413 else super().read(batch, responses)


class BlamesUsers(Acme):
    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        return Do.SPLIT if responses[-1].status == 500 else super().read(batch, responses)


class DeafTo401(Acme):
    def refuses_token(self, response: Response) -> bool:
        return False


class RenewsInVain(Acme):
    """Asks for another token where the layer below sees no refusal."""

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        return Do.RENEW if responses[-1].status == 403 else super().read(batch, responses)


class NeverContent(Acme):
    def refuses_token(self, response: Response) -> bool:
        return True


class Sending(Acme):
    """Changes the request that a good target makes."""

    def encode(self, batch: Batch) -> list[Request]:
        return [self.changed(request, batch) for request in super().encode(batch)]

    def changed(self, request: Request, batch: Batch) -> Request:
        return request


class DropsLast(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        return replace(request, body=self.frame.body(batch.records[: max(1, len(batch) - 1)]))


class TrimsKeys(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        return replace(request, body=re.sub(rb'"user":" *(.*?) *",', rb'"user":"\1",', request.body))


class SendsTwice(Acme):
    def encode(self, batch: Batch) -> list[Request]:
        return super().encode(batch) * 2


class ReEncodes(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        return replace(request, body=json.dumps(json.loads(request.body), separators=(",", ":")).encode())


class LeavesNullOut(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        records = [
            self.frame.record(user, b"{" + b",".join(b"%b:%b" % (json.dumps(name).encode(), value) for name, value in
                self.frame.attributes_of(record).items() if value != b"null") + b"}")
            for user, record in zip(batch.users, batch.records, strict=True)
        ]  # fmt: skip
        return replace(request, body=self.frame.body(records))


class SwapsValues(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        pairs = zip(batch.users, reversed(batch.records), strict=True)
        records = [
            record.replace(record[: record.index(b",")], b'{"user":' + json.dumps(user, ensure_ascii=False).encode())
            for user, record in pairs
        ]
        return replace(request, body=self.frame.body(records))


class Spacious(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        return replace(request, body=request.body.replace(b",", b", "))


class NoJson(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        return replace(request, body=request.body.replace(b"1.50", b"01.5"))


class Relative(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        return replace(request, path="users")


class Elsewhere(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        return replace(request, path="https://example.com/users")


class Unquoted(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        return replace(request, path=f"/users?first={batch.users[-1]}")


class CountsRequests(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        return replace(request, users=1)


class Untyped(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        return replace(request, headers={})


class SplitsHeaders(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        return replace(request, headers={**request.headers, "X-First": f"{batch.users[0]}\r\nX: y"})


class Numbered(Sending):
    """Each request has a number of its own."""

    sent: ClassVar[list[int]] = []

    def changed(self, request: Request, batch: Batch) -> Request:
        self.sent.append(1)
        return replace(request, headers={**request.headers, "X-Number": str(len(self.sent))})


class EmptiesBatches(Acme):
    def encode(self, batch: Batch) -> list[Request]:
        requests = super().encode(batch)
        batch.merged[0] = [1]
        return requests


class SendsOnce(Sending):
    """Believes that what was encoded was taken, and sends next to nothing when it is to send it again."""

    sent: ClassVar[set[str]] = set()

    def changed(self, request: Request, batch: Batch) -> Request:
        records = []
        for user, record in zip(batch.users, batch.records, strict=True):
            name, value = next(iter(self.frame.attributes_of(record).items()))
            little = self.frame.record(user, b"{%b:%b}" % (json.dumps(name).encode(), value))
            records.append(little if user in self.sent else record)
        self.sent.update(batch.users)
        return replace(request, body=self.frame.body(records))


class Remembering(Sending):
    """Keeps the token it once made a header of, and sends it along."""

    known: ClassVar[dict[str, str]] = {}
    schemes: ClassVar[Mapping[str, Scheme]] = {
        "bearer": Scheme(
            ("token",), headers=lambda secrets: (Remembering.known.update(secrets), bearer_headers(secrets))[1]
        )
    }

    def changed(self, request: Request, batch: Batch) -> Request:
        token = json.dumps(self.known.get("token")).encode()
        return replace(request, body=request.body[:-1] + b',"token":' + token + b"}")


class OwnHeader(Sending):
    def changed(self, request: Request, batch: Batch) -> Request:
        return replace(request, headers={**request.headers, "authorization": "Bearer x"})


class TokenSetting(Acme):
    api_token: str = "x"


class Open(Acme):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Soft(Acme):
    model_config = ConfigDict(frozen=False, extra="forbid")


def with_scheme(scheme: Scheme) -> type[Acme]:
    return type("WithScheme", (Acme,), {"schemes": {"bearer": scheme}, "__annotations__": {"schemes": ClassVar[Any]}})


def token_call(path: Callable[[Mapping[str, str]], str], users: int = 0, elsewhere: str = "") -> type[Acme]:
    def call(secrets: Mapping[str, str], now: float) -> Request:
        return Request("POST", path(secrets), secrets["token"].encode(), {"Content-Type": "text/plain"}, users)

    return with_scheme(Scheme(("token",), call=call, elsewhere=elsewhere))


_numbers = count()

Neither = with_scheme(Scheme(("token",)))
Constant = with_scheme(Scheme(("token",), headers=lambda secrets: {"Authorization": "Bearer x"}))
Changing = with_scheme(
    Scheme(("token",), headers=lambda secrets: {"X-Key": secrets["token"], "X-Number": str(next(_numbers))})
)
Folded = with_scheme(Scheme(("token",), headers=lambda secrets: {"X-Key": f"{secrets['token']}\r\nX: y"}))
Picky = with_scheme(Scheme(("token",), headers=bearer_headers, flaw=lambda secrets: "token: never right"))
LeakyCall = token_call(lambda secrets: f"/token?secret={secrets['token']}")
FarCall = token_call(lambda secrets: "https://login.example.com/token")
OpenCall = token_call(lambda secrets: "http://login.example.com/token", elsewhere="http://login.example.com/token")
CrowdedCall = token_call(lambda secrets: "/token", users=1)
Greedy = with_scheme(
    Scheme(("token",), headers=bearer_headers, greet=lambda secrets: Request("GET", "/hello"),
           welcome=lambda response: {"X-Tier": json.loads(response.body)["tier"]})
)  # fmt: skip


class BadAddress(Acme):
    address: ClassVar[str] = "http://api.example.com/"


class BadHome(Acme):
    def home(self, secrets: Callable[[], Mapping[str, str]]) -> str:
        return f"https://{secrets()['token']} .example.com"


class OddAddress(Acme):
    address: ClassVar[str] = "https://api.example.com"

    @classmethod
    def wrong_address(cls, base_url: str) -> str:
        return "is too far away"


class AsksNobody(Acme):
    declares: ClassVar[bool] = True


class OddPreview(Acme):
    def preview(self, batch: Batch) -> list[Request]:
        return []


class BadLimits(Acme):
    @property
    def defaults(self) -> Defaults:
        return Defaults(users_per_request=100, max_users=10)


class BadIdentity(Acme):
    def identity(self) -> Mapping[str, object]:
        return {"users": {"ann"}}


class Reserved(Acme):
    expect: frozenset[str] | None = frozenset({"department"})


class CrowdedProbe(Acme):
    def probe(self) -> Request:
        return Request("POST", "/users", b"{}", {"Content-Type": "application/json"}, 1)


class GarbledProbe(Acme):
    def probe(self) -> Request:
        return Request("POST", "/hello", b"{", {"content-type": "application/json"})


class TrustingProbe(Acme):
    def probe(self) -> Request:
        return Request("GET", "/attributes")

    def undeclared(self, response: Response, names: Any) -> list[str] | None:
        known = json.loads(response.body)["names"]
        return [name for name in names if name not in known]


FAULTS: list[tuple[type[Acme], str, str]] = [
    (ByPosition, "test_results_are_matched_by_user", "in another order, 'ann@example.com' alone isn't known, and of"),
    (ByFoldedKey, "test_results_are_matched_by_user", 'of "bob.o\'neil+x@example.com" it says'),
    (TooFewResults, "test_who_is_left_out_has_no_result", "4 results for 5 users"),
    (
        SuccessByStatus,
        "test_no_garbage_is_a_success",
        "HTTP 200 b'' in answer to /users makes a success of 'ann@example.com'",
    ),
    (SuccessByBody, "test_only_a_2xx_is_a_success", "HTTP 100"),
    (SilenceIsSuccess, "test_who_is_left_out_has_no_result", "is not in the answer, and yet has"),
    (SilenceIsNoUser, "test_who_is_left_out_has_no_result", "is not in the answer, and yet has"),
    (CountsNobody, "test_doubled_and_foreign_results_are_counted", "strangers must be 1"),
    (LastWins, "test_a_success_that_is_contradicted_is_none", "the success is believed"),
    (
        OneForAll,
        "test_an_unknown_user_costs_that_user_alone",
        "'ann@example.com' alone isn't known, and of \"Bob.O'Neil+x@example.com\" it says",
    ),
    (Trusting, "test_an_odd_answer_does_no_harm", "object is not subscriptable"),
    (Shallow, "test_no_garbage_is_a_success", "Exceeds the limit (4300 digits)"),
    (SuccessByStatus, "test_a_web_page_is_no_success", "makes a success of"),
    (OddMessage, "test_no_garbage_is_a_success", "has no UTF-8"),
    (SaysSkipped, "test_an_unknown_user_costs_that_user_alone", "SKIPPED is not for an answer to say"),
    (Forgetful, "test_reading_changes_nothing", "it says something else now"),
    (ForEver, "test_a_good_answer_is_a_success_of_all", "it still says Then"),
    (NoWhere, "test_a_good_answer_is_a_success_of_all", "leads nowhere"),
    (NoCeiling, "test_statuses_mean_what_they_mean", "HTTP 413 to POST /users means SHRINK, not Do.SPLIT"),
    (BlamesUsers, "test_statuses_mean_what_they_mean", "HTTP 500 to POST /users means AGAIN, not Do.SPLIT"),
    (BlamesUsers, "test_a_user_that_breaks_requests_costs_that_user_alone", "should be FAILED, and is"),
    (DeafTo401, "test_a_refused_token_is_seen", "a 401 without a body refuses the token"),
    (RenewsInVain, "test_only_a_2xx_is_a_success", "it finds no refusal"),
    (NeverContent, "test_a_refused_token_is_seen", "it finds a refusal in a good answer"),
    (DropsLast, "test_each_user_is_carried_once", "added nobody"),
    (TrimsKeys, "test_each_user_is_carried_once", "added {'two  blanks'}"),
    (SendsTwice, "test_each_user_is_carried_once", "carried more than once"),
    (ReEncodes, "test_values_go_byte_for_byte", "ratio: b'1.5' instead of b'1.50'"),
    (LeavesNullOut, "test_values_go_byte_for_byte", "manager: None instead of b'null'"),
    (SwapsValues, "test_values_go_byte_for_byte", "department: b'true' instead of"),
    (Spacious, "test_bodies_are_as_small_as_foretold", "where the frame foretells"),
    (NoJson, "test_requests_are_well_formed", "JSON is malformed"),
    (Relative, "test_requests_are_well_formed", "no absolute path"),
    (Elsewhere, "test_requests_are_well_formed", "no absolute path"),
    (Unquoted, "test_requests_are_well_formed", "quoted where it needs to be"),
    (CountsRequests, "test_requests_are_well_formed", "users is 1, and it carries"),
    (Untyped, "test_requests_are_well_formed", "a body needs a Content-Type"),
    (SplitsHeaders, "test_requests_are_well_formed", "are headers"),
    (Numbered, "test_encoding_changes_nothing", "the same batch must give the same requests"),
    (EmptiesBatches, "test_encoding_changes_nothing", "the batch must stay as it is"),
    (SendsOnce, "test_faults_lose_nobody", "instead of"),
    (Remembering, "test_credentials_stay_out_of_requests", "['token'] stands in POST /users"),
    (OwnHeader, "test_credentials_stay_out_of_requests", "is set by the scheme, and by the request, too"),
    (TokenSetting, "test_credentials_are_no_settings", "['api_token'] look like credentials"),
    (Open, "test_settings_are_closed_and_frozen", "one that is not known must be refused"),
    (Soft, "test_settings_are_closed_and_frozen", "they must be frozen"),
    (Neither, "test_each_scheme_is_complete", "it needs either headers or a call"),
    (Constant, "test_each_scheme_is_complete", "token has no part in what is made"),
    (Changing, "test_each_scheme_is_complete", "the same secrets must make the same"),
    (Folded, "test_each_scheme_is_complete", "not all of these are headers"),
    (Picky, "test_each_scheme_is_complete", "it says 'token: never right'"),
    (LeakyCall, "test_a_token_call_keeps_its_secrets", "['token'] stands in the path of POST /token"),
    (FarCall, "test_a_token_call_keeps_its_secrets", "no absolute path"),
    (OpenCall, "test_a_token_call_keeps_its_secrets", "no absolute path"),
    (CrowdedCall, "test_a_token_call_keeps_its_secrets", "POST /token carries no users"),
    (Greedy, "test_a_greeting_never_fails", "Expecting value"),
    (BadAddress, "test_it_describes_itself", "is no https address"),
    (BadHome, "test_it_describes_itself", "is no https address"),
    (OddAddress, "test_it_describes_itself", "wrong_address: 'https://api.example.com' is the target's own"),
    (AsksNobody, "test_it_describes_itself", "nothing to ask with"),
    (OddPreview, "test_requests_are_well_formed", "it begins with what encode gives"),
    (BadLimits, "test_it_describes_itself", "users_per_request must lie between 1 and max_users"),
    (BadIdentity, "test_it_describes_itself", "not JSON serializable"),
    (Reserved, "test_it_describes_itself", "is not one of those that target.expect lists"),
    (CrowdedProbe, "test_the_probe_is_harmless", "it must carry no users"),
    (GarbledProbe, "test_the_probe_is_harmless", "its body is no JSON"),
    (TrustingProbe, "test_the_probe_is_harmless", "Expecting value"),
]


@pytest.mark.parametrize(("broken", "check", "words"), FAULTS)
def test_a_fault_is_caught(broken: type[Acme], check: str, words: str) -> None:
    """By the check that is named for it, in these words."""
    contract = type("Broken", (Contract,), {"target": broken(auth="bearer")})()

    with pytest.raises(Exception, match=re.escape(words)):
        getattr(contract, check)()


def test_every_check_catches_something() -> None:
    """Else it could as well be left out."""
    assert {check for _, check, _ in FAULTS} == set(CHECKS)


def test_what_breaks_a_target_is_shown() -> None:
    """With the error: a traceback alone would not tell which answer it was."""
    contract = type("Broken", (Contract,), {"target": Shallow(auth="bearer")})()

    with pytest.raises(ValueError, match="4300 digits") as caught:
        contract.test_no_garbage_is_a_success()

    assert caught.value.__notes__ == [f"read must not raise, not even of HTTP 200 {b'9' * 200!r}"]
