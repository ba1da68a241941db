"""The keys receipts are signed with: files `receipts-1.key`, `receipts-2.key` ... of which the highest number signs.

All of them verify. A new file is a rotation, and needs no restart. A text handed in from the environment signs before any file.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastroute.config.findings import WEAK_SECRETS
from fastroute.config.secret import Secret
from fastroute.errors import ConfigError, Problem

KEY_BYTES_MIN: Final = 32
_FILE: Final = re.compile(r"receipts-([1-9][0-9]{0,8})\.key")
_VARIETY_MIN: Final = 8  # distinct characters; 32 random hexadecimal digits have fewer once in ten million
_FILE_MAX: Final = 4096
_GIVEN: Final = "the secret of receipts (JWT_SECRET)"


class Keyring(Mapping[str, bytes]):
    """Every key by its id (`kid`), and which one signs; it never shows a key by accident."""

    __slots__ = ("_directory", "_given", "_keys", "_names", "kid")

    def __init__(self, directory: Path, given: Secret | None, names: frozenset[str], keys: dict[str, bytes], kid: str):
        self._directory = directory
        self._given = given
        self._names = names
        self._keys = keys
        self.kid = kid

    @property
    def key(self) -> bytes:
        """The one that signs."""
        return self._keys[self.kid]

    def __getitem__(self, kid: str) -> bytes:
        return self._keys[kid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(self._keys)}; {self.kid} signs>"

    def renewed(self) -> Keyring | None:
        """The keys as they are now, when files came or went since; None when not. On `ConfigError` this one still holds."""
        if _names(self._directory) == self._names:
            return None
        return load_keys(self._directory, self._given)


def open_keys(directory: Path, given: Secret | None = None) -> Keyring:
    """The keys of a state directory, and on its first start a new one; for the one process that signs."""
    if given is None and not _names(directory):
        add_key(directory)
    return load_keys(directory, given)


def load_keys(directory: Path, given: Secret | None = None) -> Keyring:
    """Every usable key; `ConfigError` with all that are not, naming each and showing none."""
    names = _names(directory)
    problems: list[Problem] = []
    keys: dict[str, bytes] = {}
    for name in sorted(names, key=_number):
        path = directory / name
        try:
            with path.open("rb") as file:
                text = file.read(_FILE_MAX).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            problems.append(Problem(str(path), f"this key cannot be read: {why}"))
            continue
        if (weak := weakness(text)) is not None:
            problems.append(Problem(str(path), f"{weak}; remove it, or write `openssl rand -hex 32` there"))
        keys[str(_number(name))] = text.encode()
    if given is not None:
        text = given.reveal().strip()
        if (weak := weakness(text)) is not None:
            problems.append(Problem(_GIVEN, f"{weak}; set the output of `openssl rand -hex 32`, or nothing"))
        keys[f"env-{hashlib.sha256(b'fastroute kid ' + text.encode()).hexdigest()[:8]}"] = text.encode()
    if problems:
        raise ConfigError(problems)
    if not keys:
        raise ConfigError(
            [Problem(str(directory), "there is no key for receipts; the first start of a server makes one")]
        )
    return Keyring(directory, given, names, keys, next(reversed(keys)))


def add_key(directory: Path) -> str:
    """Write a new random key, durable and readable by its owner only, which signs from now on; returns its id."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = directory / f".receipts-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, secrets.token_hex(32).encode() + b"\n")
        os.fsync(fd)
        while True:
            number = max((_number(name) for name in _names(directory)), default=0) + 1
            # A link, not a rename: no key is ever overwritten by one that was made at the same moment.
            with suppress(FileExistsError):
                (directory / f"receipts-{number}.key").hardlink_to(scratch)
                break
    finally:
        os.close(fd)
        scratch.unlink(missing_ok=True)
    sync_directory(directory)
    return str(number)


def weakness(text: str) -> str | None:
    """Why a text is no secret; None when it may be one."""
    if not text:
        return "the secret is empty"
    if text.lower() in WEAK_SECRETS:
        return "the secret is one that stands in examples"
    if len(text.encode()) < KEY_BYTES_MIN:
        return f"the secret is shorter than {KEY_BYTES_MIN} bytes"
    if len(set(text)) < _VARIETY_MIN or (text + text).find(text, 1) < len(text):
        return "the secret repeats itself"
    return None


def sync_directory(directory: Path) -> None:
    """Make the names of a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _names(directory: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in directory.iterdir() if _FILE.fullmatch(path.name))
    except FileNotFoundError:
        return frozenset()


def _number(name: str) -> int:
    match = _FILE.fullmatch(name)
    assert match is not None
    return int(match[1])
