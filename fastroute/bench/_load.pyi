"""The compiled load generator."""

from typing import Any

def bucket_of(nanoseconds: int) -> int:
    """Where a duration is counted; `histogram` has the way back."""

def cpu_ns(pid: int) -> int | None:
    """User and system time of a process, ended threads included; None when there is none."""

def run(
    host: bytes,
    port: int,
    request: bytes,
    *,
    connections: int,
    warm_ns: int,
    window_ns: int,
    drain_ns: int,
    rate: float = 0,
    stream: bool = False,
    expected: bytes = b"",
    events: tuple[bytes, ...] = (),
    slots: bytes = b"",
    slot_at: int = 0,
    slot_size: int = 0,
    pids: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Ask over so many connections: `rate` requests a second, or, without one, each again as soon as it is answered.

    Counted is what is answered (at a fixed rate: what is due) in the window after the warm-up; `done` and `events` are
    what ended in the window, so that its CPU can be shared out. An answer that is not 200, not whole, or not there when
    `drain_ns` is over is told apart; at a fixed rate what is not there is in the latencies with what it waited. Answers
    are compared with `expected`, events of streams with `events`; a paced stream, which has none of them, has the
    instants of its writing inside, and `late` counts how old they came. Request n has value n of `slots` at `slot_at`.
    CPU of `pids` is read at both ends of the window.
    """
