"""Exports on a web server: read as files are, by ranges, through drops, and never as two versions in one."""

import bz2
import gzip
import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
import trustme
from anyio import to_thread

from loader.errors import ExportError
from loader.export import columnar, remote
from loader.export.address import Access, line_of, shown
from loader.export.files import Files
from loader.export.remote import Remote
from loader.export.web import _modified, _total
from loader.record import Mark
from loader.span import SpanSet
from tests import make
from tests.export.web_server import WebServer, serving, trust

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROWS = [{"email": f"u{at:05}@example.com", "dept": f"D{at % 7}", "site": "é" * (at % 40)} for at in range(3_000)]
CSV = ("email,dept,site\n" + "".join(f"{row['email']},{row['dept']},{row['site']}\n" for row in ROWS)).encode()
NDJSON = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def arrow(form: str) -> bytes:
    table, sink = pa.Table.from_pylist(ROWS), io.BytesIO()
    if form == "parquet":
        pyarrow.parquet.write_table(table, sink, row_group_size=500)
        return sink.getvalue()
    maker = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with maker(sink, table.schema) as writer:
        writer.write_table(table, 500)
    return sink.getvalue()


FILES = {
    "users.csv": CSV,
    "users.csv.gz": gzip.compress(CSV),
    "users.csv.bz2": bz2.compress(CSV),
    "users.csv.zst": zstd.compress(CSV),
    "users.tsv": CSV.replace(b",", b"\t"),
    "users.ndjson": NDJSON,
    "users.ndjson.gz": gzip.compress(NDJSON),
    "users.json": json.dumps(ROWS).encode(),
    "users.parquet": arrow("parquet"),
    "users.arrow": arrow("file"),
    "stream.arrow": arrow("stream"),
}
TEXTS = [name for name in FILES if "." in name and not name.endswith(("parquet", "arrow"))]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server() -> Iterator[WebServer]:
    with serving(WebServer(dict(FILES))) as served:
        yield served


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small file is several."""
    monkeypatch.setattr(remote, "PIECE_BYTES", 16_384)
    monkeypatch.setattr(remote, "_WINDOW_BYTES", 2_048)
    monkeypatch.setattr(columnar, "BLOCK_ROWS", 200)
    monkeypatch.setattr(remote, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(remote, "_OPENING_S", 0.05)


def export(server: WebServer, name: str = "users.csv", query: str = "", **access: Any) -> Files:
    made = Files.of([Remote(f"{server.url}/{name}{query}", Access(**{"give_up_s": 5.0, **access}))])
    return Files(**{**vars(made), "chunk_bytes": 4_096})


def sent(blocks: Any) -> dict[int, tuple[str, dict[str, Any]]]:
    return make.sent(blocks)


EXPECTED = {
    at: (row["email"], {name: value for name, value in row.items() if name != "email" and value})
    for at, row in enumerate(ROWS, 1)
}


def expected(name: str) -> dict[int, tuple[str, dict[str, Any]]]:
    """In CSV and TSV an empty cell is left out, in the others it is what it is."""
    if "csv" in name or "tsv" in name:
        return EXPECTED
    return {at: (row["email"], {"dept": row["dept"], "site": row["site"]}) for at, row in enumerate(ROWS, 1)}


@pytest.mark.parametrize("name", FILES)
def test_every_format_comes_as_from_a_file(server: WebServer, name: str) -> None:
    made = export(server, name)
    made.check(make.mapping())

    assert sent(made.rows(make.mapping())) == expected(name)
    assert made.fingerprint().size == len(FILES[name])
    assert made.fingerprint().tells


@pytest.mark.parametrize("name", FILES)
def test_reading_goes_on_at_any_mark(server: WebServer, name: str) -> None:
    made = export(server, name)
    marks = [rows.end for rows in made.rows(make.mapping()) if rows.end]

    for mark in [*marks[:: max(len(marks) // 4, 1)], marks[-1]]:
        rest = sent(made.rows(make.mapping(), mark, SpanSet()))

        assert rest == {at: row for at, row in expected(name).items() if at >= mark.row}


def test_text_is_asked_for_from_the_mark_on(server: WebServer) -> None:
    made = export(server)
    marks = [rows.end for rows in made.rows(make.mapping()) if rows.end]
    mark = marks[len(marks) // 2]
    server.asked.clear()

    sent(made.rows(make.mapping(), mark))

    starts = [int(asked.removeprefix("bytes=").partition("-")[0]) for _, asked in server.asked]
    assert mark.offset in starts
    assert not any(4_096 <= start < mark.offset for start in starts), "but for the header"


@pytest.mark.parametrize("name", [*TEXTS, "users.parquet"])
def test_what_breaks_off_is_asked_for_again(server: WebServer, name: str) -> None:
    server.drops, server.fails = 3, 2

    assert sent(export(server, name).rows(make.mapping())) == expected(name)
    assert server.drops == server.fails == 0


@pytest.mark.parametrize("name", ["users.csv", "users.csv.gz", "users.parquet"])
def test_a_file_that_changes_while_it_is_read_stops_the_run(
    server: WebServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.endswith(".gz"):  # more than what is unpacked at a time
        server.files[name] = gzip.compress(CSV * 10, 0)
    else:
        monkeypatch.setattr(remote, "PIECE_BYTES", 512)
        monkeypatch.setattr(remote, "_WINDOW_BYTES", 512)
    rows = export(server, name).rows(make.mapping())
    first = next(rows)
    server.files[name] = b"x" * len(server.files[name])

    blocks, message = make.until_stopped(rows)

    assert f"{server.url}/{name} has changed while it was read" in message
    found = sent([first, *blocks])
    assert all(found[at] == row for at, row in expected(name).items() if at in found)


def test_without_tags_the_time_and_the_size_tell_a_change(server: WebServer) -> None:
    server.has_tags = False
    rows = export(server).rows(make.mapping())
    next(rows)
    server.has_times = False

    assert "has changed" in make.until_stopped(rows)[1]

    rows = export(server).rows(make.mapping())
    next(rows)
    server.files["users.csv"] += b"more,1,2\n"

    assert "has changed" in make.until_stopped(rows)[1]


def test_trouble_that_lasts_stops_behind_the_last_whole_row(server: WebServer) -> None:
    rows = export(server, give_up_s=0.05).rows(make.mapping())
    first = next(rows)
    server.fails = 10_000

    blocks, message = make.until_stopped(rows)

    assert "reading the export failed" in message
    assert "the server says 503" in message
    assert "and for 0.05 s no better" in message
    found = sent([first, *blocks])
    assert found == {at: EXPECTED[at] for at in range(1, len(found) + 1)}


def test_what_is_refused_in_the_middle_stops_at_once(server: WebServer) -> None:
    rows = export(server, give_up_s=600.0).rows(make.mapping())
    next(rows)
    server.fails, server.status = 10_000, 403

    _, message = make.until_stopped(rows)

    assert "403" in message
    assert "get a new one" in message


@pytest.mark.parametrize(
    ("status", "way_out"), [(401, "export.storage.headers"), (403, "get a new one"), (404, "right?"), (503, "503")]
)
def test_a_file_that_cant_be_opened_is_refused_with_a_way_out(server: WebServer, status: int, way_out: str) -> None:
    server.fails, server.status = 10_000, status

    with pytest.raises(ExportError, match="can't read") as refused:
        export(server, query="?signature=secret").check(make.mapping())

    assert way_out in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_closed_port_is_refused(server: WebServer) -> None:
    made = Files.of([Remote("http://127.0.0.1:9/users.csv", Access())])

    with pytest.raises(ExportError, match=r"can.t read http://127\.0\.0\.1:9/users\.csv"):
        made.check(make.mapping())


# What a server can't do


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_without_ranges_it_is_read_from_the_beginning_each_time(
    server: WebServer, name: str, *, is_chunked: bool
) -> None:
    server.has_ranges, server.is_chunked = False, is_chunked
    made = export(server, name)
    blocks = list(made.rows(make.mapping()))
    marks = [rows.end for rows in blocks if rows.end]
    server.drops = 3

    assert sent(blocks) == expected(name)
    assert sent(made.rows(make.mapping(), marks[-2])) == {
        at: row for at, row in expected(name).items() if at >= marks[-2].row
    }
    assert server.drops == 0
    assert made.fingerprint().size == (0 if is_chunked else len(FILES[name]))


@pytest.mark.parametrize("is_chunked", [False, True])
def test_without_ranges_all_of_it_comes_once(server: WebServer, *, is_chunked: bool) -> None:
    server.has_ranges, server.is_chunked = False, is_chunked
    file = Remote(f"{server.url}/users.csv", Access()).open(through=True)

    assert file.read(len(CSV) + 1) == CSV
    assert file.read(1) == b""
    assert server.asked == [("users.csv", "bytes=0-0"), ("users.csv", "")]


@pytest.mark.parametrize("name", TEXTS)
def test_an_end_that_nobody_tells_is_taken_for_none(server: WebServer, name: str) -> None:
    """Whether the connection broke off can't be seen then, but by what is packed: that knows its end."""
    server.has_ranges, server.is_endless = False, True
    made = export(server, name)
    if not name.endswith((".gz", ".bz2", ".zst")):
        with pytest.raises(ExportError, match=r"tells neither how long it is nor where it ends.*\.gz, \.zst"):
            made.check(make.mapping())
        return

    assert sent(made.rows(make.mapping())) == expected(name)
    server.drops = 9
    blocks, message = make.until_stopped(made.rows(make.mapping()))
    assert len(make.sent(blocks)) < len(ROWS)
    assert "breaks off" in message


