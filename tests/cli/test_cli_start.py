"""How `fastroute infer` begins: with no more than its first token needs, and with a bookkeeper that outlives nobody."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastroute import visiting
from fastroute.reaching import reach
from tests.cli import terminal_kit as kit

ROOT = Path(__file__).parents[2]
# What neither a first token needs nor the bookkeeper that is started for it.
NOT_LOADED = {
    "granian", "uvloop", "starlette", "httpx", "cryptography", "multiprocessing", "ctypes", "tempfile", "email",
    "importlib.resources", "fastroute.supervisor", "fastroute.reaching",
}  # fmt: skip

terminal = kit.terminal


@pytest.fixture
def quick(tmp_path):
    """A directory in which the simulated provider answers at once."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "quick.yaml").write_text("policy: quick\nrouting: {primary: [demo-small]}\n")
    (tmp_path / "fastroute.yaml").write_text("demo: true\n")
    return tmp_path


def asked(place, *options):
    arguments = ["-m", "fastroute", "infer", "-p", "quick", "-u", "alice", "--input", "hi"]
    return subprocess.Popen(
        [sys.executable, *options, *arguments],
        cwd=place,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_first_token_loads_nothing_it_does_not_need(quick):
    """Each import is a part of the start; what is seldom needed is loaded where it is."""
    out, err = asked(quick, "-X", "importtime").communicate(timeout=30)
    assert "demo-small" in out
    loaded = {line.rpartition("|")[2].strip() for line in err.splitlines() if line.startswith("import time:")}
    assert "fastroute.prompting" in loaded
    assert not {name for name in loaded if name in NOT_LOADED or name.split(".")[0] in NOT_LOADED}


def test_a_first_token_comes_soon_even_where_others_are_busy(quick):
    """The aim is 400 ms on a machine at rest (`python -m bench.start`); what is held here is an order of magnitude."""
    asked(quick).communicate(timeout=60)  # what nobody compiled yet is compiled, and the state directory made
    times = []
    for _ in range(2):
        began = time.monotonic()
        process = asked(quick)
        assert process.stdout.read(1)
        times.append(time.monotonic() - began)
        process.communicate(timeout=30)
    assert min(times) < 6, times


def test_a_visitor_that_is_killed_leaves_no_bookkeeper_behind(terminal, upstream, say, patiently):
    """It learns of the end at once, closes the books, and lets go of their lock long before its own patience is over."""
    terminal.policy(limit_ms=20_000, strategy=", first_chunk_gate_ms: 0")
    upstream.script(kit.PRIMARY, [upstream.hold])
    process = terminal.start("infer", "-p", "desk", "-u", "alice", "--input", "hello")
    patiently(lambda: upstream.asked(kit.PRIMARY))
    process.send_signal(signal.SIGKILL)
    terminal.end(process)
    patiently(lambda: not (terminal.state / "run" / "books.sock").exists())
    assert terminal.run("ledger", "verify").code == 0


def test_what_fails_before_a_visit_leaves_no_bookkeeper_behind(terminal, patiently):
    terminal.policy()
    terminal.configure("aliases: {chat: [nobody-knows-this]}\n")
    ran = terminal.infer()
    assert ran.code != 0
    assert "nobody-knows-this" in ran.err
    assert not (terminal.state / "run" / "books.sock").exists()


def test_commands_beside_others_that_come_and_go_find_the_books_whoever_has_them(terminal):
    """Bookkeepers of visits end while somebody arrives, and begin before they answer: nobody is turned away for that."""
    terminal.policy()
    terminal.infer()
    for _ in range(2):
        visitor = terminal.start("infer", "-p", "desk", "-u", "alice", "--input", "hello")
        looks = 0
        while visitor.poll() is None or looks < 3:
            looks += 1
            for words in (("receipts", "verify"), ("usage", "-u", "alice")):
                ran = terminal.run(*words)
                assert ran.code == 0, ran.err
        ended = terminal.end(visitor)
        assert ended.code == 0, ended.err


def test_whoever_is_connected_keeps_a_visits_bookkeeper(terminal, upstream, say, patiently):
    """A command asks several questions on one line; the visitor that the books were opened for may end between them."""
    terminal.policy(limit_ms=20_000)
    upstream.script(kit.PRIMARY, [upstream.hold])
    visitor = terminal.start("infer", "-p", "desk", "-u", "alice", "--input", "hello")
    patiently(lambda: upstream.asked(kit.PRIMARY))
    with reach(terminal.config) as ask:
        assert ask("receipts.list", limit=5) == []
        visitor.send_signal(signal.SIGKILL)
        terminal.end(visitor)
        time.sleep(4 * visiting._LINGER_S)
        [paper] = ask("receipts.list", limit=5)
    assert paper["id"].startswith("rcpt_")
    patiently(lambda: not (terminal.state / "run" / "books.sock").exists())
