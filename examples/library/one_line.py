"""A load in one line, where no event loop runs."""

import loader

report = loader.run("load.toml")
print(f"{report.rows:,} rows, {report.failures:,} failed")
