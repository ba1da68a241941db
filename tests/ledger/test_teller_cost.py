"""What an attempt costs a worker beside money: no system call, no running loop, and nothing that stays behind."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastroute.ledger import teller as tellers
from tests.ledger.teller_kit import TOKEN, scene, spend, until

ROOT = Path(tellers.__file__).parents[2]

HOT = """
import asyncio, ctypes, os, sys
from pathlib import Path
from fastroute.clock import SystemClock
from fastroute.domain import Settlement, Usage
from fastroute.ledger.accounts import Account, Till
from fastroute.ledger.journal import Journal
from fastroute.ledger.leases import Holder
from fastroute.ledger.protocol import Facts, LeaseAnswer, PathWindow, Refreshed

clock = SystemClock()
till = Till(clock, asyncio.new_event_loop())
till.holder = Holder(10**9, clock.monotonic_ms())
till.journal = Journal.create(Path(sys.argv[1]), 1, segment_bytes=1 << 20)
account = Account(till, Facts(1, "k", "key", "", (PathWindow(1, "microdollar", 10**12, "", "UTC", None, "k", "key"),), None), 0)
till.holder.ask(account.path, 10**9, 1, clock.monotonic_ms())
seq, leases = till.holder.report(clock.monotonic_ms(), due=False)
for ticket in till.holder.answer(Refreshed(1, seq, (LeaseAnswer(1, 10**11),)), clock.monotonic_ms()):
    till.holder.void(ticket.hold)
settlement = Settlement("exact", 5_000_000, 5, Usage(3, 4))
rounds = 200

def attempts():
    for _ in range(rounds):
        hold = account.reserve(10, 10)
        assert account.send(hold, "req_1", "gpt", "gpt-4o", "openai") is None
        account.settle(hold, settlement, "ok", 200, 12)
        account.finish("req_1", "rd_1", "chat", "auto", "gpt", "cheapest", 200, False, 1, 2, None)

attempts()
os.write(2, b"begin")
attempts()
os.write(2, b"end")
os._exit(0)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="counts with strace")
def test_an_attempt_makes_no_system_call_and_needs_no_running_loop(tmp_path):
    """RELIABILITY 5.9: reserve, send, settle and finish, 200 times: nothing between the two marks."""
    script = tmp_path / "hot.py"
    script.write_text(HOT)
    log = tmp_path / "strace.log"
    ran = subprocess.run(
        ["strace", "-o", str(log), sys.executable, str(script), str(tmp_path / "journal")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if "ptrace" in ran.stderr and not log.read_text().strip():
        pytest.skip("tracing is not permitted here")
    assert ran.returncode == 0, ran.stderr
    lines = log.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if '"begin"' in line)
    last = next(n for n, line in enumerate(lines) if '"end"' in line)
    # Memory, and the interpreter lending its lock to the thread that flushes: neither is asked for by an attempt.
    aside = ("brk(", "mmap(", "munmap(", "---", "futex(")
    between = [line for line in lines[first + 1 : last] if not line.startswith(aside)]
    assert between == []


@scene
async def test_nothing_is_left_of_a_call_once_it_is_over(books, open_teller):
    """Accounts that nobody uses any more go, whatever was held through them."""
    teller = await open_teller()
    account = await teller.find(TOKEN)
    await spend(account, 1)
    del account
    books.change()
    await until(lambda: teller.known(TOKEN) is None)
    await until(lambda: teller._rechecking is None)
    gc.collect()
    assert dict(teller._accounts) == {}
