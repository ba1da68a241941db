"""Listening in on an attempt: its bytes are copied as they pass, and what they say is made out once the answer is over.

Only requests whose policy keeps answers, or compares them, are listened to.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from msgspec import Struct

from fastroute import _scan
from fastroute.upstreams.dialect import Dialect, DialectError, parse
from fastroute.upstreams.upstream import Exchange, Wrapped

# What is copied of one answer: the text that is kept of it is far shorter.
COPY_MAX: Final = 1 << 20


class Heard(Struct, frozen=True):
    """What an answer said: its text, why it ended in the provider's or OpenAI's word, and how many tools it called."""

    text: str
    finish: str | None = None
    calls: int = 0
    cut: bool = False  # longer than what was copied

    @property
    def said_something(self) -> bool:
        return bool(self.text.strip()) or self.calls > 0


class Tap(Wrapped):
    """An exchange whose answer is copied on its way to whoever reads it."""

    def __init__(self, exchange: Exchange, dialect: Dialect, operation: str, stream: bool) -> None:
        super().__init__(exchange)
        self._dialect = dialect
        self._operation = operation
        self._stream = stream
        self._parts: list[bytes] = []
        self._room = COPY_MAX
        self._cut = False

    async def read(self, limit: int = 1 << 20) -> bytes:
        return self._copied(await self._exchange.read(limit))

    async def chunk(self) -> bytes:
        return self._copied(await self._exchange.chunk())

    def _copied(self, data: bytes) -> bytes:
        if data and self._room > 0:
            self._parts.append(data[: self._room])
        self._room -= len(data)
        self._cut = self._room < 0
        return data

    def heard(self) -> Heard:
        """What was said; an answer that cannot be made out said nothing."""
        return made_out(b"".join(self._parts), self._dialect, self._operation, stream=self._stream, cut=self._cut)


def made_out(data: bytes, dialect: Dialect, operation: str, *, stream: bool, cut: bool = False) -> Heard:
    """What the bytes of an answer said, whole or in events; of what cannot be made out as much as could be."""
    listener = _Listener()
    native = operation in ("completions", "responses")
    try:
        if stream:
            _follow(data, dialect, listener, native=native)
        else:
            body = parse(data)
            listener.take(body if native else dialect.answer(body, model="", created=0, id=""))
    except (DialectError, _scan.ScanError):
        pass  # the relay has told whoever asked what it made of it; of a copy that was cut the rest is missing
    return Heard("".join(listener.texts), listener.finish, listener.calls, cut)


def _follow(data: bytes, dialect: Dialect, listener: _Listener, *, native: bool) -> None:
    splitter, chunks = _scan.EventSplitter(), _scan.EventSplitter()
    translator = dialect.stream(model="", created=0, id="", include_usage=False)
    for event, payload in splitter.feed(data):
        if payload == b"[DONE]":
            return
        if native:
            listener.take(parse(payload))
            continue
        for chunk in translator.feed(event, payload):
            for _, said in chunks.feed(chunk):
                listener.take(parse(said))


class _Listener:
    """The first choice of an answer, out of chat, completions and responses, whole or in events."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.finish: str | None = None
        self.calls = 0

    def take(self, said: Any) -> None:
        if not isinstance(said, dict):
            return
        for choice in _items(said.get("choices")):
            if isinstance(choice, dict) and not choice.get("index"):
                self._choice(choice)
        kind = said.get("type")
        if kind == "response.output_text.delta":
            self._say(said.get("delta"))
        elif kind in ("response.completed", "response.incomplete"):
            told = said.get("response")
            self._close(told if isinstance(told, dict) else {})
        elif said.get("object") == "response":
            self._close(said)
            for item in _items(said.get("output")):
                for part in _items(item.get("content")) if isinstance(item, dict) else ():
                    self._say(part.get("text") if isinstance(part, dict) else None)

    def _close(self, response: dict[str, Any]) -> None:
        status = response.get("status")
        self.finish = status if isinstance(status, str) else None
        items = _items(response.get("output"))
        self.calls = sum(isinstance(item, dict) and item.get("type") == "function_call" for item in items)

    def _choice(self, choice: dict[str, Any]) -> None:
        message = choice.get("delta") or choice.get("message")
        if isinstance(message, dict):
            self._say(message.get("content"))
            # In a stream only what opens a call has its name.
            self.calls += sum(map(_is_opened, _items(message.get("tool_calls"))))
        self._say(choice.get("text"))
        finish = choice.get("finish_reason")
        if isinstance(finish, str):
            self.finish = finish

    def _say(self, text: Any) -> None:
        if isinstance(text, str):
            self.texts.append(text)


def _items(found: Any) -> list[Any]:
    """A list of an answer; a provider may have put anything in its place."""
    return found if isinstance(found, list) else []


def _is_opened(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and bool(function.get("name"))


def prompt_text(body: bytes) -> str:
    """A request as the last words of its user, for who judges an answer to them; what tools said stands in between."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    for name in ("messages", "input", "contents", "prompt"):
        found = asked.get(name) if isinstance(asked, dict) else None
        if isinstance(found, str):
            return found
        if isinstance(found, list) and found:
            users = (message for message in reversed(found) if _is_users(message))
            return next(filter(None, ("".join(_words(message)) for message in users)), "")
    return ""


def _is_users(message: Any) -> bool:
    if not isinstance(message, dict):
        return True
    role = message.get("role")
    return role == "user" or (role is None and "type" not in message)


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict) and value.get("type") != "tool_result":
        return [word for key in ("content", "parts", "text") for word in _words(value.get(key))]
    if isinstance(value, list):
        return [word for part in value for word in _words(part)]
    return []
