"""Settings proposed from an export's first records: which column is the key, what is sent and how, as commented TOML.

What is proposed says why, and what is not certain says so. No value of the export stands in it: settings files are
passed around.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from glob import has_magic
from pathlib import Path
from typing import NamedTuple

from loader.errors import SettingsError
from loader.mapping import ADDED, Type
from loader.sample import Sample, is_email
from loader.schema import keys
from loader.target import Target, words_of

#: Names of columns with keys, the likeliest first, as their words joined; and words that tell another person's.
_KEYS = (
    *("username", "userprincipalname", "upn", "login", "loginid", "loginname", "useremail", "email", "emailaddress"),
    *("mail", "emailadresse", "primaryemail", "workemail", "businessemail", "companyemail", "samaccountname", "userid"),
    *("account", "accountname", "user", "uid", "employeeid", "id"),
)
_OTHERS = {
    *("manager", "supervisor", "boss", "assistant", "parent", "lead", "approver", "secondary", "private", "personal"),
    *("alternative", "alternate", "backup", "emergency", "team", "group", "department"),
}
#: Words of columns whose digits are a name and no number: they are never added up, and a zero at the beginning counts.
_IDENTIFIERS = {
    *("id", "ids", "number", "no", "nr", "num", "code", "key", "phone", "mobile", "fax", "zip", "plz", "postal"),
    *("postcode", "extension", "ext", "cost", "account", "badge", "room", "floor", "desk", "version", "grade", "level"),
}
#: Words of columns that no directory of users should be sent.
_SECRETS = {"password", "passwd", "passwort", "pwd", "secret", "token", "ssn", "iban", "pin"}

#: Their ends, where languages make one word of several: `Personalnummer`.
_IDENTIFIER_ENDS = ("number", "nummer", "nr", "code", "stelle")
#: So few values tell no type: the next may be 00123.
_ENOUGH = 20

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_DIGITS = re.compile(r"[-+]?[0-9.,]*[0-9][0-9.,]*([eE][+-]?[0-9]+)?")
#: Larger ones are no longer exact in many JSON readers, which hold numbers as doubles.
_EXACT = 2**53

#: Where the API's own settings must be given, what stands there until somebody knows better.
_STAND_INS = {"base_url": "https://api.example.com", "path": "/users", "user": "id"}


class Candidate(NamedTuple):
    """A column that may hold the users' keys. `score`: the higher, the likelier."""

    column: str
    score: float
    why: str
    is_certain: bool


class Attribute(NamedTuple):
    """A column as an attribute. `name` None: it is not sent. `why`: it isn't, or is of this type; "" says nothing."""

    column: str
    name: str | None
    type: Type = "string"
    why: str = ""


@dataclass(frozen=True)
class Proposal:
    """What was decided, by whomever.

    `export`: as the settings write it. `options`: the target's settings that have no default. `user`, `others`: the
    key's column, and those that might be it. `fields`: of a target whose records have fixed fields, and which then has
    neither, the columns that are called otherwise.
    """

    export: str
    sample: Sample
    target: type[Target]
    scheme: str
    options: Mapping[str, str] = field(default_factory=dict)
    user: Candidate | None = None
    others: Sequence[Candidate] = ()
    attributes: Sequence[Attribute] = ()
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """The environment's variables that hold the credentials, by setting."""
        prefix = re.sub(r"[^A-Z0-9]", "_", self.target.api.partition("-")[0].upper())
        return {name: f"{prefix}_{name.upper()}" for name in self.target.schemes[self.scheme].needs}

    @property
    def stand_ins(self) -> list[str]:
        """The options that somebody has to put right."""
        return [name for name, value in self.options.items() if value == _STAND_INS.get(name)]


# Deciding ------------------------------------------------------------------------------------------------------------


def candidates(sample: Sample) -> list[Candidate]:
    """The columns that may hold the key, the likeliest first."""
    found = [made for column in sample.columns if (made := _candidate(sample, column)) is not None]
    return sorted(found, key=lambda each: -each.score)


def candidate(sample: Sample, column: str) -> Candidate:
    """A column that somebody named. Raises SettingsError if there is none of that name."""
    if column not in sample.columns:
        if reason := (sample.unusable or {}).get(column):
            raise SettingsError(f"--user: {reason}")
        near = get_close_matches(column, sample.columns, 1, 0.5)
        guess = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(map(repr, sample.columns[:20]))}"
        raise SettingsError(f"--user: the export has no column {column!r}{guess}")
    return _candidate(sample, column) or Candidate(column, 0, f"EMPTY in the first {len(sample.rows):,} rows", False)


