"""Readers and makers shared by the callers' specifications."""

import json

import pytest

from fastroute.callers import Reply


@pytest.fixture(scope="session")
def reply():
    """Makes the facts a reply is made with."""

    def make(**body):
        return Reply(id="abc", created=1_700_000_000, model="some-model", body=body, input_tokens=11)

    return make


@pytest.fixture(scope="session")
def read_sse():
    """Reads SSE as strictly as the strictest client: a list of (event name or None, decoded data)."""

    def read(raw: bytes):
        events = []
        text = raw.decode()
        assert text == "" or text.endswith("\n\n")
        for stanza in text.split("\n\n")[:-1]:
            lines = stanza.splitlines()
            name = None
            if lines[0].startswith("event: "):
                name = lines.pop(0).removeprefix("event: ")
            assert len(lines) == 1, stanza
            data = lines[0].removeprefix("data: ")
            events.append((name, data if data == "[DONE]" else json.loads(data)))
        return events

    return read


@pytest.fixture(scope="session")
def run():
    """Runs an encoder over chunks and gives all its bytes."""

    def drive(encoder, chunks, usage=None):
        return encoder.start() + b"".join(encoder.feed(chunk) for chunk in chunks) + encoder.finish(usage)

    return drive


@pytest.fixture(scope="session")
def chunk():
    """One chat.completion.chunk with a delta for choice 0."""

    def make(finish=None, index=0, **delta):
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

    return make


@pytest.fixture(scope="session")
def usage():
    return {
        "prompt_tokens": 20,
        "completion_tokens": 9,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }


@pytest.fixture(scope="session")
def answer(usage):
    """A whole chat.completion that reasons, speaks and calls a tool."""

    def make(finish="tool_calls", **message):
        said = {"role": "assistant", "content": None, **message}
        choice = {"index": 0, "message": said, "finish_reason": finish, "logprobs": None}
        head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 5, "model": "up"}
        return {**head, "choices": [choice], "usage": usage}

    return make


@pytest.fixture(scope="session")
def tool_call():
    def make(arguments='{"city":"Oslo"}', id="call_1", name="weather", **more):
        return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}

    return make
