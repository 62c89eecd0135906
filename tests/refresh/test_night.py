"""Nights: what changed is sent, what the target acknowledged is not, and nothing in between makes the state lie."""

import gzip
import os
import random
import re
import sqlite3
import stat
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import anyio
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from anyio import to_thread

from loader.checkpoint import Checkpoint
from loader.errors import CheckpointError, Guarded, Refused, Stopped
from loader.export import columnar
from loader.export.files import Files
from loader.export.typed import TypedMapper
from loader.mapping import Mapped
from loader.notify import summary, summary_line
from loader.outcome import Code
from loader.plan import Plan, plan
from loader.refresh import scan
from loader.refresh.night import Options, set_state_aside
from loader.sandbox import FaultOptions, RosterOptions
from tests.nights import Nights, nights

Values = Mapping[str, str]

USERS: Mapping[str, Values] = {f"user{n}": {"dept": f"d{n}", "site": "Wien"} for n in range(100)}


def changed(*gone: str, **users: Values) -> dict[str, Values]:
    """The users with others, or other values, and without some."""
    return {user: values for user, values in {**USERS, **users}.items() if user not in gone}


async def test_the_first_night_sends_all_and_the_next_what_changed(tmp_path: Path) -> None:
    async with nights(tmp_path) as one:
        one.write(USERS)
        assert await one.run() is None
        assert one.written == 100
        assert "all users are sent: there is no state users.state yet" in one.said

        tonight = changed(user7={"dept": "x", "site": "Wien"}, new={"dept": "n", "site": "Graz"})
        one.write(tonight)
        assert await one.run() is None
        assert one.written == 2
        assert await one.codes() == {"UNCHANGED": 99, "SUCCESS": 2}
        assert one.held() == tonight
        results = await one.results()
        assert [(row.row, row.user) for row in results] == list(enumerate(tonight, 1))
        assert {(row.http_status, row.attempts) for row in results if row.code == "UNCHANGED"} == {(None, 0)}


async def test_nothing_changed_sends_nothing_and_needs_no_token(tmp_path: Path) -> None:
    async with nights(tmp_path) as one:
        one.write(USERS)
        await one.run()
        before = dict(one.sandbox.stats.arrivals)
        one.write(USERS)

        assert await one.run() is None
        assert await one.codes() == {"UNCHANGED": 100}
        assert one.sandbox.stats.arrivals == before


async def test_an_export_that_changes_while_it_is_compared_is_refused(tmp_path: Path) -> None:
    """What is sent is read once more, and would not be what was compared."""
    async with nights(tmp_path) as one:
        one.write(USERS)
        await one.run()
        before = one.state.read_bytes()
        one.write(changed(user7={"dept": "x", "site": "Wien"}))
        _, refresh = await to_thread.run_sync(one.ready)

        def compare() -> None:
            with refresh.compared(one.checkpoint) as compared:
                with (tmp_path / "users.csv").open("a") as file:
                    file.write("late,d,s\n")
                refresh.refuse(compared)

        with pytest.raises(Refused, match="changed while it was compared; nothing was sent"):
            await to_thread.run_sync(compare)
        assert one.state.read_bytes() == before


async def test_two_processes_compare_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_is_shared", lambda _export: True)
    async with nights(tmp_path, refresh='missing = "clear"', api="dx") as one:
        one.write(USERS)
        assert await one.run() is None
        tonight = changed("user3", user7={"dept": "x"}, new={"dept": "n", "site": "Graz"})
        one.write(tonight)
        assert await one.run() is None
        assert await one.codes() == {"UNCHANGED": 98, "SUCCESS": 3}


async def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    async with nights(tmp_path, refresh='missing = "report"') as one:
        one.write(USERS)
        await one.run()
        one.write(changed("user3"))
        await one.run()

        mine = [path for path in one.files() if path.name != "users.csv"]
        assert len(mine) == 5  # checkpoint, the one before, state, keys, what is missing
        assert {stat.S_IMODE(path.stat().st_mode) for path in mine} == {0o600}


