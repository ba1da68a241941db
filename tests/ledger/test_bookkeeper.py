"""The bookkeeper as a process: killed, stopped and starved at any point, it loses nothing and tells nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import random
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvloop

from fastroute.errors import StoreCorrupt, StoreError
from fastroute.ledger import bookkeeper, keeper, protocol, records, secrets
from fastroute.ledger.balances import FinishedRequest
from fastroute.ledger.book import Book, Budget, Refused
from fastroute.ledger.bookkeeper import Bookkeeper
from fastroute.ledger.books import Books
from fastroute.ledger.door import BooksTaken, answers, socket_path
from fastroute.ledger.journal import Journal, boot_id
from fastroute.ledger.memory import Memory
from fastroute.ledger.protocol import Answered, Ask, Hello, LeaseReport, Recall, Refresh, Refreshed, Welcome, Who
from fastroute.ledger.records import FINISH, SEND, SETTLE, STOP, Finish, Send, Settle, Stop
from fastroute.ledger.sqlite import Store
from fastroute.ledger.store import Changes, ReceiptRow, RecordRow

TORTURE = bool(os.environ.get("FASTROUTE_TORTURE"))
FORK = multiprocessing.get_context("fork")
SEGMENT_BYTES = 4096 * 4


class Clerk:
    """A desk that opens accounts and tells what they have used."""

    def __call__(
        self, book: Book, operation: str, arguments: dict[str, Any], now_ms: int, *, again: bool = False
    ) -> Any:
        if operation == "open":
            name, budgets = arguments["name"], [Budget("microdollar", arguments["amount"])]
            return book.open_account(name, "key", name, created_ms=now_ms, budgets=budgets).id
        if operation == "used":
            return book.balances(arguments["account"], now_ms)[0].used
        raise Refused(404, "unknown_operation", f"nobody answers {operation!r} here")

    def take(self) -> dict[tuple[str, str], RecordRow | None]:
        return {}

    def tick(self, book: Book, now_ms: int) -> None:
        book.expire(now_ms)


def receipt(book: Book, finished: Sequence[FinishedRequest], last: ReceiptRow | None) -> list[ReceiptRow]:
    first = 1 if last is None else last.seq + 1
    return [
        ReceiptRow(seq, f"rcpt_{told.request}", told.request, told.account, told.started_ms, b"{}", b"l")
        for seq, told in enumerate([one.finish for one in finished], first)
    ]


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
            Bookkeeper(state, Books(store), Clerk, receipt, boot_id=boot) as kept,
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


Started = Callable[..., BaseProcess]


@pytest.fixture
def start() -> Iterator[Started]:
    """Processes of a house, all of which are gone at its end."""
    processes: list[BaseProcess] = []

    def started(target: Callable[..., None], *args: Any) -> BaseProcess:
        process = FORK.Process(target=target, args=args)
        process.start()
        processes.append(process)
        return process

    yield started
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join(5)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No connection outlives its test."""
    yield
    while Wire.opened:
        Wire.opened.pop().close()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


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


# --- killed at any point ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20 if TORTURE else 1))
def test_killed_between_any_two_steps_it_loses_and_doubles_nothing(state: Path, start: Started, seed: int) -> None:
    """Twenty deaths under load, each at a random step; the worker goes on meanwhile and with its successor."""
    dice = random.Random(seed)
    first = start(keep, state)
    account = Wire(state).desk("open", name="k", amount=10**9)
    ours, theirs = FORK.Pipe()
    kept = first
    worker = start(working, state, account, theirs)
    ours.recv()
    first.kill()
    for _ in range(20):
        kept.join(5)
        kept = start(keep, state, dice.randint(1, 120))
        kept.join(5)
        assert kept.exitcode == -signal.SIGKILL
    last = start(keep, state)
    ours.send("end")
    assert ours.poll(10)
    done, spent, _ = ours.recv()
    worker.join(5)
    wire = Wire(state)
    wait_until(lambda: wire.desk("used", account=account) == spent)
    wait_until(lambda: not list((state / "journal").glob("*.log")))
    last.terminate()
    last.join(5)
    assert last.exitcode == 0
    assert stored(state) == (done, spent, done)
    assert done > 20


def test_a_worker_killed_with_an_attempt_open_is_charged_for_it_within_a_second(state: Path, start: Started) -> None:
    start(keep, state)
    wire = Wire(state)
    account = wire.desk("open", name="k", amount=10**6)
    ours, theirs = FORK.Pipe()
    worker = start(working, state, account, theirs)
    ours.recv()
    time.sleep(0.05)
    ours.send("hang")
    assert ours.poll(5)
    done, spent, _ = ours.recv()
    worker.kill()
    assert wait_until(lambda: wire.desk("used", account=account) == spent + 10) < 1
    assert stored(state) == (done, spent + 10, done)
    wait_until(lambda: not list((state / "journal").glob("*.log")))


