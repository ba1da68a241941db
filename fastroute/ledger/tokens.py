"""Bearer tokens: how they are made, what of them is kept, and what of them may be shown.

A token is a prefix that scanners know, an id that people may say, a secret of 256 bits and a checksum, so that a
mistyped one is told apart from a dead one without asking anybody. Kept is only its HMAC under the house's pepper.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import zlib
from typing import Final, NamedTuple

_LETTERS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LETTERS: Final = 43  # 62**43 > 2**256
_SUM_LETTERS: Final = 6  # 62**6 > 2**32
_ID_LETTERS: Final = 8

# What a token of each kind of account begins with.
PREFIXES: Final = {"key": "fr_live_", "grant": "vk-", "agent": "ic_", "lease": "ip_"}


class Token(NamedTuple):
    """A token just made: the only moment its text is in anybody's hands here."""

    text: str
    id: str
    hint: str


def new_token(kind: str, seed: bytes | None = None) -> Token:
    """A token for a new account of that kind; from a secret `seed` of 32 bytes it is the same one every time."""
    entropy = secrets.token_bytes(64) if seed is None else hashlib.sha512(seed).digest()
    name = _spelled(int.from_bytes(entropy[32:40], "big"), _ID_LETTERS)
    secret = _spelled(int.from_bytes(entropy[:32], "big"), _SECRET_LETTERS)
    head = f"{PREFIXES[kind]}{name}_{secret}"
    text = head + _sum(head)
    return Token(text, name, f"{PREFIXES[kind]}{name}_...{text[-4:]}")


def well_formed(text: str) -> bool:
    """Whether a text is a whole token of ours, as far as its checksum tells."""
    head, sum_ = text[:-_SUM_LETTERS], text[-_SUM_LETTERS:]
    for prefix in PREFIXES.values():
        if text.startswith(prefix):
            size = len(prefix) + _ID_LETTERS + 1 + _SECRET_LETTERS
            return len(head) == size and hmac.compare_digest(_sum(head).encode(), sum_.encode("utf-8", "replace"))
    return False


def digest(pepper: bytes, token: bytes) -> bytes:
    """What is kept of a token, and what it is looked up by: all 256 bits of it."""
    return hmac.digest(pepper, token, "sha256")


def agent_key(pepper: bytes, name: str, endpoint: str) -> str:
    """What this house shows an agent at its endpoint, so that the agent knows who asks. It is stored nowhere."""
    secret = hmac.digest(pepper, f"agent\0{name}\0{endpoint}".encode(), "sha256")
    return f"ag_{_spelled(int.from_bytes(secret, 'big'), _SECRET_LETTERS)}"


def masked(token: str | None) -> str:
    """A token as it may be printed."""
    if token is None:
        return "(no key returned)"
    return f"{token[:8]}... ({len(token)} chars)" if len(token) > 8 else f"({len(token)} chars)"


def _sum(head: str) -> str:
    return _spelled(zlib.crc32(head.encode("utf-8", "replace")), _SUM_LETTERS)


def _spelled(number: int, width: int) -> str:
    letters = []
    for _ in range(width):
        number, place = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[place])
    return "".join(reversed(letters))
