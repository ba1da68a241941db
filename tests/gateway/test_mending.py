"""Which events of a nearly OpenAI-shaped stream are read, and which pass by a look at their bytes."""

from __future__ import annotations

import pytest

from fastroute.mending import MendingPipe
from fastroute.upstreams.openai import OpenAI, OpenAIStream

HEAD = b'"id":"c1","object":"chat.completion.chunk","created":1700000000,"model":"m"'
CONTENT = b'data: {%b,"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n' % HEAD
FINISH = b'data: {%b,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n' % HEAD
USAGE = b'"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}'
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The payloads of events that were read."""
    seen: list[bytes] = []
    read = OpenAIStream._read

    def noted(self: OpenAIStream, event: str, data: bytes) -> list[bytes]:
        seen.append(data)
        return read(self, event, data)

    monkeypatch.setattr(OpenAIStream, "_read", noted)
    return seen


def pipe() -> MendingPipe:
    stream = OpenAI().stream(model="m", created=1700000000, id="chatcmpl-1", include_usage=True)
    return MendingPipe(lambda: stream, hide_usage=False, several=False)


@pytest.mark.parametrize(
    "last",
    [
        b'data: {%b,"choices":[],%b}\n\n' % (HEAD, USAGE),
        b'data: {%b, "choices" : [ ] ,%b}\n\n' % (HEAD, USAGE),
        b'data: {%b,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],%b}\n\n' % (HEAD, USAGE),
    ],
)
@pytest.mark.parametrize("burst", [False, True])
def test_usage_as_clients_need_it_passes_unread(read: list[bytes], last: bytes, burst: bool) -> None:
    """Even where the whole answer comes at once, and would be read for its last event. The last word is another's."""
    events = [CONTENT, CONTENT, FINISH, last, DONE]
    told = pipe()
    assert b"".join(told.feed(part) for part in ([b"".join(events)] if burst else events)) == b"".join(events[:-1])
    assert (told.complete, read) == (True, [])
    usage = told.usage
    assert usage is not None
    assert (usage.input, usage.output) == (3, 1)


@pytest.mark.parametrize(
    "last",
    [
        b"data: {%b,%b}\n\n" % (HEAD, USAGE),
        b'data: {%b,"choices":null,%b}\n\n' % (HEAD, USAGE),
        b'data: {"choices":[],%b}\n\n' % USAGE,
    ],
)
@pytest.mark.parametrize("burst", [False, True])
def test_usage_that_trips_clients_is_mended(read: list[bytes], last: bytes, burst: bool) -> None:
    """What stands in the events around it is none of its own."""
    events = [CONTENT, FINISH, last, DONE]
    told = pipe()
    out = b"".join(told.feed(part) for part in ([b"".join(events)] if burst else events))
    (mended,) = [event for event in out.split(b"\n\n") if b'"usage"' in event]
    assert b'"choices":[]' in mended
    assert all(name in mended for name in (b'"id"', b'"object"', b'"created"', b'"model"'))
    assert read


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_other_line_breaks_are_no_reason_to_read(read: list[bytes], end: bytes) -> None:
    events = b"".join((CONTENT, FINISH, b'data: {%b,"choices":[],%b}\n\n' % (HEAD, USAGE))).replace(b"\n", end)
    told = pipe()
    assert told.feed(events + DONE) == events
    assert (told.complete, read) == (True, [])
