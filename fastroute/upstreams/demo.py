"""Simulated providers: answers, prices, latencies and failures that look real, and nothing is sent anywhere.

What is said follows from the request alone, and so does when: the same request gets the same answer. Only `demo-flaky`
counts. The wire form is OpenAI's, so everything above this file treats these models as it treats any provider.
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
from array import array
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeGuard

import orjson

from fastroute.clock import Clock, SystemClock
from fastroute.domain import Entry, ModelRef, Price, Rates, Runtime, Usage
from fastroute.upstreams import sse
from fastroute.upstreams.dialect import (
    Body,
    DialectError,
    assistant,
    chat_usage,
    dump,
    functions_of,
    messages_of,
    output_cap,
    parts_of,
    schema_of,
    stops_of,
    tool_choice_of,
)
from fastroute.upstreams.inprocess import EVENT_STREAM, JSON, InProcess, Script, not_offered, refusal
from fastroute.upstreams.openai import OpenAI

_GAP_MS: Final = (10, 25)
_HEAD_MS_MAX: Final = 100
_STALL_MS: Final = 60_000
_CHOICES_MAX: Final = 128
_TEXTS_MAX: Final = 2048
_DIMENSIONS: Final = 256
_DIMENSIONS_MAX: Final = 3072


class _Manner(NamedTuple):
    """How one model behaves: milliseconds to its first token, and how many sentences it likes."""

    first_ms: tuple[int, int]
    sentences: int


_MANNERS: Final = {
    "demo-small": _Manner((60, 120), 1),
    "demo-medium": _Manner((150, 300), 2),
    "demo-large": _Manner((300, 600), 4),
    "demo-local": _Manner((30, 60), 1),
    "demo-embed": _Manner((20, 40), 0),
    "demo-slow": _Manner((_STALL_MS, _STALL_MS), 2),
    "demo-flaky": _Manner((80, 160), 2),
    "demo-cut": _Manner((80, 160), 3),
}


def _entry(
    model: str,
    input_rate: int,
    output_rate: int,
    window: int,
    *capabilities: str,
    lane: str = "demo",
    runtime: Runtime = "managed",
) -> Entry:
    free = input_rate == output_rate == 0
    return Entry(
        id=model,
        ref=ModelRef("demo", model),
        lane=lane,
        runtime=runtime,
        capabilities=capabilities,
        price=Price(Rates(input_rate, output_rate), source="free" if free else "config"),
        context_window=window,
        max_output=16_384,
        p50_latency_ms=sum(_MANNERS[model].first_ms) // 2,
    )


DEMO_MODELS: Final[tuple[Entry, ...]] = (
    _entry("demo-small", 150_000, 600_000, 128_000, "tools", "json"),
    _entry("demo-medium", 1_000_000, 4_000_000, 128_000, "tools", "json"),
    _entry("demo-large", 3_000_000, 15_000_000, 1_000_000, "tools", "vision", "long_context", "json"),
    _entry("demo-local", 0, 0, 32_768, "tools", "json", runtime="local"),
    _entry("demo-embed", 20_000, 0, 8_192),
    # The broken ones are dearer than `demo-small`, so that only who names them meets them.
    _entry("demo-slow", 1_000_000, 4_000_000, 128_000, "tools", "json", lane="demo-stall"),
    _entry("demo-flaky", 250_000, 1_000_000, 128_000, "tools", "json", lane="demo-flaky"),
    _entry("demo-cut", 250_000, 1_000_000, 128_000, "tools", "json", lane="demo-cut"),
)
"""Every simulated model as the catalog takes it; `p50_latency_ms` is the time to the first token."""

_ENTRIES: Final = {entry.id: entry for entry in DEMO_MODELS}


def demo_routes() -> dict[str, tuple[str, ...]]:
    """Aliases that show a fallback: past a provider that stalls, and past one that fails every second time."""
    return {"chat-fallback": ("demo-slow", "demo-small"), "chat-flaky": ("demo-flaky", "demo-medium")}


class _Asked(NamedTuple):
    """One question as the answer is made from it."""

    question: str  # what the user said last
    told: str | None  # what a tool said, when a tool spoke last
    images: int
    prompt_tokens: int


class _Answer(NamedTuple):
    """One choice: its tokens, how it ends, and the (id, name) of the call when the tokens are a call's arguments."""

    tokens: list[str]
    finish: str
    call: tuple[str, str] | None = None

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    def message(self) -> Body:
        if self.call is None:
            return assistant(self.text, "", [])
        function = {"name": self.call[1], "arguments": self.text}
        return assistant("", "", [{"id": self.call[0], "type": "function", "function": function}])

    def deltas(self) -> Iterator[Body]:
        """What a stream says after the role: one delta a token."""
        if self.call is None:
            yield from ({"content": token} for token in self.tokens)
            return
        function = {"name": self.call[1], "arguments": ""}
        yield {"tool_calls": [{"index": 0, "id": self.call[0], "type": "function", "function": function}]}
        for token in self.tokens:
            yield {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}


