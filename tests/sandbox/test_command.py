"""`loader sandbox`, as a process and as flags."""

import json
import re
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import CliRunner

from loader.sandbox.command import options_of, sandbox
from loader.sandbox.flags import GROUPS, OF_API
from loader.sandbox.options import FAULTS, ApiName, Options, QuotaOptions, WorkOptions
from tests.sandbox.calls import BEARER, EXAMPLE, JSON, PATH, TOKEN


def options_from(*flags: str) -> Options:
    with sandbox.make_context("sandbox", list(flags)) as context:
        return options_of(context)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal(tmp_path: Path, ending: signal.Signals) -> None:
    """URL first, then credentials; a signal ends it with 0 and the ledger in its file, for the owner's eyes."""
    ledger = tmp_path / "ledger.ndjson"
    command = [
        sys.executable,
        "-m",
        "loader.sandbox",
        "--token",
        TOKEN,
        "--secret",
        "s p",
        "--ledger-file",
        str(ledger),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url, key_id, secret = (process.stdout.readline().rstrip("\n") for _ in range(3))
            request = urllib.request.Request(url + PATH, EXAMPLE, JSON | BEARER)
            with urllib.request.urlopen(request) as response:
                assert response.status == 200
            process.send_signal(ending)
            _, hints = process.communicate()
        finally:
            process.kill()

    assert process.returncode == 0
    assert url.startswith("http://127.0.0.1:")
    assert key_id.startswith("CALVEN_KEY_ID=")
    assert secret == "CALVEN_SECRET='s p'"
    assert f'base_url = "{url}"' in hints
    assert "Traceback" not in hints
    assert json.loads(ledger.read_text())["userName"] == "jane.doe@example.com"
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--nope", "No such option"),
        ("--port x", "--port"),
        ("--port 99999", "--port"),
        ("--key-id ", "--key-id"),
        ("--token-lifetime 0", "--token-lifetime: Input should be greater than 0"),
        ("--latency soon", "--latency"),
        ("--fault 429", "'429' is not of the form KIND=RATE"),
        ("--fault 418=0.5", "--fault: 418"),
        ("--fault 429=2", "--fault: 429: Input should be less than or equal to 1"),
        ("--poison (", "--poison"),
        ("--code x=a", "--code"),
        ("--code 3=(", "--code"),
        ("--quota 100", "'--quota': '100' is not of the form"),
        ("--quota 0/60s", "--quota"),
        ("--quota 5000users/60s", "'--quota'"),
        ("--quota none --quota 5/1s", "'--quota': 'none' is not of the form"),
        ("--quota 5/1s --quota-penalty -1", "--quota-penalty: Input should be greater than or equal to 0"),
        ("--quota-kind fixed", "--quota-kind: there is no quota for it to change"),
        ("--api dx --quota none --quota-counts-refused", "--quota-counts-refused: there is no quota"),
        ("--api azure", "--api"),
        ("--api dx --key-id x", "--key-id is a flag of --api calven, not of dx"),
        ("--key-id=x --api=dx", "--key-id is a flag of --api calven, not of dx"),
        ("--api descope --token x", "--token is a flag of --api calven, dx, scim, http, not of descope"),
        ("--declare team=string", "--declare is a flag of --api descope, not of calven"),
        ("--api dx --values anything", "--values"),
        ("--api descope --declare team", "--declare"),
        ("--api descope --declare team=text", "--declare: team: Input should be 'string'"),
        ("--api descope --tier gold", "--tier"),
        ("--api scim --prefix scim/", "--prefix"),
        ("--api http --success-status 404", "--success-status"),
        ("--down 10", "--down"),
        ("--at-once 0 --request-seconds 1", "--at-once: Input should be greater than or equal to 1"),
        ("--at-once 4", "--at-once: Value error, work that takes no time needs no place"),
        ("--scheme oauth", "--scheme"),
        ("--result-code hex", "--result-code"),
        ("--known-users /nonexistent", "does not exist"),
        ("--ledger-file /nonexistent/x", "--ledger-file: can't write in /nonexistent"),
        ("--count-only --journal", "--count-only"),
        ("--count-only --ledger-file x", "--count-only"),
    ],
)
def test_bad_options_are_one_line(flags: str, words: str) -> None:
    """A flag that can't be right: one line that names it, exit status 2, also below a group."""
    group = click.Group(commands=[sandbox])
    arguments = flags.split(" ")
    for command, given in ((sandbox, arguments), (group, ["sandbox", *arguments])):
        result = CliRunner().invoke(command, given)

        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        assert words in result.stderr


