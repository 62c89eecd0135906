"""The contract that every target keeps, as tests. A target of your own has to pass them, too.

    class TestAcme(TargetContract):
        target = Acme(auth="bearer")

        def answer(self, request: Request, said: Sequence[Said]) -> Response:
            results = [{"id": one.user, "code": "ok" if one.is_known else "unknown"} for one in said]
            return as_json({"results": results})

pytest collects the tests of such a subclass; nothing but pytest is needed. What is drawn at random is drawn alike in
each run. A test whose name ends in `_loses_nobody` or the like runs the loader's own `Settler` against an API in memory
that is made of `answer` and `carried`. docs/write-a-target.md walks through all of it.
"""

import copy
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote

import anyio
import msgspec
import orjson
from anyio.lowlevel import checkpoint
from pydantic import ValidationError

from loader.batch import Batch, BatchLimits
from loader.ceiling import RequestSize
from loader.errors import TransportError
from loader.lane import Lane
from loader.outcome import Code, Outcome, Result
from loader.record import json_string
from loader.request import Request, Response
from loader.settle import Settler
from loader.target import Target, WholeTarget
from loader.tempo.quota import Quota
from loader.tokens import Scheme
from loader.verdict import Answer, Do, Stop, Then

#: Keys that are easily spoilt: by quoting, by trimming, by folding case, by standing in a URL or a filter.
USERS = (
    "ann@example.com",
    "Bob.O'Neil+x@example.com",
    "bob.o'neil+x@example.com",
    "zoë – 名前 🙂",
    'he said "or" \\ eq',
    " two  blanks ",
    "50%25?a=b&c#d",
    "00123",
    "null",
    "tab\there",
)

#: Values that are easily spoilt, too. Numbers keep their digits, null stays null.
VALUES = {
    "department": b'"R&D"',
    "costCenter": b'"00123"',
    "headcount": b"12345678901234567890123",
    "ratio": b"1.50",
    "remote": b"true",
    "manager": b"null",
    "note": b'""',
    "Home Town": '"Malmö \\u2013 \\"x\\""'.encode(),
    "tags": b'["a", {"b": [1.0, null]}]',
}

SECRETS = {"key_id": "KEY-ID-7f3a&+/=", "secret": "S3CRET-9c1e%&+/=:", "token": "T0KEN-52bd%&+/=:x"}

#: What a batch holds in the tests that don't say otherwise, where the API takes so many.
_SIZE = 5
#: Rounds of requests that one batch may take.
_MOST_ROUNDS = 100
#: Settings with such names would be credentials outside of `[target.auth]`: shown, logged, and kept in checkpoints.
_CREDENTIALS = re.compile(r"(^|_)(secret|token|password|credentials?|api_?key|private_key|key_id|client_id)$")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STRANGER = "nobody-sent-this@example.com"
_NOW = 1_750_000_000.0

#: What an answer can say of a user.
_ANSWERED = {
    Code.SUCCESS,
    Code.USER_NOT_FOUND,
    Code.LOCATION_NOT_FOUND,
    Code.INVALID,
    Code.PARTIAL,
    Code.FAILED,
}


class Said(NamedTuple):
    """What an API is to say of a user: that it took what was sent, or that it knows nobody of that key."""

    user: str
    is_known: bool = True


class Talk(NamedTuple):
    """A batch's requests, the answers to them, and what the target made of them."""

    verdict: Answer | Do | Stop
    requests: Sequence[Request]
    responses: Sequence[Response]


def as_json(body: object, status: int = 200, **headers: str) -> Response:
    """An answer in JSON."""
    return Response(status, {"content-type": "application/json", **headers}, orjson.dumps(body))


def members(body: bytes) -> dict[str, bytes]:
    """A JSON object's members: name to value, byte for byte."""
    return {name: bytes(value) for name, value in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items()}


def elements(body: bytes) -> list[bytes]:
    """A JSON array's elements, byte for byte."""
    return list(map(bytes, msgspec.json.decode(body, type=list[msgspec.Raw])))


