"""What a target promises: one API, described by plain data and two pure functions.

A target is a frozen pydantic model. Its fields are the API's unknowns, settable in the `[target]` table; its class
variables and properties describe the API; `encode` and `read` translate. Everything else (pacing, tokens, retries,
order, checkpoint) is the loader's. docs/write-a-target.md walks through one; `loader.testing` holds the tests that each
must pass.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from loader.batch import Batch
from loader.record import Frame, Names
from loader.request import Request, Response
from loader.tokens import Scheme, client_credentials
from loader.verdict import Verdict

#: The type of the error that says what a setting's value is not.
NOT_A = "not_a"


def not_a(what: str) -> PydanticCustomError:
    """The error of a value that is not a `what`: the message says so of the value, behind its key."""
    return PydanticCustomError(NOT_A, "is not a {what}", {"what": what})


class Defaults(NamedTuple):
    """What a target sets for `[limits]` where the settings don't. `max_users` is the API's structural maximum.

    `quota`: as `[limits] quota` writes it, such as `"500/60s"`.
    """

    users_per_request: int = 100
    bytes_per_request: int = 1_000_000
    quota: tuple[str, ...] = ()
    max_users: int | None = None


class Target(BaseModel):
    """Base of all targets: the settings they share, and what each has to say.

    `auth` is the name of the scheme in use, from `[target.auth] scheme`. The text below a setting is its reference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    api: ClassVar[str]
    schemes: ClassVar[Mapping[str, Scheme]]
    address: ClassVar[str] = ""
    """The API's base URL; "": there is none for all customers, so the settings must give it."""
    columns: ClassVar[tuple[str, ...]] = ()
    """The fields of a record where they are fixed, the key's first; `[mapping.columns]` says where they are."""
    note: ClassVar[str] = ""
    """What `check` says beside the names of the attributes that would be sent."""
    null_removes: ClassVar[bool] = False
    """Does null, as the value of an attribute, remove it there? Only then can what is gone be cleared."""
    makes_attributes: ClassVar[bool] = False
    """Does a name that isn't known there make a new attribute, for good? Then `loader init` sets `expect`."""
    declares: ClassVar[bool] = False
    """Must attributes be declared there before they are sent, so that a run asks first, by `probe`?"""

    auth: str
    expect: Annotated[frozenset[str], Field(min_length=1)] | None = None
    """`["department", "site"]`: the only attributes that may be sent; not set: any. Another column is refused before
    anything is sent; an NDJSON record with another one is rejected"""
    missing_result: Literal["again", "success"] = "again"
    """an answer leaves a user out: `again` sends the user again, `success` counts it as one"""
    write: Literal["merge", "replace"] = "merge"
    """what the API does with attributes that a request does not name: keeps them (`merge`) or removes them (`replace`).
    It decides whether two rows of one user are joined, or only the last counts"""

    @property
    def frame(self) -> Frame:
        """The shape of records and bodies."""
        return Frame()

    @property
    def defaults(self) -> Defaults:
        return Defaults()

    @property
    def names(self) -> Names:
        """Which attributes may be sent."""
        frame = self.frame
        return Names(self.expect, frozenset({frame.user}) if frame.attributes is None else frozenset())

    @property
    def scheme(self) -> Scheme:
        """The auth scheme chosen, with this target's settings applied."""
        return self.schemes[self.auth]

    @classmethod
    def wrong_address(cls, base_url: str) -> str:
        """Why this can't be the API's base URL, to be read behind it; "": it may be."""
        return ""

    @classmethod
    def usual_name(cls, column: str) -> str | None:
        """What an attribute from a column of that name would most likely be called there; None: nothing tells."""
        return camel_case(column)

    def home(self, secrets: Callable[[], Mapping[str, str]]) -> str:
        """The API's base URL, where it depends on whom the credentials belong to."""
        return self.address

    def identity(self) -> Mapping[str, object]:
        """Settings of its own without which this would be another load: a checkpoint keeps them, as JSON values."""
        return {}

    def refuses_token(self, response: Response) -> bool:
        """Does this answer say that the token, not the request, is at fault?"""
        return response.status == 401

    def encode(self, batch: Batch) -> list[Request]:
        """The requests that carry `batch`, to be sent one after the other."""
        raise NotImplementedError

    def preview(self, batch: Batch) -> list[Request]:
        """What `batch` takes if nothing goes wrong, for estimates and for people: nothing of it is sent.

        More than `encode` says where answers lead to further requests; what these answers tell has a stand-in.
        """
        return self.encode(batch)

    def goes_on(self, response: Response) -> bool:
        """After this answer, may the next request of the batch go?"""
        return 200 <= response.status < 300

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        """What the answers to `encode(batch)` say of each user, in the batch's order, matched by user.

        Fewer responses than requests: sending stopped at the first that `goes_on` says no to. A verdict that asks to
        send again is about that last request: those before it have been answered, and are not repeated. After `Then`
        this is called again, with the answers to all requests.
        """
        raise NotImplementedError

    def probe(self) -> Request | None:
        """A harmless call that shows whether the credentials are taken. None: the API has none."""
        return None

    def undeclared(self, response: Response, names: Collection[str]) -> list[str] | None:
        """Which attributes an answer to `probe` shows to be unknown there. None: it doesn't tell."""
        return None


