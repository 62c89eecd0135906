"""Reading and mapping alone, each format and compression in a fresh process: rows/s, and peak memory.

    python -m benchmarks.formats 1000000

One user a row, five attributes. The last line of each pair is `-`: the same bytes from stdin.
"""

import argparse
import bz2
import gzip
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from benchmarks.generate import generate

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, 6),
    ".bz2": bz2.compress,
    ".zst": zstd.compress,
}

_READ = """
import re, resource, sys, time
from pathlib import Path
from loader.export.files import Files
from loader.mapping import RowMapping
from loader.record import Frame
name, form = sys.argv[1:]
nested = form in ("ndjson",)
export = Files.of([Path(name)], form)
mapping = RowMapping(Frame("userAttributes", "userName", "attributes"), 1_000_000, None if nested else "email")
started = time.perf_counter()
rows = sum(len(block.numbers) for block in export.rows(mapping))
took = time.perf_counter() - started
try:  # Linux counts what the parent held before it started this one in ru_maxrss, but not here
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / (1 << 10)
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
print(rows, took, peak)
"""


def exports(folder: Path, users: int, names: Collection[str] = ()) -> list[tuple[Path, str]]:
    """The same users as a file of each format and compression, or of those `names`."""
    csv = generate(folder / "users.csv", users)
    table = pyarrow.csv.read_csv(csv)
    tsv, array = folder / "users.tsv", folder / "users.json"
    tsv.write_bytes(csv.read_bytes().replace(b",", b"\t"))
    ndjson = generate(folder / "users.ndjson", users)
    flat = (
        b'{"email":' + line[12:].replace(b'"attributes":{', b"").rstrip()[:-1]
        for line in ndjson.read_bytes().splitlines()
    )
    array.write_bytes(b"[" + b",\n".join(flat) + b"]")
    parquet, arrow = folder / "users.parquet", folder / "users.arrow"
    pyarrow.parquet.write_table(table, parquet, row_group_size=100_000)
    with pyarrow.ipc.new_file(arrow, table.schema) as file:
        file.write_table(table, max_chunksize=50_000)
    made: list[tuple[Path, str]] = []
    for path, form in ((csv, "csv"), (tsv, "tsv"), (ndjson, "ndjson"), (array, "json")):
        for suffix, pack in _PACKED.items():
            packed = path.with_name(path.name + suffix)
            if names and packed.name not in names:
                continue
            if suffix:
                packed.write_bytes(pack(path.read_bytes()))
            made.append((packed, form))
    return [*made, (parquet, "parquet"), (arrow, "arrow")]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("users", type=int, nargs="?", default=1_000_000)
    options = parser.parse_args()
    print("| export | rows/s | peak MiB | rows/s from stdin |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        for path, form in exports(Path(name), options.users):
            cells = []
            for source in (str(path), "-"):
                if source == "-" and form in ("parquet", "arrow"):
                    cells.append("–")
                    continue
                with path.open("rb") as file:
                    done = subprocess.run(
                        [sys.executable, "-c", _READ, source, form], stdin=file, stdout=subprocess.PIPE, check=True
                    )
                rows, took, peak = (float(part) for part in done.stdout.split())
                assert rows == options.users, (path.name, rows)
                cells += [f"{rows / took:,.0f}", *([f"{peak:.0f}"] if source != "-" else [])]
            print(f"| `{path.name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
