"""The worker's side of the ledger at its rim: who a caller is, and what may be spent that is not in these leases.

A `Teller` keeps a worker's one connection to the bookkeeper, greets it again when it went away, reports, asks, and is
the `accounts.Till` of the accounts it hands out.
"""

from __future__ import annotations

import asyncio
import mmap
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from msgspec import Struct

from fastroute.clock import Clock
from fastroute.errors import FastrouteError
from fastroute.ledger import protocol, records
from fastroute.ledger._teller import Digester, TellerCore
from fastroute.ledger.accounts import Account, Till
from fastroute.ledger.door import reachable, socket_path
from fastroute.ledger.journal import SEGMENT_BYTES, Journal, boot_id
from fastroute.ledger.leases import NEVER, Holder, Report, Ticket
from fastroute.ledger.protocol import Answered, Ask, Facts, Hello, Known, Over, Recall, Refresh, Refreshed, Welcome, Who
from fastroute.ledger.records import STOP, Stop
from fastroute.ledger.wire import Wire

T = TypeVar("T")

ACCOUNTS_MAX: Final = 65_536  # that one worker remembers
UNKNOWN_MAX: Final = 4096
UNKNOWN_MS: Final = 2000  # a new key moves the generation, so this is only a rest from asking
PATIENCE_MS: Final = 5000  # for an answer; a bookkeeper takes milliseconds
BACKOFF_MS: Final = 10, 100  # a try costs a system call or two; what waits for it is requests
UNSENT_MAX: Final = 1 << 20  # bytes that wait for a bookkeeper who does not read, before nothing is added
RECHECK_AT_ONCE: Final = 32

_HOUSE: Final = -1  # no account's number

NOBODY: Final = Facts(0, "", "key", "", (), None)


class BooksUnreachable(FastrouteError):
    """The bookkeeper did not answer; whether it did what was asked is not known."""


class Declined(FastrouteError):
    """The desk would not do what was asked, and nothing was changed."""

    def __init__(self, status: int, code: str, message: str, field: str = "") -> None:
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        super().__init__(message)


class Unknown(Struct, frozen=True):
    """Nobody lives by that token; `state` tells what became of whoever did: unknown | revoked | ended | expired."""

    state: str
    until_ms: int = 0


