"""Object stores: names, patterns, and what their answers mean, as obstore tells them. Whole loads: tests/end_to_end."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loader.errors import ExportError
from loader.export import remote, stores
from loader.export.address import Access, Changed, Denied, Seen, Trouble, is_pattern, scheme_of, shown
from loader.export.remote import Remote, objects
from loader.network import Proxy

LISTING = """<?xml version="1.0"?><ListBucketResult><Name>exports</Name><IsTruncated>false</IsTruncated>{}
</ListBucketResult>"""
TIME = "2026-11-01T00:00:00.000Z"
ENTRY = f"<Contents><Key>{{}}</Key><LastModified>{TIME}</LastModified><ETag>x</ETag><Size>1</Size></Contents>"


class Bucket(ThreadingHTTPServer):
    """Answers every request the same way."""

    daemon_threads = True
    status = 200
    body = b""
    tag = '"one"'
    size = 10

    @property
    def access(self) -> Access:
        return Access(endpoint=f"http://127.0.0.1:{self.server_port}", region="us-east-1", anonymous=True)


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Bucket

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET(b"")

    def do_GET(self, body: bytes | None = None) -> None:
        data = self.server.body if body is None else body
        self.send_response(self.server.status)
        if "Range" in self.headers and self.server.status == 206:
            self.send_header("Content-Range", f"bytes 0-{len(data) - 1}/{self.server.size}")
        self.send_header("Content-Length", str(len(data) if body is None else self.server.size))
        self.send_header("ETag", self.server.tag)
        self.send_header("Last-Modified", "Sun, 01 Nov 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setattr(remote, "_OPENING_S", 0.05)
    monkeypatch.setattr(
        stores, "_s3", lambda access: {"region": "x", "skip_signature": True, "endpoint": access.endpoint}
    )
    with Bucket(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_pattern_means_objects_of_one_folder_in_byte_order(bucket: Bucket) -> None:
    keys = ["night/b.csv", "night/a-1.csv", "night/a-10.csv", "night/a.txt", "night/more/a-3.csv", "night/a-[1].csv"]
    bucket.body = LISTING.format("".join(map(ENTRY.format, keys))).encode()

    def found(pattern: str) -> list[str]:
        return [str(each).removeprefix("s3://exports/") for each in objects(f"s3://exports/{pattern}", bucket.access)]

    assert found("night/a-*.csv") == ["night/a-1.csv", "night/a-10.csv", "night/a-[1].csv"]
    assert found("night/a-[0-9].csv") == ["night/a-1.csv"]
    assert found("night/a-[1].csv") == ["night/a-1.csv", "night/a-[1].csv"], "by its letters, too"
    assert found("**/a-?.csv") == ["night/a-1.csv", "night/more/a-3.csv"]
    with pytest.raises(ExportError, match=r"no object matches s3://exports/night/z\*"):
        found("night/z*")


def test_an_object_is_what_its_head_says(bucket: Bucket) -> None:
    seen = Remote("s3://exports/users.csv", bucket.access).look()

    assert seen == Seen(10, '"one"', 1_793_491_200_000_000_000)


@pytest.mark.parametrize(
    ("status", "body", "error", "said"),
    [
        (403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>", Denied, "AWS_PROFILE"),
        (400, b"<Error><Code>ExpiredToken</Code><Message>has expired</Message></Error>", Denied, "ExpiredToken: has"),
        (
            404,
            b"<Error><Code>NoSuchBucket</Code><Message>none</Message></Error>",
            Denied,
            "NoSuchBucket",
        ),
        (412, b"", Changed, "^$"),
        (501, b"", Trouble, "501"),
        (503, b"<Error><Code>SlowDown</Code><Message>slower</Message></Error>", Trouble, "SlowDown: slower"),
    ],
)
def test_answers_that_are_no_bytes(bucket: Bucket, status: int, body: bytes, error: type[Exception], said: str) -> None:
    bucket.status, bucket.body = status, body

    with pytest.raises(error, match=said):
        stores.stored("s3://exports/users.csv", bucket.access).fetch(0, 4, Seen(10, '"one"'))


def test_bytes_of_another_version_are_never_taken(bucket: Bucket) -> None:
    """Some stores know no If-Match: their answer is looked at all the same."""
    found = stores.stored("s3://exports/users.csv", bucket.access)
    bucket.status, bucket.body = 206, b"abcd"

    assert bytes(found.fetch(0, 4, Seen(10, '"one"'))) == b"abcd"
    bucket.tag = '"two"'
    with pytest.raises(Changed):
        found.fetch(0, 4, Seen(10, '"one"'))
    bucket.tag, bucket.size = '"one"', 11
    with pytest.raises(Changed):
        found.fetch(0, 4, Seen(10, '"one"'))


def test_a_closed_port_is_trouble(bucket: Bucket) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    access = Access(endpoint=f"http://127.0.0.1:{port}", anonymous=True)

    with pytest.raises(Trouble):
        stores.stored("s3://exports/users.csv", access).look()
    with pytest.raises(ExportError, match="can't read s3"):
        Remote("s3://exports/users.csv", access).look()


def test_an_azure_account_must_be_named() -> None:
    with pytest.raises(ExportError, match=r"(?i)account"):
        Remote("az://exports/users.csv", Access()).look()


def test_a_proxys_password_may_have_any_letter() -> None:
    """obstore takes it in the address, where a slash would end the host, and no client could be made."""
    proxy = Proxy.of("http://me:p%2Fa%23s%40s%25@127.0.0.1:3128")

    assert stores._with_credentials(Proxy("http://h:1", proxy.authorization)) == "http://me:p%2Fa%23s%40s%25@h:1"


def test_names() -> None:
    assert is_pattern("s3://b/u-*.csv")
    assert not is_pattern("https://h/u-*.csv?x=*")
    assert scheme_of("S3://b/k") == "s3"
    assert scheme_of("C:/users.csv") is None
    assert shown("gs://b/what?.csv") == "gs://b/what?.csv"
    assert Remote("s3://b/night/users.csv.gz", Access()).name == "users.csv.gz"


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("s3://exports/users.csv", "obstore.store", "s3"),
        ("s3://exports/users.csv", "botocore.session", "s3"),
        ("gs://exports/users.csv", "google.auth", "gs"),
        ("az://exports/users.csv", "obstore.store", "az"),
        ("https://127.0.0.1:1/users.csv", "urllib3", "https"),
    ],
)
def test_a_package_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for outer in ("botocore", "google"):
        if package.startswith(outer):
            monkeypatch.setitem(sys.modules, outer, None)

    with pytest.raises(ExportError, match=rf"pip install 'directory-loader\[{extra}\]'"):
        Remote(url, Access()).look()


def test_who_can_not_even_begin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is asked: no credentials, or an address that names no object."""

    def stored(_url: str, _access: Access) -> object:
        raise Denied("no credentials were found")

    monkeypatch.setattr(stores, "stored", stored)

    with pytest.raises(ExportError, match=r"export\.path: can't read s3://b/users\.csv: no credentials were found"):
        Remote("s3://b/users.csv", Access()).open(through=False)
