"""A whole bench in virtual time, through the client's real layers: what it finds, what it keeps to, how it ends."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.batch import Batch, BatchLimits
from loader.bench.bench import Bounds, Pool, Sweep, describe, read_pool
from loader.bench.findings import Report, compare, is_slower
from loader.errors import LoaderError, Refused, Stopped
from loader.request import Request, Response
from loader.targets.calven import FRAME, Calven
from loader.tempo.quota import Quota, pace_of
from loader.transport import Send
from tests import make
from tests.tempo.simulation import Server, Target, Trace
from tests.tenants import TENANTS, Tenant
from tests.virtual_time import run_virtual

JITTER = 0.1
#: Answers vary between their shortest time and that much more.
MEAN = 1 + JITTER / 2


def pool(users: int, bytes_each: int = 1) -> Pool:
    names = [f"user{number}" for number in range(users)]
    value = b'{"a":"%s"}' % (b"x" * bytes_each)
    return Pool(Batch(range(1, users + 1), names, [FRAME.record(name, value) for name in names]), FRAME)


def server(tenant: Tenant, **more: Any) -> Server:
    return Server(
        latency_s=tenant.request_s / MEAN,
        user_s=tenant.user_s / MEAN,
        jitter=JITTER,
        knee=tenant.at_once,
        largest=tenant.largest,
        quota=tenant.quota_per_s,
        **more,
    )


class Bench:
    """A sweep over a simulated target, from its beginning to its end."""

    def __init__(self, tenant: Tenant, seed: int = 1, users: int | None = None, **more: Any) -> None:
        self.seed = seed
        self.users = users or max(5000, tenant.users * tenant.concurrency)
        self.bounds = Bounds(BatchLimits(tenant.users, 10_000_000), tenant.concurrency, **more)
        self.trace = Trace()
        self.target: Send = Target(server(tenant), self.trace, seed)
        self.warnings: list[str] = []

    async def _run(self, stop_after_s: float | None) -> tuple[Report, LoaderError | None]:
        uniform = random.Random(self.seed).uniform
        self.sweep = Sweep(
            Calven(auth="bearer"),
            self.target,
            lambda: {"token": "a-token-of-the-test"},
            pool(self.users),
            self.bounds,
            self.warnings.append,
            uniform,
        )

        async def stop() -> None:
            if stop_after_s is not None:
                await anyio.sleep(stop_after_s)
                self.sweep.lane.stop(Stopped("somebody stopped it"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop)
            await self.sweep.run()
            tasks.cancel_scope.cancel()
        limits = {"concurrency": self.bounds.concurrency, "quota": list(map(str, self.bounds.quotas))}
        return self.sweep.report({"settings": {"limits": limits}, "machine": {}}), self.sweep.reason

    def run(self, stop_after_s: float | None = None) -> Report:
        report, self.reason = run_virtual(self._run(stop_after_s))
        return report


# What it finds


def check(tenant: Tenant, report: Report) -> str:
    """What was found is what was set, within a tenth; in a line."""
    found, chosen = report.found, report.recommended
    assert found is not None
    assert chosen is not None
    users, at_once = tenant.smallest
    share = tenant.users_per_s(chosen.users_per_request, chosen.concurrency) / tenant.best
    assert chosen.users_per_request == pytest.approx(users, rel=0.1)
    assert share >= 0.9
    if tenant.at_once is not None:
        assert found.knee is not None
        assert abs(found.knee - tenant.at_once) <= max(1, 0.1 * tenant.at_once)
        assert abs(chosen.concurrency - at_once) <= max(1, 0.1 * at_once)
    else:
        assert found.knee is None
    if tenant.quota_per_s is not None:
        assert found.requests_per_s == pytest.approx(tenant.quota_per_s, rel=0.1)
    else:
        assert found.requests_per_s is None
    if tenant.largest is not None:
        assert found.largest_request == pytest.approx(tenant.largest, rel=0.1)
    else:
        assert found.largest_request is None
    return (
        f"users {chosen.users_per_request} ({users}), at once {chosen.concurrency} ({at_once}), knee {found.knee} "
        f"({tenant.at_once}), rate {found.requests_per_s} ({tenant.quota_per_s}), largest {found.largest_request} "
        f"({tenant.largest}), {share:.1%} of the best, in {report.took_s:.0f} s"
    )


@pytest.mark.parametrize("about", TENANTS)
def test_it_finds_the_optimum_that_was_set(about: str) -> None:
    """Size, knee, quota and the largest request, within a tenth; and what is recommended does reach the best."""
    check(TENANTS[about], Bench(TENANTS[about]).run())


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 22))
@pytest.mark.parametrize("about", TENANTS)
def test_whatever_the_seed(about: str, seed: int) -> None:
    """The same with other dice, and twice the time."""
    print(about, seed, check(TENANTS[about], Bench(TENANTS[about], seed, seconds=120.0).run()))  # noqa: T201


def test_a_quota_that_is_set_is_kept_and_used() -> None:
    """In every window; and the recommendation is what uses it up."""
    tenant = Tenant(0.3, 0.0, users=100, concurrency=16)
    quota = Quota.parse("1200/60s")
    bench = Bench(tenant, quotas=[quota], paces=[pace_of(quota, 100)])

    report = bench.run()

    sent = sorted(at for at, _ in bench.trace.answers)
    assert max(sum(at <= each < at + 2.0 for each in sent) for at in sent[::20]) <= 40 + 16  # answers vary by a moment
    assert len(sent) / report.took_s <= 20
    assert report.found is not None
    assert (report.found.requests_per_s, report.found.knee) == (None, None)
    assert report.best is not None
    assert report.best.users_per_s == pytest.approx(2000, rel=0.05)
    assert report.recommended is not None
    assert report.recommended.concurrency in (6, 7)


def test_windows_of_a_minute_take_time() -> None:
    """In a minute nobody can tell, and nothing is recommended that would be refused; in ten minutes it is found."""

    def bench(seconds: float) -> Report:
        made = Bench(Tenant(0.1, 0.0, users=100, concurrency=16), seconds=seconds)
        made.target = Target(Server(latency_s=0.1, jitter=JITTER, quota=500, window_s=60.0), made.trace, 1)
        return made.run()

    short, long = bench(60.0), bench(600.0)

    assert (short.is_refusing, short.recommended) == (True, None)
    assert long.found is not None
    assert long.found.requests_per_s == pytest.approx(500 / 60, rel=0.1)
    assert long.recommended is not None
    assert long.recommended.users_per_s <= 1.1 * 100 * 500 / 60


def test_failures_by_chance_do_not_hide_the_optimum() -> None:
    """A network that loses every fiftieth request."""
    tenant = Tenant(0.1, 0.0005, users=100, concurrency=16, at_once=8)
    bench = Bench(tenant)
    bench.target = Target(server(tenant, failing=0.02), bench.trace, 1)

    report = bench.run()

    assert report.recommended is not None
    assert report.recommended.concurrency == pytest.approx(8, abs=2)
    assert report.failed == 0
    assert report.found is not None
    assert report.found.request_s == pytest.approx(0.1, rel=0.1)


# Has it become slower?

COMPARED = Tenant(0.1, 0.001, users=100, concurrency=32, at_once=12)


@pytest.mark.parametrize(
    ("now", "is_it"),
    [
        (COMPARED, False),
        (COMPARED.slower(0.2), True),
        (COMPARED._replace(at_once=9), True),
    ],
)
def test_a_slow_down_by_a_fifth_is_seen(now: Tenant, is_it: bool) -> None:
    """Of requests, or of how many are worked on at once; and not where there is none."""
    before, after = Bench(COMPARED, 1).run(), Bench(now, 2).run()

    assert is_slower(before, after, 0.1) is is_it
    assert len(compare(before, after)) == 2


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_a_repeat_is_never_slower(seed: int) -> None:
    """And a slow-down always is."""
    before, again = Bench(COMPARED, 100 + seed).run(), Bench(COMPARED, 200 + seed).run()
    slower = Bench(COMPARED.slower(0.2), 300 + seed).run()

    for after in (again, slower):
        print([f"{each.name}: {each.change.share:+.1%}" for each in compare(before, after)])  # noqa: T201
    assert not is_slower(before, again, 0.1)
    assert is_slower(before, slower, 0.1)


# What it keeps to


def test_no_user_is_sent_twice_at_a_time_and_all_are_sent() -> None:
    """However few there are: then as many requests go at once as they suffice for."""
    bench = Bench(Tenant(0.1, 0.001, users=40, concurrency=16), users=130)
    inner, on_the_way, ever = bench.target, set[str](), set[str]()

    async def watched(request: Request) -> Response:
        users = {record["userName"] for record in orjson.loads(request.body)["userAttributes"]}
        assert on_the_way.isdisjoint(users)
        on_the_way.update(users)
        ever.update(users)
        response = await inner(request)
        on_the_way.difference_update(users)
        return response

    bench.target = watched
    report = bench.run()

    assert len(ever) == 130
    assert max(step.users_per_request * step.concurrency for step in report.steps) <= 130
    assert report.found is not None
    assert report.found.most_at_once == 16


@pytest.mark.parametrize("seconds", [5.0, 30.0])
@pytest.mark.parametrize("latency_s", [0.01, 0.5, 4.0])
def test_it_ends_in_time(seconds: float, latency_s: float) -> None:
    """But for the requests that are on the wire then."""
    report = Bench(Tenant(latency_s, 0.0, users=20, concurrency=8), seconds=seconds).run()

    assert report.took_s <= seconds + 1.1 * latency_s


def test_stopped_it_tells_what_it_knows() -> None:
    """What was measured by then, and why that is not all."""
    bench = Bench(TENANTS["as many users as may be"])
    report = bench.run(stop_after_s=20.0)

    assert isinstance(bench.reason, Stopped)
    assert report.ended == "somebody stopped it"
    assert report.took_s <= 21
    assert {step.concurrency for step in report.steps} >= {1, 2}
    assert report.best is not None


def test_a_target_that_takes_nobody_is_told_so_at_once() -> None:
    """After as many users as there are, or a thousand, with its words."""
    bench = Bench(Tenant(0.1, 0.0, users=100, concurrency=16))

    async def refuse(request: Request) -> Response:
        await anyio.sleep(0.1)
        names = [record["userName"] for record in orjson.loads(request.body)["userAttributes"]]
        return make.response({"results": [{"userName": name, "resultCode": 1, "message": "gone"} for name in names]})

    bench.target = refuse
    report = bench.run()

    assert "not one of the 1," in str(bench.reason)
    assert "USER_NOT_FOUND: gone" in str(bench.reason)
    assert report.failed == report.sent < 2000
    assert (report.found, report.best, report.recommended) == (None, None, None)


def test_a_target_that_is_down_ends_with_its_last_words() -> None:
    """Nothing was measured: that is an error."""
    bench = Bench(Tenant(0.1, 0.0, users=100, concurrency=16), seconds=10.0)
    bench.target = Target(Server(down=True), bench.trace, 1)
    report = bench.run()

    assert isinstance(bench.reason, Stopped)
    assert "nothing could be measured in 10 s; the last answer: connection reset" in str(bench.reason)
    assert report.steps == ()


def test_refused_credentials_end_it() -> None:
    """With the target's words, like a load."""
    bench = Bench(Tenant(0.1, 0.0, users=100, concurrency=16))

    async def refuse(_: Request) -> Response:
        await anyio.sleep(0.1)
        return make.response({"message": "who are you?"}, 401)

    bench.target = refuse
    report = bench.run()

    assert "who are you?" in str(bench.reason)
    assert report.took_s < 5


