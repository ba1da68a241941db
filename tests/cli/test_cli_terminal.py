"""What somebody at a terminal sees of `infer`, and what a program reads of it through a pipe: the same, by both ways."""

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.cli import terminal_kit as kit
from tests.cli.terminal_kit import BACKUP, PRIMARY

terminal = kit.terminal


class Seen:
    """One run of the command. A terminal shows answer and account on one screen; a pipe keeps them apart."""

    def __init__(self, terminal, way, *words):
        self.way = way
        self.out = self.err = ""
        if way == "terminal":
            self._leader, follower = pty.openpty()
            ends = {"stdin": follower, "stdout": follower, "stderr": follower, "start_new_session": True}
        else:
            ends = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastroute", "infer", "-p", "desk", "-u", "alice", "--input", "hello", *words],
            cwd=terminal.place,
            env={"PATH": os.environ["PATH"], **terminal.environment, "PYTHONPATH": str(kit.ROOT)},
            **ends,
        )
        if way == "terminal":
            os.close(follower)
            self._open = {self._leader: "out"}
        else:
            self._open = {self.process.stdout.fileno(): "out", self.process.stderr.fileno(): "err"}

    def read(self, until=None):
        """What is shown, to its end or until a text is; it says which part came where."""
        deadline = time.monotonic() + kit.PATIENCE_S
        while self._open and (until is None or until not in self.out):
            assert time.monotonic() < deadline, (self.out, self.err)
            for ready in select.select([*self._open], [], [], 0.1)[0]:
                try:
                    piece = os.read(ready, 65536)
                except OSError:  # how a terminal tells that nobody writes any more
                    piece = b""
                if not piece:
                    del self._open[ready]
                    continue
                text = piece.decode().replace("\r\n", "\n")
                setattr(self, self._open[ready], getattr(self, self._open[ready]) + text)
        return self

    def ended(self):
        self.read()
        code = self.process.wait(kit.PATIENCE_S)
        if self.way == "terminal":
            os.close(self._leader)
        else:
            self.process.stdout.close()
            self.process.stderr.close()
        return code

    @property
    def all(self):
        """Everything, in the order of a screen."""
        return self.out + self.err


@pytest.fixture(params=["terminal", "pipe"])
def infer(request, terminal):
    runs = []

    def run(*words):
        runs.append(Seen(terminal, request.param, *words))
        return runs[-1]

    yield run
    for each in runs:
        if each.process.poll() is None:
            each.process.kill()
            each.ended()


def test_p_a1_text_is_out_while_the_answer_is_still_on_its_way(infer, terminal, upstream, say):
    """Output before completion; then one line of account, exit 0, and a receipt that verifies."""
    terminal.policy()
    rest = threading.Event()
    first, *others = say.openai_events("Hel", "lo.")
    upstream.script(
        PRIMARY,
        [
            say.head() + say.chunk(first) + say.chunk(others[0]),
            upstream.wait(rest),
            b"".join(map(say.chunk, others[1:])) + say.LAST,
        ],
    )
    seen = infer("--stream").read(until="Hel")
    assert "[receipt" not in seen.all
    rest.set()
    assert seen.ended() == 0
    account = kit.TAIL.search(seen.all)
    assert seen.all == f"Hello.\n{account[0]}", "no colours, no cursor, no bar: what a pipe has is what a screen shows"
    assert (account[2], account[3]) == (PRIMARY, "0")
    assert terminal.run("receipts", "--open", account[1]).code == 0


def test_p_a2_p_a6_nothing_of_a_stalled_primary_is_shown(infer, terminal, upstream, say):
    terminal.policy(limit_ms=300)
    upstream.script(PRIMARY, [say.head(), upstream.hold])
    seen = infer()
    assert seen.ended() == 0
    account = kit.TAIL.search(seen.all)
    assert seen.all == f"hello from {BACKUP}\n{account[0]}"
    assert (account[2], account[3], int(account[4]) >= 300) == (BACKUP, "1", True)


def test_p_a3_a_bad_request_exits_69_and_says_why(infer, terminal, upstream, say):
    terminal.policy()
    upstream.script(PRIMARY, say.whole(b'{"error": {"message": "no such thing", "type": "x"}}', 400))
    seen = infer()
    assert seen.ended() == 69
    assert "no such thing" in seen.all
    assert kit.TAIL.search(seen.all)[3] == "0"
    assert upstream.asked(BACKUP) == []


def test_p_a5_a_stall_in_the_middle_ends_the_line_and_nothing_is_appended(infer, terminal, upstream, say):
    terminal.configure("relay: {idle_ms: 300}\n")
    terminal.policy(strategy=", first_chunk_gate_ms: 0")
    upstream.script(PRIMARY, [say.head() + b"".join(map(say.chunk, say.openai_events("half")[:2])), upstream.hold])
    seen = infer()
    assert seen.ended() == 69
    assert seen.all.startswith("half\nthe answer broke off")
    assert f"hello from {BACKUP}" not in seen.all


def test_p_a7_p_a8_a_quota_is_one_line_and_exit_75(infer, terminal, upstream):
    terminal.policy(rpm=1)
    assert infer().ended() == 0
    upstream.script(PRIMARY, b"")
    seen = infer()
    assert seen.ended() == 75
    assert seen.all.startswith("429: rate cap reached")
    assert seen.all.count("\n") == 1
    assert upstream.asked(PRIMARY) == []


def test_ctrl_c_ends_it_with_130_and_an_account(infer, terminal, upstream, say):
    """At a terminal as by a signal: the line is ended, what was relayed is charged, nothing stays on hold."""
    terminal.policy(strategy=", first_chunk_gate_ms: 0")
    upstream.script(PRIMARY, [say.head() + b"".join(map(say.chunk, say.openai_events("half")[:2])), upstream.hold])
    seen = infer().read(until="half")
    seen.process.send_signal(signal.SIGINT)
    assert seen.ended() == 130
    assert "half\ninterrupted\n" in seen.all.replace("^C", "")
    account = kit.TAIL.search(seen.all)
    paper = terminal.run("receipts", "--open", account[1], "--json").json
    assert paper["outcome"] == "partial"
    assert terminal.run("usage", "-u", "alice", "--json").json["tokens"]["held"] == 0


def test_p_a13_a_command_that_is_killed_in_its_answer_is_on_the_books(infer, terminal, upstream, say):
    """kill -9 once the first text is out: it was delivered, so it is charged, and the chain of receipts holds."""
    terminal.policy(strategy=", first_chunk_gate_ms: 0")
    upstream.script(PRIMARY, [say.head() + b"".join(map(say.chunk, say.openai_events("half")[:2])), upstream.hold])
    seen = infer().read(until="half")
    seen.process.kill()
    seen.ended()
    tokens = terminal.run("usage", "-u", "alice", "--json").json["tokens"]
    assert tokens["used"] > 0
    assert tokens["held"] == 0
    assert terminal.run("receipts", "verify").code == 0
    assert terminal.run("ledger", "verify").code == 0
