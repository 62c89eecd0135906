"""The loader inside other programs: real sockets into the served sandbox; moments of cancelling in virtual time."""

import asyncio
import logging
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import anyio
import pyarrow as pa
import pytest
from anyio.from_thread import start_blocking_portal

import loader
import loader.load
from loader.checkpoint import Checkpoint
from loader.errors import TimedOut
from loader.network import Network
from loader.request import Request, Response
from loader.sandbox import CalvenOptions, FaultOptions, Memory, Options, RosterOptions, Sandbox, serve
from tests.virtual_time import run_virtual, virtual_time

KEY_ID, SECRET = "KEY-ID-0001", "a-secret-of-the-test"

USERS = [{"email": f"user{row:05}@example.com", "dept": f"d{row}"} for row in range(1, 1001)]
LEDGER = {user["email"]: {"dept": user["dept"]} for user in USERS}


def options(**more: Any) -> Options:
    return Options(**{"calven": CalvenOptions(key_id=KEY_ID, secret=SECRET), **more})


def tables(url: str, **more: Any) -> dict[str, Any]:
    """Settings as a mapping."""
    auth = {"scheme": "client-secret", "key_id": KEY_ID, "secret": SECRET}
    return {
        "mapping": {"user": "email"},
        "target": {"api": "calven", "base_url": url, "auth": auth},
        "limits": {"users_per_request": 20, "concurrency": 4},
        **more,
    }


def ledger(sandbox: Sandbox | Memory) -> dict[str, Any]:
    return {user: dict(held.attributes) for user, held in sandbox.ledger.users.items()}


def a_file(folder: Path, users: Iterable[dict[str, str]] = USERS) -> dict[str, Any]:
    """`[export]` of a file with these users."""
    lines = ["email,dept", *(f"{user['email']},{user['dept']}" for user in users)]
    (folder / "users.csv").write_text("\n".join(lines) + "\n")
    return {"path": folder / "users.csv"}


def names(folder: Path, pattern: str) -> list[str]:
    return [path.name for path in folder.glob(pattern)]


@contextmanager
def sandbox_on_a_thread(**more: Any) -> Iterator[Sandbox]:
    """For tests that have no event loop of their own."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serve(options(**more))) as sandbox:
        yield sandbox


async def stand(path: Path) -> loader.Report:
    """How the load stands; asked on a thread, as it reads a file."""
    return await asyncio.to_thread(loader.status, path)


async def table(report: loader.Report, *codes: str) -> pa.Table:
    return await asyncio.to_thread(lambda: report.results(codes).read_all())


async def outcomes(path: Path) -> Counter[str]:
    """Rows by code; each row has one."""
    rows = await table(await stand(path))
    assert rows["row"].to_pylist() == list(range(1, len(rows) + 1))
    return Counter(rows["code"].to_pylist())


# What is public


def test_all_that_is_public_is_there_and_says_what_it_is() -> None:
    for name in loader.__all__:
        assert getattr(loader, name).__doc__, name
    assert set(loader.__all__) <= set(dir(loader))
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        loader.opne  # noqa: B018


# A load


async def test_a_load_from_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Settings, overrides, snapshots, a report; and nothing is printed."""
    seen: list[loader.Snapshot] = []
    async with serve(options(roster=RosterOptions(unknown=re.compile("user00007")))) as sandbox:
        settings = tables(sandbox.url, export=a_file(tmp_path))
        overrides = {"limits.concurrency": 1, "checkpoint.path": tmp_path / "other.ckpt"}
        async with loader.open(settings, overrides=overrides, watch=seen.append) as load:
            report = await load.run()

    assert report.counts == {"SUCCESS": 999, "USER_NOT_FOUND": 1}
    assert (report.rows, report.failures, report.exit_status) == (1000, 1, 1)
    assert report.finished
    assert report.stopped == ""
    assert report.elapsed_s > 0
    assert report.checkpoint == tmp_path / "other.ckpt"
    assert report == (await stand(tmp_path / "other.ckpt"))
    assert seen[-1].rows == 1000
    assert ledger(sandbox) == {user: held for user, held in LEDGER.items() if "00007" not in user}
    assert capfd.readouterr() == ("", "")


