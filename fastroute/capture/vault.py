"""AES-256-GCM under keys of the state directory: `content-1.key`, `content-2.key` ... of which the highest number encrypts.

All of them open what they closed; a new file is a rotation. The id of the receipt is bound to what is kept under it, so
that nothing can be shown as the content of another request. The only file that knows the `cryptography` package.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastroute.errors import FastrouteError

_FILE: Final = re.compile(r"content-([1-9][0-9]{0,8})\.key")
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FORMAT: Final = b"\x01"
_HEAD: Final = 1 + 4 + _NONCE_BYTES  # format, number of the key, nonce
_VARIETY_MIN: Final = 8  # random bytes have fewer different ones less than once in 10**30 keys


class CaptureError(FastrouteError):
    """Captured content cannot be closed or opened; it says why, and shows none of it."""


def installed() -> bool:
    """Whether there is anything to encrypt with."""
    return find_spec("cryptography") is not None


class Vault:
    """The keys of one state directory."""

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        self._keys = dict(keys)

    def __repr__(self) -> str:
        return f"<Vault of {len(self._keys)} keys>"

    @classmethod
    def open(cls, directory: Path, *, make: bool = False) -> Vault:
        """Every key there; with `make` a first one is made where there is none. `CaptureError` when none can be used."""
        if not installed():
            raise CaptureError("content is encrypted with a package that is not here: pip install 'fastroute[capture]'")
        with _readable(directory):
            if make and not _numbers(directory):
                _make(directory)
            keys = {number: _read(directory / f"content-{number}.key") for number in _numbers(directory)}
        if not keys:
            raise CaptureError(f"{directory} has no content-1.key, without which nothing that was captured can be read")
        return cls(keys)

    def is_of(self, directory: Path) -> bool:
        """Whether these are the keys that are there now: none was added, and none destroyed. `CaptureError` as above."""
        with _readable(directory):
            return self._keys.keys() == set(_numbers(directory))

    def close(self, name: str, content: bytes) -> bytes:
        """Encrypted under the newest key, for the receipt of that name alone."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        number = max(self._keys)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = _FORMAT + number.to_bytes(4, "big") + nonce
        return head + AESGCM(self._keys[number]).encrypt(nonce, content, _bound(name, head))

    def unclose(self, name: str, kept: bytes) -> bytes:
        """What `close` was given; `CaptureError` for another receipt's, for what was altered, and for a key that is gone."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        head = kept[:_HEAD]
        if len(head) < _HEAD or head[:1] != _FORMAT:
            raise CaptureError(f"what is kept as the content of {name} is none")
        number = int.from_bytes(head[1:5], "big")
        key = self._keys.get(number)
        if key is None:
            raise CaptureError(
                f"the content of {name} was closed with content-{number}.key, which is not here any more"
            )
        try:
            return AESGCM(key).decrypt(head[5:], kept[_HEAD:], _bound(name, head))
        except InvalidTag:
            raise CaptureError(
                f"the content of {name} was altered, is another receipt's, or was closed with another content-{number}.key"
            ) from None


def _bound(name: str, head: bytes) -> bytes:
    return name.encode() + b"\0" + head[:5]


@contextmanager
def _readable(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CaptureError(f"the key {error.filename or directory} cannot be used: {error.strerror}") from error


def _numbers(directory: Path) -> list[int]:
    try:
        return sorted(int(found[1]) for path in directory.iterdir() if (found := _FILE.fullmatch(path.name)))
    except FileNotFoundError:
        return []


def _read(path: Path) -> bytes:
    """One key, 64 hexadecimal digits, which only its owner may read."""
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)  # tightened rather than refused: volume mounts widen modes on every start of a container
    with path.open("rb") as file:
        text = file.read(1024).strip()
    try:
        key = bytes.fromhex(text.decode())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES or len(set(key)) < _VARIETY_MIN:
        raise CaptureError(f"the key {path} is not 64 random hexadecimal digits; write `openssl rand -hex 32` there")
    return key


def _make(directory: Path) -> None:
    """The first key, whole and durable or not at all; whoever comes second uses the first one's."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = directory / f".content-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, secrets.token_hex(_KEY_BYTES).encode() + b"\n")
        os.fsync(descriptor)
        with suppress(FileExistsError):
            (directory / "content-1.key").hardlink_to(scratch)
    finally:
        os.close(descriptor)
        scratch.unlink(missing_ok=True)
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
