"""The router with a provider's key of its own: its life, its money and its one provider."""

import http.client
import json
import math
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from fastroute import LlmRouter


def test_r_a1_a_router_answers_as_soon_as_it_is_made_and_refuses_once_it_is_stopped(kit, upstream):
    """A hundred starts, each asked at once, without a sleep; afterwards the port refuses."""
    for _ in range(100):
        with kit.Quick(provider_key="sk-own", provider_base_url=upstream.url) as router:
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", router.base_url)
            assert router.is_running
            assert kit.post(router, kit.chat(text="hi")).status == 200
            port = router.port
        assert not router.is_running
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)


def test_r_a1_a_stopped_router_says_so(make):
    router = make()
    assert router.api_key == "direct"
    assert router.get_provider() == "openai"
    assert router.get_port() == router.port
    router.stop()
    router.stop()
    assert not router.is_running
    for name in ("base_url", "api_key", "port", "provider"):
        with pytest.raises(RuntimeError, match="Router is stopped"):
            getattr(router, name)
    assert router.total_spent() == 0.0


def test_only_the_routers_own_key_is_let_in(make, kit, upstream):
    router = make()
    assert kit.post(router, kit.chat(), **{"x-api-key": "direct"}).status == 200
    for wrong in ({"authorization": "Bearer sk-own"}, {"x-api-key": "other"}, {"x-other": "nothing"}):
        answer = kit.post(router, kit.chat(), **wrong)
        assert answer.status == 401
        assert answer.json["error"]["type"] == "authentication_error"
    assert len(upstream.asked) == 1
    assert upstream.asked[0][1]["authorization"] == "Bearer sk-own"


def test_the_root_says_who_answers_and_models_are_the_providers(make, upstream):
    router = make()
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=5)
    for method in ("GET", "POST", "DELETE"):
        connection.request(method, "/")
        assert connection.getresponse().read() == b"LlmRouter OK"
    connection.request("GET", "/v1/models", headers={"authorization": "Bearer direct"})
    assert json.loads(connection.getresponse().read())["data"] == [{"id": "m"}]
    assert upstream.asked[-1][0] == "/v1/models"
    connection.request("GET", "/v1/models")
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize("given", [{}, {"api_key": "ic_x"}, {"server_url": "http://localhost:1"}])
def test_a_router_needs_a_providers_key_or_a_token_and_its_panel(given):
    with pytest.raises(ValueError, match="provider_key"):
        LlmRouter(**given)


@pytest.mark.parametrize("budget", [-1, -0.01, math.nan, math.inf, "two", True, Decimal("NaN")])
def test_r_a9_a_budget_that_is_no_amount_is_refused(make, budget):
    with pytest.raises(ValueError, match="dollars"):
        make(budget=budget)
    router = make()
    with pytest.raises(ValueError, match="dollars"):
        router.set_budget(budget)
    assert router.budget is None


def test_r_a9_a_budget_is_the_digits_that_are_said(make):
    """Every cent below thirty dollars, of which a truncated float gets 38 wrong."""
    router = make(budget=2.01)
    assert router.budget_microdollars == 2_010_000
    assert router.budget == router.get_budget() == 2.01
    assert router.budget_status == (0.0, 2.01)
    for cents in range(3000):
        router.set_budget(cents / 100)
        assert router.budget_microdollars == cents * 10_000


def test_r_a9_raising_the_budget_unblocks_and_lowering_blocks(make, kit, upstream):
    upstream.play = kit.whole(prompt=1000, output=500)  # 6250 microdollars of gpt-5.1
    router = make(budget="0.006")
    body = kit.chat("gpt-5.1", text="hi", max_tokens=499)
    assert kit.post(router, body).status == 200
    assert router.spent_microdollars == 6250
    assert kit.post(router, body).code == "budget_exceeded"
    router.set_budget(0.02)
    assert kit.post(router, body).status == 200
    router.set_budget(0.003)
    assert kit.post(router, body).status == 402
    assert router.get_budget_status() == (0.0125, 0.003)


