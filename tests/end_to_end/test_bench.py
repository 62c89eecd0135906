"""`loader bench` against the sandbox, over real sockets."""

import json
import signal
import stat
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from loader.bench.findings import Report, compare, is_slower
from loader.settings import load_settings
from tests.bench.test_bench import check
from tests.end_to_end import oracle
from tests.end_to_end.command import Ended, loader
from tests.tenants import TENANTS, Tenant

USERS = 300
#: Long enough that what this machine adds doesn't show.
TENANT = Tenant(0.04, 0.0004, users=100, concurrency=16, at_once=4)


def flags(tenant: Tenant) -> Sequence[str]:
    """A sandbox that is like this."""
    told = ["--request-seconds", f"{tenant.request_s}", "--user-seconds", f"{tenant.user_s}"]
    told += ["--at-once", f"{tenant.at_once}"] if tenant.at_once else []
    told += ["--max-users", f"{tenant.largest}"] if tenant.largest else []
    return [*told, *(["--quota", f"{tenant.quota_per_s}/1s"] if tenant.quota_per_s else [])]


def write(folder: Path, url: str, tenant: Tenant = TENANT, users: int = USERS) -> Path:
    """An export, and settings that load it."""
    rows = (f"user{number}@example.com,Dept {number % 7},{number:05},Wien,{number % 40}\n" for number in range(users))
    (folder / "users.csv").write_text("email,Dept,Cost Centre,Site,Reports\n" + "".join(rows))
    return oracle.write_settings(
        folder, url, users_per_request=tenant.users, concurrency=tenant.concurrency, bytes_per_request=10_000_000
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with oracle.sandbox(*flags(TENANT)) as address:
        yield address


class Benched(NamedTuple):
    """A bench of a few seconds: its folder, with bench.json; how it ended; and what the sandbox holds then."""

    folder: Path
    ended: Ended
    held: dict[str, object]


@pytest.fixture(scope="module")
def benched(tmp_path_factory: pytest.TempPathFactory) -> Benched:
    folder = tmp_path_factory.mktemp("bench")
    with oracle.sandbox(*flags(TENANT)) as address:
        ended = loader("bench", write(folder, address), "--seconds", "4", "--users", "200", "-o", folder / "bench.json")
        return Benched(
            folder, ended, {str(user["userName"]): user["attributes"] for user in oracle.get(address, "users")}
        )


def test_the_table_and_what_it_means(benched: Benched) -> None:
    """On stdout, without lines or colours as this is no terminal; what is under way goes to stderr."""
    ended, lines = benched.ended, benched.ended.out.splitlines()

    assert ended.status == 0, ended.err
    assert lines[0].split() == [
        "users",
        "at",
        "once",
        "users/s",
        "±",
        "requests/s",
        "median",
        "95",
        "%",
        "failed",
        "429",
    ]
    assert lines[1].split()[:2] == ["1", "1"]
    assert "\x1b" not in ended.out
    assert any(line.startswith("A request takes ") for line in lines)
    assert any(line.startswith("Recommended") for line in lines)
    assert "writing 200 users of users.csv to calven at http://127.0.0.1:" in ended.err


@pytest.mark.soak  # what it finds depends on how busy the machine is
def test_the_lines_recommended_are_settings(benched: Benched, url: str, tmp_path: Path) -> None:
    """They can stand in the settings file as they are."""
    recommended = benched.ended.out.rpartition("\n\n")[2]
    path = write(tmp_path, url)
    text = path.read_text()
    path.write_text(text[: text.index("[limits]")] + recommended)

    limits = tomllib.loads(recommended)["limits"]
    assert load_settings(path).batch_limits.users == limits["users_per_request"]
    assert load_settings(path).limits.concurrency == limits["concurrency"]
    assert 3 <= limits["concurrency"] <= 6


def test_it_writes_what_a_load_would_write_and_no_checkpoint(benched: Benched) -> None:
    """The first users, each with the values of the export, however often."""
    assert benched.held == {
        f"user{number}@example.com": {
            "department": f"Dept {number % 7}",
            "costCenter": f"{number:05}",
            "location": "Wien",
            "headcount": number % 40,
        }
        for number in range(200)
    }
    assert sorted(path.name for path in benched.folder.iterdir()) == ["bench.json", "load.toml", "users.csv"]


def test_the_figures_are_kept_for_their_owner_without_secrets(benched: Benched) -> None:
    """As JSON that is read again, with settings, machine and each visit."""
    path = benched.folder / "bench.json"
    report = Report.model_validate_json(path.read_bytes())

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "LOADER_TEST" not in path.read_text()
    assert json.loads(path.read_text())["settings"]["target"]["auth"] == "hmac"
    assert report.machine["cores"]
    assert report.users == 200
    assert {step.concurrency for step in report.steps} >= {1, 2, 4}


def test_compared_with_an_earlier_one(benched: Benched, url: str, tmp_path: Path) -> None:
    """The same target is as fast as it was: 0. Another, three times as slow, is slower: 1."""
    options = ("--seconds", "2", "--users", "200", "--tolerance", "50%", "--compare", benched.folder / "bench.json")

    same = loader("bench", write(tmp_path, url), *options)
    with oracle.sandbox(*flags(TENANT.slower(2.0))) as address:
        slower = loader("bench", write(tmp_path, address), *options)

    assert same.status == 0, same.out
    assert ": the same" in same.out
    assert slower.status == 1, slower.out
    assert "SLOWER" in slower.out
    assert f", is {address!r}" in next(line for line in slower.out.splitlines() if "another target.base_url" in line)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "target.base_url=https://api.example.invalid"], "if that is meant, say --yes"),
        (["--compare", "load.toml"], "load.toml is no report of loader bench"),
        (["--compare", "nothing.json"], "can't read nothing.json: No such file"),
        (["-o", "nowhere/bench.json"], "-o nowhere/bench.json: can't write in"),
        (["--set", "export.path=nobody.csv"], "nobody.csv"),
        (["--set", "export.path=empty.csv"], "no user that can be sent"),
        (["--tolerance", "10"], "'10' is not a share such as 10%"),
        (["--seconds", "0"], "--seconds"),
    ],
)
def test_what_forbids_it_is_said_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    """Status 2, and nobody was asked: there is nobody at that address."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "http://127.0.0.1:9")
    (tmp_path / "empty.csv").write_text("email,Dept,Cost Centre,Site,Reports\n")

    ended = loader("bench", "load.toml", *arguments)

    assert ended.status == 2, ended.err
    assert words in ended.err


def test_a_hierarchy_is_not_benched(tmp_path: Path) -> None:
    """There is one request, and it replaces what is there."""
    path = oracle.write_settings(tmp_path, "http://127.0.0.1:9", target='api = "calven-hierarchy"')
    path.write_text(path.read_text().replace("[mapping]", "[mapping.columns]").replace('user = "email"', "", 1))
    path.write_text(
        "\n".join(line for line in path.read_text().splitlines() if not line.startswith(("types", "attri")))
    )

    ended = loader("bench", path)

    assert ended.status == 2
    assert "takes the whole export in one request" in ended.err


def test_refused_credentials_are_told(tmp_path: Path, url: str) -> None:
    """Status 3, with the target's words."""
    ended = loader("bench", write(tmp_path, url), "--seconds", "3", environment={"LOADER_TEST_SECRET": "wrong"})

    assert (ended.status, ended.out) == (3, "")
    assert "apiKey or hash is wrong" in ended.err


