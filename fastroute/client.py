"""Asking a router where a step should run: `RouteClient`, and `AsyncRouteClient` for those who await.

One request for one call: nothing is repeated, no redirect is followed, and what the router says comes back as a frozen
struct of `routed` or as one of the errors here. A key is in no message and no repr.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from functools import cache
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec

from fastroute import __version__, routed
from fastroute.domain import Descriptor
from fastroute.ledger.tokens import masked
from fastroute.routed import GrantStatus, RouteError, RouteResponse

TIMEOUT_S: Final = 30.0
_SHOWN_MAX: Final = 500
_SECRET_MIN: Final = 8
_ID: Final = re.compile(r"[A-Za-z0-9_-]+")


class RouteHTTPError(RouteError):
    """The router answered, and not with 2xx: its `status`, and its `body` (JSON's own types, or text if it is none)."""

    def __init__(self, status: int, body: Any) -> None:
        self.status = status
        self.body = body
        text = body if isinstance(body, str) else msgspec.json.encode(body).decode()
        shown = text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."
        super().__init__(f"the router answered {status}: {shown}")


class RouteTransportError(RouteError):
    """No answer came, and `reason` says why; whether the router has acted is not known."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the router gave no answer: {reason}")


class _Question(msgspec.Struct, frozen=True):
    """One request, as far as it depends on what is asked."""

    method: str
    path: str
    headers: dict[str, str] = {}
    content: bytes | None = None


class _Asker:
    """What both clients share: how a question is worded and how an answer is taken."""

    def __init__(self, base_url: str, key: str) -> None:
        self.base_url = _base(base_url)
        self._key = _sendable(key, "key")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, key={masked(self._key)})"

    @property
    def _always(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key}", "user-agent": f"fastroute/{__version__}"}

    def _taken(self, answer: httpx.Response) -> bytes:
        if answer.is_success:
            return answer.content
        raise RouteHTTPError(answer.status_code, self._told(answer.content))

    def _told(self, content: bytes) -> Any:
        """An error's body without any key in it: ours, or one that looks like one."""
        # Only who is refused pays for what this draws in.
        from fastroute.redaction import scrub_text

        text = scrub_text(self._without_key(content.decode(errors="replace")))
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return text

    def _lost(self, error: httpx.RequestError) -> RouteTransportError:
        kind = type(error).__name__
        text = self._without_key(str(error))
        return RouteTransportError(f"{kind}: {text}" if text else kind)

    def _without_key(self, text: str) -> str:
        # A short one is a word like any other, and no secret.
        return text.replace(self._key, masked(self._key)) if len(self._key) >= _SECRET_MIN else text


class RouteClient(_Asker):
    """A router at `base_url`, asked with one key. Threads may share it; `close` it, or use it in a `with`.

    `base_url` is where the router is, without `/v1/route` (a trailing `/v1` is taken off). `timeout_s` is the longest
    wait for a connection, and the longest silence after it. Every method raises `RouteHTTPError` for an answer that is
    not 2xx, `RouteTransportError` when there is none, `RouteResponseError` for one that says nothing.
    """

    def __init__(self, base_url: str, key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(base_url, key)
        self._http = httpx.Client(timeout=timeout_s, headers=self._always, verify=_trust())

    def route(
        self,
        descriptor: Descriptor | Mapping[str, Any],
        *,
        workflow_id: str | None = None,
        step_id: str | None = None,
        parent_step_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> RouteResponse:
        """A placement and its grant, or why nothing fits; the same `idempotency_key` gets the same grant for a day."""
        ids = {"workflow_id": workflow_id, "step_id": step_id, "parent_step_id": parent_step_id}
        return routed.decode(self._send(_placing("/v1/route", descriptor, ids, idempotency_key)))

    def explain(
        self,
        descriptor: Descriptor | Mapping[str, Any],
        *,
        workflow_id: str | None = None,
        step_id: str | None = None,
        parent_step_id: str | None = None,
    ) -> RouteResponse:
        """What `route` would decide now, with no grant minted and nothing recorded."""
        ids = {"workflow_id": workflow_id, "step_id": step_id, "parent_step_id": parent_step_id}
        return routed.decode(self._send(_placing("/v1/route/explain", descriptor, ids)))

    def grant(self, grant_id: str) -> GrantStatus:
        """How a grant stands: its state, and what of its money is spent, held and left."""
        return routed.decode_status(self._send(_about(grant_id, "GET")))

    def revoke(self, grant_id: str) -> GrantStatus:
        """End a grant; what it has not spent goes back to the key it came from."""
        return routed.decode_status(self._send(_about(grant_id, "DELETE")))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, asked: _Question) -> bytes:
        try:
            answer = self._http.request(
                asked.method, self.base_url + asked.path, headers=asked.headers, content=asked.content
            )
        except httpx.RequestError as error:
            raise self._lost(error) from None
        return self._taken(answer)


class AsyncRouteClient(_Asker):
    """`RouteClient` for those who await: the same methods, answers and errors, on one event loop."""

    def __init__(self, base_url: str, key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(base_url, key)
        self._http = httpx.AsyncClient(timeout=timeout_s, headers=self._always, verify=_trust())

    async def route(
        self,
        descriptor: Descriptor | Mapping[str, Any],
        *,
        workflow_id: str | None = None,
        step_id: str | None = None,
        parent_step_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> RouteResponse:
        """A placement and its grant, or why nothing fits; the same `idempotency_key` gets the same grant for a day."""
        ids = {"workflow_id": workflow_id, "step_id": step_id, "parent_step_id": parent_step_id}
        return routed.decode(await self._send(_placing("/v1/route", descriptor, ids, idempotency_key)))

    async def explain(
        self,
        descriptor: Descriptor | Mapping[str, Any],
        *,
        workflow_id: str | None = None,
        step_id: str | None = None,
        parent_step_id: str | None = None,
    ) -> RouteResponse:
        """What `route` would decide now, with no grant minted and nothing recorded."""
        ids = {"workflow_id": workflow_id, "step_id": step_id, "parent_step_id": parent_step_id}
        return routed.decode(await self._send(_placing("/v1/route/explain", descriptor, ids)))

    async def grant(self, grant_id: str) -> GrantStatus:
        """How a grant stands: its state, and what of its money is spent, held and left."""
        return routed.decode_status(await self._send(_about(grant_id, "GET")))

    async def revoke(self, grant_id: str) -> GrantStatus:
        """End a grant; what it has not spent goes back to the key it came from."""
        return routed.decode_status(await self._send(_about(grant_id, "DELETE")))

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(self, asked: _Question) -> bytes:
        try:
            answer = await self._http.request(
                asked.method, self.base_url + asked.path, headers=asked.headers, content=asked.content
            )
        except httpx.RequestError as error:
            raise self._lost(error) from None
        return self._taken(answer)


@cache
def _trust() -> ssl.SSLContext:
    """Whom TLS trusts. Reading the certificates takes 50 ms, so clients of one process share them."""
    return httpx.create_ssl_context()


def _placing(
    path: str,
    descriptor: Descriptor | Mapping[str, Any],
    ids: Mapping[str, str | None],
    idempotency_key: str | None = None,
) -> _Question:
    """A descriptor and the step's names; the router checks it, so a mapping goes as it stands."""
    if isinstance(descriptor, Descriptor):
        described = {name: value for name, value in msgspec.to_builtins(descriptor).items() if value is not None}
    else:
        described = dict(descriptor)
    body = {**described, **{name: value for name, value in ids.items() if value is not None}}
    headers = {"content-type": "application/json"}
    if idempotency_key is not None:
        headers["idempotency-key"] = _sendable(idempotency_key, "idempotency_key")
    return _Question("POST", path, headers, msgspec.json.encode(body))


def _about(grant_id: str, method: str) -> _Question:
    # An id with a slash or dots in it would ask about something else.
    if not _ID.fullmatch(grant_id):
        raise ValueError(f"a grant's id is letters, digits, - and _, not {grant_id[:60]!r}")
    return _Question(method, f"/v1/grants/{grant_id}")


def _base(url: str) -> str:
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"base_url cannot be read: {error}") from None
    if found.userinfo or found.query or found.fragment:
        raise ValueError("base_url carries a user, a query or a fragment; a router's key is given as `key`")
    if found.scheme not in ("http", "https") or not found.host:
        raise ValueError(f"base_url begins with http:// or https:// and a host, not {url[:60]!r}")
    return str(found).rstrip("/").removesuffix("/v1").rstrip("/")


def _sendable(value: str, what: str) -> str:
    """A value that a header may carry; the message does not repeat it."""
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f"{what} is printable ASCII without spaces; is there a line break at its end, or is it empty?")
    return value
