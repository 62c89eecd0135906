"""What each outcome means, and what a person does about it."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from loader.outcome import Code


class Advice(NamedTuple):
    """`meaning`: of the outcome. `todo`: what to do, "" if nothing. `way`: by which command, if that does anything."""

    meaning: str
    todo: str = ""
    way: Literal["", "retry", "correct"] = ""


#: What to do about rows to correct that can't be loaded by themselves.
ELSEWHERE = "Correct them where the export comes from, and load that anew."

ADVICE: Mapping[Code, Advice] = {
    Code.SUCCESS: Advice("the API took this user"),
    Code.UNCHANGED: Advice("the same as what the API acknowledged last; not sent"),
    Code.SUPERSEDED: Advice("merged into a later row of the same user"),
    Code.SKIPPED: Advice("nothing to send: no attribute has a value"),
    Code.REJECTED: Advice(
        "never sent: the row is not valid",
        "Take these rows out as they stand in the export, correct them, and load the corrected file.",
        "correct",
    ),
    Code.USER_NOT_FOUND: Advice(
        "the API does not know this user",
        "Create these users there first, or mend their keys in the export. Once they exist, send them again.",
        "retry",
    ),
    Code.LOCATION_NOT_FOUND: Advice(
        "the API does not know the place that an attribute names",
        "Create the places there, or mend the attribute in the export; then send these users again.",
        "retry",
    ),
    Code.INVALID: Advice(
        "the API refused this user alone",
        "Its words below say why. Mend the values, or the mapping if all are alike, and load these rows again.",
        "correct",
    ),
    Code.PARTIAL: Advice(
        "some attributes were taken, some were not; the message lists them",
        "Mend the values that the messages name, and load these rows again. If an attribute is not known there: create "
        "it, or leave it out of the mapping, and send them again with loader retry.",
        "correct",
    ),
    Code.NO_RESULT: Advice(
        "the API answered, and left this user out every time",
        "Nobody knows whether it was taken; sending it again does no harm. If it stays so, ask those who run the API.",
        "retry",
    ),
    Code.FAILED: Advice(
        "all attempts failed; the message holds the last reason",
        "Trouble of the API or the network, as a rule: send these users again.",
        "retry",
    ),
}
