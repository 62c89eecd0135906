"""The report and the dashboard in a real browser: Debian's chromium, driven by Playwright (both: scripts/soak)."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.end_to_end import oracle
from tests.pages import ROOT

pytestmark = pytest.mark.soak

_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@contextmanager
def browsing(**options: Any) -> Iterator[Any]:
    """A page of a browser; whatever its scripts complain of fails the test."""
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=list(_FLAGS))
        page = browser.new_page(**options)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        yield page
        browser.close()
    assert complaints == []


def faults(page: Any) -> list[str]:
    """What axe, the checker of accessibility, finds wrong: contrast, names, roles, order of headings."""
    from axe_playwright_python.sync_playwright import Axe

    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:150]}" for each in found]


def export(folder: Path, rows: int) -> None:
    with (folder / "users.csv").open("w") as file:
        file.write("email,Dept,Site\n")
        for row in range(rows):
            ragged = "" if row % 1000 else "x,y,"
            file.write(f"user{row:07}@example.com,{ragged}Department {row % 50},Wien\n")


def settings(folder: Path, url: str, *more: str) -> Path:
    (folder / "load.toml").write_text(
        '[export]\npath = "users.csv"\n[mapping]\nuser = "email"\n'
        f'[target]\napi = "calven"\nbase_url = "{url}"\n'
        '[target.auth]\nscheme = "client-secret"\nkey_id = "K"\nsecret = "S"\n' + "\n".join(more) + "\n"
    )
    return folder / "load.toml"


@pytest.mark.timeout(240)
def test_the_report_of_a_million_users_opens_at_once(tmp_path: Path) -> None:
    """In under two seconds, from under two megabytes; in the dark and in print too; and nothing is wrong to axe."""
    export(tmp_path, 1_000_000)
    with oracle.sandbox("--unknown", "user00[0-9]+7@") as url:
        loaded = subprocess.run(
            [sys.executable, "-m", "loader", "run", settings(tmp_path, url, "[limits]", "users_per_request = 500")],
            capture_output=True,
            text=True,
            check=False,
        )
    assert loaded.returncode == 1, loaded.stderr
    began = time.monotonic()
    oracle.run("report", tmp_path / "users.ckpt", "-o", tmp_path / "report.html")
    made_s = time.monotonic() - began
    size = (tmp_path / "report.html").stat().st_size
    page_url = (tmp_path / "report.html").as_uri()
    with browsing() as page:
        began = time.monotonic()
        page.goto(page_url)
        page.wait_for_selector(".uplot canvas")
        opened_s = time.monotonic() - began
        wrong = faults(page)
        page.emulate_media(color_scheme="dark")
        wrong += faults(page)
        page.pdf(path=tmp_path / "report.pdf")
        text = page.inner_text("main")
    print(f"\nmade in {made_s:.2f} s, {size:,} bytes, opened in {opened_s:.2f} s")

    assert wrong == []
    assert opened_s < 2
    assert size < 2_000_000
    assert "1,000,000" in text
    assert "USER_NOT_FOUND" in text
    assert (tmp_path / "report.pdf").stat().st_size > 10_000


@pytest.mark.timeout(120)
def test_the_dashboard_shows_a_run_to_its_end(tmp_path: Path) -> None:
    """Each second's figures, the end, and nothing wrong to axe; it can be read with the keyboard alone."""
    from playwright.sync_api import expect

    export(tmp_path, 40_000)
    with ExitStack() as stack:
        url = stack.enter_context(oracle.sandbox("--unknown", "user00[0-9]+7@", "--latency", "0.05"))
        path = settings(tmp_path, url, "[limits]", "requests_per_minute = 3000")
        with (tmp_path / "log").open("w") as log:
            run = stack.enter_context(
                subprocess.Popen([sys.executable, "-m", "loader", "run", path, "--dashboard"], stderr=log)
            )
        stack.callback(run.kill)
        while (found := re.search(r"http://\S+token=\S+", (tmp_path / "log").read_text())) is None:
            time.sleep(0.05)
        address = found[0]
        with browsing(color_scheme="dark") as page:
            page.goto(address)
            expect(page.locator("#state")).to_have_text("running")
            first = page.inner_text("#rows")
            wrong = faults(page)
            expect(page.locator("#rows")).not_to_have_text(first)
            share = page.get_attribute("#done", "value")
            expect(page.locator("#state")).to_have_text("ended", timeout=60_000)
            rows, told = page.inner_text("#rows"), page.inner_text("#told")
        status = run.wait(30)

    assert wrong == []
    assert status == 1
    assert 0 < float(share) < 1
    assert rows == "40,000"
    assert "40,000 rows settled" in told


class _Quiet(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/favicon.ico":  # which browsers look for, and no site needs
            self.send_response(204)
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder on loopback: of what a browser opens as files, one may not read the other."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("width", [1280, 390])
def test_the_documentation_can_be_used_by_keyboard_and_screen_reader(tmp_path: Path, width: int) -> None:
    """On a page of each kind, on a desk and on a phone."""
    build = [sys.executable, "-m", "sphinx", "-q", "-c", "docs", ".", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True)
    pages = ("index", "commands", "failures", "calven-hierarchy", "reference-library")

    with served(tmp_path) as site:
        for scheme in ("light", "dark"):
            with browsing(viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
                for name in (*(f"docs/{name}.html" for name in pages), "search.html"):
                    page.goto(f"{site}/{name}")
                    assert faults(page) == [], f"{name}, {scheme}"
