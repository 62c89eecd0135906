"""Where things stand in a block of JSON: found by numpy in all rows at once, and nothing is decoded.

What is in a string is told from structure by counting quotes, so all of it takes text that is known to be JSON, or that
somebody will find not to be.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]

_QUOTE, _BACKSLASH, _OPEN, _CLOSE, _COLON, COMMA, SPACE = b'"\\{}:, '
_TOLD = bytes(byte in b'"[]{}:,' for byte in range(256))
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1

#: Behind a string one of these follows. A name that begins with anything else can't be what stands behind one.
_BEHIND = b",:]} \t\r\n"

#: Bytes behind a text: at least those of a word.
_ROOM = 4096

#: Different names in a block; those behind have no number.
_MOST_NAMES = 250

#: In place of a name's number: it has none; it is that of a nested row's key.
NONE, KEY = -1, -2

#: Of a text's last word of eight bytes, so many are its own.
_MASKS = np.array([(1 << (8 * count)) - 1 for count in range(8)], np.uint64)


class Structure(NamedTuple):
    """Quotes, brackets, colons and commas: where each stands, and which it is.

    `own`: those outside of strings, but for the quotes, by their numbers; `kinds`: which each of them is; `depths`: how
    deep it is behind it.
    """

    all_places: Places
    all_kinds: NDArray[np.uint8]
    own: Places
    kinds: NDArray[np.uint8]
    depths: NDArray[np.int32]

    @classmethod
    def of(cls, text: bytes) -> "Structure":
        """That of `text`, which begins outside of strings."""
        if b"\\" in text:
            text = _without_escapes(text)
        places = np.flatnonzero(np.frombuffer(text.translate(_TOLD), np.bool_))
        every = np.frombuffer(text, np.uint8)[places]
        is_quote = every == _QUOTE
        own = np.flatnonzero(~(np.bitwise_xor.accumulate(is_quote) | is_quote))
        kinds = every[own]
        return cls(places, every, own, kinds, np.cumsum(_STEPS[kinds], dtype=np.int32))

    @property
    def places(self) -> Places:
        """Where those outside of strings stand."""
        return self.all_places[self.own]

    def members(self, level: int, within: tuple[Places, Places] | None = None) -> tuple[Places, Places, Places, Places]:
        """The members of all objects that are `level` deep; `within`: only of those between these brackets.

        Of all of them: where their names' opening and closing quotes stand, and their values begin and end, white space
        included.
        """
        marks = np.flatnonzero(
            (self.depths == level) & ((self.kinds == _COLON) | (self.kinds == COMMA)) | (self.depths == level - 1)
        )
        places = self.all_places[self.own[marks]]
        if within is not None:
            inside = np.zeros(len(marks) + 1, np.int8)
            inside[np.searchsorted(places, within[0], "right")] += 1
            inside[np.searchsorted(places, within[1], "right")] -= 1
            is_inside = np.cumsum(inside[:-1], dtype=np.int8) > 0
            marks, places = marks[is_inside], places[is_inside]
        at = np.flatnonzero(self.kinds[marks] == _COLON)  # behind each comes a comma, or the bracket that closes
        closing = self.own[marks[at]] - 1  # between the quote and the colon there is white space alone
        opening = closing - 1
        left = np.flatnonzero(self.all_kinds[opening] != _QUOTE)
        while len(left):  # in a name
            opening[left] -= 1
            left = left[self.all_kinds[opening[left]] != _QUOTE]
        return self.all_places[opening], self.all_places[closing], places[at] + 1, places[at + 1]


def _without_escapes(text: bytes) -> bytes:
    """The same with what stands behind a backslash blanked out, so that every quote left begins or ends a string."""
    buf = np.frombuffer(text, np.uint8).copy()
    slashes = np.flatnonzero(buf == _BACKSLASH)
    run = np.maximum.accumulate(np.where(np.diff(slashes, prepend=-2) != 1, slashes, 0))
    escaped = slashes[(slashes - run) % 2 == 0] + 1
    buf[escaped[: np.searchsorted(escaped, len(buf))]] = ord("_")
    return buf.tobytes()


class Text:
    """A block's bytes, which may be compared eight at a time wherever they stand."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._data = bytearray(len(text) + _ROOM)
        self._data[: len(text)] = text
        self.bytes = np.frombuffer(self._data, np.uint8)
        self._words: NDArray[np.uint64] = np.ndarray((len(self._data) - 7,), "<u8", self._data, strides=(1,))

    @cached_property
    def _slashes(self) -> Places:
        is_there = b"\\" in self.text
        return np.flatnonzero(self.bytes[: len(self.text)] == _BACKSLASH) if is_there else np.empty(0, np.int64)

    def followed_by(self, more: bytes) -> bytes | bytearray:
        """The text with `more` behind it, and anything behind that. The next call takes it back."""
        if len(more) > _ROOM:
            return self.text + more
        self.bytes[len(self.text) : len(self.text) + len(more)] = np.frombuffer(more, np.uint8)
        return self._data

    def holds(self, piece: bytes, at: Places) -> NDArray[np.bool_]:
        """Does `piece` stand at each of these places?"""
        size = len(piece)
        if size < 8:
            short: NDArray[np.bool_] = (self._words[at] & _MASKS[size]) == int.from_bytes(piece, "little")
            return short
        found = np.ones(len(at), np.bool_)
        for place in [*range(0, size - 8, 8), size - 8]:
            found &= self._words[at + place] == int.from_bytes(piece[place : place + 8], "little")
        return found

    def is_escaped(self, begins: Places, ends: Places) -> NDArray[np.bool_]:
        """Is there a backslash between these places?"""
        if not len(self._slashes):
            return np.zeros(len(begins), np.bool_)
        found: NDArray[np.bool_] = np.searchsorted(self._slashes, begins) < np.searchsorted(self._slashes, ends)
        return found

    def begin(self, places: Places) -> Places:
        """Where something stands behind white space at `places`."""
        left = np.flatnonzero(self.bytes[places] <= SPACE)
        while len(left):
            places[left] += 1
            left = left[self.bytes[places[left]] <= SPACE]
        return places

    def stop(self, places: Places) -> Places:
        """Where something ends before white space that ends at `places`."""
        left = np.flatnonzero(self.bytes[places - 1] <= SPACE)
        while len(left):
            places[left] -= 1
            left = left[self.bytes[places[left] - 1] <= SPACE]
        return places


