"""The face of the hot records' writer: the arguments are the fields of `records`' structs, and so are the bytes."""

from typing import Any

def send(
    attempt: int,
    request: str,
    account: int,
    windows: tuple[int, ...],
    reserved: tuple[int, ...],
    entry: str,
    model: str,
    lane: str,
    at_ms: int,
    microdollars: int | None,
) -> bytes:
    """As `records.encode` of a `Send`."""

def settle(
    attempt: int,
    basis: str,
    outcome: str,
    status: int,
    charged: tuple[int, ...],
    spent: tuple[int, ...],
    usage: tuple[int, int, int, int, int],
    picodollars: int | None,
    microdollars: int | None,
    ms: int,
) -> bytes:
    """As `records.encode` of a `Settle`."""

def finish(
    request: str,
    account: int,
    decision: str,
    surface: str,
    asked: str,
    entry: str,
    reason: str,
    status: int,
    stream: bool,
    started_ms: int,
    latency_ms: int,
    first_chunk_ms: int | None,
    details: dict[str, Any],
) -> bytes:
    """As `records.encode` of a `Finish`."""
