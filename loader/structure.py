"""Where things stand in a block of JSON: found by numpy in all rows at once, and nothing is decoded.

What is in a string is told from structure by counting quotes, so all of it takes text that is known to be JSON, or that
somebody will find not to be.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
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

#: Of a text's last word of eight bytes, so many are its own.
_MASKS = np.array([(1 << (8 * count)) - 1 for count in range(8)], np.uint64)


class Structure(NamedTuple):
    """Brackets, colons and commas outside of strings: where each stands, which it is, and how deep it is behind it.

    `quotes`: those that begin or end a string.
    """

    places: Places
    kinds: NDArray[np.uint8]
    depths: NDArray[np.int32]
    quotes: Places

    @classmethod
    def of(cls, text: bytes) -> "Structure":
        """That of `text`, which begins outside of strings."""
        if b"\\" in text:
            text = _without_escapes(text)
        places = np.flatnonzero(np.frombuffer(text.translate(_TOLD), np.bool_))
        kinds = np.frombuffer(text, np.uint8)[places]
        is_quote = kinds == _QUOTE
        is_outside = ~(np.bitwise_xor.accumulate(is_quote) | is_quote)
        quotes, places, kinds = places[is_quote], places[is_outside], kinds[is_outside]
        return cls(places, kinds, np.cumsum(_STEPS[kinds], dtype=np.int32), quotes)

    def members(self, begins: Places, ends: Places, level: int) -> tuple[Places, Places, Places, Places]:
        """The members of objects that are `level` deep, from bracket to bracket.

        Of all of them: where their names' opening and closing quotes stand, and their values begin and end, white space
        included.
        """
        inside = np.zeros(len(self.places) + 1, np.int8)
        inside[np.searchsorted(self.places, begins, "right")] += 1
        inside[np.searchsorted(self.places, ends, "right")] -= 1
        is_own = (self.depths == level) & ((self.kinds == _COLON) | (self.kinds == COMMA)) | (self.depths == level - 1)
        own = np.flatnonzero(is_own & (np.cumsum(inside[:-1], dtype=np.int8) > 0))
        at = np.flatnonzero(self.kinds[own] == _COLON)  # behind each comes a comma, or the bracket that closes
        colons, stops = self.places[own[at]], self.places[own[at + 1]]
        names = np.searchsorted(self.quotes, colons)
        return self.quotes[names - 2], self.quotes[names - 1], colons + 1, stops


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
        if b"\\" not in self.text:
            return np.zeros(len(begins), np.bool_)
        slashes = np.flatnonzero(self.bytes[: len(self.text)] == _BACKSLASH)
        found: NDArray[np.bool_] = np.searchsorted(slashes, begins) < np.searchsorted(slashes, ends)
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
    the opening quote of a name; `begins` and `ends`: the value. `ids`: the name's number in `names`, -1 for none.
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
    odd: Places
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
                runs.append((at, at, -2))
            elif number in sent and runs and runs[-1][1:] == (at - 1, 0):
                runs[-1] = (runs[-1][0], at, 0)
            elif number in sent:
                runs.append((at, at, 0))
        opens, begins, ends = (places.reshape(rows, many) for places in (self.opens, self.begins, self.ends))
        begins = np.stack([(begins if number < 0 else opens)[:, at] for at, _, number in runs], axis=1)
        firsts = np.arange(rows + 1) * len(runs)
        return Members(
            firsts,
            firsts[:-1] + [number for _, _, number in runs].index(-2),
            begins.ravel(),
            begins.ravel(),
            ends[:, [at for _, at, _ in runs]].ravel(),
            np.tile([number for _, _, number in runs], rows),
            [b""],
            self.odd,
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

    With `inside` the first name is that of the key, and the second this one, of an object that holds the others.
    No row holds a backslash. Each `":` outside of strings ends a name: there must be one for each name and row, with
    the name before it, and a comma before that. So no other object has a member, whose first has a bracket before it.
    """
    rows, many = len(starts), len(names)
    buf = text.bytes
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
    colons = colons.reshape(rows, many)
    opens = colons - np.array([len(name) + 2 for name in names])
    if not (
        (opens[:, 0] == starts + 1).all() and (opens[:, 1:] > colons[:, :-1]).all() and (colons[:, -1] < stops).all()
    ):
        return None
    for at, name in enumerate(names):
        if not text.holds(b'"' + name + b'"', opens[:, at]).all():
            return None
    begins, ends = colons + 1, np.empty_like(colons)
    has_space = buf[begins] == SPACE
    ends[:, :-1] = opens[:, 1:] - 1
    comma_space = buf[ends[:, :-1]] == SPACE
    is_tight = not (has_space.any() or comma_space.any())
    if not is_tight:
        begins += has_space
        ends[:, :-1] -= comma_space
    if inside is not None and not (ends[:, 1] == begins[:, 1]).all():
        return None
    ends[:, -1] = stops - (1 if inside is None else 2)
    marks = buf[ends]
    is_right = marks == COMMA
    is_right[:, -1] = marks[:, -1] == _CLOSE
    if inside is not None:
        is_right[:, 1] = marks[:, 1] == _OPEN
    if not is_right.all():
        return None
    first, last = buf[begins], buf[ends - 1]
    is_empty = (first == _OPEN) & (ends - begins == len(b"{}"))
    if inside is not None:
        first[:, 1] = last[:, 1] = _OPEN
    # A value that ends in a bracket it doesn't open: the object that holds the others ends there.
    if (first <= SPACE).any() or (last <= SPACE).any() or ((last == _CLOSE) & ~is_empty).any():
        return None
    if inside is None:
        column, ids, first_named = list(names).index(key), list(range(many)), 0
    else:  # the key, and what is inside
        keep = [0, *range(2, many)]
        opens, begins, ends = opens[:, keep], begins[:, keep], ends[:, keep]
        names, many = names[2:], many - 1
        column, ids, first_named = 0, [-2, *range(many - 1)], 1
    firsts = np.arange(rows + 1) * many
    return Members(
        firsts,
        firsts[:-1] + column,
        *(opens.ravel(), begins.ravel(), ends.ravel()),
        np.tile(ids, rows),
        list(names),
        np.empty(0, np.int64),
        is_alike=True,
        is_tight=is_tight,
        first=first_named,
    )


