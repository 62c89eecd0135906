"""A plan says what a run would send, and a run that is given it sends that, or nothing."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio
import msgspec
import pytest

from loader import plan as planning
from loader.check import inspect
from loader.errors import Refused
from loader.plan import Plan, plan, refuse_drift
from loader.refresh.night import Options, Refresh
from loader.settings import load_settings
from tests.nights import Nights, nights

USERS: Mapping[str, Mapping[str, str]] = {f"user{n}": {"dept": f"d{n}", "site": "Wien"} for n in range(40)}
CHANGED = {**USERS, "user7": {"dept": "x", "site": "Wien"}, "new": {"dept": "n"}}


async def made(one: Nights, options: Options | None = None) -> Plan:
    """The plan of tonight."""

    def work() -> Plan:
        settings, refresh = one.ready()
        with refresh.compared(one.checkpoint, options or Options()) as compared:
            return plan(settings, refresh, compared)

    return await anyio.to_thread.run_sync(work)


async def run(one: Nights, planned: Plan) -> Exception | None:
    """A run that is given the plan."""
    path = one.folder / "plan.json"
    await anyio.Path(path).write_bytes(msgspec.json.encode(planned))
    _, refresh = await anyio.to_thread.run_sync(one.ready)
    return await one.run(judge=lambda compared: refuse_drift(path, refresh, compared))


async def test_a_plan_says_what_a_run_sends(tmp_path: Path) -> None:
    async with nights(tmp_path) as one:
        one.write(USERS)
        await one.run()
        one.write(CHANGED)
        found = await made(one)
        before = one.sandbox.ledger.writes

        assert (found.to_send, found.requests, found.full, found.refusal) == (2, 1, "", None)
        assert [(each.kind, each.row, each.user, json.loads(bytes(each.attributes))) for each in found.samples] == [
            ("changed", 8, "user7", {"dept": "x", "site": "Wien"}),
            ("new", 41, "new", {"dept": "n"}),
        ]
        lines = list(planning.lines(found))
        assert lines[0] == "41 rows of 41 users:"
        assert 'changed: row 8: user7 {"dept":"x","site":"Wien"}' in lines[-2]
        assert one.sandbox.ledger.writes == before

        assert await run(one, found) is None
        assert one.written == 2


async def test_a_plan_of_a_first_night(tmp_path: Path) -> None:
    async with nights(tmp_path) as one:
        one.write(USERS)
        found = await made(one)

        assert found.full == "there is no state users.state yet"
        assert (found.to_send, found.requests, found.counts["new"], len(found.samples)) == (40, 6, 40, 10)
        assert not await anyio.Path(one.state).exists()
        assert await run(one, found) is None


async def test_a_plan_tells_what_a_guard_would_refuse(tmp_path: Path) -> None:
    async with nights(tmp_path, refresh='missing = "report"') as one:
        one.write(USERS)
        await one.run()
        one.write(dict(list(USERS.items())[20:]))
        found = await made(one)

        assert found.refusal is not None
        assert "20 of the 40 users" in found.refusal
        assert len(found.gone) == 10
        assert list(planning.lines(found))[-1].startswith("A RUN WOULD REFUSE THIS EXPORT: 20 of the 40 users")


def _touch(one: Nights) -> None:
    os.utime(one.folder / "users.csv", (1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_touch, "export: mtime_ns"),
        (lambda one: one.set.append("refresh.max_changed=9"), "settings: refresh.max_changed"),
        (lambda one: one.state.rename(one.folder / "gone"), "state: changed_ns, night, size"),
    ],
)
async def test_a_run_refuses_a_plan_of_something_else(
    tmp_path: Path, change: Callable[[Nights], object], message: str
) -> None:
    async with nights(tmp_path) as one:
        one.write(USERS)
        await one.run()
        one.write(CHANGED)
        found = await made(one)
        change(one)
        error = await run(one, found)

        assert isinstance(error, Refused)
        assert message in str(error)
        assert "Make it anew: loader plan" in str(error)
        assert one.written == 0


async def test_a_plan_says_what_would_be_cleared_and_what_stays(tmp_path: Path) -> None:
    gone = list(USERS)[:2]
    tonight = {**{user: USERS[user] for user in list(USERS)[2:]}, "user7": {"dept": "d7"}}
    async with nights(tmp_path, "dx", refresh='missing = "report"') as one:
        one.write(USERS)
        await one.run()
        one.write(tonight)
        one.refresh = 'missing = "report"\nmax_missing = 10'
        told = list(planning.lines(await made(one)))
        assert "             2  are gone since the last export, and stay at the target as they are" in told
        assert {"  lost site: user7, row 6", *(f"  gone: {user}" for user in gone)} <= set(told)

        await one.run()
        one.refresh = 'missing = "clear"\nmax_missing = 10'
        one.write({user: values for user, values in tonight.items() if user != "user20"})
        found = await made(one)
        told = list(planning.lines(found))
        assert "             1  are gone since the last export, and would be CLEARED" in told
        assert "             2  are gone earlier, and would be CLEARED" in told
        assert {f"  clear: {user}" for user in (*gone, "user20")} <= set(told)
        assert found.to_send == 3

        one.refresh = 'missing = "clear"\nmax_missing = 2'
        assert (await made(one)).refusal is not None


async def test_who_is_sent_again_is_told_why(tmp_path: Path) -> None:
    async with nights(tmp_path) as one:
        one.write(USERS)
        await one.run()
        told = list(planning.lines(await made(one, Options(is_full=True))))

    assert told[0] == "all users would be sent: --full"
    assert "            40  are known, and would be sent again, as all are" in told


@pytest.mark.parametrize("how", ["", "bulk = true", "bulk = true\nusers_per_lookup = 7", "users_per_lookup = 7"])
def test_a_plan_counts_the_requests_that_check_counts(tmp_path: Path, how: str) -> None:
    (tmp_path / "load.toml").write_text(
        '[export]\npath = "users.csv"\n[mapping]\nuser = "email"\n[target]\napi = "scim"\n'
        f'base_url = "https://idp.example.com"\n{how}\n[target.auth]\nscheme = "bearer"\ntoken = "env:T"\n'
        '[limits]\nrequests_per_minute = 100\n[refresh]\nmode = "changed"\n'
    )
    (tmp_path / "users.csv").write_text("email,title\n" + "".join(f"user{at}@x,t\n" for at in range(250)))
    settings = load_settings(tmp_path / "load.toml")
    rules = settings.refresh_rules
    assert rules is not None

    refresh = Refresh(rules, settings.identity(), settings.source, settings.row_mapping(), lambda _: None)
    with refresh.locked() as held, held.compared(settings.checkpoint_path) as compared:
        planned = plan(settings, held, compared)

    assert planned.requests == inspect(settings, lambda _rows, _share: None).requests


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1}'])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p").write_text(text)

    with pytest.raises(Refused, match="is no plan of loader plan -o"):
        planning.read(tmp_path / "p")
    with pytest.raises(Refused, match="can't read it"):
        planning.read(tmp_path / "nowhere")
