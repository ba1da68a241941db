"""vllm-router and sglang-router: two Rust routers of one descent, with the settings they share.

Both look at the provider (`GET /health`, `/v1/models`) before they serve; the fake one answers every GET.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from fastroute.bench.peers.peer import Peer
from fastroute.bench.processes import free_port


class _Router(Peer):
    words: ClassVar[tuple[str, ...]]
    settings = "round_robin over one worker, retries off, log level error"

    def program(self, home: Path) -> Path:
        return home / "bin" / self.words[0]

    def command(self, home: Path, place: Path, port: int, upstream: int) -> Sequence[str]:
        program, *words = self.words
        options = {
            "--host": "127.0.0.1",
            "--port": str(port),
            "--worker-urls": f"http://127.0.0.1:{upstream}",
            "--policy": "round_robin",
            "--prometheus-port": str(free_port()),
            "--max-concurrent-requests": "16384",
        }
        pairs = [word for pair in options.items() for word in pair]
        return [str(home / "bin" / program), *words, *pairs, "--log-level", "error", "--disable-retries"]

    def environment(self, place: Path, upstream: int) -> dict[str, str]:
        return {"TOKIO_WORKER_THREADS": "1"}


class VLLMRouter(_Router):
    name = "vllm-router"
    version = "0.1.17"
    requirements = ("vllm-router==0.1.17",)
    words = ("vllm-router",)


class SGLangRouter(_Router):
    name = "sglang-router"
    version = "0.3.2"
    requirements = ("sglang-router==0.3.2",)
    words = ("sglang-router", "launch")
