"""fakesnow's server, which is DuckDB in the clothes of Snowflake: a program for the environment that has it.

    python snowflake_server.py PORT [FOLDER]

As Snowflake does, it gives a large result in parts, the first in its answer and the others at addresses of their own;
fakesnow itself gives all at once. A file `broken` in FOLDER holds the number of a part that breaks off.
"""

import asyncio
import base64
import importlib
import json
import sys
from pathlib import Path

import pyarrow as pa
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_ROWS = 10_000
_parts: dict[str, bytes] = {}
_folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
_server = importlib.import_module("fakesnow.server")  # its package has a function of that name
_whole = _server.query_request


async def answered(request: Request) -> Response:
    """What fakesnow answers, cut into parts."""
    whole: Response = await _whole(request)
    answer = json.loads(whole.body)
    data = answer.get("data") or {}
    if not data.get("rowsetBase64") or data["total"] <= _ROWS:
        return whole
    table = pa.ipc.open_stream(base64.b64decode(data["rowsetBase64"])).read_all().combine_chunks()
    data |= {"rowsetBase64": base64.b64encode(_packed(table, 0)).decode(), "chunks": [], "chunkHeaders": {"x": "y"}}
    for number in range(1, -(-table.num_rows // _ROWS)):
        name = f"{data['queryId']}/{number}"
        part = _parts[name] = _packed(table, number)
        count = min(_ROWS, table.num_rows - number * _ROWS)
        about = {"rowCount": count, "uncompressedSize": len(part), "compressedSize": len(part)}
        data["chunks"].append({"url": f"{request.base_url}parts/{name}", **about})
    return JSONResponse(answer)


def _packed(table: pa.Table, number: int) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.slice(number * _ROWS, _ROWS))
    return bytes(sink.getvalue())


async def part(request: Request) -> Response:
    """One of the parts."""
    name, number = request.path_params["query"], request.path_params["number"]
    data = _parts[f"{name}/{number}"]
    if _folder is not None and (_folder / "broken").exists() and number == (_folder / "broken").read_text():
        await asyncio.sleep(0.5)  # those behind it are asked for meanwhile, if they are
        data = data[: len(data) // 2]
    return Response(data)


def main() -> None:
    """Serve until the process is ended."""
    routes = _server.app.router.routes
    routes[:] = [
        Route(route.path, answered, methods=["POST"]) if route.path == "/queries/v1/query-request" else route
        for route in routes
    ]
    routes.append(Route("/parts/{query}/{number}", part))
    uvicorn.run(_server.app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
