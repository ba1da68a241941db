"""A worker's socket to the bookkeeper: whole messages out of bytes, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import msgspec

from fastroute.ledger import protocol


class Wire(asyncio.Protocol):
    """The socket: whole frames out of bytes and back. `over` is done when it is."""

    def __init__(self, received: Callable[[protocol.Reply], None]) -> None:
        self._received = received
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def unread(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, question: protocol.Question) -> None:
        if self._transport is not None:
            self._transport.write(protocol.frame(question))

    def leave(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 4:
            size = int.from_bytes(buffer[start : start + 4], "big")
            if size > protocol.FRAME_MAX:
                self.leave()
                return
            if len(buffer) - start - 4 < size:
                break
            try:
                reply = protocol.reply(bytes(buffer[start + 4 : start + 4 + size]))
            except msgspec.DecodeError:
                self.leave()
                return
            start += 4 + size
            self._received(reply)
        del buffer[:start]

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self.over.done():
            self.over.set_result(None)
