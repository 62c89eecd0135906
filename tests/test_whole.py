"""Exports that go whole: judged before anything is sent, kept once they are accepted, compared with the one before."""

import gzip
import json
import os
import re
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pyarrow as pa
import pyarrow.parquet
import pytest

from loader.checkpoint import Checkpoint, ResultRow
from loader.errors import CheckpointError, ExportError, LoaderError, Refused, SettingsError, Stopped
from loader.lane import Lane
from loader.load import load
from loader.progress import Tally
from loader.resume import begin, reopen
from loader.sandbox import CalvenOptions, FaultOptions, Options, Sandbox, serve
from loader.settings import Settings
from loader.span import SpanSet
from loader.targets.calven import CalvenHierarchy
from loader.whole import Store, Whole, compare, fault_lines, faults, gather, prepare, refuse_faults
from tests import make

T = TypeVar("T")

NOW = datetime(2026, 1, 31, 6, 0, tzinfo=UTC)
HEADER = "group,groupType,parent,parentType\n"
SOUND = HEADER + "Channel Marketing,Department,Marketing,Division\nMarketing,Division,,\n"

SETTINGS = """
[export]
path = "org.csv"
[target]
api = "calven-hierarchy"
base_url = "http://127.0.0.1:9"
[target.auth]
scheme = "basic"
key_id = "K"
secret = "S"
"""


def settings(folder: Path, *overrides: str) -> Settings:
    return make.settings(folder, SETTINGS, overrides)


def store(folder: Path, *overrides: str) -> Store:
    found = settings(folder, *overrides).store
    assert found is not None
    return found


def whole(folder: Path, text: str | bytes = SOUND, name: str = "org.csv") -> Whole:
    made = settings(folder, f"export.path={name}")
    assert made.store is not None
    return gather(made.store, make.export(folder, text, name), made.row_mapping())


def groups(count: int, first: int = 1) -> list[bytes]:
    return [
        b'{"group":"g%d","groupType":"T","parent":null,"parentType":null}' % at for at in range(first, first + count)
    ]


def told(found: Whole) -> list[str]:
    return list(fault_lines(faults(found)))


# Reading and judging


def test_all_rows_are_one_block(tmp_path: Path) -> None:
    """However many the reader makes of them; with the last one's mark, which tells this content from any other."""
    made = settings(tmp_path)
    rows = "".join(f"g{at},T,,\n" for at in range(1, 101))
    export = make.export(tmp_path, HEADER + rows, "org.csv", chunk_bytes=64)
    assert made.store is not None

    found = gather(made.store, export, made.row_mapping())

    assert list(found.rows.numbers) == list(range(1, 101))
    assert found.rows.users == [f"g{at}" for at in range(1, 101)]
    assert list(found.rows.records) == groups(100)
    assert found.rows.end == list(export.rows(made.row_mapping()))[-1].end
    assert found.found == export.fingerprint()
    assert told(found) == []


def write_parquet(path: Path) -> None:
    table = {
        "group": ["a", "b"],
        "groupType": ["T", "T"],
        "parent": ["b", None],
        "parentType": ["T", None],
        "n": [1, 2],
    }
    pa.parquet.write_table(pa.table(table), path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("org.csv", "parentType,group,x,parent,groupType\nT,a,1,b,T\n,b,2,,T\n"),
        ("org.tsv", "group\tgroupType\tparent\tparentType\na\tT\tb\tT\nb\tT\t\t\n"),
        (
            "org.ndjson",
            '{"group":"a","groupType":"T","parent":"b","parentType":"T"}\n{"parent":null,"n":1,"group":"b","groupType":"T"}',
        ),
        (
            "org.json",
            '[{"group":"a","groupType":"T","parent":"b","parentType":"T"},{"group":"b","groupType":"T","parent":""}]',
        ),
        ("org.parquet", ""),
    ],
)
def test_every_format_gives_the_same(tmp_path: Path, name: str, text: str) -> None:
    """An empty cell, an empty text, null and nothing are no parent; further columns don't count."""
    made = settings(tmp_path, f"export.path={name}")
    assert made.store is not None
    if text:
        (tmp_path / name).write_text(text)
    else:
        write_parquet(tmp_path / name)

    found = gather(made.store, made.source, made.row_mapping())

    assert told(found) == []
    body = json.loads(made.store.target.encode(found.batch)[0].body)
    assert body == {
        "groupRelationships": [
            {"group": "a", "groupType": "T", "parent": "b", "parentType": "T"},
            {"group": "b", "groupType": "T", "parent": None, "parentType": None},
        ]
    }


