"""The dashboard: live, read-only, and for nobody who was not told its address."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import msgspec
import pytest

from loader.errors import Refused
from loader.outcome import Code
from loader.show.dashboard import Live, dashboard, prepared
from loader.show.telemetry import About
from loader.snapshot import Failure, Snapshot, Trouble

ABOUT = About("calven", "api.calven.com", "/data/<b>users</b>.csv")
FAILURE = Failure(3, "jane", Code.INVALID, "<i>")
NOW = Snapshot(1e9, 3, {Code.SUCCESS: 2, Code.INVALID: 1}, 0.5, 1.0, 2.0, 3.0, 4.0, failures=(FAILURE,))


@asynccontextmanager
async def shown(said: list[str]) -> AsyncIterator[Callable[[Snapshot], None]]:
    with prepared(0) as at:
        async with dashboard(at, ABOUT, said.append) as watch:
            yield watch


@asynccontextmanager
async def asking() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield session


async def test_each_snapshot_is_told_as_it_comes_and_the_end(tmp_path: Path) -> None:
    said: list[str] = []
    events: list[tuple[str, object]] = []

    async def listen(url: str) -> None:
        kind = ""
        async with asking() as session, session.get(url) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            async for line in answer.content:
                if line.startswith(b"event: "):
                    kind = line[7:].decode().strip()
                elif line.startswith(b"data: "):
                    events.append((kind, json.loads(line[6:])))

    async with anyio.create_task_group() as tasks, shown(said) as watch:
        tasks.start_soon(listen, said[0].rpartition(" ")[2].replace("/?", "/events?"))
        await anyio.sleep(0.1)
        watch(NOW)
        await anyio.sleep(0.1)

    assert [kind for kind, _ in events] == ["now", "now", "end"]
    assert events[0][1] is None
    last = events[-1][1]
    assert isinstance(last, dict)
    assert last["now"]["rows"] == 3
    outcomes = [(each["code"], each["is_good"]) for each in last["now"]["outcomes"]]
    assert outcomes == [("SUCCESS", True), ("INVALID", False)]
    assert last["now"]["failures"][0]["user"] == "jane"
    assert last["course"]["rows"] == [3]
    assert last["now"]["waits"] == ""


def test_a_target_that_is_down_is_no_healthy_load() -> None:
    live = Live()
    live.watch(msgspec.structs.replace(NOW, trouble=Trouble("down", "Connection refused", NOW.at)))

    now = json.loads(live.data())["now"]
    assert now["waits"] == "the target is down; the last error: Connection refused"
    assert now["waits"] not in now["words"]


async def test_who_does_not_know_the_token_gets_nothing() -> None:
    """Nor does a page whose name leads to this machine, nor one that would change something."""
    said: list[str] = []
    async with shown(said) as watch, asking() as session:
        watch(NOW)
        url = said[0].rpartition(" ")[2]
        bare = url.partition("?")[0]
        statuses = []
        for address in (bare, f"{bare}events", f"{bare}?token=wrong", f"{bare}events?token="):
            async with session.get(address) as answer:
                statuses.append(answer.status)
                assert "users" not in await answer.text()
        async with session.get(url, headers={"Host": "attacker.example"}) as answer:
            statuses.append(answer.status)
        async with session.post(url) as answer:
            statuses.append(answer.status)

    assert statuses == [403] * 5 + [405]
    assert bare.startswith("http://127.0.0.1:")
    assert len(url.partition("token=")[2]) >= 32


@pytest.mark.parametrize(
    ("path", "host"), [("/?token=%C3%A9", "127.0.0.1"), ("/?token=%FF", "localhost"), ("/?token=x", "["), ("//[", "[")]
)
async def test_nonsense_is_forbidden_and_writes_nothing(caplog: pytest.LogCaptureFixture, path: str, host: str) -> None:
    """Any page in a browser may ask; a traceback would stand on the screen of the run."""
    said: list[str] = []
    async with shown(said):
        port = int(said[0].rpartition(":")[2].partition("/")[0])
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert (await stream.receive()).startswith(b"HTTP/1.1 403 ")
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"\x00\xff\r\n\r\n")
            assert b" 400 " in await stream.receive()

    assert not caplog.records


async def test_the_page_loads_nothing_and_escapes_what_it_shows() -> None:
    said: list[str] = []
    async with shown(said), asking() as session, session.get(said[0].rpartition(" ")[2]) as answer:
        text = await answer.text()

    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "<b>" not in text
    assert 'src="' not in text


async def test_a_port_in_use_is_refused() -> None:
    said: list[str] = []
    async with shown(said):
        port = int(said[0].rpartition(":")[2].partition("/")[0])
        with (
            pytest.raises(Refused, match=f"--dashboard: can't listen at 127.0.0.1:{port}: Address already in use"),
            prepared(port),
        ):
            raise AssertionError("it is in use")


async def test_a_long_run_is_drawn_from_fewer_moments() -> None:
    live = Live()
    for second in range(20_000):
        live.watch(Snapshot(float(second), second, {}, None, 1.0, 1.0, float(second), None))
    course = json.loads(live.data())["course"]

    assert len(course["at"]) <= 1_200
    assert course["at"][-1] == 19_999
    assert course["at"][0] == 0