class TargetContract:
    """What a target must do, whichever API it is for. Subclass it under a name that begins with Test.

    A subclass gives `target` and `answer`, and `carried` where a request's body isn't the target's frame. The others
    are for what is special about an API:

    * `users`, `values`: keys and attributes that the API takes; values are JSON, as bytes. At least one of each, and
      better those that are easily spoilt: the default ones.
    * `secrets`: credentials in the form that the API gives them.
    * `names_users`: does an answer name the users whom it is about? False where a request carries one user, or where
      it is taken or refused as a whole.
    * `status_alone`: is every 2xx to a request that carries users a success, be the body what it may, but a web page?
    * `own_statuses`: statuses that mean something of their own here, whatever the body is, such as a 404 for a user.
    * `unknown`: what becomes of a user whom the API doesn't know; None: it can't be told, or there is no such thing.
    * `overhead`: by how many bytes a request may be longer than `target.frame` foretells, for each user.
    """

    target: ClassVar[Target]
    users: ClassVar[Sequence[str]] = USERS
    values: ClassVar[Mapping[str, bytes]] = VALUES
    secrets: ClassVar[Mapping[str, str]] = SECRETS
    names_users: ClassVar[bool] = True
    status_alone: ClassVar[bool] = False
    own_statuses: ClassVar[frozenset[int]] = frozenset()
    unknown: ClassVar[Code | None] = Code.USER_NOT_FOUND
    overhead: ClassVar[int] = 0

    def answer(self, request: Request, said: Sequence[Said]) -> Response:
        """What the API answers to `request` when it says this: of these users, in this order, each as often as here.

        That is mostly what `request` carries, but some may be missing, doubled or foreign. An API that refuses a
        request as a whole for one user answers so as soon as one isn't known.
        """
        raise NotImplementedError

    def carried(self, request: Request) -> Sequence[tuple[str, Mapping[str, bytes]]]:
        """The users in a request, in its order, with the attributes it sends of each: name to JSON, byte for byte.

        A request that only asks about users carries them without attributes; one that is about nobody carries none.
        """
        frame = self.target.frame
        records = [request.body] if frame.wrapper is None else elements(members(request.body)[frame.wrapper])
        return [(json.loads(members(record)[frame.user]), frame.attributes_of(record)) for record in records]

    def with_scheme(self, name: str) -> Target:
        """The target with another of its auth schemes."""
        given = self.target.model_dump(include=self.target.model_fields_set)
        return type(self.target).model_validate(given | {"auth": name})

    # What it says of itself

    def test_it_describes_itself(self) -> None:
        """Name, address, limits, frame and identity are in order, and the same each time."""
        target = self.target
        assert re.fullmatch(r"[a-z0-9]+([-_.][a-z0-9]+)*", target.api), f"api: {target.api!r} is no name for a setting"
        for home in {target.address, target.home(lambda: self.secrets)}:
            assert re.fullmatch(r"(https://[!-~]*[^/])?", home), f"address: {home!r} is no https address"
            assert not home or not target.wrong_address(home), f"wrong_address: {home!r} is the target's own"
        assert target.probe() is not None or not target.declares, "declares: a run would have nothing to ask with"
        limits = target.defaults
        most = math.inf if limits.max_users is None else limits.max_users
        assert 1 <= limits.users_per_request <= most, "defaults: users_per_request must lie between 1 and max_users"
        assert limits.bytes_per_request >= 100, "defaults: no record has room in such a request"
        assert all(map(Quota.parse, limits.quota)), "defaults: a quota is written as in the settings"
        assert target.frame == target.frame, "frame: it must be the same each time"
        assert target.columns[:1] in ((), (target.frame.user,)), "columns: the first must be the key's field"
        assert orjson.dumps(dict(target.identity())), "identity: its values are JSON's"
        complaint = target.names.complaint(self.values)
        assert complaint is None, f"values: {complaint}"

    def test_settings_are_closed_and_frozen(self) -> None:
        """A setting that is mistyped is an error, and nothing changes under way."""
        given = self.target.model_dump(include=self.target.model_fields_set)
        again = type(self.target).model_validate(given)
        assert _is_refused(lambda: type(self.target).model_validate(given | {"no_such_setting": 1})), (
            'settings: one that is not known must be refused (model_config, extra="forbid")'
        )
        assert _is_refused(lambda: setattr(again, "auth", "other")), "settings: they must be frozen (model_config)"

    def test_credentials_are_no_settings(self) -> None:
        """They are asked for by a scheme, so that they are read from where they are kept, and never shown."""
        found = [name for name in type(self.target).model_fields if _CREDENTIALS.search(name)]
        assert not found, f"settings: {found} look like credentials; these belong to `schemes`"

    # Credentials

    def test_each_scheme_is_complete(self) -> None:
        """It makes headers at once, or a call; each of its secrets has its part in that."""
        assert self.target.auth in self.target.schemes, f"schemes: {self.target.auth!r}, the target's own, is missing"
        for name in self.target.schemes:
            scheme = self.with_scheme(name).scheme
            assert (scheme.headers is None) != (scheme.call is None), f"{name}: it needs either headers or a call"
            assert scheme.needs, f"{name}: it needs no secret at all"
            secrets = {needed: self.secrets[needed] for needed in scheme.needs}
            assert not scheme.flaw(secrets), (
                f"{name}: the secrets are well formed, yet it says {scheme.flaw(secrets)!r}"
            )
            made = _made(scheme, secrets)
            assert made == _made(scheme, secrets), f"{name}: the same secrets must make the same"
            for needed in scheme.needs:
                other = secrets | {needed: secrets[needed] + "x"}
                assert _made(scheme, other) != made, f"{name}: {needed} has no part in what is made"

    def test_a_token_call_keeps_its_secrets(self) -> None:
        """They are in its body or its headers: addresses are written to logs, by us and on the way."""
        for name in self.target.schemes:
            scheme = self.with_scheme(name).scheme
            secrets = {needed: self.secrets[needed] for needed in scheme.needs}
            calls = [scheme.call(secrets, _NOW)] if scheme.call else []
            calls += [scheme.greet(secrets)] if scheme.greet else []
            for call in calls:
                _check_request(call, scheme.elsewhere)
                assert call.users == 0, f"{name}: {call.method} {call.path} carries no users"
                shown = _leaks(call.path, secrets)
                assert not shown, f"{name}: {shown} stands in the path of {call.method} {call.path}"

    def test_a_greeting_never_fails(self) -> None:
        """Whatever is answered to it: it is not needed."""
        for name in self.target.schemes:
            scheme = self.with_scheme(name).scheme
            for body in (*_GARBAGE, b'{"a":1}'):
                headers = scheme.welcome(Response(200, {}, body))
                assert all(map(_is_header, headers.items())), f"{name}: {headers!r} are no headers"

    def test_credentials_stay_out_of_requests(self) -> None:
        """Headers with them are added at the wire, to requests that have none such."""
        for name in self.target.schemes:
            target = self.with_scheme(name)
            secrets = {needed: self.secrets[needed] for needed in target.scheme.needs}
            made = _made(target.scheme, secrets)
            added = {header.lower() for header in made} if isinstance(made, dict) else {"authorization"}
            batch = self._batch()
            requests = [*target.encode(batch), *filter(None, [target.probe()])]
            for request in requests:
                text = f"{request.path} {dict(request.headers)} {request.body.decode('utf-8', 'replace')}"
                shown = _leaks(text, secrets)
                assert not shown, f"{name}: {shown} stands in {request.method} {request.path}"
                doubled = added & {header.lower() for header in request.headers}
                assert not doubled, f"{name}: {doubled} is set by the scheme, and by the request, too"
            shown = _leaks(repr(target), secrets)
            assert not shown, f"{name}: {shown} stands in the target's repr"

    def test_the_probe_is_harmless(self) -> None:
        """It carries no users, and any answer to it can be read."""
        probe = self.target.probe()
        if probe is None:
            return
        _check_request(probe)
        assert probe.users == 0, "probe: it must carry no users"
        for body in (*_GARBAGE, b'{"a":1}'):
            found = self.target.undeclared(Response(200, {}, body), list(self.values))
            assert found is None or set(found) <= set(self.values), "undeclared: it names what wasn't asked for"

    # Encoding

    def test_each_user_is_carried_once(self) -> None:
        """Nobody is left out, nobody is added, and each attribute goes once."""
        for size in self._sizes():
            batch = self._batch(size)
            sent = Counter(
                (user, name)
                for request in self._talk(batch).requests
                for user, attributes in self.carried(request)
                for name in attributes
            )
            users = {user for user, _ in sent}
            assert users == set(batch.users), (
                f"encode: left out {set(batch.users) - users or 'nobody'}, added {users - set(batch.users) or 'nobody'}"
            )
            again = [pair for pair, times in sent.items() if times > 1]
            assert not again, f"encode: carried more than once: {again[:3]}"

    def test_values_go_byte_for_byte(self) -> None:
        """Numbers keep their digits, text its escapes; null is sent, not left out."""
        for size in self._sizes():
            batch = self._batch(size)
            for user, expected in zip(batch.users, self._attributes(size), strict=True):
                found: dict[str, bytes] = {}
                for request in self._talk(batch).requests:
                    for carried, attributes in self.carried(request):
                        found |= attributes if carried == user else {}
                assert found == expected, f"encode: {user!r} has {_difference(found, expected)}"

    def test_requests_are_well_formed(self) -> None:
        """An absolute path, a method, plain headers, JSON where they say so, and the right number of users."""
        for size in self._sizes():
            batch = self._batch(size)
            encoded, preview = self.target.encode(batch), self.target.preview(batch)
            assert preview[: len(encoded)] == encoded, "preview: it begins with what encode gives"
            for request in [*preview, *self._talk(batch).requests]:
                _check_request(request)
            for request in self._talk(batch).requests:
                users = [user for user, attributes in self.carried(request) if attributes]
                assert request.users == len(users), f"{request.path}: users is {request.users}, and it carries {users}"

    def test_bodies_are_as_small_as_foretold(self) -> None:
        """`limits.bytes_per_request` is kept by what the frame foretells."""
        for size in self._sizes():
            batch = self._batch(size)
            most = self.target.frame.body_bytes(size, sum(map(len, batch.records))) + size * self.overhead
            for request in self._talk(batch).requests:
                assert len(request.body) <= most, (
                    f"{request.path}: {len(request.body)} bytes, where the frame foretells {most}; Frame.overhead, or "
                    "the test's, says by how much a record grows"
                )

    def test_encoding_changes_nothing(self) -> None:
        """The same batch gives the same requests, whatever was encoded or read meanwhile, and stays as it is."""
        batch = self._batch()
        before = copy.deepcopy(batch)
        requests = self.target.encode(batch)
        self._talk(self._batch(1))
        self._talk(batch)
        assert self.target.encode(batch) == requests, "encode: the same batch must give the same requests"
        assert batch == before, "encode: the batch must stay as it is"

    # Reading

    def test_a_good_answer_is_a_success_of_all(self) -> None:
        """Of each user, in the batch's order."""
        for size in self._sizes():
            answer = self._answered(self._talk(self._batch(size)))
            codes = [result and result.code for result in answer.results]
            assert codes == [Code.SUCCESS] * size, f"read: a good answer is no success of all: {answer.results}"
            assert (answer.strangers, answer.doubled) == (0, 0), f"read: nobody is strange or doubled there: {answer}"

    def test_reading_changes_nothing(self) -> None:
        """The same answers mean the same, each time."""
        batch = self._batch()
        before = copy.deepcopy(batch)
        talk = self._talk(batch)
        for _ in range(2):
            assert self.target.read(batch, list(talk.responses)) == talk.verdict, "read: it says something else now"
        assert batch == before, "read: the batch must stay as it is"

    def test_results_are_matched_by_user(self) -> None:
        """Whatever their order. One user is answered otherwise, so that a mix-up shows."""
        batch = self._batch()
        if not self.names_users or self.unknown is None:
            return
        draw = random.Random(1)
        for odd in batch.users:

            def reordered(request: Request, odd: str = odd) -> Response:
                said = [Said(user, user != odd) for user, _ in self.carried(request)]
                return self.answer(request, draw.sample(said, len(said)))

            verdict = self._talk(batch, reordered).verdict
            if isinstance(verdict, Answer):
                self._check_only(odd, batch, verdict.results, "in another order, ")

    def test_who_is_left_out_has_no_result(self) -> None:
        """Only what an answer says is a success; what silence means is a setting's to say."""
        batch = self._batch()
        if not self.names_users:
            return
        for left_out in ({batch.users[0]}, {batch.users[-1]}, set(batch.users)):

            def silent(request: Request, left_out: set[str] = left_out) -> Response:
                said = [Said(user) for user, values in self.carried(request) if not values or user not in left_out]
                return self.answer(request, said)

            verdict = self._talk(batch, silent).verdict
            if not isinstance(verdict, Answer):
                assert len(left_out) == len(batch), f"read: {verdict} though most users are in the answer"
                continue
            for user, result in zip(batch.users, verdict.results, strict=True):
                if user in left_out:
                    assert result is None, f"read: {user!r} is not in the answer, and yet has {result}"
                else:
                    assert result is not None, f"read: {user!r} is in the answer, but {left_out} is not"
                    assert result.code is Code.SUCCESS, f"read: {user!r} has {result}"

    def test_doubled_and_foreign_results_are_counted(self) -> None:
        """They change nothing for those who were sent, and are told."""
        batch = self._batch()
        if not self.names_users:
            return
        good = self._talk(batch)
        last = max(at for at, request in enumerate(good.requests) if request.users)
        extra = {"strangers": Said(_STRANGER), "doubled": Said(self.carried(good.requests[last])[0][0])}
        for kind, more in extra.items():
            for place in (0, None):

                def crowded(request: Request, more: Said = more, place: int | None = place) -> Response:
                    said = [Said(user) for user, _ in self.carried(request)]
                    if request == good.requests[last]:
                        said.insert(len(said) if place is None else place, more)
                    return self.answer(request, said)

                answer = self._answered(self._talk(batch, crowded))
                assert list(answer.results) == list(self._answered(good).results), f"read: {kind} change the results"
                counted = {"strangers": answer.strangers, "doubled": answer.doubled}
                assert counted[kind] == 1, f"read: {kind} must be 1: {counted}"

    def test_a_success_that_is_contradicted_is_none(self) -> None:
        """Of two results for one user."""
        batch = self._batch()
        if not self.names_users or self.unknown is None:
            return
        for is_first in (True, False):

            def torn(request: Request, is_first: bool = is_first) -> Response:
                users = [user for user, _ in self.carried(request)]
                return self.answer(
                    request, [Said(users[0], is_first), *map(Said, users[1:]), Said(users[0], not is_first)]
                )

            verdict = self._talk(batch, torn).verdict
            if isinstance(verdict, Answer):
                result = verdict.results[0]
                assert result is None or result.code is not Code.SUCCESS, (
                    "read: two results of one user disagree, and the success is believed"
                )

    def test_an_unknown_user_costs_that_user_alone(self) -> None:
        """Where all are refused because of one, halves are sent until it stands alone."""
        if self.unknown is None:
            return
        batch = self._batch()
        for odd in batch.users:
            self._check_only(odd, batch, self._settled(batch, odd))

    def test_no_garbage_is_a_success(self) -> None:
        """Nor does it break anything: pages of proxies, answers cut short, wrong encodings, depths without end."""
        batch = self._batch()
        good = self._talk(batch)
        for at, response in enumerate(good.responses):
            for body in (*_GARBAGE, *_spoilt(response.body)):
                for status in (response.status, 400, 404, 500):
                    talk = self._talk_with(batch, at, Response(status, response.headers, body))
                    if status >= 300 or not self.status_alone or not good.requests[at].users:
                        self._check_no_success(batch, talk, at, f"HTTP {status} {body[:60]!r}")

    def test_a_web_page_is_no_success(self) -> None:
        """Whatever its status: something on the way answered, such as a sign-in. See `loader.verdict.is_page`."""
        batch = self._batch()
        for at in range(len(self._talk(batch).responses)):
            talk = self._talk_with(batch, at, Response(200, {"content-type": "text/html"}, _PAGE))
            self._check_no_success(batch, talk, at, f"HTTP 200 {_PAGE!r}")

    def test_an_odd_answer_does_no_harm(self) -> None:
        """Any part of it may be of another type, or not be text at all."""
        batch = self._batch(min(2, self._sizes()[-1]))
        good = self._talk(batch)
        for at, response in enumerate(good.responses):
            for body in _mutants(response.body):
                for status in (response.status, 400):
                    self._talk_with(batch, at, Response(status, response.headers, body))

    def test_only_a_2xx_is_a_success(self) -> None:
        """Whatever the body says; and no status breaks anything."""
        batch = self._batch()
        good = self._talk(batch)
        for at, response in enumerate(good.responses):
            for status in range(100, 600):
                for body in (b"", b"<html>", response.body):
                    talk = self._talk_with(batch, at, Response(status, response.headers, body))
                    if not 200 <= status < 300:
                        self._check_no_success(batch, talk, at, f"HTTP {status} {body[:60]!r}")

    def test_statuses_mean_what_they_mean(self) -> None:
        """As in loader/verdict.py, where the body says nothing; see `own_statuses`."""
        batch = self._batch()
        good = self._talk(batch)
        for at, request in enumerate(good.requests):
            for status, (do, headers) in _STATUSES.items():
                if status in self.own_statuses:
                    continue
                verdict = self._talk_with(batch, at, Response(status, headers)).verdict
                assert self._means(verdict, do, batch, request), (
                    f"read: HTTP {status} to {request.method} {request.path} means {do.name}, not {verdict}"
                )

    def test_a_refused_token_is_seen(self) -> None:
        """By the layer that holds the tokens, so that another is fetched; and a good answer refuses none."""
        assert self.target.refuses_token(Response(401)), "refuses_token: a 401 without a body refuses the token"
        for response in self._talk(self._batch()).responses:
            assert not self.target.refuses_token(response), "refuses_token: it finds a refusal in a good answer"

    # A whole load

    def test_faults_lose_nobody(self) -> None:
        """Every user gets the one outcome that is right, and what the API holds is what was sent."""
        for seed in range(5):
            draw = random.Random(seed)
            batches = self._batches()
            sent = {
                user: self.target.frame.attributes_of(record)
                for batch in batches
                for user, record in zip(batch.users, batch.records, strict=True)
            }
            unknown = set(draw.sample(list(sent), len(sent) // 6)) if self.unknown is not None else set[str]()
            api = _Api(self, draw, unknown, most=draw.choice([2, 3, 1000]))
            outcomes = anyio.run(_settle, self.target, api, batches)
            for user, outcome in outcomes:
                expected = self.unknown if user in unknown else Code.SUCCESS
                assert outcome.code is expected, f"seed {seed}: {user!r} should be {expected}, and is {outcome}"
            assert [user for user, _ in outcomes] == list(sent), f"seed {seed}: each user has one outcome, in order"
            for user, attributes in sent.items():
                if user not in unknown:
                    held = api.held.get(user)
                    assert held == attributes, f"seed {seed}: {user!r} has {_difference(held or {}, attributes)}"

    def test_a_user_that_breaks_requests_costs_that_user_alone(self) -> None:
        """However often its request fails, all others are taken."""
        if isinstance(self.target, WholeTarget):
            return
        batches = self._batches()
        culprit = batches[0].users[-1]
        api = _Api(self, random.Random(1), set(), culprit=culprit)
        for user, outcome in anyio.run(_settle, self.target, api, batches, 3):
            expected = Code.FAILED if user == culprit else Code.SUCCESS
            assert outcome.code is expected, f"{user!r} should be {expected}, and is {outcome}"

    # How it is done

    def _sizes(self) -> Sequence[int]:
        """How many users a batch holds in turn: one, some, and all that there are keys for."""
        most = min(self.target.defaults.max_users or len(self.users), len(self.users))
        return sorted({1, min(_SIZE, most), most})

    def _attributes(self, size: int) -> list[dict[str, bytes]]:
        """What is sent of so many users: of each the values of the one before, but one name further on."""
        names, values = list(self.values), list(self.values.values())
        turns = [at % len(names) for at in range(size)]
        return [dict(zip(names, values[turn:] + values[:turn], strict=True)) for turn in turns]

    def _batch_of(self, users: Sequence[str], first: int = 1) -> Batch:
        frame = self.target.frame
        records = [
            frame.record(
                user, b"{" + b",".join(json_string(name) + b":" + value for name, value in values.items()) + b"}"
            )
            for user, values in zip(users, self._attributes(len(users)), strict=True)
        ]
        return Batch(list(range(first, first + len(users))), list(users), records)

    def _batch(self, size: int | None = None) -> Batch:
        return self._batch_of(self.users[: min(_SIZE, self._sizes()[-1]) if size is None else size])

    def _batches(self) -> list[Batch]:
        """A load of 40 users or more."""
        users = [*self.users, *(f"{self.users[0]}{number}" for number in range(40))]
        size = len(users) if isinstance(self.target, WholeTarget) else min(self.target.defaults.max_users or 7, 7)
        return [self._batch_of(users[at : at + size], at + 1) for at in range(0, len(users), size)]

    def _says(self, request: Request, unknown: Collection[str] = ()) -> Response:
        return self.answer(request, [Said(user, user not in unknown) for user, _ in self.carried(request)])

    def _talk(self, batch: Batch, api: Callable[[Request], Response] | None = None) -> Talk:
        """What settle.py does for one attempt: send, read, and send what follows from it."""
        api = api or self._says
        requests = list(self.target.encode(batch))
        assert requests, "encode: a batch needs a request at least"
        responses: list[Response] = []
        for _ in range(_MOST_ROUNDS):
            for request in requests[len(responses) :]:
                responses.append(api(request))
                if not self.target.goes_on(responses[-1]):
                    break
            try:
                verdict = self.target.read(batch, list(responses))
            except Exception as error:
                error.add_note(
                    f"read must not raise, not even of HTTP {responses[-1].status} {responses[-1].body[:200]!r}"
                )
                raise
            if not isinstance(verdict, Then):
                self._check_verdict(verdict, batch, responses)
                return Talk(verdict, requests, responses)
            assert verdict.requests, "read: Then without requests leads nowhere"
            requests += verdict.requests
        raise AssertionError(f"read: after {_MOST_ROUNDS} rounds it still says Then")

    def _talk_with(self, batch: Batch, at: int, response: Response) -> Talk:
        """The same, with this answer to all requests from the one numbered `at`."""
        left = count()
        return self._talk(batch, lambda request: self._says(request) if next(left) < at else response)

    def _settled(self, batch: Batch, odd: str) -> Sequence[Result | None]:
        """What becomes of each user if the API doesn't know the one: a refused batch is halved, as settle.py does."""
        verdict = self._talk(batch, lambda request: self._says(request, {odd})).verdict
        if isinstance(verdict, Answer):
            return verdict.results
        assert verdict in (Do.SPLIT, Do.SHRINK), f"read: a user that isn't known must not lead to {verdict}"
        if len(batch) == 1:
            return [Result(Code.INVALID)]
        middle = len(batch) // 2
        return [*self._settled(batch.part(0, middle), odd), *self._settled(batch.part(middle, len(batch)), odd)]

    def _answered(self, talk: Talk) -> Answer:
        assert isinstance(talk.verdict, Answer), f"read: of a good answer it says {talk.verdict}"
        return talk.verdict

    def _check_verdict(self, verdict: Answer | Do | Stop, batch: Batch, responses: Sequence[Response]) -> None:
        """Is it one that the loader can use?"""
        if verdict is Do.RENEW:
            assert any(map(self.target.refuses_token, responses)), (
                "refuses_token: read asks for another token, and it finds no refusal, so that none would be fetched"
            )
        if not isinstance(verdict, Answer):
            assert isinstance(verdict, Do | Stop), f"read: {verdict!r} is no verdict"
            return
        assert len(verdict.results) == len(batch), f"read: {len(verdict.results)} results for {len(batch)} users"
        for result in verdict.results:
            assert result is None or isinstance(result, Result), f"read: {result!r} is no result"
            assert result is None or result.code in _ANSWERED, f"read: {result.code} is not for an answer to say"
            for text in (result.message, result.target_code) if result else ():
                assert isinstance(text, str), f"read: {text!r} is no text"
                assert text.isascii() or text.encode("utf-8", "replace").decode() == text, (
                    f"read: {text!r} has no UTF-8"
                )

    def _check_only(self, odd: str, batch: Batch, results: Sequence[Result | None], when: str = "") -> None:
        for user, result in zip(batch.users, results, strict=True):
            expected = self.unknown if user == odd else Code.SUCCESS
            code = result and result.code
            assert code is expected, f"read: {when}{odd!r} alone isn't known, and of {user!r} it says {result}"

    def _check_no_success(self, batch: Batch, talk: Talk, at: int, what: str) -> None:
        if isinstance(talk.verdict, Answer):
            concerned = self._concerned(batch, talk.requests[at])
            for user, result in zip(batch.users, talk.verdict.results, strict=True):
                assert user not in concerned or result is None or result.code is not Code.SUCCESS, (
                    f"read: {what} in answer to {talk.requests[at].path} makes a success of {user!r}"
                )

    def _concerned(self, batch: Batch, request: Request) -> Collection[str]:
        return {user for user, _ in self.carried(request)} or set(batch.users)

    def _means(self, verdict: Answer | Do | Stop, do: Do, batch: Batch, request: Request) -> bool:
        """Does a verdict come to this? Of a user alone a result may say it, and a Stop may say more than STOP does."""
        if isinstance(verdict, Stop):
            return do in (Do.STOP, Do.SPLIT, Do.SHRINK)
        if not isinstance(verdict, Answer):
            return verdict is do
        concerned = self._concerned(batch, request)
        codes = {
            result and result.code
            for user, result in zip(batch.users, verdict.results, strict=True)
            if user in concerned
        }
        if do in (Do.SPLIT, Do.SHRINK):
            return len(concerned) == 1 and codes <= _ANSWERED - {Code.SUCCESS}
        return do is Do.AGAIN and codes == {Code.FAILED}


class _Api:
    """An API in memory with the faults of real ones. `held` is what it took of each user.

    `unknown`: users it doesn't know. `most`: users of one request that are not too many. `culprit`: a user whose
    requests it can't answer; then there are no other faults.
    """

    def __init__(
        self,
        contract: TargetContract,
        draw: random.Random,
        unknown: Collection[str],
        *,
        most: int = 1000,
        culprit: str | None = None,
    ) -> None:
        self.held: dict[str, dict[str, bytes]] = {}
        self._contract = contract
        self._draw = draw
        self._unknown = unknown
        self._most = 1000 if isinstance(contract.target, WholeTarget) else most
        self._culprit = culprit

    async def __call__(self, request: Request) -> Response:
        await checkpoint()
        carried = self._contract.carried(request)
        if self._culprit is not None and self._culprit in dict(carried):
            return Response(500, {}, b"internal error")
        if request.users > self._most and 413 not in self._contract.own_statuses:
            return Response(413)
        fault = "" if self._culprit is not None else self._draw.choice(_FAULTS)
        if fault == "refused":
            raise TransportError("connection refused")
        if fault.isdigit() and int(fault) not in self._contract.own_statuses:
            return Response(int(fault), {"retry-after": "1"} if fault == "503" else {}, b"<html>sorry</html>")
        response = self._contract.answer(request, self._said(carried, fault))
        is_taken = 200 <= response.status < 300
        if is_taken:
            for user, attributes in carried:
                if user not in self._unknown:
                    self.held.setdefault(user, {}).update(attributes)
        if fault == "lost":
            raise TransportError("the connection was closed before the answer")
        if fault == "torn" and is_taken and response.body and not self._contract.status_alone:
            return Response(response.status, response.headers, response.body[:-2])
        return response

    def _said(self, carried: Sequence[tuple[str, Mapping[str, bytes]]], fault: str) -> list[Said]:
        said = [Said(user, user not in self._unknown) for user, _ in carried]
        is_asked = not all(attributes for _, attributes in carried)  # who is left out there isn't known there
        if not self._contract.names_users or is_asked:
            return said
        match fault:
            case "reordered":
                self._draw.shuffle(said)
            case "missing":
                said.remove(self._draw.choice(said))
            case "doubled":
                said.append(self._draw.choice(said))
            case "foreign":
                said.insert(0, Said(_STRANGER))
        return said


_FAULTS = (
    *("refused", "lost", "torn", "reordered", "missing", "doubled", "foreign"),
    *("401", "429", "500", "502", "503", "504"),
    *[""] * 6,
)


async def _settle(
    target: Target, api: _Api, batches: Sequence[Batch], attempts: int = 100
) -> list[tuple[str, Outcome]]:
    """The outcome of each user, by the loader's own means. No time passes: backoffs are drawn as nothing."""
    ticks = count()
    lane = Lane(math.inf, now=lambda: next(ticks) / 1000)
    size = RequestSize(BatchLimits(1000, 10_000_000))
    settler = Settler(
        target, api, lane, size, attempts, lambda _: None, is_proven=True, uniform=lambda *_: 0.0, wall=lambda: _NOW
    )
    found: list[list[Outcome]] = [[] for _ in batches]

    async def settle(at: int) -> None:
        found[at] = await settler.settle(batches[at])

    async def others() -> None:
        while True:  # whatever fails here, the API is seen to be up
            lane.succeeded(0.0)
            await checkpoint()

    async with anyio.create_task_group() as beside:
        beside.start_soon(others)
        async with anyio.create_task_group() as tasks:
            for at in range(len(batches)):
                tasks.start_soon(settle, at)
        beside.cancel_scope.cancel()
    users = [user for batch in batches for user in batch.users]
    return list(zip(users, (outcome for outcomes in found for outcome in outcomes), strict=True))


_STATUSES: Mapping[int, tuple[Do, Mapping[str, str]]] = {
    400: (Do.SPLIT, {}),
    401: (Do.RENEW, {}),
    403: (Do.STOP, {}),
    404: (Do.STOP, {}),
    408: (Do.AGAIN, {}),
    413: (Do.SHRINK, {}),
    422: (Do.SPLIT, {}),
    429: (Do.WAIT, {"retry-after": "1"}),
    500: (Do.AGAIN, {}),
    502: (Do.AGAIN, {}),
    503: (Do.WAIT, {"retry-after": "1"}),
    504: (Do.AGAIN, {}),
}

#: What is on the way to an API may answer in its place.
_PAGE = b"<!doctype html><title>Wi-Fi</title>"

#: Answers that say nothing, at best.
_GARBAGE = (
    b"",
    b" \n",
    b"OK",
    b"null",
    b"true",
    b"0",
    b"1e999",
    b"9" * 10_000,
    b'""',
    b'"ok"',
    b"[]",
    b"{}",
    b"[{}]",
    b"[[]]",
    b'{"a":',
    _PAGE,
    b"\xff\xfe\x00",
    b'"\xc3"',
    b'"\\ud800"',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" + b"1," * 200_000 + b"1]",
)

#: What any part of an answer may turn out to be.
_ODD: tuple[object, ...] = (None, True, -1, 10**30, 1.5, "", "x", "\ud800", "\x00\n", [], {}, [None], {"a": {}})


def _spoilt(body: bytes) -> list[bytes]:
    """An answer that is cut short, goes on too long, or is in another encoding."""
    whole = body.strip()
    if not whole:
        return []
    cut = [whole[: len(whole) * part // 5] for part in range(1, 5)]
    return [*cut, whole[:-1], whole + b"}", whole.decode("utf-8", "replace").encode("utf-16"), b"\xff" + whole]


def _mutants(body: bytes) -> Iterator[bytes]:
    """An answer with each of its parts replaced, in turn, by something odd."""
    try:
        whole = json.loads(body)
    except ValueError:
        return
    for place in _places(whole):
        for odd in _ODD:
            yield json.dumps(_replaced(whole, place, odd)).encode()
        yield json.dumps(_replaced(whole, place, "ODD")).replace('"ODD"', "1e999").encode()
        yield json.dumps(_replaced(whole, place, "ODD")).encode().replace(b"ODD", b"\xff")


def _places(value: object) -> Iterator[tuple[str | int, ...]]:
    yield ()
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        for place in _places(part):
            yield (key, *place)


def _replaced(value: Any, place: tuple[str | int, ...], odd: object) -> Any:
    if not place:
        return odd
    copied = copy.copy(value)
    copied[place[0]] = _replaced(value[place[0]], place[1:], odd)
    return copied


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except ValidationError:
        return True
    return False


def _made(scheme: Scheme, secrets: Mapping[str, str]) -> dict[str, str] | Request:
    """What authorizes: headers, or the call that fetches a token."""
    if scheme.headers is None:
        assert scheme.call is not None
        return scheme.call(secrets, _NOW)
    headers = dict(scheme.headers(secrets))
    assert headers, "a scheme's headers must not be empty"
    assert all(map(_is_header, headers.items())), f"{list(headers)}: not all of these are headers of printable text"
    return headers


def _is_header(header: tuple[str, str]) -> bool:
    name, value = header
    return bool(_HEADER.fullmatch(name)) and value.isprintable()


def _leaks(text: str, secrets: Mapping[str, str]) -> list[str]:
    """The names of those secrets that can be seen in a text."""
    return [name for name, value in secrets.items() if value in text or quote(value, safe="") in text]


def _check_request(request: Request, elsewhere: str = "") -> None:
    """Can this go on the wire as it is?"""
    where = f"{request.method} {request.path}"
    assert request.method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"), f"{where}: no such method"
    is_safe = re.match(r"https://|http://(127\.|localhost|\[::1\])", elsewhere) and request.path == elsewhere
    assert is_safe or re.fullmatch(r"/[!-~]*", request.path), f"{where}: no absolute path, quoted where it needs to be"
    assert all(map(_is_header, request.headers.items())), f"{where}: not all of {dict(request.headers)} are headers"
    kind = next((value for name, value in request.headers.items() if name.lower() == "content-type"), "")
    assert kind or not request.body, f"{where}: a body needs a Content-Type"
    if "json" in kind and request.body:
        try:
            json.loads(request.body)
        except ValueError as error:
            raise AssertionError(f"{where}: its body is no JSON: {error}") from error


def _difference(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> str:
    """The first attribute that isn't as it should be."""
    for name in (*expected, *found):
        if found.get(name) != expected.get(name):
            return f"{name}: {found.get(name)!r} instead of {expected.get(name)!r}"
    return "nothing amiss"
