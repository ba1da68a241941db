"""Files that processes share by mapping them: how one is made, whole or not at all, and which boot of the machine it is of."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str:
    """Which boot of this machine it is, and with it which monotonic clock; empty where the kernel does not tell."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def boot_bytes() -> bytes:
    """The same in 16 bytes, zeros where it is not told, for the head of a file."""
    return bytes.fromhex(boot().replace("-", "")).ljust(16, b"\0")


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Others wait; the kernel lets go of the lock of a process that dies in the middle."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def make(path: Path, size: int, head: bytes) -> int:
    """A new file, its owner's alone, of zeros after its head; it takes its name, from another if need be, when it is whole.

    One process at a time. Whoever has mapped the other keeps that.
    """
    unborn = path.with_name(path.name + ".new")
    unborn.unlink(missing_ok=True)
    fd = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        allocate(fd, size)
        os.pwrite(fd, head, 0)
        unborn.rename(path)
    except BaseException:
        os.close(fd)
        unborn.unlink(missing_ok=True)
        raise
    return fd


def allocate(fd: int, size: int) -> None:
    """Every block of a new file: a store into a mapped page that the disk has no room for would be a SIGBUS.

    Where the system cannot do it at once, zeros are written, which takes longer and comes to the same.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    zeros = memoryview(bytes(1024 * 1024))
    offset = 0
    while offset < size:
        offset += os.pwrite(fd, zeros[: size - offset], offset)
