"""A chat answer as blocks, one after the other: reasoning, text, refusal, tool calls.

Other dialects close one block before they open the next. Chat deltas promise no such order: tool calls may interleave,
lose their index or repeat their name. `Blocks` puts them in order once, for every dialect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import orjson

Kind = Literal["reasoning", "text", "refusal", "tool"]
Op = Literal["open", "more", "close"]
CHOICES_MAX = 128  # as many as OpenAI makes of one request
FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")


class Block:
    """One stretch of an answer; `text` is what came so far, for a tool call its arguments."""

    __slots__ = ("_judged", "_whole", "closed", "extra", "id", "index", "kind", "name", "opened", "pieces", "signature")

    def __init__(self, kind: Kind, id: str = "", name: str = "") -> None:  # noqa: A002  the word of the dialects
        self.kind = kind
        self.index = -1  # its place in the answer, given when it opens
        self.id = id
        self.name = name
        self.signature = ""  # of signed reasoning
        self.extra: Mapping[str, Any] | None = None
        self.pieces: list[str] = []
        self.opened = False
        self.closed = False
        self._judged = 0
        self._whole = False

    @property
    def text(self) -> str:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    @property
    def whole(self) -> bool:
        """May the next block begin? Text always allows it; a call only when its arguments are a finished object."""
        if self.kind != "tool":
            return True
        if self._judged != len(self.pieces):  # reading all the arguments again costs their length: only after a change
            self._whole = self.pieces[-1].rstrip().endswith("}") and _is_object(self.text)
            self._judged = len(self.pieces)
        return self._whole


Event = tuple[Op, Block, str]


class Blocks:
    """Takes the chunks of one choice and gives events in which no two blocks overlap.

    A call whose arguments are not yet whole holds back what comes after it, until they are or the stream ends.
    """

    def __init__(self, choice: int = 0) -> None:
        self._choice = choice
        self._queue: list[Block] = []  # the head is live; the rest wait for it
        self._calls: dict[int, Block] = {}
        self._last_call: Block | None = None
        self.opened: list[Block] = []
        self.finish_reason: str | None = None
        self.stop_sequence: str | None = None

    def feed(self, chunk: Mapping[str, Any]) -> list[Event]:
        events: list[Event] = []
        for choice in choices_of(chunk):
            if index_of(choice) == self._choice:
                self._take(choice, events)
        return events

    def finish(self) -> list[Event]:
        """The stream has ended: everything held back comes out, and every block is closed."""
        events: list[Event] = []
        for block in self._queue:
            self._open(block, events)
            events.append(("close", block, ""))
            block.closed = True
        self._queue.clear()
        return events

    def _take(self, choice: Mapping[str, Any], events: list[Event]) -> None:
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self.finish_reason = reason
        stop = choice.get("stop_reason")
        if isinstance(stop, str):
            self.stop_sequence = stop
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            return
        reasoning = reasoning_of(delta)
        if reasoning:
            self._append(self._current("reasoning"), reasoning, events)
        signature = signature_of(delta)
        if signature:
            block = self._current("reasoning")
            self._append(block, "", events)
            block.signature = signature
        text = text_of(delta.get("content"))
        if text:
            self._append(self._current("text"), text, events)
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._append(self._current("refusal"), refusal, events)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, Mapping):
                self._call(call, events)

    def _current(self, kind: Kind) -> Block:
        """The block that text of this kind belongs to; a signature ends the reasoning it signs."""
        if not self._queue or self._queue[-1].kind != kind or self._queue[-1].signature:
            self._queue.append(Block(kind))
        return self._queue[-1]

    def _call(self, call: Mapping[str, Any], events: list[Event]) -> None:
        function = call.get("function")
        function = function if isinstance(function, Mapping) else {}
        given = call.get("id")
        call_id = given if isinstance(given, str) else ""
        said = function.get("name")
        name = said if isinstance(said, str) else ""
        block = self._find(call.get("index"), call_id, name)
        block.id = block.id or call_id
        block.name = block.name or name  # the first name holds: some servers repeat it in every delta
        extra = call.get("extra_content")
        if isinstance(extra, Mapping):
            block.extra = extra
        arguments = function.get("arguments")
        if isinstance(arguments, dict):  # json, not orjson: an upstream may write any number
            arguments = json.dumps(arguments, separators=(",", ":"), ensure_ascii=False)
        if not block.closed:
            self._append(block, arguments if isinstance(arguments, str) else "", events)

    def _find(self, index: Any, call_id: str, name: str) -> Block:
        """The call a delta belongs to; servers that lose the index, or give 0 to every call, still differ in the id."""
        if isinstance(index, int):
            block = self._calls.get(index)
        elif call_id:
            block = next((known for known in self._calls.values() if known.id == call_id), None)
        else:
            block = self._last_call
        fresh = block is None or bool(call_id and name and block.id and block.id != call_id)
        if block is None or fresh:
            block = Block("tool")
            self._queue.append(block)
            self._calls[index if isinstance(index, int) else len(self._calls)] = block
        self._last_call = block
        return block

    def _append(self, block: Block, text: str, events: list[Event]) -> None:
        if text:
            block.pieces.append(text)
        head = self._queue[0]
        if block is head and head.opened and text:
            events.append(("more", block, text))
        while True:
            head = self._queue[0]
            self._open(head, events)
            if len(self._queue) == 1 or not head.whole:
                return
            events.append(("close", head, ""))
            head.closed = True
            self._queue.pop(0)

    def _open(self, block: Block, events: list[Event]) -> None:
        if block.opened:
            return
        block.opened = True
        block.index = len(self.opened)
        self.opened.append(block)
        events.append(("open", block, ""))
        if block.pieces:
            events.append(("more", block, block.text))


def choices_of(chat: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The choices of an answer or a chunk that are objects at all."""
    choices = chat.get("choices")
    return [choice for choice in choices if isinstance(choice, Mapping)] if isinstance(choices, list) else []


