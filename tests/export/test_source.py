"""Bytes of a file, plain or gzip: whole, from any place, and honest about where they break off."""

import gzip
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loader.errors import ExportError, Stopped
from loader.export.source import Fingerprint, Source
from tests import make

DATA = bytes(range(256)) * 40


def source(path: Path, data: bytes, chunk_bytes: int = 1000) -> Source:
    path.write_bytes(data)
    return Source(path, "gzip" if path.suffix == ".gz" else None, chunk_bytes)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["x.csv", "x.csv.gz"]), st.integers(0, len(DATA) + 10), st.integers(1, 3000))
def test_reading_from_a_place_gives_the_rest(tmp_path: Path, name: str, offset: int, chunk_bytes: int) -> None:
    """And its chunks end where they would have ended: so a resumed run makes the same marks."""
    made = source(tmp_path / name, gzip.compress(DATA) if name.endswith(".gz") else DATA, chunk_bytes)

    whole, rest = list(made.chunks()), list(made.chunks(offset))

    assert DATA[offset:] == b"".join(rest)
    assert whole[len(whole) - len(rest) + 1 :] == rest[1:]


@pytest.mark.parametrize("padding", [b"", b"\0", b"\0" * 1000])
def test_gzip_members_are_read_as_one(tmp_path: Path, padding: bytes) -> None:
    """Joined files are one file, empty members and padding between them and at the end included."""
    members = [b"email,d\n", b"", b"ann,1\n"]
    data = padding.join([*map(gzip.compress, members), b""])

    assert b"".join(source(tmp_path / "x.gz", data).chunks()) == b"email,d\nann,1\n"


@pytest.mark.parametrize("cut", [1, 5, 8, 12, 40])
def test_gzip_that_breaks_off_gives_what_it_has_and_says_so(tmp_path: Path, cut: int) -> None:
    """A truncated file is no end of file."""
    made = source(tmp_path / "x.gz", gzip.compress(DATA)[:-cut])

    chunks, message = make.until_stopped(made.chunks())

    assert "breaks off" in message
    assert "start over" in message
    assert DATA.startswith(b"".join(chunks))
    assert len(b"".join(chunks)) > len(DATA) * 0.6


def test_gzip_with_garbage_behind_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    """Bytes behind the end mark are not passed over in silence."""
    chunks, message = make.until_stopped(source(tmp_path / "x.gz", gzip.compress(b"email\n") + b"garbage").chunks())

    assert chunks == [b"email\n"]
    assert "is damaged near byte" in message


def test_a_damaged_checksum_is_seen(tmp_path: Path) -> None:
    """The last bytes of a member are its checksum and length."""
    data = bytearray(gzip.compress(DATA))
    data[-6] ^= 1

    with pytest.raises(Stopped, match="is damaged"):
        list(source(tmp_path / "x.gz", bytes(data)).chunks())


def test_what_is_no_gzip_is_refused(tmp_path: Path) -> None:
    """A plain file under the name of a compressed one: nothing was sent, nothing can be."""
    with pytest.raises(ExportError, match="is not gzip"):
        list(source(tmp_path / "x.gz", b"email,d\n").chunks())


def test_no_bytes_are_no_chunks(tmp_path: Path) -> None:
    """An empty file is left to the format to refuse."""
    assert list(source(tmp_path / "x.csv", b"").chunks()) == []
    assert list(source(tmp_path / "x.gz", b"").chunks()) == []


def test_the_byte_order_mark_is_found_across_chunks(tmp_path: Path) -> None:
    """However small the first chunk is, as the first member of a joined gzip file may be."""
    data = b"".join(gzip.compress(bytes([byte])) for byte in b"\xef\xbb\xbfemail\n")

    assert source(tmp_path / "x.gz", data).byte_order_mark() == b"\xef\xbb\xbf"
    assert source(tmp_path / "x.csv", b"\xef\xbb").byte_order_mark() == b""
    assert source(tmp_path / "y.csv", b"email\n").byte_order_mark() == b""


@pytest.mark.parametrize("name", ["nothing.csv", "folder"])
def test_what_can_not_be_read_is_named(tmp_path: Path, name: str) -> None:
    """The setting, the path and the reason."""
    (tmp_path / "folder").mkdir()

    with pytest.raises(ExportError, match=re.escape(f"export.path: can't read {tmp_path / name}: ")):
        list(Source(tmp_path / name, None).chunks())


def test_the_position_counts_bytes_as_stored(tmp_path: Path) -> None:
    """It is what progress is measured by."""
    data = gzip.compress(DATA)
    made = source(tmp_path / "x.gz", data)
    list(made.chunks())

    assert len(data) == made.position
    assert Fingerprint(len(data), (tmp_path / "x.gz").stat().st_mtime_ns) == made.fingerprint()


def test_a_glance_takes_little(tmp_path: Path) -> None:
    """Before a load its export is looked at several times: nobody waits for that, and none of it counts as read."""
    made = source(tmp_path / "x.csv", DATA * 100, len(DATA) * 100)

    assert len(next(made.glance().chunks())) < len(DATA) * 10
    assert b"".join(made.glance().chunks()) == DATA * 100
    assert made.position == 0


def test_what_is_packed_breaks_off_at_its_last_byte(tmp_path: Path) -> None:
    """However often its beginning was looked at before."""
    data = gzip.compress(b"email,d\n" + b"ann,1\n" * 1000)[:-10]
    made = source(tmp_path / "x.csv.gz", data)
    made.byte_order_mark()

    with pytest.raises(Stopped, match=f"ends at byte {len(data)} "):
        list(made.chunks())


@pytest.mark.parametrize(
    ("content", "encoding", "is_refused"),
    [
        ("Jörg, Zoë, Łukasz".encode(), "cp1252", True),
        ("Jörg, Zoë, Łukasz".encode(), "iso-8859-5", True),
        (b"x" * 3_000_000 + "Jörg, Zoë, Łukasz".encode(), "cp1252", True),
        ("Jörg, Zoë, Łukasz".encode(), "utf-8", False),
        (b"\xef\xbb\xbf" + "Jörg, Zoë, Łukasz".encode(), "cp1252", False),
        ("Jörg, Zoë".encode("cp1252"), "cp1252", False),
        ("Jörg, Zoë, Ã¼, Ã¤, Ã¶".encode("cp1252"), "cp1252", False),
        ("Ã¼ Ã¤".encode("cp1252"), "cp1252", False),
        ("Jörg, Zoë, Łukasz".encode(), "gbk", False),
        ("Jörg, Zoë, Łukasz".encode("utf-16"), "utf-16", False),
        (b"plain", "cp1252", False),
    ],
)
def test_utf8_is_not_taken_for_letters_of_one_byte(
    content: bytes, encoding: str, is_refused: bool, tmp_path: Path
) -> None:
    """Nothing else would show it: each of its bytes is a letter there."""
    path = tmp_path / "users.csv"
    path.write_bytes(content)
    source = Source(path, None, encoding=encoding)

    if is_refused:
        with pytest.raises(ExportError, match=r'users.csv is UTF-8, .* says .*: ö would be sent as .*"utf-8"'):
            source.refuse_utf8_taken_for_another()
    else:
        source.refuse_utf8_taken_for_another()
