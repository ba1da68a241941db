"""A gateway that tells answers again: who is told one, who waits for whom, and what a shared store cannot do to it."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from msgspec.structs import replace

from fastroute import caching
from fastroute.cache import ENTRIES_MAX

POLICY = """
policy: desk
objectives: {p95_latency_ms: 1500, max_cost_usd: 0.010, max_tokens: 1024}
routing: {primary: [small], backups: [large]}
strategy: {stream: true, retry_on: ["5xx"], fallback_on_latency_ms: 1500}
tenancy: {per_user_daily_tokens: 20000, per_user_rpm: 30, timezone: UTC}
"""


def run(case):
    async def bounded():
        async with asyncio.timeout(30):
            await case()

    asyncio.run(bounded())


async def until(true):
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what it looks at belongs to others
            await asyncio.sleep(0.005)


# --- told again -----------------------------------------------------------------------------------------------------


def test_i_a3_the_same_body_twice_asks_once_until_its_time_is_over(inside, up, ask_body):
    """Acceptance I-A3: one hit, an equal answer, one more in the counter; after the TTL the backend is hit again."""

    async def case():
        async with inside() as it:
            first = await it.ask()
            again = await it.ask()
            assert (first.status, again.status) == (200, 200)
            assert again.body == first.body
            assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
            assert len(up.asked()) == 1
            assert it.counted("router_cache_hits_total") == 1
            assert it.counted("router_requests_total") == 2
            it.clock.advance(59_000)
            assert (await it.ask()).headers["age"] == "59"
            it.clock.advance(1_000)
            assert (await it.ask()).headers["x-cache"] == "miss"
            assert len(up.asked()) == 2

    run(case)


def test_i_a3_another_callers_key_misses(inside, up, ask_body):
    async def case():
        async with inside() as it:
            for key in ("one", "another", ""):
                assert (await it.ask(authorization=f"Bearer {key}")).headers["x-cache"] == "miss"
            assert (await it.ask(x_api_key="one")).headers["x-cache"] == "hit"
            assert len(up.asked()) == 3

    run(case)


def test_i_a15_ten_thousand_different_requests_stay_within_the_caps(inside, up, ask_body):
    """Acceptance I-A15, the cache's half: both of its bounds hold whatever is asked."""

    async def case():
        async with inside(max_bytes=4 << 20) as it:
            memory = it.cache.memory
            for number in range(10_000):
                body = ask_body(model="dummy", messages=[{"role": "user", "content": f"{number}"}])
                reply = await it.ask(body)
                assert reply.headers["x-cache"] == "miss"
                assert memory.bytes <= 4 << 20
                assert len(memory) <= ENTRIES_MAX
            assert 1000 < len(memory) < 10_000
            assert not it.cache._flights
            assert len(it.cache._meanings) == 1
            assert (await it.ask(body)).headers["x-cache"] == "hit"

    run(case)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/messages", {"max_tokens": 9}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/embeddings", {"input": "hi", "temperature": None}),
        ("/v1beta/models/small:generateContent", {"generationConfig": {"temperature": 0}, "contents": "hi"}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_every_surface_is_told_again(inside, up, say, ask_body, path, fields, stream):
    async def case():
        way = path
        body = ask_body(**fields)
        if "contents" in fields:
            way = path.replace(":generate", ":streamGenerate") if stream else path
            body = {**fields, "contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
        elif stream:
            body["stream"] = True
        if "embeddings" in path:
            if stream:
                return
            body.pop("temperature")
        if path in ("/v1/responses", "/v1/completions", "/v1/embeddings"):
            body.pop("messages")
        if "completions" in path and "prompt" in body:
            event = {"id": "c", "choices": [{"index": 0, "text": "well", "finish_reason": "stop"}]}
            up.say("small", say.streamed([say.event(event), say.event("[DONE]")]) if stream else say.whole(event))
        if "embeddings" in path:
            up.say(
                "small", say.whole({"object": "list", "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 1}})
            )
        async with inside() as it:
            first = await it.ask(body, way)
            assert first.status == 200, first.body
            again = await it.ask(body, way)
            assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit"), first.body
            assert again.complete
            assert events(again.body) == events(first.body)
            assert again.headers["content-type"] == first.headers["content-type"]
            assert len(up.asked()) == 1

    run(case)


def events(body):
    return [line for line in body.split(b"\n") if line and not line.startswith(b":")]


def test_a_stream_and_a_whole_answer_are_kept_apart(inside, up, ask_body):
    async def case():
        async with inside() as it:
            assert (await it.ask(ask_body(stream=True))).headers["x-cache"] == "miss"
            assert (await it.ask(ask_body())).headers["x-cache"] == "miss"
            stream = await it.ask(ask_body(stream=True))
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert b": x-router-cost-usd: 0.0000000\n" in stream.body
            assert stream.body.count(b"x-router-cost-usd") == 1
            assert stream.body.endswith(b"data: [DONE]\n\n")

    run(case)


def test_what_is_written_otherwise_and_means_the_same_is_the_same(inside, up, ask_body):
    async def case():
        async with inside() as it:
            await it.ask(ask_body(user="one"))
            turned = json.dumps(dict(reversed(ask_body(user="two").items())), indent=3).replace("hello", "h\\u0065llo")
            assert (await it.ask(turned.encode())).headers["x-cache"] == "hit"
            for fields in ({"seed": 1}, {"response_format": {"type": "text"}}, {"model": "large"}, {"top_p": 1}):
                assert (await it.ask(ask_body(**fields))).headers["x-cache"] == "miss", fields
            assert (await it.ask(openai_organization="org-1")).headers["x-cache"] == "miss"

    run(case)


def test_an_answer_of_responses_repeats_its_own_callers_metadata(inside, up, ask_body):
    async def case():
        async with inside() as it:
            for who in ("one", "two"):
                asked = {"model": "small", "input": "hi", "temperature": 0, "metadata": {"who": who}}
                reply = await it.ask(asked, "/v1/responses")
                assert reply.headers["x-cache"] == "miss"
                assert json.loads(reply.body)["metadata"] == {"who": who}

    run(case)


def test_an_alias_that_leads_elsewhere_is_another_request(inside, up, ask_body):
    async def case():
        async with inside() as it:
            await it.ask(ask_body(model="either"))
            assert (await it.ask(ask_body(model="either"))).headers["x-cache"] == "hit"
            gateway = it.app.gateway
            gateway.directory.aliases["either"] = ("large", "small")
            gateway.directory._routes["either"] = gateway.directory._alias("either")
            moved = await it.ask(ask_body(model="either"))
            assert (moved.headers["x-cache"], moved.headers["x-router-model"]) == ("miss", "large")

    run(case)


# --- wishes ---------------------------------------------------------------------------------------------------------


def test_only_what_is_answered_the_same_each_time_is_considered_unless_asked(inside, up, ask_body):
    async def case():
        async with inside() as it:
            warm = ask_body(temperature=0.7)
            for _ in range(2):
                assert "x-cache" not in (await it.ask(warm)).headers
            assert (await it.ask(warm, x_cache="use")).headers["x-cache"] == "miss"
            assert (await it.ask(warm, x_cache="use")).headers["x-cache"] == "hit"
            assert (await it.ask(warm, cache_control="max-age=9")).headers["x-cache"] == "hit"
            assert "x-cache" not in (await it.ask(warm)).headers
            it.clock.advance(10_000)
            assert (await it.ask(warm, cache_control="max-age=9")).headers["x-cache"] == "miss"
            assert len(up.asked()) == 5

    run(case)


def test_no_cache_reads_nothing_and_keeps_and_no_store_does_neither(inside, up, say, ask_body):
    async def case():
        async with inside() as it:
            up.say("small", *[say.whole(say.chat(text)) for text in ("first", "second", "third")])
            await it.ask()
            assert (await it.ask(cache_control="no-cache")).headers["x-cache"] == "miss"
            assert b"second" in (await it.ask()).body
            reply = await it.ask(cache_control="no-store")
            assert b"third" in reply.body
            assert "x-cache" not in reply.headers
            assert b"second" in (await it.ask()).body

    run(case)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"store": True}),
        ("/v1/chat/completions", {"web_search_options": {"search_context_size": "low"}}),
        ("/v1/responses", {"input": "hi", "previous_response_id": "resp_1"}),
        ("/v1/responses", {"input": "hi", "tools": [{"type": "web_search"}]}),
        ("/v1/messages", {"max_tokens": 9, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        ("/v1/messages", {"max_tokens": 9, "container": "c1"}),
    ],
)
def test_what_depends_on_more_than_the_request_is_never_considered(inside, up, ask_body, path, fields):
    async def case():
        async with inside() as it:
            body = ask_body(**fields)
            if "responses" in path:
                body.pop("messages")
            reply = await it.ask(body, path, x_cache="use")
            assert "x-cache" not in reply.headers
            assert len(it.cache.memory) == 0

    run(case)


# --- what is not kept -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "act"),
    [
        (False, lambda say: say.whole(say.error("server_error"), 500)),
        (False, lambda say: say.whole(say.error("invalid_request_error"), 400)),
        (False, lambda say: say.whole(say.error("server_error"))),
        (False, lambda say: say.whole(say.chat(None, refusal="I will not"))),
        (False, lambda say: say.whole(say.chat("half", finish="content_filter"))),
        (False, lambda say: say.whole(say.chat("x" * (1 << 20)))),
        (True, lambda say: say.streamed(say.chat_events("a", "b", done=False), end="cut")),
        (True, lambda say: say.streamed(say.chat_events("a", "b", finish=None, done=False))),
        (True, lambda say: say.streamed([*say.chat_events("a", done=False), say.event({"error": {"message": "no"}})])),
        (True, lambda say: say.streamed(say.chat_events("a", finish="content_filter"))),
    ],
)
def test_errors_cuts_refusals_and_long_answers_are_not_kept(inside, up, say, ask_body, stream, act):
    async def case():
        async with inside() as it:
            up.say("small", act(say), say.streamed(say.chat_events("well")) if stream else say.whole(say.chat("well")))
            assert (await it.ask(ask_body(stream=stream))).headers["x-cache"] == "miss"
            assert len(it.cache.memory) == 0
            again = await it.ask(ask_body(stream=stream))
            assert (again.status, again.headers["x-cache"]) == (200, "miss")
            assert (await it.ask(ask_body(stream=stream))).headers["x-cache"] == "hit"

    run(case)


def test_a_name_nobody_has_and_none_at_all_read_as_ever(inside, up, ask_body):
    async def case():
        async with inside() as it:
            unknown = await it.ask(ask_body(model="smal"))
            assert (unknown.status, json.loads(unknown.body)["error"]["code"]) == (404, "model_not_found")
            missing = await it.ask({"messages": [], "temperature": 0})
            assert (missing.status, json.loads(missing.body)["error"]["code"]) == (400, "model_required")
            assert not it.cache._flights

    run(case)


# --- one run for many -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_those_who_ask_the_same_at_once_wait_for_the_first(inside, up, say, ask_body, stream):
    async def case():
        async with inside() as it:
            act = say.streamed(say.chat_events("a"), first_s=0.3) if stream else say.whole(say.chat("a"), after_s=0.3)
            up.say("small", act)
            replies = await asyncio.gather(*(it.ask(ask_body(stream=stream)) for _ in range(20)))
            assert [reply.headers["x-cache"] for reply in replies].count("hit") == 19
            assert len({tuple(events(reply.body)) for reply in replies}) == 1
            assert len(up.asked()) == 1
            assert it.counted("router_cache_hits_total") == 19
            assert not it.cache._flights

    run(case)


def test_when_the_first_fails_each_goes_on_its_own(inside, up, say, ask_body):
    async def case():
        async with inside() as it:
            up.say("small", say.whole(say.error("server_error"), 500, after_s=0.3), say.whole(say.chat("well")))
            replies = await asyncio.gather(*(it.ask() for _ in range(5)))
            assert sorted(reply.status for reply in replies) == [200, 200, 200, 200, 502]
            assert len(up.asked()) == 5

    run(case)


def test_a_first_whose_caller_leaves_does_not_fail_the_others(inside, up, say, ask_body):
    """One of those who waited takes its place, and the rest wait for that one."""

    async def case():
        async with inside() as it:
            up.say("small", say.silent, say.whole(say.chat("well"), after_s=0.2))
            gone = asyncio.Event()
            first = asyncio.create_task(it.ask(leaves=gone))
            await until(lambda: len(up.asked()) == 1)
            others = [asyncio.create_task(it.ask()) for _ in range(5)]
            await until(lambda: it.app.data.metrics is not None and len(it.app.data.open) == 6)
            gone.set()
            replies = await asyncio.gather(*others)
            assert [reply.status for reply in replies] == [200] * 5
            assert (await first).status == 0
            assert len(up.asked()) == 2
            assert [reply.headers["x-cache"] for reply in replies].count("hit") == 4

    run(case)


def test_one_who_waits_may_leave_and_the_first_goes_on(inside, up, say, ask_body):
    async def case():
        async with inside() as it:
            up.say("small", say.whole(say.chat("well"), after_s=0.4))
            gone = asyncio.Event()
            first = asyncio.create_task(it.ask())
            await until(lambda: len(up.asked()) == 1)
            waiting = asyncio.create_task(it.ask(leaves=gone))
            await until(lambda: len(it.app.data.open) == 2)
            gone.set()
            assert (await waiting).status == 0
            assert not first.done()
            assert (await first).status == 200

    run(case)


def test_one_who_waited_as_long_as_for_a_provider_goes_on_its_own(inside, up, say, ask_body, monkeypatch):
    async def case():
        async with inside() as it:
            up.say("small", say.whole(say.chat("slow"), after_s=1.5), say.whole(say.chat("quick")))
            first = asyncio.create_task(it.ask())
            await until(lambda: len(up.asked()) == 1)
            config = it.cache._config
            it.cache._config = caching_config(config, whole_ms=100)
            reply = await it.ask()
            assert b"quick" in reply.body
            assert (await first).status == 200

    run(case)


def caching_config(config, **relay):
    from msgspec.structs import replace

    return replace(config, relay=replace(config.relay, **relay))


# --- what a hit tells ----------------------------------------------------------------------------------------------


def test_a_hit_of_auto_and_of_a_policy_tells_what_it_was(inside, up, ask_body, tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "desk.yaml").write_text(POLICY)

    async def case():
        async with inside(top=f"auto: {{small: small, medium: large}}\npolicies_dir: {tmp_path / 'policies'}\n") as it:
            first = await it.ask(ask_body(model="auto"))
            again = await it.ask(ask_body(model="auto"))
            assert again.headers["x-cache"] == "hit"
            for name in ("x-router-model", "x-router-model-logical"):
                assert again.headers[name] == first.headers[name]
            first = await it.ask(ask_body(model="desk"))
            again = await it.ask(ask_body(model="desk"))
            assert (first.status, again.headers["x-cache"]) == (200, "hit")
            assert again.headers["x-router-reason"] == "cache_hit"
            assert again.headers["x-router-model-logical"] == "desk"

    run(case)


# --- a store that is shared -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["endpoint", "redis_url"])
def test_workers_share_what_one_of_them_was_told(inside, up, ask_body, cache_service, kind, request):
    async def case():
        server = cache_service()
        await server.open()
        url = server.url if kind == "endpoint" else request.getfixturevalue("redis_url")
        async with (
            inside(**{kind: url}) as one,
            inside(**{kind: url}) as two,
            inside(place="host2", **{kind: url}) as far,
        ):
            body = ask_body(messages=[{"role": "user", "content": f"shared over {kind}"}])
            first = await one.ask(body)
            await until(lambda: not one.cache._putting)
            again = await two.ask(body)
            assert (again.headers["x-cache"], again.body) == ("hit", first.body)
            assert len(up.asked()) == 1
            # From there on it has its own, and goes nowhere for it.
            before = len(server.asked)
            assert (await two.ask(body)).headers["x-cache"] == "hit"
            assert len(server.asked) == before
            # A house with other secrets neither reads nor spoils it.
            assert (await far.ask(body)).headers["x-cache"] == "miss"
            stream = await one.ask({**body, "stream": True})
            await until(lambda: not one.cache._putting)
            assert events((await two.ask({**body, "stream": True})).body) == events(stream.body)
        await server.close()

    run(case)


def test_a_poisoned_store_puts_no_words_into_anybodys_mouth(inside, up, ask_body, cache_service, caplog):
    async def case():
        server = cache_service()
        await server.open()
        async with inside(endpoint=server.url) as one:
            await one.ask()
            await one.ask(ask_body(seed=1))
            await until(lambda: not one.cache._putting)
        (name, (good, _)), (other, (wrong, _)) = server.kept.items()
        document = json.loads(good)
        middle = len(document["entry"]) // 2
        flipped = "A" if document["entry"][middle] != "A" else "B"
        spoiled = json.dumps({"entry": document["entry"][:middle] + flipped + document["entry"][middle + 1 :]})
        # Changed, moved from another request, or made up: none of it is told.
        for value in (spoiled.encode(), wrong, b'{"entry": "aGVsbG8="}', b'{"entry": 7}', b"[]", b""):
            async with inside(endpoint=server.url) as two:
                server.kept[name] = (value, 1e9)
                asked = len(up.asked())
                reply = await two.ask()
                assert (reply.status, reply.headers["x-cache"]) == (200, "miss")
                assert len(up.asked()) == asked + 1
                await until(lambda two=two: not two.cache._putting)
        assert other != name
        # Nor what is genuine and too old, kept beyond its time.
        async with inside(endpoint=server.url) as three:
            server.kept[name] = (good, 1e9)
            three.clock.advance(60_000)
            assert (await three.ask()).headers["x-cache"] == "miss"
        await server.close()

    with caplog.at_level(logging.WARNING, "fastroute.cache"):
        run(case)
    told = [record.getMessage() for record in caplog.records]
    assert told
    assert all(line.endswith("gave something that was never put there; it is not told") for line in told)


@pytest.mark.parametrize("mood", ["gone", "silent", "sick"])
def test_a_service_that_is_down_is_said_once_and_requests_go_on(
    inside, up, ask_body, cache_service, caplog, monkeypatch, mood
):
    monkeypatch.setattr(caching, "ASK_MS", 200)

    async def case():
        server = cache_service()
        await server.open()
        server.mood = mood
        if mood == "gone":
            await server.close()
        async with inside(endpoint=server.url) as it:
            assert (await it.ask()).headers["x-cache"] == "miss"
            assert (await it.ask()).headers["x-cache"] == "hit"  # its own memory
            for seed in range(5):
                assert (await it.ask(ask_body(seed=seed))).status == 200
            assert len(up.asked()) == 6
            assert len(server.asked) <= 1
            if mood != "gone":
                server.mood = "well"
                it.clock.advance(10_000)
                await it.ask(ask_body(seed=9))
                await until(lambda: len(server.kept) == 1)
        if mood != "gone":
            await server.close()

    with caplog.at_level(logging.WARNING, "fastroute.cache"):
        run(case)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (1 if mood == "gone" else 2), told
    assert "is away" in told[0]


# --- another configuration ------------------------------------------------------------------------------------------


def test_a_configuration_that_is_read_again_keeps_the_answers(inside, up, ask_body):
    async def case():
        async with inside() as it:
            await it.ask()
            gateway = it.app.gateway
            gateway.cache = caching.caching(gateway.config, gateway.pool, it.clock, gateway.cache)
            assert (await it.ask()).headers["x-cache"] == "hit"
            it.app.take(gateway.config, gateway.directory)
            assert it.app.gateway.cache.memory is it.cache.memory

    run(case)


def test_a_store_that_is_asked_no_more_is_let_go_of(inside, redis_url):
    """Whoever was answered by the configuration of before may end after it: it goes on without."""
    from redis.asyncio import Redis

    async def case():
        async with inside(redis_url=redis_url) as it, Redis.from_url(redis_url) as other:

            async def connected():
                return len(await other.client_list()) - 1

            assert (await it.ask()).headers["x-cache"] == "miss"
            gateway, config = it.app.gateway, it.app.gateway.config
            it.app.take(replace(config, cache=replace(config.cache, ttl_s=90)), gateway.directory)
            assert it.app.gateway.cache.shared is it.cache.shared
            assert await connected() == 1
            it.app.take(replace(config, cache=replace(config.cache, ttl_s=0)), gateway.directory)
            async with asyncio.timeout(5):
                while await connected():  # noqa: ASYNC110 - what it looks at is another process
                    await asyncio.sleep(0.01)
            await it.cache.shared.put("00", b"late", 9)
            assert (await it.cache.shared.get("00"), await connected()) == (None, 0)

    run(case)
