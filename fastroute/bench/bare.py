"""The data plane alone, on the server of a worker: no keys, no budgets, no journal, no receipts, no bookkeeper.

`python -m fastroute.bench.bare PORT STATE_DIR`. What it costs less than a served gateway is what the books cost.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys

import uvloop

from fastroute import config, logs
from fastroute.web.app import application
from fastroute.web.serving import server


async def main(port: int, state: str) -> None:
    settings = config.load(None, {**os.environ, "FASTROUTE_STATE_DIR": state}, {})
    app = application(settings, 0, logs.setup(settings.log.level, settings.log.path, 0))
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)  # as a worker does
    serving = server(app, "127.0.0.1", port, 8192, kind=settings.server.listener)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.end)
    await serving.serve()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
