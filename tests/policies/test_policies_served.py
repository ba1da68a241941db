"""Policies over HTTP: a name to ask by, and every field in effect on what a provider is sent and who is asked next."""

import json

import pytest

from fastroute.clock import ManualClock
from fastroute.lanes import Latency
from tests.kits import load

FIRST, SECOND = "first", "second"
# What every policy here has in common: two models of one provider, each on a lane of its own.
HEAD = "routing: {primary: [first], backups: [second], params: {first: {temperature: 0.1}}}\n"
POLICIES = {
    "plain": "objectives: {max_tokens: 300}\n" + HEAD,
    "worded": HEAD + "gen: {system: Be brief., temperature: 0.5, top_p: 0.9, stop: [END]}\n",
    "json": HEAD + "gen: {json_mode: true}\n",
    "quick": HEAD + "strategy: {fallback_on_latency_ms: 150, backoff_ms: [20], first_chunk_gate_ms: 60}\n",
    "once": HEAD + "strategy: {max_attempts: 1}\n",
    "poor": HEAD + "strategy: {retry_on: [low_quality]}\n",
    "cut": HEAD + "strategy: {retry_on: [cut], first_chunk_gate_ms: 400}\n",
    "cheap": HEAD + "objectives: {max_cost_usd: 0.001, max_tokens: 200}\n",
    "closed": HEAD + "objectives: {max_cost_usd: 0.000001}\n",
    "saving": HEAD + "objectives: {prefer: cost, max_tokens: 100}\n",
    "stays": HEAD + "pinned: stay\n",
    "moves": HEAD + "pinned: failover\n",
    "taken": HEAD,
}


kit = load("gateway/conftest.py", "gateway_conftest")
say = kit.Say
upstream = kit.upstream
serve = kit.serve


@pytest.fixture(scope="module")
def server(serve, upstream, tmp_path_factory):
    place = tmp_path_factory.mktemp("policies")
    for name, text in POLICIES.items():
        (place / f"{name}.yaml").write_text(f"policy: {name}\n{text}")
    price = "price: {input: 1000000, output: 2000000}"
    dear = "price: {input: 1000000, output: 9000000}"
    return serve(
        f"policies_dir: {place}\n"
        f'providers: {{up: {{dialect: openai, base_url: "{upstream.url}"}}, '
        f'ant: {{dialect: anthropic, base_url: "{upstream.url}", api_key: k}}}}\n'
        "health: {threshold: 1000}\n"
        "models:\n"
        f"  - {{id: first, model: 'up:first', lane: one, {dear}, max_output: 4096, capabilities: [json]}}\n"
        f"  - {{id: second, model: 'up:second', lane: two, {price}, max_output: 4096, capabilities: [json]}}\n"
        "aliases: {taken: [second]}\n"
    )


@pytest.fixture
def ask(server, upstream):
    """Ask by a policy's name, and read what each model was sent."""
    upstream.forget(FIRST, SECOND)
    server.refill(1)

    def ask(policy, first=None, **how):
        good = how.get("stream", False) or str(how.get("path", "")).endswith(":streamGenerateContent")
        for name in (FIRST, SECOND):
            answer = say.good("openai", bool(good), f"hello from {name}")
            upstream.script(name, first if name == FIRST and first is not None else answer)
        reply = server.ask(policy, **how)
        return reply, [asked.json for asked in upstream.asked(FIRST)], [asked.json for asked in upstream.asked(SECOND)]

    yield ask
    upstream.forget(FIRST, SECOND)


def test_policies_and_starters_are_listed_and_pins_are_not(server):
    """An alias of the same name comes first, and starters nobody can be asked for are listed all the same."""
    names = [each["id"] for each in json.loads(server.get("/v1/models"))["data"]]
    assert {"plain", "worded", "balanced-helpdesk", "premium-brief"} <= set(names)
    assert names.count("taken") == 1
    assert not [name for name in names if ":" in name]


def test_a_policys_name_asks_its_first_model_and_caps_the_answer(ask):
    reply, [sent], others = ask("plain")
    assert (reply.status, reply.text, others) == (200, "hello from first", [])
    assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("first", 300, 0.1)
    assert reply.headers["x-router-reason"] == "route_primary"
    assert reply.headers["x-router-model-logical"] == "plain"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"max_tokens": 50}, {"max_tokens": 50}),
        ({"max_tokens": 900}, {"max_tokens": 300}),
        ({"max_completion_tokens": 900}, {"max_completion_tokens": 300}),
        ({"n_predict": 900, "max_tokens": 50}, {"n_predict": 300, "max_tokens": 50}),
    ],
)
def test_the_shorter_cap_holds(ask, given, sent):
    _, [body], _ = ask("plain", **given)
    assert {name: body.get(name) for name in sent} == sent
    assert len([name for name in body if name.startswith("max_")]) == 1


