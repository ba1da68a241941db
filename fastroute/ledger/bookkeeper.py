"""The bookkeeper's process: the one that owns the books of a state directory, and answers workers over a socket.

Turn by turn it gathers what journals and connections hold, lets `keeper` commit it, and answers then; this file is the
lock, the socket, the clock and the loop around that.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import mmap
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

import msgspec

from fastroute.errors import StoreError
from fastroute.ledger import journal, protocol
from fastroute.ledger.door import BooksTaken, reachable, socket_path
from fastroute.ledger.keeper import Keeper
from fastroute.ledger.library import Library as Library  # the desk's door to the store
from fastroute.ledger.parties import Desk, Grave, Letter, Now, Post, Reading, Seal, Shelf

# The journals are due so long after a turn that found something there, since a commit costs a millisecond of CPU whatever
# is in it; after those that found nothing it is twice as long, and again. Whoever asks is heard at once, and has them
# read before he is answered.
TURN_S: Final = 0.1
IDLE_S: Final = 0.25

log = logging.getLogger("fastroute.bookkeeper")


class Generation:
    """A number in shared memory that grows when accounts or budgets change; workers look at it on each request."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(descriptor).st_size < 8:
                os.pwrite(descriptor, bytes(8), 0)  # a written block: a store into a hole could meet a full disk
            self._map = mmap.mmap(descriptor, 8)
        finally:
            os.close(descriptor)
        self._words = memoryview(self._map).cast("Q")

    def grow(self) -> None:
        self._words[0] = (self._words[0] + 1) & 0xFFFF_FFFF_FFFF_FFFF

    def __int__(self) -> int:
        return self._words[0]

    def close(self) -> None:
        self._words.release()
        self._map.close()