@pytest.mark.parametrize("is_settled", [True, False])
async def test_a_value_whose_answer_was_lost_is_sent_again_when_the_old_one_returns(
    tmp_path: Path, is_settled: bool
) -> None:
    """A→B→A: B may have arrived, so that A, though acknowledged once, is not what the target has."""
    async with nights(tmp_path) as one:
        one.write(USERS)
        await one.run()
        one.write(changed(user5={"dept": "B", "site": "Wien"}))
        if is_settled:
            assert await one.run() is None
        else:
            one.sandbox.faults = FaultOptions(rates={"lost": 1.0})
            one.set = ["limits.give_up_s=0.2"]
            assert isinstance(await one.run(), Stopped)
            one.sandbox.faults = FaultOptions()
        assert one.held()["user5"]["dept"] == "B"

        one.write(USERS)
        assert await one.run() is None
        assert one.held() == USERS
        assert (await one.codes())["SUCCESS"] == 1


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_a_killed_night_is_believed_as_far_as_its_checkpoint_goes(tmp_path: Path, is_deleted: bool) -> None:
    """Deleted, it is not believed at all, and what was sent counts as unknown."""
    async with nights(tmp_path, faults=FaultOptions(latency_s=0.01)) as one:
        one.write(USERS)
        await one.run()
        night = {user: {"dept": "B", "site": "Graz"} for user in USERS}
        one.write(night)
        await one.crash()
        assert 0 < one.written < 100
        if is_deleted:
            one.lose_checkpoint()

        acked = 0 if is_deleted else (await one.codes())["SUCCESS"]
        one.write({**night, "user1": {"dept": "C", "site": "Graz"}})  # another export: the old load can't go on
        assert await one.run() is None
        codes = await one.codes()
        assert acked - 1 <= codes["UNCHANGED"] <= acked
        assert one.held() == {**night, "user1": {"dept": "C", "site": "Graz"}}


async def test_the_same_export_goes_on_where_it_ended(tmp_path: Path) -> None:
    async with nights(tmp_path, faults=FaultOptions(latency_s=0.01)) as one:
        one.write(USERS)
        await one.crash(60)
        settled = len(await one.results())
        assert 0 < settled < 100

        assert await one.run() is None
        assert f"going on behind {settled:,} settled rows" in one.said
        assert 100 - settled <= one.written <= 100 - settled + 2 * 3 * 7  # what was in flight may come late
        assert await one.codes() == {"SUCCESS": 100}

        one.write(USERS)
        assert await one.run() is None
        assert one.written == 0


