"""Three providers in one thread: OpenAI under `/oai` and `/lab`, Anthropic under `/ant`, Google under `/goo`.

They answer from what they are asked: tools are called with arguments made from their schemas, a schema is answered with
a value of it, everything else with `TEXT`. A word in the prompt makes them fail: `fault:429`, `fault:cut` and so on; an
`odd:` word makes the OpenAI one sloppy in the way of a server that exists. What reached them is in `seen`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

TEXT = "Hello, wörld! ☀️ 你好"
AFTER_TOOLS = "It is sunny in both."
THOUGHT = "The user greets; I greet back."
SIGNATURE = "c2lnbmVkLWJ5LXRoZS1wcm92aWRlcg=="
USAGE = (23, 7)  # tokens in, tokens out
CITIES = ("Paris", "Lima")
AUDIO = b"ID3" + bytes(range(256)) * 40

Body = dict[str, Any]


@dataclass
class Seen:
    """One request as it arrived at a provider."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Body:
        return json.loads(self.raw)


@dataclass
class Reply:
    """What goes back; events are sent one by one, and `end` says how the body ends: whole or cut."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    events: list[bytes] | None = None
    end: str = "whole"
    pause: bool = False  # before the last event, so that the ones before it have long been relayed


class FakeProviders:
    """The thread, its port and what it has seen."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._up.wait(5)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").split("\r\n")[:-2]
                method, path, _ = first.split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                raw = await reader.readexactly(int(headers.get("content-length", "0")))
                seen = Seen(method, path, headers, raw)
                self.seen.append(seen)
                if not await _send(writer, answer(seen)):
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> bool:
    """Whether the connection can be used again."""
    headers = {"content-type": "application/json", **reply.headers}
    if reply.events is None:
        headers["content-length"] = str(len(reply.body))
    else:
        headers |= {"content-type": "text/event-stream", "transfer-encoding": "chunked"} | reply.headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {reply.status} Whatever\r\n{lines}\r\n".encode("latin-1"))
    if reply.events is None:
        writer.write(reply.body)
    else:
        for place, event in enumerate(reply.events):
            if reply.pause and place == len(reply.events) - 1:
                await asyncio.sleep(0.05)
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0)
        if reply.end == "cut":
            return False
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


# --- what is answered ----------------------------------------------------------------------------------------------


def answer(seen: Seen) -> Reply:
    provider, _, path = seen.path.removeprefix("/").partition("/")
    prompt = seen.raw.decode("utf-8", "replace")
    found = re.search(r"fault:(\w+)", prompt)
    fault = found[1] if found else ""
    odd = set(re.findall(r"odd:(\w+)", prompt))
    dialect = {"oai": "openai", "lab": "openai", "ant": "anthropic", "goo": "google"}[provider]
    if fault.isdigit():
        return _failure(dialect, int(fault))
    if fault == "html":
        return Reply(502, b"<html><body>Bad gateway</body></html>", {"content-type": "text/html"})
    if fault == "detail":
        return Reply(400, b'{"detail":"the weather is bad"}')
    if seen.headers["content-type"].startswith("multipart/"):
        return _failure("openai", 503) if "no-such-scribe" in prompt else _form(path, prompt)
    if fault == "created":
        return Reply(201, b"made", {"content-type": "text/x-made"})
    if fault == "accepted":
        return Reply(202, b'{"id": "job-1"}')
    if fault == "nothing":
        return Reply(204)
    body = json.loads(prompt)
    if dialect == "anthropic":
        return _anthropic(body, fault)
    if dialect == "google":
        return _google(body, fault, "streamGenerateContent" in path)
    match path.removeprefix("v1/"):
        case "chat/completions":
            return _chat(body, fault, odd)
        case "completions":
            return _completions(body)
        case "embeddings":
            return _embeddings(body)
        case "responses" if provider == "oai":
            return _responses(body, fault)
        case "moderations":
            return _json({"id": "modr-1", "model": body["model"], "results": [MODERATION]})
        case "audio/speech" if fault == "torn":
            return Reply(200, headers={"content-type": "audio/mpeg"}, events=[AUDIO, AUDIO], end="cut", pause=True)
        case "audio/speech":
            return Reply(200, AUDIO, {"content-type": "audio/mpeg"})
        case "images/generations":
            return _images(body)
        case "rerank":
            ranked = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
            return _json({"id": "rr-1", "results": ranked, "usage": {"prompt_tokens": 11, "total_tokens": 11}})
    return _failure("openai", 404)