def test_one_line_for_those_without_an_event_loop(tmp_path: Path) -> None:
    with sandbox_on_a_thread() as sandbox:
        settings = tables(sandbox.url, export=a_file(tmp_path))
        first = loader.run(settings, first=30)
        again = loader.run(settings)

        assert (first.rows, first.finished, first.exit_status) == (30, False, 0)
        assert (again.rows, again.finished) == (1000, True)
        assert ledger(sandbox) == LEDGER


async def test_the_one_line_is_not_for_an_event_loop(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"async with loader\.open"):
        loader.run(tmp_path / "load.toml")


def test_another_event_loop_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with loader.open(tmp_path / "load.toml"):
            pass

    started = main()
    with pytest.raises(RuntimeError, match="asyncio"):
        started.send(None)  # as any loop but asyncio's would


@pytest.fixture
def heeds_interrupts() -> Iterator[None]:
    """As a program that a person starts: what a shell starts in the background begins with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_what_is_on_the_wire_and_is_raised(tmp_path: Path, heeds_interrupts: None) -> None:
    """As with any program that asyncio runs; the load goes on from there."""

    def interrupt(now: loader.Snapshot) -> None:
        if now.rows:
            signal.raise_signal(signal.SIGINT)

    with sandbox_on_a_thread(faults=FaultOptions(latency_s=0.2)) as sandbox:
        settings = tables(sandbox.url, export=a_file(tmp_path))
        with pytest.raises(KeyboardInterrupt):
            loader.run(settings, watch=interrupt)
        assert 0 < loader.status(tmp_path / "users.ckpt").rows < 1000
        assert loader.run(settings).finished
        assert ledger(sandbox) == LEDGER
        assert sandbox.ledger.writes == 1000, "nothing was sent twice"


async def test_rows_so_far_and_then_the_rest(tmp_path: Path) -> None:
    """One load may be run again and again while it is held."""
    async with serve(options()) as sandbox, loader.open(tables(sandbox.url, export=a_file(tmp_path))) as load:
        first = await load.run(first=10)
        rest = await load.run()
        finished = await load.run()

    assert (first.rows, first.finished, first.stopped, first.exit_status) == (10, False, "", 0)
    assert rest == finished
    assert rest.counts == {"SUCCESS": 1000}
    assert ledger(sandbox) == LEDGER


async def test_what_failed_is_sent_again(tmp_path: Path) -> None:
    roster = RosterOptions(unknown=re.compile("user0000[1-3]"))
    async with (
        serve(options(roster=roster)) as sandbox,
        loader.open(tables(sandbox.url, export=a_file(tmp_path))) as load,
    ):
        assert (await load.run()).counts == {"SUCCESS": 997, "USER_NOT_FOUND": 3}
        assert (await load.retry()).counts == {"SUCCESS": 997, "USER_NOT_FOUND": 3}
        assert (await load.run(fresh=True, first=5)).rows == 5
    assert len(names(tmp_path, "users.ckpt.*")) == 1, "the old checkpoint is kept"


async def test_a_hierarchy_goes_whole(tmp_path: Path) -> None:
    rows = [{"group": name, "groupType": "Team", "parent": None, "parentType": None} for name in "abc"]
    async with serve(options()) as sandbox:
        settings = tables(sandbox.url, mapping={}, limits={})
        settings["target"]["api"] = "calven-hierarchy"
        report = await run_once(settings, export=rows, checkpoint=tmp_path / "groups.ckpt")

    assert report.counts == {"SUCCESS": 3}
    assert (tmp_path / "groups.state").exists()


async def run_once(settings: Any, **more: Any) -> loader.Report:
    async with loader.open(settings, **more) as load:
        return await load.run()


# What is in memory

TABLE = pa.Table.from_pylist(USERS)


def rows_of_duckdb() -> Any:
    import duckdb

    return duckdb.connect().sql(
        "select format('user{:05d}@example.com', i) as email, 'd' || i as dept from range(1, 1001) t(i) order by i"
    )


def a_frame(name: str) -> Any:
    return import_module(name).DataFrame(USERS)


async def async_users(most: int = 1000) -> AsyncIterator[dict[str, str]]:
    for user in USERS[:most]:
        await asyncio.sleep(0)
        yield dict(user)
    if most < len(USERS):
        raise OSError("the cable")


EXPORTS: dict[str, Callable[[], Any]] = {
    "a table": lambda: TABLE,
    "a reader": lambda: TABLE.to_reader(max_chunksize=64),
    "polars": lambda: a_frame("polars"),
    "pandas": lambda: a_frame("pandas"),
    "anything": lambda: SimpleNamespace(__arrow_c_stream__=TABLE.__arrow_c_stream__),
    "duckdb": rows_of_duckdb,
    "dicts": lambda: USERS,
    "a generator": lambda: (dict(user) for user in USERS),
    "an async generator": async_users,
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.soak) if kind == "pandas" else kind for kind in EXPORTS]
)
async def test_an_export_in_memory(tmp_path: Path, kind: str) -> None:
    """Interrupted, and gone on with when it is given again."""
    async with serve(options()) as sandbox:
        settings = tables(sandbox.url, export={"path": "of another use of these settings.csv"})
        path = tmp_path / "users.ckpt"
        first = await run_once(settings, export=EXPORTS[kind](), checkpoint=path, overrides={})
        assert first.counts == {"SUCCESS": 1000}
        assert ledger(sandbox) == LEDGER

        path.unlink()
        async with loader.open(settings, export=EXPORTS[kind](), checkpoint=path) as load:
            assert (await load.run(first=30)).rows == 30
        assert (await run_once(settings, export=EXPORTS[kind](), checkpoint=path)).finished
        assert await outcomes(path) == {"SUCCESS": 1000}


async def test_another_export_in_memory_is_refused(tmp_path: Path) -> None:
    """Rows that were read before, and have changed, are seen before anything is sent."""
    many = [{"email": f"user{row:05}@example.com", "dept": "d" * 1000} for row in range(1000)]  # of several blocks
    async with serve(options()) as sandbox:
        path = tmp_path / "users.ckpt"
        async with loader.open(tables(sandbox.url), export=many, checkpoint=path) as load:
            await load.run(first=600)
        writes = sandbox.ledger.writes
        with pytest.raises(loader.LoaderError, match="not what it was"):
            await run_once(tables(sandbox.url), export=[{**many[0], "dept": "other"}, *many[1:]], checkpoint=path)
        assert sandbox.ledger.writes == writes
        assert (await run_once(tables(sandbox.url), export=many, checkpoint=path)).counts == {"SUCCESS": 1000}


async def test_an_export_in_memory_is_read_as_it_is_sent(tmp_path: Path) -> None:
    """Not all of it, and then the first request: here the generator sees what the target has by then."""
    behind = 0

    def users() -> Iterator[dict[str, str]]:
        nonlocal behind
        for row in range(40_000):
            behind = max(behind, row - len(sandbox.ledger.users))
            yield {"email": f"user{row:05}@example.com", "dept": "d" * 100}

    async with serve(options()) as sandbox:
        settings = tables(sandbox.url, limits={"users_per_request": 100, "concurrency": 2})
        report = await run_once(settings, export=users(), checkpoint=tmp_path / "users.ckpt")

    assert report.counts == {"SUCCESS": 40_000}
    assert behind < 15_000


def sync_users(most: int = 1000) -> Iterator[dict[str, str]]:
    yield from USERS[:most]
    if most < len(USERS):
        raise OSError("the cable")


@pytest.mark.parametrize("users", [sync_users, async_users])
async def test_an_export_that_breaks_off_is_kept_up_to_there(tmp_path: Path, users: Callable[..., Any]) -> None:
    async with serve(options()) as sandbox:
        path = tmp_path / "users.ckpt"
        with pytest.raises(loader.Stopped, match=r"break off behind row 500 .*the cable"):
            await run_once(tables(sandbox.url), export=users(500), checkpoint=path)
        assert await outcomes(path) == {"SUCCESS": 500}
        assert (await run_once(tables(sandbox.url), export=users(1000), checkpoint=path)).finished
        assert sandbox.ledger.writes == 1000


def slow_users() -> Iterator[dict[str, str]]:
    for user in USERS:
        time.sleep(0.2)
        yield user


async def slow_async_users() -> AsyncIterator[dict[str, str]]:
    for user in USERS:
        await asyncio.sleep(60)
        yield user


@pytest.mark.parametrize("users", [slow_users, slow_async_users])
async def test_a_slow_export_does_not_keep_a_load_from_ending(tmp_path: Path, users: Callable[[], Any]) -> None:
    """It is waited for, for one user at most; neither to open it nor to run it goes on for its own sake."""
    async with serve(options()) as sandbox:
        with anyio.move_on_after(0.5) as scope:
            await run_once(tables(sandbox.url), export=users(), checkpoint=tmp_path / "users.ckpt")
    assert scope.cancelled_caught
    assert not names(tmp_path, "*.lock")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"export": USERS}, "checkpoint.path is missing: an export in memory"),
        ({"export": "users.csv", "checkpoint": "a.ckpt"}, "the export is str"),
        ({}, "export is missing"),
        ({"overrides": {"limits.concurency": 4}}, "did you mean concurrency"),
        ({"overrides": {"limits.attempts": 1, "limits.attempts.x": 4}}, "attempts is not a table"),
    ],
)
async def test_what_is_wrong_is_told_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = tables("http://127.0.0.1:9")
    if "overrides" in given:
        settings["export"] = a_file(tmp_path)
    with pytest.raises(loader.Refused, match=message):
        async with loader.open(settings, **given):
            pass
    assert not names(tmp_path, "*.ckpt*")


async def test_a_settings_file_is_named_and_its_folder_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And credentials that stand in it are warned of, on the logger."""
    a_file(tmp_path)
    text = f"""
        export.path = "users.csv"
        mapping.user = "email"
        limits.concurency = 4
        [target]
        api = "calven"
        base_url = "http://127.0.0.1:9"
        auth = {{ scheme = "client-secret", key_id = "{KEY_ID}", secret = "{SECRET}" }}
    """
    (tmp_path / "load.toml").write_text(text)
    with pytest.raises(loader.SettingsError, match=r"load\.toml: limits\.concurency"):
        await run_once(str(tmp_path / "load.toml"))
    (tmp_path / "load.toml").write_text(text.replace("concurency", "concurrency"))

    async with loader.open(tmp_path / "load.toml") as load:
        assert isinstance(load, loader.Load)
        assert names(tmp_path, "users.ckpt*") == ["users.ckpt.lock"]

    assert [(record.name, record.levelname) for record in caplog.records] == [("loader", "WARNING")]
    assert "target.auth.secret is given as plain text" in caplog.text
    assert SECRET not in caplog.text


