"""Pictures of the report and the dashboard, of a real load in a real browser, for docs/screens: see scripts/screens."""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.end_to_end import oracle
from tests.end_to_end.test_pages import browsing, export, settings

SCREENS = Path(__file__).parents[2] / "docs" / "screens"
_SIZE = {"width": 1000, "height": 760}


def main() -> None:
    """A load of some twenty seconds that is held by a quota and has failures; its dashboard in the middle of it."""
    with (
        tempfile.TemporaryDirectory() as name,
        oracle.sandbox(
            "--unknown", "user00[0-9]+07@", "--latency", "0.1", "--jitter", "0.1", "--quota", "30/1s"
        ) as url,
    ):
        folder = Path(name)
        export(folder, 60_000)
        path = settings(folder, url, "[limits]", "concurrency = 16")
        with (folder / "log").open("w") as log:
            run = subprocess.Popen([sys.executable, "-m", "loader", "run", path, "--dashboard"], stderr=log)
        try:
            while (found := re.search(r"http://\S+token=\S+", (folder / "log").read_text())) is None:
                time.sleep(0.1)
            time.sleep(12)
            with browsing(viewport=_SIZE, color_scheme="dark") as page:
                page.goto(found[0])
                page.wait_for_timeout(2_500)
                page.screenshot(path=SCREENS / "dashboard.png")
            run.wait(120)
        finally:
            run.kill()
            run.wait()
        oracle.run("report", folder / "users.ckpt", "-o", folder / "report.html")
        for scheme in ("light", "dark"):
            with browsing(viewport=_SIZE, color_scheme=scheme) as page:
                page.goto((folder / "report.html").as_uri())
                page.wait_for_timeout(500)
                page.screenshot(path=SCREENS / f"report-{scheme}.png", full_page=True)


if __name__ == "__main__":
    main()
