"""Answers outside the data plane's doors: JSON, and errors in the envelope of whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from fastroute.callers import CALLERS, Caller
from fastroute.relay import Failed
from fastroute.web import telling


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


def error(request: Request, failed: Failed, headers: Mapping[str, str] | None = None) -> JSON:
    """A refusal in the asker's own envelope, with the names it can be asked about by."""
    name = request.app.gateway.ids.request()
    body = telling.worded(caller_of(request.headers, request.scope["path"]), name, failed)
    told = {"x-request-id": name, "request-id": name, "x-router-request-id": name, **(headers or {})}
    return refused(request, failed, body, told)


def refused(request: Request, failed: Failed, body: Any, headers: Mapping[str, str] | None = None) -> JSON:
    """A refusal in the words of its surface, with what it says in its headers."""
    told = {**(headers or {}), **{name.decode(): value.decode() for name, value in failed.headers}}
    if failed.retry_after_s is not None:
        told["retry-after"] = str(failed.retry_after_s)
    if failed.closes:
        told["connection"] = "close"
        request.app.data.count(failed.code)
    return JSON(body, failed.status, told)