def test_a_worker_that_is_stopped_keeps_what_it_has(state: Path, start: Started) -> None:
    """SIGSTOP is not death: nothing of it is given away, and it goes on as if nothing had been."""
    start(keep, state)
    wire = Wire(state)
    account = wire.desk("open", name="k", amount=10**6)
    ours, theirs = FORK.Pipe()
    worker = start(working, state, account, theirs)
    holder = ours.recv()
    time.sleep(0.05)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    time.sleep(0.5)
    assert (state / "journal" / f"{holder}.lock").exists()
    os.kill(worker.pid, signal.SIGCONT)
    ours.send("end")
    assert ours.poll(5)
    done, spent, _ = ours.recv()
    wait_until(lambda: wire.desk("used", account=account) == spent)
    assert stored(state) == (done, spent, done)


def test_a_bookkeeper_that_is_stopped_for_a_while_only_answers_later(state: Path, start: Started) -> None:
    kept = start(keep, state)
    account = Wire(state).desk("open", name="k", amount=10**6)
    ours, theirs = FORK.Pipe()
    start(working, state, account, theirs)
    ours.recv()
    assert kept.pid is not None
    os.kill(kept.pid, signal.SIGSTOP)
    time.sleep(0.3)
    os.kill(kept.pid, signal.SIGCONT)
    ours.send("end")
    assert ours.poll(5)
    done, spent, _ = ours.recv()
    wire = Wire(state)
    wait_until(lambda: wire.desk("used", account=account) == spent)
    assert stored(state) == (done, spent, done)


def test_loss_of_power_charges_what_was_out(state: Path, start: Started) -> None:
    """Another boot id and no clean stop: what a lost end of the journal may have held is charged, and not more."""
    kept = start(keep, state, 0, "boot-1")
    account = Wire(state).desk("open", name="k", amount=10**6)
    ours, theirs = FORK.Pipe()
    worker = start(working, state, account, theirs, "boot-1")
    ours.recv()
    time.sleep(0.05)
    ours.send("hang")
    assert ours.poll(5)
    _, _, granted = ours.recv()
    for process in (kept, worker):
        process.kill()
        process.join(5)
    start(keep, state, 0, "boot-2")
    assert Wire(state).desk("used", account=account) == granted


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_it_stops_cleanly_after_its_workers(state: Path, start: Started) -> None:
    """Told to stop together with them, it waits until they have told everything."""
    kept = start(keep, state)
    account = Wire(state).desk("open", name="k", amount=10**6)
    ours, theirs = FORK.Pipe()
    start(working, state, account, theirs)
    ours.recv()
    kept.terminate()
    time.sleep(0.05)
    ours.send("end")
    assert ours.poll(5)
    done, spent, _ = ours.recv()
    kept.join(5)
    assert kept.exitcode == 0
    assert stored(state) == (done, spent, done)
    with Store.open(state / "fastroute.db") as store:
        assert "clean_stop" in Books(store).load().notes
    assert not socket_path(state).exists()


def test_a_worker_that_does_not_end_is_not_waited_for_for_ever(state: Path, start: Started) -> None:
    kept = start(keep, state)
    account = Wire(state).desk("open", name="k", amount=10**6)
    ours, theirs = FORK.Pipe()
    start(working, state, account, theirs)
    ours.recv()
    kept.terminate()
    kept.join(3)
    assert kept.exitcode == 0
    with Store.open(state / "fastroute.db") as store:
        assert "clean_stop" not in Books(store).load().notes


# --- alone in its directory -------------------------------------------------------------------------------------------


class Here:
    """A bookkeeper in a thread of this process."""

    def __init__(self, state: Path, store: Memory) -> None:
        self.kept = Bookkeeper(state, store, Clerk, receipt)
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


@pytest.fixture
def here(state: Path) -> Iterator[Callable[[Memory], Here]]:
    with contextlib.ExitStack() as stack:

        def made(store: Memory) -> Here:
            one = Here(state, store)
            stack.callback(one.close)
            return one

        yield made


def test_there_is_one_for_a_state_directory(state: Path, here: Callable[[Memory], Here]) -> None:
    here(Memory())
    with pytest.raises(BooksTaken, match="another fastroute keeps the books"):
        Bookkeeper(state, Memory(), Clerk)


def test_what_it_makes_is_its_owners_alone(state: Path, here: Callable[[Memory], Here]) -> None:
    here(Memory())
    run = state / "run"
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    for name in ("books.sock", "bookkeeper.lock", "generation"):
        assert stat.S_IMODE((run / name).stat().st_mode) == 0o600, name


def test_a_socket_left_over_is_replaced(state: Path, here: Callable[[Memory], Here]) -> None:
    (state / "run").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(socket_path(state)))
    assert not answers(state)
    here(Memory())
    assert answers(state)


def test_a_directory_may_have_a_long_name(tmp_path: Path) -> None:
    """The name of a socket may be 107 bytes long, that of a directory is nobody's business."""
    state = tmp_path / ("x" * 100) / ("y" * 100)
    one = Here(state, Memory())
    assert answers(state)
    one.close()
    assert not answers(state)