async def test_a_mapping_is_not_changed(tmp_path: Path) -> None:
    settings = tables("http://127.0.0.1:9", export=a_file(tmp_path))
    before = repr(settings)
    async with loader.open(settings, overrides={"limits.concurrency": 1}, checkpoint=tmp_path / "a.ckpt"):
        pass
    assert repr(settings) == before


# Others


async def test_a_load_that_is_held_is_nobody_elses(tmp_path: Path) -> None:
    settings = tables("http://127.0.0.1:9", export=a_file(tmp_path))
    async with loader.open(settings):
        with pytest.raises(loader.CheckpointError, match=f"in use by another run.*{os.getpid()}"):
            async with loader.open(settings):
                pass
    async with loader.open(settings):
        pass
    assert not names(tmp_path, "*.lock")


async def test_several_loads_at_once(tmp_path: Path) -> None:
    """And other tasks go on beside them."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    async with serve(options(faults=FaultOptions(latency_s=0.02))) as sandbox:
        beside = asyncio.create_task(others())
        parts = [USERS[start::4] for start in range(4)]
        reports = await asyncio.gather(
            *(
                run_once(tables(sandbox.url), export=part, checkpoint=tmp_path / f"{number}.ckpt")
                for number, part in enumerate(parts)
            )
        )
        beside.cancel()

    assert [report.counts for report in reports] == [{"SUCCESS": 250}] * 4
    assert ledger(sandbox) == LEDGER
    assert turns > 1


async def test_one_run_at_a_time(tmp_path: Path) -> None:
    async with serve(options(faults=FaultOptions(latency_s=0.1))) as sandbox:
        async with loader.open(tables(sandbox.url, export=a_file(tmp_path))) as load:
            running = asyncio.create_task(load.run())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="is being run"):
                await load.run()
            await running
        with pytest.raises(RuntimeError, match="not held"):
            await load.run()


# How it ends


async def test_what_ends_a_run_is_raised(tmp_path: Path) -> None:
    """Alone, not in a group, as the command line tells it."""
    settings = tables("http://127.0.0.1:9", export=a_file(tmp_path))
    settings["limits"]["give_up_s"] = 0.2
    async with loader.open(settings) as load:
        with pytest.raises(loader.Stopped, match="no usable answer"):
            await load.run()
        with pytest.raises(loader.Refused, match="--full"):
            await load.run(full=True)
        with pytest.raises(ValueError, match="at least 1"):
            await load.run(first=0)
    assert "no usable answer" in (await stand(tmp_path / "users.ckpt")).stopped


async def test_a_stop_lets_what_is_on_the_wire_finish(tmp_path: Path) -> None:
    """It is reported, and it is for good."""
    async with serve(options(faults=FaultOptions(latency_s=0.1))) as sandbox:
        settings = tables(sandbox.url, export=a_file(tmp_path))
        async with loader.open(settings) as load:
            running = asyncio.create_task(load.run())
            await some_sent(sandbox)
            load.stop("the window is over")
            report = await running
            assert not report.finished
            assert 0 < report.rows < 1000
            assert report.stopped == "the window is over; what was settled is kept"
            assert report.exit_status == 3
            assert (await load.run()).rows == report.rows
        assert sandbox.ledger.writes == report.rows, "none of it unsettled"
        assert (await stand(report.checkpoint)).stopped == report.stopped
        assert (await run_once(settings)).finished
        assert sandbox.ledger.writes == 1000
    assert ledger(sandbox) == LEDGER


async def test_a_time_to_stop_at(tmp_path: Path) -> None:
    async with (
        serve(options(faults=FaultOptions(latency_s=0.1))) as sandbox,
        loader.open(tables(sandbox.url, export=a_file(tmp_path))) as load,
    ):
        report = await load.run(until=datetime.now() + timedelta(seconds=0.4))  # noqa: DTZ005  # local time
        assert (await load.run()).finished
    assert "as --until says" in report.stopped
    assert report.rows < 1000


async def test_an_error_of_whoever_watches_ends_the_run(tmp_path: Path) -> None:
    def fails(_snapshot: loader.Snapshot) -> None:
        raise ZeroDivisionError

    async with serve(options(faults=FaultOptions(latency_s=0.1))) as sandbox:
        settings = tables(sandbox.url, export=a_file(tmp_path))
        with pytest.raises(ZeroDivisionError):
            await run_once(settings, watch=fails)
        assert (await run_once(settings)).finished
        assert ledger(sandbox) == LEDGER
    assert await outcomes(tmp_path / "users.ckpt") == {"SUCCESS": 1000}


async def test_to_leave_a_load_ends_its_run(tmp_path: Path) -> None:
    async with serve(options(faults=FaultOptions(latency_s=0.1))) as sandbox:
        settings = tables(sandbox.url, export=a_file(tmp_path))
        async with loader.open(settings) as load:
            running = asyncio.create_task(load.run())
            await some_sent(sandbox)
        report = await running
        assert "was left" in report.stopped
        assert sandbox.ledger.writes == report.rows < 1000
        assert (await run_once(settings)).finished


async def test_a_few_warnings_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "loader")
    async with serve(options(faults=FaultOptions(rates={"foreign": 1.0}))) as sandbox:
        settings = tables(sandbox.url, export=a_file(tmp_path))
        async with loader.open(settings) as load:
            await load.run(first=500)
            await load.run()
    levels = Counter(record.levelname for record in caplog.records)
    assert levels["WARNING"] == 10, "five a run"
    assert "going on behind 500 settled rows" in caplog.text


# Results


async def test_results_come_as_arrow(tmp_path: Path) -> None:
    users = [*USERS, {"email": "", "dept": "d"}, {"email": "user00007@example.com", "dept": "again"}]
    async with serve(options(roster=RosterOptions(unknown=re.compile("user0000[78]")))) as sandbox:
        report = await run_once(tables(sandbox.url, export=a_file(tmp_path, users)))

    found = await table(report, "USER_NOT_FOUND")
    assert found.to_pylist()[0] == {
        "row": 7,
        "user": "user00007@example.com",
        "code": "USER_NOT_FOUND",
        "message": "User not found",
        "target_code": "1",
        "http_status": 200,
        "attempts": 1,
    }
    assert found["row"].to_pylist() == [7, 8, 1002]
    (rejected,) = (await table(report, "REJECTED")).to_pylist()
    assert (rejected["row"], rejected["http_status"], rejected["attempts"]) == (1001, None, 0)
    assert len(await table(report)) == 1002
    with pytest.raises(loader.Refused, match="'NOT_FOUND' is not an outcome"):
        report.results("NOT_FOUND")
    with pytest.raises(loader.CheckpointError):
        await stand(tmp_path / "none.ckpt")


def test_results_are_read_in_bounded_memory(tmp_path: Path) -> None:
    """A few thousand rows at a time, and what is read half is closed."""
    from tests import make

    with Checkpoint.open(tmp_path / "users.ckpt", create=True) as checkpoint:
        for first in range(1, 50_001, 1000):
            users = [f"user{row}" for row in range(first, first + 1000)]
            checkpoint.commit([make.entry(make.batch(users, first))])
    loader.status(tmp_path / "users.ckpt").results("SUCCESS")  # never read: nothing is left open
    reader = loader.status(tmp_path / "users.ckpt").results()

    sizes = [reader.read_next_batch().num_rows for _ in range(2)]
    assert sizes == [10_000, 10_000]
    assert sum(batch.num_rows for batch in reader) == 30_000


# Cancelled, at any moment


async def some_sent(sandbox: Sandbox) -> None:
    """Until the target has something new, and not all."""
    before = sandbox.ledger.writes
    while sandbox.ledger.writes == before:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_a_cancelled_load_is_gone_on_with(tmp_path: Path) -> None:
    """By asyncio's timeout, or a scope of anyio's: what is on the wire is settled first, and the lock is free."""
    async with serve(options(faults=FaultOptions(latency_s=0.1))) as sandbox:
        settings = tables(sandbox.url, export=a_file(tmp_path))

        async def timed_out() -> None:
            async with asyncio.timeout(None) as timeout:
                running = asyncio.ensure_future(run_once(settings))
                await some_sent(sandbox)
                timeout.reschedule(asyncio.get_running_loop().time())
                await running

        with pytest.raises(TimeoutError):
            await timed_out()
        rows = (await stand(tmp_path / "users.ckpt")).rows
        assert 0 < rows < 1000
        assert sandbox.ledger.writes == rows

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_once, settings)
            await some_sent(sandbox)
            tasks.cancel_scope.cancel()
        report = await stand(tmp_path / "users.ckpt")
        assert report.rows == sandbox.ledger.writes > rows
        assert "cancelled" in report.stopped

        assert (await run_once(settings)).finished
        assert sandbox.ledger.writes == 1000
    assert ledger(sandbox) == LEDGER
    assert await outcomes(tmp_path / "users.ckpt") == {"SUCCESS": 1000}


async def test_cancelled_again_it_ends_at_once(tmp_path: Path) -> None:
    async with serve(options(faults=FaultOptions(latency_s=3))) as sandbox:
        settings = tables(sandbox.url, export=a_file(tmp_path))
        running = asyncio.create_task(run_once(settings))
        await asyncio.sleep(0.5)
        running.cancel()
        await asyncio.sleep(0.1)
        assert not running.done()
        running.cancel()
        async with asyncio.timeout(2.3):
            with pytest.raises(asyncio.CancelledError):
                await running
        assert not names(tmp_path, "*.lock")
        sandbox.faults = FaultOptions()
        assert (await run_once(settings)).finished
        assert ledger(sandbox) == LEDGER


class _Wire:
    """Takes the place of the transport: the sandbox in memory, in virtual time. What is sent takes effect anyway."""

    def __init__(self, memory: Memory, *_: Any, network: Network) -> None:
        self._memory = memory

    async def __aenter__(self) -> "_Wire":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __call__(self, request: Request) -> Response:
        try:
            with anyio.fail_after(30):
                return await asyncio.shield(asyncio.create_task(self._memory(request)))
        except TimeoutError:
            raise TimedOut("no whole answer") from None


@asynccontextmanager
async def in_virtual_time(**more: Any) -> AsyncIterator[Memory]:
    memory = Memory(options(**more), clock=asyncio.get_running_loop().time)
    with patch.object(loader.load, "Transport", partial(_Wire, memory)):
        yield memory
    while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110  # what the API has begun, it ends
        await asyncio.sleep(1)


async def cancelled_again_and_again(folder: Path, seed: int, *, patient: bool, **more: Any) -> tuple[int, int]:
    """A load of 1,000 users in lives that are cancelled; how many, and users sent. `patient`: each but once."""
    dice = random.Random(seed)
    lives = 0
    async with in_virtual_time(faults=FaultOptions(latency_s=1.0)) as memory:
        settings = tables("http://127.0.0.1:9", export=a_file(folder), **more)
        while True:
            running = asyncio.create_task(run_once(settings))
            lives += 1
            await asyncio.sleep(dice.choice([0, dice.uniform(0, 6)]))
            running.cancel()
            if not patient and dice.random() < 0.7:
                await asyncio.sleep(dice.choice([0, dice.uniform(0, 1.5)]))
                running.cancel()
            await asyncio.wait({running})
            assert not names(folder, "*.lock")
            if not running.cancelled():
                assert running.result().finished
                break
    assert ledger(memory) == LEDGER
    assert await outcomes(folder / "users.ckpt") == {"SUCCESS": 1000}
    return lives, memory.ledger.writes


@pytest.mark.parametrize("seed", range(12))
def test_cancelled_at_any_moment_nothing_is_lost(tmp_path: Path, seed: int) -> None:
    """Each life may be cancelled once, and then at once: at most what promise 2 allows is sent again each time."""
    lives, sent = run_virtual(cancelled_again_and_again(tmp_path, seed, patient=False))

    assert lives > 1
    assert 1000 <= sent <= 1000 + lives * 2 * 4 * 20


@pytest.mark.parametrize("seed", range(12, 20))
def test_cancelled_once_nothing_is_sent_twice(tmp_path: Path, seed: int) -> None:
    """Whatever was on the wire is settled before the cancellation is raised."""
    lives, sent = run_virtual(cancelled_again_and_again(tmp_path, seed, patient=True))

    assert lives > 1
    assert sent == 1000


@pytest.mark.parametrize("seed", range(20, 24))
def test_a_refresh_is_cancelled_at_any_moment(tmp_path: Path, seed: int) -> None:
    """While it compares, sends, or marks in its state who was acknowledged: the next night nobody is sent."""
    refresh = {"refresh": {"mode": "changed"}}
    run_virtual(cancelled_again_and_again(tmp_path, seed, patient=False, **refresh))

    async def next_night() -> None:
        async with in_virtual_time() as memory:
            settings = tables("http://127.0.0.1:9", export={"path": tmp_path / "users.csv"}, **refresh)
            assert (await run_once(settings)).counts == {"UNCHANGED": 1000}
            assert memory.ledger.writes == 0

    run_virtual(next_night())


@virtual_time
async def test_a_refresh_that_is_cancelled_before_it_sends_has_changed_nothing(tmp_path: Path) -> None:
    """While it compares; what was there of the night before still counts."""
    async with in_virtual_time() as memory:
        settings = tables("http://127.0.0.1:9", export=a_file(tmp_path), refresh={"mode": "changed"})
        assert (await run_once(settings)).counts == {"SUCCESS": 1000}
        changed = [*USERS[:-1], {**USERS[-1], "dept": "other"}]
        settings["export"] = a_file(tmp_path, changed)
        async with loader.open(settings) as load:
            running = asyncio.create_task(load.run())
            await asyncio.sleep(0)
            load.stop()
            report = await running
            assert (report.rows, report.finished, report.exit_status) == (0, False, 3)
        assert memory.ledger.writes == 1000
        assert (await run_once(settings)).counts == {"UNCHANGED": 999, "SUCCESS": 1}
        assert memory.ledger.writes == 1001
