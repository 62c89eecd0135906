"""What became of each user, as Arrow."""

import pyarrow.parquet as pq

import loader

report = loader.run("load.toml")

for batch in report.results(["USER_NOT_FOUND", "INVALID"]):
    for row in batch.to_pylist():
        print(row["row"], row["user"], row["code"], row["message"])

with report.results() as rows, pq.ParquetWriter("results.parquet", rows.schema) as file:
    for batch in rows:
        file.write_batch(batch)

later = loader.status("users.ckpt")
print("finished" if later.finished else later.stopped, dict(later.counts))