class DemoUpstream(InProcess):
    """All simulated providers behind one name."""

    def __init__(self, name: str = "demo", display: str = "Demo", *, clock: Clock | None = None) -> None:
        super().__init__(name, display, OpenAI())
        self._clock = clock or SystemClock()
        self._flaky = 0

    def script(self, operation: str, model: str, stream: bool, body: bytes) -> Script:
        entry = _ENTRIES.get(model)
        if entry is None:
            words = f"The model `{model}` does not exist here; there are {', '.join(_ENTRIES)}"
            return refusal(404, "invalid_request_error", "model_not_found", words, param="model")
        if operation not in ("chat", "completions", "embeddings"):
            return not_offered(self.display, operation)
        if (operation == "embeddings") != (model == "demo-embed"):
            words = f"The model `{model}` does not support {operation}"
            return refusal(400, "invalid_request_error", "unsupported_operation", words, param="model")
        if model == "demo-flaky":
            self._flaky += 1
            if self._flaky % 2 == 0:
                words = "demo-flaky is overloaded, as it is for every second request"
                return refusal(503, "overloaded_error", "overloaded", words, head_ms=40)
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError:
            asked = None
        if not isinstance(asked, dict):
            return refusal(400, "invalid_request_error", None, "The body is not a JSON object")
        try:
            if operation == "embeddings":
                return _embeddings(entry, asked)
            return self._told(operation == "chat", entry, stream, asked)
        except DialectError as fault:
            return refusal(400, "invalid_request_error", None, str(fault), param=fault.param)

    def _told(self, chat: bool, entry: Entry, stream: bool, body: Body) -> Script:
        asked = _messages(body) if chat else _prompts(body)
        prompt_tokens = sum(each.prompt_tokens for each in asked)
        assert entry.context_window is not None
        if max(each.prompt_tokens for each in asked) > entry.context_window:
            words = f"This model's maximum context length is {entry.context_window} tokens; yours are {prompt_tokens}"
            return refusal(400, "invalid_request_error", "context_length_exceeded", words, param="messages")
        seed = _seed(entry.id, body)
        draw = random.Random(seed)  # noqa: S311  # a simulation: what it draws is meant to be the same every time
        wishes = body if chat else {word: body.get(word) for word in ("max_tokens", "stop")}
        copies = _copies(body, len(asked))
        answers = [_answer(entry, wishes, each, draw) for each in asked for _ in range(copies)]
        usage = Usage(input=prompt_tokens, output=sum(len(answer.tokens) for answer in answers))
        first_ms = draw.randint(*_MANNERS[entry.id].first_ms)
        told = _Telling(chat, entry.id, seed, int(self._clock.now().timestamp()), first_ms, draw)
        if not stream:
            return told.whole(answers, usage)
        options = body.get("stream_options")
        wanted = isinstance(options, dict) and options.get("include_usage") is True
        return told.stream(answers, usage if wanted else None, cut=entry.id == "demo-cut")


