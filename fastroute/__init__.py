"""fastroute: one OpenAI-compatible endpoint in front of every model a team uses.

Importing this package opens nothing, reads no environment and starts nothing. What is named here is what a library
user may hold on to: parse a descriptor, keep a catalog and a snapshot, place; or ask a router to, whose client is imported
when it is first named.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastroute import _core
from fastroute.domain import (
    Agent,
    Descriptor,
    Entry,
    ExpectedTokens,
    LatencyFact,
    ModelRef,
    NoCandidate,
    Placement,
    Price,
    Rates,
    Snapshot,
    Tier,
    Usage,
    Verdict,
)
from fastroute.errors import FastrouteError, StaleBuild
from fastroute.routing.catalog import Catalog
from fastroute.routing.descriptor import parse as parse_descriptor
from fastroute.routing.placement import Route, place
from fastroute.routing.prices import PriceTable, microdollars, price
from fastroute.routing.rankers import Cheapest, Ordered, Pinned, Tiers, Weighted

if TYPE_CHECKING:  # what `__getattr__` fetches, told to type checkers
    from fastroute.client import AsyncRouteClient, RouteClient, RouteHTTPError, RouteTransportError
    from fastroute.routed import RouteError, RouteResponse, RouteResponseError

__version__ = "0.1.0"

if __version__ != _core.VERSION:
    raise StaleBuild(
        f"the compiled core is {_core.VERSION} and the package {__version__}; build again with `pip install .`"
    )

# A client draws in the HTTP library, which nobody waits for who only decides.
_LATER = {
    "AsyncRouteClient": "client",
    "LlmRouter": "embed.router",
    "RouteClient": "client",
    "RouteError": "routed",
    "RouteHTTPError": "client",
    "RouteResponse": "routed",
    "RouteResponseError": "routed",
    "RouteTransportError": "client",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'fastroute' has no attribute {name!r}")
    return getattr(import_module(f"fastroute.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


__all__ = [
    "Agent",
    "AsyncRouteClient",
    "Catalog",
    "Cheapest",
    "Descriptor",
    "Entry",
    "ExpectedTokens",
    "FastrouteError",
    "LatencyFact",
    "LlmRouter",
    "ModelRef",
    "NoCandidate",
    "Ordered",
    "Pinned",
    "Placement",
    "Price",
    "PriceTable",
    "Rates",
    "Route",
    "RouteClient",
    "RouteError",
    "RouteHTTPError",
    "RouteResponse",
    "RouteResponseError",
    "RouteTransportError",
    "Snapshot",
    "Tier",
    "Tiers",
    "Usage",
    "Verdict",
    "Weighted",
    "microdollars",
    "parse_descriptor",
    "place",
    "price",
]
