"""Seeded exports of any size, written in constant memory: `python -m benchmarks.generate 1000000 users.csv`.

The name tells the form: .csv, .parquet, .ndjson (records as they are sent) or .flat.ndjson (rows to be mapped).
"""

import hashlib
import random
import sys
from pathlib import Path

_DEPARTMENTS = [f"Department {number}" for number in range(60)]
_SITES = ["Sydney", "Melbourne", "Wien", "Zürich", "São Paulo", "Austin"]
_BLOCK = 20_000
_HEADER = "email,department,costCenter,site,title,headcount\n"


def generate(path: Path, users: int, seed: int = 1) -> Path:
    """`users` users with five attributes, about 90 bytes a row of CSV."""
    if path.suffix == ".parquet":
        return _as_parquet(generate(path.with_suffix(".draft.csv"), users, seed), path)
    rng = random.Random(seed)
    form = "flat" if path.name.endswith(".flat.ndjson") else path.suffix
    with path.open("w", encoding="utf-8") as file:
        if form == ".csv":
            file.write(_HEADER)
        for first in range(0, users, _BLOCK):
            rows = []
            for number in range(first, min(first + _BLOCK, users)):
                user = f"user{number}@example.com"
                department, site = rng.choice(_DEPARTMENTS), rng.choice(_SITES)
                cost, title, count = f"cc-{rng.randrange(10_000):04}", f"Engineer {number % 9}", rng.randrange(1_000)
                if form == ".csv":
                    rows.append(f"{user},{department},{cost},{site},{title},{count}\n")
                    continue
                attributes = (
                    f'"department":"{department}","costCenter":"{cost}","site":"{site}","title":"{title}",'
                    f'"headcount":{count}'
                )
                if form == "flat":
                    rows.append(f'{{"email":"{user}",{attributes}}}\n')
                else:
                    rows.append(f'{{"userName":"{user}","attributes":{{{attributes}}}}}\n')
            file.write("".join(rows))
    return path


def kept(folder: Path, users: int, form: str = "csv") -> Path:
    """Such an export in `folder`, made when it isn't there yet; another, should this file ever change."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    path = folder / f"users-{digest}-{users}.{form}"
    if not path.exists():
        generate(folder / f"draft-{users}.{form}", users).replace(path)
    return path


def _as_parquet(csv: Path, path: Path) -> Path:
    import pyarrow.csv
    import pyarrow.parquet

    groups = pyarrow.csv.ReadOptions(block_size=8 << 20)  # some 100,000 rows
    with pyarrow.csv.open_csv(csv, groups) as blocks, pyarrow.parquet.ParquetWriter(path, blocks.schema) as file:
        for block in blocks:
            file.write_batch(block)
    csv.unlink()
    return path


if __name__ == "__main__":
    generate(Path(sys.argv[2]), int(sys.argv[1]))
