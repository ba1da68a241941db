"""Cost grows with the bytes and with nothing else: twice the input takes less than three times the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from fastroute._scan import ChatStreamScanner, EventSplitter, RequestScanner, ScanError

SCANNER = RequestScanner((b"max_tokens", b"n"))


def scan(body: bytes) -> None:
    SCANNER.scan(body)


def refuse(body: bytes) -> None:
    with pytest.raises(ScanError):
        SCANNER.scan(body)


def split(stream: bytes) -> None:
    EventSplitter().feed(stream)


def split_bytewise(stream: bytes) -> None:
    feed = EventSplitter().feed
    for i in range(len(stream)):
        feed(stream[i : i + 1])


def relay(stream: bytes) -> None:
    ChatStreamScanner(True).feed(stream)


def relay_bytewise(stream: bytes) -> None:
    feed = ChatStreamScanner(True).feed
    for i in range(len(stream)):
        feed(stream[i : i + 1])


def listed(element: bytes, count: int) -> bytes:
    return b'{"a":[' + b",".join([element] * count) + b"]}"


def keys(form: str, count: int) -> bytes:
    return ("{" + ",".join(form.format(i) for i in range(count)) + "}").encode()


CASES: dict[str, tuple[Callable[[bytes], None], Callable[[int], bytes], int]] = {
    "short keys": (scan, lambda n: keys('"{:x}":0', n), 8_000),
    "long keys alike": (scan, lambda n: keys('"' + "x" * 200 + '{}":0', n), 2_000),
    "escaped keys": (scan, lambda n: keys('"\\u0061{:x}":0', n), 8_000),
    "small objects": (scan, lambda n: listed(b'{"":0}', n), 20_000),
    "empty arrays": (scan, lambda n: listed(b"[]", n), 40_000),
    "escapes": (scan, lambda n: b'{"a":"' + b"\\ud83d\\ude00" * n + b'"}', 20_000),
    "text beyond ASCII": (scan, lambda n: b'{"a":"' + "中".encode() * n + b'"}', 50_000),
    "white space": (scan, lambda n: b'{"a":' + b" \n" * n + b"1}", 100_000),
    "one number": (refuse, lambda n: b'{"a":' + b"1" * n + b"}", 200_000),
    "bare CRs": (split, lambda n: b"data: x\r" * n + b"\r", 40_000),
    "bare CRs before one LF": (split, lambda n: b"\r" * n + b"\n", 100_000),
    "blank lines": (split, lambda n: b"\n" * n, 100_000),
    "comments": (split, lambda n: b":\n" * n, 100_000),
    "data lines": (split, lambda n: b"data\n" * n + b"\n", 50_000),
    "colons": (split, lambda n: b"a:a::\n" * n + b"\n", 50_000),
    "one event byte by byte": (split_bytewise, lambda n: b"data: " + b"x" * n + b"\n\n", 50_000),
    "small events byte by byte": (split_bytewise, lambda n: b"data: x\r\n\r\n" * n, 4_000),
    "chunks": (relay, lambda n: b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n' * n, 3_000),
    "hidden chunks": (relay, lambda n: b'data: {"choices":[],"usage":{}}\n\n: x\n\n' * n, 3_000),
    "half a chunk byte by byte": (relay_bytewise, lambda n: b'data: {"choices":[{"x":"' + b"\\n" * n, 30_000),
}


def cpu(act: Callable[[bytes], None], data: bytes) -> float:
    """Nanoseconds of CPU of one act, repeated until there is something to measure."""
    start = time.process_time_ns()
    acts = 0
    while (took := time.process_time_ns() - start) < 1_000_000:
        act(data)
        acts += 1
    return took / acts


@pytest.mark.parametrize("case", CASES)
def test_twice_the_input_takes_less_than_three_times_as_long(case: str) -> None:
    """Small and large take turns, the best of each counts, and more turns are had while a noisy machine blurs it.

    Quadratic work is a ratio of 4 however often it is measured.
    """
    act, make, size = CASES[case]
    small, large = make(size), make(size * 2)
    best_small = best_large = float("inf")
    for turn in range(30):
        best_small = min(best_small, cpu(act, small))
        best_large = min(best_large, cpu(act, large))
        if turn >= 3 and best_large < 3 * best_small:
            return
    pytest.fail(f"{best_large / best_small:.1f} times as long")


@pytest.mark.parametrize("case", [case for case in CASES if "byte by byte" not in case])
def test_no_byte_costs_more_than_50_ns(case: str) -> None:
    """The bar for hostile streams; the worst measured is 20, for a stream of nothing but line ends."""
    act, make, size = CASES[case]
    data = make(size)
    assert min(cpu(act, data) for _ in range(5)) / len(data) < 50