@dataclass(slots=True)
class Members:
    """The members of each row's object in their order; a nested row's are its attributes, and its key.

    `firsts`: where each row's begin among them, and one place more. `keys`: which of them is each row's key. `opens`:
    the opening quote of a name; `begins` and `ends`: the value. `ids`: the name's number in `names`, else NONE or KEY.
    `odd`: rows that are not what was looked for. `is_alike`: the rows have the same names, in the same order, and
    `is_tight`: without white space, too.
    """

    firsts: Places
    keys: Places
    opens: Places
    begins: Places
    ends: Places
    ids: NDArray[np.int64]
    names: list[bytes]
    odd: Places = field(default_factory=lambda: np.empty(0, np.int64))
    is_alike: bool = False
    is_tight: bool = False
    first: int = 0  # the place of the first name in rows that are alike

    def of(self, number: int) -> Places:
        """Which member of each row has the name with this number, of several the last; -1: none."""
        if self.is_alike:
            return self.firsts[:-1] + (self.first + number)
        found = np.full(len(self.firsts) - 1, -1, np.int64)
        has_it = np.flatnonzero(self.ids == number)
        found[self.rows(has_it)] = has_it
        return found

    def named(self, name: bytes) -> Places:
        """The same by the name."""
        return self.of(self.names.index(name)) if name in self.names else np.full(len(self.firsts) - 1, -1)

    def rows(self, members: Places) -> Places:
        """Whose they are; they ascend."""
        return np.searchsorted(self.firsts, members, "right") - 1

    def joined(self, sent: Collection[int]) -> "Members":
        """Of rows that are alike and tight, members of these names that stand side by side as one, number 0."""
        rows, many = len(self.firsts) - 1, int(self.firsts[1])
        key = int(self.keys[0])
        runs: list[tuple[int, int, int]] = []  # first, last, number
        for at, number in enumerate(self.ids[:many].tolist()):
            if at == key:
                runs.append((at, at, KEY))
            elif number in sent and runs and runs[-1][1:] == (at - 1, 0):
                runs[-1] = (runs[-1][0], at, 0)
            elif number in sent:
                runs.append((at, at, 0))
        opens, begins, ends = (places.reshape(rows, many) for places in (self.opens, self.begins, self.ends))
        heads = np.stack([(begins if number == KEY else opens)[:, at] for at, _, number in runs], axis=1).ravel()
        numbers = [number for _, _, number in runs]
        firsts = np.arange(rows + 1) * len(runs)
        return Members(
            firsts=firsts,
            keys=firsts[:-1] + numbers.index(KEY),
            opens=heads,
            begins=heads,
            ends=ends[:, [at for _, at, _ in runs]].ravel(),
            ids=np.tile(numbers, rows),
            names=[b""],
            odd=self.odd,
        )

    def without(self, rows: NDArray[np.bool_]) -> "Members":
        """The same, with these rows odd, too."""
        self.odd = np.union1d(self.odd, np.flatnonzero(rows))
        return self

    def again(self) -> Places:
        """Rows in which a name comes again."""
        if self.is_alike:
            return np.empty(0, np.int64)
        rows = np.repeat(np.arange(len(self.firsts) - 1), np.diff(self.firsts))
        found = [np.empty(0, np.int64)]
        for number in range(len(self.names)):
            own = rows[self.ids == number]
            found.append(own[1:][own[1:] == own[:-1]])
        return np.concatenate(found)


