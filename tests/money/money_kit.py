"""Real gateways whose processes may be killed at any instant, callers that note all they read, and a provider that keeps
a book of its own: what it billed is the truth that ours is held against.

Prices are made so that a microdollar is an output token and the prompt is free: what an attempt holds is then its
`max_tokens`, and a number that no other request of the key was given names the attempt on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fastroute.config import Config, load
from fastroute.keeping import receipt_keys
from fastroute.ledger.audit import audit
from fastroute.ledger.books import Books
from fastroute.ledger.door import answers
from fastroute.ledger.sqlite import Store
from fastroute.ledger.store import AccountRow, EntryRow, ReceiptRow
from fastroute.reaching import reach
from fastroute.receipts import verify_chain
from tests.kits import is_gone

TORTURE = os.environ.get("FASTROUTE_TORTURE") == "1"
ROOT = Path(__file__).parents[2]
LAUNCHER = Path(__file__).with_name("launcher.py")
MODEL = "metered"


def _kit() -> Any:
    """Test folders are no packages, so what the server's tests have is loaded by its path."""
    if "gateway_kit" not in sys.modules:
        path = ROOT / "tests" / "server" / "gateway_kit.py"
        spec = importlib.util.spec_from_file_location("gateway_kit", path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["gateway_kit"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["gateway_kit"])
    return sys.modules["gateway_kit"]


wait_until = _kit().wait_until
listeners = _kit().listeners


# --- the provider ---------------------------------------------------------------------------------------------------


@dataclass
class Billed:
    """One request as the provider got it, and what it will ask for; `told` once all of the answer was written."""

    label: str
    cap: int
    stream: bool
    prompt: int
    output: int
    told: bool = False


class Provider(asyncio.Protocol):
    """Speaks chat. Who asks says in the message who it is and how to be served: `NAME SHARE DELAY_MS EVENTS`.

    SHARE is what is used of the cap, in thousandths. A stream that nobody reads any more is billed to where it had come
    and a little beyond, a whole answer in full: it was made.
    """

    def __init__(self, book: list[Billed], everybody: set[Provider]) -> None:
        self.book = book
        self.everybody = everybody
        self.rest = b""
        self.transport: Any = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.everybody.add(self)

    def leave(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.rest += data
        head, mark, body = self.rest.partition(b"\r\n\r\n")
        found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if not mark or found is None or len(body) < int(found[1]):
            return
        self.rest = body[int(found[1]) :]
        asked = json.loads(body[: int(found[1])])
        name, share, delay_ms, events = asked["messages"][-1]["content"].split()
        cap = asked["max_tokens"]
        output = max(1, cap * int(share) // 1000)
        billed = Billed(name, cap, bool(asked.get("stream")), 3, output)
        self.book.append(billed)
        self.task = asyncio.get_running_loop().create_task(self.serve(billed, int(delay_ms) / 1000, int(events)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.everybody.discard(self)
        if self.task is not None:
            self.task.cancel()

    async def serve(self, billed: Billed, delay_s: float, events: int) -> None:
        usage = {"prompt_tokens": billed.prompt, "completion_tokens": billed.output}
        usage["total_tokens"] = sum(usage.values())
        about = {"id": "c", "created": 1, "model": MODEL}
        if not billed.stream:
            await asyncio.sleep(delay_s)
            message = {"role": "assistant", "content": "well"}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            body = json.dumps({**about, "object": "chat.completion", "choices": choices, "usage": usage}).encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )
            billed.told = True
            return
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        total, billed.output = billed.output, 0
        for number in range(events):
            delta = {"index": 0, "delta": {"content": "w" * max(1, total // events)}, "finish_reason": None}
            # What was made before anybody could tell it to stop is billed whether it was read or not.
            billed.output = min(total, total * (number + 1) // events + 400)
            self.event({**about, "object": "chat.completion.chunk", "choices": [delta]})
            await asyncio.sleep(delay_s / events)
        billed.output = total
        finish = {"index": 0, "delta": {}, "finish_reason": "stop"}
        self.event({**about, "object": "chat.completion.chunk", "choices": [finish]})
        self.event({**about, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        self.transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        billed.told = True

    def event(self, data: dict[str, Any]) -> None:
        text = b"data: " + json.dumps(data).encode() + b"\n\n"
        self.transport.write(b"%x\r\n%b\r\n" % (len(text), text))


@contextlib.asynccontextmanager
async def provider() -> Any:
    """A listening provider: its port, and its book."""
    book: list[Billed] = []
    providers: set[Provider] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: Provider(book, providers), "127.0.0.1", 0, backlog=4096
    )
    try:
        yield server.sockets[0].getsockname()[1], book
    finally:
        server.close()
        for each in (*Caller.connected, *providers):
            each.leave()
        await asyncio.sleep(0)  # connections end in the next round of the loop


# --- the callers ----------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What became of one request: a status when there was a head, `whole` when nothing was missing."""

    label: str
    cap: int
    began: float
    ended: float = 0.0
    status: int = 0
    whole: bool = False
    left: bool = False  # the caller did not wait for the end
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


class Caller:
    """One connection at a time to one gateway, kept as long as it is good, or until the provider closes."""

    connected: ClassVar[set[Caller]] = set()

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        if self.writer is None or self.reader is None or self.reader.at_eof() or self.writer.is_closing():
            self.leave()
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
            self.connected.add(self)

    def leave(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None
        self.connected.discard(self)

    async def ask(
        self,
        key: str,
        label: str,
        cap: int,
        *,
        share: int = 1000,
        delay_ms: int = 0,
        events: int = 0,
        leave_s: float | None = None,
    ) -> Answer:
        """One chat request; with `events` it is a stream. Who leaves does so after so many seconds."""
        body: dict[str, Any] = {
            "model": MODEL,
            "max_tokens": cap,
            "messages": [{"role": "user", "content": f"{label} {share} {delay_ms} {events}"}],
        }
        if events:
            body["stream"] = True
        return await self.post(key, json.dumps(body).encode(), Answer(label, cap, time.monotonic()), leave_s)

    async def post(self, key: str, body: bytes, answer: Answer, leave_s: float | None) -> Answer:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(leave_s or 30):
                await self.connect()
                assert self.writer is not None
                self.writer.write(head.encode() + body)
                await self._read(answer)
        except TimeoutError:
            answer.left = leave_s is not None
            answer.error = "timeout"
        except (OSError, asyncio.IncompleteReadError) as error:
            answer.error = repr(error)
        answer.ended = time.monotonic()
        if not answer.whole or answer.headers.get("connection") == "close":
            self.leave()
        return answer

    async def _read(self, answer: Answer) -> None:
        assert self.reader is not None
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        answer.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        answer.status = int(first.split(" ")[1])
        if "content-length" in answer.headers:
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        else:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                answer.body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        answer.whole = True


# --- the gateway ----------------------------------------------------------------------------------------------------


class House:
    """`fastroute serve` on a state directory, which may be killed and started again on the same port."""

    def __init__(
        self,
        state_dir: Path,
        provider_port: int,
        *,
        workers: int = 2,
        constants: dict[str, Any] | None = None,
        beside: Path | None = None,
    ) -> None:
        """`beside` is where its configuration and what it says are kept; by default beside the state directory."""
        beside = beside or state_dir.parent
        self.state_dir = state_dir
        self.workers = workers
        self.constants = constants or {}
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        state_dir.mkdir(parents=True, exist_ok=True)
        self.log = beside / f"{state_dir.name}.said"
        self._starts = 0  # where in the log the present process began
        self.file = beside / f"{state_dir.name}.yaml"
        self.file.write_text(
            f'server: {{drain_ms: 3000}}\nlog: {{path: "{beside}/{state_dir.name}.log"}}\n'
            f'providers: {{up: {{dialect: openai, base_url: "http://127.0.0.1:{provider_port}"}}}}\n'
            f"models:\n  - {{id: {MODEL}, model: 'up:{MODEL}', price: {{input: 0, output: 1000000}}, "
            f"max_output: 100000}}\n"
        )

    @property
    def config(self) -> Config:
        return load(self.file, {}, {"state_dir": str(self.state_dir)})

    def start(self, *, ready: bool = True) -> House:
        """Serve; with `ready`, come back once every worker listens."""
        command = [sys.executable, str(LAUNCHER), json.dumps(self.constants), "serve", "--config", str(self.file)]
        command += ["--port", str(self.port), "--workers", str(self.workers), "--state-dir", str(self.state_dir)]
        self._starts = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as said:
            self.process = subprocess.Popen(
                command,
                cwd=self.file.parent,
                # Nothing of ours: no key of a provider, no setting of the one who runs the tests.
                env={"PATH": os.environ["PATH"], "HOME": str(self.state_dir), "PYTHONPATH": str(ROOT)},
                stdout=said,
                stderr=said,
            )
        if ready:
            wait_until(lambda: self.process is None or self.process.poll() is not None or self._is_up(), 20, 0.01)
            assert self.process.poll() is None, self.said
        return self

    def _is_up(self) -> bool:
        found = re.search(r"listening on http://[^ ]+:(\d+)", self.said)
        if found is not None:
            self.port = int(found[1])
        return self.port != 0 and listeners(self.port) == self.workers

    @property
    def said(self) -> str:
        """What the present process has said on its terminal."""
        with self.log.open("rb") as file:
            file.seek(self._starts)
            return file.read().decode()

    def pids(self, name: str) -> list[int]:
        """Processes called so that live: `worker` or `bookkeeper`; the last of each place."""
        last: dict[str, int] = {}
        for found in re.finditer(rf"({name}[ \d]*) runs as process (\d+)", self.said):
            last[found[1]] = int(found[2])
        return [pid for pid in last.values() if not is_gone(pid)]

    def has_another_bookkeeper(self, pid: int) -> bool:
        """Whether somebody has taken the place of the one that had this process, and answers."""
        return self.pids("bookkeeper") not in ([], [pid]) and answers(self.state_dir)

    def lives(self, pid: int) -> list[int]:
        """The numbers of the lives a worker has: it holds their locks."""
        found = []
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    path = link.readlink()
                    if path.parent.name == "journal" and path.suffix == ".lock":
                        found.append(int(path.stem))
        return found

    def dead_in_the_books(self, lives: list[int]) -> bool:
        """Whether all of them are over and charged."""
        alive = self.rows("SELECT id FROM holders WHERE live")
        return alive is not None and {(life,) for life in lives}.isdisjoint(alive)

    def rows(self, sql: str) -> list[tuple[Any, ...]] | None:
        """Straight from the file, as it is committed; None while nobody can read it."""
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.config_db}?mode=ro", uri=True, timeout=0)) as database:
                return database.execute(sql).fetchall()
        except sqlite3.OperationalError:  # it is just being recovered
            return None

    @property
    def config_db(self) -> Path:
        return self.state_dir / "fastroute.db"

    def desk(self, operation: str, **arguments: Any) -> Any:
        with reach(self.config) as ask:
            return ask(operation, **arguments)

    def key(self, name: str, **limits: Any) -> str:
        """The token of a new key."""
        return str(self.desk("keys.create", name=name, **limits)["key"])

    def kill(self) -> None:
        """SIGKILL for the supervisor; comes back when nobody of its house is left."""
        assert self.process is not None
        children = [*self.pids("worker"), *self.pids("bookkeeper")]
        self.process.kill()
        self.process.wait(5)
        wait_until(lambda: all(map(is_gone, children)), 5, 0.002)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(5)


async def until(true: Callable[[], bool], within_s: float, step_s: float = 0.003) -> None:
    """`wait_until` for who has a loop to keep turning."""
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110  what is waited for is another process
            await asyncio.sleep(step_s)


# --- what the books say ---------------------------------------------------------------------------------------------


@dataclass
class Told:
    """The books at rest."""

    accounts: dict[str, AccountRow]  # by name
    entries: list[EntryRow]
    receipts: list[ReceiptRow]
    units: dict[int, str]  # of windows
    owners: dict[int, int]  # of windows: accounts
    spent: dict[int, int]  # on windows
    limits: dict[int, int]
    under_way: int

    def money(self, entry: EntryRow, amounts: tuple[int, ...]) -> int | None:
        """What an entry has in money among amounts on its windows; None without a budget of money."""
        return next((n for w, n in zip(entry.windows, amounts, strict=True) if self.units[w] == "microdollar"), None)


def read_books(house: House) -> Told:
    """All rows, after the audit and the proof of the chain have found nothing wrong with them."""
    with Store.open(house.config_db, readonly=True) as store:
        books = Books(store)
        assert audit(books) == []
        with books.snapshot() as rows:
            budgets = {row.id: row for row in rows.budgets}
            receipts = list(rows.receipts)
            spent = {
                row.id: row.closed + sum(each.spent for each in rows.leases if each.window == row.id and not each.done)
                for row in rows.windows
            }
            told = Told(
                {row.name: row for row in rows.accounts},
                list(rows.entries),
                receipts,
                {row.id: budgets[row.budget].unit for row in rows.windows},
                {row.id: budgets[row.budget].account for row in rows.windows},
                spent,
                {row.id: budgets[row.budget].amount for row in rows.windows},
                len(rows.open),
            )
    report = verify_chain((row.body for row in receipts), receipt_keys(house.config))
    assert report.ok, report.faults
    assert report.count == len(receipts)
    return told


def audit_of(house: House) -> list[str]:
    """What an audit beside the running gateway finds."""
    with Store.open(house.config_db, readonly=True) as store:
        return audit(Books(store))


def check_limits(told: Told) -> None:
    """Nobody spent more than its limit on any window."""
    over = {window: spent - told.limits[window] for window, spent in told.spent.items()}
    assert max(over.values(), default=0) <= 0, over


def percentile(values: list[float], part: float) -> float:
    """The value that this part of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


Houses = Callable[..., House]


@contextlib.contextmanager
def houses(place: Path) -> Iterator[Houses]:
    """`house(port, workers=2, ...)`: not started yet; whoever still runs at the end is stopped, and must end well."""
    made: list[House] = []

    def house(provider_port: int, **how: Any) -> House:
        made.append(House(how.pop("state_dir", place / f"state-{len(made)}"), provider_port, **how))
        return made[-1]

    try:
        yield house
    finally:
        codes = [each.stop() for each in made if each.process is not None and each.process.poll() is None]
    if set(codes) - {0}:
        pytest.fail("\n".join(each.said for each in made))


def shuffled(seed: int, **counts: int) -> list[str]:
    """So many of each word, in an order that the seed gives."""
    words = [word for word, count in counts.items() for _ in range(count)]
    random.Random(seed).shuffle(words)
    return words
