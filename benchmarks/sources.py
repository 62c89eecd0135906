"""Where an export lies: reading and mapping alone, from each place in a fresh process. Rows/s, CPU time, peak memory.

    python -m benchmarks.sources 1000000
    python -m benchmarks.sources 1000000 --latency 0.03
    python -m benchmarks.sources 200000 --s3 http://127.0.0.1:5000

One user a row, five attributes. `https` is a web server of this machine, plain, which takes ranges; each of its answers
comes so many seconds late. `--s3`: a store that is empty and takes anything, such as moto_server.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from benchmarks.formats import exports

NAMES = (
    "users.csv",
    "users.csv.gz",
    "users.csv.zst",
    "users.ndjson",
    "users.ndjson.gz",
    "users.parquet",
    "users.arrow",
)
_BUCKET = "exports"

_READ = """
import re, sys, time
from pathlib import Path
from loader.export.address import Access
from loader.export.files import Files, matching
from loader.mapping import RowMapping
from loader.record import Frame
name, form, endpoint = sys.argv[1:]
access = Access(endpoint=endpoint or None)
export = Files.of(matching(name, Path.cwd(), access), form)
user = None if form == "ndjson" else "email"
mapping = RowMapping(Frame("userAttributes", "userName", "attributes"), 1_000_000, user)
started, cpu = time.perf_counter(), time.process_time()
rows = sum(len(block.numbers) for block in export.rows(mapping))
took, cpu = time.perf_counter() - started, time.process_time() - cpu
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / (1 << 10)
print(rows, took, cpu, peak)
"""


@contextmanager
def serving(folder: Path, latency_s: float) -> Iterator[str]:
    """The folder on a web server; its URL."""

    @web.middleware
    async def late(request: web.Request, handler: "web.Handler") -> web.StreamResponse:  # type: ignore[name-defined]
        await asyncio.sleep(latency_s)
        return await handler(request)  # type: ignore[no-any-return]

    loop = asyncio.new_event_loop()
    app = web.Application(middlewares=[late])
    app.router.add_static("/", folder)
    runner = web.AppRunner(app)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


def put(endpoint: str, folder: Path) -> str:
    """The files into a bucket of a store that checks nothing; its URL."""
    key = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    for path, data in (("", b""), *((f"/{name}", (folder / name).read_bytes()) for name in NAMES)):
        headers = {"Authorization": key, "Content-Length": str(len(data)), "Content-Type": "application/octet-stream"}
        url = f"{endpoint}/{_BUCKET}{path}"
        urllib.request.urlopen(urllib.request.Request(url, data or None, headers, method="PUT")).close()
    return f"s3://{_BUCKET}"


def measured(url: str, form: str, endpoint: str = "") -> str:
    """The cells of a row."""
    who = (
        {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"} if endpoint else {}
    )
    command = [sys.executable, "-c", _READ, url, form, endpoint]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | who)
    rows, took, cpu, peak = (float(part) for part in done.stdout.split())
    return f"{rows / took:,.0f} | {cpu / rows * 1e6:.2f} | {peak:.0f}"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("users", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--latency", type=float, default=0.0, metavar="S", help="of each answer of the web server")
    parser.add_argument("--s3", default="", metavar="URL", help="the endpoint of a store to put the exports into")
    options = parser.parse_args()
    print("| source | format | rows/s | CPU s a million rows | peak MiB |\n|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        forms = {path.name: form for path, form in exports(folder, options.users) if path.name in NAMES}
        with serving(folder, options.latency) as url:
            places = [("file", str(folder), ""), ("https", url, "")]
            if options.s3:
                places.append(("s3", put(options.s3, folder), options.s3))
            for kind in NAMES:
                for place, where, endpoint in places:
                    print(f"| {place} | `{kind}` | {measured(f'{where}/{kind}', forms[kind], endpoint)} |", flush=True)


if __name__ == "__main__":
    main()