def members(
    text: Text, starts: Places, stops: Places, key: bytes, inside: bytes | None, wanted: Sequence[bytes] | None
) -> Members | None:
    """The members of any rows; where `inside` names an object in each, those of that object, and the key.

    `wanted`: only these names get a number. None: no row has a member.
    """
    found = Structure.of(text.text)
    outer = _listed(text, found, starts, (starts, stops - 1), 1, wanted if inside is None else [key, inside])
    if not len(outer.opens):
        return None
    keys = outer.of(outer.names.index(key)) if key in outer.names else np.full(len(starts), -1)
    has_key = keys >= 0
    begins, ends = (np.where(has_key, places[keys], starts) for places in (outer.begins, outer.ends))
    has_key &= ~text.is_escaped(begins, ends)
    if inside is None:
        outer.keys = np.where(keys < 0, np.minimum(outer.firsts[:-1], len(outer.opens) - 1), keys)
        return outer.without(~has_key)
    objects = outer.of(1)
    has_both = has_key & (objects >= 0)
    has_both[has_both] = text.bytes[outer.begins[objects[has_both]]] == _OPEN
    whole = objects[has_both]
    inner = _listed(text, found, starts, (outer.begins[whole], outer.ends[whole] - 1), 2, wanted)
    is_first = begins < outer.begins[objects]
    at = np.where(is_first, inner.firsts[:-1], inner.firsts[1:])
    rows = np.arange(len(starts))
    result = Members(
        np.append(inner.firsts[:-1] + rows, len(inner.opens) + len(rows)),
        at + rows,
        *(
            np.insert(places, at, keys)
            for places, keys in ((inner.opens, begins), (inner.begins, begins), (inner.ends, ends))
        ),
        np.insert(inner.ids, at, -2),
        inner.names,
        np.union1d(outer.odd, inner.odd),
    )
    return result.without(~has_both)


def _listed(
    text: Text,
    found: Structure,
    starts: Places,
    objects: tuple[Places, Places],
    level: int,
    wanted: Sequence[bytes] | None,
) -> Members:
    """The members of `objects`, of which each row has at most one; which is the key is not told."""
    opens, closes, begins, ends = found.members(*objects, level)
    firsts = np.append(np.searchsorted(opens, starts), len(opens))
    ids, names = _numbered(text, opens, closes, wanted)
    result = Members(firsts, firsts[:-1], opens, text.begin(begins), text.stop(ends), ids, names, np.empty(0, np.int64))
    result.odd = result.rows(np.flatnonzero(text.is_escaped(opens, closes)))
    return result


def _numbered(
    text: Text, opens: Places, closes: Places, wanted: Sequence[bytes] | None
) -> tuple[NDArray[np.int64], list[bytes]]:
    """The names that stand between quotes, and for each the number of its own, -1 for one that has none."""
    ids = np.full(len(opens), -1, np.int64)
    sizes = closes - opens - 1
    if wanted is not None:
        for number, name in enumerate(wanted):
            ids[_these(text, name, opens, np.flatnonzero(sizes == len(name)))] = number
        return ids, list(wanted)
    names: list[bytes] = []
    left = np.arange(len(opens))
    while len(left) and len(names) < _MOST_NAMES:
        first = left[0]
        name = text.text[opens[first] + 1 : closes[first]]
        ids[_these(text, name, opens, left[sizes[left] == len(name)])] = len(names)
        names.append(name)
        left = left[ids[left] < 0]
    return ids, names


def _these(text: Text, name: bytes, opens: Places, members: Places) -> Places:
    """Those of `members`, whose names are as long, that have this name."""
    return members[text.holds(name, opens[members] + 1)] if name else members
