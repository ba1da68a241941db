"""The files by which a host of weights and those who use it know of one another; locks tell who lives.

`KEY.lock` is held by the host for its life, `KEY.held` by everybody who uses it: the kernel lets both go however a process
ends, so neither side ever trusts a number that somebody wrote down. `KEY.json` says where the host listens.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

# Somebody who looks whether a host lives holds its lock for a moment; a host that starts must outwait that.
_CLAIM_S: Final = 2.0
_LOOK_S: Final = 0.02


class Told(Struct, frozen=True):
    """What a host says of itself."""

    state: Literal["loading", "ready", "failed"]
    pid: int
    at: float  # seconds since the epoch
    port: int = 0
    token: str = ""
    message: str = ""


class Place:
    """The files of one host; `claim` is the host's, everything else anybody's."""

    def __init__(self, directory: Path, key: str) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory, self.key = directory.absolute(), key
        self.log = self.directory / f"{key}.log"
        self._told = self.directory / f"{key}.json"
        self._life = _open(self.directory / f"{key}.lock")
        self._held = _open(self.directory / f"{key}.held")

    def close(self) -> None:
        """Use it no longer."""
        for descriptor in (self._life, self._held):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def alive(self) -> bool:
        """Whether a host lives here: two calls of the kernel."""
        try:
            fcntl.flock(self._life, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._life, fcntl.LOCK_UN)
        return False

    def hold(self) -> None:
        """Be one of those for whom the host stays."""
        fcntl.flock(self._held, fcntl.LOCK_SH)

    def told(self) -> Told | None:
        """What the last host said."""
        try:
            return msgspec.json.decode(self._told.read_bytes(), type=Told)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def stamp(self) -> tuple[int, int] | None:
        """Which of the things ever told is told now; another host's is another."""
        try:
            found = self._told.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    # What only a host does.

    def claim(self) -> bool:
        """Be the host, for the rest of this process; False when there is one."""
        until = time.monotonic() + _CLAIM_S
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._life, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.forget()
                return True
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_S)

    def tell(self, told: Told) -> None:
        """Say it to everybody, whole or not at all."""
        scratch = self._told.with_suffix(".new")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(told))
        scratch.replace(self._told)

    def forget(self) -> None:
        self._told.unlink(missing_ok=True)

    def alone(self) -> bool:
        """Whether nobody uses the host; if so nobody can begin to before `shared` is called, or the process ends."""
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def shared(self) -> None:
        fcntl.flock(self._held, fcntl.LOCK_UN)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
