"""Other gateways, one small file each: how it is installed, configured and started, and what to know about it.

Versions are pinned. Each runs one worker, keeps its connections to the provider, writes no access log and relays streams
as they come: what an operator who wants speed would set.
"""

from __future__ import annotations

from typing import Final

from fastroute.bench.peers.envoy import Envoy
from fastroute.bench.peers.litellm import LiteLLM
from fastroute.bench.peers.nginx import Nginx
from fastroute.bench.peers.peer import Peer
from fastroute.bench.peers.plain import Plain
from fastroute.bench.peers.portkey import Portkey
from fastroute.bench.peers.routers import SGLangRouter, VLLMRouter

__all__ = ["PEERS", "Peer"]

PEERS: Final[dict[str, Peer]] = {
    peer.name: peer for peer in (Nginx(), Envoy(), VLLMRouter(), SGLangRouter(), Portkey(), LiteLLM(), Plain())
}
