"""OpenAI as the tests know it: chat, also as sloppy servers speak it, responses, and all the smaller paths of its API."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from tests.sdk import fake_words as fake
from tests.sdk.fake_words import Body, Reply

MODERATION: Body = {
    "flagged": False,
    "categories": {},
    "category_scores": {},
    "category_applied_input_types": {},
}


def answer(path: str, body: Body, fault: str, odd: set[str]) -> Reply:
    match path.removeprefix("v1/"):
        case "chat/completions":
            return _chat(body, fault, odd)
        case "completions":
            return _completions(body)
        case "embeddings":
            return _embeddings(body)
        case "responses":
            return _responses(body, fault)
        case "moderations":
            return fake.document({"id": "modr-1", "model": body["model"], "results": [MODERATION]})
        case "audio/speech" if fault == "torn":
            return Reply(
                200, headers={"content-type": "audio/mpeg"}, events=[fake.AUDIO, fake.AUDIO], end="cut", pause=True
            )
        case "audio/speech":
            return Reply(200, fake.AUDIO, {"content-type": "audio/mpeg"})
        case "images/generations":
            return _images(body)
        case "rerank":
            ranked = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
            return fake.document({"id": "rr-1", "results": ranked, "usage": {"prompt_tokens": 11, "total_tokens": 11}})
    return fake.failure("openai", 404)


def form(path: str, text: str) -> Reply:
    match path.removeprefix("v1/"):
        case "audio/transcriptions" if "text/plain" in text or "vtt" in text:
            return Reply(200, f"WEBVTT\n\n{fake.TRANSCRIPT}\n".encode(), {"content-type": "text/vtt"})
        case "audio/transcriptions" if 'name="stream"' in text:
            usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 6, "total_tokens": 20}
            delta = {"type": "transcript.text.delta", "delta": fake.TRANSCRIPT}
            return Reply(
                events=[
                    fake.sse(delta),
                    fake.sse({"type": "transcript.text.done", "text": fake.TRANSCRIPT, "usage": usage}),
                ]
            )
        case "audio/transcriptions" | "audio/translations":
            usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 6, "total_tokens": 20}
            return fake.document({"text": fake.TRANSCRIPT, "usage": usage})
        case "images/edits" | "images/variations":
            usage = {"input_tokens": 400, "output_tokens": 300, "total_tokens": 700}
            return fake.document({"created": 1_750_000_000, "data": [{"b64_json": "aGk="}], "usage": usage})
    return fake.failure("openai", 404)


# --- chat ----------------------------------------------------------------------------------------------------------


def _chat(body: Body, fault: str, odd: set[str]) -> Reply:
    calls = _chat_calls(body)
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        text = json.dumps(fake.value_of(wanted["json_schema"]["schema"]))
    elif wanted.get("type") == "json_object":
        text = '{"greeting": "hello"}'
    else:
        text = fake.AFTER_TOOLS if any(message["role"] == "tool" for message in body["messages"]) else fake.TEXT
    usage = {"prompt_tokens": fake.USAGE[0], "completion_tokens": fake.USAGE[1], "total_tokens": sum(fake.USAGE)}
    head: Body = {"id": "chatcmpl-1", "created": 1_750_000_000, "model": body["model"]}
    finish = "tool_calls" if calls else "stop"
    if "eos" in odd:
        finish = "eos"
    if "bare" in odd:
        head = {}
    if body.get("stream"):
        return _chat_stream(body, head, text, calls, finish, usage, fault, odd)
    message: Body = {"role": "assistant", "content": None if calls else text, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    told = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
    if "bare" in odd:
        del told["usage"], told["object"]
    return fake.document(told)


def _chat_calls(body: Body) -> list[Body]:
    if not body.get("tools") or body.get("tool_choice") == "none" or body["messages"][-1]["role"] == "tool":
        return []
    function = body["tools"][0]["function"]
    arguments = fake.arguments_of(function.get("parameters") or {}, fake.count_of(body["messages"]))
    return [
        {
            "id": f"call_{place}",
            "type": "function",
            "function": {"name": function["name"], "arguments": json.dumps(each)},
        }
        for place, each in enumerate(arguments)
    ]


def _chat_stream(
    body: Body, head: Body, text: str, calls: list[Body], finish: str, usage: Body, fault: str, odd: set[str]
) -> Reply:
    head = {**head, "object": "chat.completion.chunk"}
    if "bare" in odd:
        del head["object"]

    def chunk(delta: Body, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return fake.sse({**head, "choices": [choice]})

    events = [chunk({"role": "assistant", "content": None if calls else "", "refusal": None})]
    if "empty_first" in odd:
        events.insert(0, fake.sse({**head, "choices": []}))
    if calls:
        events += _call_deltas(chunk, calls, odd)
    else:
        events += [chunk({"content": piece}) for piece in fake.pieces(text)]
    if fault == "cut":
        return Reply(events=events, end="cut")
    if fault == "unfinished":
        return Reply(events=events)
    if fault == "late":
        error = {"message": "the model fell over", "type": "server_error", "param": None, "code": None}
        return Reply(events=[*events, fake.sse({"error": error})], pause=True)
    events.append(chunk({}, finish))
    if (body.get("stream_options") or {}).get("include_usage"):
        told: Body = {**head, "choices": [], "usage": usage}
        if "usage_without_choices" in odd:
            del told["choices"]
        if "usage_with_null" in odd:
            told["choices"] = None
        events.append(fake.sse(told))
    if "no_done" not in odd:
        events.append(fake.sse("[DONE]"))
    if "comments" in odd:
        events = [b": hello\r\n\r\n" + event.replace(b"\n", b"\r\n") for event in events]
    return Reply(events=events)


def _call_deltas(chunk: Any, calls: list[Body], odd: set[str]) -> list[bytes]:
    """Each call opens, then their arguments come in turns; sloppy servers are at work one call after the other."""
    deltas: list[Body] = []
    halves = []
    for place, call in enumerate(calls):
        function = call["function"]
        opened = {"index": place, **call, "function": {"name": function["name"], "arguments": ""}}
        rest = [{"index": place, "function": {"arguments": piece}} for piece in fake.pieces(function["arguments"])]
        if "repeated_name" in odd:
            for delta in rest:
                delta["function"]["name"] = function["name"]
        if "repeated_name" in odd or "no_index" in odd:
            deltas += [opened, *rest]
        else:
            deltas.append(opened)
            halves.append(rest)
    for turn in range(max((len(half) for half in halves), default=0)):
        deltas += [half[turn] for half in halves if turn < len(half)]
    if "no_index" in odd:
        for delta in deltas:
            del delta["index"]
    return [chunk({"tool_calls": [delta]}) for delta in deltas]


# --- the rest ------------------------------------------------------------------------------------------------------


def _completions(body: Body) -> Reply:
    usage = {"prompt_tokens": fake.USAGE[0], "completion_tokens": fake.USAGE[1], "total_tokens": sum(fake.USAGE)}
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1_750_000_000, "model": body["model"]}

    def choice(text: str, finish: str | None) -> Body:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}

    if not body.get("stream"):
        return fake.document({**head, "choices": [choice(fake.TEXT, "stop")], "usage": usage})
    events = [fake.sse({**head, "choices": [choice(piece, None)]}) for piece in fake.pieces(fake.TEXT)]
    events.append(fake.sse({**head, "choices": [choice("", "stop")]}))
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(fake.sse({**head, "choices": [], "usage": usage}))
    return Reply(events=[*events, fake.sse("[DONE]")])


def _embeddings(body: Body) -> Reply:
    given = body["input"]
    many = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    vector: Any = [0.5, -0.25, 1.0]
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
    data = [{"object": "embedding", "index": place, "embedding": vector} for place in range(len(many))]
    return fake.document({"object": "list", "data": data, "model": body["model"], "usage": EMBEDDING_USAGE})


EMBEDDING_USAGE = {"prompt_tokens": 9, "total_tokens": 9}


def _images(body: Body) -> Reply:
    usage = {"input_tokens": 12, "output_tokens": 300, "total_tokens": 312}
    usage["input_tokens_details"] = {"text_tokens": 12, "image_tokens": 0}
    if body.get("stream"):
        part = {"type": "image_generation.partial_image", "partial_image_index": 0, "b64_json": "aGk="}
        whole = {"type": "image_generation.completed", "b64_json": "aGk=", "usage": usage}
        return Reply(events=[fake.sse(part, part["type"]), fake.sse(whole, whole["type"])])
    return fake.document({"created": 1_750_000_000, "data": [{"b64_json": "aGk="}], "usage": usage})


def _responses(body: Body, fault: str) -> Reply:
    given = body["input"]
    answered = isinstance(given, list) and any(item.get("type") == "function_call_output" for item in given)
    functions = [tool for tool in body.get("tools") or [] if tool["type"] == "function"]
    form = ((body.get("text") or {}).get("format")) or {}
    items: list[Body] = []
    if functions and not answered and body.get("tool_choice") != "none":
        made = fake.arguments_of(functions[0].get("parameters") or {}, fake.count_of(given))
        for place, arguments in enumerate(made):
            call = {"call_id": f"call_{place}", "name": functions[0]["name"], "arguments": json.dumps(arguments)}
            items.append({"id": f"fc_{place}", "type": "function_call", "status": "completed", **call})
    else:
        text = json.dumps(fake.value_of(form["schema"])) if form.get("type") == "json_schema" else fake.TEXT
        text = fake.AFTER_TOOLS if answered else text
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        items.append({"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]})
    usage = {
        "input_tokens": fake.USAGE[0],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": fake.USAGE[1],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sum(fake.USAGE),
    }
    told: Body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_750_000_000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "model": body["model"],
        "output": items,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "usage": usage,
    }
    return _response_stream(told, fault) if body.get("stream") else fake.document(told)


def _response_stream(told: Body, fault: str) -> Reply:
    events: list[bytes] = []

    def say(kind: str, **fields: Any) -> None:
        events.append(fake.sse({"type": kind, "sequence_number": len(events), **fields}, kind))

    begun = {**told, "status": "in_progress", "output": [], "usage": None}
    say("response.created", response=begun)
    say("response.in_progress", response=begun)
    for place, item in enumerate(told["output"]):
        where = {"item_id": item["id"], "output_index": place}
        if item["type"] == "function_call":
            say(
                "response.output_item.added",
                output_index=place,
                item={**item, "arguments": "", "status": "in_progress"},
            )
            for piece in fake.pieces(item["arguments"]):
                say("response.function_call_arguments.delta", **where, delta=piece)
            done = {"arguments": item["arguments"], "name": item["name"]}
            say("response.function_call_arguments.done", **where, **done)
        else:
            part = item["content"][0]
            say(
                "response.output_item.added",
                output_index=place,
                item={**item, "content": [], "status": "in_progress"},
            )
            say("response.content_part.added", **where, content_index=0, part={**part, "text": ""})
            for piece in fake.pieces(part["text"]):
                say("response.output_text.delta", **where, content_index=0, delta=piece, logprobs=[])
            if fault == "cut":
                return Reply(events=events, end="cut")
            if fault == "unfinished":
                return Reply(events=events)
            say("response.output_text.done", **where, content_index=0, text=part["text"], logprobs=[])
            say("response.content_part.done", **where, content_index=0, part=part)
        say("response.output_item.done", output_index=place, item=item)
    say("response.completed", response=told)
    return Reply(events=events)
