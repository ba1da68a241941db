"""Where the bookkeeper of a state directory is found, for those who come to it: they load none of what it is made of."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastroute.errors import StoreError


class BooksTaken(StoreError):
    """Another process keeps the books of this state directory."""


def socket_path(state_dir: Path) -> Path:
    """Where the bookkeeper listens."""
    return state_dir / "run" / "books.sock"


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name for a socket that fits into its 107 bytes however long the path of its directory is."""
    text = str(path)
    if len(os.fsencode(text)) < 104 or not Path("/proc/self/fd").is_dir():
        yield text
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def answers(state_dir: Path) -> bool:
    """Whether a bookkeeper has the books open: it listens only then."""
    path = socket_path(state_dir)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            with reachable(path) as name:
                probe.connect(name)
        except OSError:
            return False
        return True
