"""The heads of requests and of answers: what a caller's headers say, and the headers that tell of a request."""

from collections.abc import Iterable, Mapping
from typing import Any

from fastroute.domain import Usage
from fastroute.errors import FastrouteError

SINGLE: frozenset[bytes]
PASSED: frozenset[bytes]

class HeadError(FastrouteError):
    """Headers were refused; `encoded` when it is only for a content-encoding."""

    message: str
    encoded: bool

    def __init__(self, message: str, encoded: bool = False) -> None: ...

def look(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers that matter here, by name; `HeadError` for what two readers could read in two ways."""

def length(found: dict[bytes, bytes]) -> int:
    """The announced length of the body: -1 where it comes in chunks, 0 where there is none, -2 for what is no length."""

def credential(found: dict[bytes, bytes], query: bytes) -> bytes | None:
    """The caller's key, wherever its client puts it."""

def whole(message: Mapping[str, Any], length: int) -> bytes | None:
    """The body, if a request's first message has all of it: so many bytes; None is no verdict."""

def names(request: str, decision: str, upstream_ids: list[bytes]) -> list[tuple[bytes, bytes]]:
    """What a request is called, here and where it went; empty texts are left out."""

def accounts(elapsed_s: float, cost_picodollars: int | None, usage: Usage | None) -> list[tuple[bytes, bytes]]:
    """What a request took; what is not known is left out."""

def content(kind: bytes, body: bytes) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """The two headers of a body that is sent whole."""

def comment(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Headers as the comment of an event stream."""
