"""How the target is reached: through which proxy, and with which certificates. Checked before anything is sent.

TLS is always verified, and there is no switch for it: who has a private authority names its certificate.
"""

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from loader.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. Its credentials are apart from its address, so that no message can show them: a header for the proxy."""

    url: str
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, address: str) -> "Proxy":
        """A proxy from `http://user:password@host:port`; `https://` too, and a mere `host:port` is http.

        Raises ValueError, with a message that shows no part of the address.
        """
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname, parts.port
        is_clean = address.isprintable() and " " not in address
        if not is_clean or not host or parts.scheme not in ("http", "https"):
            raise ValueError
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError
        host = f"[{host}]" if ":" in host else host
        authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return cls(f"{parts.scheme}://{host}:{port or (443 if parts.scheme == 'https' else 80)}", authorization)


@dataclass(frozen=True, slots=True)
class Network:
    """The way to the target. `proxy` None: straight; `tls` None: what the system trusts, and no certificate of ours.

    `elsewhere`: whole URLs that may be called besides the target, each with the proxy on the way there. `compress`:
    bodies go out packed.
    """

    proxy: Proxy | None = None
    tls: ssl.SSLContext | None = None
    elsewhere: Mapping[str, Proxy | None] = field(default_factory=dict)
    compress: Literal["gzip"] | None = None


def is_loopback(host: str) -> bool:
    """Is it this machine?"""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def tls_of(ca_file: Path | None, client_cert: Path | None, client_key: Path | None) -> ssl.SSLContext:
    """What is trusted: the system's authorities and those in `ca_file`. With a certificate to show, if there is one.

    Raises SettingsError.
    """
    context = ssl.create_default_context()
    if ca_file is not None:
        _readable("ca_file", ca_file)
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError as error:
            raise _wrong("ca_file", ca_file, _NOT_PEM) from error
    if client_cert is not None:
        _readable("client_cert", client_cert)
        if client_key is not None:
            _readable("client_key", client_key)
        _show(context, client_cert, client_key)
    return context


_NOT_PEM = (
    "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----); "
    "if it is in DER form, this converts it: openssl x509 -inform der -in … -out …"
)


def _wrong(key: str, path: Path, what: str) -> SettingsError:
    return SettingsError(f"network.{key}: {path} {what}")


def _readable(key: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise _wrong(key, path, f"can't be read: {error.strerror}") from error


def _show(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    name, path = ("client_key", key) if key else ("client_cert", cert)  # where the key stands

    def no_passphrase() -> str:  # without it OpenSSL would ask at the terminal, and wait
        raise _wrong(name, path, "has an encrypted key; one without a passphrase is needed: openssl pkey -in … -out …")

    try:
        context.load_cert_chain(cert, key, no_passphrase)
    except ssl.SSLError as error:
        if b"-----BEGIN CERTIFICATE" not in cert.read_bytes():
            raise _wrong("client_cert", cert, _NOT_PEM) from error
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _wrong(name, path, "holds a key that does not belong to the certificate") from error
        way_out = "" if key else "; name the file with the key in network.client_key"
        raise _wrong(name, path, f"holds no private key in PEM form{way_out}") from error