@pytest.mark.parametrize("is_same", [True, False])
async def test_another_export_of_the_same_size_is_told_from_a_touched_one(
    tmp_path: Path, is_same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all of it, not by the part that was read before the night ended: the unchanged rows are of all of it."""
    whole = Files._source
    monkeypatch.setattr(Files, "_source", lambda self, file: replace(whole(self, file), chunk_bytes=200))
    async with nights(tmp_path, faults=FaultOptions(latency_s=0.01)) as one:
        one.write(USERS)
        await one.run()
        night = {user: {"dept": "B", "site": "Graz"} if int(user[4:]) < 60 else USERS[user] for user in USERS}
        one.write(night)
        await one.crash()
        settled = len(await one.results())
        assert 40 < settled < 100

        then = night if is_same else {**night, "user99": {"dept": "d99", "site": "Linz"}}
        one.write(then)
        assert await one.run() is None
        assert (f"going on behind {settled:,} settled rows" in one.said) is is_same
        assert one.held() == then


async def test_who_failed_is_sent_again(tmp_path: Path) -> None:
    async with nights(tmp_path, roster=RosterOptions(unknown=re.compile("^user1$"))) as one:
        one.write(USERS)
        await one.run()
        assert await one.codes() == {"SUCCESS": 99, "USER_NOT_FOUND": 1}
        one.know_all()  # by now it was made

        assert await one.run() is None  # the very same export: its load is finished, so this is a new one
        assert await one.codes() == {"UNCHANGED": 99, "SUCCESS": 1}
        assert one.held() == USERS


async def test_a_retry_is_believed(tmp_path: Path) -> None:
    async with nights(tmp_path, roster=RosterOptions(unknown=re.compile("^user1$"))) as one:
        one.write(USERS)
        await one.run()
        one.know_all()
        assert await one.run(is_retry=True) is None
        assert one.written == 1
        assert await one.codes() == {"SUCCESS": 100}

        assert await one.run() is None
        assert one.written == 0


async def test_a_retry_of_an_older_night_is_refused(tmp_path: Path) -> None:
    """What it would send may be older than what the target has."""
    async with nights(tmp_path, roster=RosterOptions(unknown=re.compile("^user1$"))) as one:
        one.write(USERS)
        await one.run()
        old = one.checkpoint.read_bytes()
        one.write(USERS)
        await one.run()
        one.checkpoint.write_bytes(old)

        error = await one.run(is_retry=True)

        assert isinstance(error, CheckpointError)
        assert "is of another night" in str(error)


async def test_rows_of_one_user_count_together_wherever_they_stand(tmp_path: Path) -> None:
    """What comes of them is compared, not each for itself."""
    async with nights(tmp_path) as one:
        others = list(USERS.items())
        one.write([("twice", {"dept": "a"}), *others, ("twice", {"site": "Graz"}), ("again", {"dept": "1"})])
        await one.run()
        assert one.held()["twice"] == {"dept": "a", "site": "Graz"}

        one.write(
            [("again", {"dept": "0"}), *others, ("twice", {"dept": "a", "site": "Graz"}), ("again", {"dept": "1"})]
        )
        assert await one.run() is None
        assert await one.codes() == {"UNCHANGED": 103}

        one.write(
            [("again", {"dept": "1"}), *others, ("twice", {"dept": "a", "site": "Graz"}), ("again", {"dept": "0"})]
        )
        assert await one.run() is None
        assert await one.codes() == {"UNCHANGED": 101, "SUCCESS": 1, "SUPERSEDED": 1}
        assert one.held()["again"] == {"dept": "0"}

        await one.run()
        assert one.written == 0


async def test_a_user_of_several_rows_is_acknowledged_when_all_of_them_are(tmp_path: Path) -> None:
    """The first was taken, the second not yet: tomorrow the first alone is not what the target is known to have."""
    async with nights(tmp_path) as one:
        rows = [("twice", {"dept": "a"}), *USERS.items(), ("twice", {"dept": "b"})]
        one.write(rows)
        assert await one.run(first=50) is None
        assert one.held()["twice"] == {"dept": "a"}

        one.write([("twice", {"dept": "a"}), *USERS.items()])
        await one.run()
        assert (await one.codes())["UNCHANGED"] == 49


async def test_broken_rows_are_rejected_each_night_and_disturb_nothing(tmp_path: Path) -> None:
    """Not compared, not sent; who has no other row is not gone, and comes back as who was never away."""
    async with nights(tmp_path) as one:
        one.set = ['mapping.types={dept="number"}']
        users = {user: {"dept": str(at), "site": "Wien"} for at, user in enumerate(USERS)}
        one.write(users)
        await one.run()
        one.write({**users, "user8": {"dept": "07", "site": "Wien"}, "odd": {"dept": "x"}, "blank": {}})
        assert await one.run() is None
        assert await one.codes() == {"UNCHANGED": 99, "REJECTED": 2, "SKIPPED": 1}

        one.write(users)
        assert await one.run() is None
        assert await one.codes() == {"UNCHANGED": 100}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ('mapping.attributes={department="dept"}', "mapping.attributes: was not set, is dept → department"),
        ('target.write="replace"', "target.write: was 'merge', is 'replace'"),
    ],
)
async def test_other_settings_are_a_full_load_and_back_again_another(tmp_path: Path, change: str, reason: str) -> None:
    async with nights(tmp_path) as one:
        one.write(USERS)
        await one.run()
        one.set = [change]
        assert await one.run() is None
        assert reason in "\n".join(one.said)
        assert one.written == 100

        one.set = []
        assert await one.run() is None
        assert one.written == 100


@pytest.mark.parametrize("missing", ["ignore", "report"])
async def test_with_another_mapping_it_is_still_known_who_is_gone(tmp_path: Path, missing: str) -> None:
    async with nights(tmp_path, refresh=f'missing = "{missing}"\nmax_changed = 3') as one:
        one.write(USERS)
        await one.run()
        one.set = ['mapping.attributes={department="dept"}']
        one.write(changed(*list(USERS)[:50]))
        error = await one.run()
        assert isinstance(error, Refused)
        assert "50 of the 100 users of the export before are not in" in str(error)
        assert one.written == 0

        one.write(changed("user7"))
        assert await one.run() is None
        assert "refresh.max_changed can't be held tonight" in "\n".join(one.said)
        assert one.written == 99
        assert (one.folder / "users.missing.csv").exists() == (missing == "report")
        one.write(USERS)
        assert await one.run() is None
        assert one.written == 1  # with what it had before, of which the target may have lost the rest


async def test_what_can_not_be_held_is_in_the_message_too(tmp_path: Path) -> None:
    async with nights(tmp_path, refresh="max_changed = 3") as one:
        one.write(USERS)
        await one.run()
        assert (await to_thread.run_sync(summary, one.checkpoint, 0.0, 0, ""))["message"] == "", (
            "a first night is as it should be"
        )

        one.set = ['mapping.attributes={department="dept", site="site"}']
        assert await one.run() is None
        assert "\n  not mapped any more, left at the target: dept\n" in "\n".join(one.said)
        found = await to_thread.run_sync(summary, one.checkpoint, 0.0, 0, "")
        assert found["message"] == (
            "all users are sent: users.state is of a load with other settings: mapping.attributes: was not set, "
            "is dept → department, site; not mapped any more, left at the target: dept; "
            "refresh.max_changed can't be held tonight"
        )
        assert found["message"] in summary_line(found)
        assert "alarm" not in found["refresh"]


async def test_with_another_key_nobody_can_tell_who_is_gone(tmp_path: Path) -> None:
    async with nights(tmp_path, names=("dept", "site", "mail")) as one:
        both = {user: {**values, "mail": f"{user}@x"} for user, values in USERS.items()}
        one.write(both)
        await one.run()
        one.set = ['mapping.user="mail"']
        assert await one.run() is None
        assert "refresh.max_missing can't be held tonight: who is gone can't be told" in "\n".join(one.said)
        assert one.written == 100


async def test_each_target_has_a_state_of_its_own(tmp_path: Path) -> None:
    """A trial against the sandbox takes nothing from what the real target is known to have, nor do its nights."""
    refresh = 'missing = "report"'
    async with nights(tmp_path, refresh=refresh) as one, nights(tmp_path, refresh=refresh) as trial:
        one.write(USERS)
        await one.run()
        trial.set = ['checkpoint.path="trial.ckpt"']
        assert await trial.run() is None
        assert trial.written == 100
        assert f"users.state was of another target, calven at {one.sandbox.url}, and is kept as" in trial.said[0]
        one.write(changed("user7"))
        await trial.run()
        assert trial.written == 0

        assert await one.run() is None
        assert one.written == 0
        assert one.said[1].endswith("is this target's, and is users.state again")
        assert (one.folder / "users.missing.csv").read_text() == "user,row,attributes\nuser7,,dept site\n"
        assert len(one.files("users.state")) == 4, "two states, and the keys of each"


async def test_a_load_of_all_leaves_no_state_of_its_target_wherever_it_is_kept(tmp_path: Path) -> None:
    async with nights(tmp_path) as one, nights(tmp_path) as trial:
        one.write(USERS)
        await one.run()
        trial.set = ['checkpoint.path="trial.ckpt"']
        await trial.run()
        identity = (await to_thread.run_sync(one.ready))[0].identity()

        kept = await to_thread.run_sync(set_state_aside, one.state, identity)
        assert kept is not None
        assert kept.name.startswith("users.state.of-calven-127.0.0.1-")
        assert await to_thread.run_sync(set_state_aside, one.state, identity) is None
        await one.run()
        assert "all users are sent: there is no state users.state yet" in one.said
        assert one.written == 100


async def test_another_way_of_making_digests_is_a_full_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with nights(tmp_path) as one:
        one.write(USERS)
        await one.run()
        monkeypatch.setattr("loader.refresh.digest.VERSION", 2)
        assert await one.run() is None
        assert one.written == 100
        assert any("made digests in another way" in said for said in one.said)


async def test_a_full_load_when_it_is_asked_for_and_when_it_is_due(tmp_path: Path) -> None:
    async with nights(tmp_path, refresh='full_every = "1s"') as one:
        one.write(USERS)
        await one.run()
        assert await one.run(Options(is_full=True)) is None
        assert one.written == 100
        await one.run()
        assert one.written in (0, 100)  # a second may have passed
        await anyio.sleep(1.01)
        await one.run()
        assert one.written == 100
        assert any("refresh.full_every is over" in said for said in one.said)


async def test_half_of_the_users_gone_is_refused(tmp_path: Path) -> None:
    """Nothing is sent, and nothing is changed: neither the checkpoint nor the state."""
    async with nights(tmp_path, refresh='missing = "report"') as one:
        one.write(USERS)
        await one.run()
        kept = {path: path.read_bytes() for path in one.files() if path.suffix in (".ckpt", ".state")}
        one.write(dict(list(changed(user99={"dept": "x", "site": "x"}).items())[50:]))
        error = await one.run()

        assert isinstance(error, Refused)
        assert "50 of the 100 users of the export before are not in" in str(error)
        assert "more than refresh.max_missing = 5%" in str(error)
        assert "'user" in str(error)
        assert one.written == 0
        assert {path: path.read_bytes() for path in kept} == kept
        assert not one.files("users.state.part")
        assert len(one.files("users.state.keys-")) == 1

        one.set = ["refresh.max_missing=50%"]
        assert await one.run() is None
        assert one.written == 1
        one.set = []
        assert await one.run() is None  # known to be gone by now


async def test_too_many_changes_are_refused(tmp_path: Path) -> None:
    async with nights(tmp_path, refresh="max_changed = 3") as one:
        one.write(USERS)
        await one.run()
        one.write({user: {"dept": "x", "site": "x"} for user in USERS})
        error = await one.run()

        assert isinstance(error, Refused)
        assert "100 of 100 known users have other values" in str(error)
        assert one.written == 0
        one.write(changed(user1={"dept": "x"}, user2={"dept": "x"}, user3={"dept": "x"}))
        assert await one.run() is None


async def test_users_who_return_unchanged_are_not_sent(tmp_path: Path) -> None:
    async with nights(tmp_path) as one:
        one.write(USERS)
        await one.run()
        one.write(changed("user1", "user2"))
        await one.run()
        one.write(changed(user2={"dept": "other", "site": "Wien"}))
        await one.run()

        assert one.written == 1
        assert one.held()["user2"]["dept"] == "other"


async def test_what_is_missing_is_reported(tmp_path: Path) -> None:
    async with nights(tmp_path, refresh='missing = "report"') as one:
        one.write(USERS)
        await one.run()
        one.write(changed("user1", user2={"dept": "d2"}, user3={}))
        await one.run()

        lines = (tmp_path / "users.missing.csv").read_text().splitlines()
        assert lines[0] == "user,row,attributes"
        assert sorted(lines[1:]) == ["user1,,dept site", "user2,2,site", "user3,3,dept site"]
        assert any("1 users, and attributes of 2 more; they are left as they are" in said for said in one.said)
        assert one.held()["user1"] == USERS["user1"]
        assert one.held()["user2"] == USERS["user2"]

        one.write(changed("user1", user2={"dept": "d2"}, user3={}))
        await one.run()
        assert len((tmp_path / "users.missing.csv").read_text().splitlines()) in (1, 2)
        (kept,) = [each async for each in anyio.Path(tmp_path).glob("users.missing.csv.2*")]
        assert (await kept.read_text()).splitlines() == lines, "nobody may have read it yet"


async def test_a_column_that_comes_empty_is_not_cleared_at_everybody(tmp_path: Path) -> None:
    async with nights(tmp_path, "dx", refresh='missing = "clear"') as one:
        one.write(USERS)
        await one.run()
        one.write({user: {"dept": values["dept"]} for user, values in USERS.items()})
        error = await one.run()

        assert isinstance(error, Refused)
        assert "lack attributes that they had (most often 'site')" in str(error)
        assert one.written == 0
        assert one.held() == USERS


async def test_a_plan_does_not_count_who_was_cleared_before(tmp_path: Path) -> None:
    async with nights(tmp_path, "dx", refresh='missing = "clear"') as one:
        one.write(USERS)
        await one.run()
        tonight = changed("user1", "user2")
        one.write(tonight)
        await one.run()
        settings, refresh = await anyio.to_thread.run_sync(one.ready)

        def planned() -> Plan:
            with refresh.compared(one.checkpoint, Options()) as compared:
                return plan(settings, refresh, compared)

        assert (await anyio.to_thread.run_sync(planned)).to_send == 0


async def test_what_is_missing_is_cleared_where_null_removes(tmp_path: Path) -> None:
    """Attributes with their user's row, users in rows of their own behind the export's."""
    async with nights(tmp_path, "dx", refresh='missing = "clear"') as one:
        one.write(USERS)
        await one.run()
        tonight = changed("user1", user2={"dept": "d2"}, user3={})
        one.write(tonight)
        assert await one.run() is None

        assert one.held() == {**tonight, "user1": {}}
        assert one.written == 3
        results = await one.results()
        assert [(row.row, row.user, row.code) for row in results if row.code != "UNCHANGED"] == [
            (2, "user2", "SUCCESS"),
            (3, "user3", "SUCCESS"),
            (100, "user1", "SUCCESS"),
        ]

        one.write(tonight)
        assert await one.run() is None
        assert one.written == 0

        one.write(USERS)
        assert await one.run() is None
        assert one.held() == USERS
        assert one.written == 3


async def test_who_was_gone_before_is_guarded_when_it_is_cleared(tmp_path: Path) -> None:
    """Half of all, accepted once and reported: to clear them is another thing than to report them."""
    gone = list(USERS)[:50]
    async with nights(tmp_path, "dx", refresh='missing = "report"') as one:
        one.write(USERS)
        await one.run()
        one.set = ["refresh.max_missing=100%"]
        one.write(changed(*gone))
        assert await one.run() is None
        one.set = []
        one.write(changed(*gone))
        assert await one.run() is None

        one.refresh = 'missing = "clear"\nmax_missing = "2%"'
        one.write(changed(*gone, "user70"))
        error = await one.run()
        assert isinstance(error, Guarded)
        assert "1 of the 50 users of the export before are not in" in str(error)
        assert "and 50 gone earlier would be CLEARED with them" in str(error)
        assert str(error).endswith("--set refresh.max_missing=51")
        assert one.written == 0

        one.set = ["refresh.max_missing=51"]
        assert await one.run() is None
        assert any("50 gone earlier; they are cleared at the target" in said for said in one.said)
        assert (await to_thread.run_sync(summary, one.checkpoint, 0.0, 0, ""))["message"] == "51 cleared"
        assert (await to_thread.run_sync(summary, one.checkpoint, time.time() + 9, 0, ""))["message"] == "", (
            "of a run before"
        )
        assert one.written == 51
        assert one.held()[gone[0]] == {}

        one.set = []
        one.write(changed(*gone, "user70"))
        assert await one.run() is None
        assert one.written == 0


@pytest.mark.parametrize("missing", ["report", "clear"])
@pytest.mark.parametrize(
    ("name", "head", "row", "end", "reason"),
    [
        ("csv", "email,dept,site\n", "user{0},d,Wien\n", "user7,d", "2 fields, the header has 3"),
        ("csv", "email,dept,site\n", "user{0},d,Wien\n", 'user7,"d', "a quote is opened in this row and never closed"),
        ("csv", "email,dept,site\n", "user{0},d,Wien\n", "user7,d,\xc3", "it is not UTF-8"),
        ("ndjson", "", '{{"email":"user{0}","dept":"d"}}\n', '{"email":"user7","de', "it is not JSON"),
    ],
)
async def test_a_file_that_ends_within_a_row_is_refused(
    tmp_path: Path, missing: str, name: str, head: str, row: str, end: str, reason: str
) -> None:
    """Whoever stood behind that place has not gone."""
    async with nights(tmp_path, "dx", refresh=f'missing = "{missing}"\nmax_missing = "50%"') as one:
        one.set = [f'export.path="users.{name}"']
        path = one.folder / f"users.{name}"
        whole = [row.format(at) for at in range(20)]
        path.write_text(head + "".join(whole))
        assert await one.run() is None
        path.write_bytes((head + "".join(whole[:15])).encode() + end.encode("latin-1"))
        error = await one.run()

        assert isinstance(error, Refused)
        assert f"breaks off: the last row has no line end, and is broken ({reason})" in str(error)
        assert "nothing was sent" in str(error)
        assert one.written == 0

        path.write_text((head + "".join(whole[:15])).rstrip("\n"))
        assert await one.run() is None, "a last line that is whole needs no end"


async def test_what_could_not_be_cleared_is_cleared_the_next_night(tmp_path: Path) -> None:
    """And a user who comes back meanwhile is sent, as the answer to the clearing may have been lost."""
    async with nights(tmp_path, "dx", refresh='missing = "clear"') as one:
        one.set = ["limits.give_up_s=0.2"]
        one.write(USERS)
        await one.run()
        one.sandbox.faults = FaultOptions(rates={"lost": 1.0})
        one.write(changed("user1", "user4", user2={"dept": "d2"}))
        assert isinstance(await one.run(), Stopped)
        one.sandbox.faults = FaultOptions()

        one.write(changed("user1", user2={"dept": "d2"}, user3={"dept": "now"}))
        assert await one.run() is None
        assert one.held() == {**changed(user2={"dept": "d2"}, user3={"dept": "now"}), "user1": {}}


async def test_whoever_reads_the_checkpoint_meanwhile_ends_no_night(tmp_path: Path) -> None:
    """One has the last night's open from before, and others come and go."""
    async with nights(tmp_path) as one:
        one.write(USERS)
        await one.run()
        one.write(changed(user7={"dept": "x", "site": "Wien"}))
        is_over = Event()
        seen: set[int] = set()

        def look() -> None:
            while not is_over.is_set():
                with (
                    suppress(CheckpointError),
                    Checkpoint.read(one.checkpoint) as checkpoint,
                ):  # for a moment there is none
                    seen.add(sum(checkpoint.counts().values()))

        def hold() -> int:
            with Checkpoint.read(one.checkpoint) as checkpoint:
                held = checkpoint.counts()
                Event().wait(0.01)
                for thread in threads:
                    thread.start()
                run.result()
                assert checkpoint.counts() == held
                return held[Code.SUCCESS]

        threads = [Thread(target=look) for _ in range(2)]
        run: Future[None] = Future()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(to_thread.run_sync, hold)
            assert await one.run() is None
            run.set_result(None)
        is_over.set()
        for thread in threads:
            await to_thread.run_sync(thread.join)
        assert one.written == 1
        assert seen <= {100, 99}, "the last night's, or tonight's with what was settled when it began"


@pytest.mark.parametrize("form", ["parquet", "arrow"])
async def test_of_columns_only_what_changed_is_mapped_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    mapped: list[int] = []

    class Counted(TypedMapper):
        def map(self, block: pa.RecordBatch) -> Mapped:
            mapped.append(block.num_rows)
            return super().map(block)

    def write(users: Mapping[str, Values]) -> None:
        rows = [{"email": user, **values} for user, values in users.items()]
        table = pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in ("email", "dept", "site")]))
        path = tmp_path / f"users.{form}"
        if form == "parquet":
            pyarrow.parquet.write_table(table, path, row_group_size=30)
        else:
            pyarrow.feather.write_feather(table, path, chunksize=30)

    monkeypatch.setattr(columnar, "BLOCK_ROWS", 10)
    async with nights(tmp_path) as one:
        one.set = [f'export.path="users.{form}"']
        await to_thread.run_sync(write, USERS)
        assert await one.run() is None
        tonight = changed(user37={"dept": "x", "site": "Wien"}, user61={"dept": "x", "site": "Wien"})
        await to_thread.run_sync(write, tonight)
        monkeypatch.setattr(columnar, "TypedMapper", Counted)
        assert await one.run(first=1) is None
        assert await one.run() is None

        assert one.written == 1
        assert sum(mapped) <= 3
        assert await one.codes() == {"UNCHANGED": 98, "SUCCESS": 2}
        assert [(row.row, row.user) for row in await one.results()] == list(enumerate(tonight, 1))
        assert one.held() == tonight


