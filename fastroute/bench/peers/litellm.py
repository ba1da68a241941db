"""LiteLLM's proxy: no database, no callbacks, no telemetry, one worker. It refuses to start without a master key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastroute.bench.peers.peer import Peer

CONFIG = """\
model_list:
- model_name: gpt-4o-mini
  litellm_params:
    model: openai/gpt-4o-mini
    api_base: http://127.0.0.1:{upstream}/v1
    api_key: sk-bench-bench-bench-bench
general_settings:
  master_key: sk-bench-bench-bench-bench
litellm_settings:
  telemetry: false
  num_retries: 0
"""


class LiteLLM(Peer):
    name = "litellm"
    version = "1.106.2"
    settings = "one worker, no database, no callbacks, production mode, local cost map, log level ERROR"
    start_s = 90.0
    requirements = ("litellm[proxy]==1.106.2",)

    def program(self, home: Path) -> Path:
        return home / "bin" / "litellm"

    def files(self, port: int, upstream: int) -> dict[str, str]:
        return {"config.yaml": CONFIG.format(upstream=upstream)}

    def command(self, home: Path, place: Path, port: int, upstream: int) -> Sequence[str]:
        options = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
        return [str(self.program(home)), "--config", str(place / "config.yaml"), *options]

    def environment(self, place: Path, upstream: int) -> dict[str, str]:
        return {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
