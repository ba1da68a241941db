"""fastroute: one OpenAI-compatible endpoint in front of every model a team uses.

Importing this package opens nothing, reads no environment and starts nothing. What is named here is what a library
user may hold on to: parse a descriptor, keep a catalog and a snapshot, place.
"""

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

__version__ = "0.1.0"

if __version__ != _core.VERSION:
    raise StaleBuild(
        f"the compiled core is {_core.VERSION} and the package {__version__}; build again with `pip install .`"
    )

__all__ = [
    "Agent",
    "Catalog",
    "Cheapest",
    "Descriptor",
    "Entry",
    "ExpectedTokens",
    "FastrouteError",
    "LatencyFact",
    "ModelRef",
    "NoCandidate",
    "Ordered",
    "Pinned",
    "Placement",
    "Price",
    "PriceTable",
    "Rates",
    "Route",
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