def test_a_server_that_tells_its_end_no_more_is_trouble(server: WebServer) -> None:
    server.has_ranges, server.is_chunked = False, True
    made = Remote(f"{server.url}/users.csv", Access(give_up_s=0.05)).open(through=True)
    server.is_chunked, server.is_endless = False, True

    with pytest.raises(ExportError, match="the server told before where it ends, and doesn't now"):
        made.read()


def test_without_ranges_a_change_stops_the_run_too(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.has_ranges = False
    server.files["users.csv"] = CSV * 40  # more than what may be under way when it changes
    made = export(server)
    rows = made.rows(make.mapping())
    next(rows)
    server.drops = 1
    server.files["users.csv"] = b"y" + CSV[1:] * 40

    rest = make.until_stopped(rows)[1]

    assert rest == "" or "has changed" in rest  # all of it was under way, or it was seen


@pytest.mark.parametrize("name", ["users.parquet", "users.arrow"])
def test_an_index_at_the_end_needs_ranges(server: WebServer, name: str) -> None:
    server.has_ranges = False

    with pytest.raises(ExportError, match="takes no ranges; get the file"):
        export(server, name).check(make.mapping())


def test_where_neither_tag_nor_time_is_known_the_content_tells(server: WebServer) -> None:
    server.has_tags = server.has_times = False
    made = export(server)
    marks = [rows.end for rows in made.rows(make.mapping()) if rows.end]

    assert not made.fingerprint().tells
    assert made.is_same_up_to(marks, make.mapping())
    server.files["users.csv"] = CSV.replace(b"D3", b"D4", 1)
    assert not made.is_same_up_to(marks, make.mapping())


def test_an_empty_file_is_one(server: WebServer) -> None:
    server.files["users.csv"] = b""

    with pytest.raises(ExportError, match="is empty"):
        export(server).check(make.mapping())


# The way there


def test_a_private_authority_is_trusted_if_it_is_named(tmp_path: Path, authority: trustme.CA) -> None:
    with serving(WebServer(dict(FILES)), authority) as server:
        made = export(server, "users.csv.gz", ca_file=trust(tmp_path, authority))

        assert sent(made.rows(make.mapping())) == EXPECTED
        with pytest.raises(ExportError, match=r"certificate is not trusted.*network\.ca_file"):
            export(server, "users.csv.gz").check(make.mapping())


def test_headers_are_sent_and_read_anew(server: WebServer) -> None:
    server.wants = {"Authorization": "Bearer one"}
    with pytest.raises(ExportError, match="403"):
        export(server).check(make.mapping())

    rows = export(server, headers=lambda: server.wants).rows(make.mapping())
    first = next(rows)
    server.wants = {"Authorization": "Bearer two"}

    assert sent([first, *rows]) == EXPECTED


def test_headers_stay_with_their_host(server: WebServer) -> None:
    with serving(WebServer(dict(FILES))) as other:
        server.moved["here.csv"] = "/users.csv"
        server.moved["there.csv"] = f"{other.url}/users.csv"

        for name in ("here.csv", "there.csv"):
            made = export(server, name, headers=lambda: {"X-Api-Key": "secret"})
            assert sent(made.rows(make.mapping())) == EXPECTED

    assert all(headers["x-api-key"] == "secret" for headers in server.seen)
    assert other.seen
    assert not any("x-api-key" in headers for headers in other.seen)


@pytest.mark.parametrize("to", ["http://127.0.0.1:1/users.csv?secret=1", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_redirect_never_leads_from_https_to_less(tmp_path: Path, authority: trustme.CA, to: str) -> None:
    with serving(WebServer(moved={"users.csv": to}), authority) as server:
        made = export(server, ca_file=trust(tmp_path, authority))

        with pytest.raises(ExportError, match="only https is followed") as refused:
            made.check(make.mapping())
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize("to", ["https://[secret/", "https://127.0.0.1:99999/", "http://127.0.0.1:secret/"])
def test_a_redirect_to_what_is_no_address_is_refused(server: WebServer, to: str) -> None:
    server.moved["users.csv"] = to

    with pytest.raises(ExportError, match="leads to what is no address") as refused:
        export(server).check(make.mapping())
    assert "secret" not in str(refused.value)


def test_who_asks_is_not_shown_of_a_redirect(server: WebServer) -> None:
    server.moved["users.csv"] = "http://me:secret@example.com/users.csv"

    with pytest.raises(ExportError, match=r"leads to http://example\.com/users\.csv, and only https") as refused:
        export(server).check(make.mapping())
    assert "secret" not in str(refused.value)


def test_a_header_that_http_cant_send_is_refused_without_being_shown(server: WebServer) -> None:
    made = Files.of([Remote(f"{server.url}/users.csv", Access(headers=lambda: {"X-Api-Key": "ключ"}))])

    with pytest.raises(ExportError, match=r"export\.storage\.headers has letters that HTTP can't send") as refused:
        made.check(make.mapping())
    assert "ключ" not in str(refused.value)


@pytest.mark.parametrize(
    "headers",
    [{"Content-Range": "bytes 0-0/" + "9" * 5_000}, {"Last-Modified": "Mon, 01 Jan 2020 00:00:00 +" + "9" * 30}],
)
def test_figures_that_no_machine_holds_are_none(headers: dict[str, str]) -> None:
    assert _total(headers) is None
    assert _modified(headers) == 0


def test_redirects_without_end_are_refused(server: WebServer) -> None:
    server.moved["users.csv"] = "/users.csv"

    with pytest.raises(ExportError, match="on and on"):
        export(server).check(make.mapping())


# Ahead of the reader, and not too far


def test_ranges_are_asked_for_ahead_and_no_more_than_a_few(server: WebServer) -> None:
    server.latency_s = 0.05
    with Remote(f"{server.url}/users.csv", Access()).open(through=True) as file:
        file.read(remote._WINDOW_BYTES)
        time.sleep(0.1)
        assert len(server.asked) == 1 + remote._AT_ONCE
        begin = time.monotonic()
        file.read()

    pieces = len(CSV) / remote.PIECE_BYTES
    assert time.monotonic() - begin < server.latency_s * pieces


def test_only_the_columns_that_are_read_come_out_of_parquet(server: WebServer) -> None:
    wide = [row | {"pad": "".join(chr(33 + (at * k) % 90) for k in range(200))} for at, row in enumerate(ROWS)]
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(wide), sink, compression="none", use_dictionary=False)
    server.files["wide.parquet"] = sink.getvalue()

    found = sent(export(server, "wide.parquet").rows(make.mapping(attributes={"d": "dept"})))

    sizes = [[int(part) for part in asked.removeprefix("bytes=").split("-")] for _, asked in server.asked]
    assert len(found) == len(ROWS)
    assert sum(last - first for first, last in sizes) < len(sink.getvalue()) / 3


async def test_whoever_waits_for_a_silent_server_can_be_cancelled(server: WebServer) -> None:
    server.latency_s = 20.0
    rows = export(server).rows(make.mapping())
    begin = time.monotonic()

    with anyio.move_on_after(0.2) as scope:
        await to_thread.run_sync(lambda: next(rows))

    assert scope.cancelled_caught
    assert time.monotonic() - begin < 2.0


def test_no_thread_outlives_a_file_that_is_closed(server: WebServer) -> None:
    before = set(threading.enumerate())
    rows = export(server).rows(make.mapping())
    next(rows)
    server.fails = 10_000
    rows.close()  # type: ignore[attr-defined]

    end = time.monotonic() + 5
    while any(thread.name == "loader-remote" for thread in set(threading.enumerate()) - before):
        assert time.monotonic() < end
        time.sleep(0.01)


# Files that Arrow reads


def test_a_file_reads_like_any_other(server: WebServer) -> None:
    with Remote(f"{server.url}/users.csv", Access()).open(through=False) as file:
        assert file.seek(-10, io.SEEK_END) == len(CSV) - 10
        assert file.read() == CSV[-10:]
        assert file.read(5) == b""
        file.seek(1_000)
        assert file.read(40_000) == CSV[1_000:41_000]
        assert file.seek(-100, io.SEEK_CUR) == 40_900
        room = bytearray(50)
        assert file.readinto(room) == 50
        assert bytes(room) == CSV[40_900:40_950]
        assert file.tell() == 40_950


# Names


def test_what_stands_behind_the_question_mark_is_shown_nowhere() -> None:
    made = Remote("https://example.com/exports/users.csv.gz?X-Amz-Signature=secret", Access())

    assert str(made) == "https://example.com/exports/users.csv.gz?…"
    assert made.name == "users.csv.gz"
    assert "secret" not in repr(made)
    assert "secret" not in repr(Files.of([made]))
    assert shown("s3://bucket/what?.csv") == "s3://bucket/what?.csv"
    with pytest.raises(ExportError, match="kept nowhere; give the whole address"):
        Remote(str(made), Access()).look()


@pytest.mark.parametrize(
    "query", ["name=users(1).csv&sig=secret", "a='b'&sig=secret", "a=<b>&sig=secret", 'a="&b=secret']
)
def test_no_letter_of_a_query_ends_what_is_hidden(query: str) -> None:
    assert shown(f"https://example.com/users.csv?{query}") == "https://example.com/users.csv?…"
    assert line_of(OSError(f"can't get https://example.com/users.csv?{query}")) == (
        "can't get https://example.com/users.csv?…"
    )


def test_a_mark_at_the_very_end_asks_for_nothing_more(server: WebServer) -> None:
    made = export(server)
    last = [rows.end for rows in made.rows(make.mapping()) if rows.end][-1]

    assert isinstance(last, Mark)
    assert sent(made.rows(make.mapping(), last)) == {}
