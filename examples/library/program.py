"""A load inside a program with an event loop, and how it goes."""

import asyncio

import loader


def show(now: loader.Snapshot) -> None:
    print(f"{now.rows:,} rows, {now.now_per_s:,.0f} a second, {now.wire.on_wire} requests on the wire")


async def main() -> None:
    async with loader.open("load.toml", overrides={"limits.concurrency": 8}, watch=show) as load:
        first = await load.run(first=10)
        if first.failures == 0:
            report = await load.run()
            print(f"{report.rows:,} rows in {report.elapsed_s:.0f} s: {dict(report.counts)}")


asyncio.run(main())