def test_rows_that_are_not_valid_are_told_with_file_and_line(tmp_path: Path) -> None:
    """A group left out would vanish, so none is."""
    found = whole(tmp_path, SOUND.encode() + b"ragged\n,Team,,\nB\xffd,Team,,\n")

    assert told(found) == [
        "- a row that is not valid (3 times):",
        "    row 3: org.csv line 4: 1 field, the header has 4",
        "    row 4: org.csv line 5: group is empty (column 'group')",
        "    row 5: org.csv line 6: column 'group' is not UTF-8: byte 0xff at 2",
    ]
    with pytest.raises(Refused, match="not fit to be sent, and nothing was sent"):
        refuse_faults(found)


def test_a_row_with_nothing_but_a_name_is_not_left_out(tmp_path: Path) -> None:
    """Elsewhere it would be SKIPPED."""
    found = whole(
        tmp_path, '{"group":"a","groupType":"T","parent":null,"parentType":null}\n{"group":"b"}\n', "o.ndjson"
    )

    assert told(found) == ["- a row that is not valid:", "    row 2: o.ndjson line 2: no attribute has a value"]


def test_an_export_that_breaks_off_is_refused(tmp_path: Path) -> None:
    """What it lacks would vanish. Nothing of it was sent, so there is nothing to start over."""
    packed = gzip.compress((SOUND + "".join(f"g{at},T,,\n" for at in range(5000))).encode())
    (tmp_path / "org.csv.gz").write_bytes(packed[:-20])
    made = settings(tmp_path, "export.path=org.csv.gz")
    assert made.store is not None

    found = told(gather(made.store, made.source, made.row_mapping()))

    assert found[0] == "- the export breaks off:"
    assert re.fullmatch(r"    org.csv.gz breaks off: its gzip data ends at byte [\d,]+ without an end mark", found[1])


@pytest.mark.parametrize(("name", "text"), [("org.csv", HEADER), ("org.json", "[]")])
def test_an_export_without_groups_is_refused(tmp_path: Path, name: str, text: str) -> None:
    """It would take every group away."""
    assert told(whole(tmp_path, text, name)) == ["- it holds no groups, and all that calven-hierarchy has would go"]


def test_a_message_shows_a_handful_of_places(tmp_path: Path) -> None:
    """And how many more there are; a very long one is cut."""
    found = told(whole(tmp_path, HEADER + "".join(f"g{at},,,\n" for at in range(1000)) + f"{'x' * 1000},,,\n"))

    assert found[:2] == ["- no groupType (1,001 times):", "    row 1: 'g0'"]
    assert found[6:] == ["    and 996 more"]
    (long,) = told(whole(tmp_path, HEADER + f"{'x' * 1000},,,\n"))[1:]
    assert long.endswith("xx…")
    assert len(long) < 310


