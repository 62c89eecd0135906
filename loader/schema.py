"""The settings as JSON Schema, for editors, and as a reference: both from the models and the text below each key."""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel

from loader.settings import Settings
from loader.target import Target, WholeTarget
from loader.targets import find, known

Schema = dict[str, Any]

#: The keys that each target has beside its own.
SHARED = {
    "api": "which API: one of those built in, or [a target of an installed package](write-a-target.md)",
    "base_url": "the API's address; plain `http` only to loopback. Not set: the vendor's, if it has one for all",
}
#: And what its credentials are.
AUTH = {
    "scheme": "how requests are authorized",
    "key_id": "`env:NAME`, `file:PATH` or the text itself",
    "secret": "`env:NAME` or `file:PATH`; the text itself is warned about",
    "token": "`env:NAME` or `file:PATH`; the text itself is warned about",
}


class Key(NamedTuple):
    """A setting, as the reference has it. `default` is TOML; "": there is none."""

    name: str
    default: str
    meaning: str


def keys(model: type[BaseModel]) -> list[Key]:
    """The settings of a table, in order."""
    said, made = _said(model), model.model_json_schema()["properties"]
    inner = dict(_tables_in(model))  # tables of their own
    return [
        Key(name, "" if name in inner else _toml(made[name].get("default")), said[name])
        for name in model.model_fields
        if name in said
    ]


def tables() -> dict[str, type[BaseModel]]:
    """The tables of the settings that are models, by name, and those in them, such as `export.storage`: all but
    `[target]`.
    """
    found = {}
    for name, model in _tables_in(Settings):
        found[name] = model
        found |= {f"{name}.{inner}": each for inner, each in _tables_in(model)}
    return found


def _tables_in(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def schema() -> Schema:
    """JSON Schema (2020-12) of a settings file, with the keys of all targets that are installed.

    A file that it takes may still be refused: it knows a key's type and range, not how keys go together.
    """
    made = Settings.model_json_schema()
    said = _said(Settings)
    for name, model in tables().items():
        table, _, inner = name.partition(".")
        words = _said(tables()[table])[inner] if inner else said[table]
        made["$defs"][model.__name__] = _described(made["$defs"][model.__name__], model) | {"description": words}
    apis = {api: _target(find(api)) for api in known()}
    for api, target in apis.items():
        made["$defs"] |= target.pop("$defs", {}) | {api: target}
    made["properties"]["target"] = _choice("api", apis, "#/$defs/{}", said["target"])
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Settings of directory-loader"}
    return head | {name: each for name, each in _plain(made).items() if name != "description"}


def _target(target: type[Target]) -> Schema:
    """`[target]` for one API."""
    made = _described(target.model_json_schema(), target)
    own = {
        name: each
        for name, each in made["properties"].items()
        if name != "auth" and not (issubclass(target, WholeTarget) and name in ("expect", "missing_result", "write"))
    }
    shared = {
        "api": {"const": target.api, "description": SHARED["api"]},
        "base_url": {"type": "string", "description": SHARED["base_url"]}
        | ({"default": target.address} if target.address else {}),
        "auth": _auth(target),
    }
    needed = ["api", "auth", *([] if target.address else ["base_url"])]
    required = [*needed, *(name for name in made.get("required", ()) if name != "auth")]
    return made | {"properties": shared | own, "required": required}


def _auth(target: type[Target]) -> Schema:
    """`[target.auth]`: each scheme with what it needs, and nothing else."""
    schemes = {
        name: {
            "type": "object",
            "properties": {
                "scheme": {"const": name, "description": AUTH["scheme"]},
                **{
                    name: {"type": "string", "minLength": 1, "description": AUTH.get(name, "")} for name in scheme.needs
                },
            },
            "required": ["scheme", *scheme.needs],
            "additionalProperties": False,
        }
        for name, scheme in target.schemes.items()
    }
    return _choice("scheme", schemes, "", "the credentials")


def _choice(key: str, options: Mapping[str, Schema], ref: str, description: str) -> Schema:
    """An object whose `key` decides which of `options` it is.

    Not `oneOf`: of that, all that an editor could say is that nothing fits. All keys of all options are listed, as
    editors look no further when they complete one.
    """
    seen: dict[str, Schema] = {}
    for option in options.values():
        for name, each in option["properties"].items():
            seen.setdefault(name, {"description": each.get("description", "")})
    seen[key] = {"enum": list(options), "description": seen[key]["description"]}
    return {
        "type": "object",
        "description": description,
        "properties": seen,
        "required": [key],
        "allOf": [
            {
                "if": {"properties": {key: {"const": name}}, "required": [key]},
                "then": {"$ref": ref.format(name)} if ref else option,
            }
            for name, option in options.items()
        ],
    }


def _described(made: Schema, model: type[BaseModel]) -> Schema:
    """A model's schema with what its keys mean."""
    said = _said(model)
    properties = {name: {**each, "description": said.get(name, "")} for name, each in made["properties"].items()}
    return {name: each for name, each in made.items() if name != "description"} | {"properties": properties}


@cache
def _said(model: type[BaseModel]) -> dict[str, str]:
    """What stands below each key of a model and of those that it builds on: on one line, as Markdown.

    Pydantic would read it, too (`use_attribute_docstrings`), at each start: 20 ms for the settings alone.
    """
    found: dict[str, str] = {}
    for kind in model.__mro__:
        if not issubclass(kind, BaseModel) or kind is BaseModel:
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        except OSError:  # a target whose source is not here
            continue
        assert isinstance(tree, ast.ClassDef)
        for key, text in zip(tree.body, tree.body[1:], strict=False):
            match key, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                    if name in model.model_fields:
                        found.setdefault(name, " ".join(said.split()))
    return found


def _toml(value: object) -> str:
    """A default as TOML; "" for none."""
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)  # of texts, numbers and booleans the same


def _plain(made: Any) -> Any:
    """The same without what says nothing in TOML, which has no null, and with texts that are no Markdown."""
    if isinstance(made, list):
        return [_plain(each) for each in made]
    if not isinstance(made, dict):
        return made
    if len(options := [each for each in made.get("anyOf", ()) if each != {"type": "null"}]) == 1:
        made = {**{name: each for name, each in made.items() if name != "anyOf"}, **options[0]}
    elif options:
        made = made | {"anyOf": options}
    plain = {}
    for name, each in made.items():
        if name == "description" and isinstance(each, str):
            each = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", each)
        is_noise = (name == "title" and isinstance(each, str)) or (
            name in ("default", "description") and each in (None, "", {}, [])
        )
        if not is_noise:
            plain[name] = _plain(each)
    return plain
