"""Routes of OpenAI's that are not interpreted here: moderations, speech, pictures, reranking and whatever comes next.

The body, JSON or a form, passes with nothing but `model` changed and the answer byte for byte, of any content type and
with any status that means success. They are placed, reserved, settled and metered like every other request.
"""

from __future__ import annotations

import re
from typing import Final

from fastroute import _core
from fastroute.call import Call, Surface
from fastroute.domain import Entry, ModelRef
from fastroute.errors import FastrouteError
from fastroute.forms import Form, FormError, boundary_of
from fastroute.gateway import CONTEXT_UNKNOWN, NAME_MAX, Gateway, bad_name
from fastroute.relay import Failed
from fastroute.web import telling

_ROUTE: Final = re.compile(r"(?:/openai)?(/v1/([a-z0-9_-]+)(?:/[A-Za-z0-9_-]+)*)")
# What a provider answers without keeping anything of it. Whatever else an account offers (keys, files, jobs, agents) is
# its owner's, and all callers share the account.
_SHARED: Final = frozenset({
    "audio", "classifications", "classify", "detokenize", "fim", "image", "images", "moderations", "ocr", "pooling",
    "rerank", "score", "tokenize",
})  # fmt: skip


_BODILESS: Final = (204, 205)
# What a model is called that its provider chooses by itself.
UNNAMED: Final = "default"


class Torn(FastrouteError):
    """An answer broke off after its first bytes; the server ends the connection, for nothing else would tell."""


def surface_of(path: str) -> Surface | None:
    """What is asked of a provider at a path that has no door; None for what is not passed through."""
    found = _ROUTE.fullmatch(path)
    if found is None or found[2] not in _SHARED:
        return None
    return Surface(found[1], found[1], "openai", None)


def boundary(surface: Surface, content_type: bytes) -> bytes | None:
    """The boundary of a body that is a form, None for JSON; `Failed` for anything else."""
    if content_type.startswith(b"application/json"):
        return None
    found = boundary_of(content_type)
    if found is None:
        message = f"only JSON and multipart/form-data with a boundary are passed on to {surface.operation}"
        raise Failed(415, "invalid_request_error", "unsupported_content_type", message, closes=True)
    return found


def read(gateway: Gateway, call: Call, body: bytes, content_type: bytes, mark: bytes) -> None:
    """What `Gateway.read` does for JSON, for a form; its content type goes up as it came, with its boundary."""
    try:
        form = Form(body, mark)
    except FormError as error:
        gateway.metrics.bad_json("form")
        raise Failed(
            400, "invalid_request_error", "invalid_form", f"the body cannot be read: {error.message}", param=error.param
        ) from None
    call.body = body
    call.form = form
    call.passed = {**call.passed, "content-type": content_type.decode("latin-1")}
    call.stream = form.stream
    call.choices = form.n
    call.model = form.model or ""
    if len(call.model) > NAME_MAX or not call.model.isprintable():
        raise bad_name()
    window = CONTEXT_UNKNOWN if form.files else _core.UNKNOWN
    call.input_bound = _core.token_bound(form.text_bytes, 0, 0, form.files, window)


async def serve(gateway: Gateway, call: Call) -> None:
    """Relay one answer that nobody here reads."""
    if call.form is not None and call.form.model is None:
        _to_the_only_one(gateway, call)
    else:
        gateway.plan(call)
    writer = OpaqueWriter(call)
    try:
        await gateway.relay.stream(call, writer)
    except Failed as failed:
        await telling.refusal(call, failed)


def _to_the_only_one(gateway: Gateway, call: Call) -> None:
    """A form may leave the model to its provider, where one provider alone can be meant; what it costs is not known."""
    providers = gateway.config.providers
    able = [name for name, provider in providers.items() if provider.dialect == "openai" and provider.base_url]
    if len(able) != 1 or call.account.models is not None:
        message = "you must provide a model: it says which provider is meant"
        raise Failed(400, "invalid_request_error", "model_required", message, param="model")
    name = able[0]
    call.decision_id = gateway.ids.decision()
    call.entries = [Entry(f"{name}:{UNNAMED}", ModelRef(name, UNNAMED), name)]
    call.reason = "only_provider"


class OpaqueWriter:
    """The head once, then bytes; a body that breaks off is torn rather than ended."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._begun = False

    async def begin(self, call: Call, entry: Entry) -> None:
        if self._begun:
            return
        self._begun = True
        call.status = call.answered
        headers = telling.head(call, entry)
        if self._whole:
            headers += telling.accounts(call)
        if call.status not in _BODILESS:
            headers.append((b"content-type", call.content_type or b"application/octet-stream"))
        if call.content_type.startswith(b"text/event-stream"):
            headers += telling.UNBUFFERED
        await call.send({"type": "http.response.start", "status": call.status, "headers": headers})

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
