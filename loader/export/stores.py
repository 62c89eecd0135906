"""Objects in S3, Google Cloud Storage and Azure Blob Storage, and in what speaks as they do.

obstore reads them: it asks for a range of one version (`If-Match`), where pyarrow.fs gave bytes that were never there
when an object changed while it was read (measured: five bytes of the new one, then zeros). Who we are is found as the
vendors' own tools find it: by botocore and google-auth, and for Azure by obstore itself.
"""

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, NoReturn
from urllib.parse import urlsplit

from loader.errors import ExportError
from loader.export.address import Access, Changed, Denied, Seen, Trouble, line_of, missing, scheme_of
from loader.network import Proxy

#: Credentials that don't say how long they hold are asked for again after so long.
_CREDENTIALS_HOLD = timedelta(minutes=10)
_READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"
_TIMEOUTS = {"connect_timeout": "10s", "read_timeout": "30s", "timeout": "300s"}
_STATUS = re.compile(r"status code: (\d{3})")
_SAID = re.compile(r"<(Code|Message)>([^<]*)<")
_HOSTS = {
    "s3": "https://s3.amazonaws.com",
    "gs": "https://storage.googleapis.com",
    "az": "https://blob.core.windows.net",
}
_WAYS_OUT = {
    "s3": "AWS_PROFILE, AWS_ACCESS_KEY_ID or the role of the machine says who is asking (aws sts get-caller-identity)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, gcloud auth application-default login or the machine's account says who",
    "az": "AZURE_STORAGE_ACCOUNT_KEY, AZURE_CLIENT_ID and so on, or the machine's identity says who is asking",
}


class _Stored:
    """One object."""

    def __init__(self, store: Any, key: str, scheme: str) -> None:
        self._store = store
        self._key = key
        self._scheme = scheme

    def look(self) -> Seen:
        import obstore

        try:
            found = obstore.head(self._store, self._key)
        except Exception as error:  # noqa: BLE001  # obstore's errors have no base in common with Python's own
            _explain(error, self._scheme)
        return Seen(found["size"], found["e_tag"] or "", int(found["last_modified"].timestamp() * 1e9))

    def fetch(self, start: int, stop: int, seen: Seen) -> memoryview:
        import obstore

        try:
            answer = obstore.get(self._store, self._key, options={"range": (start, stop), "if_match": seen.tag or None})
            if answer.meta["size"] != seen.size or (answer.meta["e_tag"] or "") != seen.tag:  # it knows no If-Match
                raise Changed
            data = memoryview(answer.bytes())
        except Changed:
            raise
        except Exception as error:  # noqa: BLE001  # as above
            _explain(error, self._scheme)
        if len(data) != stop - start:
            raise Trouble(f"the answer has {len(data):,} bytes instead of {stop - start:,}")
        return data

    def stream(self, seen: Seen) -> Iterator[bytes]:
        raise AssertionError("every store takes ranges")


def stored(url: str, access: Access) -> _Stored:
    """The object at `s3://bucket/key` and the like. Raises Denied if there can't be one."""
    scheme, bucket, key = _parts(url)
    if not key or key.endswith("/"):
        raise Denied(f"it names no object; write {scheme}://{bucket or 'bucket'}/path/to/users.csv")
    return _Stored(_store(scheme, bucket, access), key, scheme)


def listed(url: str, access: Access) -> list[str]:
    """The addresses of all objects that the pattern means; `*` stays within a folder, `**` does not."""
    import obstore

    scheme, bucket, pattern = _parts(url)
    store = _store(scheme, bucket, access)
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
    is_flat = "/" not in pattern[len(fixed) :].lstrip("/") and "**" not in pattern
    try:
        flat = obstore.list_with_delimiter(store, fixed or None)["objects"] if is_flat else ()
        deep = () if is_flat else chain.from_iterable(obstore.list(store, fixed or None))
        keys = [each["path"] for each in chain(flat, deep)]
    except Exception as error:  # noqa: BLE001  # as above
        _explain(error, scheme)
    return [f"{scheme}://{bucket}/{key}" for key in keys if key == pattern or _fits(key.split("/"), pattern.split("/"))]


