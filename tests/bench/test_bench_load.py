"""The load and the provider against each other, without a gateway: what is counted, and what cannot be hidden."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import pytest

from fastroute.bench import _load, traffic
from fastroute.bench.load import Order, run
from fastroute.bench.subjects import Subject
from fastroute.bench.traffic import ANSWER, EVENTS, Pace

JSON = traffic.body(500)
BURST = traffic.body(500, stream=True)


def ask(upstream: Subject, body: bytes = JSON, **fields):
    usual = {"connections": 4, "seconds": 0.2, "warm_s": 0.05}
    return run(Order(port=upstream.port, request=upstream.request(body), **{**usual, **fields}))


def faults(told) -> dict[str, int]:
    names = ("wrong_status", "lost", "refused", "cut", "unanswered")
    return {name: told[name] for name in names if told[name]}


@pytest.mark.parametrize("size", [500, 4_000, 32_000])
def test_a_body_has_the_size_that_was_asked_for(size):
    assert len(traffic.body(size)) == len(traffic.body(size, stream=True)) == size


def test_a_closed_loop_asks_again_and_again(upstream):
    told = ask(upstream, expected=ANSWER)
    assert told["answers"] > 100
    assert not faults(told)
    assert told["changed"] == 0
    assert sum(told["latency"]["counts"].values()) == told["answers"]


def test_one_changed_byte_is_noticed(upstream):
    told = ask(upstream, expected=ANSWER.replace(b"lazy", b"hazy", 1))
    assert told["changed"] == told["answers"] > 0


def test_a_byte_too_few_or_too_many_is_noticed(upstream):
    for expected in (ANSWER[:-1], ANSWER + b" "):
        told = ask(upstream, expected=expected)
        assert told["changed"] == told["answers"] > 0


def test_a_burst_comes_whole_and_unchanged(upstream):
    told = ask(upstream, BURST, stream=True, events=EVENTS)
    assert told["answers"] > 10
    assert not faults(told)
    assert told["changed"] == told["comments"] == 0
    # Streams that are open at an end of the window give it some of their events.
    assert abs(told["events"] - told["done"] * len(EVENTS)) <= 4 * len(EVENTS)
    assert sum(told["first"]["counts"].values()) == told["answers"]


@pytest.mark.parametrize("place", [0, 10, 22])
def test_one_changed_event_is_noticed(upstream, place):
    events = [*EVENTS]
    events[place] = events[place].replace(b"o", b"0", 1) if place < 22 else b"data: [END]\n\n"
    told = ask(upstream, BURST, stream=True, events=tuple(events))
    assert told["changed"] == told["answers"] > 0


def test_a_paced_stream_tells_how_old_its_events_are(upstream):
    body = traffic.body(500, stream=True, pace=Pace(10_000, 5_000, 10))
    told = ask(upstream, body, stream=True, rate=50, connections=32, seconds=0.4)
    assert not faults(told)
    assert told["answers"] == 20
    ages = told["late"]["counts"]
    assert sum(ages.values()) > 100
    first = min(told["first"]["counts"])
    assert first >= _load.bucket_of(10_000_000)  # never before its wait is over


def test_an_answer_that_is_no_stream_is_a_cut_one(upstream):
    told = ask(upstream, JSON, stream=True)
    assert told["cut"] > 0
    assert told["answers"] == 0


def test_nobody_there_is_a_fault_at_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        began = time.monotonic()
        told = run(Order(port=probe.getsockname()[1], request=b"x", connections=2, seconds=5))
    assert told["refused"] > 0
    assert time.monotonic() - began < 4


def test_a_stall_is_charged_to_everybody_it_kept_waiting(upstream):
    """200 a second and 0.4 s of silence: 80 requests were due in it, and each counts from when it was due.

    Counted from when they were sent, or only those under way, a handful would look slow and the median would be clean.
    """
    stall = threading.Timer(0.3, os.kill, (upstream.pid, signal.SIGSTOP))
    again = threading.Timer(0.7, os.kill, (upstream.pid, signal.SIGCONT))
    stall.start()
    again.start()
    try:
        told = ask(upstream, rate=200, connections=2, seconds=1.0)
    finally:
        stall.join()
        again.join()
        os.kill(upstream.pid, signal.SIGCONT)
    counts = told["latency"]["counts"]
    assert sum(counts.values()) == 200
    slow = sum(count for bucket, count in counts.items() if bucket > _load.bucket_of(100_000_000))
    assert slow >= 50  # 60 of them waited 100 ms or more; a busy machine only adds to them
    assert told["latency"]["most"] >= 300_000_000
    assert not faults(told)


def test_who_never_answers_is_in_the_latencies_too(upstream, monkeypatch):
    monkeypatch.setattr("fastroute.bench.load.DRAIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = run(
            Order(
                port=silent.getsockname()[1],
                request=upstream.request(JSON),
                connections=1,
                seconds=0.3,
                rate=100,
                warm_s=0,
            )
        )
    assert told["answers"] == 0
    assert told["unanswered"] == 30
    assert sum(told["latency"]["counts"].values()) == 30
    assert told["latency"]["most"] >= 400_000_000


def test_each_request_takes_the_next_value_of_its_slot():
    seen: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        caller, _ = listener.accept()
        with caller:
            while data := caller.recv(65536):
                seen.append(data[-2:])
                caller.sendall(traffic.whole(b"{}"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve, args=(listener,), daemon=True)
        serving.start()
        asked = traffic.request(b"aa", "x")
        run(
            Order(
                port=listener.getsockname()[1],
                request=asked,
                connections=1,
                seconds=0.2,
                warm_s=0,
                slots=b"aabbcc",
                slot_at=len(asked) - 2,
                slot_size=2,
            )
        )
        serving.join(5)
    assert seen[:4] == [b"aa", b"bb", b"cc", b"aa"]


def test_slots_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        _load.run(b"127.0.0.1", 1, b"x", connections=1, warm_ns=0, window_ns=1, drain_ns=1, slots=b"aab", slot_size=2)


def test_the_cpu_of_a_process_is_seen_within_the_window(upstream):
    told = ask(upstream, pids=(upstream.pid,), connections=8)
    spent = told["cpu_ns"][upstream.pid]
    assert 0 < spent <= told["window_ns"] * 1.1
    assert told["own_ns"] > 0
