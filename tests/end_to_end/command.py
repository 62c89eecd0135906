"""The command inside this process: the same arguments, messages and exit status, without the start of a process."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from loader.cli import main


class Ended(NamedTuple):
    status: int
    out: str
    err: str


#: The credentials that the sandboxes of the tests know.
KNOWN = {"LOADER_TEST_KEY": "K", "LOADER_TEST_SECRET": "S", "LOADER_TEST_TOKEN": "T"}

#: What the machine says of proxies is no part of a test.
_PROXIES = [name for kind in ("http", "https", "all", "no") for name in (f"{kind}_proxy", f"{kind}_proxy".upper())]


def loader(
    *arguments: str | Path, environment: Mapping[str, str | None] | None = None, stdin: bytes | None = None
) -> Ended:
    """`loader` with these arguments, to its end. None in the environment: not set."""
    unset: dict[str, str | None] = dict.fromkeys(_PROXIES)
    result = CliRunner(env=unset | KNOWN | dict(environment or {})).invoke(
        main, list(map(str, arguments)), stdin, prog_name="loader"
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)
