"""What becomes of requests when processes are told to stop, or die: as little as can be, and it is said."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import gateway_kit as kit
import pytest

from fastroute import supervisor
from tests.kits import is_gone

Serve = Callable[..., kit.Gateway]


class Gate:
    """A stream of one event that ends when it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, sock: socket.socket, asked: kit.Asked) -> None:
        sock.sendall(kit.STREAM_HEAD + kit.chunk(kit.said("hello")))
        assert self.opened.wait(10)
        sock.sendall(kit.chunk(kit.LAST_WORDS) + kit.chunk(b""))


def exit_code(gateway: kit.Gateway, within_s: float) -> int:
    try:
        return gateway.process.wait(within_s)
    except subprocess.TimeoutExpired:
        pytest.fail("it did not end; its log:\n" + "".join(gateway.log))


# --- told to stop ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stream_under_way_is_finished_before_the_end(serve: Serve, upstream: kit.Upstream, how: signal.Signals):
    """First nobody is sent to us any more, then nobody can come, and who is here gets all of the answer."""
    gateway = serve(drain_ms=8000)
    gate = Gate()
    with gateway.connect() as kept, gateway.connect() as sock:
        sock.sendall(kit.chat(upstream.plays(gate), stream=True))
        reader = kit.Reader(sock)
        assert reader.head().status == 200
        kept.sendall(b"GET /readyz HTTP/1.1\r\nhost: t\r\n\r\n")
        assert kit.read_reply(kept).status == 200
        gateway.process.send_signal(how)
        time.sleep(0.1)
        kept.sendall(b"GET /readyz HTTP/1.1\r\nhost: t\r\n\r\n")
        assert kit.read_reply(kept).status == 503
        assert gateway.ask("up:meanwhile").status == 200
        kit.wait_until(lambda: not accepts(gateway), 3)
        assert gateway.process.poll() is None
        gate.opened.set()
        assert b"".join(reader.chunks()).endswith(b"data: [DONE]\n\n")
    assert exit_code(gateway, 5) == 0


def accepts(gateway: kit.Gateway) -> bool:
    try:
        gateway.connect(1).close()
    except ConnectionRefusedError:
        return False
    return True


def test_what_outlives_the_drain_is_told_so(serve: Serve, upstream: kit.Upstream):
    """An error in the caller's own dialect and an orderly end, instead of a cut."""
    gateway = serve(drain_ms=300)
    begun, silent = upstream.plays(kit.begin_and_hold), upstream.plays(kit.hold)
    wires = [
        kit.chat(begun, stream=True),
        kit.chat(begun, stream=True, path="/v1/messages", max_tokens=9),
        kit.chat(silent, stream=True),
        kit.chat(silent),
    ]
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(gateway.connect()) for _ in wires]
        for sock, wire in zip(socks, wires, strict=True):
            sock.sendall(wire)
        kit.wait_until(lambda: len(upstream.of(begun)) == len(upstream.of(silent)) == 2, 3)
        readers = [kit.Reader(sock) for sock in socks]
        streamed, message = (reader.head() for reader in readers[:2])
        began = time.monotonic()
        gateway.process.terminate()
        for reader, reply in zip(readers, (streamed, message), strict=False):
            reply.body = b"".join(reader.chunks())
        whole = [reader.reply() for reader in readers[2:]]
        assert time.monotonic() - began < 2.5
    assert b'"code":"shutting_down"' in streamed.body
    assert b"event: error\n" in message.body
    assert b"shutting down" in message.body
    assert b"[DONE]" not in streamed.body + message.body
    assert [(reply.status, reply.json["error"]["code"]) for reply in whole] == [(503, "shutting_down")] * 2
    assert exit_code(gateway, 3) == 0


def test_a_second_signal_does_not_wait(serve: Serve, upstream: kit.Upstream):
    gateway = serve(drain_ms=60_000)
    model = upstream.plays(kit.begin_and_hold)
    with gateway.connect() as sock:
        sock.sendall(kit.chat(model, stream=True))
        assert kit.Reader(sock).head().status == 200
        gateway.process.terminate()
        time.sleep(0.2)
        assert gateway.process.poll() is None
        gateway.process.terminate()
        assert exit_code(gateway, 2) == 1
        assert upstream.first(model).gone.wait(2)


