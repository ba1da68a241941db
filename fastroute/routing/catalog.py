"""The catalog: every target a request may be sent to, checked once and packed for the compiled core.

A catalog never changes; another registry generation makes another catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastroute import _core
from fastroute.domain import (
    CAPABILITIES,
    RATE_MAX,
    RUNTIMES,
    TOKENS_MAX,
    Entry,
    LaneState,
    Price,
    Rates,
)
from fastroute.errors import CatalogError

_TIERS_MAX = 4
_NUMBER_MAX = 999_999_999
CAPABILITY_BITS = {name: 1 << index for index, name in enumerate(CAPABILITIES)}
RUNTIME_INDEX = {name: index for index, name in enumerate(RUNTIMES)}


class Catalog:
    """Entries in the order they were given, which is the order of every verdict table."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(entries)
        self.position: dict[str, int] = {}
        for index, entry in enumerate(self.entries):
            _check(entry)
            if entry.id in self.position:
                first = self.entries[self.position[entry.id]]
                raise CatalogError(
                    f"two entries have the id {entry.id!r} ({first.ref} and {entry.ref}); an id names one target"
                )
            self.position[entry.id] = index
        self.lanes = tuple(dict.fromkeys(entry.lane for entry in self.entries))
        lane_number = {lane: number for number, lane in enumerate(self.lanes)}
        self.table = _core.Table([_row(entry, lane_number[entry.lane]) for entry in self.entries])

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self.position

    def __getitem__(self, entry_id: str) -> Entry:
        return self.entries[self.position[entry_id]]

    def __repr__(self) -> str:
        return f"Catalog({', '.join(entry.id for entry in self.entries)})"

    def health(self, states: Mapping[str, LaneState]) -> bytes | None:
        """Lane states as the core reads them: a byte a lane, 0 for well; None when all are."""
        if not states:
            return None
        return bytes(states.get(lane, "ok") != "ok" for lane in self.lanes)


def _row(entry: Entry, lane: int) -> tuple[int, int, int, int, int, int, bool, int, int, list[tuple[int, int, int]]]:
    price = entry.price
    rates = price.rates if price else Rates(0, 0)
    return (
        sum(CAPABILITY_BITS[name] for name in dict.fromkeys(entry.capabilities)),
        RUNTIME_INDEX[entry.runtime],
        lane,
        _core.UNKNOWN if entry.p50_latency_ms is None else entry.p50_latency_ms,
        entry.priority,
        _core.UNKNOWN if entry.context_window is None else entry.context_window,
        price is not None,
        rates.input,
        rates.output,
        [(tier.above_tokens, tier.rates.input, tier.rates.output) for tier in price.tiers] if price else [],
    )


def _check(entry: Entry) -> None:
    for field, text in (("id", entry.id), ("lane", entry.lane), ("provider", entry.ref.provider)):
        if not isinstance(text, str) or not text:
            raise CatalogError(f"entry {entry.id!r}: {field} is a non-empty string, not {text!r}")
    if entry.runtime not in RUNTIME_INDEX:
        raise CatalogError(f"entry {entry.id!r}: runtime is one of {', '.join(RUNTIMES)}, not {entry.runtime!r}")
    for name in entry.capabilities:
        if name not in CAPABILITY_BITS:
            raise CatalogError(f"entry {entry.id!r}: capability {name!r} is not among {', '.join(CAPABILITIES)}")
    for field, value in (
        ("context_window", entry.context_window),
        ("max_output", entry.max_output),
        ("p50_latency_ms", entry.p50_latency_ms),
        ("priority", entry.priority),
    ):
        if value is not None:
            _bounded(entry, field, value, _NUMBER_MAX)
    if entry.price is not None:
        _check_price(entry, entry.price)


def _check_price(entry: Entry, price: Price) -> None:
    if len(price.tiers) > _TIERS_MAX:
        raise CatalogError(f"entry {entry.id!r}: a price has at most {_TIERS_MAX} tiers, not {len(price.tiers)}")
    above = -1
    for rates in (price.rates, *(tier.rates for tier in price.tiers)):
        for field in ("input", "output", "cache_read", "cache_write"):
            value = getattr(rates, field)
            if value is not None:
                _bounded(entry, f"price.{field}", value, RATE_MAX)
    for tier in price.tiers:
        _bounded(entry, "price.tiers.above_tokens", tier.above_tokens, TOKENS_MAX)
        if tier.above_tokens <= above:
            raise CatalogError(f"entry {entry.id!r}: tiers ascend; {tier.above_tokens} follows {above}")
        above = tier.above_tokens


def _bounded(entry: Entry, field: str, value: object, most: int) -> None:
    # A float would have to be rounded by somebody, and that somebody would be wrong.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise CatalogError(f"entry {entry.id!r}: {field} is an integer from 0 to {most}, not {value!r}")
