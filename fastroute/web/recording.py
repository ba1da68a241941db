"""An answer passed on while its caller listens, and written down for those who ask for it again."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from fastroute.call import Call

Headers = list[tuple[bytes, bytes]]


class Recorder:
    """Stands between a call and its caller from here on; `tag` is a header the caller reads and nobody else."""

    def __init__(self, call: Call, limit: int, tag: tuple[bytes, bytes] | None = None) -> None:
        self.status = 0
        self.headers: Headers = []
        self.done = False
        self._parts: list[bytes] = []
        self._size = 0
        self._limit = limit
        self._tag = tag
        self._send = call.send
        call.send = self.send

    @property
    def body(self) -> bytes | None:
        """All of it so far; None when it is longer than is written down."""
        return None if self._size > self._limit else b"".join(self._parts)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message["headers"])
            if self._tag is not None:
                message = {**message, "headers": [*self.headers, self._tag]}
        else:
            part: bytes = message.get("body", b"")
            self._size += len(part)
            if self._size <= self._limit:
                self._parts.append(part)
            else:
                self._parts.clear()
            self.done = not message.get("more_body", False)
        await self._send(message)
