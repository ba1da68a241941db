"""A bookkeeper is alone in its state directory: what it makes there, whom it listens to, and what it leaves to the next."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fastroute.ledger import bookkeeper
from fastroute.ledger.bookkeeper import Bookkeeper
from fastroute.ledger.door import BooksTaken, answers, socket_path
from fastroute.ledger.memory import Memory
from tests.ledger.bookkeeper_kit import Here, Wire, Worker
from tests.ledger.keeper_kit import Clerk, paper_receipt

pytestmark = pytest.mark.usefixtures("closed")


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


def test_once_its_last_worker_is_buried_it_ends_without_another_look(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops a gateway waits for its books."""
    monkeypatch.setattr(bookkeeper, "TURN_S", 30.0)
    monkeypatch.setattr(bookkeeper, "IDLE_S", 30.0)

    async def play() -> None:
        with Bookkeeper(state, Memory(), Clerk, paper_receipt) as kept:
            serving = asyncio.create_task(kept.serve(patience_s=60))
            wire = await asyncio.to_thread(Wire, state)
            account = await asyncio.to_thread(wire.desk, "open", name="k", amount=10**6)
            worker = await asyncio.to_thread(Worker, state, account)
            await asyncio.to_thread(worker.request)
            assert kept.keeper.lives == 1
            worker.end()
            kept.stop()
            assert await asyncio.wait_for(serving, 10), "closed cleanly"

    asyncio.run(play())