def test_an_idle_gateway_ends_at_once(serve: Serve):
    gateway = serve(workers=2, drain_ms=60_000)
    with gateway.connect() as kept:
        kept.sendall(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n")
        kit.read_reply(kept)
        began = time.monotonic()
        gateway.process.terminate()
        assert exit_code(gateway, 5) == 0
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("after_ms", [0, 5, 20, 60])
def test_a_gateway_told_to_stop_while_it_starts_stops(serve: Serve, after_ms: int):
    """No worker misses the word, however young it is, from the moment on in which its supervisor listens for it."""
    gateway = serve(workers=2, ready=False, drain_ms=60_000)
    status = Path(f"/proc/{gateway.process.pid}/status")
    deadline = time.monotonic() + 20
    while not int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16) & 1 << signal.SIGTERM - 1:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(after_ms / 1000)
    gateway.process.terminate()
    assert exit_code(gateway, 5) == 0


# --- dying ----------------------------------------------------------------------------------------------------------


class Load:
    """Callers who ask one thing after the other, each on a new connection; what failed, and when."""

    def __init__(self, gateway: kit.Gateway, callers: int) -> None:
        self.done = 0
        self.failures: list[tuple[float, str]] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(gateway,)) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def _run(self, gateway: kit.Gateway) -> None:
        while not self._stop.is_set():
            try:
                assert gateway.ask("up:load").status == 200
                self.done += 1
            except OSError as error:
                self.failures.append((time.monotonic(), repr(error)))
            time.sleep(0.005)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)


def test_a_killed_worker_takes_only_its_own_requests_along(
    serve: Serve, upstream: kit.Upstream, figure: Callable[[str], None]
):
    """The others never notice, and another takes its place within 2 s."""
    gateway = serve(workers=2)
    kit.wait_until(lambda: kit.listeners(gateway.port) == 2, 5)
    load = Load(gateway, callers=6)
    try:
        kit.wait_until(lambda: load.done > 50, 10)
        victim = gateway.workers[0]
        at = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        respawn_s = kit.wait_until(
            lambda: victim not in gateway.workers and len(gateway.workers) == kit.listeners(gateway.port) == 2, 5
        )
        seen = load.done
        kit.wait_until(lambda: load.done > seen + 100, 10)
    finally:
        load.end()
    figure(
        f"one of two workers killed: back after {respawn_s:.2f} s, {len(load.failures)} of {load.done} requests lost"
    )
    assert respawn_s < 2
    # Six were under way at most; each may meet the dying port once more before the kernel has closed it.
    assert len(load.failures) <= 12
    assert all(when - at < 0.5 for when, _ in load.failures), load.failures
    assert victim not in gateway.workers


def test_five_deaths_in_a_row_are_only_longer_pauses(serve: Serve):
    """With the only worker, the port is closed now and then; the service never ends, and each pause is as announced."""
    pauses = [20, 40, 80, 160, 320]
    gateway = serve(constants={"fastroute.supervisor.BACKOFF_MS": pauses})
    for n in range(6):
        (pid,) = gateway.workers
        os.kill(pid, signal.SIGKILL)
        assert kit.wait_until(lambda: kit.is_ready(gateway), 5) < 3
        assert f"SIGKILL; another starts in {pauses[min(n, 4)]} ms" in "".join(gateway.log)
    assert gateway.process.poll() is None


def test_the_longest_pause_is_what_is_promised():
    """A port is never closed for longer than 5 s; a single death is over in a moment."""
    assert supervisor.BACKOFF_MS[0] <= 100
    assert max(supervisor.BACKOFF_MS) <= 5000
    assert list(supervisor.BACKOFF_MS) == sorted(supervisor.BACKOFF_MS)


