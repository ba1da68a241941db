"""What a team writes in an afternoon: Starlette and httpx as their manuals show them, on the server we use ourselves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version as version_of
from pathlib import Path

from fastroute.bench.peers.peer import Peer


class Plain(Peer):
    name = "starlette+httpx"
    settings = "Granian, one worker; httpx.AsyncClient with 1000 connections, 500 of them kept"

    @property
    def version(self) -> str:
        return f"{version_of('starlette')} + {version_of('httpx')}"

    def program(self, home: Path) -> Path:
        return Path(sys.executable)

    def command(self, home: Path, place: Path, port: int, upstream: int) -> Sequence[str]:
        return [sys.executable, "-m", "fastroute.bench.peers.plain_app", str(port), str(upstream)]