def test_an_export_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it may be of one hierarchy, and half of another."""
    made = settings(tmp_path)
    export = make.export(tmp_path, SOUND, "org.csv")
    read = type(export).rows

    def changing(self: Any, *arguments: Any) -> Any:
        yield from read(self, *arguments)
        os.utime(self.paths[0], (1, 1))

    monkeypatch.setattr(type(export), "rows", changing)

    assert made.store is not None
    with pytest.raises(ExportError, match="changed while it was read"):
        gather(made.store, export, made.row_mapping())


# What is kept


def test_what_is_kept_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    """A record a line, byte for byte, for its owner alone; nothing else is left beside it."""
    made = store(tmp_path, "target.region=ause1")

    made.write([b'{"group":"\xc3\xa9","groupType":"\\u0041"}', *groups(1)], NOW)

    assert made.path == tmp_path / "org.state"
    assert made.path.read_text("utf-8") == (
        '{\n  "version": 1,\n  "target": {\n    "api": "calven-hierarchy",\n    "base_url": "http://127.0.0.1:9",\n'
        '    "region": "ause1"\n  },\n  "accepted_at": "2026-01-31T06:00:00+00:00",\n  "rows": 2,\n  "records": [\n'
        '    {"group":"é","groupType":"\\u0041"},\n'
        '    {"group":"g1","groupType":"T","parent":null,"parentType":null}\n  ]\n}\n'
    )
    json.loads(made.path.read_bytes())
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["load.toml", "org.state"]
    found = made.read()
    assert found is not None
    assert (found.rows, found.target) == (2, made.owner)


def test_nothing_is_known_before_the_first_time(tmp_path: Path) -> None:
    """Which is said."""
    assert store(tmp_path).read() is None
    assert (
        compare(store(tmp_path), groups(1)).words
        == "nothing is known of groups accepted before (org.state is not there)"
    )


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_the_old_one_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A full disk, at any step, costs nothing but the run; which tells what was accepted."""
    made = store(tmp_path)
    made.write(groups(2), NOW)
    before = made.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)

    with pytest.raises(Stopped, match=r"accepted the export, but that can't be kept in .*org.state: No space left"):
        made.write(groups(3), NOW)
    assert made.path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["load.toml", "org.state"]


def test_what_is_damaged_is_refused_with_a_way_out(tmp_path: Path) -> None:
    """Cut anywhere, or changed by hand: it is never taken for nothing."""
    made = store(tmp_path)
    made.write(groups(3), NOW)
    data = made.path.read_bytes().rstrip()
    broken = [data[:at] for at in range(len(data))]
    broken += [
        b"[" * 100_000,
        b"{}",
        b'{"version":1}',
        data.replace(b'"rows": 3', b'"rows": 4'),
        data.replace(b'"group":', b'"groop":'),
        data.replace(b'"groupType":"T"', b'"groupType":null'),
        data.replace(b'"g1"', b"7"),
        data.replace(b'"version": 1', b'"version": 1, "more": 1'),
        data.replace(b"g1", b"\xff"),
    ]

    for content in broken:
        made.path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"org.state is damaged .*move it away to load without comparing"):
            made.read()


def test_what_another_version_wrote_is_refused(tmp_path: Path) -> None:
    """It may mean something else."""
    made = store(tmp_path)
    made.write(groups(1), NOW)
    made.path.write_bytes(made.path.read_bytes().replace(b'"version": 1', b'"version": 2, "more": []'))

    with pytest.raises(CheckpointError, match="of version 2, and this loader reads version 1"):
        made.read()


def test_what_can_not_be_read_is_refused(tmp_path: Path) -> None:
    """Such as a folder of that name."""
    (tmp_path / "org.state").mkdir()

    with pytest.raises(CheckpointError, match=r"can't read .*org.state: Is a directory"):
        store(tmp_path).read()


# Comparing


@pytest.mark.parametrize(
    ("share", "before", "now", "is_refused"),
    [
        ("10%", 100, 100, False),
        ("10%", 100, 90, False),
        ("10%", 100, 89, True),
        ("10%", 10, 9, False),
        ("10%", 9, 8, True),
        ("10%", 5, 500, False),
        ("0%", 1000, 999, True),
        ("0%", 1000, 1000, False),
        ("0.1%", 1000, 999, False),
        ("0.1%", 1000, 998, True),
        ("100%", 1000, 1, False),
    ],
)
def test_much_fewer_groups_than_before_are_refused(
    tmp_path: Path, share: str, before: int, now: int, is_refused: bool
) -> None:
    """By more than max_shrink, exactly."""
    made = store(tmp_path, f"target.max_shrink={share}")
    made.write(groups(before), NOW)

    assert bool(compare(made, groups(now)).refusal) is is_refused