def _candidate(sample: Sample, column: str) -> Candidate | None:
    values = sample.values(column)
    kinds = (str, int) if sample.kind == "columns" else (str,)
    if not all(isinstance(value, kinds) and not isinstance(value, bool) for value in values):
        return None
    words = words_of(column)
    name = "".join(words)
    rank = (len(_KEYS) - _KEYS.index(name)) / len(_KEYS) if name in _KEYS else 0.0
    rank += 0.3 * bool({"mail", "email", "login"} & set(words)) - bool(_OTHERS & set(words))
    rows = len(sample.rows)
    texts = [str(value) for value in values if str(value).strip()]
    if not texts:
        why = f"EMPTY in the first {rows:,} rows" if rows else "by its name alone, as there are no rows yet"
        return Candidate(column, rank - 10, why, False) if rank > 0 else None
    emails = sum(map(is_email, texts)) / len(texts)
    empty, again = rows - len(texts), len(texts) - len(set(texts))
    unique = 1 - again / len(texts)
    score = 3 * unique**2 + 4 * (1 - empty / rows) + 2 * emails + 2 * rank
    reasons = [
        "never empty" if not empty else f"EMPTY in {empty:,} of the first {rows:,} rows (REJECTED)",
        "different in each row" if not again else f"{again:,} of the first {rows:,} rows are of users who came before",
        *(["looks like an e-mail address"] if emails > 0.9 else []),
    ]
    return Candidate(column, score, ", ".join(reasons), not empty and (not again or unique > 0.5))


def attributes_of(sample: Sample, target: type[Target], user: str | None) -> list[Attribute]:
    """Every column but the key's, as an attribute: name, type, and why that."""
    made: list[Attribute] = []
    for column in sample.columns:
        if column == user or column in ADDED:
            continue
        if _SECRETS & set(words_of(column)):
            made.append(Attribute(column, None, why="by its name it holds a secret"))
            continue
        name = target.usual_name(column)
        if name is None:
            made.append(Attribute(column, None, why=f"{target.api} has no attribute of that name"))
            continue
        kind, why = _type_of(sample, column)
        made.append(Attribute(column, _free(name, made), kind, why))
    return made


def _free(name: str, made: Sequence[Attribute]) -> str:
    """The name, with a number behind it if another column has it. Some APIs don't tell names apart by case."""
    taken = {each.name.casefold() for each in made if each.name is not None}
    numbers = (str(number) for number in range(2, len(made) + 3))
    return next(each for each in (name, *(name + number for number in numbers)) if each.casefold() not in taken)


def _type_of(sample: Sample, column: str) -> tuple[Type, str]:
    """A column's type and why it has it: text, unless every value fits another and nothing of it would be lost."""
    values = sample.values(column)
    if not values:
        return "string", f"empty in the first {len(sample.rows):,} rows"
    if sample.kind != "text":
        return "string", ""
    count, are = (f"all {len(values):,} values", "are numbers") if len(values) > 1 else ("the one value", "is a number")
    if all(value.lower() in ("true", "false") for value in values):
        return "boolean", f"guessed: {count} seen {are.split()[0]} true or false"
    if odd := [value for value in values if not _DIGITS.fullmatch(value)]:
        is_rare = len(odd) <= len(values) / 20
        return "string", f"text, as {len(odd):,} of {len(values):,} values seen are no numbers" if is_rare else ""
    if any(re.match(r"[-+]?0[0-9]", value) for value in values):
        return "string", "text, as zeros at the beginning would be lost"
    if not all(map(_NUMBER.fullmatch, values)):
        return "string", "text, as not all of its digits are written as JSON writes numbers"
    if any("." in value and value.endswith("0") for value in values):
        return "string", "text, as zeros at the end might be lost"
    if any(abs(float(value)) > _EXACT or len(value) > 16 for value in values):
        return "string", "text, as numbers so long are not exact everywhere"
    words = words_of(column)
    if _IDENTIFIERS & set(words) or any(word.endswith(_IDENTIFIER_ENDS) for word in words):
        return "string", "text, as it seems to be a name made of digits"
    if len(values) < _ENOUGH:
        return "string", f"text, though {count} seen {are}: too few to tell"
    return "number", f"guessed: {count} seen {are} of which nothing is lost"