def test_a_taken_port_is_one_line() -> None:
    """A port in use is named, with exit status 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "loader.sandbox", "--port", str(port)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)

    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: 127.0.0.1:{port}: ")
    assert result.stderr.count("\n") == 1


def test_flags_become_options(tmp_path: Path) -> None:
    """Each flag sets its field, and what isn't given keeps its default."""
    known = tmp_path / "known"
    known.write_text("ann\r\n\nbob\u2028x\nbob ", encoding="utf-8")
    flags = ["--port", "8099", "--token-lifetime", "1.5", "--expiration-unit", "ms", "--scheme", "hmac"]
    flags += ["--code", "2=^d=", "--known-users", str(known), "--unknown", "^x", "--write", "replace", "--journal"]
    flags += ["--quota", "1000/0.5s", "--retry-after", "date", "--latency", "0.1", "--fault", "429=0.1"]
    flags += ["--request-seconds", "0.2", "--user-seconds", "0.001", "--at-once", "8"]
    flags += [
        "--fault",
        "lost=1",
        "--down",
        "1+2.5",
        "--down",
        "9+1",
        "--unauthorized-once-at",
        "3",
        "--max-users",
        "9",
    ]

    options = options_from(*flags)
    calven, faults = options.calven, options.faults
    assert options.port == 8099
    assert (calven.token_lifetime_s, calven.expiration_unit, calven.max_users) == (1.5, "ms", 9)
    assert (calven.clock_skew_s, calven.max_bytes, calven.schemes) == (300.0, None, frozenset({"hmac"}))
    assert [(code, pattern.pattern) for code, pattern in calven.codes] == [(2, "^d=")]
    assert options.roster.known_users == frozenset({"ann", "bob\u2028x", "bob "})
    assert options.roster.unknown is not None
    assert (options.ledger.write, options.ledger.journal, options.ledger.count_only) == ("replace", True, False)
    assert options.quotas == (QuotaOptions(requests=1000, window_s=0.5, retry_after="date"),)
    assert (faults.rates, faults.down) == ({"429": 0.1, "lost": 1.0}, ((1, 2.5), (9, 1)))
    assert (faults.retry_after, faults.latency_s, faults.unauthorized_once_at_s) == ("date", 0.1, 3.0)
    assert options.work == WorkOptions(request_s=0.2, user_s=0.001, at_once=8)


@pytest.mark.parametrize(
    ("flags", "quotas"),
    [
        ([], None),
        (["--retry-after", "date"], ()),
        (["--quota", "none"], ()),
        (["--quota", "500/60s"], (QuotaOptions(requests=500),)),
        (["--quota", "500 requests/1.5s"], (QuotaOptions(requests=500, window_s=1.5),)),
        (
            ["--quota", "10/1s", "--quota", "5000 users/60s", "--quota-kind", "fixed", "--quota-penalty", "2.5"],
            (
                QuotaOptions(requests=10, window_s=1, kind="fixed", penalty_s=2.5),
                QuotaOptions(users=5000, kind="fixed", penalty_s=2.5),
            ),
        ),
        (
            ["--quota", "10/1s", "--retry-after", "none", "--quota-counts-refused"],
            (QuotaOptions(requests=10, window_s=1, retry_after="none", counts_refused=True),),
        ),
        (["--api", "dx", "--quota", "none"], ()),
        (["--api", "dx", "--quota", "9/1s"], (QuotaOptions(requests=9, window_s=1),)),
        (["--api", "dx", "--retry-after", "int"], (QuotaOptions(requests=1000, retry_after="int"),)),
        (["--api", "descope", "--quota-penalty", "5"], (QuotaOptions(requests=500, penalty_s=5),)),
    ],
)
def test_quotas(flags: list[str], quotas: tuple[QuotaOptions, ...] | None) -> None:
    """Those named, none, or the API's own with what is changed of them."""
    assert options_from(*flags).quotas == quotas


@pytest.mark.parametrize(
    ("api", "flags", "expected"),
    [
        ("dx", ["--token", "t", "--scope", "a", "--scope", "b"], {"token": "t", "scopes": {"a", "b"}}),
        ("dx", ["--failing", "x=", "--unknown-status", "422"], {"failing": re.compile("x="), "unknown_status": 422}),
        (
            "descope",
            ["--declare", "team=string", "--declare", "size=number", "--no-definitions", "--tier", "none"],
            {"declared": {"team": "string", "size": "number"}, "definitions": False, "tier": None},
        ),
        ("descope", ["--tier", "tier3", "--second-login-id"], {"tier": "tier3", "second_login_id": True}),
        ("scim", ["--no-bulk", "--private-config"], {"bulk": False, "public_config": False, "search": True}),
        ("http", ["--results", "none", "--result-success", "0"], {"results": None, "success": 0}),
        ("http", ["--result-success", "true", "--result-unknown", "1.5"], {"success": True, "unknown": "1.5"}),
        ("http", ["--results", "", "--body", "one", "--scheme", "basic"], {"results": "", "schemes": {"basic"}}),
    ],
)
def test_flags_of_an_api(api: ApiName, flags: list[str], expected: dict[str, object]) -> None:
    """They set its own options, and no other's."""
    options = options_from("--api", api, *flags)

    assert options.api == api
    assert {name: getattr(getattr(options, api), name) for name in expected} == expected
    assert options.model_fields_set == {"api", "port", "quotas", api}


@pytest.mark.parametrize("api", get_args(ApiName))
def test_every_option_has_a_flag(api: ApiName) -> None:
    """What an API's options say can be said on the command line, each with words of its own."""
    fields = {f"{api}__{field}" for field in GROUPS[api].model_fields}

    assert fields <= {flag.name for flag in OF_API[api]}
    for flag in OF_API[api]:
        assert flag.help
        with sandbox.make_context("sandbox", ["--api", api]) as context:
            assert flag.name in context.params


def test_no_flags_are_the_defaults() -> None:
    """Nothing given is nothing set, but for the credentials."""
    options = options_from()

    assert options.model_fields_set == {"api", "port", "quotas"}
    assert options.quotas is None


def test_help_names_every_fault() -> None:
    """--help tells all there is to ask for."""
    text = " ".join(CliRunner().invoke(sandbox, ["--help"]).stdout.split())

    assert "--api dx --help" in text
    assert ", ".join(FAULTS) in text
    assert "Default: 3600." in text


def test_help_is_of_the_api_named() -> None:
    """Flags of other APIs are not in the way."""
    text = CliRunner().invoke(sandbox, ["--help", "--api", "descope"]).stdout

    assert "--management-key" in text
    assert "--quota" in text
    assert "--key-id" not in text
    assert max(map(len, text.splitlines())) <= 80
