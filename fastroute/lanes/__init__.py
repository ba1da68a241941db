"""The lanes room: what the attempts of late say about each failure domain."""

from fastroute.lanes.health import Health
from fastroute.lanes.latency import Latency

__all__ = ["Health", "Latency"]
