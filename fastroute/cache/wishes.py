"""What a caller wants of the cache, from two of its headers: `cache-control` in HTTP's own words, and `x-cache: use`."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

_AGE_MAX: Final = 2**31


class Wishes(Struct, frozen=True):
    """Whether an answer may be told again, whether this one may be kept, and whether that is asked for by name."""

    reads: bool = True
    keeps: bool = True
    asked: bool = False
    max_age_s: int = _AGE_MAX


_USUAL: Final = Wishes()


def wishes(cache_control: bytes | None, x_cache: bytes | None) -> Wishes:
    """`no-store` reads and keeps nothing, `no-cache` (and `max-age=0`) reads nothing, `max-age=N` and `x-cache: use` ask.

    What is not understood is passed over, as HTTP has it.
    """
    if cache_control is None and x_cache is None:
        return _USUAL
    reads = keeps = True
    asked = x_cache is not None and x_cache.strip().lower() == b"use"
    max_age_s = _AGE_MAX
    for word in (cache_control or b"").lower().split(b","):
        name, _, value = word.strip().partition(b"=")
        if name == b"no-store":
            reads = keeps = False
        elif name == b"no-cache":
            reads = False
        elif name == b"max-age" and value.isdigit() and len(value) < 16:
            max_age_s = min(int(value), _AGE_MAX)
            if max_age_s:
                asked = True
            else:
                reads = False
    return Wishes(reads, keeps, asked, max_age_s)
