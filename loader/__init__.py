"""directory-loader: very large user exports into directory APIs, fast, resumable, with an outcome for every user."""

__version__ = "0.1.0"

__all__ = ["__version__"]
