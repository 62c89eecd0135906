"""Whole loads from a file over real sockets into the served sandbox, with the checkpoint on disk."""

import gzip
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from loader.checkpoint import Checkpoint, Moment, ResultRow
from loader.errors import ExportError, LoaderError, SettingsError, Stopped
from loader.lane import Lane
from loader.load import load
from loader.progress import Tally
from loader.resume import begin
from loader.sandbox import CalvenOptions, FaultOptions, LedgerOptions, Options, RosterOptions, Sandbox, serve
from loader.settings import Settings, load_settings
from loader.snapshot import Snapshot

T = TypeVar("T")

KEY_ID, SECRET = "KEY-ID-0001", "a-secret-of-the-test"


class Job:
    """One load in a folder: an export, a sandbox, and runs of `load` over them."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.warnings: list[str] = []
        self.seen: list[Snapshot] = []
        self.tally: Tally | None = None
        self.set: list[str] = []
        self.lane: Lane | None = None

    @property
    def settings(self) -> Settings:
        text = f"""
            [export]
            path = "users.csv"
            [mapping]
            user = "email"
            [target]
            api = "calven"
            base_url = "{self.sandbox.url}"
            [target.auth]
            scheme = "client-secret"
            key_id = "{KEY_ID}"
            secret = "file:secret"
            [limits]
            users_per_request = 20
            concurrency = 4
        """
        (self.folder / "load.toml").write_text(text)
        return load_settings(self.folder / "load.toml", self.set)

    def write(self, rows: int, *more: str) -> None:
        lines = ["email,dept", *(f"user{row:05}@example.com,d{row}" for row in range(1, rows + 1)), *more]
        (self.folder / "users.csv").write_text("\n".join(lines) + "\n")

    async def run(self) -> LoaderError | None:
        """One run of the load; the error that ended it, if one did."""
        settings = await anyio.to_thread.run_sync(lambda: self.settings)
        path = settings.checkpoint_path
        checkpoint = await anyio.to_thread.run_sync(lambda: Checkpoint.open(path, create=True))
        try:
            resume = await anyio.to_thread.run_sync(
                lambda: begin(checkpoint, settings.identity(), settings.source, settings.row_mapping())
            )
            self.lane = Lane(settings.limits.give_up_s)
            self.tally = await load(settings, checkpoint, resume, self.lane, self.seen.append, self.warnings.append)
        except LoaderError as error:
            return error
        finally:
            await anyio.to_thread.run_sync(checkpoint.__exit__, None, None, None)
        return None

    async def results(self) -> list[ResultRow]:
        return await self._read(lambda checkpoint: list(checkpoint.results()))

    async def codes(self) -> Counter[str]:
        return Counter(row.code for row in await self.results())

    async def is_finished(self) -> bool:
        return await self._read(lambda checkpoint: checkpoint.get("finished_at") is not None)

    async def noted(self) -> tuple[Snapshot | None, list[Moment]]:
        """The last moment of the load, and its course."""
        return await self._read(lambda checkpoint: (checkpoint.now(), checkpoint.course()))

    async def _read(self, what: Callable[[Checkpoint], T]) -> T:
        def read() -> T:
            with Checkpoint.read(self.folder / "users.ckpt") as checkpoint:
                return what(checkpoint)

        return await anyio.to_thread.run_sync(read)


@asynccontextmanager
async def job(folder: Path, **options: Any) -> AsyncIterator[Job]:
    (folder / "secret").write_text(SECRET + "\n")
    async with serve(Options(**{"calven": CalvenOptions(key_id=KEY_ID, secret=SECRET), **options})) as sandbox:
        yield Job(folder, sandbox)


async def test_a_load_from_end_to_end(tmp_path: Path) -> None:
    """Each row has its outcome in order of row, and the ledger holds what the export held."""
    async with job(tmp_path, roster=RosterOptions(unknown=re.compile("user00007"))) as one:
        one.write(500, "ragged", "user00003@example.com,changed", ",no key")
        error = await one.run()

        assert error is None
        assert one.tally is not None
        assert one.tally.exit_status == 1
        assert one.tally.counts == {"SUCCESS": 500, "USER_NOT_FOUND": 1, "REJECTED": 2}
        assert [row.row for row in await one.results()] == list(range(1, 504))
        assert await one.is_finished()
        now, course = await one.noted()
        assert now is not None
        assert now == one.seen[-1], "the last moment is noted, and whoever watches is told of it"
        assert (now.rows, now.wire.requests, now.wire.on_wire, now.stopping) == (503, 26, 0, "")
        assert course[-1].rows == 503
        ledger = one.sandbox.ledger.users
        assert len(ledger) == 499
        assert ledger["user00003@example.com"].attributes == {"dept": "changed"}
        assert ledger["user00500@example.com"].attributes == {"dept": "d500"}


@pytest.mark.parametrize("text", ["email,dept\n", "email,dept"])
async def test_an_export_of_a_header_alone_is_done_at_once(tmp_path: Path, text: str) -> None:
    async with job(tmp_path) as one:
        (tmp_path / "users.csv").write_text(text)

        assert await one.run() is None
        assert one.tally is not None
        assert (one.tally.rows, one.tally.exit_status) == (0, 0)
        assert one.sandbox.stats.arrivals == {}
        assert await one.is_finished()


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "empty"), ("name,dept\na,b\n", "no column 'email'"), ("email,email\na,b\n", "twice")],
)
async def test_an_export_that_can_not_be_loaded_sends_nothing(tmp_path: Path, text: str, message: str) -> None:
    async with job(tmp_path) as one:
        (tmp_path / "users.csv").write_text(text)
        error = await one.run()

        assert isinstance(error, ExportError)
        assert error.exit_status == 2
        assert message in str(error)
        assert one.sandbox.stats.arrivals == {}


async def test_a_secret_that_is_missing_sends_nothing(tmp_path: Path) -> None:
    async with job(tmp_path) as one:
        one.write(10)
        (tmp_path / "secret").unlink()
        error = await one.run()

        assert isinstance(error, SettingsError)
        assert one.sandbox.stats.arrivals == {}


async def test_a_stopped_load_goes_on_where_it_ended(tmp_path: Path) -> None:
    """Nothing is lost and nothing that was durable is sent twice; the counts go on."""
    async with job(tmp_path, faults=FaultOptions(latency_s=0.02), ledger=LedgerOptions(journal=True)) as one:
        one.write(2000)

        async def stop() -> None:
            while one.sandbox.ledger.writes < 300:  # noqa: ASYNC110  # nothing tells of it
                await anyio.sleep(0.005)
            assert one.lane is not None
            one.lane.stop(Stopped("enough for today"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop)
            error = await one.run()
        settled = len(await one.results())

        assert str(error) == "enough for today"
        assert 300 <= settled < 2000
        assert not await one.is_finished()
        assert one.sandbox.ledger.writes == settled

        assert await one.run() is None
        assert await one.codes() == {"SUCCESS": 2000}
        assert one.sandbox.ledger.writes == 2000
        assert await one.is_finished()


async def test_a_gzip_that_breaks_off_stops_behind_its_last_whole_row(tmp_path: Path) -> None:
    """All rows before are sent and settled first; exit 3."""
    async with job(tmp_path) as one:
        one.set = ['export.path="users.csv.gz"']
        lines = ["email,dept", *(f"user{row:05}@example.com,{os.urandom(40).hex()}" for row in range(20_000))]
        data = gzip.compress("\n".join(lines).encode())
        (tmp_path / "users.csv.gz").write_bytes(data[: len(data) * 3 // 4])
        error = await one.run()

        assert isinstance(error, Stopped)
        assert "breaks off" in str(error)
        assert 10_000 < len(await one.results()) == one.sandbox.ledger.writes
        assert not await one.is_finished()


async def test_wrong_credentials_stop_the_load(tmp_path: Path) -> None:
    """Exit 3, nothing settled, the API's words and no secret in the message."""
    async with job(tmp_path) as one:
        one.write(100)
        (tmp_path / "secret").write_text("not-the-secret-at-all")
        error = await one.run()

        assert isinstance(error, Stopped)
        assert "no token was given: HTTP 401" in str(error)
        assert "not-the-secret" not in str(error)
        assert await one.results() == []