# The users it sends


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 20), st.integers(80, 400))
def test_every_piece_fits(sizes: Sequence[int], users: int, body_bytes: int) -> None:
    """Whatever is cut from the pool keeps to the limits, unless a single user is too large; one more would not fit."""
    names = [f"u{number}" for number in range(len(sizes))]
    records = [FRAME.record(name, b'{"a":"%s"}' % (b"x" * size)) for name, size in zip(names, sizes, strict=True)]
    limits = BatchLimits(users, body_bytes)
    made = Pool(Batch(range(len(names)), names, records), FRAME)

    most = made.fitting(limits)

    def fits(count: int) -> bool:
        return all(
            FRAME.body_bytes(count, sum(map(len, records[at : at + count]))) <= body_bytes
            for at in range(len(records) - count + 1)
        )

    assert most == 1 or fits(most)
    assert most == min(users, len(names)) or not fits(most + 1)
    for piece in made.pieces(most):
        assert len(piece) == most


def test_pieces_leave_nobody_out_for_ever() -> None:
    """The rest that makes no whole piece is another each time."""
    made = pool(10)
    seen = {user for _ in range(4) for piece in made.pieces(4) for user in piece.users}

    assert [len(piece) for piece in made.pieces(4)] == [4, 4]
    assert len(seen) == 10


