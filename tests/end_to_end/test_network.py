"""[network]: TLS with a private authority, client certificates, proxies; what is wrong is said in plain words."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.end_to_end import oracle
from tests.end_to_end.command import Ended, loader
from tests.end_to_end.roads import NAME, PASSWORD, USER, Roads, roads

PROXY_USER = f"{USER}:pr0xy%3Ap%40ss%2Fword"


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roads]:
    with roads(tmp_path_factory.mktemp("roads")) as found:
        yield found


def run(folder: Path, url: str, environment: Mapping[str, str | None] | None = None, **network: str | Path) -> Ended:
    """A load of one user with these settings of [network]."""
    (folder / "users.csv").write_text("email,Dept,Cost Centre,Site,Reports\na@x.com,Sales,1,Wien,3\n")
    path = oracle.write_settings(folder, url, give_up_s=0.3)
    lines = [f'{name} = "{value}"' for name, value in network.items()]
    path.write_text("\n".join([path.read_text(), "[network]", *lines]))
    ended = loader("run", path, environment=environment)
    for text in (ended.err, *(file.read_text("utf-8", "replace") for file in folder.glob("*.ckpt"))):
        assert PASSWORD not in text
        assert "pr0xy" not in text
    assert "internal error" not in ended.err
    return ended


def test_a_private_authority_is_trusted_when_it_is_named(tmp_path: Path, way: Roads) -> None:
    """ca_file makes https work, relative to the settings' folder too."""
    (tmp_path / "own.pem").write_bytes(way.ca_file.read_bytes())

    assert run(tmp_path, f"https://127.0.0.1:{way.tls}", ca_file="own.pem").status == 0


def test_without_it_nothing_is_sent_and_the_way_out_is_named(tmp_path: Path, way: Roads) -> None:
    """At once, not after give_up_s: no other attempt could end otherwise."""
    ended = run(tmp_path, f"https://127.0.0.1:{way.tls}", environment={"SSL_CERT_FILE": None})

    assert ended.status == 3
    assert "the certificate of 127.0.0.1 is not trusted: unable to get local issuer certificate" in ended.err
    assert "name its PEM file in network.ca_file" in ended.err
    assert "no usable answer" not in ended.err


def test_a_certificate_for_another_name_is_refused(tmp_path: Path, way: Roads) -> None:
    """A known authority is not enough, and ca_file is not the way out."""
    ended = run(tmp_path, f"https://127.0.0.1:{way.other_name}", ca_file=way.ca_file)

    assert ended.status == 3
    assert "not valid for '127.0.0.1'" in ended.err
    assert "network.ca_file" not in ended.err


def test_a_client_certificate_is_shown(tmp_path: Path, way: Roads) -> None:
    """In one file with its key."""
    url = f"https://127.0.0.1:{way.mutual_tls}"

    assert run(tmp_path, url, ca_file=way.ca_file, client_cert=way.client_cert).status == 0


def test_its_key_may_stand_apart(tmp_path: Path, way: Roads) -> None:
    """In a file of its own."""
    cert, key = way.folder / "client.crt", way.folder / "client.key"
    url = f"https://127.0.0.1:{way.mutual_tls}"

    assert run(tmp_path, url, ca_file=way.ca_file, client_cert=cert, client_key=key).status == 0


def test_a_client_certificate_that_is_missing_is_asked_for(tmp_path: Path, way: Roads) -> None:
    """In TLS 1.3 the server says so behind the handshake, and its reset may overtake that: then no more is known."""
    ended = [run(tmp_path, f"https://127.0.0.1:{way.mutual_tls}", ca_file=way.ca_file) for _ in range(3)]

    assert {each.status for each in ended} == {3}
    assert any("a client certificate (network.client_cert)" in each.err for each in ended)


def test_https_at_a_port_of_http(tmp_path: Path, way: Roads) -> None:
    ended = run(tmp_path, f"https://127.0.0.1:{way.plain}")

    assert ended.status == 3
    assert "it does not speak TLS" in ended.err


@pytest.mark.parametrize("kind", ["http", "https"])
def test_a_proxy_with_a_password(tmp_path: Path, way: Roads, kind: str) -> None:
    """CONNECT, with what the settings say; TLS goes through it from end to end, to a name that only the proxy knows."""
    port = {"http": way.proxy, "https": way.tls_proxy}[kind]
    way.asked.clear()

    ended = run(
        tmp_path, f"https://{NAME}:{way.tls}", ca_file=way.ca_file, proxy=f"{kind}://{PROXY_USER}@127.0.0.1:{port}"
    )

    assert ended.status == 0, ended.err
    assert way.asked[0].startswith(f"CONNECT {NAME}:{way.tls} HTTP/1.1")
    assert not any("bearer" in head.lower() for head in way.asked), "our credentials are none of the proxy's business"


