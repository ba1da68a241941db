"""The house's pepper: what digests of tokens are made with. A file of 32 random bytes that only its owner may read.

Without it no token that was ever given out opens anything, so it is made once, whole, and never written again.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from fastroute.errors import StoreError

SECRET_BYTES: Final = 32
_VARIETY_MIN: Final = 8  # random bytes have fewer different ones less than once in 10**30 files
_READ_MAX: Final = 4096


def pepper(state_dir: Path) -> bytes:
    """The pepper of a state directory, made on its first start; `StoreError` when it cannot be one."""
    directory = state_dir / "secrets"
    path = directory / "pepper"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _tighten(directory, 0o700)
        if not path.exists():
            _make(path)
        _tighten(path, 0o600)
        with path.open("rb") as file:
            found = file.read(_READ_MAX)
    except OSError as error:
        raise StoreError(f"the secret {error.filename or path} cannot be used: {error.strerror}") from error
    if len(found) < SECRET_BYTES or len(set(found)) < _VARIETY_MIN:
        raise StoreError(
            f"the secret {path} is no random text of at least {SECRET_BYTES} bytes; put the right one back from a copy, "
            "or remove it and make all keys anew"
        )
    return found


def _tighten(path: Path, mode: int) -> None:
    # Tightened rather than refused: volume mounts widen modes on every start of a container.
    if path.stat().st_mode & 0o077:
        path.chmod(mode)


def _make(path: Path) -> None:
    """Write it under another name and link it: whoever comes second finds the first one's, and nobody finds half."""
    scratch = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(descriptor)
        try:
            path.hardlink_to(scratch)
        except FileExistsError:
            return
    finally:
        scratch.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
