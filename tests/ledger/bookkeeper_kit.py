"""A bookkeeper in a process or a thread of its own, one that dies at a chosen step, and workers that spend what it lends."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import uvloop

from fastroute.ledger import bookkeeper, protocol, records
from fastroute.ledger.book import Book
from fastroute.ledger.bookkeeper import Bookkeeper
from fastroute.ledger.books import Books
from fastroute.ledger.door import socket_path
from fastroute.ledger.journal import Journal, boot_id
from fastroute.ledger.memory import Memory
from fastroute.ledger.protocol import Answered, Ask, Hello, LeaseReport, Recall, Refresh, Refreshed, Welcome, Who
from fastroute.ledger.records import FINISH, SEND, SETTLE, STOP, Finish, Send, Settle, Stop
from fastroute.ledger.sqlite import Store
from tests.ledger.keeper_kit import Clerk, paper_receipt

FORK = multiprocessing.get_context("fork")
SEGMENT_BYTES = 4096 * 4

Started = Callable[..., BaseProcess]


class Step:
    """Kills this process at its n-th step."""

    def __init__(self, left: int) -> None:
        self.left = left

    def around(self, owner: Any, name: str) -> None:
        """Steps before and after each call of a method."""
        method = getattr(owner, name)

        def stepped(*args: Any, **kwargs: Any) -> Any:
            self()
            result = method(*args, **kwargs)
            self()
            return result

        setattr(owner, name, stepped)

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def keep(state: Path, kill_at: int = 0, boot: str | None = None) -> None:
    """Keep the books until SIGTERM, or until a step at which we die."""
    if kill_at:
        step = Step(kill_at)
        step.around(Books, "load")
        step.around(Books, "commit")
        step.around(Book, "bury")
        step.around(Book, "refresh")
        step.around(bookkeeper.journal.Reader, "read")
        step.around(bookkeeper.journal.Reader, "drop_before")
        step.around(bookkeeper.journal.HolderLock, "remove")
        step.around(bookkeeper._Line, "send")

    async def serve() -> None:
        with (
            Store.open(state / "fastroute.db") as store,
            Bookkeeper(state, Books(store), Clerk, paper_receipt, boot_id=boot) as kept,
        ):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, kept.stop)
            await kept.serve(patience_s=0.5)

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve())


class Wire:
    """A worker's end, which asks one thing after the other."""

    opened: ClassVar[list[socket.socket]] = []

    def __init__(self, state: Path, within_s: float = 5) -> None:
        until = time.monotonic() + within_s
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5)
        self.opened.append(self._socket)
        while True:
            try:
                self._socket.connect(str(socket_path(state)))
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.005)
        self._number = 0
        self.recalls: list[Recall] = []

    def ask(self, kind: Callable[..., protocol.Question], *args: Any, **kwargs: Any) -> Any:
        self._number += 1
        self._socket.sendall(protocol.frame(kind(self._number, *args, **kwargs)))
        while True:
            reply = protocol.reply(self._take(int.from_bytes(self._take(4), "big")))
            if not isinstance(reply, Recall):
                assert reply.number == self._number
                return reply
            self.recalls.append(reply)

    def desk(self, operation: str, **arguments: Any) -> Any:
        reply: Answered = self.ask(Ask, operation, arguments)
        assert reply.refusal is None, reply.refusal
        return reply.result

    def close(self) -> None:
        self._socket.close()

    def raw(self, data: bytes) -> bytes:
        self._socket.sendall(data)
        return self._socket.recv(1)

    def _take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise ConnectionResetError("the bookkeeper hung up")
            data += more
        return data


class Worker:
    """A worker that spends on one account: of 10 reserved it spends 7, and holds one attempt open at a time."""

    def __init__(self, state: Path, account: int, boot: str | None = None) -> None:
        self._state = state
        self._account = account
        self._boot = boot or boot_id()
        self.wire = Wire(state)
        self.holder = self._greet(0)
        self.journal = Journal.create(state / "journal", self.holder, segment_bytes=SEGMENT_BYTES)
        [self._window] = self._ask(Who, None, account).facts.path
        self.granted = self.spent = self.released = self.done = self.seq = 0

    def _greet(self, holder: int) -> int:
        welcome: Welcome = self.wire.ask(Hello, 0, self._boot, holder)
        return welcome.holder

    def _ask(self, kind: Callable[..., protocol.Question], *args: Any) -> Any:
        """An answer, from this bookkeeper or one that comes after it."""
        while True:
            try:
                return self.wire.ask(kind, *args)
            except OSError:
                self.wire.close()
                self.wire = Wire(self._state)
                with contextlib.suppress(OSError):
                    assert self._greet(self.holder) == self.holder, "this life goes on"

    def want(self, amount: int) -> None:
        self.seq += 1
        window = self._window.window
        report = LeaseReport(window, self.granted, self.released, self.spent, 0, amount, True)
        reply: Refreshed = self._ask(Refresh, self.holder, self.seq, (report,))
        granted = reply.leases[0].granted
        assert granted >= self.granted, "a grant that was told is never taken back"
        self.granted = granted

    def request(self, *, settled: bool = True) -> None:
        while self.granted - self.released - self.spent < 10:
            self.want(50)
        self.done += 1
        name, window = f"req_{self.holder}_{self.done}", (self._window.window,)
        sent = Send(self.done, name, self._account, window, (10,), "m", "p:m", "p", 1, 10)
        self.journal.append(SEND, records.encode(sent))
        if not settled:
            return
        self.spent += 7
        told = Settle(self.done, "exact", "ok", 200, (7,), (self.spent,), (1, 1, 0, 0, 0), 7 * 10**6, 7, 3)
        self.journal.append(SETTLE, records.encode(told))
        finish = Finish(name, self._account, "rd", "chat", "m", "m", "", 200, False, 1, 3, None)
        self.journal.append(FINISH, records.encode(finish))

    def end(self) -> None:
        self.released = self.granted - self.spent
        self.journal.append(STOP, records.encode(Stop(1)))
        self.journal.close()
        self.wire.close()


def working(state: Path, account: int, pipe: Connection, boot: str | None = None) -> None:
    """Works until it is told otherwise; then says what it has done."""
    worker = Worker(state, account, boot)
    pipe.send(worker.holder)
    while not pipe.poll():
        worker.request()
        time.sleep(0.0005)
    match pipe.recv():
        case "end":
            worker.end()
        case "hang":
            worker.request(settled=False)
            pipe.send((worker.done, worker.spent, worker.granted))
            time.sleep(60)
    pipe.send((worker.done, worker.spent, worker.granted))


def wait_until(true: Callable[[], bool], within_s: float = 5) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() < began + within_s, "it did not come to pass"
        time.sleep(0.002)
    return time.monotonic() - began


def stored(state: Path, account: int = 1) -> tuple[int, int, int]:
    """How many attempts are told, what they were charged in all, and how many receipts there are."""
    with Store.open(state / "fastroute.db") as store, Books(store).snapshot() as all_:
        entries = [row for row in all_.entries if row.account == account]
        seqs = [row.seq for row in all_.receipts]
        assert seqs == list(range(1, len(seqs) + 1))
        return len(entries), sum(sum(row.charged) for row in entries), len(seqs)


class Here:
    """A bookkeeper in a thread of this process."""

    def __init__(self, state: Path, store: Memory) -> None:
        self.kept = Bookkeeper(state, store, Clerk, paper_receipt)
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self.kept.serve(ready.set)))
        self._thread.start()
        assert ready.wait(5)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self.kept.stop)
        self._thread.join(5)
        self._loop.close()
        self.kept.close()