def test_the_refusal_names_numbers_groups_and_the_way_out(tmp_path: Path) -> None:
    """Of groups a handful, in the order they had."""
    made = store(tmp_path)
    made.write(groups(10), NOW)

    found = compare(made, groups(4, first=9))

    assert found.words == "groups accepted last (2026-01-31T06:00:00+00:00): 10; new: 2, gone: 8"
    first, *rest = found.refusal.splitlines()
    assert first == (
        "groups in this export: 4, in the one accepted last (2026-01-31T06:00:00+00:00): 10; "
        "that is fewer by more than target.max_shrink = 10%. These would vanish:"
    )
    assert rest == [
        *(f"  'g{at}' (T)" for at in range(1, 6)),
        "  and 3 more",
        "If they are to, loader run --allow-shrink lets it through; nothing was sent",
    ]


@pytest.mark.parametrize(
    ("override", "owner"),
    [
        ("target.base_url=http://127.0.0.1:10", "calven-hierarchy, http://127.0.0.1:10"),
        ("target.region=ause1", "calven-hierarchy, http://127.0.0.1:9, ause1"),
    ],
)
def test_what_another_tenant_accepted_says_nothing_of_this_one(tmp_path: Path, override: str, owner: str) -> None:
    """It is passed over, aloud."""
    store(tmp_path).write(groups(100), NOW)

    found = compare(store(tmp_path, override), groups(1))

    assert not found.refusal
    assert found.words.startswith(f"org.state is of calven-hierarchy, http://127.0.0.1:9, not of {owner}, so there is")


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["export.path=org.csv.gz"], "org.state"),
        (["export.path=hr.2026.csv"], "hr.2026.state"),
        (["export.path=org.csv", "checkpoint.path=other.ckpt"], "org.state"),
        (["export.path=-", "export.format=csv", "checkpoint.path=org.ckpt"], "org.state"),
        (["export.path=o*.csv", "checkpoint.path=all"], "all.state"),
    ],
)
def test_it_is_kept_beside_the_export(tmp_path: Path, overrides: list[str], name: str) -> None:
    """Or beside the checkpoint, where the export has no name of its own."""
    assert store(tmp_path, *overrides).path == tmp_path / name


def test_it_needs_a_name_that_is_not_the_checkpoint_s(tmp_path: Path) -> None:
    """One would overwrite the other."""
    with pytest.raises(SettingsError, match=r"checkpoint.path: org.state is for what calven-hierarchy accepted last"):
        store(tmp_path, "checkpoint.path=org.state")


def test_targets_that_take_parts_keep_nothing(tmp_path: Path) -> None:
    """They have no store."""
    assert make.settings(tmp_path).store is None


# Loads