def fields_of(sample: Sample, target: type[Target]) -> dict[str, str]:
    """Of a target whose records have fixed fields, the columns that are called otherwise, by field."""
    named: dict[str, str] = {}
    free = [column for column in sample.columns if column not in target.columns]
    for name in target.columns:
        if name in sample.columns:
            continue
        wanted = words_of(name)
        same = [column for column in free if words_of(column) == wanted]
        near = same or [column for column in free if _means(words_of(column), wanted)]
        if not near and name == target.columns[0]:
            near = free
        if near:
            named[name] = near[0]
            free.remove(near[0])
    return named


#: Words that mean the same in a hierarchy.
_SAME = {
    **dict.fromkeys(("group", "team", "unit", "orgunit", "organization", "department", "name"), "group"),
    **dict.fromkeys(("parent", "superior", "above", "belongs"), "parent"),
    **dict.fromkeys(("type", "kind", "level", "category"), "type"),
}


def _means(words: Sequence[str], wanted: Sequence[str]) -> bool:
    meant = {_SAME.get(word, word) for word in words}
    for needless in ("parent", "type"):  # a parent's group is its parent, a group's type has "group" in it
        if needless in wanted:
            meant.discard("group")
    return meant == set(wanted) - ({"group"} if len(wanted) > 1 else set())


# Writing -------------------------------------------------------------------------------------------------------------


def toml(proposal: Proposal, file: str, schema: str | None = None) -> str:
    """A settings file, commented. `file`: what it will be called; `schema`: where its JSON Schema is."""
    head = [
        *([f"#:schema {schema}", ""] if schema else []),
        f"# Proposed by `loader init` from the first rows of {_comment(proposal.export)}. Look through it, then:",
        f"# loader check {_comment(file)}",
    ]
    parts = [head, _export(proposal), *_mapping(proposal), _target(proposal), _auth(proposal), _rest(proposal)]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _export(proposal: Proposal) -> list[str]:
    sample = proposal.sample
    lines = [f"# {_comment(warning)}" for warning in sample.warnings]
    lines += ["[export]", f"path = {_text(proposal.export)}"]
    if sample.format:
        lines.append(_line("format", sample.format, "its content is that, whatever its name says"))
    if sample.delimiter:
        lines.append(_line("delimiter", sample.delimiter, f"with it the header has {len(sample.columns)} columns"))
    if sample.encoding:
        way = (
            "its first bytes say so"
            if sample.encoding.startswith("utf")
            else "it is not UTF-8, so most likely this: look at letters such as ä and é"
        )
        lines.append(_line("encoding", sample.encoding, way))
    return lines


def _mapping(proposal: Proposal) -> Iterator[list[str]]:
    sample, target = proposal.sample, proposal.target
    if target.columns:
        lines = [f"# The columns that hold {', '.join(target.columns)}, where they are called otherwise"]
        lines += ["[mapping.columns]", *(f"{name} = {_text(column)}" for name, column in proposal.fields.items())]
        missing = [each for each in target.columns if each not in sample.columns and each not in proposal.fields]
        lines += [f'# {name} = "…"   # NO COLUMN was found for it' for name in missing]
        if proposal.fields or missing:
            yield lines
        return
    if sample.is_nested:
        yield [
            "# Each record has `userName` and an object `attributes`, so that no [mapping] is needed.",
            "# [mapping]",
        ]
        return
    assert proposal.user is not None
    lines = ["[mapping]", _line("user", proposal.user.column, proposal.user.why)]
    if proposal.others:
        lines.append(
            f"# The key might also be {_comment(', '.join(_text(each.column) for each in proposal.others[:3]))}"
        )
    if sample.kind == "text":
        lines.append('# empty = "omit"   # an empty cell is not sent; "null" sends null, "keep" sends ""')
    yield lines
    yield [*_attributes(proposal)]
    typed = {each.name: each for each in proposal.attributes if each.name is not None and each.type != "string"}
    if typed:
        yield [
            "[mapping.types]   # all others are sent as text",
            *_aligned([(_key(n), _text(e.type), e.why) for n, e in typed.items()]),
        ]