def test_generation_fills_what_the_caller_left_out(ask):
    """`routing.params` of the model before `gen`, the caller before both; the system text goes in front."""
    _, [sent], _ = ask("worded", top_p=0.3)
    assert (sent["temperature"], sent["top_p"], sent["stop"]) == (0.1, 0.3, ["END"])
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, *kit.MESSAGES]


def test_a_callers_own_system_text_stays_alone(ask):
    own = [{"role": "system", "content": "Mine."}, *kit.MESSAGES]
    _, [sent], _ = ask("worded", body={"model": "worded", "messages": own})
    assert sent["messages"] == own


def test_a_backup_is_sent_its_own_parameters(ask):
    _, [first], [second] = ask("worded", first=say.whole(b"{}", 503))
    assert (first["temperature"], second["temperature"]) == (0.1, 0.5)
    assert second["model"] == "second"


def test_every_dialect_is_ruled_in_its_own_words(ask):
    body = {"model": "worded", "max_tokens": 5000, "messages": kit.MESSAGES}
    reply, [sent], _ = ask("worded", path="/v1/messages", body=body)
    assert reply.status == 200, reply.body
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (sent["temperature"], sent["max_tokens"]) == (0.1, 1024)
    reply, [sent], _ = ask("worded", path="/v1/responses", body={"model": "worded", "input": "hi"})
    assert reply.status == 200, reply.body
    assert sent["messages"][0]["content"] == "Be brief."
    contents = [{"role": "user", "parts": [{"text": "hi"}]}]
    reply, [sent], _ = ask("worded", path="/v1beta/models/worded:generateContent", body={"contents": contents})
    assert reply.status == 200, reply.body
    assert (sent["stop"], sent["temperature"]) == (["END"], 0.1)


def test_json_mode_is_asked_for(ask):
    answer = say.whole(json.dumps(say.answer("openai", "{}")).encode())
    _, [sent], _ = ask("json", first=answer)
    assert sent["response_format"] == {"type": "json_object"}


def test_a_silent_model_is_left_after_the_policys_own_limit(ask, upstream):
    reply, [_], [_] = ask("quick", first=[upstream.hold], stream=True)
    assert (reply.text, reply.done) == ("hello from second", True)
    assert 0.15 <= reply.took_s < 2


def test_what_breaks_behind_the_gate_was_never_told(ask, upstream):
    """Content that is followed by a cut within the gate falls over; after it the stream is told as broken."""
    begun = say.head() + b"".join(map(say.chunk, say.openai_events("lost")[:2]))
    reply, _, [_] = ask("cut", first=[begun, upstream.pause(0.05), upstream.reset], stream=True)
    assert (reply.text, reply.done) == ("hello from second", True)
    reply, _, others = ask("cut", first=[begun, upstream.pause(0.6), upstream.reset], stream=True)
    assert (reply.text, reply.done, others) == ("lost", False, [])


def test_no_more_attempts_are_made_than_the_policy_allows(ask):
    reply, [_], others = ask("once", first=say.whole(b"{}", 503))
    assert (reply.status, others) == (502, [])


def test_an_empty_answer_falls_over_only_where_the_policy_says_so(ask):
    empty = say.whole(json.dumps(say.answer("openai", "")).encode())
    reply, _, [_] = ask("poor", first=empty)
    assert reply.text == "hello from second"
    reply, _, others = ask("plain", first=empty)
    assert (reply.text, others) == ("", [])


def test_a_model_above_the_ceiling_is_skipped_and_none_left_is_402(ask):
    reply, first, [_] = ask("cheap")
    assert (reply.text, first) == ("hello from second", [])
    assert reply.headers["x-router-reason"] == "route_backup"
    reply, first, second = ask("closed")
    assert (reply.status, reply.error["code"], first, second) == (402, "cost_ceiling", [], [])
    assert "lets a request cost $0.000001" in reply.error["message"]


def test_the_cheapest_may_be_preferred(ask):
    reply = ask("saving")[0]
    assert (reply.text, reply.headers["x-router-reason"]) == ("hello from second", "prefer_cost")


def test_a_pinned_model_is_swapped_only_where_the_policy_says_so(ask):
    broken = say.whole(b"{}", 503)
    assert ask("stays:first", first=broken)[0].status == 502
    assert ask("moves:first", first=broken)[0].text == "hello from second"
    assert ask("stays:second")[0].text == "hello from second"
    assert ask("stays:third")[0].status == 404


def test_a_request_by_a_models_own_name_is_not_ruled(ask):
    _, [sent], _ = ask("first")
    assert sent == {"model": "first", "messages": kit.MESSAGES}


def test_each_policy_has_a_window_of_its_own_for_latencies():
    """The last n attempts count, for an n that may be larger than what is usually kept."""
    latency = Latency(ManualClock())
    latency.keep(100)
    for ms in (*[1000] * 60, *[10] * 40):
        latency.note("a", ms)
    assert (latency.facts()["a"].samples, latency.facts(100)["a"].samples) == (50, 100)
    assert latency.facts(40)["a"].p95_ms == 10
