"""The documentation as a site: `scripts/docs` builds it, strictly: a warning or a dead link fails."""

from loader import __version__

project = "directory-loader"
copyright = "the authors of directory-loader"
version = release = __version__

extensions = [
    "myst_parser",  # Markdown, as it is read on a forge, too
    "sphinx.ext.autodoc",  # the library, from its docstrings
    "sphinx_click",  # the commands, from their --help
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings: list[str] = []

html_theme = "furo"
html_title = "directory-loader"
html_static_path: list[str] = []
html_theme_options = {
    "sidebar_hide_name": False,
    "navigation_with_keys": True,
}
html_show_sourcelink = False
copybutton_prompt_text = "$ "
