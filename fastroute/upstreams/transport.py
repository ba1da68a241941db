"""The pool as httpx sees it, for plugins, cold paths and everything that expects a client.

A file of its own, because importing httpx takes 60 ms, which whoever only asks a model need not wait for.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Final

import httpx

from fastroute.upstreams._wire import READ_MAX, Exchange
from fastroute.upstreams.faults import FaultKind, UpstreamFault
from fastroute.upstreams.pool import WIRE_HEADERS, Deadlines, Origin, Pool, request_head

# Where httpx says None: eleven days.
_UNBOUNDED_MS: Final = 10**9


class Transport(httpx.AsyncBaseTransport):
    """The pool as an httpx transport: for plugins, cold paths and everything that expects a client.

    The environment plays no role here and redirects are the client's affair. Request streams are collected before they
    are sent. The pool belongs to whoever made it and outlives the client.
    """

    def __init__(self, pool: Pool, *, tls: ssl.SSLContext | None = None, connections_max: int = 512) -> None:
        self._pool = pool
        self._tls = tls
        self._connections_max = connections_max
        self._origins: dict[tuple[str, str, int], Origin] = {}
        # httpx asks for compression on its own; a caller's wish is what differs from that.
        self._unasked = httpx.AsyncClient(transport=httpx.MockTransport(_refuse), trust_env=False).headers[
            "accept-encoding"
        ]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        head = self._head(request)
        body = await _collect(request)
        timeout = request.extensions.get("timeout", {})
        read_ms = _milliseconds(timeout.get("read"))
        deadlines = Deadlines(
            connect_ms=_milliseconds(timeout.get("connect")),
            first_chunk_ms=read_ms,
            idle_ms=read_ms,
            total_ms=None,
            pool_ms=_milliseconds(timeout.get("pool"), without=_UNBOUNDED_MS),
            write_ms=_milliseconds(timeout.get("write")),
        )
        try:
            exchange = await self._pool.exchange(self._origin(request), head, body, deadlines)
        except UpstreamFault as fault:
            raise _httpx_error(fault, request) from fault
        exchange.committed()
        return httpx.Response(
            exchange.status,
            headers=exchange.headers(),
            stream=_Answer(exchange, request),
            extensions={"http_version": b"HTTP/1.1"},
        )

    def _origin(self, request: httpx.Request) -> Origin:
        url = request.url
        key = (url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80))
        if key not in self._origins:
            self._origins[key] = Origin(*key, tls=self._tls, connections_max=self._connections_max)
        return self._origins[key]

    def _head(self, request: httpx.Request) -> bytes:
        if request.url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"{request.url.scheme!r} is not spoken here", request=request)
        try:
            named = [(name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw]
            headers = [
                (name, value)
                for name, value in named
                if name.lower() not in WIRE_HEADERS and (name.lower(), value) != ("accept-encoding", self._unasked)
            ]
            host = request.headers.get("host", request.url.netloc.decode("ascii"))
            return request_head(request.method, request.url.raw_path.decode("ascii"), host, headers)
        except ValueError as error:
            raise httpx.LocalProtocolError(str(error), request=request) from error


class _Answer(httpx.AsyncByteStream):
    """The body of an exchange as httpx reads it."""

    def __init__(self, exchange: Exchange, request: httpx.Request) -> None:
        self._exchange = exchange
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._exchange.chunk():
                yield chunk
        except UpstreamFault as fault:
            raise _httpx_error(fault, self._request) from fault

    async def aclose(self) -> None:
        self._exchange.stop()


def _refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.UnsupportedProtocol("this client sends nothing", request=request)


async def _collect(request: httpx.Request) -> bytes:
    if not isinstance(request.stream, httpx.AsyncByteStream):
        raise httpx.LocalProtocolError("an async client needs an async request stream", request=request)
    parts, size = [], 0
    async for part in request.stream:
        size += len(part)
        if size > READ_MAX:
            raise httpx.LocalProtocolError("a request body is collected up to 64 MiB", request=request)
        parts.append(part)
    return b"".join(parts)


def _milliseconds(seconds: float | None, without: int | None = None) -> int | None:
    return without if seconds is None else int(seconds * 1000)


_HTTPX: Final[dict[FaultKind, tuple[type[httpx.RequestError], type[httpx.RequestError]]]] = {
    # kind: (when something happened, when an instant passed)
    "dns": (httpx.ConnectError, httpx.ConnectTimeout),
    "connect": (httpx.ConnectError, httpx.ConnectTimeout),
    "connect_timeout": (httpx.ConnectTimeout, httpx.ConnectTimeout),
    "tls": (httpx.ConnectError, httpx.ConnectTimeout),
    "pool_timeout": (httpx.PoolTimeout, httpx.PoolTimeout),
    "write": (httpx.WriteError, httpx.WriteTimeout),
    "first_chunk": (httpx.ReadTimeout, httpx.ReadTimeout),
    "idle": (httpx.ReadTimeout, httpx.ReadTimeout),
    "total": (httpx.ReadTimeout, httpx.ReadTimeout),
    "cut": (httpx.ReadError, httpx.ReadError),
    "protocol": (httpx.RemoteProtocolError, httpx.RemoteProtocolError),
    "desync": (httpx.RemoteProtocolError, httpx.RemoteProtocolError),
    "encoding": (httpx.DecodingError, httpx.DecodingError),
    "limit": (httpx.ReadError, httpx.ReadError),
    "stopped": (httpx.ReadError, httpx.ReadError),
    "loading": (httpx.ConnectError, httpx.ConnectTimeout),
    "unloadable": (httpx.ConnectError, httpx.ConnectError),
}


def _httpx_error(fault: UpstreamFault, request: httpx.Request) -> httpx.RequestError:
    return _HTTPX[fault.kind][fault.timed_out](str(fault), request=request)