def test_r_a3_a_budget_of_zero_is_closed_and_none_is_no_limit(make, kit, upstream):
    closed = make(budget=0.0)
    answer = kit.post(closed, kit.chat())
    assert answer.status == 402
    error = answer.json["error"]
    assert (error["type"], error["code"]) == ("iron_cage_budget_exceeded", "budget_exceeded")
    assert error["message"].startswith("Iron Cage budget limit exceeded.")
    assert set(error) == {"message", "type", "param", "code"}
    assert not upstream.asked
    open_ = make()
    assert open_.budget is None
    assert kit.post(open_, kit.chat()).status == 200
    assert open_.spent_microdollars == 53


@pytest.mark.parametrize(
    ("model", "prompt", "output", "cost"),
    [("gpt-5.1", 1000, 500, 6250), ("gpt-4o-mini", 6, 1, 2), ("gpt-4o-mini", 150, 50, 53)],
)
def test_r_a4_a_call_costs_its_exact_price_rounded_up_once(make, kit, upstream, model, prompt, output, cost):
    upstream.play = kit.whole(prompt, output)
    router = make(budget=1)
    assert kit.post(router, kit.chat(model)).status == 200
    assert router.spent_microdollars == cost


def test_r_a4_a_model_without_a_price_is_refused_under_a_budget(make, kit, upstream):
    answer = kit.post(make(budget=1), kit.chat("nobody-knows-this"))
    assert (answer.status, answer.code) == (402, "unpriced")
    assert not upstream.asked
    assert kit.post(make(), kit.chat("nobody-knows-this")).status == 200


def _held(kit, upstream, router, count):
    """Answers of so many calls that are all under way before the first is answered."""
    inside = threading.Barrier(count + 1, timeout=5)
    answer = kit.whole()

    def play(handler, body):
        inside.wait()
        answer(handler, body)

    upstream.play = play
    return inside, [ThreadPoolExecutor(1).submit(kit.post, router, kit.chat()) for _ in range(count)]


def test_r_a5_a_second_call_that_no_longer_fits_reads_what_is_left_and_what_it_needs(make, kit, upstream):
    """4000 characters and 500 tokens of gpt-4o-mini hold 480: two of them do not fit 959."""
    router = make(budget="0.000959")
    inside, [first] = _held(kit, upstream, router, 1)
    kit.wait_until(lambda: len(upstream.asked) == 1)
    second = kit.post(router, kit.chat())
    inside.wait()
    assert first.result().status == 200
    error = second.json["error"]
    assert second.status == 402
    assert (error["type"], error["code"]) == ("iron_cage_insufficient_budget", "insufficient_budget")
    assert "479" in error["message"]
    assert "480" in error["message"]
    assert len(upstream.asked) == 1


def test_r_a5_two_calls_that_fit_both_pass(make, kit, upstream):
    router = make(budget="0.000960")
    inside, answers = _held(kit, upstream, router, 2)
    inside.wait()
    assert [answer.result().status for answer in answers] == [200, 200]


def test_r_a6_a_call_settles_to_what_it_used_and_a_failed_one_to_nothing(make, kit, upstream):
    router = make(budget="0.000533")
    assert kit.post(router, kit.chat()).status == 200
    assert router.spent_microdollars == 53
    upstream.play = lambda handler, body: handler.say(500, {"error": {"message": "broken"}})
    assert kit.post(router, kit.chat()).status >= 500
    assert router.spent_microdollars == 53

    upstream.play = kit.whole()
    assert kit.post(router, kit.chat()).status == 200, "exactly what is left can still be held"
    assert router.spent_microdollars == 106


def test_r_a6_a_provider_that_cannot_be_reached_costs_nothing(make, kit):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    router = make(budget=1, provider_base_url=address)
    assert kit.post(router, kit.chat()).status == 502
    assert (router.spent_microdollars, router._purse.held) == (0, 0)


