"""The yardstick: an application that answers everything with the same bytes, on the server and settings of a worker.

`python -m fastroute.bench.constant PORT`
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import uvloop

from fastroute.bench.traffic import ANSWER
from fastroute.web.serving import server

_CONNECTIONS = 8192
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]


async def constant(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


def serve(app: Any, port: int) -> None:
    """Serve an application as a worker would, until SIGTERM."""

    async def run() -> None:
        serving = server(app, "127.0.0.1", port, _CONNECTIONS)

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.end)
        await serving.serve()

    uvloop.run(run())


if __name__ == "__main__":
    serve(constant, int(sys.argv[1]))
