"""Kinto: one record a user, many of them in a request.

`POST /batch` carries requests about single records and answers each of them with a status of its own. Facts are from
https://docs.kinto-storage.org/en/stable/api/1.x/ (batch, records, errors); what these pages don't say was tried with
version 26.5.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

import msgspec
from pydantic import Field

from loader.batch import Batch
from loader.outcome import Code, Result
from loader.record import Frame
from loader.request import Request, Response
from loader.target import Defaults, Target
from loader.tokens import Scheme, basic_headers
from loader.verdict import Answer, Do, Stop, Verdict, by_status

Id = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]*$")]


class Kinto(Target):
    """Records of one collection: of those who are there (`write` "merge", a PATCH), or of all ("replace", a PUT)."""

    api: ClassVar[str] = "kinto"
    schemes: ClassVar[Mapping[str, Scheme]] = {"basic": Scheme(("key_id", "secret"), headers=basic_headers)}

    bucket: Id
    collection: Id

    @property
    def records(self) -> str:
        return f"/buckets/{self.bucket}/collections/{self.collection}/records/"

    @property
    def frame(self) -> Frame:
        """How the loader makes records. In a request each stands with its path, in which a key may be quoted."""
        return Frame("requests", "id", "data", overhead=len(self.records) + 100)

    @property
    def defaults(self) -> Defaults:
        """The server's batch_max_requests is 25 if nobody has set it; `GET /` tells."""
        return Defaults(users_per_request=25)

    def identity(self) -> Mapping[str, object]:
        """A load that is resumed must not go to another collection."""
        return {"bucket": self.bucket, "collection": self.collection}

    def probe(self) -> Request:
        """Reads no record; 403 where the credentials have no right to the collection."""
        return Request("GET", self.records.removesuffix("/records/"))

    def encode(self, batch: Batch) -> list[Request]:
        requests = [
            {"path": self.records + quote(user, safe=""), "body": decode_record(record)}
            for user, record in zip(batch.users, batch.records, strict=True)
        ]
        method = "PUT" if self.write == "replace" else "PATCH"
        body = msgspec.json.encode({"defaults": {"method": method}, "requests": requests})
        return [Request("POST", "/batch", body, {"Content-Type": "application/json"}, users=len(batch))]

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        answers = read_answers(responses[-1])
        if answers is None:
            return by_status(responses[-1])
        found: dict[str, Result | None] = dict.fromkeys(batch.users)
        strangers = doubled = 0
        for answer in answers:
            said = meaning(answer)
            if not isinstance(said, Result):
                return said
            user = answer.path.partition(self.records)[2]
            if user not in found:
                strangers += 1
                continue
            before = found[user]
            doubled += before is not None
            if before is None or before.code is Code.SUCCESS:  # a success that is contradicted is none
                found[user] = said
        return Answer(list(found.values()), strangers, doubled)

    def refuses_token(self, response: Response) -> bool:
        """With a wrong password a batch is a 200, and each answer in it a 401."""
        return response.status == 401 or any(answer.status == 401 for answer in read_answers(response) or ())


class Record(msgspec.Struct):
    """A record without its key. Its attributes stay as they stand, byte for byte."""

    data: msgspec.Raw


class Error(msgspec.Struct):
    errno: int = 0
    message: str = ""
    details: Any = None


class One(msgspec.Struct):
    """The answer to one of the requests in a batch. Its path is unquoted, and has the API's version before it."""

    path: str
    status: int
    body: Error


class Responses(msgspec.Struct):
    responses: list[One]


decode_record = msgspec.json.Decoder(Record).decode
decode_responses = msgspec.json.Decoder(Responses).decode


def read_answers(response: Response) -> list[One] | None:
    """None: there are none, or none that can be read."""
    if not 200 <= response.status < 300:
        return None
    try:
        return decode_responses(response.body).responses
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def meaning(answer: One) -> Result | Do | Stop:
    """What an answer says of its user, or of all of them."""
    status = str(answer.status)
    if answer.status in (200, 201):
        return Result(Code.SUCCESS, status)
    if answer.status == 404 and answer.body.errno == 110:  # no such record; 111 is no such collection …
        return Result(Code.USER_NOT_FOUND, status)
    if answer.status == 404 and answer.body.details is None:  # … or no such path, as where a key has a slash
        return Result(Code.INVALID, status, answer.body.message)
    match by_status(Response(answer.status)):
        case Do.SPLIT | Do.SHRINK:
            return Result(Code.INVALID, status, answer.body.message)
        case Do.AGAIN | Do.WAIT:
            return Result(Code.FAILED, status, answer.body.message)
        case Do.STOP:
            return Stop(f"{status} for {answer.path}: are target.bucket and target.collection there, and yours?")
        case do:
            return do
