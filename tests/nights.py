"""Nights of a refresh: an export anew each time, a run of the load, and what must be true of the ledger afterwards."""

import csv
import io
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import anyio

from loader.checkpoint import Checkpoint, ResultRow
from loader.errors import LoaderError
from loader.lane import Lane
from loader.load import load
from loader.refresh.night import Compared, Options, Refresh
from loader.sandbox import CalvenOptions, DxOptions, LedgerOptions, RosterOptions, Sandbox, serve
from loader.sandbox import Options as SandboxOptions
from loader.sandbox.roster import Roster
from loader.settings import Settings, load_settings
from loader.snapshot import Snapshot

T = TypeVar("T")
Users = Mapping[str, Mapping[str, str]]

TOKEN = "a-token-of-the-test"
_TARGETS = {
    "calven": 'api = "calven"\n[target.auth]\nscheme = "client-secret"\nkey_id = "KEY"\nsecret = "file:secret"',
    "dx": 'api = "dx"\n[target.auth]\nscheme = "bearer"\ntoken = "file:secret"\n[limits]\nrequests_per_minute = 1e6',
}
_LIMITS = {"calven": "users_per_request = 7\nconcurrency = 3", "dx": "concurrency = 3"}


def _ignore(_snapshot: Snapshot) -> None:
    pass


def text_of(rows: Sequence[tuple[str, Mapping[str, str]]], names: Sequence[str]) -> str:
    """Rows as CSV."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(("email", *names))
    lines.writerows((user, *(values.get(name, "") for name in names)) for user, values in rows)
    return out.getvalue()


@contextmanager
def _locked(refresh: Refresh, night: AbstractContextManager[T]) -> Iterator[T]:
    with refresh.locked(), night as begun:
        yield begun


@dataclass
class Nights:
    """One folder, one directory, and a load that is run again and again."""

    folder: Path
    sandbox: Sandbox
    api: str = "calven"
    refresh: str = ""
    names: Sequence[str] = ("dept", "site")
    limits: str = ""
    set: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    written: int = 0

    @property
    def settings(self) -> Settings:
        target, _, rest = _TARGETS[self.api].partition("\n[target.auth]")
        limits = "" if "[limits]" in rest else "[limits]\n"
        text = (
            f'[export]\npath = "users.csv"\n[mapping]\nuser = "email"\n[target]\n{target}\n'
            f'base_url = "{self.sandbox.url}"\n[target.auth]{rest}\n{limits}{_LIMITS[self.api]}\n{self.limits}\n'
            f'[refresh]\nmode = "changed"\n{self.refresh}\n'
        )
        (self.folder / "load.toml").write_text(text)
        return load_settings(self.folder / "load.toml", self.set)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "users.ckpt"

    @property
    def state(self) -> Path:
        return self.folder / "users.state"

    def write(self, users: Users | Sequence[tuple[str, Mapping[str, str]]]) -> None:
        """Tonight's export."""
        rows = list(users.items()) if isinstance(users, Mapping) else list(users)
        (self.folder / "users.csv").write_text(text_of(rows, self.names))

    def ready(self) -> tuple[Settings, Refresh]:
        """The settings, and the refresh that they mean."""
        settings = self.settings
        rules = settings.refresh_rules
        assert rules is not None
        mapping = settings.row_mapping()
        return settings, Refresh(rules, settings.identity(), settings.source, mapping, self.said.append)

    async def run(
        self,
        options: Options | None = None,
        *,
        judge: Callable[[Compared], None] = lambda _: None,
        first: int | None = None,
        is_retry: bool = False,
    ) -> LoaderError | None:
        """One run; the error that ended it, if one did."""
        self.said.clear()
        settings, refresh = await _threaded(self.ready)
        before = self.sandbox.ledger.writes
        try:
            if is_retry:
                opened = _locked(refresh, refresh.retrying(settings.checkpoint_path))
            else:
                opened = _locked(refresh, refresh.night(settings.checkpoint_path, options or Options(), judge))
            checkpoint, resume = await _threaded(opened.__enter__)
            try:
                if not resume.is_finished:
                    await load(
                        settings, checkpoint, resume, Lane(settings.limits.give_up_s), _ignore, self.said.append, first
                    )
            finally:
                with anyio.CancelScope(shield=True):
                    await _threaded(lambda: opened.__exit__(None, None, None))
        except LoaderError as error:
            return error
        finally:
            self.written = self.sandbox.ledger.writes - before
        return None

    async def crash(self, writes: int = 30) -> None:
        """A run that ends as if it were killed, when the target has taken so many users.

        The state hears nothing of it.
        """
        settings, refresh = await _threaded(self.ready)
        dying = _Dying(**{each.name: getattr(refresh, each.name) for each in fields(Refresh)})
        opened = _locked(dying, dying.night(settings.checkpoint_path))
        before = self.sandbox.ledger.writes
        checkpoint, resume = await _threaded(opened.__enter__)
        dying.is_dead.append(True)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._kill, tasks.cancel_scope, before + writes)
                await load(settings, checkpoint, resume, Lane(settings.limits.give_up_s), _ignore, self.said.append)
                tasks.cancel_scope.cancel()
        except* LoaderError:
            pass  # it stopped by itself before
        finally:
            with anyio.CancelScope(shield=True):
                await _threaded(lambda: opened.__exit__(None, None, None))
        self.written = self.sandbox.ledger.writes - before

    async def _kill(self, run: anyio.CancelScope, writes: int) -> None:
        while self.sandbox.ledger.writes < writes:  # noqa: ASYNC110  # a ledger tells nobody
            await anyio.sleep(0.001)
        run.cancel()

    async def results(self) -> list[ResultRow]:
        def read() -> list[ResultRow]:
            with Checkpoint.read(self.checkpoint) as checkpoint:
                return list(checkpoint.results())

        return await _threaded(read)

    async def codes(self) -> Counter[str]:
        return Counter(row.code for row in await self.results())

    def files(self, begins: str = "users.") -> list[Path]:
        """The files whose names begin so."""
        return sorted(path for path in self.folder.iterdir() if path.name.startswith(begins))

    def lose_checkpoint(self) -> None:
        """As if somebody had deleted it."""
        for path in self.files("users.ckpt"):
            path.unlink()

    def know_all(self) -> None:
        """From now on there is nobody whom the directory does not know."""
        api: Any = self.sandbox.api
        api._roster = Roster(RosterOptions())

    def held(self) -> dict[str, dict[str, Any]]:
        """What the target has."""
        return {user: dict(entry.attributes) for user, entry in self.sandbox.ledger.users.items()}


@dataclass(frozen=True)
class _Dying(Refresh):
    """A refresh that marks nothing once it is dead."""

    is_dead: list[bool] = field(default_factory=list)

    def conclude(self, checkpoint: Checkpoint) -> int:
        return 0 if self.is_dead else super().conclude(checkpoint)


async def _threaded(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)


@asynccontextmanager
async def nights(
    folder: Path, api: str = "calven", refresh: str = "", names: Sequence[str] = ("dept", "site"), **options: Any
) -> AsyncIterator[Nights]:
    """Nights with a sandbox of these options. `refresh`: lines for `[refresh]`."""
    (folder / "secret").write_text(TOKEN)
    known = {
        "api": api,
        "calven": CalvenOptions(key_id="KEY", secret=TOKEN),
        "dx": DxOptions(token=TOKEN),
        "ledger": LedgerOptions(journal=True),
    }
    async with serve(SandboxOptions(**{**known, **options})) as sandbox:
        yield Nights(folder, sandbox, api, refresh, names)
