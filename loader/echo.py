"""Answers that need not be decoded: those that say the same of each user, in the words of one that was.

Most answers of a load call every user a success, and differ in nothing but the names. What stands between these is
learnt from one that was decoded; an answer that is byte for byte the same, with the users sent in their places, says
the same. Any other is decoded.
"""

from collections.abc import Sequence

from loader.outcome import Result

_ESCAPED = bytes([*range(0x20), ord('"'), ord("\\")])  # what JSON strings don't hold as it is


class Echo:
    """How an API writes that all users of a request have the same result."""

    def __init__(self) -> None:
        self._result: Result | None = None
        self._head = self._between = self._tail = ""

    def learn(self, users: Sequence[str], body: bytes, result: Result) -> None:
        """`body`, decoded, names `users` in this order, and says `result` of each.

        Of two users it would not show whether what stands between them is about one of them.
        """
        self._result = None
        if len(users) < 3:
            return
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return
        first, second, last = (f'"{users[at]}"' for at in (0, 1, -1))
        begin = text.find(first)
        then = text.find(second, begin + len(first))
        end = text.rfind(last)
        if 0 <= begin < then <= end:
            self._head, self._between = text[: begin + 1], text[begin + len(first) - 1 : then + 1]
            self._tail = text[end + len(last) - 1 :]
            self._result = result
            self._result = self.read(users, body)

    def read(self, users: Sequence[str], body: bytes) -> Result | None:
        """The result of each of `users`; None: the answer has to be decoded."""
        if self._result is None or not users:
            return None
        if (self._head + self._between.join(users) + self._tail).encode() != body:
            return None
        names = "".join(users).encode()
        # A name that JSON writes otherwise than it is might stand here for another.
        return self._result if len(names.translate(None, _ESCAPED)) == len(names) else None
