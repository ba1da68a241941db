"""Mistral's own SDK: models, chat, stream, tools whole and streamed, an error."""

from __future__ import annotations

import json
import os
import sys

from mistralai.client import Mistral
from mistralai.client.errors import SDKError

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
HELLO = [{"role": "user", "content": "Hello"}]

with Mistral(api_key="any", server_url=os.environ["FASTROUTE_URL"]) as client:
    assert "demo-small" in [model.id for model in client.models.list().data]

    reply = client.chat.complete(model="demo-small", messages=HELLO)
    assert reply.choices[0].message.content
    assert reply.usage.total_tokens > 0

    pieces = [
        event.data.choices[0].delta.content or "" for event in client.chat.stream(model="demo-small", messages=HELLO)
    ]
    assert "".join(pieces) == reply.choices[0].message.content

    asked = {"model": "demo-small", "messages": HELLO, "tools": [TOOL], "tool_choice": "any"}
    call = client.chat.complete(**asked).choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)

    calls = [
        call
        for event in client.chat.stream(**asked)
        for choice in event.data.choices
        for call in choice.delta.tool_calls or []
    ]
    assert [call.function.name for call in calls] == ["get_weather"]
    assert "city" in json.loads(calls[0].function.arguments)

    assert len(client.embeddings.create(model="demo-embed", inputs=["one", "two"]).data) == 2

    try:
        client.chat.complete(model="no-such-model", messages=HELLO)
        sys.exit("an unknown model was answered")
    except SDKError as error:
        if error.status_code != 404:
            raise