_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[^\W\dA-Z_]+\d*|[A-Z]+\d*|\d+")


def words_of(column: str) -> list[str]:
    """The words of a column's name, in lower case: of `Cost Centre`, `cost_centre` and `CostCentre` the same two."""
    return [word.lower() for word in _WORDS.findall(column)]


def camel_case(column: str) -> str:
    """`Cost Centre` as `costCentre`; what is written so already stays as it is."""
    if re.fullmatch(r"[a-z]+[A-Za-z0-9]*", column):
        return column
    first, *others = words_of(column) or [column.strip()]
    return first + "".join(word.capitalize() for word in others)


class OAuth2Target(Target):
    """A target whose tokens may come from an OAuth 2 server (RFC 6749 §4.4).

    Then `schemes` has "oauth2", with key id and secret.
    """

    token_url: Annotated[str, Field(pattern=r"^(https?:/)?/[!-~]*$")] | None = None
    """where tokens come from, for the scheme `oauth2`: a path behind `base_url`, or a whole URL of another host"""
    scope: Annotated[str, Field(min_length=1)] | None = None
    """what to ask for, with the scheme `oauth2`"""
    client_auth: Literal["basic", "body"] = "basic"
    """how the scheme `oauth2` shows key id and secret (RFC 6749 §2.3.1): as Basic credentials, or in the `body`"""

    @model_validator(mode="after")
    def _knows_where_tokens_come_from(self) -> Self:
        if self.auth == "oauth2" and self.token_url is None:
            raise ValueError("the scheme oauth2 needs token_url: the path, or the whole URL, that gives tokens")
        return self

    @property
    def scheme(self) -> Scheme:
        if self.auth != "oauth2" or self.token_url is None:
            return super().scheme
        return client_credentials(self.token_url, self.scope, in_body=self.client_auth == "body")


class Fault(NamedTuple):
    """What forbids to send an export whole, and where that is: each place as text, with the rows' numbers."""

    what: str
    places: Sequence[str] = ()


_SHARE = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"}


def _share(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?%", value):
        return value
    raise not_a('share such as "10%"')


class WholeTarget(Target):
    """A target that takes the whole export in one request, which replaces all that it held."""

    things: ClassVar[str] = "records"
    """What its records are, in the plural."""

    max_shrink: Annotated[str, PlainValidator(_share), WithJsonSchema(_SHARE)] = "10%"
    """how much smaller than the one accepted last the export may be, as a share"""
    write: Literal["merge", "replace"] = "replace"

    @model_validator(mode="before")
    @classmethod
    def _takes_no_choice(cls, values: Any) -> Any:
        """What a request for some users may mean is no question here."""
        for name in ("expect", "missing_result", "write"):
            if isinstance(values, Mapping) and name in values:
                raise ValueError(f"{name} is not a setting of {cls.api}, which takes the whole export in one request")
        return values

    def faults(self, batch: Batch) -> list[Fault]:
        """What forbids to send this; empty: nothing does."""
        raise NotImplementedError

    def label(self, record: bytes) -> str:
        """What a record without fault stands for, in words; two that stand for the same have the same.

        Raises ValueError for bytes that are no such record.
        """
        raise NotImplementedError

    def figures(self, batch: Batch) -> Mapping[str, int]:
        """What `check` tells of a batch without fault: numbers, by what they count."""
        return {self.things: len(batch)}