async def test_a_checkpoint_of_each_of_the_last_nights_is_kept(tmp_path: Path) -> None:
    async with nights(tmp_path) as one:
        one.set = ["checkpoint.keep=2"]
        for _ in range(5):
            one.write(USERS)
            assert await one.run() is None
        assert len(one.files("users.ckpt.2")) == 2


async def test_an_export_that_breaks_off_is_refused(tmp_path: Path) -> None:
    """What is missing can't be told from what has gone."""
    async with nights(tmp_path) as one:
        one.set = ['export.path="users.csv.gz"']
        lines = ["email,dept", *(f"user{row}@example.com,{os.urandom(40).hex()}" for row in range(20_000))]
        data = gzip.compress("\n".join(lines).encode())
        (tmp_path / "users.csv.gz").write_bytes(data[: len(data) * 3 // 4])
        error = await one.run()

        assert isinstance(error, Refused)
        assert "breaks off" in str(error)
        assert one.written == 0
        assert not one.checkpoint.exists()


async def test_stdin_is_refused(tmp_path: Path) -> None:
    async with nights(tmp_path) as one:
        one.set = ['export.path="-"', 'export.format="csv"', 'checkpoint.path="x.ckpt"']
        _, refresh = await anyio.to_thread.run_sync(one.ready)
        with pytest.raises(Refused, match="nothing tells whether stdin is the same"):
            await anyio.to_thread.run_sync(refresh.locked().__enter__)


async def test_a_load_that_is_no_refresh_is_not_given_up_unasked(tmp_path: Path) -> None:
    async with nights(tmp_path, faults=FaultOptions(latency_s=0.02)) as one:
        one.write(USERS)
        await one.crash(60)
        with sqlite3.connect(one.checkpoint) as db:
            db.execute("DELETE FROM load WHERE key = 'refresh'")
            db.execute(
                "UPDATE load SET value = replace(value, ', \"refresh.mode\": \"changed\"', '') WHERE key = 'identity'"
            )
        error = await one.run()

        assert isinstance(error, CheckpointError)
        assert "refresh.mode: was not set, is 'changed'" in str(error)


# Many nights ---------------------------------------------------------------------------------------------------------


class Story:
    """Nights drawn from a seed, and after each what must hold."""

    def __init__(self, one: Nights, seed: int, users: int) -> None:
        self.one = one
        self.dice = random.Random(seed)
        self.users: dict[str, dict[str, str]] = {f"u{n}@x": self.values() for n in range(users)}
        self.away: dict[str, dict[str, str]] = {}
        self.before: dict[str, dict[str, str]] = {}
        self.seen: set[str] = set()

    def values(self) -> dict[str, str]:
        names = self.dice.sample(self.one.names, self.dice.randint(1, len(self.one.names)))
        return {name: self.dice.choice("ABC") for name in names}

    def change(self) -> None:
        """Some change, some flip back to what they were, some go, some come back, some are new."""
        for user in list(self.users):
            what = self.dice.random()
            if what < 0.08:
                self.before[user], self.users[user] = self.users[user], self.values()
            elif what < 0.16 and user in self.before:
                self.before[user], self.users[user] = self.users[user], self.before[user]
            elif what < 0.19:
                self.away[user] = self.users.pop(user)
        for user in [user for user in self.away if self.dice.random() < 0.3]:
            self.users[user] = self.away.pop(user)
        if self.dice.random() < 0.5:
            self.users[f"n{self.dice.randrange(10**9)}@x"] = self.values()

    def rows(self) -> list[tuple[str, dict[str, str]]]:
        """Tonight's rows, of some users several."""
        found = list(self.users.items())
        self.dice.shuffle(found)
        for user, values in list(found):
            if self.dice.random() < 0.05:
                early = {name: self.dice.choice("XYZ") for name in values}
                found.insert(self.dice.randrange(found.index((user, values)) + 1), (user, early))
        return found

    async def night(self, number: int) -> None:
        one, dice = self.one, self.dice
        self.change()
        one.write(self.rows())
        if dice.random() < 0.1:
            one.set = [] if one.set else ['mapping.attributes={dept="dept", site="site", title="title"}']
        for _ in range(dice.choice([0, 0, 0, 1, 2])):
            one.sandbox.faults = self.trouble()
            if dice.random() < 0.6:
                await one.crash(dice.randrange(20))
            else:
                await one.run(first=dice.choice([None, None, 20]))
            if dice.random() < 0.15:
                one.lose_checkpoint()
            if dice.random() < 0.5:  # and another export, before that load is finished
                self.change()
                one.write(self.rows())
        one.sandbox.faults = self.trouble()
        error = await one.run()
        if error is None:
            await self.judge(number, is_finished=True)
        else:
            assert isinstance(error, Stopped), error
            await self.judge(number, is_finished=False)

    def trouble(self) -> FaultOptions:
        dice = self.dice
        if dice.random() < 0.4:
            return FaultOptions()
        rates = {name: dice.random() * 0.2 for name in ("lost", "reset", "500", "missing", "torn")}
        return FaultOptions.model_validate({"seed": dice.randrange(1 << 30), "latency_s": 0.001, "rates": rates})

    async def judge(self, number: int, *, is_finished: bool) -> None:
        """Who is SUCCESS or UNCHANGED is at the target as the export has it."""
        held, good = self.one.held(), 0
        bad = {row.user for row in await self.one.results() if row.code not in ("SUCCESS", "SUPERSEDED", "UNCHANGED")}
        settled = {row.user for row in await self.one.results() if row.code in ("SUCCESS", "UNCHANGED")}
        unsettled = set() if is_finished else self.several()
        for user in settled - bad - unsettled:
            values = self.users[user]
            assert values.items() <= held[user].items(), f"night {number}: {user} has {held[user]}, not {values}"
            good += 1
        if is_finished:
            assert good + len(bad) == len(self.users), f"night {number}: somebody has no outcome"

    def several(self) -> set[str]:
        """Users of several rows, one of which may not be settled yet."""
        lines = (self.one.folder / "users.csv").read_text().splitlines()[1:]
        users = [line.partition(",")[0] for line in lines]
        return {user for user in users if users.count(user) > 1}


async def _tell(folder: Path, seed: int, count: int, users: int) -> None:
    async with nights(folder, refresh='max_missing = "100%"', names=("dept", "site", "title")) as one:
        one.limits = "attempts = 3\ngive_up_s = 0.5"
        story = Story(one, seed, users)
        for number in range(count):
            await story.night(number)
        one.sandbox.faults = FaultOptions()
        one.write(story.rows())
        assert await one.run() is None
        await story.judge(count, is_finished=True)
        assert set(await one.codes()) <= {"SUCCESS", "SUPERSEDED", "UNCHANGED"}


@pytest.mark.parametrize("seed", range(2))
async def test_after_some_nights_the_target_has_what_the_export_says(tmp_path: Path, seed: int) -> None:
    await _tell(tmp_path, seed, 6, 60)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(10, 20))
async def test_after_thirty_nights_the_target_has_what_the_export_says(tmp_path: Path, seed: int) -> None:
    await _tell(tmp_path, seed, 30, 200)