TRANSCRIPT = "Hello from the tape."


def _form(path: str, text: str) -> Reply:
    match path.removeprefix("v1/"):
        case "audio/transcriptions" if "text/plain" in text or "vtt" in text:
            return Reply(200, f"WEBVTT\n\n{TRANSCRIPT}\n".encode(), {"content-type": "text/vtt"})
        case "audio/transcriptions" if 'name="stream"' in text:
            usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 6, "total_tokens": 20}
            delta = {"type": "transcript.text.delta", "delta": TRANSCRIPT}
            return Reply(events=[sse(delta), sse({"type": "transcript.text.done", "text": TRANSCRIPT, "usage": usage})])
        case "audio/transcriptions" | "audio/translations":
            usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 6, "total_tokens": 20}
            return _json({"text": TRANSCRIPT, "usage": usage})
        case "images/edits" | "images/variations":
            usage = {"input_tokens": 400, "output_tokens": 300, "total_tokens": 700}
            return _json({"created": 1_750_000_000, "data": [{"b64_json": "aGk="}], "usage": usage})
    return _failure("openai", 404)


MODERATION: Body = {
    "flagged": False,
    "categories": {},
    "category_scores": {},
    "category_applied_input_types": {},
}


def _json(body: Any) -> Reply:
    return Reply(200, json.dumps(body, ensure_ascii=False).encode(), {"x-request-id": "req_of_the_provider"})


def _failure(dialect: str, status: int) -> Reply:
    message = f"refused with {status} by order"
    if dialect == "openai":
        told: Body = {"error": {"message": message, "type": _TYPES.get(status, "server_error"), "param": None}}
        told["error"]["code"] = "rate_limit_exceeded" if status == 429 else None
    elif dialect == "anthropic":
        kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
        kind = kinds.get(status, "rate_limit_error" if status == 429 else "api_error")
        told = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    else:
        words = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 401: "UNAUTHENTICATED"}
        told = {"error": {"code": status, "message": message, "status": words.get(status, "INTERNAL")}}
    headers = {"retry-after": "1"} if status == 429 else {}
    return Reply(status, json.dumps(told).encode(), headers)


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}


def value_of(schema: Body, root: Body | None = None) -> Any:
    """A value of a JSON schema, always the same."""
    root = root or schema
    if "$ref" in schema:
        return value_of(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for word in ("anyOf", "allOf"):
        if word in schema:
            return value_of(schema[word][0], root)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: value_of(each, root) for name, each in schema.get("properties", {}).items()}
        case "array":
            return [value_of(schema.get("items", {}), root)]
        case "integer" | "number":
            return 7
        case "boolean":
            return True
        case "null":
            return None
    return CITIES[0]


def arguments_of(schema: Body, count: int) -> list[Body]:
    """Arguments for as many calls as asked, each for another city where the schema has one."""
    made = []
    for city in CITIES[:count]:
        arguments = value_of(schema)
        made.append({**arguments, "city": city} if "city" in arguments else arguments)
    return made


def pieces(text: str) -> Iterator[str]:
    """Text in pieces of three characters."""
    yield from (text[at : at + 3] for at in range(0, len(text), 3))


def sse(data: Any, event: str = "") -> bytes:
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _count_of(prompt: Any) -> int:
    return 2 if "both" in json.dumps(prompt) else 1


# --- OpenAI: chat --------------------------------------------------------------------------------------------------


def _chat(body: Body, fault: str, odd: set[str]) -> Reply:
    calls = _chat_calls(body)
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        text = json.dumps(value_of(wanted["json_schema"]["schema"]))
    elif wanted.get("type") == "json_object":
        text = '{"greeting": "hello"}'
    else:
        text = AFTER_TOOLS if any(message["role"] == "tool" for message in body["messages"]) else TEXT
    usage = {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}
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
    return _json(told)


