"""What callers and operators are told of a request: headers on every kind of reply, and metrics after known traffic."""

from __future__ import annotations

import re
from typing import Any

import pytest
from acceptance_kit import chat, chat_events, error, provider, streamed, whole

CONFIG = """
health: {{threshold: 1000}}
providers:
  lab: {{dialect: openai, base_url: "{lab}"}}
  backup: {{dialect: openai, base_url: "{backup}"}}
models:
  - {{id: one, model: "lab:llama-one", lane: rack, price: {{input: 1000000, output: 2000000}}}}
  - {{id: two, model: "backup:llama-two", price: {{input: 3000000, output: 4000000}}}}
  - {{id: busy, model: "lab:m", lane: busy}}
  - {{id: free, model: "lab:unpriced-llama"}}
aliases:
  either: [one, two]
  single: one
"""


backup = provider()


@pytest.fixture(scope="module")
def gateway(serve: Any, lab: Any, backup: Any) -> Any:
    return serve(CONFIG.format(lab=lab.url, backup=backup.url))


@pytest.fixture(autouse=True)
def _clean(clean: None, backup: Any, gateway: Any) -> None:
    backup.forget()
    for _ in range(5):
        gateway.ask("dummy")


def told_of_the_request(headers: Any) -> None:
    """What even a refusal carries."""
    assert re.fullmatch(r"req_[a-z0-9]{9,}", headers["x-router-request-id"])
    assert headers["x-request-id"] == headers["x-router-request-id"]


def told_of_the_decision(headers: Any) -> None:
    assert re.fullmatch(r"rd_[a-z2-7]{26}", headers["x-router-decision-id"])


# --- headers --------------------------------------------------------------------------------------------------------


def test_a_whole_answer_tells_everything_in_its_headers(gateway: Any) -> None:
    told = gateway.ask("either")
    told_of_the_request(told.headers)
    told_of_the_decision(told.headers)
    assert told.headers["x-router-model"] == "llama-one"
    assert told.headers["x-router-reason"] == "route_primary"
    assert told.headers["x-router-fallback"] == "false"
    assert "x-router-original-model" not in told.headers
    assert told.headers["x-router-latency-ms"].isdigit()
    assert told.headers["x-router-cost-usd"] == "0.0000410"
    assert told.headers["x-router-tokens-input"] == "11"
    assert told.headers["x-router-tokens-output"] == "15"


def test_c26_a_stream_tells_what_is_known_before_it_and_the_rest_before_its_end(gateway: Any, lab: Any) -> None:
    """C26: a cost cannot stand in a head that was sent before it was known."""
    lab.say("llama-one", streamed(chat_events("a", "b"), gap_s=0.03))
    told = gateway.ask("either", stream=True)
    told_of_the_request(told.headers)
    told_of_the_decision(told.headers)
    assert told.headers["x-router-model"] == "llama-one"
    assert told.headers["x-router-reason"] == "route_primary"
    assert told.headers["x-router-fallback"] == "false"
    assert set(told.comments) >= {"x-router-cost-usd", "x-router-tokens-input", "x-router-tokens-output"}
    assert told.comments["x-router-cost-usd"] == "0.0000410"
    assert told.comments["x-router-latency-ms"].isdigit()
    assert told.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_fallback_names_both_models(gateway: Any, lab: Any, stream: bool) -> None:
    lab.say("llama-one", whole(error("server_error"), 500))
    told = gateway.ask("either", stream=stream)
    assert told.headers["x-router-model"] == "llama-two"
    assert told.headers["x-router-original-model"] == "llama-one"
    assert told.headers["x-router-reason"] == "fallback"
    assert told.headers["x-router-fallback"] == "true"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_upstreams_failure_tells_of_the_attempt(gateway: Any, lab: Any, stream: bool) -> None:
    lab.say("llama-one", whole(error("server_error"), 500))
    told = gateway.ask("one", stream=stream)
    assert told.status == 502
    told_of_the_request(told.headers)
    told_of_the_decision(told.headers)
    assert told.headers["x-router-model"] == "llama-one"
    assert told.headers["x-router-reason"] == "manual_override"
    assert told.headers["x-router-latency-ms"].isdigit()
    assert told.headers["x-router-cost-usd"] == "0.0000000"


@pytest.mark.parametrize("model", ["no-such-model", ""])
def test_a_refusal_tells_its_request_and_names_no_model(gateway: Any, model: str) -> None:
    told = gateway.ask(model)
    told_of_the_request(told.headers)
    assert "x-router-model" not in told.headers
    assert told.error["message"]


def test_an_unknown_price_is_no_zero(gateway: Any) -> None:
    """A cost that nobody knows is left out; a figure would be a lie."""
    told = gateway.ask("free")
    assert told.status == 200
    assert "x-router-cost-usd" not in told.headers
    assert told.headers["x-router-tokens-output"] == "15"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_r_b16_what_a_provider_calls_the_request_survives(gateway: Any, lab: Any, backup: Any, stream: bool) -> None:
    """R-B16: its support asks for that id, and for the one of every attempt."""
    lab.say("llama-one", whole(error("server_error"), 500, {"x-request-id": "up_1"}))
    good = (
        streamed(chat_events("x"), {"request-id": "up_2"}) if stream else whole(chat("x"), 200, {"request-id": "up_2"})
    )
    backup.say("llama-two", good)
    told = gateway.ask("either", stream=stream)
    assert told.headers["x-router-upstream-request-id"] == "up_1, up_2"
    assert told.headers["x-request-id"].startswith("req_"), "the id of this gateway stays its own"