class Job:
    """One load of a hierarchy in a folder, and runs of it against a sandbox."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.said: list[str] = []
        self.set: list[str] = []
        self.tally: Tally | None = None
        self.write(SOUND)

    @property
    def settings(self) -> Settings:
        return settings(self.folder, f"target.base_url={self.sandbox.url}", *self.set)

    @property
    def state(self) -> list[Any] | None:
        path = self.folder / "org.state"
        return json.loads(path.read_bytes())["records"] if path.exists() else None

    @property
    def hierarchy(self) -> list[Any]:
        return list(self.sandbox.ledger.hierarchy)

    @property
    def checkpoints(self) -> list[str]:
        return sorted(name for name in os.listdir(self.folder) if name.startswith("org.ckpt"))

    def write(self, text: str) -> None:
        (self.folder / "org.csv").write_text(text)

    async def run(self, *, retry: bool = False, fresh: bool = False, allow_shrink: bool = False) -> LoaderError | None:
        """As the command does it; the error that ended it, if one did."""
        return await anyio.to_thread.run_sync(partial(self._run, retry=retry, fresh=fresh, allow_shrink=allow_shrink))

    def _run(self, *, retry: bool, fresh: bool, allow_shrink: bool) -> LoaderError | None:
        made = self.settings
        path, export, mapping = made.checkpoint_path, made.source, made.row_mapping()
        assert made.store is not None
        ready = partial(prepare, made.store, export, mapping, made.identity(), path, self.said.append)
        try:
            ready_whole = None if retry else ready(fresh=fresh, allow_shrink=allow_shrink)
            with Checkpoint.open(path, create=not retry) as checkpoint:
                resume = begin(checkpoint, made.identity(), export, mapping)
                if retry:
                    ready_whole = ready(retry=True)
                    resume = reopen(checkpoint, resume)
                if not resume.is_finished:
                    watch = lambda _snapshot: None  # noqa: E731
                    self.tally = anyio.from_thread.run(
                        load, made, checkpoint, resume, Lane(600.0), watch, self.said.append, None, ready_whole
                    )
        except LoaderError as error:
            return error
        return None

    async def results(self) -> list[ResultRow]:
        return await self._read(lambda checkpoint: list(checkpoint.results()))

    async def is_finished(self) -> bool:
        return await self._read(lambda checkpoint: checkpoint.get("finished_at") is not None)

    async def _read(self, what: Callable[[Checkpoint], T]) -> T:
        def read() -> T:
            with Checkpoint.read(self.folder / "org.ckpt") as checkpoint:
                return what(checkpoint)

        return await anyio.to_thread.run_sync(read)


@asynccontextmanager
async def job(folder: Path, calven: dict[str, Any] | None = None, **faulty: Any) -> AsyncIterator[Job]:
    options = CalvenOptions(**{"key_id": "K", "secret": "S", **(calven or {})})
    async with serve(Options(calven=options, faults=FaultOptions(**faulty))) as sandbox:
        yield Job(folder, sandbox)


def many(count: int, first: int = 1) -> str:
    return HEADER + "".join(f"g{at},T,,\n" for at in range(first, first + count))


async def test_a_hierarchy_is_sent_once_and_kept(tmp_path: Path) -> None:
    """Every group is a success, and the state holds what the target holds."""
    async with job(tmp_path) as one:
        assert await one.run() is None

        assert one.sandbox.ledger.hierarchies == 1
        assert one.hierarchy == one.state
        assert [row[:3] for row in await one.results()] == [
            (1, "Channel Marketing", "SUCCESS"),
            (2, "Marketing", "SUCCESS"),
        ]
        assert await one.is_finished()
        assert one.said == ["nothing is known of groups accepted before (org.state is not there)"]

        assert await one.run() is None
        assert one.sandbox.ledger.hierarchies == 1


async def test_groups_of_one_name_are_rows_of_their_own(tmp_path: Path) -> None:
    """Nothing is merged where equal keys say nothing."""
    async with job(tmp_path) as one:
        one.write(HEADER + "Ops,Division,,\nOps,Department,Ops,Division\n")
        assert await one.run() is None

        assert [row[:3] for row in await one.results()] == [(1, "Ops", "SUCCESS"), (2, "Ops", "SUCCESS")]
        assert len(one.hierarchy) == 2


async def test_what_is_refused_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """Nothing is sent, no checkpoint is made or set aside, and the state stays; then what is corrected goes."""
    async with job(tmp_path) as one:
        one.write(SOUND + "x,Team,nobody,Team\n")
        assert isinstance(await one.run(), Refused)
        assert one.checkpoints == []

        one.write(SOUND)
        assert await one.run() is None
        state, checkpoints = one.state, one.checkpoints
        for text in (SOUND + "x,Team,nobody,Team\n", HEADER + "Marketing,Division,,\n", HEADER):
            one.write(text)
            assert isinstance(await one.run(), Refused)
            assert isinstance(await one.run(fresh=True), Refused)
        assert (one.state, one.checkpoints) == (state, checkpoints)
        assert len(await one.results()) == 2
        assert one.sandbox.ledger.hierarchies == 1
        assert sum(one.sandbox.stats.requests.values()) == 1


async def test_a_changed_export_is_a_new_load(tmp_path: Path) -> None:
    """The old checkpoint is set aside, aloud; one of the same size is seen to be changed, too."""
    async with job(tmp_path) as one:
        assert await one.run() is None
        one.write(SOUND.replace("Channel", "Product"))
        assert len(SOUND.replace("Channel", "Product")) == len(SOUND)
        assert await one.run() is None

        assert one.sandbox.ledger.hierarchies == 2
        assert one.hierarchy == one.state
        assert one.hierarchy[0]["group"] == "Product Marketing"
        assert len(one.checkpoints) == 2
        assert re.search(
            r"has changed since it was loaded, .* the old one is kept as org.ckpt.\d{8}-\d{6}", one.said[-1]
        )


async def test_a_touched_export_is_the_same(tmp_path: Path) -> None:
    """Its content tells."""
    async with job(tmp_path) as one:
        assert await one.run() is None
        os.utime(tmp_path / "org.csv", (1, 1))
        assert await one.run() is None

        assert (one.sandbox.ledger.hierarchies, len(one.checkpoints)) == (1, 1)


async def test_another_mapping_is_still_another_load(tmp_path: Path) -> None:
    """Only the export may change by itself."""
    async with job(tmp_path) as one:
        assert await one.run() is None
        one.write(SOUND.replace("groupType", "kind", 1))
        one.set = ["mapping.columns.groupType=kind"]

        error = await one.run()

        assert isinstance(error, CheckpointError)
        assert "mapping.columns" in str(error)
        assert len(one.checkpoints) == 1


async def test_a_smaller_hierarchy_needs_leave(tmp_path: Path) -> None:
    """Given once, it isn't asked for again: neither for the unchanged export, nor compared with the larger one."""
    async with job(tmp_path) as one:
        one.write(many(100))
        assert await one.run() is None
        one.write(many(80))
        refused = await one.run()
        allowed = await one.run(allow_shrink=True)

        assert "--allow-shrink" in str(refused)
        assert allowed is None
        assert len(one.hierarchy) == 80
        assert await one.run() is None
        one.write(many(75))
        assert await one.run() is None
        assert len(one.state or []) == 75


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refusal_is_about_every_group(tmp_path: Path, status: int) -> None:
    """INVALID, with the target's words, in one request: what is refused whole is never sent in parts, nor kept."""
    async with job(tmp_path, fail_first_n=2, fail_first_status=status) as one:
        one.write(many(1500))  # more than the first 1,000 that all fail
        assert await one.run() is None

        assert one.tally is not None
        assert one.tally.exit_status == 1
        assert one.tally.counts == {"INVALID": 1500}
        assert all(row.message.startswith(f"HTTP {status}: ") and row.attempts == 1 for row in await one.results())
        assert await one.is_finished()
        assert not (tmp_path / "org.state").exists()
        assert await one.run(retry=True) is None
        assert one.tally.counts == {"INVALID": 1500}
        assert sum(one.sandbox.stats.requests.values()) == 2

        assert await one.run(retry=True) is None
        assert one.tally.counts == {"SUCCESS": 1500}
        assert sum(one.sandbox.stats.requests.values()) == 3
        assert len(one.hierarchy) == len(one.state or []) == 1500


