"""Placing a step without any gateway: a catalog, a snapshot and a descriptor in, a placement with its reasons out.

    python examples/gateway_less.py

Nothing is sent, nothing is minted and no key is needed. The same decision is taken by `fastroute route` and behind
`POST /v1/route`.
"""

from fastroute import Catalog, Entry, ModelRef, Placement, Price, Rates, Snapshot, parse_descriptor, place

# Rates are integer microdollars per million tokens: 1 000 000 is one dollar per million.
CATALOG = Catalog(
    [
        Entry(
            id="local-qwen",
            ref=ModelRef("ollama", "qwen3"),
            lane="local",
            runtime="local",
            capabilities=("tools",),
            price=Price(Rates(input=0, output=0), source="free"),
            priority=10,
        ),
        Entry(
            id="claude-haiku",
            ref=ModelRef("anthropic", "claude-haiku-4-5"),
            lane="anthropic",
            capabilities=("tools", "vision"),
            price=Price(Rates(input=1_000_000, output=5_000_000)),
            priority=50,
        ),
        Entry(
            id="claude-sonnet",
            ref=ModelRef("anthropic", "claude-sonnet-4-6"),
            lane="anthropic-premium",
            capabilities=("tools", "vision", "long_context"),
            price=Price(Rates(input=3_000_000, output=15_000_000)),
        ),
    ]
)

DESCRIPTOR = parse_descriptor(
    {
        "task_class": "extraction",
        "budget_ceiling_microdollars": 50_000,
        "latency_tolerance_ms": 30_000,
        "expected_tokens": {"in": 2_000, "out": 500},
        "capabilities": ["tools"],
        "agent": {"digest": "sha256:9f2c", "name": "invoice-extractor", "version": "1.4.0"},
    }
)


def show(title: str, snapshot: Snapshot) -> None:
    outcome = place(DESCRIPTOR, CATALOG, snapshot)
    print(title)
    if isinstance(outcome, Placement):
        print(f"  runs on {outcome.id} ({outcome.model}, lane {outcome.lane}): {', '.join(outcome.reasons)}")
    else:
        print(f"  nothing fits: {', '.join(outcome.reasons)}")
    for verdict in outcome.candidates:
        why = f" by {verdict.reason}: {verdict.detail}" if verdict.reason else ""
        print(f"    {verdict.id:14} {verdict.verdict}{why}")


if __name__ == "__main__":
    show("Everything is well:", Snapshot())
    show("The local lane is down:", Snapshot(lanes={"local": "degraded"}))
    show(
        "It is down, and the workflow has a dollar's two-hundredth left:",
        Snapshot(lanes={"local": "degraded"}, parent_remaining_microdollars=5_000),
    )
    show("Nothing is left:", Snapshot(parent_remaining_microdollars=0))