def test_a_target_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Status 3, after the time that it was given."""
    ended = loader("bench", write(tmp_path, "http://127.0.0.1:9"), "--seconds", "1")

    assert (ended.status, ended.out) == (3, "")
    assert "nothing could be measured in 1 s; the last answer: can't connect to 127.0.0.1:9" in ended.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_shows_what_was_measured_by_then(
    tmp_path: Path, url: str, number: signal.Signals, status: int
) -> None:
    """The table so far, kept as well, and which signal it was."""
    path, kept = write(tmp_path, url), tmp_path / "bench.json"
    process = oracle.start("bench", path, "--seconds", "15", "-o", kept)
    time.sleep(4)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)

    assert process.returncode == status, err
    assert out.splitlines()[0].split()[0] == "users"
    assert "This is not all there is to know: interrupted by" in out
    assert number.name in err
    assert Report.model_validate_json(kept.read_bytes()).steps


# With the time it takes


def bench(folder: Path, tenant: Tenant, seconds: int = 120) -> Report:
    """A whole bench as a process, against a sandbox that is like this."""
    users = max(5000, tenant.users * tenant.concurrency)
    with oracle.sandbox(*flags(tenant), "--count-only") as address:
        path = write(folder, address, tenant, users)
        status, out, err = oracle.run(
            "bench", path, "--seconds", str(seconds), "--users", str(users), "-o", folder / "bench.json"
        )
    print(out)
    assert status == 0, err
    return Report.model_validate_json((folder / "bench.json").read_bytes())


@pytest.mark.soak
@pytest.mark.parametrize("about", TENANTS)
def test_it_finds_the_optimum_that_was_set(tmp_path: Path, about: str) -> None:
    """Size, knee, quota and the largest request, within a tenth, over real sockets."""
    print(f"{about}: {check(TENANTS[about], bench(tmp_path, TENANTS[about]))}")


@pytest.mark.soak
def test_a_slow_down_by_a_fifth_is_seen_and_a_repeat_is_none(tmp_path: Path) -> None:
    """Requests that take a fifth longer, a target that works on a fifth less at once, and the same again."""
    tenant = Tenant(0.1, 0.001, users=100, concurrency=32, at_once=15)
    before = bench(tmp_path, tenant)
    others = {"again": tenant, "slower": tenant.slower(0.2), "fewer at once": tenant._replace(at_once=12)}
    found = {name: bench(tmp_path, each) for name, each in others.items()}

    for name, after in found.items():
        changes = [
            f"{each.name} {each.change.share:+.1%} ± {each.change.by_accident:.1%}" for each in compare(before, after)
        ]
        print(f"{name}: {'; '.join(changes)}")
    assert {name: is_slower(before, after, 0.1) for name, after in found.items()} == {
        "again": False,
        "slower": True,
        "fewer at once": True,
    }
