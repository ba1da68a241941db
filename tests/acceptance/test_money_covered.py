"""What would cost more than a budget knows of: it is refused, reserved in full, or charged as it is billed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from acceptance_kit import chat, whole
from money_desk_kit import House, no_more_asked

pytestmark = pytest.mark.usefixtures("clean")

CHEAP = "cheap"  # a microdollar a token, either way


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"service_tier": "priority"}, "service_tier"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"web_search_options": {"search_context_size": "low"}}, "tools"),
        ({"background": True}, "background"),
    ],
)
def test_options_with_prices_of_their_own_are_refused_under_a_budget(
    house: House, lab: Any, fields: dict[str, Any], param: str
) -> None:
    key = house.key(budget_microdollars=50_000_000)
    with no_more_asked(lab):
        told = house.ask(key, CHEAP, max_tokens=10, **fields)
    assert (told.status, told.error["code"], told.error["param"]) == (402, "unpriced_option", param)
    assert house.ask(house.key(), CHEAP, max_tokens=10, **fields).status == 200


@pytest.mark.parametrize(
    "fields",
    [
        rb'"service_tie\u0072": "priority"',
        rb'"\u0074ools": [{"type": "web_search"}]',
        rb'"tools": [{"cache_control": {"type": "ephemeral", "ttl": "1\u0068"}, "name": "f", "input_schema": {}}]',
    ],
)
def test_and_so_they_are_however_their_names_are_spelled(house: House, lab: Any, fields: bytes) -> None:
    """A provider reads escapes as the letters they are."""
    key = house.key(budget_microdollars=50_000_000)
    body = b'{"model": "cheap", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}], %b}' % fields
    with no_more_asked(lab):
        told = house.gateway.ask(CHEAP, content=body, headers=key.bearer)
    assert (told.status, told.error["code"]) == (402, "unpriced_option")


def test_what_cannot_be_looked_into_is_not_covered(house: House, lab: Any) -> None:
    """A number that nothing here holds would hide the rest from us, and need not hide it from the provider."""
    body = b'{"model": "cheap", "max_tokens": 10, "messages": [], "service_tier": "priority", "user": 1e999}'
    with no_more_asked(lab):
        told = house.gateway.ask(CHEAP, content=body, headers=house.key(budget_microdollars=50_000_000).bearer)
    assert told.status == 400
    assert "a budget cannot cover this" in told.error["message"]


def test_one_tool_in_place_of_a_list_is_a_tool(house: House, lab: Any) -> None:
    """Google's own API takes it so."""
    body = json.dumps({"contents": [{"parts": [{"text": "hi"}]}], "tools": {"googleSearch": {}}}).encode()
    path = f"/v1beta/models/{CHEAP}:generateContent"
    with no_more_asked(lab):
        told = house.gateway.ask(
            CHEAP, path=path, content=body, headers=house.key(budget_microdollars=50_000_000).bearer
        )
    assert told.status == 402


@pytest.mark.parametrize("tools", [5, True, "tools"])
def test_tools_that_are_none_are_for_the_provider_to_refuse(house: House, tools: Any) -> None:
    assert house.ask(house.key(budget_microdollars=50_000_000), CHEAP, max_tokens=10, tools=tools).status == 200


@pytest.mark.parametrize("tier", ["auto", "default", "flex"])
def test_a_tier_that_costs_no_more_passes(house: House, tier: str) -> None:
    assert house.ask(house.key(budget_microdollars=50_000), CHEAP, max_tokens=10, service_tier=tier).status == 200


def test_a_context_that_the_provider_keeps_is_reserved_as_a_whole_window(house: House, lab: Any) -> None:
    key = house.key(budget_microdollars=2_000)
    body = json.dumps({"model": "gpt-4o-mini", "input": "go on", "previous_response_id": "resp_1"}).encode()
    with no_more_asked(lab):
        told = house.gateway.ask("gpt-4o-mini", path="/v1/responses", content=body, headers=key.bearer)
    assert (told.status, told.error["code"]) == (402, "budget_exhausted")


def test_a_provider_that_ignores_the_cap_is_paid_what_it_bills(house: House, lab: Any) -> None:
    """And its excess is a breach, which no silence hides."""
    key = house.key(budget_microdollars=1_000_000)
    lab.say(CHEAP, whole(chat("well", usage=(10, 3_000))))
    assert house.ask(key, CHEAP, max_tokens=1).status == 200
    house.spent(key, 3_010)


def test_a_figure_that_cannot_be_is_charged_as_it_was_held(house: House, lab: Any) -> None:
    key = house.key(budget_microdollars=1_000_000)
    lab.say(CHEAP, whole(chat("well", usage=(10, 900_000_000))))
    assert house.ask(key, CHEAP, max_tokens=100).status == 200
    held = 100
    assert house.money(key)[2] <= 1_000_000 - held


@pytest.mark.parametrize("cap", [0, -1])
def test_a_cap_of_nothing_is_no_cap(house: House, lab: Any, cap: int) -> None:
    with no_more_asked(lab):
        told = house.ask(house.key(budget_microdollars=50_000), CHEAP, max_tokens=cap)
    assert told.status == 400


@pytest.mark.parametrize("name", ["either", "auto"])
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_huge_cap_is_no_fault_of_a_name_that_leads_to_several(house: House, name: str, field: str) -> None:
    assert house.ask(house.key(), name, **{field: 10**30}).status == 200


@pytest.mark.parametrize("field", ["max_tokens", "n"])
def test_a_huge_number_is_refused_like_any_that_is_not_paid_for(house: House, lab: Any, field: str) -> None:
    for limits, status in (
        ({"budget_microdollars": 50_000}, 402),
        ({"daily_tokens": 50_000}, 429),
        ({"tpm": 50_000}, 429),
    ):
        with no_more_asked(lab):
            told = house.ask(house.key(**limits), CHEAP, **{field: 10**17})
        assert told.status == status, (limits, told.body)


def test_what_is_passed_unread_is_never_made_cheaper_by_reserving_less(house: House, lab: Any) -> None:
    """A cap that is not sent bounds nothing."""
    key = house.key(budget_microdollars=2_000)
    body = json.dumps({"model": CHEAP, "prompt": "a house", "n": 1}).encode()
    with no_more_asked(lab):
        told = house.gateway.ask(CHEAP, path="/v1/images/generations", content=body, headers=key.bearer)
    assert told.status == 402


def test_the_last_key_that_is_revoked_does_not_open_the_house(house: House) -> None:
    """Every key of a house of its own would have to go; here it is told by the books themselves."""
    from fastroute.ledger.book import Book
    from fastroute.ledger.store import State

    book = Book(State())
    assert book.nobody_has_a_key
    row = book.open_account("key_1", "key", "a", created_ms=1, digest=b"d")
    book.change_account(row.id, state="revoked")
    assert not book.nobody_has_a_key
