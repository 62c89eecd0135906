"""A harmless call before a load: are the credentials taken, and does the target know the attributes to be sent?"""

from collections.abc import Callable, Collection
from typing import NamedTuple

from loader.errors import Refused, Stopped, TransportError
from loader.lane import Abandoned
from loader.target import Target
from loader.transport import Send
from loader.verdict import Do, by_status, way_out, words


class Probed(NamedTuple):
    """`words`: what the call showed, for people. `undeclared`: attributes the target doesn't know; None: can't tell."""

    words: str
    undeclared: list[str] | None = None


async def probe(target: Target, send: Send, names: Collection[str]) -> Probed:
    """Make the target's harmless call. Raises Stopped if the credentials are refused."""
    request = target.probe()
    if request is None:
        return Probed("not tried: this API has no harmless call, so the first request with users will tell")
    what = f"{request.method} {request.path}"
    try:
        response = await send(request)
    except TransportError as error:
        return Probed(f"not known: {what} got no answer: {error}")
    if target.refuses_token(response):
        raise Stopped(f"the credentials are not accepted: {words(response)}{way_out(response)}")
    if not 200 <= response.status < 300:
        kind = "has no right to" if by_status(response) is Do.STOP else "did not get an answer to"
        return Probed(f"not known: this key {kind} {what}, which only a check needs ({words(response)})")
    return Probed(f"taken; {what} was answered", target.undeclared(response, names))


async def refuse_undeclared(
    target: Target, send: Send, names: Collection[str] | None, warn: Callable[[str], None]
) -> None:
    """Raise Refused if the target would refuse an attribute of every user, as it was not declared there.

    `names`: the attributes to be sent, None: that is not known before the rows are read.
    """
    if not target.declares or names is None:
        return
    try:
        found = await probe(target, send, names)
    except Abandoned:
        return  # the run stops, and says why
    if found.undeclared is None:
        warn(f"whether {target.api} knows the attributes could not be checked; credentials {found.words}")
    elif found.undeclared:
        raise Refused(undeclared_words(target.api, found.undeclared))


def undeclared_words(api: str, names: Collection[str]) -> str:
    """What is wrong with attributes that the target doesn't know, and the way out."""
    them = "them" if len(names) > 1 else "it"
    shown = ", ".join(map(repr, names))
    way_out = f"declare {them} there first, or leave {them} out of mapping.attributes"
    return f"{api} does not know the attributes {shown}: {way_out}"
