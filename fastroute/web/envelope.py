"""Answers outside the data plane's doors: JSON, and errors in the envelope of whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from fastroute.callers import CALLERS, Caller
from fastroute.relay import Failed
from fastroute.web import reading, telling

BODY_READ: Final = "fastroute.body_read"  # set in a request's scope


class JSON(Response):
    """A JSON answer written by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def caller_of(headers: Mapping[str, str], path: str) -> Caller | None:
    """Whose dialect a request without a door is in, by what only their clients send; None is OpenAI's."""
    if "anthropic-version" in headers or path.startswith(("/anthropic/", "/v1/messages")):
        return CALLERS["messages"]
    if "x-goog-api-key" in headers or path.startswith("/v1beta/"):
        return CALLERS["gemini"]
    return None


async def error(request: Request, failed: Failed, headers: Mapping[str, str] | None = None) -> JSON:
    """A refusal in the asker's own envelope, with the names it can be asked about by."""
    name = request.app.gateway.ids.request()
    body = telling.worded(caller_of(request.headers, request.scope["path"]), name, failed)
    told = {"x-request-id": name, "request-id": name, "x-router-request-id": name, **(headers or {})}
    return await refused(request, failed, body, told)


async def refused(request: Request, failed: Failed, body: Any, headers: Mapping[str, str] | None = None) -> JSON:
    """A refusal in the words of its surface, with what it says in its headers."""
    told = {**(headers or {}), **{name.decode(): value.decode() for name, value in failed.headers}}
    if failed.retry_after_s is not None:
        told["retry-after"] = str(failed.retry_after_s)
    if failed.closes or not await _is_read(request):
        told["connection"] = "close"
    if failed.closes:
        request.app.data.count(failed)
    return JSON(body, failed.status, told)


async def _is_read(request: Request) -> bool:
    """Whether nothing of the body is left: what follows one that is not read cannot be found."""
    if BODY_READ in request.scope:
        return True
    try:
        length = reading.length_of(reading.look(request.scope["headers"]), reading.UNWANTED_MAX)
    except Failed:
        return False
    return await reading.passed_over(request.receive, length)
