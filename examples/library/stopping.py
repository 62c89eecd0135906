"""A load that ends when its time is over, and one that ends when the service does."""

import asyncio
import signal

import loader


async def at_most(seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds), loader.open("load.toml") as load:
            await load.run()
    except TimeoutError:
        print("time is over; the next run goes on")


async def until_the_service_ends() -> loader.Report:
    async with loader.open("load.toml") as load:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stop, "the service ends")
        return await load.run()


async def main() -> None:
    await at_most(60)
    report = await until_the_service_ends()
    print(report.stopped or "finished")


asyncio.run(main())
