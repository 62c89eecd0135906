"""Why rows are not well: messages that differ in what is a row's own alone are one reason."""

import re

_PLACE = re.compile(r"^.*? line \d+: ")
_VALUE = re.compile(r"(: )(['\"]).*\2( is )")
_NUMBER = re.compile(r"\d[\d,]*")


def kind(message: str, user: str = "") -> str:
    """A message without what is its row's own: place, key, numbers, and the value that is shown."""
    reason = _PLACE.sub("", message)
    if user:
        reason = reason.replace(user, "…")
    return _NUMBER.sub("N", _VALUE.sub(r"\1…\3", reason))
