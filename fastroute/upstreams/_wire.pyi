"""The upstream connection: a strict keep-alive HTTP/1.1 client as an asyncio protocol."""

import asyncio
from typing import Final, Protocol

from fastroute.upstreams._reply import Reply
from fastroute.upstreams.faults import FaultKind

READ_MAX: Final[int]
"""What `Exchange.read` accepts unless told otherwise: 64 MiB."""

class _Deadlines(Protocol):
    @property
    def connect_ms(self) -> int | None: ...
    @property
    def first_chunk_ms(self) -> int | None: ...
    @property
    def idle_ms(self) -> int | None: ...
    @property
    def total_ms(self) -> int | None: ...
    @property
    def pool_ms(self) -> int | None: ...
    @property
    def write_ms(self) -> int | None: ...

class _Lane(Protocol):
    """What a connection tells its owner, always from within the event loop."""

    def release(self, connection: Connection) -> None:
        """The connection is clean and free for another turn."""

    def lost(self, connection: Connection) -> None:
        """The connection is closed; its slot is free."""

    def gone(self, connection: Connection) -> None:
        """Its socket is closed too."""

    def again(self, turn: Turn) -> None:
        """A kept connection was dead before any answer byte: the turn needs a fresh one, once."""

    def left(self, turn: Turn) -> None:
        """A waiting turn was told to stop."""

class Turn(Reply):
    """One request on its way: queued, then on a connection, then over."""

    def __init__(
        self, lane: _Lane, loop: asyncio.AbstractEventLoop, prefix: bytes, body: bytes, deadlines: _Deadlines
    ) -> None: ...
    @property
    def waiting(self) -> bool:
        """On no connection and not over."""

    @property
    def total_at(self) -> float: ...
    @property
    def retried(self) -> bool: ...
    @property
    def reused(self) -> bool: ...
    def slot_by(self) -> float:
        """Until when this turn may wait for a slot; infinite without deadlines."""

    def connect_by(self) -> float:
        """Until when a connection may be opened for this turn, asked when the opening begins.

        A retry counts its connect deadline anew, but neither the first-chunk deadline nor the total one.
        """

    def refuse(self, kind: FaultKind, words: str, timed_out: bool = False) -> None:
        """End a waiting turn with a fault."""

class Connection(asyncio.Protocol):
    """One socket to an origin, serving one turn at a time; it belongs to its lane until it is closed.

    It has the methods of a protocol; at run time it inherits nothing.
    """

    def __init__(self, lane: _Lane, loop: asyncio.AbstractEventLoop) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def early(self) -> bool:
        """Bytes came before any request was sent."""

    @property
    def idle_since(self) -> float: ...
    @property
    def served(self) -> int:
        """How many requests were sent on it."""

    def begin(self, turn: Turn) -> bool:
        """Send a turn's request; False, with nothing sent, when the connection turns out to be dead."""

    def close(self) -> int:
        """Close the socket at once and stop its turn; the slot is free when this returns."""

class Exchange:
    """A caller's hold on one request and its answer. One reader at a time.

    Every await either returns or raises `UpstreamFault`. Bytes that arrived before a fault are handed out before it is
    raised by `chunk`; `read` raises it at once. A reader that is cancelled stops the exchange, and so does dropping it.
    """

    def __init__(
        self, lane: _Lane, loop: asyncio.AbstractEventLoop, prefix: bytes, body: bytes, deadlines: _Deadlines
    ) -> None: ...
    @property
    def turn(self) -> Turn: ...
    @property
    def status(self) -> int: ...
    @property
    def sent(self) -> bool:
        """Whether any byte of the request may have left."""

    @property
    def reused(self) -> bool:
        """The request first left on a kept connection."""

    @property
    def retried(self) -> bool:
        """That connection was dead before any answer byte, and the request was sent once more on a fresh one."""

    @property
    def until_close(self) -> bool:
        """Only the end of the connection ends this body, so its completeness is the peer's word."""

    @property
    def complete(self) -> bool:
        """The whole answer has arrived; the connection is already free."""

    @property
    def first_byte_at(self) -> float | None:
        """The instant of the first answer byte on the loop's clock."""

    @property
    def age(self) -> float:
        """Seconds since the exchange was asked for."""

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, in any case of letters."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Every header in order, names in lower case."""

    def committed(self) -> None:
        """Content has come: the first-chunk deadline ends and the idle deadline begins."""

    def stop(self) -> None:
        """Close the socket at once, unless the whole answer has arrived; a waiting reader gets the fault `stopped`."""

    def answer(self) -> bool:
        """Whether the final head is here; raises the fault when it will not come."""

    def coming(self) -> asyncio.Future[None]:
        """Done once `answer` has something to say. Cancelling it stops nothing: that is for its awaiter to do."""

    def taken(self) -> bytes:
        """What `read` gives, of an answer that is complete; so nobody has to wait for it."""

    async def read(self, limit: int = READ_MAX) -> bytes:
        """The rest of the body, whole; the fault `limit` when it is larger."""

    async def chunk(self) -> bytes:
        """Everything that has arrived since the last call, waiting for some; empty at the clean end."""
