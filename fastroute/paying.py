"""Where an attempt meets the account that pays for it: what it needs, what is done when that is not there, and what is said.

The relay asks `fund` only after an account refused from memory. A caller who set no cap gets the longest answer that its
budget still affords, rather than a refusal.
"""

from __future__ import annotations

from typing import Any, Final

from fastroute import settle
from fastroute._scan import Words
from fastroute.bodies import decoded, plain
from fastroute.call import Call, Failed
from fastroute.callers import ShapeError
from fastroute.domain import TOKENS_MAX, Entry, Reservation
from fastroute.ledger.accounts import Account, Shortage
from fastroute.ledger.unlimited import Unlimited
from fastroute.money import usd_from_microdollars
from fastroute.plausibility import WINDOW_UNKNOWN, reads, runs_tools

# An answer cut shorter than this helps nobody.
CAP_MIN: Final = 256

# Budgets that one request may draw on.
PATH_MAX: Final = 4
# A body with none of these in it costs what its bounds say, and is not looked into.
TELLING: Final = Words(
    (
        b"tools service_tier background web_search_options cache_control previous_response_id conversation prompt_cache_id"
        b" cachedContent cached_content container mcp_servers plugins search_parameters prompt item_reference fileData"
        b" file_data document_url id"
    ).split()
)

_KINDS: Final = {"budget_exhausted": "budget", "quota_exhausted": "daily_tokens", "unpriced": "unpriced"}


def cover(call: Call) -> None:
    """Before anything is reserved of a budget: what the request says that its bounds do not know of.

    `Failed` for what costs more than prices can say, and for what cannot be looked into; a context that the provider keeps
    may fill the whole window. The relay asks only where a body has a word of `TELLING` in it.
    """
    if call.surface.opaque or not TELLING.within(call.body):
        return
    try:
        asked = decoded(call)
    except ShapeError as error:  # a provider may read what cannot be read here
        raise Failed(400, "invalid_request_error", None, f"a budget cannot cover this: {error.message}") from None
    if call.account.hard:
        _refuse_unpriced(asked, plain(call))
    rounds = reads(call)
    if rounds:
        window = max(entry.context_window or WINDOW_UNKNOWN for entry in call.entries)
        call.input_bound = min(max(call.input_bound, window * rounds), TOKENS_MAX)


def _refuse_unpriced(asked: dict[str, Any], body: bytes) -> None:
    tier = asked.get("service_tier")
    if tier not in (None, "auto", "default", "standard", "standard_only", "flex", "batch"):
        raise _unpriced("service_tier", f"the tier {tier!r} has prices of its own")
    if asked.get("background"):
        raise _unpriced("background", "an answer that is made later is billed when nobody looks")
    if runs_tools(asked) or asked.get("web_search_options"):
        raise _unpriced("tools", "tools that the provider runs cost fees beside tokens")
    if b'"1h"' in body and b'"cache_control"' in body:
        raise _unpriced("cache_control", "a cache of one hour has a price of its own; five minutes are priced")


def _unpriced(param: str, why: str) -> Failed:
    message = f"a budget cannot cover this: {why}; leave it out, or ask with a key that has no budget of money"
    return Failed(402, "insufficient_quota", "unpriced_option", message, param=param)


async def fund(call: Call, entry: Entry, microdollars: int | None, tokens: int) -> Reservation | Shortage:
    """A reservation that asking can still get, perhaps for a shorter answer; else what is short."""
    account = call.account
    got = await account.fund(microdollars, tokens)
    # Only who talks can be told to be brief; what passes unread would be made in full whatever was reserved.
    for _ in range(PATH_MAX if call.surface.talks else 0):
        if not isinstance(got, Shortage) or call.output_cap is not None or got.remaining is None:
            break
        cap = affordable(call, entry, got)
        if cap < CAP_MIN or (call.set_cap is not None and cap > call.set_cap):
            break
        call.set_cap = cap
        microdollars = settle.bound(entry.price, call.input_bound, cap, entry.max_output, call.choices)
        got = await account.fund(microdollars, call.input_bound + cap * call.choices)
    return got


