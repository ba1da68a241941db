"""A process of weights lives as long as somebody holds it: one for all, started when wanted, back after its death."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from gateway_kit import wait_until

from fastroute.weights import Unloadable
from fastroute.weights.place import Place
from tests.kits import is_gone

CHILD = """
import sys, time
from pathlib import Path
from fastroute.weights import Keeper, Source, Spec, keeper, source
keeper.PROGRAM = (sys.argv[1],)
source.NEEDED["gguf"] = ((), "gguf")
kept = Keeper(Path(sys.argv[2]), Spec(Source.of(sys.argv[3]), linger_s=0.0))
print(kept.wait(20).base_url, flush=True)
time.sleep(60)
"""


def said(address, text: str = "one two") -> str:
    answer = httpx.post(
        f"{address.base_url}/completions", json={"prompt": text}, headers={"authorization": f"Bearer {address.api_key}"}
    )
    answer.raise_for_status()
    return answer.json()["choices"][0]["text"]


def pid_of(keeper) -> int:
    told = keeper._place.told()
    assert told is not None
    return told.pid


def test_several_who_want_it_at_once_share_one_process(keep, play):
    path = play(load_s=0.3)
    keepers = [keep(path) for _ in range(3)]

    async def all_of_them():
        return await asyncio.gather(*(keeper.arrive() for keeper in keepers for _ in range(2)))

    addresses = asyncio.run(all_of_them())
    assert len(set(addresses)) == 1
    assert said(addresses[0]) == "one two"
    assert len({pid_of(keeper) for keeper in keepers}) == 1
    assert [keeper.address() for keeper in keepers] == addresses[:3]


def test_after_kill_9_the_next_who_asks_has_another_with_another_key(keep, play):
    keeper = keep(play())
    before = keeper.wait(10)
    pid = pid_of(keeper)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: keeper.address() is None, 8)
    after = keeper.wait(10)
    assert said(after) == "one two"
    assert pid_of(keeper) != pid
    assert after.api_key != before.api_key


def test_it_ends_when_its_last_user_is_killed(play, tmp_path):
    """kill -9 of the program that opened it: the kernel lets go of what it held, and that is all it takes."""
    stub = Path(__file__).with_name("stub_host.py")
    program = [sys.executable, "-c", CHILD, str(stub), str(tmp_path / "run"), str(play())]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline().startswith("http://127.0.0.1:")
        [life] = (tmp_path / "run").glob("*.lock")
        place = Place(tmp_path / "run", life.stem)
        assert place.alive()
        pid = place.told().pid
        user.kill()
        user.wait(5)
    wait_until(lambda: not place.alive(), 8)
    wait_until(lambda: is_gone(pid), 8)
    assert place.told() is None, "the key it had opens nothing and is not left lying about"
    place.close()


def test_it_stays_while_another_holds_it(keep, play):
    path = play()
    first, second = keep(path), keep(path)
    address = first.wait(10)
    assert second.wait(10) == address
    # The one who started it goes without a word, as a worker that was killed does.
    first._place.close()
    first._place = first._child = None
    time.sleep(0.8)  # three looks of the process
    assert said(address) == "one two"


def test_what_cannot_be_loaded_says_why_and_is_not_tried_at_every_request(keep, play):
    keeper = keep(play(refuses="the weights are of lead"))
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(Unloadable, match="of lead"):
            keeper.wait(10)
    assert keeper._deaths == 1
    assert time.monotonic() - started < 5


def test_a_process_that_dies_of_its_weights_is_told_by_its_signal(keep, play):
    keeper = keep(play(dies=True))
    with pytest.raises(Unloadable, match="SIGSEGV"):
        # The first death is answered by another start at once, the second by a pause.
        keeper.wait(10)
    assert keeper._deaths == 2


def test_a_file_that_is_not_there_starts_nothing(keep, tmp_path):
    keeper = keep(tmp_path / "none.gguf")
    with pytest.raises(Unloadable, match=r"no file none\.gguf"):
        keeper.wait(10)
    assert keeper._child is None


def test_who_gives_up_waiting_leaves_the_others_theirs(keep, play):
    keeper = keep(play(load_s=0.5))

    async def story():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await keeper.arrive()
        return await keeper.arrive()

    assert said(asyncio.run(story())) == "one two"


def test_the_process_is_told_no_key_but_its_own(keep, play, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-house")
    monkeypatch.setenv("FASTROUTE_ADMIN_KEY", "of-the-house")
    keeper = keep(play())
    address = keeper.wait(10)
    pid = pid_of(keeper)
    told = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"of-the-house" not in told
    assert address.api_key.encode() not in told
    for path in keeper._directory.iterdir():
        assert path.stat().st_mode & 0o077 == 0, f"{path.name} is open to others"
