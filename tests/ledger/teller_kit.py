"""A bookkeeper for tellers that can be slow, silent, forgetful or gone, and what tests of a worker's side say with it.

It is a few lines on a real Unix socket and speaks `protocol`; the journal is a list, but where its files matter.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from fastroute.clock import SystemClock
from fastroute.domain import Settlement, Usage
from fastroute.ledger import protocol, records
from fastroute.ledger import teller as tellers
from fastroute.ledger.accounts import Shortage
from fastroute.ledger.bookkeeper import Generation
from fastroute.ledger.journal import Journal, JournalFull
from fastroute.ledger.protocol import (
    Answered,
    Ask,
    Facts,
    Hello,
    Known,
    LeaseAnswer,
    Refresh,
    Refreshed,
    Welcome,
    Who,
)
from fastroute.ledger.teller import Teller
from fastroute.ledger.tokens import digest
from tests.ledger.path_kit import facts, window

PEPPER = b"p" * 32
TOKEN = b"fr_live_one"
REFRESH_MS = 20
LEASE_MS = 10_000


def exact(microdollars, usage=Usage(3, 4)):
    return Settlement("exact", microdollars * 1_000_000, microdollars, usage)


VOID = Settlement("void", 0, 0, Usage())


class Notebook:
    """A journal in memory, with as much room as the test gives it."""

    def __init__(self):
        self.written = []
        self.room = 10**9
        self.synced = 0
        self.closed = False

    def append(self, kind, payload):
        if self.room <= 0:
            raise JournalFull("no room")
        self.room -= 1
        self.written.append(records.decode(kind, payload))
        return len(self.written)

    def sync(self):
        self.synced = len(self.written)

    def close(self):
        self.closed = True

    def of(self, kind):
        return [record for record in self.written if isinstance(record, kind)]


@dataclass
class FakeBooks:
    """A bookkeeper with windows, accounts and moods."""

    state_dir: Path
    limits: dict[int, int] = field(default_factory=dict)
    accounts: dict[bytes, Facts] = field(default_factory=dict)
    dead: dict[int | bytes, str] = field(default_factory=dict)
    near: int = 0
    holder: int = 7
    answering: bool = True
    sick: bool = False  # its store cannot be written
    times: int = 1  # how often an answer to a refresh is said
    granted: dict[int, int] = field(default_factory=dict)
    released: dict[int, int] = field(default_factory=dict)
    spent: dict[int, int] = field(default_factory=dict)
    heard: list = field(default_factory=list)
    lines: list = field(default_factory=list)
    server: asyncio.Server | None = None

    async def open(self):
        run = self.state_dir / "run"
        run.mkdir(parents=True, exist_ok=True)
        self.generation = Generation(run / "generation")
        with tellers.reachable(run / "books.sock") as path:
            self.server = await asyncio.start_unix_server(self._serve, path)

    async def close(self):
        """Gone, as after kill -9: every line is cut."""
        self.server.close()
        for line in self.lines:
            line.transport.abort()
        self.lines.clear()
        (self.state_dir / "run" / "books.sock").unlink(missing_ok=True)
        await asyncio.sleep(0)

    def of(self, kind):
        return [message for message in self.heard if isinstance(message, kind)]

    def say(self, message):
        for line in self.lines:
            line.write(protocol.frame(message))

    def change(self):
        self.generation.grow()

    async def _serve(self, reader, writer):
        self.lines.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                message = protocol.question(await reader.readexactly(size))
                self.heard.append(message)
                if self.answering:
                    for _ in range(self.times if isinstance(message, Refresh) else 1):
                        writer.write(protocol.frame(self._answer(message)))

    def _answer(self, message):
        if isinstance(message, Hello):
            return Welcome(message.number, self.holder, REFRESH_MS, LEASE_MS)
        if isinstance(message, Who):
            return self._known(message)
        if isinstance(message, Ask):
            if message.operation == "refuse":
                return Answered(message.number, refusal=(404, "no_such_key", "there is no such key", "id"))
            return Answered(message.number, [message.operation, message.arguments])
        if self.sick:
            told = tuple(LeaseAnswer(each.window, each.granted_seen) for each in message.leases)
            return Refreshed(message.number, message.seq, told, sick=True)
        return Refreshed(message.number, message.seq, tuple(map(self._lend, message.leases)))

    def _known(self, message):
        key = message.digest if message.digest is not None else message.account
        if key in self.dead:
            return Known(message.number, None, self.dead[key])
        for name, known in self.accounts.items():
            if key in (name, known.account):
                return Known(message.number, known, "live")
        return Known(message.number, None)

    def left(self, number):
        return self.limits[number] - self.granted.get(number, 0) + self.released.get(number, 0)

    def _lend(self, said):
        number = said.window
        self.released[number] = max(self.released.get(number, 0), said.released)
        self.spent[number] = max(self.spent.get(number, 0), said.spent)
        left, given = self.left(number), 0
        if said.want:
            given = (said.want if said.want <= left else 0) if said.urgent else min(said.want, left // 2)
        self.granted[number] = self.granted.get(number, 0) + given
        short = left - given if given < said.want else None
        return LeaseAnswer(number, self.granted[number], self.left(number) < self.near, False, short)


def scene(test):
    """Runs a coroutine test with a bookkeeper and a way to open tellers; everything is closed after it."""

    def body(tmp_path, monkeypatch):
        async def whole():
            books = FakeBooks(tmp_path)
            books.accounts[digest(PEPPER, TOKEN)] = facts(window(1))
            books.limits[1] = 10**9
            await books.open()
            opened = []

            async def open_teller(clock=None, **settings):
                notebook = Notebook()
                monkeypatch.setattr(Journal, "create", lambda directory, holder, **size: notebook)
                teller = await Teller.open(tmp_path, 1, pepper=PEPPER, clock=clock or SystemClock(), **settings)
                opened.append(teller)
                return teller

            try:
                async with asyncio.timeout(20):
                    await test(books, open_teller)
            finally:
                for teller in opened:
                    if not teller.journal.closed:
                        await teller.close()
                await books.close()
                books.generation.close()

        uvloop.run(whole())

    body.__name__, body.__doc__ = test.__name__, test.__doc__
    return body


async def until(condition):
    """The condition comes true, soon."""
    while not condition():  # noqa: ASYNC110  # it is about what another side does, which sets no event for us
        await asyncio.sleep(0.002)


async def funded(account, microdollars=100, tokens=10):
    hold = account.reserve(microdollars, tokens) or await account.fund(microdollars, tokens)
    assert not isinstance(hold, Shortage), hold
    return hold


def sent(account, hold, request="req_1"):
    assert account.send(hold, request, "gpt", "gpt-4o", "openai") is None
    return hold


async def spend(account, microdollars):
    """An attempt that came to so much: reserved for, sent and settled."""
    account.settle(sent(account, await funded(account)), exact(microdollars), "ok", 200, 1)


def unused(account, hold):
    """What was waited for came, and goes back as it is."""
    assert not isinstance(hold, Shortage), hold
    account.settle(hold, VOID, "gone", None, 0)
