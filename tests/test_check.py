"""What a load would do, without sending a user."""

import json
from pathlib import Path
from typing import Any

import pytest

from loader import check
from loader.check import Findings, inspect, report, report_lines, request_lines
from loader.probe import Probed
from tests import make


def found(folder: Path, text: str, *overrides: str) -> Findings:
    (folder / "users.csv").write_text(text)
    return inspect(make.settings(folder, overrides=overrides), lambda _rows, _share: None)


def state(folder: Path, text: str, *overrides: str) -> dict[str, Any]:
    findings = found(folder, text, *overrides)
    return report(make.settings(folder, overrides=overrides), findings, Probed("taken"))


def test_rows_are_counted_by_what_would_become_of_them(tmp_path: Path) -> None:
    """Their sum is the rows of the export."""
    text = "email,d\na,1\nb,\n,3\nc\nd,4\n"

    shown = state(tmp_path, text)

    assert (shown["rows"], shown["to_send"], shown["rejected"], shown["skipped"]) == (5, 2, 2, 1)
    assert shown["attributes"] == {"d": 2}


def test_rejected_rows_are_told_by_reason_with_the_first_of_each(tmp_path: Path) -> None:
    """Numbers and values differ within one reason; the most frequent comes first."""
    text = "email,n,t\na,x,1\nb,2\nc,yy,1\nd,zzz,1\ne,1,2,3\n"

    shown = state(tmp_path, text, 'mapping.types={n="number"}')

    assert [(reason["count"], reason["first_row"], reason["first"]) for reason in shown["reasons"]] == [
        (3, 1, "users.csv line 2: column 'n': 'x' is not a JSON number"),
        (2, 2, "users.csv line 3: 2 fields, the header has 3"),
    ]


def test_reasons_are_bounded(tmp_path: Path) -> None:
    """However many there are."""
    columns = [f"c{at}x" for at in "abcdefghijklmnopqrstuvwxyz"]
    types = ",".join(f'{name}="number"' for name in columns)
    rows = [f"u{at}," + ",".join("x" if at == other else "1" for other in range(26)) for at in range(26)]

    shown = state(tmp_path, "email," + ",".join(columns) + "\n" + "\n".join(rows) + "\n", f"mapping.types={{{types}}}")

    assert len(shown["reasons"]) <= 21
    assert sum(reason["count"] for reason in shown["reasons"]) == 26


def test_users_that_come_again_and_keys_that_look_alike(tmp_path: Path) -> None:
    """Both are sent as they stand; the second kind is most likely a mistake."""
    shown = state(tmp_path, "email,d\nann,1\nbob,1\nann,2\nAnn,3\n ann,4\nann,5\nAnn,6\n")

    assert shown["rows_of_users_again"] == 3
    assert (shown["keys_that_look_alike"], shown["look_alike_rows"]) == (
        2,
        [{"row": 4, "user": "Ann"}, {"row": 5, "user": " ann"}],
    )


def test_requests_are_those_of_a_run(tmp_path: Path) -> None:
    """Merged, and as full as the limits allow."""
    findings = found(tmp_path, "email,d\na,1\na,3\nb,2\nc,4\nd,5\n", "limits.users_per_request=2")

    assert findings.requests == 2
    assert findings.largest_body < findings.body_bytes <= 2 * findings.largest_body
    assert findings.first is not None
    assert findings.first.users == ["a", "b"]


def test_the_first_request_is_shown_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Method, address, headers and body, as it would go."""
    monkeypatch.setenv("CALVEN_SECRET", "s3cret")
    text = "email,d\n" + "".join(f"u{at},00{at}\n" for at in range(5))
    findings = found(tmp_path, text)
    for scheme, kind in (("hmac", "Bearer ***"), ("basic", "Basic ***")):
        settings = make.settings(tmp_path, overrides=[f"target.auth.scheme={scheme}"])

        whole = check.first_request(settings, findings)

        assert whole is not None
        assert whole["headers"]["Authorization"] == kind
        assert [user["userName"] for user in json.loads(whole["body"])["userAttributes"]] == findings.first.users  # type: ignore[union-attr]
        lines = list(request_lines(settings, findings))
        assert lines[0].startswith("POST http://127.0.0.1:8080/v1/directory/user-attributes")
        assert any('"d": "002"' in line for line in lines)
        assert "… and 2 more users in this request (--format json shows it whole)" in lines
        assert "s3cret" not in str(whole) + str(lines)


@pytest.mark.parametrize("key", ["s3cret", "s3cret of several words"])
def test_no_part_of_a_key_in_a_header_of_its_own_is_shown(tmp_path: Path, key: str) -> None:
    """Only Authorization begins with a word that is no secret."""
    target = ["target.api=http", "target.path=/users", "target.user=id", f"target.auth.token={key}"]
    text = make.SETTINGS.partition("key_id")[0].replace('"hmac"', '"api-key"')
    (tmp_path / "users.csv").write_text("email,d\na,1\n")
    settings = make.settings(tmp_path, text, target)

    shown = check.first_request(settings, inspect(settings, lambda _rows, _share: None))

    assert shown is not None
    assert shown["headers"]["X-API-Key"] == "***"
    assert "s3cret" not in str(shown)


def test_an_export_that_breaks_off_is_told_up_to_there(tmp_path: Path) -> None:
    """What was read before counts."""
    export = make.export(tmp_path, "email,d\n" + "".join(f"u{at},{at}\n" for at in range(50_000)), "users.csv.gz")
    path = make.file_of(export)
    path.write_bytes(path.read_bytes()[:-50])

    shown = state(tmp_path, "", "export.path=users.csv.gz")

    assert 0 < shown["rows"] < 50_000
    assert "breaks off" in shown["broke_off"]
    assert any("breaks off" in line for line in report_lines(shown))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (["limits.requests_per_minute=60"], "0:05 at 60 requests/60s, if an answer takes under 16 s"),
        (["limits.requests_per_minute=6000", "limits.concurrency=1"], "0:01 if an answer takes 0.2 s"),
        ([], "there is no rate limit"),
    ],
)
def test_the_time_is_an_estimate_that_says_what_it_rests_on(tmp_path: Path, limits: list[str], words: str) -> None:
    """The rate, or a latency that nobody knows before."""
    text = "email,d\n" + "".join(f"u{at},{at}\n" for at in range(5))

    (line,) = (
        line
        for line in report_lines(state(tmp_path, text, "limits.users_per_request=1", *limits))
        if line.startswith("time: ")
    )

    assert words in line


def test_a_header_alone_has_nothing_to_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no request to show."""
    monkeypatch.setenv("CALVEN_SECRET", "s3cret")
    findings = found(tmp_path, "email,d\n")

    assert list(request_lines(make.settings(tmp_path), findings)) == ["No request: there is nothing to send"]
    assert "requests: 0" in list(report_lines(state(tmp_path, "email,d\n")))
