"""The placeholder: a model that needs no provider and always answers `Hello world`.

It is an upstream in the process, speaking OpenAI's dialect: a body where others send one, events where others stream.
"""

from __future__ import annotations

from typing import Final

import orjson

from fastroute.domain import Usage
from fastroute.upstreams.dialect import Body, assistant, chat_usage, completion
from fastroute.upstreams.openai import OpenAI

TEXT: Final = "Hello world"


class Dummy(OpenAI):
    """Any model whose name starts with `dummy`; nothing is sent anywhere and nothing is charged."""

    name = "dummy"

    def body(self, model: str, *, created: int, hex: str) -> Body:  # noqa: A002 - the id's own word for its digits
        """The whole answer; its id is `cmpl-` and the digits handed in."""
        choice = {"index": 0, "message": assistant(TEXT, "", []), "logprobs": None, "finish_reason": "stop"}
        return completion([choice], Usage(), model=model, created=created, id=f"cmpl-{hex}")

    def events(self, model: str, *, created: int, hex: str) -> list[tuple[str, bytes]]:  # noqa: A002 - as above
        """The same as split SSE events: three chunks, the usage, `[DONE]`; they go through `stream` like anyone's."""
        head = {"id": f"cmpl-{hex}", "object": "chat.completion.chunk", "created": created, "model": model}
        first, second = TEXT.split(" ")
        deltas: tuple[Body, ...] = ({"role": "assistant", "content": first}, {"content": f" {second}"}, {})
        chunks: list[Body] = []
        for delta in deltas:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None if delta else "stop"}
            chunks.append({**head, "choices": [choice]})
        chunks.append({**head, "choices": [], "usage": chat_usage(Usage())})
        return [*(("", orjson.dumps(chunk)) for chunk in chunks), ("", b"[DONE]")]
