"""The documentation as a site. `scripts/docs` builds it, strictly: a warning or a dead link fails.

The pages are plain Markdown, for reading in the repository as well: so links are those of files, and the folder that
Sphinx builds is the whole repository, of which it takes the Markdown.
"""

import re

from sphinx.application import Sphinx

from loader import __version__

project = "directory-loader"
author = "the authors of directory-loader"
project_copyright = author
version = release = __version__

extensions = [
    "myst_parser",  # Markdown
    "sphinx.ext.autodoc",  # the library, from its docstrings
    "sphinx_copybutton",
]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "examples/*/README.md", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = [
    ".*",
    "benchmarks",
    "build",
    "dist",
    "docs/_build",
    "loader",
    "loader-demo",
    "tests",
]  # never walked
templates_path = ["_templates"]
nitpicky = True
nitpick_ignore_regex = [(r"py:\w+", r"(?!loader\b).*")]  # types of others: to look up their pages needs a network
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # as they are written
maximum_signature_line_length = 80
default_role = "code"  # `this` in a docstring
smartquotes = False  # -- is the beginning of an option
autodoc_typehints_format = "short"
suppress_warnings: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "directory-loader"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_additional_pages = {"index": "to_index.html"}  # the site begins one folder below
html_show_sourcelink = False
html_show_sphinx = False
html_copy_source = False
copybutton_prompt_text = "$ "


def sidebar(_app: Sphinx, docname: str, source: list[str]) -> None:
    """What docs/index.md lists below its headings is the sidebar: so it is written once, and as Markdown."""
    if docname != root_doc:
        return
    parts = [part.partition("\n") for part in re.split(r"^## ", source[0], flags=re.MULTILINE)[1:]]
    for caption, _, text in parts:
        pages = re.findall(r"^- \[(.+?)\]\((.+?)\.md\)", text, re.MULTILINE)
        lines = [f"{title} <{page}>" for title, page in pages]
        source[0] += "\n\n" + "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *lines, "```"])


def setup(app: Sphinx) -> None:
    app.connect("source-read", sidebar)