def test_the_generation_grows_with_accounts_and_budgets(state: Path) -> None:
    """It has grown before who asked for the change is answered, and a new bookkeeper alone changes nothing."""
    memory = Memory()
    one = Here(state, memory)

    def generation() -> int:
        return int.from_bytes((state / "run" / "generation").read_bytes(), "little")

    before = generation()
    wire = Wire(state)
    wire.desk("open", name="k", amount=5)
    assert generation() == before + 1
    wire.desk("used", account=1)
    assert generation() == before + 1
    one.close()
    Here(state, memory).close()
    assert generation() == before + 1


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", b"\x00\x00\x00\x02\x81\xa1"], ids=["huge", "none", "torn"]
)
def test_who_sends_what_is_no_question_is_hung_up_on(state: Path, here: Callable[[Memory], Here], data: bytes) -> None:
    here(Memory())
    with contextlib.suppress(ConnectionResetError):
        assert Wire(state).raw(data) == b""
    assert answers(state)


# --- a sick store -----------------------------------------------------------------------------------------------------


class Full(Memory):
    full = False

    def commit(self, changes: Changes) -> None:
        if self.full and changes != Changes():
            raise StoreError("there is no room")
        super().commit(changes)


def test_it_recovers_alone_when_the_disk_is_well_again(
    state: Path, here: Callable[[Memory], Here], start: Started
) -> None:
    store = Full()
    here(store)
    wire = Wire(state)
    account = wire.desk("open", name="k", amount=10**6)
    wire.desk("used", account=account)
    store.full = True
    reply: Answered = wire.ask(Ask, "open", {"name": "other", "amount": 1})
    assert reply.refusal == keeper.UNAVAILABLE
    assert wire.desk("used", account=account) == 0
    store.full = False
    wait_until(lambda: wire.ask(Ask, "open", {"name": "other", "amount": 1}).refusal is None, 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_is_really_full_costs_nothing_but_time(tmp_path: Path, start: Started) -> None:
    state = tmp_path / "small"
    state.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", state], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        kept = start(keep, state)
        wire = Wire(state)
        account = wire.desk("open", name="k", amount=10**6)
        ours, theirs = FORK.Pipe()
        start(working, state, account, theirs)
        ours.recv()
        time.sleep(0.05)
        filler = state / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        refused = 0

        def full() -> bool:
            nonlocal refused
            reply: Answered = wire.ask(Ask, "open", {"name": f"n{refused}" * 200, "amount": 1})
            refused += 1
            return reply.refusal == keeper.UNAVAILABLE

        wait_until(full)
        filler.unlink()
        ours.send("end")
        assert ours.poll(10)
        done, spent, _ = ours.recv()
        wait_until(lambda: wire.desk("used", account=account) == spent)
        kept.terminate()
        kept.join(5)
        assert stored(state) == (done, spent, done)
    finally:
        subprocess.run(["umount", "-l", state], check=True)


def test_damaged_pages_are_refused_and_not_touched(state: Path, start: Started) -> None:
    kept = start(keep, state)
    wire = Wire(state)
    for n in range(50):
        wire.desk("open", name=f"k{n}" * 50, amount=5)
    kept.terminate()
    kept.join(5)
    path = state / "fastroute.db"
    spoiled = bytearray(path.read_bytes())
    spoiled[8192:12288] = b"\x5a" * 4096
    path.write_bytes(spoiled)
    with pytest.raises(StoreCorrupt):
        keep(state)
    assert path.read_bytes() == bytes(spoiled)
    assert not answers(state)


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_the_pepper_is_made_once(state: Path) -> None:
    first = secrets.pepper(state)
    assert len(first) == 32
    assert secrets.pepper(state) == first
    assert [path.name for path in (state / "secrets").iterdir()] == ["pepper"]
    assert stat.S_IMODE((state / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "secrets" / "pepper").stat().st_mode) == 0o600


def test_processes_that_start_together_have_one_pepper(state: Path) -> None:
    with FORK.Pool(4) as pool:
        assert len(set(pool.map(secrets.pepper, [state] * 16))) == 1


def test_a_mode_that_is_too_wide_is_tightened(state: Path) -> None:
    secrets.pepper(state)
    (state / "secrets").chmod(0o755)
    (state / "secrets" / "pepper").chmod(0o644)
    secrets.pepper(state)
    assert stat.S_IMODE((state / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "secrets" / "pepper").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", [b"", b"short", bytes(32), b"changeme" * 4, b"secret"], ids=repr)
def test_a_weak_pepper_is_refused_and_never_shown(state: Path, text: bytes) -> None:
    (state / "secrets").mkdir(parents=True)
    (state / "secrets" / "pepper").write_bytes(text)
    with pytest.raises(StoreError, match="no random text") as refused:
        secrets.pepper(state)
    assert not text or text.decode() not in str(refused.value) or text == b"secret"