def _attributes(proposal: Proposal) -> Iterator[str]:
    if not proposal.attributes:
        yield "# NOTHING TO SEND: the export has no column beside the key's"
        return
    sent = [each for each in proposal.attributes if each.name is not None]
    if sent:
        yield f"# The names are GUESSED from the columns': check each with your {proposal.target.api} tenant."
        yield f"[mapping.attributes]   # the name at {proposal.target.api} = the column. What is not listed is not sent"
        why = {each.column: each.why if each.type == "string" else "" for each in sent}
        yield from _aligned([(_key(each.name), _text(each.column), why[each.column]) for each in sent if each.name])
    else:
        yield f"# [mapping.attributes]   # the name at {proposal.target.api} = the column"
    for each in proposal.attributes:
        if each.name is None:
            yield f"# … = {_comment(_text(each.column))}   # left out: {each.why}"
    for column, reason in (proposal.sample.unusable or {}).items():
        yield f"# … = {_comment(_text(column))}   # left out: {_comment(reason)}"


def _target(proposal: Proposal) -> list[str]:
    target = proposal.target
    lines = ["[target]", f"api = {_text(target.api)}"]
    if "base_url" in proposal.options:
        lines.append(_option(proposal, "base_url"))
    elif target.address:
        lines.append(f"# base_url = {_text(target.address)}")
    lines += [_option(proposal, name) for name in proposal.options if name != "base_url"]
    sent = [each.name for each in proposal.attributes if each.name is not None]
    if target.makes_attributes and sent:
        lines.append(
            f"expect = [{', '.join(map(_text, sent))}]   # {target.api} makes a new attribute of any other name"
        )
    own = [key for key in keys(target) if key.name not in {*proposal.options, *(key.name for key in keys(Target))}]
    lines += [f"# {key.name} = {key.default or '…'}   # {_brief(key.meaning)}" for key in own]
    return lines


def _auth(proposal: Proposal) -> list[str]:
    schemes = proposal.target.schemes
    others = [f"{name} ({', '.join(scheme.needs)})" for name, scheme in schemes.items() if name != proposal.scheme]
    lines = ["[target.auth]   # env:NAME is the environment's variable, file:PATH a file's first line"]
    lines.append(f"scheme = {_text(proposal.scheme)}" + (f"   # or {', '.join(others)}" if others else ""))
    return lines + [f"{name} = {_text(f'env:{variable}')}" for name, variable in proposal.variables.items()]


def _rest(proposal: Proposal) -> list[str]:
    """What may be left as it is."""
    lines: list[str] = []
    if has_magic(proposal.export):
        lines += ["[checkpoint]", _line("path", f"{_stem(proposal.export)}.ckpt", "the outcomes of all files"), ""]
    whole = not proposal.target.columns
    return [
        *lines,
        *(
            ["# [limits]", '# quota = ["500/60s"]   # the API\'s limit, where it has one; nothing else is guessed']
            if whole
            else []
        ),
        *(["", "# [refresh]", '# mode = "changed"   # each night: only what changed is sent'] if whole else []),
    ]


def _stem(pattern: str) -> str:
    """A name for what a pattern matches: `users-*.csv` is `users`."""
    name = re.split(r"[*?\[]", Path(pattern).name)[0].strip("-_. ")
    return name or "users"


def _option(proposal: Proposal, name: str) -> str:
    return _line(name, proposal.options[name], "CHANGE THIS" if name in proposal.stand_ins else "")


def options_needed(target: type[Target]) -> dict[str, str]:
    """The target's settings that have no default, each with a stand-in for people to replace; "": there is none."""
    needed = [] if target.address else ["base_url"]
    needed += [name for name, each in target.model_fields.items() if each.is_required() and name != "auth"]
    return {name: _STAND_INS.get(name, "") for name in needed}


def _line(key: str, value: str, why: str) -> str:
    return f"{key} = {_text(value)}" + (f"   # {_comment(why)}" if why else "")


def _aligned(lines: Sequence[tuple[str, str, str]]) -> list[str]:
    width = min(max(len(key) + len(value) for key, value, _ in lines), 60)
    return [
        f"{key} = {value}" + (f"{'':{max(width - len(key) - len(value), 0)}}   # {why}" if why else "")
        for key, value, why in lines
    ]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(value: str) -> str:
    """A text as TOML: JSON's form, but for DEL, which TOML doesn't take as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    """A text as a comment takes it: on one line, and without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _brief(meaning: str) -> str:
    """The first part of what a key means, without links."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", meaning)
    return _comment(plain if len(plain) < 90 else plain[:88].rsplit(" ", 1)[0] + " …")