def test_the_pool_is_the_exports_first_users(tmp_path: Path) -> None:
    """Rows of one user are joined, as in a load; rows that can't be sent are counted; no more is read than needed."""
    (tmp_path / "users.csv").write_text(
        "email,dept,site\na,Ops,\n,Nobody,\nb,Sales,Wien\na,,Graz\nbroken\nc,Law,Linz\nd,HR,Bonn\nbroken\n"
    )
    settings = make.settings(tmp_path)

    three, all_of_them = read_pool(settings, 3), read_pool(settings, 100)

    (piece,) = three.pieces(3)
    assert (list(piece.users), list(piece.numbers), three.rejected) == (["a", "b", "c"], [1, 3, 6], 3)
    assert FRAME.attributes_of(piece.records[0]) == {"dept": b'"Ops"', "site": b'"Graz"'}
    assert len(all_of_them) == 4
    assert three.attributes == {"dept", "site"}


def test_a_target_that_replaces_gets_the_last_row(tmp_path: Path) -> None:
    """As a load would send it."""
    (tmp_path / "users.csv").write_text("email,dept,site\na,Ops,\na,,Graz\n")
    made = read_pool(make.settings(tmp_path, overrides=["target.write=replace"]), 10)

    assert made.attributes == {"site"}


def test_an_export_without_users_is_refused(tmp_path: Path) -> None:
    """There is nothing to send."""
    (tmp_path / "users.csv").write_text("email,dept\n,x\n")

    with pytest.raises(Refused, match="no user that can be sent"):
        read_pool(make.settings(tmp_path), 10)


def test_no_secret_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept tells target and limits, and how it authorizes, but not with what."""
    monkeypatch.setenv("CALVEN_SECRET", "a-secret-of-the-test")
    made = make.settings(
        tmp_path,
        overrides=['target.expect=["b", "a"]', "network.proxy=http://user:passw0rd@proxy:1", "limits.quota=['9/1s']"],
    )
    found = describe(made)

    assert found["settings"]["target"]["auth"] == "hmac"
    assert found["settings"]["target"]["expect"] == ["a", "b"]
    assert found["settings"]["limits"]["quota"] == ["9 requests/1s"]
    assert not any(word in str(found) for word in ("a-secret-of-the-test", "CALVEN_SECRET", "passw0rd", "KEY"))
    assert {"system", "cores", "python"} <= found["machine"].keys()