def test_the_environment_names_a_proxy(tmp_path: Path, way: Roads) -> None:
    way.asked.clear()
    environment = {"HTTPS_PROXY": f"http://{PROXY_USER}@127.0.0.1:{way.proxy}"}

    assert run(tmp_path, f"https://{NAME}:{way.tls}", environment, ca_file=way.ca_file).status == 0
    assert way.asked


@pytest.mark.parametrize("how", ["loopback", "loopback, though it is set"])
def test_loopback_is_never_reached_through_a_proxy(tmp_path: Path, way: Roads, how: str) -> None:
    """It would be the proxy's own."""
    way.asked.clear()
    address = f"http://127.0.0.1:{way.proxy}"
    network: dict[str, str | Path] = {"ca_file": way.ca_file}
    if "set" in how:
        network["proxy"] = address

    ended = run(tmp_path, f"https://127.0.0.1:{way.tls}", {"HTTPS_PROXY": address}, **network)

    assert ended.status == 0
    assert not way.asked


def test_a_proxy_that_wants_a_password_is_asked_once(tmp_path: Path, way: Roads) -> None:
    """Wrong passwords, repeated, lock accounts; the message names the setting."""
    way.asked.clear()

    ended = run(tmp_path, f"https://{NAME}:{way.tls}", proxy=f"http://{USER}:wr0ng@127.0.0.1:{way.proxy}")

    assert ended.status == 3
    assert f"the proxy does not connect to {NAME}: HTTP 407" in ended.err
    assert "network.proxy" in ended.err
    assert "wr0ng" not in ended.err
    assert len(way.asked) == 1


def test_a_proxy_that_is_down(tmp_path: Path, way: Roads) -> None:
    """It may come back: give_up_s rules; the message says that it is the proxy."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        ended = run(tmp_path, f"https://{NAME}:{way.tls}", proxy=f"http://{PROXY_USER}@127.0.0.1:{port}")

    assert ended.status == 3
    assert f"can't connect to the proxy 127.0.0.1:{port}: Connection refused" in ended.err
    assert "no usable answer for" in ended.err


def test_netrc_never_takes_the_place_of_our_credentials(tmp_path: Path, way: Roads) -> None:
    """~/.netrc names a user for every host: what goes out is still what the settings say."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login mallory password wrong\n")
    netrc.chmod(0o600)
    environment = {"NETRC": str(netrc), "HTTPS_PROXY": f"http://{PROXY_USER}@127.0.0.1:{way.proxy}"}

    assert run(tmp_path, f"https://{NAME}:{way.tls}", environment, ca_file=way.ca_file).status == 0


@pytest.mark.soak
@pytest.mark.parametrize("password", ["right", "wrong"])
def test_a_real_proxy(tmp_path: Path, way: Roads, password: str) -> None:
    """proxy.py, as its users start it, with a password of its own."""
    port_file = tmp_path / "port"
    command = [
        *(sys.executable, "-W", "ignore", "-m", "proxy", "--hostname", "127.0.0.1", "--port", "0"),
        *("--port-file", str(port_file), "--basic-auth", "ann:right", "--num-workers", "1", "--num-acceptors", "1"),
        *("--plugins", "tests.end_to_end.proxy_names.ToLoopback", "--log-level", "e"),
    ]
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": root}, cwd=tmp_path)
    try:
        end = time.monotonic() + 20
        while not (port_file.exists() and port_file.read_text().strip()):
            assert time.monotonic() < end
            time.sleep(0.05)
        address = f"http://ann:{password}@127.0.0.1:{port_file.read_text().strip()}"
        ended = run(tmp_path, f"https://{NAME}:{way.tls}", ca_file=way.ca_file, proxy=address)
    finally:
        process.terminate()
        process.wait(10)

    if password == "right":
        assert ended.status == 0, ended.err
    else:
        assert ended.status == 3
        assert "HTTP 407" in ended.err


def test_the_command_to_go_on_with_shows_no_secret(tmp_path: Path, way: Roads) -> None:
    """Messages are kept in logs; where the secret stands elsewhere, the command stays whole."""
    (tmp_path / "users.csv").write_text("email,Dept,Cost Centre,Site,Reports\na@x.com,Sales,1,Wien,3\n")
    path = oracle.write_settings(tmp_path, f"http://127.0.0.1:{way.plain}")

    shown = loader("run", path, "--set", "target.auth.secret=wr0ng-s3cret", "--set", "limits.attempts=3")
    named = loader("run", path, "--set", "target.auth.secret=env:LOADER_TEST_KEY")

    assert (shown.status, named.status) == (3, 3)
    assert "wr0ng-s3cret" not in shown.err
    assert "--set limits.attempts=3" in shown.err
    assert "--set target.auth.secret=env:LOADER_TEST_KEY" in named.err
