"""Pages, from the templates beside this. Whatever is put into HTML is escaped.

uPlot, which draws the charts, is as its release 1.6.32 on npm holds it (https://github.com/leeoniya/uPlot, MIT).
"""

import json
import re
import time
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from loader.snapshot import duration

_FOLDER = files("loader.show.pages")


def page(name: str, **values: Any) -> str:
    """A template filled in."""
    made = Environment(
        loader=FunctionLoader(text),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": lambda number: f"{number:,.0f}",
        "percent": _percent,
        "duration": duration,
        "moment": lambda at: time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at)) if at else "",
        "cell": _cell,
        "value": lambda value: json.dumps(value, ensure_ascii=False),
        "name": lambda path: str(path).rstrip("/").rpartition("/")[2] or path,
        "sentence": lambda words: words[:1].upper() + words[1:],
    }
    made.globals["raw"] = lambda name: Markup(text(name))  # files of our own
    return made.get_template(name).render(values)


def text(name: str) -> str:
    """A file beside this."""
    return _FOLDER.joinpath(name).read_text("utf-8")


def _percent(share: float) -> str:
    """As exact as it takes: a few that failed are not nothing, and all but a few are not all."""
    return f"{share:.0%}" if share in (0.0, 1.0) or 0.1 <= share < 0.9 else f"{share:.2%}"


def _cell(value: object) -> str:
    """In a table of Markdown, where a bar ends the cell and a line break the row."""
    return re.sub(r"([\\`*_{}\[\]<>|])", r"\\\1", re.sub(r"[\x00-\x1f\x7f]+", " ", str(value)))