@pytest.mark.parametrize("name", ["a b", "x" * 200, "\u00e9", '"', ""])
def test_an_id_that_is_none_is_not_repeated(gateway: Any, lab: Any, name: str) -> None:
    lab.say("llama-one", whole(chat("x"), 200, {"x-request-id": name}))
    assert "x-router-upstream-request-id" not in gateway.ask("one").headers


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_r_b16_a_providers_retry_after_survives(gateway: Any, lab: Any, stream: bool) -> None:
    """R-B16: a client that is told when to come back does not have to guess."""
    lab.say("m", whole(error("rate_limit_error", "account 1234 is over its limit"), 429, {"retry-after": "7"}))
    told = gateway.ask("busy", stream=stream)
    assert told.status == 429
    assert told.headers["retry-after"] == "7"
    assert told.headers["x-should-retry"] == "true"
    assert told.error["type"] == "rate_limit_error"
    assert "1234" not in told.error["message"]


def test_c9_an_alias_of_one_is_as_good_as_its_target(gateway: Any, lab: Any, backup: Any) -> None:
    """C9: one target leaves nothing to choose, and nothing to fall over to."""
    lab.say("llama-one", whole(error("server_error"), 500))
    assert gateway.ask("single").status == 502
    assert not backup.asked()


# --- metrics --------------------------------------------------------------------------------------------------------


def test_c2_c3_metrics_after_known_traffic(serve: Any, stubs: Any) -> None:
    """C2, C3, 5.5: one label set for each name, both latencies from one observation, money and tokens to the unit."""
    lab, backup = stubs.open(), stubs.open()
    gateway = serve(CONFIG.format(lab=lab.url, backup=backup.url))
    ok = [gateway.ask("one", stream=stream) for stream in (False, True, False)]
    assert [told.status for told in ok] == [200] * 3
    lab.say("llama-one", whole(error("server_error"), 500))
    assert gateway.ask("either").status == 200
    assert gateway.ask("one").status == 502
    lab.say("llama-one", whole(error("invalid_request_error"), 400))
    assert gateway.ask("one").status == 400
    assert gateway.ask("no-such-model").status == 404
    assert gateway.ask("", content=b"{").status == 400

    metrics = gateway.metrics()

    def value(name: str, **labels: str) -> float:
        return metrics[name, frozenset((label.rstrip("_"), text) for label, text in labels.items())]

    assert value("router_requests_total", model="llama-one", status_code="200") == 3
    assert value("router_requests_total", model="llama-two", status_code="200") == 1
    assert value("router_requests_total", model="llama-one", status_code="502") == 1
    assert value("router_requests_total", model="llama-one", status_code="400") == 1
    assert value("router_requests_total", model="other", status_code="404") == 1
    assert value("router_requests_total", model="other", status_code="400") == 1
    assert value("router_backend_requests_total", backend="rack", outcome="ok") == 3
    assert value("router_backend_requests_total", backend="backup", outcome="ok") == 1
    assert value("router_backend_requests_total", backend="rack", outcome="server_error") == 1
    assert value("router_backend_requests_total", backend="rack", outcome="client_error") == 1
    assert value("router_fallback_total", from_="one", to="two") == 1
    assert value("router_request_latency_ms_count", model="llama-one") == 5
    assert value("router_request_latency_seconds_count", backend="rack") == 5
    ms, seconds = (
        value("router_request_latency_ms_sum", model="llama-one"),
        value("router_request_latency_seconds_sum", backend="rack"),
    )
    assert ms == pytest.approx(seconds * 1000)
    assert value("router_cost_usd_sum", model="llama-one") == pytest.approx(3 * 0.000041)
    assert value("router_cost_usd_sum", model="llama-two") == pytest.approx(0.000093)
    assert value("router_tokens_total", model="llama-one", type="input") == 33
    assert value("router_tokens_total", model="llama-one", type="output") == 45
    assert value("router_active_requests") == 0
    assert value("fastroute_attempts_total", lane="rack", outcome="ok") == 3
    assert value("fastroute_attempts_total", lane="rack", outcome="5xx") == 2
    assert value("fastroute_attempts_total", lane="rack", outcome="http_4xx") == 1
    assert value("fastroute_attempts_total", lane="backup", outcome="ok") == 1
    assert value("fastroute_first_chunk_seconds_count", lane="rack") == 1
    assert value("fastroute_settle_total", basis="exact") == 4
    assert value("fastroute_settle_total", basis="void") == 3
    assert value("fastroute_bad_json_total", why="syntax") == 1


def test_c28_names_that_nobody_serves_are_other(gateway: Any, lab: Any) -> None:
    """C28: a caller may invent as many names as it likes and makes no series by it."""
    for number in range(20):
        lab.say(f"invented-{number}", whole(error("invalid_request_error", "no such model"), 404))
    with gateway.counting("router_requests_total", model="other", status_code="404") as unknown:
        for number in range(20):
            assert gateway.ask(f"unknown-{number}").status == 404, "not known here"
            assert gateway.ask(f"lab:invented-{number}").status == 404, "not known to the provider"
        assert unknown() == 40
    text = gateway.http.get("/metrics").text
    assert "invented" not in text
    assert "unknown-" not in text


def test_metrics_name_no_key_and_no_prompt(gateway: Any) -> None:
    gateway.ask("one", messages=[{"role": "user", "content": "prompt-canary"}], headers={"x-api-key": "key-canary"})
    text = gateway.http.get("/metrics").text
    assert "canary" not in text
    assert "canary" not in gateway.log.read_text()
