"""Streams that break after their first content: told as broken, never switched, never ended as if all were well.

P10, P15 to P17 of the promises: one provider speaks in one answer, well-formed events pass byte for byte, every attempt
ends with a basis, and a cut stream has an error event in the place of its last word.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

TORTURE = os.environ.get("FASTROUTE_TORTURE") == "1"
CANARY = "upstream-canary-text"
DIALECTS = ["openai", "anthropic", "google"]
# The doors a caller may come through, and which dialect passes there untranslated.
SURFACES = ["chat", "messages", "gemini", "responses"]


class Heard(NamedTuple):
    """What a caller of any surface understood of a stream."""

    text: str
    ended: bool
    failed: bool


def ask(gateway: Any, surface: str, model: str, **fields: Any) -> Any:
    if surface == "chat":
        return gateway.ask(model, stream=True, **fields)
    if surface == "messages":
        body = {"model": model, "max_tokens": 1000, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        return gateway.ask(model, path="/v1/messages", body=body | fields)
    if surface == "responses":
        return gateway.ask(model, path="/v1/responses", body={"model": model, "stream": True, "input": "hi"} | fields)
    path = f"/v1beta/models/{model}:streamGenerateContent?alt=sse"
    return gateway.ask(model, path=path, body={"contents": [{"role": "user", "parts": [{"text": "hi"}]}]} | fields)


def heard(surface: str, reply: Any) -> Heard:
    said = reply.said
    if surface == "chat":
        return Heard(reply.text, reply.done, reply.failed)
    kinds = [one.get("type") for one in said]
    if surface == "messages":
        text = "".join(one["delta"].get("text", "") for one in said if one.get("type") == "content_block_delta")
        return Heard(text, "message_stop" in kinds, "error" in kinds)
    if surface == "responses":
        text = "".join(one["delta"] for one in said if one.get("type") == "response.output_text.delta")
        return Heard(text, "response.completed" in kinds, bool({"error", "response.failed"} & set(kinds)))
    text, ended = "", False
    for one in said:
        for candidate in one.get("candidates") or ():
            text += "".join(part.get("text", "") for part in candidate.get("content", {}).get("parts", ()))
            ended = ended or candidate.get("finishReason") is not None
    return Heard(text, ended, any("error" in one for one in said))


def responses_events(say: Any, *texts: str) -> list[bytes]:
    """A stream of the Responses dialect, as OpenAI says it."""
    base = {"id": "resp_up", "object": "response", "created_at": 1, "model": "up", "output": []}
    said = [
        {"type": "response.created", "response": {**base, "status": "in_progress"}},
        *({"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0, "delta": text}
          for text in texts),
        {"type": "response.completed", "response": {**base, "status": "completed",
         "usage": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}}},
    ]  # fmt: skip
    return [say.event({**one, "sequence_number": number}, one["type"]) for number, one in enumerate(said)]


def spoken(say: Any, surface: str, dialect: str, *texts: str) -> list[bytes]:
    """What the upstream of a route sends for a request that came through that door."""
    if surface == "responses" and dialect == "openai":
        return responses_events(say, *texts)
    return list(say.events(dialect, *texts))


def counted(gateway: Any) -> Any:
    metrics = gateway.metrics()

    def of(name: str, **labels: str) -> float:
        return metrics.get((f"fastroute_{name}", frozenset(labels.items())), 0.0)

    return of


# --- faults after the first content ---------------------------------------------------------------------------------

AFTER_CONTENT = {
    "fin": (lambda say, up: [up.fin], "cut"),
    "reset": (lambda say, up: [up.pause(0.02), up.reset], "cut"),
    "stall": (lambda say, up: [up.hold], "stall"),
    "short-chunk": (lambda say, up: [b"ff\r\ndata: {", up.fin], "cut"),
    "half-an-event": (lambda say, up: [say.chunk(b'data: {"choi'), up.fin], "cut"),
    "clean-end-without-a-last-word": (lambda say, up: [say.LAST], "cut"),
    "broken-framing": (lambda say, up: [b"zz\r\n\r\n"], "protocol"),
    "huge-line": (lambda say, up: [say.chunk(b"data: " + b"x" * 3_000_000), up.hold], "protocol"),
}


@pytest.mark.parametrize("fault", AFTER_CONTENT)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_that_breaks_in_the_middle_ends_with_an_error(gateway, upstream, say, fault, dialect):
    """The first content commits the route: another target is not asked, and what was said is paid for as bounded."""
    steps, outcome = AFTER_CONTENT[fault]
    route = gateway.route(dialect)
    begun = say.head() + b"".join(
        map(say.chunk, say.events(dialect, "begun ", "well", "never")[: -4 if dialect != "google" else -1])
    )
    upstream.script(route.first, [begun, *steps(say, upstream)])
    before = counted(gateway)

    reply = gateway.ask(route.name, stream=True)

    after = counted(gateway)
    assert reply.status == 200
    assert reply.complete
    assert reply.headers["x-router-model"] == route.first
    assert reply.text.startswith("begun ")
    assert "hello from" not in reply.text
    assert not reply.done
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert [("error" in one) for one in reply.said].count(True) == 1
    assert "error" in reply.said[-1]
    assert upstream.asked(route.second) == []
    assert after("attempts_total", lane=route.first, outcome=outcome) == (
        before("attempts_total", lane=route.first, outcome=outcome) + 1
    )
    assert after("settle_total", basis="bounded") == before("settle_total", basis="bounded") + 1
    assert (
        after("stream_abort_total", side="up", phase="mid") == before("stream_abort_total", side="up", phase="mid") + 1
    )


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_door_is_told_of_a_break_in_its_own_words(gateway, upstream, say, surface, dialect):
    """One error event, no last word, no half event, in every pair of caller's and provider's dialect."""
    route = gateway.route(dialect, retries=0)
    parts = spoken(say, surface, dialect, "begun ", "well")
    kept = next(at for at in range(len(parts)) if b"begun" in parts[at]) + 1
    broken = say.head() + b"".join(map(say.chunk, parts[:kept])) + say.chunk(parts[kept][:9])
    upstream.script(route.first, [broken, upstream.fin])
    reply = ask(gateway, surface, route.first)
    assert (reply.status, reply.complete) == (200, True), reply.body
    assert heard(surface, reply) == Heard("begun ", ended=False, failed=True), reply.body


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_door_gets_a_good_stream_whole(gateway, upstream, say, surface, dialect):
    """The twin of the above: without a fault there is an end and no error."""
    route = gateway.route(dialect, retries=0)
    upstream.script(route.first, say.streamed(*spoken(say, surface, dialect, "begun ", "well")))
    before = counted(gateway)
    reply = ask(gateway, surface, route.first)
    assert (reply.status, reply.complete) == (200, True), reply.body
    assert heard(surface, reply) == Heard("begun well", ended=True, failed=False), reply.body
    assert counted(gateway)("settle_total", basis="exact") == before("settle_total", basis="exact") + 1


ERRORS = {
    "openai": {"error": {"message": f"sk-proj-leaked12345 {CANARY}", "type": "server_error", "code": None}},
    "anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": f"sk-ant-leaked12345 {CANARY}"}},
    "google": {"error": {"code": 503, "status": "UNAVAILABLE", "message": f"AIzaLeaked12345 {CANARY}"}},
}


@pytest.mark.parametrize("surface", ["chat", "messages", "gemini"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_error_in_a_later_event_is_told_once_and_in_our_words(gateway, upstream, say, surface, dialect):
    """What the provider says of itself stays with us, even where its events pass untranslated."""
    route = gateway.route(dialect, retries=0)
    parts = say.events(dialect, "begun ", "well")
    kept = next(at for at in range(len(parts)) if b"begun" in parts[at]) + 1
    wrong = say.event(ERRORS[dialect], "error" if dialect == "anthropic" else None)
    before_it = say.head() + b"".join(map(say.chunk, parts[:kept]))
    after_it = b"".join(map(say.chunk, [wrong, *parts[kept:]])) + say.LAST
    upstream.script(route.first, [before_it, upstream.pause(0.02), after_it])
    before = counted(gateway)
    reply = ask(gateway, surface, route.first)
    after = counted(gateway)
    assert heard(surface, reply) == Heard("begun ", ended=False, failed=True), reply.body
    assert CANARY.encode() not in reply.body
    assert b"eaked12345" not in reply.body
    assert reply.body.count(b'"error":') == 1
    assert after("upstream_error_in_200_total") == before("upstream_error_in_200_total") + 1
    assert after("settle_total", basis="bounded") == before("settle_total", basis="bounded") + 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_error_in_the_first_event_fails_over(gateway, upstream, say, dialect):
    """Bytes are not content: an error, a role or a promise before it commits nothing."""
    route = gateway.route(dialect)
    opening = say.events(dialect, "x", "y")[:1] if dialect != "google" else []
    wrong = say.event(ERRORS[dialect], "error" if dialect == "anthropic" else None)
    upstream.script(route.first, say.streamed(*opening, wrong))
    reply = gateway.ask(route.name, stream=True)
    assert reply.text == f"hello from {route.second}"
    assert reply.done


def test_content_and_error_in_one_segment_still_fail_over_and_the_content_is_paid(gateway, upstream, say):
    """Nothing of it was relayed, so the next target may answer; but the first one did say something."""
    route = gateway.route()
    parts = say.events("openai", "begun", "x")
    upstream.script(route.first, say.head() + say.chunk(b"".join([*parts[:2], say.event(ERRORS["openai"])])) + say.LAST)
    before = counted(gateway)
    reply = gateway.ask(route.name, stream=True)
    assert reply.text == f"hello from {route.second}"
    assert counted(gateway)("settle_total", basis="bounded") == before("settle_total", basis="bounded") + 1


# --- bytes ----------------------------------------------------------------------------------------------------------

TEXT = "aé€😀\u200d字 \\u00e9 \r\n\u2028"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_text_survives_a_cut_between_any_two_bytes(gateway, upstream, say, dialect):
    """Segments end anywhere, in the middle of a character too; what arrives is what was sent."""
    route = gateway.route(dialect, retries=0)
    parts = say.events(dialect, TEXT, "end")
    whole = b"".join(parts)
    at = whole.index("é".encode())
    offsets = range(1, len(whole)) if TORTURE else [*range(at - 3, at + 30), 1, len(whole) - 1]
    bodies = set()
    for offset in offsets:
        upstream.script(
            route.first,
            [say.head() + say.chunk(whole[:offset]), upstream.pause(0.002), say.chunk(whole[offset:]) + say.LAST],
        )
        reply = gateway.ask(route.first, stream=True, stream_options={"include_usage": True})
        assert reply.text == TEXT + "end"
        assert reply.done
        bodies.add(without_comments(reply.body))
    if dialect == "openai":
        assert bodies == {whole}, "events of the caller's own dialect pass byte for byte"


def without_comments(body: bytes) -> bytes:
    return b"".join(block + b"\n\n" for block in body.split(b"\n\n")[:-1] if not block.startswith(b":"))


def test_a_stream_of_single_bytes_is_the_same_stream(gateway, upstream, say):
    route = gateway.route(retries=0)
    parts = say.events("openai", TEXT, "end")
    upstream.script(
        route.first,
        [say.head(), *(say.chunk(b"".join(parts)[at : at + 1]) for at in range(len(b"".join(parts)))), say.LAST],
    )
    reply = gateway.ask(route.first, stream=True, stream_options={"include_usage": True})
    assert without_comments(reply.body) == b"".join(parts)


def test_bytes_that_are_not_utf8_are_relayed_as_they_are(gateway, upstream, say):
    """The text is the provider's and the caller's affair; only the count is ours, and it is still read."""
    route = gateway.route(retries=0)
    parts = say.events("openai", "MARK", "end")
    bad = b"".join(parts).replace(b"MARK", b"\xff\xfe\x80")
    upstream.script(route.first, say.head() + say.chunk(bad) + say.LAST)
    before = counted(gateway)
    reply = gateway.ask(route.first, stream=True)
    assert b"\xff\xfe\x80" in reply.body
    assert reply.done
    assert counted(gateway)("settle_total", basis="exact") == before("settle_total", basis="exact") + 1


def test_a_whole_answer_that_is_not_utf8_is_relayed_as_it_is(gateway, upstream, say):
    route = gateway.route(retries=0)
    upstream.script(
        route.first, say.whole(json.dumps(say.answer("openai", "MARK")).encode().replace(b"MARK", b"\xff\xfe"))
    )
    reply = gateway.ask(route.first)
    assert reply.status == 200
    assert b"\xff\xfe" in reply.body


FRAMINGS = {
    "crlf": lambda data: data.replace(b"\n", b"\r\n"),
    "lone-cr": lambda data: data.replace(b"\n", b"\r"),
    "byte-order-mark": lambda data: b"\xef\xbb\xbf" + data,
    "comments-between": lambda data: data.replace(b"\n\n", b"\n\n: ping\n\n: pong\n"),
    "unknown-fields": lambda data: data.replace(b"data: ", b"id: 7\nretry: 10\nfoo: bar\nnonsense\ndata: "),
    "no-space-after-colon": lambda data: data.replace(b"data: ", b"data:"),
    "blank-lines": lambda data: b"\n\n\n" + data.replace(b"\n\n", b"\n\n\n\n"),
    "comment-flood": lambda data: b": " + b"x" * 500_000 + b"\n\n" + b": ping\n\n" * 5_000 + data,
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_odd_but_legal_framing_is_understood(gateway, upstream, say, framing, dialect):
    """CR, LF and CRLF all end lines; fields nobody knows and comments are no fault."""
    route = gateway.route(dialect, retries=0)
    data = FRAMINGS[framing](b"".join(say.events(dialect, "hel", "lo")))
    pieces = [data[at : at + 60_000] for at in range(0, len(data), 60_000)]
    upstream.script(route.first, say.streamed(*pieces))
    before = counted(gateway)
    reply = gateway.ask(route.first, stream=True)
    body = reply.body.replace(b"\xef\xbb\xbf", b"")
    assert b"hel" in body
    assert b"lo" in body
    assert body.endswith(b"data: [DONE]\n\n")
    assert b'"error"' not in body
    assert counted(gateway)("settle_total", basis="exact") == before("settle_total", basis="exact") + 1


def test_an_event_that_is_no_json_is_relayed_and_the_stream_goes_on(gateway, upstream, say):
    """A server's own oddity between good events is not ours to mend, and its bytes may have been billed."""
    route = gateway.route(retries=0)
    parts = say.events("openai", "hel", "lo")
    upstream.script(route.first, say.streamed(*parts[:2], b"data: {broken\n\n", *parts[2:]))
    reply = gateway.ask(route.first, stream=True)
    assert b"data: {broken\n\n" in reply.body
    assert reply.done


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_line_without_end_costs_a_megabyte_and_not_more(gateway, upstream, say, dialect):
    """Before any content the next target answers; the memory of the worker stays flat."""
    route = gateway.route(dialect)
    flood = [say.head(), say.chunk(b"data: "), upstream.repeat(say.chunk(b"x" * 65_536))]
    upstream.script(route.first, flood)
    gateway.ask(route.name, stream=True)
    resident = memory(gateway)
    before = counted(gateway)
    for _ in range(3):
        route = gateway.route(dialect)
        upstream.script(route.first, flood)
        assert gateway.ask(route.name, stream=True).text == f"hello from {route.second}"
    assert counted(gateway)("limit_total", what="sse_line") == before("limit_total", what="sse_line") + 3
    assert memory(gateway) - resident < 8 << 20


