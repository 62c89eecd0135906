"""Every API and way to authorize, as real processes: killed, resumed, and compared with what the sandbox holds."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from loader.demo import make_export
from tests.end_to_end import oracle
from tests.end_to_end.command import loader

CONCURRENCY = 4
USERS_PER_REQUEST = 10


class Way(NamedTuple):
    """What a sandbox is told, and what the settings say of it.

    `knows`: the sandbox's credentials. `users`: how many a request holds. `writes_users`: what it takes in one request
    is a user, and not an attribute of one.
    """

    flags: tuple[str, ...]
    knows: tuple[str, ...]
    scheme: str
    target: str
    token: str = "env:LOADER_TEST_TOKEN"
    users: int = USERS_PER_REQUEST
    writes_users: bool = True


KEY = ("--key-id", "K", "--secret", "S")
DECLARED = [
    flag
    for name, kind in {
        "department": "string",
        "costCenter": "string",
        "location": "string",
        "headcount": "number",
    }.items()
    for flag in ("--declare", f"{name}={kind}")
]
PROJECT = ("--project-id", "P2test", "--management-key", "K2management")


def calven(scheme: str) -> Way:
    knows = (*KEY, "--token", "T") if scheme == "bearer" else KEY
    return Way(("--scheme", scheme), knows, scheme, 'api = "calven"')


def descope(more: str = "", users: int = 1) -> Way:
    flags = ("--api", "descope", "--quota", "none", *DECLARED)
    return Way(flags, PROJECT, "bearer", f'api = "descope"{more}', "P2test:K2management", users, users > 1)


WAYS = {
    **{f"calven-{scheme}": calven(scheme) for scheme in ("hmac", "client-secret", "basic", "bearer")},
    # Values are text on DX's pages; the export has a number.
    "dx": Way(("--api", "dx", "--quota", "none", "--values", "any"), ("--token", "T"), "bearer", 'api = "dx"', users=1),
    "descope": descope(),
    "descope-bulk": descope("\nbulk = true", USERS_PER_REQUEST),
}


def settings_of(way: Way, folder: Path, url: str) -> Path:
    """Settings for the demo's export, and a quota that holds nothing back."""
    return oracle.write_settings(
        folder,
        url,
        scheme=way.scheme,
        target=way.target,
        token=way.token,
        users_per_request=way.users,
        concurrency=CONCURRENCY,
        quota=["1000000/1s"],
    )


def killed_load(way: Way, folder: Path, users: int, kill_at: tuple[int, ...], *faults: str) -> int:
    """A load, killed as soon as so many rows are settled, and finished; how many users were sent again."""
    expected = make_export(folder / "users.csv", users, seed=users)
    with oracle.sandbox(*way.flags, "--unknown", "former", *faults, knows=way.knows) as url:
        settings = settings_of(way, folder, url)
        for rows in kill_at:
            process = oracle.start("run", settings)
            oracle.wait_for_rows(folder / "users.ckpt", rows, within_s=300)
            process.kill()
            _, err = process.communicate()
            assert process.returncode == -9, err
        status, _, err = oracle.run("run", settings)
        assert status == 1, err  # some users are unknown
        return oracle.compare(url, folder / "users.ckpt", expected)


@pytest.mark.parametrize("name", ["dx", "descope", "descope-bulk"])
def test_a_killed_load_loses_nothing(tmp_path: Path, name: str) -> None:
    """Whatever a request holds: all of a user, one attribute of one, or many users."""
    way = WAYS[name]
    resent = killed_load(way, tmp_path, 250, (40,), "--latency", "0.005")

    assert not way.writes_users or resent <= 2 * CONCURRENCY * way.users


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", WAYS)
def test_twenty_thousand_rows(tmp_path: Path, name: str) -> None:
    """Killed twice, by an API that refuses, breaks connections, and loses answers to what it has done."""
    faults = {"500": 0.005, "503": 0.001, "429": 0.001, "reset": 0.003, "lost": 0.003, "shuffled": 0.05}
    flags = [flag for kind, rate in faults.items() for flag in ("--fault", f"{kind}={rate}")]
    resent = killed_load(WAYS[name], tmp_path, 20_000, (4_000, 12_000), "--retry-after-seconds", "0.1", *flags)
    what = "users sent again" if WAYS[name].writes_users else "more attributes written than rows taken"
    print(f"{name}: {resent} {what}")


def codes(checkpoint: Path) -> Counter[str]:
    return Counter(row["code"] for row in oracle.results(checkpoint))


