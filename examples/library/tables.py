"""Tables that are in memory, or come as they are read."""

import duckdb
import polars as pl

import loader

frame = pl.read_csv("hr.csv").filter(pl.col("active")).select("email", pl.col("dept").str.to_uppercase())
loader.run("load.toml", export=frame, checkpoint="frame.ckpt")

users = duckdb.sql("select email, upper(dept) as dept from 'hr.csv' where active order by email")
loader.run("load.toml", export=users, checkpoint="users.ckpt")
