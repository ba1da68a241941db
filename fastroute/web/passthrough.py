"""Routes of OpenAI's that are not interpreted here: moderations, speech, pictures, reranking and whatever comes next.

The body passes with nothing but `model` changed and the answer byte for byte, of any content type. They are placed,
reserved, settled and metered like every other request.
"""

from __future__ import annotations

import re
from typing import Final

from fastroute.call import Call, Surface
from fastroute.domain import Entry
from fastroute.errors import FastrouteError
from fastroute.gateway import Gateway
from fastroute.relay import Failed
from fastroute.web import telling

_ROUTE: Final = re.compile(r"(?:/openai)?(/v1/([a-z0-9_-]+)(?:/[A-Za-z0-9_-]+)*)")
# What a provider answers without keeping anything of it. Whatever else an account offers (keys, files, jobs, agents) is
# its owner's, and all callers share the account.
_SHARED: Final = frozenset({
    "audio", "classifications", "classify", "detokenize", "fim", "image", "images", "moderations", "ocr", "pooling",
    "rerank", "score", "tokenize",
})  # fmt: skip


class Torn(FastrouteError):
    """An answer broke off after its first bytes; the server ends the connection, for nothing else would tell."""


def surface_of(path: str) -> Surface | None:
    """What is asked of a provider at a path that has no door; None for what is not passed through."""
    found = _ROUTE.fullmatch(path)
    if found is None or found[2] not in _SHARED:
        return None
    return Surface(found[1], found[1], "openai", None)


async def serve(gateway: Gateway, call: Call) -> None:
    """Relay one answer that nobody here reads."""
    gateway.plan(call)
    writer = OpaqueWriter(call)
    try:
        await gateway.relay.stream(call, writer)
    except Failed as failed:
        await telling.refusal(call, failed)


class OpaqueWriter:
    """The head once, then bytes; a body that breaks off is torn rather than ended."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._begun = False

    async def begin(self, call: Call, entry: Entry) -> None:
        if self._begun:
            return
        self._begun = True
        call.status = 200
        headers = telling.head(call, entry)
        if self._whole:
            headers += telling.accounts(call)
        headers.append((b"content-type", call.content_type or b"application/octet-stream"))
        if call.content_type.startswith(b"text/event-stream"):
            headers += telling.UNBUFFERED
        await call.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(self, data: bytes) -> None:
        await self._call.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes) -> None:
        if not self._whole and not data:
            raise Torn("the provider's answer broke off")
        await self._call.send({"type": "http.response.body", "body": data, "more_body": False})

    def comment(self, call: Call) -> bytes:
        return b""

    @property
    def _whole(self) -> bool:
        final = self._call.final
        return final is not None and final.outcome == "ok"