def alike(
    text: Text, starts: Places, stops: Places, names: Sequence[bytes], key: bytes, inside: bytes | None
) -> Members | None:
    """The members of rows that all have these names in this order; None if they don't, or it can't be told this way.

    With `inside` the first name is that of the key, and the second this one, of an object that holds the others. No row
    holds a backslash. All have white space where the first row has it: behind commas or colons, one blank or none.

    Each `":` outside of strings ends a name: there must be one for each name and row, with the name before it, and a
    comma before that. So no other object has a member, whose first has a bracket before it.
    """
    rows, many, buf = len(starts), len(names), text.bytes
    is_wrong = key not in names if inside is None else many < 3 or tuple(names[:2]) != (key, inside)
    if is_wrong or any(not name or name[0] in _BEHIND for name in names):
        return None
    colons = np.flatnonzero(buf[: len(text.text)] == _COLON)
    before = buf[colons - 1]
    if (before <= SPACE).any():
        return None  # there may be names among them that are not seen
    colons = colons[before == _QUOTE]
    if len(colons) != rows * many:
        return None
    columns = np.ascontiguousarray(colons.reshape(rows, many).T)
    blank = int(buf[columns[0, 0] + 1] == SPACE)
    before_last = int(columns[-1, 0]) - len(names[-1]) - len(b' ""')
    comma = b", " if many > 1 and before_last > 0 and buf[before_last] == SPACE else b","
    marks = [b"{", *[comma] * (many - 1)]
    if inside is not None:
        marks[2] = b"{"
    heads = [mark + b'"' + name for mark, name in zip(marks, names, strict=True)]
    begins = columns + (1 + blank)
    heads_at = columns - np.array([[len(head) + 1] for head in heads])
    if (heads_at[0] != starts).any() or heads_at.min() < 0:
        return None
    if not all(text.holds(head, at).all() for head, at in zip(heads, heads_at, strict=True)):
        return None
    ends = np.concatenate([heads_at[1:], [stops - (1 if inside is None else 2)]])
    if (buf[ends[-1]] != _CLOSE).any():
        return None
    opens = heads_at + np.array([[len(mark)] for mark in marks])
    if inside is not None and (ends[1] != begins[1]).any():
        return None
    own = slice(None) if inside is None else [0, *range(2, many)]  # those of the row, or the key and what is inside
    opens, begins, ends = opens[own], begins[own], ends[own]
    last = buf[ends - 1]
    if (buf[begins] <= SPACE).any() or (last <= SPACE).any() or (blank and (buf[columns + 1] != SPACE).any()):
        return None
    if inside is not None and (last == _CLOSE).any():
        # A value that ends in a bracket it doesn't open: the object that holds the others ends there.
        is_empty = (buf[begins] == _OPEN) & (ends - begins == len(b"{}"))
        if ((last == _CLOSE) & ~is_empty).any():
            return None
    column = list(names).index(key)
    ids = list(range(many)) if inside is None else [KEY, *range(many - 2)]
    firsts = np.arange(rows + 1) * len(ids)
    return Members(
        firsts=firsts,
        keys=firsts[:-1] + column,
        opens=opens.T.ravel(),
        begins=begins.T.ravel(),
        ends=ends.T.ravel(),
        ids=np.tile(ids, rows),
        names=list(names if inside is None else names[2:]),
        is_alike=True,
        is_tight=not blank and comma == b",",
        first=0 if inside is None else 1,
    )


