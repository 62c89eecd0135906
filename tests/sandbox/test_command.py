"""`loader sandbox`, as a process and as flags."""

import json
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from loader.sandbox.command import _options as options_from
from loader.sandbox.command import sandbox
from tests.sandbox.calls import BEARER, EXAMPLE, JSON, PATH, TOKEN


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
        ("--quota 100", "--quota: '100' is not of the form"),
        ("--quota 0/60s", "--quota"),
        ("--down 10", "--down"),
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

    with sandbox.make_context("sandbox", flags) as context:
        given = {name: value for name, value in context.params.items() if name != "ledger_file"}
        options = options_from(given, given.pop("port"), given.pop("quota"))

    calven, faults, quota = options.calven, options.faults, options.quota
    assert options.port == 8099
    assert (calven.token_lifetime_s, calven.expiration_unit, calven.max_users) == (1.5, "ms", 9)
    assert (calven.clock_skew_s, calven.max_bytes, calven.schemes) == (300.0, None, frozenset({"hmac"}))
    assert [(code, pattern.pattern) for code, pattern in calven.codes] == [(2, "^d=")]
    assert options.roster.known_users == frozenset({"ann", "bob\u2028x", "bob "})
    assert options.roster.unknown is not None
    assert (options.ledger.write, options.ledger.journal, options.ledger.count_only) == ("replace", True, False)
    assert quota is not None
    assert (quota.requests, quota.window_s, quota.retry_after) == (1000, 0.5, "date")
    assert (faults.rates, faults.down) == ({"429": 0.1, "lost": 1.0}, ((1, 2.5), (9, 1)))
    assert (faults.retry_after, faults.latency_s, faults.unauthorized_once_at_s) == ("date", 0.1, 3.0)


def test_no_flags_are_the_defaults() -> None:
    """Nothing given is nothing set, but for the credentials."""
    with sandbox.make_context("sandbox", []) as context:
        given = {name: value for name, value in context.params.items() if name != "ledger_file"}
        options = options_from(given, given.pop("port"), given.pop("quota"))

    assert options.model_fields_set <= {"port", "calven", "roster", "ledger", "faults"}
    assert not options.calven.model_fields_set
    assert not options.faults.model_fields_set


def test_help_names_every_fault() -> None:
    """--help tells all there is to ask for."""
    text = " ".join(CliRunner().invoke(sandbox, ["--help"]).stdout.split())

    assert "429, 500, 502, 503, 400, 401, 408, garbage, truncated, shuffled, missing, doubled, foreign" in text
    assert "Default: 3600." in text
