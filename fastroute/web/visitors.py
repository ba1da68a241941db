"""Who visits an open house: this machine's own programs may, a stranger's page in a browser on it may not.

A browser names the page that asks in `Origin`, except to the page's own host; and a page can have its own name resolve to
this machine, but then that name stands in `Host`.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from fastroute.config.findings import is_loopback


def at_home(found: dict[bytes, bytes], own: str) -> bool:
    """Whether nobody elsewhere had this asked; `own` is the name that this machine has for itself."""
    return _is_answered(found[b"host"], found.get(b"origin"), own)


def refusal(found: dict[bytes, bytes]) -> str:
    """What is said to who is not."""
    origin = found.get(b"origin")
    page = "" if origin is None else f" for a page of {origin.decode('latin-1')!r}"
    return (
        f"asked as {found[b'host'].decode()!r}{page}: while nobody has a key, only programs and pages of this machine are "
        "answered; ask at 127.0.0.1 or localhost, or make a key with `fastroute keys create` and send it"
    )


@lru_cache(maxsize=256)  # the same few names, request after request; looked into each time they cost 15 us
def _is_answered(host: bytes, origin: bytes | None, own: str) -> bool:
    return _is_ours(_name(host), own) and (origin is None or _is_local_page(origin, own))


def _is_ours(name: str, own: str) -> bool:
    """No page on the web has an address, a name without a dot, or one of `.internal` (a container's for its host)."""
    if "." not in name or name == own or is_loopback(name) or name.endswith(".internal"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _is_local_page(origin: bytes, own: str) -> bool:
    """Programs that are made like pages have schemes of their own, which no page on the web has; `null` is anybody."""
    scheme, found, _ = origin.partition(b"://")
    if scheme in (b"http", b"https"):
        name = _name(origin[len(scheme) + 3 :])
        return name == own or is_loopback(name)
    return bool(found)


def _name(host: bytes) -> str:
    """A host without its port, as names are compared."""
    name = host.decode("latin-1").lower()
    before, _, port = name.rpartition(":")
    return (before if port.isdigit() and before else name).rstrip(".")
