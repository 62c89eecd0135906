"""A load by this loader, as a program: its settings, and the command that runs it."""

import sys
from pathlib import Path

LOADER = (sys.executable, "-m", "loader")
ENVIRONMENT = {"BENCH_TOKEN": "T"}

#: Where the checkpoint of a load is, in its folder.
CHECKPOINT = "load.ckpt"

_SETTINGS = """
[export]
path = "{export}"
[mapping]
{mapping}
[target]
api = "{api}"
base_url = "{url}"
{target}
[target.auth]
scheme = "bearer"
token = "env:BENCH_TOKEN"
[limits]
{limits}
[checkpoint]
path = "{checkpoint}"
{more}"""

#: What a target needs beside its address.
_TARGET = {"scim": 'key = "id"\nbulk = false'}

#: DX has a quota of its own, which would be all that is measured.
_LIMITS = {"dx": 'quota = ["1000000/1s"]'}


def command(
    folder: Path, export: Path, url: str, users: int, at_once: int, api: str = "calven", more: str = ""
) -> list[str]:
    """Write the settings of a load into `folder`; what runs it there, and goes on with it after a kill.

    `more`: further tables of the settings.
    """
    limits = f"users_per_request = {users}\nconcurrency = {at_once}\n{_LIMITS.get(api, '')}"
    is_nested = export.name.endswith(".ndjson") and not export.name.endswith(".flat.ndjson")
    text = _SETTINGS.format(
        export=export,
        mapping="" if is_nested else 'user = "email"',
        api=api,
        url=url,
        target=_TARGET.get(api, ""),
        limits=limits,
        checkpoint=CHECKPOINT,
        more=more,
    )
    (folder / "load.toml").write_text(text)
    return [*LOADER, "run", "load.toml"]
