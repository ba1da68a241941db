"""The gateway's own rows, as adapters like those of its peers: the constant answer, the data plane alone, and as it is served.

What is called "everything on" is what a user has: `fastroute serve`, a key under a budget, journal, metrics, receipts, log.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version as version_of
from pathlib import Path
from typing import ClassVar

import msgspec

from fastroute import __version__
from fastroute.bench.peers.peer import Peer
from fastroute.bench.processes import NotStarted, own_environment

PROVIDER_KEY = "sk-bench-bench-bench-bench"
_BUDGET = "1000000"  # more than a run spends


class Constant(Peer):
    name = "constant"
    streams = False
    version = f"granian {version_of('granian')}"
    settings = "an ASGI application that answers the same bytes, on the server and settings of a worker"

    def program(self, home: Path) -> Path:
        return Path(sys.executable)

    def command(self, home: Path, place: Path, port: int, upstream: int) -> Sequence[str]:
        return [sys.executable, "-m", "fastroute.bench.constant", str(port)]


class _Ours(Peer):
    version = __version__

    def program(self, home: Path) -> Path:
        return Path(sys.executable)

    def environment(self, place: Path, upstream: int) -> dict[str, str]:
        return {
            "OPENAI_API_KEY": PROVIDER_KEY,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}",
            "LOG_PATH": str(place / "router.log"),
        }

    def headers(self, place: Path, upstream: int) -> dict[str, str]:
        return {}


class Bare(_Ours):
    name = "fastroute, data plane"
    settings = "no keys, no budgets, no journal, no receipts, no bookkeeper"

    def command(self, home: Path, place: Path, port: int, upstream: int) -> Sequence[str]:
        return [sys.executable, "-m", "fastroute.bench.bare", str(port), str(place / "state")]


class Served(_Ours):
    """As it is served; with `keys` of them in a line, each under a budget and under the one before."""

    keys: ClassVar[int] = 0
    workers: int = 1
    config: str | None = None
    name = "fastroute, no key"
    settings = "`fastroute serve --workers 1` as it comes: journal, metrics, receipts, log"

    def files(self, port: int, upstream: int) -> dict[str, str]:
        return {} if self.config is None else {"fastroute.yaml": self.config}

    def command(self, home: Path, place: Path, port: int, upstream: int) -> Sequence[str]:
        options = ["--port", str(port), "--workers", str(self.workers), "--state-dir", str(place / "state")]
        return [sys.executable, "-m", "fastroute", "serve", *options]

    def headers(self, place: Path, upstream: int) -> dict[str, str]:
        made = {"id": "", "key": ""}
        for number in range(self.keys):
            made = _key(place, f"bench-{number}", made["id"])
        return {"authorization": f"Bearer {made['key']}"} if made["key"] else {}


class Keyed(Served):
    keys = 1
    name = "fastroute"
    settings = "`fastroute serve --workers 1`, a key under a budget, journal, metrics, receipts, log: everything on"


class TwoBudgets(Served):
    keys = 2
    name = "fastroute, two budgets"
    settings = "the same with a key whose parent has a budget too"


class _OnTheCompiled(_Ours):
    """With our own server in place of Granian."""

    def environment(self, place: Path, upstream: int) -> dict[str, str]:
        return super().environment(place, upstream) | {"FASTROUTE_LISTENER": "compiled"}


class Compiled(_OnTheCompiled, Keyed):
    name = "fastroute, compiled"
    settings = "the same with `server.listener: compiled`"


class BareCompiled(_OnTheCompiled, Bare):
    name = "fastroute, data plane, compiled"
    settings = f"{Bare.settings}, with `server.listener: compiled`"


class TwoBudgetsCompiled(_OnTheCompiled, TwoBudgets):
    name = "fastroute, two budgets, compiled"
    settings = f"{TwoBudgets.settings}, and `server.listener: compiled`"


def _key(place: Path, name: str, parent: str) -> dict[str, str]:
    """A key with a budget, made before the server starts."""
    words = ["keys", "create", "--json", "--name", name, "--budget-usd", _BUDGET, "--state-dir", str(place / "state")]
    done = subprocess.run(  # noqa: S603  our own command, nothing of a caller's
        [sys.executable, "-m", "fastroute", *words, *(["--parent", parent] if parent else [])],
        cwd=place,
        env=own_environment(LOG_PATH=str(place / "router.log")),
        capture_output=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise NotStarted(f"no key could be made: {done.stderr.decode(errors='replace').strip()[-300:]}")
    found: dict[str, str] = msgspec.json.decode(done.stdout)
    return found