def members(
    text: Text, starts: Places, stops: Places, key: bytes, inside: bytes | None, wanted: Sequence[bytes] | None
) -> Members | None:
    """The members of any rows; where `inside` names an object in each, those of that object, and the key.

    `wanted`: only these names get a number. None: no row has a member.
    """
    found = Structure.of(text.text)
    outer = _listed(text, starts, found.members(1), wanted if inside is None else [key, inside])
    if not len(outer.opens):
        return None
    keys = outer.named(key)
    has_key = keys >= 0
    begins, ends = (np.where(has_key, places[keys], starts) for places in (outer.begins, outer.ends))
    has_key &= ~text.is_escaped(begins, ends)
    if inside is None:
        outer.keys = np.where(keys < 0, np.minimum(outer.firsts[:-1], len(outer.opens) - 1), keys)
        return outer.without(~has_key)
    objects = outer.named(inside)
    has_both = has_key & (objects >= 0)
    has_both[has_both] = text.bytes[outer.begins[objects[has_both]]] == _OPEN
    whole = objects[has_both]
    inner = _listed(text, starts, found.members(2, (outer.begins[whole], outer.ends[whole] - 1)), wanted)
    is_first = begins < outer.begins[objects]
    at = np.where(is_first, inner.firsts[:-1], inner.firsts[1:])
    rows = np.arange(len(starts))
    result = Members(
        firsts=np.append(inner.firsts[:-1] + rows, len(inner.opens) + len(rows)),
        keys=at + rows,
        opens=np.insert(inner.opens, at, begins),
        begins=np.insert(inner.begins, at, begins),
        ends=np.insert(inner.ends, at, ends),
        ids=np.insert(inner.ids, at, KEY),
        names=inner.names,
        odd=np.union1d(outer.odd, inner.odd),
    )
    return result.without(~has_both)


def _listed(
    text: Text, starts: Places, found: tuple[Places, Places, Places, Places], wanted: Sequence[bytes] | None
) -> Members:
    """Members of objects, of which each row has at most one; which is the key is not told."""
    opens, closes, begins, ends = found
    firsts = np.append(np.searchsorted(opens, starts), len(opens))
    names = _same_names(text, opens, closes, firsts)
    ids, is_alike = np.tile(np.arange(len(names)), len(starts)), bool(names)
    if not is_alike:
        ids, names = _numbered(text, opens, closes, wanted)
    begins, ends = text.begin(begins), text.stop(ends)
    result = Members(firsts, firsts[:-1], opens, begins, ends, ids, names, is_alike=is_alike)
    result.odd = result.rows(np.flatnonzero(text.is_escaped(opens, closes)))
    return result


def _same_names(text: Text, opens: Places, closes: Places, firsts: Places) -> list[bytes]:
    """The names of every row, if all have the same, in the same order, and none twice."""
    rows, many = len(firsts) - 1, int(firsts[1])
    if not many or (np.diff(firsts) != many).any():
        return []
    names = [text.text[opens[at] + 1 : closes[at]] for at in range(many)]
    columns, ends = (np.ascontiguousarray(places.reshape(rows, many).T) for places in (opens, closes))
    is_same = len(set(names)) == many and all(
        (end - column == len(name) + 1).all() and text.holds(name, column + 1).all()
        for name, column, end in zip(names, columns, ends, strict=True)
    )
    return names if is_same else []


def _numbered(
    text: Text, opens: Places, closes: Places, wanted: Sequence[bytes] | None
) -> tuple[NDArray[np.int64], list[bytes]]:
    """The names that stand between quotes, and for each the number of its own, -1 for one that has none."""
    ids = np.full(len(opens), NONE, np.int64)
    sizes = closes - opens - 1
    names = [] if wanted is None else list(wanted)
    for number in range(_MOST_NAMES if wanted is None else len(names)):
        if wanted is None:
            first = int(np.argmin(ids)) if len(ids) else 0  # of those that have none yet
            if not len(ids) or ids[first] >= 0:
                break
            names.append(text.text[opens[first] + 1 : closes[first]])
        may_be = np.flatnonzero(sizes == len(names[number]))
        ids[may_be[text.holds(names[number], opens[may_be] + 1)]] = number
    return ids, names
