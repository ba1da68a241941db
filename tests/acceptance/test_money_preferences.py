"""Keys that prefer it cheap or quick: `prefer_cost` and `prefer_latency`, as the operator sets them and callers meet them."""

from __future__ import annotations

from typing import Any

import pytest
from acceptance_kit import chat, whole
from money_desk_kit import ADMIN, House, until

CONFIG = """
server: {{drain_ms: 3000}}
policies_dir: "{place}"
providers:
  lab: {{dialect: openai, base_url: "{lab}"}}
models:
  - {{id: cheap, model: "lab:cheap", price: {{input: 1000000, output: 1000000}}, capabilities: [json], max_output: 4000}}
  - {{id: dear, model: "lab:dear", price: {{input: 3000000, output: 15000000}}, capabilities: [tools], max_output: 4000}}
aliases:
  fancy: [dear, cheap]
auto: {{small: cheap, medium: dear}}
"""
POLICY = "policy: {name}\nobjectives: {{{said}}}\nrouting: {{primary: [dear, cheap]}}\n"
LONG = "Why? " * 60


@pytest.fixture(scope="module")
def house(serve: Any, lab: Any, tmp_path_factory: pytest.TempPathFactory) -> House:
    place = tmp_path_factory.mktemp("policies")
    for name, said in (("open", ""), ("written", "prefer: order"), ("quick", "prefer: latency")):
        (place / f"{name}.yaml").write_text(POLICY.format(name=name, said=said))
    return House(serve(CONFIG.format(lab=lab.url, place=place), {"FASTROUTE_ADMIN_KEY": ADMIN}))


def went(house: House, key: Any, model: str, **fields: Any) -> tuple[str, str]:
    """Who answered, and the reason that was told."""
    told = house.ask(key, model, **fields)
    assert told.status == 200, told.body
    return told.headers["x-router-model"], told.headers["x-router-reason"]


def test_s003_prefer_cost_takes_the_cheaper_one_wherever_a_name_leaves_the_choice(house: House) -> None:
    plain, saving = house.key(), house.key(prefer="cost")
    assert went(house, plain, "fancy") == ("dear", "route_primary")
    for name in ("fancy", "open"):
        assert went(house, saving, name) == ("cheap", "prefer_cost")
    long = [{"role": "user", "content": LONG}]
    assert went(house, plain, "auto", messages=long) == ("dear", "heuristic_length")
    assert went(house, saving, "auto", messages=long) == ("cheap", "prefer_cost")


def test_a_preference_ranks_and_never_filters(house: House) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert went(house, house.key(prefer="cost"), "fancy", tools=tools) == ("dear", "prefer_cost")


def test_explicit_models_and_policies_that_say_how_they_rank_are_untouched(house: House) -> None:
    saving = house.key(prefer="cost")
    assert went(house, saving, "dear") == ("dear", "manual_override")
    assert went(house, saving, "open:dear")[0] == "dear"
    assert went(house, saving, "written") == ("dear", "route_primary")
    assert went(house, saving, "quick")[1] == "prefer_latency"


def test_s003_prefer_latency_takes_whoever_was_quicker_of_late(house: House, lab: Any) -> None:
    key = house.key(prefer="latency")
    lab.say("cheap", *[whole(chat("late"), after_s=0.08)] * 12)
    for _ in range(12):
        went(house, key, "cheap")
        went(house, key, "dear")
    lab.forget()
    assert went(house, key, "fancy") == ("dear", "prefer_latency")
    assert went(house, key, "auto") == ("dear", "prefer_latency")


def test_a_preference_is_shown_changed_and_taken_away_and_holds_for_keys_below(house: House) -> None:
    key = house.key(prefer="cost")
    below = house.key(parent=key.id)
    assert house.admin("GET", f"/keys/{key.id}").json()["prefer"] == "cost"
    assert house.admin("GET", f"/keys/{below.id}").json()["prefer"] is None
    assert went(house, below, "fancy") == ("cheap", "prefer_cost")
    assert house.admin("PATCH", f"/keys/{key.id}", json={"prefer": None}).json()["prefer"] is None
    until(lambda: went(house, key, "fancy") == ("dear", "route_primary"))
    for method, path in (("POST", "/keys"), ("PATCH", f"/keys/{key.id}")):
        told = house.admin(method, path, json={"prefer": "speed"} | ({"name": "odd"} if method == "POST" else {}))
        assert (told.status_code, told.json()["error"]["code"]) == (400, "invalid_request")
        assert "prefer" in told.text