def test_r_a7_ten_threads_never_pass_the_budget(make, kit, upstream):
    upstream.play = kit.whole(1000, 500)  # 450 microdollars
    router = make(budget=0.05)
    seen, statuses = [], []

    def caller():
        for _ in range(16):
            statuses.append(kit.post(router, kit.chat(max_tokens=600)).status)
            seen.append(router.spent_microdollars)

    threads = [threading.Thread(target=caller) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(seen) <= 50_000
    assert {200, 402} == set(statuses)
    assert router.spent_microdollars == statuses.count(200) * 450
    assert router._purse.held == 0


def _stream(go, usage=None, content="one two three"):
    def play(handler, body):
        handler.begin_stream()
        about = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        handler.event({**about, "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]})
        go.wait(5)
        handler.event({**about, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if usage is not None:
            handler.event({**about, "choices": [], "usage": usage})
        handler.end_stream()

    return play


def _open_stream(kit, router):
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=5)
    headers = {"content-type": "application/json", "authorization": f"Bearer {router.api_key}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(kit.chat(text="hi", stream=True)), headers)
    return connection, connection.getresponse()


def test_r_a8_a_stream_is_relayed_as_it_comes_and_charged_as_it_says(make, kit, upstream):
    go = threading.Event()
    upstream.play = _stream(go, {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200})
    router = make(budget=1)
    connection, answer = _open_stream(kit, router)
    assert b"one two three" in answer.readline()
    go.set()
    assert b"[DONE]" in answer.read()
    connection.close()
    assert router.spent_microdollars == 270


def test_r_a8_a_stream_without_usage_is_never_free(make, kit, upstream):
    go = threading.Event()
    go.set()
    upstream.play = _stream(go)
    router = make(budget=1)
    connection, answer = _open_stream(kit, router)
    answer.read()
    connection.close()
    assert 0 < router.spent_microdollars <= 315  # 100 tokens are guessed for a word, and 500 are the cap
    assert router._purse.held == 0


def test_r_a8_a_caller_who_leaves_mid_stream_still_pays(make, kit, upstream):
    go = threading.Event()
    upstream.play = _stream(go)
    router = make(budget=1)
    connection, answer = _open_stream(kit, router)
    answer.readline()
    answer.close()
    connection.close()
    kit.wait_until(lambda: router._purse.held == 0)
    assert 0 < router.spent_microdollars <= 315
    go.set()


def test_r_a10_a_key_is_shown_to_its_own_provider_alone(make, kit, upstream):
    router = make()
    asked = [
        ("/v1/chat/completions", "claude-x"),
        ("/v1/chat/completions", "anthropic:claude-x"),
        ("/v1/messages", "claude-x"),
        ("/anthropic/v1/messages", "claude-x"),
        ("/anthropic/v1/messages", "gpt-4o-mini"),
    ]
    for path, model in asked:
        answer = kit.post(router, kit.chat(model), path)
        assert answer.status == 400, path
        assert b"provider_key_mismatch" in answer.body or b"invalid_request_error" in answer.body
    assert kit.post(router, kit.chat("claude-x")).code == "provider_key_mismatch"
    anthropic = make(provider_key="sk-ant-own")
    assert anthropic.provider == "anthropic"
    for path, model in (("/v1/chat/completions", "gpt-4o"), ("/openai/v1/chat/completions", "claude-x")):
        assert kit.post(anthropic, kit.chat(model), path).code == "provider_key_mismatch"
    assert not upstream.asked


def test_a_path_that_names_the_provider_is_stripped_and_one_that_only_resembles_it_is_not(make, kit, upstream):
    router = make()
    for path in ("/openai/v1/chat/completions", "/openai/chat/completions"):
        assert kit.post(router, kit.chat("my-own-model"), path).status == 200
        assert upstream.asked[-1][0] == "/v1/chat/completions"
        assert upstream.asked[-1][2]["model"] == "my-own-model"
    assert kit.post(router, kit.chat(), "/openaixyz/v1/chat/completions").status == 404


def test_r_a11_a_chat_for_claude_is_said_in_anthropics_words_and_back(make, kit, upstream):
    def play(handler, body):
        content = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
        usage = {"input_tokens": 10, "output_tokens": 8}
        about = {"id": "m", "type": "message", "role": "assistant", "model": body["model"]}
        handler.say(200, {**about, "content": content, "stop_reason": "max_tokens", "usage": usage})

    upstream.play = play
    router = make(provider_key="sk-ant-own")
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    answer = kit.post(router, {"model": "claude-3-5-haiku-20241022", "messages": messages, "stop": "END"})
    path, headers, asked = upstream.asked[-1]
    assert path == "/v1/messages"
    assert headers["x-api-key"] == "sk-ant-own"
    assert json.dumps(asked["system"]).count("be brief") == 1
    assert len(asked["messages"]) == 1
    assert (asked["stop_sequences"], asked["max_tokens"]) == (["END"], 4096)
    [choice] = answer.json["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one two", "length")
    assert answer.json["usage"]["total_tokens"] == 18


def test_r_a11_a_tool_call_keeps_its_id_name_and_arguments(make, kit, upstream):
    def play(handler, body):
        content = [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "it"}}]
        about = {"id": "m", "type": "message", "role": "assistant", "model": body["model"]}
        usage = {"input_tokens": 1, "output_tokens": 1}
        handler.say(200, {**about, "content": content, "stop_reason": "tool_use", "usage": usage})

    upstream.play = play
    router = make(provider_key="sk-ant-own")
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    [choice] = kit.post(router, kit.chat("claude-3-5-haiku-20241022", tools=tools)).json["choices"]
    [call] = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], call["id"], call["function"]["name"]) == ("tool_calls", "toolu_1", "look")
    assert json.loads(call["function"]["arguments"]) == {"at": "it"}


def test_r_a15_stopping_waits_for_what_is_under_way(make, kit, upstream):
    router = make(budget=1)
    inside, [under_way] = _held(kit, upstream, router, 1)
    kit.wait_until(lambda: len(upstream.asked) == 1)
    stopping = ThreadPoolExecutor(1).submit(router.stop)
    kit.wait_until(lambda: not router.is_running)
    inside.wait()
    stopping.result(5)
    assert under_way.result().status == 200
    assert router.spent_microdollars == 53


def test_stop_may_be_called_by_many_at_once(make):
    router = make()
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(router.stop) for _ in range(8)]:
            done.result(5)
    assert not router.is_running


def test_an_idle_connection_does_not_hold_up_the_end(make):
    router = make()
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=5)
    connection.request("GET", "/")
    connection.getresponse().read()
    began = time.monotonic()
    router.stop()
    assert time.monotonic() - began < 2
    connection.close()


def test_a_program_that_ends_without_stopping_ends():
    code = """
        from fastroute import LlmRouter
        router = LlmRouter(provider_key="sk-x")
        print(router)
    """
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=20
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "sk-x" not in ended.stdout


def test_routers_leave_neither_threads_nor_descriptors(kit, upstream):
    def count():
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    with kit.Quick(provider_key="sk-own", provider_base_url=upstream.url):
        pass
    before = count()
    for _ in range(10):
        with kit.Quick(provider_key="sk-own", provider_base_url=upstream.url):
            pass
    kit.wait_until(lambda: all(now <= then for now, then in zip(count(), before, strict=True)))


def test_official_clients_point_at_it(make):
    openai = pytest.importorskip("openai")
    router = make(budget=1)
    with openai.OpenAI(base_url=router.base_url, api_key=router.api_key, max_retries=0) as client:
        said = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
    assert said.choices[0].message.content == "well"
    assert router.total_spent() == 0.000053
