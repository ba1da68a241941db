"""Whether a provider can have used what it says it used, where that is more than the request itself accounts for.

A count within the reservation's own bounds never comes here. Beyond them there are honest reasons (pictures, a
conversation kept by the provider, its own tools, thoughts it bills beside the cap) and figures that cannot be.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from fastroute import settle
from fastroute.bodies import decoded, plain
from fastroute.call import Call
from fastroute.callers import ShapeError
from fastroute.domain import TOKENS_MAX, Entry, Reservation, Settlement, Usage
from fastroute.metrics import Metrics

log = logging.getLogger("fastroute.relay")

# The largest windows there are, where a model's own is not known.
WINDOW_UNKNOWN: Final = 2_000_000
# A provider's own tools run in a loop, and every round bills the conversation so far.
ROUNDS: Final = 10

# What makes a provider read more than the request holds.
_ELSEWHERE: Final = (
    "previous_response_id", "conversation", "prompt_cache_id", "cachedContent", "cached_content", "container",
    "mcp_servers", "web_search_options", "plugins", "search_parameters",
)  # fmt: skip
# Parts of a message that stand for something longer than themselves.
_REFERENCES: Final = (b'"item_reference"', b'"fileData"', b'"file_data"', b'"document_url"')
_OURS: Final = (None, "function", "custom")


def judged(call: Call, entry: Entry, reservation: Reservation, usage: Usage, metrics: Metrics) -> Settlement | None:
    """An exact settlement, counted as a breach where it is above the reservation; None for what cannot be."""
    most_in, most_out = _most_input(call, entry), _most_output(call, entry)
    if usage.input_total > most_in or usage.output > most_out:
        metrics.usage_implausible.inc()
        log.warning(
            "request %s: %s says it used %d tokens in and %d out, of at most %d and %d; settled without it: %r",
            call.id,
            entry.id,
            usage.input_total,
            usage.output,
            most_in,
            most_out,
            usage,
        )
        # Nobody knows what will be billed: a budget is charged what was held for it.
        return settle.presumed(reservation) if call.account.limited else None
    settlement = settle.exact(entry.price, usage)
    held, cost = reservation.microdollars, settlement.microdollars
    if held is not None and cost is not None and cost > held:
        metrics.ledger_breach.inc()
        log.warning("request %s: %s cost %d microdollars, %d were held", call.id, entry.id, cost, held)
    return settlement


def _most_output(call: Call, entry: Entry) -> int:
    """The model's whole output for every answer: whether thoughts count inside a cap is each provider's own affair."""
    own = entry.max_output or max(entry.context_window or 0, settle.OUTPUT_UNKNOWN)
    return min(max(own, call.output_cap or 0) * call.choices, TOKENS_MAX)


def _most_input(call: Call, entry: Entry) -> int:
    """The model's window, however short the request looks: a provider may read what it keeps, or call its own tools."""
    window = max(entry.context_window or WINDOW_UNKNOWN, call.input_bound)
    return min(window * max(reads(call), 1), TOKENS_MAX)


def reads(call: Call) -> int:
    """How many windows the provider may have read: none beside the request, one, or one for each round of its tools."""
    try:
        body, told = decoded(call), plain(call)
    except ShapeError:
        return 1
    if runs_tools(body):
        return ROUNDS
    # A stored prompt is an object; a prompt that is a text is the request itself.
    kept = isinstance(body.get("prompt"), dict) or any(body.get(word) for word in _ELSEWHERE)
    return 1 if kept or any(word in told for word in _REFERENCES) or _refers(body.get("input")) else 0


def _refers(items: Any) -> bool:
    """Whether a conversation names an earlier message by its id alone."""
    return isinstance(items, list) and any(
        isinstance(item, dict) and "id" in item and not {"content", "output", "arguments", "summary"} & item.keys()
        for item in items
    )


def runs_tools(body: dict[str, Any]) -> bool:
    """Whether the provider is to run a tool itself. Google takes one tool for a list of it; what is neither is no tool."""
    tools = body.get("tools")
    return any(hosted(tool) for tool in (tools if isinstance(tools, list) else [tools]))


def hosted(tool: Any) -> bool:
    """A tool the provider runs itself: typed in OpenAI's and Anthropic's words, named by its key in Google's."""
    if not isinstance(tool, dict):
        return False
    google = [key for key in tool if key not in ("functionDeclarations", "function_declarations")]
    if len(google) < len(tool):
        return bool(google)
    known = any(word in tool for word in ("function", "input_schema", "name", "parameters"))
    return tool.get("type") not in _OURS or not known