def test_no_worker_outlives_its_supervisor(serve: Serve, upstream: kit.Upstream):
    """Not even in the middle of a stream; the port is free for the next."""
    gateway = serve(workers=2)
    workers = gateway.workers
    assert len(workers) == 2
    model = upstream.plays(kit.begin_and_hold)
    with gateway.connect() as sock:
        sock.sendall(kit.chat(model, stream=True))
        assert kit.Reader(sock).head().status == 200
        gateway.process.kill()
        gateway.process.wait(2)
        kit.wait_until(lambda: all(map(is_gone, workers)), 2)
    assert kit.listeners(gateway.port) == 0
    assert upstream.first(model).gone.wait(1)
    assert serve(port=gateway.port).ask("up:other").status == 200


def test_what_was_counted_survives_the_one_who_counted(serve: Serve, upstream: kit.Upstream):
    """Totals never go back, and a request that died with its worker is not in progress for ever."""
    gateway = serve(constants={"fastroute.supervisor.BACKOFF_MS": [20]})
    labels = {"status_code": "200"}
    for _ in range(10):
        gateway.ask("up:counted")
    assert gateway.metric("router_requests_total", **labels) == 10
    model = upstream.plays(kit.hold)
    with gateway.connect() as sock:
        sock.sendall(kit.chat(model))
        upstream.first(model)
        assert gateway.metric("router_active_requests") == 1
        os.kill(gateway.workers[0], signal.SIGKILL)
    kit.wait_until(lambda: kit.is_ready(gateway), 5)
    assert gateway.metric("router_requests_total", **labels) == 10
    assert gateway.metric("router_active_requests") == 0
    gateway.ask("up:counted")
    assert gateway.metric("router_requests_total", **labels) == 11


# --- ports and limits -----------------------------------------------------------------------------------------------


def test_workers_share_the_port(serve: Serve):
    gateway = serve(workers=2)
    kit.wait_until(lambda: kit.listeners(gateway.port) == 2, 5)

    def sockets(pid: int) -> int:
        return sum(entry.is_socket() for entry in Path(f"/proc/{pid}/fd").iterdir())

    before = {pid: sockets(pid) for pid in gateway.workers}
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            sock = stack.enter_context(gateway.connect())
            sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n")
            assert kit.read_reply(sock).status == 200
        shares = [sockets(pid) - count for pid, count in before.items()]
    assert sum(shares) == 60
    assert min(shares) >= 10


def test_a_port_that_is_taken_is_not_shared_in_silence(gateway: kit.Gateway, tmp_path: Path):
    """The kernel would let us; half of the requests would go to a stranger."""
    command = [sys.executable, "-m", "fastroute", "serve", "--port", str(gateway.port), "--state-dir", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode != 0
    assert f"cannot listen on 127.0.0.1:{gateway.port}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert gateway.ask("up:other").status == 200


def test_a_gateway_without_free_descriptors_recovers(serve: Serve):
    """Callers beyond the limit wait or are refused; nothing dies, and when some leave others are served."""
    gateway = serve(files_max=96)
    workers = gateway.workers
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            for _ in range(200):
                sock = stack.enter_context(gateway.connect())
                sock.sendall(kit.chat("up:many"))
            time.sleep(0.3)
        kit.wait_until(lambda: kit.is_ready(gateway) and gateway.ask("up:after").status == 200, 5)
    assert gateway.workers == workers


def test_a_start_is_quick_and_a_worker_small(serve: Serve, figure: Callable[[str], None]):
    began = time.monotonic()
    gateway = serve(workers=2)
    assert gateway.ask("dummy").status == 200
    started_s = time.monotonic() - began
    for _ in range(50):
        gateway.ask("up:other", stream=True)
    kit.wait_until(lambda: len(gateway.workers) == 2, 3)
    rolls = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in gateway.workers]
    rss, pss = ([int(roll.partition(f"\n{name}:")[2].split()[0]) / 1024 for roll in rolls] for name in ("Rss", "Pss"))
    figure(f"start to first answer: {started_s:.2f} s; a worker: {max(rss):.0f} MiB RSS, {max(pss):.0f} MiB PSS")
    assert started_s < 3
    assert max(rss) < 110
