"""The sandbox's own endpoints, under /_sandbox/. They pay no quota, meet no fault and are in no count."""

from collections.abc import Iterator
from itertools import islice
from urllib.parse import unquote

import orjson
from aiohttp import web
from pydantic import ValidationError

from loader.sandbox.options import FaultOptions
from loader.sandbox.sandbox import Sandbox

PREFIX = "/_sandbox/"
_LINES_A_WRITE = 1_000


async def handle(sandbox: Sandbox, request: web.BaseRequest) -> web.StreamResponse:
    """Route one admin request."""
    name = request.raw_path.partition("?")[0].removeprefix(PREFIX)
    match request.method, name:
        case "GET", "stats":
            return web.json_response(body=orjson.dumps(sandbox.report()))
        case "GET", "users":
            return await _stream(request, sandbox.ledger.lines())
        case "GET", "journal" if sandbox.ledger.options.journal:
            return await _stream(request, sandbox.ledger.journal_lines())
        case "GET", "hierarchy" if sandbox.options.api == "calven":
            return await _stream(request, sandbox.ledger.hierarchy_lines())
        case "GET", _ if name.startswith("users/") and (user := unquote(name[6:])) in sandbox.ledger.users:
            return web.json_response(body=sandbox.ledger.line(user))
        case "POST", "revoke":
            sandbox.api.revoke()
            return web.Response(status=204)
        case "POST", "options":
            return _change(sandbox, await request.content.read())
        case _:
            return web.json_response({"message": f"nothing at {request.method} {PREFIX}{name}"}, status=404)


def _change(sandbox: Sandbox, body: bytes) -> web.Response:
    """Change some of the fault options, by their names; the rest stay. `{"rates": {}}` ends all random faults."""
    try:
        changed = {**sandbox.faults.model_dump(), **orjson.loads(body)}
        sandbox.faults = FaultOptions.model_validate(changed)
    except (orjson.JSONDecodeError, TypeError, ValidationError) as error:
        return web.json_response({"message": str(error)}, status=400)
    return web.json_response(text=sandbox.faults.model_dump_json())


async def _stream(request: web.BaseRequest, lines: Iterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
    await response.prepare(request)
    while block := b"".join(islice(lines, _LINES_A_WRITE)):
        await response.write(block)
    await response.write_eof()
    return response