class _Telling:
    """Answers as bytes in time, for chat or for plain completions."""

    def __init__(self, chat: bool, model: str, seed: bytes, created: int, first_ms: int, draw: random.Random) -> None:
        self._chat = chat
        self._model = model
        self._id = f"{'chatcmpl' if chat else 'cmpl'}-{seed.hex()[:24]}"
        self._created = created
        # The head comes early, so that whoever waits for a stalled answer holds an exchange it can stop.
        self._head_ms = min(first_ms // 2, _HEAD_MS_MAX)
        self._first_ms = first_ms - self._head_ms
        self._draw = draw

    def whole(self, answers: list[_Answer], usage: Usage) -> Script:
        choices = []
        for index, answer in enumerate(answers):
            said = {"message": answer.message()} if self._chat else {"text": answer.text}
            choices.append({"index": index, **said, "logprobs": None, "finish_reason": answer.finish})
        kind = "chat.completion" if self._chat else "text_completion"
        data = orjson.dumps({**self._head(kind), "choices": choices, "usage": chat_usage(usage)})
        # A whole answer is not there before its last token.
        wait = self._first_ms + sum(self._gap() for _ in range(usage.output - 1))
        return Script(200, JSON, ((wait, data),), self._head_ms)

    def stream(self, answers: list[_Answer], usage: Usage | None, *, cut: bool) -> Script:
        pieces: list[tuple[int, bytes]] = []
        wait = self._first_ms
        for index, answer in enumerate(answers):
            if self._chat:
                pieces.append((0, self._chunk(index, {"role": "assistant", "content": ""})))
            deltas = list(answer.deltas())
            for delta in deltas[: len(deltas) // 2] if cut else deltas:
                pieces.append((wait, self._chunk(index, delta)))
                wait = self._gap()
            if cut:
                return Script(200, EVENT_STREAM, tuple(pieces), self._head_ms, end="cut")
            pieces.append((0, self._chunk(index, {}, answer.finish)))
        if usage is not None:
            pieces.append((0, self._event([], chat_usage(usage))))
        pieces.append((0, sse.DONE))
        return Script(200, EVENT_STREAM, tuple(pieces), self._head_ms)

    def _chunk(self, index: int, delta: Body, finish: str | None = None) -> bytes:
        said = {"delta": delta} if self._chat else {"text": delta.get("content", "")}
        return self._event([{"index": index, **said, "logprobs": None, "finish_reason": finish}])

    def _event(self, choices: list[Body], usage: Body | None = None) -> bytes:
        head = self._head("chat.completion.chunk" if self._chat else "text_completion")
        told = {**head, "choices": choices} if usage is None else {**head, "choices": choices, "usage": usage}
        return sse.encode(orjson.dumps(told))

    def _head(self, kind: str) -> Body:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _gap(self) -> int:
        return self._draw.randint(*_GAP_MS)


# --- what was asked ------------------------------------------------------------------------------------------------


def _seed(model: str, body: Body) -> bytes:
    """What the answer depends on; how it is delivered and where it is cut off are not part of it."""
    words = ("messages", "prompt", "tools", "tool_choice", "response_format", "seed")
    said = [model, *(body.get(word) for word in words)]
    return hashlib.blake2b(dump(said), digest_size=16).digest()


def _copies(body: Body, questions: int) -> int:
    copies = 1 if body.get("n") is None else body["n"]
    if type(copies) is not int or not 1 <= copies <= _CHOICES_MAX // questions:
        raise DialectError("n", f"must be a whole number, and the answers no more than {_CHOICES_MAX} in all")
    return copies


def _messages(body: Body) -> list[_Asked]:
    """A chat as the one question it ends with; a token is four characters, an image 85 tokens, a message 3 more."""
    question, told, tokens, images = "", None, 3, 0
    for where, message in messages_of(body):
        parts = parts_of(message.get("content"), f"{where}.content")
        text = "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))
        seen = sum(part.get("type") == "image_url" for part in parts)
        told = None
        if message.get("role") == "user":
            question, images = text, seen
        elif message.get("role") == "tool":
            told = text
        calls = message.get("tool_calls")
        tokens += 3 + _tokens_of(text) + 85 * seen + (len(dump(calls)) // 4 if calls else 0)
    tools = functions_of(body)
    if tools:
        tokens += sum(len(dump(function)) // 4 for _, function in tools)
    return [_Asked(question, told, images, tokens)]


def _prompts(body: Body) -> list[_Asked]:
    """The prompts of a plain completion: a text, several, or one as the numbers of its tokens."""
    texts = _texts(body, "prompt")
    return [_Asked(text if isinstance(text, str) else "", None, 0, _tokens_of(text)) for text in texts]


def _texts(body: Body, param: str) -> list[str | list[int]]:
    given = body.get(param)
    if isinstance(given, str) or _is_tokens(given):
        return [given]
    if isinstance(given, list) and 0 < len(given) <= _TEXTS_MAX:
        if all(isinstance(each, str) for each in given):
            return given
        if all(_is_tokens(each) for each in given):
            return given
    raise DialectError(param, f"must be a text, its tokens, or a list of 1 to {_TEXTS_MAX} of either")


def _is_tokens(given: Any) -> TypeGuard[list[int]]:
    return isinstance(given, list) and bool(given) and all(type(each) is int for each in given)


def _tokens_of(text: str | list[int]) -> int:
    return len(text) if isinstance(text, list) else -(-len(text) // 4)


# --- what is answered ----------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(r"\s*\S{1,12}|\s+\Z")
_WORD: Final = re.compile(r"[^\W\d_]{4,24}")

_SENTENCES: Final = (
    "The short version of {topic}: begin with the smallest thing that works, then measure it.",
    "With {topic} it helps to write down what you expect before you try it.",
    "Most surprises with {topic} come from an assumption nobody said out loud.",
    "If {topic} matters to you, change one thing at a time and keep the old way at hand.",
    "Two people who disagree about {topic} usually mean different things by the word.",
    "There is more to {topic} than fits here, and less than it seems at first.",
    "A good question to ask next is who will look after {topic} in a year.",
    "Nobody was ever sorry to have kept notes on {topic}.",
)


def _answer(entry: Entry, body: Body, asked: _Asked, draw: random.Random) -> _Answer:
    limit = output_cap(body, entry.max_output)
    functions = [function for _, function in functions_of(body)]
    choice, name = tool_choice_of(body)
    if functions and choice != "none" and (asked.told is None or choice in ("required", "named")):
        function = _chosen(functions, name, asked.question)
        arguments = _Sample(function.get("parameters") or {}, asked.question, draw).text()
        call = (f"call_{draw.getrandbits(96):024x}", str(function["name"]))
        tokens = _TOKEN.findall(arguments)
        return _Answer(tokens[:limit], "length" if limit and limit < len(tokens) else "tool_calls", call)
    kind, schema = schema_of(body)
    if kind == "text":
        text = _prose(entry.id, asked, draw)
    elif schema is None:
        text = orjson.dumps({"answer": _prose(entry.id, asked, draw), "model": entry.id}).decode()
    else:
        text = _Sample(schema, asked.question, draw).text()
    ends = [text.find(stop) for stop in stops_of(body) if stop and stop in text]
    tokens = _TOKEN.findall(text[: min(ends)] if ends else text)
    return _Answer(tokens[:limit], "length" if limit and limit < len(tokens) else "stop")


def _prose(model: str, asked: _Asked, draw: random.Random) -> str:
    echo = _snippet(asked.question)
    if asked.told is not None:
        opening = f"The tool answered “{_snippet(asked.told)}”, says {model}."
    elif asked.images:
        opening = f"{model} was shown {asked.images} image{'s' if asked.images > 1 else ''} and asked “{echo}”."
    elif echo:
        opening = f"You asked “{echo}”, and {model}, a simulated model, answers."
    else:
        opening = f"Hello from {model}, a simulated model."
    topic = max(_WORD.findall(echo), key=len, default="this").lower()
    sentences = draw.sample(_SENTENCES, _MANNERS[model].sentences)
    return " ".join([opening, *(sentence.format(topic=topic) for sentence in sentences)])


def _snippet(text: str) -> str:
    words = " ".join(text[:400].split())
    return words if len(words) <= 60 else words[:60].rsplit(" ", 1)[0] + "…"


def _chosen(functions: list[Body], name: str | None, question: str) -> Body:
    """The named function, or the one whose own words the question shares most of."""
    if name is not None:
        for function in functions:
            if function["name"] == name:
                return function
        raise DialectError("tool_choice", f"names {name!r}, which is not among the tools")
    said = set(_WORD.findall(question.lower()))

    def shared(function: Body) -> int:
        own = f"{function['name']} {function.get('description') or ''}".replace("_", " ").lower()
        return len(said.intersection(_WORD.findall(own)))

    return max(functions, key=shared)


_FORMATS: Final = {
    "date": "2026-03-14", "date-time": "2026-03-14T09:26:53Z", "time": "09:26:53Z", "duration": "PT15M",
    "email": "ada@example.com", "hostname": "example.com", "ipv4": "192.0.2.7", "ipv6": "2001:db8::7",
    "uri": "https://example.com/", "uuid": "3f2b8c1e-5a4d-4c6b-9e7f-0123456789ab",
}  # fmt: skip
_PLACE: Final = re.compile(r"\b(?:in|at|for|near|to|from) ([A-Z][\w-]+)")
_DEEP: Final = 6  # from here on only what must be there is there
_DEPTH_MAX: Final = 40
_NODES_MAX: Final = 2000  # a schema that contains itself twice would otherwise never end


class _Sample:
    """A plausible value for a JSON schema: types, enums, bounds, required fields, unions and local references hold."""

    def __init__(self, schema: Any, question: str, draw: random.Random) -> None:
        self._root = schema
        self._question = question
        self._draw = draw
        self._nodes = 0

    def text(self) -> str:
        return orjson.dumps(self.value(self._root)).decode()

    def value(self, schema: Any, name: str = "", depth: int = 0) -> Any:
        self._nodes += 1
        if not isinstance(schema, dict) or depth > _DEPTH_MAX or self._nodes > _NODES_MAX:
            return None
        if isinstance(schema.get("$ref"), str):
            return self.value(self._pointed_at(schema["$ref"]), name, depth + 1)
        for word in ("allOf", "anyOf", "oneOf"):
            options = schema.get(word)
            if isinstance(options, list) and options:
                bare = {key: value for key, value in schema.items() if key != word}
                return self.value(self._united(word, bare, options, depth), name, depth + 1)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return self._draw.choice(schema["enum"])
        match self._kind(schema, depth):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer" | "number" as kind:
                return self._number(schema, whole=kind == "integer")
            case "boolean":
                return self._draw.random() < 0.5
            case "null":
                return None
            case _:
                return self._string(schema, name)

    def _kind(self, schema: Body, depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            if depth > _DEEP and "null" in kind:
                return "null"
            return next((each for each in kind if each != "null"), "null")
        if kind is None and ("properties" in schema or "required" in schema):
            return "object"
        if kind is None and "items" in schema:
            return "array"
        return "number" if kind is None and ("minimum" in schema or "maximum" in schema) else kind

    def _pointed_at(self, pointer: str) -> Any:
        found = self._root
        for step in pointer.removeprefix("#").split("/")[1:]:
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found

    def _united(self, word: str, bare: Body, options: list[Any], depth: int) -> Body:
        """The schema with one alternative, or with every one of `allOf`, written into it."""
        schemas = [self._resolved(option) for option in options]
        if word != "allOf":
            null = [schema for schema in schemas if schema.get("type") == "null"]
            others = [schema for schema in schemas if schema not in null]
            schemas = null[:1] if null and (depth > _DEEP or not others) else others[:1]
        for schema in schemas:
            fields = {**_object_of(bare, "properties"), **_object_of(schema, "properties")}
            required = [*_list_of(bare, "required"), *_list_of(schema, "required")]
            bare = {**bare, **schema}
            if fields:
                bare["properties"] = fields
            if required:
                bare["required"] = list(dict.fromkeys(required))
        return bare

    def _resolved(self, schema: Any) -> Body:
        for _ in range(_DEPTH_MAX):
            if not isinstance(schema, dict):
                break
            if not isinstance(schema.get("$ref"), str):
                return schema
            schema = self._pointed_at(schema["$ref"])
        return {}

    def _object(self, schema: Body, depth: int) -> Body:
        fields = _object_of(schema, "properties")
        required = [name for name in _list_of(schema, "required") if isinstance(name, str)]
        wanted = required if depth > _DEEP else [*fields, *(name for name in required if name not in fields)]
        return {name: self.value(fields.get(name, {}), name, depth + 1) for name in wanted}

    def _array(self, schema: Body, name: str, depth: int) -> list[Any]:
        first = _list_of(schema, "prefixItems")
        least, most = _figure(schema, "minItems"), _figure(schema, "maxItems")
        wanted = (0 if depth > _DEEP else 1) if least is None else int(least)
        rest = max(0, min(wanted, _NODES_MAX if most is None else int(most), _NODES_MAX) - len(first))
        return [self.value(each, name, depth + 1) for each in [*first, *[schema.get("items", {})] * rest]]

    def _number(self, schema: Body, *, whole: bool) -> int | float:
        words = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")
        low, above, high, below, step = (_figure(schema, word) for word in words)
        unit = step or 1
        floor = max((each for each in (low, above) if each is not None), default=None)
        ceiling = min((each for each in (high, below) if each is not None), default=None)
        start = floor if floor is not None else 1 if ceiling is None else min(1, ceiling - 10 * unit)
        first = -(-start // unit) * unit
        tries = [first + unit * steps for steps in range(11)]
        if not whole and step is None and ceiling is not None:
            tries.append((start + ceiling) / 2)  # between two fractions there may be nothing else
        fits = [
            value
            for value in tries
            if (ceiling is None or value <= ceiling) and value != below and value >= start and value != above
        ]
        value = self._draw.choice(fits) if fits else start
        return int(value) if whole else value

    def _string(self, schema: Body, name: str) -> str:
        word = name.lower()
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        if any(part in word for part in ("city", "location", "place", "town")):
            places = _PLACE.findall(self._question)
            text = places[-1] if places else "Paris"
        elif any(part in word for part in ("query", "question", "text", "prompt", "input")) and self._question:
            text = _snippet(self._question)
        else:
            text = f"example {name}".strip()
        least, most = _figure(schema, "minLength") or 0, _figure(schema, "maxLength")
        if len(text) < least:
            text = text.ljust(int(min(least, 10_000)), ".")
        return text if most is None else text[: int(most)]


def _object_of(schema: Body, word: str) -> Body:
    value = schema.get(word)
    return value if isinstance(value, dict) else {}


def _list_of(schema: Body, word: str) -> list[Any]:
    value = schema.get(word)
    return value if isinstance(value, list) else []


def _figure(schema: Body, word: str) -> int | float | None:
    value = schema.get(word)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


# --- embeddings ----------------------------------------------------------------------------------------------------


def _embeddings(entry: Entry, body: Body) -> Script:
    texts = _texts(body, "input")
    size = body.get("dimensions", _DIMENSIONS)
    if type(size) is not int or not 1 <= size <= _DIMENSIONS_MAX:
        raise DialectError("dimensions", f"must be a whole number from 1 to {_DIMENSIONS_MAX}")
    packed = body.get("encoding_format") == "base64"
    data, tokens = [], 0
    for index, text in enumerate(texts):
        tokens += _tokens_of(text)
        vector = _vector(text, size)
        told = base64.b64encode(vector.tobytes()).decode() if packed else vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": told})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "data": data, "model": entry.id, "usage": usage}
    least, most = _MANNERS[entry.id].first_ms
    return Script(200, JSON, ((0, orjson.dumps(answer)),), least + tokens % (most - least + 1))


def _vector(text: str | list[int], size: int) -> array[float]:
    """A unit vector in which texts that share words lie close: every word adds to a few places of its own."""
    words = [str(each) for each in text] if isinstance(text, list) else text.lower().split()
    sums = [0] * size
    for word in words or [""]:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=24).digest()
        for at in range(0, 24, 3):
            sums[int.from_bytes(digest[at : at + 2], "little") % size] += digest[at + 2] - 127 or 1
    length = sum(each * each for each in sums) ** 0.5
    if not length:
        sums[0], length = 1, 1.0
    return array("f", (each / length for each in sums))