def _chat_calls(body: Body) -> list[Body]:
    if not body.get("tools") or body.get("tool_choice") == "none" or body["messages"][-1]["role"] == "tool":
        return []
    function = body["tools"][0]["function"]
    arguments = arguments_of(function.get("parameters") or {}, _count_of(body["messages"]))
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
        return sse({**head, "choices": [choice]})

    events = [chunk({"role": "assistant", "content": None if calls else "", "refusal": None})]
    if "empty_first" in odd:
        events.insert(0, sse({**head, "choices": []}))
    if calls:
        events += _call_deltas(chunk, calls, odd)
    else:
        events += [chunk({"content": piece}) for piece in pieces(text)]
    if fault == "cut":
        return Reply(events=events, end="cut")
    if fault == "unfinished":
        return Reply(events=events)
    if fault == "late":
        error = {"message": "the model fell over", "type": "server_error", "param": None, "code": None}
        return Reply(events=[*events, sse({"error": error})], pause=True)
    events.append(chunk({}, finish))
    if (body.get("stream_options") or {}).get("include_usage"):
        told: Body = {**head, "choices": [], "usage": usage}
        if "usage_without_choices" in odd:
            del told["choices"]
        if "usage_with_null" in odd:
            told["choices"] = None
        events.append(sse(told))
    if "no_done" not in odd:
        events.append(sse("[DONE]"))
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
        rest = [{"index": place, "function": {"arguments": piece}} for piece in pieces(function["arguments"])]
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


# --- OpenAI: the rest ----------------------------------------------------------------------------------------------


def _completions(body: Body) -> Reply:
    usage = {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1_750_000_000, "model": body["model"]}

    def choice(text: str, finish: str | None) -> Body:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}

    if not body.get("stream"):
        return _json({**head, "choices": [choice(TEXT, "stop")], "usage": usage})
    events = [sse({**head, "choices": [choice(piece, None)]}) for piece in pieces(TEXT)]
    events.append(sse({**head, "choices": [choice("", "stop")]}))
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(sse({**head, "choices": [], "usage": usage}))
    return Reply(events=[*events, sse("[DONE]")])


def _embeddings(body: Body) -> Reply:
    given = body["input"]
    many = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    vector: Any = [0.5, -0.25, 1.0]
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
    data = [{"object": "embedding", "index": place, "embedding": vector} for place in range(len(many))]
    return _json({"object": "list", "data": data, "model": body["model"], "usage": EMBEDDING_USAGE})


EMBEDDING_USAGE = {"prompt_tokens": 9, "total_tokens": 9}


def _images(body: Body) -> Reply:
    usage = {"input_tokens": 12, "output_tokens": 300, "total_tokens": 312}
    usage["input_tokens_details"] = {"text_tokens": 12, "image_tokens": 0}
    if body.get("stream"):
        part = {"type": "image_generation.partial_image", "partial_image_index": 0, "b64_json": "aGk="}
        whole = {"type": "image_generation.completed", "b64_json": "aGk=", "usage": usage}
        return Reply(events=[sse(part, part["type"]), sse(whole, whole["type"])])
    return _json({"created": 1_750_000_000, "data": [{"b64_json": "aGk="}], "usage": usage})


