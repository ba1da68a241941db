"""pydantic-ai: an agent that answers, streams, uses a tool, returns a typed result, over chat and Responses; an error."""

from __future__ import annotations

import asyncio
import os
import sys

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=os.environ["FASTROUTE_URL"] + "/v1", api_key="any")


class Weather(BaseModel):
    city: str
    degrees: int


async def main() -> None:
    for kind in (OpenAIChatModel, OpenAIResponsesModel):
        model = kind("demo-small", provider=provider)
        told = await Agent(model).run("Hello")
        assert told.output
        assert told.usage.total_tokens > 0

        async with Agent(model).run_stream("Hello") as stream:
            pieces = [piece async for piece in stream.stream_text(delta=True)]
        assert "".join(pieces) == told.output

        assert isinstance((await Agent(model, output_type=Weather).run("Weather?")).output, Weather)

        asked = []
        agent = Agent(model)

        @agent.tool_plain
        def get_weather(city: str, seen: list[str] = asked) -> str:
            """The weather in a city."""
            seen.append(city)
            return "sunny"

        assert (await agent.run("Use get_weather to tell the weather in Paris")).output

        try:
            await Agent(kind("no-such-model", provider=provider)).run("Hello")
            sys.exit("an unknown model was answered")
        except ModelHTTPError as error:
            if error.status_code != 404:
                raise


asyncio.run(main())