def test_a_flood_of_comments_before_any_content_is_not_kept(gateway, upstream, say):
    """What precedes the first content is held back, and a megabyte of it is enough."""
    route = gateway.route()
    upstream.script(route.first, [say.head(), upstream.repeat(say.chunk(b": ping\n\n" * 8_000))])
    before = counted(gateway)
    reply = gateway.ask(route.name, stream=True)
    assert reply.text == f"hello from {route.second}"
    assert counted(gateway)("limit_total", what="stream") == before("limit_total", what="stream") + 1
    assert upstream.asked(route.first)[0].gone_at - upstream.asked(route.first)[0].at < say.FIRST_CHUNK_MS / 1000


def memory(gateway: Any) -> int:
    """Bytes the worker holds in memory."""
    task = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    worker = task.read_text().split()[0]
    pages = int(Path(f"/proc/{worker}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["silence", "fin", "reset", "more", "last-chunk"])
def test_after_its_last_word_nothing_a_provider_does_can_spoil_an_answer(gateway, upstream, say, after):
    """`[DONE]` is the end: nobody waits for a message that is never closed, and nothing behind it is relayed."""
    route = gateway.route(retries=0)
    said = say.head() + b"".join(map(say.chunk, say.events("openai", "hel", "lo")))
    steps = {
        "silence": [upstream.hold],
        "fin": [upstream.fin],
        "reset": [upstream.pause(0.02), upstream.reset],
        "more": [upstream.repeat(say.chunk(say.event({"choices": [{"index": 0, "delta": {"content": "MORE"}}]})))],
        "last-chunk": [say.LAST],
    }[after]
    upstream.script(route.first, [said, *steps])
    reply = gateway.ask(route.first, stream=True)
    assert reply.text == "hello"
    assert reply.done
    assert not reply.failed
    assert b"MORE" not in reply.body
    assert reply.took_s < 0.2, "the end is told when it was said, whatever the provider does then"
    if after == "silence":
        (asked,) = upstream.asked(route.first)
        assert asked.gone.wait(1), "a message that does not end either keeps no connection"


def test_a_message_that_ends_a_little_later_keeps_its_connection(gateway, upstream, say):
    route = gateway.route(retries=0)
    said = say.head() + b"".join(map(say.chunk, say.events("openai", "hel", "lo")))
    upstream.script(route.first, [said, upstream.pause(0.05), say.LAST])
    assert gateway.ask(route.first, stream=True).done
    time.sleep(0.2)
    assert gateway.ask(route.first, stream=True).done
    first, second = upstream.asked(route.first)
    assert first.connection == second.connection


def test_a_stream_that_ends_well_keeps_its_connection(gateway, upstream, say):
    route = gateway.route(retries=0)
    for _ in range(3):
        assert gateway.ask(route.first, stream=True).done
    assert len({asked.connection for asked in upstream.asked(route.first)}) == 1


def test_a_finish_reason_and_a_clean_end_stand_for_done(gateway, upstream, say):
    """Some servers never say `[DONE]`; a message that was closed in order after a finish reason is whole."""
    route = gateway.route(retries=0)
    upstream.script(route.first, say.streamed(*say.openai_events("hel", "lo", done=False)))
    reply = gateway.ask(route.first, stream=True)
    assert (reply.text, reply.done) == ("hello", True)


@pytest.mark.parametrize("done", [False, True])
def test_of_several_choices_one_finish_reason_does_not_end_all(gateway, upstream, say, done):
    """With `n` above 1 only `[DONE]` tells that every choice is whole."""
    route = gateway.route(retries=0)
    parts = [
        say.event({"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]})
        for index, text, finish in ((0, "one", None), (1, "two", None), (0, "", "stop"))
    ]
    rest = [say.event({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}), b"data: [DONE]\n\n"]
    upstream.script(route.first, [UNTIL_CLOSE + b"".join(parts + (rest if done else [])), upstream.fin])
    reply = gateway.ask(route.first, stream=True, n=2)
    assert (reply.done, reply.failed) == (done, not done)


def test_done_without_a_finish_reason_is_no_end(gateway, upstream, say):
    route = gateway.route(retries=0)
    upstream.script(route.first, say.streamed(*say.openai_events("hel", "lo", finish=None)))
    reply = gateway.ask(route.first, stream=True)
    assert (reply.text, reply.done, reply.failed) == ("hello", False, True)


def test_a_running_count_is_not_taken_for_the_last_one(gateway, upstream, say):
    """Servers that count along tell, at a cut, only what had been said by then: that is bounded, not exact."""
    route = gateway.route(retries=0)
    parts = [
        say.event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
                   "usage": {"prompt_tokens": 5, "completion_tokens": count, "total_tokens": 5 + count}})
        for count, text in enumerate(("a", "b"), 1)
    ]  # fmt: skip
    upstream.script(route.first, [say.head() + b"".join(map(say.chunk, parts)), upstream.fin])
    before = counted(gateway)
    assert gateway.ask(route.first, stream=True).failed
    after = counted(gateway)
    assert after("settle_total", basis="bounded") == before("settle_total", basis="bounded") + 1
    assert after("settle_total", basis="exact") == before("settle_total", basis="exact")


def test_usage_told_twice_counts_once_and_the_last_one_holds(gateway, upstream, say):
    route = gateway.route(retries=0)
    parts = say.openai_events("hel", "lo", usage=(5, 99))
    upstream.script(route.first, say.streamed(*parts[:-1], *say.openai_events(usage=(5, 7))[-2:]))
    reply = gateway.ask(route.first, stream=True)
    assert float(reply.told["x-router-cost-usd"]) == pytest.approx(19e-6)
    assert reply.told["x-router-tokens-output"] == "7"


def test_usage_the_caller_did_not_ask_for_is_not_shown(gateway, upstream, say):
    route = gateway.route(retries=0)
    reply = gateway.ask(route.first, stream=True)
    assert not any(one.get("usage") for one in reply.said)
    assert upstream.asked(route.first)[0].json["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_that_says_more_than_it_was_asked_for_is_cut(gateway, upstream, say, dialect):
    """A cap of 100 tokens is no licence for megabytes: at 16 bytes a token and 64 KiB to spare it ends with an error."""
    route = gateway.route(dialect, retries=0)
    parts = say.events(dialect, "y" * 1000, "z")
    at = next(number for number, part in enumerate(parts) if b"yyy" in part)
    flood = upstream.repeat(say.chunk(parts[at]))
    begun = say.head() + b"".join(map(say.chunk, parts[: at + 1]))
    upstream.script(route.first, [begun, upstream.pause(0.02), flood])
    before = counted(gateway)
    reply = gateway.ask(route.first, stream=True, max_tokens=100)
    after = counted(gateway)
    assert not reply.done
    assert reply.failed
    assert len(reply.text) <= 100 * 21 * 16 // 20 + 65_536
    assert after("limit_total", what="stream") == before("limit_total", what="stream") + 1
    assert upstream.asked(route.first)[0].gone.wait(1), "the provider is hung up on"


def test_a_stream_without_a_cap_ends_with_the_total_deadline(gateway, upstream, say):
    """Whatever drips for ever, and however innocently, has so long and no longer."""
    route = gateway.route(retries=0)
    parts = say.events("openai", "word ", "x")
    upstream.script(
        route.first, [say.head() + say.chunk(parts[0]), upstream.repeat(say.chunk(parts[1]), upstream.pause(0.05))]
    )
    reply = gateway.ask(route.first, stream=True)
    assert reply.failed
    assert not reply.done
    assert reply.error["code"] == "upstream_timeout"
    assert say.TOTAL_MS / 1000 - 0.1 < reply.took_s < say.TOTAL_MS / 1000 + 0.5


def test_a_stream_longer_than_the_first_chunk_deadline_is_left_alone(gateway, upstream, say):
    """P-A4: a healthy answer that takes long is not aborted; silence is measured from byte to byte."""
    route = gateway.route()
    parts = say.events("openai", *["word "] * 10)
    steps = [say.head()]
    for part in parts:
        steps += [say.chunk(part), upstream.pause(0.08)]
    upstream.script(route.first, [*steps, say.LAST])
    reply = gateway.ask(route.name, stream=True)
    assert reply.took_s > 2 * say.FIRST_CHUNK_MS / 1000
    assert (reply.text, reply.done) == ("word " * 10, True)
    assert reply.headers["x-router-fallback"] == "false"


def test_a_stall_in_the_middle_is_told_as_soon_as_the_idle_deadline_has_passed(gateway, upstream, say):
    route = gateway.route(retries=0)
    upstream.script(
        route.first, [say.head() + b"".join(map(say.chunk, say.events("openai", "a", "b")[:2])), upstream.hold]
    )
    started = time.monotonic()
    reply = gateway.ask(route.first, stream=True)
    took_ms = (time.monotonic() - started) * 1000
    assert reply.error["code"] == "upstream_timeout"
    assert say.IDLE_MS - 5 < took_ms < say.IDLE_MS + 150


# --- cuts at random -------------------------------------------------------------------------------------------------

UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
CUTS = 10_000 if TORTURE else 200
PAIRS = [
    *(("chat", dialect) for dialect in DIALECTS),
    *(("messages", dialect) for dialect in DIALECTS),
    ("gemini", "google"),
    ("gemini", "openai"),
    ("responses", "openai"),
    ("responses", "anthropic"),
]


@pytest.mark.parametrize(("surface", "dialect"), PAIRS)
def test_a_stream_cut_anywhere_is_never_taken_for_whole(gateway, upstream, say, surface, dialect):
    """P17: at any byte of a recorded answer, by FIN or RST: an error, or, if it was all there, the whole answer.

    In half of them the body has no length of its own, so that a FIN looks like its proper end.
    """
    route = gateway.route(dialect, retries=0)
    words = ("The quick ", "brown 😀 fox ", "jumps.")
    parts = spoken(say, surface, dialect, *words)
    framed, bare = (say.head(), say.streamed(*parts)), (UNTIL_CLOSE, UNTIL_CLOSE + b"".join(parts))
    random_ = random.Random(f"{surface}-{dialect}")
    silent = []
    for _ in range(CUTS // len(PAIRS)):
        head, answer = random_.choice((framed, bare))
        cut = random_.randrange(len(head), len(answer))
        end = upstream.fin if random_.random() < 0.5 else upstream.reset
        segment = random_.choice([0, 0, 1, 7, 100])
        upstream.script(route.first, [upstream.send(answer[:cut], segment), end])
        reply = ask(gateway, surface, route.first)
        assert reply.complete
        if reply.status != 200:
            assert reply.status == 502
            continue
        told = heard(surface, reply)
        assert "".join(words).startswith(told.text)
        assert told.ended != told.failed, (cut, reply.body)
        if told.ended and told.text != "".join(words):
            silent.append(cut)
    assert silent == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_two_providers_never_speak_in_one_answer(gateway, upstream, say, dialect):
    """P10: whatever the first target managed to say, the answer is its beginning and an error, or all of the second's."""
    random_ = random.Random(dialect)
    words = ("From the ", "first 😀 ", "only.")
    answer = say.streamed(*say.events(dialect, *words))
    for _ in range(CUTS // 10):
        route = gateway.route(dialect)
        cut = random_.randrange(0, len(answer))
        upstream.script(route.first, [upstream.send(answer[:cut], random_.choice([0, 1, 50])), upstream.fin])
        reply = gateway.ask(route.name, stream=True)
        assert reply.status == 200
        assert reply.complete
        if reply.headers["x-router-fallback"] == "true":
            assert (reply.text, reply.done, reply.failed) == (f"hello from {route.second}", True, False)
        else:
            assert "".join(words).startswith(reply.text)
            assert reply.text
            assert upstream.asked(route.second) == []
            assert reply.failed or (reply.done and reply.text == "".join(words))