async def test_a_retry_is_of_the_same_export(tmp_path: Path) -> None:
    """A changed one is run, not retried."""
    async with job(tmp_path, fail_first_n=1, fail_first_status=400) as one:
        assert await one.run() is None
        one.write(SOUND + "x,Team,,\n")

        assert isinstance(await one.run(retry=True), CheckpointError)
        assert len(one.checkpoints) == 1
        assert await one.run() is None
        assert len(one.hierarchy) == 3


async def test_a_retry_needs_no_leave_again(tmp_path: Path) -> None:
    """It was given for this very export."""
    async with job(tmp_path) as one:
        one.write(many(100))
        assert await one.run() is None
        one.write(many(50))
        one.sandbox.faults = FaultOptions(fail_first_n=2, fail_first_status=400)
        assert await one.run(allow_shrink=True) is None
        assert len(one.hierarchy) == 100
        assert await one.run(retry=True) is None
        assert len(one.hierarchy) == 50


async def test_a_server_in_trouble_is_asked_again(tmp_path: Path) -> None:
    """503, a lost answer: the whole hierarchy goes again, as it is."""
    async with job(tmp_path, fail_first_n=2) as one:
        assert await one.run() is None
        assert [row.attempts for row in await one.results()] == [3, 3]
        assert one.hierarchy == one.state


