"""Portkey's open gateway on Node.

It sleeps 25 ms before the first chunk of every stream (`setTimeout(25)` in its stream reader). On Node 20 and later its
build answers 500 to every stream ("TypeError: immutable": it writes to the headers of what `fetch` returned); `FIX` hands
it a copy of them, so that its streams can be measured at all, and does nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fastroute.bench.peers.peer import Peer, Say, run

FIX = """\
const plain = globalThis.fetch;
globalThis.fetch = async (...asked) => {
  const answer = await plain(...asked);
  if (!(answer.headers.get("content-type") ?? "").startsWith("text/event-stream")) return answer;
  const { status, statusText } = answer;
  return new Response(answer.body, { status, statusText, headers: new Headers(answer.headers) });
};
"""


class Portkey(Peer):
    name = "portkey"
    version = "1.15.2"
    settings = (
        "one Node process, NODE_ENV=production, provider openai with a custom host, headers of streams made writable"
    )
    requirements = ("@portkey-ai/gateway@1.15.2",)

    def program(self, home: Path) -> Path:
        return home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"

    def lacks(self, home: Path) -> str | None:
        return "node is not installed" if shutil.which("node") is None else super().lacks(home)

    def install(self, home: Path, say: Say) -> None:
        say(f"{self.name}: npm install {' '.join(self.requirements)} into {home}")
        home.mkdir(parents=True, exist_ok=True)
        run(["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(home), *self.requirements])

    def files(self, port: int, upstream: int) -> dict[str, str]:
        return {"fix.mjs": FIX}

    def command(self, home: Path, place: Path, port: int, upstream: int) -> Sequence[str]:
        fix = f"--import={place / 'fix.mjs'}"
        return [shutil.which("node") or "node", fix, str(self.program(home)), f"--port={port}", "--headless"]

    def environment(self, place: Path, upstream: int) -> dict[str, str]:
        return {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": f"127.0.0.1,127.0.0.1:{upstream}"}

    def headers(self, place: Path, upstream: int) -> dict[str, str]:
        host = f"http://127.0.0.1:{upstream}/v1"
        return {**super().headers(place, upstream), "x-portkey-provider": "openai", "x-portkey-custom-host": host}
