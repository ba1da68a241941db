"""Google's own SDK: models, generate, stream, tools, count, an error."""

from __future__ import annotations

import os
import sys

from google import genai
from google.genai import errors, types

weather = types.FunctionDeclaration(
    name="get_weather",
    parameters=types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING")}, required=["city"]),
)
tools = types.GenerateContentConfig(
    tools=[types.Tool(function_declarations=[weather])],
    tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="ANY")),
)

for version in ("v1", "v1beta"):
    options = types.HttpOptions(base_url=os.environ["FASTROUTE_URL"], api_version=version)
    client = genai.Client(api_key="any", http_options=options)
    assert "models/demo-small" in [model.name for model in client.models.list()]

    reply = client.models.generate_content(model="demo-small", contents="Hello")
    assert reply.text
    assert reply.usage_metadata.total_token_count > 0

    pieces = [chunk.text or "" for chunk in client.models.generate_content_stream(model="demo-small", contents="Hello")]
    assert "".join(pieces) == reply.text
    assert len(pieces) > 1

    call = client.models.generate_content(model="demo-small", contents="Weather?", config=tools).function_calls[0]
    assert call.name == "get_weather"
    assert "city" in call.args

    stream = client.models.generate_content_stream(model="demo-small", contents="Weather?", config=tools)
    assert [call.name for chunk in stream for call in chunk.function_calls or []] == ["get_weather"]

    assert client.models.count_tokens(model="demo-small", contents="Hello there").total_tokens > 0
    assert len(client.models.embed_content(model="demo-embed", contents=["one", "two"]).embeddings) == 2

    try:
        client.models.generate_content(model="no-such-model", contents="Hello")
        sys.exit("an unknown model was answered")
    except errors.ClientError as error:
        if error.code != 404:
            raise
    client.close()