def _fits(key: list[str], pattern: list[str]) -> bool:
    """Does a key fit a pattern, folder by folder as in a shell, with `**` for any number of them?"""
    if not pattern:
        return not key
    if pattern[0] == "**":
        return _fits(key, pattern[1:]) or (bool(key) and _fits(key[1:], pattern))
    return bool(key) and fnmatchcase(key[0], pattern[0]) and _fits(key[1:], pattern[1:])


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and key. The key is taken as it stands: in it `%` and `?` are letters."""
    scheme = scheme_of(url) or ""
    bucket, _, key = url.partition("://")[2].partition("/")
    return scheme, bucket, key


def _store(scheme: str, bucket: str, access: Access) -> Any:
    where = f"{scheme}://{bucket}"
    if where not in access.connections:
        try:
            import obstore.store as stores
        except ImportError as error:
            raise missing(f"an export in {scheme}://", scheme) from error
        options: dict[str, Any] = {
            "client_options": _client_options(scheme, access),
            "retry_config": {"max_retries": 0},
        }  # ours count
        try:
            match scheme:
                case "s3":
                    store: Any = stores.S3Store(bucket, **_s3(access), **options)
                case "gs":
                    store = stores.GCSStore(bucket, **_gs(access), **options)
                case _:
                    store = stores.AzureStore(bucket, **_az(access), **options)
        except (Denied, ExportError):
            raise
        except Exception as error:  # as above
            raise Denied(line_of(error)) from error
        access.connections[where] = store
    return access.connections[where]


def _client_options(scheme: str, access: Access) -> dict[str, Any]:
    address = access.endpoint or _HOSTS[scheme]
    options: dict[str, Any] = {**_TIMEOUTS, "allow_http": urlsplit(address).scheme == "http"}  # settings: loopback only
    if access.ca_file is not None:
        options["root_certificate"] = access.ca_file.read_bytes()
    if proxy := access.proxy(address):
        options["proxy_url"] = _with_credentials(proxy)
    return options


def _with_credentials(proxy: Proxy) -> str:
    """A proxy's address as obstore takes it."""
    if proxy.authorization is None:
        return proxy.url
    scheme, _, host = proxy.url.partition("://")
    return f"{scheme}://{base64.b64decode(proxy.authorization.removeprefix('Basic ')).decode()}@{host}"


def _s3(access: Access) -> dict[str, Any]:
    try:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
    except ImportError as error:
        raise missing("an export in s3://", "s3") from error
    options: dict[str, Any] = {"skip_signature": True} if access.anonymous else {}
    try:
        session = Session()
        options["region"] = access.region or session.get_config_variable("region") or "us-east-1"
        if access.endpoint:
            options["endpoint"] = access.endpoint
        if access.anonymous:
            return options
        credentials = session.get_credentials()
    except BotoCoreError as error:
        raise Denied(f"{line_of(error)}; {_WAYS_OUT['s3']}") from error
    if credentials is None:
        raise Denied(f"no credentials were found; {_WAYS_OUT['s3']}; or set export.storage.anonymous = true")

    def provide() -> dict[str, Any]:
        now = credentials.get_frozen_credentials()  # renewed by botocore, where they can be
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_HOLD,
        }

    return options | {"credential_provider": provide}


def _gs(access: Access) -> dict[str, Any]:
    options: dict[str, Any] = {"base_url": access.endpoint} if access.endpoint else {}
    if access.anonymous:
        return options | {"skip_signature": True}
    try:
        import google.auth
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request
    except ImportError as error:
        raise missing("an export in gs://", "gs") from error
    try:
        credentials, _ = google.auth.default(scopes=[_READ_ONLY])
    except GoogleAuthError as error:
        raise Denied(f"{line_of(error)}; {_WAYS_OUT['gs']}; or set export.storage.anonymous = true") from error

    def provide() -> dict[str, Any]:
        if not credentials.valid:
            credentials.refresh(Request())
        return {"token": credentials.token, "expires_at": datetime.now(UTC) + timedelta(minutes=2)}

    return options | {"credential_provider": provide}


def _az(access: Access) -> dict[str, Any]:
    options: dict[str, Any] = {"endpoint": access.endpoint} if access.endpoint else {}
    if access.account:
        options["account_name"] = access.account
    if access.anonymous:
        options["skip_signature"] = True
    return options


def _explain(error: Exception, scheme: str) -> NoReturn:
    """Raise what obstore's error means. It says the status in words alone, and S3's own words stand in XML."""
    import obstore.exceptions as found

    text = str(error)
    status = int(match[1]) if (match := _STATUS.search(text)) else 0
    said = ": ".join(value for _, value in _SAID.findall(text)) or f"{status or line_of(error)}"
    if isinstance(error, found.PreconditionError) or status == 412:
        raise Changed from error
    if isinstance(error, FileNotFoundError) or status == 404:
        raise Denied("there is no such object" + (f" ({said})" if said != "404" else "")) from error
    if isinstance(error, found.PermissionDeniedError | found.UnauthenticatedError) or status in (401, 403):
        raise Denied(f"access is denied ({said}); {_WAYS_OUT[scheme]}") from error
    if "Token" in said and status == 400:  # S3 says 400 to what has expired
        raise Denied(f"the credentials are refused ({said}); {_WAYS_OUT[scheme]}") from error
    if status in (301, 307) and scheme == "s3":
        raise Denied("the bucket is in another region; set export.storage.region") from error
    if isinstance(error, ValueError | found.InvalidPathError | found.NotSupportedError | TypeError) or (
        300 <= status < 500 and status not in (408, 429)
    ):
        raise Denied(said) from error
    raise Trouble(said) from error
