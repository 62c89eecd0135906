"""What a target promises: one API, described by plain data and two pure functions.

A target is a frozen pydantic model. Its fields are the API's unknowns, settable in the `[target]` table; its class
variables describe the API; `encode` and `read` translate. Everything else (pacing, tokens, retries, order, checkpoint)
is the loader's.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from loader.batch import Batch
from loader.record import Frame
from loader.request import Request, Response
from loader.tokens import Scheme
from loader.verdict import Verdict


class Defaults(NamedTuple):
    """What a target sets for `[limits]` where the settings don't. `max_users` is the API's structural maximum."""

    users_per_request: int = 100
    bytes_per_request: int = 1_000_000
    requests_per_minute: float | None = None
    max_users: int | None = None


class Target(BaseModel):
    """Base of all targets: the settings they share, and what each has to say.

    `auth`: the name of the scheme in use, from `[target.auth] scheme`. `missing_result`: what it means when an answer
    leaves a user out. `write`: whether attributes not sent are kept ("merge") or lost ("replace"), which decides how
    two rows of one user become one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    api: ClassVar[str]
    base_url: ClassVar[str]
    schemes: ClassVar[Mapping[str, Scheme]]
    defaults: ClassVar[Defaults] = Defaults()
    frame: ClassVar[Frame] = Frame()

    auth: str
    missing_result: Literal["again", "success"] = "again"
    write: Literal["merge", "replace"] = "merge"

    @property
    def scheme(self) -> Scheme:
        """The auth scheme chosen, with this target's settings applied."""
        return self.schemes[self.auth]

    def refuses_token(self, response: Response) -> bool:
        """Does this answer say that the token, not the request, is at fault?"""
        return response.status == 401

    def encode(self, batch: Batch) -> list[Request]:
        """The requests that carry `batch`, to be sent one after the other."""
        raise NotImplementedError

    def read(self, batch: Batch, responses: Sequence[Response]) -> Verdict:
        """What the answers to `encode(batch)` say of each user, in the batch's order, matched by user.

        Fewer responses than requests: sending stopped at the first that was not 2xx.
        """
        raise NotImplementedError