def _responses(body: Body, fault: str) -> Reply:
    given = body["input"]
    answered = isinstance(given, list) and any(item.get("type") == "function_call_output" for item in given)
    functions = [tool for tool in body.get("tools") or [] if tool["type"] == "function"]
    form = ((body.get("text") or {}).get("format")) or {}
    items: list[Body] = []
    if functions and not answered and body.get("tool_choice") != "none":
        made = arguments_of(functions[0].get("parameters") or {}, _count_of(given))
        for place, arguments in enumerate(made):
            call = {"call_id": f"call_{place}", "name": functions[0]["name"], "arguments": json.dumps(arguments)}
            items.append({"id": f"fc_{place}", "type": "function_call", "status": "completed", **call})
    else:
        text = json.dumps(value_of(form["schema"])) if form.get("type") == "json_schema" else TEXT
        text = AFTER_TOOLS if answered else text
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        items.append({"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]})
    usage = {
        "input_tokens": USAGE[0],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": USAGE[1],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sum(USAGE),
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
    return _response_stream(told, fault) if body.get("stream") else _json(told)


def _response_stream(told: Body, fault: str) -> Reply:
    events: list[bytes] = []

    def say(kind: str, **fields: Any) -> None:
        events.append(sse({"type": kind, "sequence_number": len(events), **fields}, kind))

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
            for piece in pieces(item["arguments"]):
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
            for piece in pieces(part["text"]):
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


# --- Anthropic -----------------------------------------------------------------------------------------------------


def _anthropic(body: Body, fault: str) -> Reply:
    blocks = _anthropic_blocks(body)
    stop = "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"
    usage = {"input_tokens": USAGE[0], "output_tokens": USAGE[1]}
    cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    told: Body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {**usage, **cache},
    }
    return _anthropic_stream(told, fault) if body.get("stream") else _json(told)


def _anthropic_blocks(body: Body) -> list[Body]:
    last = body["messages"][-1]["content"]
    answered = isinstance(last, list) and any(block["type"] == "tool_result" for block in last)
    tools = [tool for tool in body.get("tools") or [] if "input_schema" in tool]
    blocks: list[Body] = []
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        blocks.append({"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE})
    form = (body.get("output_config") or {}).get("format")
    if tools and not answered and (body.get("tool_choice") or {}).get("type") != "none":
        made = arguments_of(tools[0]["input_schema"], _count_of(body["messages"]))
        return blocks + [
            {"type": "tool_use", "id": f"toolu_{place}", "name": tools[0]["name"], "input": arguments}
            for place, arguments in enumerate(made)
        ]
    if form:
        text = json.dumps(value_of(form["schema"]))
    elif "JSON object" in str(body.get("system")):
        text = '{"greeting": "hello"}'
    else:
        text = AFTER_TOOLS if answered else TEXT
    return [*blocks, {"type": "text", "text": text}]


def _anthropic_stream(told: Body, fault: str) -> Reply:
    events: list[bytes] = []

    def say(kind: str, **fields: Any) -> None:
        events.append(sse({"type": kind, **fields}, kind))

    begun = {**told, "content": [], "stop_reason": None, "usage": {**told["usage"], "output_tokens": 1}}
    say("message_start", message=begun)
    say("ping")
    for place, block in enumerate(told["content"]):
        empty: Body = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
        say("content_block_start", index=place, content_block={**block, **empty[block["type"]]})
        if block["type"] == "text":
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        elif block["type"] == "thinking":
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        else:
            text = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces(text))]
        for delta in deltas:
            say("content_block_delta", index=place, delta=delta)
        if fault == "cut":
            return Reply(events=events, end="cut")
        if fault == "late":
            say("error", error={"type": "overloaded_error", "message": "Overloaded"})
            return Reply(events=events, pause=True)
        say("content_block_stop", index=place)
    if fault == "unfinished":
        return Reply(events=events)
    say(
        "message_delta",
        delta={"stop_reason": told["stop_reason"], "stop_sequence": None},
        usage={"output_tokens": told["usage"]["output_tokens"]},
    )
    say("message_stop")
    return Reply(events=events)


# --- Google --------------------------------------------------------------------------------------------------------


def _google(body: Body, fault: str, stream: bool) -> Reply:
    config = body.get("generationConfig") or {}
    answered = any("functionResponse" in part for part in body["contents"][-1]["parts"])
    declared = [each for tool in body.get("tools") or [] for each in tool.get("functionDeclarations", [])]
    mode = ((body.get("toolConfig") or {}).get("functionCallingConfig") or {}).get("mode")
    parts: list[Body] = []
    if (config.get("thinkingConfig") or {}).get("includeThoughts"):
        parts.append({"text": THOUGHT, "thought": True})
    if declared and not answered and mode != "NONE":
        schema = declared[0].get("parametersJsonSchema") or declared[0].get("parameters") or {}
        made = arguments_of(schema, _count_of(body["contents"]))
        parts += [{"functionCall": {"name": declared[0]["name"], "args": arguments}} for arguments in made]
    elif "responseJsonSchema" in config:
        parts += [{"text": piece} for piece in pieces(json.dumps(value_of(config["responseJsonSchema"])))]
    elif config.get("responseMimeType") == "application/json":
        parts.append({"text": '{"greeting": "hello"}'})
    else:
        parts += [{"text": piece} for piece in pieces(AFTER_TOOLS if answered else TEXT)]
    usage = {"promptTokenCount": USAGE[0], "candidatesTokenCount": USAGE[1], "totalTokenCount": sum(USAGE)}

    def told(parts: list[Body], finish: str | None) -> Body:
        candidate: Body = {"content": {"role": "model", "parts": parts}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini", "responseId": "r1"}

    if not stream:
        return _json(told(parts, "STOP"))
    events = [sse(told([part], None)) for part in parts]
    if fault == "cut":
        return Reply(events=events, end="cut")
    if fault == "unfinished":
        return Reply(events=events)
    if fault == "late":
        error = {"code": 503, "message": "over", "status": "UNAVAILABLE"}
        return Reply(events=[*events, sse({"error": error})], pause=True)
    return Reply(events=[*events, sse(told([{"text": ""}], "STOP"))])