async def test_an_answer_that_is_in_is_kept_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends between the checkpoint and the state: nothing is sent again, and leave isn't asked for again."""
    async with job(tmp_path) as one:
        one.write(many(100))
        assert await one.run() is None
        one.write(many(50))
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", _dies)
            with pytest.raises(KeyError):
                await one.run(allow_shrink=True)
        assert (len(one.hierarchy), len(one.state or [])) == (50, 100)
        assert not await one.is_finished()

        assert await one.run() is None
        assert len(one.state or []) == 50
        assert await one.is_finished()
        assert one.sandbox.ledger.hierarchies == 2


async def test_an_unkept_answer_does_not_hold_up_the_next_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it can be resumed, finished or not."""
    async with job(tmp_path) as one:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", _dies)
            with pytest.raises(KeyError):
                await one.run()
        one.write(many(3))

        assert await one.run() is None
        assert len(one.hierarchy) == len(one.state or []) == 3


def _dies(*_: object) -> None:
    raise KeyError("a power cut")


async def test_what_was_judged_is_what_is_sent(tmp_path: Path) -> None:
    """An export that changes behind the judge's back is refused, and its new content judged next time."""
    async with job(tmp_path) as one:
        made = await anyio.to_thread.run_sync(lambda: one.settings)
        assert made.store is not None
        judged = await anyio.to_thread.run_sync(gather, made.store, made.source, made.row_mapping())
        one.write(SOUND + "x,Team,nobody,Team\n")

        with await anyio.to_thread.run_sync(partial(Checkpoint.open, create=True), tmp_path / "org.ckpt") as checkpoint:
            resume = await anyio.to_thread.run_sync(begin, checkpoint, made.identity(), made.source, made.row_mapping())
            with pytest.raises(ExportError, match="nothing was sent"):
                await load(made, checkpoint, resume, Lane(600.0), lambda _snapshot: None, one.said.append, None, judged)
        assert sum(one.sandbox.stats.requests.values()) == 0


def test_a_whole_export_is_never_sent_in_part(tmp_path: Path) -> None:
    """Nor are only some of its rows settled."""
    found = whole(tmp_path)
    begun = found.found._asdict()

    assert [list(block.numbers) for block in found.blocks(SpanSet(), begun)] == [[1, 2]]
    assert [list(block.numbers) for block in found.blocks(SpanSet([(1, 2)]), begun)] == [[]]
    with pytest.raises(CheckpointError, match="lacks rows that went with the others"):
        found.blocks(SpanSet([(1, 1)]), begun)


def test_a_folder_that_can_not_be_written_to_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not once the target has accepted what can't be kept then."""
    monkeypatch.setattr(os, "access", lambda *_: False)

    with pytest.raises(Refused, match=r"kept in .*org.state, and that folder can't be written to"):
        store(tmp_path).locked().__enter__()
    assert os.listdir(tmp_path) == ["load.toml"]


def test_one_run_at_a_time_has_it(tmp_path: Path) -> None:
    """Two, of two checkpoints, could leave behind what the target has replaced by then."""
    with store(tmp_path).locked(), pytest.raises(CheckpointError, match=r"org.state is in use by another run"):
        store(tmp_path).locked().__enter__()
    with store(tmp_path).locked():
        pass
    assert os.listdir(tmp_path) == ["load.toml"]


def labels(records: Sequence[bytes]) -> list[str]:
    return [CalvenHierarchy(auth="hmac").label(record) for record in records]


def test_labels_tell_groups_apart() -> None:
    """However odd their names."""
    odd = [
        b'{"group":"a (T)","groupType":"U"}',
        b'{"group":"a","groupType":"T) (U"}',
        b'{"group":"a","groupType":"T\\n"}',
    ]

    assert labels(odd) == ["'a (T)' (U)", "'a' (T) (U)", "'a' ('T\\n')"]
