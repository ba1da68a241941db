"""The events of a streamed Response, numbered and in the order OpenAI's SDKs accumulate them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastroute.callers.blocks import Block, Blocks, Event, finish_of
from fastroute.callers.responses_reply import INCOMPLETE, item, item_id, part, response, told
from fastroute.callers.shape import Body, Reply, sse, usage_of
from fastroute.domain import Usage


class ResponseStream:
    """One streamed Response."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._blocks = Blocks()
        self._places: dict[int, int] = {}  # a block's place in the answer, to its output index
        self._output: list[Body] = []
        self._sequence = 0
        self._usage: Usage | None = None
        self._started = self._ended = False

    def start(self) -> bytes:
        if self._started or self._ended:
            return b""
        self._started = True
        begun = response(self._reply, "in_progress", [])
        return self._say("response.created", response=begun) + self._say("response.in_progress", response=begun)

    def feed(self, chunk: Mapping[str, Any]) -> bytes:
        if self._ended:
            return b""
        if chunk.get("usage"):
            self._usage = usage_of(chunk["usage"])
        return self.start() + self._events(self._blocks.feed(chunk), "completed")

    def finish(self, usage: Usage | Mapping[str, Any] | None = None) -> bytes:
        if self._ended:
            return b""
        if self._blocks.finish_reason is None:
            return self.fail("server_error", "incomplete_stream", "The model's stream ended before its answer did")
        reason = INCOMPLETE.get(finish_of(self._blocks.finish_reason))
        status = "incomplete" if reason else "completed"
        out = self.start() + self._events(self._blocks.finish(), status)
        if self._output and reason:
            self._output[-1]["status"] = status
        self._ended = True
        counted = (self._usage or Usage()) if usage is None else usage_of(usage)
        return out + self._say(
            f"response.{status}", response=response(self._reply, status, self._output, counted, reason)
        )

    def fail(self, kind: str, code: str | None, message: str, status: int = 502) -> bytes:
        """`response.failed` for those who read the end, then an `error` that SDK loops raise on by themselves."""
        if self._ended:
            return b""
        out = self.start()
        self._ended = True
        failed = response(self._reply, "failed", self._output)
        failed["error"] = {"code": "rate_limit_exceeded" if status == 429 else "server_error", "message": message}
        out += self._say("response.failed", response=failed)
        plain = {"code": code, "message": message, "param": None}
        return out + self._say("error", **plain, error={"type": kind, **plain})

    def _say(self, event: str, **fields: Any) -> bytes:
        told: Body = {"type": event, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return sse(told, event)

    def _events(self, events: list[Event], status: str) -> bytes:
        """`status` is that of the last item closed here: an answer cut short ends in an unfinished item."""
        last = next((i for i in range(len(events) - 1, -1, -1) if events[i][0] == "close"), -1)
        out = []
        for i, (op, block, text) in enumerate(events):
            if not told(block, self._reply):
                continue
            place = self._places.setdefault(block.index, len(self._places))
            if op == "open":
                out.append(self._open(block, place))
            elif op == "more":
                out.append(self._more(block, place, text))
            else:
                out.append(self._close(block, place, status if i == last else "completed"))
        return b"".join(out)

    def _open(self, block: Block, place: int) -> bytes:
        begun = item(block, place, self._reply, "in_progress")
        out = self._say("response.output_item.added", output_index=place, item=begun)
        where = {"item_id": begun["id"], "output_index": place}
        if block.kind == "reasoning":
            return out + self._say(
                "response.reasoning_summary_part.added", **where, summary_index=0, part=part(block, begun=True)
            )
        if block.kind == "tool":
            return out
        return out + self._say("response.content_part.added", **where, content_index=0, part=part(block, begun=True))

    def _more(self, block: Block, place: int, text: str) -> bytes:
        where = {"item_id": item_id(block, place, self._reply), "output_index": place}
        if block.kind == "tool":
            return self._say("response.function_call_arguments.delta", **where, delta=text)
        if block.kind == "reasoning":
            return self._say("response.reasoning_summary_text.delta", **where, summary_index=0, delta=text)
        if block.kind == "refusal":
            return self._say("response.refusal.delta", **where, content_index=0, delta=text)
        return self._say("response.output_text.delta", **where, content_index=0, delta=text, logprobs=[])

    def _close(self, block: Block, place: int, status: str) -> bytes:
        done = item(block, place, self._reply, status)
        self._output.append(done)
        where = {"item_id": done["id"], "output_index": place}
        text = block.text
        if block.kind == "tool":
            out = self._say("response.function_call_arguments.done", **where, name=block.name, arguments=text)
        elif block.kind == "reasoning":
            out = self._say("response.reasoning_summary_text.done", **where, summary_index=0, text=text)
            out += self._say("response.reasoning_summary_part.done", **where, summary_index=0, part=part(block))
        elif block.kind == "refusal":
            out = self._say("response.refusal.done", **where, content_index=0, refusal=text)
            out += self._say("response.content_part.done", **where, content_index=0, part=part(block))
        else:
            out = self._say("response.output_text.done", **where, content_index=0, text=text, logprobs=[])
            out += self._say("response.content_part.done", **where, content_index=0, part=part(block))
        return out + self._say("response.output_item.done", output_index=place, item=done)
