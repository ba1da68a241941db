"""Placing a step through a live router: a descriptor out; a placement, and a key with the step's money on it, back.

    ROUTER_URL=http://127.0.0.1:8000 ROUTER_KEY=fr_live_... python examples/routed_grant.py

`examples/gateway_less.py` takes the same decision with no router and no key.
"""

import os

from fastroute import (
    RouteClient,
    RouteHTTPError,
    RouteResponse,
    RouteResponseError,
    RouteTransportError,
    parse_descriptor,
)
from fastroute.ledger.tokens import masked

SETUP = """\
routed_grant.py needs a live router to ask. Set both variables and run it again:

    ROUTER_URL=https://your-gateway.example.com \\
    ROUTER_KEY=your-key \\
    python examples/routed_grant.py

ROUTER_URL is the gateway's base URL (no trailing /v1/route, the client appends that path).
ROUTER_KEY is a key the gateway issued you.

To have both here, in two terminals:

    fastroute serve --demo
    fastroute keys create --name example --budget-usd 1     # ROUTER_URL=http://127.0.0.1:8000

examples/gateway_less.py takes the same decision with no router and no key.
"""

# Parsing here shows a mistake before anything is sent; the router checks it again, so a plain dict would do.
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


def main(url: str | None, key: str | None) -> None:
    if not url or not key:
        print(SETUP)
        return
    try:
        with RouteClient(url, key) as client:
            show(client.route(DESCRIPTOR, workflow_id="wf_demo_001", step_id="step_extract"), client.base_url)
    except RouteHTTPError as error:
        print("router returned an HTTP error.")
        print(f"  status: {error.status}")
        print(f"  body:   {error.body}")
    except RouteTransportError as error:
        print("router call failed before a response came back (network, DNS, TLS, etc).")
        print(f"  reason: {error.reason}")
    except (RouteResponseError, ValueError) as error:  # no answer of a router; a URL or key that cannot be used
        print("router call failed.")
        print(f"  reason: {error}")


def show(response: RouteResponse, url: str) -> None:
    placement, grant = response.placement, response.grant
    if placement is None:
        print("no_candidate: the router had nothing viable for this descriptor.")
        print(f"  decision_id: {response.decision_id}")
        print(f"  reasons:     {', '.join(response.reasons)}")
        return
    print(f"placement:   {placement.id or placement.model} ({placement.model}, lane {placement.lane})")
    print(f"decision_id: {response.decision_id}")
    print(f"grant key:   {masked(grant.key if grant else None)}")
    print(f"expires_at:  {grant.expires_at if grant else None}")
    print(
        f"\nThe granted key and {url} are what a session's client is made with: base_url and api_key. Every call made\n"
        "with that key is held to the grant's budget by the gateway; nothing here has to keep count."
    )


if __name__ == "__main__":
    main(os.environ.get("ROUTER_URL"), os.environ.get("ROUTER_KEY"))
