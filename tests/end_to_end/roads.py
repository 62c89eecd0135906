"""Ways to the sandbox that lead over TLS and proxies, all on loopback, served by a thread of their own."""

import asyncio
import base64
import ssl
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from loader.sandbox import CalvenOptions, Options, serve

#: No name server knows it; the proxies take every name for this machine.
NAME = "api.directory.test"

USER, PASSWORD = "proxy-user", "pr0xy:p@ss/word"


@dataclass
class Roads:
    """Ports, and what the proxies were asked for: the first line and the headers of each request."""

    folder: Path
    tls: int = 0
    mutual_tls: int = 0
    other_name: int = 0
    plain: int = 0
    proxy: int = 0
    tls_proxy: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def client_cert(self) -> Path:
        return self.folder / "client.pem"


@contextmanager
def roads(folder: Path) -> Iterator[Roads]:
    """All of them, until the block ends. The proxies want USER and PASSWORD."""
    authority = trustme.CA()
    found = Roads(folder)
    authority.cert_pem.write_to_path(found.ca_file)
    client = authority.issue_cert("loader@directory.test")
    client.private_key_and_cert_chain_pem.write_to_path(found.client_cert)
    client.private_key_pem.write_to_path(folder / "client.key")
    client.cert_chain_pems[0].write_to_path(folder / "client.crt")
    loop = asyncio.new_event_loop()
    ready, over = threading.Event(), asyncio.Event()

    async def serve_all() -> None:
        async with AsyncExitStack() as stack:
            options = Options(calven=CalvenOptions(key_id="K", secret="S"))
            found.plain = int((await stack.enter_async_context(serve(options))).url.rpartition(":")[2])

            async def listen(handle: object, tls: ssl.SSLContext | None) -> int:
                server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)  # type: ignore[arg-type]
                stack.callback(server.close)
                return int(server.sockets[0].getsockname()[1])

            async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await _join(reader, writer, found.plain)

            async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                found.asked.append(head)
                given = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                if f"proxy-authorization: basic {given}".lower() not in head.lower():
                    writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                    writer.close()
                    return
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await _join(reader, writer, int(head.split()[1].rpartition(":")[2]))

            names = ("127.0.0.1", NAME)
            found.tls = await listen(front, _server(authority, *names))
            found.other_name = await listen(front, _server(authority, "elsewhere.test"))
            mutual = _server(authority, *names)
            mutual.verify_mode = ssl.CERT_REQUIRED
            authority.configure_trust(mutual)
            found.mutual_tls = await listen(front, mutual)
            found.proxy = await listen(proxy, None)
            found.tls_proxy = await listen(proxy, _server(authority, *names))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve_all()))
    thread.start()
    try:
        assert ready.wait(10)
        yield found
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()


def _server(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Pass bytes both ways until either side is done."""
    inner, outer = await asyncio.open_connection("127.0.0.1", port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # one side hung up: so does the other
        finally:
            sink.close()

    await asyncio.gather(pump(reader, outer), pump(inner, writer))