def affordable(call: Call, entry: Entry, shortage: Shortage) -> int:
    """The longest output, in tokens, that what is left of the short window still pays for."""
    left = shortage.remaining or 0
    most = entry.max_output or settle.OUTPUT_UNKNOWN
    if shortage.unit == "token":
        return min((left - call.input_bound) // call.choices, most)
    low, high = 0, most
    while low < high:  # prices have tiers, so it is looked for instead of computed
        middle = (low + high + 1) // 2
        needed = settle.bound(entry.price, call.input_bound, middle, entry.max_output, call.choices)
        if needed is not None and needed <= left:
            low = middle
        else:
            high = middle - 1
    return low


def refused(account: Account | Unlimited, shortage: Shortage) -> Failed:
    """What the caller reads: which limit, how much of it is left, and when it begins anew."""
    again_s = None if shortage.resets_in_ms is None else max(1, -(-shortage.resets_in_ms // 1000))
    if shortage.status == 401:
        return Failed(401, "authentication_error", "invalid_api_key", "this key is not known here, or no longer")
    if shortage.status == 503:
        what = {
            "journal_full": "this gateway has no room to write down what a request costs; its operator has to make some",
        }.get(shortage.code, "the books cannot be asked at the moment, so nothing can be spent; try again")
        return Failed(503, "server_error", shortage.code, what, retry_after_s=1)
    if shortage.code == "unpriced":
        message = "nobody knows what this model costs, so a budget cannot cover it; choose another, or set its price"
        return Failed(402, "insufficient_quota", "unpriced", message, param="model")
    left, needed, limit = shortage.remaining or 0, shortage.needed or 0, shortage.limit or 0
    whose = f"the {shortage.owner_kind} {shortage.owner}"
    if shortage.unit == "microdollar":
        spoken = [f"${usd_from_microdollars(max(amount, 0))}" for amount in (limit, left, needed)]
        if shortage.owner_kind in ("agent", "lease"):
            return _iron(limit, left, needed)
        message = (
            f"the {_window(shortage)}budget of {whose} does not cover this request: "
            f"{spoken[1]} of {spoken[0]} is left and it may cost {spoken[2]}"
        )
        return Failed(402, "insufficient_quota", "budget_exhausted", message, retry_after_s=again_s)
    unit = f"{shortage.unit}s"
    message = (
        f"{'daily token' if shortage.unit == 'token' else 'request'} cap reached: {left} of {limit} {unit} are left "
        f"for {whose} and this request may need {needed}"
    )
    if again_s is not None:
        message += f" (resets in {again_s} s, {shortage.zone})"
    headers = (
        (b"x-ratelimit-limit", b"%d" % limit),
        (b"x-ratelimit-remaining", b"%d" % max(left, 0)),
        (b"x-ratelimit-reset", b"%d" % (again_s or 0)),
    )
    return Failed(429, "rate_limit_error", "quota_exhausted", message, retry_after_s=again_s, headers=headers)


def counted(shortage: Shortage, account: Account | Unlimited) -> str:
    """What kind of refusal it is, for the metric."""
    if shortage.code == "budget_exhausted" and shortage.owner_kind in ("grant", "lease"):
        return shortage.owner_kind
    return _KINDS.get(shortage.code, "unavailable")


def _window(shortage: Shortage) -> str:
    return "" if shortage.window in ("", "total") else f"{shortage.window} "


def _iron(limit: int, left: int, needed: int) -> Failed:
    """In the words that runtimes of the budget protocol match on."""
    if left > 0:
        message = f"Insufficient budget. Available: {left} microdollars, requested: {needed} microdollars."
        return Failed(402, "iron_cage_insufficient_budget", "insufficient_budget", message)
    dollars = usd_from_microdollars
    message = (
        f"Iron Cage budget limit exceeded. Spent: ${dollars(max(limit - left, 0))}, reserved: ${dollars(needed)}, "
        f"limit: ${dollars(limit)}"
    )
    return Failed(402, "iron_cage_budget_exceeded", "budget_exceeded", message)
