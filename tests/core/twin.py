"""The compiled core said again in plain Python: obvious, unhurried, and with no bound on any number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

EXCLUSIONS = ("capability", "policy", "runtime", "health", "latency", "cost", "unpriced", "context")
LOCAL = 1


class Row(NamedTuple):
    """One candidate, in the order `Table` unpacks it; None is not known."""

    capabilities: int
    runtime: int
    lane: int
    p50_ms: int | None
    priority: int
    context_window: int | None
    priced: bool
    input_rate: int
    output_rate: int
    tiers: tuple[tuple[int, int, int], ...] = ()


def packed(row: Row) -> tuple[object, ...]:
    return tuple(-1 if fact is None else fact for fact in row)


@dataclass(frozen=True)
class Query:
    """What one decision asks; None is not given."""

    ranker: int
    capabilities: int = 0
    runtime: int | None = None
    ceiling: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    tolerance_ms: int | None = None
    allowed: bytes | None = None
    health: bytes | None = None
    p50_ms: tuple[int | None, ...] | None = None
    allow_unpriced: bool = False
    cost_weight: int = 1000
    latency_weight: int = 1000
    flat_cost: int | None = None
    local_first: bool = False


def cost_picodollars(tokens: Sequence[int], rates: Sequence[int]) -> int:
    return sum(count * rate for count, rate in zip(tokens, rates, strict=True))


def ceil_microdollars(picodollars: int) -> int:
    return -(-picodollars // 1_000_000)


def estimate_tokens(characters: int) -> int:
    if characters == 0:
        return 1000
    quarter = characters // 4
    return quarter + quarter * 10 // 100 + 100


def estimate_message_tokens(characters: Sequence[int]) -> int:
    return sum((0 if count == 0 else max(1, count // 4)) + 5 for count in characters)


def token_bound(text_bytes: int, messages: int, tools: int, media: int, context_window: int | None) -> int:
    most = 10**9 if context_window is None else context_window
    if media:
        return most
    return min(most, text_bytes + 128 + 16 * messages + 64 * tools + (1024 if tools else 0))


def cost(row: Row, input_tokens: int, output_tokens: int) -> int | None:
    if not row.priced:
        return None
    rates = (row.input_rate, row.output_rate)
    for above_tokens, *dearer in row.tiers:
        if input_tokens > above_tokens:
            rates = tuple(dearer)
    return cost_picodollars((input_tokens, output_tokens), rates)


def decide(rows: Sequence[Row], query: Query) -> tuple[list[int], bytes]:
    """Every viable row, best first, and the code of each row."""
    facts = [row if query.p50_ms is None else row._replace(p50_ms=query.p50_ms[i]) for i, row in enumerate(rows)]
    reasons = [exclusion(index, row, query) for index, row in enumerate(facts)]
    viable = [index for index, reason in enumerate(reasons) if reason is None]
    viable.sort(key=lambda index: rank_key(index, facts[index], query))
    return viable, bytes(0 if reason is None else 1 + EXCLUSIONS.index(reason) for reason in reasons)


def exclusion(index: int, row: Row, query: Query) -> str | None:
    bill = projected(row, query)
    if query.capabilities & row.capabilities != query.capabilities:
        return "capability"
    if query.allowed is not None and query.allowed[index] == 0:
        return "policy"
    if query.runtime is not None and row.runtime != query.runtime:
        return "runtime"
    if query.health is not None and row.lane < len(query.health) and query.health[row.lane] != 0:
        return "health"
    if query.tolerance_ms is not None and row.p50_ms is not None and row.p50_ms > query.tolerance_ms:
        return "latency"
    if query.ceiling == 0:
        return "cost"
    if query.ceiling is not None and bill is not None and bill > query.ceiling * 1_000_000:
        return "cost"
    if not row.priced and not query.allow_unpriced:
        return "unpriced"
    if row.context_window is not None and query.input_tokens is not None and query.input_tokens > row.context_window:
        return "context"
    return None


def projected(row: Row, query: Query) -> int | None:
    if query.input_tokens is None or query.output_tokens is None:
        return None
    return cost(row, query.input_tokens, query.output_tokens)


def rank_key(index: int, row: Row, query: Query) -> tuple[int, ...]:
    tokens_known = query.input_tokens is not None and query.output_tokens is not None
    bill = projected(row, query) or 0
    rate = row.input_rate if row.priced else 0
    if query.ranker == 0:
        return (bill if tokens_known else rate, 999_999_999 if row.p50_ms is None else row.p50_ms, row.priority)
    managed = int(row.runtime != LOCAL)
    if query.ranker == 1:
        if not managed:
            amount = 0
        elif query.flat_cost is not None:
            amount = query.flat_cost
        else:
            amount = ceil_microdollars(bill) if tokens_known else rate
        score = query.latency_weight * (row.p50_ms or 0) + 1000 * query.cost_weight * amount
        return (managed if query.local_first else 0, score, managed, row.priority)
    assert query.allowed is not None
    return (query.allowed[index], row.priority)


class Account:
    """The figures of one lease."""

    def __init__(self, granted: int) -> None:
        self.granted = granted
        self.released = self.spent = 0
        self.holds: list[int] = []

    @property
    def held(self) -> int:
        return sum(self.holds)

    @property
    def free(self) -> int:
        return self.granted - self.released - self.spent - self.held

    def balance(self) -> tuple[int, int, int, int, int]:
        return self.granted, self.released, self.spent, self.held, self.free


class Leases:
    """Accounts by slot, each with the list of what it holds."""

    def __init__(self) -> None:
        self.accounts: dict[int, Account] = {}

    def open(self, slot: int, granted: int) -> None:
        assert slot not in self.accounts
        self.accounts[slot] = Account(granted)

    def grant(self, slot: int, amount: int) -> None:
        self.accounts[slot].granted += amount

    def release(self, slot: int, amount: int) -> int:
        given = min(amount, max(self.accounts[slot].free, 0))
        self.accounts[slot].released += given
        return given

    def close(self, slot: int) -> tuple[int, int]:
        assert not self.accounts[slot].holds
        self.release(slot, 10**30)
        account = self.accounts.pop(slot)
        return account.released, account.spent

    def reserve(self, slots: Sequence[int], amounts: Sequence[int]) -> int | None:
        for index, (slot, amount) in enumerate(zip(slots, amounts, strict=True)):
            if self.accounts[slot].free < amount:
                return index
        for slot, amount in zip(slots, amounts, strict=True):
            self.accounts[slot].holds.append(amount)
        return None

    def settle(self, slots: Sequence[int], reserved: Sequence[int], spent: Sequence[int]) -> bool:
        for slot, hold, amount in zip(slots, reserved, spent, strict=True):
            self.accounts[slot].holds.remove(hold)
            self.accounts[slot].spent += amount
        return any(amount > hold for hold, amount in zip(reserved, spent, strict=True))
