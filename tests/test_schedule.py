"""The examples of a nightly refresh: where they can't be run, they are at least what their reader would take."""

import ast
import configparser
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import Context

from loader.cli import main
from loader.settings import load_settings

FOLDER = Path(__file__).parents[1] / "examples" / "schedule"


def text_of(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def unit_of(name: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text_of(name))
    return {section: dict(parser[section]) for section in parser.sections()}


def commands() -> dict[str, list[str]]:
    """What each file runs, word by word."""
    job: Any = yaml.safe_load(text_of("kubernetes-cronjob.yaml"))
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    tree = ast.parse(text_of("airflow_refresh.py"))
    (listed,) = (
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "COMMAND"
    )
    (shell,) = re.findall(r"loader run .*(?= \|\|)", text_of("github-actions.yml"))
    (cron,) = re.findall(r"\S*loader run .*", text_of("crontab"))
    return {
        "crontab": shlex.split(cron),
        "systemd": shlex.split(unit_of("loader-refresh.service")["Service"]["ExecStart"]),
        "airflow": listed,
        "github": shlex.split(shell),
        "kubernetes": pod["containers"][0]["command"],
    }


@pytest.mark.parametrize("name", ["crontab", "systemd", "airflow", "github", "kubernetes"])
def test_each_runs_a_command_that_there_is(name: str) -> None:
    """With options that it has, on the settings that lie beside it."""
    program, command, *arguments = commands()[name]
    run = main.get_command(Context(main), command)
    assert run is not None
    context = run.make_context(command, arguments)

    assert Path(program).name == "loader"
    assert context.params["settings"] == Path("/srv/loader/load.toml")
    assert context.params["quiet"] is True


def test_the_settings_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALVEN_KEY_ID", "K")
    monkeypatch.setenv("CALVEN_SECRET", "S")
    settings = load_settings(FOLDER / "load.toml")

    assert settings.secrets() == {"key_id": "K", "secret": "S"}
    assert settings.refresh_rules is not None
    assert settings.refresh_rules.full_every_s == 30 * 86_400
    assert settings.notify.command == "/srv/loader/tell"


def test_cron_takes_the_times() -> None:
    lines = [line for line in text_of("crontab").splitlines() if line and not line.startswith("#")]
    (entry,) = (line for line in lines if not re.match(r"[A-Z]+=", line))

    assert re.match(r"30 1,3 \* \* \*  ", entry)
    assert "%" not in entry  # cron would take it for a line end


def test_systemd_takes_the_units() -> None:
    service, timer = unit_of("loader-refresh.service"), unit_of("loader-refresh.timer")

    assert list(service) == ["Unit", "Service", "Install"]
    assert service["Service"]["RestartPreventExitStatus"] == "1 2"
    assert timer["Timer"]["OnCalendar"] == "*-*-* 01:30:00"
    if (analyze := shutil.which("systemd-analyze")) is not None:  # where there is one it says more
        done = subprocess.run([analyze, "calendar", timer["Timer"]["OnCalendar"]], check=False, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_kubernetes_never_runs_two_and_never_repeats_what_ends_alike() -> None:
    job = yaml.safe_load(text_of("kubernetes-cronjob.yaml"))
    spec = job["spec"]["jobTemplate"]["spec"]

    assert (job["apiVersion"], job["kind"], job["spec"]["concurrencyPolicy"]) == ("batch/v1", "CronJob", "Forbid")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # which podFailurePolicy needs
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2]


def test_github_actions_reads_it_as_it_is_meant() -> None:
    flow = yaml.safe_load(text_of("github-actions.yml"))

    assert flow[True]["schedule"] == [{"cron": "30 1 * * *"}]  # YAML 1.1 takes "on" for true
    assert flow["concurrency"]["cancel-in-progress"] is False
    script = flow["jobs"]["refresh"]["steps"][0]["run"]
    assert subprocess.run(["sh", "-n"], input=script.encode(), check=False).returncode == 0


@pytest.mark.parametrize(("status", "told"), [(0, ""), (1, "-s loader: 1 row failed directory-admins@example.com\n{}")])
def test_the_command_tells_only_what_is_wrong(tmp_path: Path, status: int, told: str) -> None:
    mail = tmp_path / "mail"
    mail.write_text('#!/bin/sh\necho "$@"\ncat\n')
    mail.chmod(0o755)
    known = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOADER_EXIT_STATUS": str(status)}
    done = subprocess.run(
        [FOLDER / "tell"],
        input=b"{}",
        env=os.environ | known | {"LOADER_SUMMARY": "loader: 1 row failed"},
        check=False,
        capture_output=True,
    )

    assert done.stdout.decode() == told
