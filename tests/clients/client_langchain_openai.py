"""LangChain's OpenAI classes: invoke, stream, tools, structured output, Responses, embeddings, an error."""

from __future__ import annotations

import os
import sys

import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

base = {"base_url": os.environ["FASTROUTE_URL"] + "/v1", "api_key": "any", "max_retries": 0}


class Weather(BaseModel):
    """What the sky does."""

    city: str
    degrees: int


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


model = ChatOpenAI(model="demo-small", **base)
reply = model.invoke("Hello")
assert reply.content
assert reply.usage_metadata["total_tokens"] > 0

chunks = list(model.stream("Hello", stream_usage=True))
assert "".join(chunk.content for chunk in chunks) == reply.content
assert sum(chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata) > 0

armed = model.bind_tools([get_weather], tool_choice="required")
assert armed.invoke("Weather?").tool_calls[0]["name"] == "get_weather"
gathered = None
for chunk in armed.stream("Weather?"):
    gathered = chunk if gathered is None else gathered + chunk
assert [call["name"] for call in gathered.tool_calls] == ["get_weather"]

for method in ("json_schema", "function_calling"):
    assert isinstance(model.with_structured_output(Weather, method=method).invoke("Weather?"), Weather)

assert ChatOpenAI(model="demo-small", use_responses_api=True, **base).invoke("Hello").text

vectors = OpenAIEmbeddings(model="demo-embed", check_embedding_ctx_length=False, **base).embed_documents(["a", "b"])
assert len(vectors) == 2

try:
    ChatOpenAI(model="no-such-model", **base).invoke("Hello")
    sys.exit("an unknown model was answered")
except openai.NotFoundError:
    pass