def test_attributes_that_dx_fails_are_named(tmp_path: Path) -> None:
    """A user of whom it took others is PARTIAL; one of whom it took none is INVALID."""
    (tmp_path / "users.csv").write_text("email,Dept,Cost Centre,Site,Reports\na@x.com,Ops,,,\nb@x.com,Ops,,Wien,\n")
    way = WAYS["dx"]
    with oracle.sandbox(*way.flags, "--failing", "department=", knows=way.knows) as url:
        status, _, err = loader("run", settings_of(way, tmp_path, url))
        (ledger,) = oracle.get(url, "users")

    assert status == 1, err
    assert [(row["code"], row["message"]) for row in oracle.results(tmp_path / "users.ckpt")] == [
        (code, 'failures: [{"name":"department","value":"Ops","error":"could not be updated"}]')
        for code in ("INVALID", "PARTIAL")
    ]
    assert (ledger["userName"], ledger["attributes"]) == ("b@x.com", {"location": "Wien"})


@pytest.mark.parametrize("status", ["200", "422"])
def test_what_dx_says_of_a_token_ends_the_run(tmp_path: Path, status: str) -> None:
    """Whatever the status: with a wrong one, and with one that lacks the scope."""
    make_export(tmp_path / "users.csv", 20, 1)
    way = WAYS["dx"]
    with oracle.sandbox(*way.flags, "--auth-status", status, "--scope", "snapshots:read", knows=way.knows) as url:
        wrong = loader("run", settings_of(way, tmp_path, url), environment={"LOADER_TEST_TOKEN": "another"})
        right = loader("run", settings_of(way, tmp_path, url))

    assert (wrong.status, right.status) == (3, 3)
    assert "the credentials are not accepted" in wrong.err
    assert "invalid_auth" in wrong.err
    assert "the token lacks the scope users:write" in right.err


def test_what_descope_has_not_declared_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    """Where the key may read what is declared; else it shows attribute by attribute."""
    (tmp_path / "users.csv").write_text("email,Dept,Cost Centre,Site,Reports\na@x.com,Ops,,,3\nb@x.com,Ops,,,\n")
    way = WAYS["descope"]
    declared = ("--api", "descope", "--quota", "none", "--declare", "department=string")
    with oracle.sandbox(*declared, knows=way.knows) as url:
        ended = loader("run", settings_of(way, tmp_path, url))
    assert ended.status == 2
    assert "descope does not know the attributes 'costCenter', 'location', 'headcount'" in ended.err

    with oracle.sandbox(*declared, "--no-definitions", knows=way.knows) as url:
        ended = loader("run", settings_of(way, tmp_path, url))
    assert ended.status == 1
    assert [(row["code"], row["target_code"], row["message"]) for row in oracle.results(tmp_path / "users.ckpt")] == [
        ("PARTIAL", "E011003", "headcount: Validation failure: there is no attribute 'headcount' (E011003)"),
        ("SUCCESS", "", ""),
    ]


def test_descope_is_told_the_tier(tmp_path: Path) -> None:
    """With each request, after it was asked for once."""
    make_export(tmp_path / "users.csv", 20, 1)
    way = WAYS["descope"]
    with oracle.sandbox(*way.flags, "--tier", "tier3", knows=way.knows) as url:
        assert loader("run", settings_of(way, tmp_path, url)).status == 0
        (stats,) = oracle.get(url, "stats")

    assert stats["last_license"] == "tier3"
    assert stats["requests"]["/v1/mgmt/license"] == {"200": 1}  # type: ignore[index]


def test_a_user_that_descope_s_bulk_call_refuses_costs_one_user(tmp_path: Path) -> None:
    """A wrong type is this user's failure, in the answer's own words; poison has its request split."""
    rows = [f"user{number}@x.com,Ops,,,{number}" for number in range(30)] + ["evil@x.com,Ops,,,", "gone@x.com,Ops,,,"]
    (tmp_path / "users.csv").write_text("\n".join(["email,Dept,Cost Centre,Site,Reports", *rows]))
    way = WAYS["descope-bulk"]
    with oracle.sandbox(*way.flags, "--poison", "evil", "--unknown", "gone|user7@", knows=way.knows) as url:
        assert loader("run", settings_of(way, tmp_path, url)).status == 1
        held = {str(user["userName"]) for user in oracle.get(url, "users")}

    found = {row["user"]: row["code"] for row in oracle.results(tmp_path / "users.ckpt")}
    assert {user: code for user, code in found.items() if code != "SUCCESS"} == {
        "user7@x.com": "USER_NOT_FOUND",
        "gone@x.com": "USER_NOT_FOUND",
        "evil@x.com": "INVALID",
    }
    assert held == {user for user, code in found.items() if code == "SUCCESS"}
