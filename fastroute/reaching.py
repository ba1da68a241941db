"""The desk, reached from outside the gateway: through the bookkeeper that runs on a state directory, or in its place.

While a server runs its bookkeeper answers; when none does the books are opened here, for this one visit.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from fastroute.config import Config
from fastroute.errors import StoreError
from fastroute.keeping import opened
from fastroute.ledger import protocol
from fastroute.ledger.door import BooksTaken, reachable, socket_path
from fastroute.ledger.parties import Letter
from fastroute.ledger.protocol import Answered, Ask, Who
from fastroute.ledger.teller import Declined

Asking = Callable[..., Any]

PATIENCE_S: Final = 10.0
# One that has just begun, or is about to end, answers within so long, or is gone.
_CHANGE_S: Final = 5.0
_LOOK_S: Final = 0.02


@contextmanager
def reach(config: Config) -> Iterator[Asking]:
    """`ask(operation, **arguments)`; it raises `Declined` with what the desk would not do."""
    until = time.monotonic() + _CHANGE_S
    while True:
        line = _connected(config.state_dir)
        if line is not None:
            with line:
                yield _by_wire(line)
            return
        try:
            with _alone(config) as ask:
                yield ask
            return
        except BooksTaken:
            if time.monotonic() >= until:
                message = f"the bookkeeper of {config.state_dir} runs and does not answer yet; try again in a moment"
                raise StoreError(message) from None
        time.sleep(_LOOK_S)


@contextmanager
def _alone(config: Config) -> Iterator[Asking]:
    """The books, opened here; `BooksTaken` comes before anything was asked."""
    with opened(config) as bookkeeper:
        numbers = itertools.count(1)

        def ask(operation: str, **arguments: Any) -> Any:
            question = Ask(next(numbers), operation, _plain(arguments))
            [(_, reply)] = bookkeeper.visit([Letter(0, question)])
            assert isinstance(reply, Answered)
            return _result(reply)

        try:
            yield ask
        finally:
            bookkeeper.leave()


def _connected(state_dir: Path) -> socket.socket | None:
    """A line to the bookkeeper; None when nobody listens, or who did was about to end and never took this line up.

    It is known to be taken up once a question was answered that changes nothing.
    """
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(PATIENCE_S)
    try:
        with reachable(socket_path(state_dir)) as name:
            line.connect(name)
        line.sendall(protocol.frame(Who(0, None, None)))
        _read(line, int.from_bytes(_read(line, 4), "big"))
    except TimeoutError:
        pass  # it is there and busy: what is asked of it says so
    except OSError:
        line.close()
        return None
    return line


def _by_wire(line: socket.socket) -> Asking:
    numbers = itertools.count(1)

    def ask(operation: str, **arguments: Any) -> Any:
        number = next(numbers)
        try:
            line.sendall(protocol.frame(Ask(number, operation, _plain(arguments))))
            while True:
                reply = protocol.reply(_read(line, int.from_bytes(_read(line, 4), "big")))
                if isinstance(reply, Answered) and reply.number == number:
                    return _result(reply)
        except OSError as error:
            reason = "did not answer in time" if isinstance(error, TimeoutError) else f"went away: {error.strerror}"
            raise StoreError(f"the bookkeeper {reason}; whether it did what was asked is not known") from error

    return ask


def _read(line: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = line.recv(min(size, 1 << 20))
        if not part:
            raise ConnectionResetError(0, "it hung up")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _result(reply: Answered) -> Any:
    if reply.refusal is not None:
        raise Declined(*reply.refusal)
    return reply.result


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as they would arrive by wire, so that both ways are one."""
    try:
        plain: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(arguments))
    except OverflowError:
        raise Declined(400, "invalid_request", "a number is beyond 64 bits") from None
    return plain
