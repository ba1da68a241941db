"""What is held before a request leaves, for every answer it asks for, and what of a provider's count is believed."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from fastroute import asked
from fastroute._scan import RequestScanner, ScanError

SCANNER = RequestScanner((b"n", *asked.NAMES))

# --- what is asked for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("surface", "body", "answers", "cap"),
    [
        ("completions", {"prompt": "a"}, 1, None),
        ("completions", {"prompt": "a", "n": 3}, 3, None),
        ("completions", {"prompt": "a", "best_of": 5}, 5, None),
        ("completions", {"prompt": "a", "n": 2, "best_of": 5}, 5, None),
        ("completions", {"prompt": ["a", "b", "c"]}, 3, None),
        ("completions", {"prompt": ["a", "b", "c"], "n": 2}, 6, None),
        ("completions", {"prompt": ["a", "b"], "n": 2, "best_of": 4}, 8, None),
        ("completions", {"prompt": [1, 2, 3], "n": 2}, 2, None),
        ("completions", {"prompt": [[1, 2], [3]], "n": 2}, 4, None),
        ("completions", {"prompt": []}, 1, None),
        ("completions", {"prompt": None}, 1, None),
        ("embeddings", {"input": "a"}, 1, None),
        ("embeddings", {"input": ["a", "b", "c"]}, 3, None),
        ("embeddings", {"input": [1, 2, 3]}, 1, None),
        ("embeddings", {"input": [[1], [2]]}, 2, None),
        ("gemini", {"contents": []}, 1, None),
        ("gemini", {"generationConfig": {"candidateCount": 4}}, 4, None),
        ("gemini", {"generation_config": {"candidate_count": 4, "max_output_tokens": 9}}, 4, 9),
        ("gemini", {"generationConfig": {"maxOutputTokens": 9}, "generation_config": {"maxOutputTokens": 12}}, 1, 12),
        ("gemini", {"generationConfig": {"candidateCount": "4", "maxOutputTokens": 9.0}}, 4, 9),
        ("gemini", {"generationConfig": [1]}, 1, None),
        ("completions", {"prompt": "a", "n": 10**15}, asked.ANSWERS_MAX, None),
    ],
)
def test_answers_are_counted_in_every_dialects_words(surface, body, answers, cap):
    scan = SCANNER.scan(json.dumps(body).encode())
    found = asked.asked(surface, scan, scan.integer(b"n") or 1)
    assert (found.answers, found.cap) == (answers, cap)


def test_a_best_of_that_is_no_number_is_refused():
    with pytest.raises(ScanError):
        asked.asked("completions", SCANNER.scan(b'{"prompt": "a", "best_of": "five"}'), 1)


# --- what is held ---------------------------------------------------------------------------------------------------


def held(gateway: Any, upstream: Any, say: Any, path: str, **body: Any) -> int:
    """Microdollars: an answer nobody can read is settled by all that was held."""
    kind = "google" if "models/" in path else "openai"
    model = gateway.route(kind, retries=0).first
    upstream.script(model, say.whole(b"\x00", content_type="text/plain"))
    reply = gateway.ask(
        model, path=path.format(model=model), body={"model": model, **body} if kind == "openai" else body
    )
    assert reply.status == 502, reply.body
    return round(float(reply.headers["x-router-cost-usd"]) * 1_000_000)


CAP = 1000
HELD = 2 * CAP  # an output token costs two microdollars


@pytest.mark.parametrize(
    ("more", "answers"),
    [({}, 1), ({"n": 3}, 3), ({"best_of": 4}, 4), ({"prompt": ["hello"] * 5}, 5), ({"prompt": ["hi"] * 5, "n": 2}, 10)],
)
def test_completions_hold_the_cap_for_every_answer_of_every_prompt(gateway, upstream, say, more, answers):
    cost = held(gateway, upstream, say, "/v1/completions", **{"prompt": "hello", "max_tokens": CAP, **more})
    assert answers * HELD < cost < answers * HELD + 500


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    ("more", "answers"),
    [({"n_predict": CAP}, 1), ({"n_predict": CAP, "max_tokens": 1}, 1), ({"max_tokens": CAP, "n": 1, "n_cmpl": 3}, 3)],
)
def test_llama_cpps_own_words_are_held_for_as_it_obeys_them(gateway, upstream, say, path, more, answers):
    said = {"prompt": "hello"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "hello"}]}
    cost = held(gateway, upstream, say, path, **said, **more)
    assert answers * HELD < cost < answers * HELD + 500


@pytest.mark.parametrize(
    "more", [{"n_predict": -1}, {"n_predict": -1, "max_tokens": 5}, {"n_predict": 5, "max_tokens": -1}]
)
def test_a_cap_that_may_mean_no_end_is_refused(gateway, say, more):
    model = gateway.route("openai", retries=0).first
    reply = gateway.ask(model, body={"model": model, "messages": [{"role": "user", "content": "hello"}], **more})
    assert reply.status == 400
    assert b"a token cap is at least 1" in reply.body


@pytest.mark.parametrize("answers", [1, 4])
def test_gemini_holds_its_cap_for_every_candidate(gateway, upstream, say, answers):
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    body["generationConfig"] = {"candidateCount": answers, "maxOutputTokens": CAP}
    cost = held(gateway, upstream, say, "/v1beta/models/{model}:generateContent", **body)
    assert answers * HELD < cost < answers * HELD + 500


def test_embeddings_hold_for_every_text(gateway, upstream, say):
    one = held(gateway, upstream, say, "/v1/embeddings", input="hello")
    assert held(gateway, upstream, say, "/v1/embeddings", input=["hello"] * 10) >= 9 * one


# --- what is believed -----------------------------------------------------------------------------------------------


def told(prompt: int, output: int, reasoning: int = 0) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    return {**usage, "completion_tokens_details": {"reasoning_tokens": reasoning}} if reasoning else usage


def basis_of(gateway: Any, act: Any) -> tuple[set[str], float, float]:
    """(bases settled by, counts refused as implausible, breaches) while something was done."""
    before = gateway.metrics()
    act()
    after = gateway.metrics()

    def grown(key: Any) -> float:
        return after[key] - before.get(key, 0)

    bases = {dict(key[1])["basis"] for key in after if key[0] == "fastroute_settle_total" and grown(key)}
    none: frozenset[tuple[str, str]] = frozenset()
    return bases, grown(("fastroute_usage_implausible_total", none)), grown(("fastroute_ledger_breach_total", none))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("usage", "asked_for", "basis", "breaches"),
    [
        (told(5, 10), {"max_tokens": 10}, "exact", 0),
        (told(5, 11), {"max_tokens": 10}, "exact", 0),  # whoever ignores a cap bills all the same
        (told(5, 20), {"max_tokens": 10, "n": 2}, "exact", 0),
        (told(5, 21), {"max_tokens": 10, "n": 2}, "exact", 0),
        (told(5, 4096), {}, "exact", 0),
        (told(5, 4097), {}, "bounded", 0),
        (told(1_000, 5), {"max_tokens": 10}, "exact", 1),  # read somewhere else: it is billed
        (told(999_999_999, 5), {"max_tokens": 10}, "bounded", 0),
        (told(5, 1_005, 1_000), {"max_tokens": 10}, "exact", 1),  # thoughts that are billed beside the cap
        (told(5, 5_005, 5_000), {"max_tokens": 10}, "bounded", 0),  # more than the model can say at all
        (told(50_000, 5), {"max_tokens": 10, "tools": [{"type": "web_search"}]}, "exact", 1),
        (told(50_000, 5), {"max_tokens": 10, "web_search_options": {}, "n": 1}, "exact", 1),
        (told(50_000, 5), {"max_tokens": 10, "web_search_options": {"search_context_size": "low"}}, "exact", 1),
    ],
)
def test_a_count_is_believed_as_far_as_the_request_can_have_used_it(
    gateway, upstream, say, usage, asked_for, basis, breaches, stream
):
    """Beyond the cap, the model or the prompt it cannot be; above the reservation for a reason it is paid and counted."""
    model = gateway.route(retries=0).first
    if stream:
        upstream.script(model, say.streamed(*say.openai_events("hel", "lo", usage=usage)))
    else:
        upstream.script(model, say.whole(json.dumps(say.answer("openai", "hello", usage)).encode()))

    def act() -> None:
        reply = gateway.ask(model, stream=stream, **asked_for)
        assert reply.status == 200
        assert not reply.failed if stream else reply.text == "hello"

    assert basis_of(gateway, act) == ({basis}, float(basis == "bounded"), breaches)


def test_a_conversation_kept_by_the_provider_is_read_beside_the_request(gateway, upstream, say):
    model = gateway.route(retries=0).first
    usage = {"input_tokens": 50_000, "output_tokens": 5, "total_tokens": 50_005}
    item = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": []}
    answer = {"id": "resp_1", "object": "response", "status": "completed", "output": [item], "usage": usage}
    upstream.script(model, say.whole(json.dumps(answer).encode()))
    body = {"model": model, "input": "and?", "previous_response_id": "resp_0", "max_output_tokens": 16}
    assert basis_of(gateway, lambda: gateway.ask(model, path="/v1/responses", body=body)) == ({"exact"}, 0, 1)


def test_a_picture_costs_what_its_provider_says(gateway, upstream, say):
    model = gateway.route(retries=0).first
    upstream.script(model, say.whole(json.dumps(say.answer("openai", "hello", told(1_500, 5))).encode()))
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    body = {"model": model, "max_tokens": 10, "messages": [{"role": "user", "content": [picture]}]}
    assert basis_of(gateway, lambda: gateway.ask(model, body=body)) == ({"exact"}, 0, 0)


def test_what_was_told_is_kept_in_the_log(gateway, upstream, say):
    """The raw figures are what an operator needs to complain with."""
    model = gateway.route(retries=0).first
    upstream.script(model, say.whole(json.dumps(say.answer("openai", "hello", told(5, 31_337))).encode()))
    reply = gateway.ask(model, max_tokens=10)
    name, patience = reply.headers["x-request-id"], time.monotonic() + 5
    lines: list[str] = []
    while not lines and time.monotonic() < patience:  # lines are written by a thread of their own
        time.sleep(0.01)
        lines = [line for line in gateway.log.read_text().splitlines() if name in line and "31337" in line]
    assert "settled without it" in lines[0]


@pytest.mark.parametrize("value", [-1, 0, True, 1.5, "many", "8.0", [], 10**30])
def test_a_count_of_gemini_that_may_mean_anything_is_refused(value: Any):
    scan = SCANNER.scan(json.dumps({"generationConfig": {"candidateCount": value}}).encode())
    with pytest.raises(ScanError):
        asked.asked("gemini", scan, 1)