class Teller(TellerCore, Till):
    """One worker's ledger, made by `open`.

    Once `lost` it stays so, and says why: the books hold this life for over, nothing more is admitted under a budget, and
    the process should end so that a new life begins.
    """

    anonymous: Account  # whoever calls while no key is configured; it has no budgets

    def __init__(self, state_dir: Path, number: int, pepper: bytes, clock: Clock, fund_ms: int) -> None:
        super().__init__(clock, asyncio.get_running_loop())
        self.state_dir = state_dir
        self.number = number
        self.fund_ms = fund_ms
        self.life = 0  # the holder's number
        self.lost = ""
        self._digester = Digester(pepper)
        self._boot_id = boot_id()
        self._refresh_ms = 0
        self._asked = 0  # the number of the last question
        self._heard = 0  # the number of the last recall
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._wire: Wire | None = None
        self._away_ms = NEVER  # since when there is no connection
        # When the bookkeeper said something last, and when it last could have lent something; in the loop's time.
        self._heard_at = self._served_at = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._kicked = False
        self._seen = 0
        self._open_at = -1  # the generation at which nobody had a key
        self._accounts: WeakValueDictionary[int, Account] = WeakValueDictionary()
        self._cache = OrderedDict()
        self._unknown = {}
        self._asking: dict[bytes | int, asyncio.Task[Any]] = {}
        self._rechecking: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        state_dir: Path,
        number: int,
        *,
        pepper: bytes,
        clock: Clock,
        fund_ms: int = 1000,
        patience_ms: int = 10_000,
        segment_bytes: int | None = None,
    ) -> Teller:
        """Begin a life: greet the bookkeeper, make the journal. `BooksUnreachable` when nobody answers for so long.

        `number` is the worker's place; `fund_ms` is how long a request may wait for rights.
        """
        teller = cls(state_dir, number, pepper, clock, fund_ms)
        try:
            async with asyncio.timeout(patience_ms / 1000):
                await teller._connect_somehow()
            teller.journal = await asyncio.to_thread(
                Journal.create, state_dir / "journal", teller.life, segment_bytes=segment_bytes or SEGMENT_BYTES
            )
        except TimeoutError:
            teller._flusher.shutdown()
            raise BooksUnreachable(f"no bookkeeper answers at {socket_path(state_dir)}; is one running?") from None
        except BaseException:
            teller._leave()
            teller._flusher.shutdown()
            raise
        teller.anonymous = Account(teller, NOBODY, 0)
        teller._keeper = teller._loop.create_task(teller._keep())
        teller._tick()
        return teller

    @property
    def connected(self) -> bool:
        return self._wire is not None

    # --- who calls ----------------------------------------------------------------------------------------------------

    async def find(self, token: bytes) -> Account | Unknown:
        """Whose token it is; `BooksUnreachable` when it is not remembered and nobody can be asked."""
        found = self.known(token)
        if found is not None:
            return found
        name = self._digester.digest(token)
        return await self._shared(name, self._find(name) if name not in self._asking else None)

    async def account(self, number: int) -> Account | None:
        """The account of that number, for who has no token; None when it is over. `BooksUnreachable` as `find`."""
        asked_ms = self.clock.monotonic_ms()
        known = await self._who(account=number)
        if known.facts is None:
            return None
        account = self._accounts[number] = Account(self, known.facts, asked_ms)
        return account

    @property
    def open_house(self) -> bool:
        """Whether it is known here that nobody has a key, so that whoever calls is served."""
        return self._open_at == self._generation[0]

    async def house(self) -> bool:
        """The same, asking whoever keeps the books."""
        if not self.open_house:
            await self._shared(_HOUSE, self._look_around() if _HOUSE not in self._asking else None)
        return self.open_house

    async def _look_around(self) -> None:
        seen = self._generation[0]
        known = await self._who()
        self._open_at = seen if known.state == "open" else -1

    def ended(self, account: Account) -> bool:
        """Whether what still runs for it should be cut."""
        return account.state != "live" or self.clock.monotonic_ms() >= account.expires_ms

    async def renew(self, account: Account) -> bool | None:
        """Ask for an account's facts anew; whether it still lives, None when nobody can be asked."""
        try:
            return await self._shared(account.id, self._renew(account) if account.id not in self._asking else None)
        except BooksUnreachable:
            return None

    async def _find(self, name: bytes) -> Account | Unknown:
        seen, asked_ms = self._generation[0], self.clock.monotonic_ms()
        known = await self._who(digest=name)
        fresh = self._generation[0] == seen == self._seen
        if known.facts is None:
            unknown = Unknown(known.state, asked_ms + UNKNOWN_MS)
            if fresh:
                if len(self._unknown) >= UNKNOWN_MAX:
                    del self._unknown[next(iter(self._unknown))]
                self._unknown[name] = unknown
            return unknown
        account = self._accounts.get(known.facts.account)
        if account is None:
            account = self._accounts[known.facts.account] = Account(self, known.facts, asked_ms)
        else:
            account.adopt(known.facts, asked_ms)
        if fresh:
            self._cache[name] = account
            if len(self._cache) > ACCOUNTS_MAX:
                self._cache.popitem(last=False)
        return account

    async def _renew(self, account: Account) -> bool:
        asked_ms = self.clock.monotonic_ms()
        known = await self._who(account=account.id)
        if known.facts is None:
            account.end(known.state)
            return False
        account.adopt(known.facts, asked_ms)
        return True

    async def _who(self, digest: bytes | None = None, account: int | None = None) -> Known:
        # A request waits for this as it does for rights, and no longer.
        known: Known = await self._question(Who(self._number(), digest, account), patience_ms=self.fund_ms)
        return known

    async def _shared(self, key: bytes | int, asking: Coroutine[Any, Any, T] | None) -> T:
        """One question for all who want the same answer; whoever gives up leaves it to the others."""
        if asking is not None:
            task = self._asking[key] = self._loop.create_task(asking)
            task.add_done_callback(lambda done: self._asked_for(key, done))
        answer: T = await asyncio.shield(self._asking[key])
        return answer

    def _asked_for(self, key: bytes | int, done: asyncio.Task[Any]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # whoever still waits reads it too

    def _moved(self) -> None:
        """Something about accounts changed: all of them are asked for anew, those with calls under way at once."""
        self._seen = self._generation[0]
        self.forget()
        if self._accounts and self._rechecking is None and not self._closed:
            self._rechecking = self._loop.create_task(self._recheck())

    async def _recheck(self) -> None:
        try:
            seen = -1
            while seen != self._seen:
                seen = self._seen
                busy = [account for account in self._accounts.values() if account.state == "live"]
                for first in range(0, len(busy), RECHECK_AT_ONCE):
                    some = busy[first : first + RECHECK_AT_ONCE]
                    if None in await asyncio.gather(*map(self.renew, some)):
                        return  # every connection begins with another look
        finally:
            self._rechecking = None

    # --- rights -------------------------------------------------------------------------------------------------------

    async def wait(self, account: Account, microdollars: int | None, tokens: int) -> Ticket:
        now_ms = self.clock.monotonic_ms()
        ticket = self.holder.ask(account.path, microdollars, tokens, now_ms)
        if ticket.hold is not None or ticket.short is not None:
            return ticket
        if self._wire is None and now_ms - self._away_ms >= self.fund_ms:
            self.holder.drop(ticket)
            return ticket
        ticket.waiter = self._loop.create_future()
        self.kick()
        try:
            await self._patiently(ticket.waiter, self.fund_ms, lambda: self._served_at)
        except TimeoutError:
            if ticket.hold is None:  # else it came in the very last moment
                self.holder.drop(ticket)
        except BaseException:
            self.holder.drop(ticket)
            raise
        return ticket

    def kick(self) -> None:
        """Report before the loop comes round again, once for all who ask for it."""
        if not self._kicked and self._wire is not None:
            self._kicked = True
            self._loop.call_soon(self._report, False)

    def _report(self, due: bool) -> None:
        self._kicked = False
        if self._wire is None or self.lost or self._wire.unread > UNSENT_MAX:
            return
        now_ms = self.clock.monotonic_ms()
        self._tell_those(self.holder.served(now_ms))
        report = self.holder.report(now_ms, due=due)
        if report is not None:
            self._tell(report)

    @staticmethod
    def _tell_those(decided: list[Ticket]) -> None:
        for ticket in decided:
            if not ticket.waiter.done():
                ticket.waiter.set_result(None)

    def _tell(self, report: Report) -> None:
        seq, leases = report
        if self._wire is not None:
            self._wire.send(Refresh(self._number(), self.life, seq, leases, heard=self._heard))

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(self._refresh_ms / 1000, self._tick)
        self.set_wall()
        if self._generation[0] != self._seen:
            self._moved()
        if self._late:
            self.catch_up()
        self._report(True)

    # --- the desk -----------------------------------------------------------------------------------------------------

    async def ask(self, operation: str, **arguments: Any) -> Any:
        """Have the desk do something; `Declined` when it would not, `BooksUnreachable` when that is not known."""
        answered: Answered = await self._question(Ask(self._number(), operation, arguments))
        if answered.refusal is not None:
            raise Declined(*answered.refusal)
        return answered.result

    # --- the connection -----------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Stay connected for as long as this life lasts."""
        while not self.lost:
            assert self._wire is not None
            await asyncio.shield(self._wire.over)  # others wait for it when this task is cancelled
            self._disconnected()
            await self._connect_somehow()

    async def _connect_somehow(self) -> None:
        pause_ms, most_ms = BACKOFF_MS
        while not self.lost:
            try:
                await self._connect()
                return
            except (OSError, BooksUnreachable):
                await asyncio.sleep(pause_ms / 1000)
                pause_ms = min(2 * pause_ms, most_ms)

    async def _connect(self) -> None:
        """Greet the bookkeeper; where this life is known it goes on."""
        asked_ms = self.clock.monotonic_ms()
        with reachable(socket_path(self.state_dir)) as path:
            _, wire = await self._loop.create_unix_connection(lambda: Wire(self._received), path)
        try:
            hello = Hello(self._number(), self.number, self._boot_id, self.life)
            # It may die, or hang up, with our greeting unread: then there is nothing to be patient for.
            wire.over.add_done_callback(lambda _: self._unanswered(hello.number))
            welcome: Welcome | Over = await self._question(hello, wire)
            generation = _mapped(self.state_dir / "run" / "generation")
        except BaseException:
            wire.leave()
            raise
        if isinstance(welcome, Over):
            wire.leave()
            return
        if self.life == 0:
            self.life = welcome.holder
            self.holder = Holder(welcome.lease_ms, asked_ms)
        elif welcome.holder != self.life:
            # What these leases hold was given away or written off: nothing of it may be spent any more.
            self._lose("the books hold this life for dead")
            wire.leave()
            return
        self._refresh_ms = welcome.refresh_ms
        self.holder.lease_ms = welcome.lease_ms
        self._wire, self._away_ms, self._heard = wire, NEVER, 0
        self._generation = generation
        self._moved()
        if self._ticker is not None:
            self._report(True)

    def _lose(self, why: str) -> None:
        self.lost = self.lost or why
        self.holder.deadline_ms = 0

    def _disconnected(self) -> None:
        self._wire, self._away_ms = None, self.clock.monotonic_ms()
        self.holder.disconnected()
        for number in tuple(self._answers):
            self._unanswered(number)

    def _unanswered(self, number: int) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_exception(BooksUnreachable("the bookkeeper went away before it answered"))

    def _leave(self) -> None:
        if self._wire is not None:
            self._wire.leave()
            self._wire = None

    def _number(self) -> int:
        self._asked += 1
        return self._asked

    async def _question(
        self, question: Hello | Who | Ask, wire: Wire | None = None, patience_ms: int = PATIENCE_MS
    ) -> Any:
        wire = wire or self._wire
        if wire is None:
            raise BooksUnreachable("the bookkeeper is away")
        answer = self._answers[question.number] = self._loop.create_future()
        wire.send(question)
        try:
            return await self._patiently(answer, patience_ms, lambda: self._heard_at)
        except TimeoutError:
            raise BooksUnreachable("the bookkeeper did not answer in time") from None
        finally:
            self._answers.pop(question.number, None)

    async def _patiently(self, answer: asyncio.Future[T], rest_ms: int, last: Callable[[], float]) -> T:
        """Wait until the bookkeeper did nothing for so long: one who serves others first is busy, and not away.

        A moment in which this process stood still, however long, is one of four.
        """
        began, heard, moments = self._loop.time(), last(), 0
        while True:
            try:
                async with asyncio.timeout(rest_ms / 4000):
                    return await asyncio.shield(answer)
            except TimeoutError:
                heard, before = last(), heard
                moments = moments + 1 if heard == before else 0
                if moments == 4 or self._loop.time() - began >= PATIENCE_MS / 1000:
                    raise

    def _received(self, reply: protocol.Reply) -> None:
        """Take in what the bookkeeper said."""
        self._heard_at = self._loop.time()
        if isinstance(reply, Recall):
            self._heard = reply.number
            self._tell(self.holder.recall(reply.windows, self.clock.monotonic_ms()))
            return
        if isinstance(reply, Over):
            self._lose(reply.why)
        if isinstance(reply, Refreshed) and not self.lost:
            if not reply.sick:
                self._served_at = self._heard_at
            self._tell_those(self.holder.answer(reply, self.clock.monotonic_ms()))
            if self.holder.hungry:
                self.kick()
        answer = self._answers.get(reply.number)
        if answer is not None and not answer.done():
            answer.set_result(reply)

    # --- the end ------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End this life; in good order when nothing is held any more, else its journal tells what was under way."""
        for task in (self._keeper, self._rechecking, *self._asking.values()):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError, BooksUnreachable):
                    await task
        if self._ticker is not None:
            self._ticker.cancel()
        self.catch_up()
        if not (self.underway or self._late or self.lost):
            # The record alone says that everything is given back; it needs no bookkeeper to hear it now.
            with suppress(ValueError):  # somebody reserved and is still on the way to its `send`
                self.holder.rest(self.clock.monotonic_ms())
                self.write(STOP, records.encode(Stop(self.wall_ms())))
        self._closed = True
        if self._wire is not None:
            self._wire.leave()
            await self._wire.over
            self._wire = None
        await self._loop.run_in_executor(self._flusher, self.journal.close)
        self._flusher.shutdown()


def _mapped(path: Path) -> memoryview[int]:
    """The number that the bookkeeper moves with every change of an account."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)).cast("Q")