class FileJournals:
    """The journals in their directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, holder: int, segment: int, offset: int) -> Reading:
        return journal.Reader(self._directory, holder, segment, offset)

    def grave(self, holder: int) -> Grave | None:
        return journal.is_dead(self._directory, holder)

    def holders(self) -> list[int]:
        return journal.holders(self._directory)


class Bookkeeper:
    """Keeps the books of one state directory, alone. `serve` runs until it is told to stop."""

    def __init__(
        self,
        state_dir: Path,
        store: Shelf,
        desk: Callable[[], Desk],
        seal: Seal | None = None,
        *,
        boot_id: str | None = None,
    ) -> None:
        """Take the lock of the directory, `BooksTaken` when somebody has it, and recover. Faults are `StoreError`."""
        self._run_dir = state_dir / "run"
        self._socket_path = socket_path(state_dir)
        try:
            self._run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            (state_dir / "journal").mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _only_one(self._run_dir / "bookkeeper.lock")
            self._generation = Generation(self._run_dir / "generation")
        except OSError as error:
            raise StoreError(f"{error.filename or state_dir} cannot be used: {error.strerror}") from error
        try:
            store.keep()
        except StoreError:
            self.close()
            raise
        self.keeper = Keeper(
            store, FileJournals(state_dir / "journal"), desk, seal, journal.boot_id() if boot_id is None else boot_id
        )
        self._letters: list[Letter] = []
        self._lines: dict[int, _Line] = {}
        self._lines_made = 0
        self._arriving: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self._stopping = False
        self._pause_s = TURN_S
        # The generation stays: no change was told to anybody before it had moved, and workers look again when they come
        # back. Moved here, it would cost them what they know of their callers before there is anybody to ask.
        self.keeper.start(_now())

    async def serve(self, ready: Callable[[], None] = lambda: None, *, patience_s: float = 0.0) -> bool:
        """Answer until `stop`, and then for as long as workers live, but no longer than the patience.

        True when the books were closed cleanly, with no worker left.
        """
        loop = asyncio.get_running_loop()
        listener = self._listen()
        loop.add_reader(listener, self._accept, listener)
        try:
            ready()
            while not self._stopping:
                self._turn()
                await self._pause()
            # A manager of services may tell all of us to stop at once; workers still have to settle what they began.
            until = time.monotonic() + patience_s
            while self.keeper.lives and time.monotonic() < until:
                self.keeper.doubt()
                self._turn()
                if self.keeper.lives:
                    await self._pause()
        finally:
            loop.remove_reader(listener)
            listener.close()
            with suppress(FileNotFoundError):
                self._socket_path.unlink()
            await asyncio.gather(*self._arriving)
            for line in tuple(self._lines.values()):
                line.hang_up()
            await asyncio.sleep(0)  # lines end in the next round of the loop
        return self.keeper.stop(_now())

    @property
    def has_company(self) -> bool:
        """Whether a worker lives or anybody is connected."""
        return bool(self.keeper.lives or self._lines or self._arriving)

    def doubt(self) -> None:
        """Look who has died: at once where nobody is connected, as whoever lives is then on its way out."""
        self.keeper.doubt()
        if not self._lines:
            self._wake.set()

    def visit(self, letters: list[Letter]) -> list[Post]:
        """One turn for whoever opened the books for a moment, with nobody else about."""
        posts = self.keeper.turn(letters, _now())
        if self.keeper.changed:
            self._generation.grow()
        return posts

    def leave(self) -> None:
        """End such a visit: the books are closed cleanly unless somebody lives."""
        self.keeper.stop(_now())

    def stop(self) -> None:
        """Begin to end."""
        self._stopping = True
        self._wake.set()

    def close(self) -> None:
        """Let go of the directory."""
        self._generation.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The loop

    def _turn(self) -> None:
        letters, self._letters = self._letters, []
        posts = self.keeper.turn(letters, _now())
        if self.keeper.changed:
            self._generation.grow()
        for sender, reply in posts:
            line = self._lines.get(sender)
            if line is None:
                continue
            if reply is None:
                line.hang_up()
            else:
                line.send(protocol.frame(reply))

    async def _pause(self) -> None:
        """Until a message is there, a question has waited long enough, or the journals are due."""
        if self.keeper.more:
            await asyncio.sleep(0)
            return
        self._pause_s = TURN_S if self.keeper.found else min(2 * self._pause_s, IDLE_S)
        pause = self._pause_s
        if (due_ms := self.keeper.due_ms()) is not None:
            pause = min(pause, max(due_ms - time.monotonic_ns() // 1_000_000, 0) / 1000)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()
        self._wake.clear()

    def _listen(self) -> socket.socket:
        """The socket, for its owner only from its first moment. One that is left over is ours to remove: we have the lock."""
        listener = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            self._socket_path.unlink(missing_ok=True)
            with reachable(self._socket_path) as name:
                listener.bind(name)
        except OSError as error:
            listener.close()
            raise StoreError(f"{self._socket_path} cannot be listened on: {error.strerror or error}") from error
        finally:
            os.umask(mask)
        listener.setblocking(False)
        listener.listen(128)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        # Not a server of asyncio: one that closes while somebody arrives leaves that connection to nobody.
        try:
            connection, _ = listener.accept()
        except OSError as error:  # who came has left, or we have no descriptor free
            log.warning("a connection could not be taken: %s", error)
            return
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        arriving = loop.create_task(loop.connect_accepted_socket(lambda: _Line(self), connection))
        self._arriving.add(arriving)
        arriving.add_done_callback(self._arriving.discard)

    # What lines tell

    def joined(self, line: _Line) -> int:
        self._lines_made += 1
        self._lines[self._lines_made] = line
        return self._lines_made

    def asked(self, sender: int, question: protocol.Question) -> None:
        self._letters.append(Letter(sender, question))
        self._wake.set()

    def left(self, sender: int) -> None:
        del self._lines[sender]
        self._letters = [letter for letter in self._letters if letter.sender != sender]
        self.keeper.gone(sender)
        self._wake.set()


class _Line(asyncio.Protocol):
    """One connection: frames in, frames out."""

    def __init__(self, bookkeeper: Bookkeeper) -> None:
        self._bookkeeper = bookkeeper
        self._buffer = bytearray()
        self._number = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its type
        self._number = self._bookkeeper.joined(self)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 4:
            size = int.from_bytes(buffer[start : start + 4], "big")
            if size > protocol.FRAME_MAX:
                log.error("a connection sends a frame of %d bytes and is closed", size)
                self.hang_up()
                return
            if len(buffer) - start - 4 < size:
                break
            try:
                question = protocol.question(bytes(buffer[start + 4 : start + 4 + size]))
            except msgspec.DecodeError as error:
                log.error("a connection sends what is no question and is closed: %s", error)
                self.hang_up()
                return
            start += 4 + size
            self._bookkeeper.asked(self._number, question)
        del buffer[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._bookkeeper.left(self._number)

    def send(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def hang_up(self) -> None:
        self._buffer.clear()
        if self._transport is not None:
            self._transport.abort()


def _now() -> Now:
    return Now(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)


def _only_one(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BooksTaken(
            f"another fastroute keeps the books of {path.parent.parent}; stop it, or choose another with --state-dir"
        ) from None
    return descriptor
