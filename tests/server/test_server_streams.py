"""Callers who do not read, who leave, or who do nothing at all: the upstream feels it, and nobody else does."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gateway_kit as kit
import pytest

from fastroute.web import serving, worker

PIECE = kit.chunk(kit.said("x" * 8000))


class Flood:
    """A stream as fast as it is taken; `sent` bytes of it have been, and `blocked` says that none was for a while."""

    def __init__(self) -> None:
        self.sent = 0
        self.at = time.monotonic()

    def __call__(self, sock: socket.socket, asked: kit.Asked) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        sock.sendall(kit.STREAM_HEAD)
        while True:
            sock.sendall(PIECE)
            self.sent += len(PIECE)
            self.at = time.monotonic()

    @property
    def blocked(self) -> bool:
        return self.sent > 0 and time.monotonic() - self.at > 0.25


def rss_kib(pid: int) -> int:
    found = Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2]
    return int(found.split()[0])


def narrow(gateway: kit.Gateway, wire: bytes) -> socket.socket:
    """A connection of a caller with hardly any room for an answer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.settimeout(10)
    sock.connect((gateway.host, gateway.port))
    sock.sendall(wire)
    return sock


# --- slow readers ---------------------------------------------------------------------------------------------------


def test_a_caller_who_does_not_read_holds_the_upstream_back(
    gateway: kit.Gateway, upstream: kit.Upstream, figure: Callable[[str], None]
):
    """Its stream costs little memory, others are served as before, and after the write deadline (1.5 s here) it ends.

    Several at once, for one alone costs 1 MiB or 2.8 by what the allocator has at hand.
    """
    for _ in range(3):
        gateway.ask("up:warm", "x" * 100_000, stream=True)
    (pid,) = gateway.workers
    aborted = gateway.metric("fastroute_stream_abort_total", side="down", phase="mid")
    before = rss_kib(pid)
    floods = [Flood() for _ in range(4)]
    models = [upstream.plays(flood) for flood in floods]
    with contextlib.ExitStack() as stack:
        for model in models:
            stack.enter_context(narrow(gateway, kit.chat(model, stream=True)))
        asked = [upstream.first(model) for model in models]
        kit.wait_until(lambda: all(flood.blocked for flood in floods), 5)
        began = time.monotonic()
        took = [kit.wait_until(lambda: gateway.ask("up:other").status == 200, 5) for _ in range(20)]
        grown = (rss_kib(pid) - before) / len(floods)
        sent, others = sum(flood.sent for flood in floods) / len(floods) / 1024, statistics.median(took) * 1000
        figure(
            f"a caller who does not read: {grown:.0f} KiB of RSS, {sent:.0f} KiB taken from upstream, others {others:.1f} ms"
        )
        assert grown < 1792
        assert all(one.gone.wait(6) for one in asked)
        assert time.monotonic() - began < 5
    kit.wait_until(
        lambda: gateway.metric("fastroute_stream_abort_total", side="down", phase="mid") == aborted + len(floods),
        2,
        0.05,
    )


def test_the_write_deadline_is_what_is_promised():
    assert worker.WRITE_S == 60.0


def test_a_caller_who_reads_slowly_is_waited_for(gateway: kit.Gateway, upstream: kit.Upstream):
    """Progress is what counts: nothing ends while something is taken now and then."""
    model = upstream.plays(Flood())
    with narrow(gateway, kit.chat(model, stream=True)) as sock:
        until = time.monotonic() + 2.5
        read = 0
        while time.monotonic() < until:
            read += len(sock.recv(16_384))
            time.sleep(0.05)
        assert read > 100_000
        assert not upstream.first(model).gone.is_set()


# --- callers who leave ----------------------------------------------------------------------------------------------


def leave(sock: socket.socket, how: str) -> float:
    at = time.monotonic()
    if how == "reset":
        kit.reset(sock)
    elif how == "close":
        sock.close()
    else:
        sock.shutdown(socket.SHUT_WR)
    return at