async def test_tokens_end_in_mid_load(tmp_path: Path) -> None:
    """The secret's file is read off the event loop for each token call; nobody notices."""
    calven = CalvenOptions(key_id=KEY_ID, secret=SECRET, token_lifetime_s=0.2)
    async with job(tmp_path, calven=calven, faults=FaultOptions(latency_s=0.02)) as one:
        one.write(2000)

        assert await one.run() is None
        assert await one.codes() == {"SUCCESS": 2000}
        assert one.sandbox.stats.arrivals["token"] > 1


async def test_nobody_listens(tmp_path: Path) -> None:
    """A closed port is trouble with the target: exit 3 after give_up_s, and nothing is settled."""
    async with job(tmp_path) as one:
        one.write(10)
        one.set = ["limits.give_up_s=0.5", 'target.base_url="http://127.0.0.1:9"']
        error = await one.run()

        assert isinstance(error, Stopped)
        assert "no usable answer for" in str(error)
        assert "can't connect to 127.0.0.1:9: Connection refused" in str(error)
        assert await one.results() == []


async def test_an_export_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    """The load is not called finished: what was settled may be of the old content."""
    async with job(tmp_path, faults=FaultOptions(latency_s=0.05)) as one:
        one.write(500)

        async def touch() -> None:
            while not one.sandbox.ledger.writes:  # noqa: ASYNC110  # nothing tells of it
                await anyio.sleep(0.005)
            os.utime(tmp_path / "users.csv", (1, 1))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(touch)
            error = await one.run()

        assert isinstance(error, Stopped)
        assert "changed while it was read" in str(error)
        assert not await one.is_finished()


async def test_a_load_through_faults(tmp_path: Path) -> None:
    """5xx, cut connections, 429 and wrong answers over real sockets: all users arrive, each counted once."""
    faults = FaultOptions(
        seed=3,
        latency_s=0.005,
        rates={"500": 0.1, "reset": 0.05, "lost": 0.05, "torn": 0.05, "429": 0.05, "missing": 0.1, "garbage": 0.05},
        retry_after="decimal",
        retry_after_s=0.05,
    )
    async with job(tmp_path, faults=faults) as one:
        one.write(600)
        error = await one.run()

        assert error is None
        assert await one.codes() == {"SUCCESS": 600}
        assert len(one.sandbox.ledger.users) == 600


async def test_cancellation_leaves_a_checkpoint_that_resumes(tmp_path: Path) -> None:
    async with job(tmp_path, faults=FaultOptions(latency_s=0.02)) as one:
        one.write(2000)
        with anyio.move_on_after(0.15) as scope:
            await one.run()
        assert scope.cancelled_caught
        assert len(await one.results()) < 2000

        assert await one.run() is None
        assert await one.codes() == {"SUCCESS": 2000}