def index_of(choice: Mapping[str, Any], default: int = 0) -> int:
    """The place of a choice; one that is no small number is not believed."""
    index = choice.get("index")
    believed = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < CHOICES_MAX
    return index if believed and index is not None else default


def blocks_of(choice: Mapping[str, Any]) -> list[Block]:
    """The blocks of a whole choice, in the order in which a stream would have told them."""
    message = choice.get("message")
    if not isinstance(message, Mapping):
        return []
    signed = message.get("thinking_blocks")
    deltas: list[dict[str, Any]] = [
        {"reasoning_content": block.get("thinking"), "thinking_blocks": [block]}
        for block in (signed if isinstance(signed, list) else ())
        if isinstance(block, Mapping) and block.get("type") == "thinking"
    ]
    rest = {**message, "tool_calls": _numbered(message.get("tool_calls"))}
    if deltas:  # the same reasoning stands in both places, but only there beside its signatures
        rest |= {"reasoning_content": None, "reasoning": None, "thinking_blocks": None}
    blocks = Blocks()
    for delta in [*deltas, rest]:
        blocks.feed({"choices": [{"index": 0, "delta": delta}]})
    blocks.finish()
    return blocks.opened


def _numbered(calls: Any) -> list[Any]:
    """The calls of a whole message, each with its place: an answer's calls carry no index."""
    calls = calls if isinstance(calls, list) else []
    return [{**call, "index": i} for i, call in enumerate(calls) if isinstance(call, Mapping)]


def finish_of(reason: Any) -> str:
    """A finish reason of the known set; what a server makes up counts as a plain stop."""
    return reason if isinstance(reason, str) and reason in FINISH_REASONS else "stop"


def text_of(content: Any) -> str:
    """The text of a content that is a string, or a list of parts as some servers send it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, Mapping)]
    return "".join(text for text in texts if isinstance(text, str))


def reasoning_of(message: Mapping[str, Any]) -> str:
    """The reasoning a message or delta carries, under either name in use."""
    for key in ("reasoning_content", "reasoning"):
        value = message.get(key)
        if isinstance(value, str) and value:
            return value
    return ""


def signature_of(message: Mapping[str, Any]) -> str:
    """The signature of the thinking a message or delta carries."""
    blocks = message.get("thinking_blocks")
    for block in blocks if isinstance(blocks, list) else ():
        if isinstance(block, Mapping) and isinstance(block.get("signature"), str):
            return str(block["signature"])
    return ""


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
