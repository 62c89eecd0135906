"""[network] as settings: addresses of proxies, files of certificates, what is named when they are wrong."""

import base64
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from loader.errors import SettingsError
from loader.network import Proxy, tls_of
from tests import make

AWAY = 'target.base_url="https://api.example.com:8443"'


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("address", "url", "pair"),
    [
        ("http://proxy:3128", "http://proxy:3128", None),
        ("proxy:3128", "http://proxy:3128", None),
        ("http://proxy/", "http://proxy:80", None),
        ("https://proxy", "https://proxy:443", None),
        ("http://[::1]:3128", "http://[::1]:3128", None),
        ("http://ann:p%40ss%3A%2F@proxy:1", "http://proxy:1", "ann:p@ss:/"),
        ("http://ann@proxy:1", "http://proxy:1", "ann:"),
        ("http://é:ü@proxy:1", "http://proxy:1", "é:ü"),
    ],
)
def test_a_proxys_credentials_are_apart_from_its_address(address: str, url: str, pair: str | None) -> None:
    """They go into a header of their own, as UTF-8, and into no repr."""
    proxy = Proxy.of(address)

    assert proxy.url == url
    assert repr(proxy) == f"Proxy(url={url!r})"
    expected = None if pair is None else f"Basic {base64.b64encode(pair.encode()).decode()}"
    assert proxy.authorization == expected


@pytest.mark.parametrize(
    "address",
    ["http://", "ftp://proxy:1", "socks5://s3cret@proxy:1", "http://s3cret@proxy:port", "http://proxy:1/path?x", "a b"],
)
def test_what_is_no_proxy_is_named_and_not_shown(tmp_path: Path, address: str) -> None:
    """It may hold a password."""
    with pytest.raises(SettingsError, match=r"network\.proxy: not an address such as") as error:
        make.settings(tmp_path, overrides=[AWAY, f'network.proxy="{address}"'])

    assert "s3cret" not in str(error.value)


def test_settings_do_not_show_a_proxys_password(tmp_path: Path) -> None:
    """Neither when they are shown nor when they are wrong; one in the file is warned about."""
    settings = make.settings(tmp_path, overrides=[AWAY, "network.proxy=http://ann:s3cret@proxy:1"])
    with pytest.raises(SettingsError) as error:
        make.settings(tmp_path, overrides=['network.proxy=["s3cret"]'])

    assert "s3cret" not in f"{settings!r} {settings.way()!r} {error.value}"
    assert "network.proxy" in settings.literal_secrets()


@pytest.mark.parametrize(
    ("environment", "overrides", "url"),
    [
        ({}, [AWAY], None),
        ({"HTTPS_PROXY": "http://p:1"}, [AWAY], "http://p:1"),
        ({"https_proxy": "http://p:1"}, [AWAY], "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, [AWAY], None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other.com,.example.com"}, [AWAY], None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, [AWAY], None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "api.example.com:8443"}, [AWAY], None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "ample.com"}, [AWAY], "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, [AWAY, "network.proxy=http://q:2"], "http://q:2"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, [AWAY, "network.proxy=http://q:2"], "http://q:2"),
        ({"HTTPS_PROXY": "http://p:1"}, [AWAY, 'network.proxy=""'], None),
        ({"MY_PROXY": "http://ann:pass@q:2"}, [AWAY, "network.proxy=env:MY_PROXY"], "http://q:2"),
        ({"HTTPS_PROXY": "http://p:1"}, [], None),
        ({"HTTPS_PROXY": "http://p:1"}, ['target.base_url="https://[::1]:1"'], None),
        ({"HTTPS_PROXY": "http://p:1"}, ['target.base_url="https://localhost"', "network.proxy=http://q:2"], None),
    ],
)
def test_which_proxy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    overrides: list[str],
    url: str | None,
) -> None:
    """The settings' before the environment's, which NO_PROXY limits; none to loopback."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    proxy = make.settings(tmp_path, overrides=overrides).way().proxy

    assert (proxy and proxy.url) == url


def test_a_proxy_of_the_environment_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its variable, without its text."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://ann:s3cret@proxy:1")

    with pytest.raises(SettingsError, match="the environment variable HTTPS_PROXY: not an address") as error:
        make.settings(tmp_path, overrides=[AWAY])
    assert "s3cret" not in str(error.value)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of certificates, keys, and what is neither."""
    folder = tmp_path_factory.mktemp("pems")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("cert", "other"):
        made = authority.issue_cert(f"{name}@example.com")
        made.private_key_pem.write_to_path(folder / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
        made.private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")
    (folder / "text").write_text("hello")
    (folder / "empty").touch()
    key = load_pem_private_key((folder / "cert.key").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    (folder / "locked.key").write_bytes(locked)
    (folder / "ca.der").write_bytes(ssl.PEM_cert_to_DER_cert((folder / "ca.pem").read_text()))
    return folder


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"ca_file": "none"}, "network.ca_file: .*none can't be read: No such file"),
        ({"ca_file": "."}, "network.ca_file: .* can't be read: Is a directory"),
        ({"ca_file": "text"}, "network.ca_file: .*text holds no certificate in PEM form"),
        ({"ca_file": "empty"}, "network.ca_file: .*empty holds no certificate"),
        ({"ca_file": "ca.der"}, "network.ca_file: .*ca.der holds no certificate .*openssl x509 -inform der"),
        ({"ca_file": "cert.key"}, "network.ca_file: .*cert.key holds no certificate"),
        ({"ca_file": "~nobody-99/x"}, "network.ca_file: ~nobody-99/x: nobody here has that home"),
        ({"client_cert": "cert.crt"}, "network.client_cert: .*holds no private key .*network.client_key"),
        ({"client_cert": "cert.key"}, "network.client_cert: .*cert.key holds no certificate"),
        ({"client_key": "cert.key"}, "network.client_key: the key needs its certificate, network.client_cert"),
        ({"client_cert": "cert.crt", "client_key": "none"}, "network.client_key: .*none can't be read"),
        ({"client_cert": "cert.crt", "client_key": "text"}, "network.client_key: .*text holds no private key"),
        ({"client_cert": "cert.crt", "client_key": "other.key"}, "network.client_key: .*does not belong"),
        ({"client_cert": "cert.crt", "client_key": "locked.key"}, "network.client_key: .*has an encrypted key"),
    ],
)
def test_files_that_can_not_be_used_are_named(tmp_path: Path, pems: Path, files: dict[str, str], message: str) -> None:
    """When the settings are read, and nothing is asked at the terminal."""
    overrides = [f'network.{key}="{name if name[0] == "~" else pems / name}"' for key, name in files.items()]

    with pytest.raises(SettingsError, match=message):
        make.settings(tmp_path, overrides=overrides)


def test_the_systems_authorities_stay_trusted(pems: Path) -> None:
    """ca_file adds one to them."""
    with_ours = tls_of(pems / "ca.pem", pems / "cert.pem", None).cert_store_stats()["x509_ca"]

    assert with_ours == tls_of(None, None, None).cert_store_stats()["x509_ca"] + 1
