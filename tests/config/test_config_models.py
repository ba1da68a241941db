"""Models, prices and aliases: decoded whole, prices in integers, and every number within its bound."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.config.values import Given, dollars_per_mtok, in_flag
from fastroute.domain import RATE_MAX, TOKENS_MAX, Price, Rates, Tier

DESIGN = """\
server: {host: 127.0.0.1, port: 8000, workers: 2}
auth: {admin_key: "${FASTROUTE_ADMIN_KEY}"}
providers:
  openai: {dialect: openai, base_url: "https://api.openai.com", api_key: "${OPENAI_API_KEY}"}
  local:  {dialect: openai, base_url: "http://127.0.0.1:9000"}
models:
  - id: gpt-4o-mini                  # the name callers use
    model: openai:gpt-4o-mini        # provider:model
    lane: openai                     # failure domain; default: the provider
    runtime: managed                 # managed | local
    capabilities: [tools, vision]    # tools | vision | long_context | json ...
    price: {input: 150000, output: 600000}
    context_window: 128000
    max_output: 16384
    priority: 100
aliases:
  small: mistral-small-latest
  chat: [gpt-4o-mini, claude-haiku]  # several targets: tried in order, failover before the first content byte
auto: {ranker: tiers, small: small, medium: mistral-medium-latest}
relay: {connect_ms: 2000, first_chunk_ms: 10000, idle_ms: 30000, total_ms: 600000, max_attempts: 3}
policies_dir: policies
"""


def test_the_documented_file_is_read_as_it_reads(loaded):
    config = loaded(DESIGN, {"FASTROUTE_ADMIN_KEY": "a" * 32, "OPENAI_API_KEY": "sk"})
    (model,) = config.models
    assert (model.id, model.model, model.lane, model.runtime, model.kind) == (
        "gpt-4o-mini",
        "openai:gpt-4o-mini",
        "openai",
        "managed",
        "api",
    )
    assert model.capabilities == ("tools", "vision")
    assert model.price == Price(Rates(150_000, 600_000))
    assert (model.context_window, model.max_output, model.priority) == (128_000, 16_384, 100)
    assert (model.p50_latency_ms, model.endpoint, model.source) == (None, None, "fastroute.yaml:7")
    assert config.aliases == {"small": ("mistral-small-latest",), "chat": ("gpt-4o-mini", "claude-haiku")}
    assert (config.auto.small, config.server.workers) == ("small", 2)
    assert list(config.providers) == ["openai", "local"]


def test_a_model_needs_only_a_name(loaded):
    (model,) = loaded("models: [{id: gpt-4o}]").models
    assert (model.model, model.lane, model.runtime, model.kind) == ("gpt-4o", None, None, "api")
    assert (model.capabilities, model.price, model.priority) == (None, None, 100)


def test_null_is_not_known_and_not_zero(loaded):
    (model,) = loaded("models: [{id: a, price: null, context_window: null, p50_latency_ms: 0, lane: null}]").models
    assert (model.price, model.context_window, model.p50_latency_ms, model.lane) == (None, None, 0, None)


def test_no_capabilities_is_another_thing_than_not_saying(loaded):
    absent, null, none = loaded("models: [{id: a}, {id: b, capabilities: null}, {id: c, capabilities: []}]").models
    assert (absent.capabilities, null.capabilities, none.capabilities) == (None, None, ())


def test_an_endpoint_is_normalised_like_any_address(loaded):
    (model,) = loaded("models: [{id: a, model: 'local:a', kind: weight, endpoint: 'http://10.0.0.1:8000/v1/'}]").models
    assert (model.endpoint, model.kind) == ("http://10.0.0.1:8000", "weight")


def tier(above_tokens: int, input_rate: int, output_rate: int) -> str:
    return f"{{above_tokens: {above_tokens}, input: {input_rate}, output: {output_rate}}}"


PRICES = [
    ("free", Price(Rates(0, 0), source="free")),
    ("{input: 0, output: 0}", Price(Rates(0, 0))),
    ("{input: 1, output: 2, cache_read: 0, cache_write: 4}", Price(Rates(1, 2, 0, 4))),
    ("{input: 1, output: 2, cache_read: null}", Price(Rates(1, 2))),
    ("{unit: microdollars_per_mtok, input: 1, output: 2}", Price(Rates(1, 2))),
    ('{unit: usd_per_mtok, input: "0.15", output: "0.60"}', Price(Rates(150_000, 600_000))),
    ("{unit: usd_per_mtok, input: 0.15, output: 2, cache_read: 0.075}", Price(Rates(150_000, 2_000_000, 75_000))),
    ("{unit: usd_per_mtok, input: 0.000001, output: 2000}", Price(Rates(1, RATE_MAX))),
    (
        f"{{input: 1, output: 2, tiers: [{tier(9, 3, 4)}, {tier(10, 5, 6)}]}}",
        Price(Rates(1, 2), (Tier(9, Rates(3, 4)), Tier(10, Rates(5, 6)))),
    ),
    (
        "{unit: usd_per_mtok, input: 1, output: 2, tiers: [{above_tokens: 200000, input: 2.5, output: 15}]}",
        Price(Rates(1_000_000, 2_000_000), (Tier(200_000, Rates(2_500_000, 15_000_000)),)),
    ),
    (f"{{input: {RATE_MAX}, output: 0}}", Price(Rates(RATE_MAX, 0))),
]


@pytest.mark.parametrize(("text", "price"), PRICES)
def test_a_price_is_integers_whatever_it_was_written_in(loaded, text, price):
    assert loaded(f"models: [{{id: a, price: {text}}}]").models[0].price == price


PRICES_REFUSED = [
    ("{input: -1, output: 2}", "price.input: found the whole number -1, wanted a whole number from 0 to 2000000000"),
    ("{input: 0.15, output: 2}", "price.input: found the decimal number 0.15, wanted a whole number"),
    ("{input: true, output: 2}", "price.input: found true, wanted a whole number"),
    ("{input: '1', output: 2}", "price.input: found the text '1', wanted a whole number"),
    (f"{{input: 1, output: {RATE_MAX + 1}}}", "price.output: found the whole number 2000000001, wanted"),
    (
        "{unit: usd_per_mtok, input: -0.1, output: 2}",
        "price.input: found the decimal number -0.1, wanted a price in US",
    ),
    ("{unit: usd_per_mtok, input: false, output: 2}", "price.input: found false, wanted a price in US dollars"),
    (
        "{unit: usd_per_mtok, input: .nan, output: 2}",
        "price.input: found the text '.nan', wanted a price in US dollars",
    ),
    ("{unit: usd_per_mtok, input: 1e999, output: 2}", "price.input: found the decimal number 1e999, wanted a price"),
    ("{unit: usd_per_mtok, input: 2000.1, output: 2}", "price.input: found the decimal number 2000.1, wanted a price"),
    ("{unit: usd_per_mtok, input: 0.0000001, output: 2}", "price.input: found the decimal number 0.0000001, wanted a"),
    ("{unit: per_1k, input: 1, output: 2}", "price.unit: found the text 'per_1k', wanted one of microdollars_per_mtok"),
    ("{output: 2}", "price.input is missing; an unknown price is left out whole"),
    ("{input: 1, output: null}", "price.output is missing; an unknown price is left out whole"),
    ("0", "price: found the whole number 0, wanted `free` or a section"),
    ("cheap", "price: found the text 'cheap', wanted `free` or a section"),
    ("[1, 2]", "price: found a list, wanted a section"),
    ("{input: 1, output: 2, tiers: [{input: 1, output: 2}]}", "price.tiers[0].above_tokens is missing"),
    (
        f"{{input: 1, output: 2, tiers: [{tier(5, 1, 2)}, {tier(5, 1, 2)}]}}",
        "price.tiers[1].above_tokens: wanted more than the tier before it",
    ),
    (
        f"{{input: 1, output: 2, tiers: [{', '.join(tier(n, 1, 2) for n in range(5))}]}}",
        "price.tiers: found 5, wanted at most 4",
    ),
    ("{input: 1, output: 2, cashe_read: 1}", "price: unknown key 'cashe_read'; did you mean 'cache_read'?"),
]


@pytest.mark.parametrize(("text", "expected"), PRICES_REFUSED)
def test_a_price_that_is_not_exact_or_not_whole_is_refused_with_its_place(refusals, text, expected):
    told = refusals(f"models:\n- id: a\n  price: {text}\n")
    assert len(told) == 1
    assert told[0].startswith(f"fastroute.yaml:3: models[0].{expected}")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, RATE_MAX))
def test_every_rate_survives_being_written_in_dollars(rate):
    """No rate loses a microdollar between the page of a provider and the ledger."""
    text = f"{rate // 1_000_000}.{rate % 1_000_000:06d}"
    assert dollars_per_mtok(Given(text, in_flag("x"), text)) == rate


MODELS_REFUSED = [
    ("{model: 'openai:a'}", "models[0].id is missing; it is the name callers use"),
    ("{id: null}", "models[0].id is missing; it is the name callers use"),
    ("{id: 4}", "models[0].id: found the whole number 4, wanted a name in quotes"),
    ("{id: 'a b'}", "models[0].id: found the text 'a b', wanted a name of at most 200 characters without blanks"),
    ('{id: "a\\nb"}', "models[0].id: found the text 'a\\nb', wanted a name, not empty and on one line"),
    (
        "{id: a, model: 'opnai:a'}",
        "models[0].model: 'opnai' is no provider; wanted provider:model; did you mean 'openai'?",
    ),
    ("{id: a, model: 'openai:'}", "models[0].model: 'openai:' names no model; wanted provider:model"),
    ("{id: a, runtime: cloud}", "models[0].runtime: found the text 'cloud', wanted one of managed, local"),
    ("{id: a, kind: gguf}", "models[0].kind: found the text 'gguf', wanted one of api, weight"),
    ("{id: a, capabilities: tools}", "models[0].capabilities: found the text 'tools', wanted a list of names"),
    (
        "{id: a, capabilities: [smell]}",
        "models[0].capabilities[0]: found the text 'smell', wanted one of tools, vision",
    ),
    ("{id: a, context_window: 0}", "models[0].context_window: found the whole number 0, wanted a whole number from 1"),
    (f"{{id: a, max_output: {TOKENS_MAX + 1}}}", "models[0].max_output: found the whole number 1000000001, wanted"),
    ("{id: a, priority: null}", "models[0].priority: found nothing (null), wanted a whole number"),
    ("{id: a, p50_latency_ms: 1.5}", "models[0].p50_latency_ms: found the decimal number 1.5, wanted a whole number"),
    ("{id: a, endpoint: nowhere}", "models[0].endpoint: found the text 'nowhere', wanted an http(s) address"),
    ("gpt-4o", "models[0]: found one value, wanted a section"),
]


@pytest.mark.parametrize(("text", "expected"), MODELS_REFUSED)
def test_a_model_that_cannot_be_used_is_told_with_its_place(refusals, text, expected):
    told = refusals(f"models:\n- {text}\n")
    assert len(told) == 1
    assert told[0].startswith(f"fastroute.yaml:2: {expected}")


def test_models_are_a_list(refusals):
    assert refusals("models: {a: 1}") == ["fastroute.yaml:1: models: found a section, wanted a list of models"]


def test_a_name_belongs_to_one_model(refusals):
    told = refusals("models:\n- {id: a}\n- {id: b}\n- {id: a}\n")
    assert told == ["fastroute.yaml:4: models[2].id: 'a' is the name of the model at line 2"]


def test_a_model_may_lead_to_a_provider_of_the_file_or_a_known_one_without_its_key(loaded):
    config = loaded(
        "providers: {mine: {dialect: demo}}\n"
        "models: [{id: a, model: 'mine:a'}, {id: b, model: 'anthropic:b'}, {id: c, model: 'dummy:c'}]\n"
    )
    assert [each.model for each in config.models] == ["mine:a", "anthropic:b", "dummy:c"]


ALIASES_REFUSED = [
    ("{a: b, m: x}", "aliases.m: a model has that name already"),
    ("{a: a}", "aliases.a: leads to itself"),
    ("{a: [b, a]}", "aliases.a: leads to itself"),
    ("{a: []}", "aliases.a: wanted at least one name"),
    ("{a: [b, b]}", "aliases.a[1]: 'b' is in the list already"),
    ("{a: 1}", "aliases.a: found the whole number 1, wanted the name of a model or a list of them"),
    ("{a: null}", "aliases.a: found nothing (null), wanted the name of a model or a list of them"),
    ("{'a b': c}", "aliases: found the text 'a b', wanted a name of at most 200 characters without blanks"),
    ("[a]", "aliases: found a list, wanted a section"),
]


@pytest.mark.parametrize(("text", "expected"), ALIASES_REFUSED)
def test_an_alias_that_leads_nowhere_is_refused(refusals, text, expected):
    told = refusals(f"models: [{{id: m}}]\naliases: {text}\n")
    assert len(told) == 1
    assert told[0].startswith(f"fastroute.yaml:2: {expected}")