@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
@pytest.mark.parametrize("phase", ["json", "json head", "stream", "first", "mid"])
def test_an_upstream_learns_at_once_that_its_caller_left(
    gateway: kit.Gateway, upstream: kit.Upstream, how: str, phase: str, figure: Callable[[str], None]
):
    """Whether it has said nothing, its head, or half of its answer; best of three, so that a busy machine counts less."""
    plays: dict[str, kit.Play] = {
        "json": kit.hold,
        "stream": kit.hold,
        "json head": says(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n"),
        "first": says(kit.STREAM_HEAD),
        "mid": kit.begin_and_hold,
    }
    took = []
    for _ in range(3):
        model = upstream.plays(plays[phase])
        with gateway.connect() as sock:
            sock.sendall(kit.chat(model, stream=not phase.startswith("json")))
            asked = upstream.first(model)
            if phase == "mid":
                assert kit.Reader(sock).head().status == 200
            else:
                time.sleep(0.08)
            at = leave(sock, how)
            assert asked.gone.wait(3)
            took.append((asked.gone_at - at) * 1000)
    figure(f"{phase}, {how}: the upstream knew after {', '.join(f'{ms:.1f}' for ms in took)} ms")
    assert min(took) < 100


def says(data: bytes) -> kit.Play:
    def play(sock: socket.socket, asked: kit.Asked) -> None:
        sock.sendall(data)
        kit.hold(sock, asked)

    return play


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_right_after_asking_is_noticed_too(gateway: kit.Gateway, upstream: kit.Upstream, stream: bool):
    model = upstream.plays(kit.hold)
    with gateway.connect() as sock:
        sock.sendall(kit.chat(model, stream=stream))
        asked = upstream.first(model)
    assert asked.gone.wait(1)


@pytest.mark.parametrize(("phase", "play"), [("first", kit.hold), ("mid", kit.begin_and_hold)])
def test_callers_who_leave_are_counted(gateway: kit.Gateway, upstream: kit.Upstream, phase: str, play: kit.Play):
    before = gateway.metric("fastroute_stream_abort_total", side="down", phase=phase)
    model = upstream.plays(play)
    with gateway.connect() as sock:
        sock.sendall(kit.chat(model, stream=True))
        upstream.first(model)
        if phase == "mid":
            assert kit.Reader(sock).head().status == 200
    kit.wait_until(
        lambda: gateway.metric("fastroute_stream_abort_total", side="down", phase=phase) == before + 1, 2, 0.02
    )
    assert gateway.metric("fastroute_stream_abort_total", side="up", phase=phase) == 0


@pytest.mark.parametrize("stream", [False, True])
def test_closing_ones_half_before_the_answer_is_leaving(gateway: kit.Gateway, upstream: kit.Upstream, stream: bool):
    """The server cannot tell the two apart, so nothing is said any more."""
    model = upstream.plays(kit.hold)
    with gateway.connect() as sock:
        sock.sendall(kit.chat(model, stream=stream))
        upstream.first(model)
        sock.shutdown(socket.SHUT_WR)
        with pytest.raises(kit.NoReply, match="closed"):
            kit.read_reply(sock)


def test_closing_ones_half_within_a_stream_never_ends_it_well(gateway: kit.Gateway, upstream: kit.Upstream):
    model = upstream.plays(kit.begin_and_hold)
    with gateway.connect() as sock:
        sock.sendall(kit.chat(model, stream=True))
        reader = kit.Reader(sock)
        assert reader.head().status == 200
        sock.shutdown(socket.SHUT_WR)
        seen = b""
        with contextlib.suppress(OSError):
            while data := sock.recv(65_536):
                seen += data
    assert b"[DONE]" not in reader.rest + seen


def test_a_hundred_who_leave_cost_the_hundred_who_stay_nothing(gateway: kit.Gateway, upstream: kit.Upstream):
    """And nothing of theirs is left behind."""
    model = upstream.plays(kit.begin_and_hold)
    for n in range(100):
        with gateway.connect() as sock:
            sock.sendall(kit.chat(model, stream=True))
            if n % 2:
                kit.Reader(sock).head()
            kit.reset(sock)
        assert gateway.ask("up:stays", f"number {n}").json["choices"][0]["message"]["content"] == f"number {n}"
    kit.wait_until(lambda: all(asked.gone.is_set() for asked in upstream.of(model)), 3)
    # The scrape itself is not of the data plane.
    kit.wait_until(lambda: gateway.metric("router_active_requests") == 0, 3, 0.02)


# --- delays ---------------------------------------------------------------------------------------------------------


def test_an_event_passes_as_it_comes(gateway: kit.Gateway, upstream: kit.Upstream, figure: Callable[[str], None]):
    """No shelf of 40 ms, where a kernel waits for an acknowledgement before it sends a small segment."""

    def ticks(sock: socket.socket, asked: kit.Asked) -> None:
        sock.sendall(kit.STREAM_HEAD)
        for _ in range(100):
            time.sleep(0.02)
            sock.sendall(kit.chunk(kit.said(repr(time.monotonic()))))
        sock.sendall(kit.chunk(kit.LAST_WORDS) + kit.chunk(b""))

    model = upstream.plays(ticks)

    def delays(sock: socket.socket, model: str) -> list[float]:
        """Of each event in ms, from when its text says that it was written."""
        found = []
        sock.sendall(kit.chat(model, stream=True))
        reader = kit.Reader(sock)
        reader.head()
        for data in reader.chunks():
            now = time.monotonic()
            for event in data.split(b"\n\n"):
                if b'"content": "' in event and b'"content": ""' not in event:
                    text = json.loads(event.removeprefix(b"data: "))["choices"][0]["delta"]["content"]
                    found.append((now - float(text)) * 1000)
        return sorted(found)

    # Both ends are threads of this process: what it kept waiting itself shows in a stream without a gateway too.
    with (
        gateway.connect() as sock,
        socket.create_connection(("127.0.0.1", upstream.port), timeout=10) as straight,
        ThreadPoolExecutor(1) as beside,
    ):
        direct = beside.submit(delays, straight, model.removeprefix("up:"))
        through = delays(sock, model)
        without = direct.result(10)
    assert len(through) == len(without) == 100
    p50, p99 = statistics.median(through), through[98]
    figure(f"an event every 20 ms: p50 {p50:.2f} ms, p99 {p99:.2f} ms; without a gateway {without[98]:.2f} ms")
    assert p50 < 5
    assert through[89] < 25
    assert p99 - without[98] < 25


# --- callers who do nothing -----------------------------------------------------------------------------------------


@pytest.fixture
def many() -> Iterator[int]:
    """As many sockets as this machine lets us open, up to 2,000."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2000 if hard == resource.RLIM_INFINITY or hard > 4500 else 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted + 500), hard), hard))
    yield wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_thousands_of_idle_connections_do_no_harm(gateway: kit.Gateway, many: int, figure: Callable[[str], None]):
    """They were served once and are kept; everybody else is served as before, and so are they, later."""
    (pid,) = gateway.workers
    before = rss_kib(pid)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(gateway.connect()) for _ in range(many)]
        for sock in socks:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n")
        for sock in socks:
            assert kit.read_reply(sock).status == 200
        took = [kit.wait_until(lambda: gateway.ask("up:other").status == 200, 5) for _ in range(50)]
        each = (rss_kib(pid) - before) / many
        figure(f"{many} idle connections: {each:.1f} KiB each, others {statistics.median(took) * 1000:.1f} ms")
        assert statistics.median(took) < 0.1
        for sock in socks[:: many // 20]:
            sock.sendall(kit.chat("up:other"))
            assert kit.read_reply(sock).status == 200


def test_a_kept_connection_outlives_the_patience_of_a_load_balancer():
    """Theirs is usually 60 s: were ours shorter, requests would now and then meet a closing connection."""
    assert serving.IDLE_S > 60


def test_a_head_that_does_not_come_is_given_up(serve: Callable[..., kit.Gateway]):
    gateway = serve(constants={"fastroute.web.serving.IDLE_S": 0.4, "fastroute.web.listener.HEAD_S": 0.4})
    socks = [gateway.connect() for _ in range(50)]
    ended = []

    def drip(sock: socket.socket) -> None:
        began = time.monotonic()
        with sock, contextlib.suppress(OSError):
            sock.settimeout(0.05)
            for byte in b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nx-slow: " + b"a" * 200:
                sock.sendall(bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    if not sock.recv(100):
                        break
        ended.append(time.monotonic() - began)

    threads = [threading.Thread(target=drip, args=(sock,)) for sock in socks]
    for thread in threads:
        thread.start()
    assert gateway.ask("up:other").status == 200
    for thread in threads:
        thread.join(5)
    assert len(ended) == 50
    assert max(ended) < 2
