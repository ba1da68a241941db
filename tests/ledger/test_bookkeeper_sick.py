"""A bookkeeper whose store is sick: on a full disk it refuses and recovers by itself, and damaged pages it leaves alone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastroute.errors import StoreCorrupt, StoreError
from fastroute.ledger import keeper
from fastroute.ledger.door import answers
from fastroute.ledger.memory import Memory
from fastroute.ledger.protocol import Answered, Ask
from tests.ledger.bookkeeper_kit import FORK, Here, Started, Wire, keep, stored, wait_until, working
from tests.ledger.keeper_kit import Sick

pytestmark = pytest.mark.usefixtures("closed")


def test_it_recovers_alone_when_the_disk_is_well_again(
    state: Path, here: Callable[[Memory], Here], start: Started
) -> None:
    store = Sick()
    here(store)
    wire = Wire(state)
    account = wire.desk("open", name="k", amount=10**6)
    wire.desk("used", account=account)
    store.fault = StoreError("there is no room")
    reply: Answered = wire.ask(Ask, "open", {"name": "other", "amount": 1})
    assert reply.refusal == keeper.UNAVAILABLE
    assert wire.desk("used", account=account) == 0
    store.fault = None
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
